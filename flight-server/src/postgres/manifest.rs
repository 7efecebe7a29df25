//! Rows of the manifest table `lake_file` (docs/contract.md, "Lake files").
//!
//! Its `columns JSONB` is a list of the file's top-level columns in file order:
//!
//! ```json
//! [{"name": "row_id", "type": "UUID", "nulls": 0},
//!  {"name": "distance", "type": "INT32", "min": 80, "max": 4983, "nulls": 0},
//!  {"name": "price", "type": "DECIMAL(9,2)", "min": "0.10", "max": "99.95"}]
//! ```
//!
//! `type` is the text of [`FileType`]. `min` and `max` stand together, are exact, and are absent when unknown, as is
//! `nulls`. A boolean is a boolean, an integer of up to 53 bits and a double are numbers, a larger integer and a
//! decimal are text in decimal digits, text is text, a UUID its hyphenated form, a date the number of days and a
//! timestamp the text of the number of microseconds since the Unix epoch.

use serde_json::{Map, Value as Json, json};
use tokio_postgres::Row;
use translator::lake::{FileColumn, FileType, LakeFile};
use translator::options::Tier;
use translator::value::Value;

use super::error::{PostgresError, PostgresErrorKind};
use crate::config::TableName;

/// Integers up to this magnitude are JSON numbers that every reader keeps exact.
const SAFE_INTEGER: i128 = 1 << 53;

/// The statement that lists an entity's files in force; its parameter is the `schema_id`.
pub(super) fn select(table: &TableName) -> String {
    format!(
        "SELECT path, tier, row_count, bytes, min_row_id, max_row_id, min_changed_at, max_changed_at, unique_rows, \
         columns::text FROM {table} WHERE schema_id = $1 AND retired_at IS NULL ORDER BY path COLLATE \"C\""
    )
}

pub(super) fn read_row(row: &Row) -> Result<LakeFile, PostgresError> {
    let path: String = row.try_get(0)?;
    let bad = |what: &str| PostgresError::new(PostgresErrorKind::Data, format!("manifest row of `{path}`: {what}"));
    let tier = match row.try_get::<_, &str>(1)? {
        "delta" => Tier::Warm,
        "base" => Tier::Cold,
        _ => return Err(bad("the tier is neither delta nor base")),
    };
    let count = |index: usize, what: &str| -> Result<u64, PostgresError> {
        u64::try_from(row.try_get::<_, i64>(index)?).map_err(|_| bad(what))
    };
    let row_count = count(2, "row_count is negative")?;
    let bytes = count(3, "bytes is negative")?;
    let ids: (Option<uuid::Uuid>, Option<uuid::Uuid>) = (row.try_get(4)?, row.try_get(5)?);
    let changed_at: (Option<i64>, Option<i64>) = (row.try_get(6)?, row.try_get(7)?);
    let unique_rows: Option<bool> = row.try_get(8)?;
    let text: &str = row.try_get(9)?;
    let columns = serde_json::from_str(text)
        .ok()
        .and_then(|columns: Json| columns_from_json(&columns))
        .ok_or_else(|| bad("the columns cannot be understood"))?;
    let tombstones = columns.iter().find(|column| column.name.eq_ignore_ascii_case("deleted_at"));
    Ok(LakeFile {
        etag: None,
        tier,
        bytes,
        row_count,
        row_id_range: ids.0.zip(ids.1).map(|(min, max)| (min.as_u128(), max.as_u128())),
        changed_at_range: changed_at.0.zip(changed_at.1),
        unique_rows: unique_rows.unwrap_or(false),
        may_hold_tombstones: tombstones.is_some_and(|column| column.null_count != Some(row_count)),
        row_groups: std::sync::Arc::default(),
        columns,
        path,
    })
}

/// The manifest's form of a file's columns.
pub fn columns_to_json(columns: &[FileColumn]) -> Json {
    columns
        .iter()
        .map(|column| {
            let mut object = Map::new();
            object.insert("name".to_owned(), json!(column.name));
            object.insert("type".to_owned(), json!(column.file_type.to_string()));
            if let Some((min, max)) = &column.range {
                object.insert("min".to_owned(), value_to_json(min));
                object.insert("max".to_owned(), value_to_json(max));
            }
            if let Some(nulls) = column.null_count {
                object.insert("nulls".to_owned(), json!(nulls));
            }
            Json::Object(object)
        })
        .collect()
}

/// Reads the manifest's form; `None` when it is malformed.
pub fn columns_from_json(columns: &Json) -> Option<Vec<FileColumn>> {
    columns.as_array()?.iter().map(column_from_json).collect()
}

fn column_from_json(column: &Json) -> Option<FileColumn> {
    let file_type = read_file_type(column.get("type")?.as_str()?);
    let bound = |key: &str| match column.get(key) {
        None => Some(None),
        Some(json) => value_from_json(json, &file_type).map(Some),
    };
    let range = bound("min")?.zip(bound("max")?);
    let null_count = match column.get("nulls") {
        None => None,
        Some(nulls) => Some(nulls.as_u64()?),
    };
    Some(FileColumn { name: column.get("name")?.as_str()?.to_owned(), file_type, range, null_count })
}

fn value_to_json(value: &Value) -> Json {
    match value {
        Value::Bool(flag) => json!(flag),
        Value::Int(number) if number.abs() <= SAFE_INTEGER => json!(i64::try_from(*number).unwrap_or_default()),
        Value::Int(number) => json!(number.to_string()),
        Value::Decimal { unscaled, scale } => json!(decimal_text(*unscaled, *scale)),
        Value::Double(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Uuid(id) => json!(uuid::Uuid::from_u128(*id).to_string()),
        Value::Date(days) => json!(days),
        Value::Timestamp(micros) | Value::Time(micros) => json!(micros.to_string()),
        // No file's column has bounds of bytes.
        Value::Blob(_) => Json::Null,
    }
}

fn value_from_json(json: &Json, file_type: &FileType) -> Option<Value> {
    Some(match file_type {
        FileType::Boolean => Value::Bool(json.as_bool()?),
        FileType::Int(_) | FileType::UInt(_) => Value::Int(match json {
            Json::String(text) => text.parse().ok()?,
            other => i128::from(other.as_i64()?),
        }),
        FileType::Float | FileType::Double => Value::Double(json.as_f64()?),
        FileType::Decimal { scale, .. } => {
            Value::Decimal { unscaled: read_decimal(json.as_str()?, *scale)?, scale: *scale }
        }
        FileType::Text | FileType::Json => Value::Text(json.as_str()?.to_owned()),
        FileType::Uuid => Value::Uuid(uuid::Uuid::try_parse(json.as_str()?).ok()?.as_u128()),
        FileType::Date => Value::Date(i32::try_from(json.as_i64()?).ok()?),
        FileType::Timestamp { .. } => Value::Timestamp(json.as_str()?.parse().ok()?),
        FileType::Time { .. } => Value::Time(json.as_str()?.parse().ok()?),
        FileType::Null | FileType::Blob | FileType::FixedBytes16 | FileType::List(_) | FileType::Other(_) => {
            return None;
        }
    })
}

fn decimal_text(unscaled: i128, scale: u8) -> String {
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = unscaled.unsigned_abs().to_string();
    let scale = usize::from(scale);
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// Reads a decimal of exactly `scale` digits after the point.
fn read_decimal(text: &str, scale: u8) -> Option<i128> {
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    if fraction.len() != usize::from(scale) {
        return None;
    }
    text.replacen('.', "", 1).parse().ok()
}

/// Reads the text of a [`FileType`].
fn read_file_type(text: &str) -> FileType {
    if let Some(element) = text.strip_prefix("LIST<").and_then(|rest| rest.strip_suffix('>')) {
        return FileType::List(Box::new(read_file_type(element)));
    }
    if let Some((precision, scale)) =
        text.strip_prefix("DECIMAL(").and_then(|rest| rest.strip_suffix(')')).and_then(|rest| rest.split_once(','))
        && let (Ok(precision), Ok(scale)) = (precision.parse(), scale.parse())
    {
        return FileType::Decimal { precision, scale };
    }
    match text {
        "BOOLEAN" => FileType::Boolean,
        "INT8" => FileType::Int(8),
        "INT16" => FileType::Int(16),
        "INT32" => FileType::Int(32),
        "INT64" => FileType::Int(64),
        "UINT8" => FileType::UInt(8),
        "UINT16" => FileType::UInt(16),
        "UINT32" => FileType::UInt(32),
        "UINT64" => FileType::UInt(64),
        "FLOAT" => FileType::Float,
        "DOUBLE" => FileType::Double,
        "STRING" => FileType::Text,
        "BYTE_ARRAY" => FileType::Blob,
        "FIXED_LEN_BYTE_ARRAY(16)" => FileType::FixedBytes16,
        "UUID" => FileType::Uuid,
        "DATE" => FileType::Date,
        "JSON" => FileType::Json,
        "TIME(MILLIS)" => FileType::Time { unit: 3 },
        "TIME(MICROS)" => FileType::Time { unit: 6 },
        "TIME(NANOS)" => FileType::Time { unit: 9 },
        "NULL" => FileType::Null,
        "TIMESTAMP(MILLIS)" => FileType::Timestamp { unit: 3, utc: false },
        "TIMESTAMP(MICROS)" => FileType::Timestamp { unit: 6, utc: false },
        "TIMESTAMP(NANOS)" => FileType::Timestamp { unit: 9, utc: false },
        "TIMESTAMP(MILLIS, UTC)" => FileType::Timestamp { unit: 3, utc: true },
        "TIMESTAMP(MICROS, UTC)" => FileType::Timestamp { unit: 6, utc: true },
        "TIMESTAMP(NANOS, UTC)" => FileType::Timestamp { unit: 9, utc: true },
        other => FileType::Other(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_survive_the_manifest() {
        let column = |name: &str, file_type, range, null_count| FileColumn {
            name: name.to_owned(),
            file_type,
            range,
            null_count,
        };
        let decimal = |unscaled| Value::Decimal { unscaled, scale: 2 };
        let list = FileType::List(Box::new(FileType::List(Box::new(FileType::Decimal { precision: 9, scale: 2 }))));
        let columns = vec![
            column("a", FileType::Boolean, Some((Value::Bool(false), Value::Bool(true))), Some(3)),
            column("b", FileType::Int(64), Some((Value::Int(i64::MIN.into()), Value::Int(7))), None),
            column("c", FileType::UInt(64), Some((Value::Int(0), Value::Int(u64::MAX.into()))), Some(0)),
            column("d", FileType::Double, Some((Value::Double(-0.5), Value::Double(1e300))), None),
            column("e", FileType::Decimal { precision: 9, scale: 2 }, Some((decimal(-5), decimal(12345))), None),
            column("f", FileType::Text, Some((Value::Text(String::new()), Value::Text("ü\"".to_owned()))), None),
            column("g", FileType::Uuid, Some((Value::Uuid(1), Value::Uuid(u128::MAX))), None),
            column("h", FileType::Date, Some((Value::Date(-1), Value::Date(20_000))), None),
            column(
                "i",
                FileType::Timestamp { unit: 6, utc: true },
                Some((Value::Timestamp(i64::MIN), Value::Timestamp(1))),
                None,
            ),
            column("j", list, None, None),
            column("n", FileType::Null, None, Some(3)),
            column("k", FileType::Other("INTERVAL".to_owned()), None, None),
        ];
        let text = columns_to_json(&columns).to_string();
        assert_eq!(columns_from_json(&serde_json::from_str(&text).unwrap()), Some(columns));
    }

    #[test]
    fn malformed_columns_are_refused() {
        for text in [
            "{}",
            "[{\"name\": \"a\"}]",
            "[{\"name\": \"a\", \"type\": \"INT32\", \"min\": \"x\", \"max\": 1}]",
            "[{\"name\": \"a\", \"type\": \"DECIMAL(9,2)\", \"min\": \"1.5\", \"max\": \"2.00\"}]",
        ] {
            assert_eq!(columns_from_json(&serde_json::from_str(text).unwrap()), None, "{text}");
        }
    }
}
