//! The making of a moment: one snapshot, what changed since the last one, and the file sets that belong to it.

mod load;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use translator::catalog::Entity;
use translator::lake::LakeFile;
use translator::postgres::{cursor_fingerprint_sql, dirty_rows_taken_sql};

use load::unreadable_attribute;

use super::commit::Make;
use super::listings::EntityListings;
use super::mirror::{EntityMirror, Means, ReadSnapshot};
use super::readiness::{RETRY, RETRY_LARGE, Readiness, States};
use super::{
    Counts, EntityMoment, FileSet, MirrorError, Moment, MomentEntry, MomentError, MomentFigures, MomentSources, Recent,
    Wanted,
};
use crate::config::{HotConfig, LakeCatalog};
use crate::postgres::{PostgresError, PostgresErrorKind, Snapshot, SnapshotIdentity};

/// New snapshots are taken this often when files keep arriving.
const SNAPSHOT_ATTEMPTS: usize = 6;

/// The mirrors of all entities, by `schema_id`.
pub(super) type Mirrors = BTreeMap<i16, EntityMirror>;

/// Makes moments, one at a time, and keeps the mirrors that they are made from.
#[derive(Debug)]
pub(super) struct Maker {
    pub(super) sources: MomentSources,
    pub(super) means: Means,
    pub(super) memory_limit: u64,
    /// Changed by makings alone, and by loads that have ended.
    pub(super) mirrors: tokio::sync::Mutex<Mirrors>,
    pub(super) states: States,
    /// One load at a time.
    pub(super) loads: tokio::sync::Semaphore,
    /// Rows and bytes of each mirror.
    sizes: Mutex<BTreeMap<i16, (u64, u64)>>,
    last_id: AtomicU64,
    pub(super) counts: Counts,
    pub(super) recent: Recent,
}

/// What was read of a snapshot.
struct ReadParts {
    changed_rows: u64,
    manifests: BTreeMap<i16, Vec<LakeFile>>,
    /// Whether all that was wanted is still there.
    is_whole: bool,
}

impl Maker {
    pub(super) fn new(sources: MomentSources, config: &HotConfig) -> Self {
        let means = Means {
            tables: sources.tables.clone(),
            store: Arc::clone(&sources.store),
            silence_limit: sources.silence_limit,
        };
        Self {
            sources,
            means,
            memory_limit: config.memory_limit,
            mirrors: tokio::sync::Mutex::default(),
            states: States::default(),
            loads: tokio::sync::Semaphore::new(1),
            sizes: Mutex::default(),
            last_id: AtomicU64::new(0),
            counts: Counts::default(),
            recent: Recent::default(),
        }
    }

    /// Whether moments have all of this. What is missing is loaded in the background.
    pub(super) fn readiness(self: &Arc<Self>, wanted: &[Wanted]) -> Readiness {
        self.states.have(wanted, |entity| self.load_in_background(Arc::clone(entity), Vec::new()))
    }

    pub(super) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Opens a snapshot, unless PostgreSQL is known to be down.
    pub(super) async fn open(&self) -> Result<Snapshot, MomentError> {
        let attempt = self.sources.postgres_breaker.attempt().map_err(MomentError::Refused)?;
        match self.sources.postgres.begin().await {
            Ok(snapshot) => {
                attempt.succeeded();
                Ok(snapshot)
            }
            Err(error) => {
                if error.kind() == PostgresErrorKind::Unavailable {
                    attempt.failed();
                }
                Err(MomentError::Open(error))
            }
        }
    }

    /// Waits for PostgreSQL, but not for a server that has gone silent.
    pub(super) async fn ask<T>(&self, work: impl Future<Output = Result<T, PostgresError>>) -> Result<T, MomentError> {
        let result = match self.means.silence_limit {
            None => work.await.map_err(MomentError::Statement),
            Some(limit) => match tokio::time::timeout(limit, work).await {
                Ok(result) => result.map_err(MomentError::Statement),
                Err(_) => Err(MomentError::Silent(limit)),
            },
        };
        if result.as_ref().is_err_and(MomentError::is_loss) {
            self.sources.postgres_breaker.record_failure();
        }
        result
    }

    /// Makes a moment. `id` is greater than any that the mirrors have come to.
    async fn make_moment(
        self: &Arc<Self>,
        mirrors: &mut Mirrors,
        id: u64,
        wanted: &[Wanted],
        shared: Arc<AtomicU64>,
    ) -> Result<Moment, MomentError> {
        let begun = Instant::now();
        self.sweep().await;
        let lists = self.sources.lake_catalog == LakeCatalog::Listing;
        let mut changed_rows = 0;
        let mut before: Option<Option<EntityListings>> = None;
        let mut attempts = 0;
        loop {
            let wanted: Vec<&Wanted> = wanted.iter().filter(|wanted| is_kept(mirrors, &wanted.entity)).collect();
            let listed: Vec<Arc<Entity>> =
                wanted.iter().filter(|wanted| wanted.files && lists).map(|wanted| Arc::clone(&wanted.entity)).collect();
            // Taken before the snapshot: a listing that a query makes from here on may be newer than it.
            let earlier = before.take().unwrap_or_else(|| self.sources.listings.known(&listed));
            let mut snapshot = self.open().await?;
            let identity = self.ask(snapshot.identity()).await?;
            let reading = self.read(mirrors, &wanted, snapshot, &identity, id);
            let listing = async {
                if listed.is_empty() {
                    Ok(EntityListings::default())
                } else {
                    self.sources.listings.list(&listed).await
                }
            };
            let (read, listings) = futures::join!(reading, listing);
            let ReadParts { changed_rows: rows, mut manifests, is_whole } = read?;
            changed_rows += rows;
            let is_settled = match &listings {
                Ok(listings) => earlier.as_ref() == Some(listings) || listed.is_empty(),
                Err(_) => true,
            };
            if !is_whole {
                // What was dropped is wanted no more, so this ends. The others may not have come to this snapshot.
                continue;
            }
            attempts += 1;
            if !is_settled && attempts < SNAPSHOT_ATTEMPTS {
                before = Some(listings.ok());
                continue;
            }
            let listings = listings.map_err(Arc::new);
            let files = |wanted: &Wanted| match &listings {
                _ if !wanted.files => FileSet::NotAsked,
                _ if !lists => manifests.remove(&wanted.entity.schema_id).map_or(FileSet::Unsettled, FileSet::Manifest),
                Err(error) => FileSet::Failed(Arc::clone(error)),
                Ok(_) if !is_settled => FileSet::Unsettled,
                Ok(listings) => {
                    listings.get(&wanted.entity.schema_id).cloned().map_or(FileSet::Unsettled, FileSet::Listed)
                }
            };
            let entities = entities_at(id, mirrors, &wanted, files);
            return Ok(Moment { id, snapshot: identity, took: begun.elapsed(), changed_rows, shared, entities });
        }
    }

    /// Brings the mirrors of what is wanted to a snapshot, reads the manifest in it, and ends it.
    ///
    /// A mirror that can't follow is dropped: its queries read PostgreSQL. When that spoils the snapshot, nothing more is
    /// read of it.
    async fn read(
        self: &Arc<Self>,
        mirrors: &mut Mirrors,
        wanted: &[&Wanted],
        mut snapshot: Snapshot,
        identity: &SnapshotIdentity,
        id: u64,
    ) -> Result<ReadParts, MomentError> {
        let mut parts = ReadParts { changed_rows: 0, manifests: BTreeMap::new(), is_whole: true };
        for Wanted { entity, files, .. } in wanted {
            let Some(mirror) = mirrors.get_mut(&entity.schema_id) else { continue };
            if !mirror.is_continued_by(identity, &snapshot) {
                tracing::warn!(
                    entity = entity.name,
                    "PostgreSQL shows another history or an older snapshot: its dirty rows are read anew"
                );
                self.forget(mirrors, entity);
                self.states.wait(entity, Duration::ZERO);
                parts.is_whole = false;
                continue;
            }
            let cursor = self.cursor_for(&mut snapshot, mirror).await?;
            let from = ReadSnapshot { snapshot: &mut snapshot, identity, cursor: cursor.as_deref() };
            let advanced = mirror.advance(&self.means, from, id).await;
            match advanced {
                Ok(rows) => {
                    parts.changed_rows += rows;
                    let size = mirror.size();
                    self.sizes().insert(entity.schema_id, size);
                }
                Err(MirrorError::Postgres(error)) if error.kind() == PostgresErrorKind::Unavailable => {
                    self.sources.postgres_breaker.record_failure();
                    return Err(MomentError::Statement(error));
                }
                Err(MirrorError::Silent(limit)) => {
                    self.sources.postgres_breaker.record_failure();
                    return Err(MomentError::Silent(limit));
                }
                Err(error) => {
                    // Whatever else was wanted is read in another snapshot: this one may be spoilt.
                    self.give_up(mirrors, entity, &error);
                    parts.is_whole = false;
                    return Ok(parts);
                }
            }
            if *files && self.sources.lake_catalog == LakeCatalog::Manifest {
                let manifest = self.ask(snapshot.manifest(entity.schema_id)).await?;
                parts.manifests.insert(entity.schema_id, manifest);
            }
        }
        self.ask(snapshot.finish()).await?;
        self.hold_limit(mirrors);
        Ok(parts)
    }

    /// The cursor as a snapshot shows it, when what it leads to is all that a mirror lacks; `None`: the whole dirty set is
    /// to be compared.
    pub(super) async fn cursor_for(
        &self,
        snapshot: &mut Snapshot,
        mirror: &EntityMirror,
    ) -> Result<Option<String>, MomentError> {
        let tables = &self.means.tables;
        let Some(cursor) = self.ask(snapshot.text(&cursor_fingerprint_sql(tables))).await? else { return Ok(None) };
        if mirror.cursor() == Some(&cursor) {
            let older = mirror.snapshot().seen.to_string();
            let taken = self.ask(snapshot.text(&dirty_rows_taken_sql(tables, &older))).await?;
            if taken.as_deref() != Some("f") {
                return Ok(None);
            }
        }
        Ok(Some(cursor))
    }

    /// Drops the mirror of an entity that can't be kept.
    pub(super) fn give_up(self: &Arc<Self>, mirrors: &mut Mirrors, entity: &Arc<Entity>, error: &MirrorError) {
        tracing::warn!(entity = entity.name, %error, "its dirty rows can't be kept in memory for now");
        let kept = mirrors.get(&entity.schema_id).map(|mirror| mirror.attributes().to_vec()).unwrap_or_default();
        self.forget(mirrors, entity);
        if let MirrorError::Postgres(error) = error
            && let Some(attribute) = unreadable_attribute(error, entity)
        {
            let without = (0..entity.attributes.len()).filter(|index| !kept.contains(index)).chain([attribute]);
            self.states.loading(entity);
            self.load_in_background(Arc::clone(entity), without.collect());
            return;
        }
        let wait = if matches!(error, MirrorError::TooLarge { .. }) { RETRY_LARGE } else { RETRY };
        self.states.wait(entity, wait);
    }

    pub(super) fn forget(&self, mirrors: &mut Mirrors, entity: &Entity) {
        mirrors.remove(&entity.schema_id);
        self.sizes().remove(&entity.schema_id);
    }

    /// Drops the largest mirrors while all together are beyond the limit.
    fn hold_limit(self: &Arc<Self>, mirrors: &mut Mirrors) {
        while self.bytes() > self.memory_limit {
            let largest = mirrors.values().max_by_key(|mirror| mirror.size().1);
            let Some(largest) = largest else { return };
            let (entity, bytes) = (Arc::clone(&largest.entity), largest.size().1);
            self.give_up(mirrors, &entity, &MirrorError::TooLarge { bytes });
        }
    }

    /// Keeps a mirror that was loaded, unless a newer one is there or its entity was switched off.
    pub(super) async fn adopt(self: &Arc<Self>, mirror: EntityMirror) {
        let mut mirrors = self.mirrors.lock().await;
        let entity = Arc::clone(&mirror.entity);
        if self.states.is_off(&entity) {
            return;
        }
        self.sizes().insert(entity.schema_id, mirror.size());
        self.states.ready(&entity, mirror.attributes());
        mirrors.insert(entity.schema_id, mirror);
        self.hold_limit(&mut mirrors);
    }

    /// Bytes of all mirrors but this entity's.
    pub(super) fn bytes_without(&self, entity: &Entity) -> u64 {
        self.sizes().iter().filter(|(schema_id, _)| **schema_id != entity.schema_id).map(|(_, (_, bytes))| bytes).sum()
    }

    /// Bytes of all mirrors.
    pub(super) fn bytes(&self) -> u64 {
        self.sizes().values().map(|(_, bytes)| bytes).sum()
    }

    async fn sweep(&self) {
        let store = Arc::clone(&self.means.store);
        match tokio::task::spawn_blocking(move || store.sweep()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot drop a table of dirty rows"),
            Err(error) => tracing::warn!(%error, "cannot drop a table of dirty rows"),
        }
    }

    fn sizes(&self) -> std::sync::MutexGuard<'_, BTreeMap<i16, (u64, u64)>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn figures(&self) -> MomentFigures {
        let counts = &self.counts;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        MomentFigures {
            made: of(&counts.made),
            failed: of(&counts.failed),
            shared: of(&counts.shared),
            changed_rows: of(&counts.changed_rows),
            making: of(&counts.making),
            mirror_bytes: self.bytes(),
            mirror_rows: self.sizes().values().map(|(rows, _)| rows).sum(),
            hits: of(&counts.hits),
            misses: of(&counts.misses),
            audits: of(&counts.audits),
            findings: of(&counts.findings),
        }
    }

    pub(super) fn switched_off(&self) -> Vec<(String, String)> {
        self.states.switched_off()
    }
}

impl Make for Maker {
    async fn make(
        self: Arc<Self>,
        wanted: Vec<Wanted>,
        shared: Arc<AtomicU64>,
    ) -> Result<Arc<Moment>, Arc<MomentError>> {
        let begun = Instant::now();
        let mut mirrors = self.mirrors.lock().await;
        // With the lock: what an audit has brought on meanwhile is of an earlier moment.
        let id = self.next_id();
        let made = self.make_moment(&mut mirrors, id, &wanted, Arc::clone(&shared)).await;
        drop(mirrors);
        let add = |count: &AtomicU64, by: u64| count.fetch_add(by, Ordering::Relaxed);
        add(&self.counts.making, u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        add(&self.counts.shared, shared.load(Ordering::Relaxed));
        match &made {
            Ok(moment) => {
                add(&self.counts.made, 1);
                add(&self.counts.changed_rows, moment.changed_rows);
            }
            Err(_) => {
                add(&self.counts.failed, 1);
            }
        }
        let snapshot = made.as_ref().map_or_else(|_| String::new(), |moment| moment.snapshot.seen.to_string());
        self.recent.push(MomentEntry {
            id,
            snapshot,
            made_at: chrono::Utc::now().timestamp_millis(),
            took: begun.elapsed(),
            entities: wanted.iter().map(|wanted| wanted.entity.name.clone()).collect(),
            changed_rows: made.as_ref().map_or(0, |moment| moment.changed_rows),
            shared,
            error: made.as_ref().err().map(ToString::to_string),
        });
        let made = made.map_err(|error| match error {
            // Not an outage: each query finds out by itself, and may not meet it.
            MomentError::Statement(cause) if cause.kind() != PostgresErrorKind::Unavailable => {
                tracing::warn!(error = %cause, "no moment can be made: each query reads PostgreSQL");
                MomentError::Abandoned
            }
            error => error,
        });
        made.map(Arc::new).map_err(Arc::new)
    }
}

fn is_kept(mirrors: &Mirrors, entity: &Entity) -> bool {
    mirrors.get(&entity.schema_id).is_some_and(|mirror| *mirror.entity == *entity)
}

fn entities_at(
    id: u64,
    mirrors: &Mirrors,
    wanted: &[&Wanted],
    mut files: impl FnMut(&Wanted) -> FileSet,
) -> BTreeMap<i16, EntityMoment> {
    let mut entities = BTreeMap::new();
    for wanted in wanted {
        let Some(mirror) = mirrors.get(&wanted.entity.schema_id) else { continue };
        let entity = EntityMoment {
            entity: Arc::clone(&mirror.entity),
            mirror: mirror.table_at(id),
            dirty_ids: Arc::clone(mirror.versions().ids()),
            bare_ids: Arc::clone(mirror.versions().bare()),
            files: files(wanted),
            _table: Arc::clone(mirror.handle()),
        };
        entities.insert(wanted.entity.schema_id, entity);
    }
    entities
}
