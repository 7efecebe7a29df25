//! What can go wrong with a moment. All queries that waited for it share the error, and each fails or degrades by its own
//! options.

use std::time::Duration;

use crate::breaker::Refused;
use crate::engine::duckdb::DuckError;
use crate::lake::LakeError;
use crate::postgres::{PostgresError, PostgresErrorKind};

/// Why there is no moment.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MomentError {
    #[error("PostgreSQL failed repeatedly and isn't asked for now")]
    Refused(Refused),
    #[error("cannot open a snapshot: {0}")]
    Open(#[source] PostgresError),
    #[error("cannot read a snapshot: {0}")]
    Statement(#[source] PostgresError),
    #[error("PostgreSQL has not answered for {0:?}")]
    Silent(Duration),
    #[error("the making of a moment was given up")]
    Abandoned,
    #[cfg(test)]
    #[error("making {number} for {shared}")]
    Test { number: u64, shared: u64 },
}

impl MomentError {
    /// Whether PostgreSQL was lost in the middle of a snapshot.
    pub(super) fn is_loss(&self) -> bool {
        match self {
            Self::Statement(error) => error.kind() == PostgresErrorKind::Unavailable,
            Self::Silent(_) => true,
            Self::Refused(_) | Self::Open(_) | Self::Abandoned => false,
            #[cfg(test)]
            Self::Test { .. } => false,
        }
    }
}

/// Why the files of an entity aren't known.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ListError {
    #[error("the lake failed repeatedly and isn't asked for now")]
    Refused(Refused),
    #[error(transparent)]
    Lake(#[from] LakeError),
}

/// Why a mirror can't be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum MirrorError {
    /// The snapshot is of no more use.
    #[error("cannot read its dirty rows: {0}")]
    Postgres(#[source] PostgresError),
    #[error("PostgreSQL has not answered for {0:?}")]
    Silent(Duration),
    #[error("DuckDB can't keep its dirty rows: {0}")]
    Duck(#[from] DuckError),
    #[error("its dirty rows take about {bytes} bytes, beyond hot.memory_limit")]
    TooLarge { bytes: u64 },
    #[error("the work on its dirty rows was given up")]
    Abandoned,
}

impl MirrorError {
    /// Whether the copy itself may be wrong now, or can't be kept; a PostgreSQL that was lost leaves it as it was.
    pub(super) fn spoils_mirror(&self) -> bool {
        match self {
            Self::Postgres(error) => error.kind() != PostgresErrorKind::Unavailable,
            Self::Silent(_) => false,
            Self::Duck(_) | Self::TooLarge { .. } | Self::Abandoned => true,
        }
    }
}
