//! Compact: delta files and the base files they reach into become new base files, each row once.
//!
//! A base file stays as it is when no delta holds an id within its range: with time-ordered ids that is most of them. New
//! files never span one that stays, so the ranges of all base files remain disjoint, which is what lets queries read them
//! without merging.

use std::collections::BTreeSet;

use indicatif::ProgressBar;
use translator::catalog::Entity;
use translator::lake::LakeFile;
use translator::options::Tier;
use translator::planner::check_file;

use super::merge::{Tombstones, for_each_row_id, merge, name_bad_file};
use super::rotation::{FileLimits, RotatingWriter};
use super::spill::SpillDirectory;
use super::staging::Destination;
use super::{FileSet, Writer, now_ms};
use crate::engine::duckdb::DuckError;
use crate::failpoint::failpoint;
use crate::lake::{compaction_due, retired};
use crate::postgres::{ManifestFile, WriteSession};

/// What is compacted, and when it is worth it.
#[derive(Debug, Clone)]
pub(super) struct CompactOptions {
    pub(super) limits: FileLimits,
    /// Fewer delta files than this are left for later.
    pub(super) min_files: usize,
    /// Files of which [`compaction_due`] says so only.
    pub(super) when_due: bool,
    /// Rewrite every file: all get the newest shape.
    pub(super) full: bool,
    pub(super) dry_run: bool,
}

/// What is rewritten and why.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct CompactPlan {
    /// Delta files, and base files with the reason.
    pub(super) inputs: Vec<(LakeFile, &'static str)>,
    pub(super) untouched: Vec<LakeFile>,
}

/// What a compaction did.
#[derive(Debug)]
pub(super) enum CompactOutcome {
    Nothing { delta_files: usize },
    Planned(CompactPlan),
    Compacted { plan: CompactPlan, files: usize, rows: u64, bytes: u64, tombstones_dropped: u64 },
}

/// Compacts one entity. The caller holds its lock on `session`.
pub(super) async fn compact_entity(
    writer: &Writer,
    entity: &Entity,
    options: &CompactOptions,
    session: &mut WriteSession,
    progress: &ProgressBar,
) -> anyhow::Result<CompactOutcome> {
    let set = writer.files(entity).await?;
    for file in &set.files {
        check_file(file, entity)?;
    }
    let delta_files = set.of(Tier::Warm).len();
    let is_due = !options.when_due || compaction_due(&set.files).is_some();
    if (delta_files < options.min_files || !is_due) && !options.full {
        return Ok(CompactOutcome::Nothing { delta_files });
    }
    let spill = SpillDirectory::create(&writer.temp_directory())?;
    let engine = writer.engine(spill.path()).await?;
    let root = writer.lake.duckdb_root();
    let tombstones = match (writer.has_manifest(), set.is_all) {
        (true, _) => Tombstones::Drop,
        (false, true) => Tombstones::DropLone,
        // Files that are deleted soon may hold older versions, and whoever doesn't know of retire notes still reads them.
        (false, false) => Tombstones::Keep,
    };
    let (full, limits, entity_copy) = (options.full, options.limits, entity.clone());
    let plan_entity = entity.clone();
    let (plan, engine, set) = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let planned = plan(&set, full, limits, |files, on_id| for_each_row_id(&engine, files, &root, on_id));
        let files: Vec<&LakeFile> = set.files.iter().collect();
        let plan = planned.map_err(|error| name_bad_file(error.into(), &engine, &plan_entity, &files, &root))?;
        Ok((plan, engine, set))
    })
    .await??;
    drop(set);
    if plan.inputs.is_empty() {
        return Ok(CompactOutcome::Nothing { delta_files });
    }
    if options.dry_run {
        return Ok(CompactOutcome::Planned(plan));
    }
    let inputs: Vec<LakeFile> = plan.inputs.iter().map(|(file, _)| file.clone()).collect();
    progress.set_length(inputs.iter().map(|file| file.row_count).sum());
    let mut boundaries: Vec<u128> =
        plan.untouched.iter().filter_map(|file| file.row_id_range).map(|(low, _)| low).collect();
    boundaries.sort_unstable();
    let output = RotatingWriter::new(Destination::new(writer, entity, Tier::Cold), entity, limits, boundaries);
    let merged = {
        let (root, progress, inputs) = (writer.lake.duckdb_root(), progress.clone(), inputs.clone());
        tokio::task::spawn_blocking(move || {
            merge(&engine, &entity_copy, &inputs, &root, tombstones, output, &progress).map_err(|error| {
                let files: Vec<&LakeFile> = inputs.iter().collect();
                name_bad_file(error, &engine, &entity_copy, &files, &root)
            })
        })
        .await??
    };
    drop(spill);
    failpoint("compact.merged").await;

    session.still_locked().await?;
    let mut files: Vec<ManifestFile> = Vec::with_capacity(merged.files.len());
    for staged in merged.files {
        files.push(staged.publish(&writer.lake).await?);
        failpoint("compact.published_one").await;
    }
    failpoint("compact.published").await;
    // Base files first: while both are there, a tombstone in a delta must outlive what it hides.
    let mut old = inputs;
    old.sort_by(|left, right| (left.tier == Tier::Warm, &left.path).cmp(&(right.tier == Tier::Warm, &right.path)));
    let old: Vec<String> = old.into_iter().map(|file| file.path).collect();
    if writer.has_manifest() {
        session.swap_files(entity.schema_id, &old, &files, now_ms(), failpoint("compact.swapping")).await?;
    } else {
        failpoint("compact.swapping").await;
        session.still_locked().await?;
        let new: Vec<&str> = files.iter().map(|file| file.facts.path.as_str()).collect();
        retired::write_note(&writer.lake, entity, now_ms(), &old, &new).await?;
    }
    failpoint("compact.swapped").await;
    Ok(CompactOutcome::Compacted {
        plan,
        files: files.len(),
        rows: files.iter().map(|file| file.facts.row_count).sum(),
        bytes: files.iter().map(|file| file.facts.bytes).sum(),
        tombstones_dropped: merged.tombstones_dropped,
    })
}

const DELTA: &str = "delta";
const FULL: &str = "everything is rewritten";
const UNPROVEN: &str = "it isn't known to hold each row once, or its row_id range isn't known";
const OVERLAP: &str = "its row_id range overlaps another base file";
const SUPERSEDED: &str = "a delta holds ids within its range";
const SMALL: &str = "it is small and beside a file that is written anew";

/// Chooses the files. `read_ids` passes the row ids of some files on.
fn plan(
    set: &FileSet,
    full: bool,
    limits: FileLimits,
    read_ids: impl FnOnce(&[&LakeFile], &mut dyn FnMut(u128)) -> Result<(), DuckError>,
) -> Result<CompactPlan, DuckError> {
    let deltas = set.of(Tier::Warm);
    let base = set.of(Tier::Cold);
    let mut ranged: Vec<(u128, u128, &LakeFile)> = Vec::new();
    let mut inputs: Vec<(LakeFile, &'static str)> = deltas.iter().map(|file| ((*file).clone(), DELTA)).collect();
    for file in base {
        match file.row_id_range {
            _ if full => inputs.push((file.clone(), FULL)),
            Some((low, high)) if file.unique_rows => ranged.push((low, high, file)),
            // An empty file holds nothing that could be told apart.
            _ => inputs.push((file.clone(), UNPROVEN)),
        }
    }
    ranged.sort_by(|left, right| (left.0, left.1, &left.2.path).cmp(&(right.0, right.1, &right.2.path)));
    let mut reasons: Vec<Option<&'static str>> = vec![None; ranged.len()];
    let unproven: Vec<Option<(u128, u128)>> = inputs
        .iter()
        .filter(|(file, _)| file.tier == Tier::Cold && file.row_count > 0)
        .map(|(file, _)| file.row_id_range)
        .collect();
    let mut highest: Option<(u128, usize)> = None;
    for (index, (low, high, _)) in ranged.iter().enumerate() {
        if let Some((reached, by)) = highest
            && reached >= *low
        {
            reasons[index] = Some(OVERLAP);
            reasons[by] = Some(OVERLAP);
        }
        if highest.is_none_or(|(reached, _)| *high > reached) {
            highest = Some((*high, index));
        }
        if unproven.iter().any(|range| range.is_none_or(|(from, to)| from <= *high && to >= *low)) {
            reasons[index] = Some(OVERLAP);
        }
    }
    // Those that are left are disjoint from each other and from everything else.
    let open: Vec<usize> = (0..ranged.len()).filter(|index| reasons[*index].is_none()).collect();
    let reaching: Vec<&LakeFile> = deltas
        .iter()
        .copied()
        .filter(|delta| {
            delta
                .row_id_range
                .is_none_or(|(from, to)| open.iter().any(|index| ranged[*index].0 <= to && ranged[*index].1 >= from))
        })
        .collect();
    let mut reached = BTreeSet::new();
    if !reaching.is_empty() {
        read_ids(&reaching, &mut |id| {
            let after = open.partition_point(|index| ranged[*index].0 <= id);
            if let Some(index) = after.checked_sub(1).map(|place| open[place])
                && ranged[index].1 >= id
            {
                reached.insert(index);
            }
        })?;
    }
    for index in reached {
        reasons[index] = Some(SUPERSEDED);
    }
    join_small(&ranged, &mut reasons, &deltas, limits);
    let mut untouched = Vec::new();
    for ((_, _, file), reason) in ranged.into_iter().zip(reasons) {
        match reason {
            Some(reason) => inputs.push((file.clone(), reason)),
            None => untouched.push(file.clone()),
        }
    }
    Ok(CompactPlan { inputs, untouched })
}

/// Small files beside each other, or beside rewritten ones, become one; the last one also when newer rows follow it.
fn join_small(
    ranged: &[(u128, u128, &LakeFile)],
    reasons: &mut [Option<&'static str>],
    deltas: &[&LakeFile],
    limits: FileLimits,
) {
    let is_small = |file: &LakeFile| file.bytes < limits.bytes / 4 && file.row_count < (limits.rows / 4).max(1);
    let was_rewritten: Vec<bool> = reasons.iter().map(Option::is_some).collect();
    for (index, (_, high, file)) in ranged.iter().enumerate() {
        if was_rewritten[index] || !is_small(file) {
            continue;
        }
        let joins =
            |other: usize| was_rewritten.get(other).is_some_and(|rewritten| *rewritten || is_small(ranged[other].2));
        let is_last = index + 1 == ranged.len();
        let rows_follow = is_last && deltas.iter().any(|delta| delta.row_id_range.is_none_or(|(_, to)| to > *high));
        if rows_follow || joins(index + 1) || index.checked_sub(1).is_some_and(joins) {
            reasons[index] = Some(SMALL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FileLimits = FileLimits { rows: 1_000, bytes: 1_000 };

    fn file(tier: Tier, path: &str, range: (u128, u128), rows: u64) -> LakeFile {
        LakeFile {
            etag: None,
            path: path.to_owned(),
            tier,
            bytes: rows,
            row_count: rows,
            row_id_range: Some(range),
            changed_at_range: None,
            unique_rows: true,
            may_hold_tombstones: false,
            row_groups: std::sync::Arc::default(),
            columns: Vec::new(),
        }
    }

    fn check(files: Vec<LakeFile>, delta_ids: &[u128], expected: &[&str]) {
        let set = FileSet { files, is_all: true };
        let plan = plan(&set, false, LIMITS, |_, on_id| {
            delta_ids.iter().for_each(|id| on_id(*id));
            Ok(())
        });
        let plan = plan.unwrap();
        let mut rewritten: Vec<&str> = plan.inputs.iter().map(|(file, _)| file.path.as_str()).collect();
        rewritten.sort_unstable();
        assert_eq!(rewritten, expected, "{:?}", plan.inputs.iter().map(|(_, reason)| reason).collect::<Vec<_>>());
        assert_eq!(plan.inputs.len() + plan.untouched.len(), set.files.len());
    }

    #[test]
    fn only_files_that_a_delta_reaches_into_are_rewritten() {
        let base = || {
            vec![
                file(Tier::Cold, "a", (0, 99), 900),
                file(Tier::Cold, "b", (100, 199), 900),
                file(Tier::Cold, "c", (200, 299), 900),
            ]
        };
        check(base(), &[], &[]);
        let with_delta = |range| [base(), vec![file(Tier::Warm, "d", range, 2)]].concat();
        check(with_delta((150, 400)), &[150, 400], &["b", "d"]);
        check(with_delta((300, 400)), &[], &["d"]);
        check(with_delta((0, 299)), &[0, 299], &["a", "c", "d"]);
    }

    #[test]
    fn files_that_prove_nothing_are_rewritten() {
        let mut unproven = file(Tier::Cold, "u", (50, 120), 900);
        unproven.unique_rows = false;
        let files = vec![
            unproven,
            file(Tier::Cold, "a", (0, 99), 900),
            file(Tier::Cold, "b", (100, 199), 900),
            file(Tier::Cold, "c", (200, 299), 900),
            file(Tier::Cold, "e", (290, 500), 900),
            file(Tier::Cold, "f", (600, 700), 900),
        ];
        check(files, &[], &["a", "b", "c", "e", "u"]);
    }

    #[test]
    fn small_files_are_joined() {
        let files = vec![
            file(Tier::Cold, "a", (0, 99), 900),
            file(Tier::Cold, "b", (100, 199), 5),
            file(Tier::Cold, "c", (200, 299), 5),
            file(Tier::Cold, "d", (300, 399), 900),
            file(Tier::Cold, "e", (400, 499), 5),
        ];
        check(files.clone(), &[], &["b", "c"]);
        let newer = file(Tier::Warm, "w", (500, 600), 3);
        check([files, vec![newer]].concat(), &[], &["b", "c", "e", "w"]);
    }
}
