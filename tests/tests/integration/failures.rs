//! Failures of real servers, at chosen points: what the client sees, and what it sees with leave (docs/contract.md,
//! "Unavailable sources").

mod hot;
mod lake;
mod leave;
mod overload;
mod replicas;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use thermocline_tests::client::{Answer, Client};
use thermocline_tests::lake::LakeFile;
use thermocline_tests::oracle::{HotVersion, Order, Stored, View};
use thermocline_tests::postgres::{self, Cluster, TestDatabase};
use thermocline_tests::proxy::Proxy;
use thermocline_tests::s3::{Fault, S3Request};
use thermocline_tests::scenario::{LakeKind, Scenario, live};
use thermocline_tests::server::ServerConfig;
use thermocline_tests::until;
use tonic::Code;

use crate::{thing, things};

/// 40 rows in base, 20 in delta (10 of them newer), 10 dirty ones (5 of them in delta too).
fn stored() -> Stored {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", (0..40).map(|n| live(n, 10, thing("base", 1))).collect()),
        LakeFile::delta(&entity, "a.parquet", (30..50).map(|n| live(n, 20, thing("delta", 2))).collect()),
    ];
    stored.hot =
        (45..55).map(|n| HotVersion { version: live(n, 30, thing("hot", 3)), dirty: true, has_main: true }).collect();
    stored
}

const ALL: &str = "SELECT * FROM things";
const ALL_ROWS: usize = 55;
const HOT_ROWS: usize = 10;
const FILE_ROWS: usize = 50;

/// A scenario whose server reaches PostgreSQL through a proxy.
struct Proxied {
    scenario: Scenario,
    postgres: Proxy,
}

impl Proxied {
    async fn start(
        database: TestDatabase,
        stored: Vec<Stored>,
        kind: LakeKind,
        configure: impl FnOnce(ServerConfig) -> ServerConfig,
    ) -> Result<Self> {
        let postgres = proxy_of(database.cluster())?;
        let url = postgres::url_of(postgres.port(), database.name());
        let configure = |config: ServerConfig| configure(config.with("postgres", "url", url));
        Ok(Self { scenario: Scenario::start_on(database, stored, kind, configure).await?, postgres })
    }
}

fn proxy_of(cluster: &Cluster) -> Result<Proxy> {
    Proxy::start(SocketAddr::from(([127, 0, 0, 1], cluster.port())))
}

/// Rows with long texts, dirty, without files: enough that no buffer between PostgreSQL and the server holds them all.
async fn fill_with_large_rows(database: &TestDatabase, rows: usize) -> Result<()> {
    let sql = format!(
        "INSERT INTO entity_main (ltbase_schema_id, ltbase_row_id, text_01, integer_01, ltbase_created_at, ltbase_updated_at) \
         SELECT 100, ('0190aaaa-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid, repeat(md5(i::text), 32), i, 1, 1 \
         FROM generate_series(1, {rows}) i; \
         INSERT INTO change_log (schema_id, row_id, changed_at) \
         SELECT 100, ('0190aaaa-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid, 40 FROM generate_series(1, {rows}) i"
    );
    Ok(database.connect().await?.batch_execute(&sql).await?)
}

fn assert_degraded(answer: &Answer, tiers: &[&str], reason: &str) {
    let degraded = &answer.final_plan["degraded"];
    assert_eq!(degraded["is_degraded"], true, "{:#}", answer.final_plan);
    assert_eq!(degraded["missing_tiers"], serde_json::json!(tiers));
    assert!(degraded["reasons"].to_string().contains(reason), "{degraded:#}");
    assert!(!answer.warnings().is_empty());
}

/// Asks until the answer is whole again.
async fn wait_until_whole(client: &Client) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match client.query(ALL).await {
            Ok(answer) if answer.row_count() == ALL_ROWS => {
                assert_eq!(answer.final_plan["degraded"]["is_degraded"], false, "{:#}", answer.final_plan);
                return Ok(());
            }
            Ok(answer) => bail!("{} rows without a word: {:#}", answer.row_count(), answer.final_plan),
            // The limits of a test may be short.
            Err(failure) if failure.code == Code::DeadlineExceeded => {}
            Err(failure) => failure.expect(Code::Unavailable, &[]),
        }
        if Instant::now() > deadline {
            bail!("the source is back and the server still refuses");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn reads_data(request: &S3Request) -> bool {
    request.method == "GET" && request.path.ends_with(".parquet")
}

#[tokio::test]
async fn a_breaker_opens_probes_and_closes() -> Result<()> {
    let cluster = Cluster::start().await?;
    let database = TestDatabase::create_in(&cluster).await?;
    let scenario = Scenario::start_on(database, vec![stored()], LakeKind::Local, |config| {
        config.with("breaker", "failures", 3).with("breaker", "cooldown", "300ms")
    })
    .await?;
    cluster.stop()?;
    let refusal = async || {
        let failure = scenario.client.refusal(ALL).await;
        failure.expect(Code::Unavailable, &["PostgreSQL", "eventual"]);
        failure.message
    };
    for _ in 0..3 {
        let message = refusal().await;
        assert!(!message.contains("isn't asked"), "{message}");
    }
    // After a cool-down one query probes.
    until("the breaker is open", async || Ok(refusal().await.contains("isn't asked for now"))).await?;
    let answer = scenario.client.with_option("consistency", "eventual").query(ALL).await?;
    assert_eq!(answer.row_count(), FILE_ROWS);
    assert_degraded(&answer, &["hot"], "PostgreSQL");
    assert_ne!(answer.final_plan["breakers"]["postgres"], "closed", "{:#}", answer.final_plan);
    assert_eq!(answer.final_plan["breakers"]["lake"], "closed");
    // Mistakes of clients don't count against a source.
    for _ in 0..5 {
        scenario.client.refusal("SELECT nope FROM things").await.expect(Code::InvalidArgument, &["nope"]);
    }
    cluster.restart().await?;
    wait_until_whole(&scenario.client).await?;
    let answer = scenario.client.query(ALL).await?;
    assert_eq!(answer.final_plan["breakers"], serde_json::json!({"postgres": "closed", "lake": "closed"}));
    Ok(())
}

#[tokio::test]
async fn a_postgres_that_hangs_is_unavailable_in_time() -> Result<()> {
    let cluster = Cluster::start().await?;
    let database = TestDatabase::create_in(&cluster).await?;
    let scenario = Scenario::start_on(database, vec![stored()], LakeKind::Local, |config| {
        config
            .with("postgres", "connect_timeout", "2s")
            .with("postgres", "statement_timeout", "2s")
            .with("breaker", "cooldown", "200ms")
    })
    .await?;
    assert_eq!(scenario.client.query(ALL).await?.row_count(), ALL_ROWS);
    cluster.pause()?;
    let started = Instant::now();
    scenario.client.refusal(ALL).await.expect(Code::Unavailable, &["PostgreSQL"]);
    assert!(started.elapsed() < Duration::from_secs(90), "a hang must not become the client's");
    let answer = scenario.client.with_option("consistency", "eventual").query(ALL).await?;
    assert_degraded(&answer, &["hot"], "PostgreSQL");
    cluster.resume()?;
    wait_until_whole(&scenario.client).await
}

#[tokio::test]
async fn a_restart_of_postgres_between_queries_is_not_noticed() -> Result<()> {
    let cluster = Cluster::start().await?;
    let database = TestDatabase::create_in(&cluster).await?;
    let scenario = Scenario::start_on(database, vec![stored()], LakeKind::Local, |config| config).await?;
    assert_eq!(scenario.client.query(ALL).await?.row_count(), ALL_ROWS);
    cluster.stop()?;
    cluster.restart().await?;
    assert_eq!(scenario.client.query(ALL).await?.row_count(), ALL_ROWS);
    Ok(())
}

#[tokio::test]
async fn wrong_settings_are_errors_and_never_degrade() -> Result<()> {
    let scenario = Scenario::start_with(vec![stored()], LakeKind::Local, |config| {
        config.with("postgres", "change_log", "no_such_table")
    })
    .await?;
    let client = scenario.client.with_option("consistency", "eventual").with_option("allow_partial", "true");
    client.refusal(ALL).await.expect(Code::Unavailable, &["no_such_table"]);
    Ok(())
}

#[tokio::test]
async fn a_lake_that_fails_while_it_is_read_is_unavailable_or_left_out() -> Result<()> {
    for fault in [Fault::Status(500), Fault::Status(503), Fault::Truncate(100), Fault::Reset] {
        let scenario = Scenario::start_with(vec![stored()], LakeKind::S3, ServerConfig::without_index).await?;
        let s3 = scenario.lake.s3_server().unwrap();
        // Planning reads the footers; what fails is what DuckDB reads.
        scenario.client.info(ALL).await?;
        s3.inject(fault, 0, usize::MAX, reads_data);
        let failure = scenario.client.refusal(ALL).await;
        failure.expect(Code::Unavailable, &["lake"]);
        let partial = scenario.client.with_option("allow_partial", "true");
        let answer = partial.query(ALL).await?;
        assert_eq!(answer.row_count(), HOT_ROWS, "{fault:?}");
        assert_degraded(&answer, &["warm", "cold"], "lake");
        s3.clear_faults();
        wait_until_whole(&scenario.client).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_damaged_page_is_named_or_the_file_left_out() -> Result<()> {
    let scenario = Scenario::start(vec![stored()], LakeKind::Local).await?;
    let entity = things();
    let versions = (60..600).map(|n| live(n, 20, thing(&format!("damaged {n}"), 2))).collect();
    let file = LakeFile::delta(&entity, "damaged.parquet", versions);
    let mut content = file.to_parquet()?;
    // The header of the first page: values alone could change without anybody noticing.
    for byte in &mut content[4..40] {
        *byte ^= 0xa5;
    }
    scenario.lake.put_bytes(&file.path, content).await?;
    scenario.client.refusal(ALL).await.expect(Code::Unavailable, &["damaged.parquet"]);
    let answer = scenario.client.with_option("allow_partial", "true").query(ALL).await?;
    assert_eq!(answer.row_count(), ALL_ROWS, "all but the damaged file");
    assert_degraded(&answer, &[], "damaged.parquet");
    Ok(())
}

#[tokio::test]
async fn both_sources_down_is_unavailable_whatever_the_leave() -> Result<()> {
    let cluster = Cluster::start().await?;
    let database = TestDatabase::create_in(&cluster).await?;
    let scenario = Scenario::start_on(database, vec![stored()], LakeKind::S3, |config| config).await?;
    cluster.stop()?;
    scenario.lake.s3_server().unwrap().inject(Fault::Reset, 0, usize::MAX, |_| true);
    let client = scenario.client.with_option("consistency", "eventual").with_option("allow_partial", "true");
    client.refusal(ALL).await.expect(Code::Unavailable, &["PostgreSQL and the lake"]);
    Ok(())
}

#[tokio::test]
async fn out_of_memory_is_a_limit_and_postgres_answers_with_leave() -> Result<()> {
    let entity = things();
    let mut stored = stored();
    stored.files = vec![LakeFile::base(
        &entity,
        "wide.parquet",
        (0..200_000).map(|n| live(n, 10, thing(&format!("a text that is not short, number {n}"), 1))).collect(),
    )];
    let scenario = Scenario::start_with(vec![stored], LakeKind::Local, |config| {
        // The index sorts in the same memory: when it gives up, a query may begin to send and run out later, where no leave
        // helps any more.
        config
            .without_index()
            .with("duckdb", "memory_limit", "24MB")
            .with("duckdb", "temp_directory_limit", "1MB")
            .with("duckdb", "threads", 1)
    })
    .await?;
    let sql = "SELECT name, note FROM things ORDER BY name, row_id";
    let failure = scenario.client.refusal(sql).await;
    failure.expect(Code::ResourceExhausted, &["memory_limit"]);
    let partial = scenario.client.with_option("allow_partial", "true");
    let answer = partial.query(sql).await?;
    assert_eq!(answer.row_count(), HOT_ROWS);
    assert_degraded(&answer, &["warm", "cold"], "memory");
    // What PostgreSQL can't express keeps the error; the process goes on.
    let failure = partial.refusal("SELECT upper(name) AS n, note FROM things ORDER BY n, note").await;
    failure.expect(Code::ResourceExhausted, &["memory_limit"]);
    assert_eq!(scenario.client.with_option("tiers", "hot").query(ALL).await?.row_count(), HOT_ROWS);
    Ok(())
}

#[tokio::test]
async fn an_empty_prefix_is_no_outage() -> Result<()> {
    let mut hot_only = stored();
    hot_only.files.clear();
    let scenario = Scenario::start(vec![hot_only], LakeKind::S3).await?;
    let oracle = scenario.oracle(View::default())?;
    scenario.check(&oracle, ALL, Order::Any).await?;
    assert_eq!(scenario.client.query(ALL).await?.final_plan["degraded"]["is_degraded"], false);
    Ok(())
}

/// The page of failure modes is a promise: every row names tests, and they are there.
#[test]
fn every_row_of_the_page_names_its_tests() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("../docs/failure-modes.md"))?;
    let tests = root.join("tests/integration");
    let mut rows = 0;
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---")) {
        let named = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        if named == "test" {
            continue;
        }
        rows += 1;
        ensure!(named.starts_with('`'), "no test is named in {row}");
        for name in named.split(", ").map(|name| name.trim_matches('`')) {
            let file = |modules: &str| tests.join(modules.replace("::", "/")).with_extension("rs");
            // A module stands for all of its tests.
            let is_there = file(name).is_file()
                || name.rsplit_once("::").is_some_and(|(modules, function)| {
                    let source = std::fs::read_to_string(file(modules)).unwrap_or_default();
                    source.contains(&format!("async fn {function}()"))
                });
            ensure!(is_there, "there is no test {name}");
        }
    }
    ensure!(rows > 30, "{rows} rows");
    Ok(())
}
