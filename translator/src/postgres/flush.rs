//! Statements by which a flush reads the dirty set of an entity.

use super::{HotStatement, TableNames, hot_statement};
use crate::catalog::Entity;
use crate::quote::TableName;

/// Which dirty rows a flush takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DirtySelection {
    /// Rows changed after this time (milliseconds) stay dirty.
    pub changed_until: Option<i64>,
}

impl DirtySelection {
    fn condition(self) -> String {
        self.changed_until.map_or_else(String::new, |until| format!(" AND c.changed_at <= {until}"))
    }
}

/// Reads the selected dirty rows with all attributes, tombstones too, by `row_id`.
pub fn flush_statement(tables: &TableNames, entity: &Entity, selection: DirtySelection) -> HotStatement {
    let mut statement = hot_statement(tables, entity, entity.public_columns(), &[], true);
    statement.sql.push_str(&format!("{} ORDER BY c.row_id", selection.condition()));
    statement
}

/// Reads what identifies the version of each row that [`flush_statement`] reads, in the same order: `row_id uuid`,
/// `changed_at int8` and `written_by int8`, the transaction that wrote the `change_log` row. A row that is written twice
/// within a millisecond keeps its `changed_at`; the transaction tells the two apart.
///
/// Leaves out live rows without an `entity_main` row, as decoding the hot statement does.
pub fn dirty_versions_sql(tables: &TableNames, entity: &Entity, selection: DirtySelection) -> String {
    format!(
        "SELECT c.row_id, c.changed_at, c.xmin::text::bigint AS written_by FROM {} c LEFT JOIN {} m \
         ON m.ltbase_schema_id = c.schema_id AND m.ltbase_row_id = c.row_id \
         WHERE c.schema_id = {} AND c.flushed_at = 0{} AND (COALESCE(c.deleted_at, 0) <> 0 OR m.ltbase_row_id IS NOT NULL) \
         ORDER BY c.row_id",
        TableName(&tables.change_log),
        TableName(&tables.entity_main),
        entity.schema_id,
        selection.condition()
    )
}

/// Sizes the selected dirty set: `rows int8`, `oldest int8` (the smallest `changed_at`, NULL without rows) and `bytes
/// int8`, estimated from at most 1,000 rows when `with_bytes` is set and 0 otherwise.
pub fn dirty_size_sql(tables: &TableNames, entity: &Entity, selection: DirtySelection, with_bytes: bool) -> String {
    let (change_log, main, eav) =
        (TableName(&tables.change_log), TableName(&tables.entity_main), TableName(&tables.eav_data));
    let filter = format!("c.schema_id = {} AND c.flushed_at = 0{}", entity.schema_id, selection.condition());
    let width = if with_bytes {
        format!(
            "(SELECT COALESCE(avg(COALESCE(pg_column_size(m), 0) + COALESCE((SELECT sum(pg_column_size(v)) FROM {eav} v \
             WHERE v.schema_id = s.schema_id AND v.row_id = s.row_id), 0)), 0) \
             FROM (SELECT c.schema_id, c.row_id FROM {change_log} c WHERE {filter} LIMIT 1000) s LEFT JOIN {main} m \
             ON m.ltbase_schema_id = s.schema_id AND m.ltbase_row_id = s.row_id)"
        )
    } else {
        "0".to_owned()
    };
    format!(
        "SELECT count(*) AS rows, min(c.changed_at) AS oldest, (count(*) * {width})::bigint AS bytes \
         FROM {change_log} c WHERE {filter}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn hotter_rows_stay() {
        let catalog = Catalog::parse(
            "[[entity]]\nname = \"a\"\nschema_id = 1\n[[entity.attribute]]\nname = \"n\"\ntype = \"text\"\ncolumn = \"text_01\"",
        )
        .unwrap();
        let selection = DirtySelection { changed_until: Some(5) };
        let sql = flush_statement(&TableNames::default(), &catalog.entities()[0], selection).sql;
        assert!(sql.ends_with("c.flushed_at = 0 AND c.changed_at <= 5 ORDER BY c.row_id"), "{sql}");
        let sql = dirty_versions_sql(&TableNames::default(), &catalog.entities()[0], DirtySelection::default());
        assert!(!sql.contains("<="), "{sql}");
    }
}
