//! The Flight SQL surface that clients use on connecting, prepared statements, and the official ADBC driver.

use adbc_core::options::ObjectDepth;
use adbc_core::{Connection as _, Statement as _};
use anyhow::{Context, Result};
use arrow::array::{AsArray, RecordBatchReader};
use arrow::datatypes::{DataType, Schema, TimeUnit};
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, SqlInfo,
};
use futures::StreamExt;
use thermocline_tests::client::{adbc_connect, adbc_query};
use thermocline_tests::r#gen;
use thermocline_tests::lake::LakeFile;
use thermocline_tests::oracle::{HotVersion, Order, Stored, View, compare};
use thermocline_tests::scenario::{LakeKind, Scenario, live};
use thermocline_tests::until;
use tonic::Code;

use crate::{thing, things};

async fn scenario() -> Result<Scenario> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![LakeFile::base(&entity, "a.parquet", (0..30).map(|n| live(n, 10, thing("base", 1))).collect())];
    stored.hot = vec![HotVersion { version: live(29, 20, thing("hot", 2)), dirty: true, has_main: true }];
    Scenario::start(vec![stored, Stored::new(&r#gen::every_type("everything", 7))], LakeKind::Local).await
}

#[tokio::test]
async fn prepared_statements_say_their_schema_run_many_times_and_close() -> Result<()> {
    let scenario = scenario().await?;
    let before = scenario.database.statements()?.len();
    let prepared = scenario.client.prepare("SELECT name, n, size_cm FROM things WHERE name = 'hot'").await?;
    let asked: Vec<_> = scenario.database.statements()?.split_off(before);
    assert!(
        !asked.iter().any(|statement| statement.sql.contains("change_log")),
        "preparing touches no source: {asked:?}"
    );
    let columns: Vec<(&str, &DataType)> =
        prepared.schema.fields().iter().map(|field| (field.name().as_str(), field.data_type())).collect();
    assert_eq!(columns, [("name", &DataType::Utf8), ("n", &DataType::Int32), ("size_cm", &DataType::Float64)]);
    assert_eq!(prepared.parameters.fields().len(), 0);
    for _ in 0..3 {
        let answer = scenario.client.execute_prepared(&prepared.handle).await?;
        assert_eq!(answer.text(), "hot|2|2");
        assert_eq!(answer.schema.as_ref(), &prepared.schema);
    }
    scenario.client.close_prepared(&prepared.handle).await?;
    Ok(())
}

#[tokio::test]
async fn metadata_commands_describe_the_catalog() -> Result<()> {
    let scenario = scenario().await?;
    let client = &scenario.client;
    assert_eq!(client.command(&CommandGetCatalogs {}).await?.text(), "thermocline");
    let schemas = client.command(&CommandGetDbSchemas { catalog: None, db_schema_filter_pattern: None }).await?;
    assert!(schemas.text().lines().any(|line| line == "thermocline|main"), "{}", schemas.text());
    let types = client.command(&CommandGetTableTypes {}).await?;
    assert!(types.text().lines().any(|line| line == "TABLE"), "{}", types.text());
    let tables = CommandGetTables {
        catalog: Some("thermocline".to_owned()),
        db_schema_filter_pattern: Some("ma%".to_owned()),
        table_name_filter_pattern: Some("thin_s".to_owned()),
        table_types: vec!["TABLE".to_owned()],
        include_schema: true,
    };
    let answer = client.command(&tables).await?;
    assert_eq!(answer.row_count(), 1);
    let batch = answer.batches.iter().find(|batch| batch.num_rows() > 0).context("a batch with the row")?;
    let schema = batch.column_by_name("table_schema").context("table_schema")?.as_binary::<i32>().value(0);
    let schema = Schema::try_from(arrow_flight::IpcMessage(bytes::Bytes::copy_from_slice(schema)))?;
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["row_id", "name", "n", "note", "size_cm", "created_at", "updated_at"]);
    let none = CommandGetTables { table_name_filter_pattern: Some("nothing%".to_owned()), ..tables.clone() };
    assert_eq!(client.command(&none).await?.row_count(), 0);
    let elsewhere = CommandGetTables { catalog: Some("other".to_owned()), ..tables };
    assert_eq!(client.command(&elsewhere).await?.row_count(), 0);
    let all = client.command(&CommandGetSqlInfo { info: Vec::new() }).await?;
    assert!(all.row_count() > 10, "{} SQL infos", all.row_count());
    let name = client.command(&CommandGetSqlInfo { info: vec![SqlInfo::FlightSqlServerName as u32] }).await?;
    assert_eq!(name.row_count(), 1);
    assert!(format!("{:?}", name.batches).contains("thermocline"));
    let types = client.command(&arrow_flight::sql::CommandGetXdbcTypeInfo { data_type: None }).await?;
    assert!(types.row_count() > 5);
    Ok(())
}

/// The wire carries no view types, 128-bit decimals only, and microseconds in UTC.
#[tokio::test]
async fn the_wire_types_are_those_that_old_clients_read() -> Result<()> {
    let scenario = scenario().await?;
    let answer = scenario.client.query("SELECT * FROM everything").await?;
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    for (name, expected) in [
        ("row_id", DataType::Utf8),
        ("m_text", DataType::Utf8),
        ("m_smallint", DataType::Int16),
        ("m_integer", DataType::Int32),
        ("m_bigint", DataType::Int64),
        ("m_double", DataType::Float64),
        ("m_decimal", DataType::Decimal128(9, 2)),
        ("m_boolean", DataType::Boolean),
        ("m_uuid", DataType::Utf8),
        ("m_date", DataType::Date32),
        ("m_timestamp", utc.clone()),
        ("m_json", DataType::Utf8),
        ("e_decimal", DataType::Decimal128(15, 4)),
        ("created_at", utc.clone()),
        ("updated_at", utc),
    ] {
        assert_eq!(answer.schema.field_with_name(name)?.data_type(), &expected, "{name}");
    }
    let DataType::List(element) = answer.schema.field_with_name("l_integer")?.data_type() else {
        anyhow::bail!("l_integer is no list: {}", answer.schema);
    };
    assert_eq!(element.data_type(), &DataType::Int32);
    Ok(())
}

/// Every answer is at most a few megabytes a message, whatever a row is like.
#[tokio::test]
async fn messages_stay_below_what_clients_take() -> Result<()> {
    let scenario = scenario().await?;
    for sql in ["SELECT repeat('x', 300) AS t FROM range(100000)", "SELECT repeat('x', 1000000) AS t FROM range(20)"] {
        let info = scenario.client.info(sql).await?;
        let ticket = thermocline_tests::client::first_ticket(info)?;
        let mut stream = scenario.client.do_get(ticket).await?;
        while let Some(message) = stream.next().await {
            let size = message?.data_body.len();
            assert!(size <= 4 * 1024 * 1024, "a message of {size} bytes for {sql}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn writes_are_refused_as_read_only() -> Result<()> {
    let scenario = scenario().await?;
    let update = arrow_flight::sql::client::FlightSqlServiceClient::new_from_inner(scenario.client.flight())
        .execute_update("DELETE FROM things".to_owned(), None)
        .await;
    let error = update.expect_err("updates are refused").to_string();
    assert!(error.to_lowercase().contains("read-only") || error.to_lowercase().contains("read only"), "{error}");
    Ok(())
}

#[tokio::test]
async fn the_official_adbc_driver_reads_everything() -> Result<()> {
    let scenario = scenario().await?;
    let oracle = scenario.oracle(View::default())?;
    let expected = oracle.query("SELECT * FROM things")?;
    let endpoint = scenario.server.endpoint().to_owned();
    tokio::task::spawn_blocking(move || {
        let mut connection = adbc_connect(&endpoint, &[])?;
        let (schema, batches) = adbc_query(&mut connection, "SELECT * FROM things")?;
        compare(&expected, &schema, &batches, Order::Any)?;
        let (_, none) = adbc_query(&mut connection, "SELECT * FROM everything")?;
        assert_eq!(none.iter().map(|batch| batch.num_rows()).sum::<usize>(), 0);
        let mut prepared = connection.new_statement()?;
        prepared.set_sql_query("SELECT count(*) AS n FROM things")?;
        prepared.prepare()?;
        for _ in 0..2 {
            let rows: Vec<_> = prepared.execute()?.collect::<std::result::Result<_, _>>()?;
            assert_eq!(thermocline_tests::oracle::rows_of(&rows)[0][0].to_string(), "30");
        }
        let schema = connection.get_table_schema(Some("thermocline"), Some("main"), "things")?;
        assert_eq!(schema.fields().len(), 7);
        let objects = connection.get_objects(ObjectDepth::All, None, None, None, None, None)?;
        assert_eq!(objects.schema().field(0).name(), "catalog_name");
        let objects: Vec<_> = objects.collect::<std::result::Result<_, _>>()?;
        assert!(format!("{objects:?}").contains("size_cm"));
        let types: Vec<_> = connection.get_table_types()?.collect::<std::result::Result<_, _>>()?;
        assert!(format!("{types:?}").contains("TABLE"));
        let info: Vec<_> = connection.get_info(None)?.collect::<std::result::Result<_, _>>()?;
        assert!(format!("{info:?}").contains("thermocline"));
        let header = "adbc.flight.sql.rpc.call_header.x-thermocline-max-rows";
        let mut limited = adbc_connect(&endpoint, &[(header, "3")])?;
        let (_, rows) = adbc_query(&mut limited, "SELECT * FROM things")?;
        assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 3);
        let refused = adbc_query(&mut connection, "SELECT * FROM nothing").expect_err("there is no such table");
        assert!(format!("{refused:#}").contains("nothing"), "{refused:#}");
        anyhow::Ok(())
    })
    .await?
}

/// A catalog that loads anew changes what tickets from before mean: DoGet plans again.
#[tokio::test]
async fn a_reloaded_catalog_serves_new_queries_and_a_bad_one_changes_nothing() -> Result<()> {
    let scenario = scenario().await?;
    let path = scenario.server.dir().join("catalog.toml");
    let old = std::fs::read_to_string(&path)?;
    std::fs::write(&path, old.replace("name = \"n\"", "name = \"number\""))?;
    scenario.server.signal("HUP")?;
    until("the catalog is loaded anew", async || {
        let answer = scenario.client.query("SELECT number FROM things LIMIT 1").await;
        Ok(answer.map_err(|failure| failure.expect(Code::InvalidArgument, &["number"])).is_ok())
    })
    .await?;
    std::fs::write(&path, "[[entity]]\nname = 5\n")?;
    scenario.server.signal("HUP")?;
    until("the bad catalog is logged", async || Ok(scenario.server.log()?.contains("catalog.toml"))).await?;
    scenario.client.query("SELECT number FROM things LIMIT 1").await?;
    Ok(())
}
