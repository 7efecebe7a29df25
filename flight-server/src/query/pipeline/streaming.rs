//! A running query: its events, and the attempts that start it again.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use futures::stream;
use tokio::sync::OwnedSemaphorePermit;
use translator::options::QueryOptions;

use super::Inner;
use super::ready::{Ready, ready};
use crate::query::admission::QueryGuard;
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
    pub(super) async fn next(&mut self) -> Option<Result<RunEvent, QueryError>> {
        match self {
            Self::DuckDb(run) => run.next().await,
            Self::Postgres(stream) => stream.next().await,
        }
    }
}

/// Runs what is ready.
pub(super) async fn start(
    ready: &mut Ready,
    schema: &SchemaRef,
    options: &QueryOptions,
    permit: &Arc<OwnedSemaphorePermit>,
) -> Result<Execution, QueryError> {
    if let Some((query, entity, snapshot)) = ready.hot_query.take() {
        let stream = HotStream::start(query, entity, snapshot, Arc::clone(schema), options.max_rows).await?;
        return Ok(Execution::Postgres(Box::new(stream)));
    }
    let (connection, sql) = (Arc::clone(&ready.connection), ready.sql.clone());
    Run::start(connection, sql, Arc::clone(schema), options.max_rows, Arc::clone(permit)).map(Execution::DuckDb)
}

/// The state of a running query. Dropping it lets go of run, permit and registration.
pub(super) struct Streaming {
    inner: Arc<Inner>,
    guard: QueryGuard,
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
        guard: QueryGuard,
        bound: Arc<BoundStatement>,
        request: QueryRequest,
        translation: Duration,
        permit: OwnedSemaphorePermit,
    ) -> Result<QueryStream, QueryError> {
        let mut attempts = Attempts::default();
        let mut ready = guard.within(self::ready(&inner, &bound, &request, translation, &mut attempts)).await?;
        let schema = Arc::clone(&bound.schema);
        let permit = Arc::new(permit);
        let run = guard.within(start(&mut ready, &schema, &request.options, &permit)).await?;
        let state =
            Self { inner, guard, bound, request, translation, ready, run: Some(run), permit, attempts, sent: false };
        Ok(QueryStream { schema, events: Box::pin(stream::unfold(state, Self::step)) })
    }

    /// Starts another attempt after a failure of a source or of DuckDB.
    async fn again(&mut self, error: QueryError) -> Result<(), QueryError> {
        let Self { inner, bound, request, translation, attempts, permit, ready, .. } = self;
        let work = async {
            let error = inner.name_damaged_file(error, ready).await?;
            if self.sent {
                return Err(error);
            }
            attempts.recover(error, &request.options, &inner.sources)?;
            let mut again = self::ready(inner, bound, request, *translation, attempts).await?;
            let run = start(&mut again, &bound.schema, &request.options, permit).await?;
            Ok((again, run))
        };
        let (again, run) = self.guard.within(work).await?;
        self.ready = again;
        self.run = Some(run);
        Ok(())
    }

    async fn step(mut self) -> Option<(Result<QueryEvent, QueryError>, Self)> {
        loop {
            let run = self.run.as_mut()?;
            let event = self
                .guard
                .within(async {
                    run.next().await.unwrap_or_else(|| {
                        Err(QueryError::internal(anyhow::anyhow!("the query's thread ended without a word")))
                    })
                })
                .await;
            match event {
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
                        query_id = self.guard.query_id(),
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
