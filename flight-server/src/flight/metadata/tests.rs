use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Schema;
use arrow_flight::IpcMessage;

use super::super::FlightSettings;
use super::super::test_pipeline::TestPipeline;
use super::*;

fn server() -> FlightSqlServer {
    FlightSqlServer::new(Arc::new(TestPipeline::new(1)), None, FlightSettings::default())
}

async fn answer(command: MetadataCommand) -> RecordBatch {
    let batch = command.answer(&server(), &Caller::unrestricted()).await.unwrap();
    assert_eq!(batch.schema(), command.schema(), "{command:?}");
    batch
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<String> {
    batch.column_by_name(column).unwrap().as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_answer_has_its_schema() {
    for command in [
        MetadataCommand::SqlInfo(CommandGetSqlInfo::default()),
        MetadataCommand::XdbcTypeInfo(CommandGetXdbcTypeInfo { data_type: None }),
        MetadataCommand::Catalogs,
        MetadataCommand::DbSchemas(CommandGetDbSchemas::default()),
        MetadataCommand::Tables(CommandGetTables::default()),
        MetadataCommand::TableTypes,
        MetadataCommand::PrimaryKeys(CommandGetPrimaryKeys { table: "flights".to_owned(), ..Default::default() }),
    ] {
        assert!(answer(command).await.num_rows() > 0);
    }
    for command in [
        MetadataCommand::ExportedKeys(CommandGetExportedKeys::default()),
        MetadataCommand::ImportedKeys(CommandGetImportedKeys::default()),
        MetadataCommand::CrossReference(CommandGetCrossReference::default()),
        MetadataCommand::PrimaryKeys(CommandGetPrimaryKeys { table: "unknown".to_owned(), ..Default::default() }),
    ] {
        assert_eq!(answer(command).await.num_rows(), 0);
    }
}

#[tokio::test]
async fn tables_are_filtered() {
    let tables = async |command: CommandGetTables| texts(&answer(MetadataCommand::Tables(command)).await, "table_name");
    let all = CommandGetTables::default();
    assert_eq!(tables(all.clone()).await, ["air_lines", "flights"]);
    let name = |pattern: &str| CommandGetTables { table_name_filter_pattern: Some(pattern.to_owned()), ..all.clone() };
    assert_eq!(tables(name("fl%")).await, ["flights"]);
    assert_eq!(tables(name("air\\_lines")).await, ["air_lines"]);
    assert!(tables(name("air\\_line")).await.is_empty());
    let catalog = |catalog: &str| CommandGetTables { catalog: Some(catalog.to_owned()), ..all.clone() };
    assert_eq!(tables(catalog("thermocline")).await.len(), 2);
    assert!(tables(catalog("")).await.is_empty());
    assert!(tables(catalog("other")).await.is_empty());
    let types = |types: &[&str]| CommandGetTables {
        table_types: types.iter().map(|&name| name.to_owned()).collect(),
        ..all.clone()
    };
    assert_eq!(tables(types(&["VIEW", "TABLE"])).await.len(), 2);
    for asked in [&["BASE TABLE"][..], &["table"], &["view", "Base Table"], &["BASE TABLE", "TABLE"]] {
        assert_eq!(tables(types(asked)).await, ["air_lines", "flights"], "{asked:?}");
    }
    assert!(tables(types(&["VIEW"])).await.is_empty());
    let schema = CommandGetTables { db_schema_filter_pattern: Some("public".to_owned()), ..all.clone() };
    assert!(tables(schema).await.is_empty());
}

#[tokio::test]
async fn table_schemas_describe_their_columns() {
    let command = CommandGetTables {
        include_schema: true,
        table_name_filter_pattern: Some("flights".to_owned()),
        ..CommandGetTables::default()
    };
    let batch = answer(MetadataCommand::Tables(command)).await;
    let bytes = batch.column_by_name("table_schema").unwrap().as_binary::<i32>().value(0).to_vec();
    let schema = Schema::try_from(IpcMessage(bytes.into())).unwrap();
    assert_eq!(schema.metadata()["ARROW:FLIGHT:SQL:REMARKS"], "Departures");
    let described = |column: &str, key: &str| {
        schema.field_with_name(column).unwrap().metadata().get(&format!("ARROW:FLIGHT:SQL:{key}")).cloned()
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(described("carrier", "TYPE_NAME"), some("VARCHAR"));
    assert_eq!(described("carrier", "REMARKS"), some("Two letters"));
    assert_eq!(described("carrier", "PRECISION"), None);
    assert_eq!(described("fare", "TYPE_NAME"), some("DECIMAL"));
    assert_eq!(described("fare", "PRECISION"), some("9"));
    assert_eq!(described("fare", "SCALE"), some("2"));
    assert_eq!(described("row_id", "TYPE_NAME"), some("UUID"));
    assert_eq!(described("row_id", "IS_READ_ONLY"), some("1"));
    assert_eq!(described("created_at", "TYPE_NAME"), some("TIMESTAMP WITH TIME ZONE"));
}

#[tokio::test]
async fn schemas_and_keys() {
    let schemas = async |catalog: Option<&str>, pattern: Option<&str>| {
        let command = CommandGetDbSchemas {
            catalog: catalog.map(str::to_owned),
            db_schema_filter_pattern: pattern.map(str::to_owned),
        };
        texts(&answer(MetadataCommand::DbSchemas(command)).await, "db_schema_name")
    };
    assert_eq!(schemas(None, None).await, ["main"]);
    assert_eq!(schemas(Some("thermocline"), Some("m%")).await, ["main"]);
    assert!(schemas(Some(""), None).await.is_empty());
    assert!(schemas(None, Some("")).await.is_empty());

    let keys = answer(MetadataCommand::PrimaryKeys(CommandGetPrimaryKeys {
        catalog: None,
        db_schema: Some("main".to_owned()),
        table: "FLIGHTS".to_owned(),
    }))
    .await;
    assert_eq!(texts(&keys, "column_name"), ["row_id"]);
    assert_eq!(texts(&keys, "table_name"), ["flights"]);
    assert!(keys.column_by_name("key_name").unwrap().is_null(0));
}

#[tokio::test]
async fn types_are_filtered_by_number() {
    let varchar = arrow_flight::sql::XdbcDataType::XdbcVarchar as i32;
    let command = CommandGetXdbcTypeInfo { data_type: Some(varchar) };
    let batch = answer(MetadataCommand::XdbcTypeInfo(command)).await;
    assert_eq!(texts(&batch, "type_name"), ["JSON", "UUID", "VARCHAR"]);
}
