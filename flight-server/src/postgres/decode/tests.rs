use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use translator::catalog::{Storage, TimeEncoding};

use super::super::copy::CopyReader;
use super::super::copy::tests::encode;
use super::*;

type Field = Option<Vec<u8>>;

fn int8(value: i64) -> Field {
    Some(value.to_be_bytes().to_vec())
}

fn float8(value: f64) -> Field {
    Some(value.to_be_bytes().to_vec())
}

fn text(value: &str) -> Field {
    Some(value.as_bytes().to_vec())
}

/// `array_send` of a one-dimensional array; the element type doesn't matter to the reader.
fn array(elements: &[Field]) -> Field {
    let mut bytes = Vec::new();
    if elements.is_empty() {
        bytes.extend([0; 12]);
        return Some(bytes);
    }
    for number in [1, 1, 25, i32::try_from(elements.len()).unwrap(), 1] {
        bytes.extend(number.to_be_bytes());
    }
    for element in elements {
        match element {
            Some(element) => {
                bytes.extend(i32::try_from(element.len()).unwrap().to_be_bytes());
                bytes.extend(element);
            }
            None => bytes.extend((-1_i32).to_be_bytes()),
        }
    }
    Some(bytes)
}

fn entity(scalar: ScalarType, list: bool, encoding: TimeEncoding) -> Entity {
    let attribute = Attribute {
        name: "the.value".to_owned(),
        column: "the_value".to_owned(),
        scalar,
        list,
        storage: Storage::Eav { attr_id: 1 },
        encoding,
        description: None,
    };
    Entity {
        name: "things".to_owned(),
        schema_id: 1,
        description: None,
        attributes: vec![attribute],
        layout: translator::catalog::Layout::Eav,
        classified: false,
        hidden: Default::default(),
    }
}

/// A whole row around one attribute value.
fn row(value: Field) -> Vec<Field> {
    vec![Some(vec![7; 16]), int8(5), None, int8(3), Some(vec![1]), value]
}

fn decode(entity: &Entity, wire: WireType, rows: &[Vec<Field>]) -> Result<(RecordBatch, HotSummary), PostgresError> {
    let mut decoder = RowDecoder::new(entity, &[HotColumn { column: Column::Attribute(0), wire }])?;
    let mut reader = CopyReader::default();
    reader.read(&encode(rows), |row| decoder.push(row))?;
    assert!(reader.is_complete());
    let batch = decoder.take_batch()?;
    Ok((batch, decoder.summary()))
}

/// The value as Arrow prints it, or what the error says of it.
fn value(scalar: ScalarType, encoding: TimeEncoding, wire: WireType, field: Field) -> String {
    let list = matches!(wire, WireType::TextArray | WireType::Float8Array);
    match decode(&entity(scalar, list, encoding), wire, &[row(field)]) {
        Ok((batch, _)) => {
            let options = FormatOptions::new().with_null("NULL");
            // Printing a named time zone would take a database of them; an offset prints without.
            let column = match batch.column(4).as_primitive_opt::<TimestampMicrosecondType>() {
                Some(times) if times.timezone().is_some() => Arc::new(times.clone().with_timezone("+00:00")),
                Some(_) | None => Arc::clone(batch.column(4)),
            };
            ArrayFormatter::try_new(column.as_ref(), &options).unwrap().value(0).to_string()
        }
        Err(error) => {
            let prefix = "attribute `the.value` of `things`, row 07070707-0707-0707-0707-070707070707, tier hot: the \
                          stored value ";
            error.to_string().strip_prefix(prefix).expect("names entity, row and attribute").to_owned()
        }
    }
}

#[test]
fn numbers_are_exact_or_refused() {
    use ScalarType::{BigInt, Boolean, Double, Integer, SmallInt};
    let ms = TimeEncoding::UnixMs;
    for (scalar, field, expected) in [
        (SmallInt, 32767.0, "32767"),
        (SmallInt, 32768.0, "is out of range"),
        (SmallInt, -0.0, "0"),
        (Integer, 3.5, "is not an integer"),
        (Integer, f64::NAN, "is not an integer"),
        (Integer, f64::INFINITY, "is not an integer"),
        (Integer, -2_147_483_648.0, "-2147483648"),
        (Integer, 2_147_483_648.0, "is out of range"),
        (BigInt, 9_007_199_254_740_992.0, "9007199254740992"),
        (BigInt, 9_223_372_036_854_775_808.0, "is out of range"),
        (BigInt, -9_223_372_036_854_775_808.0, "-9223372036854775808"),
        (Double, 0.1, "0.1"),
        (Double, f64::NAN, "NaN"),
        (Boolean, 0.0, "false"),
        (Boolean, 1.0, "true"),
        (Boolean, 2.0, "is neither 0 nor 1"),
        (Boolean, 0.5, "is neither 0 nor 1"),
    ] {
        assert_eq!(value(scalar, ms, WireType::Float8, float8(field)), expected, "{scalar:?} {field}");
    }
    for (scalar, field, expected) in [
        (SmallInt, -32768, "-32768"),
        (SmallInt, 40_000, "is out of range"),
        (BigInt, i64::MAX, "9223372036854775807"),
        (Boolean, 1, "true"),
        (Boolean, -1, "is neither 0 nor 1"),
    ] {
        assert_eq!(value(scalar, ms, WireType::Int8, int8(field)), expected, "{scalar:?} {field}");
    }
    assert_eq!(value(BigInt, ms, WireType::Int8, None), "NULL");
}

#[test]
fn decimals_round_half_away_from_zero() {
    for (precision, scale, field, expected) in [
        (9, 2, 1.005, "1.01"),
        (9, 2, -1.005, "-1.01"),
        (9, 2, 1.004_999, "1.00"),
        (9, 2, 2.675, "2.68"),
        (9, 2, 0.0, "0.00"),
        (9, 2, 1e-30, "0.00"),
        (9, 2, 9_999_999.99, "9999999.99"),
        (9, 2, 9_999_999.995, "is out of range"),
        (9, 2, 1e300, "is out of range"),
        (9, 0, 2.5, "3"),
        (9, 0, -0.5, "-1"),
        (9, 0, 0.49, "0"),
        (15, 2, 1_234_567_890_123.45, "1234567890123.45"),
        (15, 15, 0.123_456_789_012_345, "0.123456789012345"),
        (15, 0, 999_999_999_999_999.0, "999999999999999"),
        (15, 0, 1e15, "is out of range"),
        (9, 2, f64::NAN, "is not a finite number"),
    ] {
        let scalar = ScalarType::Decimal { precision, scale };
        assert_eq!(
            value(scalar, TimeEncoding::UnixMs, WireType::Float8, float8(field)),
            expected,
            "{scalar:?} {field}"
        );
    }
}

#[test]
fn times_are_floored_and_exact() {
    use ScalarType::{Date, Timestamp};
    use TimeEncoding::{Iso8601, UnixMs};
    for (scalar, wire, encoding, field, expected) in [
        (Date, WireType::Int8, UnixMs, int8(0), "1970-01-01"),
        (Date, WireType::Int8, UnixMs, int8(86_399_999), "1970-01-01"),
        (Date, WireType::Int8, UnixMs, int8(-1), "1969-12-31"),
        (Date, WireType::Float8, UnixMs, float8(-86_400_000.0), "1969-12-31"),
        (Date, WireType::Float8, UnixMs, float8(-86_400_001.0), "1969-12-30"),
        (Date, WireType::Int8, UnixMs, int8(i64::MAX), "is out of range"),
        (Date, WireType::Text, Iso8601, text("2013-07-04"), "2013-07-04"),
        (Date, WireType::Text, Iso8601, text("2013-07-04T00:30+01:00"), "2013-07-03"),
        (Date, WireType::Text, Iso8601, text("July"), "is not an ISO 8601 date or time"),
        (Timestamp, WireType::Int8, UnixMs, int8(-1), "1969-12-31T23:59:59.999Z"),
        (Timestamp, WireType::Float8, UnixMs, float8(1500.0), "1970-01-01T00:00:01.500Z"),
        (Timestamp, WireType::Float8, UnixMs, float8(1500.5), "is not an integer"),
        (Timestamp, WireType::Int8, UnixMs, int8(i64::MAX / 1000 + 1), "is out of range"),
        (Timestamp, WireType::Text, Iso8601, text("2013-07-04 12:00:00.000001"), "2013-07-04T12:00:00.000001Z"),
    ] {
        assert_eq!(value(scalar, encoding, wire, field.clone()), expected, "{scalar:?} {field:?}");
    }
}

#[test]
fn texts_uuids_and_json() {
    let ms = TimeEncoding::UnixMs;
    for (scalar, wire, field, expected) in [
        (ScalarType::Text, WireType::Text, text(""), ""),
        (ScalarType::Text, WireType::Text, text("Zürich"), "Zürich"),
        (ScalarType::Text, WireType::Text, Some(vec![0xff]), "is not UTF-8 text"),
        (ScalarType::Json, WireType::Text, text("{\"a\": [1, null]}"), "{\"a\": [1, null]}"),
        (ScalarType::Json, WireType::Text, text("{a: 1}"), "is not valid JSON"),
        (ScalarType::Json, WireType::Text, text(""), "is not valid JSON"),
        (ScalarType::Uuid, WireType::Uuid, Some(vec![0xab; 16]), "abababababababababababababababab"),
        (
            ScalarType::Uuid,
            WireType::Text,
            text("ABABABAB-abab-abab-abab-abababababab"),
            "abababababababababababababababab",
        ),
        (ScalarType::Uuid, WireType::Text, text("abab"), "is not a UUID"),
    ] {
        assert_eq!(value(scalar, ms, wire, field.clone()), expected, "{scalar:?} {field:?}");
    }
}

#[test]
fn lists_keep_order_and_nulls() {
    let ms = TimeEncoding::UnixMs;
    for (scalar, wire, field, expected) in [
        (ScalarType::Integer, WireType::Float8Array, array(&[float8(3.0), None, float8(1.0)]), "[3, NULL, 1]"),
        (ScalarType::Text, WireType::TextArray, array(&[text("b"), text("a")]), "[b, a]"),
        (ScalarType::Text, WireType::TextArray, array(&[]), "[]"),
        (ScalarType::Text, WireType::TextArray, None, "NULL"),
        (ScalarType::Boolean, WireType::Float8Array, array(&[float8(1.0), float8(7.0)]), "is neither 0 nor 1"),
        (ScalarType::Text, WireType::TextArray, Some(vec![0, 0, 0, 2]), "is no one-dimensional array"),
    ] {
        assert_eq!(value(scalar, ms, wire, field.clone()), expected, "{scalar:?} {field:?}");
    }
    let lists = entity(ScalarType::Text, true, ms);
    let rows = [row(array(&[text("a")])), row(None), row(array(&[text("b"), text("c")]))];
    let (batch, _) = decode(&lists, WireType::TextArray, &rows).unwrap();
    let column = batch.column(4).as_list::<i32>();
    assert_eq!((column.value_length(0), column.is_null(1), column.value_length(2)), (1, true, 2));
}

#[test]
fn inconsistent_rows_are_counted_and_left_out() {
    let things = entity(ScalarType::Text, false, TimeEncoding::UnixMs);
    let live_without_main = vec![Some(vec![1; 16]), int8(5), int8(0), None, Some(vec![0]), None];
    let tombstone_without_main = vec![Some(vec![2; 16]), int8(6), int8(6), None, Some(vec![0]), None];
    let live = vec![Some(vec![3; 16]), int8(7), int8(0), int8(1), Some(vec![1]), text("x")];
    let (batch, summary) = decode(&things, WireType::Text, &[live_without_main, tombstone_without_main, live]).unwrap();
    assert_eq!(
        summary,
        HotSummary { rows_scanned: 3, rows_returned: 2, inconsistent_rows: 1, unreadable_rows: 0, bytes: 33 + 33 + 42 }
    );
    let deleted_at = batch.column(2).as_primitive::<Int64Type>();
    assert_eq!((deleted_at.value(0), deleted_at.is_null(1)), (6, true));
    assert_eq!(batch.column(0).as_fixed_size_binary().value(1), [3; 16]);
}

#[test]
fn a_wire_type_that_cannot_carry_the_type_is_a_bug() {
    let ms = TimeEncoding::UnixMs;
    for (scalar, list, wire) in [
        (ScalarType::Text, false, WireType::Float8),
        (ScalarType::Integer, false, WireType::Text),
        (ScalarType::Date, false, WireType::Text),
        (ScalarType::Text, true, WireType::Text),
        (ScalarType::Text, false, WireType::TextArray),
    ] {
        let error = decode(&entity(scalar, list, ms), wire, &[]).unwrap_err();
        assert_eq!(error.kind(), PostgresErrorKind::Internal, "{scalar:?} {wire:?}");
    }
}

#[test]
fn columns_of_a_table_of_its_own() {
    use ScalarType::{Blob, Boolean, Date, Decimal, Real, Time, Timestamp, TimestampNaive};
    let int4 = |value: i32| Some(value.to_be_bytes().to_vec());
    let wide = Decimal { precision: 38, scale: 3 };
    for (scalar, wire, field, expected) in [
        (Date, WireType::Date, int4(0), "2000-01-01"),
        (Date, WireType::Date, int4(-10_958), "1969-12-31"),
        (Date, WireType::Date, int4(i32::MAX), "is infinite"),
        (Date, WireType::Date, int4(i32::MAX - 1), "is out of range"),
        (Timestamp, WireType::Timestamp, int8(-946_684_800_000_001), "1969-12-31T23:59:59.999999Z"),
        (Timestamp, WireType::Timestamp, int8(i64::MIN), "is infinite"),
        (TimestampNaive, WireType::Timestamp, int8(500_000), "2000-01-01T00:00:00.500"),
        (Time, WireType::Time, int8(1), "00:00:00.000001"),
        (Time, WireType::Time, int8(86_400_000_000), "is out of range"),
        (Real, WireType::Float4, Some(1.5_f32.to_be_bytes().to_vec()), "1.5"),
        (Real, WireType::Float4, float8(1.5), "has an unexpected size on the wire"),
        (Boolean, WireType::Bool, Some(vec![1]), "true"),
        (Blob, WireType::Bytes, Some(vec![0, 255]), "00ff"),
        (wide, WireType::Text, text("-0.5"), "-0.500"),
        (
            wide,
            WireType::Text,
            text("12345678901234567890123456789012345.678"),
            "12345678901234567890123456789012345.678",
        ),
        (wide, WireType::Text, text("123456789012345678901234567890123456"), "is out of range"),
        (wide, WireType::Text, text("1.0000"), "1.000"),
        (wide, WireType::Text, text("1.0001"), "has more digits after the point than the catalog's type"),
        (wide, WireType::Text, text("NaN"), "is not a finite number"),
    ] {
        assert_eq!(value(scalar, TimeEncoding::UnixMs, wire, field.clone()), expected, "{scalar:?} {field:?}");
    }
}
