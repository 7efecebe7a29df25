//! The planner: a bound query and the facts of the moment to a [`FederatedPlan`]. A function of its input alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bind::{Query, Reference};
use crate::catalog::{Column, Entity};
use crate::derived::row_id_condition;
use crate::hot_query::HotQuery;
use crate::lake::{FileColumn, FileType, IdSet, LakeFile};
use crate::lake_read::{is_millis, is_readable, row_id_expression};
use crate::options::{HotScan, QueryOptions, Tier};
use crate::plan::{
    Degradation, FederatedPlan, HotAccess, HotSource, LakeSource, MergeStrategy, MirrorTable, ReferencePlan, Route,
    ScannedFile,
};
use crate::positions::{PositionFacts, PositionsOfReference, position_proof};
use crate::postgres::{HotStatement, PushedPredicate, Rows, TableNames, hot_select, implied_row_ids, scan_statement};
use crate::predicate::Predicate;
use crate::prune::{may_hold, selectivity};
pub use crate::row_ids::asked_for;
use crate::row_ids::{RowIds, may_share_rows, reads_row_id_only};

/// What the planner knows of the moment.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Size of the dirty set by `schema_id`; absent when PostgreSQL isn't asked.
    pub dirty_rows: BTreeMap<i16, u64>,
    /// Files by `schema_id`, both tiers, by path.
    pub files: BTreeMap<i16, Vec<LakeFile>>,
    /// The dirty ids by `schema_id`, when they are known.
    pub dirty_ids: BTreeMap<i16, Arc<IdSet>>,
    /// The row ids of delta files by path, when they are known.
    pub delta_ids: BTreeMap<String, Arc<IdSet>>,
    /// What is known by position of the versions in files, by `schema_id`: of all files of the tiers that answer.
    pub positions: BTreeMap<i16, PositionFacts>,
    /// Versions in files are merged by `window`, whatever would be right too.
    pub window_only: bool,
    /// The mirrored dirty sets by `schema_id`, with every attribute that the query reads.
    pub mirrors: BTreeMap<i16, MirrorTable>,
    /// What is missing, and why (a source is down and the options give leave).
    pub degraded: Degradation,
    /// Notes for the client.
    pub warnings: Vec<String>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("the file `{path}` has no column `{column}`; every file needs row_id, created_at and changed_at")]
    MissingColumn { path: String, column: &'static str },
    #[error("column `{column}` of the file `{path}` is {found}, which can't be read as {declared} without loss")]
    WrongType { path: String, column: String, found: String, declared: String },
    #[error("`{first}` and `{second}` of the file `{path}` could both be the column `{column}`; rename one of them")]
    AmbiguousColumn { path: String, column: String, first: String, second: String },
    #[error("the file name `{path}` holds one of * ? [, which can't be read by name")]
    UnreadableName { path: String },
    #[error(
        "max_scan_rows: the query would read about {estimate} rows, above the limit of {limit}; narrow it or raise max_scan_rows"
    )]
    TooManyRows { estimate: u64, limit: u64 },
}

/// Plans a query.
///
/// # Errors
/// A file that can't be read as the catalog declares it, an estimate above `max_scan_rows`.
pub fn plan(
    query: &Query,
    facts: &Facts,
    options: &QueryOptions,
    tables: &TableNames,
) -> Result<FederatedPlan, PlanError> {
    let mut references = query
        .references
        .iter()
        .map(|reference| plan_reference(reference, facts, options, tables))
        .collect::<Result<Vec<_>, _>>()?;
    let (route, mut route_reason) = route(&references, options, &facts.degraded);
    let hot_query = match (route, references.as_slice()) {
        (Route::Hot, [ReferencePlan { hot: Some(hot), .. }]) if hot.access == HotAccess::Copy => {
            HotQuery::read(query, &hot.pushed, tables, options.include_deleted)
        }
        _ => None,
    };
    if let Some(hot_query) = &hot_query {
        if let Some(hot) = references.first_mut().and_then(|reference| reference.hot.as_mut()) {
            hot.statement = hot_query.statement.clone();
        }
        route_reason.push_str("; PostgreSQL answers the query whole");
    }
    let plan = FederatedPlan {
        route,
        route_reason,
        hot_query,
        consistency: options.consistency,
        tiers: options.tiers,
        include_deleted: options.include_deleted,
        references,
        degraded: facts.degraded.clone(),
        warnings: facts.warnings.clone(),
    };
    if let Some(limit) = options.max_scan_rows {
        let estimate = plan.scan_row_estimate();
        if estimate > limit {
            return Err(PlanError::TooManyRows { estimate, limit });
        }
    }
    Ok(plan)
}

/// Whether the row ids of delta files would sharpen the plan: under `layered` they tell which base files need no
/// anti-join.
pub fn wants_delta_ids(files: &[LakeFile]) -> bool {
    let files: Vec<&LakeFile> = files.iter().collect();
    let has = |tier| files.iter().any(|file| file.tier == tier);
    has(Tier::Warm) && has(Tier::Cold) && merge_strategy(&files, false).0 == MergeStrategy::Layered
}

/// Why the files of an entity can only be merged by `window`; `None` when they needn't be.
pub fn window_reason(files: &[LakeFile]) -> Option<String> {
    let (strategy, reason) = merge_strategy(&files.iter().collect::<Vec<_>>(), false);
    (strategy == MergeStrategy::Window).then_some(reason)
}

fn route(references: &[ReferencePlan], options: &QueryOptions, degraded: &Degradation) -> (Route, String) {
    let hot = references.iter().any(|reference| reference.hot.is_some());
    let lake = references.iter().any(|reference| reference.files().next().is_some());
    let missing = |tier| degraded.missing_tiers.contains(&tier);
    let reason = |text: &str| text.to_owned();
    if references.is_empty() {
        return (Route::Lake, reason("the query reads no entity"));
    }
    if !options.tiers.contains(Tier::Hot) {
        return (Route::Lake, format!("tiers = {}: the lake as it was last flushed", options.tiers));
    }
    if !options.tiers.any_lake() {
        return (Route::Hot, reason("tiers = hot"));
    }
    if missing(Tier::Hot) {
        return (Route::Lake, reason("PostgreSQL is unavailable and consistency = eventual"));
    }
    if missing(Tier::Cold) {
        return (Route::Hot, reason("the lake is unavailable and allow_partial = true"));
    }
    match (hot, lake) {
        (true, true) => (Route::Federated, reason("rows are dirty in PostgreSQL and files hold the others")),
        (true, false) => (Route::Hot, reason("no file of the lake can hold a row of the answer")),
        (false, _) => (Route::Lake, reason("the dirty set is empty")),
    }
}

fn plan_reference(
    reference: &Reference,
    facts: &Facts,
    options: &QueryOptions,
    tables: &TableNames,
) -> Result<ReferencePlan, PlanError> {
    let entity = &reference.entity;
    let mut columns = vec![Column::RowId];
    columns
        .extend(entity.all_columns().filter(|column| *column != Column::RowId && reference.columns.contains(column)));

    let dirty_rows = facts.dirty_rows.get(&entity.schema_id).copied();
    let hot = dirty_rows.filter(|rows| *rows > 0 && options.tiers.contains(Tier::Hot)).map(|rows| {
        match facts.mirrors.get(&entity.schema_id) {
            Some(mirror) => mirrored_source(reference, mirror),
            None => hot_source(reference, &columns, rows, options, tables),
        }
    });

    let files = facts.files.get(&entity.schema_id).map_or(&[][..], Vec::as_slice);
    let files: Vec<&LakeFile> = files.iter().filter(|file| options.tiers.contains(file.tier)).collect();
    for file in &files {
        check_file(file, entity)?;
    }
    let predicates: Vec<&Predicate> =
        reference.conjuncts.iter().filter_map(|conjunct| conjunct.predicate.as_ref().ok()).collect();
    // A condition on the key of a table prunes as one on the row ids that are made of it.
    let implied = row_id_condition(entity, &predicates);
    let predicates: Vec<&Predicate> = predicates.into_iter().chain(&implied).collect();
    let any_dirty = dirty_rows.is_some_and(|rows| rows > 0);
    let positions = facts.positions.get(&entity.schema_id);
    let (merge, merge_proof) = match merge_strategy(&files, any_dirty) {
        (merge, _)
            if facts.window_only && files.iter().any(|file| file.row_count > 0) && merge != MergeStrategy::Window =>
        {
            (MergeStrategy::Window, "the settings want it".to_owned())
        }
        (MergeStrategy::None, proof) => (MergeStrategy::None, proof),
        (other, proof) => match positions.and_then(|positions| position_proof(&files, positions)) {
            Some(proof) => (MergeStrategy::Positions, proof),
            None => (other, proof),
        },
    };
    let dirty_ids = any_dirty.then(|| facts.dirty_ids.get(&entity.schema_id).map(Arc::as_ref));
    let row_ids = RowIds::new(&predicates, &files, merge, dirty_ids, &facts.delta_ids);
    let positions = PositionsOfReference::new(positions, merge, &predicates, options.include_deleted);
    let source = |tier| lake_source(reference, &files, &predicates, tier, merge, &row_ids, &positions);
    let prefilter = (merge == MergeStrategy::Window).then(|| prefilter(entity, &files, &predicates)).flatten();
    Ok(ReferencePlan {
        entity: Arc::clone(entity),
        alias: reference.alias.clone(),
        columns,
        dirty_rows,
        merge,
        merge_proof,
        prefilter,
        hot,
        warm: source(Tier::Warm),
        cold: source(Tier::Cold),
        kept_back: reference.kept_back.clone(),
    })
}

fn hot_source(
    reference: &Reference,
    columns: &[Column],
    dirty_rows: u64,
    options: &QueryOptions,
    tables: &TableNames,
) -> HotSource {
    let entity = &reference.entity;
    let mut pushed = Vec::new();
    let mut residual = reference.kept_back.clone();
    for conjunct in &reference.conjuncts {
        match PushedPredicate::new(conjunct, entity) {
            Ok(predicate) => {
                if predicate.pushdown == crate::postgres::Pushdown::Inexact {
                    residual.push(format!("{}: PostgreSQL lets a superset through", conjunct.text));
                }
                pushed.push(predicate);
            }
            Err(reason) => residual.push(format!("{}: {reason}", conjunct.text)),
        }
    }
    let columns = columns.iter().copied();
    match options.hot_scan {
        HotScan::Copy => {
            let mut statement = hot_select(tables, entity, columns, &pushed, options.include_deleted);
            // The columns of a key of several say only together which rows they mean.
            if entity.own_table().is_some_and(|table| table.key.len() > 1) {
                implied_row_ids(reference).into_iter().for_each(|ids| statement.select.filter(ids));
            }
            let statement = statement.print();
            HotSource { statement, pushed, residual, row_estimate: dirty_rows, access: HotAccess::Copy }
        }
        HotScan::Scan => {
            let of_entries = pushed.iter().filter(|pushed| pushed.reads_only_change_log);
            let inconsistent_sql =
                Rows::of(tables, entity).inconsistent_sql(of_entries.map(|pushed| pushed.sql.clone()));
            let access = HotAccess::Scan { inconsistent_sql };
            let (statement, pushed) =
                scan_statement(tables, entity, columns, &reference.conjuncts, options.include_deleted);
            // Whatever the scans let through, the user's own filter sees.
            let filtered = reference.conjuncts.iter().map(|conjunct| format!("{}: DuckDB filters", conjunct.text));
            let residual = reference.kept_back.iter().cloned().chain(filtered).collect();
            HotSource { statement, pushed, residual, row_estimate: dirty_rows, access }
        }
    }
}

/// Rows that DuckDB holds already: it filters them, and PostgreSQL gets no statement.
fn mirrored_source(reference: &Reference, mirror: &MirrorTable) -> HotSource {
    let filtered = reference.conjuncts.iter().map(|conjunct| format!("{}: DuckDB filters", conjunct.text));
    HotSource {
        statement: HotStatement { sql: String::new(), columns: Vec::new(), reads: Vec::new() },
        pushed: Vec::new(),
        residual: reference.kept_back.iter().cloned().chain(filtered).collect(),
        row_estimate: mirror.rows,
        access: HotAccess::Mirror(mirror.clone()),
    }
}

/// Files of which only some rows are read: each takes a scan of its own, and binding many costs more than they save.
const MAX_PARTS: usize = 16;

fn lake_source(
    reference: &Reference,
    files: &[&LakeFile],
    predicates: &[&Predicate],
    tier: Tier,
    merge: MergeStrategy,
    row_ids: &RowIds<'_>,
    positions: &PositionsOfReference<'_>,
) -> Option<LakeSource> {
    let of_tier: Vec<&LakeFile> = files.iter().copied().filter(|file| file.tier == tier).collect();
    if of_tier.is_empty() {
        return None;
    }
    // Of a file that holds each row once, and of which no version hides another one, all bounds may be used.
    let filters_at_scan = match merge {
        MergeStrategy::Window => false,
        MergeStrategy::Layered => tier == Tier::Cold,
        MergeStrategy::None | MergeStrategy::Positions => true,
    };
    let files: Vec<&LakeFile> = of_tier
        .iter()
        .copied()
        .filter(|file| file.row_count > 0 && row_ids.may_answer(file) && positions.may_answer(file))
        .filter(|file| {
            predicates.iter().all(|predicate| may_hold(file, &reference.entity, predicate, !filters_at_scan))
        })
        .collect();
    let once = match (merge, tier) {
        (MergeStrategy::Window, _) => vec![false; files.len()],
        (MergeStrategy::Layered, Tier::Warm) => row_ids.are_once(&files),
        (MergeStrategy::Layered | MergeStrategy::None | MergeStrategy::Positions, _) => vec![true; files.len()],
    };
    let mut rows: Vec<Option<(u64, u64)>> = files
        .iter()
        .map(|file| positions.rows(file).or_else(|| row_ids.rows_that_may_answer(file, predicates)))
        .collect();
    if rows.iter().flatten().count() > MAX_PARTS {
        rows.fill(None);
    }
    let files = files.into_iter().zip(once).zip(rows).map(|((file, once), rows)| ScannedFile {
        file: file.clone(),
        anti_join: merge != MergeStrategy::Positions && row_ids.may_be_superseded(file),
        once,
        rows,
        hidden: positions.hidden(file, rows),
    });
    let files: Vec<ScannedFile> = files.collect();
    let mut pushed = Vec::new();
    let mut residual = reference.kept_back.clone();
    for conjunct in &reference.conjuncts {
        match &conjunct.predicate {
            Ok(predicate) if filters_at_scan || reads_row_id_only(predicate) => {
                pushed.push(predicate.to_duckdb(&reference.entity, None));
            }
            Ok(_) => residual.push(format!("{}: filters see winning versions only", conjunct.text)),
            Err(reason) => residual.push(format!("{}: {reason}", conjunct.text)),
        }
    }
    Some(LakeSource { tier, files_total: of_tier.len(), files, pushed, residual })
}

/// Rows of which no version passes the filter need no window. Worth a second scan only when few rows pass.
fn prefilter(entity: &Entity, files: &[&LakeFile], predicates: &[&Predicate]) -> Option<String> {
    const WORTH_A_SCAN: f64 = 0.15;
    let useful: Vec<&Predicate> =
        predicates.iter().copied().filter(|predicate| !reads_row_id_only(predicate)).collect();
    let share: f64 = useful.iter().map(|predicate| selectivity(files, entity, predicate)).product();
    if useful.is_empty() || share > WORTH_A_SCAN {
        return None;
    }
    // `created_at` and `updated_at` have other names inside the scans.
    let on_attributes = |predicate: &&Predicate| {
        let mut columns = Vec::new();
        predicate.columns(&mut columns);
        columns.iter().all(|column| matches!(column, Column::RowId | Column::Attribute(_)))
    };
    let conditions: Vec<String> =
        useful.into_iter().filter(on_attributes).map(|predicate| predicate.to_duckdb(entity, None)).collect();
    (!conditions.is_empty()).then(|| conditions.join(" AND "))
}

/// Chooses the merge strategy, and says what proves it.
fn merge_strategy(files: &[&LakeFile], any_dirty: bool) -> (MergeStrategy, String) {
    let of = |tier| files.iter().copied().filter(move |file| file.tier == tier && file.row_count > 0);
    let base: Vec<&LakeFile> = of(Tier::Cold).collect();
    let delta: Vec<&LakeFile> = of(Tier::Warm).collect();
    if base.is_empty() && delta.is_empty() {
        return (MergeStrategy::None, "no files".to_owned());
    }
    if let Err(reason) = each_row_once(&base) {
        return (MergeStrategy::Window, reason);
    }
    if delta.is_empty() {
        let proof = "each row is once in base: unique files with disjoint row_id ranges".to_owned();
        return (if any_dirty { MergeStrategy::Layered } else { MergeStrategy::None }, proof);
    }
    if base.is_empty() {
        if !any_dirty && each_row_once(&delta).is_ok() {
            return (
                MergeStrategy::None,
                "each row is once in delta: unique files with disjoint row_id ranges".to_owned(),
            );
        }
        return (MergeStrategy::Layered, "no base files".to_owned());
    }
    for newer in &base {
        for older in &delta {
            if !may_share_rows(newer, older) {
                continue;
            }
            match (newer.changed_at_range, older.changed_at_range) {
                (Some((_, base_newest)), Some((delta_oldest, _))) if base_newest <= delta_oldest => {}
                _ => {
                    let reason = format!("`{}` may hold a newer version of a row than `{}`", newer.path, older.path);
                    return (MergeStrategy::Window, reason);
                }
            }
        }
    }
    let proof = "each row is once in base (unique files, disjoint row_id ranges) and no base version is newer than a \
                 delta version of the same row (changed_at ranges)";
    (MergeStrategy::Layered, proof.to_owned())
}

/// Whether the statistics prove that no row occurs twice in these files; otherwise why not.
fn each_row_once(files: &[&LakeFile]) -> Result<(), String> {
    if let Some(file) = files.iter().find(|file| !file.unique_rows) {
        return Err(format!("`{}` isn't known to hold each row once", file.path));
    }
    if files.len() < 2 {
        return Ok(());
    }
    let mut ranges = Vec::new();
    for file in files {
        let Some((low, high)) = file.row_id_range else {
            return Err(format!("the row_id range of `{}` isn't known", file.path));
        };
        ranges.push((low, high, &file.path));
    }
    ranges.sort_unstable();
    match ranges.windows(2).find(|pair| pair[0].1 >= pair[1].0) {
        Some(pair) => Err(format!("the row_id ranges of `{}` and `{}` overlap", pair[0].2, pair[1].2)),
        None => Ok(()),
    }
}

/// Refuses a file that can't be read as the catalog declares it (docs/contract.md, "Lake files").
///
/// # Errors
/// A column that is missing, or of a type without a lossless cast; names the file and the column.
pub fn check_file(file: &LakeFile, entity: &Entity) -> Result<(), PlanError> {
    if file.path.contains(['*', '?', '[']) {
        return Err(PlanError::UnreadableName { path: file.path.clone() });
    }
    let wrong = |column: &str, found: &FileType, declared: &str| PlanError::WrongType {
        path: file.path.clone(),
        column: column.to_owned(),
        found: found.to_string(),
        declared: declared.to_owned(),
    };
    let stored = |name: &str| {
        file.stored_column(name).map_err(|ambiguous| PlanError::AmbiguousColumn {
            path: file.path.clone(),
            column: name.to_owned(),
            first: ambiguous.first.to_owned(),
            second: ambiguous.second.to_owned(),
        })
    };
    // The folded name alone is a system column's; attributes are also found under their plain names.
    let system = |name: &str| Ok(stored(name)?.filter(|column| column.name.eq_ignore_ascii_case(name)));
    for name in ["row_id", "created_at", "changed_at"] {
        let column = system(name)?.ok_or_else(|| PlanError::MissingColumn { path: file.path.clone(), column: name })?;
        let fits = if name == "row_id" {
            row_id_expression(&column.file_type).is_some()
        } else {
            is_millis(&column.file_type)
        };
        if !fits {
            return Err(wrong(name, &column.file_type, if name == "row_id" { "UUID" } else { "BIGINT milliseconds" }));
        }
    }
    let fits = |column: &&FileColumn| is_millis(&column.file_type) || column.file_type == FileType::Null;
    if let Some(column) = system("deleted_at")?.filter(|column| !fits(column)) {
        return Err(wrong("deleted_at", &column.file_type, "BIGINT milliseconds"));
    }
    for attribute in &entity.attributes {
        let unreadable = |column: &&FileColumn| !is_readable(&column.file_type, attribute);
        if let Some(column) = stored(&attribute.column)?.filter(unreadable) {
            return Err(wrong(&column.name, &column.file_type, &attribute.duckdb_type()));
        }
    }
    Ok(())
}
