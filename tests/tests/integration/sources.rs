//! Sources that are far away, slow, broken or gone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use thermocline_tests::client::Client;
use thermocline_tests::r#gen;
use thermocline_tests::lake::LakeFile;
use thermocline_tests::oracle::{HotVersion, Order, Stored, View};
use thermocline_tests::postgres::{Cluster, TestDatabase};
use thermocline_tests::s3::{Fault, S3Request};
use thermocline_tests::scenario::{LakeKind, Scenario, live, row_id, tombstone};
use thermocline_tests::server::{ServerConfig, run};
use tonic::Code;

use crate::{thing, things};

fn stored() -> Stored {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", (0..20).map(|n| live(n, 10, thing("base", 1))).collect()),
        LakeFile::delta(&entity, "a.parquet", (15..25).map(|n| live(n, 20, thing("delta", 2))).collect()),
        LakeFile::delta(&entity, "_tmp/b.parquet", vec![live(0, 99, thing("staged", 9))]),
    ];
    stored.hot = vec![
        HotVersion { version: live(0, 30, thing("hot", 3)), dirty: true, has_main: true },
        HotVersion { version: tombstone(1, 30, thing("dead", 3)), dirty: true, has_main: false },
    ];
    stored
}

#[tokio::test]
async fn a_lake_on_s3_answers_like_a_local_one() -> Result<()> {
    let scenario = Scenario::start(vec![stored()], LakeKind::S3).await?;
    let oracle = scenario.oracle(View::default())?;
    for sql in ["SELECT * FROM things", "SELECT name, count(*) AS c FROM things GROUP BY name"] {
        scenario.check(&oracle, sql, Order::Any).await?;
    }
    let requests = scenario.lake.s3_server().unwrap().requests();
    let read: Vec<_> = requests.iter().filter(|request| request.is_read() && request.path.contains("_tmp")).collect();
    assert!(read.is_empty(), "staging files are never read: {read:?}");
    let writes: Vec<_> = requests
        .iter()
        .filter(|request| request.method != "GET" && request.method != "HEAD" && request.method != "PUT")
        .collect();
    assert!(writes.is_empty(), "{writes:?}");
    Ok(())
}

/// Requests of one kind that a query makes. Health probes ask the lake now and then: the least of a few runs are the
/// query's own.
async fn requests_of(
    scenario: &Scenario,
    client: &Client,
    sql: &str,
    is_meant: impl Fn(&S3Request) -> bool,
) -> Result<usize> {
    let s3 = scenario.lake.s3_server().context("the lake is on S3")?;
    let mut least = usize::MAX;
    for _ in 0..5 {
        s3.forget_requests();
        client.query(sql).await?;
        least = least.min(s3.requests().iter().filter(|request| is_meant(request)).count());
    }
    Ok(least)
}

#[tokio::test]
async fn a_query_of_a_pruned_tier_reads_none_of_its_files() -> Result<()> {
    let scenario = Scenario::start_with(vec![stored()], LakeKind::S3, ServerConfig::without_index).await?;
    let sql = "SELECT * FROM things";
    let tier = |name| scenario.client.with_option("tiers", name);
    assert_eq!(requests_of(&scenario, &tier("hot"), sql, |_| true).await?, 0, "the hot tier needs no file");
    let delta = |request: &S3Request| request.is_read() && request.path.contains("delta/");
    assert_eq!(requests_of(&scenario, &tier("cold"), sql, delta).await?, 0, "the cold tier needs no delta file");
    assert!(requests_of(&scenario, &tier("warm"), sql, delta).await? > 0, "the warm tier needs them");
    Ok(())
}

#[tokio::test]
async fn files_that_cannot_answer_get_no_request() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    let rows = |ids: std::ops::Range<u128>, n| ids.map(|id| live(id, 10, thing("base", n))).collect();
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", rows(0..20, 1)),
        LakeFile::base(&entity, "b.parquet", rows(20..40, 2)),
    ];
    let scenario = Scenario::start_with(vec![stored], LakeKind::S3, ServerConfig::without_index).await?;
    let sql = format!("SELECT name FROM things WHERE row_id = '{}'", row_id(25));
    assert_eq!(scenario.client.query(&sql).await?.text(), "base");
    let of = |name: &'static str| move |request: &S3Request| request.is_read() && request.path.ends_with(name);
    assert_eq!(requests_of(&scenario, &scenario.client, &sql, of("a.parquet")).await?, 0, "it holds other rows");
    assert!(requests_of(&scenario, &scenario.client, &sql, of("b.parquet")).await? > 0, "it holds the row");
    Ok(())
}

/// S3 answers late: what a query must know of many new files is asked for together, and a query that nobody waits for
/// any more keeps no place.
#[tokio::test]
async fn ids_of_new_delta_files_are_read_together() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = (0..12)
        .map(|n| LakeFile::delta(&entity, &format!("{n}.parquet"), vec![live(n, 20, thing("delta", 2))]))
        .chain([LakeFile::base(&entity, "a.parquet", (0..50).map(|n| live(n, 10, thing("base", 1))).collect())])
        .collect();
    // Where positions are known nobody asks for ids.
    let configure = |config: ServerConfig| config.without_index().with("query", "max_concurrent", 1);
    let scenario = Scenario::start_with(vec![stored], LakeKind::S3, configure).await?;
    // Footers are known then; ids aren't wanted of one tier alone.
    assert_eq!(scenario.client.with_option("tiers", "warm").query("SELECT * FROM things").await?.row_count(), 12);
    let s3 = scenario.lake.s3_server().context("the lake is on S3")?;
    s3.forget_requests();
    s3.inject(Fault::Delay(Duration::from_secs(600)), 0, usize::MAX, |request| request.path.contains("delta/"));
    let client = scenario.client.clone();
    let waiting = tokio::spawn(async move { client.query("SELECT * FROM things").await });
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let requests = s3.requests();
        let asked: BTreeSet<&str> =
            requests.iter().filter(|request| request.is_read()).map(|request| request.path.as_str()).collect();
        if asked.iter().filter(|path| path.contains("delta/")).count() >= 8 {
            break;
        }
        ensure!(Instant::now() < until, "only these were asked for: {asked:?}");
        tokio::task::yield_now().await;
    }
    waiting.abort();
    s3.clear_faults();
    assert_eq!(scenario.client.query("SELECT * FROM things").await?.row_count(), 50);
    Ok(())
}

#[tokio::test]
async fn a_lake_with_a_manifest_is_never_listed() -> Result<()> {
    let sql = "SELECT * FROM things";
    let is_list = |request: &S3Request| request.is_list();
    let listing = Scenario::start(vec![stored()], LakeKind::S3).await?;
    assert!(requests_of(&listing, &listing.client, sql, is_list).await? > 0, "a listing is asked for");
    let configure = |config: ServerConfig| config.with("lake", "catalog", "manifest");
    let scenario = Scenario::start_with(vec![stored()], LakeKind::S3, configure).await?;
    let config = scenario.server.config_path().display().to_string();
    let imported = run(&["manifest", "import", "--config", &config]).await?;
    ensure!(imported.success, "{}{}", imported.stdout, imported.stderr);
    scenario.check(&scenario.oracle(View::default())?, sql, Order::Any).await?;
    assert_eq!(requests_of(&scenario, &scenario.client, sql, is_list).await?, 0);
    Ok(())
}

/// Hot rows are read before the first batch: a client that takes its time holds no snapshot of PostgreSQL.
#[tokio::test]
async fn no_transaction_stays_open_while_a_slow_client_reads() -> Result<()> {
    let scenario = Scenario::start(vec![stored()], LakeKind::Local).await?;
    let sql = "SELECT name, i FROM things, range(3000000) r(i)";
    let answer = scenario.client.info(sql).await?;
    let plan: serde_json::Value = serde_json::from_slice(&answer.app_metadata)?;
    assert_eq!(plan["route"], "federated", "{plan:#}");
    let mut stream = scenario.client.stream(sql).await?;
    let mut rows = stream.next().await.context("no batch")??.num_rows();
    let database = scenario.database.connect().await?;
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let busy = "SELECT count(*) FROM pg_stat_activity \
                    WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'";
        if database.query_one(busy, &[]).await?.get::<_, i64>(0) == 0 {
            break;
        }
        ensure!(Instant::now() < until, "a transaction is open while the client reads nothing");
    }
    while let Some(batch) = stream.next().await {
        rows += batch?.num_rows();
    }
    assert_eq!(rows, 24 * 3_000_000, "the rest of the answer came afterwards");
    Ok(())
}

#[tokio::test]
async fn passing_s3_faults_are_retried() -> Result<()> {
    let scenario = Scenario::start_with(vec![stored()], LakeKind::S3, ServerConfig::without_index).await?;
    let s3 = scenario.lake.s3_server().unwrap();
    let oracle = scenario.oracle(View::default())?;
    s3.inject(Fault::Status(503), 0, 1, |request| request.is_list());
    s3.inject(Fault::Status(503), 0, 1, |request| request.is_read());
    s3.inject(Fault::Reset, 1, 1, |request| request.is_read());
    scenario.check(&oracle, "SELECT * FROM things", Order::Any).await
}

#[tokio::test]
async fn a_lake_that_is_down_is_unavailable_or_left_out() -> Result<()> {
    let scenario = Scenario::start_with(vec![stored()], LakeKind::S3, ServerConfig::without_index).await?;
    let s3 = scenario.lake.s3_server().unwrap();
    s3.inject(Fault::Status(500), 0, usize::MAX, |_| true);
    let failure = scenario.client.refusal("SELECT name FROM things").await;
    failure.expect(Code::Unavailable, &["lake", "allow_partial"]);
    let answer = scenario.client.with_option("allow_partial", "true").query("SELECT name FROM things").await?;
    assert_eq!(answer.text(), "hot");
    let degraded = &answer.final_plan["degraded"];
    assert_eq!(degraded["is_degraded"], true, "{:#}", answer.final_plan);
    assert_eq!(degraded["missing_tiers"], serde_json::json!(["warm", "cold"]));
    assert!(!answer.warnings().is_empty());
    // Back again: no restart is needed.
    s3.clear_faults();
    let oracle = scenario.oracle(View::default())?;
    scenario.check(&oracle, "SELECT * FROM things", Order::Any).await
}

#[tokio::test]
async fn a_lake_whose_root_does_not_exist_is_down_and_an_empty_root_is_empty() -> Result<()> {
    let scenario = Scenario::start_with(vec![Stored::new(&things())], LakeKind::Local, |config| {
        config.with("lake", "url", "file:///nonexistent/thermocline")
    })
    .await?;
    scenario.client.refusal("SELECT name FROM things").await.expect(Code::Unavailable, &["lake"]);
    let scenario = Scenario::start(vec![Stored::new(&things())], LakeKind::Local).await?;
    assert_eq!(scenario.client.query("SELECT name FROM things").await?.row_count(), 0);
    Ok(())
}

#[tokio::test]
async fn postgres_that_is_down_is_unavailable_or_left_out() -> Result<()> {
    let cluster = Cluster::start().await?;
    let database = TestDatabase::create_in(&cluster).await?;
    let scenario = Scenario::start_on(database, vec![stored()], LakeKind::Local, |config| config).await?;
    let oracle = scenario.oracle(View::default())?;
    scenario.check(&oracle, "SELECT * FROM things", Order::Any).await?;
    cluster.stop()?;
    let failure = scenario.client.refusal("SELECT name FROM things").await;
    failure.expect(Code::Unavailable, &["postgres", "eventual"]);
    assert!(!failure.message.contains(thermocline_tests::postgres::PASSWORD), "{failure}");
    let eventual = scenario.client.with_option("consistency", "eventual");
    let answer = eventual.query("SELECT * FROM things").await?;
    assert_eq!(answer.row_count(), 25, "files only");
    assert_eq!(answer.final_plan["degraded"]["is_degraded"], true, "{:#}", answer.final_plan);
    assert!(!answer.warnings().is_empty());
    cluster.restart().await?;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while let Err(failure) = scenario.client.query("SELECT name FROM things").await {
        failure.expect(Code::Unavailable, &[]);
        assert!(std::time::Instant::now() < until, "PostgreSQL is back, the server isn't: {failure}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    scenario.check(&oracle, "SELECT * FROM things", Order::Any).await
}

/// A server starts while its sources are down, and says so per query.
#[tokio::test]
async fn a_server_starts_without_its_sources() -> Result<()> {
    let scenario = Scenario::start_with(vec![Stored::new(&things())], LakeKind::Local, |config| {
        config.with("postgres", "url", "postgresql://thermocline:secret-word@127.0.0.1:1/nothing")
    })
    .await?;
    let failure = scenario.client.refusal("SELECT name FROM things").await;
    failure.expect(Code::Unavailable, &["postgres"]);
    assert!(!failure.message.contains("secret-word"), "{failure}");
    assert!(!scenario.server.log()?.contains("secret-word"));
    assert_eq!(scenario.client.query("SELECT 1 AS x").await?.text(), "1");
    Ok(())
}

#[tokio::test]
async fn a_corrupt_file_is_named_or_left_out() -> Result<()> {
    let scenario = Scenario::start(vec![stored()], LakeKind::Local).await?;
    scenario.lake.put_bytes("delta/100/broken.parquet", b"PAR1 this is no Parquet file PAR1".to_vec()).await?;
    let failure = scenario.client.refusal("SELECT name FROM things").await;
    failure.expect(Code::Unavailable, &["broken.parquet"]);
    let oracle = scenario.oracle(View::default())?;
    let partial = scenario.client.with_option("allow_partial", "true");
    let sql = "SELECT * FROM things";
    scenario.check_with(&partial, &oracle, sql, sql, Order::Any).await?;
    let answer = partial.query(sql).await?;
    assert_eq!(answer.final_plan["degraded"]["is_degraded"], true, "{:#}", answer.final_plan);
    assert!(answer.final_plan.to_string().contains("broken.parquet"));
    Ok(())
}

/// New files are seen by the next query, and removed ones are gone.
#[tokio::test]
async fn the_file_set_is_always_fresh() -> Result<()> {
    for kind in [LakeKind::Local, LakeKind::S3] {
        let mut scenario = Scenario::start(vec![stored()], kind).await?;
        for number in 0..5u32 {
            let version = live(100 + u128::from(number), 50, thing("added", 1));
            let file = LakeFile::delta(&things(), &format!("added-{number}.parquet"), vec![version]);
            scenario.add_file(file).await?;
            let oracle = scenario.oracle(View::default())?;
            scenario.check(&oracle, "SELECT * FROM things", Order::Any).await?;
        }
        let gone = scenario.stored[0].files.remove(1);
        scenario.lake.delete(&gone.path).await?;
        let oracle = scenario.oracle(View::default())?;
        scenario.check(&oracle, "SELECT * FROM things", Order::Any).await?;
    }
    Ok(())
}

/// Files with different columns, orders and types of the same entity, many at once.
#[tokio::test]
async fn many_small_files_of_different_shapes_are_one_table() -> Result<()> {
    let entity = r#gen::every_type("everything", 7);
    let mut rng = r#gen::rng(5);
    let mut stored = Stored::new(&entity);
    for round in 0..10 {
        for mut file in r#gen::stored(&mut rng, &entity, 15).files {
            file.path = file.path.replace(".parquet", &format!("-{round}.parquet"));
            stored.files.push(file);
        }
    }
    let scenario = Scenario::start(vec![stored], LakeKind::S3).await?;
    let oracle = scenario.oracle(View::default())?;
    scenario.check(&oracle, "SELECT * FROM everything", Order::Any).await
}
