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

use super::blame::{execution_error, unreadable};
use super::error::QueryError;
use super::run::end_by_interrupts;
use super::unique_files::{FileKey, key};
use crate::blame::Blame;
use crate::breaker::Breaker;
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

/// The one file that is read is to blame for what isn't the lake's fault.
fn read_error(error: DuckError, url: &str) -> QueryError {
    if Blame::of(&error).may_be_a_files() { unreadable(url.to_owned(), &error) } else { execution_error(error) }
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
    let (_, batches) = read.map_err(|error| read_error(error, &url))?;
    let ids: Vec<Vec<u128>> = batches.iter().map(row_ids).collect::<Result<_, _>>()?;
    Ok(IdSet::new(ids.concat()))
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

/// The ids in the first column of a batch of 16-byte values, NULL left out.
///
/// # Errors
/// A column of another type, or a value of another size: an id that is overlooked would leave superseded rows in answers.
pub(super) fn row_ids(batch: &RecordBatch) -> Result<Vec<u128>, QueryError> {
    let column = batch.column(0);
    let id = |bytes: &[u8]| {
        let bytes = bytes.try_into().map_err(|_| anyhow::anyhow!("a row id has {} bytes", bytes.len()));
        bytes.map(u128::from_be_bytes).map_err(QueryError::internal)
    };
    match (column.as_fixed_size_binary_opt(), column.as_binary_opt::<i32>()) {
        (Some(ids), _) => ids.iter().flatten().map(id).collect(),
        (None, Some(ids)) => ids.iter().flatten().map(id).collect(),
        (None, None) => Err(QueryError::internal(anyhow::anyhow!("row ids came as {}", column.data_type()))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BinaryArray, FixedSizeBinaryArray, StringArray};

    use super::*;

    #[test]
    fn ids_of_an_unknown_form_are_no_empty_set() {
        let ids = |column: ArrayRef| row_ids(&RecordBatch::try_from_iter([("row_id", column)]).unwrap());
        let one = 1_u128.to_be_bytes();
        assert_eq!(ids(Arc::new(BinaryArray::from(vec![Some(one.as_slice()), None]))).unwrap(), [1]);
        let fixed = FixedSizeBinaryArray::try_from_iter([one].into_iter()).unwrap();
        assert_eq!(ids(Arc::new(fixed)).unwrap(), [1]);
        assert!(ids(Arc::new(StringArray::from(vec!["00000000-0000-0000-0000-000000000001"]))).is_err());
        assert!(ids(Arc::new(BinaryArray::from(vec![Some(&one[..15])]))).is_err());
    }
}
