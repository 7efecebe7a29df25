//! A running query: its events, and the attempts that start it again.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use futures::stream;
use tokio::sync::OwnedSemaphorePermit;
use translator::options::QueryOptions;

use super::ready::Ready;
use super::{Inner, caught};
use crate::failpoint::failpoint;
use crate::query::error::QueryError;
use crate::query::hot_stream::HotStream;
use crate::query::plan_json;
use crate::query::recovery::Attempts;
use crate::query::run::{Run, RunEvent};
use crate::query::statement::BoundStatement;
use crate::query::{QueryEvent, QueryRequest, QueryStream};

/// A running statement, in either engine.
pub(super) enum Execution {
    DuckDb(Run),
    Postgres(Box<HotStream>),
}

impl Execution {
    pub(super) async fn next(&mut self, inner: &Inner) -> Result<RunEvent, QueryError> {
        let event = match self {
            Self::DuckDb(run) => run.next().await.transpose()?,
            Self::Postgres(stream) => inner.sources.unless_silent(async { stream.next().await.transpose() }).await?,
        };
        event.ok_or_else(|| QueryError::internal(anyhow::anyhow!("the query ended without a word")))
    }
}

/// Runs what is ready.
pub(super) async fn start(
    inner: &Inner,
    ready: &mut Ready,
    schema: &SchemaRef,
    options: &QueryOptions,
    permit: &Arc<OwnedSemaphorePermit>,
) -> Result<Execution, QueryError> {
    if let Some((query, entity, snapshot)) = ready.hot_query.take() {
        let stream = HotStream::start(query, entity, snapshot, Arc::clone(schema), options.max_rows);
        let stream = inner.sources.unless_silent(stream).await?;
        return Ok(Execution::Postgres(Box::new(stream)));
    }
    let (connection, sql) = (Arc::clone(&ready.connection), ready.sql.clone());
    let stuck = if !ready.reads_files() { inner.stuck.without_lake() } else { inner.stuck.clone() };
    Run::start(connection, sql, Arc::clone(schema), options.max_rows, Arc::clone(permit), stuck).map(Execution::DuckDb)
}

/// Gets a query ready and starts it, in as many attempts as make sense.
async fn begin(
    inner: &Inner,
    bound: &Arc<BoundStatement>,
    request: &QueryRequest,
    translation: Duration,
    permit: &Arc<OwnedSemaphorePermit>,
    attempts: &mut Attempts,
) -> Result<(Ready, Execution), QueryError> {
    loop {
        let begun = async {
            let mut ready = inner.ready(bound, request, translation, attempts).await?;
            let run = start(inner, &mut ready, &bound.schema, &request.options, permit).await?;
            Ok((ready, run))
        };
        match begun.await {
            Ok(begun) => return Ok(begun),
            Err(error) => attempts.recover(error, &request.options, &inner.sources, &inner.retries).await?,
        }
    }
}

/// The state of a running query. Dropping it lets go of run and permit.
pub(super) struct Streaming {
    inner: Arc<Inner>,
    bound: Arc<BoundStatement>,
    request: QueryRequest,
    translation: Duration,
    ready: Ready,
    /// `None` after the end.
    run: Option<Execution>,
    permit: Arc<OwnedSemaphorePermit>,
    attempts: Attempts,
    /// After the first batch an error ends the stream.
    sent: bool,
}

impl Streaming {
    /// Starts a query that has its permit.
    ///
    /// # Errors
    /// It fails before its first batch, and a second attempt can't do better.
    pub(super) async fn start(
        inner: Arc<Inner>,
        bound: Arc<BoundStatement>,
        request: QueryRequest,
        translation: Duration,
        permit: OwnedSemaphorePermit,
    ) -> Result<QueryStream, QueryError> {
        let mut attempts = Attempts::default();
        let schema = Arc::clone(&bound.schema);
        let permit = Arc::new(permit);
        let (ready, run) = begin(&inner, &bound, &request, translation, &permit, &mut attempts).await?;
        let state = Self { inner, bound, request, translation, ready, run: Some(run), permit, attempts, sent: false };
        let events = stream::unfold(Some(state), async |state| {
            let state: Self = state?;
            match caught(async { Ok(state.step().await) }).await {
                Ok(step) => step.map(|(event, state)| (event, Some(state))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(QueryStream { schema, events: Box::pin(events) })
    }

    /// Starts another attempt after a failure of a source or of DuckDB.
    async fn again(&mut self, error: QueryError) -> Result<(), QueryError> {
        let Self { inner, bound, request, translation, attempts, permit, ready, .. } = self;
        let error = inner.name_damaged_file(error, ready).await?;
        if self.sent {
            return Err(error);
        }
        attempts.recover(error, &request.options, &inner.sources, &inner.retries).await?;
        let (again, run) = begin(inner, bound, request, *translation, permit, attempts).await?;
        self.ready = again;
        self.run = Some(run);
        Ok(())
    }

    async fn step(mut self) -> Option<(Result<QueryEvent, QueryError>, Self)> {
        loop {
            let run = self.run.as_mut()?;
            if !self.sent {
                failpoint("query.stream").await;
            }
            match run.next(&self.inner).await {
                Ok(RunEvent::Batch(batch)) => {
                    self.sent = true;
                    return Some((Ok(QueryEvent::Batch(batch)), self));
                }
                Ok(RunEvent::End(summary)) => {
                    if let Some(Execution::Postgres(stream)) = self.run.take() {
                        self.ready.hot.push(stream.execution());
                        if stream.inconsistent_rows() > 0 {
                            let warning = self.inner.sources.inconsistency(stream.entity(), stream.inconsistent_rows());
                            plan_json::warn(&mut self.ready.plan, &warning);
                        }
                    }
                    let plan = plan_json::executed(&self.ready.plan, &self.ready.hot, &self.ready.scans, &summary);
                    tracing::info!(
                        query_id = self.request.query_id,
                        route = self.ready.plan["route"].as_str(),
                        rows = summary.rows,
                        execution_ms = summary.execution.as_secs_f64() * 1000.0,
                        "query finished"
                    );
                    return Some((Ok(QueryEvent::End(plan)), self));
                }
                Err(error) if error.recovery().is_some() => {
                    self.run = None;
                    if let Err(error) = self.again(error).await {
                        return Some((Err(error), self));
                    }
                }
                Err(error) => {
                    self.run = None;
                    return Some((Err(error), self));
                }
            }
        }
    }
}
