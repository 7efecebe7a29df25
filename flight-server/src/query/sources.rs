//! Facts and rows from the sources, in the order that makes an answer right (design section 3.1).
//!
//! ```text
//! known listing ── snapshot ──┬─ dirty ids ─▶ temporary tables
//!                             └─ listing  ── equal to the known one? ── no: new snapshot, list again
//! footers ── plan ── hot rows ─▶ temporary tables ── end of the snapshot
//! ```
//!
//! A flush publishes its files before it marks rows flushed. So a row that isn't dirty in the snapshot has its file in a
//! listing made afterwards; and when that listing equals one made before, no file is newer than the snapshot either.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use futures::future::try_join_all;
use futures::{StreamExt, TryFutureExt, TryStreamExt};
use translator::Query;
use translator::catalog::Entity;
use translator::emit::dirty_table;
use translator::hot_query::{HotOutput, HotQuery};
use translator::lake::{IdSet, LakeFile};
use translator::options::{Consistency, QueryOptions, Tier};
use translator::plan::{Degradation, FederatedPlan};
use translator::planner::{Facts, PlanError, plan};
use translator::postgres::{TableNames, dirty_count_sql, dirty_ids_condition, dirty_ids_sql};

use super::breaker::{Breaker, Clock, Refused, SystemClock};
use super::delta_ids::{DeltaIds, row_ids};
use super::error::{ErrorKind, QueryError, Recovery};
use super::hot_scan::HotScans;
use super::unique_files::UniqueFiles;
use crate::config::{Config, LakeCatalog};
use crate::engine::Engine;
use crate::engine::duckdb::Connection;
use crate::lake::{Lake, LakeError, LakeErrorKind, Listing};
use crate::postgres::{PostgresError, PostgresErrorKind, PostgresSource, Snapshot, dirty_ids_schema};

/// New snapshots are taken this often when files keep arriving.
const SNAPSHOT_ATTEMPTS: usize = 6;

/// Both sources of one installation.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) postgres: PostgresSource,
    pub(super) lake: Lake,
    pub(super) lake_catalog: LakeCatalog,
    pub(super) tables: TableNames,
    /// The last listing of each entity's files in force, by `schema_id`.
    known: Mutex<HashMap<i16, Listing>>,
    delta_ids: DeltaIds,
    pub(super) unique_files: UniqueFiles,
    scans: HotScans,
    engine: Arc<Engine>,
    postgres_breaker: Breaker,
    lake_breaker: Arc<Breaker>,
    /// A statement that brings nothing for this long is taken for lost: PostgreSQL's own limit, and some.
    silence_limit: Option<Duration>,
}

/// Dirty sets by `schema_id`: their sizes, and their ids unless there are very many.
#[derive(Debug, Default)]
struct DirtySets {
    rows: BTreeMap<i16, u64>,
    ids: BTreeMap<i16, Arc<IdSet>>,
}

/// More ids than this aren't kept in memory; every base file then counts as one that may hold superseded rows.
const MAX_KNOWN_IDS: usize = 2_000_000;

/// What a second attempt leaves out, because the first one failed on it.
#[derive(Debug, Clone, Default)]
pub(super) struct Overrides {
    /// Paths of files that can't be read.
    pub(super) excluded_files: BTreeSet<String>,
    pub(super) degraded: Degradation,
    pub(super) warnings: Vec<String>,
}

impl Overrides {
    fn facts(&self) -> Facts {
        Facts { degraded: self.degraded.clone(), warnings: self.warnings.clone(), ..Facts::default() }
    }
}

/// States of the breakers, as plans show them.
#[derive(Debug, Clone, Copy)]
pub(super) struct BreakerStates {
    pub(super) postgres: &'static str,
    pub(super) lake: &'static str,
}

/// What one source delivered, for the plan's `execution`.
#[derive(Debug, Clone, Copy)]
pub(super) struct HotExecution {
    pub(super) rows_scanned: u64,
    pub(super) rows_returned: u64,
    pub(super) ms: f64,
}

/// A plan whose hot rows wait in the connection's temporary tables.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) plan: FederatedPlan,
    /// One entry a reference that reads the hot tier.
    pub(super) hot: Vec<HotExecution>,
    /// With [`FederatedPlan::hot_query`]: the open snapshot that answers it.
    pub(super) snapshot: Option<Snapshot>,
}

impl Sources {
    pub(super) fn new(
        postgres: PostgresSource,
        lake: Lake,
        lake_catalog: LakeCatalog,
        tables: TableNames,
        engine: Arc<Engine>,
        config: &Config,
    ) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let breaker = || Breaker::new(config.breaker.clone(), Arc::clone(&clock));
        Self {
            postgres,
            lake,
            lake_catalog,
            tables,
            known: Mutex::default(),
            delta_ids: DeltaIds::default(),
            unique_files: UniqueFiles::default(),
            scans: HotScans::new(config, engine.temp_directory()),
            engine,
            postgres_breaker: breaker(),
            lake_breaker: Arc::new(breaker()),
            silence_limit: config.postgres.statement_timeout.map(|limit| limit + config.postgres.connect_timeout),
        }
    }

    pub(super) fn breakers(&self) -> BreakerStates {
        BreakerStates { postgres: self.postgres_breaker.state(), lake: self.lake_breaker.state() }
    }

    pub(super) fn lake_breaker(&self) -> Arc<Breaker> {
        Arc::clone(&self.lake_breaker)
    }

    /// Counts a failure of the lake that DuckDB met.
    pub(super) fn lake_failed(&self) {
        self.lake_breaker.record_failure();
    }

    /// Plans a query; reads no row.
    pub(super) async fn plan(
        &self,
        query: &Query,
        options: &QueryOptions,
        overrides: &Overrides,
    ) -> Result<FederatedPlan, QueryError> {
        let entities = entities(query);
        let mut facts = overrides.facts();
        let snapshot = self.begin(&entities, options, &mut facts).await?;
        if let Some(mut snapshot) = snapshot {
            if options.tiers.contains(Tier::Hot) {
                let dirty = self
                    .unless_silent(self.count_dirty(query, &entities, &mut snapshot, options.tiers.any_lake()))
                    .await?;
                (facts.dirty_rows, facts.dirty_ids) = (dirty.rows, dirty.ids);
            }
            self.unless_silent(self.files_of_manifest(&entities, &mut snapshot, options, &mut facts)).await?;
            self.finish(snapshot).await?;
        }
        let listings = if self.lists(options) { self.list_all(&entities, options, &mut facts).await? } else { None };
        if let Some(listings) = listings {
            self.files_of_listings(listings, options, &mut facts).await?;
        }
        facts.delta_ids = self.delta_ids.known(&facts.files, options.tiers);
        plan(query, &facts, options, &self.tables).map_err(plan_error)
    }

    /// Whether the hot rows alone fill the LIMIT of a query, at this moment.
    pub(super) async fn hot_rows_suffice(&self, hot_query: &HotQuery) -> Result<bool, QueryError> {
        let mut snapshot = self.open_snapshot().await?;
        let suffices = self.unless_silent(suffice(hot_query, &mut snapshot)).await?;
        self.finish(snapshot).await?;
        Ok(suffices)
    }

    /// Plans a query and loads its dirty ids and hot rows into temporary tables of `connection`.
    pub(super) async fn load(
        &self,
        query: &Query,
        options: &QueryOptions,
        overrides: &Overrides,
        connection: &Arc<Connection>,
    ) -> Result<Loaded, QueryError> {
        let entities = entities(query);
        let mut facts = overrides.facts();
        // Taken before the snapshot: a listing that another query makes from here on may be newer than it.
        let mut before = if self.lists(options) { self.known_listings(&entities) } else { None };
        let mut snapshot = self.begin(&entities, options, &mut facts).await?;
        for attempt in 1.. {
            let ids = async {
                match &mut snapshot {
                    // Without files there is nothing to discard.
                    Some(snapshot) if !options.tiers.any_lake() => {
                        self.unless_silent(self.count_dirty(query, &entities, snapshot, false)).await
                    }
                    Some(snapshot) if options.tiers.contains(Tier::Hot) => {
                        self.load_dirty_ids(query, &entities, snapshot, connection).await
                    }
                    _ => Ok(DirtySets::default()),
                }
            };
            let listed = async {
                if self.lists(options) { self.list_all(&entities, options, &mut facts).await } else { Ok(None) }
            };
            let (dirty, listings) = futures::join!(ids, listed);
            let (dirty, listings) = (dirty?, listings?);
            (facts.dirty_rows, facts.dirty_ids) = (dirty.rows, dirty.ids);
            let settled = snapshot.is_none() || listings.is_none() || before == listings;
            if settled || attempt == SNAPSHOT_ATTEMPTS {
                if !settled {
                    facts.warnings.push(
                        "files kept arriving while the snapshot was taken: the answer may mix two moments; the manifest \
                         catalog avoids this"
                            .to_owned(),
                    );
                }
                if let Some(listings) = listings {
                    self.files_of_listings(listings, options, &mut facts).await?;
                }
                break;
            }
            before = listings;
            snapshot = self.begin(&entities, options, &mut facts).await?;
        }
        if let Some(snapshot) = &mut snapshot {
            self.unless_silent(self.files_of_manifest(&entities, snapshot, options, &mut facts)).await?;
        }
        for files in facts.files.values_mut() {
            files.retain(|file| !overrides.excluded_files.contains(&file.path));
        }
        let ids = self.delta_ids.of(&facts.files, options.tiers, &self.engine, &self.lake, &self.lake_breaker);
        facts.delta_ids = ids.await?;
        let mut plan = plan(query, &facts, options, &self.tables).map_err(plan_error)?;
        if let Some(sql) = plan.hot_query.as_ref().and_then(|hot_query| hot_query.inconsistent_sql.as_ref())
            && let Some(snapshot) = &mut snapshot
        {
            let inconsistent = self.unless_silent(snapshot.count(sql).map_err(statement_error)).await?;
            if inconsistent > 0 {
                plan.warnings.push(self.inconsistency(&plan.references[0].entity, inconsistent));
            }
        }
        if plan.hot_query.is_some() {
            return Ok(Loaded { plan, hot: Vec::new(), snapshot });
        }
        let hot = match snapshot {
            Some(snapshot) => self.load_hot_rows(snapshot, &mut plan, connection).await?,
            None => Vec::new(),
        };
        Ok(Loaded { plan, hot, snapshot: None })
    }

    /// Loads the hot rows of each reference into its temporary table and ends the snapshot.
    async fn load_hot_rows(
        &self,
        mut snapshot: Snapshot,
        plan: &mut FederatedPlan,
        connection: &Arc<Connection>,
    ) -> Result<Vec<HotExecution>, QueryError> {
        let mut hot = Vec::new();
        for (index, reference) in plan.references.iter().enumerate() {
            let Some(source) = &reference.hot else { continue };
            let started = Instant::now();
            let summary = if source.scan_inconsistent_sql.is_some() {
                let scan = self.scans.load(&mut snapshot, index, reference, source, connection);
                self.unless_silent(scan).await?
            } else {
                self.copy_hot_rows(&mut snapshot, index, reference, &source.statement, connection).await?
            };
            if summary.inconsistent_rows > 0 {
                plan.warnings.push(self.inconsistency(&reference.entity, summary.inconsistent_rows));
            }
            hot.push(HotExecution {
                rows_scanned: summary.rows_scanned,
                rows_returned: summary.rows_returned,
                ms: started.elapsed().as_secs_f64() * 1000.0,
            });
        }
        self.finish(snapshot).await?;
        Ok(hot)
    }

    pub(super) fn inconsistency(&self, entity: &Entity, rows: u64) -> String {
        format!("{}: {rows} dirty rows have no {} row and were left out", entity.name, self.tables.entity_main)
    }

    /// Forgets what is known of the file set: a file has vanished.
    pub(super) fn forget_listings(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn lists(&self, options: &QueryOptions) -> bool {
        options.tiers.any_lake() && self.lake_catalog == LakeCatalog::Listing
    }

    /// Opens a snapshot when the query needs PostgreSQL; `None` also when PostgreSQL is down and the options give leave.
    async fn begin(
        &self,
        entities: &[Arc<Entity>],
        options: &QueryOptions,
        facts: &mut Facts,
    ) -> Result<Option<Snapshot>, QueryError> {
        let manifest = options.tiers.any_lake() && self.lake_catalog == LakeCatalog::Manifest;
        let was_left_out = facts.degraded.missing_tiers.contains(&Tier::Hot);
        if entities.is_empty() || was_left_out || !(options.tiers.contains(Tier::Hot) || manifest) {
            return Ok(None);
        }
        match self.open_snapshot().await {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(error)
                if error.kind() == ErrorKind::Unavailable
                    && options.consistency == Consistency::Eventual
                    && options.tiers.any_lake()
                    && !facts.degraded.missing_tiers.contains(&Tier::Cold)
                    && !manifest =>
            {
                tracing::warn!(%error, "PostgreSQL is unavailable: answering from files alone");
                postgres_is_missing(&mut facts.degraded, &mut facts.warnings);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    #[tracing::instrument(name = "snapshot", skip_all)]
    async fn open_snapshot(&self) -> Result<Snapshot, QueryError> {
        let attempt =
            self.postgres_breaker.attempt().map_err(|refused| breaker_error("PostgreSQL", POSTGRES_LEAVE, refused))?;
        match self.postgres.begin().await {
            Ok(snapshot) => {
                attempt.succeeded();
                Ok(snapshot)
            }
            Err(error) => {
                if error.kind() == PostgresErrorKind::Unavailable {
                    attempt.failed();
                }
                Err(postgres_error(error))
            }
        }
    }

    /// Waits for PostgreSQL, but not for a server that has gone silent.
    pub(super) async fn unless_silent<T>(
        &self,
        work: impl Future<Output = Result<T, QueryError>>,
    ) -> Result<T, QueryError> {
        let result = match self.silence_limit {
            None => work.await,
            Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
                let message = format!("PostgreSQL has not answered for {limit:?}{POSTGRES_LEAVE}");
                Err(QueryError::new(ErrorKind::Unavailable, message).recoverable(Recovery::NewSnapshot))
            }),
        };
        if result.as_ref().is_err_and(|error| error.recovery() == Some(&Recovery::NewSnapshot)) {
            self.postgres_breaker.record_failure();
        }
        result
    }

    async fn finish(&self, snapshot: Snapshot) -> Result<(), QueryError> {
        self.unless_silent(snapshot.finish().map_err(statement_error)).await
    }

    /// Files of the manifest, in the query's own snapshot.
    async fn files_of_manifest(
        &self,
        entities: &[Arc<Entity>],
        snapshot: &mut Snapshot,
        options: &QueryOptions,
        facts: &mut Facts,
    ) -> Result<(), QueryError> {
        if !options.tiers.any_lake() || self.lake_catalog != LakeCatalog::Manifest {
            return Ok(());
        }
        for entity in entities {
            let files = snapshot.manifest(entity.schema_id).await.map_err(statement_error)?;
            facts.files.insert(entity.schema_id, files);
        }
        Ok(())
    }

    /// Lists every entity; `None` when the lake is down and the options give leave.
    #[tracing::instrument(name = "list", skip_all, fields(entities = entities.len(), files))]
    async fn list_all(
        &self,
        entities: &[Arc<Entity>],
        options: &QueryOptions,
        facts: &mut Facts,
    ) -> Result<Option<BTreeMap<i16, Listing>>, QueryError> {
        let attempt = match self.lake_breaker.attempt() {
            Ok(attempt) => attempt,
            Err(refused) => {
                let error = breaker_error("the lake", LAKE_LEAVE, refused);
                return self.lake_is_down(error, options, facts).map(|()| None);
            }
        };
        let lists =
            entities.iter().map(|entity| async { Ok((entity.schema_id, self.lake.list_in_force(entity).await?)) });
        match try_join_all(lists).await {
            Ok(listings) => {
                attempt.succeeded();
                let listings: BTreeMap<i16, Listing> = listings.into_iter().collect();
                let files: usize = listings.values().map(|listing| listing.files.len()).sum();
                tracing::Span::current().record("files", files);
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.extend(listings.iter().map(|(schema_id, listing)| (*schema_id, listing.clone())));
                Ok(Some(listings))
            }
            Err(error) => {
                if is_outage(&error) {
                    attempt.failed();
                }
                self.lake_is_down(lake_error(error), options, facts).map(|()| None)
            }
        }
    }

    /// The listings that are known of all these entities.
    fn known_listings(&self, entities: &[Arc<Entity>]) -> Option<BTreeMap<i16, Listing>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        entities.iter().map(|entity| Some((entity.schema_id, known.get(&entity.schema_id)?.clone()))).collect()
    }

    async fn files_of_listings(
        &self,
        listings: BTreeMap<i16, Listing>,
        options: &QueryOptions,
        facts: &mut Facts,
    ) -> Result<(), QueryError> {
        for (schema_id, mut listing) in listings {
            let files: Vec<LakeFile> = loop {
                match self.lake.files(&listing).await {
                    Ok(files) => break files,
                    Err(error) => match error.kind() {
                        LakeErrorKind::Corrupt { path } if options.allow_partial => {
                            let path = path.clone();
                            tracing::warn!(%error, "leaving a corrupt file out");
                            facts.degraded.reasons.push(format!("the file `{path}` can't be read"));
                            facts.warnings.push(format!("the file `{path}` can't be read and was left out"));
                            listing.files.retain(|file| file.path != path);
                        }
                        _ => {
                            if is_outage(&error) {
                                self.lake_breaker.record_failure();
                            }
                            self.lake_is_down(lake_error(error), options, facts)?;
                            return Ok(());
                        }
                    },
                }
            };
            let mut files = files;
            self.unique_files.mark(&mut files);
            self.unique_files.check_in_background(&files, &self.engine, &self.lake.duckdb_root());
            facts.files.insert(schema_id, files);
        }
        Ok(())
    }

    /// Degrades to the hot tier when the options give leave.
    fn lake_is_down(&self, error: QueryError, options: &QueryOptions, facts: &mut Facts) -> Result<(), QueryError> {
        let is_outage = error.kind() == ErrorKind::Unavailable && error.recovery().is_none();
        if !is_outage || !options.allow_partial || !options.tiers.contains(Tier::Hot) {
            return Err(error);
        }
        if facts.degraded.missing_tiers.contains(&Tier::Hot) {
            return Err(
                QueryError::new(ErrorKind::Unavailable, "PostgreSQL and the lake are unavailable").with_source(error)
            );
        }
        tracing::warn!(%error, "the lake is unavailable: answering from the hot tier alone");
        facts.files.clear();
        lake_is_missing(&mut facts.degraded, &mut facts.warnings);
        Ok(())
    }

    /// Counts the dirty rows that can matter. With files to choose among, a condition on ids makes the ids worth knowing.
    async fn count_dirty(
        &self,
        query: &Query,
        entities: &[Arc<Entity>],
        snapshot: &mut Snapshot,
        any_lake: bool,
    ) -> Result<DirtySets, QueryError> {
        let mut sets = DirtySets::default();
        for entity in entities {
            let condition = condition(query, entity);
            if condition.is_some() && any_lake {
                let sql = dirty_ids_sql(&self.tables, entity.schema_id, condition.as_deref());
                let mut stream = snapshot.dirty_ids(&sql).await.map_err(statement_error)?;
                let mut known = KnownIds::default();
                while let Some(batch) = stream.try_next().await.map_err(statement_error)? {
                    known.add(&batch);
                }
                sets.insert(entity, stream.total(), Some(known));
            } else {
                let sql = dirty_count_sql(&self.tables, entity.schema_id, condition.as_deref());
                sets.insert(entity, snapshot.count(&sql).await.map_err(statement_error)?, None);
            }
        }
        Ok(sets)
    }

    async fn load_dirty_ids(
        &self,
        query: &Query,
        entities: &[Arc<Entity>],
        snapshot: &mut Snapshot,
        connection: &Arc<Connection>,
    ) -> Result<DirtySets, QueryError> {
        let mut sets = DirtySets::default();
        for entity in entities {
            let sql = dirty_ids_sql(&self.tables, entity.schema_id, condition(query, entity).as_deref());
            let mut stream = self.unless_silent(snapshot.dirty_ids(&sql).map_err(statement_error)).await?;
            let mut known = KnownIds::default();
            let mut seen = stream.by_ref().inspect_ok(|batch| known.add(batch));
            self.append_all(connection, dirty_table(entity.schema_id), dirty_ids_schema(), &mut seen).await?;
            sets.insert(entity, stream.total(), Some(known));
        }
        Ok(sets)
    }
}

/// Ids that are kept in memory, unless there are very many.
#[derive(Default)]
struct KnownIds(Vec<u128>);

impl KnownIds {
    fn add(&mut self, batch: &RecordBatch) {
        if self.0.len() < MAX_KNOWN_IDS {
            self.0.extend(row_ids(batch));
        }
    }
}

impl DirtySets {
    fn insert(&mut self, entity: &Entity, rows: u64, known: Option<KnownIds>) {
        self.rows.insert(entity.schema_id, rows);
        if let Some(KnownIds(ids)) = known.filter(|known| known.0.len() < MAX_KNOWN_IDS) {
            self.ids.insert(entity.schema_id, Arc::new(IdSet::new(ids)));
        }
    }
}

/// Notes that only files answer.
pub(super) fn postgres_is_missing(degraded: &mut Degradation, warnings: &mut Vec<String>) {
    degraded.missing_tiers.push(Tier::Hot);
    degraded.reasons.push("PostgreSQL is unavailable".to_owned());
    warnings.push(
        "PostgreSQL is unavailable: rows that were not flushed are missing, deleted rows may reappear".to_owned(),
    );
}

/// Notes that only hot rows answer.
pub(super) fn lake_is_missing(degraded: &mut Degradation, warnings: &mut Vec<String>) {
    if degraded.missing_tiers.is_empty() {
        degraded.missing_tiers.extend([Tier::Warm, Tier::Cold]);
        degraded.reasons.push("the lake is unavailable".to_owned());
        warnings.push("the lake is unavailable: only rows that are dirty in PostgreSQL are in the answer".to_owned());
    }
}

/// Whether a failure of the lake is an outage: a wrong setting or a damaged file is none.
fn is_outage(error: &LakeError) -> bool {
    *error.kind() == LakeErrorKind::Unavailable
}

const POSTGRES_LEAVE: &str = "; with consistency = eventual the files alone answer";
const LAKE_LEAVE: &str = "; with allow_partial = true the hot rows alone answer";

fn breaker_error(source: &str, leave: &str, refused: Refused) -> QueryError {
    let when = match refused.retry_after {
        Duration::ZERO => "a probe is under way".to_owned(),
        wait => format!("the next attempt is in {:.1} s", wait.as_secs_f64()),
    };
    let message = format!("{source} failed repeatedly and isn't asked for now ({when}){leave}");
    // The verdict of a probe is soon there.
    let hint = refused.retry_after.max(Duration::from_secs(1));
    QueryError::new(ErrorKind::Unavailable, message).retry_after(hint)
}

/// Whether the hot rows of a snapshot fill the LIMIT of a query that PostgreSQL can answer whole.
pub(super) async fn suffice(hot_query: &HotQuery, snapshot: &mut Snapshot) -> Result<bool, QueryError> {
    match (&hot_query.output, hot_query.limit) {
        (HotOutput::Columns(_), Some(limit)) => {
            Ok(snapshot.count(&hot_query.count_sql()).await.map_err(statement_error)? >= limit)
        }
        _ => Ok(false),
    }
}

/// Which dirty ids of an entity can matter to a query.
fn condition(query: &Query, entity: &Entity) -> Option<String> {
    dirty_ids_condition(query.references.iter().filter(|reference| reference.entity.schema_id == entity.schema_id))
}

/// Entities of a query, each once.
fn entities(query: &Query) -> Vec<Arc<Entity>> {
    let mut seen = BTreeSet::new();
    let references = query.references.iter().filter(|reference| seen.insert(reference.entity.schema_id));
    references.map(|reference| Arc::clone(&reference.entity)).collect()
}

/// An error of a statement in an open snapshot: when the connection is lost, a new snapshot may do better.
pub(super) fn statement_error(error: PostgresError) -> QueryError {
    let lost = error.kind() == PostgresErrorKind::Unavailable;
    let error = postgres_error(error);
    if lost { error.recoverable(Recovery::NewSnapshot) } else { error }
}

pub(super) fn postgres_error(error: PostgresError) -> QueryError {
    let (kind, hint) = match error.kind() {
        PostgresErrorKind::Unavailable => (ErrorKind::Unavailable, POSTGRES_LEAVE),
        PostgresErrorKind::Misconfigured | PostgresErrorKind::Data => (ErrorKind::Misconfigured, ""),
        PostgresErrorKind::StatementTimeout => (ErrorKind::DeadlineExceeded, "; raise postgres.statement_timeout"),
        PostgresErrorKind::Internal => return QueryError::internal(error),
    };
    QueryError::new(kind, format!("{error}{hint}")).with_source(error)
}

pub(super) fn lake_error(error: LakeError) -> QueryError {
    let vanished = matches!(error.kind(), LakeErrorKind::NotFound { .. });
    let (kind, hint) = match error.kind() {
        LakeErrorKind::Unavailable => (ErrorKind::Unavailable, LAKE_LEAVE),
        LakeErrorKind::Corrupt { .. } => (ErrorKind::Unavailable, "; with allow_partial = true it is left out"),
        LakeErrorKind::NotFound { .. } => (ErrorKind::Unavailable, ""),
        LakeErrorKind::Misconfigured => (ErrorKind::Misconfigured, ""),
    };
    let error = QueryError::new(kind, format!("{error}{hint}")).with_source(error);
    if vanished { error.recoverable(Recovery::FreshFiles) } else { error }
}

fn plan_error(error: PlanError) -> QueryError {
    let kind = match error {
        PlanError::TooManyRows { .. } => ErrorKind::LimitExceeded,
        PlanError::MissingColumn { .. } | PlanError::WrongType { .. } | PlanError::UnreadableName { .. } => {
            ErrorKind::Misconfigured
        }
    };
    QueryError::new(kind, error.to_string())
}
