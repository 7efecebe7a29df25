use arrow::array::{Array, ArrayRef, DictionaryArray, StringArray};
use arrow::datatypes::{Int32Type, TimeUnit};

use super::*;

#[test]
fn nested_encodings_are_removed_and_the_rest_stays() {
    let dictionary = DataType::Dictionary(Box::new(DataType::UInt8), Box::new(DataType::Utf8View));
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = Arc::new(Schema::new(vec![
        Field::new("a", dictionary.clone(), true),
        Field::new("b", DataType::List(Arc::new(Field::new("l", dictionary.clone(), true))), true),
        Field::new("c", DataType::Struct(vec![Field::new("x", dictionary, true)].into()), true),
        Field::new("d", utc.clone(), true),
    ]));
    let expected = Schema::new(vec![
        Field::new("a", DataType::Utf8, true),
        Field::new("b", DataType::List(Arc::new(Field::new("l", DataType::Utf8, true))), true),
        Field::new("c", DataType::Struct(vec![Field::new("x", DataType::Utf8, true)].into()), true),
        Field::new("d", utc, true),
    ]);
    let once = plain(&schema);
    assert_eq!(once.as_ref(), &expected);
    assert!(Arc::ptr_eq(&once, &plain(&once)));
}

#[test]
fn batches_take_the_wire_types() {
    let dictionary: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("a")].into_iter().collect();
    let batch = RecordBatch::try_from_iter_with_nullable([("e", Arc::new(dictionary) as ArrayRef, true)]).unwrap();
    let schema = plain(batch.schema_ref());
    let batch = conform(batch, &schema).unwrap();
    let expected: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("a")]));
    assert_eq!(batch.column(0), &expected);
    assert_eq!(batch.column(0).len(), 3);
    assert!(conform(batch, &Arc::new(Schema::empty())).is_err());
}
