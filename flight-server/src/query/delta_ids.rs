//! Row ids of delta files, remembered: they tell which base files hold superseded rows. Delta files are small and never
//! change, so each is read once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{AsArray, RecordBatch};
use futures::{StreamExt, TryStreamExt};
use tokio::task::JoinHandle;
use translator::lake::{IdSet, LakeFile};
use translator::options::{Tier, Tiers};
use translator::planner::wants_delta_ids;
use translator::quote::duckdb_text;

use super::breaker::Breaker;
use super::error::{QueryError, Recovery};
use super::run::{end_by_interrupts, execution_error};
use super::unique_files::{FileKey, key};
use crate::engine::Engine;
use crate::engine::duckdb::{DuckError, InterruptHandle};
use crate::lake::Lake;

/// Ids that are remembered in all (16 bytes each).
const MAX_IDS: usize = 4_000_000;
/// Larger delta files aren't read for their ids: compaction is due.
const MAX_FILE_ROWS: u64 = 1_000_000;

/// Files that are read at once: what is read of each is small, and S3 takes its time.
const CONCURRENT_READS: usize = 8;

/// A cache of row ids by path, size and etag.
#[derive(Debug, Default)]
pub(super) struct DeltaIds(Mutex<HashMap<FileKey, Arc<IdSet>>>);

impl DeltaIds {
    /// The ids of the delta files among `files`, by path; files that are too large are left out, and so are
    /// entities that the planner needs none of.
    pub(super) async fn of(
        &self,
        files: &BTreeMap<i16, Vec<LakeFile>>,
        tiers: Tiers,
        engine: &Engine,
        lake: &Lake,
        lake_breaker: &Arc<Breaker>,
    ) -> Result<BTreeMap<String, Arc<IdSet>>, QueryError> {
        let mut found = self.known(files, tiers);
        let unknown: Vec<(FileKey, String)> = wanted(files, tiers)
            .filter(|file| !found.contains_key(&file.path))
            .map(|file| (key(file), lake.duckdb_url(&file.path)))
            .collect();
        let mut reads = futures::stream::iter(unknown)
            .map(|(key, url)| async move {
                Ok::<_, QueryError>((key, Arc::new(read_ids(engine, url, lake_breaker).await?)))
            })
            .buffer_unordered(CONCURRENT_READS);
        while let Some((key, ids)) = reads.try_next().await? {
            let mut cache = self.lock();
            if cache.values().map(|ids| ids.len()).sum::<usize>() + ids.len() > MAX_IDS {
                cache.clear();
            }
            found.insert(key.0.clone(), Arc::clone(&ids));
            cache.insert(key, ids);
        }
        Ok(found)
    }

    /// As [`Self::of`], without reading any file.
    pub(super) fn known(&self, files: &BTreeMap<i16, Vec<LakeFile>>, tiers: Tiers) -> BTreeMap<String, Arc<IdSet>> {
        let cache = self.lock();
        wanted(files, tiers).filter_map(|file| Some((file.path.clone(), Arc::clone(cache.get(&key(file))?)))).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<FileKey, Arc<IdSet>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files whose ids are worth knowing.
fn wanted(files: &BTreeMap<i16, Vec<LakeFile>>, tiers: Tiers) -> impl Iterator<Item = &LakeFile> {
    let both = tiers.contains(Tier::Warm) && tiers.contains(Tier::Cold);
    let files = files.values().filter(move |files| both && wants_delta_ids(files));
    files.flatten().filter(|file| file.tier == Tier::Warm && file.row_count <= MAX_FILE_ROWS)
}

/// DuckDB doesn't always say which file it can't read.
fn named(error: DuckError, url: &str) -> QueryError {
    let error = execution_error(error);
    match error.recovery() {
        Some(Recovery::WithoutFile(None)) => {
            QueryError::new(error.kind(), format!("the file `{url}` can't be read: {}", error.message()))
                .recoverable(Recovery::WithoutFile(Some(url.to_owned())))
        }
        _ => error,
    }
}

async fn read_ids(engine: &Engine, url: String, lake_breaker: &Arc<Breaker>) -> Result<IdSet, QueryError> {
    // A UUID leaves DuckDB as text; its 16 bytes leave as they are.
    let sql = format!(
        "SELECT from_hex(replace(CAST(CAST(row_id AS UUID) AS VARCHAR), '-', '')) FROM read_parquet([{}], hive_partitioning = false)",
        duckdb_text(&url)
    );
    let connection = engine.connect().map_err(QueryError::internal)?;
    let interrupt = connection.interrupt_handle();
    let thread = tokio::task::spawn_blocking(move || connection.query(&sql));
    let mut reading = Reading { thread, interrupt, lake_breaker: Arc::clone(lake_breaker) };
    let read = (&mut reading.thread).await.map_err(QueryError::internal)?;
    let (_, batches) = read.map_err(|error| named(error, &url))?;
    Ok(IdSet::new(batches.iter().flat_map(row_ids).collect()))
}

/// A read on another thread, which is interrupted when nobody waits for it any more.
struct Reading<T> {
    thread: JoinHandle<T>,
    interrupt: InterruptHandle,
    lake_breaker: Arc<Breaker>,
}

impl<T> Drop for Reading<T> {
    fn drop(&mut self) {
        let thread = self.thread.abort_handle();
        if !thread.is_finished() {
            let lake = Some(Arc::clone(&self.lake_breaker));
            end_by_interrupts(self.interrupt.clone(), lake, move || thread.is_finished(), |_| {});
        }
    }
}

/// The ids in the first column of a batch of 16-byte values.
pub(super) fn row_ids(batch: &RecordBatch) -> Vec<u128> {
    let column = batch.column(0);
    let id = |bytes: &[u8]| bytes.try_into().ok().map(u128::from_be_bytes);
    match (column.as_fixed_size_binary_opt(), column.as_binary_opt::<i32>()) {
        (Some(ids), _) => ids.iter().flatten().filter_map(id).collect(),
        (None, Some(ids)) => ids.iter().flatten().filter_map(id).collect(),
        (None, None) => Vec::new(),
    }
}
