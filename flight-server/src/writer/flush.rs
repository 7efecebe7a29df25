//! Flush: the dirty rows of one snapshot become delta files, and then those that didn't change since are marked flushed.
//!
//! Rows stream from PostgreSQL, which sorts them, into files; what identifies their versions goes into a spool file on
//! disk. Nothing grows in memory with the number of rows but one row group.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use arrow::array::RecordBatch;
use futures::StreamExt;
use indicatif::ProgressBar;
use translator::catalog::Entity;
use translator::options::Tier;
use translator::postgres::{DirtySelection, dirty_size_sql, dirty_versions_sql, flush_statement};
use uuid::Uuid;

use super::rotation::{FileLimits, RotatingWriter};
use super::staging::{Destination, StagedFile};
use super::{Writer, now_ms};
use crate::failpoint::failpoint;
use crate::postgres::{ExportedVersion, ManifestFile, Reader, Snapshot, UnreadableRow, WriteSession};

/// What is flushed, and when it is worth it.
#[derive(Debug, Clone)]
pub(super) struct FlushOptions {
    /// Rows that changed within this time stay dirty.
    pub(super) min_age: Duration,
    pub(super) due: Due,
    pub(super) limits: FileLimits,
    pub(super) dry_run: bool,
}

/// Any of these makes a flush due; without any of them it always is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Due {
    pub(super) rows: Option<u64>,
    pub(super) bytes: Option<u64>,
    pub(super) age: Option<Duration>,
}

/// What a flush did.
#[derive(Debug)]
pub(super) enum FlushOutcome {
    /// There are no dirty rows that may be flushed.
    Nothing,
    /// There are some, but not enough of them yet; also what a dry run says.
    Waiting {
        rows: u64,
    },
    Flushed {
        rows: u64,
        marked: u64,
        files: usize,
        bytes: u64,
        inconsistent: u64,
        unreadable: Unreadable,
    },
}

/// Rows that stay dirty because a value doesn't fit its declared type.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    pub(super) rows: u64,
    /// What is wrong with the first of them.
    pub(super) named: Vec<String>,
}

/// Unreadable rows that are named.
const NAMED_ROWS: usize = 10;

impl Unreadable {
    pub(super) fn add(&mut self, row: UnreadableRow) {
        self.rows += 1;
        if self.named.len() < NAMED_ROWS {
            self.named.push(row.message);
        }
    }
}

impl Due {
    fn is_due(&self, size: crate::postgres::DirtySize, now: i64) -> bool {
        let age = size.oldest.map_or(0, |oldest| u128::try_from(now.saturating_sub(oldest)).unwrap_or(0));
        let none = self.rows.is_none() && self.bytes.is_none() && self.age.is_none();
        none || self.rows.is_some_and(|rows| size.rows >= rows)
            || self.bytes.is_some_and(|bytes| size.bytes >= bytes)
            || self.age.is_some_and(|limit| age >= limit.as_millis())
    }
}

/// Flushes one entity. The caller holds its lock on `session`.
pub(super) async fn flush_entity(
    writer: &Writer,
    entity: &Entity,
    options: &FlushOptions,
    session: &mut WriteSession,
    progress: &ProgressBar,
) -> anyhow::Result<FlushOutcome> {
    writer.lake.probe().await?;
    let min_age = i64::try_from(options.min_age.as_millis()).unwrap_or(i64::MAX);
    let selection = DirtySelection { changed_until: (min_age > 0).then(|| now_ms().saturating_sub(min_age)) };
    let mut snapshot = writer.postgres.begin().await?;
    let every_attribute = flush_statement(&writer.tables, entity, selection).reads;
    snapshot.physical().check(writer.postgres.tables(), entity, &every_attribute, Reader::Statement)?;
    let size_sql = dirty_size_sql(&writer.tables, entity, selection, options.due.bytes.is_some());
    let size = snapshot.dirty_size(&size_sql).await?;
    if size.rows == 0 {
        snapshot.finish().await?;
        return Ok(FlushOutcome::Nothing);
    }
    if options.dry_run || !options.due.is_due(size, now_ms()) {
        snapshot.finish().await?;
        return Ok(FlushOutcome::Waiting { rows: size.rows });
    }
    if writer.has_manifest() {
        let known = snapshot.manifest(entity.schema_id).await.map_err(|error| writer.explain_manifest(error))?;
        if known.is_empty() {
            writer.refuse_unimported(entity).await?;
        }
    }
    progress.set_length(size.rows);
    let mut spool = Spool::create(&writer.temp_directory())?;
    let versions_sql = dirty_versions_sql(&writer.tables, entity, selection);
    let versions = snapshot.dirty_versions(&versions_sql, |version| spool.push(version)).await??;
    let mut left_out = Spool::create(&writer.temp_directory())?;
    let exported = export(writer, entity, selection, options.limits, &mut snapshot, progress, &mut left_out).await?;
    let Exported { staged, inconsistent, unreadable } = exported;
    snapshot.finish().await?;
    let rows: u64 = staged.iter().map(|staged| staged.file.facts.row_count).sum();
    ensure!(
        rows + unreadable.rows == versions,
        "{}: {rows} rows were read of {versions} versions, and {} can't be read: a bug",
        entity.name,
        unreadable.rows
    );
    failpoint("flush.exported").await;

    session.still_locked().await?;
    let mut files: Vec<ManifestFile> = Vec::with_capacity(staged.len());
    for staged in staged {
        files.push(staged.publish(&writer.lake).await?);
        failpoint("flush.published_one").await;
    }
    failpoint("flush.published").await;
    let manifest = writer.has_manifest().then_some(files.as_slice());
    let parts = futures::stream::iter(without(spool.read()?, left_out.read()?));
    let marked = session
        .commit_flush(entity.schema_id, manifest, parts, now_ms(), failpoint("flush.marking"))
        .await
        .context("rows could not be marked flushed: they stay dirty, and their files are superfluous")?;
    failpoint("flush.committed").await;
    let bytes = files.iter().map(|file| file.facts.bytes).sum();
    Ok(FlushOutcome::Flushed { rows, marked, files: files.len(), bytes, inconsistent, unreadable })
}

/// What was written of a snapshot.
struct Exported {
    staged: Vec<StagedFile>,
    /// Rows that were left out because `entity_main` doesn't hold them.
    inconsistent: u64,
    unreadable: Unreadable,
}

/// Writes the selected rows of the snapshot to files. The ids of those that can't be read go into `left_out`.
async fn export(
    writer: &Writer,
    entity: &Entity,
    selection: DirtySelection,
    limits: FileLimits,
    snapshot: &mut Snapshot,
    progress: &ProgressBar,
    left_out: &mut Spool,
) -> anyhow::Result<Exported> {
    let statement = flush_statement(&writer.tables, entity, selection);
    let (sender, mut batches) = tokio::sync::mpsc::channel::<RecordBatch>(4);
    let destination = Destination::new(writer, entity, Tier::Warm);
    let mut files = RotatingWriter::new(destination, entity, limits, Vec::new());
    let progress = progress.clone();
    let written = tokio::task::spawn_blocking(move || -> anyhow::Result<Vec<StagedFile>> {
        while let Some(batch) = batches.blocking_recv() {
            files.write(&batch)?;
            progress.set_position(files.rows());
        }
        Ok(files.finish()?)
    });
    let mut rows = snapshot.hot_rows(&statement.sql, entity, &statement.columns).await?;
    rows.leave_unreadable_out();
    let (mut failure, mut unreadable) = (None, Unreadable::default());
    while let Some(batch) = rows.next().await {
        for row in rows.take_unreadable() {
            // Rows and versions come in the same order: the id tells which version stays dirty.
            left_out.push(ExportedVersion { row_id: row.row_id, changed_at: 0, written_by: 0 })?;
            unreadable.add(row);
        }
        match batch {
            Ok(batch) => {
                if sender.send(batch).await.is_err() {
                    // The writer has failed and says why below.
                    break;
                }
                failpoint("flush.writing").await;
            }
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    drop(sender);
    let inconsistent = rows.summary().inconsistent_rows;
    let staged = written.await??;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(Exported { staged, inconsistent, unreadable }),
    }
}

/// Versions on disk, in an unnamed file.
#[derive(Debug)]
struct Spool(BufWriter<File>);

/// Versions that one statement marks.
const MARKED_AT_ONCE: usize = 5_000;
const VERSION_BYTES: usize = 32;

impl Spool {
    fn create(directory: &Path) -> anyhow::Result<Self> {
        let make = || {
            std::fs::create_dir_all(directory)?;
            tempfile::tempfile_in(directory)
        };
        let file = make().with_context(|| format!("cannot make a temporary file in {}", directory.display()))?;
        Ok(Self(BufWriter::new(file)))
    }

    fn push(&mut self, version: ExportedVersion) -> std::io::Result<()> {
        self.0.write_all(version.row_id.as_bytes())?;
        self.0.write_all(&version.changed_at.to_le_bytes())?;
        self.0.write_all(&version.written_by.to_le_bytes())
    }

    fn read(self) -> anyhow::Result<SpoolReader> {
        let mut file = self.0.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(SpoolReader(BufReader::new(file)))
    }
}

/// The versions in parts.
#[derive(Debug)]
struct SpoolReader(BufReader<File>);

impl Iterator for SpoolReader {
    type Item = std::io::Result<Vec<ExportedVersion>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut bytes = Vec::with_capacity(MARKED_AT_ONCE * VERSION_BYTES);
        let limit = (MARKED_AT_ONCE * VERSION_BYTES) as u64;
        if let Err(error) = Read::by_ref(&mut self.0).take(limit).read_to_end(&mut bytes) {
            return Some(Err(error));
        }
        if bytes.is_empty() {
            return None;
        }
        let version = |bytes: &[u8]| {
            Some(ExportedVersion {
                row_id: Uuid::from_slice(bytes.get(..16)?).ok()?,
                changed_at: i64::from_le_bytes(bytes.get(16..24)?.try_into().ok()?),
                written_by: i64::from_le_bytes(bytes.get(24..32)?.try_into().ok()?),
            })
        };
        let versions: Option<Vec<_>> = bytes.chunks(VERSION_BYTES).map(version).collect();
        Some(versions.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::UnexpectedEof)))
    }
}

/// The versions but for those of rows that were left out. Both come by row id.
fn without(
    versions: SpoolReader,
    left_out: SpoolReader,
) -> impl Iterator<Item = std::io::Result<Vec<ExportedVersion>>> {
    let mut left_out = left_out.flat_map(|part| match part {
        Ok(part) => part.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    });
    let mut next_left_out = left_out.next();
    versions.map(move |part| {
        let mut kept = part?;
        let mut failure = None;
        kept.retain(|version| {
            while let Some(Ok(row)) = &next_left_out
                && row.row_id < version.row_id
            {
                next_left_out = left_out.next();
            }
            match next_left_out.take() {
                Some(Err(error)) => {
                    failure = Some(error);
                    false
                }
                row => {
                    next_left_out = row;
                    !matches!(&next_left_out, Some(Ok(row)) if row.row_id == version.row_id)
                }
            }
        });
        failure.map_or(Ok(kept), Err)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_rows_that_were_left_out_stay_dirty() {
        let spool = |ids: &mut dyn Iterator<Item = u128>| {
            let mut spool = Spool::create(&std::env::temp_dir()).unwrap();
            ids.for_each(|id| {
                spool.push(ExportedVersion { row_id: Uuid::from_u128(id), changed_at: 1, written_by: 1 }).unwrap();
            });
            spool.read().unwrap()
        };
        let kept = without(spool(&mut (0..12_345)), spool(&mut (0..12_345).filter(|id| id % 3 == 0)));
        let kept: Vec<u128> = kept.flat_map(Result::unwrap).map(|version| version.row_id.as_u128()).collect();
        assert!(kept.into_iter().eq((0..12_345).filter(|id| id % 3 != 0)));
        let kept = without(spool(&mut (0..3)), spool(&mut std::iter::empty()));
        assert_eq!(kept.map(Result::unwrap).map(|part| part.len()).sum::<usize>(), 3);
    }

    #[test]
    fn versions_survive_the_spool() {
        let version = |n: u32| ExportedVersion {
            row_id: Uuid::from_u128(n.into()),
            changed_at: -i64::from(n),
            written_by: i64::from(n) * 7,
        };
        let mut spool = Spool::create(&std::env::temp_dir()).unwrap();
        let count = 12_345;
        (0..count).for_each(|n| spool.push(version(n)).unwrap());
        let parts: Vec<_> = spool.read().unwrap().map(Result::unwrap).collect();
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [5_000, 5_000, 2_345]);
        assert!(parts.into_iter().flatten().eq((0..count).map(version)));
    }

    #[test]
    fn any_trigger_makes_a_flush_due() {
        let size = crate::postgres::DirtySize { rows: 10, oldest: Some(1_000), bytes: 500 };
        let due = |due: Due| due.is_due(size, 3_000);
        assert!(due(Due::default()));
        assert!(due(Due { rows: Some(10), ..Due::default() }));
        assert!(!due(Due { rows: Some(11), bytes: Some(501), age: Some(Duration::from_secs(3)) }));
        assert!(due(Due { rows: Some(11), bytes: Some(500), ..Due::default() }));
        assert!(due(Due { rows: Some(11), age: Some(Duration::from_secs(2)), ..Due::default() }));
    }
}
