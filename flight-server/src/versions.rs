//! The version index: which row ids each immutable file holds, where, and how old. It tells by position which versions in
//! a set of files aren't the row, so that no query has to find out again.
//!
//! Indexes are kept on local disk, found again after a restart by the file's path, etag and size, and bounded: the ones
//! that nobody used longest go first. An index that is damaged or gone is no fault: it is built anew, and until then
//! queries merge versions themselves. Everything here blocks. Knows neither Flight, PostgreSQL, DuckDB nor the pipeline.

mod block;
mod dirty;
mod file_index;
mod settled;
mod store;

pub(crate) use block::Entry;
pub(crate) use dirty::IdPositions;
pub(crate) use file_index::{FileIndex, IndexError};
pub(crate) use settled::{IndexedFile, Settled};
pub(crate) use store::IndexStore;
use store::{FileKey, key};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roaring::RoaringBitmap;
use translator::lake::{IdSet, LakeFile};

/// A set of files whose settling costs more than this many rows is settled behind the queries.
const SETTLED_AT_ONCE: u64 = 100_000;
/// Sets of files that stay settled of one entity: one a choice of tiers, and those of running queries.
const KEPT_SETS: usize = 8;

/// The version index of one lake.
#[derive(Debug)]
pub(crate) struct VersionIndex {
    store: IndexStore,
    entities: Mutex<HashMap<i16, Arc<Mutex<EntityVersions>>>>,
}

/// What is known of an entity's files. The latest sets are last.
#[derive(Debug, Default)]
struct EntityVersions {
    settled: Vec<Arc<Settled>>,
    /// All files that were there last.
    files: BTreeSet<FileKey>,
    dirty: IdPositions,
}

/// What the index knows of a set of files.
#[derive(Debug)]
pub(crate) enum Known {
    /// Which of their versions are rows.
    Settled(Arc<Settled>),
    /// Some have no index.
    Unindexed,
    /// All are indexed, but settling them takes longer than a query should wait.
    Unsettled,
}

/// Positions that a query leaves out, of each file by its path.
#[derive(Debug, Clone, Default)]
pub(crate) struct HiddenPositions {
    pub(crate) files: BTreeMap<String, HiddenInFile>,
}

/// Positions of one file.
#[derive(Debug, Clone, Default)]
pub(crate) struct HiddenInFile {
    /// Versions that aren't the row: another version is newer, or the row is dirty.
    pub(crate) hidden: Arc<RoaringBitmap>,
    /// The same, and tombstones that won.
    pub(crate) gone: Arc<RoaringBitmap>,
}

impl VersionIndex {
    /// Opens the index of the lake at `lake`. What is in the directory already is used; `limit` is in bytes, and 0 means no
    /// index at all.
    pub(crate) fn open(directory: &Path, limit: u64, lake: &str) -> Self {
        Self { store: IndexStore::open(directory, limit, lake), entities: Mutex::default() }
    }

    pub(crate) fn store(&self) -> &IndexStore {
        &self.store
    }

    /// What is known of a set of files of one entity. Opens indexes that are on disk, and settles when that costs little.
    pub(crate) fn known(&self, schema_id: i16, files: &[&LakeFile]) -> Result<Known, IndexError> {
        let Some(indexed) = self.indexed(files) else { return Ok(Known::Unindexed) };
        let entity = self.entity(schema_id);
        let mut entity = lock(&entity);
        if let Some(at) = entity.settled.iter().position(|settled| settled.is_of(&indexed)) {
            // The latest last: the first goes when there are too many.
            let settled = entity.settled.remove(at);
            entity.settled.push(Arc::clone(&settled));
            return Ok(Known::Settled(settled));
        }
        let nearest = entity.nearest(&indexed);
        let cost = nearest.as_ref().map_or(u64::MAX, |settled| settled.distance(&indexed));
        let rows: u64 = indexed.iter().map(|file| file.index.rows()).sum();
        let settled = match nearest {
            Some(nearest) if cost <= SETTLED_AT_ONCE && cost < rows => nearest.changed_to(&indexed),
            _ if rows <= SETTLED_AT_ONCE => Settled::of(&indexed),
            _ => return Ok(Known::Unsettled),
        };
        let settled = Arc::new(settled.inspect_err(|error| self.store.discard(error))?);
        entity.keep(Arc::clone(&settled));
        Ok(Known::Settled(settled))
    }

    /// Settles a set of files, however long it takes, if all are indexed.
    pub(crate) fn settle(&self, schema_id: i16, files: &[&LakeFile]) -> Result<(), IndexError> {
        let Some(indexed) = self.indexed(files) else { return Ok(()) };
        let entity = self.entity(schema_id);
        let nearest = lock(&entity).nearest(&indexed);
        let rows: u64 = indexed.iter().map(|file| file.index.rows()).sum();
        // A look at each id costs several times a step of the merge.
        let settled = match nearest.filter(|settled| settled.distance(&indexed) < rows / 8) {
            Some(nearest) => nearest.changed_to(&indexed),
            None => Settled::of(&indexed),
        };
        let settled = Arc::new(settled.inspect_err(|error| self.store.discard(error))?);
        lock(&entity).keep(settled);
        Ok(())
    }

    /// What a query leaves out of settled files whose rows with these ids are dirty. `is_whole`: they are all dirty ids of
    /// the entity, which the next query will have but for a few.
    pub(crate) fn hidden(
        &self,
        schema_id: i16,
        settled: &Settled,
        dirty: Option<(&Arc<IdSet>, bool)>,
    ) -> Result<HiddenPositions, IndexError> {
        let indexes: Vec<Arc<FileIndex>> = settled.files().values().map(|file| Arc::clone(&file.index)).collect();
        let positions = match dirty {
            None => IdPositions::default(),
            Some((ids, false)) => IdPositions::of(ids, &indexes).inspect_err(|error| self.store.discard(error))?,
            Some((ids, true)) => {
                let entity = self.entity(schema_id);
                // Copied, so that queries with other sets don't wait for this one's lookups.
                let before = lock(&entity).dirty.clone();
                let after = before.changed_to(ids, &indexes).inspect_err(|error| self.store.discard(error))?;
                lock(&entity).dirty = after.clone();
                after
            }
        };
        let files = settled.files().iter().map(|(path, file)| {
            let dirty = positions.in_file(&file.index).filter(|positions| !positions.is_empty());
            let with = |positions: &Arc<RoaringBitmap>| match dirty {
                None => Arc::clone(positions),
                Some(dirty) if positions.is_empty() => Arc::clone(dirty),
                Some(dirty) => Arc::new(&**positions | &**dirty),
            };
            let hidden = with(&file.hidden);
            let gone = if Arc::ptr_eq(&file.hidden, &file.gone) { Arc::clone(&hidden) } else { with(&file.gone) };
            (path.clone(), HiddenInFile { hidden, gone })
        });
        Ok(HiddenPositions { files: files.collect() })
    }

    /// Forgets indexes of an entity's files that are gone: these are all of its files.
    pub(crate) fn keep_only(&self, schema_id: i16, files: &[LakeFile]) {
        let entity = self.entity(schema_id);
        let mut entity = lock(&entity);
        let files: BTreeSet<FileKey> = files.iter().map(key).collect();
        if entity.files == files {
            return;
        }
        self.store.forget(entity.files.difference(&files));
        let is_there = |path: &String| files.iter().any(|(known, ..)| known == path);
        entity.settled.retain(|settled| settled.files().keys().all(is_there));
        entity.files = files;
    }

    /// The files with their indexes; `None` when one has none.
    fn indexed(&self, files: &[&LakeFile]) -> Option<Vec<IndexedFile>> {
        let indexed = files.iter().map(|file| {
            let index = self.store.index(file)?;
            Some(IndexedFile { path: file.path.clone(), tier: file.tier, index })
        });
        indexed.collect()
    }

    fn entity(&self, schema_id: i16) -> Arc<Mutex<EntityVersions>> {
        Arc::clone(lock(&self.entities).entry(schema_id).or_default())
    }
}

impl EntityVersions {
    /// The settled set that has most in common with these files.
    fn nearest(&self, files: &[IndexedFile]) -> Option<Arc<Settled>> {
        self.settled.iter().min_by_key(|settled| settled.distance(files)).map(Arc::clone)
    }

    fn keep(&mut self, settled: Arc<Settled>) {
        self.settled.push(settled);
        if self.settled.len() > KEPT_SETS {
            self.settled.remove(0);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
