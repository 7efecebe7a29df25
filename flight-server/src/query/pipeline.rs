//! The pipeline: prepare, plan and execute, each a row of the same stages.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::stream;
use serde_json::Value as Json;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;
use translator::StatementForm;
use translator::catalog::{Catalog, Entity};
use translator::emit::{EmitContext, emit, system_table};
use translator::hot_query::HotQuery;
use translator::options::{QueryOptions, Tier, Tiers};
use translator::plan::{FederatedPlan, ScannedFile};
use translator::postgres::TableNames;
use translator::quote::duckdb_text;

use super::admission::{Admission, QueryGuard, RunningQueries};
use super::error::Recovery;
use super::hot_stream::HotStream;
use super::plan_json::{self, PlanParts};
use super::recovery::Attempts;
use super::run::{Run, RunEvent, RunSummary, execution_error};
use super::sources::{HotExecution, Loaded, Overrides, Sources, suffice};
use super::statement::{self, BoundStatement, Explain, translate_error};
use super::system_tables::SystemSources;
use super::{PlannedQuery, PreparedQuery, QueryError, QueryEvent, QueryRequest, QueryStream};
use crate::config::{Config, LakeUrl, TableName};
use crate::engine::duckdb::{Connection, DuckError, ProfileNode};
use crate::engine::{Engine, EngineSettings, LakeAccess, ShapeDatabase, create_temporary_table};
use crate::flight::{CancelOutcome, QueryPipeline, SqlVocabulary};
use crate::health::HealthMonitor;
use crate::lake::{Lake, LakeError};
use crate::plan_tree;
use crate::postgres::{PostgresError, PostgresSource, Snapshot};
use crate::telemetry::{Observed, Telemetry};

/// The query pipeline of one server.
#[derive(Debug)]
pub struct Pipeline {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shape: Arc<RwLock<Arc<ShapeDatabase>>>,
    engine: Arc<Engine>,
    sources: Sources,
    admission: Admission,
    telemetry: Arc<Telemetry>,
    health: Arc<HealthMonitor>,
    running: RunningQueries,
    defaults: QueryOptions,
    vocabulary: Arc<SqlVocabulary>,
    /// Holds DuckDB's spill files; removed when the server ends.
    _temp_directory: Option<tempfile::TempDir>,
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

/// A query that is ready to run.
struct Ready {
    connection: Arc<Connection>,
    /// The federated statement, or what EXPLAIN ANALYZE wraps around it.
    sql: String,
    plan: Json,
    hot: Vec<HotExecution>,
    /// Paths of the files that are read.
    files: Vec<String>,
    /// The files of each lake source in the plan's order, as DuckDB names them.
    scans: Vec<BTreeSet<String>>,
    /// What answers without DuckDB.
    hot_query: Option<(HotQuery, Arc<Entity>, Snapshot)>,
}

/// A running query, in either engine.
enum Execution {
    DuckDb(Run),
    Postgres(Box<HotStream>),
}

/// Why `prefer_hot` leaves the lake out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HotNote {
    Suffices,
    NoFallback,
}

impl HotNote {
    /// The note when the lake is left out; `None` when the query goes on into it.
    fn of(suffices: bool, options: &QueryOptions) -> Option<Self> {
        match (suffices, options.allow_s3_fallback) {
            (true, _) => Some(Self::Suffices),
            (false, true) => None,
            (false, false) => Some(Self::NoFallback),
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Suffices => "prefer_hot = true: the hot rows fill the LIMIT",
            Self::NoFallback => "prefer_hot = true and allow_s3_fallback = false: only hot rows",
        }
    }

    fn warning(self) -> Option<String> {
        (self == Self::NoFallback).then(|| {
            "the hot rows alone don't satisfy the query, and allow_s3_fallback = false keeps it from the lake: only \
             hot rows are in the answer"
                .to_owned()
        })
    }
}

fn prefers_hot(bound: &BoundStatement, options: &QueryOptions) -> bool {
    options.prefer_hot
        && options.tiers.contains(Tier::Hot)
        && options.tiers.any_lake()
        && !bound.query.references.is_empty()
}

impl Execution {
    async fn next(&mut self) -> Option<Result<RunEvent, QueryError>> {
        match self {
            Self::DuckDb(run) => run.next().await,
            Self::Postgres(stream) => stream.next().await,
        }
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
        let shape = ShapeDatabase::new(catalog)?;
        let vocabulary = Arc::new(shape.vocabulary()?);
        let tables = table_names(&config.postgres.tables);
        let shape = Arc::new(RwLock::new(Arc::new(shape)));
        let catalog_in_force = Arc::clone(&shape);
        let health = HealthMonitor::new(postgres.clone(), lake.clone(), Arc::clone(&engine), move || {
            let shape = catalog_in_force.read().unwrap_or_else(PoisonError::into_inner);
            shape.catalog().entities().to_vec()
        });
        let inner = Arc::new(Inner {
            shape,
            sources: Sources::new(postgres, lake, config.lake.catalog, tables, Arc::clone(&engine), config),
            engine,
            admission: Admission::new(config.query.max_concurrent, config.query.max_queued),
            telemetry: Arc::clone(&telemetry),
            health: Arc::new(health),
            running: RunningQueries::default(),
            defaults: config.query.defaults.clone(),
            vocabulary,
            _temp_directory: owned,
        });
        let observed = Arc::downgrade(&inner);
        telemetry.observe(move || Some(observed.upgrade()?.observed()));
        Ok(Self { inner })
    }

    async fn run(&self, request: QueryRequest) -> Result<QueryStream, QueryError> {
        let inner = Arc::clone(&self.inner);
        let guard = inner.running.register(&request.query_id, request.options.timeout);
        let (permit, bound, translation) = guard
            .within(async {
                // A wrong query needs no permit to be told so.
                let (bound, translation) = inner.bind(request.sql.clone(), request.parameters.clone()).await?;
                require_values(&bound)?;
                Ok((inner.admission.acquire().await?, Arc::new(bound), translation))
            })
            .await?;
        if Inner::answers_from_shape(&bound) {
            return guard.within(inner.answer_from_shape(&bound, &request, translation)).await;
        }
        if bound.explain != Explain::No {
            return guard.within(inner.explain(&bound, &request, translation, &Arc::new(permit))).await;
        }
        let mut attempts = Attempts::default();
        let mut ready = guard.within(ready(&inner, &bound, &request, translation, &mut attempts)).await?;
        let schema = Arc::clone(&bound.schema);
        let permit = Arc::new(permit);
        let run = guard.within(start(&mut ready, &schema, &request.options, &permit)).await?;
        let state = Streaming {
            inner,
            guard,
            bound,
            request,
            translation,
            ready,
            run: Some(run),
            permit,
            attempts,
            sent: false,
        };
        Ok(QueryStream { schema, events: Box::pin(stream::unfold(state, Streaming::step)) })
    }

    /// Probes of the sources of this pipeline.
    pub fn health(&self) -> Arc<HealthMonitor> {
        Arc::clone(&self.inner.health)
    }

    /// Puts a new catalog in force; queries that run keep theirs.
    ///
    /// # Errors
    /// DuckDB refuses its shapes; the old catalog stays in force.
    pub fn set_catalog(&self, catalog: Arc<Catalog>) -> Result<(), StartError> {
        let shape = Arc::new(ShapeDatabase::new(catalog)?);
        *self.inner.shape.write().unwrap_or_else(PoisonError::into_inner) = shape;
        Ok(())
    }
}

pub(super) fn table_names(tables: &crate::config::TableNames) -> TableNames {
    let name = |name: &TableName| match &name.schema {
        Some(schema) => format!("{schema}.{}", name.table),
        None => name.table.clone(),
    };
    TableNames {
        schema_registry: name(&tables.schema_registry),
        entity_main: name(&tables.entity_main),
        eav_data: name(&tables.eav_data),
        change_log: name(&tables.change_log),
        lake_file: name(&tables.lake_file),
    }
}

impl Inner {
    fn observed(&self) -> Observed {
        let (pool, breakers) = (self.sources.postgres.pool_status(), self.sources.breakers());
        Observed {
            queued: self.admission.waiting() as u64,
            pool: [pool.max, pool.open, pool.idle, pool.waiting].map(|count| count as u64),
            cached_footers: self.sources.lake.cached_footers() as u64,
            breakers: vec![("postgres", breakers.postgres), ("lake", breakers.lake)],
        }
    }

    fn shape(&self) -> Arc<ShapeDatabase> {
        Arc::clone(&self.shape.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Binds on a thread where blocking is allowed and the stack is deep enough for any admitted nesting.
    async fn bind(
        &self,
        sql: String,
        parameters: Option<RecordBatch>,
    ) -> Result<(BoundStatement, Duration), QueryError> {
        let shape = self.shape();
        let started = Instant::now();
        let bound = blocking(move || statement::bind(&shape, &sql, parameters.as_ref()));
        let bound = bound.instrument(tracing::info_span!("translate")).await?;
        Ok((bound, started.elapsed()))
    }

    /// Whether the shape database alone answers.
    fn answers_from_shape(bound: &BoundStatement) -> bool {
        matches!(bound.query.form, StatementForm::ShowTables | StatementForm::Describe)
    }

    async fn plan_bound(
        &self,
        bound: &BoundStatement,
        options: &QueryOptions,
    ) -> Result<Option<FederatedPlan>, QueryError> {
        if Self::answers_from_shape(bound) {
            return Ok(None);
        }
        let (options, note) = self.prefer_hot(bound, options).await?;
        let mut plan = self.sources.plan(&bound.query, &options).await?;
        if let Some(note) = note {
            plan.route_reason = note.reason().to_owned();
            plan.warnings.extend(note.warning());
        }
        Ok(Some(plan))
    }

    /// `prefer_hot` while planning: the options to go on with, and a note when hot rows are all that answers.
    async fn prefer_hot(
        &self,
        bound: &BoundStatement,
        options: &QueryOptions,
    ) -> Result<(QueryOptions, Option<HotNote>), QueryError> {
        if !prefers_hot(bound, options) {
            return Ok((options.clone(), None));
        }
        let hot = QueryOptions { tiers: Tiers::HOT, ..options.clone() };
        let plan = self.sources.plan(&bound.query, &hot).await?;
        let suffices = match &plan.hot_query {
            Some(hot_query) => self.sources.hot_rows_suffice(hot_query).await?,
            None => false,
        };
        Ok(match HotNote::of(suffices, options) {
            Some(note) => (hot, Some(note)),
            None => (options.clone(), None),
        })
    }

    /// Plans and loads; with `prefer_hot`, hot rows alone when those of the very snapshot suffice.
    async fn load(
        &self,
        bound: &BoundStatement,
        options: &QueryOptions,
        overrides: &Overrides,
        connection: &Arc<Connection>,
    ) -> Result<(Loaded, Option<HotNote>), QueryError> {
        if prefers_hot(bound, options) {
            let hot = QueryOptions { tiers: Tiers::HOT, ..options.clone() };
            let mut loaded = self.sources.load(&bound.query, &hot, overrides, connection).await?;
            let suffices = match (&loaded.plan.hot_query, &mut loaded.snapshot) {
                (Some(hot_query), Some(snapshot)) => suffice(hot_query, snapshot).await?,
                _ => false,
            };
            if let Some(note) = HotNote::of(suffices, options) {
                return Ok((loaded, Some(note)));
            }
        }
        Ok((self.sources.load(&bound.query, options, overrides, connection).await?, None))
    }

    /// The statement that runs: DuckDB's, or PostgreSQL's where it answers alone.
    async fn statement(&self, bound: &Arc<BoundStatement>, plan: &FederatedPlan) -> Result<String, QueryError> {
        if let Some(hot_query) = &plan.hot_query {
            return Ok(hot_query.statement.sql.clone());
        }
        let (bound, plan) = (Arc::clone(bound), plan.clone());
        let lake_prefix = self.sources.lake.duckdb_root();
        blocking(move || {
            let print = |tree: &Json| statement::print(&bound.shape, tree);
            let context = EmitContext { print: &print, lake_prefix: &lake_prefix };
            emit(&bound.query, &plan, context).map(|statement| statement.sql).map_err(translate_error)
        })
        .await
    }

    /// Everything before the first row: facts, plan, hot rows, statement.
    async fn ready(
        &self,
        bound: &Arc<BoundStatement>,
        request: &QueryRequest,
        translation: Duration,
        attempts: &mut Attempts,
    ) -> Result<Ready, QueryError> {
        let started = Instant::now();
        let options = attempts.options(&request.options);
        let connection = Arc::new(self.engine.connect().map_err(execution_error)?);
        let parts = |plan, statement, planning| PlanParts {
            query_id: &request.query_id,
            sql: &request.sql,
            plan,
            options: &request.options,
            statement,
            translation,
            planning,
            breakers: self.sources.breakers(),
        };
        if options.tiers.any_lake() && !bound.query.references.is_empty() {
            self.refresh_credentials().await?;
        }
        let load = self.load(bound, &options, attempts.overrides(), &connection);
        let (mut loaded, note) = load.instrument(tracing::info_span!("plan")).await?;
        attempts.unless_hot_query(loaded.plan.hot_query.is_some())?;
        if let Some(note) = note {
            loaded.plan.route_reason = note.reason().to_owned();
            loaded.plan.warnings.extend(note.warning());
        }
        self.load_system_tables(bound, &request.options, &connection).await?;
        let statement = self.statement(bound, &loaded.plan).await?;
        let hot_query = match (&loaded.plan.hot_query, loaded.plan.references.first(), loaded.snapshot) {
            (Some(query), Some(reference), Some(snapshot)) => {
                Some((query.clone(), Arc::clone(&reference.entity), snapshot))
            }
            _ => None,
        };
        let loading: f64 = loaded.hot.iter().map(|hot| hot.ms).sum();
        let planning = started.elapsed().saturating_sub(Duration::from_secs_f64(loading / 1000.0));
        let plan = plan_json::planned(&parts(Some(&loaded.plan), &statement, planning));
        if !loaded.plan.warnings.is_empty() {
            tracing::warn!(query_id = request.query_id, warnings = ?loaded.plan.warnings, "query with warnings");
        }
        let files = loaded.plan.references.iter().flat_map(|reference| reference.files());
        let files = files.map(|file| file.path.clone()).collect();
        let lake = loaded.plan.references.iter().flat_map(|reference| [&reference.warm, &reference.cold]).flatten();
        let url = |file: &ScannedFile| self.sources.lake.duckdb_url(&file.file.path);
        let scans = lake.map(|source| source.files.iter().map(url).collect()).collect();
        Ok(Ready { connection, sql: statement, plan, hot: loaded.hot, files, scans, hot_query })
    }

    /// DuckDB doesn't always say which file it can't read: then the files are read one by one until one fails alone.
    async fn name_damaged_file(&self, error: QueryError, ready: &Ready) -> Result<QueryError, QueryError> {
        if error.recovery() != Some(&Recovery::WithoutFile(None)) {
            return Ok(error);
        }
        let connection = self.engine.connect().map_err(execution_error)?;
        let files: Vec<String> = ready.files.iter().map(|path| self.sources.lake.duckdb_url(path)).collect();
        let damaged = blocking(move || {
            Ok(files.into_iter().find(|file| {
                let columns = "SELECT max(hash(COLUMNS(*)))";
                connection.query(&format!("{columns} FROM read_parquet([{}])", duckdb_text(file))).is_err()
            }))
        })
        .await?;
        Ok(match damaged {
            Some(file) => {
                let path = self.sources.lake.relative_path(&file);
                QueryError::new(error.kind(), format!("the file `{path}` can't be read: {}", error.message()))
                    .recoverable(Recovery::WithoutFile(Some(file)))
            }
            None => error,
        })
    }

    async fn refresh_credentials(&self) -> Result<(), QueryError> {
        match self.sources.lake.s3_credentials().await {
            Ok(Some(credentials)) => {
                let prefix = self.sources.lake.duckdb_root();
                self.engine.set_credentials(&prefix, &credentials).map_err(execution_error)
            }
            Ok(None) => Ok(()),
            // The listing says whether the lake is down, and whether the query may do without it.
            Err(error) => {
                tracing::warn!(%error, "no S3 credentials");
                Ok(())
            }
        }
    }

    async fn load_system_tables(
        &self,
        bound: &Arc<BoundStatement>,
        options: &QueryOptions,
        connection: &Arc<Connection>,
    ) -> Result<(), QueryError> {
        let from = SystemSources {
            shape: &bound.shape,
            sources: &self.sources,
            telemetry: &self.telemetry,
            health: &self.health,
            options,
        };
        for (index, table) in bound.query.system_tables.iter().enumerate() {
            let (schema, batches) = super::system_tables::rows(&from, table).await?;
            let connection = Arc::clone(connection);
            blocking(move || {
                let name = system_table(index);
                create_temporary_table(&connection, &name, &schema).map_err(execution_error)?;
                batches.iter().try_for_each(|batch| connection.append(&name, batch)).map_err(execution_error)
            })
            .await?;
        }
        Ok(())
    }

    /// A result that is there already.
    fn immediate(schema: SchemaRef, batches: Vec<RecordBatch>, plan: &Json, hot: &[HotExecution]) -> QueryStream {
        let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        let bytes = batches.iter().map(|batch| batch.get_array_memory_size() as u64).sum();
        let end =
            plan_json::executed(plan, hot, &[], &RunSummary { rows, bytes, by_duckdb: true, ..RunSummary::default() });
        let events = batches.into_iter().map(|batch| Ok(QueryEvent::Batch(batch))).chain([Ok(QueryEvent::End(end))]);
        QueryStream { schema, events: Box::pin(stream::iter(events.collect::<Vec<_>>())) }
    }

    async fn answer_from_shape(
        &self,
        bound: &Arc<BoundStatement>,
        request: &QueryRequest,
        translation: Duration,
    ) -> Result<QueryStream, QueryError> {
        let plan = plan_json::planned(&PlanParts {
            query_id: &request.query_id,
            sql: &request.sql,
            plan: None,
            options: &request.options,
            statement: &bound.shape_sql,
            translation,
            planning: Duration::ZERO,
            breakers: self.sources.breakers(),
        });
        if bound.explain != Explain::No {
            let batch = explained(&bound.schema, &plan, None)?;
            return Ok(Self::immediate(Arc::clone(&bound.schema), vec![batch], &plan, &[]));
        }
        let shared = Arc::clone(bound);
        let batches = blocking(move || {
            let (_, batches) = shared.shape.query(&shared.shape_sql).map_err(execution_error)?;
            batches.iter().map(|batch| super::run::conform(batch, &shared.schema)).collect::<Result<Vec<_>, _>>()
        })
        .await?;
        Ok(Self::immediate(Arc::clone(&bound.schema), batches, &plan, &[]))
    }

    /// EXPLAIN: the plan as text; with ANALYZE the query runs, and what was measured is in it.
    async fn explain(
        &self,
        bound: &Arc<BoundStatement>,
        request: &QueryRequest,
        translation: Duration,
        permit: &Arc<OwnedSemaphorePermit>,
    ) -> Result<QueryStream, QueryError> {
        let mut ready = ready(self, bound, request, translation, &mut Attempts::default()).await?;
        let (plan, profile) = match bound.explain {
            Explain::Analyze => {
                let summary = analyze(&mut ready, bound, &request.options, permit).await?;
                (plan_json::executed(&ready.plan, &ready.hot, &ready.scans, &summary), summary.profile)
            }
            Explain::No | Explain::Plan => (Arc::new(ready.plan.clone()), None),
        };
        let batch = explained(&bound.schema, &plan, profile.as_ref())?;
        Ok(Self::immediate(Arc::clone(&bound.schema), vec![batch], &ready.plan, &ready.hot))
    }
}

/// Runs a query to its end and sends nothing of it.
async fn analyze(
    ready: &mut Ready,
    bound: &BoundStatement,
    options: &QueryOptions,
    permit: &Arc<OwnedSemaphorePermit>,
) -> Result<RunSummary, QueryError> {
    let mut run = start(ready, &bound.answer, options, permit).await?;
    while let Some(event) = run.next().await {
        if let RunEvent::End(summary) = event? {
            if let Execution::Postgres(stream) = run {
                ready.hot.push(stream.execution());
            }
            return Ok(summary);
        }
    }
    Err(QueryError::internal(anyhow::anyhow!("the query's thread ended without a word")))
}

/// Rows of EXPLAIN.
fn explained(schema: &SchemaRef, plan: &Json, profile: Option<&ProfileNode>) -> Result<RecordBatch, QueryError> {
    let mut rows = vec![("federated_plan", plan_tree::render(plan))];
    rows.extend(profile.map(|profile| ("analyzed_plan", plan_tree::profile(profile))));
    let (keys, values): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    RecordBatch::try_new(
        Arc::clone(schema),
        vec![Arc::new(StringArray::from(keys)), Arc::new(StringArray::from(values))],
    )
    .map_err(QueryError::internal)
}

/// Runs blocking work on a thread with a stack deep enough for the deepest admitted query.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, QueryError> + Send + 'static,
) -> Result<T, QueryError> {
    tokio::task::spawn_blocking(work).await.map_err(QueryError::internal)?
}

#[async_trait]
impl QueryPipeline for Pipeline {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(self.inner.shape().catalog())
    }

    fn default_options(&self) -> QueryOptions {
        self.inner.defaults.clone()
    }

    async fn prepare(&self, sql: &str) -> Result<PreparedQuery, QueryError> {
        let (bound, _) = self.inner.bind(sql.to_owned(), None).await?;
        Ok(PreparedQuery { schema: bound.schema, parameters: bound.parameters })
    }

    async fn plan(&self, request: QueryRequest) -> Result<PlannedQuery, QueryError> {
        let inner = &self.inner;
        let guard = inner.running.register(&request.query_id, request.options.timeout);
        let span = tracing::info_span!("query_info", query_id = request.query_id);
        let planned = guard
            .within(async {
                let (bound, translation) = inner.bind(request.sql.clone(), request.parameters.clone()).await?;
                require_values(&bound)?;
                let bound = Arc::new(bound);
                let started = Instant::now();
                let plan = inner.plan_bound(&bound, &request.options);
                let plan = plan.instrument(tracing::info_span!("plan")).await?;
                let statement = match &plan {
                    Some(plan) => inner.statement(&bound, plan).await?,
                    None => bound.shape_sql.clone(),
                };
                let json = plan_json::planned(&PlanParts {
                    query_id: &request.query_id,
                    sql: &request.sql,
                    plan: plan.as_ref(),
                    options: &request.options,
                    statement: &statement,
                    translation,
                    planning: started.elapsed(),
                    breakers: inner.sources.breakers(),
                });
                Ok(PlannedQuery { schema: Arc::clone(&bound.schema), plan: Arc::new(json), estimated_rows: -1 })
            })
            .instrument(span)
            .await;
        planned.inspect_err(|error| inner.telemetry.failed(error))
    }

    async fn execute(&self, request: QueryRequest) -> Result<QueryStream, QueryError> {
        let record = self.inner.telemetry.start(&request.query_id, &request.sql);
        match self.run(request).instrument(record.span()).await {
            Ok(stream) => Ok(record.watch(stream)),
            Err(error) => {
                record.fail(&error);
                Err(error)
            }
        }
    }

    fn cancel(&self, query_id: &str) -> CancelOutcome {
        if self.inner.running.cancel(query_id) { CancelOutcome::Cancelled } else { CancelOutcome::NotFound }
    }

    fn sql_vocabulary(&self) -> Arc<SqlVocabulary> {
        Arc::clone(&self.inner.vocabulary)
    }
}

/// Refuses to run a statement whose parameters have no values.
fn require_values(bound: &BoundStatement) -> Result<(), QueryError> {
    let names: Vec<&str> = bound.parameters.fields().iter().map(|field| field.name().as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(QueryError::new(
        super::ErrorKind::InvalidQuery,
        format!("the statement has parameters without values: {}; prepare it and bind one row", names.join(", ")),
    ))
}

async fn start(
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

/// Gets a query ready, in as many attempts as make sense.
async fn ready(
    inner: &Inner,
    bound: &Arc<BoundStatement>,
    request: &QueryRequest,
    translation: Duration,
    attempts: &mut Attempts,
) -> Result<Ready, QueryError> {
    loop {
        match inner.ready(bound, request, translation, attempts).await {
            Ok(ready) => return Ok(ready),
            Err(error) => attempts.recover(error, &request.options, &inner.sources)?,
        }
    }
}

/// The state of a running query. Dropping it lets go of run, permit and registration.
struct Streaming {
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
