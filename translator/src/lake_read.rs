//! How a Parquet column becomes the declared type: by an explicit cast, and only when the cast loses nothing.

use crate::catalog::{Attribute, ScalarType};
use crate::lake::FileType;
use crate::quote::duckdb_text;

/// The DuckDB expression that reads `column` (already quoted) of `file_type` as the attribute's declared type, or `None`
/// when that could lose something. `place` names the tier in messages about single values.
pub(crate) fn read_expression(
    column: &str,
    file_type: &FileType,
    attribute: &Attribute,
    place: &str,
) -> Option<String> {
    let target = attribute.duckdb_type();
    let cast = format!("CAST({column} AS {target})");
    let element = match (attribute.list, file_type) {
        (true, FileType::List(element)) => element,
        (false, file_type) => file_type,
        (true, _) => return None,
    };
    let checked = match compatibility(element, attribute.scalar)? {
        // Bounds in a file leave NaN out, and DuckDB 1.5.5 trusts them: `d > 5` over a bare column loses rows with NaN,
        // which is the greatest (https://github.com/duckdb/duckdb/issues/25521). Negating twice changes no double, and
        // no bound is known of it.
        Compatibility::Type if attribute.scalar == ScalarType::Double && !attribute.list => {
            return Some(format!("-(-{cast})"));
        }
        Compatibility::Type => return Some(cast),
        Compatibility::Value => {
            format!("{column} IS NOT NULL AND TRY_CAST({column} AS {target}) IS NULL")
        }
        // Nanoseconds are kept to the microsecond; a value with more is no value of this type.
        Compatibility::Nanoseconds if attribute.list => return None,
        Compatibility::Nanoseconds => format!("epoch_ns({column}) % 1000 <> 0"),
    };
    let message = duckdb_text(&format!(
        "{DATA_ERROR}a value of attribute `{}` in the {place} tier is no {target}: row_id ",
        attribute.name
    ));
    Some(format!(
        "CASE WHEN {checked} THEN error({message} || CAST(row_id AS VARCHAR)) ELSE TRY_CAST({column} AS {target}) END"
    ))
}

/// Starts every message that a generated statement raises about stored data.
pub const DATA_ERROR: &str = "thermocline data error: ";

/// The DuckDB expression that reads a `row_id`, or `None` for a type that holds none.
pub(crate) fn row_id_expression(file_type: &FileType) -> Option<&'static str> {
    matches!(file_type, FileType::Uuid | FileType::FixedBytes16 | FileType::Text).then_some("CAST(row_id AS UUID)")
}

/// Whether a system time column (`created_at`, `changed_at`, `deleted_at`) has a type that reads as BIGINT milliseconds.
pub(crate) fn is_millis(file_type: &FileType) -> bool {
    matches!(file_type, FileType::Int(_) | FileType::UInt(8 | 16 | 32))
}

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
        (ScalarType::Double, FileType::Double | FileType::Float) => Some(Type),
        (ScalarType::Double, FileType::Int(8 | 16 | 32) | FileType::UInt(8 | 16 | 32)) => Some(Type),
        (ScalarType::Decimal { precision, scale }, FileType::Decimal { precision: from, scale: digits }) => {
            (*digits <= scale && from.checked_sub(*digits)? <= precision - scale).then_some(Type)
        }
        // Rounded to the scale, as the hot tier does (design section 2.3).
        (ScalarType::Decimal { .. }, FileType::Double | FileType::Float | FileType::Int(_)) => Some(Value),
        (ScalarType::Boolean, FileType::Boolean) => Some(Type),
        (ScalarType::Uuid, FileType::Uuid | FileType::FixedBytes16) => Some(Type),
        (ScalarType::Uuid, FileType::Text) => Some(Value),
        (ScalarType::Date, FileType::Date) => Some(Type),
        (ScalarType::Timestamp, FileType::Timestamp { unit: 3 | 6, .. } | FileType::Date) => Some(Type),
        (ScalarType::Timestamp, FileType::Timestamp { .. }) => Some(Nanoseconds),
        (ScalarType::Json, FileType::Json) => Some(Type),
        (ScalarType::Json, FileType::Text) => Some(Value),
        _ => None,
    }
}
