//! The access file (`access.toml`): users, service keys, names of client certificates, and roles with what they grant.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;
use serde_spanned::Spanned;
use translator::catalog::{ALL_TABLES, Catalog, GrantedColumns, TableGrant};

use super::passwords::PasswordHash;
use super::{ANONYMOUS, Caller, Granted, PlanDetail, Rights, Sees};

/// What an access file says, whole and checked.
#[derive(Debug)]
pub struct Access {
    pub(super) users: HashMap<String, User>,
    /// By their id.
    pub(super) keys: HashMap<String, ServiceKey>,
    /// User by the name in a certificate.
    pub(super) certificates: HashMap<String, String>,
    roles: BTreeMap<String, Role>,
}

#[derive(Debug)]
pub(super) struct User {
    pub(super) password: Option<PasswordHash>,
    pub(super) disabled: bool,
    pub(super) require_certificate: bool,
    networks: Vec<IpNet>,
    /// Unix seconds: tokens that were issued before are void.
    pub(super) not_before: Option<i64>,
    roles: BTreeSet<String>,
}

#[derive(Debug)]
pub(super) struct ServiceKey {
    /// SHA-256 of the whole key.
    pub(super) sha256: [u8; 32],
    pub(super) user: String,
    /// Unix seconds.
    pub(super) expires: Option<i64>,
}

#[derive(Debug)]
struct Role {
    grants: BTreeSet<TableGrant>,
    system: BTreeSet<String>,
    plan: PlanDetail,
    admin: bool,
}

/// Everything that is wrong with an access file, each with its line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct AccessFaults(Vec<String>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccessToml {
    #[serde(default)]
    user: Vec<UserToml>,
    #[serde(default)]
    key: Vec<KeyToml>,
    #[serde(default)]
    certificate: Vec<CertificateToml>,
    #[serde(default)]
    role: Vec<RoleToml>,
    #[serde(default)]
    restrict: Vec<Spanned<toml::Table>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserToml {
    name: Spanned<String>,
    password_hash: Option<Spanned<String>>,
    roles: Vec<Spanned<String>>,
    #[serde(default)]
    networks: Vec<Spanned<String>>,
    not_before: Option<Spanned<toml::value::Datetime>>,
    #[serde(default)]
    disabled: bool,
    #[serde(default)]
    require_certificate: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyToml {
    id: Spanned<String>,
    sha256: Spanned<String>,
    user: Spanned<String>,
    expires: Option<Spanned<toml::value::Datetime>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateToml {
    name: Spanned<String>,
    user: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleToml {
    name: Spanned<String>,
    #[serde(default)]
    table: Vec<TableToml>,
    #[serde(default)]
    system: Vec<Spanned<String>>,
    plan: Option<PlanDetail>,
    #[serde(default)]
    admin: bool,
    options: Option<Spanned<toml::Value>>,
    limits: Option<Spanned<toml::Value>>,
    pool: Option<Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableToml {
    name: Spanned<String>,
    columns: Option<Vec<Spanned<String>>>,
    except: Option<Vec<Spanned<String>>>,
    rows: Option<Spanned<toml::Value>>,
    mask: Option<Spanned<toml::Value>>,
}

/// Faults with the lines of a text.
struct Faults<'a> {
    file: String,
    text: &'a str,
    found: Vec<(usize, String)>,
}

impl Faults<'_> {
    fn line(&self, at: usize) -> usize {
        self.text.get(..at).unwrap_or_default().matches('\n').count() + 1
    }

    fn report<T>(&mut self, place: &Spanned<T>, message: impl std::fmt::Display) {
        let line = self.line(place.span().start);
        self.found.push((line, format!("{}:{line}: {message}", self.file)));
    }

    fn twice(&mut self, place: &Spanned<String>, what: &str, is_new: bool) {
        if !is_new {
            self.report(place, format!("{what} `{}` is defined twice", place.get_ref()));
        }
    }

    fn finish(mut self) -> AccessFaults {
        self.found.sort();
        AccessFaults(self.found.into_iter().map(|(_, fault)| fault).collect())
    }
}

/// What a version that doesn't enforce it must not pass over.
const NOT_ENFORCED: &str = "isn't enforced by this version, so it is refused";

impl Access {
    /// Reads the file against the catalog whose tables and columns it grants.
    ///
    /// # Errors
    /// All faults of the file.
    pub fn read(path: &Path, catalog: &Catalog) -> Result<Self, AccessFaults> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| AccessFaults(vec![format!("cannot read the access file {}: {error}", path.display())]))?;
        warn_of_readers(path);
        Self::parse(&text, &path.display().to_string(), catalog)
    }

    pub(super) fn parse(text: &str, file: &str, catalog: &Catalog) -> Result<Self, AccessFaults> {
        let mut faults = Faults { file: file.to_owned(), text, found: Vec::new() };
        let written: AccessToml = match toml::from_str(text) {
            Ok(written) => written,
            Err(error) => {
                let line = faults.line(error.span().map_or(0, |span| span.start));
                return Err(AccessFaults(vec![format!("{file}:{line}: {}", error.message())]));
            }
        };
        for restrict in &written.restrict {
            faults.report(restrict, format!("[[restrict]] {NOT_ENFORCED}"));
        }
        let roles = read_roles(written.role, catalog, &mut faults);
        let mut users = HashMap::new();
        for user in written.user {
            let name = user.name.clone();
            let read = read_user(user, &roles, &mut faults);
            faults.twice(&name, "user", users.insert(name.get_ref().clone(), read).is_none());
        }
        let (mut keys, mut certificates) = (HashMap::new(), HashMap::new());
        for key in written.key {
            let id = key.id.clone();
            if let Some(read) = read_key(key, &users, &mut faults) {
                faults.twice(&id, "key", keys.insert(id.get_ref().clone(), read).is_none());
            }
        }
        for CertificateToml { name, user } in written.certificate {
            known_user(&user, &users, &mut faults);
            let is_new = certificates.insert(name.get_ref().clone(), user.into_inner()).is_none();
            faults.twice(&name, "certificate", is_new);
        }
        let access = Self { users, keys, certificates, roles };
        if faults.found.is_empty() { Ok(access) } else { Err(faults.finish()) }
    }

    /// A caller of this name with the roles of the access file.
    pub(super) fn caller(&self, name: &str, roles: &BTreeSet<String>) -> Arc<Caller> {
        let held: Vec<&Role> = roles.iter().filter_map(|role| self.roles.get(role)).collect();
        Arc::new(Caller {
            name: name.to_owned(),
            sees: Sees::Granted(Arc::new(held.iter().flat_map(|role| role.grants.iter().cloned()).collect())),
            rights: Rights {
                system: Granted::Only(held.iter().flat_map(|role| role.system.iter().cloned()).collect()),
                plan: held.iter().map(|role| role.plan).max().unwrap_or(PlanDetail::None),
                admin: held.iter().any(|role| role.admin),
            },
        })
    }

    /// A user as a caller, from where they call.
    pub(super) fn user(&self, name: &str, address: Option<IpAddr>) -> Option<(&User, Arc<Caller>)> {
        let user = self.users.get(name)?;
        let is_near = |address: IpAddr| user.networks.iter().any(|network| network.contains(&address.to_canonical()));
        let is_allowed = !user.disabled && (user.networks.is_empty() || address.is_some_and(is_near));
        is_allowed.then(|| (user, self.caller(name, &user.roles)))
    }

    /// A user as they are now, wherever they call from.
    pub(super) fn still(&self, name: &str) -> Option<Arc<Caller>> {
        let user = self.users.get(name).filter(|user| !user.disabled)?;
        Some(self.caller(name, &user.roles))
    }

    /// Whoever presents nothing has the role `anonymous`, if there is one.
    pub(super) fn anonymous(&self) -> Arc<Caller> {
        self.caller(ANONYMOUS, &BTreeSet::from([ANONYMOUS.to_owned()]))
    }
}

impl std::fmt::Display for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (users, keys, roles) = (self.users.len(), self.keys.len(), self.roles.len());
        write!(f, "{users} users, {keys} service keys, {roles} roles")
    }
}

fn read_roles(written: Vec<RoleToml>, catalog: &Catalog, faults: &mut Faults<'_>) -> BTreeMap<String, Role> {
    let mut roles = BTreeMap::new();
    for role in written {
        for (key, value) in [("options", &role.options), ("limits", &role.limits), ("pool", &role.pool)] {
            if let Some(value) = value {
                faults.report(value, format!("`{key}` of a role {NOT_ENFORCED}"));
            }
        }
        let system_tables = translator::SYSTEM_TABLES;
        for table in &role.system {
            if !system_tables.contains(&table.get_ref().as_str()) {
                faults.report(
                    table,
                    format!("there is no system.{}; expected {}", table.get_ref(), system_tables.join(", ")),
                );
            }
        }
        let read = Role {
            grants: role.table.into_iter().filter_map(|table| read_grant(table, catalog, faults)).collect(),
            system: role.system.into_iter().map(Spanned::into_inner).collect(),
            plan: role.plan.unwrap_or(PlanDetail::Summary),
            admin: role.admin,
        };
        faults.twice(&role.name, "role", roles.insert(role.name.get_ref().clone(), read).is_none());
    }
    roles
}

fn read_grant(table: TableToml, catalog: &Catalog, faults: &mut Faults<'_>) -> Option<TableGrant> {
    for (key, value) in [("rows", &table.rows), ("mask", &table.mask)] {
        if let Some(value) = value {
            faults.report(value, format!("`{key}` of a table {NOT_ENFORCED}"));
        }
    }
    let name = table.name.get_ref();
    let entity = catalog.entity(name);
    if entity.is_none() && name != ALL_TABLES {
        faults.report(&table.name, format!("the catalog has no entity `{name}`"));
    }
    let mut names = |columns: Vec<Spanned<String>>| -> BTreeSet<String> {
        for column in &columns {
            if let Some(entity) = entity
                && !entity
                    .public_columns()
                    .any(|known| entity.column_name(known).eq_ignore_ascii_case(column.get_ref()))
            {
                faults.report(column, format!("`{}` has no column `{}`", entity.name, column.get_ref()));
            }
        }
        columns.into_iter().map(|column| column.get_ref().to_ascii_lowercase()).collect()
    };
    let columns = match (table.columns, table.except) {
        (Some(columns), None) => GrantedColumns::Only(names(columns)),
        (None, Some(columns)) => GrantedColumns::Except(names(columns)),
        _ => {
            faults.report(
                &table.name,
                format!("`{name}`: expected one of `columns` and `except`; except = [] grants all columns"),
            );
            return None;
        }
    };
    Some(TableGrant { table: table.name.into_inner(), columns })
}

fn read_user(user: UserToml, roles: &BTreeMap<String, Role>, faults: &mut Faults<'_>) -> User {
    let name = user.name.get_ref();
    // A colon ends the name in HTTP's Basic credentials (RFC 7617).
    if name.is_empty()
        || name.contains(':')
        || name.chars().any(char::is_control)
        || [ANONYMOUS, "token"].contains(&name.as_str())
    {
        faults.report(
            &user.name,
            "expected a name without `:` and control characters; `token` stands for a token in the password's place, and \
             `anonymous` for nobody",
        );
    }
    let mut password = None;
    if let Some(hash) = &user.password_hash {
        match PasswordHash::parse(hash.get_ref()) {
            Ok(read) => password = Some(read),
            Err(message) => faults.report(hash, message),
        }
    }
    for role in &user.roles {
        if !roles.contains_key(role.get_ref()) {
            faults.report(role, format!("there is no role `{}`", role.get_ref()));
        }
    }
    let mut networks = Vec::new();
    for network in &user.networks {
        match network.get_ref().parse::<IpNet>() {
            Ok(read) => networks.push(read),
            Err(_) => faults
                .report(network, format!("`{}` is no network; expected one such as 10.0.0.0/8", network.get_ref())),
        }
    }
    User {
        password,
        disabled: user.disabled,
        require_certificate: user.require_certificate,
        networks,
        not_before: user.not_before.and_then(|time| seconds(&time, faults)),
        roles: user.roles.into_iter().map(Spanned::into_inner).collect(),
    }
}

fn read_key(key: KeyToml, users: &HashMap<String, User>, faults: &mut Faults<'_>) -> Option<ServiceKey> {
    known_user(&key.user, users, faults);
    if key.id.get_ref().is_empty() || !key.id.get_ref().chars().all(|letter| letter.is_ascii_alphanumeric()) {
        faults.report(&key.id, "expected an id of letters and digits");
    }
    let expires = key.expires.and_then(|time| seconds(&time, faults));
    let mut sha256 = [0; 32];
    if hex::decode_to_slice(key.sha256.get_ref(), &mut sha256).is_err() {
        faults.report(
            &key.sha256,
            "expected a SHA-256 digest of 64 hexadecimal digits, as `thermocline auth new-key` prints it",
        );
        return None;
    }
    Some(ServiceKey { sha256, user: key.user.into_inner(), expires })
}

fn known_user(name: &Spanned<String>, users: &HashMap<String, User>, faults: &mut Faults<'_>) {
    if !users.contains_key(name.get_ref()) {
        faults.report(name, format!("there is no user `{}`", name.get_ref()));
    }
}

/// Unix seconds of a time with its offset.
fn seconds(time: &Spanned<toml::value::Datetime>, faults: &mut Faults<'_>) -> Option<i64> {
    let parsed = chrono::DateTime::parse_from_rfc3339(&time.get_ref().to_string());
    if parsed.is_err() {
        faults.report(time, "expected a time with its offset, such as 2026-11-01T00:00:00Z");
    }
    parsed.ok().map(|time| time.timestamp())
}

/// Hashes of passwords that others may read can be guessed at leisure.
fn warn_of_readers(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o004 != 0) {
        tracing::warn!(path = %path.display(), "everybody on this machine may read the access file: chmod o-r it");
    }
}

#[cfg(test)]
mod tests;
