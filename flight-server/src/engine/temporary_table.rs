//! Temporary tables for batches of other sources: hot rows and rows of system tables.

use arrow::datatypes::{DataType, Schema};
use translator::quote::Ident;

use super::duckdb::{Connection, DuckError};

/// Creates a temporary table for batches of `schema`.
pub(crate) fn create_temporary_table(connection: &Connection, name: &str, schema: &Schema) -> Result<(), DuckError> {
    let columns: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| format!("{} {}", Ident(field.name()), duckdb_type(field.data_type())))
        .collect();
    connection.execute(&format!("CREATE OR REPLACE TEMPORARY TABLE {} ({})", Ident(name), columns.join(", ")))
}

/// The DuckDB type that holds an Arrow column of the hot tier or of a system table as it comes.
fn duckdb_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INTEGER".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::UInt64 => "UBIGINT".to_owned(),
        DataType::Float32 => "FLOAT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision},{scale})"),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Time64(_) => "TIME".to_owned(),
        DataType::Timestamp(_, Some(_)) => "TIMESTAMPTZ".to_owned(),
        DataType::Timestamp(_, None) => "TIMESTAMP".to_owned(),
        DataType::Binary | DataType::FixedSizeBinary(_) => "BLOB".to_owned(),
        DataType::List(element) => format!("{}[]", duckdb_type(element.data_type())),
        _ => "VARCHAR".to_owned(),
    }
}
