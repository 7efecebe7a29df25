//! Who is to blame when DuckDB fails on a statement of ours: the client, a stored value, a file, the lake, a limit, or we.
//! The one place that decides.
//!
//! DuckDB's readers fail with all kinds of errors, some without a kind, and seldom say which file it was. What can't be told
//! from the error is told by reading the files one by one ([`find_bad`]): a file that fails alone is to blame; when none
//! does, the client is, or we are.

use translator::DATA_ERROR;

use crate::engine::duckdb::{DuckError, DuckErrorKind};

/// Who is to blame for an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Blame {
    /// A stored value that is none of its type: the message that the statement raised of it.
    Value(String),
    /// This file, as DuckDB names it.
    File(String),
    /// A file that DuckDB doesn't name.
    SomeFile,
    /// A file, or else the client: a value that can't be converted, arguments without sense.
    FileOrClient,
    /// A file, or else the lake.
    FileOrLake,
    /// A file, or else we: the statement was bound before.
    FileOrWe,
    /// The lake, which can't be reached or answers with faults.
    Lake,
    /// The lake refuses access.
    Denied,
    /// The lake doesn't take the credentials any more.
    Credentials,
    /// A file that is there no more.
    Vanished,
    /// DuckDB's memory limit.
    Memory,
    /// Where DuckDB spills to: full, or of no use.
    TemporaryFiles,
    /// Who cancelled it.
    Cancelled,
    /// Nobody knows: DuckDB lost the error.
    Lost,
}

impl Blame {
    pub(crate) fn of(error: &DuckError) -> Self {
        let text = error.text();
        if let Some((_, message)) = text.split_once(DATA_ERROR) {
            return Self::Value(message.to_owned());
        }
        if let Some(file) = named_file(text) {
            return Self::File(file);
        }
        let signs =
            ["TProtocolException", "Parquet file", "parquet file", "Invalid Parquet", "ecompression failure", "Thrift"];
        if signs.iter().any(|sign| text.contains(sign)) {
            return Self::SomeFile;
        }
        match error.kind {
            DuckErrorKind::OutOfMemory => Self::Memory,
            DuckErrorKind::Interrupted => Self::Cancelled,
            DuckErrorKind::Lost => Self::Lost,
            DuckErrorKind::Io => of_io(text),
            DuckErrorKind::Value => Self::FileOrClient,
            DuckErrorKind::Binder | DuckErrorKind::Parser | DuckErrorKind::Permission | DuckErrorKind::Other => {
                Self::FileOrWe
            }
        }
    }

    /// Whether a file may be to blame.
    pub(crate) fn may_be_a_files(&self) -> bool {
        match self {
            Self::File(_) | Self::SomeFile | Self::FileOrClient | Self::FileOrLake | Self::FileOrWe => true,
            Self::Value(_)
            | Self::Lake
            | Self::Denied
            | Self::Credentials
            | Self::Vanished
            | Self::Memory
            | Self::TemporaryFiles
            | Self::Cancelled
            | Self::Lost => false,
        }
    }
}

fn of_io(text: &str) -> Blame {
    let has = |signs: &[&str]| signs.iter().any(|sign| text.contains(sign));
    if has(&["duckdb_temp_", "Failed to create directory"]) {
        // Statements write nowhere else.
        Blame::TemporaryFiles
    } else if has(&["HTTP 403", "HTTP 401"]) {
        Blame::Denied
    } else if has(&["No such file", "HTTP 404", "404 (Not Found)", "No files found"]) {
        Blame::Vanished
    } else if has(&["HTTP 400"]) {
        // So S3 says that temporary credentials have expired.
        Blame::Credentials
    } else if has(&["HTTP", "onnect", "annot open file", "ould not read", "ould not open", "imeout", "timed out"]) {
        Blame::Lake
    } else {
        Blame::FileOrLake
    }
}

/// The file that DuckDB's message says can't be read.
fn named_file(text: &str) -> Option<String> {
    let marks = [("Failed to read file \"", '"'), ("No magic bytes found at end of file '", '\'')];
    marks.iter().find_map(|(mark, end)| {
        let (_, rest) = text.split_once(mark)?;
        Some(rest.split_once(*end)?.0.to_owned())
    })
}

/// The first of `files` that can't be read alone, and why. `read` reads some of them and nothing of a client's: first all,
/// then halves of what fails.
///
/// # Errors
/// A failure that is no file's fault.
pub(crate) fn find_bad<'a, T>(
    files: &'a [T],
    read: &impl Fn(&[T]) -> Result<(), DuckError>,
) -> Result<Option<(&'a T, DuckError)>, DuckError> {
    let Err(failure) = read(files) else { return Ok(None) };
    if !Blame::of(&failure).may_be_a_files() {
        return Err(failure);
    }
    if let [file] = files {
        return Ok(Some((file, failure)));
    }
    let (left, right) = files.split_at(files.len() / 2);
    match find_bad(left, read)? {
        Some(found) => Ok(Some(found)),
        None => find_bad(right, read),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_file_is_found_among_many_and_an_outage_is_no_files_fault() {
        let files: Vec<usize> = (0..9).collect();
        let error = |message: &str, kind| DuckError { kind, message: message.to_owned() };
        for bad in [0, 4, 8] {
            let found = find_bad(&files, &|some: &[usize]| {
                if some.contains(&bad) { Err(error("Out of buffer", DuckErrorKind::Other)) } else { Ok(()) }
            });
            assert_eq!(
                found.unwrap().map(|(file, failure)| (*file, failure.message)),
                Some((bad, "Out of buffer".to_owned()))
            );
        }
        assert_eq!(find_bad(&files, &|_: &[usize]| Ok(())), Ok(None));
        let outage = error("HTTP Error: HTTP 503", DuckErrorKind::Io);
        assert_eq!(find_bad(&files, &|_: &[usize]| Err(outage.clone())), Err(outage));
    }
}
