//! Facts and rows from the sources, in the order that makes an answer right (docs/contract.md, "Snapshot first").
//!
//! ```text
//! known listing ── snapshot ──┬─ dirty ids ─▶ temporary tables
//!                             └─ listing  ── equal to the known one? ── no: new snapshot, list again
//! footers ── plan ── hot rows ─▶ temporary tables ── end of the snapshot
//! ```
//!
//! A flush publishes its files before it marks rows flushed. So a row that isn't dirty in the snapshot has its file in
//! a listing made afterwards; and when that listing equals one made before, no file is newer than the snapshot either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use futures::{StreamExt, TryFutureExt, TryStreamExt};
use translator::Query;
use translator::catalog::{Column, Entity};
use translator::emit::{dirty_table, hot_table};
use translator::hot_query::{HotOutput, HotQuery};
use translator::lake::{IdSet, LakeFile};
use translator::options::{Consistency, QueryOptions, Tier};
use translator::plan::{Degradation, FederatedPlan, HotAccess, MirrorTable};
use translator::planner::{Facts, PlanError, plan};
use translator::postgres::{TableNames, dirty_count_sql, dirty_ids_condition, dirty_ids_sql};

use super::delta_ids::{DeltaIds, row_ids};
use super::error::{ErrorKind, QueryError, Recovery};
use super::hot_scan::HotScans;
use super::indexing::{DirtyIds, EntityPositions, Indexing};
use super::source_errors::{
    POSTGRES_LEAVE, breaker_error, lake_error, list_error, postgres_error, silence, statement_error,
};
use super::unique_files::UniqueFiles;
use crate::breaker::{Breaker, Clock, SystemClock};
use crate::config::{Config, LakeCatalog, MergeChoice};
use crate::engine::Engine;
use crate::engine::duckdb::Connection;
use crate::lake::{Lake, LakeError, LakeErrorKind};
use crate::moments::{EntityListings, Listings, Moment, MomentSources, Moments};
use crate::postgres::{PhysicalColumns, PostgresErrorKind, PostgresSource, Reader, Snapshot, dirty_ids_schema};
use crate::versions::HiddenPositions;

/// New snapshots are taken this often when files keep arriving.
const SNAPSHOT_ATTEMPTS: usize = 6;

/// Both sources of one installation.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) postgres: PostgresSource,
    pub(super) lake: Lake,
    pub(super) lake_catalog: LakeCatalog,
    pub(super) tables: TableNames,
    pub(super) listings: Arc<Listings>,
    /// `None`: every query reads PostgreSQL by itself.
    pub(super) moments: Option<Moments>,
    delta_ids: DeltaIds,
    pub(super) unique_files: UniqueFiles,
    pub(super) indexing: Indexing,
    window_only: bool,
    scans: HotScans,
    engine: Arc<Engine>,
    postgres_breaker: Arc<Breaker>,
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
    /// No shared moment: the query needs a snapshot of its own.
    pub(super) by_itself: bool,
}

impl Overrides {
    /// The same in a snapshot of the query's own.
    pub(super) fn by_itself(&self) -> Self {
        Self { by_itself: true, ..self.clone() }
    }

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
#[derive(Debug, Clone)]
pub(super) struct HotExecution {
    pub(super) rows_scanned: u64,
    pub(super) rows_returned: u64,
    pub(super) ms: f64,
    /// The table that DuckDB scans for them; `None` where PostgreSQL answers alone.
    pub(super) table: Option<String>,
    /// Whether the rows were in memory, so that PostgreSQL wasn't asked for them.
    pub(super) is_mirrored: bool,
}

/// A plan whose hot rows wait in the connection's temporary tables.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) plan: FederatedPlan,
    /// One entry a reference that reads the hot tier.
    pub(super) hot: Vec<HotExecution>,
    /// With [`FederatedPlan::hot_query`]: the open snapshot that answers it.
    pub(super) snapshot: Option<Snapshot>,
    /// Positions that scans leave out, by `schema_id`, of entities whose positions are known.
    pub(super) hidden: BTreeMap<i16, Arc<HiddenPositions>>,
    /// The moment that the query reads; its rows stay as long as this is held.
    pub(super) moment: Option<Arc<Moment>>,
}

/// What a query's facts come from, and where its hot rows are.
enum Access {
    /// PostgreSQL isn't asked.
    FilesAlone,
    /// A snapshot of the query's own, still open.
    Snapshot(Box<Snapshot>),
    /// What other queries read as well.
    Moment(Arc<Moment>),
}

/// What a plan is made from, and what it takes to run it.
struct Gathered {
    facts: Facts,
    access: Access,
    /// Positions that scans leave out, by `schema_id`, of entities whose positions are known.
    hidden: BTreeMap<i16, Arc<HiddenPositions>>,
}

/// How far the gathering of facts goes.
#[derive(Clone, Copy)]
enum Depth<'a> {
    /// For a plan that is shown: what may cost much is left out.
    Plan,
    /// For a plan that runs: dirty ids go into this connection.
    Run(&'a Arc<Connection>),
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
        let breaker = || Arc::new(Breaker::new(config.breaker.clone(), Arc::clone(&clock)));
        let (postgres_breaker, lake_breaker) = (breaker(), breaker());
        let silence_limit = config.postgres.statement_timeout.map(|limit| limit + config.postgres.connect_timeout);
        let listings = Arc::new(Listings::new(lake.clone(), Arc::clone(&lake_breaker)));
        let sources = MomentSources {
            postgres: postgres.clone(),
            postgres_breaker: Arc::clone(&postgres_breaker),
            tables: tables.clone(),
            lake_catalog,
            listings: Arc::clone(&listings),
            store: Arc::clone(engine.mirrors()),
            silence_limit,
        };
        let index_directory = config.cache.directory(engine.temp_directory());
        Self {
            indexing: Indexing::new(config, Arc::clone(&engine), lake.duckdb_root(), &index_directory),
            window_only: config.query.merge == MergeChoice::Window,
            postgres,
            lake,
            lake_catalog,
            tables,
            listings,
            moments: Moments::new(sources, &config.hot),
            delta_ids: DeltaIds::default(),
            unique_files: UniqueFiles::default(),
            scans: HotScans::new(config, engine.temp_directory()),
            engine,
            postgres_breaker,
            lake_breaker,
            silence_limit,
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
    ) -> Result<(FederatedPlan, Option<Arc<Moment>>), QueryError> {
        let Gathered { facts, access, .. } = self.gather(query, options, overrides, Depth::Plan).await?;
        let plan = plan(query, &facts, options, &self.tables).map_err(plan_error)?;
        self.refuse_lossy_columns(&plan, &access)?;
        match access {
            Access::FilesAlone => Ok((plan, None)),
            Access::Snapshot(snapshot) => {
                self.finish(*snapshot).await?;
                Ok((plan, None))
            }
            Access::Moment(moment) => Ok((plan, Some(moment))),
        }
    }

    /// Whether the hot rows alone fill the LIMIT of a query, at this moment.
    pub(super) async fn hot_rows_suffice(&self, hot_query: &HotQuery) -> Result<bool, QueryError> {
        let mut snapshot = self.open_snapshot().await?;
        let suffices = self.unless_silent(suffice(hot_query, &mut snapshot)).await?;
        self.finish(snapshot).await?;
        Ok(suffices)
    }

    /// Plans a query and loads its dirty ids and hot rows into temporary tables of `connection`, unless a moment has them.
    pub(super) async fn load(
        &self,
        query: &Query,
        options: &QueryOptions,
        overrides: &Overrides,
        connection: &Arc<Connection>,
    ) -> Result<Loaded, QueryError> {
        let Gathered { facts, mut access, hidden } =
            self.gather(query, options, overrides, Depth::Run(connection)).await?;
        let mut plan = plan(query, &facts, options, &self.tables).map_err(plan_error)?;
        self.refuse_lossy_columns(&plan, &access)?;
        if let Some(sql) = plan.hot_query.as_ref().and_then(|hot_query| hot_query.inconsistent_sql.as_ref())
            && let Access::Snapshot(snapshot) = &mut access
        {
            let inconsistent = self.unless_silent(snapshot.count(sql).map_err(statement_error)).await?;
            if inconsistent > 0 {
                plan.warnings.push(self.inconsistency(&plan.references[0].entity, inconsistent));
            }
        }
        let (hot, snapshot, moment) = match access {
            Access::FilesAlone => (Vec::new(), None, None),
            Access::Snapshot(snapshot) if plan.hot_query.is_some() => (Vec::new(), Some(*snapshot), None),
            Access::Snapshot(snapshot) => (self.load_hot_rows(*snapshot, &mut plan, connection).await?, None, None),
            Access::Moment(moment) => (mirrored_executions(&plan), None, Some(moment)),
        };
        Ok(Loaded { plan, hot, snapshot, hidden, moment })
    }

    /// The facts of the moment, in the order that makes an answer right.
    async fn gather(
        &self,
        query: &Query,
        options: &QueryOptions,
        overrides: &Overrides,
        depth: Depth<'_>,
    ) -> Result<Gathered, QueryError> {
        let entities = entities(query);
        let mut facts = overrides.facts();
        let access = match self.facts_of_moment(query, &entities, options, overrides, &mut facts).await? {
            Some(moment) => Access::Moment(moment),
            None => match self.facts_by_itself(query, &entities, options, depth, &mut facts).await? {
                Some(snapshot) => Access::Snapshot(Box::new(snapshot)),
                None => Access::FilesAlone,
            },
        };
        for files in facts.files.values_mut() {
            files.retain(|file| !overrides.excluded_files.contains(&file.path));
        }
        let has_all_dirty = matches!(access, Access::Moment(_));
        let hidden = self.position_facts(query, options, &mut facts, depth, has_all_dirty).await?;
        facts.delta_ids = match depth {
            Depth::Plan => self.delta_ids.known(&facts.files, options.tiers),
            Depth::Run(_) => {
                let unknown = facts.files.iter().filter(|(schema_id, _)| !hidden.contains_key(*schema_id));
                let unknown: BTreeMap<i16, Vec<LakeFile>> = unknown.map(|(id, files)| (*id, files.clone())).collect();
                self.delta_ids.of(&unknown, options.tiers, &self.engine, &self.lake, &self.lake_breaker).await?
            }
        };
        Ok(Gathered { facts, access, hidden })
    }

    /// Facts in a snapshot of the query's own, which stays open for its hot rows.
    async fn facts_by_itself(
        &self,
        query: &Query,
        entities: &[Arc<Entity>],
        options: &QueryOptions,
        depth: Depth<'_>,
        facts: &mut Facts,
    ) -> Result<Option<Snapshot>, QueryError> {
        // Taken before the snapshot: a listing that another query makes from here on may be newer than it.
        let mut before = if self.lists(options) { self.listings.known(entities) } else { None };
        let mut snapshot = self.begin(entities, options, facts).await?;
        for attempt in 1.. {
            let ids = async {
                match &mut snapshot {
                    Some(snapshot) if options.tiers.contains(Tier::Hot) => {
                        self.dirty_sets(query, entities, snapshot, options.tiers.any_lake(), depth).await
                    }
                    _ => Ok(DirtySets::default()),
                }
            };
            let listed =
                async { if self.lists(options) { self.list_all(entities, options, facts).await } else { Ok(None) } };
            let (dirty, listings) = futures::join!(ids, listed);
            let (dirty, listings) = (dirty?, listings?);
            (facts.dirty_rows, facts.dirty_ids) = (dirty.rows, dirty.ids);
            let is_settled = snapshot.is_none() || listings.is_none() || before == listings;
            // A plan that is shown may be of two moments.
            if is_settled || matches!(depth, Depth::Plan) || attempt == SNAPSHOT_ATTEMPTS {
                if !is_settled && matches!(depth, Depth::Run(_)) {
                    facts.warnings.push(
                        "files kept arriving while the snapshot was taken: the answer may mix two moments; the manifest \
                         catalog avoids this"
                            .to_owned(),
                    );
                }
                if let Some(listings) = listings {
                    self.files_of_listings(listings, options, facts).await?;
                }
                break;
            }
            before = listings;
            snapshot = self.begin(entities, options, facts).await?;
        }
        if let Some(snapshot) = &mut snapshot {
            self.unless_silent(self.files_of_manifest(entities, snapshot, options, facts)).await?;
        }
        Ok(snapshot)
    }

    /// What the version index knows of the files that the facts name, dirty rows taken into account. For a plan that no query
    /// runs by, counts without dirty rows will do.
    async fn position_facts(
        &self,
        query: &Query,
        options: &QueryOptions,
        facts: &mut Facts,
        depth: Depth<'_>,
        has_all_dirty: bool,
    ) -> Result<BTreeMap<i16, Arc<HiddenPositions>>, QueryError> {
        facts.window_only = self.window_only;
        let mut hidden = BTreeMap::new();
        for entity in entities(query) {
            let schema_id = entity.schema_id;
            let Some(files) = facts.files.get(&schema_id) else { continue };
            let is_dirty = facts.dirty_rows.get(&schema_id).is_some_and(|rows| *rows > 0);
            let dirty = match (is_dirty, facts.dirty_ids.get(&schema_id)) {
                (false, _) => None,
                (true, Some(ids)) => Some(DirtyIds {
                    ids: Arc::clone(ids),
                    are_all: has_all_dirty || condition(query, &entity).is_none(),
                }),
                (true, None) if matches!(depth, Depth::Plan) => None,
                // Dirty rows that nobody named can't be left out by position.
                (true, None) => continue,
            };
            let found = self.indexing.positions(query, schema_id, files, dirty, options).await?;
            if let Some(EntityPositions { facts: found, hidden: positions }) = found {
                facts.positions.insert(schema_id, found);
                hidden.insert(schema_id, positions);
            }
        }
        Ok(hidden)
    }

    /// The dirty rows that can matter, in a snapshot.
    async fn dirty_sets(
        &self,
        query: &Query,
        entities: &[Arc<Entity>],
        snapshot: &mut Snapshot,
        any_lake: bool,
        depth: Depth<'_>,
    ) -> Result<DirtySets, QueryError> {
        match depth {
            // Without files there is nothing to discard.
            Depth::Run(connection) if any_lake => self.load_dirty_ids(query, entities, snapshot, connection).await,
            Depth::Run(_) | Depth::Plan => {
                self.unless_silent(self.count_dirty(query, entities, snapshot, any_lake)).await
            }
        }
    }

    /// A column of a type whose values PostgreSQL can't deliver and compare without loss is refused before it is asked for.
    fn refuse_lossy_columns(&self, plan: &FederatedPlan, access: &Access) -> Result<(), QueryError> {
        // What is in memory came through.
        let Access::Snapshot(snapshot) = access else { return Ok(()) };
        let physical: &PhysicalColumns = snapshot.physical();
        let tables = self.postgres.tables();
        for reference in &plan.references {
            let Some(source) = &reference.hot else { continue };
            let is_scan = matches!(source.access, HotAccess::Scan { .. }) && plan.hot_query.is_none();
            let reader = if is_scan { Reader::Scan } else { Reader::Statement };
            let hot_query = plan.hot_query.iter().flat_map(|hot_query| &hot_query.statement.reads);
            let reads: Vec<Column> = source.statement.reads.iter().chain(hot_query).copied().collect();
            physical.check(tables, &reference.entity, &reads, reader).map_err(postgres_error)?;
        }
        Ok(())
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
            let summary = match &source.access {
                HotAccess::Copy => {
                    self.copy_hot_rows(&mut snapshot, index, reference, &source.statement, connection).await?
                }
                HotAccess::Scan { inconsistent_sql } => {
                    let scan = self.scans.load(
                        &mut snapshot,
                        index,
                        reference,
                        &source.statement,
                        inconsistent_sql,
                        connection,
                    );
                    self.unless_silent(scan).await?
                }
                HotAccess::Mirror(_) => {
                    return Err(QueryError::internal(anyhow::anyhow!("rows in memory are no part of a snapshot")));
                }
            };
            if summary.inconsistent_rows > 0 {
                plan.warnings.push(self.inconsistency(&reference.entity, summary.inconsistent_rows));
            }
            hot.push(HotExecution {
                rows_scanned: summary.rows_scanned,
                rows_returned: summary.rows_returned,
                ms: started.elapsed().as_secs_f64() * 1000.0,
                table: Some(hot_table(index)),
                is_mirrored: false,
            });
        }
        self.finish(snapshot).await?;
        Ok(hot)
    }

    pub(super) fn inconsistency(&self, entity: &Entity, rows: u64) -> String {
        let table = entity.own_table().map_or(self.tables.entity_main.as_str(), |table| table.name.as_str());
        format!("{}: {rows} dirty rows have no {table} row and were left out", entity.name)
    }

    /// Forgets what is known of the file set: a file has vanished.
    pub(super) fn forget_listings(&self) {
        self.listings.forget();
    }

    pub(super) fn lists(&self, options: &QueryOptions) -> bool {
        options.tiers.any_lake() && self.lake_catalog == LakeCatalog::Listing
    }

    /// Opens a snapshot when the query needs PostgreSQL; `None` also when PostgreSQL is down and the options give
    /// leave.
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
            Err(error) => self.postgres_is_down(error, options, facts).map(|()| None),
        }
    }

    /// Degrades to the files when the options give leave, before anything was read.
    pub(super) fn postgres_is_down(
        &self,
        error: QueryError,
        options: &QueryOptions,
        facts: &mut Facts,
    ) -> Result<(), QueryError> {
        let may_leave = error.kind() == ErrorKind::Unavailable
            && error.recovery().is_none()
            && options.consistency == Consistency::Eventual
            && self.lists(options)
            && !facts.degraded.missing_tiers.contains(&Tier::Cold);
        if !may_leave {
            return Err(error);
        }
        tracing::warn!(%error, "PostgreSQL is unavailable: answering from files alone");
        postgres_is_missing(&mut facts.degraded, &mut facts.warnings);
        Ok(())
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
            Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(silence(limit))),
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
    async fn list_all(
        &self,
        entities: &[Arc<Entity>],
        options: &QueryOptions,
        facts: &mut Facts,
    ) -> Result<Option<EntityListings>, QueryError> {
        match self.listings.list(entities).await {
            Ok(listings) => Ok(Some(listings)),
            Err(error) => self.lake_is_down(list_error(&error), options, facts).map(|()| None),
        }
    }

    pub(super) async fn files_of_listings(
        &self,
        listings: EntityListings,
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
    pub(super) fn lake_is_down(
        &self,
        error: QueryError,
        options: &QueryOptions,
        facts: &mut Facts,
    ) -> Result<(), QueryError> {
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

    /// Counts the dirty rows that can matter. With files to choose among, a condition on ids makes the ids worth
    /// knowing.
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
                    known.add(&batch)?;
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
            let mut added = Ok(());
            let mut seen = stream.by_ref().inspect_ok(|batch| {
                if added.is_ok() {
                    added = known.add(batch);
                }
            });
            self.append_all(connection, dirty_table(entity.schema_id), dirty_ids_schema(), &mut seen).await?;
            added?;
            sets.insert(entity, stream.total(), Some(known));
        }
        Ok(sets)
    }
}

/// Ids that are kept in memory, unless there are very many.
#[derive(Default)]
struct KnownIds(Vec<u128>);

impl KnownIds {
    fn add(&mut self, batch: &RecordBatch) -> Result<(), QueryError> {
        if self.0.len() < MAX_KNOWN_IDS {
            self.0.extend(row_ids(batch)?);
        }
        Ok(())
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

/// The hot sources of a plan that reads a moment: all in memory.
fn mirrored_executions(plan: &FederatedPlan) -> Vec<HotExecution> {
    let hot = plan.references.iter().filter_map(|reference| reference.hot.as_ref());
    let mirrors = hot.filter_map(|source| match &source.access {
        HotAccess::Mirror(mirror) => Some(mirror),
        HotAccess::Copy | HotAccess::Scan { .. } => None,
    });
    let execution = |mirror: &MirrorTable| HotExecution {
        rows_scanned: mirror.rows,
        rows_returned: mirror.rows - mirror.inconsistent_rows,
        ms: 0.0,
        table: Some(mirror.name.clone()),
        is_mirrored: true,
    };
    mirrors.map(execution).collect()
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

fn plan_error(error: PlanError) -> QueryError {
    let kind = match error {
        PlanError::TooManyRows { .. } => ErrorKind::LimitExceeded,
        PlanError::MissingColumn { .. }
        | PlanError::WrongType { .. }
        | PlanError::AmbiguousColumn { .. }
        | PlanError::UnreadableName { .. } => ErrorKind::Misconfigured,
    };
    QueryError::new(kind, error.to_string())
}
