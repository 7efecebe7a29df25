//! Failures of PostgreSQL, of the lake and of moments as errors of queries: what the client learns, and what may still help.

use std::sync::Arc;
use std::time::Duration;

use super::error::{ErrorKind, QueryError, Recovery};
use crate::breaker::Refused;
use crate::lake::{LakeError, LakeErrorKind};
use crate::moments::{ListError, MomentError};
use crate::postgres::{PostgresError, PostgresErrorKind};

pub(super) const POSTGRES_LEAVE: &str = "; with consistency = eventual the files alone answer";
pub(super) const LAKE_LEAVE: &str = "; with allow_partial = true the hot rows alone answer";

/// What a failed listing is to a query; several may share it.
pub(super) fn list_error(error: &ListError) -> QueryError {
    match error {
        ListError::Refused(refused) => breaker_error("the lake", LAKE_LEAVE, *refused),
        ListError::Lake(error) => lake_error(error.clone()),
    }
}

/// What a failed moment is to one of the queries that waited for it.
pub(super) fn moment_error(error: &Arc<MomentError>) -> QueryError {
    match error.as_ref() {
        MomentError::Refused(refused) => breaker_error("PostgreSQL", POSTGRES_LEAVE, *refused),
        MomentError::Open(cause) => postgres_text(cause).with_source(Arc::clone(error)),
        MomentError::Statement(cause) => {
            let lost = cause.kind() == PostgresErrorKind::Unavailable;
            let error = postgres_text(cause).with_source(Arc::clone(error));
            if lost { error.recoverable(Recovery::NewSnapshot) } else { error }
        }
        MomentError::Silent(limit) => silence(*limit),
        MomentError::Abandoned => QueryError::internal(Arc::clone(error)),
        #[cfg(test)]
        MomentError::Test { .. } => QueryError::internal(Arc::clone(error)),
    }
}

pub(super) fn silence(limit: Duration) -> QueryError {
    let message = format!("PostgreSQL has not answered for {limit:?}{POSTGRES_LEAVE}");
    QueryError::new(ErrorKind::Unavailable, message).recoverable(Recovery::NewSnapshot)
}

pub(super) fn breaker_error(source: &str, leave: &str, refused: Refused) -> QueryError {
    let when = match refused.retry_after {
        Duration::ZERO => "a probe is under way".to_owned(),
        wait => format!("the next attempt is in {:.1} s", wait.as_secs_f64()),
    };
    let message = format!("{source} failed repeatedly and isn't asked for now ({when}){leave}");
    // The verdict of a probe is soon there.
    let hint = refused.retry_after.max(Duration::from_secs(1));
    QueryError::new(ErrorKind::Unavailable, message).retry_after(hint)
}

/// An error of a statement in an open snapshot: when the connection is lost, a new snapshot may do better.
pub(super) fn statement_error(error: PostgresError) -> QueryError {
    let lost = error.kind() == PostgresErrorKind::Unavailable;
    let error = postgres_error(error);
    if lost { error.recoverable(Recovery::NewSnapshot) } else { error }
}

pub(super) fn postgres_error(error: PostgresError) -> QueryError {
    postgres_text(&error).with_source(error)
}

/// What a client learns of a failure of PostgreSQL.
fn postgres_text(error: &PostgresError) -> QueryError {
    let (kind, hint) = match error.kind() {
        PostgresErrorKind::Unavailable => (ErrorKind::Unavailable, POSTGRES_LEAVE),
        PostgresErrorKind::Misconfigured => (ErrorKind::Misconfigured, ""),
        PostgresErrorKind::Data => (ErrorKind::UnreadableValue, ""),
        PostgresErrorKind::StatementTimeout => (ErrorKind::DeadlineExceeded, "; raise postgres.statement_timeout"),
        PostgresErrorKind::Internal => return QueryError::new(ErrorKind::Internal, "internal error"),
    };
    QueryError::new(kind, format!("{error}{hint}"))
}

pub(super) fn lake_error(error: LakeError) -> QueryError {
    let vanished = matches!(error.kind(), LakeErrorKind::NotFound { .. });
    let (kind, hint) = match error.kind() {
        LakeErrorKind::Unavailable => (ErrorKind::Unavailable, LAKE_LEAVE),
        LakeErrorKind::Corrupt { .. } => (ErrorKind::Unavailable, "; with allow_partial = true it is left out"),
        LakeErrorKind::NotFound { .. } => (ErrorKind::Unavailable, ""),
        LakeErrorKind::Misconfigured => (ErrorKind::Misconfigured, ""),
    };
    let error = QueryError::new(kind, format!("{error}{hint}")).with_source(error);
    if vanished { error.recoverable(Recovery::FreshFiles) } else { error }
}
