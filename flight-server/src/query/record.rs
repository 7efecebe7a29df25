//! The record of one query, from its start to the end of its stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::{Stream, stream};
use opentelemetry::trace::TraceContextExt;
use serde_json::Value as Json;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::error::{ErrorKind, QueryError};
use super::{QueryEvent, QueryRequest, QueryStream};
use crate::telemetry::{QueryEntry, Telemetry};

/// A query that runs. Dropping it before its end counts it as cancelled.
pub(super) struct QueryRecord {
    telemetry: Arc<Telemetry>,
    /// The span of the call that the query answers.
    call: Span,
    span: Span,
    started: Instant,
    entry: QueryEntry,
    ended: bool,
}

impl std::fmt::Debug for QueryRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryRecord").field("entry", &self.entry).finish_non_exhaustive()
    }
}

impl QueryRecord {
    /// Starts the record of a query that runs.
    pub(super) fn start(telemetry: Arc<Telemetry>, request: &QueryRequest) -> Self {
        let QueryRequest { query_id, sql, caller, .. } = request;
        let call = Span::current();
        // As an error: whatever the log level, what is logged in it carries the query id.
        let span = tracing::error_span!(
            "query",
            query_id,
            trace_id = Empty,
            route = Empty,
            rows = Empty,
            outcome = Empty,
            error.kind = Empty
        );
        let context = span.context();
        let trace = context.span().span_context().trace_id();
        if trace != opentelemetry::TraceId::INVALID {
            span.record("trace_id", trace.to_string());
        }
        telemetry.query_started();
        let entry = QueryEntry {
            query_id: query_id.clone(),
            principal: caller.name.clone(),
            sql: sql.clone(),
            started_at: chrono::Utc::now().timestamp_millis(),
            state: "running",
            total_ms: None,
            rows: 0,
            error_kind: None,
            error: None,
            plan: None,
        };
        let record = Self { telemetry, call, span, started: Instant::now(), entry, ended: false };
        record.publish();
        record
    }

    /// The span that all work of the query belongs to.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// The query failed before its stream was there.
    pub(super) fn fail(mut self, error: &QueryError) {
        self.failed(error);
    }

    /// The stream, with everything measured that passes through it.
    pub(super) fn watch(self, stream: QueryStream) -> Watched {
        let stage = self.span.in_scope(|| tracing::info_span!("execute"));
        Watched { events: stream.events, record: self, stage, first: None }
    }

    fn finished(&mut self, plan: &Arc<Json>, first: Option<Instant>) {
        let instruments = self.telemetry.instruments();
        let now = Instant::now();
        let translation = plan["timings_ms"]["translation"].as_f64().unwrap_or(0.0);
        let first = first.unwrap_or(now);
        let until_first = (first - self.started).as_secs_f64() * 1000.0;
        instruments.latency("translation", translation);
        instruments.latency("execution", (until_first - translation).max(0.0));
        instruments.latency("streaming", (now - first).as_secs_f64() * 1000.0);
        instruments.finished(plan);
        self.entry.plan = Some(Arc::clone(plan));
        self.span.record("rows", self.entry.rows);
        self.end("finished");
    }

    fn failed(&mut self, error: &QueryError) {
        // What happens to a result after its end is no failure of the query.
        if self.ended {
            return;
        }
        let kind = error.kind().name();
        self.telemetry.instruments().error(kind);
        self.entry.error_kind = Some(kind);
        // What is ours stays in the log.
        self.entry.error = Some(error.message().to_owned());
        self.span.record("error.kind", kind);
        self.end(if error.kind() == ErrorKind::Cancelled { "cancelled" } else { "failed" });
    }

    fn end(&mut self, state: &'static str) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let elapsed = self.started.elapsed();
        self.entry.state = state;
        self.entry.total_ms = Some(elapsed.as_secs_f64() * 1000.0);
        let route = self.entry.plan.as_ref().and_then(|plan| plan["route"].as_str()).unwrap_or("unknown").to_owned();
        self.span.record("outcome", state);
        self.span.record("route", &route);
        self.telemetry.query_ended(route, state);
        self.publish();
        if let Some(limit) = self.telemetry.slow_query().filter(|limit| elapsed >= *limit) {
            let plan = self.entry.plan.as_ref().map_or_else(String::new, |plan| plan.to_string());
            self.span.in_scope(|| {
                tracing::warn!(
                    target: "thermocline::slow_query",
                    query_id = self.entry.query_id,
                    sql = self.entry.sql,
                    state,
                    total_ms = elapsed.as_secs_f64() * 1000.0,
                    rows = self.entry.rows,
                    plan,
                    "slow query: {elapsed:.3?}, telemetry.slow_query is {limit:?}"
                );
            });
        }
    }

    fn publish(&self) {
        self.telemetry.publish(self.entry.clone());
    }
}

impl Drop for QueryRecord {
    fn drop(&mut self) {
        if !self.ended {
            self.telemetry.instruments().error(ErrorKind::Cancelled.name());
            self.entry.error_kind = Some(ErrorKind::Cancelled.name());
            self.end("cancelled");
        }
        // To OpenTelemetry a span ends when it is left for the last time: these two with the stream, not before it.
        for span in [&self.span, &self.call] {
            span.in_scope(|| ());
        }
    }
}

/// A result stream under measurement. Dropping it drops the query.
pub(crate) struct Watched {
    events: Pin<Box<dyn Stream<Item = Result<QueryEvent, QueryError>> + Send>>,
    record: QueryRecord,
    /// `execute` until the first batch, then `stream`.
    stage: Span,
    first: Option<Instant>,
}

impl Watched {
    /// Drops the query, whose last event has come.
    pub(crate) fn let_go(&mut self) {
        self.events = Box::pin(stream::empty());
    }

    /// Ends the query from outside.
    pub(crate) fn stop(mut self, error: &QueryError) {
        self.let_go();
        self.record.failed(error);
    }
}

impl Stream for Watched {
    type Item = Result<QueryEvent, QueryError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let polled = this.stage.in_scope(|| this.events.as_mut().poll_next(context));
        match &polled {
            Poll::Ready(Some(Ok(QueryEvent::Batch(batch)))) => {
                if this.first.is_none() {
                    this.first = Some(Instant::now());
                    this.stage = this
                        .record
                        .span
                        .in_scope(|| tracing::info_span!("stream", rows = Empty, bytes = Empty, truncated = Empty));
                }
                let rows = batch.num_rows() as u64;
                this.record.entry.rows += rows;
                this.record.telemetry.instruments().sent(rows, batch.get_array_memory_size() as u64);
            }
            Poll::Ready(Some(Ok(QueryEvent::End(plan)))) => {
                let execution = &plan["execution"];
                // Of an empty result this is `execute`, which has no such fields.
                this.stage.record("rows", execution["rows"].as_u64());
                this.stage.record("bytes", execution["bytes"].as_u64());
                this.stage.record("truncated", execution["truncated"].as_bool());
                this.record.finished(plan, this.first);
            }
            Poll::Ready(Some(Err(error))) => this.record.failed(error),
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }
}
