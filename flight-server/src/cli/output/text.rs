//! Batches made ready for text formats.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// The same rows with `UTC` written as the offset that the formatters know; no value changes.
pub(in crate::cli) fn readable(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    map_columns(batch, |column| cast(column, &offset_type(column.data_type())))
}

/// As [`readable`], and nested values as text, which CSV has no other form for.
pub(super) fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    map_columns(&readable(batch)?, |column| {
        if !column.data_type().is_nested() {
            return Ok(Arc::clone(column));
        }
        let options = FormatOptions::new().with_null("NULL");
        let formatter = ArrayFormatter::try_new(column, &options)?;
        let text = |row| if column.is_null(row) { Ok(None) } else { formatter.value(row).try_to_string().map(Some) };
        let texts = (0..column.len()).map(text).collect::<Result<StringArray, _>>()?;
        Ok(Arc::new(texts))
    })
}

fn map_columns(
    batch: &RecordBatch,
    map: impl Fn(&ArrayRef) -> Result<ArrayRef, ArrowError>,
) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(map).collect::<Result<Vec<_>, _>>()?;
    let schema = batch.schema();
    let fields: Fields = schema
        .fields()
        .iter()
        .zip(&columns)
        .map(|(field, column)| Field::new(field.name(), column.data_type().clone(), field.is_nullable()))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

fn offset_type(data_type: &DataType) -> DataType {
    let inner = |field: &FieldRef| -> FieldRef {
        Arc::new(field.as_ref().clone().with_data_type(offset_type(field.data_type())))
    };
    match data_type {
        DataType::Timestamp(unit, Some(zone)) if zone.as_ref() == "UTC" => {
            DataType::Timestamp(*unit, Some("+00:00".into()))
        }
        DataType::List(item) => DataType::List(inner(item)),
        DataType::LargeList(item) => DataType::LargeList(inner(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(inner(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        DataType::Map(entries, sorted) => DataType::Map(inner(entries), *sorted),
        other => other.clone(),
    }
}
