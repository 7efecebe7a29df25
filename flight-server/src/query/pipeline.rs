//! The pipeline: prepare, plan and execute, each a row of the same stages.

mod delivery;
mod immediate;
mod prefer_hot;
mod probe;
mod ready;
mod streaming;
mod views;

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tracing::Instrument;
use translator::StatementForm;
use translator::catalog::Catalog;
use translator::options::QueryOptions;
use translator::plan::FederatedPlan;

use super::admission::{Admission, RunningQueries};
use super::bound_memory::BoundMemory;
use super::explain::Explain;
use super::interface::{CancelOutcome, QueryPipeline};
use super::inventory::TierMonitor;
use super::permission;
use super::plan_json::{self, PlanParts};
use super::record::QueryRecord;
use super::recovery::{Attempts, RetryBudget};
use super::run::StuckRuns;
use super::sources::Sources;
use super::statement::{self, BoundStatement};
use super::unread::UnreadSlots;
use super::{PlannedQuery, PreparedQuery, QueryError, QueryEvent, QueryRequest, QueryStream};
use crate::access::Caller;
use crate::breaker::SystemClock;
use crate::config::{Config, LakeUrl};
use crate::engine::SqlVocabulary;
use crate::engine::duckdb::DuckError;
use crate::engine::{Engine, EngineSettings, LakeAccess};
use crate::failpoint::failpoint;
use crate::health::HealthMonitor;
use crate::lake::{Lake, LakeError};
use crate::moments::{Moment, MomentFigures, Moments};
use crate::postgres::{PostgresError, PostgresSource};
use crate::s3_requests::S3RequestCount;
use crate::second_reader::DuckDbReader;
use crate::telemetry::{self, Observed, ObservedMoments, Telemetry};
use delivery::Delivery;
use streaming::Streaming;
use views::Views;

/// The query pipeline of one server.
#[derive(Debug)]
pub struct Pipeline {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    views: Arc<RwLock<Arc<Views>>>,
    bound: BoundMemory,
    engine: Arc<Engine>,
    sources: Sources,
    admission: Admission,
    retries: RetryBudget,
    stuck: StuckRuns,
    telemetry: Arc<Telemetry>,
    health: Arc<HealthMonitor>,
    tiers: TierMonitor,
    running: RunningQueries,
    unread: Arc<UnreadSlots>,
    idle_timeout: Option<Duration>,
    defaults: QueryOptions,
    pushdown: bool,
    vocabulary: Arc<SqlVocabulary>,
    /// Holds DuckDB's spill files; removed when the server ends.
    _temp_directory: Option<tempfile::TempDir>,
}

/// What a query gives once it has begun.
enum Answer {
    /// All is there, and the slot is free.
    Ready(QueryStream),
    /// Holds its slot until the stream ends.
    Running(QueryStream),
}

/// Why the pipeline could not be built.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Lake(#[from] LakeError),
    #[error("cannot set DuckDB up: {0}")]
    DuckDb(String),
    #[error("cannot make a directory for DuckDB's temporary files")]
    TempDirectory(#[source] std::io::Error),
}

impl From<DuckError> for StartError {
    fn from(error: DuckError) -> Self {
        Self::DuckDb(error.to_string())
    }
}

impl Pipeline {
    /// Builds the pipeline. A source that is down is no error: queries will tell.
    ///
    /// # Errors
    /// Settings that can't work: a URL, a DuckDB setting, an extension that isn't there.
    pub async fn start(config: &Config, catalog: Arc<Catalog>, telemetry: Arc<Telemetry>) -> Result<Self, StartError> {
        let postgres = PostgresSource::new(&config.postgres)?;
        let lake = Lake::open(&config.lake)?;
        let access = match &config.lake.url {
            LakeUrl::Local(_) => LakeAccess::Folder(lake.duckdb_root()),
            LakeUrl::S3 { .. } => {
                // Credentials that can't be had yet are asked for again by every query.
                let credentials = lake.s3_credentials().await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "no S3 credentials yet");
                    None
                });
                LakeAccess::S3 { prefix: lake.duckdb_root(), credentials }
            }
        };
        let (temp_directory, owned) = match &config.duckdb.temp_directory {
            Some(directory) => (directory.clone(), None),
            None => {
                let owned =
                    tempfile::Builder::new().prefix("thermocline-").tempdir().map_err(StartError::TempDirectory)?;
                (owned.path().to_owned(), Some(owned))
            }
        };
        let settings = EngineSettings {
            memory_limit: config.duckdb.memory_limit.clone(),
            threads: config.duckdb.threads,
            temp_directory,
            temp_directory_limit: config.duckdb.temp_directory_limit.clone(),
            extension_directory: config.duckdb.extension_directory.clone(),
            lake: access,
        };
        let engine = Arc::new(Engine::open(&settings)?);
        let lake = lake.with_second_reader(Arc::new(DuckDbReader(Arc::clone(&engine))));
        let views = Views::new(catalog)?;
        let vocabulary = Arc::new(views.whole().vocabulary()?);
        let tables = config.postgres.tables.plain();
        let views = Arc::new(RwLock::new(Arc::new(views)));
        let in_force = Arc::clone(&views);
        let entities = move || {
            let views = in_force.read().unwrap_or_else(PoisonError::into_inner);
            views.whole().catalog().entities().to_vec()
        };
        let unread = Arc::new(UnreadSlots::new(config.query.max_concurrent));
        let health =
            HealthMonitor::new(postgres.clone(), lake.clone(), Arc::clone(&engine), Arc::clone(&unread), entities);
        let sources = Sources::new(postgres, lake, config.lake.catalog, tables, Arc::clone(&engine), config);
        let inner = Arc::new(Inner {
            views,
            bound: BoundMemory::default(),
            stuck: StuckRuns::new(config.query.max_concurrent, sources.lake_breaker()),
            sources,
            engine,
            admission: Admission::new(config.query.max_concurrent, config.query.max_queued),
            telemetry: Arc::clone(&telemetry),
            health: Arc::new(health),
            retries: RetryBudget::new(Arc::new(SystemClock)),
            tiers: TierMonitor::default(),
            running: RunningQueries::default(),
            unread,
            idle_timeout: config.query.idle_timeout,
            defaults: config.query.defaults.clone(),
            pushdown: config.query.pushdown,
            vocabulary,
            _temp_directory: owned,
        });
        let (observed, runtime) = (Arc::downgrade(&inner), tokio::runtime::Handle::current());
        telemetry.observe(move || {
            let inner = observed.upgrade()?;
            let found = inner.observed();
            if !inner.tiers.is_fresh() {
                // For the next one who asks: an exporter doesn't wait for sources.
                runtime.spawn(async move { inner.refresh_tiers().await });
            }
            Some(found)
        });
        Ok(Self { inner })
    }

    async fn run(&self, request: QueryRequest) -> Result<Answer, QueryError> {
        let inner = Arc::clone(&self.inner);
        // A wrong query needs no permit to be told so.
        let (bound, translation) = inner.bind(&request.caller, request.sql.clone(), request.parameters.clone()).await?;
        require_values(&bound)?;
        let permit = inner.admission.acquire().await?;
        if Inner::answers_from_shape(&bound) {
            return inner.answer_from_shape(&bound, &request, translation).await.map(Answer::Ready);
        }
        if bound.explain != Explain::No {
            return inner.explain(&bound, &request, translation, &Arc::new(permit)).await.map(Answer::Ready);
        }
        Streaming::start(inner, bound, request, translation, permit).await.map(Answer::Running)
    }

    /// Tells every query to stop: the server ends.
    pub fn end_queries(&self) {
        self.inner.running.end();
    }

    /// Probes of the sources of this pipeline.
    pub fn health(&self) -> Arc<HealthMonitor> {
        Arc::clone(&self.inner.health)
    }

    /// Looks at the tiers again for the gauges, unless that was done a moment ago.
    pub async fn refresh_tiers(&self) {
        self.inner.refresh_tiers().await;
    }

    /// Puts a new catalog in force; queries that run keep theirs.
    ///
    /// # Errors
    /// DuckDB refuses its shapes; the old catalog stays in force.
    pub fn set_catalog(&self, catalog: Arc<Catalog>) -> Result<(), StartError> {
        let views = Arc::new(Views::new(catalog)?);
        *self.inner.views.write().unwrap_or_else(PoisonError::into_inner) = views;
        self.inner.bound.clear();
        Ok(())
    }

    /// Cancels the running queries of callers who may no more be answered.
    pub(crate) fn cancel_queries_of(&self, has_lost: impl Fn(&Caller) -> bool) {
        self.inner.running.cancel_those_of(has_lost);
    }
}

impl Inner {
    fn observed(&self) -> Observed {
        let (pool, breakers) = (self.sources.postgres.pool_status(), self.sources.breakers());
        let footers = self.sources.lake.footer_lookups();
        let requests = |client, counts: Vec<S3RequestCount>| {
            counts.into_iter().map(move |count| ([client, count.operation, count.outcome], count.count))
        };
        let ours = requests("thermocline", self.sources.lake.s3_requests());
        let duckdbs = requests("duckdb", self.engine.s3_requests());
        Observed {
            queued: self.admission.waiting() as u64,
            unread: self.unread.count() as u64,
            pool: [pool.max, pool.open, pool.idle, pool.waiting].map(|count| count as u64),
            cached_footers: self.sources.lake.cached_footers() as u64,
            index: self.sources.indexing.observed(),
            footer_lookups: [footers.hits, footers.misses],
            s3_requests: ours.chain(duckdbs).collect(),
            breakers: vec![("postgres", breakers.postgres), ("lake", breakers.lake)],
            entities: self.tiers.last(),
            moments: self.sources.moments.as_ref().map(Moments::figures).map(observed_moments).unwrap_or_default(),
        }
    }

    async fn refresh_tiers(&self) {
        self.tiers.refresh(&self.sources, self.views().whole().catalog().entities()).await;
    }

    fn views(&self) -> Arc<Views> {
        Arc::clone(&self.views.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Binds over what the caller sees, and refuses what they may not do.
    async fn bind(
        &self,
        caller: &Arc<Caller>,
        sql: String,
        parameters: Option<RecordBatch>,
    ) -> Result<(Arc<BoundStatement>, Duration), QueryError> {
        let (bound, took) = self.bind_over(caller, sql, parameters).await?;
        permission::check(&bound, caller)?;
        Ok((bound, took))
    }

    /// Binds on a thread where blocking is allowed and the stack is deep enough for any admitted nesting.
    async fn bind_over(
        &self,
        caller: &Arc<Caller>,
        sql: String,
        parameters: Option<RecordBatch>,
    ) -> Result<(Arc<BoundStatement>, Duration), QueryError> {
        let started = Instant::now();
        let views = self.views();
        let shape = match views.known_shape(caller) {
            Some(shape) => shape,
            None => {
                let caller = Arc::clone(caller);
                blocking(move || views.shape(&caller).map_err(QueryError::internal)).await?
            }
        };
        let span = tracing::info_span!("translate");
        if let Some(bound) = span.in_scope(|| self.bound.get(&shape, &sql, parameters.as_ref())) {
            return Ok((bound, started.elapsed()));
        }
        let (text, values) = (sql.clone(), parameters.clone());
        let bound = blocking(move || statement::bind(&shape, &text, values.as_ref()));
        let mut bound = bound.instrument(span).await?;
        if !self.pushdown {
            bound.query = bound.query.without_pushdown();
        }
        let bound = Arc::new(bound);
        self.bound.put(&sql, parameters.as_ref(), &bound);
        Ok((bound, started.elapsed()))
    }

    /// Whether the shape database alone answers.
    fn answers_from_shape(bound: &BoundStatement) -> bool {
        matches!(bound.query.form, StatementForm::ShowTables | StatementForm::Describe)
    }

    async fn plan_bound(&self, bound: &BoundStatement, options: &QueryOptions) -> Result<Option<Planned>, QueryError> {
        if Self::answers_from_shape(bound) {
            return Ok(None);
        }
        let mut attempts = Attempts::default();
        loop {
            match self.plan_once(bound, options, &attempts).await {
                Ok(plan) => return Ok(Some(plan)),
                Err(error) => attempts.recover(error, options, &self.sources, &self.retries).await?,
            }
        }
    }

    async fn plan_once(
        &self,
        bound: &BoundStatement,
        options: &QueryOptions,
        attempts: &Attempts,
    ) -> Result<Planned, QueryError> {
        let options = attempts.options(options);
        let (options, note) = self.prefer_hot(bound, &options, attempts.overrides()).await?;
        let overrides = attempts.overrides();
        // What hot rows alone answer, they answer in a snapshot of the query's own.
        let overrides = if note.is_some() { Cow::Owned(overrides.by_itself()) } else { Cow::Borrowed(overrides) };
        let (mut plan, moment) = self.sources.plan(&bound.query, &options, &overrides).await?;
        if let Some(note) = note {
            plan.route_reason = note.reason().to_owned();
            plan.warnings.extend(note.warning());
        }
        Ok(Planned { plan, moment })
    }
}

fn observed_moments(figures: MomentFigures) -> ObservedMoments {
    ObservedMoments {
        outcomes: [figures.made, figures.failed],
        queries: figures.shared,
        changed_rows: figures.changed_rows,
        making_microseconds: figures.making,
        mirror_rows: figures.mirror_rows,
        mirror_bytes: figures.mirror_bytes,
        mirror_queries: [figures.hits, figures.misses],
        audits: [figures.audits - figures.findings, figures.findings],
    }
}

/// A plan, and the moment that it is of.
struct Planned {
    plan: FederatedPlan,
    /// `None`: it is of a snapshot of its own, or of files alone.
    moment: Option<Arc<Moment>>,
}

/// A panic is its query's failure and nothing else's: unwinding further would take along what shares the connection.
async fn caught<T>(work: impl Future<Output = Result<T, QueryError>>) -> Result<T, QueryError> {
    let caught = AssertUnwindSafe(work).catch_unwind().await;
    caught.unwrap_or_else(|_| Err(QueryError::internal(anyhow::anyhow!("the query panicked"))))
}

/// Runs blocking work on a thread with a stack deep enough for the deepest admitted query.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, QueryError> + Send + 'static,
) -> Result<T, QueryError> {
    tokio::task::spawn_blocking(work).await.map_err(QueryError::internal)?
}

#[async_trait]
impl QueryPipeline for Pipeline {
    fn catalog(&self, caller: &Caller) -> Arc<Catalog> {
        self.inner.views().catalog(caller)
    }

    fn default_options(&self) -> QueryOptions {
        self.inner.defaults.clone()
    }

    async fn prepare(&self, caller: &Arc<Caller>, sql: &str) -> Result<PreparedQuery, QueryError> {
        let (bound, _) = self.inner.bind(caller, sql.to_owned(), None).await?;
        Ok(PreparedQuery { schema: Arc::clone(&bound.schema), parameters: Arc::clone(&bound.parameters) })
    }

    async fn plan(&self, request: QueryRequest) -> Result<PlannedQuery, QueryError> {
        let inner = &self.inner;
        let guard = inner.running.register(&request.query_id, &request.caller, request.options.timeout);
        // As an error: whatever the log level, what is logged in it carries the query id.
        let span = tracing::error_span!("query_info", query_id = request.query_id);
        let planned = guard
            .within(caught(async {
                failpoint("query.plan").await;
                let (bound, translation) =
                    inner.bind(&request.caller, request.sql.clone(), request.parameters.clone()).await?;
                require_values(&bound)?;
                let started = Instant::now();
                let plan = inner.plan_bound(&bound, &request.options);
                let span = telemetry::plan_span();
                let plan = plan.instrument(span.clone()).await?;
                if let Some(planned) = &plan {
                    telemetry::record_plan(&span, &planned.plan);
                }
                let statement = match &plan {
                    Some(planned) => inner.statement(&bound, &planned.plan).await?.sql,
                    None => bound.shape_sql.clone(),
                };
                let json = plan_json::planned(&PlanParts {
                    query_id: &request.query_id,
                    sql: &request.sql,
                    plan: plan.as_ref().map(|planned| &planned.plan),
                    moment: plan.as_ref().and_then(|planned| planned.moment.as_deref()),
                    options: &request.options,
                    statement: &statement,
                    translation,
                    planning: started.elapsed(),
                    breakers: inner.sources.breakers(),
                });
                let plan = permission::plan_for(&request.caller, Arc::new(json));
                Ok(PlannedQuery { schema: Arc::clone(&bound.schema), plan, estimated_rows: -1 })
            }))
            .instrument(span)
            .await;
        planned.inspect_err(|error| inner.telemetry.failed(error.kind().name()))
    }

    async fn execute(&self, request: QueryRequest) -> Result<QueryStream, QueryError> {
        let caller = Arc::clone(&request.caller);
        let record = QueryRecord::start(Arc::clone(&self.inner.telemetry), &request);
        let guard = self.inner.running.register(&request.query_id, &caller, request.options.timeout);
        match guard.within(caught(self.run(request))).instrument(record.span()).await {
            Ok(answer) => {
                let (stream, unread) = match answer {
                    Answer::Ready(stream) => (stream, None),
                    Answer::Running(stream) => (stream, Some(Arc::clone(&self.inner.unread))),
                };
                let delivery = Delivery { guard, unread, idle_timeout: self.inner.idle_timeout };
                Ok(seen_by(caller, delivery.start(record, stream)))
            }
            Err(error) => {
                record.fail(&error);
                Err(error)
            }
        }
    }

    fn cancel(&self, caller: &Caller, query_id: &str) -> CancelOutcome {
        if self.inner.running.cancel(query_id, caller) { CancelOutcome::Cancelled } else { CancelOutcome::NotFound }
    }

    fn sql_vocabulary(&self) -> Arc<SqlVocabulary> {
        Arc::clone(&self.inner.vocabulary)
    }
}

/// The stream with what its caller may see of the plan at its end.
fn seen_by(caller: Arc<Caller>, stream: QueryStream) -> QueryStream {
    let events = stream.events.map_ok(move |event| match event {
        QueryEvent::End(plan) => QueryEvent::End(permission::plan_for(&caller, plan)),
        batch @ QueryEvent::Batch(_) => batch,
    });
    QueryStream { schema: stream.schema, events: events.boxed() }
}

/// Refuses to run a statement whose parameters have no values.
fn require_values(bound: &BoundStatement) -> Result<(), QueryError> {
    let names: Vec<&str> = bound.parameters.fields().iter().map(|field| field.name().as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(QueryError::new(
        super::ErrorKind::InvalidQuery,
        format!(
            "the statement has parameters without values: {}; prepare it, bind one row, and go on with the handle that \
             binding gives (clients older than arrow-go 17, JDBC 17, arrow-flight 51 and ADBC 1.0 don't: update them)",
            names.join(", ")
        ),
    ))
}
