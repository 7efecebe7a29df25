//! GetCatalogs, GetDbSchemas and GetTableTypes: one of each.

use arrow::array::RecordBatch;
use arrow_flight::sql::metadata::GetCatalogsBuilder;
use arrow_flight::sql::{CommandGetDbSchemas, CommandGetTableTypes};
use translator::catalog::{CATALOG_NAME, SCHEMA_NAME};

use super::TABLE_TYPE;
use super::pattern::{catalog_matches, schema_matches};
use crate::flight::failure::{Failure, Outcome};

pub(super) fn catalogs() -> Outcome<RecordBatch> {
    let mut builder = GetCatalogsBuilder::new();
    builder.append(CATALOG_NAME);
    builder.build().map_err(Failure::internal)
}

pub(super) fn db_schemas(command: &CommandGetDbSchemas) -> Outcome<RecordBatch> {
    // Filtered here: the builder's own filters know neither escapes nor case.
    let mut builder = CommandGetDbSchemas::default().into_builder();
    if catalog_matches(command.catalog.as_deref()) && schema_matches(command.db_schema_filter_pattern.as_deref()) {
        builder.append(CATALOG_NAME, SCHEMA_NAME);
    }
    builder.build().map_err(Failure::internal)
}

pub(super) fn table_types() -> Outcome<RecordBatch> {
    let mut builder = CommandGetTableTypes {}.into_builder();
    builder.append(TABLE_TYPE);
    builder.build().map_err(Failure::internal)
}
