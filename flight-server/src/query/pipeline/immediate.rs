//! Answers that are there at once: from the catalog, and EXPLAIN.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use futures::stream;
use serde_json::Value as Json;
use tokio::sync::OwnedSemaphorePermit;
use translator::options::QueryOptions;

use super::ready::Ready;
use super::streaming::{Execution, start};
use super::{Inner, blocking};
use crate::engine::duckdb::ProfileNode;
use crate::plan_tree;
use crate::query::blame::execution_error;
use crate::query::error::QueryError;
use crate::query::explain::{Explain, ExplainFormat};
use crate::query::plan_json::{self, PlanParts};
use crate::query::recovery::Attempts;
use crate::query::run::{RunEvent, RunSummary, conform};
use crate::query::sources::HotExecution;
use crate::query::statement::BoundStatement;
use crate::query::{QueryEvent, QueryRequest, QueryStream};

impl Inner {
    /// A result that is there already.
    fn immediate(schema: SchemaRef, batches: Vec<RecordBatch>, plan: &Json, hot: &[HotExecution]) -> QueryStream {
        let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        let bytes = batches.iter().map(|batch| batch.get_array_memory_size() as u64).sum();
        let end =
            plan_json::executed(plan, hot, &[], &RunSummary { rows, bytes, by_duckdb: true, ..RunSummary::default() });
        let events = batches.into_iter().map(|batch| Ok(QueryEvent::Batch(batch))).chain([Ok(QueryEvent::End(end))]);
        QueryStream { schema, events: Box::pin(stream::iter(events.collect::<Vec<_>>())) }
    }

    pub(super) async fn answer_from_shape(
        &self,
        bound: &Arc<BoundStatement>,
        request: &QueryRequest,
        translation: Duration,
    ) -> Result<QueryStream, QueryError> {
        let plan = plan_json::planned(&PlanParts {
            query_id: &request.query_id,
            sql: &request.sql,
            plan: None,
            moment: None,
            options: &request.options,
            statement: &bound.shape_sql,
            translation,
            planning: Duration::ZERO,
            breakers: self.sources.breakers(),
        });
        if bound.explain != Explain::No {
            let batch = explained(bound, &plan, None)?;
            return Ok(Self::immediate(Arc::clone(&bound.schema), vec![batch], &plan, &[]));
        }
        let shared = Arc::clone(bound);
        let batches = blocking(move || {
            let (_, batches) = shared.shape.query(&shared.shape_sql).map_err(execution_error)?;
            batches.iter().map(|batch| conform(batch, &shared.schema)).collect::<Result<Vec<_>, _>>()
        })
        .await?;
        Ok(Self::immediate(Arc::clone(&bound.schema), batches, &plan, &[]))
    }

    /// EXPLAIN: the plan as text; with ANALYZE the query runs, and what was measured is in it.
    pub(super) async fn explain(
        &self,
        bound: &Arc<BoundStatement>,
        request: &QueryRequest,
        translation: Duration,
        permit: &Arc<OwnedSemaphorePermit>,
    ) -> Result<QueryStream, QueryError> {
        let mut attempts = Attempts::default();
        loop {
            match self.explain_once(bound, request, translation, permit, &mut attempts).await {
                Ok(stream) => return Ok(stream),
                Err(error) => attempts.recover(error, &request.options, &self.sources, &self.retries).await?,
            }
        }
    }

    async fn explain_once(
        &self,
        bound: &Arc<BoundStatement>,
        request: &QueryRequest,
        translation: Duration,
        permit: &Arc<OwnedSemaphorePermit>,
        attempts: &mut Attempts,
    ) -> Result<QueryStream, QueryError> {
        let mut ready = self.ready(bound, request, translation, attempts).await?;
        let (plan, profile) = match bound.explain {
            Explain::Analyze(_) => {
                let summary = match analyze(self, &mut ready, bound, &request.options, permit).await {
                    Ok(summary) => summary,
                    Err(error) => return Err(self.name_damaged_file(error, &ready).await?),
                };
                (plan_json::executed(&ready.plan, &ready.hot, &ready.scans, &summary), summary.profile)
            }
            Explain::No | Explain::Plan(_) => (Arc::new(ready.plan.clone()), None),
        };
        let batch = explained(bound, &plan, profile.as_ref())?;
        Ok(Self::immediate(Arc::clone(&bound.schema), vec![batch], &ready.plan, &ready.hot))
    }
}

/// Runs a query to its end and sends nothing of it.
async fn analyze(
    inner: &Inner,
    ready: &mut Ready,
    bound: &BoundStatement,
    options: &QueryOptions,
    permit: &Arc<OwnedSemaphorePermit>,
) -> Result<RunSummary, QueryError> {
    let mut run = start(inner, ready, &bound.answer, options, permit).await?;
    loop {
        if let RunEvent::End(summary) = run.next(inner).await? {
            if let Execution::Postgres(stream) = run {
                ready.hot.push(stream.execution());
            }
            return Ok(summary);
        }
    }
}

/// Rows of EXPLAIN.
fn explained(bound: &BoundStatement, plan: &Json, profile: Option<&ProfileNode>) -> Result<RecordBatch, QueryError> {
    let is_json = matches!(bound.explain, Explain::Plan(ExplainFormat::Json) | Explain::Analyze(ExplainFormat::Json));
    let mut rows = vec![("federated_plan", if is_json { format!("{plan:#}") } else { plan_tree::render(plan) })];
    rows.extend(profile.map(|profile| {
        ("analyzed_plan", if is_json { format!("{:#}", profile.to_json()) } else { plan_tree::profile(profile) })
    }));
    let (keys, values): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    RecordBatch::try_new(
        Arc::clone(&bound.schema),
        vec![Arc::new(StringArray::from(keys)), Arc::new(StringArray::from(values))],
    )
    .map_err(QueryError::internal)
}
