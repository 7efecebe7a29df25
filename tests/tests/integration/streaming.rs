//! Large results: constant server memory, early first batches, cancellation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use arrow::array::{Array, AsArray, FixedSizeBinaryBuilder, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use futures::StreamExt;
use thermocline_tests::lake::write_parquet;
use thermocline_tests::model::{Entity, Kind};
use thermocline_tests::oracle::Stored;
use thermocline_tests::scenario::{LakeKind, Scenario, row_id};

const MIB: u64 = 1024 * 1024;
/// DuckDB's limit in these tests.
const DUCKDB_LIMIT: u64 = 512 * MIB;

fn numbers() -> Entity {
    Entity::new("numbers", 5).main("n", Kind::Integer, "integer_01")
}

async fn scenario() -> Result<Scenario> {
    Scenario::start_with(vec![Stored::new(&numbers())], LakeKind::Local, |config| {
        config.with("duckdb", "memory_limit", "512MB")
    })
    .await
}

/// A base file with `rows` live rows.
fn file_of(first: u32, rows: u32) -> Result<Vec<u8>> {
    let mut ids = FixedSizeBinaryBuilder::with_capacity(rows as usize, 16);
    for number in first..first + rows {
        ids.append_value(row_id(number.into()).as_bytes())?;
    }
    let times = Arc::new(Int64Array::from(vec![10; rows as usize]));
    let schema = Schema::new(vec![
        Field::new("row_id", DataType::FixedSizeBinary(16), false),
        Field::new("n", DataType::Int32, true),
        Field::new("created_at", DataType::Int64, false),
        Field::new("changed_at", DataType::Int64, false),
    ]);
    let n = Int32Array::from_iter_values((first..first + rows).map(|n| i32::try_from(n).unwrap()));
    let created: Arc<dyn Array> = Arc::<Int64Array>::clone(&times);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids.finish()), Arc::new(n), created, times])?;
    write_parquet(&batch, 100_000, true)
}

/// 10 million rows, about 400 MB of Arrow data, to a client that keeps none of them.
#[tokio::test]
async fn ten_million_rows_stream_in_constant_memory() -> Result<()> {
    let scenario = scenario().await?;
    scenario.client.query("SELECT 1").await?;
    scenario.server.reset_peak_memory()?;
    let sql = "SELECT r.range AS i, r.range * 2 AS a, r.range % 97 AS b, CAST(r.range AS VARCHAR) AS t \
               FROM range(10000000) r";
    let mut stream = scenario.client.stream(sql).await?;
    let (mut rows, mut sum) = (0, 0);
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        rows += batch.num_rows();
        sum += batch.column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>();
    }
    assert_eq!(rows, 10_000_000);
    assert_eq!(sum, 49_999_995_000_000);
    let peak = scenario.server.peak_memory()?;
    eprintln!("10 million rows: the server held {} MiB at most", peak / MIB);
    assert!(peak < DUCKDB_LIMIT + 256 * MIB, "the server held {} MiB", peak / MIB);
    Ok(())
}

#[tokio::test]
async fn a_large_lake_streams_in_bounded_memory() -> Result<()> {
    let scenario = scenario().await?;
    for part in 0..4 {
        scenario.lake.put_bytes(&format!("base/5/{part}.parquet"), file_of(part * 500_000, 500_000)?).await?;
    }
    let mut stream = scenario.client.stream("SELECT * FROM numbers").await?;
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        rows += batch?.num_rows();
    }
    assert_eq!(rows, 2_000_000);
    let peak = scenario.server.peak_memory()?;
    eprintln!("2 million lake rows: the server held {} MiB at most", peak / MIB);
    assert!(peak < DUCKDB_LIMIT + 256 * MIB, "the server held {} MiB", peak / MIB);
    let sum = scenario.client.query("SELECT count(*) AS c, sum(n) AS s FROM numbers").await?;
    assert_eq!(sum.text(), "2000000|1999999000000");
    Ok(())
}

/// The first batch comes long before the last one is made, and a client that hangs up frees the server.
#[tokio::test]
async fn a_client_that_hangs_up_ends_its_query() -> Result<()> {
    let scenario = scenario().await?;
    let sql = "SELECT r.range AS i, repeat('x', 100) AS t FROM range(100000000000) r";
    let mut stream = scenario.client.stream(sql).await?;
    let first = tokio::time::timeout(Duration::from_secs(30), stream.next()).await;
    first.context("no batch of an endless query")?.context("the stream ended")??;
    drop(stream);
    until_at_rest(&scenario).await?;
    assert_eq!(scenario.client.query("SELECT 1 AS x").await?.text(), "1");
    Ok(())
}

/// Wherever the server stands when one of DuckDB's threads meets a bad value, the client learns what is wrong.
#[tokio::test]
async fn an_error_in_mid_stream_is_told_to_a_client_that_pauses() -> Result<()> {
    let scenario = scenario().await?;
    for megabyte in 1..12 {
        // Rows of about a hundred bytes.
        let at = megabyte * 10_000;
        let sql = format!(
            "SELECT r.range AS i, repeat('x', 90) AS t, CAST(CASE WHEN r.range = {at} THEN 'bad' ELSE '1' END AS INTEGER) \
             AS n FROM range(100000000000) r"
        );
        let mut stream = scenario.client.stream(&sql).await?;
        until_at_rest(&scenario).await?;
        let failure = loop {
            match stream.next().await.context("the stream ended well")? {
                Ok(_) => {}
                Err(failure) => break failure.to_string(),
            }
        };
        assert!(failure.contains("Could not convert string 'bad' to INT32"), "row {at}: {failure}");
    }
    Ok(())
}

/// Waits until the server uses no more processor time.
async fn until_at_rest(scenario: &Scenario) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let before = processor_ticks(scenario.server.pid())?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        if processor_ticks(scenario.server.pid())? - before <= 2 {
            return Ok(());
        }
        assert!(Instant::now() < until, "the query still runs");
    }
}

fn processor_ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(") ").context("no command in stat")?.1.split(' ').collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

#[tokio::test]
async fn the_timeout_option_ends_a_query() -> Result<()> {
    let scenario = scenario().await?;
    let sql = "SELECT count(*) AS n FROM range(100000000000) a";
    let failure = scenario.client.with_option("timeout", "500ms").refusal(sql).await;
    failure.expect(tonic::Code::DeadlineExceeded, &["timeout"]);
    Ok(())
}
