//! GetPrimaryKeys, and the schema of the three commands about foreign keys, of which there are none.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::CommandGetPrimaryKeys;
use translator::catalog::{CATALOG_NAME, Catalog, Column, SCHEMA_NAME};

use super::pattern::{catalog_matches, schema_is};
use crate::flight::failure::{Failure, Outcome};

/// The primary key of every table is `row_id`; it is enforced by the application's tables and has no name here.
pub(super) fn primary_keys(command: &CommandGetPrimaryKeys, catalog: &Catalog) -> Outcome<RecordBatch> {
    let schema = primary_keys_schema();
    let entity = catalog
        .entity(&command.table)
        .filter(|_| catalog_matches(command.catalog.as_deref()) && schema_is(command.db_schema.as_deref()))
        .filter(|entity| !entity.hidden.contains(&Column::RowId));
    let Some(entity) = entity else { return Ok(RecordBatch::new_empty(schema)) };
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let columns = vec![
        text(CATALOG_NAME),
        text(SCHEMA_NAME),
        text(&entity.name),
        text(entity.column_name(Column::RowId)),
        new_null_array(&DataType::Utf8, 1),
        Arc::new(Int32Array::from(vec![1])),
    ];
    RecordBatch::try_new(schema, columns).map_err(Failure::internal)
}

pub(super) fn primary_keys_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

pub(super) fn foreign_keys_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}
