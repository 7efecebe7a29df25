use arrow::array::{
    Array, ArrayRef, Decimal128Array, DictionaryArray, Int32Array, ListArray, StringArray, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Int8Type, Schema};
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};

use super::super::test_pipeline::Random;
use super::*;
use crate::query::ErrorKind;

fn row(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn put(batches: Vec<RecordBatch>) -> Vec<FlightData> {
    let encoder = FlightDataEncoderBuilder::new()
        .with_schema(batches[0].schema())
        .with_dictionary_handling(DictionaryHandling::Resend)
        .build(stream::iter(batches.into_iter().map(Ok)));
    encoder.try_collect().now_or_never().unwrap().unwrap()
}

#[test]
fn encodings_become_plain_types() {
    let dictionary: DictionaryArray<Int8Type> = vec!["AA"].into_iter().collect();
    let batch = row(vec![
        ("1", Arc::new(dictionary)),
        ("2", Arc::new(StringViewArray::from(vec!["a string that does not fit a view"]))),
        ("3", Arc::new(Decimal128Array::from(vec![12_345]).with_precision_and_scale(9, 2).unwrap())),
        ("4", Arc::new(ListArray::from_iter_primitive::<arrow::datatypes::Int64Type, _, _>([Some([Some(1), None])]))),
    ]);
    let bound = of_messages(&put(vec![batch])).unwrap().unwrap();
    let types: Vec<_> = bound.schema().fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(types[..3], [DataType::Utf8, DataType::Utf8, DataType::Decimal128(9, 2)]);
    assert_eq!(decode(encode(Some(&bound)).unwrap()).unwrap(), Some(bound));
}

#[test]
fn a_timestamp_of_any_zone_keeps_its_instant() {
    for zone in ["UTC", "America/New_York", "+05:30", "no such zone"] {
        let batch = row(vec![("1", Arc::new(TimestampMicrosecondArray::from(vec![42]).with_timezone(zone)))]);
        let bound = of_messages(&put(vec![batch])).unwrap().unwrap();
        let expected = TimestampMicrosecondArray::from(vec![42]).with_timezone("+00:00");
        assert_eq!(bound.column(0).as_ref(), &expected as &dyn Array);
    }
}

#[test]
fn exactly_one_row_is_bound() {
    let message = |batches| of_messages(&put(batches)).unwrap_err().error.message().to_owned();
    let ints = |values: Vec<i32>| row(vec![("1", Arc::new(Int32Array::from(values)))]);
    assert!(message(vec![ints(vec![1, 2])]).starts_with("2 rows"));
    assert!(message(vec![ints(vec![1]), ints(vec![2])]).starts_with("2 rows"));
    assert!(message(vec![ints(vec![])]).starts_with("no row"));
    assert!(of_messages(&put(vec![ints(vec![]), ints(vec![1])])).unwrap().is_some());
    assert!(of_messages(&[]).is_err());
}

#[test]
fn a_row_without_columns_binds_nothing() {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
    assert_eq!(of_messages(&put(vec![batch])).unwrap(), None);
    let schema_only = batches_to_flight_data(&Schema::empty(), vec![]).unwrap();
    assert_eq!(of_messages(&schema_only).unwrap(), None);
}

#[test]
fn large_parameters_are_refused_by_name_of_the_limit() {
    let text = "x".repeat(MAX_PARAMETER_BYTES + 1);
    let batch = row(vec![("1", Arc::new(StringArray::from(vec![text])))]);
    let failure = of_messages(&put(vec![batch])).unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::LimitExceeded);
    assert!(failure.error.message().contains("max_parameter_bytes"));
}

#[test]
fn damaged_streams_are_errors() {
    let batch = row(vec![("1", Arc::new(StringArray::from(vec!["AA"]))), ("2", Arc::new(Int32Array::from(vec![1])))]);
    let messages = put(vec![batch]);
    // A header that ends early is no message.
    for (index, message) in messages.iter().enumerate() {
        for length in 0..message.data_header.len() / 2 {
            let mut damaged = messages.clone();
            damaged[index].data_header.truncate(length);
            assert!(of_messages(&damaged).is_err(), "message {index}, {length} bytes of its header");
        }
    }
    // A changed byte may leave a message that is one: then it is one row, and otherwise it is refused.
    let mut random = Random::new(11);
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut damaged = messages.clone();
        let message = random.below(damaged.len());
        let mut header = damaged[message].data_header.to_vec();
        let place = random.below(header.len());
        header[place] = random.byte();
        damaged[message].data_header = header.into();
        match of_messages(&damaged) {
            Ok(bound) => assert!(bound.is_none_or(|row| row.num_rows() == 1)),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 1_000, "{refused} of 20,000 were refused");
}
