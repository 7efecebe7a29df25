//! Statements by which the server keeps a copy of an entity's dirty rows: which rows are dirty, what changed, and the rows.
//!
//! What changes with every write of a row is its *stamp*: the transaction and the place (`xmin`, `ctid`) of its
//! `change_log` row with `flushed_at = 0`.

use super::{DirtySelection, HotStatement, TableNames, dirty_size_sql, hot_select};
use crate::catalog::{Column, Entity};
use crate::quote::{TableName, postgres_text, uuid_text};

/// Tells which data a snapshot is of. One row of text: `snapshot` (of `pg_snapshot`), `system` (the cluster's identifier),
/// `timeline`, `recovering` (`t` on a standby), `objects` (the database and the tables, as object ids).
pub fn identity_sql(tables: &TableNames) -> String {
    let oid = |name: &str| {
        let name = postgres_text(&TableName(name).to_string()).unwrap_or_else(|| "NULL".to_owned());
        format!("COALESCE(to_regclass({name})::oid::text, '')")
    };
    format!(
        "SELECT pg_current_snapshot()::text AS snapshot, (SELECT system_identifier::text FROM pg_control_system()) AS system, \
         CASE WHEN pg_is_in_recovery() THEN GREATEST((SELECT timeline_id FROM pg_control_checkpoint()), \
         (SELECT received_tli FROM pg_stat_wal_receiver))::text \
         ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END AS timeline, pg_is_in_recovery() AS recovering, \
         concat_ws(' ', (SELECT oid::text FROM pg_database WHERE datname = current_database()), {}, {}, {}) AS objects",
        oid(&tables.change_log),
        oid(&tables.entity_main),
        oid(&tables.eav_data)
    )
}

/// Reads the whole dirty set of an entity: `row_id uuid`, `xmin xid`, `ctid tid`.
pub fn stamps_sql(tables: &TableNames, schema_id: i16) -> String {
    format!(
        "SELECT c.row_id, c.xmin, c.ctid FROM {} c WHERE c.schema_id = {schema_id} AND c.flushed_at = 0",
        TableName(&tables.change_log)
    )
}

/// Reads the rows of an entity that a transaction wrote which `older`, the text of a `pg_snapshot`, doesn't see: `row_id
/// uuid`, and `xmin xid`, `ctid tid` of its dirty entry, NULL when the row isn't dirty. Needs the cursor
/// ([`super::cursor_ddl`]).
///
/// A row whose flushed entry turns up is looked up again: it may be dirty anew.
pub fn touched_sql(tables: &TableNames, schema_id: i16, older: &str) -> String {
    let log = TableName(&tables.change_log);
    let older = postgres_text(older).unwrap_or_else(|| "NULL".to_owned());
    format!(
        "SELECT t.row_id, d.xmin, d.ctid FROM (SELECT DISTINCT c.row_id FROM {log} c WHERE c.schema_id = {schema_id} \
         AND c.changed_tx >= pg_snapshot_xmin({older}::pg_snapshot) \
         AND NOT pg_visible_in_snapshot(c.changed_tx, {older}::pg_snapshot)) t \
         LEFT JOIN {log} d ON d.schema_id = {schema_id} AND d.row_id = t.row_id AND d.flushed_at = 0"
    )
}

/// Estimates what an entity's dirty rows take in memory, from at most 1,000 of them: bytes, one `int8`.
pub fn mirror_size_sql(tables: &TableNames, entity: &Entity) -> String {
    // Beside the values each row has its system columns, its id and its stamp.
    const ROW_BYTES: u32 = 200;
    let size = dirty_size_sql(tables, entity, DirtySelection::default(), true);
    format!("SELECT (s.bytes + {ROW_BYTES} * s.rows)::bigint FROM ({size}) s")
}

/// Reads dirty rows with these attributes, tombstones too: all of an entity, or those with certain ids.
pub fn mirror_statement(
    tables: &TableNames,
    entity: &Entity,
    attributes: impl IntoIterator<Item = usize>,
    ids: Option<&[u128]>,
) -> HotStatement {
    let columns = attributes.into_iter().map(Column::Attribute);
    let mut statement = hot_select(tables, entity, columns, &[], true);
    if let Some(ids) = ids {
        let ids: Vec<String> = ids.iter().map(|id| uuid_text(*id)).collect();
        statement.select.filter(format!("c.row_id = ANY('{{{}}}'::uuid[])", ids.join(",")));
    }
    statement.print()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn rows_are_read_by_their_ids() {
        let catalog = Catalog::parse(
            "[[entity]]\nname = \"a\"\nschema_id = 1\n[[entity.attribute]]\nname = \"n\"\ntype = \"text\"\ncolumn = \"text_01\"",
        )
        .unwrap();
        let entity = &catalog.entities()[0];
        let all = mirror_statement(&TableNames::default(), entity, 0..1, None);
        assert!(all.sql.ends_with("WHERE c.schema_id = 1 AND c.flushed_at = 0"), "{}", all.sql);
        assert_eq!(all.columns.len(), 1);
        let some = mirror_statement(&TableNames::default(), entity, [], Some(&[1, 2]));
        assert!(
            some.sql.ends_with(
                "AND c.row_id = ANY('{00000000-0000-0000-0000-000000000001,00000000-0000-0000-0000-000000000002}'::uuid[])"
            ),
            "{}",
            some.sql
        );
        assert!(some.columns.is_empty());
    }
}
