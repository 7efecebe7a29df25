//! The metadata commands: what drivers and BI tools ask when they connect and when a user opens the schema tree.

mod catalogs;
mod keys;
mod pattern;
mod sql_info;
mod tables;
mod xdbc_type_info;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::metadata::GetCatalogsBuilder;
use arrow_flight::sql::{
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
};

use super::failure::Outcome;
use super::server::FlightSqlServer;
use crate::access::Caller;

/// The one table type.
const TABLE_TYPE: &str = "TABLE";

/// A metadata command. It answers from memory and is its own ticket.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum MetadataCommand {
    SqlInfo(CommandGetSqlInfo),
    XdbcTypeInfo(CommandGetXdbcTypeInfo),
    Catalogs,
    DbSchemas(CommandGetDbSchemas),
    Tables(CommandGetTables),
    TableTypes,
    PrimaryKeys(CommandGetPrimaryKeys),
    ExportedKeys(CommandGetExportedKeys),
    ImportedKeys(CommandGetImportedKeys),
    CrossReference(CommandGetCrossReference),
}

impl MetadataCommand {
    /// The schema of the answer, whatever the answer is.
    pub(super) fn schema(&self) -> SchemaRef {
        match self {
            Self::SqlInfo(_) => sql_info::schema(),
            Self::XdbcTypeInfo(_) => xdbc_type_info::schema(),
            Self::Catalogs => GetCatalogsBuilder::new().schema(),
            Self::DbSchemas(_) => CommandGetDbSchemas::default().into_builder().schema(),
            Self::Tables(command) => command.clone().into_builder().schema(),
            Self::TableTypes => CommandGetTableTypes {}.into_builder().schema(),
            Self::PrimaryKeys(_) => keys::primary_keys_schema(),
            Self::ExportedKeys(_) | Self::ImportedKeys(_) | Self::CrossReference(_) => keys::foreign_keys_schema(),
        }
    }

    pub(super) async fn answer(&self, server: &FlightSqlServer, caller: &Arc<Caller>) -> Outcome<RecordBatch> {
        match self {
            Self::SqlInfo(command) => sql_info::answer(command, &server.pipeline.sql_vocabulary()),
            Self::XdbcTypeInfo(command) => xdbc_type_info::answer(*command),
            Self::Catalogs => catalogs::catalogs(),
            Self::DbSchemas(command) => catalogs::db_schemas(command),
            Self::Tables(command) => {
                tables::answer(command, server.pipeline.as_ref(), caller, &server.entity_schemas).await
            }
            Self::TableTypes => catalogs::table_types(),
            Self::PrimaryKeys(command) => keys::primary_keys(command, &server.pipeline.catalog(caller)),
            // Thermocline's tables have no foreign keys.
            Self::ExportedKeys(_) | Self::ImportedKeys(_) | Self::CrossReference(_) => {
                Ok(RecordBatch::new_empty(keys::foreign_keys_schema()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
