//! What can go wrong with PostgreSQL, by kind. SQLSTATEs are sorted here and nowhere else.

use tokio_postgres::error::SqlState;

/// A failure of PostgreSQL. The text never holds the connection URL, a password or a row's value.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct PostgresError {
    kind: PostgresErrorKind,
    message: String,
    /// The attribute whose stored value it is about.
    attribute: Option<Box<str>>,
    #[source]
    source: Option<anyhow::Error>,
}

/// The kinds of failure that callers act upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PostgresErrorKind {
    /// Not reachable, too busy, shutting down, connection lost, snapshot taken away by recovery: later may work.
    Unavailable,
    /// Wrong password, database, table, column or rights: an operator must act.
    Misconfigured,
    /// PostgreSQL's own limit for a statement passed.
    StatementTimeout,
    /// A stored value that doesn't fit its declared type.
    Data,
    /// A statement that should never have been sent, or a protocol surprise: a bug of ours.
    Internal,
}

impl PostgresError {
    pub(super) fn new(kind: PostgresErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), attribute: None, source: None }
    }

    pub(super) fn with_source(mut self, source: impl Into<anyhow::Error>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(PostgresErrorKind::Internal, message)
    }

    /// The failure of a hot statement because a column has another type than the catalog says, when `text` holds its
    /// message.
    pub(super) fn other_type(text: &str) -> Option<Self> {
        let at = text.find(translator::postgres::GUARD)?;
        let rest = &text[at..];
        let message = rest.split(['"', '\n']).next().unwrap_or(rest);
        let message = message.strip_prefix("thermocline: ").unwrap_or(message);
        Some(Self::new(PostgresErrorKind::Misconfigured, format!("PostgreSQL: {message}")))
    }

    /// Says which attribute's stored value it is about.
    pub(super) fn of_attribute(mut self, name: &str) -> Self {
        self.attribute = Some(name.into());
        self
    }

    /// The name of the attribute whose stored value it is about, where there is one.
    pub fn attribute(&self) -> Option<&str> {
        self.attribute.as_deref()
    }

    pub fn kind(&self) -> PostgresErrorKind {
        self.kind
    }
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(other) = error.as_db_error().and_then(|reported| Self::other_type(reported.message())) {
            return other.with_source(error);
        }
        let (kind, message) = match error.as_db_error() {
            Some(reported) => (
                kind_of_state(reported.code()),
                format!("PostgreSQL: {} (SQLSTATE {})", reported.message(), reported.code().code()),
            ),
            // Without an error report the connection broke, never came up, or spoke another protocol.
            None if error.is_closed() => {
                (PostgresErrorKind::Unavailable, "PostgreSQL closed the connection".to_owned())
            }
            None => {
                let kind = kind_of_failure(&error);
                (kind, format!("PostgreSQL: {}", describe(&error)))
            }
        };
        Self::new(kind, message).with_source(error)
    }
}

impl From<deadpool_postgres::PoolError> for PostgresError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        use deadpool_postgres::{PoolError, TimeoutType};
        match error {
            PoolError::Backend(error) => error.into(),
            PoolError::Timeout(TimeoutType::Wait) => {
                Self::new(PostgresErrorKind::Unavailable, "PostgreSQL: no connection of the pool became free in time")
            }
            PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => {
                Self::new(PostgresErrorKind::Unavailable, "PostgreSQL: connecting took too long")
            }
            PoolError::Closed => Self::new(PostgresErrorKind::Unavailable, "PostgreSQL: the pool is closed"),
            error @ (PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_)) => {
                Self::internal("PostgreSQL: the pool is set up wrongly").with_source(error)
            }
        }
    }
}

/// The text of an error and its causes, without repeating what a text already includes.
fn describe(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

fn kind_of_failure(error: &tokio_postgres::Error) -> PostgresErrorKind {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(failed) = inner.downcast_ref::<std::io::Error>() {
            // A certificate that isn't accepted stays so until somebody acts.
            let is_tls = failed.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
            return if is_tls { PostgresErrorKind::Misconfigured } else { PostgresErrorKind::Unavailable };
        }
        cause = inner.source();
    }
    let text = error.to_string();
    // tokio-postgres keeps its kinds to itself; its texts are what tells these apart.
    if text.starts_with("error connecting") || text.starts_with("timeout") || text.starts_with("error communicating") {
        return PostgresErrorKind::Unavailable;
    }
    if text.contains("authentication") || text.contains("invalid configuration") || text.contains("TLS handshake") {
        return PostgresErrorKind::Misconfigured;
    }
    PostgresErrorKind::Internal
}

/// Sorts SQLSTATEs (PostgreSQL documentation, appendix A) by class, with the exceptions first.
fn kind_of_state(state: &SqlState) -> PostgresErrorKind {
    // 57014 is also what a cancel request of ours gives; the caller that cancelled isn't listening any more.
    if *state == SqlState::QUERY_CANCELED {
        return PostgresErrorKind::StatementTimeout;
    }
    // Recovery conflicts on a standby, and serialization failures, which a read-only snapshot sees only there.
    if *state == SqlState::T_R_SERIALIZATION_FAILURE || *state == SqlState::T_R_DEADLOCK_DETECTED {
        return PostgresErrorKind::Unavailable;
    }
    let code = state.code();
    match code.get(..2).unwrap_or(code) {
        // Connection exceptions, insufficient resources (too many connections), operator intervention, system errors,
        // idle timeouts that closed the transaction, a transaction that such an event aborted.
        "08" | "53" | "57" | "58" | "25" => PostgresErrorKind::Unavailable,
        // Authorization, unknown database or schema, undefined table or column or missing rights.
        "28" | "3D" | "3F" => PostgresErrorKind::Misconfigured,
        "42" if *state == SqlState::SYNTAX_ERROR => PostgresErrorKind::Internal,
        "42" => PostgresErrorKind::Misconfigured,
        "22" => PostgresErrorKind::Data,
        _ => PostgresErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_their_kinds() {
        use PostgresErrorKind::{Data, Internal, Misconfigured, StatementTimeout, Unavailable};
        for (state, kind) in [
            ("57014", StatementTimeout),
            ("57P01", Unavailable),
            ("57P03", Unavailable),
            ("53300", Unavailable),
            ("08006", Unavailable),
            ("40001", Unavailable),
            ("25P03", Unavailable),
            ("28P01", Misconfigured),
            ("28000", Misconfigured),
            ("3D000", Misconfigured),
            ("42P01", Misconfigured),
            ("42703", Misconfigured),
            ("42501", Misconfigured),
            ("42601", Internal),
            ("22P02", Data),
            ("XX000", Internal),
        ] {
            assert_eq!(kind_of_state(&SqlState::from_code(state)), kind, "{state}");
        }
    }
}
