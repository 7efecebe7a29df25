//! GetTables, with the columns' SQL types and remarks as field metadata when the schema is asked for.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow_flight::sql::CommandGetTables;
use translator::catalog::{CATALOG_NAME, Column, Entity, SCHEMA_NAME};

use super::TABLE_TYPE;
use super::pattern::{catalog_matches, name_matches, schema_matches};
use crate::access::Caller;
use crate::flight::entity_schemas::{EntitySchema, EntitySchemas};
use crate::flight::failure::{Failure, Outcome};
use crate::query::QueryPipeline;

pub(super) async fn answer(
    command: &CommandGetTables,
    pipeline: &dyn QueryPipeline,
    caller: &Arc<Caller>,
    schemas: &EntitySchemas,
) -> Outcome<RecordBatch> {
    // Filtered here: the builder's own filters know neither escapes nor case.
    let unfiltered = CommandGetTables { include_schema: command.include_schema, ..CommandGetTables::default() };
    let mut builder = unfiltered.into_builder();
    let wanted = |entity: &Entity| {
        catalog_matches(command.catalog.as_deref())
            && schema_matches(command.db_schema_filter_pattern.as_deref())
            && (command.table_types.is_empty() || command.table_types.iter().any(|table_type| is_table(table_type)))
            && name_matches(command.table_name_filter_pattern.as_deref(), &entity.name)
    };
    if command.include_schema {
        for table in schemas.all(pipeline, caller).await?.iter().filter(|table| wanted(&table.entity)) {
            let schema = described_schema(table);
            builder
                .append(CATALOG_NAME, SCHEMA_NAME, &table.entity.name, TABLE_TYPE, &schema)
                .map_err(Failure::internal)?;
        }
    } else {
        for entity in pipeline.catalog(caller).entities().iter().filter(|entity| wanted(entity)) {
            builder
                .append(CATALOG_NAME, SCHEMA_NAME, &entity.name, TABLE_TYPE, &Schema::empty())
                .map_err(Failure::internal)?;
        }
    }
    builder.build().map_err(Failure::internal)
}

/// Whether a client that asks for this type asks for tables. The standard leaves the names of types to servers, so clients
/// ask by those that they know: `information_schema` and most servers say `BASE TABLE`, and not all write capitals.
fn is_table(table_type: &str) -> bool {
    [TABLE_TYPE, "BASE TABLE"].iter().any(|name| table_type.eq_ignore_ascii_case(name))
}

/// The table's schema with what Flight SQL says about columns in the fields' metadata.
fn described_schema(table: &EntitySchema) -> Schema {
    let fields = table.schema.fields().iter().map(|field| {
        let mut metadata = field.metadata().clone();
        metadata.extend(column_metadata(&table.entity, field));
        field.as_ref().clone().with_metadata(metadata)
    });
    let remarks = table.entity.description.iter().map(|text| ("ARROW:FLIGHT:SQL:REMARKS".to_owned(), text.clone()));
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), remarks.collect())
}

fn column_metadata(entity: &Entity, field: &Field) -> HashMap<String, String> {
    let mut metadata = HashMap::new();
    let mut put = |key: &str, value: String| metadata.insert(format!("ARROW:FLIGHT:SQL:{key}"), value);
    let flag = |set: bool| if set { "1" } else { "0" }.to_owned();
    put("CATALOG_NAME", CATALOG_NAME.to_owned());
    // The standard's text says DB_SCHEMA_NAME; the C++, Go and Java libraries all look for SCHEMA_NAME.
    put("DB_SCHEMA_NAME", SCHEMA_NAME.to_owned());
    put("SCHEMA_NAME", SCHEMA_NAME.to_owned());
    put("TABLE_NAME", entity.name.clone());
    put("IS_AUTO_INCREMENT", flag(false));
    put("IS_READ_ONLY", flag(true));
    put("IS_SEARCHABLE", flag(true));
    put("IS_CASE_SENSITIVE", flag(matches!(field.data_type(), DataType::Utf8)));
    if let Some((precision, scale)) = precision_and_scale(field.data_type()) {
        put("PRECISION", precision.to_string());
        if let Some(scale) = scale {
            put("SCALE", scale.to_string());
        }
    }
    if let Some(column) = entity.column(field.name()) {
        put("TYPE_NAME", type_name(&entity.duckdb_type(column)));
        if let Some(remarks) = remarks(entity, column) {
            put("REMARKS", remarks.to_owned());
        }
    }
    metadata
}

/// The name of a type as GetXdbcTypeInfo and `information_schema.columns` write it. Precision and scale of a decimal are
/// told apart from its name.
fn type_name(duckdb_type: &str) -> String {
    match duckdb_type.split_once('(') {
        Some((name, rest)) if !rest.ends_with(']') => name.to_owned(),
        Some(_) | None => duckdb_type.replace("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"),
    }
}

fn remarks(entity: &Entity, column: Column) -> Option<&str> {
    match column {
        Column::RowId => Some("Identifies the row."),
        Column::Attribute(index) => entity.attributes.get(index)?.description.as_deref(),
        Column::CreatedAt => Some("When the row was created."),
        Column::UpdatedAt => Some("When the row last changed."),
        Column::Tier => Some("The tier that holds the row: hot, warm or cold."),
        Column::DeletedAt => Some("When the row was deleted; NULL while it lives."),
    }
}

/// Decimal digits, and those after the point where the type has some; characters for dates and times.
fn precision_and_scale(data_type: &DataType) -> Option<(i32, Option<i32>)> {
    match data_type {
        DataType::Int8 => Some((3, Some(0))),
        DataType::Int16 => Some((5, Some(0))),
        DataType::Int32 => Some((10, Some(0))),
        DataType::Int64 => Some((19, Some(0))),
        DataType::Float32 => Some((7, None)),
        DataType::Float64 => Some((15, None)),
        DataType::Decimal128(precision, scale) => Some((i32::from(*precision), Some(i32::from(*scale)))),
        DataType::Boolean => Some((1, None)),
        DataType::Date32 => Some((10, None)),
        DataType::Timestamp(_, _) => Some((29, Some(6))),
        // Text and nested types have no bound.
        _ => None,
    }
}
