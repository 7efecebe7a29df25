//! `/metrics` against what was asked: under load, and against the S3 server's own count.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use thermocline_tests::client::Client;
use thermocline_tests::lake::{Lake, LakeFile};
use thermocline_tests::oracle::{HotVersion, Stored};
use thermocline_tests::postgres::TestDatabase;
use thermocline_tests::s3::{Fault, S3Request, S3Server};
use thermocline_tests::scenario::{LakeKind, Scenario, live};
use thermocline_tests::server::{ServerConfig, http_get};

use crate::{thing, things};

/// Prometheus' text format: kinds of metrics by name, and values by name with labels.
#[derive(Debug, Default)]
struct Scrape {
    kinds: BTreeMap<String, String>,
    values: BTreeMap<String, f64>,
}

impl Scrape {
    /// Takes no line that Prometheus wouldn't.
    fn parse(text: &str) -> Result<Self> {
        let mut scrape = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').context("a kind")?;
                ensure!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                ensure!(scrape.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is there twice");
                continue;
            }
            if line.starts_with("# HELP ") {
                continue;
            }
            let (series, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
            let name = series.split('{').next().unwrap_or_default();
            let is_name = |text: &str| text.chars().all(|letter| letter == '_' || letter.is_ascii_alphanumeric());
            ensure!(is_name(name) && (series == name || series.ends_with('}')), "{line}");
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
                let base = name.strip_suffix(suffix)?;
                (scrape.kinds.get(base).map(String::as_str) == Some("histogram")).then_some(base)
            });
            ensure!(scrape.kinds.contains_key(base.unwrap_or(name)), "{line} comes before its kind");
            ensure!(scrape.values.insert(series.to_owned(), value.parse()?).is_none(), "{series} is there twice");
        }
        Ok(scrape)
    }

    async fn of(admin: &str) -> Result<Self> {
        let (status, text) = http_get(admin, "/metrics").await?;
        ensure!(status == 200, "{text}");
        Self::parse(&text)
    }

    fn value(&self, series: &str) -> f64 {
        self.values.get(series).copied().unwrap_or(0.0)
    }

    /// Nothing that only grows is less than before.
    fn follows(&self, before: &Self) -> Result<()> {
        for (series, value) in &before.values {
            let name = series.split('{').next().unwrap_or_default();
            if before.kinds.get(name).is_some_and(|kind| kind == "gauge") {
                continue;
            }
            ensure!(self.value(series) >= *value, "{series} fell from {value} to {}", self.value(series));
        }
        Ok(())
    }

    /// Buckets of a histogram grow with their bounds, and the last one is the count.
    fn check_histograms(&self) -> Result<()> {
        for (series, count) in &self.values {
            let Some(at) = series.find("_count") else { continue };
            let (name, labels) = (&series[..at], series[at + "_count".len()..].trim_matches(['{', '}']));
            if self.kinds.get(name).is_none_or(|kind| kind != "histogram") {
                continue;
            }
            let mut buckets: Vec<(f64, f64)> = Vec::new();
            for (other, value) in &self.values {
                let Some(inner) = other.strip_prefix(&format!("{name}_bucket{{")) else { continue };
                let parts: Vec<&str> = inner.trim_end_matches('}').split(',').collect();
                let (bounds, others): (Vec<&str>, Vec<&str>) =
                    parts.into_iter().partition(|part| part.starts_with("le="));
                if others.join(",") == labels {
                    let bound = bounds[0].trim_start_matches("le=").trim_matches('"');
                    buckets.push((if bound == "+Inf" { f64::INFINITY } else { bound.parse()? }, *value));
                }
            }
            buckets.sort_by(|left, right| left.0.total_cmp(&right.0));
            ensure!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{series}: {buckets:?}");
            ensure!(buckets.last() == Some(&(f64::INFINITY, *count)), "{series}: {buckets:?}");
        }
        Ok(())
    }
}

const CLIENTS: usize = 6;
/// Rounds of four queries at least of each client.
const ROUNDS: usize = 3;

#[tokio::test]
async fn metrics_that_are_scraped_under_load_are_whole_and_add_up() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![LakeFile::base(&entity, "a.parquet", (0..50).map(|n| live(n, 10, thing("base", 1))).collect())];
    stored.hot =
        (45..60).map(|n| HotVersion { version: live(n, 30, thing("hot", 3)), dirty: true, has_main: true }).collect();
    let scenario = Scenario::start(vec![stored], LakeKind::Local).await?;
    let admin = scenario.server.admin_address()?;
    let (done, was_busy) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let scraping = tokio::spawn({
        let (admin, done, was_busy) = (admin.clone(), Arc::clone(&done), Arc::clone(&was_busy));
        async move {
            let mut before = Scrape::of(&admin).await?;
            while !done.load(Ordering::Acquire) {
                let now = Scrape::of(&admin).await?;
                now.follows(&before)?;
                now.check_histograms()?;
                if now.value("fed_queries_in_flight") > 0.0 {
                    was_busy.store(true, Ordering::Release);
                }
                before = now;
            }
            Ok::<_, anyhow::Error>(before)
        }
    });
    let clients = (0..CLIENTS).map(|_| async {
        let client = Client::connect(scenario.server.endpoint()).await?;
        let (mut bytes, mut rounds) = (0, 0);
        while rounds < ROUNDS || !was_busy.load(Ordering::Acquire) {
            ensure!(rounds < 10_000, "no scrape saw a query");
            rounds += 1;
            client.refusal("SELECT nothing FROM things").await;
            bytes += sent(&client.with_option("tiers", "hot").query("SELECT n FROM things").await?)?;
            for _ in 0..2 {
                bytes += sent(&client.query("SELECT n FROM things WHERE n + 0 > 0").await?)?;
            }
        }
        Ok::<_, anyhow::Error>((bytes, rounds))
    });
    let (bytes, rounds): (Vec<u64>, Vec<usize>) = futures::future::try_join_all(clients).await?.into_iter().unzip();
    done.store(true, Ordering::Release);
    let last = scraping.await??;

    let end = Scrape::of(&admin).await?;
    end.follows(&last)?;
    // A quarter of the queries is refused, a quarter reads 15 hot rows, half reads 60 rows, 15 of them hot.
    let quarter = rounds.iter().sum::<usize>() as f64;
    let wanted = [
        (r#"fed_query_count{outcome="finished",route="hot"}"#, quarter),
        (r#"fed_query_count{outcome="finished",route="federated"}"#, 2.0 * quarter),
        (r#"fed_query_errors{kind="invalid_query"}"#, quarter),
        (r#"fed_query_latency_histogram_count{stage="execution"}"#, 3.0 * quarter),
        (r#"fed_query_latency_histogram_count{stage="streaming"}"#, 3.0 * quarter),
        (r#"fed_query_latency_histogram_count{stage="translation"}"#, 3.0 * quarter),
        ("fed_query_pushdown_efficiency_count", 3.0 * quarter),
        (r#"fed_query_row_count{source="pg"}"#, 3.0 * 15.0 * quarter),
        (r#"fed_query_row_count{source="duckdb"}"#, 2.0 * 60.0 * quarter),
        ("fed_sent_rows", (15.0 + 2.0 * 60.0) * quarter),
        ("fed_sent_bytes", bytes.iter().sum::<u64>() as f64),
        ("fed_queries_in_flight", 0.0),
        ("fed_queries_queued", 0.0),
    ];
    for (series, value) in wanted {
        assert!((end.value(series) - value).abs() < 0.5, "{series} is {}, not {value}", end.value(series));
    }
    Ok(())
}

fn sent(answer: &thermocline_tests::client::Answer) -> Result<u64> {
    answer.final_plan["execution"]["bytes"].as_u64().context("bytes of the result")
}

/// Each request that reaches the S3 server is counted once, whoever made it and however it ended.
#[tokio::test]
async fn s3_requests_are_those_that_reached_the_store() -> Result<()> {
    let entity = things();
    let database = TestDatabase::create().await?;
    let s3 = Arc::new(S3Server::start()?);
    let lake = Lake::s3(&s3)?;
    database.register(std::slice::from_ref(&entity)).await?;
    for (name, from) in [("a.parquet", 0), ("b.parquet", 500)] {
        let versions = (from..from + 500).map(|n| live(n, 10, thing("base", 1))).collect();
        lake.put(&LakeFile::base(&entity, name, versions)).await?;
    }
    s3.forget_requests();
    let server = ServerConfig::new(&database, &lake, std::slice::from_ref(&entity)).start().await?;
    let client = Client::connect(server.endpoint()).await?;
    for _ in 0..3 {
        assert_eq!(client.query("SELECT n FROM things WHERE n + 0 = 1").await?.row_count(), 1000);
    }
    // The first is retried by the object store, the second by DuckDB: Thermocline reads the new file's footer before it.
    let more = (1000..1500).map(|n| live(n, 10, thing("base", 1))).collect();
    lake.put(&LakeFile::base(&entity, "c.parquet", more)).await?;
    s3.inject(Fault::Status(503), 0, 1, S3Request::is_list);
    s3.inject(Fault::Status(500), 1, 1, |request| request.method == "GET" && request.path.ends_with("c.parquet"));
    assert_eq!(client.query("SELECT n FROM things WHERE n + 0 = 1").await?.row_count(), 1500);

    let admin = server.admin_address()?;
    let deadline = Instant::now() + Duration::from_secs(120);
    // Nothing but the test puts objects. Probes go on meanwhile: wait for a moment in which both counts stand still.
    let counted = loop {
        let counted = Scrape::of(&admin).await?;
        let reached = s3.all_requests();
        let of = |operation: &str| match operation {
            "list" => reached.iter().filter(|request| request.is_list()).count(),
            "get" => reached.iter().filter(|request| request.method == "GET" && !request.is_list()).count(),
            method => reached.iter().filter(|request| request.method.eq_ignore_ascii_case(method)).count(),
        };
        let sums = ["list", "get", "head", "post", "delete"].map(|operation| {
            let label = format!("operation=\"{operation}\"");
            let mine = counted
                .values
                .iter()
                .filter(|(series, _)| series.starts_with("fed_s3_requests{") && series.contains(&label));
            (operation, mine.map(|(_, value)| *value).sum::<f64>(), of(operation) as f64)
        });
        if sums.iter().all(|(_, mine, theirs)| (mine - theirs).abs() < 0.5) {
            break counted;
        }
        ensure!(Instant::now() < deadline, "counted and reached: {sums:?}\n{counted:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let at_least_one = [
        r#"client="thermocline",operation="list",outcome="ok""#,
        r#"client="thermocline",operation="list",outcome="throttled""#,
        r#"client="thermocline",operation="get",outcome="ok""#,
        r#"client="duckdb",operation="get",outcome="ok""#,
        r#"client="duckdb",operation="get",outcome="failed""#,
    ];
    for labels in at_least_one {
        assert!(counted.value(&format!("fed_s3_requests{{{labels}}}")) >= 1.0, "{labels}: {counted:#?}");
    }
    assert!(counted.value(r#"fed_lake_footer_lookups{outcome="miss"}"#) >= 3.0, "{counted:#?}");
    assert!(counted.value(r#"fed_lake_footer_lookups{outcome="hit"}"#) >= 2.0, "{counted:#?}");
    Ok(())
}
