//! Row ids: those that a query asks for, and those that supersede versions in files. They tell which files a query can
//! do without, and which it can read as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::bind::Query;
use crate::catalog::Column;
use crate::lake::{IdSet, LakeFile};
use crate::options::Tier;
use crate::plan::MergeStrategy;
use crate::predicate::{CompareOp, Predicate};
use crate::prune::may_hold_ids;
use crate::value::Value;

/// More ids than this aren't compared to find out whether delta files share rows.
const MAX_COMPARED: usize = 1_000_000;

/// The row ids of one reference.
pub(crate) struct RowIds<'a> {
    /// The dirty ids: nothing is dirty, or the ids if they are known.
    dirty: Option<Option<&'a IdSet>>,
    /// Under [`MergeStrategy::Layered`]: delta files, which supersede base.
    delta: Vec<&'a LakeFile>,
    /// Ids of delta files by path, of those that are known.
    delta_ids: &'a BTreeMap<String, Arc<IdSet>>,
    /// When the query asks for certain ids: those that files may answer for, and of them those that base may.
    wanted: Option<Wanted>,
}

struct Wanted {
    of_delta: BTreeSet<u128>,
    of_base: BTreeSet<u128>,
}

impl<'a> RowIds<'a> {
    /// `files` are all files of the entity that the tiers allow, `dirty` is absent when nothing is dirty.
    pub(crate) fn new(
        predicates: &[&Predicate],
        files: &[&'a LakeFile],
        merge: MergeStrategy,
        dirty: Option<Option<&'a IdSet>>,
        delta_ids: &'a BTreeMap<String, Arc<IdSet>>,
    ) -> Self {
        let layered = merge == MergeStrategy::Layered;
        let delta = files.iter().copied().filter(|file| file.tier == Tier::Warm && layered).collect();
        let mut row_ids = Self { dirty, delta, delta_ids, wanted: None };
        row_ids.wanted = intersection(predicates.iter().copied()).map(|mut ids| {
            // PostgreSQL answers for dirty rows, whatever files hold.
            ids.retain(|id| !dirty.flatten().is_some_and(|dirty| dirty.contains(*id)));
            let in_delta =
                |id: &u128| row_ids.delta.iter().any(|file| row_ids.ids(file).is_some_and(|ids| ids.contains(*id)));
            Wanted { of_base: ids.iter().copied().filter(|id| !in_delta(id)).collect(), of_delta: ids }
        });
        row_ids
    }

    /// Whether the file may hold a version that the query wants; false is certain.
    pub(crate) fn may_answer(&self, file: &LakeFile) -> bool {
        let Some(wanted) = self.wanted_of(file) else { return true };
        match self.ids(file) {
            Some(ids) => wanted.iter().any(|id| ids.contains(*id)),
            None if file.row_groups.is_empty() => any_within(wanted, file.row_id_range),
            None => file.row_groups.iter().any(|group| any_within(wanted, group.row_id_range)),
        }
    }

    /// The row numbers of a file that may answer, from the first to before the second, over the row groups that may hold
    /// what the query wants; `None`: all of them. DuckDB 1.5 skips row groups by row numbers, and none by a UUID.
    pub(crate) fn rows_that_may_answer(&self, file: &LakeFile, predicates: &[&Predicate]) -> Option<(u64, u64)> {
        let wanted = self.wanted_of(file);
        let may_answer = |range: Option<(u128, u128)>| {
            wanted.is_none_or(|wanted| any_within(wanted, range))
                && range.is_none_or(|range| predicates.iter().all(|predicate| may_hold_ids(range, predicate)))
        };
        // DuckDB's column of row numbers has this name.
        if file.column("file_row_number").is_some() {
            return None;
        }
        let mut rows: Option<(u64, u64)> = None;
        let mut end = 0;
        for group in file.row_groups.iter() {
            let start = end;
            end += group.rows;
            if may_answer(group.row_id_range) {
                rows = Some((rows.map_or(start, |(from, _)| from), end));
            }
        }
        rows.filter(|rows| *rows != (0, end))
    }

    /// The ids that the query wants and that this file may answer for.
    fn wanted_of(&self, file: &LakeFile) -> Option<&BTreeSet<u128>> {
        let wanted = self.wanted.as_ref()?;
        Some(if file.tier == Tier::Cold { &wanted.of_base } else { &wanted.of_delta })
    }

    /// Whether a row of the file may be superseded; false is certain.
    pub(crate) fn may_be_superseded(&self, file: &LakeFile) -> bool {
        let Some(range) = file.row_id_range else { return self.dirty.is_some() || !self.delta.is_empty() };
        let reached_by = |ids: Option<&IdSet>| ids.is_none_or(|ids| ids.any_within(range));
        self.dirty.is_some_and(reached_by)
            || (file.tier == Tier::Cold
                && self.delta.iter().any(|delta| may_share_rows(delta, file) && reached_by(self.ids(delta))))
    }

    /// For each of these files: whether each of its rows is in it once and in none of the others.
    pub(crate) fn are_once(&self, files: &[&LakeFile]) -> Vec<bool> {
        let is_unique =
            |file: &LakeFile| file.unique_rows || self.ids(file).is_some_and(|ids| ids.len() as u64 == file.row_count);
        let mut once: Vec<bool> = files.iter().map(|file| is_unique(file)).collect();
        let mut compared = BTreeSet::new();
        for (left, file) in files.iter().enumerate() {
            for (right, _) in files.iter().enumerate().skip(left + 1).filter(|(_, other)| may_share_rows(file, other)) {
                if self.ids(file).is_some() && self.ids(files[right]).is_some() {
                    compared.extend([left, right]);
                } else {
                    (once[left], once[right]) = (false, false);
                }
            }
        }
        let sets = || compared.iter().filter_map(|index| Some((*index, self.ids(files[*index])?)));
        if sets().map(|(_, ids)| ids.len()).sum::<usize>() > MAX_COMPARED {
            compared.iter().for_each(|index| once[*index] = false);
            return once;
        }
        let mut ids: Vec<(u128, usize)> =
            sets().flat_map(|(index, ids)| ids.iter().map(move |id| (id, index))).collect();
        // Of sorted runs: a stable sort merges them.
        ids.sort();
        for pair in ids.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            (once[pair[0].1], once[pair[1].1]) = (false, false);
        }
        once
    }

    fn ids(&self, file: &LakeFile) -> Option<&'a IdSet> {
        self.delta_ids.get(&file.path).map(Arc::as_ref)
    }
}

/// Whether one of these ids may be within the range. Bounds that are mixed up tell nothing.
fn any_within(ids: &BTreeSet<u128>, range: Option<(u128, u128)>) -> bool {
    match range {
        Some((low, high)) if low <= high => ids.range(low..=high).next().is_some(),
        _ => !ids.is_empty(),
    }
}

/// Whether two files may hold versions of one row, by their ranges.
pub(crate) fn may_share_rows(left: &LakeFile, right: &LakeFile) -> bool {
    match (left.row_id_range, right.row_id_range) {
        (Some((left_low, left_high)), Some((right_low, right_high))) => {
            left_low <= right_high && right_low <= left_high
        }
        _ => true,
    }
}

/// The row ids of which a predicate needs one; `None`: it may be true for any.
fn wanted(predicate: &Predicate) -> Option<BTreeSet<u128>> {
    let id = |value: &Value| if let Value::Uuid(id) = value { Some(*id) } else { None };
    match predicate {
        Predicate::And(parts) => intersection(parts),
        Predicate::Or(parts) => {
            let parts: Option<Vec<BTreeSet<u128>>> = parts.iter().map(wanted).collect();
            parts.map(|parts| parts.into_iter().flatten().collect())
        }
        Predicate::Compare { column: Column::RowId, op: CompareOp::Equal, value }
        | Predicate::Distinct { column: Column::RowId, value, negated: true } => Some(BTreeSet::from([id(value)?])),
        Predicate::In { column: Column::RowId, values } => values.iter().map(id).collect(),
        _ => None,
    }
}

/// How many of these ids a query may ask an entity for: all, unless each of its references has conditions on ids.
pub fn asked_for(query: &Query, schema_id: i16, ids: &IdSet) -> u64 {
    let references = query.references.iter().filter(|reference| reference.entity.schema_id == schema_id);
    let conditions: Vec<Vec<&Predicate>> = references
        .map(|reference| {
            let predicates = reference.conjuncts.iter().filter_map(|conjunct| conjunct.predicate.as_ref().ok());
            predicates.filter(|predicate| reads_row_id_only(predicate)).collect()
        })
        .collect();
    if conditions.iter().any(Vec::is_empty) {
        return ids.len() as u64;
    }
    let is_asked =
        |id: u128| conditions.iter().any(|all| all.iter().all(|predicate| may_hold_ids((id, id), predicate)));
    let few: Option<Vec<BTreeSet<u128>>> = conditions.iter().map(|all| intersection(all.iter().copied())).collect();
    let asked = match few {
        Some(few) => {
            let few: BTreeSet<u128> = few.into_iter().flatten().collect();
            few.into_iter().filter(|id| ids.contains(*id) && is_asked(*id)).count()
        }
        None => ids.iter().filter(|id| is_asked(*id)).count(),
    };
    asked as u64
}

/// Whether a predicate is about the id alone.
pub(crate) fn reads_row_id_only(predicate: &Predicate) -> bool {
    let mut columns = Vec::new();
    predicate.columns(&mut columns);
    columns.iter().all(|column| *column == Column::RowId)
}

/// The row ids of which all predicates need one; `None`: they may be true for any.
pub(crate) fn intersection<'a>(predicates: impl IntoIterator<Item = &'a Predicate>) -> Option<BTreeSet<u128>> {
    predicates.into_iter().filter_map(wanted).reduce(|left, right| left.intersection(&right).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, tier: Tier, range: (u128, u128), row_count: u64) -> LakeFile {
        LakeFile {
            path: path.to_owned(),
            tier,
            bytes: 1,
            etag: None,
            row_count,
            row_id_range: Some(range),
            changed_at_range: None,
            unique_rows: false,
            may_hold_tombstones: false,
            row_groups: Arc::default(),
            columns: Vec::new(),
        }
    }

    fn equal(id: u128) -> Predicate {
        Predicate::Compare { column: Column::RowId, op: CompareOp::Equal, value: Value::Uuid(id) }
    }

    #[test]
    fn ids_are_asked_for_by_equality_and_lists() {
        let ids = |predicate: &Predicate| wanted(predicate).map(|ids| ids.into_iter().collect::<Vec<_>>());
        let either =
            Predicate::In { column: Column::RowId, values: vec![Value::Uuid(1), Value::Uuid(2), Value::Uuid(2)] };
        assert_eq!(ids(&equal(1)), Some(vec![1]));
        assert_eq!(ids(&either), Some(vec![1, 2]));
        assert_eq!(ids(&Predicate::And(vec![either.clone(), equal(2)])), Some(vec![2]));
        assert_eq!(ids(&Predicate::And(vec![equal(1), equal(2)])), Some(vec![]));
        assert_eq!(ids(&Predicate::Or(vec![equal(3), equal(1)])), Some(vec![1, 3]));
        let other = Predicate::IsNull { column: Column::RowId };
        assert_eq!(ids(&Predicate::Or(vec![equal(3), other.clone()])), None);
        assert_eq!(ids(&Predicate::And(vec![equal(3), other])), Some(vec![3]));
        assert_eq!(ids(&Predicate::Not(Box::new(equal(3)))), None);
    }

    #[test]
    fn files_answer_only_for_ids_that_nothing_supersedes() {
        let (base, delta) = (file("b", Tier::Cold, (0, 9), 10), file("d", Tier::Warm, (2, 8), 2));
        let known = BTreeMap::from([("d".to_owned(), Arc::new(IdSet::new(vec![2, 8])))]);
        let dirty = IdSet::new(vec![1]);
        let answer = |id: u128, merge| {
            let predicate = equal(id);
            let ids = RowIds::new(&[&predicate], &[&base, &delta], merge, Some(Some(&dirty)), &known);
            (ids.may_answer(&base), ids.may_answer(&delta))
        };
        assert_eq!(answer(1, MergeStrategy::Layered), (false, false), "dirty");
        assert_eq!(answer(2, MergeStrategy::Layered), (false, true), "in delta");
        assert_eq!(answer(2, MergeStrategy::Window), (true, true), "base may be newer than delta");
        assert_eq!(answer(3, MergeStrategy::Layered), (true, false), "within the range of delta, but not in it");
        assert_eq!(answer(10, MergeStrategy::Layered), (false, false), "nowhere");
        let ids = RowIds::new(&[], &[&base, &delta], MergeStrategy::Layered, Some(None), &known);
        assert!(ids.may_answer(&base) && ids.may_answer(&delta), "any id is asked for");
        let (predicate, none) = (equal(1), BTreeMap::new());
        let ids = RowIds::new(&[&predicate], &[&base, &delta], MergeStrategy::Layered, Some(None), &none);
        assert!(ids.may_answer(&base) && !ids.may_answer(&delta), "dirty ids aren't known");
    }

    #[test]
    fn delta_files_that_share_no_row_are_found() {
        let files = [
            file("a", Tier::Warm, (0, 9), 2),
            file("b", Tier::Warm, (1, 8), 2),
            file("c", Tier::Warm, (2, 7), 2),
            file("doubled", Tier::Warm, (20, 29), 3),
            file("unknown", Tier::Warm, (30, 39), 3),
        ];
        let files: Vec<&LakeFile> = files.iter().collect();
        let known: BTreeMap<String, Arc<IdSet>> =
            [("a", vec![0, 9]), ("b", vec![1, 8]), ("c", vec![2, 8]), ("doubled", vec![20, 29])]
                .into_iter()
                .map(|(path, ids)| (path.to_owned(), Arc::new(IdSet::new(ids))))
                .collect();
        let ids = RowIds::new(&[], &files, MergeStrategy::Layered, None, &known);
        assert_eq!(ids.are_once(&files), [true, false, false, false, false]);
        assert_eq!(ids.are_once(&files[..1]), [true]);
        let unknown = file("z", Tier::Warm, (5, 5), 1);
        assert_eq!(ids.are_once(&[files[0], &unknown]), [false, false], "may share a row with another one");
    }
}
