//! Merging: of the versions of a row in several files, the newest one goes into a new file.

use anyhow::ensure;
use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::Int64Type;
use indicatif::ProgressBar;
use translator::catalog::Entity;
use translator::emit::{merge_statement, whole_probe_statement};
use translator::lake::LakeFile;

use super::rotation::RotatingWriter;
use super::staging::StagedFile;
use crate::blame::{Blame, find_bad};
use crate::engine::Engine;
use crate::engine::duckdb::DuckError;
use crate::failpoint::failpoint;

/// Rows that are looked at together.
const PART_ROWS: usize = 65_536;

/// What becomes of a row whose newest version is a tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tombstones {
    /// It is left out: no older version stays anywhere.
    Drop,
    /// It is left out when the merged files hold no older version, which are still read for a while.
    DropLone,
    /// It stays.
    Keep,
}

/// What a merge did.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) files: Vec<StagedFile>,
    pub(super) tombstones_dropped: u64,
}

/// Merges whole files, on a blocking thread of the runtime. DuckDB sorts their versions, and spills when they are many.
pub(super) fn merge(
    engine: &Engine,
    entity: &Entity,
    files: &[LakeFile],
    lake_root: &str,
    tombstones: Tombstones,
    mut output: RotatingWriter,
    progress: &ProgressBar,
) -> anyhow::Result<Merged> {
    let held: Vec<&LakeFile> = files.iter().filter(|file| file.row_count > 0).collect();
    let expected: u64 = held.iter().map(|file| file.row_count).sum();
    if held.is_empty() {
        return Ok(Merged { files: output.finish()?, tombstones_dropped: 0 });
    }
    let connection = engine.connect()?;
    let mut stream = connection.stream(&merge_statement(entity, &held, lake_root))?;
    let mut read = 0;
    let mut dropped = 0;
    let mut pending: Vec<RecordBatch> = Vec::new();
    let mut pending_rows = 0;
    loop {
        let next = stream.next()?;
        let is_last = next.is_none();
        if let Some(batch) = next {
            read += batch.num_rows() as u64;
            pending_rows += batch.num_rows();
            pending.push(batch);
        }
        if pending_rows < PART_ROWS && !is_last {
            continue;
        }
        if let Some(first) = pending.first() {
            let part = concat_batches(&first.schema(), &pending)?;
            let (winners, rest, left_out) = winners(&part, tombstones, is_last)?;
            dropped += left_out;
            output.write(&winners)?;
            progress.set_position(read);
            tokio::runtime::Handle::current().block_on(failpoint("compact.merging"));
            pending_rows = rest.num_rows();
            pending = vec![rest];
        }
        if is_last {
            break;
        }
    }
    ensure!(read == expected, "{read} versions were read of {expected} that the footers tell of: nothing is changed");
    Ok(Merged { files: output.finish()?, tombstones_dropped: dropped })
}

/// Of versions that come by row, the winner first: the winners, the versions of the last row unless no more come (it may
/// have more), and how many tombstones were left out.
fn winners(
    batch: &RecordBatch,
    tombstones: Tombstones,
    is_last: bool,
) -> Result<(RecordBatch, RecordBatch, u64), arrow::error::ArrowError> {
    let ids = batch.column(0).as_string::<i32>();
    let deleted_at = batch.column(batch.num_columns() - 1).as_primitive::<Int64Type>();
    let mut wanted: Vec<u32> = Vec::new();
    let mut dropped = 0;
    let mut start = 0;
    while start < ids.len() {
        let end = (start + 1..ids.len()).find(|row| ids.value(*row) != ids.value(start)).unwrap_or(ids.len());
        if end == ids.len() && !is_last {
            break;
        }
        let is_tombstone = deleted_at.is_valid(start) && deleted_at.value(start) != 0;
        let keep = !is_tombstone
            || match tombstones {
                Tombstones::Drop => false,
                Tombstones::DropLone => end - start > 1,
                Tombstones::Keep => true,
            };
        if keep {
            wanted.push(u32::try_from(start).unwrap_or(u32::MAX));
        } else {
            dropped += 1;
        }
        start = end;
    }
    let kept = take_record_batch(batch, &UInt32Array::from(wanted))?;
    Ok((kept, batch.slice(start, batch.num_rows() - start), dropped))
}

/// Names the file that a failure of DuckDB is due to: the one that fails when it is read alone.
pub(super) fn name_bad_file(
    error: anyhow::Error,
    engine: &Engine,
    entity: &Entity,
    files: &[&LakeFile],
    lake_root: &str,
) -> anyhow::Error {
    if !error.downcast_ref::<DuckError>().is_some_and(|error| Blame::of(error).may_be_a_files()) {
        return error;
    }
    let found = engine.connect().and_then(|connection| {
        find_bad(files, &|some: &[&LakeFile]| {
            connection.query(&whole_probe_statement(entity, some, lake_root)).map(|_| ())
        })
    });
    match found {
        Ok(Some((file, _))) => error.context(format!("the file `{}` can't be read", file.path)),
        Ok(None) | Err(_) => error,
    }
}

/// All row ids of files, in parts.
pub(super) fn for_each_row_id(
    engine: &Engine,
    files: &[&LakeFile],
    lake_root: &str,
    mut on_id: impl FnMut(u128),
) -> Result<(), DuckError> {
    let held: Vec<&LakeFile> = files.iter().copied().filter(|file| file.row_count > 0).collect();
    if held.is_empty() {
        return Ok(());
    }
    let connection = engine.connect()?;
    let mut stream = connection.stream(&translator::emit::row_ids_statement(&held, lake_root))?;
    while let Some(batch) = stream.next()? {
        let ids = batch.column(0).as_string::<i32>();
        ids.iter().flatten().filter_map(|id| uuid::Uuid::try_parse(id).ok()).for_each(|id| on_id(id.as_u128()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn batch(rows: &[(&str, Option<i64>)]) -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("row_id", DataType::Utf8, true),
            Field::new("deleted_at", DataType::Int64, true),
        ]);
        let ids = rows.iter().map(|(id, _)| Some(*id)).collect::<StringArray>();
        let deleted = rows.iter().map(|(_, deleted)| *deleted).collect::<Int64Array>();
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids), Arc::new(deleted)]).unwrap()
    }

    fn ids(batch: &RecordBatch) -> Vec<String> {
        batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned).collect()
    }

    #[test]
    fn the_first_version_of_each_row_wins() {
        let versions = batch(&[
            ("a", None),
            ("a", Some(9)),
            ("b", Some(5)),
            ("c", Some(6)),
            ("c", None),
            ("d", Some(0)),
            ("e", None),
            ("e", None),
        ]);
        for (tombstones, expected, expected_dropped) in [
            (Tombstones::Drop, vec!["a", "d"], 2),
            (Tombstones::DropLone, vec!["a", "c", "d"], 1),
            (Tombstones::Keep, vec!["a", "b", "c", "d"], 0),
        ] {
            let (kept, rest, dropped) = winners(&versions, tombstones, false).unwrap();
            assert_eq!((ids(&kept), dropped), (expected.into_iter().map(str::to_owned).collect(), expected_dropped));
            assert_eq!(ids(&rest), ["e", "e"]);
        }
        let (kept, rest, _) = winners(&versions, Tombstones::Drop, true).unwrap();
        assert_eq!((ids(&kept).len(), rest.num_rows()), (3, 0));
    }
}
