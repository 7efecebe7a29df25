//! What can go wrong with a query, by kind. The wire chooses the gRPC code from the kind alone.

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
    /// The server doesn't do this (writes, transactions).
    Unsupported,
    /// A bug of ours: the client learns the query id and nothing else.
    Internal,
}

/// A failed query: a kind, a text for the client and a chain for the log.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct QueryError {
    kind: ErrorKind,
    message: String,
    /// Zero-based byte offset into the user's SQL.
    position: Option<usize>,
    vanished: bool,
    #[source]
    source: Option<anyhow::Error>,
}

impl QueryError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), position: None, vanished: false, source: None }
    }

    /// An error of ours: `source` goes to the log, never to the client.
    pub fn internal(source: impl Into<anyhow::Error>) -> Self {
        Self {
            kind: ErrorKind::Internal,
            message: "internal error".to_owned(),
            position: None,
            vanished: false,
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

    /// A file vanished between listing and reading: a fresh file set may answer.
    #[must_use]
    pub(crate) fn of_vanished_file(mut self) -> Self {
        self.vanished = true;
        self
    }

    pub(crate) fn is_of_vanished_file(&self) -> bool {
        self.vanished
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
