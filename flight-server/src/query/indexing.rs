//! The version index beside the queries: it answers what it knows, and learns the rest behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use translator::Query;
use translator::emit::versions_statement;
use translator::lake::{IdSet, LakeFile};
use translator::options::{QueryOptions, Tier};
use translator::positions::{FilePositions, PositionFacts, wanted_ids};

use super::error::QueryError;
use super::threads::QueryThread;
use crate::config::{Config, MergeChoice};
use crate::engine::Engine;
use crate::engine::duckdb::DuckError;
use crate::telemetry::ObservedIndex;
use crate::versions::{Entry, HiddenPositions, IndexError, Known, VersionIndex};

/// More ids than this aren't looked up to find the rows that a query asks for.
const MAX_LOOKED_UP: usize = 1000;

/// Sets of files that are to be indexed and settled, by `schema_id` and tiers: the latest of each.
type Wishes = BTreeMap<(i16, BTreeSet<Tier>), Vec<LakeFile>>;

/// The version index with what it takes to build it.
#[derive(Debug, Clone)]
pub(super) struct Indexing {
    index: Arc<VersionIndex>,
    engine: Arc<Engine>,
    lake_root: String,
    merge: MergeChoice,
    /// What is still to be learned: one thing at a time, the latest wish of each entity.
    wishes: Arc<Mutex<Wishes>>,
    is_learning: Arc<AtomicBool>,
    /// Questions that were answered, and those that weren't yet.
    lookups: Arc<[AtomicU64; 2]>,
}

/// What the index says of an entity's files at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct EntityPositions {
    pub(super) facts: PositionFacts,
    pub(super) hidden: Arc<HiddenPositions>,
}

/// The dirty ids of an entity.
#[derive(Debug, Clone)]
pub(super) struct DirtyIds {
    pub(super) ids: Arc<IdSet>,
    /// Whether they are all of them, and not only those that matter to one query.
    pub(super) are_all: bool,
}

/// Why a file can't be indexed.
#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("cannot read the file's row ids: {0}")]
    Read(#[from] DuckError),
    #[error("the file's row ids came in an unexpected form")]
    Form,
}

impl Indexing {
    pub(super) fn new(config: &Config, engine: Arc<Engine>, lake_root: String, directory: &std::path::Path) -> Self {
        let limit = match config.query.merge {
            MergeChoice::Auto | MergeChoice::Positions => config.cache.limit,
            MergeChoice::Layered | MergeChoice::Window => 0,
        };
        Self {
            index: Arc::new(VersionIndex::open(directory, limit, &lake_root)),
            engine,
            lake_root,
            merge: config.query.merge,
            wishes: Arc::default(),
            is_learning: Arc::default(),
            lookups: Arc::default(),
        }
    }

    pub(super) fn observed(&self) -> ObservedIndex {
        let (bytes, files) = self.index.store().figures();
        ObservedIndex { bytes, files, lookups: self.lookups.each_ref().map(|count| count.load(Ordering::Relaxed)) }
    }

    /// Positions in those files of one entity that the options' tiers allow; `None` when the index doesn't know them all
    /// yet. `files` are all of the entity's files: indexes of others are dropped.
    /// `dirty` is absent when no row is dirty or PostgreSQL isn't asked.
    pub(super) async fn positions(
        &self,
        query: &Query,
        schema_id: i16,
        files: &[LakeFile],
        dirty: Option<DirtyIds>,
        options: &QueryOptions,
    ) -> Result<Option<EntityPositions>, QueryError> {
        if !self.index.store().is_enabled() || files.is_empty() {
            return Ok(None);
        }
        let (all, tiers) = (files.to_vec(), options.tiers);
        let wanted = wanted_ids(query, schema_id).filter(|ids| ids.len() <= MAX_LOOKED_UP);
        let (this, include_deleted) = (self.clone(), options.include_deleted);
        let found = tokio::task::spawn_blocking(move || {
            let _thread = QueryThread::new();
            this.index.keep_only(schema_id, &all);
            let may_answer = |file: &LakeFile| tiers.contains(file.tier) && file.row_count > 0;
            let files: Vec<LakeFile> = all.into_iter().filter(may_answer).collect();
            this.look_up(schema_id, &files, dirty.as_ref(), wanted.as_deref(), include_deleted)
        });
        let found = found.await.map_err(QueryError::internal)?.unwrap_or_else(|error| {
            // Queries merge versions themselves, until the index is there again.
            tracing::warn!(%error, "the version index failed");
            None
        });
        self.lookups[usize::from(found.is_none())].fetch_add(1, Ordering::Relaxed);
        Ok(found)
    }

    fn look_up(
        &self,
        schema_id: i16,
        files: &[LakeFile],
        dirty: Option<&DirtyIds>,
        wanted: Option<&[u128]>,
        include_deleted: bool,
    ) -> Result<Option<EntityPositions>, IndexError> {
        let all: Vec<&LakeFile> = files.iter().collect();
        let settled = match self.index.known(schema_id, &all)? {
            Known::Settled(settled) => settled,
            Known::Unindexed | Known::Unsettled if self.merge == MergeChoice::Positions => {
                self.learn(schema_id, files);
                match self.index.known(schema_id, &all)? {
                    Known::Settled(settled) => settled,
                    Known::Unindexed | Known::Unsettled => return Ok(None),
                }
            }
            Known::Unindexed | Known::Unsettled => {
                self.wish(schema_id, files);
                return Ok(None);
            }
        };
        let hidden = self.index.hidden(schema_id, &settled, dirty.map(|dirty| (&dirty.ids, dirty.are_all)))?;
        let counts = hidden
            .files
            .iter()
            .map(|(path, file)| (path.clone(), FilePositions { hidden: file.hidden.len(), gone: file.gone.len() }));
        let mut facts = PositionFacts { files: counts.collect(), rows: None };
        if let Some(wanted) = wanted {
            let mut rows: BTreeMap<u128, Vec<(String, u32)>> = BTreeMap::new();
            for (path, file) in settled.files() {
                let Some(of_file) = hidden.files.get(path) else { continue };
                let left_out = if include_deleted { &of_file.hidden } else { &of_file.gone };
                file.index.lookup(wanted, |Entry { id, position, .. }| {
                    if !left_out.contains(position) {
                        rows.entry(id).or_default().push((path.clone(), position));
                    }
                })?;
            }
            facts.rows = Some(rows);
        }
        Ok(Some(EntityPositions { facts, hidden: Arc::new(hidden) }))
    }

    /// Learns a set of files behind the queries, after what is being learned already.
    fn wish(&self, schema_id: i16, files: &[LakeFile]) {
        let tiers = files.iter().map(|file| file.tier).collect();
        self.lock().insert((schema_id, tiers), files.to_vec());
        if self.is_learning.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = self.clone();
        tokio::task::spawn_blocking(move || {
            let _thread = QueryThread::new();
            loop {
                let next = this.lock().pop_first();
                let Some(((schema_id, _), files)) = next else {
                    this.is_learning.store(false, Ordering::Release);
                    // A wish that came between the two isn't left alone.
                    if this.lock().is_empty() || this.is_learning.swap(true, Ordering::AcqRel) {
                        return;
                    }
                    continue;
                };
                this.learn(schema_id, &files);
            }
        });
    }

    /// Indexes files, small ones first, and settles them.
    fn learn(&self, schema_id: i16, files: &[LakeFile]) {
        let mut by_size: Vec<&LakeFile> = files.iter().collect();
        by_size.sort_by_key(|file| file.row_count);
        let mut failed = false;
        for file in by_size {
            if let Err(error) = self.build(file) {
                failed = true;
                self.index.store().failed(file);
                tracing::warn!(file = file.path, %error, "cannot index a file");
            }
        }
        let files: Vec<&LakeFile> = files.iter().collect();
        if !failed && let Err(error) = self.index.settle(schema_id, &files) {
            tracing::warn!(%error, "cannot resolve the versions of files");
        }
    }

    fn build(&self, file: &LakeFile) -> Result<(), BuildError> {
        let Some(mut build) = self.index.store().build(file)? else { return Ok(()) };
        let started = std::time::Instant::now();
        // DuckDB sorts within its own limits of memory.
        let sql = versions_statement(file, &self.lake_root);
        let connection = self.engine.connect()?;
        let mut rows = connection.stream(&sql)?;
        while let Some(batch) = rows.next()? {
            let Some(writer) = build.writer() else { break };
            for entry in entries(&batch).ok_or(BuildError::Form)? {
                writer.push(entry)?;
            }
        }
        self.index.store().finish(build)?;
        tracing::info!(
            file = file.path,
            rows = file.row_count,
            ms = started.elapsed().as_millis(),
            "a file is indexed"
        );
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Entries of a batch of ids, times, tombstones and positions.
fn entries(batch: &RecordBatch) -> Option<Vec<Entry>> {
    let ids = batch.column(0).as_binary_opt::<i32>()?;
    let times = batch.column(1).as_primitive_opt::<Int64Type>()?;
    let tombstones = batch.column(2).as_primitive_opt::<Int32Type>()?;
    let positions = batch.column(3).as_primitive_opt::<Int64Type>()?;
    (0..batch.num_rows())
        .map(|row| {
            Some(Entry {
                id: u128::from_be_bytes(ids.is_valid(row).then(|| ids.value(row))?.try_into().ok()?),
                changed_at: if times.is_valid(row) { times.value(row) } else { i64::MIN },
                is_tombstone: tombstones.value(row) != 0,
                position: u32::try_from(positions.value(row)).ok()?,
            })
        })
        .collect()
}
