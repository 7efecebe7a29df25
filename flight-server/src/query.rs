//! The query pipeline: SQL and options in, a plan and a stream of record batches out. Knows neither tonic nor Flight.

mod admission;
mod blame;
mod bound_memory;
mod delta_ids;
mod error;
mod explain;
mod file_check;
mod hot_copy;
mod hot_scan;
mod hot_stream;
mod indexing;
mod interface;
mod inventory;
mod moment_facts;
mod parameters;
mod permission;
mod pipeline;
mod plan_json;
mod record;
mod recovery;
mod run;
mod scan_figures;
mod source_errors;
mod sources;
mod statement;
pub(crate) mod system_tables;
mod threads;
mod unique_files;
mod unread;

pub use error::{ErrorKind, QueryError};
pub(crate) use file_check::file_faults;
pub use interface::{CancelOutcome, QueryPipeline};
pub use pipeline::{Pipeline, StartError};
pub use threads::wait_for_threads;
pub(crate) use unread::UnreadSlots;

use crate::access::Caller;
pub use crate::engine::SqlVocabulary;

use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::Stream;
use translator::options::QueryOptions;

/// One query as a client sent it, options already merged.
#[derive(Debug, Clone)]
pub struct QueryRequest {
    /// Identifies the query in plans, logs and errors (UUID text).
    pub query_id: String,
    /// The user's SQL, never changed.
    pub sql: String,
    /// Bound parameters: exactly one row, one column a parameter.
    pub parameters: Option<RecordBatch>,
    pub options: QueryOptions,
    /// Who asks.
    pub caller: Arc<Caller>,
}

/// What preparing a statement tells: no source is touched for it.
#[derive(Debug, Clone)]
pub struct PreparedQuery {
    /// Schema of the result; every field is nullable.
    pub schema: SchemaRef,
    /// One field a parameter, named `$1`, `$2`, … or `$name`, with the inferred type (Null when it can't be inferred).
    pub parameters: SchemaRef,
}

/// A planned query: what GetFlightInfo answers.
#[derive(Debug, Clone)]
pub struct PlannedQuery {
    pub schema: SchemaRef,
    /// The plan of docs/plan.md, without `execution`.
    pub plan: Arc<serde_json::Value>,
    /// Estimated number of rows; -1 when unknown (the wire's convention).
    pub estimated_rows: i64,
}

/// An item of a running query.
#[derive(Debug)]
pub enum QueryEvent {
    /// A batch of the result, with exactly the schema of the query. May be large: the wire splits it.
    Batch(RecordBatch),
    /// The last item: the plan with `execution` filled in.
    End(Arc<serde_json::Value>),
}

/// A running query. Dropping it cancels the query: DuckDB is interrupted, the PostgreSQL transaction ends, the permit
/// is free.
pub struct QueryStream {
    pub schema: SchemaRef,
    pub events: Pin<Box<dyn Stream<Item = Result<QueryEvent, QueryError>> + Send>>,
}

impl std::fmt::Debug for QueryStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryStream").field("schema", &self.schema).finish_non_exhaustive()
    }
}
