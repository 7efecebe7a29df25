//! The federated statement: SQL text from a plan. Decides nothing.
//!
//! Shape for one reference (several get a number behind each name):
//! ```sql
//! WITH dirty_ids AS MATERIALIZED (…), s3_source AS (…), pg_source AS (…), unified AS (…), flights_rows AS (…)
//! SELECT … FROM flights_rows AS f …          -- the user's own SELECT
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use crate::bind::{Placeholder, QualifiedName, Query, StatementForm};
use crate::catalog::{Attribute, Column, Entity};
use crate::error::TranslateError;
use crate::lake::{FileColumn, FileType, LakeFile};
use crate::lake_read::{Place, checked_millis, holds_times, is_checked, read_expression};
use crate::options::Tier;
use crate::plan::{FederatedPlan, HotAccess, MergeStrategy, MirrorTable, ReferencePlan, ScannedFile};
use crate::quote::{Ident, duckdb_text};
use crate::tree::{ctes, select_star_from_node, statement_document, text};

/// What emitting needs from its surroundings.
#[derive(Clone, Copy)]
pub struct EmitContext<'a> {
    /// Prints a tree (the document `json_deserialize_sql` takes) as SQL.
    pub print: &'a dyn Fn(&Json) -> Result<String, TranslateError>,
    /// The lake as DuckDB addresses it, without a trailing slash (`s3://bucket/prefix`, `/data/lake`).
    pub lake_prefix: &'a str,
}

/// One DuckDB statement, and what its scans leave out by position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FederatedStatement {
    pub sql: String,
    /// By the number that the statement has for each.
    pub hidden: Vec<HiddenScan>,
    /// Where the user's own part of the statement begins, in bytes: what is before it, the server wrote.
    pub user_part: usize,
}

/// A scan that leaves rows out by position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiddenScan {
    pub schema_id: i16,
    /// Paths of its files, in its order.
    pub files: Vec<String>,
    /// Whether tombstones that won are left out too.
    pub tombstones: bool,
}

/// The function that tells whether a scan leaves a row out: `tc_hidden(scan, file_index, file_row_number)`.
pub const HIDDEN_FUNCTION: &str = "tc_hidden";

impl std::fmt::Debug for EmitContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmitContext").field("lake_prefix", &self.lake_prefix).finish_non_exhaustive()
    }
}

/// Temporary table with the dirty ids of an entity: one column `row_id`, BLOB.
pub fn dirty_table(schema_id: i16) -> String {
    format!("tc_dirty_{schema_id}")
}

/// Temporary table with the hot rows of the reference at `index`.
pub fn hot_table(index: usize) -> String {
    format!("tc_hot_{index}")
}

/// The attached database in memory whose tables are [`MirrorTable`]s.
pub const MIRROR_CATALOG: &str = "tc_mirror";

/// Temporary table with the rows of the system table at `index`.
pub fn system_table(index: usize) -> String {
    format!("tc_system_{index}")
}

/// Emits the federated statement of a plan.
///
/// # Errors
/// Only when DuckDB can't print the tree: a bug.
pub fn emit(
    query: &Query,
    plan: &FederatedPlan,
    context: EmitContext<'_>,
) -> Result<FederatedStatement, TranslateError> {
    let (mut relations, mut hidden) = (Vec::new(), Vec::new());
    let numbered = plan.references.len() > 1;
    let mut rows_names = Vec::new();
    for (index, reference) in plan.references.iter().enumerate() {
        let suffix = if numbered { format!("_{}", index + 1) } else { String::new() };
        let name = |base: &str| query.free_name(&format!("{base}{suffix}"));
        rows_names.push(reference_relations(reference, plan, index, &name, context, &mut relations, &mut hidden));
    }
    let tree = query.render(&|placeholder| match placeholder {
        Placeholder::Reference(index) => local_name(&rows_names[index]),
        Placeholder::System(index) => temporary_name(&system_table(index)),
    });
    let (sql, user_part) = with_relations(tree, &relations, query.form != StatementForm::Select, context)?;
    Ok(FederatedStatement { sql, hidden, user_part })
}

/// Emits the user's query over tables of the same names and shapes, for binding without any source.
///
/// # Errors
/// Only when DuckDB can't print the tree: a bug.
pub fn emit_for_binding(
    query: &Query,
    name: &dyn Fn(Placeholder) -> QualifiedName,
    print: &dyn Fn(&Json) -> Result<String, TranslateError>,
) -> Result<String, TranslateError> {
    let context = EmitContext { print, lake_prefix: "" };
    Ok(with_relations(query.render(name), &[], query.form != StatementForm::Select, context)?.0)
}

/// A generated relation: name and text of its WITH entry.
struct Relation {
    name: String,
    materialized: bool,
    sql: String,
}

fn local_name(table: &str) -> QualifiedName {
    QualifiedName { catalog: String::new(), schema: String::new(), table: table.to_owned() }
}

fn temporary_name(table: &str) -> QualifiedName {
    QualifiedName { catalog: "temp".to_owned(), schema: "main".to_owned(), table: table.to_owned() }
}

/// Puts generated relations before the user's WITH entries. DuckDB's printer drops hints such as MATERIALIZED, so the
/// relations are text, and each WITH entry of the user is printed by itself.
fn with_relations(
    tree: Json,
    relations: &[Relation],
    is_show: bool,
    context: EmitContext<'_>,
) -> Result<(String, usize), TranslateError> {
    let mut tree = if is_show { select_star_from_node(tree) } else { tree };
    let mut entries: Vec<String> = relations
        .iter()
        .map(|relation| {
            let hint = if relation.materialized { " MATERIALIZED" } else { "" };
            format!("{} AS{hint} ({})", Ident(&relation.name), relation.sql)
        })
        .collect();
    let mut recursive = false;
    for (name, cte) in ctes(&tree) {
        let node = &cte["query"]["node"];
        recursive |= text(&node["type"]) == "RECURSIVE_CTE_NODE";
        let aliases: Vec<String> =
            crate::tree::array(&cte["aliases"]).iter().map(|alias| Ident(text(alias)).to_string()).collect();
        let aliases = if aliases.is_empty() { String::new() } else { format!(" ({})", aliases.join(", ")) };
        let hint = match text(&cte["materialized"]) {
            "CTE_MATERIALIZE_ALWAYS" => " MATERIALIZED",
            "CTE_MATERIALIZE_NEVER" => " NOT MATERIALIZED",
            _ => "",
        };
        entries.push(format!("{}{aliases} AS{hint} ({})", Ident(name), (context.print)(&statement_document(node))?));
    }
    if let Some(map) = tree["cte_map"]["map"].as_array_mut() {
        map.clear();
    }
    let body = (context.print)(&statement_document(&tree))?;
    if entries.is_empty() {
        return Ok((body, 0));
    }
    let recursive = if recursive { "RECURSIVE " } else { "" };
    let generated: usize = entries[..relations.len()].iter().map(|entry| entry.len() + ",\n".len()).sum();
    let user_part = "WITH ".len() + recursive.len() + generated - usize::from(!relations.is_empty());
    Ok((format!("WITH {recursive}{} {body}", entries.join(",\n")), user_part))
}

/// Appends the relations of one reference and returns the name of the last one, which has the reference's rows.
fn reference_relations(
    reference: &ReferencePlan,
    plan: &FederatedPlan,
    index: usize,
    name: &dyn Fn(&str) -> String,
    context: EmitContext<'_>,
    out: &mut Vec<Relation>,
    hidden: &mut Vec<HiddenScan>,
) -> String {
    let entity = &reference.entity;
    let mut push = |name: String, materialized, sql| {
        out.push(Relation { name: name.clone(), materialized, sql });
        name
    };
    let has_files = reference.files().next().is_some();
    let has_dirty = reference.dirty_rows.is_some_and(|rows| rows > 0);
    // Where positions are known, those of dirty rows are among them.
    let has_anti_join = has_files && has_dirty && reference.merge != MergeStrategy::Positions;
    let dirty = has_anti_join.then(|| {
        let sql = match reference.hot.as_ref().map(|hot| &hot.access) {
            Some(HotAccess::Mirror(mirror)) => format!("SELECT row_id FROM {}", mirrored_rows(mirror)),
            Some(HotAccess::Copy | HotAccess::Scan { .. }) | None => {
                let table = dirty_table(entity.schema_id);
                format!("SELECT CAST(row_id AS UUID) AS row_id FROM temp.main.{}", Ident(&table))
            }
        };
        push(name("dirty_ids"), true, sql)
    });
    let mut sources = Vec::new();
    if has_files {
        let sql = match reference.merge {
            MergeStrategy::Positions => visible_versions(reference, plan.include_deleted, context.lake_prefix, hidden),
            MergeStrategy::Window | MergeStrategy::Layered | MergeStrategy::None => {
                lake_relation(reference, dirty.as_deref(), name, context, &mut push)
            }
        };
        sources.push(push(name("s3_source"), false, sql));
    }
    if let Some(hot) = &reference.hot {
        sources.push(push(name("pg_source"), false, hot_relation(reference, &hot.access, index)));
    }
    if sources.is_empty() {
        sources.push(push(name("s3_source"), false, empty_relation(reference)));
    }
    let union: Vec<String> = sources.iter().map(|source| format!("SELECT * FROM {}", Ident(source))).collect();
    let unified = push(name("unified"), false, union.join(" UNION ALL "));
    let seen = reference.columns.iter().filter(|column| !entity.hidden.contains(column));
    let mut columns: Vec<String> = seen.map(|column| public_column(entity, *column)).collect();
    if columns.is_empty() {
        // Rows are counted.
        columns.push("NULL AS _tc_row".to_owned());
    }
    let live = if plan.include_deleted { "" } else { " WHERE COALESCE(deleted_at, 0) = 0" };
    push(
        name(&format!("{}_rows", entity.name)),
        false,
        format!("SELECT {} FROM {}{live}", columns.join(", "), Ident(&unified)),
    )
}

/// A column as the user sees it, from the columns of `unified`.
fn public_column(entity: &Entity, column: Column) -> String {
    match column {
        Column::RowId | Column::Tier => Ident(entity.column_name(column)).to_string(),
        Column::Attribute(_) => Ident(entity.column_name(column)).to_string(),
        Column::CreatedAt => "make_timestamptz(created_at * 1000) AS created_at".to_owned(),
        Column::UpdatedAt => "make_timestamptz(changed_at * 1000) AS updated_at".to_owned(),
        Column::DeletedAt => "make_timestamptz(NULLIF(deleted_at, 0) * 1000) AS _deleted_at".to_owned(),
    }
}

/// Columns of every source relation: `row_id`, the needed attributes, `created_at`, `changed_at`, `deleted_at` in
/// milliseconds, `_tier`.
fn source_attributes(reference: &ReferencePlan) -> impl Iterator<Item = usize> + '_ {
    reference.columns.iter().filter_map(|column| match column {
        Column::Attribute(index) => Some(*index),
        _ => None,
    })
}

/// The versions of a mirror that are its rows at the plan's moment, as what stands behind FROM.
fn mirrored_rows(mirror: &MirrorTable) -> String {
    let MirrorTable { name, moment, .. } = mirror;
    format!("{MIRROR_CATALOG}.main.{} WHERE _tc_from <= {moment} AND _tc_to > {moment}", Ident(name))
}

fn hot_relation(reference: &ReferencePlan, access: &HotAccess, index: usize) -> String {
    if let HotAccess::Mirror(mirror) = access {
        let attributes = source_attributes(reference).map(|index| &reference.entity.attributes[index].column);
        let columns: Vec<String> = attributes.map(|column| format!("{}, ", Ident(column))).collect();
        return format!(
            "SELECT row_id, {}created_at, changed_at, deleted_at, 'hot' AS _tier FROM {} \
             AND _tc_whole",
            columns.concat(),
            mirrored_rows(mirror)
        );
    }
    let mut columns = vec!["CAST(row_id AS UUID) AS row_id".to_owned()];
    for attribute in source_attributes(reference).map(|index| &reference.entity.attributes[index]) {
        let column = Ident(&attribute.column);
        columns.push(format!("CAST({column} AS {}) AS {column}", attribute.duckdb_type()));
    }
    format!(
        "SELECT {}, created_at, changed_at, deleted_at, 'hot' AS _tier FROM temp.main.{}",
        columns.join(", "),
        Ident(&hot_table(index))
    )
}

fn empty_relation(reference: &ReferencePlan) -> String {
    let mut columns = vec!["CAST(NULL AS UUID) AS row_id".to_owned()];
    for attribute in source_attributes(reference).map(|index| &reference.entity.attributes[index]) {
        columns.push(format!("CAST(NULL AS {}) AS {}", attribute.duckdb_type(), Ident(&attribute.column)));
    }
    format!(
        "SELECT {}, CAST(NULL AS BIGINT) AS created_at, CAST(NULL AS BIGINT) AS changed_at, \
         CAST(NULL AS BIGINT) AS deleted_at, 'cold' AS _tier WHERE false",
        columns.join(", ")
    )
}

/// Newest version first: ties go to warm over cold, a tombstone over a live version, the greater path, the greater row number
/// (docs/contract.md, "Last write wins").
const NEWEST: &str = "row_number() OVER (PARTITION BY row_id ORDER BY changed_at DESC NULLS LAST, _tier DESC, \
                      (COALESCE(deleted_at, 0) <> 0) DESC, _tc_path DESC, _tc_row DESC) = 1";

fn lake_relation(
    reference: &ReferencePlan,
    dirty: Option<&str>,
    name: &dyn Fn(&str) -> String,
    context: EmitContext<'_>,
    push: &mut dyn FnMut(String, bool, String) -> String,
) -> String {
    let warm: Vec<&ScannedFile> = reference.warm.iter().flat_map(|source| &source.files).collect();
    let cold: Vec<&ScannedFile> = reference.cold.iter().flat_map(|source| &source.files).collect();
    let both = || [warm.as_slice(), cold.as_slice()].concat();
    let scan = |files: &[&ScannedFile], ids: Option<&str>, with_path: bool| {
        scan_without(reference, files, ids, with_path, context.lake_prefix)
    };
    let newest = |scan: &str, candidates: &str| {
        format!("SELECT * EXCLUDE (_tc_path, _tc_row) FROM ({scan}){candidates} QUALIFY {NEWEST}")
    };
    match reference.merge {
        MergeStrategy::Window => {
            let scan = scan(&both(), dirty, true);
            let candidates = reference.prefilter.as_ref().map_or_else(String::new, |condition| {
                format!(" WHERE row_id IN (SELECT row_id FROM ({scan}) WHERE {condition})")
            });
            newest(&scan, &candidates)
        }
        MergeStrategy::None | MergeStrategy::Positions => scan(&both(), dirty, false),
        MergeStrategy::Layered => {
            let mut parts = Vec::new();
            let mut superseded = dirty.map(str::to_owned);
            if !warm.is_empty() {
                // Only versions of rows that several delta files hold need the window.
                let (once, shared): (Vec<&ScannedFile>, Vec<&ScannedFile>) =
                    warm.into_iter().partition(|scanned| scanned.once);
                let mut versions = Vec::new();
                if !once.is_empty() {
                    versions.push(scan(&once, dirty, false));
                }
                if !shared.is_empty() {
                    versions.push(newest(&scan(&shared, dirty, true), ""));
                }
                let delta = push(name("delta"), true, versions.join(" UNION ALL "));
                parts.push(format!("SELECT * FROM {}", Ident(&delta)));
                if !cold.is_empty() {
                    let dirty = dirty.map(|dirty| format!(" UNION ALL SELECT row_id FROM {}", Ident(dirty)));
                    superseded = Some(push(
                        name("superseded"),
                        false,
                        format!("SELECT row_id FROM {}{}", Ident(&delta), dirty.unwrap_or_default()),
                    ));
                }
            }
            if !cold.is_empty() {
                parts.push(scan(&cold, superseded.as_deref(), false));
            }
            parts.join(" UNION ALL ")
        }
    }
}

/// Scans files; of those that may hold superseded ids, without the rows in the relation `ids`.
fn scan_without(
    reference: &ReferencePlan,
    files: &[&ScannedFile],
    ids: Option<&str>,
    with_path: bool,
    lake_prefix: &str,
) -> String {
    let (checked, whole): (Vec<&ScannedFile>, Vec<&ScannedFile>) =
        files.iter().partition(|scanned| scanned.anti_join && ids.is_some());
    let scans = |files: Vec<&ScannedFile>| {
        let files: Vec<FilePart<'_>> = files
            .into_iter()
            .map(|scanned| FilePart { rows: scanned.rows, ..FilePart::whole(&scanned.file) })
            .collect();
        let attributes: Vec<usize> = source_attributes(reference).collect();
        (!files.is_empty())
            .then(|| file_scans(&reference.entity, &attributes, &files, with_path, lake_prefix, &mut |_| 0))
    };
    let checked = scans(checked)
        .zip(ids)
        .map(|(scans, ids)| format!("SELECT * FROM ({scans}) f ANTI JOIN {} d ON f.row_id = d.row_id", Ident(ids)));
    checked.into_iter().chain(scans(whole)).collect::<Vec<_>>().join(" UNION ALL ")
}

/// The versions in files that are rows: all that aren't left out by position. Live ones, unless tombstones are asked for.
fn visible_versions(
    reference: &ReferencePlan,
    include_deleted: bool,
    lake_prefix: &str,
    hidden: &mut Vec<HiddenScan>,
) -> String {
    let scanned = [&reference.warm, &reference.cold].into_iter().flatten().flat_map(|source| &source.files);
    let files: Vec<FilePart<'_>> = scanned
        .map(|scanned| FilePart {
            file: &scanned.file,
            rows: scanned.rows,
            has_hidden: scanned.hidden > 0,
            // Tombstones are among the versions that are left out.
            may_hold_tombstones: include_deleted && scanned.file.may_hold_tombstones,
        })
        .collect();
    let attributes: Vec<usize> = source_attributes(reference).collect();
    file_scans(&reference.entity, &attributes, &files, false, lake_prefix, &mut |files| {
        hidden.push(HiddenScan {
            schema_id: reference.entity.schema_id,
            files: files.iter().map(|file| file.path.clone()).collect(),
            tombstones: !include_deleted,
        });
        hidden.len() - 1
    })
}

/// What of a file is read.
#[derive(Clone, Copy)]
struct FilePart<'a> {
    file: &'a LakeFile,
    /// Row numbers, if not all ([`ScannedFile::rows`]).
    rows: Option<(u64, u64)>,
    has_hidden: bool,
    may_hold_tombstones: bool,
}

impl<'a> FilePart<'a> {
    fn whole(file: &'a LakeFile) -> Self {
        Self { file, rows: None, has_hidden: false, may_hold_tombstones: file.may_hold_tombstones }
    }
}

/// What files have in common that are read alike.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct FileShape {
    tier: Tier,
    rows: Option<(u64, u64)>,
    has_hidden: bool,
    may_hold_tombstones: bool,
    /// Of the needed columns, with their names as DuckDB compares them; absent ones are NULL.
    columns: Vec<Option<(String, FileType)>>,
    /// System times that may hold what is no time.
    doubtful_times: Vec<&'static str>,
}

const SYSTEM_TIMES: [&str; 3] = ["created_at", "changed_at", "deleted_at"];

impl FileShape {
    fn of(part: FilePart<'_>, entity: &Entity, attributes: &BTreeSet<usize>) -> Self {
        let FilePart { file, rows, has_hidden, may_hold_tombstones } = part;
        let system = ["row_id"].into_iter().chain(SYSTEM_TIMES).map(|name| file.column(name));
        let attributes = attributes.iter().map(|index| attribute_column(file, &entity.attributes[*index]));
        let shape = |column: &FileColumn| (column.name.to_ascii_lowercase(), column.file_type.clone());
        let is_read = |name: &str| name != "deleted_at" || may_hold_tombstones;
        let doubtful = |name: &&str| is_read(name) && file.column(name).is_some_and(|column| !holds_times(column));
        Self {
            tier: file.tier,
            rows,
            has_hidden,
            may_hold_tombstones,
            columns: system.chain(attributes).map(|column| column.map(shape)).collect(),
            doubtful_times: SYSTEM_TIMES.into_iter().filter(doubtful).collect(),
        }
    }
}

/// Where a file keeps an attribute; files in which that is ambiguous are refused before.
fn attribute_column<'a>(file: &'a LakeFile, attribute: &Attribute) -> Option<&'a FileColumn> {
    file.stored_column(&attribute.column).ok().flatten()
}

/// One `read_parquet` with an explicit list for each set of files that read alike. `union_by_name` would open every
/// footer at bind (measured: 1,886 files, 114 s against 3 s). `hide` gets the files of a scan that leaves rows out, and
/// gives its number.
fn file_scans(
    entity: &Entity,
    attributes: &[usize],
    files: &[FilePart<'_>],
    with_path: bool,
    lake_prefix: &str,
    hide: &mut dyn FnMut(&[&LakeFile]) -> usize,
) -> String {
    let needed: BTreeSet<usize> = attributes.iter().copied().collect();
    let mut groups: BTreeMap<FileShape, Vec<&LakeFile>> = BTreeMap::new();
    for part in files.iter().copied() {
        let file = part.file;
        let shape = FileShape::of(part, entity, &needed);
        groups.entry(shape).or_default().push(file);
    }
    let scans: Vec<String> = groups
        .into_iter()
        .map(|(FileShape { tier, rows, has_hidden, may_hold_tombstones, doubtful_times, .. }, files)| {
            let sample = files[0];
            let tier = tier.as_str();
            // The path within the lake; the count is of characters, from 1.
            let path = format!("substr(_tc_path, {})", lake_prefix.chars().count() + 2);
            let place = Place { tier, path: &path };
            let mut needs_path = with_path || !doubtful_times.is_empty();
            let mut columns = vec!["CAST(row_id AS UUID) AS row_id".to_owned()];
            for attribute in attributes.iter().map(|index| &entity.attributes[*index]) {
                let expression = attribute_column(sample, attribute).and_then(|found| {
                    needs_path |= is_checked(&found.file_type, attribute);
                    read_expression(&Ident(&found.name).to_string(), &found.file_type, attribute, place)
                });
                let expression = expression.unwrap_or_else(|| format!("CAST(NULL AS {})", attribute.duckdb_type()));
                columns.push(format!("{expression} AS {}", Ident(&attribute.column)));
            }
            for name in SYSTEM_TIMES {
                // Of files without tombstones nothing need be read: the optimizer drops the filter for live rows.
                let stored = if name == "deleted_at" && !may_hold_tombstones { "NULL" } else { name };
                columns.push(if doubtful_times.contains(&name) {
                    format!("{} AS {name}", checked_millis(name, place))
                } else {
                    format!("CAST({stored} AS BIGINT) AS {name}")
                });
            }
            columns.push(format!("'{tier}' AS _tier"));
            if with_path {
                columns.push("_tc_path".to_owned());
                // A column of a file's own of that name says nothing of the place.
                let has_own = files.iter().any(|file| file.column("file_row_number").is_some());
                columns.push(format!("{} AS _tc_row", if has_own { "0" } else { "file_row_number" }));
            }
            let path_option = if needs_path { ", filename = '_tc_path'" } else { "" };
            let rows_option = if rows.is_some() { ", file_row_number = true" } else { "" };
            let mut conditions = Vec::new();
            if let Some((from, to)) = rows {
                conditions.push(format!("file_row_number >= {from} AND file_row_number < {to}"));
            }
            if has_hidden {
                conditions.push(format!("NOT {HIDDEN_FUNCTION}({}, file_index, file_row_number)", hide(&files)));
            }
            let condition =
                if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
            let paths: Vec<String> =
                files.iter().map(|file| duckdb_text(&format!("{lake_prefix}/{}", file.path))).collect();
            format!(
                "SELECT {} FROM read_parquet([{}], hive_partitioning = false{path_option}{rows_option}){condition}",
                columns.join(", "),
                paths.join(", ")
            )
        })
        .collect();
    scans.join(" UNION ALL ")
}

/// The statement that merges whole files: `row_id` as text, the attributes, `created_at`, `changed_at` and `deleted_at`
/// of every version, by `row_id` and then the winner first (docs/contract.md, "Last write wins"). `files` isn't empty,
/// and every file passed [`crate::planner::check_file`].
pub fn merge_statement(entity: &Entity, files: &[&LakeFile], lake_prefix: &str) -> String {
    let attributes: Vec<usize> = (0..entity.attributes.len()).collect();
    let whole: Vec<FilePart<'_>> = files.iter().map(|file| FilePart::whole(file)).collect();
    let scan = file_scans(entity, &attributes, &whole, true, lake_prefix, &mut |_| 0);
    let mut columns = vec!["CAST(f.row_id AS VARCHAR) AS row_id".to_owned()];
    columns.extend(entity.attributes.iter().map(merged_column));
    columns.extend(["created_at", "changed_at", "deleted_at"].map(str::to_owned));
    format!(
        "SELECT {} FROM ({scan}) f ORDER BY f.row_id, f.changed_at DESC NULLS LAST, f._tier DESC, \
         (COALESCE(f.deleted_at, 0) <> 0) DESC, f._tc_path DESC, f._tc_row DESC",
        columns.join(", ")
    )
}

/// The statement that lists the versions in one file for the version index: `row_id` as 16 bytes, `changed_at` in
/// milliseconds, 1 for a tombstone and 0 otherwise, and the row's number, by `row_id` and row number. It fails on a time
/// that is none, as every query does that reads the version.
pub fn versions_statement(file: &LakeFile, lake_prefix: &str) -> String {
    let place = Place { tier: file.tier.as_str(), path: &duckdb_text(&file.path) };
    let millis = |name: &str| match file.column(name) {
        Some(column) if !holds_times(column) => checked_millis(name, place),
        Some(_) => format!("CAST({name} AS BIGINT)"),
        None => "CAST(NULL AS BIGINT)".to_owned(),
    };
    let changed_at = millis("changed_at");
    let deleted_at = if file.may_hold_tombstones { millis("deleted_at") } else { "0".to_owned() };
    let url = duckdb_text(&format!("{lake_prefix}/{}", file.path));
    format!(
        "SELECT CAST(CAST(row_id AS UUID) AS BLOB), {changed_at}, CAST(COALESCE({deleted_at}, 0) <> 0 AS INTEGER), \
         file_row_number FROM read_parquet([{url}], hive_partitioning = false) \
         ORDER BY CAST(row_id AS UUID), file_row_number"
    )
}

/// UUIDs leave DuckDB as text and JSON is text.
fn merged_column(attribute: &crate::catalog::Attribute) -> String {
    use crate::catalog::ScalarType;
    let column = Ident(&attribute.column);
    let list = if attribute.list { "[]" } else { "" };
    match attribute.scalar {
        ScalarType::Uuid | ScalarType::Json => format!("CAST(f.{column} AS VARCHAR{list}) AS {column}"),
        _ => format!("f.{column}"),
    }
}

/// The statement that reads the row ids of files, as text.
pub fn row_ids_statement(files: &[&LakeFile], lake_prefix: &str) -> String {
    let parts: Vec<String> = files
        .iter()
        .map(|file| {
            let url = duckdb_text(&format!("{lake_prefix}/{}", file.path));
            format!(
                "SELECT CAST(CAST(row_id AS UUID) AS VARCHAR) AS row_id FROM read_parquet([{url}], hive_partitioning = false)"
            )
        })
        .collect();
    parts.join(" UNION ALL ")
}

/// The statement that tells whether no row id occurs twice in a file: one boolean.
pub fn unique_rows_statement(file: &LakeFile, lake_prefix: &str) -> String {
    let url = duckdb_text(&format!("{lake_prefix}/{}", file.path));
    format!(
        "SELECT count(*) = count(DISTINCT CAST(row_id AS UUID)) FROM read_parquet([{url}], hive_partitioning = false)"
    )
}

/// The statement that reads all that a reference needs of files, and fails when one of them can't be read.
pub fn probe_statement(reference: &ReferencePlan, files: &[&ScannedFile], lake_prefix: &str) -> String {
    let attributes: Vec<usize> = source_attributes(reference).collect();
    let whole = files.iter().map(|scanned| FilePart { rows: scanned.rows, ..FilePart::whole(&scanned.file) });
    let parts: Vec<FilePart<'_>> = whole.collect();
    probe(&file_scans(&reference.entity, &attributes, &parts, false, lake_prefix, &mut |_| 0))
}

/// The same of all attributes and whole files.
pub fn whole_probe_statement(entity: &Entity, files: &[&LakeFile], lake_prefix: &str) -> String {
    let attributes: Vec<usize> = (0..entity.attributes.len()).collect();
    let parts: Vec<FilePart<'_>> = files.iter().map(|file| FilePart::whole(file)).collect();
    probe(&file_scans(entity, &attributes, &parts, false, lake_prefix, &mut |_| 0))
}

/// The same of the first row of each file.
pub fn first_row_probe_statement(entity: &Entity, files: &[&LakeFile], lake_prefix: &str) -> String {
    let attributes: Vec<usize> = (0..entity.attributes.len()).collect();
    let scans = files.iter().map(|file| {
        let scan = file_scans(entity, &attributes, &[FilePart::whole(file)], false, lake_prefix, &mut |_| 0);
        format!("(SELECT * FROM ({scan}) LIMIT 1)")
    });
    probe(&scans.collect::<Vec<_>>().join(" UNION ALL "))
}

/// Reads every value of a relation.
fn probe(relation: &str) -> String {
    format!("SELECT max(hash(COLUMNS(*))) FROM ({relation})")
}
