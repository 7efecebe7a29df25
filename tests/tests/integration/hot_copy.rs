//! `hot_scan = "copy"` with many dirty rows: several connections read them, in one snapshot.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use thermocline_tests::oracle::Stored;
use thermocline_tests::postgres::TestDatabase;
use thermocline_tests::scenario::{LakeKind, Scenario};
use thermocline_tests::server::ServerConfig;
use thermocline_tests::until;

use crate::writers::accounts;

/// Enough for two connections and not for three.
const ACCOUNTS: i64 = 24_000;
const BALANCE: i64 = 1_000;
const SUMS: &str = "SELECT count(*) AS c, count(DISTINCT row_id) AS d, sum(balance)::BIGINT AS b, sum(transfers)::BIGINT AS t \
                    FROM accounts";

async fn scenario(configure: impl FnOnce(ServerConfig) -> ServerConfig) -> Result<Scenario> {
    let scenario = Scenario::start_with(vec![Stored::new(&accounts())], LakeKind::Local, configure).await?;
    let id = "lpad(to_hex(i), 32, '0')::uuid";
    let rows = format!("FROM generate_series(1, {ACCOUNTS}) i");
    let sql = format!(
        "INSERT INTO entity_main (ltbase_schema_id, ltbase_row_id, bigint_01, ltbase_created_at, ltbase_updated_at) \
         SELECT 300, {id}, {BALANCE}, 1, 1 {rows}; \
         INSERT INTO eav_data (schema_id, row_id, attr_id, value_numeric) SELECT 300, {id}, 1, 0 {rows}; \
         INSERT INTO change_log (schema_id, row_id, changed_at) SELECT 300, {id}, 1 {rows}"
    );
    scenario.database.connect().await?.batch_execute(&sql).await?;
    Ok(scenario)
}

fn all(transfers: i64) -> String {
    format!("{ACCOUNTS}|{ACCOUNTS}|{}|{transfers}", ACCOUNTS * BALANCE)
}

/// The COPYs of hot rows so far: their number, and that of the connections they ran on.
fn copies(database: &TestDatabase) -> Result<(usize, usize)> {
    let statements = database.statements()?;
    let copies: Vec<_> = statements
        .iter()
        .filter(|statement| statement.sql.starts_with("COPY (SELECT c.row_id, c.changed_at"))
        .collect();
    let connections: BTreeSet<&str> = copies.iter().map(|statement| statement.pid.as_str()).collect();
    Ok((copies.len(), connections.len()))
}

#[tokio::test]
async fn connections_are_shared_out_as_the_configuration_says() -> Result<()> {
    let two = scenario(|config| config).await?;
    assert_eq!(two.client.query(SUMS).await?.text(), all(0));
    assert_eq!(copies(&two.database)?, (2, 2));
    let source = &two.client.query(SUMS).await?.final_plan["execution"]["sources"][0];
    assert_eq!((&source["rows_scanned"], &source["rows_returned"]), (&ACCOUNTS.into(), &ACCOUNTS.into()));
    // A few of them are read by one.
    two.client
        .query(
            "SELECT sum(balance + transfers) AS s FROM accounts WHERE row_id < '00000000-0000-0000-0000-000000000100'",
        )
        .await?;
    assert_eq!(copies(&two.database)?.0, 5);

    // The only connection is in use: by the query itself.
    for (key, value) in [("read_connections", 1), ("pool_size", 1)] {
        let one = scenario(|config| config.with("postgres", key, value)).await?;
        assert_eq!(one.client.query(SUMS).await?.text(), all(0), "{key}");
        assert_eq!(copies(&one.database)?, (1, 1), "{key}");
    }
    Ok(())
}

/// The parts are of one moment: transfers from the first part to the second one never show in one part only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_connections_read_in_one_snapshot() -> Result<()> {
    let scenario = Arc::new(scenario(|config| config).await?);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (scenario, stop) = (Arc::clone(&scenario), Arc::clone(&stop));
        tokio::spawn(async move { transfer_until(&scenario.database, &stop).await })
    };
    let reads = async {
        let (mut transfers_seen, mut reads) = (0, 0);
        while reads < 15 || transfers_seen < 40 {
            reads += 1;
            ensure!(reads < 10_000, "the race was no race");
            let text = scenario.client.query(SUMS).await?.text();
            let transfers: i64 = text.rsplit('|').next().unwrap_or_default().parse()?;
            ensure!(text == all(transfers) && transfers % 2 == 0, "a torn read: {text}");
            ensure!(transfers >= transfers_seen, "{transfers} after {transfers_seen}");
            transfers_seen = transfers;
        }
        Ok(reads)
    };
    let reads = reads.await;
    stop.store(true, Ordering::Release);
    writer.await??;
    let (copies, connections) = copies(&scenario.database)?;
    ensure!(copies == 2 * reads? && connections >= 2, "{copies} by {connections}");
    Ok(())
}

async fn transfer_until(database: &TestDatabase, stop: &AtomicBool) -> Result<()> {
    let client = database.connect().await?;
    let mut transfers = 0;
    while !stop.load(Ordering::Acquire) {
        let from = transfers % 1_000 + 1;
        let ids = format!("(lpad(to_hex({from}), 32, '0')::uuid, lpad(to_hex({}), 32, '0')::uuid)", ACCOUNTS - from);
        let sql = format!(
            "BEGIN; \
             UPDATE entity_main SET bigint_01 = bigint_01 + CASE WHEN ltbase_row_id < '{middle}' THEN -1 ELSE 1 END \
             WHERE ltbase_schema_id = 300 AND ltbase_row_id IN {ids}; \
             UPDATE eav_data SET value_numeric = value_numeric + 1 WHERE schema_id = 300 AND row_id IN {ids}; COMMIT",
            middle = format_args!("00000000-0000-0000-0000-{:012x}", ACCOUNTS / 2),
        );
        client.batch_execute(&sql).await?;
        transfers += 1;
    }
    Ok(())
}

/// One of two connections is lost while both read: the query is answered all the same, from a new snapshot.
#[tokio::test]
async fn a_connection_lost_among_several_is_made_good() -> Result<()> {
    let scenario = scenario(|config| config).await?;
    let admin = scenario.database.connect().await?;
    let mut holder = scenario.database.connect().await?;
    let lock = holder.transaction().await?;
    lock.batch_execute("LOCK TABLE entity_main IN ACCESS EXCLUSIVE MODE").await?;
    let client = scenario.client.clone();
    let query = tokio::spawn(async move { client.query(SUMS).await });
    let waiting =
        "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'COPY%'";
    until("two connections wait for the lock", async || {
        let waits: i64 = admin.query_one(&format!("SELECT count(*) {waiting}"), &[]).await?.get(0);
        Ok(waits == 2)
    })
    .await?;
    admin.execute(&format!("SELECT pg_terminate_backend(pid) FROM (SELECT pid {waiting} LIMIT 1) one"), &[]).await?;
    lock.rollback().await?;
    assert_eq!(query.await??.text(), all(0));
    ensure!(scenario.server.log()?.contains("taking a new snapshot"), "no second attempt");
    Ok(())
}
