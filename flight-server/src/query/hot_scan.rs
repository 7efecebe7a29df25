//! `hot_scan = "scan"`: hot rows by DuckDB's own scans of PostgreSQL, in the snapshot that the query holds open.

use std::sync::Arc;

use translator::emit::hot_table;
use translator::plan::ReferencePlan;
use translator::postgres::HotStatement;

use super::blame::execution_error;
use super::error::QueryError;
use super::source_errors::statement_error;
use crate::config::Config;
use crate::engine::duckdb::{Connection, DuckError, DuckErrorKind};
use crate::engine::{ScanEngine, ScanSettings, create_temporary_table};
use crate::postgres::{
    HotSummary, PostgresError, ScannedRows, Snapshot, hot_schema, passing_scan_failure, scan_failure,
};

/// Scans PostgreSQL through an instance of DuckDB that does nothing else.
#[derive(Debug)]
pub(super) struct HotScans {
    engine: Arc<ScanEngine>,
}

/// What can fail while scanned rows go from one DuckDB into the other.
enum Failure {
    Scan(DuckError),
    Decode(PostgresError),
    Append(DuckError),
}

impl HotScans {
    pub(super) fn new(config: &Config, temp_directory: &std::path::Path) -> Self {
        let settings = ScanSettings {
            url: config.postgres.url.clone(),
            statement_timeout: config.postgres.statement_timeout,
            memory_limit: config.duckdb.memory_limit.clone(),
            threads: config.duckdb.threads,
            temp_directory: temp_directory.to_owned(),
            extension_directory: config.duckdb.extension_directory.clone(),
        };
        Self { engine: Arc::new(ScanEngine::new(settings)) }
    }

    /// Loads the hot rows of the reference at `index` into its temporary table.
    pub(super) async fn load(
        &self,
        snapshot: &mut Snapshot,
        index: usize,
        reference: &ReferencePlan,
        statement: &HotStatement,
        inconsistent_sql: &str,
        connection: &Arc<Connection>,
    ) -> Result<HotSummary, QueryError> {
        let name = snapshot.export().await.map_err(statement_error)?;
        let engine = Arc::clone(&self.engine);
        let begun = tokio::task::spawn_blocking(move || engine.begin(&name)).await.map_err(QueryError::internal)?;
        let transaction = begun.map_err(|error| query_error(Failure::Scan(error)))?;
        let guard = transaction.connection.interrupt_on_drop();

        let connection = Arc::clone(connection);
        let (entity, statement) = (Arc::clone(&reference.entity), statement.clone());
        let scan = move || -> Result<HotSummary, Failure> {
            let table = hot_table(index);
            let schema = hot_schema(&entity, &statement.columns);
            create_temporary_table(&connection, &table, &schema).map_err(Failure::Append)?;
            let mut rows = ScannedRows::new(&entity, &statement.columns).map_err(Failure::Decode)?;
            let mut batches = transaction.connection.stream(&statement.sql).map_err(Failure::Scan)?;
            while let Some(batch) = batches.next().map_err(Failure::Scan)? {
                let batch = rows.decode(&batch).map_err(Failure::Decode)?;
                connection.append(&table, &batch).map_err(Failure::Append)?;
            }
            Ok(rows.summary())
        };
        let scanned = tokio::task::spawn_blocking(scan).await.map_err(QueryError::internal)?;
        guard.finish();
        let mut summary = scanned.map_err(query_error)?;
        summary.inconsistent_rows = snapshot.count(inconsistent_sql).await.map_err(statement_error)?;
        Ok(summary)
    }
}

fn query_error(failure: Failure) -> QueryError {
    match failure {
        Failure::Scan(error)
            if error.kind == DuckErrorKind::Interrupted || error.kind == DuckErrorKind::OutOfMemory =>
        {
            execution_error(error)
        }
        Failure::Scan(error) if error.kind == DuckErrorKind::Lost => statement_error(passing_scan_failure()),
        Failure::Scan(error) => statement_error(scan_failure(&error.message)),
        Failure::Decode(error) => statement_error(error),
        Failure::Append(error) => execution_error(error),
    }
}
