//! What can go wrong with a query, by kind. The wire chooses the gRPC code from the kind alone.

use std::time::Duration;

/// The kinds of failure that clients can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Syntax, unknown column, type clash, refused statement, bad option, bad parameter: the client's to mend.
    InvalidQuery,
    /// Unknown table or handle.
    NotFound,
    /// The client is not logged in.
    Unauthenticated,
    /// The client may not do this.
    PermissionDenied,
    /// A limit was hit; the message names it.
    LimitExceeded,
    /// A source is down or a file can't be read.
    Unavailable,
    /// The deadline passed.
    DeadlineExceeded,
    /// The query was cancelled.
    Cancelled,
    /// The server is set up wrongly (wrong bucket, wrong password, missing table): an operator must act.
    Misconfigured,
    /// A stored value doesn't fit its declared type: whoever keeps the data must act.
    UnreadableValue,
    /// The server doesn't do this (writes, transactions).
    Unsupported,
    /// A bug of ours: the client learns the query id and nothing else.
    Internal,
}

impl ErrorKind {
    /// Its name in metrics and `system.queries`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InvalidQuery => "invalid_query",
            Self::NotFound => "not_found",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::LimitExceeded => "limit_exceeded",
            Self::Unavailable => "unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::Misconfigured => "misconfigured",
            Self::UnreadableValue => "unreadable_value",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
        }
    }
}

/// What a second attempt may do about a failure, as long as no batch was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// A file vanished between listing and reading: plan from a fresh file set.
    FreshFiles,
    /// PostgreSQL's connection was lost: take a new snapshot, or do without PostgreSQL, with the client's leave.
    NewSnapshot,
    /// S3 refused the credentials in the middle of a read, as it does once they have expired: read with new ones.
    NewCredentials,
    /// A file can't be read: leave it out, with the client's leave. Its path as DuckDB names it.
    WithoutFile(String),
    /// It isn't known whether a file is to blame: files are read one by one until one fails alone. When none does, this is
    /// what may be done.
    ProbeFiles { otherwise: Option<Box<Recovery>> },
    /// The lake failed while it was read: hot rows alone, with the client's leave.
    WithoutLake,
    /// DuckDB ran out of memory: PostgreSQL alone, with the client's leave and when it can.
    WithoutDuckDb,
}

/// A failed query: a kind, a text for the client and a chain for the log.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct QueryError {
    kind: ErrorKind,
    message: String,
    /// Zero-based byte offset into the user's SQL.
    position: Option<usize>,
    /// Boxed: errors travel through every call, and few can be mended by trying again.
    retry: Option<Box<Retry>>,
    #[source]
    source: Option<anyhow::Error>,
}

/// What trying again may do.
#[derive(Debug, Default)]
struct Retry {
    /// Here, while no batch was sent.
    recovery: Option<Recovery>,
    /// By the client, after this time.
    after: Option<Duration>,
}

impl QueryError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), position: None, retry: None, source: None }
    }

    /// An error of ours: `source` goes to the log, never to the client.
    pub fn internal(source: impl Into<anyhow::Error>) -> Self {
        Self {
            kind: ErrorKind::Internal,
            message: "internal error".to_owned(),
            position: None,
            retry: None,
            source: Some(source.into()),
        }
    }

    #[must_use]
    pub fn with_source(mut self, source: impl Into<anyhow::Error>) -> Self {
        self.source = Some(source.into());
        self
    }

    #[must_use]
    pub fn at(mut self, position: Option<usize>) -> Self {
        self.position = position;
        self
    }

    /// Says what a second attempt may do, while no batch was sent.
    #[must_use]
    pub(crate) fn recoverable(mut self, recovery: Recovery) -> Self {
        self.retry.get_or_insert_default().recovery = Some(recovery);
        self
    }

    /// Takes back what [`Self::recoverable`] said.
    #[must_use]
    pub(crate) fn final_failure(mut self) -> Self {
        if let Some(retry) = &mut self.retry {
            retry.recovery = None;
        }
        self
    }

    pub(crate) fn recovery(&self) -> Option<&Recovery> {
        self.retry.as_ref()?.recovery.as_ref()
    }

    /// Says when the client may try again.
    #[must_use]
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry.get_or_insert_default().after = Some(wait);
        self
    }

    /// When the client may try again, where that is known.
    pub fn retry_hint(&self) -> Option<Duration> {
        self.retry.as_ref()?.after
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The client's text, without position.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Zero-based byte offset into the user's SQL.
    pub fn position(&self) -> Option<usize> {
        self.position
    }
}
