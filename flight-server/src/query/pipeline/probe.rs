//! Which file is to blame for a failure of DuckDB: each is read alone.

use std::time::Duration;

use translator::emit::probe_statement;
use translator::plan::ScannedFile;

use super::ready::Ready;
use super::{Inner, blocking};
use crate::blame::find_bad;
use crate::engine::duckdb::DuckError;
use crate::query::blame::{FILE_LEAVE, execution_error};
use crate::query::error::{ErrorKind, QueryError, Recovery};

/// What may well be the client's own failure isn't looked into for longer.
const LIMIT: Duration = Duration::from_secs(60);

impl Ready {
    pub(super) fn reads_files(&self) -> bool {
        self.federated.references.iter().any(|reference| reference.files().next().is_some())
    }

    /// Whether DuckDB points at the user's own part of the statement.
    fn is_in_users_part(&self, error: &QueryError) -> bool {
        let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<DuckError>());
        cause.and_then(|error| error.position(&self.sql)).is_some_and(|place| place >= self.user_part)
    }
}

impl Inner {
    /// DuckDB seldom says which file it can't read, or that it is a file at all. Then what the statement needs of its files
    /// is read by itself, of all and then of fewer and fewer, until one file fails alone.
    pub(super) async fn name_damaged_file(&self, error: QueryError, ready: &Ready) -> Result<QueryError, QueryError> {
        let Some(Recovery::ProbeFiles { otherwise }) = error.recovery().cloned() else { return Ok(error) };
        let may_be_a_files = ready.reads_files() && !ready.is_in_users_part(&error);
        if may_be_a_files {
            let probed = tokio::time::timeout(LIMIT, self.probe(ready)).await;
            match probed {
                Ok(found) => {
                    if let Some((url, failure)) = found? {
                        return Ok(self.unreadable(url, &failure).await);
                    }
                }
                Err(_) => tracing::warn!(%error, "no file was found to blame within {LIMIT:?}"),
            }
        }
        Ok(match otherwise {
            Some(recovery) => error.recoverable(*recovery),
            None => error.final_failure(),
        })
    }

    /// The first file that can't be read alone, as DuckDB names it.
    async fn probe(&self, ready: &Ready) -> Result<Option<(String, DuckError)>, QueryError> {
        let lake_prefix = self.sources.lake.duckdb_root();
        for reference in ready.federated.references.clone() {
            let connection = self.engine.connect().map_err(execution_error)?;
            let interrupt = connection.interrupt_on_drop();
            let lake_prefix = lake_prefix.clone();
            let found = blocking(move || {
                let files: Vec<&ScannedFile> =
                    reference.warm.iter().chain(&reference.cold).flat_map(|source| &source.files).collect();
                let read = |some: &[&ScannedFile]| {
                    connection.query(&probe_statement(&reference, some, &lake_prefix)).map(|_| ())
                };
                if files.is_empty() {
                    return Ok(None);
                }
                let found = find_bad(&files, &read).map_err(execution_error)?;
                Ok(found.map(|(scanned, failure)| (format!("{lake_prefix}/{}", scanned.file.path), failure)))
            });
            let found = found.await?;
            interrupt.finish();
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The error of a file that can't be read, with the reason where it is known better than DuckDB says.
    async fn unreadable(&self, url: String, failure: &DuckError) -> QueryError {
        let path = self.sources.lake.relative_path(&url);
        let message = match self.sources.lake.why_unreadable(&path).await {
            Some(reason) => format!("the file `{path}` can't be read: {reason}{FILE_LEAVE}"),
            None => format!("the file `{path}` can't be read: {}{FILE_LEAVE}", failure.text()),
        };
        QueryError::new(ErrorKind::Unavailable, message).recoverable(Recovery::WithoutFile(url))
    }
}
