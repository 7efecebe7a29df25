//! Columns of an entity's own table: how each type is delivered and compared, and which physical types may stand behind
//! an attribute.

use super::Stored;
use crate::catalog::{Attribute, Entity, OwnTable, ScalarType, Storage};
use crate::hot::WireType;
use crate::literal::exact_double;
use crate::predicate::CompareOp;
use crate::quote::{Ident, TableName, civil_from_days, date_text, decimal_text, postgres_double, postgres_text};
use crate::quote::{time_text, timestamp_text};
use crate::value::Value;

/// Starts the message of a column that has another type than the catalog says; PostgreSQL raises it.
pub const GUARD: &str = "thermocline: column ";

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// The expression by which a column is delivered, and its type on the wire.
pub(super) fn own_expression(attribute: &Attribute, column: &str) -> (String, WireType) {
    let column = format!("m.{}", Ident(column));
    let (cast, wire) = match attribute.scalar {
        // Enums, citext, char(n) and JSON have a text; a numeric's is exact.
        ScalarType::Text | ScalarType::Json | ScalarType::Decimal { .. } => (Some("text"), WireType::Text),
        ScalarType::SmallInt | ScalarType::Integer | ScalarType::BigInt if attribute.list => {
            (Some("bigint"), WireType::Int8)
        }
        ScalarType::SmallInt | ScalarType::Integer | ScalarType::BigInt => (None, WireType::Int8),
        ScalarType::Real => (None, WireType::Float4),
        ScalarType::Double => (None, WireType::Float8),
        ScalarType::Boolean => (None, WireType::Bool),
        ScalarType::Uuid => (None, WireType::Uuid),
        ScalarType::Date => (None, WireType::Date),
        ScalarType::Time => (None, WireType::Time),
        ScalarType::Timestamp | ScalarType::TimestampNaive => (None, WireType::Timestamp),
        ScalarType::Blob => (None, WireType::Bytes),
    };
    match (cast, attribute.list) {
        (Some(cast), true) => (format!("{column}::{cast}[]"), wire.array()),
        (Some(cast), false) => (format!("{column}::{cast}"), wire),
        (None, true) => (column, wire.array()),
        (None, false) => (column, wire),
    }
}

/// How predicates see a column, or an element of a list, and the expression they use in place of the delivered one.
pub(super) fn own_stored(scalar: ScalarType) -> Stored {
    match scalar {
        ScalarType::Text => Stored::Text,
        ScalarType::SmallInt | ScalarType::Integer | ScalarType::BigInt => Stored::Integer,
        ScalarType::Double => Stored::Double,
        ScalarType::Uuid => Stored::Uuid,
        ScalarType::Real
        | ScalarType::Decimal { .. }
        | ScalarType::Boolean
        | ScalarType::Date
        | ScalarType::Time
        | ScalarType::Timestamp
        | ScalarType::TimestampNaive
        | ScalarType::Blob => Stored::Native,
        ScalarType::Json => Stored::Opaque,
    }
}

/// The expression by which a column is compared: the bare column where an index on it may serve.
pub(super) fn own_operand(attribute: &Attribute, column: &str) -> String {
    match attribute.scalar {
        ScalarType::Decimal { .. } if !attribute.list => format!("m.{}", Ident(column)),
        _ => own_expression(attribute, column).0,
    }
}

/// A constant that a column of this type, kept in PostgreSQL's own type ([`Stored::Native`]), compares with exactly as
/// DuckDB does; `None` when that isn't certain. The operator stays.
pub(super) fn native_constant(scalar: ScalarType, value: &Value) -> Option<String> {
    Some(match (scalar, value) {
        // `real` against `double precision` compares at the wider type in both databases.
        (ScalarType::Real, Value::Int(_) | Value::Decimal { .. } | Value::Double(_)) => {
            postgres_double(exact_double(value)?)
        }
        (ScalarType::Decimal { .. }, Value::Int(value)) => format!("({value})::numeric"),
        (ScalarType::Decimal { .. }, Value::Decimal { unscaled, scale }) => {
            format!("({})::numeric", decimal_text(*unscaled, *scale))
        }
        (ScalarType::Boolean, Value::Bool(flag)) => flag.to_string(),
        (ScalarType::Date, Value::Date(days)) => format!("'{}'::date", plain_date(*days)?),
        // A date against a moment: midnight of UTC.
        (ScalarType::Date | ScalarType::TimestampNaive, Value::Timestamp(micros)) => {
            format!("'{}'::timestamp", plain_timestamp(*micros)?)
        }
        (ScalarType::Timestamp, Value::Timestamp(micros)) => format!("'{}+00'::timestamptz", plain_timestamp(*micros)?),
        (ScalarType::Time, Value::Time(micros)) => format!("'{}'::time", time_text(*micros)),
        (ScalarType::Blob, Value::Blob(bytes)) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("decode('{hex}', 'hex')")
        }
        _ => return None,
    })
}

/// A decimal column against a double: DuckDB compares at DOUBLE, and both ways to it agree while the digits fit one.
pub(super) fn decimal_as_double(column: &str, precision: u8, op: CompareOp, value: f64) -> Option<String> {
    (precision <= crate::catalog::MAX_PRECISION_OF_DOUBLES)
        .then(|| format!("({column}::double precision {} {})", op.sql(), postgres_double(value)))
}

/// A date of the years 1 to 9999, whose text both databases read alike.
fn plain_date(days: i32) -> Option<String> {
    let (year, _, _) = civil_from_days(i64::from(days));
    (1..=9999).contains(&year).then(|| date_text(days))
}

fn plain_timestamp(micros: i64) -> Option<String> {
    let (year, _, _) = civil_from_days(micros.div_euclid(MICROS_PER_DAY));
    (1..=9999).contains(&year).then(|| timestamp_text(micros))
}

/// PostgreSQL's names of the types that may stand behind an attribute.
pub fn physical_types(scalar: ScalarType) -> &'static [&'static str] {
    match scalar {
        ScalarType::Text => &["text", "varchar", "bpchar", "citext", "name"],
        ScalarType::SmallInt => &["int2"],
        ScalarType::Integer => &["int4", "int2"],
        ScalarType::BigInt => &["int8", "int4", "int2"],
        ScalarType::Real => &["float4"],
        ScalarType::Double => &["float8"],
        ScalarType::Decimal { .. } => &["numeric"],
        ScalarType::Boolean => &["bool"],
        ScalarType::Uuid => &["uuid"],
        ScalarType::Date => &["date"],
        ScalarType::Time => &["time"],
        ScalarType::Timestamp => &["timestamptz"],
        ScalarType::TimestampNaive => &["timestamp"],
        ScalarType::Json => &["json", "jsonb"],
        ScalarType::Blob => &["bytea"],
    }
}

/// Holds while every column has a type that its attribute may have; otherwise the statement fails with a message that
/// names the column and both types. It is asked once a statement, of PostgreSQL's catalogs in the same snapshot: values of
/// another type must not be read as if they were of this one.
pub(super) fn type_guard(entity: &Entity, table: &OwnTable, attributes: &[usize]) -> Option<String> {
    let text = |text: &str| postgres_text(text).unwrap_or_else(|| "NULL".to_owned());
    let mut wanted: Vec<String> = Vec::new();
    for index in attributes {
        let attribute = &entity.attributes[*index];
        let Storage::Own { column } = &attribute.storage else { continue };
        let types: Vec<String> = physical_types(attribute.scalar).iter().map(|name| text(name)).collect();
        let row = format!(
            "({}, {}, {}, {}, ARRAY[{}])",
            text(column),
            text(&format!(
                "{}{}",
                crate::catalog::print::type_name(attribute.scalar),
                if attribute.list { "[]" } else { "" }
            )),
            attribute.list,
            attribute.scalar == ScalarType::Text,
            types.join(", ")
        );
        if !wanted.contains(&row) {
            wanted.push(row);
        }
    }
    if wanted.is_empty() {
        return None;
    }
    // An array's type has its element's; a domain is looked through once, which is as deep as they usually are, and twice.
    Some(format!(
        "(SELECT bool_and(CASE WHEN f.is_list = w.is_list AND (f.name = ANY (w.types) OR (w.is_text AND f.is_enum)) THEN true \
         ELSE concat({}, w.name, ' of ', {}, ' is ', COALESCE(f.printed, 'gone'), '; the catalog says ', \
         w.declared)::boolean END) FROM (VALUES {}) w (name, declared, is_list, is_text, types) \
         LEFT JOIN LATERAL (SELECT format_type(a.atttypid, a.atttypmod) AS printed, b.typelem <> 0 AND b.typcategory = 'A' \
         AS is_list, COALESCE(e.typname, b.typname)::text AS name, COALESCE(e.typtype, b.typtype) = 'e' AS is_enum \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
         JOIN pg_catalog.pg_type d ON d.oid = COALESCE(NULLIF(t.typbasetype, 0), t.oid) \
         JOIN pg_catalog.pg_type b ON b.oid = COALESCE(NULLIF(d.typbasetype, 0), d.oid) \
         LEFT JOIN pg_catalog.pg_type e ON e.oid = b.typelem AND b.typcategory = 'A' \
         WHERE a.attrelid = {}::regclass AND a.attname = w.name AND NOT a.attisdropped) f ON true)",
        text(GUARD),
        text(&table.name),
        wanted.join(", "),
        text(&TableName(&table.name).to_string()),
    ))
}
