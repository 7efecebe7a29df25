//! Concurrent writers: each transfer keeps the sum of all balances, while a flusher moves rows to delta files. Every query,
//! at every moment, sees the same sum.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::Rng;
use thermocline_tests::r#gen;
use thermocline_tests::lake::{Lake, LakeFile};
use thermocline_tests::model::{Entity, Kind, Value, Version};
use thermocline_tests::oracle::{HotVersion, Stored, rows_of};
use thermocline_tests::postgres::TestDatabase;
use thermocline_tests::scenario::{LakeKind, Scenario, live, row_id};
use thermocline_tests::server::ServerConfig;

use crate::is_long;
use crate::moments::{install_cursor, mirrored};

pub(crate) const ACCOUNTS: u128 = 40;
pub(crate) const BALANCE: i64 = 1_000;

pub(crate) fn accounts() -> Entity {
    Entity::new("accounts", 300).main("balance", Kind::BigInt, "bigint_01").eav("transfers", Kind::BigInt, 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_sees_the_constant_sum_on_a_local_lake() -> Result<()> {
    race(LakeKind::Local, Hot::Copy).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_sees_the_constant_sum_from_memory() -> Result<()> {
    race(LakeKind::Local, Hot::Mirror).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_sees_the_constant_sum_from_memory_by_the_cursor() -> Result<()> {
    race(LakeKind::S3, Hot::MirrorByCursor).await
}

/// How hot rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hot {
    Copy,
    Scan,
    Mirror,
    MirrorByCursor,
}

impl Hot {
    fn configure(self, config: ServerConfig) -> ServerConfig {
        match self {
            Self::Copy => config,
            Self::Scan => config.with("postgres", "hot_scan", "scan"),
            Self::Mirror | Self::MirrorByCursor => mirrored(config),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_sees_the_constant_sum_on_s3() -> Result<()> {
    race(LakeKind::S3, Hot::Copy).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_sees_the_constant_sum_through_scans() -> Result<()> {
    race(LakeKind::Local, Hot::Scan).await
}

async fn race(kind: LakeKind, hot: Hot) -> Result<()> {
    let entity = accounts();
    let mut stored = Stored::new(&entity);
    let start = |n| live(n, 1, vec![Value::Integer(BALANCE), Value::Integer(0)]);
    stored.files = vec![LakeFile::base(&entity, "a.parquet", (0..ACCOUNTS).map(start).collect())];
    // Rows that were flushed stay in entity_main.
    stored.hot = (0..ACCOUNTS).map(|n| HotVersion { version: start(n), dirty: false, has_main: true }).collect();
    let scenario = Arc::new(Scenario::start_with(vec![stored], kind, |config| hot.configure(config)).await?);
    if hot == Hot::MirrorByCursor {
        install_cursor(&scenario.database).await?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let clock = Arc::new(AtomicI64::new(1_000));

    let writer = {
        let (scenario, stop, clock) = (Arc::clone(&scenario), Arc::clone(&stop), Arc::clone(&clock));
        tokio::spawn(async move { transfer_until(&scenario.database, &stop, &clock).await })
    };
    let flushes = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    let flusher = {
        let (scenario, stop, clock) = (Arc::clone(&scenario), Arc::clone(&stop), Arc::clone(&clock));
        let (flushes, reads) = (Arc::clone(&flushes), Arc::clone(&done));
        tokio::spawn(
            async move { flush_until(&scenario.database, &scenario.lake, &stop, &clock, &flushes, &reads).await },
        )
    };

    let reads = read_all(&scenario, &flushes, &done).await;
    stop.store(true, Ordering::Release);
    let transfers = writer.await??;
    flusher.await??;
    let flushes = flushes.load(Ordering::Relaxed);
    let Reads { total, warned, torn } = reads?;
    eprintln!(
        "{kind:?}, {hot:?}: {total} reads ({warned} with a warning) during {transfers} transfers and {flushes} flushes"
    );
    assert!(torn.is_empty(), "{} of {total} reads are torn, such as {:?}", torn.len(), torn.first());
    assert!(warned * 5 <= total, "{warned} of {total} reads could not be validated");
    Ok(())
}

struct Reads {
    total: usize,
    warned: usize,
    torn: Vec<String>,
}

/// Reads until the writers have done something worth a race.
async fn read_all(scenario: &Scenario, flushes: &AtomicUsize, done: &AtomicUsize) -> Result<Reads> {
    let mut reads = Reads { total: 0, warned: 0, torn: Vec::new() };
    let sql = "SELECT sum(balance)::BIGINT AS s, count(*) AS c, sum(transfers)::BIGINT AS t FROM accounts";
    let mut transfers_seen = 0;
    let lasting = if is_long() { Duration::from_secs(60) } else { Duration::ZERO };
    let started = Instant::now();
    let is_race = |transfers: i64| transfers > 20 && flushes.load(Ordering::Relaxed) > 3;
    while reads.total < 40 || started.elapsed() < lasting || !is_race(transfers_seen / 2) {
        ensure!(
            started.elapsed() < lasting + Duration::from_secs(300),
            "the race was no race: {} reads, {} of them with a warning, saw {transfers_seen} transfers and {} flushes",
            reads.total,
            reads.warned,
            flushes.load(Ordering::Relaxed)
        );
        let answer = scenario.client.query(sql).await?;
        let row: Vec<i64> = rows_of(&answer.batches)[0]
            .iter()
            .map(|cell| cell.to_string().parse().with_context(|| format!("{cell} is no number")))
            .collect::<Result<_>>()?;
        reads.total += 1;
        done.store(reads.total, Ordering::Release);
        if !answer.warnings().is_empty() {
            reads.warned += 1;
            continue;
        }
        let expected = BALANCE * i64::try_from(ACCOUNTS)?;
        // Every transfer counts on both sides, and no counter goes backwards.
        if row[0] != expected || row[1] != i64::try_from(ACCOUNTS)? || row[2] % 2 != 0 || row[2] < transfers_seen {
            reads.torn.push(format!("{row:?} after {transfers_seen} transfers: {:#}", answer.final_plan));
        }
        transfers_seen = transfers_seen.max(row[2]);
    }
    Ok(reads)
}

/// Moves money between two accounts in one transaction, again and again.
pub(crate) async fn transfer_until(database: &TestDatabase, stop: &AtomicBool, clock: &AtomicI64) -> Result<usize> {
    let mut client = database.connect().await?;
    let mut rng = r#gen::rng(3);
    let mut transfers = 0;
    while !stop.load(Ordering::Acquire) {
        let from = rng.random_range(0..ACCOUNTS);
        let to = (from + rng.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let amount: i64 = rng.random_range(1..50);
        let transaction = client.transaction().await?;
        // Locks are always taken in the order of the ids, here and by the flusher: no deadlocks.
        let mut changes = [(from, -amount), (to, amount)];
        changes.sort_unstable();
        for (account, change) in changes {
            let id = row_id(account);
            let now = clock.fetch_add(1, Ordering::Relaxed);
            transaction
                .execute(
                    "UPDATE entity_main SET bigint_01 = bigint_01 + $2, ltbase_updated_at = $3 \
                     WHERE ltbase_schema_id = 300 AND ltbase_row_id = $1",
                    &[&id, &change, &now],
                )
                .await?;
            transaction
                .execute(
                    "INSERT INTO eav_data (schema_id, row_id, attr_id, value_numeric) VALUES (300, $1, 1, 1) \
                     ON CONFLICT (schema_id, row_id, attr_id, array_indices) \
                     DO UPDATE SET value_numeric = eav_data.value_numeric + 1",
                    &[&id],
                )
                .await?;
            transaction
                .execute(
                    "INSERT INTO change_log (schema_id, row_id, changed_at) VALUES (300, $1, $2) \
                     ON CONFLICT (schema_id, row_id, flushed_at) DO UPDATE SET changed_at = excluded.changed_at",
                    &[&id, &now],
                )
                .await?;
        }
        transaction.commit().await?;
        transfers += 1;
        tokio::task::yield_now().await;
    }
    Ok(transfers)
}

/// Publishes the dirty rows of one snapshot as a delta file, then marks those that didn't change since as flushed.
async fn flush_until(
    database: &TestDatabase,
    lake: &Lake,
    stop: &AtomicBool,
    clock: &AtomicI64,
    flushes: &AtomicUsize,
    reads: &AtomicUsize,
) -> Result<()> {
    let mut client = database.connect().await?;
    let entity = accounts();
    while !stop.load(Ordering::Acquire) {
        // Nobody compacts: on a slow machine each read would meet ever more files, and be ever slower.
        if flushes.load(Ordering::Relaxed) > 2 * reads.load(Ordering::Acquire) + 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let snapshot =
            client.build_transaction().isolation_level(tokio_postgres::IsolationLevel::RepeatableRead).start().await?;
        let rows = snapshot
            .query(
                "SELECT c.row_id, c.changed_at, m.ltbase_created_at, m.bigint_01, e.value_numeric \
                 FROM change_log c \
                 JOIN entity_main m ON m.ltbase_schema_id = c.schema_id AND m.ltbase_row_id = c.row_id \
                 JOIN eav_data e ON e.schema_id = c.schema_id AND e.row_id = c.row_id AND e.attr_id = 1 \
                 WHERE c.schema_id = 300 AND c.flushed_at = 0 ORDER BY c.row_id",
                &[],
            )
            .await?;
        snapshot.commit().await?;
        if rows.is_empty() {
            tokio::task::yield_now().await;
            continue;
        }
        let versions: Vec<Version> = rows
            .iter()
            .map(|row| {
                let transfers = row.get::<_, f64>(4) as i64;
                Version {
                    row_id: row.get(0),
                    created_at: row.get(2),
                    changed_at: row.get(1),
                    deleted_at: None,
                    values: vec![Value::Integer(row.get(3)), Value::Integer(transfers)],
                }
            })
            .collect();
        let name = format!("{:06}.parquet", flushes.load(Ordering::Relaxed));
        lake.put(&LakeFile::delta(&entity, &name, versions.clone())).await?;
        let mark = client.transaction().await?;
        let now = clock.fetch_add(1, Ordering::Relaxed);
        for version in &versions {
            mark.execute(
                "UPDATE change_log SET flushed_at = $3 \
                 WHERE schema_id = 300 AND row_id = $1 AND flushed_at = 0 AND changed_at = $2",
                &[&version.row_id, &version.changed_at, &now],
            )
            .await?;
        }
        mark.commit().await?;
        flushes.fetch_add(1, Ordering::Relaxed);
        // A flusher comes now and then; without a pause no two listings would ever agree.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
