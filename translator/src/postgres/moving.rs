//! Statements by which `prune` takes rows out of PostgreSQL that the lake holds, and `restore` brings rows back.
//!
//! Everything runs in transactions of READ COMMITTED under [`super::MOVING`]: rows are locked by one statement, and the
//! next one, with a newer snapshot, looks again at all that must hold. A row that is being written is skipped; one that
//! was written meanwhile no longer qualifies.

use super::TableNames;
use super::layout::Rows;
use super::tracking::bookkeeping_schema;
use crate::catalog::{Entity, OwnTable};
use crate::derived::row_id_sql;
use crate::quote::{Ident, TableName, postgres_text};

/// A foreign key that points to a table, as pruning must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldingKey<'a> {
    /// The table that refers, quoted.
    pub from: &'a str,
    /// The columns that refer and those they refer to.
    pub columns: &'a [(String, String)],
}

/// Rows of the table that no dirty entry knows and that were changed at `$2` or before, behind the row id `$1`, by row id,
/// at most `$3`: `row_id uuid`, `flushed_at int8`, `changed_at int8` of their last entry.
pub fn prune_candidates_sql(tables: &TableNames, entity: &Entity, table: &OwnTable) -> String {
    let log = TableName(&tables.change_log);
    format!(
        "SELECT c.row_id, c.flushed_at, c.changed_at FROM {log} c {} WHERE c.schema_id = {} AND c.row_id > $1 \
         AND c.flushed_at <> 0 AND COALESCE(c.deleted_at, 0) = 0 AND c.changed_at <= $2 AND {} \
         ORDER BY c.row_id LIMIT $3",
        Rows::of(tables, entity).own_rows(table),
        entity.schema_id,
        is_last(tables, "c")
    )
}

/// Rows of a partition, given as a quoted name, that no dirty entry knows and that were changed at `$1` or before, by row
/// id, with the columns of [`prune_candidates_sql`].
pub fn partition_candidates_sql(tables: &TableNames, entity: &Entity, table: &OwnTable, partition: &str) -> String {
    let log = TableName(&tables.change_log);
    format!(
        "SELECT c.row_id, c.flushed_at, c.changed_at FROM {partition} m JOIN {log} c ON c.schema_id = {} AND c.row_id = {} \
         WHERE c.flushed_at <> 0 AND COALESCE(c.deleted_at, 0) = 0 AND c.changed_at <= $1 AND {} ORDER BY c.row_id",
        entity.schema_id,
        row_id_sql(entity, table, "m", bookkeeping_schema(tables)),
        is_last(tables, "c")
    )
}

/// The entry is the last one of its row: there is no dirty one and none that was flushed later.
fn is_last(tables: &TableNames, entry: &str) -> String {
    format!(
        "NOT EXISTS (SELECT FROM {} d WHERE d.schema_id = {entry}.schema_id AND d.row_id = {entry}.row_id AND \
         (d.flushed_at = 0 OR d.flushed_at > {entry}.flushed_at))",
        TableName(&tables.change_log)
    )
}

/// Locks those of the rows `$1` (ids) with the entries `$2` (their `flushed_at`) that nobody is writing: `row_id uuid`.
pub fn prune_lock_sql(tables: &TableNames, entity: &Entity, table: &OwnTable) -> String {
    format!("SELECT c.row_id FROM {} FOR UPDATE OF m SKIP LOCKED", Rows::of(tables, entity).entries_of_arrays(table))
}

/// Counts those of the locked rows `$1`, `$2` that a foreign key refers to: one `int8`.
pub fn prune_held_sql(tables: &TableNames, entity: &Entity, table: &OwnTable, key: &HoldingKey<'_>) -> String {
    format!("SELECT count(*) FROM {} WHERE {}", Rows::of(tables, entity).entries_of_arrays(table), refers(key))
}

fn refers(key: &HoldingKey<'_>) -> String {
    let same: Vec<String> =
        key.columns.iter().map(|(from, to)| format!("r.{} = m.{}", Ident(from), Ident(to))).collect();
    format!("EXISTS (SELECT FROM {} r WHERE {})", key.from, same.join(" AND "))
}

/// Deletes those of the locked rows `$1`, `$2` whose entries are still their last ones and that no foreign key refers to,
/// and counts them: one `int8`.
pub fn prune_delete_sql(tables: &TableNames, entity: &Entity, table: &OwnTable, keys: &[HoldingKey<'_>]) -> String {
    let free: String = keys.iter().map(|key| format!(" AND NOT {}", refers(key))).collect();
    let name = TableName(&table.name);
    let columns: Vec<String> = table.key.iter().map(|key| Ident(&key.column).to_string()).collect();
    let chosen: Vec<String> = columns.iter().map(|column| format!("m.{column}")).collect();
    let same: Vec<String> = columns.iter().map(|column| format!("t.{column} = d.{column}")).collect();
    format!(
        "WITH doomed AS MATERIALIZED (SELECT {} FROM {} WHERE {}{free}), \
         gone AS (DELETE FROM {name} t USING doomed d WHERE {} RETURNING 1) SELECT count(*) FROM gone",
        chosen.join(", "),
        Rows::of(tables, entity).entries_of_arrays(table),
        is_last(tables, "c"),
        same.join(" AND ")
    )
}

/// Counts the rows of a partition, given as a quoted name, that are not among the checked ones of the temporary table
/// [`CHECKED_ROWS`], or no longer qualify, or that a foreign key refers to: one `int8`.
pub fn prune_partition_sql(
    tables: &TableNames,
    entity: &Entity,
    table: &OwnTable,
    partition: &str,
    keys: &[HoldingKey<'_>],
) -> String {
    let row_id = row_id_sql(entity, table, "m", bookkeeping_schema(tables));
    let held: String = keys.iter().map(|key| format!(" OR {}", refers(key))).collect();
    format!(
        "SELECT count(*) FROM {partition} m WHERE NOT EXISTS (SELECT FROM {CHECKED_ROWS} v JOIN {} c \
         ON c.schema_id = {} AND c.row_id = v.row_id AND c.flushed_at = v.flushed_at WHERE v.row_id = {row_id} AND {}){held}",
        TableName(&tables.change_log),
        entity.schema_id,
        is_last(tables, "c")
    )
}

/// The temporary table of rows that were found in the lake: `row_id uuid`, `flushed_at bigint`.
pub const CHECKED_ROWS: &str = "thermocline_checked_rows";

/// Inserts rows that the lake holds: `$1` are the rows as JSON texts. A row that is there already stays: returns the
/// `row_id uuid` of those that came back.
pub fn restore_sql(tables: &TableNames, entity: &Entity, table: &OwnTable, columns: &[&str]) -> String {
    let names: Vec<String> = columns.iter().map(|column| Ident(column).to_string()).collect();
    let values: Vec<String> = names.iter().map(|name| format!("r.{name}")).collect();
    let name = TableName(&table.name);
    format!(
        "INSERT INTO {name} AS m ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM unnest($1::text[]) j (row) CROSS JOIN LATERAL \
         json_populate_record(NULL::{name}, j.row::json) r ON CONFLICT DO NOTHING RETURNING {} AS row_id",
        names.join(", "),
        values.join(", "),
        row_id_sql(entity, table, "m", bookkeeping_schema(tables))
    )
}

/// Takes those of the restored rows `$1` (ids) out again whose last entry is not the live version of `$2` (`changed_at`):
/// they were changed or deleted while they were on their way. Returns the number: one `int8`.
///
/// A row without any entry is as the lake has it.
pub fn restore_undo_sql(tables: &TableNames, entity: &Entity, table: &OwnTable) -> String {
    let name = TableName(&table.name);
    let row_id = row_id_sql(entity, table, "m", bookkeeping_schema(tables));
    format!(
        "WITH stale AS MATERIALIZED (SELECT v.row_id FROM unnest($1::uuid[], $2::bigint[]) v (row_id, changed_at) \
         WHERE EXISTS (SELECT FROM {} c WHERE c.schema_id = {} AND c.row_id = v.row_id AND {} \
         AND (c.changed_at <> v.changed_at OR COALESCE(c.deleted_at, 0) <> 0))), \
         gone AS (DELETE FROM {name} m USING stale s WHERE {row_id} = s.row_id RETURNING 1) SELECT count(*) FROM gone",
        TableName(&tables.change_log),
        entity.schema_id,
        is_last(tables, "c")
    )
}

/// Begins a transaction in which rows are moved.
pub fn moving_transaction_sql() -> String {
    let setting = postgres_text(super::MOVING).unwrap_or_default();
    format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT set_config({setting}, 'on', true)")
}
