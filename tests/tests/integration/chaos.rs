//! The chaos run: clients query without pause while PostgreSQL and S3 fail and return at random, rows are written, and
//! the real `flush`, `compact` and `gc` move them. Transfers between accounts keep the sum of all balances and are
//! counted on both sides, so that every answer can be judged.
//!
//! Each answer is right, or marked degraded and right for what it claims, or an error with a documented code; nothing
//! hangs past its deadline; and at the end nothing is left behind.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use rand::seq::IndexedRandom;
use thermocline_tests::client::{Answer, Client, Failure};
use thermocline_tests::r#gen;
use thermocline_tests::lake::LakeFile;
use thermocline_tests::model::Value;
use thermocline_tests::oracle::{HotVersion, Stored, rows_of};
use thermocline_tests::postgres::{self, Cluster, TestDatabase};
use thermocline_tests::proxy::{Link, Proxy};
use thermocline_tests::s3::{Fault, S3Server};
use thermocline_tests::scenario::{LakeKind, Scenario, live, row_id};
use thermocline_tests::server;
use thermocline_tests::until;
use tonic::Code;

use crate::is_long;
use crate::writers::{ACCOUNTS, BALANCE, accounts};

const SQL: &str = "SELECT coalesce(sum(balance), 0)::BIGINT AS s, count(*) AS c, coalesce(sum(transfers), 0)::BIGINT AS t, \
                   count(*) FILTER (WHERE _tier = 'hot') AS h FROM accounts";
/// What each query may take.
const DEADLINE: Duration = Duration::from_secs(4);
/// How late an answer may be on a machine that does other things too.
const SLACK: Duration = Duration::from_secs(6);
const POOL: i64 = 8;

/// How long the run takes: `THERMOCLINE_CHAOS_SECONDS`, else ten minutes in the long mode and a moment in the usual one.
fn duration() -> Duration {
    let seconds = std::env::var("THERMOCLINE_CHAOS_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(if is_long() { 600 } else { 15 }))
}

/// What all parts of the run share.
struct Chaos {
    scenario: Scenario,
    postgres: Proxy,
    lake: Proxy,
    stop: AtomicBool,
    /// Transfers that were begun, and those that PostgreSQL confirmed.
    begun: AtomicI64,
    confirmed: AtomicI64,
    counts: Mutex<BTreeMap<String, usize>>,
    slowest: Mutex<Duration>,
}

impl Chaos {
    fn count(&self, what: impl Into<String>) {
        *self.counts.lock().unwrap().entry(what.into()).or_default() += 1;
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn s3(&self) -> &S3Server {
        self.scenario.lake.s3_server().unwrap()
    }
}

/// A client and what it gives leave for.
#[derive(Debug, Clone, Copy)]
struct Leave {
    eventual: bool,
    partial: bool,
    only_hot: bool,
    is_prepared: bool,
}

async fn start() -> Result<Arc<Chaos>> {
    let entity = accounts();
    let mut stored = Stored::new(&entity);
    let start = |n| live(n, 1, vec![Value::Integer(BALANCE), Value::Integer(0)]);
    stored.files = vec![LakeFile::base(&entity, "a.parquet", (0..ACCOUNTS).map(start).collect())];
    stored.hot = (0..ACCOUNTS).map(|n| HotVersion { version: start(n), dirty: false, has_main: true }).collect();
    let cluster = Cluster::start().await?;
    let database = TestDatabase::create_in(&cluster).await?;
    let postgres = Proxy::start(SocketAddr::from(([127, 0, 0, 1], cluster.port())))?;
    let url = postgres::url_of(postgres.port(), database.name());
    let mut lake = None;
    let scenario = Scenario::start_on(database, vec![stored], LakeKind::S3, |mut config| {
        let endpoint = &mut config.settings["lake"]["s3"]["endpoint"];
        let address = endpoint.as_str().unwrap().trim_start_matches("http://").parse().unwrap();
        let proxy = Proxy::start(address).unwrap();
        *endpoint = format!("http://127.0.0.1:{}", proxy.port()).into();
        lake = Some(proxy);
        config
            .with("postgres", "url", url)
            .with("postgres", "pool_size", POOL)
            .with("postgres", "connect_timeout", "1s")
            .with("postgres", "statement_timeout", "2s")
            .with("breaker", "cooldown", "300ms")
    })
    .await?;
    Ok(Arc::new(Chaos {
        scenario,
        postgres,
        lake: lake.context("the configuration was used")?,
        stop: AtomicBool::new(false),
        begun: AtomicI64::new(0),
        confirmed: AtomicI64::new(0),
        counts: Mutex::default(),
        slowest: Mutex::default(),
    }))
}

/// Asks again and again, and judges each answer.
async fn ask(chaos: &Chaos, leave: Leave) -> Result<()> {
    let mut client =
        Client::connect(chaos.scenario.server.endpoint()).await?.with_option("timeout", &format!("{DEADLINE:?}"));
    for (name, value, is_set) in [
        ("consistency", "eventual", leave.eventual),
        ("allow_partial", "true", leave.partial),
        ("tiers", "hot", leave.only_hot),
    ] {
        if is_set {
            client = client.with_option(name, value);
        }
    }
    while !chaos.is_over() {
        let confirmed = chaos.confirmed.load(Ordering::Acquire);
        let started = Instant::now();
        let work = async {
            if leave.is_prepared {
                let prepared = client.prepare(SQL).await?;
                client.execute_prepared(&prepared.handle).await
            } else {
                client.query(SQL).await
            }
        };
        // GetFlightInfo and DoGet have a deadline each.
        let Ok(answer) = tokio::time::timeout(DEADLINE * 2 + SLACK, work).await else {
            bail!("a query of {leave:?} hangs past its deadline");
        };
        let took = started.elapsed();
        {
            let mut slowest = chaos.slowest.lock().unwrap();
            *slowest = slowest.max(took);
        }
        let begun = chaos.begun.load(Ordering::Acquire);
        let verdict = judge(answer, leave, confirmed, begun).with_context(|| format!("{leave:?}"))?;
        chaos.count(verdict);
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// What kind of answer it is.
///
/// # Errors
/// It is a wrong one.
fn judge(answer: Result<Answer, Failure>, leave: Leave, confirmed: i64, begun: i64) -> Result<String> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(failure) => {
            let documented = [Code::Unavailable, Code::DeadlineExceeded, Code::ResourceExhausted];
            ensure!(documented.contains(&failure.code), "{failure}");
            return Ok(format!("error {:?} at {:?}", failure.code, failure.stage));
        }
    };
    let plan = &answer.final_plan;
    let rows = rows_of(&answer.batches);
    let row: Vec<i64> = rows
        .first()
        .context("no row")?
        .iter()
        .map(|cell| cell.to_string().parse().with_context(|| format!("{cell} is no number")))
        .collect::<Result<_>>()?;
    let [sum, count, transfers, hot] = row[..] else { bail!("{row:?}") };
    let missing: Vec<&str> =
        plan["degraded"]["missing_tiers"].as_array().into_iter().flatten().filter_map(|tier| tier.as_str()).collect();
    let is_degraded = plan["degraded"]["is_degraded"] == true;
    let everyone = i64::try_from(ACCOUNTS)?;
    let is_balanced = count == everyone && sum == BALANCE * everyone && transfers % 2 == 0;
    let place = || format!("{row:?}, {confirmed} transfers confirmed before, {begun} begun: {plan:#}");
    ensure!(transfers <= 2 * begun, "an answer from the future: {}", place());
    if leave.only_hot {
        ensure!(!is_degraded && hot == count, "{}", place());
        return Ok("whole, hot tier".to_owned());
    }
    match missing[..] {
        [] if is_degraded => bail!("degraded without a missing tier: {}", place()),
        [] if !answer.warnings().is_empty() => {
            ensure!(count == everyone, "{}", place());
            Ok("whole, with a warning of two moments".to_owned())
        }
        [] => {
            ensure!(is_balanced && transfers >= 2 * confirmed, "a wrong answer: {}", place());
            Ok("whole".to_owned())
        }
        ["hot"] => {
            ensure!(leave.eventual && is_degraded && hot == 0 && !answer.warnings().is_empty(), "{}", place());
            // The lake as some flush left it.
            ensure!(is_balanced, "a wrong answer of files alone: {}", place());
            Ok("degraded, files alone".to_owned())
        }
        ["warm", "cold"] => {
            ensure!(leave.partial && is_degraded && hot == count && !answer.warnings().is_empty(), "{}", place());
            Ok("degraded, hot rows alone".to_owned())
        }
        _ => bail!("no such leave: {}", place()),
    }
}

/// Moves money between accounts, past the proxies, whenever PostgreSQL lets it.
async fn write(chaos: &Chaos) -> Result<()> {
    let mut rng = r#gen::rng(3);
    let mut clock = 1_000;
    let mut connection = None;
    while !chaos.is_over() {
        let client = match connection.take() {
            Some(client) => client,
            None => match tokio::time::timeout(Duration::from_secs(2), chaos.scenario.database.connect()).await {
                Ok(Ok(client)) => client,
                Ok(Err(_)) | Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let from = rng.random_range(0..ACCOUNTS);
        let to = (from + rng.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let amount: i64 = rng.random_range(1..50);
        let mut sql = "BEGIN;".to_owned();
        for (account, change) in [(from, -amount), (to, amount)] {
            clock += 1;
            let id = row_id(account);
            sql.push_str(&format!(
                "UPDATE entity_main SET bigint_01 = bigint_01 + {change}, ltbase_updated_at = {clock} \
                 WHERE ltbase_schema_id = 300 AND ltbase_row_id = '{id}';
                 INSERT INTO eav_data (schema_id, row_id, attr_id, value_numeric) VALUES (300, '{id}', 1, 1) \
                 ON CONFLICT (schema_id, row_id, attr_id, array_indices) \
                 DO UPDATE SET value_numeric = eav_data.value_numeric + 1;
                 INSERT INTO change_log (schema_id, row_id, changed_at) VALUES (300, '{id}', {clock}) \
                 ON CONFLICT (schema_id, row_id, flushed_at) DO UPDATE SET changed_at = excluded.changed_at;"
            ));
        }
        sql.push_str("COMMIT");
        chaos.begun.fetch_add(1, Ordering::AcqRel);
        match tokio::time::timeout(Duration::from_secs(5), client.batch_execute(&sql)).await {
            Ok(Ok(())) => {
                chaos.confirmed.fetch_add(1, Ordering::AcqRel);
                connection = Some(client);
            }
            // Whether it was committed nobody knows.
            Ok(Err(_)) | Err(_) => chaos.count("transfer without a word"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Runs the writers of the lake one after the other, as an operator's timer does; they may fail.
async fn flush(chaos: &Chaos) -> Result<()> {
    let config = chaos.scenario.server.config_path().display().to_string();
    let mut round = 0;
    while !chaos.is_over() {
        round += 1;
        let args = match round % 12 {
            5 => vec!["compact"],
            11 => vec!["gc", "--grace", "20s"],
            _ => vec!["flush"],
        };
        let all = [&args[..], &["--config", &config]].concat();
        let how = match tokio::time::timeout(Duration::from_secs(20), server::run(&all)).await {
            Ok(output) if output.as_ref().is_ok_and(|output| output.success) => "done",
            Ok(output) => {
                output?;
                "failed"
            }
            Err(_) => "killed",
        };
        chaos.count(format!("{} {how}", args[0]));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Ok(())
}

/// Lets something fail for a while, and mends it.
async fn fail(chaos: &Chaos, seed: u64) -> Result<()> {
    let mut rng = r#gen::rng(seed);
    let cluster = Arc::clone(chaos.scenario.database.cluster());
    while !chaos.is_over() {
        let wait = Duration::from_millis(rng.random_range(200..1_500));
        let links = [
            Link::Refuse,
            Link::Hang,
            Link::Slow(20_000),
            Link::HangAfter(rng.random_range(0..3_000)),
            Link::CutAfter { bytes: rng.random_range(0..3_000), times: rng.random_range(1..20) },
        ];
        let link = *links.choose(&mut rng).context("a link")?;
        match rng.random_range(0..7) {
            0 => {
                chaos.count("fault: PostgreSQL stopped");
                cluster.stop()?;
                tokio::time::sleep(wait).await;
                cluster.restart().await?;
            }
            1 => {
                chaos.count("fault: PostgreSQL frozen");
                cluster.pause()?;
                tokio::time::sleep(wait).await;
                cluster.resume()?;
            }
            2 | 3 => {
                chaos.count(format!("fault: link to PostgreSQL {}", name(link)));
                chaos.postgres.set(link);
                tokio::time::sleep(wait).await;
                chaos.postgres.set(Link::Pass);
            }
            4 => {
                chaos.count(format!("fault: link to S3 {}", name(link)));
                chaos.lake.set(link);
                tokio::time::sleep(wait).await;
                chaos.lake.set(Link::Pass);
            }
            _ => {
                let status = *[400, 403, 404, 500, 503].choose(&mut rng).context("a status")?;
                let faults = [
                    Fault::Status(status),
                    Fault::Truncate(rng.random_range(0..2_000)),
                    Fault::Reset,
                    Fault::Delay(Duration::from_millis(700)),
                ];
                let fault = *faults.choose(&mut rng).context("a fault")?;
                chaos.count(match fault {
                    Fault::Status(status) => format!("fault: S3 answers {status}"),
                    Fault::Truncate(_) => "fault: S3 cuts bodies".to_owned(),
                    Fault::Reset => "fault: S3 resets".to_owned(),
                    Fault::Delay(_) => "fault: S3 is late".to_owned(),
                });
                let (skip, times) = (rng.random_range(0..10), rng.random_range(1..40));
                chaos.s3().inject(fault, skip, times, |request| request.method == "GET");
                tokio::time::sleep(wait).await;
                chaos.s3().clear_faults();
            }
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(300..2_000))).await;
    }
    Ok(())
}

fn name(link: Link) -> &'static str {
    match link {
        Link::Pass => "passes",
        Link::Hang => "hangs",
        Link::Refuse => "refuses",
        Link::Slow(_) => "is slow",
        Link::HangAfter(_) => "hangs in the middle",
        Link::CutAfter { .. } => "is cut in the middle",
    }
}

/// Open files and threads of the server.
fn held(pid: u32) -> Result<(usize, usize)> {
    let count = |what: &str| Ok::<_, anyhow::Error>(std::fs::read_dir(format!("/proc/{pid}/{what}"))?.count());
    Ok((count("fd")?, count("task")?))
}

fn files_under(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path().display().to_string()).collect()
}

/// Nothing is left of the queries: no permit, no transaction, no file, no thread.
async fn check_for_leaks(chaos: &Chaos, before: (usize, usize)) -> Result<()> {
    let server = &chaos.scenario.server;
    let admin = chaos.scenario.database.connect().await?;
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let mut left = Vec::new();
        let metrics = server.metrics().await?;
        for line in ["fed_queries_in_flight 0", "fed_queries_queued 0"] {
            if !metrics.lines().any(|found| found == line) {
                left.push(format!("not {line}"));
            }
        }
        let sql = "SELECT count(*), count(*) FILTER (WHERE state <> 'idle') FROM pg_stat_activity \
                   WHERE application_name = 'thermocline'";
        let row = admin.query_one(sql, &[]).await?;
        let (connections, busy): (i64, i64) = (row.get(0), row.get(1));
        if connections > POOL || busy > 0 {
            left.push(format!("{connections} connections to PostgreSQL, {busy} of them busy"));
        }
        let (files, threads) = held(server.pid())?;
        // Connections that wait to be used again: the pool's, and those of two S3 clients.
        if files > before.0 + 48 || threads > before.1 + 16 {
            left.push(format!("{files} files and {threads} threads, {before:?} before"));
        }
        let spilled = [files_under(&server.dir().join("spill")), files_under(&server.dir().join("tmp"))].concat();
        if !spilled.is_empty() {
            left.push(format!("{spilled:?}"));
        }
        if left.is_empty() {
            eprintln!(
                "at the end: {connections} idle connections, {files} files and {threads} threads, {before:?} before"
            );
            return Ok(());
        }
        if Instant::now() > until {
            bail!("left behind: {}", left.join("; "));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_right_or_says_what_it_lacks_while_sources_fail() -> Result<()> {
    let duration = duration();
    let chaos = start().await?;
    let leave = Leave { eventual: false, partial: false, only_hot: false, is_prepared: false };
    let leaves = [
        leave,
        Leave { is_prepared: true, ..leave },
        Leave { eventual: true, ..leave },
        Leave { partial: true, is_prepared: true, ..leave },
        Leave { eventual: true, partial: true, ..leave },
        Leave { only_hot: true, ..leave },
    ];
    for _ in leaves {
        // All connections and threads are there before anything is counted. The limits are short for a busy machine.
        until("a query is answered", async || Ok(chaos.scenario.client.query(SQL).await.is_ok())).await?;
    }
    let before = held(chaos.scenario.server.pid())?;
    let mut parts = tokio::task::JoinSet::new();
    for leave in leaves {
        let chaos = Arc::clone(&chaos);
        parts.spawn(async move { ask(&chaos, leave).await });
    }
    let seed = if is_long() { rand::random() } else { 1 };
    eprintln!("chaos of {duration:?}, seed {seed}");
    for part in 0..3 {
        let chaos = Arc::clone(&chaos);
        parts.spawn(async move {
            match part {
                0 => write(&chaos).await,
                1 => flush(&chaos).await,
                _ => fail(&chaos, seed).await,
            }
        });
    }
    // A short run need not meet every fault, and a slow machine gets some minutes more.
    let expected = ["whole", "flush done", "degraded, files alone", "degraded, hot rows alone"];
    let expected = &expected[..if duration >= Duration::from_secs(60) { 4 } else { 2 }];
    let has_seen_all = || {
        let counts = chaos.counts.lock().unwrap();
        expected.iter().all(|what| counts.contains_key(*what))
    };
    let mut end = tokio::time::Instant::now() + duration;
    let latest = end + Duration::from_secs(300);
    let mut failure = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(end), if !chaos.is_over() => {
                if has_seen_all() || end > latest {
                    chaos.stop.store(true, Ordering::Release);
                }
                end += Duration::from_secs(1);
            }
            part = parts.join_next() => match part {
                None => break,
                Some(result) => {
                    if let Err(error) = result? {
                        failure.get_or_insert(error);
                    }
                    ensure!(chaos.is_over() || failure.is_some(), "a part of the run has ended early");
                    chaos.stop.store(true, Ordering::Release);
                }
            }
        }
    }
    let counts = chaos.counts.lock().unwrap().clone();
    for (what, count) in &counts {
        eprintln!("{count:7} {what}");
    }
    eprintln!("{:7} transfers confirmed", chaos.confirmed.load(Ordering::Acquire));
    eprintln!("slowest query: {:?}", chaos.slowest.lock().unwrap());
    if let Some(error) = failure {
        return Err(error.context(format!("seed {seed}; the server's log ends so:\n{}", chaos.log_end()?)));
    }

    // All is mended: the next answers are whole, without a restart.
    let until = Instant::now() + Duration::from_secs(30);
    let confirmed = chaos.confirmed.load(Ordering::Acquire);
    loop {
        let verdict =
            judge(chaos.scenario.client.query(SQL).await, leave, confirmed, chaos.begun.load(Ordering::Acquire))?;
        if verdict == "whole" {
            break;
        }
        ensure!(Instant::now() < until, "the sources are back and the answer is: {verdict}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure!(has_seen_all(), "the run saw not all of {expected:?}: {counts:?}");
    check_for_leaks(&chaos, before).await
}

impl Chaos {
    fn log_end(&self) -> Result<String> {
        let log = self.scenario.server.log()?;
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("ERROR") || line.contains("panick")).collect();
        Ok(lines[lines.len().saturating_sub(10)..].join("\n"))
    }
}
