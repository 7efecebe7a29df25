//! The instance that scans PostgreSQL for `hot_scan = "scan"`: no other runs with PostgreSQL attached, and no user's
//! statement runs here.
//!
//! It is built when the first such query comes, so a server that never sees one loads no extension and knows no
//! connection string in DuckDB. A PostgreSQL that is down leaves nothing behind: the next query tries again.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use translator::postgres::SCAN_CATALOG;
use translator::quote::duckdb_text;

use super::duckdb::{Connection, Database, DuckError};
use crate::config::Secret;

/// How scans reach PostgreSQL.
#[derive(Debug)]
pub(crate) struct ScanSettings {
    pub(crate) url: Secret<String>,
    pub(crate) statement_timeout: Option<Duration>,
    pub(crate) memory_limit: Option<String>,
    pub(crate) threads: Option<usize>,
    pub(crate) temp_directory: PathBuf,
    pub(crate) extension_directory: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct ScanEngine {
    settings: ScanSettings,
    database: Mutex<Option<Arc<Database>>>,
}

/// A connection whose scans read one PostgreSQL snapshot. Dropping it ends the transaction.
#[derive(Debug)]
pub(crate) struct ScanTransaction {
    pub(crate) connection: Connection,
}

impl ScanEngine {
    pub(crate) fn new(settings: ScanSettings) -> Self {
        Self { settings, database: Mutex::default() }
    }

    /// Joins the snapshot of this name. Errors may quote the connection string.
    pub(crate) fn begin(&self, snapshot: &str) -> Result<ScanTransaction, DuckError> {
        let connection = self.database()?.connect()?;
        // The first statement of a transaction in PostgreSQL; its scans then need one connection and share the snapshot.
        let join = duckdb_text(&format!("SET TRANSACTION SNAPSHOT {}", duckdb_text(snapshot)));
        connection.execute("BEGIN")?;
        connection.execute(&format!("CALL postgres_execute('{SCAN_CATALOG}', {join})"))?;
        Ok(ScanTransaction { connection })
    }

    fn database(&self) -> Result<Arc<Database>, DuckError> {
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = database.as_ref() {
            return Ok(Arc::clone(database));
        }
        let attached = self.attach()?;
        *database = Some(Arc::clone(&attached));
        Ok(attached)
    }

    fn attach(&self) -> Result<Arc<Database>, DuckError> {
        let settings = &self.settings;
        let mut config = super::execution::fixed_settings();
        config.push(("temp_directory", settings.temp_directory.to_string_lossy().into_owned()));
        let directory = settings.extension_directory.as_ref().map(|path| path.to_string_lossy().into_owned());
        let optional = [
            ("memory_limit", settings.memory_limit.clone()),
            ("threads", settings.threads.map(|threads| threads.to_string())),
            ("extension_directory", directory),
        ];
        config.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        let database = Database::open(&config)?;
        let connection = database.connect()?;
        connection.execute("LOAD postgres_scanner")?;
        // Scans in parallel would open more connections, each with a snapshot of its own (duckdb-postgres #527).
        connection.execute("SET GLOBAL TimeZone = 'UTC'; SET GLOBAL pg_use_ctid_scan = false")?;
        if let Some(timeout) = settings.statement_timeout {
            connection.execute(&format!("SET GLOBAL pg_statement_timeout_millis = {}", timeout.as_millis().max(1)))?;
        }
        let url = duckdb_text(settings.url.expose());
        // An empty secret: without one, ATTACH looks for a persistent one, and those are off.
        connection.execute("CREATE TEMPORARY SECRET tc_postgres (TYPE postgres)")?;
        connection
            .execute(&format!("ATTACH {url} AS {SCAN_CATALOG} (TYPE postgres, READ_ONLY, SECRET tc_postgres)"))?;
        connection.execute("SET enable_external_access = false")?;
        connection.execute("SET lock_configuration = true")?;
        Ok(database)
    }
}

impl Drop for ScanTransaction {
    fn drop(&mut self) {
        if let Err(error) = self.connection.execute("ROLLBACK") {
            // The connection goes, and the transaction with it; the text may quote the connection string.
            tracing::debug!(kind = ?error.kind, "a scan's transaction did not end by itself");
        }
    }
}
