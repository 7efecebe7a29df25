//! Moments: what queries need to know of the data at one moment, made once and shared by all who ask meanwhile.
//!
//! ```text
//! queries ──▶ after_now ──▶ one making at a time: snapshot ─┬─ what changed ─▶ mirrors ──▶ Moment
//!                │                                          └─ file sets                     │
//!                └────────────────── the same moment for all that waited ◀──────────────────┘
//! ```
//!
//! A [`Moment`] is immutable: the PostgreSQL snapshot it stands for, and for each entity its dirty rows, kept in memory, and
//! its files. [`Moments::after_now`] gives one that begins after the call, so no query sees less than a snapshot of its own
//! would show. What isn't kept in memory (not yet, or beyond the limit) is no part of any moment: its queries read
//! PostgreSQL by themselves.
//!
//! Knows PostgreSQL, the lake and DuckDB, and nothing of queries.

mod audit;
mod commit;
mod error;
mod listings;
mod making;
mod mirror;
mod readiness;
mod versions;

use error::MirrorError;
pub(crate) use error::{ListError, MomentError};
pub(crate) use listings::{EntityListings, Listings};
pub(crate) use readiness::Readiness;
pub(crate) use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use translator::catalog::Entity;
use translator::lake::{IdSet, LakeFile};
use translator::plan::MirrorTable;
use translator::postgres::TableNames;

use crate::breaker::Breaker;
use crate::config::{HotConfig, HotMirror, LakeCatalog};
use crate::engine::mirror::{MirrorHandle, MirrorStore};
use crate::lake::Listing;
use crate::postgres::{PostgresSource, SnapshotIdentity};
use commit::Commit;
use making::Maker;

/// Moments that are remembered to be looked at.
const RECENT: usize = 256;

/// Everything that queries share of one moment.
#[derive(Debug)]
pub(crate) struct Moment {
    /// Greater than that of every earlier one of this process.
    pub(crate) id: u64,
    pub(crate) snapshot: SnapshotIdentity,
    /// Time that making it took.
    pub(crate) took: Duration,
    /// Rows that were read from PostgreSQL for it.
    pub(crate) changed_rows: u64,
    /// Queries that waited for it.
    pub(crate) shared: Arc<AtomicU64>,
    entities: BTreeMap<i16, EntityMoment>,
}

/// An entity at a moment.
#[derive(Debug, Clone)]
pub(crate) struct EntityMoment {
    entity: Arc<Entity>,
    pub(crate) mirror: MirrorTable,
    pub(crate) dirty_ids: Arc<IdSet>,
    /// Of these, live rows without an `entity_main` row.
    pub(crate) bare_ids: Arc<IdSet>,
    pub(crate) files: FileSet,
    /// As long as somebody holds the moment, its tables stay.
    _table: Arc<MirrorHandle>,
}

/// The files of an entity at a moment.
#[derive(Debug, Clone)]
pub(crate) enum FileSet {
    /// No query asked for them.
    NotAsked,
    /// By the object store: as old as the snapshot and as new.
    Listed(Listing),
    /// By the manifest, in the snapshot.
    Manifest(Vec<LakeFile>),
    /// The object store doesn't say.
    Failed(Arc<ListError>),
    /// Files kept arriving: no listing belongs to the snapshot.
    Unsettled,
}

/// What a query asks of a moment.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) entity: Arc<Entity>,
    /// Places of the attributes that it reads.
    pub(crate) attributes: BTreeSet<usize>,
    pub(crate) files: bool,
}

/// What becomes of moments, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MomentFigures {
    pub(crate) made: u64,
    pub(crate) failed: u64,
    /// Queries that moments answered.
    pub(crate) shared: u64,
    pub(crate) changed_rows: u64,
    /// Microseconds.
    pub(crate) making: u64,
    pub(crate) mirror_bytes: u64,
    pub(crate) mirror_rows: u64,
    /// Queries that the mirror answered, and those that read PostgreSQL although it is on.
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) audits: u64,
    pub(crate) findings: u64,
}

/// A moment as `system.moments` shows it.
#[derive(Debug, Clone)]
pub(crate) struct MomentEntry {
    pub(crate) id: u64,
    pub(crate) snapshot: String,
    pub(crate) made_at: i64,
    pub(crate) took: Duration,
    pub(crate) entities: Vec<String>,
    pub(crate) changed_rows: u64,
    pub(crate) shared: Arc<AtomicU64>,
    /// `None` of one that was made.
    pub(crate) error: Option<String>,
}

/// Counts that only grow, shared by all who work on moments.
#[derive(Debug, Default)]
struct Counts {
    made: AtomicU64,
    failed: AtomicU64,
    shared: AtomicU64,
    changed_rows: AtomicU64,
    making: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    audits: AtomicU64,
    findings: AtomicU64,
}

/// What moments are made from.
#[derive(Debug, Clone)]
pub(crate) struct MomentSources {
    pub(crate) postgres: PostgresSource,
    pub(crate) postgres_breaker: Arc<Breaker>,
    pub(crate) tables: TableNames,
    pub(crate) lake_catalog: LakeCatalog,
    pub(crate) listings: Arc<Listings>,
    pub(crate) store: Arc<MirrorStore>,
    /// A statement that brings nothing for this long is taken for lost.
    pub(crate) silence_limit: Option<Duration>,
}

/// The maker of moments.
#[derive(Debug)]
pub(crate) struct Moments {
    maker: Arc<Maker>,
    commit: Arc<Commit<Maker>>,
}

impl Moments {
    /// `None` when the configuration says so.
    pub(crate) fn new(sources: MomentSources, config: &HotConfig) -> Option<Self> {
        match config.mirror {
            HotMirror::Off => None,
            HotMirror::Auto => {
                let maker = Arc::new(Maker::new(sources, config));
                audit::audit_in_background(&maker, config.audit_interval);
                Some(Self { commit: Commit::new(Arc::clone(&maker)), maker })
            }
        }
    }

    /// Whether moments have all of this. What is missing is loaded behind the query that asks.
    pub(crate) fn have(&self, wanted: &[Wanted]) -> Readiness {
        let readiness = self.maker.readiness(wanted);
        let counts = &self.maker.counts;
        let count = if readiness == Readiness::Ready { &counts.hits } else { &counts.misses };
        count.fetch_add(1, Ordering::Relaxed);
        readiness
    }

    /// A moment that begins after this call. It may lack an entity that was dropped meanwhile.
    ///
    /// # Errors
    /// PostgreSQL, shared by all who waited.
    pub(crate) async fn after_now(&self, wanted: Vec<Wanted>) -> Result<Arc<Moment>, Arc<MomentError>> {
        self.commit.join(wanted).await
    }

    /// Whether every attribute of the entity is in memory, so that every dirty row of it could be read.
    pub(crate) async fn keep_all_of(&self, entity: &Entity) -> bool {
        let mirrors = self.maker.mirrors.lock().await;
        let mirror = mirrors.get(&entity.schema_id).filter(|mirror| *mirror.entity == *entity);
        mirror.is_some_and(|mirror| mirror.attributes().len() == entity.attributes.len())
    }

    pub(crate) fn figures(&self) -> MomentFigures {
        self.maker.figures()
    }

    /// The last moments, the newest first.
    pub(crate) fn recent(&self) -> Vec<MomentEntry> {
        self.maker.recent.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }

    /// Entities whose mirror is switched off, and why.
    pub(crate) fn switched_off(&self) -> Vec<(String, String)> {
        self.maker.switched_off()
    }
}

/// The last moments.
#[derive(Debug, Default)]
struct Recent(Mutex<VecDeque<MomentEntry>>);

impl std::ops::Deref for Recent {
    type Target = Mutex<VecDeque<MomentEntry>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Recent {
    fn push(&self, entry: MomentEntry) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() == RECENT {
            entries.pop_front();
        }
        entries.push_back(entry);
    }
}

impl Moment {
    /// The entity at this moment, if it has this shape and these attributes of it are kept.
    pub(crate) fn entity(&self, entity: &Arc<Entity>) -> Option<&EntityMoment> {
        self.entities.get(&entity.schema_id).filter(|found| found.entity == entity.whole())
    }
}
