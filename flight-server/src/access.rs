//! Who asks, and what they may do. A [`Caller`] is made once a call, before anything else of it is decoded, and travels with
//! its query: whoever needs to know what is allowed asks it, and nobody asks the wire again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

/// Whoever sent a call, as the query pipeline knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// SQL's `current_user`, and the name in logs and in `system.queries`.
    pub name: String,
    pub roles: BTreeSet<String>,
    /// What an identity provider or the access file says of the caller beyond the name. A policy asks for it by name.
    pub claims: BTreeMap<String, String>,
    pub rights: Rights,
}

/// What a caller may do besides reading granted rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Query options beyond the harmless ones.
    pub options: Granted,
    /// Tables of the `system` schema beyond those of one's own.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlanDetail {
    None,
    Summary,
    Full,
}

/// The name of whoever calls a server without logins.
pub const ANONYMOUS: &str = "anonymous";

impl Caller {
    /// Whoever calls a server that knows no roles: everything is theirs.
    pub fn unrestricted() -> Arc<Self> {
        static CALLER: LazyLock<Arc<Caller>> = LazyLock::new(|| {
            Arc::new(Caller {
                name: ANONYMOUS.to_owned(),
                roles: BTreeSet::new(),
                claims: BTreeMap::new(),
                rights: Rights { options: Granted::All, system: Granted::All, plan: PlanDetail::Full, admin: true },
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
