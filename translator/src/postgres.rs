//! PostgreSQL's side of a reference: which predicates it evaluates, and the one statement that reads the hot rows.
//!
//! The statement reads the dirty set (`change_log`, alias `c`), joins `entity_main` (alias `m`) and pivots the needed
//! EAV rows with one lateral aggregate (alias `e`). Predicates are rendered over these physical columns.

mod cursor;
mod flush;
mod layout;
mod moment;
mod moving;
mod own;
mod predicate;
mod scan;
mod select;
mod tracking;

pub use cursor::{cursor_ddl, cursor_fingerprint_sql, cursor_removal, dirty_rows_taken_sql};
pub use flush::{DirtySelection, dirty_size_sql, dirty_versions_sql, flush_statement};
pub(crate) use layout::Rows;
pub use moment::{identity_sql, mirror_size_sql, mirror_statement, stamps_sql, touched_sql};
pub use moving::{
    CHECKED_ROWS, HoldingKey, moving_transaction_sql, partition_candidates_sql, prune_candidates_sql, prune_delete_sql,
    prune_held_sql, prune_lock_sql, prune_partition_sql, restore_sql, restore_undo_sql,
};
pub use own::{GUARD, physical_types};
pub(crate) use predicate::implied_row_ids;
pub use predicate::{Pushdown, PushedPredicate};
pub use scan::SCAN_CATALOG;
pub(crate) use scan::scan_statement;
pub(crate) use select::Select;
pub use tracking::{
    MOVING, Tracking, Truncate, backfill_insert_sql, backfill_next_sql, bookkeeping_ddl, bookkeeping_name,
    bookkeeping_removal, bookkeeping_schema, function, key_object_sql, tracking_ddl, tracking_removal, trigger,
};

use layout::physical;

use crate::bind::Reference;
use crate::catalog::{Attribute, Column, Entity, ScalarType, Storage};
use crate::hot::{HotColumn, WireType};
use crate::quote::{Ident, TableName};

/// Names of the PostgreSQL tables (docs/contract.md, "PostgreSQL tables"), each possibly with a schema
/// (`app.change_log`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableNames {
    pub schema_registry: String,
    pub entity_main: String,
    pub eav_data: String,
    pub change_log: String,
    pub lake_file: String,
}

impl Default for TableNames {
    fn default() -> Self {
        Self {
            schema_registry: "schema_registry".to_owned(),
            entity_main: "entity_main".to_owned(),
            eav_data: "eav_data".to_owned(),
            change_log: "change_log".to_owned(),
            lake_file: "lake_file".to_owned(),
        }
    }
}

/// What to read from the hot tier for one reference.
#[derive(Debug, Clone, PartialEq)]
pub struct HotStatement {
    /// The SELECT, see [`crate::hot`] for its output columns.
    pub sql: String,
    /// Attribute columns after the fixed leading ones.
    pub columns: Vec<HotColumn>,
    /// Every attribute that the statement reads, shown or not, each once: PostgreSQL must keep them in a form that is
    /// delivered and compared without loss.
    pub reads: Vec<Column>,
}

/// A hot statement in the making.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HotSelect {
    pub(crate) select: Select,
    pub(crate) columns: Vec<HotColumn>,
    reads: Vec<Column>,
}

impl HotSelect {
    fn new(select: Select, columns: Vec<HotColumn>, pushed: &[PushedPredicate]) -> Self {
        let shown: Vec<Column> = columns.iter().map(|shown| shown.column).collect();
        let mut statement = Self { select, columns, reads: Vec::new() };
        let filtered = pushed.iter().flat_map(|pushed| &pushed.columns).copied();
        shown.into_iter().chain(filtered).for_each(|column| statement.note(column));
        statement
    }

    /// The statement.
    pub(crate) fn print(self) -> HotStatement {
        HotStatement { sql: self.select.to_string(), columns: self.columns, reads: self.reads }
    }

    /// Notes that the statement reads a column.
    pub(crate) fn note(&mut self, column: Column) {
        if matches!(column, Column::Attribute(_)) && !self.reads.contains(&column) {
            self.reads.push(column);
        }
    }
}

/// Reads the ids of the dirty set of an entity, or of those that matter ([`dirty_ids_condition`]): one column
/// `row_id uuid`.
pub fn dirty_ids_sql(tables: &TableNames, schema_id: i16, condition: Option<&str>) -> String {
    format!("SELECT c.row_id FROM {}", dirty_set(tables, schema_id, condition))
}

/// Counts what [`dirty_ids_sql`] reads: one column `count int8`.
pub fn dirty_count_sql(tables: &TableNames, schema_id: i16, condition: Option<&str>) -> String {
    format!("SELECT count(*) FROM {}", dirty_set(tables, schema_id, condition))
}

fn dirty_set(tables: &TableNames, schema_id: i16, condition: Option<&str>) -> String {
    let condition = condition.map(|condition| format!(" AND {condition}")).unwrap_or_default();
    format!("{} c WHERE c.schema_id = {schema_id} AND c.flushed_at = 0{condition}", TableName(&tables.change_log))
}

/// Which dirty ids can matter to a query: when every reference to the entity asks for certain row ids, versions of all
/// other rows are filtered out anyway, superseded or not. `None`: all of them.
pub fn dirty_ids_condition<'a>(references: impl IntoIterator<Item = &'a Reference>) -> Option<String> {
    let of_reference = |reference: &Reference| {
        let conditions: Vec<String> = reference
            .conjuncts
            .iter()
            .filter_map(|conjunct| PushedPredicate::new(conjunct, &reference.entity).ok())
            .filter(|pushed| pushed.columns.iter().all(|column| *column == Column::RowId))
            .map(|pushed| pushed.sql)
            .chain(implied_row_ids(reference))
            .collect();
        (!conditions.is_empty()).then(|| format!("({})", conditions.join(" AND ")))
    };
    let conditions: Option<Vec<String>> = references.into_iter().map(of_reference).collect();
    conditions.filter(|conditions| !conditions.is_empty()).map(|conditions| format!("({})", conditions.join(" OR ")))
}

/// The statement that reads the hot rows of one reference.
///
/// `columns` are the columns the query needs, `pushed` what PostgreSQL filters. Tombstones come along only when
/// `include_deleted` is set; their ids are in the dirty set in any case.
pub fn hot_statement(
    tables: &TableNames,
    entity: &Entity,
    columns: impl IntoIterator<Item = Column>,
    pushed: &[PushedPredicate],
    include_deleted: bool,
) -> HotStatement {
    hot_select(tables, entity, columns, pushed, include_deleted).print()
}

/// As [`hot_statement`], to be completed.
pub(crate) fn hot_select(
    tables: &TableNames,
    entity: &Entity,
    columns: impl IntoIterator<Item = Column>,
    pushed: &[PushedPredicate],
    include_deleted: bool,
) -> HotSelect {
    let rows = Rows::of(tables, entity);
    let mut output = Vec::new();
    let mut select = Select::new(
        [
            "c.row_id".to_owned(),
            "c.changed_at".to_owned(),
            "c.deleted_at".to_owned(),
            format!("{} AS created_at", rows.created_at()),
            format!("({}) AS has_main", rows.has_row()),
        ],
        String::new(),
    );
    let mut attributes: Vec<usize> = Vec::new();
    for column in columns {
        let Column::Attribute(index) = column else { continue };
        let attribute = &entity.attributes[index];
        let (expression, wire) = physical(attribute);
        let expression = if wire == WireType::Int8 { format!("{expression}::bigint") } else { expression };
        select.show(format!("{expression} AS {}", Ident(&attribute.column)));
        output.push(HotColumn { column, wire });
        attributes.push(index);
    }
    for column in pushed.iter().flat_map(|pushed| &pushed.columns) {
        if let Column::Attribute(index) = column
            && !attributes.contains(index)
        {
            attributes.push(*index);
        }
    }
    select.from = rows.from(&attributes);
    select.filter(rows.is_dirty());
    if !include_deleted {
        select.filter("COALESCE(c.deleted_at, 0) = 0".to_owned());
    }
    for pushed in pushed {
        select.filter(if pushed.reads_only_change_log {
            pushed.sql.clone()
        } else {
            // A row without its entity_main row must come through, so that it is counted and reported.
            format!("({} OR {})", rows.lacks_row(), pushed.sql)
        });
    }
    if let Some(guard) = rows.guard(&attributes) {
        select.filter(guard);
    }
    HotSelect::new(select, output, pushed)
}

/// One lateral aggregate over the EAV rows of a row: each needed attribute becomes a column `a<attr_id>`.
///
/// Measured (50k dirty rows, two attributes): lateral aggregate 540 ms, scalar subselects 680 ms, a join an attribute
/// 860 ms (docs/contract.md, "Push-down").
fn lateral_pivot(tables: &TableNames, entity: &Entity, eav: &[usize]) -> String {
    let mut aggregates = Vec::new();
    let mut ids = Vec::new();
    for index in eav {
        let attribute = &entity.attributes[*index];
        let Storage::Eav { attr_id } = attribute.storage else { continue };
        let value = if attribute.scalar.eav_is_text(attribute.encoding) {
            "value_text::text"
        } else {
            "value_numeric::double precision"
        };
        aggregates.push(if attribute.list {
            // Canonical numbers without leading zeros order by length first, then by text: no cast that could fail.
            format!(
                "array_agg(v.{value} ORDER BY length(v.array_indices), v.array_indices COLLATE \"C\") \
                 FILTER (WHERE v.attr_id = {attr_id}) AS a{attr_id}"
            )
        } else {
            format!("max(v.{value}) FILTER (WHERE v.attr_id = {attr_id} AND v.array_indices = '') AS a{attr_id}")
        });
        ids.push(attr_id.to_string());
    }
    format!(
        " LEFT JOIN LATERAL (SELECT {} FROM {} v WHERE v.schema_id = {} AND v.row_id = c.row_id AND v.attr_id IN ({})) e ON true",
        aggregates.join(", "),
        TableName(&tables.eav_data),
        entity.schema_id,
        ids.join(", ")
    )
}

fn eav_wire(attribute: &Attribute) -> WireType {
    match (attribute.scalar.eav_is_text(attribute.encoding), attribute.list) {
        (true, false) => WireType::Text,
        (false, false) => WireType::Float8,
        (true, true) => WireType::TextArray,
        (false, true) => WireType::Float8Array,
    }
}

/// The key by which PostgreSQL puts an attribute in the order of its values.
pub(crate) fn order_expression(attribute: &Attribute) -> String {
    let (expression, wire) = match &attribute.storage {
        Storage::Own { column } => (own::own_operand(attribute, column), physical(attribute).1),
        Storage::Main { .. } | Storage::Eav { .. } => physical(attribute),
    };
    // DuckDB orders text by its bytes; a database's own collation may not.
    if wire == WireType::Text && attribute.scalar == ScalarType::Text {
        format!("{expression} COLLATE \"C\"")
    } else {
        expression
    }
}

/// How PostgreSQL stores the values of a column, as far as predicates must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    Text,
    /// An integer column.
    Integer,
    /// A double, whether it holds doubles, decimals, integers or booleans.
    Double,
    Uuid,
    UuidText,
    /// Milliseconds in an integer column.
    Millis,
    /// Milliseconds in a double.
    MillisDouble,
    /// A date or timestamp in ISO 8601 text.
    IsoText,
    /// A column of a table of its own, in PostgreSQL's type for the attribute's.
    Native,
    /// JSON and lists: nothing but NULL tests.
    Opaque,
}

fn stored(attribute: &Attribute) -> Stored {
    if attribute.list { Stored::Opaque } else { stored_scalar(attribute) }
}

/// How a value of the attribute is stored, or an element of it when it is a list.
fn stored_scalar(attribute: &Attribute) -> Stored {
    if matches!(attribute.storage, Storage::Own { .. }) {
        return own::own_stored(attribute.scalar);
    }
    let wire = match physical(attribute).1 {
        WireType::TextArray => WireType::Text,
        WireType::Float8Array => WireType::Float8,
        wire => wire,
    };
    match (attribute.scalar, wire) {
        (ScalarType::Text, _) => Stored::Text,
        (ScalarType::Uuid, WireType::Uuid) => Stored::Uuid,
        (ScalarType::Uuid, _) => Stored::UuidText,
        (ScalarType::Date | ScalarType::Timestamp, WireType::Int8) => Stored::Millis,
        (ScalarType::Date | ScalarType::Timestamp, WireType::Float8) => Stored::MillisDouble,
        (ScalarType::Date | ScalarType::Timestamp, _) => Stored::IsoText,
        (ScalarType::Json, _) => Stored::Opaque,
        (_, WireType::Int8) => Stored::Integer,
        (_, _) => Stored::Double,
    }
}
