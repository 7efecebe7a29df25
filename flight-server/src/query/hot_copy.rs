//! `hot_scan = "copy"`: dirty ids and hot rows by binary COPY, straight into temporary tables.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{Stream, TryFutureExt, TryStreamExt};
use translator::emit::hot_table;
use translator::plan::ReferencePlan;
use translator::postgres::HotStatement;

use super::blame::execution_error;
use super::error::QueryError;
use super::source_errors::statement_error;
use super::sources::Sources;
use crate::engine::create_temporary_table;
use crate::engine::duckdb::{Connection, DuckError};
use crate::postgres::{HotSummary, PostgresError, Snapshot, hot_schema};

impl Sources {
    /// Loads the hot rows of the reference at `index` into its temporary table.
    pub(super) async fn copy_hot_rows(
        &self,
        snapshot: &mut Snapshot,
        index: usize,
        reference: &ReferencePlan,
        statement: &HotStatement,
        connection: &Arc<Connection>,
    ) -> Result<HotSummary, QueryError> {
        let (entity, columns) = (&reference.entity, &statement.columns);
        let rows = snapshot.hot_rows(&statement.sql, entity, columns).map_err(statement_error);
        let mut rows = self.unless_silent(rows).await?;
        self.append_all(connection, hot_table(index), hot_schema(entity, columns), &mut rows).await?;
        Ok(rows.summary())
    }

    /// Appends a stream of batches from PostgreSQL to a new temporary table. DuckDB works on a thread of its own, while the
    /// next batch comes.
    pub(super) async fn append_all<S>(
        &self,
        connection: &Arc<Connection>,
        table: String,
        schema: SchemaRef,
        batches: &mut S,
    ) -> Result<(), QueryError>
    where
        S: Stream<Item = Result<RecordBatch, PostgresError>> + Unpin,
    {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<RecordBatch>(4);
        let connection = Arc::clone(connection);
        let appender = tokio::task::spawn_blocking(move || -> Result<(), DuckError> {
            create_temporary_table(&connection, &table, &schema)?;
            while let Some(batch) = receiver.blocking_recv() {
                connection.append(&table, &batch)?;
            }
            Ok(())
        });
        while let Some(batch) = self.unless_silent(batches.try_next().map_err(statement_error)).await? {
            if sender.send(batch).await.is_err() {
                // The appender has failed and says why below.
                break;
            }
        }
        drop(sender);
        appender.await.map_err(QueryError::internal)?.map_err(execution_error)
    }
}
