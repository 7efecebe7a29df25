//! Writers beside each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use thermocline_tests::lake::LakeFile;
use thermocline_tests::model::Value;
use thermocline_tests::oracle::{Cell, HotVersion, Stored, rows_of};
use thermocline_tests::scenario::{LakeKind, live};
use thermocline_tests::server::{ServerConfig, binary};

use super::{Catalog, command, data_files, dirty_rows, halt, hot, rows, start, start_with, try_command};
use crate::moments::{install_cursor, mirrored};
use crate::writers::{self, ACCOUNTS, BALANCE, accounts};
use crate::{is_long, thing, things};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_the_second_says_so_and_stops() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.hot = vec![hot(live(1, 10, thing("one", 1)))];
    let scenario = Arc::new(start(vec![stored], LakeKind::Local, Catalog::Manifest).await?);
    for (args, failpoint) in [(&["flush"][..], "flush.published"), (&["compact", "--full"][..], "compact.published")] {
        let halted = halt(&scenario, args, failpoint).await?;
        let second = try_command(&scenario, args).await?;
        assert_eq!(second.code, Some(3), "{}{}", second.stdout, second.stderr);
        ensure!(second.stderr.contains("is at work on things"), "{}", second.stderr);
        let first = halted.go_on().await?;
        ensure!(first.success, "{}{}", first.stdout, first.stderr);
    }
    assert_eq!(rows(&scenario.client, "SELECT name, _tier FROM things").await?, ["one|cold"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_hold_while_real_writers_work_on_a_listing() -> Result<()> {
    race(LakeKind::Local, Catalog::Listing, Hot::Read).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_hold_from_memory_while_real_writers_work_on_a_listing() -> Result<()> {
    race(LakeKind::S3, Catalog::Listing, Hot::InMemoryByCursor).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_hold_from_memory_while_real_writers_work_on_a_manifest() -> Result<()> {
    race(LakeKind::Local, Catalog::Manifest, Hot::InMemory).await
}

/// Where queries have hot rows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hot {
    Read,
    InMemory,
    InMemoryByCursor,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_hold_while_real_writers_work_on_a_manifest() -> Result<()> {
    race(LakeKind::S3, Catalog::Manifest, Hot::Read).await
}

/// Runs of a writer that did something.
type Done = Arc<AtomicUsize>;

/// Writers of the application, two flushers, a compactor and a collector, while queries watch the sum.
async fn race(kind: LakeKind, catalog: Catalog, hot: Hot) -> Result<()> {
    let entity = accounts();
    let mut stored = Stored::new(&entity);
    let start_value = |n| live(n, 1, vec![Value::Integer(BALANCE), Value::Integer(0)]);
    stored.files = vec![LakeFile::base(&entity, "a.parquet", (0..ACCOUNTS).map(start_value).collect())];
    stored.hot = (0..ACCOUNTS).map(|n| HotVersion { version: start_value(n), dirty: false, has_main: true }).collect();
    let configure: fn(ServerConfig) -> ServerConfig = if hot == Hot::Read { |config| config } else { mirrored };
    let scenario = Arc::new(start_with(vec![stored], kind, catalog, configure).await?);
    if hot == Hot::InMemoryByCursor {
        install_cursor(&scenario.database).await?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let clock = Arc::new(AtomicI64::new(1_000));
    let transfers = {
        let (scenario, stop, clock) = (Arc::clone(&scenario), Arc::clone(&stop), Arc::clone(&clock));
        tokio::spawn(async move { writers::transfer_until(&scenario.database, &stop, &clock).await })
    };
    let again = |args: &'static [&'static str]| {
        let (scenario, stop) = (Arc::clone(&scenario), Arc::clone(&stop));
        let done = Done::default();
        let counter = Arc::clone(&done);
        let task = tokio::spawn(async move {
            while !stop.load(Ordering::Acquire) {
                let output = try_command(&scenario, args).await?;
                // Another one of the same kind may be at work.
                ensure!(matches!(output.code, Some(0 | 3)), "{args:?}: {}{}", output.stdout, output.stderr);
                counter.fetch_add(usize::from(output.success), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            anyhow::Ok(())
        });
        (task, done)
    };
    let flushers = [again(&["flush"]), again(&["flush", "--file-rows", "11"])];
    let compactor = again(&["compact", "--file-rows", "15"]);
    // Longer than a query takes on a busy machine, and short enough for gc to be at work most of the time.
    let collector = again(&["gc", "--grace", "10s"]);
    let flushes = || flushers.iter().map(|(_, done)| done.load(Ordering::Relaxed)).sum::<usize>();
    let rounds = |(_, done): &(_, Done)| done.load(Ordering::Relaxed);

    let started = Instant::now();
    let lasting = Duration::from_secs(if is_long() { 600 } else { 12 });
    let is_race = || flushes() > 2 && rounds(&compactor) > 1 && rounds(&collector) > 0;
    let is_over = |reads| {
        let slow = started.elapsed() > lasting + Duration::from_secs(300);
        started.elapsed() > lasting && reads > 20 && (is_race() || slow)
    };
    let sql = "SELECT balance, transfers FROM accounts ORDER BY row_id";
    let (mut reads, mut warned) = (0_u32, 0_u32);
    // The most transfers that were seen of each account: every version of a row raises its counter by one.
    let mut seen = vec![0_i64; usize::try_from(ACCOUNTS)?];
    let mut torn = Vec::new();
    let mut failures: BTreeMap<String, u32> = BTreeMap::new();
    let mut last_failure = None;
    let clients = ["copy", "scan"].map(|hot_scan| scenario.client.with_option("hot_scan", hot_scan));
    while !is_over(reads) && torn.is_empty() {
        reads += 1;
        let answer = match clients[reads as usize % clients.len()].query(sql).await {
            Ok(answer) => answer,
            Err(failure) => {
                *failures.entry(format!("{:?}", failure.code)).or_default() += 1;
                last_failure = Some(failure);
                continue;
            }
        };
        if !answer.warnings().is_empty() {
            warned += 1;
            continue;
        }
        let number = |cell: &Cell| cell.to_string().parse::<i64>().context("no number");
        let found = rows_of(&answer.batches);
        let balances: Vec<i64> = found.iter().map(|row| number(&row[0])).collect::<Result<_>>()?;
        let counters: Vec<i64> = found.iter().map(|row| number(&row[1])).collect::<Result<_>>()?;
        let is_whole = counters.len() == seen.len()
            && balances.iter().sum::<i64>() == BALANCE * i64::try_from(ACCOUNTS)?
            && counters.iter().sum::<i64>() % 2 == 0;
        if !is_whole || counters.iter().zip(&seen).any(|(counter, seen)| counter < seen) {
            torn.push(format!("{balances:?}, {counters:?} after {seen:?}: {:#}", answer.final_plan));
        }
        seen = counters;
    }
    stop.store(true, Ordering::Release);
    let transfers = transfers.await??;
    let (flushes, compactions, collections) = (flushes(), rounds(&compactor), rounds(&collector));
    for (task, _) in flushers.into_iter().chain([compactor, collector]) {
        task.await??;
    }
    eprintln!(
        "{catalog:?}: {reads} reads ({warned} with a warning, {} planned again, failed: {failures:?}, torn: {}), \
         {transfers} transfers, {flushes} flushes, {compactions} compactions, {collections} collections",
        scenario.server.log()?.matches("planning again").count(),
        torn.len()
    );
    ensure!(torn.is_empty(), "{}", torn.join("\n"));
    ensure!(failures.is_empty(), "{failures:?}, the last one: {}", last_failure.context("a failure")?);
    ensure!(transfers > 20 && flushes > 2 && compactions > 1 && collections > 0 && reads > warned, "no race");
    ensure!(catalog == Catalog::Listing || warned == 0, "the manifest leaves nothing to warn of");

    // Every version that was committed is accounted for.
    command(&scenario, &["flush"]).await?;
    command(&scenario, &["compact"]).await?;
    command(&scenario, &["gc", "--grace", "0s"]).await?;
    assert_eq!(dirty_rows(&scenario).await?, 0);
    let main = scenario.database.connect().await?;
    let stored = main
        .query(
            "SELECT m.ltbase_row_id::text, m.bigint_01, COALESCE(e.value_numeric, 0)::bigint FROM entity_main m \
             LEFT JOIN eav_data e ON e.schema_id = 300 AND e.row_id = m.ltbase_row_id AND e.attr_id = 1 \
             WHERE m.ltbase_schema_id = 300 ORDER BY m.ltbase_row_id",
            &[],
        )
        .await?;
    let expected: Vec<String> = stored
        .iter()
        .map(|row| format!("{}|{}|{}|cold", row.get::<_, String>(0), row.get::<_, i64>(1), row.get::<_, i64>(2)))
        .collect();
    let sql = "SELECT row_id, balance, transfers, _tier FROM accounts ORDER BY row_id";
    assert_eq!(rows(&scenario.client, sql).await?, expected);
    let counted = rows(&scenario.client, "SELECT sum(transfers)::BIGINT FROM accounts WHERE _tier = 'cold'").await?;
    assert_eq!(counted, [(2 * transfers).to_string()], "each transfer made two versions");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_go_on_until_they_are_told_to_stop() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.hot = vec![hot(live(1, 10, thing("one", 1)))];
    let scenario = start(vec![stored], LakeKind::Local, Catalog::Manifest).await?;
    let mut services = Vec::new();
    for args in [&["flush"][..], &["compact"], &["gc", "--grace", "0s"]] {
        let child = tokio::process::Command::new(binary()?)
            .args(args)
            .args(["--every", "100ms", "--config"])
            .arg(scenario.server.config_path())
            .stdout(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        services.push(child);
    }
    let until = Instant::now() + Duration::from_secs(60);
    while rows(&scenario.client, "SELECT name FROM things WHERE _tier = 'cold'").await? != ["one"] {
        ensure!(Instant::now() < until, "the services do nothing");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The delta file is replaced by a base file, and deleted.
    while data_files(&scenario).await?.len() != 1 {
        ensure!(Instant::now() < until, "gc does nothing");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for mut service in services {
        let pid = service.id().context("it has ended")?;
        thermocline_tests::supervise::send_signal("TERM", &[pid])?;
        let status = tokio::time::timeout(Duration::from_secs(30), service.wait()).await??;
        ensure!(status.success(), "{status}");
    }
    Ok(())
}
