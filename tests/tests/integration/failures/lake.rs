//! The lake fails while a query plans or DuckDB reads files.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::{ArrayRef, FixedSizeBinaryArray, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use futures::StreamExt;
use rand::Rng;
use thermocline_tests::r#gen;
use thermocline_tests::lake::{LakeFile, write_parquet};
use thermocline_tests::oracle::Stored;
use thermocline_tests::postgres::TestDatabase;
use thermocline_tests::proxy::{Link, Proxy};
use thermocline_tests::s3::{Fault, S3Request};
use thermocline_tests::scenario::{LakeKind, Scenario, live};
use thermocline_tests::server::ServerConfig;
use thermocline_tests::until;
use tonic::Code;

use super::{ALL, ALL_ROWS, HOT_ROWS, assert_degraded, reads_data, stored};
use crate::{thing, things};

/// A scenario whose server reaches S3 through a proxy.
async fn proxied(configure: impl FnOnce(ServerConfig) -> ServerConfig) -> Result<(Scenario, Proxy)> {
    let mut proxy = None;
    let database = TestDatabase::create().await?;
    let scenario = Scenario::start_on(database, vec![stored()], LakeKind::S3, |mut config| {
        let endpoint = &mut config.settings["lake"]["s3"]["endpoint"];
        let address: SocketAddr = endpoint.as_str().unwrap().trim_start_matches("http://").parse().unwrap();
        let started = Proxy::start(address).unwrap();
        *endpoint = format!("http://127.0.0.1:{}", started.port()).into();
        proxy = Some(started);
        configure(config.without_index())
    })
    .await?;
    Ok((scenario, proxy.context("the configuration was used")?))
}

/// DuckDB asks for the same bytes this often before it gives up.
const TRIES: usize = 4;

fn reads(name: &'static str) -> impl Fn(&S3Request) -> bool + Send + 'static {
    move |request| reads_data(request) && request.path.contains(name)
}

#[tokio::test]
async fn a_file_that_vanished_is_planned_around() -> Result<()> {
    let scenario = Scenario::start_with(vec![stored()], LakeKind::S3, ServerConfig::without_index).await?;
    let s3 = scenario.lake.s3_server().unwrap();
    // While planning reads its footer, for either call.
    s3.inject(Fault::Status(404), 0, 1, reads("delta"));
    let info = scenario.client.info(ALL).await?;
    let planned_again = || Ok::<_, anyhow::Error>(scenario.server.log()?.matches("planning again").count());
    ensure!(planned_again()? == 1, "the fault hit nothing");
    // While DuckDB reads it.
    s3.inject(Fault::Status(404), 0, TRIES, reads("delta"));
    assert_eq!(scenario.client.collect(info).await?.row_count(), ALL_ROWS);
    ensure!(planned_again()? == 2, "the fault hit nothing");
    // The next file set has lost a file too, and so has the one after it.
    scenario.lake.put(&LakeFile::delta(&things(), "lost.parquet", Vec::new())).await?;
    s3.inject(Fault::Status(404), 0, 3, reads("lost"));
    assert_eq!(scenario.client.query(ALL).await?.row_count(), ALL_ROWS);
    ensure!(planned_again()? == 5, "{} times", planned_again()?);
    // Gone for good, yet listed: an error that names it, and never a short answer. (DuckDB remembers what it has read.)
    let late = LakeFile::delta(&things(), "late.parquet", vec![live(900, 50, thing("late", 1))]);
    scenario.lake.put(&late).await?;
    s3.inject(Fault::Status(404), 0, usize::MAX, reads("late"));
    let partial = scenario.client.with_option("allow_partial", "true");
    for client in [&scenario.client, &partial] {
        client.refusal(ALL).await.expect(Code::Unavailable, &["delta/100/late.parquet"]);
    }
    s3.clear_faults();
    assert_eq!(scenario.client.query(ALL).await?.row_count(), ALL_ROWS + 1);
    scenario.lake.delete("delta/100/late.parquet").await?;
    // A file that is gone for good and not listed either: compaction has taken it away.
    scenario.lake.delete("delta/100/a.parquet").await?;
    assert_eq!(scenario.client.query(ALL).await?.row_count(), 40 + HOT_ROWS);
    Ok(())
}

/// A file of some 36 MB that no compression makes much smaller, in many row groups.
fn large_file(rows: u32) -> Result<Vec<u8>> {
    let mut rng = r#gen::rng(7);
    let mut times = || Arc::new(Int64Array::from_iter_values((0..rows).map(|_| rng.random_range(0..1 << 41))));
    let (created_at, changed_at) = (times(), times());
    let ids = (0..rows).map(|n| u128::from(n).to_be_bytes());
    let batch = RecordBatch::try_from_iter([
        ("row_id", Arc::new(FixedSizeBinaryArray::try_from_iter(ids)?) as ArrayRef),
        ("created_at", created_at),
        ("changed_at", changed_at),
        ("n", Arc::new(Int32Array::from_iter_values((0..1000).cycle().take(rows as usize)))),
    ])?;
    write_parquet(&batch, 20_000, true)
}

/// What has gone out can't be taken back: the stream ends with an error, whatever leave there is.
#[tokio::test]
async fn a_lake_that_dies_after_the_first_batch_ends_the_stream_with_an_error() -> Result<()> {
    const ROWS: u32 = 1_000_000;
    let scenario =
        Scenario::start_with(vec![Stored::new(&things())], LakeKind::S3, ServerConfig::without_index).await?;
    scenario.lake.put_bytes("base/100/large.parquet", large_file(ROWS)?).await?;
    let client = scenario.client.with_option("allow_partial", "true");
    let sql = "SELECT row_id, created_at, updated_at, n FROM things";
    // Until it is known to hold each row once, all of the file is read before the first row goes out.
    until("the file needs no window", async || {
        let plan: serde_json::Value = serde_json::from_slice(&client.info(sql).await?.app_metadata)?;
        Ok(plan["references"][0]["merge"]["strategy"] == "none")
    })
    .await?;
    let mut batches = client.stream(sql).await?;
    let mut rows = batches.next().await.context("no batch")??.num_rows();
    scenario.lake.s3_server().unwrap().inject(Fault::Reset, 0, usize::MAX, reads("large"));
    let failure = loop {
        match batches.next().await.with_context(|| format!("{rows} rows pass as the whole answer"))? {
            Ok(batch) => rows += batch.num_rows(),
            Err(failure) => break failure,
        }
    };
    failure.expect(Code::Unavailable, &["lake"]);
    ensure!(rows > 0 && rows < ROWS as usize, "{rows} rows came before the error");
    Ok(())
}

#[tokio::test]
async fn expired_credentials_are_renewed_once_and_then_an_outage() -> Result<()> {
    let scenario = Scenario::start_with(vec![stored()], LakeKind::S3, |config| {
        config.without_index().with("breaker", "failures", 1_000)
    })
    .await?;
    let s3 = scenario.lake.s3_server().unwrap();
    scenario.client.info(ALL).await?;
    s3.inject(Fault::Status(400), 0, TRIES, reads("delta"));
    assert_eq!(scenario.client.query(ALL).await?.row_count(), ALL_ROWS);
    ensure!(scenario.server.log()?.contains("asking for new ones"), "the fault hit nothing");

    let partial = scenario.client.with_option("allow_partial", "true");
    let is_list = |request: &S3Request| request.is_list();
    for (rows, matcher) in [(1, reads_data as fn(&S3Request) -> bool), (2, is_list)] {
        // DuckDB remembers what it has read: a new file must be read.
        let name = format!("late-{rows}.parquet");
        let late = LakeFile::delta(&things(), &name, vec![live(900 + rows as u128, 50, thing("late", 1))]);
        scenario.lake.put(&late).await?;
        s3.inject(Fault::Status(400), 0, usize::MAX, matcher);
        let failure = scenario.client.refusal(ALL).await;
        failure.expect(Code::Unavailable, &["lake"]);
        let answer = partial.query(ALL).await?;
        assert_eq!(answer.row_count(), HOT_ROWS);
        assert_degraded(&answer, &["warm", "cold"], "lake");
        s3.clear_faults();
        assert_eq!(scenario.client.query(ALL).await?.row_count(), ALL_ROWS + rows);
    }
    Ok(())
}

/// Somebody must mend these: they are errors, they open no breaker, and no leave hides them.
#[tokio::test]
async fn denied_access_and_wrong_buckets_never_degrade() -> Result<()> {
    let scenario = Scenario::start_with(vec![stored()], LakeKind::S3, |config| {
        config.without_index().with("breaker", "failures", 1)
    })
    .await?;
    let s3 = scenario.lake.s3_server().unwrap();
    scenario.client.info(ALL).await?;
    let partial = scenario.client.with_option("allow_partial", "true");
    let is_list = |request: &S3Request| request.is_list();
    for matcher in [reads_data, is_list] {
        s3.inject(Fault::Status(403), 0, usize::MAX, matcher);
        partial.refusal(ALL).await.expect(Code::Unavailable, &["access is denied"]);
        s3.clear_faults();
        let answer = scenario.client.query(ALL).await?;
        assert_eq!((answer.row_count(), &answer.final_plan["breakers"]["lake"]), (ALL_ROWS, &"closed".into()));
    }
    let scenario = Scenario::start_with(vec![stored()], LakeKind::S3, |config| {
        config.with("lake", "url", "s3://no-such-bucket/prefix")
    })
    .await?;
    let partial = scenario.client.with_option("allow_partial", "true");
    partial.refusal(ALL).await.expect(Code::Unavailable, &["bucket doesn't exist"]);
    Ok(())
}

#[tokio::test]
async fn a_file_with_a_wrong_schema_is_named_and_never_left_out() -> Result<()> {
    let scenario = Scenario::start(vec![stored()], LakeKind::Local).await?;
    let schema = Schema::new(vec![Field::new("changed_at", DataType::Int64, false)]);
    let batch = RecordBatch::try_new(schema.into(), vec![Arc::new(Int64Array::from(vec![1]))])?;
    let path = "delta/100/foreign.parquet";
    scenario.lake.put_bytes(path, write_parquet(&batch, 10, false)?).await?;
    let partial = scenario.client.with_option("allow_partial", "true").with_option("consistency", "eventual");
    for client in [&scenario.client, &partial] {
        client.refusal(ALL).await.expect(Code::Unavailable, &["foreign.parquet", "row_id"]);
    }
    scenario.lake.delete(path).await?;
    assert_eq!(scenario.client.query(ALL).await?.row_count(), ALL_ROWS);
    Ok(())
}

#[tokio::test]
async fn a_slow_body_is_only_slow_and_a_hanging_one_ends_at_the_deadline() -> Result<()> {
    let (scenario, proxy) = proxied(|config| config).await?;
    assert_eq!(scenario.client.query(ALL).await?.row_count(), ALL_ROWS);
    proxy.set(Link::Slow(20_000));
    assert_eq!(scenario.client.query(ALL).await?.row_count(), ALL_ROWS);
    proxy.set(Link::Hang);
    let hurried = scenario.client.with_option("timeout", "500ms");
    let started = Instant::now();
    hurried.refusal(ALL).await.expect(Code::DeadlineExceeded, &["timeout"]);
    // In the middle of DuckDB's own read.
    proxy.set(Link::Pass);
    let late = LakeFile::delta(&things(), "late.parquet", vec![live(900, 50, thing("late", 1))]);
    scenario.lake.put(&late).await?;
    let info = scenario.client.info(ALL).await?;
    let s3 = scenario.lake.s3_server().unwrap();
    s3.inject(Fault::Delay(Duration::from_secs(600)), 0, usize::MAX, reads_data);
    hurried.collect(info).await.unwrap_err().expect(Code::DeadlineExceeded, &["timeout"]);
    ensure!(started.elapsed() < Duration::from_secs(120), "{:?}", started.elapsed());
    s3.clear_faults();
    assert_eq!(scenario.client.query(ALL).await?.row_count(), ALL_ROWS + 1);
    until("no query is in flight", async || {
        Ok(scenario.server.metrics().await?.lines().any(|line| line == "fed_queries_in_flight 0"))
    })
    .await
}

/// No interrupt ends a read that DuckDB waits for. Its query is over at the deadline all the same, its permit goes to the
/// next query soon after, and the lake's breaker opens. So it is in the statement, and where ids of delta files are read
/// ahead of it, which needs both tiers.
#[tokio::test]
async fn a_lake_that_never_answers_keeps_no_permit_and_opens_the_breaker() -> Result<()> {
    for tiers in ["hot,warm", "hot,warm,cold"] {
        let (scenario, _proxy) = proxied(|config| {
            let config = config.with("query", "max_concurrent", 1).with("query", "merge", "layered");
            config.with("breaker", "failures", 1).with("breaker", "cooldown", "10m")
        })
        .await?;
        let info = scenario.client.with_option("tiers", tiers).info(ALL).await?;
        let s3 = scenario.lake.s3_server().unwrap();
        s3.inject(Fault::Delay(Duration::from_secs(600)), 0, usize::MAX, reads_data);
        s3.forget_requests();
        let started = Instant::now();
        // The time must be over while DuckDB reads, not before; probes and checks read base alone.
        let is_read = || s3.requests().iter().any(|request| reads_data(request) && request.path.contains("delta"));
        for attempt in 0.. {
            ensure!(attempt < 10, "DuckDB reads nothing");
            let hurried = scenario.client.with_option("timeout", &format!("{}ms", 500 << attempt));
            hurried.collect(info.clone()).await.unwrap_err().expect(Code::DeadlineExceeded, &["timeout"]);
            if is_read() {
                break;
            }
        }
        let hot = scenario.client.with_option("tiers", "hot");
        assert_eq!(hot.query(ALL).await?.row_count(), HOT_ROWS);
        ensure!(started.elapsed() < Duration::from_secs(500), "the permit came after {:?}", started.elapsed());
        until("the lake's breaker opens", async || Ok(hot.query(ALL).await?.final_plan["breakers"]["lake"] == "open"))
            .await?;
        scenario.client.refusal(ALL).await.expect(Code::Unavailable, &["lake", "isn't asked for now"]);
        let answer = scenario.client.with_option("allow_partial", "true").query(ALL).await?;
        assert_eq!(answer.row_count(), HOT_ROWS);
        assert_degraded(&answer, &["warm", "cold"], "lake");
    }
    Ok(())
}
