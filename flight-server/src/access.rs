//! Who asks, and what they may do. A [`Caller`] is made once a call, before anything else of it is decoded, and travels with
//! its query: whoever needs to know what is allowed asks it, and nobody asks the wire again.
//!
//! ```text
//! credentials ──▶ Logins ── by the access file in force ──▶ Caller ──▶ catalog that it sees, rights
//! ```

mod certificate;
mod file;
mod logins;
mod passwords;
mod seal;
mod slowdown;

pub(crate) use certificate::names_of;
pub use file::{Access, AccessFaults};
pub(crate) use logins::{Credentials, LoginFailure, LoginSettings, Logins, MOST_CREDENTIALS, NewKey, Peer, Session};
pub(crate) use passwords::hash_password;
pub(crate) use seal::{Purpose, SEAL_LEN, SigningKeys, random_bytes};

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use translator::catalog::TableGrant;

/// Whoever sent a call, as the query pipeline knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name in logs and in `system.queries`.
    pub name: String,
    pub sees: Sees,
    pub rights: Rights,
}

/// Which entities and columns exist for a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sees {
    Everything,
    Granted(Arc<BTreeSet<TableGrant>>),
}

/// What a caller may do besides reading granted columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Tables of the `system` schema beyond `options` and one's own `queries`.
    pub system: Granted,
    pub plan: PlanDetail,
    /// Sees and cancels the queries of others.
    pub admin: bool,
}

/// Names that are granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Granted {
    All,
    Only(BTreeSet<String>),
}

/// How much of its plan a caller sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlanDetail {
    None,
    Summary,
    Full,
}

/// The name of whoever calls without credentials, and the role that they have where there are users.
pub const ANONYMOUS: &str = "anonymous";

impl Caller {
    /// Whoever calls a server that knows no roles: everything is theirs.
    pub fn unrestricted() -> Arc<Self> {
        static CALLER: LazyLock<Arc<Caller>> = LazyLock::new(|| {
            Arc::new(Caller {
                name: ANONYMOUS.to_owned(),
                sees: Sees::Everything,
                rights: Rights { system: Granted::All, plan: PlanDetail::Full, admin: true },
            })
        });
        Arc::clone(&CALLER)
    }
}

impl Granted {
    pub fn covers(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        }
    }
}
