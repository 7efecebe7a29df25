//! What callers may ask of the query pipeline: the wire speaks to it through [`QueryPipeline`] alone.

use std::sync::Arc;

use async_trait::async_trait;
use translator::catalog::Catalog;
use translator::options::QueryOptions;

use super::{PlannedQuery, PreparedQuery, QueryError, QueryRequest, QueryStream};
use crate::access::Caller;
use crate::engine::SqlVocabulary;

/// What the wire needs of the query pipeline.
#[async_trait]
pub trait QueryPipeline: Send + Sync + 'static {
    /// What the caller sees of the catalog in force.
    fn catalog(&self, caller: &Caller) -> Arc<Catalog>;

    /// The server's defaults, below session options and call headers.
    fn default_options(&self) -> QueryOptions;

    /// Admits and binds a statement. Touches no source.
    ///
    /// # Errors
    /// The statement is wrong, refused, or names an unknown table.
    async fn prepare(&self, caller: &Arc<Caller>, sql: &str) -> Result<PreparedQuery, QueryError>;

    /// Plans a query without running it.
    ///
    /// # Errors
    /// As [`QueryPipeline::prepare`], and what planning meets: parameters that don't fit, a source that is down.
    async fn plan(&self, request: QueryRequest) -> Result<PlannedQuery, QueryError>;

    /// Plans and runs a query. Dropping the stream cancels it.
    ///
    /// # Errors
    /// As [`QueryPipeline::plan`], and whatever fails before the first batch.
    async fn execute(&self, request: QueryRequest) -> Result<QueryStream, QueryError>;

    /// Cancels the running query with this id, and no other.
    fn cancel(&self, caller: &Caller, query_id: &str) -> CancelOutcome;

    /// Keywords and functions of the SQL that clients may write.
    fn sql_vocabulary(&self) -> Arc<SqlVocabulary>;
}

/// What became of a request to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The query was running or waiting, and is told to stop.
    Cancelled,
    /// No query with that id runs here: it is over, never started, or runs on another replica.
    NotFound,
}
