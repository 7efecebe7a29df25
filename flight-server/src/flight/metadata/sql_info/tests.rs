use arrow::array::{Array, UnionArray};

use super::*;

fn ids(batch: &RecordBatch) -> Vec<u32> {
    batch.column(0).as_primitive::<UInt32Type>().values().to_vec()
}

#[test]
fn every_id_of_the_standard_is_answered() {
    let all = answer(&CommandGetSqlInfo { info: vec![] }, &SqlVocabulary::default()).unwrap();
    let expected: Vec<u32> = (0..1_000).filter(|id| SqlInfo::try_from(*id as i32).is_ok()).collect();
    assert_eq!(ids(&all), expected);
    assert_eq!(expected.len(), 14 + 77);
    assert_eq!(all.schema(), schema());
}

#[test]
fn only_known_ids_among_those_asked_for_are_answered() {
    let vocabulary = SqlVocabulary { keywords: vec!["QUALIFY".to_owned()], ..SqlVocabulary::default() };
    let answered = |info: Vec<u32>| ids(&answer(&CommandGetSqlInfo { info }, &vocabulary).unwrap());
    assert_eq!(answered(vec![508, 3, 3, 0]), [0, 3, 508]);
    assert_eq!(answered(vec![999_999]), Vec::<u32>::new());
    assert_eq!(answered((0..200_000).collect()).len(), 14 + 77);
}

#[test]
fn values_are_of_this_server() {
    let vocabulary = SqlVocabulary { keywords: vec!["QUALIFY".to_owned()], ..SqlVocabulary::default() };
    let batch = answer(&CommandGetSqlInfo { info: vec![0, 3, 8, 508, 513] }, &vocabulary).unwrap();
    let values = batch.column(1).as_any().downcast_ref::<UnionArray>().unwrap();
    assert_eq!(values.value(0).as_string::<i32>().value(0), "thermocline");
    assert!(values.value(1).as_boolean().value(0));
    assert_eq!(values.value(2).as_primitive::<arrow::datatypes::Int32Type>().value(0), 0);
    assert_eq!(values.value(3).as_list::<i32>().value(0).as_string::<i32>().value(0), "QUALIFY");
    assert_eq!(values.value(4).as_string::<i32>().value(0), "\\");
}
