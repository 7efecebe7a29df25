//! Errors of DuckDB and of the translator as errors of queries, by who is to blame.

use translator::{TranslateError, TranslateErrorKind};

use super::error::{ErrorKind, QueryError, Recovery};
use crate::blame::Blame;
use crate::engine::duckdb::DuckError;

/// Ends messages about a file that can't be read.
pub(super) const FILE_LEAVE: &str = "; with allow_partial = true it is left out";

/// An error of DuckDB while it runs a statement of ours.
pub(super) fn execution_error(error: DuckError) -> QueryError {
    let text = error.text();
    let lake = || QueryError::new(ErrorKind::Unavailable, format!("the lake can't be read: {text}"));
    let probe = |otherwise: Option<Recovery>| Recovery::ProbeFiles { otherwise: otherwise.map(Box::new) };
    match Blame::of(&error) {
        Blame::Value(message) => QueryError::new(ErrorKind::Misconfigured, message),
        Blame::File(file) => unreadable(file, &error),
        Blame::SomeFile => {
            QueryError::new(ErrorKind::Unavailable, format!("a file can't be read: {text}")).recoverable(probe(None))
        }
        Blame::FileOrClient => {
            QueryError::new(ErrorKind::InvalidQuery, text).with_source(error.clone()).recoverable(probe(None))
        }
        Blame::FileOrLake => lake().recoverable(probe(Some(Recovery::WithoutLake))),
        Blame::FileOrWe => QueryError::internal(error).recoverable(probe(None)),
        Blame::Lake => lake().recoverable(Recovery::WithoutLake),
        // Who may list and not read is set up wrongly; that is no outage.
        Blame::Denied => {
            QueryError::new(ErrorKind::Misconfigured, format!("the lake can't be read: access is denied: {text}"))
        }
        Blame::Credentials => lake().recoverable(Recovery::NewCredentials),
        Blame::Vanished => lake().recoverable(Recovery::FreshFiles),
        Blame::Memory => QueryError::new(
            ErrorKind::LimitExceeded,
            format!("memory_limit: {text}; narrow the query, or raise duckdb.memory_limit or temp_directory_limit"),
        )
        .recoverable(Recovery::WithoutDuckDb),
        Blame::TemporaryFiles => QueryError::new(
            ErrorKind::LimitExceeded,
            format!("duckdb.temp_directory: {text}; narrow the query, or raise duckdb.memory_limit"),
        )
        .recoverable(Recovery::WithoutDuckDb),
        Blame::Cancelled => QueryError::new(ErrorKind::Cancelled, text),
        // Whatever it was passed: most likely an answer of the lake.
        Blame::Lost => QueryError::new(ErrorKind::Unavailable, text).recoverable(Recovery::FreshFiles),
    }
}

/// The error of a file that can't be read; `file` as DuckDB names it.
pub(super) fn unreadable(file: String, error: &DuckError) -> QueryError {
    let message = format!("the file `{file}` can't be read: {}{FILE_LEAVE}", error.text());
    QueryError::new(ErrorKind::Unavailable, message).recoverable(Recovery::WithoutFile(file))
}

/// What the translator found: in what the client wrote, or in itself.
pub(super) fn translate_error(error: TranslateError) -> QueryError {
    let kind = match error.kind {
        TranslateErrorKind::Syntax | TranslateErrorKind::Refused => ErrorKind::InvalidQuery,
        TranslateErrorKind::UnknownTable => ErrorKind::NotFound,
        TranslateErrorKind::Internal => return QueryError::internal(error),
    };
    QueryError::new(kind, error.message).at(error.position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::duckdb::DuckErrorKind;

    #[test]
    fn errors_tell_what_a_second_attempt_may_do() {
        let of = |kind, message: &str| execution_error(DuckError { kind, message: message.to_owned() });
        let damaged = of(
            DuckErrorKind::Value,
            "Invalid Input Error: Failed to read file \"/lake/base/1/a.parquet\": ZSTD Decompression failure",
        );
        assert_eq!(damaged.kind(), ErrorKind::Unavailable);
        assert_eq!(damaged.recovery(), Some(&Recovery::WithoutFile("/lake/base/1/a.parquet".to_owned())));
        let vanished =
            of(DuckErrorKind::Io, "IO Error: Cannot open file \"/lake/a.parquet\": No such file or directory");
        assert_eq!(vanished.recovery(), Some(&Recovery::FreshFiles));
        let denied = of(DuckErrorKind::Io, "HTTP Error: HTTP GET error on 'x' (HTTP 503)");
        assert_eq!((denied.kind(), denied.recovery()), (ErrorKind::Unavailable, Some(&Recovery::WithoutLake)));
        let disk = of(
            DuckErrorKind::Io,
            "IO Error: Could not write file \"/t/duckdb_temp_storage_S64K-0.tmp\": No space left",
        );
        assert_eq!((disk.kind(), disk.recovery()), (ErrorKind::LimitExceeded, Some(&Recovery::WithoutDuckDb)));
        let expired = of(DuckErrorKind::Io, "HTTP Error: HTTP GET error reading 'x' (HTTP 400 Bad Request)");
        assert_eq!((expired.kind(), expired.recovery()), (ErrorKind::Unavailable, Some(&Recovery::NewCredentials)));
        let denied = of(DuckErrorKind::Io, "HTTP Error: HTTP GET error reading 'x' (HTTP 403 Forbidden)");
        assert_eq!((denied.kind(), denied.recovery()), (ErrorKind::Misconfigured, None));
        let memory = of(DuckErrorKind::OutOfMemory, "Out of Memory Error: could not allocate block");
        assert_eq!((memory.kind(), memory.recovery()), (ErrorKind::LimitExceeded, Some(&Recovery::WithoutDuckDb)));
        let value = of(DuckErrorKind::Value, "Conversion Error: Could not convert string 'x' to INT32");
        let probe = Recovery::ProbeFiles { otherwise: None };
        assert_eq!((value.kind(), value.recovery()), (ErrorKind::InvalidQuery, Some(&probe)));
        let binder = of(DuckErrorKind::Binder, "Binder Error: nope");
        assert_eq!((binder.kind(), binder.recovery()), (ErrorKind::Internal, Some(&probe)));
        let map = of(DuckErrorKind::Io, "IO Error: MAP_KEY_VALUE requires two children");
        let probe = Recovery::ProbeFiles { otherwise: Some(Box::new(Recovery::WithoutLake)) };
        assert_eq!((map.kind(), map.recovery()), (ErrorKind::Unavailable, Some(&probe)));
    }
}
