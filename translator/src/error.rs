//! Why a statement was not translated.

/// Kinds of refusal that clients can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TranslateErrorKind {
    /// The text isn't SQL.
    Syntax,
    /// The statement, or a part of it, isn't answered here.
    Refused,
    /// A table that doesn't exist.
    UnknownTable,
    /// A bug of ours.
    Internal,
}

/// A statement that was not translated, with the place in the user's SQL (zero-based byte offset) when it is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TranslateError {
    pub kind: TranslateErrorKind,
    pub message: String,
    pub position: Option<usize>,
}

impl TranslateError {
    pub(crate) fn new(kind: TranslateErrorKind, message: impl Into<String>, position: Option<usize>) -> Self {
        Self { kind, message: message.into(), position }
    }

    pub(crate) fn refused(message: impl Into<String>, position: Option<usize>) -> Self {
        Self::new(TranslateErrorKind::Refused, message, position)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(TranslateErrorKind::Internal, message, None)
    }

    /// Moves the position by the length of a prefix that was cut off before parsing.
    #[must_use]
    pub fn shifted(mut self, by: usize) -> Self {
        self.position = self.position.map(|position| position + by);
        self
    }
}
