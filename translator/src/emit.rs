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
use crate::catalog::{Column, Entity};
use crate::error::TranslateError;
use crate::lake::{FileType, LakeFile};
use crate::lake_read::read_expression;
use crate::options::Tier;
use crate::plan::{FederatedPlan, MergeStrategy, ReferencePlan, ScannedFile};
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

/// One DuckDB statement, and the temporary tables it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FederatedStatement {
    pub sql: String,
}

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
    let mut relations = Vec::new();
    let numbered = plan.references.len() > 1;
    let mut rows_names = Vec::new();
    for (index, reference) in plan.references.iter().enumerate() {
        let suffix = if numbered { format!("_{}", index + 1) } else { String::new() };
        let name = |base: &str| query.free_name(&format!("{base}{suffix}"));
        rows_names.push(reference_relations(reference, plan, index, &name, context, &mut relations));
    }
    let tree = query.render(&|placeholder| match placeholder {
        Placeholder::Reference(index) => local_name(&rows_names[index]),
        Placeholder::System(index) => temporary_name(&system_table(index)),
    });
    let sql = with_relations(tree, &relations, query.form != StatementForm::Select, context)?;
    Ok(FederatedStatement { sql })
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
    with_relations(query.render(name), &[], query.form != StatementForm::Select, EmitContext { print, lake_prefix: "" })
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
) -> Result<String, TranslateError> {
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
        return Ok(body);
    }
    let recursive = if recursive { "RECURSIVE " } else { "" };
    Ok(format!("WITH {recursive}{} {body}", entries.join(",\n")))
}

/// Appends the relations of one reference and returns the name of the last one, which has the reference's rows.
fn reference_relations(
    reference: &ReferencePlan,
    plan: &FederatedPlan,
    index: usize,
    name: &dyn Fn(&str) -> String,
    context: EmitContext<'_>,
    out: &mut Vec<Relation>,
) -> String {
    let entity = &reference.entity;
    let mut push = |name: String, materialized, sql| {
        out.push(Relation { name: name.clone(), materialized, sql });
        name
    };
    let has_files = reference.files().next().is_some();
    let has_dirty = reference.dirty_rows.is_some_and(|rows| rows > 0);
    let dirty = (has_files && has_dirty).then(|| {
        let table = dirty_table(entity.schema_id);
        push(name("dirty_ids"), true, format!("SELECT CAST(row_id AS UUID) AS row_id FROM temp.main.{}", Ident(&table)))
    });
    let mut sources = Vec::new();
    if has_files {
        let sql = lake_relation(reference, dirty.as_deref(), name, context, &mut push);
        sources.push(push(name("s3_source"), false, sql));
    }
    if reference.hot.is_some() {
        sources.push(push(name("pg_source"), false, hot_relation(reference, index)));
    }
    if sources.is_empty() {
        sources.push(push(name("s3_source"), false, empty_relation(reference)));
    }
    let union: Vec<String> = sources.iter().map(|source| format!("SELECT * FROM {}", Ident(source))).collect();
    let unified = push(name("unified"), false, union.join(" UNION ALL "));
    let columns: Vec<String> = reference.columns.iter().map(|column| public_column(entity, *column)).collect();
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

fn hot_relation(reference: &ReferencePlan, index: usize) -> String {
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

/// Newest version first: ties go to warm over cold, a tombstone over a live version, the greater path (design section 3.3).
const NEWEST: &str = "row_number() OVER (PARTITION BY row_id ORDER BY changed_at DESC NULLS LAST, _tier DESC, \
                      (COALESCE(deleted_at, 0) <> 0) DESC, _tc_path DESC) = 1";

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
        format!("SELECT * EXCLUDE (_tc_path) FROM ({scan}){candidates} QUALIFY {NEWEST}")
    };
    match reference.merge {
        MergeStrategy::Window => {
            let scan = scan(&both(), dirty, true);
            let candidates = reference.prefilter.as_ref().map_or_else(String::new, |condition| {
                format!(" WHERE row_id IN (SELECT row_id FROM ({scan}) WHERE {condition})")
            });
            newest(&scan, &candidates)
        }
        MergeStrategy::None => scan(&both(), dirty, false),
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
        let files: Vec<FilePart<'_>> = files.into_iter().map(|scanned| (&scanned.file, scanned.rows)).collect();
        let attributes: Vec<usize> = source_attributes(reference).collect();
        (!files.is_empty()).then(|| file_scans(&reference.entity, &attributes, &files, with_path, lake_prefix))
    };
    let checked = scans(checked)
        .zip(ids)
        .map(|(scans, ids)| format!("SELECT * FROM ({scans}) f ANTI JOIN {} d ON f.row_id = d.row_id", Ident(ids)));
    checked.into_iter().chain(scans(whole)).collect::<Vec<_>>().join(" UNION ALL ")
}

/// A file, and which row numbers of it to read if not all ([`ScannedFile::rows`]).
type FilePart<'a> = (&'a LakeFile, Option<(u64, u64)>);

/// What files have in common that are read alike.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct FileShape {
    tier: Tier,
    rows: Option<(u64, u64)>,
    may_hold_tombstones: bool,
    /// Of the needed columns; absent ones are NULL.
    types: Vec<Option<FileType>>,
}

/// One `read_parquet` with an explicit list for each set of files that read alike. `union_by_name` would open every
/// footer at bind (measured: 1,886 files, 114 s against 3 s).
fn file_scans(
    entity: &Entity,
    attributes: &[usize],
    files: &[FilePart<'_>],
    with_path: bool,
    lake_prefix: &str,
) -> String {
    let needed: BTreeSet<usize> = attributes.iter().copied().collect();
    let mut groups: BTreeMap<FileShape, Vec<&LakeFile>> = BTreeMap::new();
    for (file, rows) in files.iter().copied() {
        let types = ["row_id", "created_at", "changed_at", "deleted_at"]
            .into_iter()
            .chain(needed.iter().map(|index| entity.attributes[*index].column.as_str()))
            .map(|column| file.column(column).map(|column| column.file_type.clone()))
            .collect();
        let shape = FileShape { tier: file.tier, rows, may_hold_tombstones: file.may_hold_tombstones, types };
        groups.entry(shape).or_default().push(file);
    }
    let scans: Vec<String> = groups
        .into_iter()
        .map(|(FileShape { tier, rows, may_hold_tombstones, .. }, files)| {
            let sample = files[0];
            let mut columns = vec!["CAST(row_id AS UUID) AS row_id".to_owned()];
            for attribute in attributes.iter().map(|index| &entity.attributes[*index]) {
                let column = Ident(&attribute.column).to_string();
                let expression = sample
                    .column(&attribute.column)
                    .and_then(|found| read_expression(&column, &found.file_type, attribute, tier.as_str()))
                    .unwrap_or_else(|| format!("CAST(NULL AS {})", attribute.duckdb_type()));
                columns.push(format!("{expression} AS {column}"));
            }
            columns.push("CAST(created_at AS BIGINT) AS created_at".to_owned());
            columns.push("CAST(changed_at AS BIGINT) AS changed_at".to_owned());
            // Of files without tombstones nothing need be read: the optimizer drops the filter for live rows.
            let deleted_at = if may_hold_tombstones { "deleted_at" } else { "NULL" };
            columns.push(format!("CAST({deleted_at} AS BIGINT) AS deleted_at"));
            columns.push(format!("'{}' AS _tier", tier.as_str()));
            let path_option = if with_path {
                columns.push("_tc_path".to_owned());
                ", filename = '_tc_path'"
            } else {
                ""
            };
            let (rows_option, condition) = match rows {
                Some((from, to)) => {
                    (", file_row_number = true", format!(" WHERE file_row_number >= {from} AND file_row_number < {to}"))
                }
                None => ("", String::new()),
            };
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
/// of every version, by `row_id` and then the winner first (design section 3.3). `files` isn't empty, and every file
/// passed [`crate::planner::check_file`].
pub fn merge_statement(entity: &Entity, files: &[&LakeFile], lake_prefix: &str) -> String {
    let attributes: Vec<usize> = (0..entity.attributes.len()).collect();
    let whole: Vec<FilePart<'_>> = files.iter().map(|file| (*file, None)).collect();
    let scan = file_scans(entity, &attributes, &whole, true, lake_prefix);
    let mut columns = vec!["CAST(f.row_id AS VARCHAR) AS row_id".to_owned()];
    columns.extend(entity.attributes.iter().map(merged_column));
    columns.extend(["created_at", "changed_at", "deleted_at"].map(str::to_owned));
    format!(
        "SELECT {} FROM ({scan}) f ORDER BY f.row_id, f.changed_at DESC NULLS LAST, f._tier DESC, \
         (COALESCE(f.deleted_at, 0) <> 0) DESC, f._tc_path DESC",
        columns.join(", ")
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
