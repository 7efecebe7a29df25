//! A call that failed: the error, and the query it belongs to.

use crate::query::{ErrorKind, QueryError};

pub(super) type Outcome<T> = Result<T, Failure>;

/// Everything that the status of a failed call is made of.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: QueryError,
    /// Present once the call is known to be about a query.
    pub(super) query: Option<FailedQuery>,
    /// Whether the client must be told to forget its session cookie.
    pub(super) forget_session: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FailedQuery {
    pub(super) query_id: String,
    pub(super) sql: String,
}

impl Failure {
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        QueryError::new(ErrorKind::InvalidQuery, message).into()
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        QueryError::new(ErrorKind::NotFound, message).into()
    }

    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        QueryError::new(ErrorKind::Unsupported, message).into()
    }

    pub(super) fn limit(message: impl Into<String>) -> Self {
        QueryError::new(ErrorKind::LimitExceeded, message).into()
    }

    pub(super) fn internal(source: impl Into<anyhow::Error>) -> Self {
        QueryError::internal(source).into()
    }

    pub(super) fn unknown_session() -> Self {
        Self {
            forget_session: true,
            ..Self::not_found(
                "the session of this call is closed, expired, or of another server; set its options again",
            )
        }
    }

    /// Names the query that failed, so that the client's text carries its id and the place in its SQL.
    pub(super) fn of_query(error: QueryError, query_id: &str, sql: &str) -> Self {
        Self {
            error,
            query: Some(FailedQuery { query_id: query_id.to_owned(), sql: sql.to_owned() }),
            forget_session: false,
        }
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        Self { error, query: None, forget_session: false }
    }
}
