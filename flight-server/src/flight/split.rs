//! Splits batches by bytes, because gRPC clients cap messages at 4 to 16 MB.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;

/// Slices of a batch, in order, each of about `target_bytes` at most; a row larger than that is a slice of its own.
#[derive(Debug)]
pub(super) struct Slices {
    batch: RecordBatch,
    target_bytes: usize,
    next_row: usize,
}

impl Slices {
    pub(super) fn new(batch: RecordBatch, target_bytes: usize) -> Self {
        Self { batch, target_bytes, next_row: 0 }
    }
}

impl Slices {
    /// Whether every row was in a slice.
    pub(super) fn is_done(&self) -> bool {
        self.next_row == self.batch.num_rows()
    }
}

impl Iterator for Slices {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        let left = self.batch.num_rows() - self.next_row;
        if left == 0 {
            return None;
        }
        let rest = self.batch.slice(self.next_row, left);
        let bytes = batch_bytes(&rest);
        let mut rows = left;
        if bytes > self.target_bytes {
            // Rows of average size first; where they are larger than average, fewer.
            let average = (left as u128 * self.target_bytes as u128 / bytes as u128) as usize;
            rows = average.clamp(1, left);
            while rows > 1 && batch_bytes(&rest.slice(0, rows)) > self.target_bytes {
                rows /= 2;
            }
        }
        self.next_row += rows;
        Some(rest.slice(0, rows))
    }
}

/// About how many bytes the values of a batch take on the wire; of a slice only its own rows count.
pub(super) fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(array_bytes).sum()
}

fn array_bytes(array: &ArrayRef) -> usize {
    let rows = array.len();
    let validity = if array.nulls().is_some() { rows.div_ceil(8) } else { 0 };
    validity
        + match array.data_type() {
            DataType::Utf8 => 4 * rows + ends(array.as_string::<i32>().value_offsets()),
            DataType::Binary => 4 * rows + ends(array.as_binary::<i32>().value_offsets()),
            DataType::LargeUtf8 => 8 * rows + ends(array.as_string::<i64>().value_offsets()),
            DataType::LargeBinary => 8 * rows + ends(array.as_binary::<i64>().value_offsets()),
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                4 * rows + within(list.values(), list.value_offsets())
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                8 * rows + within(list.values(), list.value_offsets())
            }
            DataType::Map(_, _) => {
                let map = array.as_map();
                let entries: ArrayRef = std::sync::Arc::new(map.entries().clone());
                4 * rows + within(&entries, map.value_offsets())
            }
            DataType::FixedSizeList(_, _) => array_bytes(array.as_fixed_size_list().values()),
            DataType::Struct(_) => array.as_struct().columns().iter().map(array_bytes).sum(),
            DataType::Boolean => rows.div_ceil(8),
            data_type => match data_type.primitive_width() {
                Some(width) => width * rows,
                // Rare types, for which counting too much only makes messages smaller.
                None => array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_buffer_memory_size()),
            },
        }
}

/// Bytes between the first and the last offset.
fn ends<O: Copy + TryInto<usize>>(offsets: &[O]) -> usize {
    let (start, end) = bounds(offsets);
    end - start
}

fn within<O: Copy + TryInto<usize>>(values: &ArrayRef, offsets: &[O]) -> usize {
    let (start, end) = bounds(offsets);
    array_bytes(&values.slice(start, end - start))
}

fn bounds<O: Copy + TryInto<usize>>(offsets: &[O]) -> (usize, usize) {
    let at = |offset: Option<&O>| offset.and_then(|offset| (*offset).try_into().ok()).unwrap_or(0);
    (at(offsets.first()), at(offsets.last()))
}

#[cfg(test)]
mod tests;
