//! Tables of the `system` schema (design section 8) and their shapes, and the rows of all tables that the server fills.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use translator::SystemTable;
use translator::options::QueryOptions;

use super::error::QueryError;
use super::run::execution_error;
use crate::engine::ShapeDatabase;

/// Name and columns (DuckDB types) of each table of the `system` schema.
pub(crate) const SHAPES: [(&str, &str); 1] = [("options", "name VARCHAR, value VARCHAR")];

/// The rows of a table that the server fills.
pub(super) fn rows(
    shape: &ShapeDatabase,
    table: &SystemTable,
    options: &QueryOptions,
) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
    if table.schema == "information_schema" {
        return shape.information_schema(&table.table).map_err(execution_error);
    }
    let (names, values): (Vec<_>, Vec<_>) = options.entries().into_iter().unzip();
    let schema = Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, true),
        Field::new("value", DataType::Utf8, true),
    ]));
    let columns: Vec<arrow::array::ArrayRef> =
        vec![Arc::new(StringArray::from(names)), Arc::new(StringArray::from(values))];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(QueryError::internal)?;
    Ok((schema, vec![batch]))
}
