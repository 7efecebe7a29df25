//! How a Parquet column becomes the declared type: by an explicit cast, and only when the cast loses nothing.

use crate::catalog::{Attribute, MAX_PRECISION_OF_DOUBLES, ScalarType};
use crate::lake::{FileColumn, FileType};
use crate::quote::duckdb_text;
use crate::value::Value;

/// A file that values are read from, for messages about single ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) tier: &'a str,
    /// The SQL expression of the file's path in the lake.
    pub(crate) path: &'a str,
}

/// The parameter of a lambda over the elements of a list; no attribute has this name.
const ELEMENT: &str = "_tc_element";

/// A stored double as the double of the decimal that it is rounded to, and infinite where there is none.
///
/// What is rounded, half away from zero, is the shortest decimal that reads back as the double, as of hot rows: 1.005 to
/// two digits is 1.01, although the double is a little smaller. DuckDB multiplies and rounds the product, which differs
/// only next to a half, and where the product has more digits than a double. There the text is rounded (measured on
/// 3 million values: 0.45 s against 0.2 for the plain cast and 4.7 for all as text). The wide decimal comes first: small
/// exponents overflow the narrow ones of DuckDB 1.5.5.
fn rounded_double(value: &str, precision: u8, scale: u8) -> String {
    let value = format!("CAST({value} AS DOUBLE)");
    let product = format!("abs({value} * 1e{scale})");
    let by_text =
        format!("TRY_CAST(TRY_CAST(CAST({value} AS VARCHAR) AS DECIMAL(38,{scale})) AS DECIMAL({precision},{scale}))");
    format!(
        "CASE WHEN abs({product} - floor({product}) - 0.5) <= {product} * 4.5e-16 OR {product} >= 4.5e15 \
         THEN COALESCE(CAST({by_text} AS DOUBLE), CAST('Infinity' AS DOUBLE)) ELSE {value} END"
    )
}

/// Starts every message that a generated statement raises about stored data.
pub const DATA_ERROR: &str = "thermocline data error: ";
/// The greatest number of milliseconds that microseconds can hold in 64 bits, before and after the epoch.
const MAX_MILLIS: i64 = i64::MAX / 1000;

impl Place<'_> {
    /// An expression that fails with a message naming the row: `what` in this place `is_wrong`.
    fn fail(self, what: &str, is_wrong: &str) -> String {
        // As a UUID, in whatever form the file keeps it; malformed text as it is.
        let row_id = "COALESCE(CAST(TRY_CAST(row_id AS UUID) AS VARCHAR), CAST(row_id AS VARCHAR))";
        format!(
            "error({} || {} || {} || {row_id})",
            duckdb_text(&format!("{DATA_ERROR}{what} in the {} file `", self.tier)),
            self.path,
            duckdb_text(&format!("` {is_wrong}: row_id "))
        )
    }
}

/// Whether columns of this type can be read as the attribute without loss, as far as the types tell.
pub(crate) fn is_readable(file_type: &FileType, attribute: &Attribute) -> bool {
    reading(file_type, attribute).is_some()
}

/// Whether values are looked at one by one, and a bad one fails with the file's name.
pub(crate) fn is_checked(file_type: &FileType, attribute: &Attribute) -> bool {
    matches!(reading(file_type, attribute), Some(Reading::Values(Compatibility::Value | Compatibility::Nanoseconds)))
}

/// The DuckDB expression that reads `column` (already quoted) of `file_type` as the attribute's declared type, or `None`
/// when that could lose something.
pub(crate) fn read_expression(
    column: &str,
    file_type: &FileType,
    attribute: &Attribute,
    place: Place<'_>,
) -> Option<String> {
    let target = attribute.duckdb_type();
    let compatibility = match reading(file_type, attribute)? {
        Reading::Nothing => return Some(format!("CAST(NULL AS {target})")),
        // DuckDB takes them for integers, which not every type can be cast from.
        Reading::ListsOfNothing => return Some(format!("CAST(CAST({column} AS VARCHAR[]) AS {target})")),
        Reading::Values(compatibility) => compatibility,
    };
    let element = match file_type {
        FileType::List(element) if attribute.list => element,
        file_type => file_type,
    };
    let source = match (attribute.scalar, element) {
        (ScalarType::Decimal { precision, scale }, FileType::Double | FileType::Float)
            if precision <= MAX_PRECISION_OF_DOUBLES && attribute.list =>
        {
            let rounded = rounded_double(ELEMENT, precision, scale);
            format!("list_transform({column}, lambda {ELEMENT}: {rounded})")
        }
        (ScalarType::Decimal { precision, scale }, FileType::Double | FileType::Float)
            if precision <= MAX_PRECISION_OF_DOUBLES =>
        {
            rounded_double(column, precision, scale)
        }
        // What DuckDB takes for JSON is text that nobody has looked at.
        (ScalarType::Json, _) if attribute.list => format!("CAST({column} AS VARCHAR[])"),
        (ScalarType::Json, _) => format!("CAST({column} AS VARCHAR)"),
        _ => column.to_owned(),
    };
    let is_bad = |value: &str| match compatibility {
        Compatibility::Type => None,
        Compatibility::Value => {
            Some(format!("{value} IS NOT NULL AND TRY_CAST({value} AS {}) IS NULL", attribute.scalar.duckdb_type()))
        }
        // Nanoseconds are kept to the microsecond; a value with more is no value of this type.
        Compatibility::Nanoseconds => Some(format!("epoch_ns({value}) % 1000 <> 0")),
    };
    let is_bad = if attribute.list {
        // A cast of the list would make NULL of a bad element.
        is_bad(ELEMENT).map(|is_bad| format!("len(list_filter({source}, lambda {ELEMENT}: {is_bad})) > 0"))
    } else {
        is_bad(&source)
    };
    Some(match is_bad {
        // Bounds in a file leave NaN out, and DuckDB 1.5.5 trusts them: `d > 5` over a bare column loses rows with NaN,
        // which is the greatest (https://github.com/duckdb/duckdb/issues/25521). Negating twice changes no double, and
        // no bound is known of it.
        None if matches!(attribute.scalar, ScalarType::Double | ScalarType::Real) && !attribute.list => {
            format!("-(-CAST({column} AS {target}))")
        }
        None => format!("CAST({column} AS {target})"),
        Some(is_bad) => {
            let failure = place.fail(&format!("a value of attribute `{}`", attribute.name), &format!("is no {target}"));
            format!("CASE WHEN {is_bad} THEN {failure} ELSE TRY_CAST({source} AS {target}) END")
        }
    })
}

/// The DuckDB expression that reads a system time as BIGINT milliseconds, each value checked to be a time.
pub(crate) fn checked_millis(column: &str, place: Place<'_>) -> String {
    let failure = place.fail(column, "is no time in milliseconds");
    format!(
        "CASE WHEN {column} NOT BETWEEN -{MAX_MILLIS} AND {MAX_MILLIS} THEN {failure} ELSE CAST({column} AS BIGINT) END"
    )
}

/// Whether a system time of a file is known to hold nothing but times.
pub(crate) fn holds_times(column: &FileColumn) -> bool {
    let is_time = |millis: &i128| millis.unsigned_abs() <= u128::from(MAX_MILLIS.unsigned_abs());
    match (&column.file_type, &column.range) {
        (FileType::Null | FileType::Int(8 | 16 | 32) | FileType::UInt(8 | 16 | 32), _) => true,
        (_, Some((Value::Int(low), Value::Int(high)))) => is_time(low) && is_time(high),
        _ => false,
    }
}

/// The DuckDB expression that reads a `row_id`, or `None` for a type that holds none.
pub(crate) fn row_id_expression(file_type: &FileType) -> Option<&'static str> {
    matches!(file_type, FileType::Uuid | FileType::FixedBytes16 | FileType::Text).then_some("CAST(row_id AS UUID)")
}

/// Whether a system time column (`created_at`, `changed_at`, `deleted_at`) has a type that reads as BIGINT
/// milliseconds.
pub(crate) fn is_millis(file_type: &FileType) -> bool {
    matches!(file_type, FileType::Int(_) | FileType::UInt(8 | 16 | 32))
}

/// How an attribute is read from columns of a type.
enum Reading {
    /// NULL in every row, whatever the attribute's type.
    Nothing,
    /// Lists without a value in them.
    ListsOfNothing,
    /// Value by value, or element by element.
    Values(Compatibility),
}

fn reading(file_type: &FileType, attribute: &Attribute) -> Option<Reading> {
    match (attribute.list, file_type) {
        (_, FileType::Null) => Some(Reading::Nothing),
        (true, FileType::List(element)) if **element == FileType::Null => Some(Reading::ListsOfNothing),
        (true, FileType::List(element)) => compatibility(element, attribute.scalar).map(Reading::Values),
        (false, file_type) => compatibility(file_type, attribute.scalar).map(Reading::Values),
        (true, _) => None,
    }
}

#[derive(Clone, Copy)]
enum Compatibility {
    /// Every value of the file's type is a value of the declared type.
    Type,
    /// It depends on the value.
    Value,
    Nanoseconds,
}

fn compatibility(file_type: &FileType, scalar: ScalarType) -> Option<Compatibility> {
    use Compatibility::{Nanoseconds, Type, Value};
    match (scalar, file_type) {
        (ScalarType::Text, FileType::Text | FileType::Json) => Some(Type),
        (ScalarType::SmallInt, FileType::Int(8 | 16) | FileType::UInt(8)) => Some(Type),
        (ScalarType::Integer, FileType::Int(8 | 16 | 32) | FileType::UInt(8 | 16)) => Some(Type),
        (ScalarType::BigInt, FileType::Int(_) | FileType::UInt(8 | 16 | 32)) => Some(Type),
        (ScalarType::Real, FileType::Float | FileType::Int(8 | 16) | FileType::UInt(8 | 16)) => Some(Type),
        (ScalarType::Double, FileType::Double | FileType::Float) => Some(Type),
        (ScalarType::Double, FileType::Int(8 | 16 | 32) | FileType::UInt(8 | 16 | 32)) => Some(Type),
        (ScalarType::Decimal { precision, scale }, FileType::Decimal { precision: from, scale: digits }) => {
            (*digits <= scale && from.checked_sub(*digits)? <= precision - scale).then_some(Type)
        }
        // Rounded to the scale, as the hot tier does (docs/contract.md, "Types"): `rounded_double`.
        (ScalarType::Decimal { .. }, FileType::Double | FileType::Float | FileType::Int(_)) => Some(Value),
        (ScalarType::Boolean, FileType::Boolean) => Some(Type),
        (ScalarType::Uuid, FileType::Uuid | FileType::FixedBytes16) => Some(Type),
        (ScalarType::Uuid, FileType::Text) => Some(Value),
        (ScalarType::Date, FileType::Date) => Some(Type),
        (ScalarType::Timestamp, FileType::Timestamp { unit: 3 | 6, .. } | FileType::Date) => Some(Type),
        // Those in UTC DuckDB cuts to microseconds before anybody sees them: a file whose values have no more has the type
        // of microseconds here (the lake's footers say so).
        (ScalarType::Timestamp, FileType::Timestamp { utc: false, .. }) => Some(Nanoseconds),
        (ScalarType::TimestampNaive, FileType::Timestamp { unit: 3 | 6, .. } | FileType::Date) => Some(Type),
        (ScalarType::TimestampNaive, FileType::Timestamp { utc: false, .. }) => Some(Nanoseconds),
        (ScalarType::Time, FileType::Time { unit: 3 | 6 }) => Some(Type),
        (ScalarType::Blob, FileType::Blob | FileType::FixedBytes16) => Some(Type),
        (ScalarType::Json, FileType::Json | FileType::Text) => Some(Value),
        _ => None,
    }
}
