//! Batches brought to the one schema that a client was promised.

use std::sync::Arc;

use anyhow::ensure;
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;

/// A batch with exactly the types of `schema`, column by column.
///
/// # Errors
/// The batch has other columns: a bug.
pub(crate) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> anyhow::Result<RecordBatch> {
    ensure!(
        batch.num_columns() == schema.fields().len(),
        "a batch has {} columns, the schema {}",
        batch.num_columns(),
        schema.fields().len()
    );
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| {
            if column.data_type() == field.data_type() {
                Ok(Arc::clone(column))
            } else {
                cast(column, field.data_type())
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
