//! `hot_scan = "scan"`: the hot rows by DuckDB's PostgreSQL scans, joined and pivoted in DuckDB.
//!
//! The statement runs where PostgreSQL is attached as [`SCAN_CATALOG`], in the query's own snapshot. Its rows are those of
//! the hot statement ([`super::hot_statement`]) before PostgreSQL's values become the declared types, so that one decoder
//! serves both ways. Plain comparisons stand where DuckDB hands them to its scans, and with them to PostgreSQL; what
//! isn't plain stays with the user's own filter.

use super::{
    HotSelect, HotStatement, Pushdown, PushedPredicate, Rows, Select, Stored, TableNames, hot_select, physical, stored,
};
use crate::catalog::{Attribute, Column, Entity, ScalarType, Storage};
use crate::hot::{HotColumn, WireType};
use crate::literal::exact_double;
use crate::predicate::{CompareOp, Conjunct, Predicate};
use crate::quote::{Ident, TableName, duckdb_text, uuid_text};
use crate::value::Value;

/// The name that PostgreSQL is attached under where scans run.
pub const SCAN_CATALOG: &str = "pg";

const MICROS_PER_MILLI: i64 = 1000;
const MILLIS_PER_DAY: i64 = 86_400_000;
const MICROS_PER_DAY: i64 = 86_400_000_000;
/// Below this, integers in doubles compare as integers.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Where the values of a predicate's column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    ChangeLog,
    EntityMain,
    /// EAV rows of this attribute.
    Eav(i16),
}

/// The statement that scans the hot rows of one reference, and the predicates that reach PostgreSQL with it.
///
/// Live rows without an `entity_main` row are not among its rows: [`super::Rows::inconsistent_sql`] counts them.
pub(crate) fn scan_statement(
    tables: &TableNames,
    entity: &Entity,
    columns: impl IntoIterator<Item = Column>,
    conjuncts: &[Conjunct],
    include_deleted: bool,
) -> (HotStatement, Vec<PushedPredicate>) {
    if entity.own_table().is_some() {
        return own_statement(tables, entity, columns, conjuncts, include_deleted);
    }
    let mut output = Vec::new();
    let mut eav = Vec::new();
    let mut select = vec![
        "CAST(c.row_id AS BLOB) AS row_id".to_owned(),
        "CAST(c.changed_at AS BIGINT) AS changed_at".to_owned(),
        "CAST(c.deleted_at AS BIGINT) AS deleted_at".to_owned(),
        "CAST(m.ltbase_created_at AS BIGINT) AS created_at".to_owned(),
        "(m.ltbase_row_id IS NOT NULL) AS has_main".to_owned(),
    ];
    for column in columns {
        let Column::Attribute(index) = column else { continue };
        let attribute = &entity.attributes[index];
        let wire = physical(attribute).1;
        select.push(format!("CAST({} AS {}) AS {}", place(attribute), scanned_type(wire), Ident(&attribute.column)));
        output.push(HotColumn { column, wire });
        if matches!(attribute.storage, Storage::Eav { .. }) {
            eav.push(index);
        }
    }

    let mut pushed = Vec::new();
    for conjunct in conjuncts {
        let Ok(predicate) = &conjunct.predicate else { continue };
        let mut filters = Vec::new();
        push(predicate, entity, include_deleted, &mut filters);
        for (table, column, sql) in filters {
            let sql = match table {
                Table::ChangeLog | Table::EntityMain => sql,
                // The value's own EAV row must pass; a row without one has NULL there and passes nothing.
                Table::Eav(attr_id) => format!(
                    "c.row_id IN (SELECT v.row_id FROM {} v WHERE v.schema_id = {} AND v.attr_id = {attr_id} AND \
                     v.array_indices = '' AND {sql})",
                    scanned(&tables.eav_data),
                    entity.schema_id
                ),
            };
            pushed.push(PushedPredicate {
                sql,
                pushdown: Pushdown::Inexact,
                columns: vec![column],
                reads_only_change_log: table == Table::ChangeLog,
            });
        }
    }

    // A tombstone may have lost its entity_main row; a live row that has is left out.
    let join = if include_deleted { "LEFT JOIN" } else { "JOIN" };
    let mut from = format!(
        "{} c {join} (SELECT * FROM {} WHERE ltbase_schema_id = {}) m ON m.ltbase_row_id = c.row_id",
        scanned(&tables.change_log),
        scanned(&tables.entity_main),
        entity.schema_id
    );
    if !eav.is_empty() {
        from.push_str(&pivot(tables, entity, &eav));
    }
    let mut select = Select::new(select, from);
    select.filter(format!("c.schema_id = {} AND c.flushed_at = 0", entity.schema_id));
    select.filter(if include_deleted {
        "(m.ltbase_row_id IS NOT NULL OR COALESCE(c.deleted_at, 0) <> 0)".to_owned()
    } else {
        "COALESCE(c.deleted_at, 0) = 0".to_owned()
    });
    for pushed in &pushed {
        select.filter(pushed.sql.clone());
    }
    (HotSelect::new(select, output, &pushed).print(), pushed)
}

/// The statement of an entity with a table of its own: PostgreSQL's hot statement, run through DuckDB's connection. Its
/// filters are those of the hot statement, as exact as there.
fn own_statement(
    tables: &TableNames,
    entity: &Entity,
    columns: impl IntoIterator<Item = Column>,
    conjuncts: &[Conjunct],
    include_deleted: bool,
) -> (HotStatement, Vec<PushedPredicate>) {
    let pushed: Vec<PushedPredicate> =
        conjuncts.iter().filter_map(|conjunct| PushedPredicate::new(conjunct, entity).ok()).collect();
    let mut inner = hot_select(tables, entity, columns, &pushed, include_deleted);
    inner.select.filter(Rows::of(tables, entity).is_whole());
    let mut statement = inner.print();
    let mut shown = vec![
        "CAST(q.row_id AS BLOB) AS row_id".to_owned(),
        "CAST(q.changed_at AS BIGINT) AS changed_at".to_owned(),
        "CAST(q.deleted_at AS BIGINT) AS deleted_at".to_owned(),
        "CAST(q.created_at AS BIGINT) AS created_at".to_owned(),
        "q.has_main".to_owned(),
    ];
    for column in &statement.columns {
        let name = Ident(entity.column_name(column.column)).to_string();
        shown.push(format!("CAST(q.{name} AS {}) AS {name}", scanned_type(column.wire)));
    }
    statement.sql =
        format!("SELECT {} FROM postgres_query('{SCAN_CATALOG}', {}) q", shown.join(", "), duckdb_text(&statement.sql));
    (statement, pushed)
}

/// Where the joined scans have an attribute.
fn place(attribute: &Attribute) -> String {
    match &attribute.storage {
        Storage::Main { column, .. } | Storage::Own { column } => format!("m.{}", Ident(column)),
        Storage::Eav { attr_id } => format!("e.a{attr_id}"),
    }
}

fn scanned(table: &str) -> String {
    format!("{SCAN_CATALOG}.{}", TableName(table))
}

fn scanned_type(wire: WireType) -> &'static str {
    match wire {
        WireType::Text => "VARCHAR",
        WireType::Int8 => "BIGINT",
        WireType::Float8 => "DOUBLE",
        WireType::Uuid => "BLOB",
        WireType::Float4 => "FLOAT",
        WireType::Bool => "BOOLEAN",
        WireType::Date => "DATE",
        WireType::Time => "TIME",
        WireType::Timestamp => "TIMESTAMP",
        WireType::Bytes => "BLOB",
        WireType::Int8Array => "BIGINT[]",
        WireType::Float4Array => "FLOAT[]",
        WireType::BoolArray => "BOOLEAN[]",
        WireType::UuidArray | WireType::BytesArray => "BLOB[]",
        WireType::DateArray => "DATE[]",
        WireType::TimeArray => "TIME[]",
        WireType::TimestampArray => "TIMESTAMP[]",
        WireType::TextArray => "VARCHAR[]",
        WireType::Float8Array => "DOUBLE[]",
    }
}

/// The needed attributes of each row: a column `a<attr_id>` each, as in the hot statement.
fn pivot(tables: &TableNames, entity: &Entity, eav: &[usize]) -> String {
    let mut aggregates = Vec::new();
    let mut ids = Vec::new();
    for index in eav {
        let attribute = &entity.attributes[*index];
        let Storage::Eav { attr_id } = attribute.storage else { continue };
        let value = if attribute.scalar.eav_is_text(attribute.encoding) { "value_text" } else { "value_numeric" };
        aggregates.push(if attribute.list {
            format!(
                "list(v.{value} ORDER BY length(v.array_indices), v.array_indices) FILTER (WHERE v.attr_id = {attr_id}) \
                 AS a{attr_id}"
            )
        } else {
            format!("max(v.{value}) FILTER (WHERE v.attr_id = {attr_id} AND v.array_indices = '') AS a{attr_id}")
        });
        ids.push(attr_id.to_string());
    }
    format!(
        " LEFT JOIN (SELECT v.row_id, {} FROM {} v WHERE v.schema_id = {} AND v.attr_id IN ({}) GROUP BY v.row_id) e \
         ON e.row_id = c.row_id",
        aggregates.join(", "),
        scanned(&tables.eav_data),
        entity.schema_id,
        ids.join(", ")
    )
}

/// Splits a predicate into filters of one column each. What gives none is left to the user's own filter.
fn push(predicate: &Predicate, entity: &Entity, include_deleted: bool, out: &mut Vec<(Table, Column, String)>) {
    if let Predicate::And(parts) = predicate {
        parts.iter().for_each(|part| push(part, entity, include_deleted, out));
        return;
    }
    let mut columns = Vec::new();
    predicate.columns(&mut columns);
    let Some(column) = columns.first().copied().filter(|first| columns.iter().all(|column| column == first)) else {
        return;
    };
    let Some(operand) = Operand::of(column, entity) else { return };
    // With tombstones, rows without an entity_main row come along, and a filter there would take the values of others.
    if include_deleted && operand.table != Table::ChangeLog {
        return;
    }
    if let Some(sql) = operand.filter(predicate) {
        out.push((operand.table, column, sql));
    }
}

/// A column where a scan sees it.
struct Operand {
    sql: String,
    table: Table,
    stored: Stored,
    scalar: ScalarType,
}

impl Operand {
    fn of(column: Column, entity: &Entity) -> Option<Self> {
        let operand = |sql: &str, table, stored, scalar| Some(Self { sql: sql.to_owned(), table, stored, scalar });
        match column {
            Column::RowId => operand("c.row_id", Table::ChangeLog, Stored::Uuid, ScalarType::Uuid),
            Column::UpdatedAt => operand("c.changed_at", Table::ChangeLog, Stored::Millis, ScalarType::Timestamp),
            Column::CreatedAt => {
                operand("m.ltbase_created_at", Table::EntityMain, Stored::Millis, ScalarType::Timestamp)
            }
            Column::Attribute(index) => {
                let attribute = &entity.attributes[index];
                match attribute.storage {
                    Storage::Main { .. } => {
                        operand(&place(attribute), Table::EntityMain, stored(attribute), attribute.scalar)
                    }
                    // Its statement is PostgreSQL's own.
                    Storage::Own { .. } => None,
                    Storage::Eav { attr_id } => {
                        let is_text = attribute.scalar.eav_is_text(attribute.encoding);
                        let value = if is_text { "v.value_text" } else { "v.value_numeric" };
                        operand(value, Table::Eav(attr_id), stored(attribute), attribute.scalar)
                    }
                }
            }
            Column::Tier | Column::DeletedAt => None,
        }
    }

    /// A condition that every wanted row meets; NULL meets none of them but `IS NULL`.
    fn filter(&self, predicate: &Predicate) -> Option<String> {
        match predicate {
            Predicate::Or(parts) => {
                let parts: Option<Vec<String>> = parts.iter().map(|part| self.filter(part)).collect();
                Some(format!("({})", parts?.join(" OR ")))
            }
            Predicate::Compare { op, value, .. } => self.compare(*op, value),
            Predicate::Distinct { value, negated: true, .. } => self.compare(CompareOp::Equal, value),
            Predicate::In { values, .. } => {
                let parts: Option<Vec<String>> =
                    values.iter().map(|value| self.compare(CompareOp::Equal, value)).collect();
                Some(format!("({})", parts?.join(" OR ")))
            }
            Predicate::IsNull { .. } => match self.table {
                Table::ChangeLog | Table::EntityMain => Some(format!("{} IS NULL", self.sql)),
                // NULL is mostly no EAV row at all.
                Table::Eav(_) => None,
            },
            Predicate::Not(inner) => match inner.as_ref() {
                Predicate::IsNull { .. } if self.stored != Stored::Opaque => Some(format!("{} IS NOT NULL", self.sql)),
                _ => None,
            },
            Predicate::And(_)
            | Predicate::Distinct { .. }
            | Predicate::Like { .. }
            | Predicate::Text { .. }
            | Predicate::ListContains { .. } => None,
        }
    }

    fn compare(&self, op: CompareOp, value: &Value) -> Option<String> {
        let compared = |literal: String| Some(format!("{} {} {literal}", self.sql, op.sql()));
        match (self.stored, value) {
            // PostgreSQL can't take a NUL character, not even to compare with.
            (Stored::Text, Value::Text(text)) if !text.contains('\0') => compared(duckdb_text(text)),
            (Stored::Integer, Value::Int(value)) if i64::try_from(*value).is_ok() => compared(value.to_string()),
            (Stored::Integer, Value::Bool(value)) => compared(i32::from(*value).to_string()),
            (Stored::Double, Value::Bool(value)) => compared(double(f64::from(u8::from(*value)))),
            (Stored::Double, Value::Int(_) | Value::Decimal { .. } | Value::Double(_)) => {
                let bound = exact_double(value).filter(|bound| bound.is_finite())?;
                let is_exact = match self.scalar {
                    ScalarType::Double => true,
                    ScalarType::SmallInt | ScalarType::Integer | ScalarType::BigInt => bound.abs() < EXACT,
                    _ => false,
                };
                is_exact.then(|| compared(double(bound)))?
            }
            (Stored::Uuid, Value::Uuid(value)) => compared(format!("CAST('{}' AS UUID)", uuid_text(*value))),
            (Stored::Millis | Stored::MillisDouble, Value::Timestamp(micros))
                if self.scalar == ScalarType::Timestamp =>
            {
                let floor = micros.div_euclid(MICROS_PER_MILLI);
                self.between(op, floor, floor.checked_add(i64::from(micros.rem_euclid(MICROS_PER_MILLI) != 0))?)
            }
            // A date's milliseconds may be any of its day.
            (Stored::Millis | Stored::MillisDouble, Value::Date(_) | Value::Timestamp(_)) => {
                let (first, last) = match value {
                    Value::Date(days) => (i64::from(*days), i64::from(*days)),
                    Value::Timestamp(micros) => {
                        let day = micros.div_euclid(MICROS_PER_DAY);
                        (day, day + i64::from(micros.rem_euclid(MICROS_PER_DAY) != 0))
                    }
                    _ => return None,
                };
                let end = (last + 1).checked_mul(MILLIS_PER_DAY)? - 1;
                self.between(op, first.checked_mul(MILLIS_PER_DAY)?, end)
            }
            _ => None,
        }
    }

    /// Milliseconds against a value that lies between two of them, or is one.
    fn between(&self, op: CompareOp, low: i64, high: i64) -> Option<String> {
        let column = &self.sql;
        let number = |millis: i64| {
            if self.stored == Stored::MillisDouble { double(millis as f64) } else { millis.to_string() }
        };
        Some(match op {
            CompareOp::Equal => format!("({column} >= {} AND {column} <= {})", number(low), number(high)),
            CompareOp::NotEqual => return None,
            CompareOp::Less | CompareOp::LessOrEqual => format!("{column} <= {}", number(high)),
            CompareOp::Greater | CompareOp::GreaterOrEqual => format!("{column} >= {}", number(low)),
        })
    }
}

/// A finite double.
fn double(value: f64) -> String {
    format!("CAST('{value:e}' AS DOUBLE)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    fn check(predicate: Predicate, include_deleted: bool, expected: &[&str]) {
        let catalog = Catalog::parse(
            "[[entity]]\nname = \"e\"\nschema_id = 1\n\
             [[entity.attribute]]\nname = \"t\"\ntype = \"text\"\ncolumn = \"text_01\"\n\
             [[entity.attribute]]\nname = \"n\"\ntype = \"integer\"\nattr_id = 5\n\
             [[entity.attribute]]\nname = \"d\"\ntype = \"date\"\ncolumn = \"bigint_01\"\n",
        )
        .unwrap();
        let conjunct = Conjunct { text: String::new(), predicate: Ok(predicate), weakened: false };
        let entity = &catalog.entities()[0];
        let tables = TableNames::default();
        let columns = entity.all_columns().collect::<Vec<_>>();
        let (statement, pushed) = scan_statement(&tables, entity, columns, &[conjunct], include_deleted);
        let texts: Vec<&str> = pushed.iter().map(|pushed| pushed.sql.as_str()).collect();
        assert_eq!(texts, expected);
        assert!(texts.iter().all(|text| statement.sql.contains(text)));
    }

    fn equal(column: usize, value: Value) -> Predicate {
        Predicate::Compare { column: Column::Attribute(column), op: CompareOp::Equal, value }
    }

    #[test]
    fn plain_comparisons_reach_the_scans() {
        check(equal(0, Value::Text("it's".to_owned())), false, &["m.\"text_01\" = 'it''s'"]);
        check(
            equal(1, Value::Int(7)),
            false,
            &["c.row_id IN (SELECT v.row_id FROM pg.\"eav_data\" v WHERE v.schema_id = 1 AND v.attr_id = 5 AND \
               v.array_indices = '' AND v.value_numeric = CAST('7e0' AS DOUBLE))"],
        );
        check(equal(2, Value::Date(1)), false, &["(m.\"bigint_01\" >= 86400000 AND m.\"bigint_01\" <= 172799999)"]);
        check(equal(0, Value::Text("a\0".to_owned())), false, &[]);
    }

    #[test]
    fn with_tombstones_only_the_change_log_filters() {
        let both = Predicate::And(vec![
            equal(0, Value::Text("a".to_owned())),
            Predicate::Compare { column: Column::RowId, op: CompareOp::Equal, value: Value::Uuid(1) },
        ]);
        check(both, true, &["c.row_id = CAST('00000000-0000-0000-0000-000000000001' AS UUID)"]);
    }

    #[test]
    fn what_speaks_of_two_columns_stays() {
        let either = Predicate::Or(vec![equal(0, Value::Text("a".to_owned())), equal(1, Value::Int(1))]);
        check(either, false, &[]);
    }
}
