//! Several PostgreSQL servers behind one URL: read replicas, failover between them, and a standby that takes rows away.

use anyhow::{Result, ensure};
use thermocline_tests::postgres::{Cluster, PASSWORD, TestDatabase, USER, connect};
use thermocline_tests::proxy::{Link, Proxy};
use thermocline_tests::scenario::{LakeKind, Scenario};
use thermocline_tests::until;
use tonic::Code;

use super::{ALL, ALL_ROWS, fill_with_large_rows, proxy_of, stored};

fn url_of(proxies: &[&Proxy], database: &str, wanted: &str) -> String {
    let hosts: Vec<String> = proxies.iter().map(|proxy| format!("127.0.0.1:{}", proxy.port())).collect();
    format!("postgresql://{USER}:{PASSWORD}@{}/{database}?target_session_attrs={wanted}", hosts.join(","))
}

#[tokio::test]
async fn queries_go_on_with_the_next_host_and_come_back() -> Result<()> {
    let primary = Cluster::start().await?;
    let database = TestDatabase::create_in(&primary).await?;
    let standby = primary.standby().await?;
    let (first, second) = (proxy_of(&primary)?, proxy_of(&standby)?);
    let url = url_of(&[&first, &second], database.name(), "any");
    let scenario = Scenario::start_on(database, vec![stored()], LakeKind::Local, |config| {
        config.with("postgres", "url", url).with("postgres", "connect_timeout", "4s").with("breaker", "failures", 1)
    })
    .await?;
    standby.catch_up(&primary).await?;
    // Open connections that break, hosts that refuse and hosts that hang: the other one answers, and no query notices.
    for (link, up, down) in [
        (Link::Refuse, &second, &first),
        (Link::Refuse, &first, &second),
        (Link::Hang, &second, &first),
        (Link::Hang, &first, &second),
    ] {
        up.set(Link::Pass);
        assert_eq!(scenario.client.query(ALL).await?.row_count(), ALL_ROWS);
        down.set(link);
        let before = up.accepted();
        let answer = scenario.client.query(ALL).await?;
        assert_eq!(answer.row_count(), ALL_ROWS, "{link:?}");
        assert_eq!(answer.final_plan["breakers"]["postgres"], "closed", "{:#}", answer.final_plan);
        ensure!(up.accepted() > before || up.open() > 0, "{link:?}: nobody asked the other host");
        down.set(Link::Pass);
    }
    first.set(Link::Refuse);
    second.set(Link::Refuse);
    scenario.client.refusal(ALL).await.expect(Code::Unavailable, &["PostgreSQL"]);
    Ok(())
}

#[tokio::test]
async fn the_wanted_kind_of_server_is_found_in_the_list() -> Result<()> {
    let primary = Cluster::start().await?;
    let database = TestDatabase::create_in(&primary).await?;
    let standby = primary.standby().await?;
    let (first, second) = (proxy_of(&primary)?, proxy_of(&standby)?);
    for (wanted, serves) in [("read-write", &first), ("read-only", &second)] {
        // The wrong one comes first.
        let hosts = if wanted == "read-only" { [&first, &second] } else { [&second, &first] };
        let url = url_of(&hosts, database.name(), wanted);
        let scenario = Scenario::start_with(vec![stored()], LakeKind::Local, |config| {
            config.with("postgres", "url", url).with("breaker", "cooldown", "100ms")
        })
        .await?;
        scenario.client.query("SELECT count(*) AS c FROM things").await?;
        ensure!(serves.open() > 0, "{wanted}");
        // The one that is left is of the wrong kind.
        serves.set(Link::Refuse);
        scenario.client.refusal(ALL).await.expect(Code::Unavailable, &["PostgreSQL"]);
        serves.set(Link::Pass);
        drop(scenario);
    }
    // A failover: the standby becomes a primary, and is found.
    let url = url_of(&[&first, &second], database.name(), "read-write");
    let scenario = Scenario::start_on(database, vec![stored()], LakeKind::Local, |config| {
        config.with("postgres", "url", url).with("breaker", "cooldown", "100ms")
    })
    .await?;
    assert_eq!(scenario.client.query(ALL).await?.row_count(), ALL_ROWS);
    standby.catch_up(&primary).await?;
    primary.stop()?;
    scenario.client.refusal(ALL).await.expect(Code::Unavailable, &["PostgreSQL"]);
    standby.promote().await?;
    until("the new primary answers", async || Ok(scenario.client.query(ALL).await.is_ok())).await?;
    assert_eq!(scenario.client.query(ALL).await?.row_count(), ALL_ROWS);
    Ok(())
}

/// The primary removes rows that a query on the standby still reads: PostgreSQL cancels the query (SQLSTATE 40001), and a
/// new snapshot answers.
#[tokio::test]
async fn a_recovery_conflict_on_a_standby_is_made_good() -> Result<()> {
    let primary = Cluster::start().await?;
    let database = TestDatabase::create_in(&primary).await?;
    let standby = primary.standby().await?;
    let proxy = proxy_of(&standby)?;
    let url = url_of(&[&proxy], database.name(), "any");
    let scenario =
        Scenario::start_on(database, vec![stored()], LakeKind::Local, |config| config.with("postgres", "url", url))
            .await?;
    fill_with_large_rows(&scenario.database, 20_000).await?;
    let others = "INSERT INTO entity_main (ltbase_schema_id, ltbase_row_id, ltbase_created_at, ltbase_updated_at) \
                  SELECT 999, gen_random_uuid(), 1, 1 FROM generate_series(1, 1000)";
    scenario.database.connect().await?.batch_execute(others).await?;
    standby.catch_up(&primary).await?;
    assert_eq!(scenario.client.query("SELECT count(*) AS c FROM things").await?.row_count(), 1);

    proxy.set(Link::HangAfter(5_000_000));
    let client = scenario.client.clone();
    let query = tokio::spawn(async move { client.query(ALL).await });
    until("the hot scan is under way", async || Ok(proxy.held() > 0)).await?;
    // Rows that the query doesn't ask for, yet its snapshot can see.
    let admin = scenario.database.connect().await?;
    admin.batch_execute("DELETE FROM entity_main WHERE ltbase_schema_id = 999").await?;
    let watcher = connect(&standby.url("postgres")).await?;
    let conflict = "SELECT count(*) FROM pg_stat_activity WHERE wait_event LIKE 'RecoveryConflict%'";
    until("the standby meets the conflict", async || {
        // An autovacuum worker's snapshot may keep the rows from the first one.
        admin.batch_execute("VACUUM entity_main").await?;
        let waiting: i64 = watcher.query_one(conflict, &[]).await?.get(0);
        Ok(waiting > 0 || standby.log()?.contains("conflict with recovery"))
    })
    .await?;
    proxy.set(Link::Pass);
    let answer = query.await??;
    ensure!(standby.log()?.contains("conflict with recovery"), "PostgreSQL cancelled nothing");
    ensure!(scenario.server.log()?.contains("taking a new snapshot"), "no second attempt");
    assert_eq!(answer.final_plan["degraded"]["is_degraded"], false);
    assert_eq!(answer.row_count(), ALL_ROWS + 20_000);
    Ok(())
}
