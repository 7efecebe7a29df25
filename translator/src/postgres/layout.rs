//! How PostgreSQL keeps the rows of an entity, the one place that knows: what a hot statement reads from, which rows are
//! dirty and whole, where the values of an attribute are.
//!
//! In every statement `c` is the change log's entry, `m` the row it speaks of and `e` the pivoted EAV rows:
//!
//! ```text
//! Layout::Eav     change_log c LEFT JOIN entity_main m … LEFT JOIN LATERAL (eav_data) e
//! Layout::Table   change_log c LEFT JOIN the table m, found by the key that the row id or `row_key` holds
//! ```

use super::own::{own_expression, type_guard};
use super::tracking::bookkeeping_schema;
use super::{Select, TableNames, eav_wire};
use crate::catalog::{Attribute, Entity, Layout, MainColumnKind, OwnTable, ScalarType, Storage};
use crate::derived::RowIdForm;
use crate::hot::WireType;
use crate::quote::{Ident, TableName};

/// The rows of one entity in PostgreSQL.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    tables: &'a TableNames,
    entity: &'a Entity,
}

impl<'a> Rows<'a> {
    pub(crate) fn of(tables: &'a TableNames, entity: &'a Entity) -> Self {
        Self { tables, entity }
    }

    /// What follows FROM: dirty entries, the rows they speak of, and the pivoted `attributes` that are EAV rows.
    pub(crate) fn from(&self, attributes: &[usize]) -> String {
        let log = TableName(&self.tables.change_log);
        match &self.entity.layout {
            Layout::Eav => {
                let mut sql = format!("{log} c LEFT JOIN {}", self.main_by_id());
                let is_eav = |index: &&usize| matches!(self.entity.attributes[**index].storage, Storage::Eav { .. });
                let eav: Vec<usize> = attributes.iter().filter(is_eav).copied().collect();
                if !eav.is_empty() {
                    sql.push_str(&super::lateral_pivot(self.tables, self.entity, &eav));
                }
                sql
            }
            Layout::Table(table) => format!("{log} c {}", self.own_by_id(table, "LEFT JOIN")),
        }
    }

    /// The rows that are in the table, joined to the entry `c`.
    pub(super) fn own_rows(&self, table: &OwnTable) -> String {
        self.own_by_id(table, "JOIN")
    }

    /// The rows that are in the table, of the entries whose ids and `flushed_at` are the arrays `$1` and `$2`.
    pub(super) fn entries_of_arrays(&self, table: &OwnTable) -> String {
        format!(
            "unnest($1::uuid[], $2::bigint[]) v (row_id, flushed_at) JOIN {} c ON c.schema_id = {} AND c.row_id = v.row_id \
             AND c.flushed_at = v.flushed_at {}",
            TableName(&self.tables.change_log),
            self.entity.schema_id,
            self.own_rows(table)
        )
    }

    /// The change log's entries joined to the rows they speak of, without any attribute.
    fn main_by_id(&self) -> String {
        format!(
            "{} m ON m.ltbase_schema_id = c.schema_id AND m.ltbase_row_id = c.row_id",
            TableName(&self.tables.entity_main)
        )
    }

    fn own_by_id(&self, table: &OwnTable, join: &str) -> String {
        let name = TableName(&table.name);
        let only = || Ident(&table.key[0].column).to_string();
        match RowIdForm::of(self.entity, table) {
            RowIdForm::Uuid => format!("{join} {name} m ON m.{} = c.row_id", only()),
            RowIdForm::Integer => {
                let function = match bookkeeping_schema(self.tables) {
                    Some(schema) => format!("{}.thermocline_integer_key", Ident(schema)),
                    None => "thermocline_integer_key".to_owned(),
                };
                format!("{join} {name} m ON m.{} = {function}(c.row_id)", only())
            }
            RowIdForm::Hash => {
                let same: Vec<String> =
                    table.key.iter().map(|key| format!("m.{0} = k.{0}", Ident(&key.column))).collect();
                format!(
                    "CROSS JOIN LATERAL jsonb_populate_record(NULL::{name}, c.row_key) k {join} {name} m ON {}",
                    same.join(" AND ")
                )
            }
        }
    }

    /// The entry is of this entity and its row is in no file yet.
    pub(crate) fn is_dirty(&self) -> String {
        format!("c.schema_id = {} AND c.flushed_at = 0", self.entity.schema_id)
    }

    /// The row is there. A dirty live entry without one is an inconsistency.
    pub(crate) fn has_row(&self) -> String {
        match &self.entity.layout {
            Layout::Eav => "m.ltbase_row_id IS NOT NULL".to_owned(),
            Layout::Table(table) => format!("m.{} IS NOT NULL", Ident(&table.key[0].column)),
        }
    }

    /// The row is not there.
    pub(crate) fn lacks_row(&self) -> String {
        match &self.entity.layout {
            Layout::Eav => "m.ltbase_row_id IS NULL".to_owned(),
            Layout::Table(table) => format!("m.{} IS NULL", Ident(&table.key[0].column)),
        }
    }

    /// The entry is a tombstone, or its row is there.
    pub(crate) fn is_whole(&self) -> String {
        format!("({} OR COALESCE(c.deleted_at, 0) <> 0)", self.has_row())
    }

    /// When the row came to be, in milliseconds.
    pub(crate) fn created_at(&self) -> &'static str {
        match &self.entity.layout {
            Layout::Eav => "m.ltbase_created_at",
            Layout::Table(_) => "c.created_at",
        }
    }

    /// About how many bytes the values of a row take, as an expression over one entry of the change log `s` with its
    /// `schema_id` and `row_id` (and `row_key`), averaged.
    pub(crate) fn average_width(&self, filter: &str) -> String {
        let log = TableName(&self.tables.change_log);
        match &self.entity.layout {
            Layout::Eav => format!(
                "(SELECT COALESCE(avg(COALESCE(pg_column_size(m), 0) + COALESCE((SELECT sum(pg_column_size(v)) FROM {} v \
                 WHERE v.schema_id = s.schema_id AND v.row_id = s.row_id), 0)), 0) \
                 FROM (SELECT c.schema_id, c.row_id FROM {log} c WHERE {filter} LIMIT 1000) s LEFT JOIN {} m \
                 ON m.ltbase_schema_id = s.schema_id AND m.ltbase_row_id = s.row_id)",
                TableName(&self.tables.eav_data),
                TableName(&self.tables.entity_main)
            ),
            Layout::Table(table) => format!(
                "(SELECT COALESCE(avg(COALESCE(pg_column_size(m), 0)), 0) FROM (SELECT c.row_id, c.row_key FROM {log} c \
                 WHERE {filter} LIMIT 1000) c {})",
                self.own_by_id(table, "LEFT JOIN")
            ),
        }
    }

    /// Counts the live dirty entries without a row: one `int8`. `filters` narrow the entries, over `c`.
    pub(crate) fn inconsistent_sql(&self, filters: impl IntoIterator<Item = String>) -> String {
        let log = TableName(&self.tables.change_log);
        let lacks_row = match &self.entity.layout {
            Layout::Eav => format!(
                "NOT EXISTS (SELECT FROM {} m WHERE m.ltbase_schema_id = c.schema_id AND m.ltbase_row_id = c.row_id)",
                TableName(&self.tables.entity_main)
            ),
            Layout::Table(_) => self.lacks_row(),
        };
        let from = match &self.entity.layout {
            Layout::Eav => format!("{log} c"),
            Layout::Table(_) => self.from(&[]),
        };
        let mut select = Select::new(["count(*)".to_owned()], from);
        select.filter(self.is_dirty());
        select.filter("COALESCE(c.deleted_at, 0) = 0".to_owned());
        select.filter(lacks_row);
        filters.into_iter().for_each(|filter| select.filter(filter));
        select.to_string()
    }

    /// A condition that holds while the columns of `attributes` have the types that the catalog says, and fails with a
    /// message that says so otherwise. `None` where the layout needs none.
    pub(crate) fn guard(&self, attributes: &[usize]) -> Option<String> {
        let Layout::Table(table) = &self.entity.layout else { return None };
        type_guard(self.entity, table, attributes)
    }
}

/// The physical expression of an attribute over `m` and `e`, and its type on the wire.
///
/// It is the one form in which values are delivered, compared and ordered, whatever type the column has (`char(n)`,
/// `citext`, an enum, `real`): which types may stand behind a column is decided by who reads them, and for those the
/// casts lose nothing. On a column of the usual type each cast is a no-op, and indexes stay usable. An integer is cast
/// only where it is delivered: integers of all sizes, and numerics without a fraction, compare alike.
pub(super) fn physical(attribute: &Attribute) -> (String, WireType) {
    match &attribute.storage {
        Storage::Main { column, kind } => {
            let column = format!("m.{}", Ident(column));
            match kind {
                MainColumnKind::Text => (format!("{column}::text"), WireType::Text),
                // The column may be a boolean, which has a cast to this integer type alone.
                MainColumnKind::SmallInt | MainColumnKind::Integer if attribute.scalar == ScalarType::Boolean => {
                    (format!("{column}::integer"), WireType::Int8)
                }
                MainColumnKind::SmallInt | MainColumnKind::Integer | MainColumnKind::BigInt => (column, WireType::Int8),
                MainColumnKind::Double => (format!("{column}::double precision"), WireType::Float8),
                MainColumnKind::Uuid => (column, WireType::Uuid),
            }
        }
        Storage::Eav { attr_id } => (format!("e.a{attr_id}"), eav_wire(attribute)),
        Storage::Own { column } => own_expression(attribute, column),
    }
}
