//! Rust's clients: arrow-flight's `FlightSqlServiceClient`, and `adbc_driver_manager` with the official Flight SQL driver.

use std::collections::BTreeMap;

use adbc_core::options::{ObjectDepth, OptionStatement, OptionValue};
use adbc_core::{Connection as _, Optionable as _, Statement as _};
use adbc_driver_manager::ManagedStatement;
use anyhow::{Context, Result};
use arrow::array::{
    ArrayRef, Decimal128Array, Int32Array, Int32Builder, ListBuilder, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use arrow_flight::FlightInfo;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTables, SqlInfo};
use futures::{StreamExt, TryStreamExt};
use thermocline_tests::client::{adbc_connect, adbc_query};
use thermocline_tests::oracle::rows_of;
use thermocline_tests::scenario::Scenario;
use tonic::Code;
use tonic::transport::Channel;

use super::{Findings, server};

const FLIGHT: &str = "arrow-flight (Rust)";
const ADBC: &str = "ADBC (Rust)";
pub(super) const CLIENTS: &[&str] = &[FLIGHT, ADBC];

const GOLDEN: &str = "SELECT n, a_text, a_smallint, a_integer, a_bigint, a_double, a_decimal, a_boolean, a_uuid, a_date, \
                      a_timestamp, a_json, texts, integers, doubles, booleans, dates, timestamps, decimals \
                      FROM golden ORDER BY n";
const ENDLESS: &str = "SELECT range AS i FROM range(100000000000)";

/// Parameters that pick the ordinary row of `golden`.
fn golden_parameters() -> BTreeMap<&'static str, ArrayRef> {
    let mut integers = ListBuilder::new(Int32Builder::new());
    integers.append_value([Some(41), Some(42)]);
    let decimal = Decimal128Array::from(vec![123_456_789]).with_data_type(arrow::datatypes::DataType::Decimal128(9, 2));
    BTreeMap::from([
        ("a_integer = ?", std::sync::Arc::new(Int32Array::from(vec![42])) as ArrayRef),
        ("a_text = ?", std::sync::Arc::new(StringArray::from(vec!["it's"]))),
        ("a_decimal = ?", std::sync::Arc::new(decimal)),
        (
            "a_timestamp = ?",
            std::sync::Arc::new(TimestampMillisecondArray::from(vec![1_709_210_096_789]).with_timezone("Asia/Tokyo")),
        ),
        ("list_contains(?, a_integer)", std::sync::Arc::new(integers.finish())),
    ])
}

fn row(value: ArrayRef) -> Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter_with_nullable([("v", value, true)])?)
}

/// The rows of `golden` as text, checked by the oracle.
fn expected(scenario: &Scenario) -> Result<Vec<Vec<String>>> {
    let oracle = scenario.oracle(thermocline_tests::oracle::View::default())?;
    let rows = rows_of(&oracle.query(GOLDEN)?);
    assert_eq!(rows[0][4].to_string(), "9007199254740993");
    assert_eq!(rows[0][6].to_string(), "1234567.89");
    Ok(texts(&rows))
}

fn texts<T: ToString>(rows: &[Vec<T>]) -> Vec<Vec<String>> {
    rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect()
}

async fn read(client: &mut FlightSqlServiceClient<Channel>, info: FlightInfo) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    for endpoint in info.endpoint {
        let stream = client.do_get(endpoint.ticket.context("an endpoint without a ticket")?).await?;
        batches.extend(stream.try_collect::<Vec<_>>().await?);
    }
    Ok(batches)
}

fn count(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

async fn next(stream: &mut FlightRecordBatchStream) -> Option<Result<RecordBatch, FlightError>> {
    stream.next().await
}

#[tokio::test]
async fn the_flight_sql_client_of_rust() -> Result<()> {
    let scenario = server().await?;
    let mut findings = Findings::default();
    let mut client = FlightSqlServiceClient::new_from_inner(scenario.client.flight());
    let info = client.execute("SELECT name FROM things WHERE n = 2".to_owned(), None).await?;
    assert_eq!(count(&read(&mut client, info).await?), 15);
    findings.add(FLIGHT, "connect", "yes")?;

    let refused = client.execute("SELECT * FROM nothing".to_owned(), None).await.unwrap_err().to_string();
    assert!(refused.contains("nothing"), "{refused}");
    findings.add(FLIGHT, "query", "yes")?;

    let info = client.execute(GOLDEN.to_owned(), None).await?;
    let promised = info.clone().try_decode_schema()?;
    let batches = read(&mut client, info).await?;
    assert_eq!(texts(&rows_of(&batches)), expected(&scenario)?);
    assert_eq!(batches[0].schema().as_ref(), &promised);
    findings.add(FLIGHT, "types", "yes")?;

    for (condition, value) in golden_parameters() {
        let mut prepared = client.prepare(format!("SELECT n FROM golden WHERE {condition}"), None).await?;
        prepared.set_parameters(row(value)?)?;
        let info = prepared.execute().await?;
        assert_eq!(texts(&rows_of(&read(&mut client, info).await?)), [["1"]], "{condition}");
        prepared.close().await?;
    }
    findings.add(FLIGHT, "parameters", "yes")?;

    let info = client.get_catalogs().await?;
    assert_eq!(texts(&rows_of(&read(&mut client, info).await?)), [["thermocline"]]);
    let info = client.get_db_schemas(CommandGetDbSchemas { catalog: None, db_schema_filter_pattern: None }).await?;
    assert!(count(&read(&mut client, info).await?) >= 1);
    let tables = CommandGetTables {
        catalog: None,
        db_schema_filter_pattern: None,
        table_name_filter_pattern: Some("thin_s".to_owned()),
        table_types: vec!["TABLE".to_owned()],
        include_schema: false,
    };
    let info = client.get_tables(tables).await?;
    assert_eq!(texts(&rows_of(&read(&mut client, info).await?)), [["thermocline", "main", "things", "TABLE"]]);
    let keys = CommandGetPrimaryKeys { catalog: None, db_schema: None, table: "things".to_owned() };
    let info = client.get_primary_keys(keys).await?;
    assert_eq!(count(&read(&mut client, info).await?), 1);
    let info = client.get_sql_info(vec![SqlInfo::FlightSqlServerName]).await?;
    assert_eq!(count(&read(&mut client, info).await?), 1);
    findings.add(FLIGHT, "metadata", "yes")?;

    let mut hot = FlightSqlServiceClient::new_from_inner(scenario.client.flight());
    hot.set_header("x-thermocline-tiers", "hot");
    let info = hot.execute("SELECT name FROM things".to_owned(), None).await?;
    assert_eq!(count(&read(&mut hot, info).await?), 15);
    findings.add(FLIGHT, "options", "yes")?;

    let info = client.execute(ENDLESS.to_owned(), None).await?;
    let ticket = info.endpoint[0].ticket.clone().context("a ticket")?;
    let mut stream = client.do_get(ticket).await?;
    next(&mut stream).await.context("no batch")??;
    let request = arrow_flight::CancelFlightInfoRequest::new(info);
    let body = prost::Message::encode_to_vec(&request).into();
    scenario.client.action("CancelFlightInfo", body).await?;
    let ended = loop {
        match next(&mut stream).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => anyhow::bail!("a cancelled stream ended as if it were whole"),
        }
    };
    assert!(matches!(&ended, FlightError::Tonic(status) if status.code() == Code::Cancelled), "{ended}");
    findings.add(FLIGHT, "cancel", "yes, by the action `CancelFlightInfo`")?;
    findings.check()
}

#[tokio::test]
async fn the_adbc_driver_manager_of_rust() -> Result<()> {
    let scenario = server().await?;
    let expected = expected(&scenario)?;
    let endpoint = scenario.server.endpoint().to_owned();
    let findings = tokio::task::spawn_blocking(move || adbc(&endpoint, &expected)).await??;
    findings.check()
}

fn adbc(endpoint: &str, expected: &[Vec<String>]) -> Result<Findings> {
    let mut findings = Findings::default();
    let mut connection = adbc_connect(endpoint, &[])?;
    let (_, batches) = adbc_query(&mut connection, "SELECT name FROM things WHERE n = 2")?;
    assert_eq!(count(&batches), 15);
    findings.add(ADBC, "connect", "yes")?;
    let refused = adbc_query(&mut connection, "SELECT * FROM nothing").unwrap_err().to_string();
    assert!(refused.contains("nothing"), "{refused}");
    findings.add(ADBC, "query", "yes")?;

    let (_, batches) = adbc_query(&mut connection, GOLDEN)?;
    assert_eq!(texts(&rows_of(&batches)), expected);
    findings.add(ADBC, "types", "yes")?;

    for (condition, value) in golden_parameters() {
        let mut statement = connection.new_statement()?;
        statement.set_sql_query(format!("SELECT n FROM golden WHERE {condition}"))?;
        statement.prepare()?;
        assert_eq!(statement.get_parameter_schema()?.fields().len(), 1);
        statement.bind(row(value)?)?;
        let batches: Vec<_> = statement.execute()?.collect::<Result<_, _>>()?;
        assert_eq!(texts(&rows_of(&batches)), [["1"]], "{condition}");
    }
    findings.add(ADBC, "parameters", "yes")?;

    assert_eq!(connection.get_table_schema(Some("thermocline"), Some("main"), "things")?.fields().len(), 7);
    for depth in [ObjectDepth::Catalogs, ObjectDepth::Schemas, ObjectDepth::Tables, ObjectDepth::Columns] {
        let objects: Vec<_> = connection.get_objects(depth, None, None, None, None, None)?.collect::<Result<_, _>>()?;
        assert!(count(&objects) >= 1);
    }
    assert!(connection.get_table_types()?.next().is_some());
    assert!(connection.get_info(None)?.next().is_some());
    findings.add(ADBC, "metadata", "yes")?;

    let mut statement: ManagedStatement = connection.new_statement()?;
    let header = "adbc.flight.sql.rpc.call_header.x-thermocline-tiers".to_owned();
    statement.set_option(OptionStatement::Other(header), OptionValue::String("hot".to_owned()))?;
    statement.set_sql_query("SELECT name FROM things")?;
    let batches: Vec<_> = statement.execute()?.collect::<Result<_, _>>()?;
    assert_eq!(count(&batches), 15);
    findings.add(ADBC, "options", "yes")?;

    let mut statement = connection.new_statement()?;
    statement.set_sql_query(ENDLESS)?;
    let mut other = statement.clone();
    let mut reader = statement.execute()?;
    reader.next().context("no batch")??;
    other.cancel()?;
    assert!(reader.any(|batch| batch.is_err()), "a cancelled stream ended as if it were whole");
    findings.add(ADBC, "cancel", "yes")?;
    Ok(findings)
}
