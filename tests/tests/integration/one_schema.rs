//! One schema a command, byte for byte: FlightInfo, PollFlightInfo, GetSchema, a prepared statement and DoGet agree,
//! whether rows come or not. Clients such as ADBC refuse a stream that differs from what was promised.

use anyhow::{Context, Result};
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandStatementQuery, ProstMessageExt,
};
use arrow_flight::{FlightDescriptor, FlightInfo};
use bytes::Bytes;
use prost::Message;
use thermocline_tests::client::{Client, encode_schema, first_ticket};
use thermocline_tests::client_data;
use thermocline_tests::scenario::{LakeKind, Scenario};

const STATEMENTS: &[&str] = &[
    "SELECT * FROM golden",
    "SELECT * FROM golden WHERE n > 1000",
    "SELECT * FROM golden WHERE false",
    "SELECT *, _tier, _deleted_at FROM golden LIMIT 0",
    "SELECT count(*) AS c, sum(a_integer) AS s, avg(a_decimal) AS a, max(a_timestamp) AS m, list(a_text) AS l FROM golden",
    "SELECT t.name, g.a_decimal FROM things t LEFT JOIN golden g ON t.n = g.n",
    "SELECT 1 AS one, NULL AS nothing, {'a': [1, NULL]} AS record, MAP {'k': 1.5} AS map, 'x'::BLOB AS bytes",
    "SELECT INTERVAL 1 MONTH AS i, TIME '12:34:56' AS t, TIMESTAMP_NS '2024-02-29 12:34:56' AS ns, 1::HUGEINT AS h",
    "SELECT name FROM things UNION ALL SELECT NULL",
    "SELECT * FROM information_schema.columns",
    "SELECT * FROM system.options",
    "EXPLAIN SELECT * FROM things",
    "EXPLAIN ANALYZE SELECT * FROM things",
    "SHOW TABLES",
    "DESCRIBE golden",
    "SUMMARIZE things",
];

/// The schema as `FlightInfo.schema` holds it, from every call that a command has.
async fn schemas(client: &Client, command: &impl ProstMessageExt, what: &str) -> Result<Bytes> {
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let info: FlightInfo = client.flight().get_flight_info(client.request(descriptor.clone())).await?.into_inner();
    let promised = info.schema.clone();
    anyhow::ensure!(!promised.is_empty(), "{what}: no schema in FlightInfo");
    let polled = client.flight().poll_flight_info(client.request(descriptor.clone())).await?.into_inner();
    assert_eq!(polled.info.context("no FlightInfo in PollInfo")?.schema, promised, "{what}: PollFlightInfo");
    let told = client.flight().get_schema(client.request(descriptor)).await?.into_inner();
    assert_eq!(told.schema, promised, "{what}: GetSchema");
    let mut stream = client.do_get(first_ticket(info)?).await?;
    let first = stream.message().await?.context("a stream without a message")?;
    // FlightInfo frames the message: a marker and the length, four bytes each, and zeros up to a multiple of eight.
    let framed = &promised[8..];
    assert!(
        framed.starts_with(&first.data_header) && framed[first.data_header.len()..].iter().all(|byte| *byte == 0),
        "{what}: DoGet begins with another schema"
    );
    while stream.message().await?.is_some() {}
    Ok(promised)
}

#[tokio::test]
async fn every_command_has_one_schema() -> Result<()> {
    let scenario = Scenario::start(client_data::stored(), LakeKind::Local).await?;
    let client = &scenario.client;
    for sql in STATEMENTS {
        let query = CommandStatementQuery { query: (*sql).to_owned(), transaction_id: None };
        let promised = schemas(client, &query, sql).await.with_context(|| (*sql).to_owned())?;
        let prepared = client.prepare(sql).await?;
        assert_eq!(encode_schema(&prepared.schema)?, promised, "{sql}: CreatePreparedStatement");
        let query = CommandPreparedStatementQuery { prepared_statement_handle: prepared.handle };
        assert_eq!(schemas(client, &query, sql).await?, promised, "{sql}: prepared");
    }
    Ok(())
}

#[tokio::test]
async fn every_metadata_command_has_one_schema() -> Result<()> {
    let scenario = Scenario::start(client_data::stored(), LakeKind::Local).await?;
    let client = &scenario.client;
    for (table, include_schema) in [(None, true), (None, false), (Some("nothing"), true), (Some("nothing"), false)] {
        let command = CommandGetTables {
            catalog: None,
            db_schema_filter_pattern: None,
            table_name_filter_pattern: table.map(str::to_owned),
            table_types: vec![],
            include_schema,
        };
        schemas(client, &command, "tables").await?;
    }
    schemas(client, &CommandGetCatalogs {}, "catalogs").await?;
    for pattern in [None, Some("nothing".to_owned())] {
        let command = CommandGetDbSchemas { catalog: None, db_schema_filter_pattern: pattern };
        schemas(client, &command, "schemas").await?;
    }
    schemas(client, &CommandGetTableTypes {}, "table types").await?;
    schemas(client, &CommandGetSqlInfo { info: vec![] }, "SQL information").await?;
    schemas(client, &CommandGetSqlInfo { info: vec![999_999] }, "no SQL information").await?;
    schemas(client, &CommandGetXdbcTypeInfo { data_type: None }, "types").await?;
    schemas(client, &CommandGetXdbcTypeInfo { data_type: Some(-12_345) }, "no types").await?;
    for table in ["things", "golden"] {
        let (catalog, db_schema, table) = (None, None, table.to_owned());
        let command =
            CommandGetPrimaryKeys { catalog: catalog.clone(), db_schema: db_schema.clone(), table: table.clone() };
        schemas(client, &command, "primary keys").await?;
        let command =
            CommandGetImportedKeys { catalog: catalog.clone(), db_schema: db_schema.clone(), table: table.clone() };
        schemas(client, &command, "imported keys").await?;
        let command = CommandGetExportedKeys { catalog, db_schema, table };
        schemas(client, &command, "exported keys").await?;
    }
    let command = CommandGetCrossReference {
        pk_catalog: None,
        pk_db_schema: None,
        pk_table: "things".to_owned(),
        fk_catalog: None,
        fk_db_schema: None,
        fk_table: "golden".to_owned(),
    };
    schemas(client, &command, "cross reference").await?;
    Ok(())
}
