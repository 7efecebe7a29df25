//! From a failure to a gRPC status: the one place that chooses codes, and the text that clients read.

use std::fmt::Write as _;

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::failure::Failure;
use super::session;
use crate::query::ErrorKind;

/// The longest status text, in bytes as it travels: percent-encoded in a trailer, and once more in base64 where the
/// error has details. Clients on gRPC's C core refuse trailers from 8 KiB on, at random first and from 16 KiB always
/// ([`grpc.max_metadata_size`]), as an exhausted resource.
///
/// [`grpc.max_metadata_size`]: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html
const MAX_MESSAGE_BYTES: usize = 3_000;
/// At most this many characters of the offending line are shown on either side of the position.
const EXCERPT_CHARS: usize = 60;

/// The gRPC code of a kind of error. Only codes that Java's Flight library holds (it knows no FAILED_PRECONDITION,
/// ABORTED, OUT_OF_RANGE or DATA_LOSS).
pub(super) fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidQuery => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::LimitExceeded => Code::ResourceExhausted,
        // A wrong set-up looks to a client like a source that is down: nothing it can mend in its request.
        ErrorKind::Unavailable | ErrorKind::Misconfigured | ErrorKind::UnreadableValue => Code::Unavailable,
        ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::Internal => Code::Internal,
    }
}

/// Where it is known when to try again, `google.rpc.RetryInfo` is in the details ([gRPC's richer error model]).
///
/// [gRPC's richer error model]: https://grpc.io/docs/guides/error/#richer-error-model
impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        log(&failure);
        let mut metadata = MetadataMap::new();
        if failure.forget_session {
            session::forget_cookie(&mut metadata);
        }
        let (code, message) = (code(failure.error.kind()), message(&failure));
        match failure.error.retry_hint() {
            Some(wait) => {
                let details = ErrorDetails::with_retry_info(Some(wait));
                Self::with_error_details_and_metadata(code, message, details, metadata)
            }
            None => Self::with_metadata(code, message, metadata),
        }
    }
}

/// The client's text: message, place in the SQL, query id. Of a bug of ours only the query id.
fn message(failure: &Failure) -> String {
    let mut place = String::new();
    if let Some(query) = &failure.query {
        if let Some(position) = failure.error.position().and_then(|offset| Position::of(&query.sql, offset)) {
            // Writing to a String cannot fail.
            let _ = write!(place, "\n  at line {}, column {}", position.line, position.column);
            let _ = write!(place, "\n  {}\n  {}", position.excerpt, position.caret);
        }
        let _ = write!(place, "\n(query id {})", query.query_id);
    }
    let room = MAX_MESSAGE_BYTES.saturating_sub(place.bytes().map(encoded_length).sum());
    let text = match failure.error.kind() {
        ErrorKind::Internal => "internal error".to_owned(),
        ErrorKind::InvalidQuery
        | ErrorKind::NotFound
        | ErrorKind::Unauthenticated
        | ErrorKind::PermissionDenied
        | ErrorKind::LimitExceeded
        | ErrorKind::Unavailable
        | ErrorKind::DeadlineExceeded
        | ErrorKind::Cancelled
        | ErrorKind::Misconfigured
        | ErrorKind::UnreadableValue
        | ErrorKind::Unsupported => truncate(failure.error.message(), room),
    };
    text + &place
}

/// Cuts a text between characters where its encoded form would be longer than `room`.
fn truncate(message: &str, room: usize) -> String {
    let mut length = 0;
    for (start, character) in message.char_indices() {
        length += message[start..start + character.len_utf8()].bytes().map(encoded_length).sum::<usize>();
        if length > room {
            return format!("{}…", &message[..start]);
        }
    }
    message.to_owned()
}

/// Bytes that a byte of a status text takes on the wire. Tonic encodes more than gRPC asks for; whatever is no letter or
/// digit counts as encoded.
fn encoded_length(byte: u8) -> usize {
    if byte.is_ascii_alphanumeric() { 1 } else { 3 }
}

/// The log's text: the whole chain of causes. The client's mistakes are no news to an operator.
fn log(failure: &Failure) {
    let query_id = failure.query.as_ref().map_or("", |query| query.query_id.as_str());
    let mut chain = failure.error.to_string();
    let mut source = std::error::Error::source(&failure.error);
    while let Some(cause) = source {
        let _ = write!(chain, ": {cause}");
        source = cause.source();
    }
    match failure.error.kind() {
        ErrorKind::Internal => tracing::error!(query_id, error = %chain, "call failed by a bug"),
        ErrorKind::Misconfigured | ErrorKind::UnreadableValue | ErrorKind::Unavailable => {
            tracing::warn!(query_id, error = %chain, "call failed");
        }
        ErrorKind::InvalidQuery
        | ErrorKind::NotFound
        | ErrorKind::Unauthenticated
        | ErrorKind::PermissionDenied
        | ErrorKind::LimitExceeded
        | ErrorKind::DeadlineExceeded
        | ErrorKind::Cancelled
        | ErrorKind::Unsupported => tracing::debug!(query_id, error = %chain, "call failed"),
    }
}

/// A place in the user's SQL, for people.
#[derive(Debug, PartialEq, Eq)]
struct Position {
    /// 1-based.
    line: usize,
    /// 1-based, in characters.
    column: usize,
    /// The line, or the part of it around the place.
    excerpt: String,
    /// A caret under the place, indented as the excerpt is.
    caret: String,
}

impl Position {
    /// `None` when the offset lies outside the text.
    fn of(sql: &str, offset: usize) -> Option<Self> {
        if offset > sql.len() {
            return None;
        }
        let offset = (0..=offset).rev().find(|offset| sql.is_char_boundary(*offset))?;
        let start = sql[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        let end = sql[offset..].find('\n').map_or(sql.len(), |newline| offset + newline);
        let before: Vec<char> = sql[start..offset].chars().collect();
        let after: Vec<char> = sql[offset..end].trim_end().chars().collect();

        let mut excerpt = String::new();
        let mut caret = String::new();
        let shown = &before[before.len().saturating_sub(EXCERPT_CHARS)..];
        if shown.len() < before.len() {
            excerpt.push('…');
            caret.push(' ');
        }
        excerpt.extend(shown);
        // A tab stays a tab, so that the caret stands under its place whatever the tab width.
        caret.extend(shown.iter().map(|c| if *c == '\t' { '\t' } else { ' ' }));
        caret.push('^');
        excerpt.extend(after.iter().take(EXCERPT_CHARS));
        if after.len() > EXCERPT_CHARS {
            excerpt.push('…');
        }
        Some(Self { line: sql[..offset].matches('\n').count() + 1, column: before.len() + 1, excerpt, caret })
    }
}

#[cfg(test)]
mod tests;
