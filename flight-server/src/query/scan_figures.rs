//! Figures of the sources, out of what DuckDB measured operator by operator.

use std::collections::BTreeSet;

use translator::catalog::Column;
use translator::plan::{FederatedPlan, LakeSource, ReferencePlan, ScannedFile};

use crate::engine::duckdb::ProfileNode;

/// One lake source of a plan as DuckDB's scans show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LakeScan {
    /// As DuckDB names them.
    pub(super) files: BTreeSet<String>,
    /// Attributes that the reference needs.
    pub(super) attributes: BTreeSet<String>,
}

impl LakeScan {
    /// The lake sources of a plan, in its order.
    pub(super) fn of(plan: &FederatedPlan, url: impl Fn(&ScannedFile) -> String) -> Vec<Self> {
        let source = |reference: &ReferencePlan, source: &LakeSource| Self {
            files: source.files.iter().map(&url).collect(),
            attributes: reference
                .columns
                .iter()
                .filter_map(|column| match column {
                    Column::Attribute(index) => Some(reference.entity.attributes[*index].column.clone()),
                    Column::RowId | Column::CreatedAt | Column::UpdatedAt | Column::Tier | Column::DeletedAt => None,
                })
                .collect(),
        };
        let mut scans = Vec::new();
        for reference in &plan.references {
            let lake = [&reference.warm, &reference.cold].into_iter().flatten();
            scans.extend(lake.map(|lake| source(reference, lake)));
        }
        scans
    }
}

/// What the scans of one source delivered.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct ScanFigures {
    pub(super) rows: u64,
    /// Of all threads in them.
    pub(super) ms: f64,
    /// Whether scans of other sources are in these figures too: DuckDB tells of a scan only its files and columns.
    pub(super) shared: bool,
}

/// Columns that a scan may read of any file; the last ones are the file's path, by which the window strategy breaks ties,
/// and the places of file and row, by which row groups and rows are left out.
const COMMON: [&str; 7] =
    ["row_id", "created_at", "changed_at", "deleted_at", "_tc_path", "file_row_number", "file_index"];

/// Figures of each source, in their order; `None` where no scan ran or DuckDB didn't measure. When scans can't be told
/// apart the first of their sources has the figures of all, and the others `None`.
pub(super) fn scan_figures(profile: Option<&ProfileNode>, sources: &[LakeScan]) -> Vec<Option<ScanFigures>> {
    let mut figures: Vec<Option<ScanFigures>> = vec![None; sources.len()];
    let Some(profile) = profile else { return figures };
    walk(profile, &mut |node| {
        let candidates = candidates(node, sources);
        let Some(first) = candidates.first() else { return };
        // A source may have several scans, such as one of base files with superseded rows and one of those without. So
        // that another source has a scan of its own already doesn't tell whose this one is.
        let sum = figures[*first].get_or_insert_default();
        *sum = ScanFigures {
            rows: sum.rows + node.rows,
            ms: sum.ms + node.ms,
            shared: sum.shared || candidates.len() > 1,
        };
    });
    figures
}

/// The sources that a scan may belong to: they read all its files and columns.
fn candidates(node: &ProfileNode, sources: &[LakeScan]) -> Vec<usize> {
    let Some(files) = note(&node.info, "Filename(s)") else { return Vec::new() };
    let columns = note(&node.info, "Projections").unwrap_or_default();
    let attributes: Vec<&str> =
        columns.lines().filter(|column| !column.is_empty() && !COMMON.contains(column)).collect();
    let explains = |source: &LakeScan| {
        lists_only(&source.files, &files) && attributes.iter().all(|attribute| source.attributes.contains(*attribute))
    };
    (0..sources.len()).filter(|index| explains(&sources[*index])).collect()
}

/// Whether a list of DuckDB's, names with commas between, names only these files; dots stand for more of them.
fn lists_only(files: &BTreeSet<String>, list: &str) -> bool {
    let mut name = String::new();
    for part in list.split(", ") {
        if !name.is_empty() {
            // A comma in a name.
            name.push_str(", ");
        }
        name.push_str(part);
        if name == "..." || files.contains(&name) {
            name.clear();
        }
    }
    name.is_empty()
}

/// A value of the notes of an operator: `{key=value, 'another key'='a value'}`.
fn note(info: &str, key: &str) -> Option<String> {
    let (_, rest) = info.split_once(&format!("{key}=")).or_else(|| info.split_once(&format!("'{key}'=")))?;
    let Some(quoted) = rest.strip_prefix('\'') else {
        return Some(rest.split([',', '}']).next().unwrap_or_default().to_owned());
    };
    let mut value = String::new();
    let mut letters = quoted.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\'' => return Some(value),
            '\\' => value.extend(letters.next()),
            other => value.push(other),
        }
    }
    None
}

/// Rows of a temporary table that passed every filter on their way from its scan to the first operator that joins, groups
/// or cuts; of several scans the one that lets most through. Where a filter stands above a union, whose other side are
/// rows of files, as many as can be of those that it lets through count. `None` when DuckDB measured no such scan.
pub(super) fn rows_kept(profile: Option<&ProfileNode>, table: &str) -> Option<u64> {
    let mut most = None;
    let last = kept_by(profile?, table, &mut most);
    most.max(last)
}

/// The rows at the top of an unbroken chain of filters, projections and unions over the scan.
fn kept_by(node: &ProfileNode, table: &str, most: &mut Option<u64>) -> Option<u64> {
    let is_word = |letter: char| letter == '_' || letter.is_alphanumeric();
    if node.name.contains("SCAN") && node.info.split(|letter| !is_word(letter)).any(|word| word == table) {
        return Some(node.rows);
    }
    let mut chain = None;
    for child in &node.children {
        let Some(rows) = kept_by(child, table, most) else { continue };
        match node.name.as_str() {
            "FILTER" => chain = chain.max(Some(rows.min(node.rows))),
            "PROJECTION" | "UNION" => chain = chain.max(Some(rows)),
            _ => *most = (*most).max(Some(rows)),
        }
    }
    chain
}

fn walk(node: &ProfileNode, visit: &mut impl FnMut(&ProfileNode)) {
    visit(node);
    for child in &node.children {
        walk(child, visit);
    }
}

#[cfg(test)]
mod tests;
