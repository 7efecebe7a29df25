use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Field};

use super::super::value::read;
use super::*;

fn bound(array: ArrayRef, wanted: Option<SqlType>) -> String {
    let field = Field::new("p", array.data_type().clone(), true);
    sql(&read(&array, 0, &field).unwrap(), wanted.as_ref())
}

fn decimal(unscaled: i128, width: u8, scale: i8) -> ArrayRef {
    Arc::new(Decimal128Array::from(vec![unscaled]).with_precision_and_scale(width, scale).unwrap())
}

fn double(value: f64) -> ArrayRef {
    Arc::new(Float64Array::from(vec![value]))
}

#[test]
fn values_take_the_inferred_type_where_it_means_the_same() {
    let text = |text| -> ArrayRef { Arc::new(StringViewArray::from(vec![text])) };
    let nine_two = || Some(SqlType::Decimal { width: 9, scale: 2 });
    let cases: Vec<(ArrayRef, Option<SqlType>, &str)> = vec![
        (Arc::new(Int64Array::from(vec![5])), Some(SqlType::Integer), "CAST('5' AS INTEGER)"),
        (text("it's"), None, "'it''s'"),
        (text("it's"), Some(SqlType::Text), "CAST('it''s' AS VARCHAR)"),
        (Arc::new(NullArray::new(1)), None, "NULL"),
        (
            Arc::new(DurationMillisecondArray::from(vec![-1500])),
            None,
            "(to_months(0) + to_days(0) + to_microseconds(CAST('-1500000' AS BIGINT)))",
        ),
        (Arc::new(StringViewArray::from(vec![None::<&str>])), Some(SqlType::Date), "CAST(NULL AS DATE)"),
        (double(3.0), Some(SqlType::Integer), "CAST('3' AS INTEGER)"),
        (double(0.1), nine_two(), "CAST('0.10' AS DECIMAL(9,2))"),
        (decimal(-150, 5, 2), nine_two(), "CAST('-1.50' AS DECIMAL(9,2))"),
        (decimal(1500, 9, 3), nine_two(), "CAST('1.50' AS DECIMAL(9,2))"),
        (
            Arc::new(TimestampNanosecondArray::from(vec![0]).with_timezone("+00:00")),
            Some(SqlType::Date),
            "CAST('1970-01-01' AS DATE)",
        ),
    ];
    for (array, wanted, expected) in cases {
        assert_eq!(bound(array, wanted), expected);
    }
}

#[test]
fn values_keep_their_own_type_where_a_cast_would_change_them() {
    let cases: Vec<(ArrayRef, SqlType)> = vec![
        (double(2.6), SqlType::Integer),
        (double(-0.0), SqlType::Integer),
        (double(9_007_199_254_740_992.0), SqlType::BigInt),
        (double(f64::NAN), SqlType::BigInt),
        (double(1e300), SqlType::HugeInt),
        (double(0.1), SqlType::Float),
        (double(0.001), SqlType::Decimal { width: 9, scale: 2 }),
        (double(0.5), SqlType::Decimal { width: 18, scale: 2 }),
        (double(1e9), SqlType::Decimal { width: 9, scale: 2 }),
        (double(2.0), SqlType::Boolean),
        (double(1.5), SqlType::Text),
        (decimal(1001, 9, 3), SqlType::Decimal { width: 9, scale: 2 }),
        (decimal(15, 9, 1), SqlType::SmallInt),
        (decimal(15, 9, 1), SqlType::Double),
        (Arc::new(Int64Array::from(vec![100_000])), SqlType::SmallInt),
        (Arc::new(Int64Array::from(vec![2])), SqlType::Boolean),
        (Arc::new(Int64Array::from(vec![5])), SqlType::Text),
        (Arc::new(Int64Array::from(vec![(1 << 53) + 1])), SqlType::Double),
        (Arc::new(UInt64Array::from(vec![u64::MAX])), SqlType::BigInt),
        (Arc::new(BooleanArray::from(vec![true])), SqlType::Text),
        (Arc::new(TimestampMillisecondArray::from(vec![5])), SqlType::Date),
        (Arc::new(TimestampNanosecondArray::from(vec![1])), SqlType::Timestamp),
        (Arc::new(Date64Array::from(vec![1])), SqlType::Date),
    ];
    for (array, wanted) in cases {
        let (own, kept) = (bound(Arc::clone(&array), None), bound(array, Some(wanted.clone())));
        assert_eq!(kept, own, "{wanted}");
    }
}

#[test]
fn ids_are_bound_from_bytes_and_texts() {
    let bytes: ArrayRef = Arc::new(FixedSizeBinaryArray::from(vec![b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0a"]));
    let expected = "CAST('00000000-0000-0000-0000-00000000000a' AS UUID)";
    let marked = Field::new("p", bytes.data_type().clone(), true)
        .with_metadata(HashMap::from([("ARROW:extension:name".to_owned(), "arrow.uuid".to_owned())]));
    assert_eq!(read(&bytes, 0, &marked).unwrap().sql, expected);
    assert_eq!(bound(Arc::clone(&bytes), Some(SqlType::Uuid)), expected);
    let plain = Field::new("p", bytes.data_type().clone(), true);
    assert_eq!(ids(&read(&bytes, 0, &plain).unwrap()).unwrap(), expected);
    let text: ArrayRef = Arc::new(StringArray::from(vec!["00000000-0000-0000-0000-00000000000a"]));
    let field = Field::new("p", DataType::Utf8, true);
    assert_eq!(ids(&read(&text, 0, &field).unwrap()).unwrap(), expected);
    let other: ArrayRef = Arc::new(StringArray::from(vec!["00000000-0000-0000-0000-00000000000"]));
    assert_eq!(ids(&read(&other, 0, &field).unwrap()), None);
}
