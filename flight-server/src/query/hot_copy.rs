//! `hot_scan = "copy"`: hot rows by binary COPY into temporary tables, those of a large dirty set over several
//! connections at once.
//!
//! PostgreSQL reads a dirty row by three index look-ups, which one backend does one after the other: a lateral aggregate
//! never runs in parallel workers. So a large set is cut by `row_id`, and each part is read by a connection of its own
//! in the same exported snapshot (PostgreSQL documentation, "Snapshot Synchronization Functions"), as `pg_dump --jobs`
//! does it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::future::try_join_all;
use futures::stream::select_all;
use futures::{Stream, TryFutureExt, TryStreamExt};
use translator::emit::hot_table;
use translator::lake::IdSet;
use translator::plan::ReferencePlan;
use translator::postgres::HotStatement;

use super::error::QueryError;
use super::run::execution_error;
use super::sources::{Sources, statement_error};
use crate::engine::create_temporary_table;
use crate::engine::duckdb::{Connection, DuckError};
use crate::postgres::{HotSummary, PostgresError, Snapshot, hot_schema};

/// As many dirty rows, which take some tens of milliseconds, are worth a connection.
const ROWS_A_CONNECTION: usize = 10_000;

impl Sources {
    /// Loads the hot rows of the reference at `index` into its temporary table.
    ///
    /// `snapshots` are the connections on the query's snapshot: one at least, and more are added where `ids`, the dirty
    /// ones that matter, are many.
    pub(super) async fn copy_hot_rows(
        &self,
        snapshots: &mut Vec<Snapshot>,
        index: usize,
        reference: &ReferencePlan,
        statement: &HotStatement,
        ids: Option<&IdSet>,
        connection: &Arc<Connection>,
    ) -> Result<HotSummary, QueryError> {
        let entity = &reference.entity;
        let parts = match ids {
            Some(ids) => {
                let wanted = (ids.len() / ROWS_A_CONNECTION).clamp(1, self.postgres.read_connections());
                if wanted > snapshots.len() {
                    let missing = wanted - snapshots.len();
                    let join = self.postgres.join(&mut snapshots[0], missing).map_err(statement_error);
                    let joined = self.unless_silent(join).await?;
                    snapshots.extend(joined);
                }
                statement.parts(&ids.cuts(wanted.min(snapshots.len())))
            }
            None => vec![statement.sql.clone()],
        };
        let readers = try_join_all(
            snapshots.iter_mut().zip(&parts).map(|(snapshot, sql)| snapshot.hot_rows(sql, entity, &statement.columns)),
        );
        let mut readers = self.unless_silent(readers.map_err(statement_error)).await?;
        let schema = hot_schema(entity, &statement.columns);
        self.append_all(connection, hot_table(index), schema, &mut select_all(&mut readers)).await?;
        Ok(readers.iter().map(|reader| reader.summary()).sum())
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
