//! What `setup.sql` puts into an application's database: bookkeeping tables, and for each table of an entity the triggers
//! that enter its changes in the change log.
//!
//! ```text
//! INSERT, UPDATE     live entry     changed_at = now, or one more than the row's last one
//! DELETE             tombstone
//! UPDATE of the key  tombstone of the old row and a live entry of the new one
//! TRUNCATE           refused, or a tombstone for every row
//! ```
//!
//! The entry is written in the writer's transaction, so it is there exactly when the change is. The triggers also fire
//! where rows arrive by logical replication (`ENABLE ALWAYS`). Under the transaction-local setting
//! `thermocline.moving = on` they keep quiet: `prune` and `restore` move rows, they don't change them.

use super::TableNames;
use crate::catalog::{Entity, OwnTable};
use crate::derived::{RowIdForm, functions_removal, functions_sql, row_id_sql};
use crate::quote::{Ident, TableName, postgres_text};

/// The setting by which the triggers know that a row is moved and not changed.
pub const MOVING: &str = "thermocline.moving";

/// What must be known of a table to track it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tracking {
    /// Its partitions of all levels, quoted; none of an ordinary table.
    pub partitions: Vec<String>,
    /// Whether the constraint of its key is checked at the end of a transaction only: two rows may have one key before.
    pub has_deferrable_key: bool,
    pub truncate: Truncate,
}

/// What TRUNCATE of a tracked table does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Truncate {
    #[default]
    Refused,
    /// It is a deletion of every row that PostgreSQL holds.
    DeletesRows,
}

/// The schema that the change log and everything beside it is in.
pub fn bookkeeping_schema(tables: &TableNames) -> Option<&str> {
    tables.change_log.split_once('.').map(|(schema, _)| schema)
}

/// The quoted name of a bookkeeping object: the name of the change log with a suffix, in its schema.
pub fn bookkeeping_name(tables: &TableNames, suffix: &str) -> String {
    TableName(&format!("{}_{suffix}", tables.change_log)).to_string()
}

/// The tables that a table entity needs beside the manifest, and the functions of its row ids; each statement is safe to
/// run again.
pub fn bookkeeping_ddl(tables: &TableNames) -> Vec<String> {
    let log = TableName(&tables.change_log);
    let plain = tables.change_log.rsplit('.').next().unwrap_or_default();
    let schemas: std::collections::BTreeSet<&str> = [&tables.change_log, &tables.schema_registry, &tables.lake_file]
        .into_iter()
        .filter_map(|name| name.split_once('.').map(|(schema, _)| schema))
        .collect();
    let mut statements: Vec<String> =
        schemas.iter().map(|schema| format!("CREATE SCHEMA IF NOT EXISTS {}", Ident(schema))).collect();
    statements.extend([
        format!(
            "CREATE TABLE IF NOT EXISTS {} (schema_id smallint PRIMARY KEY, schema_name text NOT NULL UNIQUE)",
            TableName(&tables.schema_registry)
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {log} (schema_id smallint NOT NULL, row_id uuid NOT NULL, flushed_at bigint NOT \
             NULL DEFAULT 0, changed_at bigint NOT NULL, deleted_at bigint, PRIMARY KEY (schema_id, row_id, flushed_at))"
        ),
        // What finds the row of an id that can't be turned back into a key, and when the row came to be.
        format!("ALTER TABLE {log} ADD COLUMN IF NOT EXISTS row_key jsonb, ADD COLUMN IF NOT EXISTS created_at bigint"),
        format!(
            "CREATE INDEX IF NOT EXISTS {} ON {log} (schema_id, row_id) WHERE flushed_at = 0",
            Ident(&format!("{plain}_dirty"))
        ),
        // How far `init --backfill` has come.
        format!(
            "CREATE TABLE IF NOT EXISTS {} (schema_id smallint PRIMARY KEY, last_key jsonb, entered bigint NOT NULL, done \
             boolean NOT NULL)",
            bookkeeping_name(tables, "backfill")
        ),
    ]);
    statements.extend(functions_sql(bookkeeping_schema(tables)));
    statements
}

/// The statements that enter an entity in the registry and track its table, each safe to run again.
///
/// Making the triggers waits for transactions that write the table, and holds new ones up until it commits.
pub fn tracking_ddl(tables: &TableNames, entity: &Entity, table: &OwnTable, tracking: &Tracking) -> Vec<String> {
    let name = TableName(&table.name).to_string();
    let (track, truncate) = (function(tables, entity, "track"), function(tables, entity, "truncate"));
    let mut statements = vec![
        format!(
            "INSERT INTO {} (schema_id, schema_name) VALUES ({}, {}) ON CONFLICT (schema_id) DO NOTHING",
            TableName(&tables.schema_registry),
            entity.schema_id,
            postgres_text(&entity.name).unwrap_or_else(|| "NULL".to_owned())
        ),
        track_function(tables, entity, table, tracking, &track),
        truncate_function(tables, entity, table, tracking.truncate, &truncate),
    ];
    let row_trigger = Ident(&trigger(entity, "row")).to_string();
    statements.extend([
        format!("DROP TRIGGER IF EXISTS {row_trigger} ON {name}"),
        format!(
            "CREATE TRIGGER {row_trigger} AFTER INSERT OR UPDATE OR DELETE ON {name} FOR EACH ROW EXECUTE FUNCTION {track}()"
        ),
    ]);
    let all = || std::iter::once(&name).chain(&tracking.partitions);
    // A partition has the row trigger from its parent, but not in every version whether it fires always.
    statements.extend(all().map(|table| format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {row_trigger}")));
    let truncate_trigger = Ident(&trigger(entity, "truncate")).to_string();
    for table in all() {
        statements.extend([
            format!("DROP TRIGGER IF EXISTS {truncate_trigger} ON {table}"),
            format!(
                "CREATE TRIGGER {truncate_trigger} BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION \
                 {truncate}()"
            ),
            format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {truncate_trigger}"),
        ]);
    }
    statements
}

/// The statements that stop tracking a table.
pub fn tracking_removal(tables: &TableNames, entity: &Entity, table: &OwnTable, tracking: &Tracking) -> Vec<String> {
    let name = TableName(&table.name).to_string();
    let mut statements = vec![format!("DROP TRIGGER IF EXISTS {} ON {name}", Ident(&trigger(entity, "row")))];
    statements.extend(
        std::iter::once(&name)
            .chain(&tracking.partitions)
            .map(|table| format!("DROP TRIGGER IF EXISTS {} ON {table}", Ident(&trigger(entity, "truncate")))),
    );
    statements.extend(
        ["track", "truncate"].map(|what| format!("DROP FUNCTION IF EXISTS {}()", function(tables, entity, what))),
    );
    statements
}

/// The statements that take the bookkeeping away, once no table is tracked.
pub fn bookkeeping_removal(tables: &TableNames) -> Vec<String> {
    let mut statements = functions_removal(bookkeeping_schema(tables));
    statements.extend(
        [
            bookkeeping_name(tables, "backfill"),
            bookkeeping_name(tables, "epoch"),
            TableName(&tables.change_log).to_string(),
            TableName(&tables.schema_registry).to_string(),
            TableName(&tables.lake_file).to_string(),
        ]
        .map(|table| format!("DROP TABLE IF EXISTS {table}")),
    );
    statements.extend(
        ["stamp", "mark"].map(|function| format!("DROP FUNCTION IF EXISTS {}()", bookkeeping_name(tables, function))),
    );
    statements
}

/// Name of a trigger of an entity (`row` or `truncate`).
pub fn trigger(entity: &Entity, what: &str) -> String {
    format!("thermocline_{}_{what}", entity.schema_id)
}

/// The quoted name of a trigger's function (`track` or `truncate`).
pub fn function(tables: &TableNames, entity: &Entity, what: &str) -> String {
    bookkeeping_name(tables, &format!("{what}_{}", entity.schema_id))
}

/// The key of a row as the change log keeps it: none where the row id can be turned back into it.
pub(crate) fn row_key_sql(entity: &Entity, table: &OwnTable, alias: &str) -> String {
    match RowIdForm::of(entity, table) {
        RowIdForm::Uuid | RowIdForm::Integer => "NULL::jsonb".to_owned(),
        RowIdForm::Hash => key_object_sql(table, alias),
    }
}

/// The key of a row as a JSON object.
pub fn key_object_sql(table: &OwnTable, alias: &str) -> String {
    let parts: Vec<String> = table
        .key
        .iter()
        .map(|key| {
            let name = postgres_text(&key.column).unwrap_or_else(|| "NULL".to_owned());
            format!("{name}, {alias}.{}", Ident(&key.column))
        })
        .collect();
    format!("jsonb_build_object({})", parts.join(", "))
}

/// Milliseconds since the Unix epoch, of the clock and not of the transaction's beginning.
pub(crate) const NOW_MS: &str = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

fn track_function(tables: &TableNames, entity: &Entity, table: &OwnTable, tracking: &Tracking, name: &str) -> String {
    let log = TableName(&tables.change_log);
    let id = entity.schema_id;
    let row_id = |alias: &str| row_id_sql(entity, table, alias, bookkeeping_schema(tables));
    let same_key: Vec<String> = table.key.iter().map(|key| format!("m.{0} = OLD.{0}", Ident(&key.column))).collect();
    let is_gone = format!("NOT EXISTS (SELECT FROM {} m WHERE {})", TableName(&table.name), same_key.join(" AND "));
    // Rows of one statement may hand a key on (`SET id = id + 1`), and under a deferrable key a row may go after the next
    // one with its key came: only a key that no row has is a deletion.
    let is_deletion = if tracking.has_deferrable_key { is_gone } else { format!("(TG_OP = 'DELETE' OR {is_gone})") };
    // The last entry alone is looked up, by the order of the primary key: whatever the planner knows of a table that was
    // empty a moment ago, no other way is as good, and a bad one would make a bulk load quadratic.
    let entry = |row: &str, key: String, deleted: &str, created: &str, kept: &str| {
        format!(
            "    INSERT INTO {log} AS c (schema_id, row_id, flushed_at, changed_at, deleted_at, row_key, created_at)\n    \
             SELECT {id}, {row}, 0, GREATEST(now_ms, h.changed_at + 1), {deleted}, {key}, {created}\n    \
             FROM (VALUES (1)) one (row) LEFT JOIN LATERAL (SELECT p.changed_at, p.created_at FROM {log} p\n      \
             WHERE p.schema_id = {id} AND p.row_id = {row} ORDER BY p.flushed_at DESC LIMIT 1) h ON true\n    \
             ON CONFLICT (schema_id, row_id, flushed_at) DO UPDATE SET\n      \
             changed_at = GREATEST(EXCLUDED.changed_at, c.changed_at + 1),\n      \
             deleted_at = EXCLUDED.deleted_at, created_at = {kept};\n"
        )
    };
    let is_same_row = "TG_OP = 'UPDATE' AND old_id = new_id";
    format!(
        "CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog \
         SET enable_seqscan = off AS $track$\nDECLARE\n  old_id uuid;\n  new_id uuid;\n  now_ms bigint := {NOW_MS};\nBEGIN\n  \
         IF current_setting('{MOVING}', true) = 'on' THEN RETURN NULL; END IF;\n  \
         IF TG_OP <> 'INSERT' THEN old_id := {}; END IF;\n  \
         IF TG_OP <> 'DELETE' THEN new_id := {}; END IF;\n  \
         IF old_id IS DISTINCT FROM new_id AND old_id IS NOT NULL AND {is_deletion} THEN\n{}  END IF;\n  \
         IF new_id IS NOT NULL THEN\n{}  END IF;\n  RETURN NULL;\nEND $track$",
        row_id("OLD"),
        row_id("NEW"),
        entry(
            "old_id",
            row_key_sql(entity, table, "OLD"),
            "GREATEST(now_ms, h.changed_at + 1)",
            "h.created_at",
            "c.created_at"
        ),
        entry(
            "new_id",
            row_key_sql(entity, table, "NEW"),
            "NULL",
            &format!("CASE WHEN {is_same_row} THEN COALESCE(h.created_at, now_ms) ELSE now_ms END"),
            &format!("CASE WHEN {is_same_row} THEN c.created_at ELSE now_ms END"),
        ),
    )
}

fn truncate_function(tables: &TableNames, entity: &Entity, table: &OwnTable, truncate: Truncate, name: &str) -> String {
    let header = format!(
        "CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog \
         AS $truncate$\n"
    );
    match truncate {
        Truncate::Refused => format!(
            "{header}BEGIN\n  RAISE EXCEPTION 'TRUNCATE of %.% would leave its rows in the lake', TG_TABLE_SCHEMA, \
             TG_TABLE_NAME\n    USING ERRCODE = 'feature_not_supported', HINT = 'Use DELETE, or run thermocline init \
             --truncate, after which TRUNCATE counts as the deletion of every row that is in the table.';\nEND $truncate$"
        ),
        Truncate::DeletesRows => {
            let log = TableName(&tables.change_log);
            let id = entity.schema_id;
            format!(
                "{header}BEGIN\n  EXECUTE format($sql$\n    INSERT INTO {log} AS c (schema_id, row_id, flushed_at, \
                 changed_at, deleted_at, row_key, created_at)\n    \
                 SELECT {id}, r.row_id, 0, t.at, t.at, r.row_key, h.created_at\n    \
                 FROM (SELECT {} AS row_id, {} AS row_key FROM %s m) r\n    \
                 CROSS JOIN LATERAL (SELECT max(p.changed_at) AS changed_at, max(p.created_at) AS created_at FROM {log} p\n      \
                 WHERE p.schema_id = {id} AND p.row_id = r.row_id) h\n    \
                 CROSS JOIN LATERAL (SELECT GREATEST({NOW_MS}, h.changed_at + 1) AS at) t\n    \
                 ON CONFLICT (schema_id, row_id, flushed_at) DO UPDATE SET\n      \
                 changed_at = GREATEST(EXCLUDED.changed_at, c.changed_at + 1), deleted_at = EXCLUDED.deleted_at\n  \
                 $sql$, TG_RELID::regclass);\n  RETURN NULL;\nEND $truncate$",
                row_id_sql(entity, table, "m", bookkeeping_schema(tables)),
                row_key_sql(entity, table, "m"),
            )
        }
    }
}

/// The key of the last row of the next batch of a table, as JSON text, NULL when no row is left. It locks the batch's rows
/// against deletion. Parameters: the last key of the batch before as JSON text or NULL, and the number of rows.
pub fn backfill_next_sql(table: &OwnTable) -> String {
    let keys: Vec<String> = table.key.iter().map(|key| Ident(&key.column).to_string()).collect();
    let name = TableName(&table.name);
    format!(
        "SELECT {}::text FROM (SELECT {m_keys} FROM {name} m WHERE {} ORDER BY {m_keys} LIMIT $2 FOR KEY SHARE OF m) m \
         ORDER BY {} LIMIT 1",
        key_object_sql(table, "m"),
        after_key(table, "$1"),
        keys.iter().map(|key| format!("m.{key} DESC")).collect::<Vec<_>>().join(", "),
        m_keys = keys.iter().map(|key| format!("m.{key}")).collect::<Vec<_>>().join(", "),
    )
}

/// Enters the rows behind the first key and up to the second one, both JSON texts (the first NULL: from the beginning),
/// as live and dirty, unless an entry of theirs is there.
pub fn backfill_insert_sql(tables: &TableNames, entity: &Entity, table: &OwnTable) -> String {
    let log = TableName(&tables.change_log);
    let row_id = row_id_sql(entity, table, "m", bookkeeping_schema(tables));
    let keys: Vec<String> = table.key.iter().map(|key| format!("m.{}", Ident(&key.column))).collect();
    format!(
        "INSERT INTO {log} (schema_id, row_id, flushed_at, changed_at, deleted_at, row_key, created_at) \
         SELECT {id}, {row_id}, 0, {NOW_MS}, NULL, {}, {NOW_MS} FROM {} m \
         WHERE {} AND ({}) <= ({}) AND NOT EXISTS (SELECT FROM {log} c WHERE c.schema_id = {id} AND c.row_id = {row_id}) \
         ON CONFLICT DO NOTHING",
        row_key_sql(entity, table, "m"),
        TableName(&table.name),
        after_key(table, "$1"),
        keys.join(", "),
        key_values(table, "$2"),
        id = entity.schema_id,
    )
}

/// Whether the key of `m` is behind the key in a JSON parameter, or there is none.
fn after_key(table: &OwnTable, parameter: &str) -> String {
    let keys: Vec<String> = table.key.iter().map(|key| format!("m.{}", Ident(&key.column))).collect();
    format!("({parameter}::text IS NULL OR ({}) > ({}))", keys.join(", "), key_values(table, parameter))
}

/// The values of a key in a JSON parameter, each of its column's own type.
fn key_values(table: &OwnTable, parameter: &str) -> String {
    let values: Vec<String> = table
        .key
        .iter()
        .map(|key| {
            format!(
                "(jsonb_populate_record(NULL::{}, {parameter}::text::jsonb)).{}",
                TableName(&table.name),
                Ident(&key.column)
            )
        })
        .collect();
    values.join(", ")
}
