//! Bound parameters: one Arrow row to typed constants in the parse tree.
//!
//! A value takes the type that DuckDB inferred for its parameter, as a prepared statement of DuckDB would; where nothing
//! can be inferred it keeps its own, but for text, which stays a literal that fits wherever a literal does: a client
//! that knows no better binds any value as text.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType,
    IntervalMonthDayNanoType, IntervalUnit, Schema, TimeUnit,
};
use translator::ParsedStatement;
use translator::quote::duckdb_text;

use super::error::{ErrorKind, QueryError};
use super::statement::translate_error;
use crate::engine::ShapeDatabase;

/// Replaces the parameters of a statement by the values of the first row.
pub(super) fn substitute(
    statement: &mut ParsedStatement,
    inferred: &Schema,
    values: &RecordBatch,
    shape: &ShapeDatabase,
) -> Result<(), QueryError> {
    let names = statement.parameters.clone();
    if values.num_rows() != 1 || values.num_columns() != names.len() {
        return Err(QueryError::new(
            ErrorKind::InvalidQuery,
            format!(
                "the statement takes {} parameter(s) in one row; {} row(s) of {} value(s) are bound",
                names.len(),
                values.num_rows(),
                values.num_columns()
            ),
        ));
    }
    let mut constants = HashMap::new();
    for (index, name) in names.iter().enumerate() {
        let sql = constant_sql(values.column(index), wanted(inferred, name))
            .map_err(|reason| QueryError::new(ErrorKind::InvalidQuery, format!("parameter ${name}: {reason}")))?;
        constants.insert(name.clone(), expression(shape, &sql)?);
    }
    statement.set_parameters(&|name| constants.get(name).cloned());
    Ok(())
}

/// Replaces the parameters of a statement by NULLs of their inferred types, and by `unknown` where there is none.
pub(super) fn assume(
    statement: &mut ParsedStatement,
    inferred: &Schema,
    unknown: &str,
    shape: &ShapeDatabase,
) -> Result<(), QueryError> {
    let mut constants = HashMap::new();
    for name in &statement.parameters {
        let sql = match wanted(inferred, name).and_then(duckdb_type) {
            Some(data_type) => format!("CAST(NULL AS {data_type})"),
            None => unknown.to_owned(),
        };
        constants.insert(name.clone(), expression(shape, &sql)?);
    }
    statement.set_parameters(&|name| constants.get(name).cloned());
    Ok(())
}

/// The type that DuckDB inferred for a parameter.
fn wanted<'a>(inferred: &'a Schema, name: &str) -> Option<&'a DataType> {
    let field = inferred.field_with_name(&format!("${name}")).ok()?;
    Some(field.data_type()).filter(|data_type| **data_type != DataType::Null)
}

fn expression(shape: &ShapeDatabase, sql: &str) -> Result<serde_json::Value, QueryError> {
    let parsed = shape.parse(&format!("SELECT {sql}")).map_err(QueryError::internal)?;
    Ok(ParsedStatement::parse(&parsed).map_err(translate_error)?.into_expression().unwrap_or_default())
}

/// The first value of an array as a DuckDB constant.
fn constant_sql(array: &dyn Array, wanted: Option<&DataType>) -> Result<String, String> {
    let own = plain(array.data_type());
    let target = match wanted {
        Some(wanted) => duckdb_type(wanted),
        None => duckdb_type(&own),
    };
    let target = target.ok_or_else(|| format!("a value of the Arrow type {} can't be bound", array.data_type()))?;
    if array.is_null(0) || own == DataType::Null {
        return Ok(if wanted.is_none() && own == DataType::Null {
            "NULL".to_owned()
        } else {
            format!("CAST(NULL AS {target})")
        });
    }
    let array = cast(array, &own).map_err(|error| error.to_string())?;
    let value = value_sql(&array, 0)?;
    Ok(if wanted.is_none() && own == DataType::Utf8 { value } else { format!("CAST({value} AS {target})") })
}

/// One value as text that DuckDB reads back exactly.
fn value_sql(array: &dyn Array, row: usize) -> Result<String, String> {
    if array.is_null(row) {
        return Ok("NULL".to_owned());
    }
    match array.data_type() {
        DataType::Binary => {
            let hex: String = array.as_binary::<i32>().value(row).iter().map(|byte| format!("{byte:02x}")).collect();
            Ok(format!("from_hex('{hex}')"))
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            let items = (0..items.len()).map(|index| value_sql(&items, index)).collect::<Result<Vec<_>, _>>()?;
            Ok(format!("[{}]", items.join(", ")))
        }
        DataType::Utf8 => match array.as_string::<i32>().value(row) {
            // It would end the SQL that the value becomes a part of.
            text if text.contains('\0') => Err("text with a NUL character can't be bound".to_owned()),
            text => Ok(duckdb_text(text)),
        },
        DataType::Interval(_) | DataType::Duration(_) => interval_sql(array, row),
        data_type => {
            let typed = duckdb_type(data_type)
                .ok_or_else(|| format!("a value of the Arrow type {data_type} can't be bound"))?;
            let text = cast(&array.slice(row, 1), &DataType::Utf8).map_err(|error| error.to_string())?;
            Ok(format!("CAST({} AS {typed})", duckdb_text(text.as_string::<i32>().value(0))))
        }
    }
}

/// An interval in DuckDB's three units: months, days and microseconds.
fn interval_sql(array: &dyn Array, row: usize) -> Result<String, String> {
    let months_days_nanos = DataType::Interval(IntervalUnit::MonthDayNano);
    let (months, days, nanoseconds) = match array.data_type() {
        DataType::Duration(_) => {
            // A cast of durations would round to coarser units and wrap on overflow.
            let (value, unit) = duration(array, row);
            (0, 0, i128::from(value) * unit)
        }
        _ => {
            let array = cast(array, &months_days_nanos).map_err(|error| error.to_string())?;
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
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
fn duration(array: &dyn Array, row: usize) -> (i64, i128) {
    match array.data_type() {
        DataType::Duration(TimeUnit::Second) => (array.as_primitive::<DurationSecondType>().value(row), 1_000_000_000),
        DataType::Duration(TimeUnit::Millisecond) => {
            (array.as_primitive::<DurationMillisecondType>().value(row), 1_000_000)
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            (array.as_primitive::<DurationMicrosecondType>().value(row), 1_000)
        }
        _ => (array.as_primitive::<DurationNanosecondType>().value(row), 1),
    }
}

/// The plain form of a type that a client may bind: no views, dictionaries or large offsets.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Float16 => DataType::Float32,
        DataType::Dictionary(_, values) => plain(values),
        DataType::RunEndEncoded(_, values) => plain(values.data_type()),
        DataType::Date64 => DataType::Date32,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item) => DataType::new_list(plain(item.data_type()), true),
        other => other.clone(),
    }
}

/// The DuckDB type of a plain Arrow type.
fn duckdb_type(data_type: &DataType) -> Option<String> {
    Some(match data_type {
        DataType::Null => "VARCHAR".to_owned(),
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 => "TINYINT".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INTEGER".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::UInt8 => "UTINYINT".to_owned(),
        DataType::UInt16 => "USMALLINT".to_owned(),
        DataType::UInt32 => "UINTEGER".to_owned(),
        DataType::UInt64 => "UBIGINT".to_owned(),
        DataType::Float32 => "FLOAT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale)
            if *precision <= 38 && *scale >= 0 =>
        {
            format!("DECIMAL({precision},{scale})")
        }
        DataType::Utf8 => "VARCHAR".to_owned(),
        DataType::Binary => "BLOB".to_owned(),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "TIME".to_owned(),
        DataType::Timestamp(_, Some(_)) => "TIMESTAMPTZ".to_owned(),
        DataType::Timestamp(TimeUnit::Nanosecond, None) => "TIMESTAMP_NS".to_owned(),
        DataType::Timestamp(_, None) => "TIMESTAMP".to_owned(),
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL".to_owned(),
        DataType::List(item) => format!("{}[]", duckdb_type(item.data_type())?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, Decimal128Array, DurationMillisecondArray, Int64Array, NullArray, StringViewArray,
        TimestampNanosecondArray,
    };

    use super::*;

    #[test]
    fn values_become_typed_constants() {
        let cases: Vec<(ArrayRef, Option<DataType>, &str)> = vec![
            (Arc::new(Int64Array::from(vec![5])), Some(DataType::Int32), "CAST(CAST('5' AS BIGINT) AS INTEGER)"),
            (Arc::new(StringViewArray::from(vec!["it's"])), None, "'it''s'"),
            (Arc::new(StringViewArray::from(vec!["it's"])), Some(DataType::Utf8), "CAST('it''s' AS VARCHAR)"),
            (Arc::new(NullArray::new(1)), None, "NULL"),
            (
                Arc::new(DurationMillisecondArray::from(vec![-1500])),
                None,
                "CAST((to_months(0) + to_days(0) + to_microseconds(CAST('-1500000' AS BIGINT))) AS INTERVAL)",
            ),
            (Arc::new(StringViewArray::from(vec![None::<&str>])), Some(DataType::Date32), "CAST(NULL AS DATE)"),
            (
                Arc::new(Decimal128Array::from(vec![-150]).with_precision_and_scale(5, 2).unwrap()),
                None,
                "CAST(CAST('-1.50' AS DECIMAL(5,2)) AS DECIMAL(5,2))",
            ),
            (
                Arc::new(TimestampNanosecondArray::from(vec![0]).with_timezone("+00:00")),
                None,
                "CAST(CAST('1970-01-01T00:00:00Z' AS TIMESTAMPTZ) AS TIMESTAMPTZ)",
            ),
        ];
        for (array, wanted, expected) in cases {
            assert_eq!(constant_sql(&array, wanted.as_ref()).unwrap(), expected);
        }
    }
}
