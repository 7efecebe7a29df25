//! DuckDB's types as others see them: values that are bound, and values that Arrow can hold.

use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, IntervalUnit, Schema, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use duckdb::ffi;

use super::DuckError;
use crate::engine::sql_type::SqlType;

/// A type of DuckDB, owned.
pub(super) struct LogicalType(pub(super) ffi::duckdb_logical_type);

impl Drop for LogicalType {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once; null is accepted.
        unsafe { ffi::duckdb_destroy_logical_type(&mut self.0) }
    }
}

/// What a type is to whoever binds values; `None` for a type that takes literals alone.
///
/// # Safety
/// The type is valid.
pub(super) unsafe fn sql_type(logical: &LogicalType) -> Option<SqlType> {
    // SAFETY: valid by the caller's promise; a child type is owned here and freed once.
    unsafe {
        Some(match ffi::duckdb_get_type_id(logical.0) {
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_BOOLEAN => SqlType::Boolean,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_TINYINT => SqlType::TinyInt,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_SMALLINT => SqlType::SmallInt,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_INTEGER => SqlType::Integer,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGINT => SqlType::BigInt,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_HUGEINT => SqlType::HugeInt,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_UTINYINT => SqlType::UTinyInt,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_USMALLINT => SqlType::USmallInt,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_UINTEGER => SqlType::UInteger,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_UBIGINT => SqlType::UBigInt,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_FLOAT => SqlType::Float,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_DOUBLE => SqlType::Double,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_DECIMAL => SqlType::Decimal {
                width: ffi::duckdb_decimal_width(logical.0),
                scale: ffi::duckdb_decimal_scale(logical.0),
            },
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_VARCHAR => SqlType::Text,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_BLOB => SqlType::Blob,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_UUID => SqlType::Uuid,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_DATE => SqlType::Date,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIME => SqlType::Time,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_S => SqlType::TimestampSeconds,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_MS => SqlType::TimestampMillis,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP => SqlType::Timestamp,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_NS => SqlType::TimestampNanos,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_TZ => SqlType::TimestampTz,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_INTERVAL => SqlType::Interval,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_LIST => {
                let child = LogicalType(ffi::duckdb_list_type_child_type(logical.0));
                SqlType::List(Box::new(sql_type(&child)?))
            }
            _ => return None,
        })
    }
}

/// The name of a type, or of one inside it, whose values DuckDB would send as something else: without their offset, as
/// its own bytes, as another number.
///
/// # Safety
/// The type is valid.
pub(super) unsafe fn unsendable(logical: &LogicalType) -> Option<&'static str> {
    // SAFETY: valid by the caller's promise; child types are owned here and freed once.
    unsafe {
        let inner = |child: ffi::duckdb_logical_type| {
            let child = LogicalType(child);
            if child.0.is_null() { None } else { unsendable(&child) }
        };
        match ffi::duckdb_get_type_id(logical.0) {
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_UHUGEINT => Some("UHUGEINT"),
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIME_TZ => Some("TIME WITH TIME ZONE"),
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIT => Some("BIT"),
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGNUM => Some("BIGNUM"),
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_VARIANT => Some("VARIANT"),
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_LIST => inner(ffi::duckdb_list_type_child_type(logical.0)),
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_ARRAY => inner(ffi::duckdb_array_type_child_type(logical.0)),
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_MAP => inner(ffi::duckdb_map_type_key_type(logical.0))
                .or_else(|| inner(ffi::duckdb_map_type_value_type(logical.0))),
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_STRUCT => (0..ffi::duckdb_struct_type_child_count(logical.0))
                .find_map(|index| inner(ffi::duckdb_struct_type_child_type(logical.0, index))),
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_UNION => (0..ffi::duckdb_union_type_member_count(logical.0))
                .find_map(|index| inner(ffi::duckdb_union_type_member_type(logical.0, index))),
            _ => None,
        }
    }
}

fn refused(column: &str, what: &str, cast: &str) -> DuckError {
    DuckError::new(format!(
        "Conversion Error: the column `{column}` holds {what}, which its type of Arrow can't hold; write CAST(… AS {cast})"
    ))
}

/// Refuses intervals whose time is longer than Arrow's nanoseconds count: DuckDB's conversion wraps around.
///
/// # Errors
/// [`super::DuckErrorKind::Value`] with the column's name.
///
/// # Safety
/// The chunk is valid, came from `duckdb_fetch_chunk`, which flattens its vectors, and has the columns of `schema`.
pub(super) unsafe fn check_intervals(chunk: ffi::duckdb_data_chunk, schema: &Schema) -> Result<(), DuckError> {
    const NANOS_PER_MICRO: i64 = 1_000;
    for (index, field) in schema.fields().iter().enumerate() {
        if field.data_type() != &DataType::Interval(IntervalUnit::MonthDayNano) {
            continue;
        }
        // SAFETY: the column exists; its data are as many intervals as the chunk has rows, valid where the mask says so.
        let fits = unsafe {
            let vector = ffi::duckdb_data_chunk_get_vector(chunk, index as ffi::idx_t);
            let (data, validity) = (
                ffi::duckdb_vector_get_data(vector).cast::<ffi::duckdb_interval>(),
                ffi::duckdb_vector_get_validity(vector),
            );
            (0..ffi::duckdb_data_chunk_get_size(chunk)).all(|row| {
                (!validity.is_null() && !ffi::duckdb_validity_row_is_valid(validity, row))
                    || usize::try_from(row)
                        .is_ok_and(|row| (*data.add(row)).micros.checked_mul(NANOS_PER_MICRO).is_some())
            })
        };
        if !fits {
            return Err(refused(field.name(), "an interval of more than 292 years of hours", "VARCHAR"));
        }
    }
    Ok(())
}

/// Refuses values that are no values of their Arrow type: a HUGEINT of 39 digits, the time 24:00:00, infinity
/// as a date.
///
/// # Errors
/// [`super::DuckErrorKind::Value`] with the column's name.
pub(super) fn check_values(columns: &StructArray, schema: &Schema) -> Result<(), DuckError> {
    for (column, field) in columns.columns().iter().zip(schema.fields()) {
        if let Some((what, cast)) = unheld(column) {
            return Err(refused(field.name(), what, cast));
        }
    }
    Ok(())
}

/// What an array holds that its type doesn't, and the type to cast to.
fn unheld(array: &ArrayRef) -> Option<(&'static str, &'static str)> {
    const HUGEINT: DataType = DataType::Decimal128(38, 0);
    const END_OF_DAY: i64 = 86_400_000_000;
    // From here on an integer has more digits than the type.
    const BOUND: u128 = 10u128.pow(38);
    match array.data_type() {
        &HUGEINT => {
            let values = array.as_primitive::<Decimal128Type>();
            let fits = values.iter().flatten().all(|value| value.unsigned_abs() < BOUND);
            (!fits).then_some(("an integer of 39 digits", "VARCHAR"))
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            let values = array.as_primitive::<Time64MicrosecondType>();
            let fits = values.iter().flatten().all(|value| (0..END_OF_DAY).contains(&value));
            (!fits).then_some(("the time 24:00:00", "VARCHAR"))
        }
        DataType::Time64(TimeUnit::Nanosecond) => {
            let values = array.as_primitive::<Time64NanosecondType>();
            let fits = values.iter().flatten().all(|value| (0..END_OF_DAY * 1_000).contains(&value));
            (!fits).then_some(("the time 24:00:00", "VARCHAR"))
        }
        DataType::Date32 => {
            let values = array.as_primitive::<Date32Type>();
            let fits = values.iter().flatten().all(|value| value.unsigned_abs() != i32::MAX.unsigned_abs());
            (!fits).then_some(("infinity", "VARCHAR"))
        }
        DataType::Timestamp(unit, _) => {
            let values = match unit {
                TimeUnit::Second => array.as_primitive::<TimestampSecondType>().values(),
                TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().values(),
                TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().values(),
                TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().values(),
            };
            let fits = values
                .iter()
                .enumerate()
                .all(|(row, value)| array.is_null(row) || value.unsigned_abs() != i64::MAX.unsigned_abs());
            (!fits).then_some(("infinity", "VARCHAR"))
        }
        DataType::Struct(_) => array.as_struct().columns().iter().find_map(unheld),
        DataType::List(_) => unheld(array.as_list::<i32>().values()),
        DataType::LargeList(_) => unheld(array.as_list::<i64>().values()),
        DataType::FixedSizeList(_, _) => unheld(array.as_fixed_size_list().values()),
        DataType::Map(_, _) => {
            let map = array.as_map();
            unheld(map.keys()).or_else(|| unheld(map.values()))
        }
        DataType::Union(fields, _) => {
            let union = array.as_union();
            fields.iter().find_map(|(id, _)| unheld(union.child(id)))
        }
        _ => None,
    }
}
