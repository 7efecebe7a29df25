//! Statements by which a flush reads the dirty set of an entity.

use super::{HotStatement, Rows, Select, TableNames, hot_select};
use crate::catalog::Entity;
use crate::quote::TableName;

/// Which dirty rows a flush takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DirtySelection {
    /// Rows changed after this time (milliseconds) stay dirty.
    pub changed_until: Option<i64>,
}

impl DirtySelection {
    fn condition(self) -> Option<String> {
        self.changed_until.map(|until| format!("c.changed_at <= {until}"))
    }
}

/// Reads the selected dirty rows with all attributes, tombstones too, by `row_id`.
pub fn flush_statement(tables: &TableNames, entity: &Entity, selection: DirtySelection) -> HotStatement {
    let mut statement = hot_select(tables, entity, entity.public_columns(), &[], true);
    selection.condition().into_iter().for_each(|condition| statement.select.filter(condition));
    statement.select.order_by("c.row_id".to_owned());
    statement.print()
}

/// Reads what identifies the version of each row that [`flush_statement`] reads, in the same order: `row_id uuid`,
/// `changed_at int8` and `written_by int8`, the transaction that wrote the `change_log` row. A row that is written twice
/// within a millisecond keeps its `changed_at`; the transaction tells the two apart.
///
/// Leaves out live rows without an `entity_main` row, as decoding the hot statement does.
pub fn dirty_versions_sql(tables: &TableNames, entity: &Entity, selection: DirtySelection) -> String {
    let rows = Rows::of(tables, entity);
    let shown = ["c.row_id", "c.changed_at", "c.xmin::text::bigint AS written_by"].map(str::to_owned);
    let mut select = Select::new(shown, rows.from(&[]));
    select.filter(rows.is_dirty());
    selection.condition().into_iter().for_each(|condition| select.filter(condition));
    select.filter(rows.is_whole());
    select.order_by("c.row_id".to_owned());
    select.to_string()
}

/// Sizes the selected dirty set: `rows int8`, `oldest int8` (the smallest `changed_at`, NULL without rows) and `bytes
/// int8`, estimated from at most 1,000 rows when `with_bytes` is set and 0 otherwise.
pub fn dirty_size_sql(tables: &TableNames, entity: &Entity, selection: DirtySelection, with_bytes: bool) -> String {
    let rows = Rows::of(tables, entity);
    let filter = std::iter::once(rows.is_dirty()).chain(selection.condition()).collect::<Vec<_>>().join(" AND ");
    let width = if with_bytes { rows.average_width(&filter) } else { "0".to_owned() };
    format!(
        "SELECT count(*) AS rows, min(c.changed_at) AS oldest, (count(*) * {width})::bigint AS bytes FROM {} c WHERE {filter}",
        TableName(&tables.change_log)
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
