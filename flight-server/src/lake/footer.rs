//! From a Parquet footer to the facts the planner works with.
//!
//! Statistics are taken only where they are exact and their order is certain; everything else is `None`, which costs
//! speed and never an answer.

use parquet::basic::{ColumnOrder, Compression, ConvertedType, LogicalType, SortOrder, TimeUnit, Type as Physical};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use parquet::schema::types::{ColumnDescriptor, Type};
use translator::lake::{FileColumn, FileType, LakeFile, RowGroup};
use translator::options::Tier;
use translator::value::Value;

/// Key of the metadata entry by which a writer vouches that no `row_id` occurs twice in the file.
pub const UNIQUE_ROWS_KEY: &str = "thermocline.unique_rows";

/// Facts of one file. `tier` and `bytes` come from its listing.
pub(super) fn read_facts(metadata: &ParquetMetaData, path: &str, tier: Tier, bytes: u64) -> LakeFile {
    let file = metadata.file_metadata();
    let schema = file.schema_descr();
    // What DuckDB reads; the number that the footer gives of the whole file is another in files of old writers.
    let row_count: u64 = metadata.row_groups().iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(0)).sum();
    let mut columns = Vec::new();
    let mut row_id_range = None;
    let mut row_groups = Vec::new();
    for (place, field) in schema.root_schema().get_fields().iter().enumerate() {
        let file_type = file_type(field);
        // Only a top-level primitive has statistics that speak of the column itself.
        let leaf = (field.is_primitive() && !is_repeated(field))
            .then(|| (0..schema.num_columns()).find(|leaf| schema.get_column_root_idx(*leaf) == place))
            .flatten();
        let (range, null_count) = match leaf {
            Some(_) if file_type == FileType::Null => (None, Some(row_count)),
            Some(leaf) => {
                let order = file.column_order(leaf);
                if field.name().eq_ignore_ascii_case("row_id") {
                    let range = |groups: &[RowGroupMetaData]| read_row_id_range(groups, leaf, &file_type, order);
                    row_id_range = range(metadata.row_groups());
                    row_groups = metadata
                        .row_groups()
                        .iter()
                        .map(|group| RowGroup {
                            rows: u64::try_from(group.num_rows()).unwrap_or(0),
                            row_id_range: range(std::slice::from_ref(group)),
                        })
                        .collect();
                }
                let range = read_range(metadata.row_groups(), leaf, &file_type, order);
                (range, read_null_count(metadata.row_groups(), leaf, &schema.column(leaf)))
            }
            None => (None, None),
        };
        columns.push(FileColumn { name: field.name().to_owned(), file_type, range, null_count });
    }
    let changed_at = columns.iter().find(|column| column.name.eq_ignore_ascii_case("changed_at"));
    let changed_at_range = changed_at.and_then(|column| match &column.range {
        Some((Value::Int(min), Value::Int(max))) => Some((i64::try_from(*min).ok()?, i64::try_from(*max).ok()?)),
        _ => None,
    });
    let deleted_at = columns.iter().find(|column| column.name.eq_ignore_ascii_case("deleted_at"));
    let may_hold_tombstones = deleted_at.is_some_and(|column| {
        let all_null = column.null_count == Some(row_count);
        let all_zero = column.range == Some((Value::Int(0), Value::Int(0)));
        !all_null && !all_zero
    });
    let unique_rows = file.key_value_metadata().is_some_and(|entries| {
        entries.iter().any(|entry| entry.key == UNIQUE_ROWS_KEY && entry.value.as_deref() == Some("true"))
    });
    LakeFile {
        etag: None,
        path: path.to_owned(),
        tier,
        bytes,
        row_count,
        row_id_range,
        changed_at_range,
        unique_rows,
        may_hold_tombstones,
        row_groups: row_groups.into(),
        columns,
    }
}

fn is_repeated(field: &Type) -> bool {
    let info = field.get_basic_info();
    info.has_repetition() && info.repetition() == parquet::basic::Repetition::REPEATED
}

/// The type as DuckDB reads it.
fn file_type(field: &Type) -> FileType {
    let scalar = if field.is_primitive() { primitive_type(field) } else { group_type(field) };
    let is_list_already = matches!(scalar, FileType::List(_));
    if is_repeated(field) && !is_list_already { FileType::List(Box::new(scalar)) } else { scalar }
}

fn primitive_type(field: &Type) -> FileType {
    let info = field.get_basic_info();
    let decimal = || {
        let precision = u8::try_from(field.get_precision()).ok()?;
        let scale = u8::try_from(field.get_scale()).ok()?;
        (precision > 0).then_some(FileType::Decimal { precision, scale })
    };
    if let Some(logical) = info.logical_type_ref()
        && let Some(known) = logical_type(logical)
    {
        return known;
    }
    match (info.converted_type(), field.get_physical_type()) {
        (ConvertedType::DECIMAL, _) => decimal().unwrap_or_else(|| FileType::Other("DECIMAL".to_owned())),
        (ConvertedType::UTF8 | ConvertedType::ENUM, Physical::BYTE_ARRAY) => FileType::Text,
        (ConvertedType::JSON, Physical::BYTE_ARRAY) => FileType::Json,
        (ConvertedType::DATE, Physical::INT32) => FileType::Date,
        // DuckDB takes timestamps that only have the older annotation as local ones.
        (ConvertedType::TIMESTAMP_MILLIS, Physical::INT64) => FileType::Timestamp { unit: 3, utc: false },
        (ConvertedType::TIMESTAMP_MICROS, Physical::INT64) => FileType::Timestamp { unit: 6, utc: false },
        (ConvertedType::INT_8, _) => FileType::Int(8),
        (ConvertedType::INT_16, _) => FileType::Int(16),
        (ConvertedType::INT_32, _) => FileType::Int(32),
        (ConvertedType::INT_64, _) => FileType::Int(64),
        (ConvertedType::UINT_8, _) => FileType::UInt(8),
        (ConvertedType::UINT_16, _) => FileType::UInt(16),
        (ConvertedType::UINT_32, _) => FileType::UInt(32),
        (ConvertedType::UINT_64, _) => FileType::UInt(64),
        (ConvertedType::NONE | ConvertedType::BSON, physical) => match physical {
            Physical::BOOLEAN => FileType::Boolean,
            Physical::INT32 => FileType::Int(32),
            Physical::INT64 => FileType::Int(64),
            // DuckDB reads every INT96 as a local timestamp of microseconds.
            Physical::INT96 => FileType::Timestamp { unit: 6, utc: false },
            Physical::FLOAT => FileType::Float,
            Physical::DOUBLE => FileType::Double,
            Physical::BYTE_ARRAY => FileType::Blob,
            Physical::FIXED_LEN_BYTE_ARRAY => fixed_bytes(field),
        },
        (converted, _) => FileType::Other(converted.to_string()),
    }
}

fn fixed_bytes(field: &Type) -> FileType {
    match field {
        Type::PrimitiveType { type_length: 16, .. } => FileType::FixedBytes16,
        _ => FileType::Blob,
    }
}

/// `None` when the annotation adds nothing to the physical type.
fn logical_type(logical: &LogicalType) -> Option<FileType> {
    Some(match logical {
        LogicalType::String | LogicalType::Enum => FileType::Text,
        LogicalType::Json => FileType::Json,
        LogicalType::Uuid => FileType::Uuid,
        LogicalType::Date => FileType::Date,
        LogicalType::Decimal { scale, precision } => {
            FileType::Decimal { precision: u8::try_from(*precision).ok()?, scale: u8::try_from(*scale).ok()? }
        }
        LogicalType::Timestamp { is_adjusted_to_u_t_c, unit } => {
            FileType::Timestamp { unit: digits(unit), utc: *is_adjusted_to_u_t_c }
        }
        LogicalType::Integer { bit_width, is_signed } => {
            let bits = u8::try_from(*bit_width).ok()?;
            if *is_signed { FileType::Int(bits) } else { FileType::UInt(bits) }
        }
        LogicalType::Float16 => FileType::Float,
        LogicalType::Time { unit, .. } => FileType::Time { unit: digits(unit) },
        LogicalType::Unknown => FileType::Null,
        LogicalType::Bson => return None,
        LogicalType::_Unknown { field_id } => FileType::Other(format!("of the unknown logical type {field_id}")),
        other => FileType::Other(format!("{other:?}")),
    })
}

/// Digits after the second.
fn digits(unit: &TimeUnit) -> u8 {
    match unit {
        TimeUnit::MILLIS => 3,
        TimeUnit::MICROS => 6,
        TimeUnit::NANOS => 9,
    }
}

fn group_type(field: &Type) -> FileType {
    let info = field.get_basic_info();
    let is_list =
        info.converted_type() == ConvertedType::LIST || matches!(info.logical_type_ref(), Some(LogicalType::List));
    let fields = field.get_fields();
    if let ([repeated], true) = (fields, is_list) {
        // The rules for older lists are those of the Parquet format, LogicalTypes, "Backward-compatibility rules".
        let wraps_element = repeated.is_group()
            && repeated.get_fields().len() == 1
            && repeated.name() != "array"
            && repeated.name() != format!("{}_tuple", field.name());
        return if wraps_element {
            FileType::List(Box::new(file_type(&repeated.get_fields()[0])))
        } else {
            match file_type(repeated) {
                list @ FileType::List(_) => list,
                element => FileType::List(Box::new(element)),
            }
        };
    }
    let is_map = matches!(info.converted_type(), ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE);
    FileType::Other(if is_map { "MAP" } else { "STRUCT" }.to_owned())
}

/// Number of NULLs, when every row group knows it.
fn read_null_count(groups: &[RowGroupMetaData], leaf: usize, descriptor: &ColumnDescriptor) -> Option<u64> {
    if descriptor.max_def_level() == 0 {
        return Some(0);
    }
    groups
        .iter()
        .filter(|group| group.num_rows() > 0)
        .map(|group| group.column(leaf).statistics()?.null_count_opt())
        .sum()
}

/// Statistics of the row groups that hold at least one value; `None` when any of those has none.
fn value_statistics(groups: &[RowGroupMetaData], leaf: usize) -> Option<Vec<&Statistics>> {
    let mut found = Vec::with_capacity(groups.len());
    for group in groups.iter().filter(|group| group.num_rows() > 0) {
        let statistics = group.column(leaf).statistics()?;
        let all_null = statistics.null_count_opt() == u64::try_from(group.num_rows()).ok();
        if !all_null {
            found.push(statistics);
        }
    }
    Some(found)
}

fn read_range(
    groups: &[RowGroupMetaData],
    leaf: usize,
    file_type: &FileType,
    order: ColumnOrder,
) -> Option<(Value, Value)> {
    let mut range: Option<(Value, Value)> = None;
    for statistics in value_statistics(groups, leaf)? {
        let (min, max) = bounds(statistics, file_type, order)?;
        range = Some(match range {
            None => (min, max),
            Some((low, high)) => {
                (if is_less(&min, &low)? { min } else { low }, if is_less(&high, &max)? { max } else { high })
            }
        });
    }
    // A writer that mixed its bounds up can't be trusted with any of them.
    range.filter(|(min, max)| is_less(max, min) == Some(false))
}

/// Compares two values of one column; `None` for kinds without bounds.
fn is_less(left: &Value, right: &Value) -> Option<bool> {
    Some(match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => left < right,
        (Value::Int(left), Value::Int(right)) => left < right,
        (Value::Decimal { unscaled: left, .. }, Value::Decimal { unscaled: right, .. }) => left < right,
        (Value::Text(left), Value::Text(right)) => left.as_bytes() < right.as_bytes(),
        (Value::Uuid(left), Value::Uuid(right)) => left < right,
        (Value::Date(left), Value::Date(right)) => left < right,
        (Value::Timestamp(left), Value::Timestamp(right)) => left < right,
        (Value::Time(left), Value::Time(right)) => left < right,
        _ => return None,
    })
}

/// Exact bounds of one row group.
fn bounds(statistics: &Statistics, file_type: &FileType, order: ColumnOrder) -> Option<(Value, Value)> {
    let min = statistics.min_bytes_opt()?;
    let max = statistics.max_bytes_opt()?;
    // The older fields were compared as signed bytes and numbers whatever the type was.
    let deprecated = statistics.is_min_max_deprecated();
    let is_bytes = matches!(statistics, Statistics::ByteArray(_) | Statistics::FixedLenByteArray(_));
    if deprecated && (is_bytes || matches!(file_type, FileType::UInt(_))) {
        return None;
    }
    let value = |bytes: &[u8]| -> Option<Value> {
        Some(match file_type {
            FileType::Boolean => Value::Bool(*bytes.first()? != 0),
            FileType::Int(_) => Value::Int(signed(statistics, bytes)?.into()),
            FileType::UInt(_) => Value::Int(unsigned(statistics, bytes)?.into()),
            FileType::Decimal { scale, .. } => {
                let unscaled = if is_bytes { big_endian(bytes)? } else { signed(statistics, bytes)?.into() };
                Value::Decimal { unscaled, scale: *scale }
            }
            FileType::Date => Value::Date(i32::try_from(signed(statistics, bytes)?).ok()?),
            FileType::Timestamp { unit, .. } => {
                let ticks = signed(statistics, bytes)?;
                Value::Timestamp(match unit {
                    3 => ticks.checked_mul(1000)?,
                    6 => ticks,
                    _ => (ticks % 1000 == 0).then_some(ticks / 1000)?,
                })
            }
            FileType::Time { unit } => {
                let ticks = signed(statistics, bytes)?;
                Value::Time(match unit {
                    3 => ticks.checked_mul(1000)?,
                    6 => ticks,
                    _ => return None,
                })
            }
            FileType::Text => {
                let exact = statistics.min_is_exact() && statistics.max_is_exact();
                let ordered = order == ColumnOrder::TYPE_DEFINED_ORDER(SortOrder::UNSIGNED);
                if !exact || !ordered {
                    return None;
                }
                Value::Text(std::str::from_utf8(bytes).ok()?.to_owned())
            }
            FileType::Uuid => {
                let ordered = order == ColumnOrder::TYPE_DEFINED_ORDER(SortOrder::UNSIGNED);
                Value::Uuid(u128::from_be_bytes(bytes.try_into().ok().filter(|_| ordered)?))
            }
            // NaN may hide behind the bounds of a float; the others have no value or no certain order.
            FileType::Float
            | FileType::Double
            | FileType::Blob
            | FileType::FixedBytes16
            | FileType::Json
            | FileType::Null
            | FileType::List(_)
            | FileType::Other(_) => return None,
        })
    };
    Some((value(min)?, value(max)?))
}

fn signed(statistics: &Statistics, bytes: &[u8]) -> Option<i64> {
    match statistics {
        Statistics::Int32(_) => Some(i32::from_le_bytes(bytes.try_into().ok()?).into()),
        Statistics::Int64(_) => Some(i64::from_le_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}

fn unsigned(statistics: &Statistics, bytes: &[u8]) -> Option<u64> {
    match statistics {
        Statistics::Int32(_) => Some(u32::from_le_bytes(bytes.try_into().ok()?).into()),
        Statistics::Int64(_) => Some(u64::from_le_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}

/// Why DuckDB can't read the pages of a file, when its footer tells.
pub(super) fn unreadable_codec(metadata: &ParquetMetaData) -> Option<String> {
    let columns = metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
    let codec = columns.map(|column| column.compression()).find_map(|codec| match codec {
        // Codec 5: blocks in Hadoop's framing, or in that of the LZ4 tools. LZ4_RAW is codec 7.
        Compression::LZ4 => Some("Hadoop's LZ4 (codec 5)"),
        Compression::LZO => Some("LZO (codec 3)"),
        _ => None,
    })?;
    Some(format!("it is compressed with {codec}, which DuckDB can't read: rewrite it with LZ4_RAW, zstd or snappy"))
}

/// A big-endian two's complement number of up to 16 bytes.
fn big_endian(bytes: &[u8]) -> Option<i128> {
    let first = *bytes.first()?;
    if bytes.len() > 16 {
        return None;
    }
    let mut wide = [if first >= 0x80 { 0xff } else { 0 }; 16];
    wide[16 - bytes.len()..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(wide))
}

/// Bounds of the row ids as numbers.
fn read_row_id_range(
    groups: &[RowGroupMetaData],
    leaf: usize,
    file_type: &FileType,
    order: ColumnOrder,
) -> Option<(u128, u128)> {
    if order != ColumnOrder::TYPE_DEFINED_ORDER(SortOrder::UNSIGNED) {
        return None;
    }
    let mut range: Option<(u128, u128)> = None;
    for statistics in value_statistics(groups, leaf)? {
        if statistics.is_min_max_deprecated() {
            return None;
        }
        let (min, max) = (statistics.min_bytes_opt()?, statistics.max_bytes_opt()?);
        let (min, max) = match file_type {
            FileType::Uuid | FileType::FixedBytes16 => {
                (u128::from_be_bytes(min.try_into().ok()?), u128::from_be_bytes(max.try_into().ok()?))
            }
            FileType::Text => text_id_bounds(min, max)?,
            _ => return None,
        };
        if min > max {
            return None;
        }
        range = Some(range.map_or((min, max), |(low, high)| (low.min(min), high.max(max))));
    }
    range
}

/// Bounds of the ids between two texts in byte order.
///
/// Both must be in canonical form. The ids between them may still be written in upper case, which sorts elsewhere: only
/// what the bounds share, and the digit behind it, is certain; below that the bounds are widened.
fn text_id_bounds(min: &[u8], max: &[u8]) -> Option<(u128, u128)> {
    let (low, high) = (canonical_id(min)?, canonical_id(max)?);
    let Some(at) = min.iter().zip(max).position(|(left, right)| left != right) else { return Some((low, high)) };
    let digits_before = min[..at].iter().filter(|byte| **byte != b'-').count();
    // Bits from the differing digit on, and behind it.
    let below = u32::try_from(4 * (31 - digits_before)).ok()?;
    let mask = (1_u128 << below) - 1;
    let upper_case_between = min[at].is_ascii_digit() && !max[at].is_ascii_digit();
    let high = if upper_case_between { high | (0xf_u128 << below) } else { high };
    Some((low & !mask, high | mask))
}

/// A UUID in lower-case hyphenated form.
fn canonical_id(text: &[u8]) -> Option<u128> {
    let id = uuid::Uuid::try_parse_ascii(text).ok()?;
    let mut buffer = uuid::Uuid::encode_buffer();
    (id.hyphenated().encode_lower(&mut buffer).as_bytes() == text).then(|| id.as_u128())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ids_between_bounds_stay_between_the_widened_ones() {
        let id = |text: &str| u128::from_str_radix(&text.replace('-', ""), 16).unwrap();
        for (min, max, low, high) in [
            (
                "01941f29-7c00-7000-8000-000000000000",
                "01941f29-7c00-7000-8000-000000000000",
                "01941f29-7c00-7000-8000-000000000000",
                "01941f29-7c00-7000-8000-000000000000",
            ),
            (
                "01941f29-7c00-7000-8000-000000000000",
                "01941f29-7d00-7000-8000-000000000000",
                "01941f29-7c00-0000-0000-000000000000",
                "01941f29-7dff-ffff-ffff-ffffffffffff",
            ),
            (
                "01941129-7c00-7000-8000-000000000000",
                "01941a29-7c00-7000-8000-000000000000",
                "01941100-0000-0000-0000-000000000000",
                "01941fff-ffff-ffff-ffff-ffffffffffff",
            ),
            (
                "01941129-7c00-7000-8000-000000000000",
                "01941329-7c00-7000-8000-000000000000",
                "01941100-0000-0000-0000-000000000000",
                "019413ff-ffff-ffff-ffff-ffffffffffff",
            ),
        ] {
            assert_eq!(text_id_bounds(min.as_bytes(), max.as_bytes()), Some((id(low), id(high))), "{min} {max}");
        }
        assert_eq!(text_id_bounds(b"01941F29-7C00-7000-8000-000000000000", b"x"), None);
        assert_eq!(text_id_bounds(b"01941f297c0070008000000000000000", b"01941f297c0070008000000000000000"), None);
    }

    #[test]
    fn decimals_of_any_width() {
        assert_eq!(big_endian(&[0xff]), Some(-1));
        assert_eq!(big_endian(&[0x01, 0x00]), Some(256));
        assert_eq!(big_endian(&[0x80; 17]), None);
        assert_eq!(big_endian(&[]), None);
    }
}
