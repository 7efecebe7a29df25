use std::sync::Arc;

use arrow::array::{Int64Array, ListArray, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;

use super::*;

fn check(batch: RecordBatch, target_bytes: usize) -> Vec<usize> {
    let slices: Vec<_> = Slices::new(batch.clone(), target_bytes).collect();
    for slice in &slices {
        assert!(slice.num_rows() > 0);
        assert!(slice.num_rows() == 1 || batch_bytes(slice) <= target_bytes, "{} bytes", batch_bytes(slice));
    }
    assert_eq!(concat_batches(batch.schema_ref(), &slices).unwrap(), batch);
    slices.iter().map(RecordBatch::num_rows).collect()
}

fn texts(lengths: &[usize]) -> RecordBatch {
    let texts = StringArray::from_iter_values(lengths.iter().map(|length| "x".repeat(*length)));
    RecordBatch::try_from_iter([("text", Arc::new(texts) as ArrayRef)]).unwrap()
}

#[test]
fn small_batches_stay_whole() {
    assert_eq!(check(texts(&[1, 2, 3]), 1_000), [3]);
    assert_eq!(check(texts(&[]), 1_000), Vec::<usize>::new());
}

#[test]
fn even_rows_are_split_evenly() {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000));
    let rows = check(RecordBatch::try_from_iter([("n", numbers)]).unwrap(), 800);
    assert_eq!(rows, vec![100; 10]);
}

#[test]
fn a_huge_row_goes_alone_or_nearly_so() {
    let rows = check(texts(&[10, 10, 100_000, 10, 10, 50_000, 10]), 1_000);
    assert!(rows.len() >= 5, "{rows:?}");
    let single = check(texts(&[100_000]), 1_000);
    assert_eq!(single, [1]);
}

#[test]
fn nested_values_count() {
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(
        (0..100).map(|n| Some((0..n % 7 * 10).map(|value| Some(value as i64)).collect::<Vec<_>>())),
    );
    let batch = RecordBatch::try_from_iter([("list", Arc::new(lists) as ArrayRef)]).unwrap();
    assert!(check(batch.clone(), 2_000).len() > 5);
    // A slice counts its own rows only.
    assert!(batch_bytes(&batch.slice(1, 1)) < 120);
}
