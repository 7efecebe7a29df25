//! Versions of rows by their positions in files: which aren't the row, and where the rows are that a query asks for.

use std::collections::BTreeMap;

use crate::bind::Query;
use crate::derived::row_id_condition;
use crate::lake::LakeFile;
use crate::plan::MergeStrategy;
use crate::predicate::Predicate;
use crate::row_ids::intersection;

/// What is known by position of the versions in an entity's files, dirty rows taken into account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PositionFacts {
    /// By path.
    pub files: BTreeMap<String, FilePositions>,
    /// Where the rows are that the query asks for by their ids, unless they weren't looked up: positions in files by id.
    pub rows: Option<BTreeMap<u128, Vec<(String, u32)>>>,
}

/// How many versions of a file aren't rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FilePositions {
    /// Another version of the row is newer, or the row is dirty.
    pub hidden: u64,
    /// The same, and tombstones that won.
    pub gone: u64,
}

/// DuckDB's own columns of a file's place in a scan and of a row's place in a file. A file with columns of these names hides
/// them.
const PLACES: [&str; 2] = ["file_index", "file_row_number"];

/// The row ids that a query asks for of an entity; `None` when a reference to it asks for any.
pub fn wanted_ids(query: &Query, schema_id: i16) -> Option<Vec<u128>> {
    let mut wanted = Vec::new();
    for reference in query.references.iter().filter(|reference| reference.entity.schema_id == schema_id) {
        let predicates: Vec<&Predicate> =
            reference.conjuncts.iter().filter_map(|conjunct| conjunct.predicate.as_ref().ok()).collect();
        let implied = row_id_condition(&reference.entity, &predicates);
        wanted.extend(intersection(predicates.into_iter().chain(&implied))?);
    }
    wanted.sort_unstable();
    wanted.dedup();
    Some(wanted)
}

/// What says that positions decide, when they do.
pub(crate) fn position_proof(files: &[&LakeFile], positions: &PositionFacts) -> Option<String> {
    let mut hidden = 0;
    for file in files.iter().filter(|file| file.row_count > 0) {
        if PLACES.iter().any(|place| file.column(place).is_some()) {
            return None;
        }
        hidden += positions.files.get(&file.path)?.hidden;
    }
    let rows: u64 = files.iter().map(|file| file.row_count).sum();
    Some(format!("the version index knows each version in these files: {hidden} of {rows} aren't the row"))
}

/// The positions of one reference.
pub(crate) struct PositionsOfReference<'a> {
    files: Option<&'a BTreeMap<String, FilePositions>>,
    /// Under certain ids: the first and the last position of their rows, by path.
    rows: Option<BTreeMap<&'a str, (u64, u64)>>,
    include_deleted: bool,
}

impl<'a> PositionsOfReference<'a> {
    /// Of the positions of an entity, if they are what `merge` goes by.
    pub(crate) fn new(
        positions: Option<&'a PositionFacts>,
        merge: MergeStrategy,
        predicates: &[&Predicate],
        include_deleted: bool,
    ) -> Self {
        let positions = positions.filter(|_| merge == MergeStrategy::Positions);
        let known = positions.and_then(|positions| positions.rows.as_ref());
        let rows = known.zip(intersection(predicates.iter().copied())).map(|(known, wanted)| {
            let mut rows: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
            for (path, position) in wanted.iter().filter_map(|id| known.get(id)).flatten() {
                let position = u64::from(*position);
                let range = rows.entry(path).or_insert((position, position));
                *range = (range.0.min(position), range.1.max(position));
            }
            rows
        });
        Self { files: positions.map(|positions| &positions.files), rows, include_deleted }
    }

    /// Whether a row of the file may be in the answer; false is certain.
    pub(crate) fn may_answer(&self, file: &LakeFile) -> bool {
        self.files.is_none() || (self.left_out(file) < file.row_count && self.has_wanted(file))
    }

    /// The row numbers that can matter, from the first to before the second; `None`: all of the file.
    pub(crate) fn rows(&self, file: &LakeFile) -> Option<(u64, u64)> {
        let (first, last) = self.rows.as_ref()?.get(file.path.as_str())?;
        Some((*first, *last + 1))
    }

    /// How many versions a scan of these rows of the file leaves out.
    pub(crate) fn hidden(&self, file: &LakeFile, rows: Option<(u64, u64)>) -> u64 {
        match rows {
            // A row that was looked up is none of those.
            Some((first, end)) if end - first == 1 && rows == self.rows(file) => 0,
            _ => self.left_out(file),
        }
    }

    fn has_wanted(&self, file: &LakeFile) -> bool {
        self.rows.as_ref().is_none_or(|rows| rows.contains_key(file.path.as_str()))
    }

    fn left_out(&self, file: &LakeFile) -> u64 {
        let positions = self.files.and_then(|files| files.get(&file.path)).copied().unwrap_or_default();
        if self.include_deleted { positions.hidden } else { positions.gone }
    }
}
