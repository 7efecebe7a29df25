//! One Arrow value as DuckDB's SQL, in the type that is its own.

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal128Type, DurationMicrosecondType, DurationMillisecondType,
    DurationNanosecondType, DurationSecondType, Field, Float64Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit,
    TimeUnit, UInt64Type,
};
use translator::quote::{duckdb_text, uuid_text};

use crate::engine::sql_type::SqlType;

/// A value with its SQL.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BoundValue {
    /// `None` for a NULL that has no type.
    pub(super) own: Option<SqlType>,
    /// An expression of the type `own`; of text, a literal without a type.
    pub(super) sql: String,
    pub(super) content: Content,
}

/// What [`super::meaning`] looks at.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    Null,
    Bool(bool),
    /// `unscaled / 10^scale`
    Exact {
        unscaled: i128,
        scale: u8,
    },
    Float(f64),
    /// Nanoseconds since the Unix epoch of a date or a timestamp.
    Moment(i128),
    Text(String),
    Bytes(Vec<u8>),
    Items(Vec<BoundValue>),
    /// Anything that is bound in its own type alone.
    Other,
}

const NANOS_PER_DAY: i128 = 86_400_000_000_000;

/// The value of `array` at `row`; `field` is what the client says of it.
///
/// # Errors
/// Why it can't be bound.
pub(super) fn read(array: &dyn Array, row: usize, field: &Field) -> Result<BoundValue, String> {
    let unbound = || format!("a value of the Arrow type {} can't be bound", field.data_type());
    let slice = array.slice(row, 1);
    match field.data_type() {
        DataType::Dictionary(_, values) => return read(&*plain(&*slice, values)?, 0, &inner(field, values)),
        DataType::RunEndEncoded(_, values) => {
            return read(&*plain(&*slice, values.data_type())?, 0, &inner(field, values.data_type()));
        }
        _ => {}
    }
    let own = own_type(field).ok_or_else(unbound)?;
    if array.is_null(row) || field.data_type() == &DataType::Null {
        let sql = own.as_ref().map_or_else(|| "NULL".to_owned(), |own| format!("CAST(NULL AS {own})"));
        return Ok(BoundValue { own, sql, content: Content::Null });
    }
    let Some(own) = own else { return Err(unbound()) };
    let typed = |own: SqlType, content: Content| -> Result<BoundValue, String> {
        let text = plain(&*slice, &DataType::Utf8)?;
        let sql = format!("CAST({} AS {own})", duckdb_text(text.as_string::<i32>().value(0)));
        Ok(BoundValue { own: Some(own), sql, content })
    };
    match field.data_type() {
        DataType::Boolean => typed(own, Content::Bool(slice.as_boolean().value(0))),
        DataType::UInt64 => {
            let unscaled = slice.as_primitive::<UInt64Type>().value(0).into();
            typed(own, Content::Exact { unscaled, scale: 0 })
        }
        data_type if data_type.is_integer() => {
            let unscaled = plain(&*slice, &DataType::Int64)?.as_primitive::<Int64Type>().value(0).into();
            typed(own, Content::Exact { unscaled, scale: 0 })
        }
        DataType::Float16 => read(&*plain(&*slice, &DataType::Float32)?, 0, &inner(field, &DataType::Float32)),
        DataType::Float32 | DataType::Float64 => {
            let value = plain(&*slice, &DataType::Float64)?.as_primitive::<Float64Type>().value(0);
            typed(own, Content::Float(value))
        }
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => {
            let exact = plain(&*slice, &DataType::Decimal128(38, *scale))?;
            let unscaled = exact.as_primitive::<Decimal128Type>().value(0);
            typed(own, Content::Exact { unscaled, scale: u8::try_from(*scale).map_err(|_| unbound())? })
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = plain(&*slice, &DataType::Utf8)?.as_string::<i32>().value(0).to_owned();
            if text.contains('\0') {
                // It would end the SQL that the value becomes a part of.
                return Err("text with a NUL character can't be bound".to_owned());
            }
            Ok(BoundValue { own: Some(own), sql: duckdb_text(&text), content: Content::Text(text) })
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            let bytes = plain(&*slice, &DataType::Binary)?.as_binary::<i32>().value(0).to_vec();
            if own == SqlType::Uuid {
                let sql = uuid_sql(&bytes).ok_or_else(unbound)?;
                return Ok(BoundValue { own: Some(own), sql, content: Content::Bytes(bytes) });
            }
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            Ok(BoundValue { own: Some(own), sql: format!("from_hex('{hex}')"), content: Content::Bytes(bytes) })
        }
        DataType::Date32 => {
            let days = slice.as_primitive::<Date32Type>().value(0);
            typed(own, Content::Moment(i128::from(days) * NANOS_PER_DAY))
        }
        DataType::Date64 => {
            let nanos = i128::from(slice.as_primitive::<Date64Type>().value(0)) * 1_000_000;
            if nanos % NANOS_PER_DAY == 0 {
                let day = plain(&*slice, &DataType::Date32)?;
                return read(&*day, 0, &inner(field, &DataType::Date32));
            }
            // A date that has a time of day is a timestamp.
            let millis = DataType::Timestamp(TimeUnit::Millisecond, None);
            read(&*plain(&*slice, &millis)?, 0, &inner(field, &millis))
        }
        DataType::Time32(_) | DataType::Time64(_) => {
            let nanos = plain(&*slice, &DataType::Time64(TimeUnit::Nanosecond))?;
            if plain(&*nanos, &DataType::Int64)?.as_primitive::<Int64Type>().value(0) % 1_000 != 0 {
                return Err("a time finer than a microsecond can't be bound".to_owned());
            }
            typed(own, Content::Other)
        }
        DataType::Timestamp(unit, zone) => {
            let per_unit = match unit {
                TimeUnit::Second => 1_000_000_000,
                TimeUnit::Millisecond => 1_000_000,
                TimeUnit::Microsecond => 1_000,
                TimeUnit::Nanosecond => 1,
            };
            let value = plain(&*slice, &DataType::Int64)?.as_primitive::<Int64Type>().value(0);
            let nanos = i128::from(value) * per_unit;
            if zone.is_some() && nanos % 1_000 != 0 {
                return Err("a timestamp with a zone that is finer than a microsecond can't be bound".to_owned());
            }
            typed(own, Content::Moment(nanos))
        }
        DataType::Interval(_) | DataType::Duration(_) => {
            let sql = interval_sql(&*slice)?;
            Ok(BoundValue { own: Some(own), sql, content: Content::Other })
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => {
            let items = plain(&*slice, &DataType::List(std::sync::Arc::clone(item)))?.as_list::<i32>().value(0);
            let items = (0..items.len()).map(|at| read(&items, at, item)).collect::<Result<Vec<_>, _>>()?;
            let texts: Vec<&str> = items.iter().map(|item| item.sql.as_str()).collect();
            let sql = format!("CAST([{}] AS {own})", texts.join(", "));
            Ok(BoundValue { own: Some(own), sql, content: Content::Items(items) })
        }
        _ => Err(unbound()),
    }
}

fn plain(array: &dyn Array, data_type: &DataType) -> Result<arrow::array::ArrayRef, String> {
    cast(array, data_type).map_err(|error| error.to_string())
}

/// The same field with the type of what it encodes.
fn inner(field: &Field, data_type: &DataType) -> Field {
    field.clone().with_data_type(data_type.clone())
}

/// The literal of a UUID from its 16 bytes.
pub(super) fn uuid_sql(bytes: &[u8]) -> Option<String> {
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    let text = uuid_text(u128::from_be_bytes(bytes));
    Some(format!("CAST({} AS {})", duckdb_text(&text), SqlType::Uuid))
}

/// An interval in DuckDB's three units: months, days and microseconds.
fn interval_sql(array: &dyn Array) -> Result<String, String> {
    let (months, days, nanoseconds) = match array.data_type() {
        DataType::Duration(_) => {
            // A cast of durations would round to coarser units and wrap on overflow.
            let (value, unit) = duration(array);
            (0, 0, i128::from(value) * unit)
        }
        _ => {
            let array = plain(array, &DataType::Interval(IntervalUnit::MonthDayNano))?;
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(0);
            (value.months, value.days, i128::from(value.nanoseconds))
        }
    };
    if nanoseconds % 1_000 != 0 {
        return Err("an interval finer than a microsecond can't be bound".to_owned());
    }
    let microseconds = i64::try_from(nanoseconds / 1_000).map_err(|_| "the interval is too long".to_owned())?;
    Ok(format!("(to_months({months}) + to_days({days}) + to_microseconds(CAST('{microseconds}' AS BIGINT)))"))
}

/// A duration as its number and the nanoseconds of its unit.
fn duration(array: &dyn Array) -> (i64, i128) {
    match array.data_type() {
        DataType::Duration(TimeUnit::Second) => (array.as_primitive::<DurationSecondType>().value(0), 1_000_000_000),
        DataType::Duration(TimeUnit::Millisecond) => {
            (array.as_primitive::<DurationMillisecondType>().value(0), 1_000_000)
        }
        DataType::Duration(TimeUnit::Microsecond) => (array.as_primitive::<DurationMicrosecondType>().value(0), 1_000),
        _ => (array.as_primitive::<DurationNanosecondType>().value(0), 1),
    }
}

/// The DuckDB type of an Arrow value: `None` when it has none, `Some(None)` for an untyped NULL.
#[expect(clippy::option_option, reason = "a NULL without a type can be bound, a struct can't")]
fn own_type(field: &Field) -> Option<Option<SqlType>> {
    Some(Some(match field.data_type() {
        DataType::Null => return Some(None),
        DataType::Boolean => SqlType::Boolean,
        DataType::Int8 => SqlType::TinyInt,
        DataType::Int16 => SqlType::SmallInt,
        DataType::Int32 => SqlType::Integer,
        DataType::Int64 => SqlType::BigInt,
        DataType::UInt8 => SqlType::UTinyInt,
        DataType::UInt16 => SqlType::USmallInt,
        DataType::UInt32 => SqlType::UInteger,
        DataType::UInt64 => SqlType::UBigInt,
        DataType::Float16 | DataType::Float32 => SqlType::Float,
        DataType::Float64 => SqlType::Double,
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale)
            if *precision <= 38 && u8::try_from(*scale).is_ok_and(|scale| scale <= *precision) =>
        {
            SqlType::Decimal { width: *precision, scale: u8::try_from(*scale).ok()? }
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => SqlType::Text,
        DataType::FixedSizeBinary(16) if is_uuid(field) => SqlType::Uuid,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => SqlType::Blob,
        DataType::Date32 | DataType::Date64 => SqlType::Date,
        DataType::Time32(_) | DataType::Time64(_) => SqlType::Time,
        DataType::Timestamp(_, Some(_)) => SqlType::TimestampTz,
        DataType::Timestamp(TimeUnit::Nanosecond, None) => SqlType::TimestampNanos,
        DataType::Timestamp(_, None) => SqlType::Timestamp,
        DataType::Interval(_) | DataType::Duration(_) => SqlType::Interval,
        DataType::Dictionary(_, values) => return own_type(&inner(field, values)),
        DataType::RunEndEncoded(_, values) => return own_type(&inner(field, values.data_type())),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => SqlType::List(Box::new(own_type(item)?.unwrap_or(SqlType::Text))),
        _ => return None,
    }))
}

/// Whether the client marks 16 bytes as a UUID ([Arrow's canonical extension type]).
///
/// [Arrow's canonical extension type]: https://arrow.apache.org/docs/format/CanonicalExtensions.html#uuid
fn is_uuid(field: &Field) -> bool {
    field.metadata().get("ARROW:extension:name").is_some_and(|name| name == "arrow.uuid")
}
