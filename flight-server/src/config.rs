//! Configuration: `thermocline.toml` with the environment laid over it (docs/configuration.md), as typed sections.
//!
//! [`Config::load`] reports every fault together: place, key and what is expected. Secrets are [`Secret`]s from the
//! moment they are read; no fault prints a value that could be one.

mod auth;
mod cache;
mod hot;
pub(crate) mod postgres_url;
mod reference;
mod secret;
mod tls;
mod tree;

pub use auth::AuthConfig;
pub use cache::CacheConfig;
pub use hot::{HotConfig, HotMirror};
pub use reference::{REFERENCE, effective, markdown};
pub use secret::Secret;
pub use tls::{ClientCertificates, TlsConfig, TlsVersion};
pub use tree::ConfigFault;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use translator::options::{HotScan, OPTION_NAMES, OptionError, QueryOptions};

use tree::{ENVIRONMENT_PREFIX, Faults, Place, Section, read_settings};

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file this was read from.
    pub path: PathBuf,
    pub server: ServerConfig,
    pub postgres: PostgresConfig,
    pub hot: HotConfig,
    pub lake: LakeConfig,
    pub catalog: CatalogConfig,
    pub duckdb: DuckDbConfig,
    pub cache: CacheConfig,
    pub query: QueryConfig,
    pub breaker: BreakerConfig,
    pub telemetry: TelemetryConfig,
    pub auth: AuthConfig,
    /// `None`: plain text.
    pub tls: Option<TlsConfig>,
}

/// Where the server listens; port 0 takes any free port.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    /// Running queries get this long to finish once the server is told to stop.
    pub drain_limit: Duration,
    /// File with the token that the admin port asks for.
    pub admin_token_file: Option<PathBuf>,
    /// Connections at most; more are closed at once.
    pub max_connections: usize,
    /// Connections of one address (of one /64 of IPv6) at most.
    pub max_connections_per_address: usize,
    /// A connection that hasn't begun to speak HTTP/2 by then is closed.
    pub handshake_timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// `postgresql://…`, or libpq's `key=value` form; may list several hosts.
    pub url: Secret<String>,
    /// At most this many connections, so at most this many queries read PostgreSQL at once.
    pub pool_size: usize,
    /// Limit for one connection attempt, and for waiting for a free connection.
    pub connect_timeout: Duration,
    /// PostgreSQL's own limit for each statement; `None` leaves the role's setting in force.
    pub statement_timeout: Option<Duration>,
    pub tables: TableNames,
}

/// Names of the tables of docs/contract.md, "PostgreSQL tables".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableNames {
    pub schema_registry: TableName,
    pub entity_main: TableName,
    pub eav_data: TableName,
    pub change_log: TableName,
    pub lake_file: TableName,
}

impl TableNames {
    /// As the translator takes them: unquoted.
    pub(crate) fn plain(&self) -> translator::postgres::TableNames {
        let name = |name: &TableName| match &name.schema {
            Some(schema) => format!("{schema}.{}", name.table),
            None => name.table.clone(),
        };
        translator::postgres::TableNames {
            schema_registry: name(&self.schema_registry),
            entity_main: name(&self.entity_main),
            eav_data: name(&self.eav_data),
            change_log: name(&self.change_log),
            lake_file: name(&self.lake_file),
        }
    }
}

/// A PostgreSQL table, with its schema unless the search path finds it. Prints quoted, ready for SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    pub schema: Option<String>,
    pub table: String,
}

#[derive(Debug, Clone)]
pub struct LakeConfig {
    pub url: LakeUrl,
    pub catalog: LakeCatalog,
    /// Template of base prefixes, without slashes at its ends.
    pub base: String,
    /// Template of delta prefixes, without slashes at its ends.
    pub delta: String,
    pub s3: S3Config,
}

/// Root of the lake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LakeUrl {
    /// `file:///dir`: an absolute path.
    Local(PathBuf),
    /// `s3://bucket/prefix`: the prefix has no slashes at its ends and may be empty.
    S3 { bucket: String, prefix: String },
}

/// Who knows the set of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LakeCatalog {
    /// The object store's listing, and footers.
    Listing,
    /// The PostgreSQL table `lake_file`.
    Manifest,
}

/// Settings of an S3 endpoint. What is left out comes from the environment's own AWS credential chain.
#[derive(Debug, Clone, Default)]
pub struct S3Config {
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<Secret<String>>,
    pub session_token: Option<Secret<String>>,
    /// Whether plain HTTP is allowed.
    pub allow_http: bool,
    /// `https://endpoint/bucket/key` instead of `https://bucket.endpoint/key`. By default true for an `endpoint`, since
    /// few servers but AWS answer to a host name a bucket.
    pub path_style: bool,
}

#[derive(Debug, Clone)]
pub struct CatalogConfig {
    /// The catalog file; a relative path starts at the configuration file.
    pub path: PathBuf,
}

/// Settings passed to DuckDB; `None` leaves DuckDB's default.
#[derive(Debug, Clone, Default)]
pub struct DuckDbConfig {
    /// A size as DuckDB writes it (`4GB`, `512MiB`, `80%`).
    pub memory_limit: Option<String>,
    pub threads: Option<usize>,
    pub temp_directory: Option<PathBuf>,
    /// A size as DuckDB writes it.
    pub temp_directory_limit: Option<String>,
    /// What the configuration names, else where they were shipped ([`crate::parts`]); DuckDB's own when absent.
    pub extension_directory: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct QueryConfig {
    /// Options of a query that neither its headers nor its session set.
    pub defaults: QueryOptions,
    pub max_concurrent: usize,
    pub max_queued: usize,
    /// How long a query waits for its client to read before it is ended; `None` for as long as the client is there.
    pub idle_timeout: Option<Duration>,
    /// Whether PostgreSQL and the choice of files get conditions of queries.
    pub pushdown: bool,
    pub merge: MergeChoice,
}

/// How versions in files become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeChoice {
    /// By position where the version index knows them, and otherwise as the files' statistics allow.
    Auto,
    /// By position, waiting for the version index.
    Positions,
    /// As the statistics allow, without a version index.
    Layered,
    /// By a window over all versions.
    Window,
}

impl MergeChoice {
    fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Positions => "positions",
            Self::Layered => "layered",
            Self::Window => "window",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerConfig {
    /// This many failures within `window` open a breaker.
    pub failures: u32,
    pub window: Duration,
    /// After this time an open breaker lets one probe through.
    pub cooldown: Duration,
}

#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    pub otlp_endpoint: Option<String>,
    pub otlp_protocol: Option<OtlpProtocol>,
    /// Sent with every export: names and values.
    pub otlp_headers: Vec<(String, Secret<String>)>,
    /// Limit for one export.
    pub otlp_timeout: Option<Duration>,
    pub service_name: String,
    pub log_format: LogFormat,
    /// Directives of `tracing_subscriber::EnvFilter` (`info`, `thermocline=debug,info`).
    pub log_level: String,
    /// Queries that take at least this long are logged with their plans.
    pub slow_query: Option<Duration>,
}

/// How OTLP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    Grpc,
    HttpProtobuf,
}

impl OtlpProtocol {
    /// Reads OpenTelemetry's own name of it.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Grpc, Self::HttpProtobuf].into_iter().find(|protocol| protocol.as_str() == text)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFaults {
    pub faults: Vec<ConfigFault>,
}

impl std::fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigFaults {}

/// The variables of this process that override keys of the configuration.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with(ENVIRONMENT_PREFIX))?;
            Some((name, value.to_string_lossy().into_owned()))
        })
        .collect()
}

impl Config {
    /// Reads a configuration file. `environment` overrides its keys with variables named `THERMOCLINE__SECTION__KEY`;
    /// other variables are ignored. See [`environment`].
    ///
    /// # Errors
    /// All faults of file and environment together.
    pub fn load(path: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigFaults> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path, environment),
            Err(error) => {
                let mut faults = Faults::new(path.display().to_string());
                faults.report(&Place::Line(0), "", format!("cannot read the configuration file: {error}"));
                Err(ConfigFaults { faults: faults.finish() })
            }
        }
    }

    /// As [`Config::load`], from the file's text. Relative paths in it start at the directory of `path`.
    ///
    /// # Errors
    /// All faults of file and environment together.
    pub fn parse(
        text: &str,
        path: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigFaults> {
        let mut faults = Faults::new(path.display().to_string());
        let root = read_settings(text, environment, &mut faults);
        // Keys behind a syntax error are unknown: missing ones would be reported wrongly.
        let config = if faults.is_empty() { read_config(root, path, &mut faults) } else { None };
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(ConfigFaults { faults: faults.finish() }),
        }
    }
}

/// Where the catalog file is, as far as that can be told of a configuration that may be wrong.
pub fn catalog_path(path: &Path, environment: impl IntoIterator<Item = (String, String)>) -> PathBuf {
    let base = path.parent().unwrap_or(Path::new(""));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut faults = Faults::new(path.display().to_string());
    let mut root = read_settings(&text, environment, &mut faults);
    read_catalog(root.section("catalog", &mut faults), base, &mut faults).path
}

fn read_config(mut root: Section, path: &Path, faults: &mut Faults) -> Option<Config> {
    let base = path.parent().unwrap_or(Path::new(""));
    let server = read_server(root.section("server", faults), base, faults);
    let (postgres, hot_scan) = read_postgres(root.section("postgres", faults), faults);
    let hot = hot::read(root.section("hot", faults), faults);
    let lake = read_lake(root.section("lake", faults), faults);
    let catalog = read_catalog(root.section("catalog", faults), base, faults);
    let duckdb = read_duckdb(root.section("duckdb", faults), base, faults);
    let cache = cache::read(root.section("cache", faults), base, faults);
    let query = read_query(root.section("query", faults), hot_scan, faults);
    let breaker = read_breaker(root.section("breaker", faults), faults);
    let telemetry = read_telemetry(root.section("telemetry", faults), faults);
    let tls = tls::read_tls(root.section("tls", faults), base, faults);
    let auth = auth::read(root.section("auth", faults), base, server.listen, tls.is_some(), faults);
    root.finish(faults);
    Some(Config {
        path: path.to_owned(),
        server,
        postgres: postgres?,
        hot,
        lake: lake?,
        catalog,
        duckdb,
        cache,
        query,
        breaker,
        telemetry,
        auth,
        tls,
    })
}

fn read_server(mut section: Section, base: &Path, faults: &mut Faults) -> ServerConfig {
    let mut address = |key, port| {
        section
            .parsed(key, "an address such as 127.0.0.1:32010 or [::]:32010", faults, read_address)
            .map_or(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), |found| found.value)
    };
    let listen = address("listen", 32010);
    let admin_listen = address("admin_listen", 32011);
    if listen == admin_listen && listen.port() != 0 {
        let key = section.key("admin_listen");
        faults.report(section.place(), key, format!("{admin_listen} is also `listen`; expected another port"));
    }
    let drain_limit = section.duration("drain_limit", faults).unwrap_or(Duration::from_secs(30));
    let admin_token_file = path(&mut section, "admin_token_file", base, faults);
    if admin_token_file.is_none() && !admin_listen.ip().is_loopback() {
        let key = section.key("admin_token_file");
        let message = format!(
            "is missing, and admin_listen {admin_listen} can be reached from other machines, which would read names of \
             tables there; expected a file with a token"
        );
        faults.report(&section.place_of("admin_listen"), key, message);
    }
    let max_connections = positive(section.integer("max_connections", 1..=1_000_000, faults), 1_000);
    let max_connections_per_address =
        positive(section.integer("max_connections_per_address", 1..=1_000_000, faults), 100);
    let handshake_timeout = section.duration("handshake_timeout", faults).unwrap_or(Duration::from_secs(10));
    section.finish(faults);
    ServerConfig {
        listen,
        admin_listen,
        drain_limit,
        admin_token_file,
        max_connections,
        max_connections_per_address,
        handshake_timeout,
    }
}

fn read_address(text: &str) -> Option<SocketAddr> {
    if let Some(port) = text.strip_prefix("localhost:") {
        return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?));
    }
    text.parse().ok()
}

fn read_postgres(mut section: Section, faults: &mut Faults) -> (Option<PostgresConfig>, Option<HotScan>) {
    let expected = "a URL such as postgresql://user:password@host:5432/database";
    let url = require(&mut section, "url", expected, faults, |text| {
        postgres_url::PostgresUrl::parse(text).map(|_| Secret::new(text.to_owned()))
    });
    let hot_scan = section
        .parsed("hot_scan", "copy or scan", faults, |text| match text {
            "copy" => Some(HotScan::Copy),
            "scan" => Some(HotScan::Scan),
            _ => None,
        })
        .map(|found| found.value);
    let pool_size = positive(section.integer("pool_size", 1..=10_000, faults), 16);
    let connect_timeout = section.duration("connect_timeout", faults).unwrap_or(Duration::from_secs(5));
    let statement_timeout =
        section.optional_duration("statement_timeout", faults).unwrap_or(Some(Duration::from_secs(60)));
    let mut table = |key: &'static str| {
        section
            .parsed(key, "a table name, or schema.table", faults, TableName::parse)
            .map_or_else(|| TableName { schema: None, table: key.to_owned() }, |found| found.value)
    };
    let tables = TableNames {
        schema_registry: table("schema_registry"),
        entity_main: table("entity_main"),
        eav_data: table("eav_data"),
        change_log: table("change_log"),
        lake_file: table("lake_file"),
    };
    section.finish(faults);
    let config = url.map(|url| PostgresConfig { url, pool_size, connect_timeout, statement_timeout, tables });
    (config, hot_scan)
}

impl TableName {
    /// Reads `table` or `schema.table`; names are taken as they are written, letter case included.
    pub fn parse(text: &str) -> Option<Self> {
        let (schema, table) = match text.split_once('.') {
            Some((schema, table)) => (Some(schema.to_owned()), table.to_owned()),
            None => (None, text.to_owned()),
        };
        let is_name = |name: &str| !name.is_empty() && !name.contains(['.', '\0']);
        (is_name(&table) && schema.as_deref().is_none_or(is_name)).then_some(Self { schema, table })
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "\"{}\".", schema.replace('"', "\"\""))?;
        }
        write!(f, "\"{}\"", self.table.replace('"', "\"\""))
    }
}

fn read_lake(mut section: Section, faults: &mut Faults) -> Option<LakeConfig> {
    let url = require(&mut section, "url", "s3://bucket/prefix or file:///directory", faults, LakeUrl::parse);
    let catalog = section
        .parsed("catalog", "listing or manifest", faults, |text| match text {
            "listing" => Some(LakeCatalog::Listing),
            "manifest" => Some(LakeCatalog::Manifest),
            _ => None,
        })
        .map_or(LakeCatalog::Listing, |found| found.value);
    let base = read_template(&mut section, "base", "base/{schema_id}", faults);
    let delta = read_template(&mut section, "delta", "delta/{schema_id}", faults);
    if base == delta {
        let key = section.key("delta");
        faults.report(section.place(), key, "is the same as `base`; a file's tier is known by its prefix");
    }
    let s3 = read_s3(section.section("s3", faults), faults);
    section.finish(faults);
    Some(LakeConfig { url: url?, catalog, base, delta, s3 })
}

fn read_template(section: &mut Section, key: &'static str, default: &str, faults: &mut Faults) -> String {
    let Some(found) = section.text(key, faults) else { return default.to_owned() };
    let template = found.value.trim_matches('/').to_owned();
    if let Err(expected) = check_template(&template) {
        faults.report(&found.place, section.key(key), format!("`{template}`: {expected}"));
    }
    template
}

fn check_template(template: &str) -> Result<(), &'static str> {
    if !template.contains("{schema_id}") && !template.contains("{schema_name}") {
        return Err("expected {schema_id} or {schema_name} in it: each entity has its own prefix");
    }
    let plain = template.replace("{schema_id}", "0").replace("{schema_name}", "n");
    if plain.contains(['{', '}', '*', '?', '[', ']', '\\', '%', '#']) || plain.chars().any(char::is_control) {
        return Err("expected no other placeholder than {schema_id} and {schema_name}, and none of * ? [ ] \\ % #");
    }
    if plain.split('/').any(|part| part.is_empty() || part.starts_with(['_', '.'])) {
        return Err("expected no empty part and none that starts with `_` or `.`: those are staging and never read");
    }
    Ok(())
}

impl LakeUrl {
    /// Reads `s3://bucket/prefix` or `file:///directory`.
    pub fn parse(text: &str) -> Option<Self> {
        let url = url::Url::parse(text).ok()?;
        if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
            return None;
        }
        match url.scheme() {
            "s3" => {
                let prefix = text.strip_prefix("s3://")?.split_once('/').map_or("", |(_, prefix)| prefix);
                let bucket = url.host_str()?.to_owned();
                (url.port().is_none() && !prefix.contains(['*', '?', '[', ']']))
                    .then(|| Self::S3 { bucket, prefix: prefix.trim_matches('/').to_owned() })
            }
            "file" => url.to_file_path().ok().map(Self::Local),
            _ => None,
        }
    }
}

impl std::fmt::Display for LakeUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(path) => write!(f, "file://{}", path.display()),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

fn read_s3(mut section: Section, faults: &mut Faults) -> S3Config {
    let place = section.place().clone();
    let mut word = |key| section.word(key, faults).map(|found| found.value);
    let endpoint = word("endpoint");
    let region = word("region");
    let access_key_id = word("access_key_id");
    let secret_access_key = word("secret_access_key").map(Secret::new);
    let session_token = word("session_token").map(Secret::new);
    let allow_http = section.boolean("allow_http", faults).is_some_and(|found| found.value);
    let path_style = section.boolean("path_style", faults).map_or(endpoint.is_some(), |found| found.value);
    if access_key_id.is_some() != secret_access_key.is_some() {
        let key = section.key("access_key_id");
        faults.report(&place, key, "expected `access_key_id` and `secret_access_key` together, or neither");
    }
    if session_token.is_some() && access_key_id.is_none() {
        faults.report(&place, section.key("session_token"), "expected `access_key_id` beside it");
    }
    if let Some(endpoint) = &endpoint {
        let scheme = url::Url::parse(endpoint).ok().filter(url::Url::has_host).map(|url| url.scheme().to_owned());
        match scheme.as_deref() {
            Some("https") => {}
            Some("http") if allow_http => {}
            Some("http") => faults.report(
                &place,
                section.key("endpoint"),
                "is plain http; expected https, or `allow_http = true` beside it",
            ),
            _ => faults.report(&place, section.key("endpoint"), "expected a URL such as https://host:9000"),
        }
    }
    section.finish(faults);
    S3Config { endpoint, region, access_key_id, secret_access_key, session_token, allow_http, path_style }
}

fn read_catalog(mut section: Section, base: &Path, faults: &mut Faults) -> CatalogConfig {
    let path = path(&mut section, "path", base, faults).unwrap_or_else(|| base.join("catalog.toml"));
    section.finish(faults);
    CatalogConfig { path }
}

fn read_duckdb(mut section: Section, base: &Path, faults: &mut Faults) -> DuckDbConfig {
    let expected = "a size such as 512MiB, 4GB or 80%";
    let memory_limit = section.parsed("memory_limit", expected, faults, read_size).map(|found| found.value);
    let threads = section.integer("threads", 1..=4096, faults).and_then(|threads| usize::try_from(threads).ok());
    let temp_directory = path(&mut section, "temp_directory", base, faults);
    let temp_directory_limit =
        section.parsed("temp_directory_limit", expected, faults, read_size).map(|found| found.value);
    let extension_directory =
        path(&mut section, "extension_directory", base, faults).or_else(crate::parts::extension_directory);
    section.finish(faults);
    DuckDbConfig { memory_limit, threads, temp_directory, temp_directory_limit, extension_directory }
}

/// A size as DuckDB reads it.
fn read_size(text: &str) -> Option<String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
    let (number, unit) = text.split_at(digits);
    number.parse::<f64>().ok().filter(|number| *number > 0.0)?;
    let units = ["B", "KB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB", "%"];
    units.iter().any(|known| known.eq_ignore_ascii_case(unit.trim())).then(|| text.to_owned())
}

fn read_query(mut section: Section, postgres_hot_scan: Option<HotScan>, faults: &mut Faults) -> QueryConfig {
    let mut defaults = QueryOptions::default();
    if let Some(hot_scan) = postgres_hot_scan {
        defaults.hot_scan = hot_scan;
    }
    for name in OPTION_NAMES {
        let Some(found) = section.scalar_text(name, faults) else { continue };
        if let Err(OptionError::BadValue { value, expected, .. }) = defaults.set(name, &found.value) {
            faults.report(&found.place, section.key(name), format!("cannot be `{value}`; expected {expected}"));
        }
        if name == "hot_scan" && postgres_hot_scan.is_some_and(|other| other != defaults.hot_scan) {
            faults.report(&found.place, section.key(name), "contradicts postgres.hot_scan; expected one of the two");
        }
    }
    let max_concurrent = positive(section.integer("max_concurrent", 1..=100_000, faults), 16);
    let max_queued = positive(section.integer("max_queued", 0..=1_000_000, faults), 128);
    let idle_timeout = section.optional_duration("idle_timeout", faults).unwrap_or(Some(Duration::from_secs(300)));
    let pushdown = section.boolean("pushdown", faults).is_none_or(|found| found.value);
    let merge = section
        .parsed("merge", "auto, positions, layered or window", faults, |text| {
            use MergeChoice::{Auto, Layered, Positions, Window};
            [Auto, Positions, Layered, Window].into_iter().find(|merge| merge.as_str() == text)
        })
        .map_or(MergeChoice::Auto, |found| found.value);
    section.finish(faults);
    QueryConfig { defaults, max_concurrent, max_queued, idle_timeout, pushdown, merge }
}

fn read_breaker(mut section: Section, faults: &mut Faults) -> BreakerConfig {
    let failures = section.integer("failures", 1..=1_000_000, faults).and_then(|count| u32::try_from(count).ok());
    let window = section.duration("window", faults).unwrap_or(Duration::from_secs(30));
    let cooldown = section.duration("cooldown", faults).unwrap_or(Duration::from_secs(10));
    section.finish(faults);
    BreakerConfig { failures: failures.unwrap_or(5), window, cooldown }
}

fn read_telemetry(mut section: Section, faults: &mut Faults) -> TelemetryConfig {
    let otlp_endpoint = section
        .parsed("otlp_endpoint", "a URL such as http://localhost:4317", faults, |text| {
            let url = url::Url::parse(text).ok().filter(url::Url::has_host)?;
            matches!(url.scheme(), "http" | "https").then(|| text.to_owned())
        })
        .map(|found| found.value);
    let otlp_protocol =
        section.parsed("otlp_protocol", "grpc or http/protobuf", faults, OtlpProtocol::parse).map(|found| found.value);
    let expected = "headers such as authorization=Bearer%20token,x-tenant=a";
    let otlp_headers = section.parsed("otlp_headers", expected, faults, read_headers).map(|found| found.value);
    let otlp_timeout = section.duration("otlp_timeout", faults);
    let service_name = section.word("service_name", faults).map(|found| found.value);
    let log_format = section
        .parsed("log_format", "text or json", faults, |text| match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        })
        .map_or(LogFormat::Text, |found| found.value);
    let expected = "trace, debug, info, warn, error or off, or directives such as flight_server=debug,info";
    let log_level = section
        .parsed("log_level", expected, faults, |text| {
            let is_filter = !text.is_empty() && tracing_subscriber::EnvFilter::try_new(text).is_ok();
            // A lone word that is no level would be taken as the name of a target: most likely a typing error.
            let is_lone_word = !text.contains(['=', ',']);
            (is_filter && (!is_lone_word || text.parse::<tracing::level_filters::LevelFilter>().is_ok()))
                .then(|| text.to_owned())
        })
        .map(|found| found.value);
    let slow_query = section.optional_duration("slow_query", faults).flatten();
    section.finish(faults);
    TelemetryConfig {
        otlp_endpoint,
        otlp_protocol,
        otlp_headers: otlp_headers.unwrap_or_default(),
        otlp_timeout,
        service_name: service_name.unwrap_or_else(|| "thermocline".to_owned()),
        log_format,
        log_level: log_level.unwrap_or_else(|| "info".to_owned()),
        slow_query,
    }
}

/// Reads `name=value,name=value`, values percent-encoded, as OpenTelemetry's variables have them.
fn read_headers(text: &str) -> Option<Vec<(String, Secret<String>)>> {
    let header = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8().ok()?.into_owned();
        let name = name.trim().to_ascii_lowercase();
        let is_header = name.parse::<tonic::metadata::AsciiMetadataKey>().is_ok()
            && value.parse::<tonic::metadata::AsciiMetadataValue>().is_ok();
        is_header.then(|| (name, Secret::new(value)))
    };
    text.split(',').map(header).collect()
}

/// A key that must be written.
fn require<T>(
    section: &mut Section,
    key: &'static str,
    expected: &str,
    faults: &mut Faults,
    read: impl FnOnce(&str) -> Option<T>,
) -> Option<T> {
    if !section.has(key) {
        faults.report(&section.place_of(key), section.key(key), format!("is missing; expected {expected}"));
    }
    section.parsed(key, expected, faults, read).map(|found| found.value)
}

/// A path; a relative one starts at `base`.
fn path(section: &mut Section, key: &'static str, base: &Path, faults: &mut Faults) -> Option<PathBuf> {
    section.word(key, faults).map(|found| base.join(found.value))
}

fn positive(value: Option<i64>, default: usize) -> usize {
    value.and_then(|value| usize::try_from(value).ok()).unwrap_or(default)
}

#[cfg(test)]
mod tests;
