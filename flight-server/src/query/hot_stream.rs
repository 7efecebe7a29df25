//! The pure PostgreSQL path of the `hot` route: rows stream from the COPY to the client, without DuckDB, as the same Arrow
//! schema.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{Int64Type, SchemaRef};
use futures::StreamExt;
use translator::catalog::{Column, Entity};
use translator::hot_query::{HotOutput, HotQuery};
use translator::quote::uuid_text;

use super::error::QueryError;
use super::run::{RunEvent, RunSummary};
use super::source_errors::statement_error;
use super::sources::HotExecution;
use crate::postgres::{HotRows, Snapshot};

/// A running hot query. Dropping it cancels the COPY and closes the snapshot.
#[derive(Debug)]
pub(super) struct HotStream {
    query: HotQuery,
    entity: Arc<Entity>,
    schema: SchemaRef,
    /// `None` after the last row.
    source: Option<Source>,
    left: u64,
    started: Instant,
    first: Option<Instant>,
    summary: RunSummary,
    execution: HotExecution,
    inconsistent_rows: u64,
}

#[derive(Debug)]
enum Source {
    Rows(Box<HotRows<Snapshot>>),
    Count(Snapshot),
    /// The count was sent; the end is due.
    Counted(Snapshot),
}

impl HotStream {
    /// Starts the statement of `query` in `snapshot`.
    pub(super) async fn start(
        query: HotQuery,
        entity: Arc<Entity>,
        snapshot: Snapshot,
        schema: SchemaRef,
        max_rows: Option<u64>,
    ) -> Result<Self, QueryError> {
        let source = match &query.output {
            HotOutput::Count => Source::Count(snapshot),
            HotOutput::Columns(_) => Source::Rows(Box::new(
                snapshot
                    .into_hot_rows(&query.statement.sql, &entity, query.columns())
                    .await
                    .map_err(statement_error)?,
            )),
        };
        Ok(Self {
            query,
            entity,
            schema,
            source: Some(source),
            left: max_rows.unwrap_or(u64::MAX),
            started: Instant::now(),
            first: None,
            summary: RunSummary::default(),
            execution: HotExecution { rows_scanned: 0, rows_returned: 0, ms: 0.0, table: None, is_mirrored: false },
            inconsistent_rows: 0,
        })
    }

    /// What PostgreSQL delivered so far.
    pub(super) fn execution(&self) -> HotExecution {
        self.execution.clone()
    }

    /// Live dirty rows without an `entity_main` row, which were left out.
    pub(super) fn inconsistent_rows(&self) -> u64 {
        self.inconsistent_rows
    }

    /// The entity that answers.
    pub(super) fn entity(&self) -> &Entity {
        &self.entity
    }

    /// The next event; `None` after the end.
    pub(super) async fn next(&mut self) -> Option<Result<RunEvent, QueryError>> {
        match self.source.take()? {
            Source::Count(mut snapshot) => {
                let batch = self.count(&mut snapshot).await;
                self.source = Some(Source::Counted(snapshot));
                Some(batch.map(RunEvent::Batch))
            }
            Source::Counted(snapshot) => Some(self.finish(snapshot).await),
            Source::Rows(mut rows) => {
                let batch = if self.summary.truncated { None } else { rows.next().await };
                match batch {
                    Some(batch) => {
                        let batch = batch.map_err(statement_error).and_then(|batch| self.project(&batch));
                        if batch.is_ok() {
                            self.source = Some(Source::Rows(rows));
                        }
                        Some(batch.map(|batch| RunEvent::Batch(self.take(batch))))
                    }
                    None => {
                        let summary = rows.summary();
                        self.execution.rows_scanned = summary.rows_scanned;
                        self.execution.rows_returned = summary.rows_returned;
                        self.inconsistent_rows = summary.inconsistent_rows;
                        Some(self.finish(rows.into_snapshot()).await)
                    }
                }
            }
        }
    }

    async fn finish(&mut self, snapshot: Snapshot) -> Result<RunEvent, QueryError> {
        // After a cut the COPY still runs: dropping the snapshot cancels it.
        if !self.summary.truncated {
            snapshot.finish().await.map_err(statement_error)?;
        }
        self.execution.ms = self.started.elapsed().as_secs_f64() * 1000.0;
        let first = self.first.unwrap_or_else(Instant::now);
        self.summary.execution = first - self.started;
        self.summary.streaming = first.elapsed();
        Ok(RunEvent::End(self.summary.clone()))
    }

    async fn count(&mut self, snapshot: &mut Snapshot) -> Result<RecordBatch, QueryError> {
        let count = snapshot.count(&self.query.statement.sql).await.map_err(statement_error)?;
        let count = i64::try_from(count).map_err(QueryError::internal)?;
        let column: ArrayRef = Arc::new(Int64Array::from(vec![count]));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), vec![column]).map_err(QueryError::internal)?;
        Ok(self.take(batch))
    }

    /// Cuts a batch at `max_rows`, and counts it.
    fn take(&mut self, batch: RecordBatch) -> RecordBatch {
        self.first.get_or_insert_with(Instant::now);
        let rows = usize::try_from(self.left).unwrap_or(usize::MAX).min(batch.num_rows());
        self.summary.truncated = rows < batch.num_rows();
        let batch = batch.slice(0, rows);
        self.left -= rows as u64;
        self.summary.rows += rows as u64;
        self.summary.bytes += batch.get_array_memory_size() as u64;
        batch
    }

    /// The answer's columns from a batch of the hot statement.
    fn project(&self, batch: &RecordBatch) -> Result<RecordBatch, QueryError> {
        let HotOutput::Columns(columns) = &self.query.output else {
            return Err(QueryError::internal(anyhow::anyhow!("a count has no rows")));
        };
        let arrays = columns
            .iter()
            .zip(self.schema.fields())
            .map(|(column, field)| {
                let array = self.answer_column(batch, *column)?;
                if array.data_type() == field.data_type() {
                    Ok(array)
                } else {
                    cast(&array, field.data_type()).map_err(QueryError::internal)
                }
            })
            .collect::<Result<Vec<_>, QueryError>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options).map_err(QueryError::internal)
    }

    fn answer_column(&self, batch: &RecordBatch, column: Column) -> Result<ArrayRef, QueryError> {
        let named = |name: &str| {
            batch
                .column_by_name(name)
                .ok_or_else(|| QueryError::internal(anyhow::anyhow!("the hot statement has no column {name}")))
        };
        match column {
            Column::RowId => Ok(uuids(named("row_id")?)),
            Column::CreatedAt => Ok(moments(named("created_at")?)),
            Column::UpdatedAt => Ok(moments(named("changed_at")?)),
            Column::DeletedAt => Ok(moments(named("deleted_at")?)),
            Column::Tier => Ok(Arc::new(StringArray::from(vec!["hot"; batch.num_rows()]))),
            Column::Attribute(index) => {
                let array = named(&self.entity.attributes[index].column)?;
                Ok(if array.as_fixed_size_binary_opt().is_some() { uuids(array) } else { Arc::clone(array) })
            }
        }
    }
}

/// UUIDs as the wire has them: text.
fn uuids(array: &ArrayRef) -> ArrayRef {
    let bytes = array.as_fixed_size_binary();
    let text = |bytes: &[u8]| bytes.try_into().ok().map(|bytes| uuid_text(u128::from_be_bytes(bytes)));
    Arc::new(bytes.iter().map(|bytes| bytes.and_then(text)).collect::<StringArray>())
}

/// Milliseconds as TIMESTAMPTZ.
fn moments(array: &ArrayRef) -> ArrayRef {
    let millis = array.as_primitive::<Int64Type>();
    let micros = millis.iter().map(|millis| millis.map(|millis| millis.saturating_mul(1000)));
    Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}
