//! Sources that are far away, slow, broken or gone.

use anyhow::Result;
use thermocline_tests::r#gen;
use thermocline_tests::lake::LakeFile;
use thermocline_tests::oracle::{HotVersion, Order, Stored, View};
use thermocline_tests::postgres::{Cluster, TestDatabase};
use thermocline_tests::s3::Fault;
use thermocline_tests::scenario::{LakeKind, Scenario, live, tombstone};
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

/// In the steady state a query lists, and reads no footer a second time to plan.
#[tokio::test]
async fn a_query_of_a_pruned_tier_reads_none_of_its_files() -> Result<()> {
    let scenario = Scenario::start(vec![stored()], LakeKind::S3).await?;
    let s3 = scenario.lake.s3_server().unwrap();
    scenario.client.query("SELECT * FROM things").await?;
    s3.forget_requests();
    scenario.client.with_option("tiers", "hot").query("SELECT * FROM things").await?;
    assert_eq!(s3.requests(), [], "the hot tier needs no file");
    scenario.client.with_option("tiers", "cold").query("SELECT * FROM things").await?;
    let delta: Vec<_> =
        s3.requests().into_iter().filter(|request| request.is_read() && request.path.contains("delta/")).collect();
    assert_eq!(delta, [], "the cold tier needs no delta file");
    Ok(())
}

#[tokio::test]
async fn passing_s3_faults_are_retried() -> Result<()> {
    let scenario = Scenario::start(vec![stored()], LakeKind::S3).await?;
    let s3 = scenario.lake.s3_server().unwrap();
    let oracle = scenario.oracle(View::default())?;
    s3.inject(Fault::Status(503), 0, 1, |request| request.is_list());
    s3.inject(Fault::Status(503), 0, 1, |request| request.is_read());
    s3.inject(Fault::Reset, 1, 1, |request| request.is_read());
    scenario.check(&oracle, "SELECT * FROM things", Order::Any).await
}

#[tokio::test]
async fn a_lake_that_is_down_is_unavailable_or_left_out() -> Result<()> {
    let scenario = Scenario::start(vec![stored()], LakeKind::S3).await?;
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
