//! PostgreSQL fails while a query plans, opens its snapshot or reads hot rows.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use thermocline_tests::postgres::{self, Cluster, PASSWORD, TestDatabase};
use thermocline_tests::proxy::Link;
use thermocline_tests::scenario::{LakeKind, Scenario};
use thermocline_tests::until;
use tonic::Code;

use crate::moments::{mirrored, until_mirrored};

use super::{ALL, ALL_ROWS, FILE_ROWS, HOT_ROWS, Proxied, assert_degraded, fill_with_large_rows, stored};

/// Some 20 MB of hot rows.
const LARGE_ROWS: usize = 20_000;
/// The connection fails here: behind the dirty ids, well inside the hot rows.
const MIDDLE: usize = 5_000_000;

async fn large() -> Result<Proxied> {
    let proxied = Proxied::start(TestDatabase::create().await?, vec![stored()], LakeKind::Local, |config| {
        config.with("postgres", "statement_timeout", "30s").with("breaker", "failures", 1_000)
    })
    .await?;
    fill_with_large_rows(&proxied.scenario.database, LARGE_ROWS).await?;
    Ok(proxied)
}

#[tokio::test]
async fn a_connection_lost_in_the_hot_scan_is_made_good_once() -> Result<()> {
    let Proxied { scenario, postgres } = large().await?;
    postgres.set(Link::CutAfter { bytes: MIDDLE, times: 1 });
    let answer = scenario.client.query(ALL).await?;
    assert_eq!(answer.row_count(), ALL_ROWS + LARGE_ROWS);
    assert_eq!(answer.final_plan["degraded"]["is_degraded"], false, "{:#}", answer.final_plan);
    ensure!(scenario.server.log()?.contains("taking a new snapshot"), "the cut hit nothing");

    postgres.set(Link::CutAfter { bytes: MIDDLE, times: usize::MAX });
    scenario.client.refusal(ALL).await.expect(Code::Unavailable, &["PostgreSQL", "eventual"]);
    let answer = scenario.client.with_option("consistency", "eventual").query(ALL).await?;
    assert_eq!(answer.row_count(), FILE_ROWS);
    assert_degraded(&answer, &["hot"], "PostgreSQL");
    postgres.set(Link::Pass);
    assert_eq!(scenario.client.query(ALL).await?.row_count(), ALL_ROWS + LARGE_ROWS);
    Ok(())
}

#[tokio::test]
async fn a_hot_stream_is_made_good_before_its_first_batch_and_ends_with_an_error_after_it() -> Result<()> {
    let Proxied { scenario, postgres } = large().await?;
    let hot = scenario.client.with_option("tiers", "hot");
    let plan = hot.query("SELECT count(*) AS c FROM things").await?.final_plan;
    assert_eq!(plan["execution"]["engine"], "postgres", "PostgreSQL streams by itself: {plan:#}");

    // Some bytes open the snapshot; nothing of the rows comes through.
    let ticket = thermocline_tests::client::first_ticket(hot.info(ALL).await?)?;
    postgres.set(Link::CutAfter { bytes: 20_000, times: 1 });
    let mut messages = hot.do_get(ticket).await?;
    let mut bytes = 0;
    while let Some(message) = messages.message().await? {
        bytes += message.data_body.len();
    }
    ensure!(bytes > LARGE_ROWS * 1024, "{bytes} bytes are not the whole answer");
    ensure!(scenario.server.log()?.contains("taking a new snapshot"), "the cut hit nothing");

    postgres.set(Link::CutAfter { bytes: MIDDLE, times: usize::MAX });
    let mut batches = hot.stream(ALL).await?;
    let mut rows = 0;
    let failure = loop {
        match batches.next().await.context("a short answer passes as whole")? {
            Ok(batch) => rows += batch.num_rows(),
            Err(failure) => break failure,
        }
    };
    failure.expect(Code::Unavailable, &["PostgreSQL"]);
    ensure!(rows > 0 && rows < LARGE_ROWS, "{rows} rows came before the error");
    Ok(())
}

#[tokio::test]
async fn a_hang_in_the_hot_scan_ends_in_time() -> Result<()> {
    let proxied = Proxied::start(TestDatabase::create().await?, vec![stored()], LakeKind::Local, |config| {
        config
            .with("postgres", "statement_timeout", "3s")
            .with("postgres", "connect_timeout", "500ms")
            .with("breaker", "failures", 1_000)
    })
    .await?;
    let Proxied { scenario, postgres } = proxied;
    fill_with_large_rows(&scenario.database, 2_000).await?;
    for tiers in ["hot,warm,cold", "hot"] {
        let client = scenario.client.with_option("tiers", tiers);
        postgres.set(Link::HangAfter(500_000));
        let started = Instant::now();
        client.refusal(ALL).await.expect(Code::Unavailable, &["PostgreSQL has not answered"]);
        ensure!(started.elapsed() < Duration::from_secs(60), "{tiers}: {:?}", started.elapsed());
        postgres.set(Link::Pass);
        until("PostgreSQL answers again", async || Ok(client.query(ALL).await.is_ok())).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_restart_of_postgres_in_a_transaction_is_made_good() -> Result<()> {
    let cluster = Cluster::start().await?;
    let database = TestDatabase::create_in(&cluster).await?;
    let Proxied { scenario, postgres } =
        Proxied::start(database, vec![stored()], LakeKind::Local, |config| config).await?;
    fill_with_large_rows(&scenario.database, LARGE_ROWS).await?;
    assert_eq!(scenario.client.query("SELECT count(*) AS c FROM things").await?.row_count(), 1);
    postgres.set(Link::HangAfter(MIDDLE));
    let client = scenario.client.clone();
    let query = tokio::spawn(async move { client.query(ALL).await });
    until("the hot scan is under way", async || Ok(postgres.held() > 0)).await?;
    cluster.stop()?;
    cluster.restart().await?;
    postgres.set(Link::Pass);
    let answer = query.await??;
    assert_eq!(answer.row_count(), ALL_ROWS + LARGE_ROWS);
    ensure!(scenario.server.log()?.contains("taking a new snapshot"), "the restart hit nothing");
    Ok(())
}

#[tokio::test]
async fn a_statement_timeout_names_its_setting_and_is_no_outage() -> Result<()> {
    let scenario = Scenario::start_with(vec![stored()], LakeKind::Local, |config| {
        config.with("postgres", "statement_timeout", "200ms").with("breaker", "failures", 1)
    })
    .await?;
    let mut holder = scenario.database.connect().await?;
    let lock = holder.transaction().await?;
    lock.batch_execute("LOCK TABLE entity_main IN ACCESS EXCLUSIVE MODE").await?;
    let eventual = scenario.client.with_option("consistency", "eventual");
    for client in [&scenario.client, &eventual] {
        client.refusal(ALL).await.expect(Code::DeadlineExceeded, &["postgres.statement_timeout"]);
    }
    lock.rollback().await?;
    // On a busy machine the short limit may pass again.
    let answer = loop {
        match scenario.client.query(ALL).await {
            Ok(answer) => break answer,
            Err(failure) => failure.expect(Code::DeadlineExceeded, &["postgres.statement_timeout"]),
        }
    };
    assert_eq!((answer.row_count(), &answer.final_plan["breakers"]["postgres"]), (ALL_ROWS, &"closed".into()));
    Ok(())
}

#[tokio::test]
async fn a_timeout_while_planning_is_a_deadline_at_once() -> Result<()> {
    let Proxied { scenario, postgres } =
        Proxied::start(TestDatabase::create().await?, vec![stored()], LakeKind::Local, |config| config).await?;
    scenario.client.query(ALL).await?;
    // PostgreSQL's own limits are a minute.
    for link in [Link::Hang, Link::HangAfter(100)] {
        postgres.set(link);
        let client = scenario.client.with_option("timeout", "400ms");
        let started = Instant::now();
        client.info(ALL).await.unwrap_err().expect(Code::DeadlineExceeded, &["timeout"]);
        ensure!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
        postgres.set(Link::Pass);
        until("PostgreSQL answers again", async || Ok(scenario.client.query(ALL).await.is_ok())).await?;
    }
    Ok(())
}

#[tokio::test]
async fn too_many_connections_is_an_outage() -> Result<()> {
    let database = TestDatabase::create().await?;
    let admin = postgres::connect(&database.cluster().url("postgres")).await?;
    let role = format!("reader_{}", database.name());
    admin.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'of-the-reader' CONNECTION LIMIT 1")).await?;
    let grant = format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}");
    database.connect().await?.batch_execute(&grant).await?;
    let url = database.url().replace(&format!("thermocline:{PASSWORD}"), &format!("{role}:of-the-reader"));
    let others = postgres::connect(&url).await?;
    let scenario = Scenario::start_on(database, vec![stored()], LakeKind::Local, |config| {
        config.with("postgres", "url", url).with("breaker", "failures", 1_000)
    })
    .await?;
    scenario.client.refusal(ALL).await.expect(Code::Unavailable, &["too many connections", "53300"]);
    let answer = scenario.client.with_option("consistency", "eventual").query(ALL).await?;
    assert_eq!(answer.row_count(), FILE_ROWS);
    assert_degraded(&answer, &["hot"], "PostgreSQL");
    drop(others);
    until("a connection is free", async || Ok(scenario.client.query(ALL).await.is_ok())).await?;
    drop(scenario);
    admin.batch_execute(&format!("DROP ROLE {role}")).await?;
    Ok(())
}

/// Wrong words and wrong certificates don't become right by waiting.
#[tokio::test]
async fn a_server_that_lets_us_in_no_way_never_degrades() -> Result<()> {
    let database = TestDatabase::create().await?;
    let good = database.url();
    let wrong_password = good.replace(PASSWORD, "wrong-word");
    let wrong_database = good.replace(database.name(), "no_such_database");
    // The cluster speaks no TLS.
    let wanted_tls = format!("{good}?sslmode=require");
    drop(database);
    for (url, part) in [(wrong_password, "password"), (wrong_database, "no_such_database"), (wanted_tls, "TLS")] {
        let scenario = Scenario::start_with(vec![stored()], LakeKind::Local, |config| {
            config.with("postgres", "url", url).with("breaker", "failures", 1)
        })
        .await?;
        let client = scenario.client.with_option("consistency", "eventual").with_option("allow_partial", "true");
        for _ in 0..2 {
            let failure = client.refusal(ALL).await;
            failure.expect(Code::Unavailable, &[part]);
            ensure!(!failure.message.contains("wrong-word"), "{failure}");
        }
        // The lake alone needs none of it.
        let lake = client.with_option("tiers", "warm,cold");
        assert_eq!(lake.query(ALL).await?.row_count(), FILE_ROWS);
    }
    Ok(())
}

#[tokio::test]
async fn a_slow_link_is_only_slow() -> Result<()> {
    let Proxied { scenario, postgres } =
        Proxied::start(TestDatabase::create().await?, vec![stored()], LakeKind::Local, |config| config).await?;
    postgres.set(Link::Slow(20_000));
    assert_eq!(scenario.client.query(ALL).await?.row_count(), ALL_ROWS);
    let hot = scenario.client.with_option("tiers", "hot");
    assert_eq!(hot.query(ALL).await?.row_count(), HOT_ROWS);
    Ok(())
}

/// Several queries wait for one moment; PostgreSQL is lost while it is made. Each does what its own options say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_that_fails_fails_or_degrades_each_query_that_waits() -> Result<()> {
    let proxied = Proxied::start(TestDatabase::create().await?, vec![stored()], LakeKind::Local, |config| {
        mirrored(config)
            .with("postgres", "statement_timeout", "2s")
            .with("postgres", "connect_timeout", "500ms")
            .with("breaker", "failures", 1_000)
    })
    .await?;
    let Proxied { scenario, postgres } = proxied;
    until_mirrored(&scenario.client, ALL).await?;
    postgres.set(Link::HangAfter(0));
    let eventual = scenario.client.with_option("consistency", "eventual");
    let quick = scenario.client.with_option("timeout", "100ms");
    let (strict, degraded, late) = futures::join!(scenario.client.query(ALL), eventual.query(ALL), quick.query(ALL));
    strict.err().context("a strict query answers without PostgreSQL")?.expect(Code::Unavailable, &["PostgreSQL"]);
    let degraded = degraded?;
    assert_eq!(degraded.row_count(), FILE_ROWS);
    assert_degraded(&degraded, &["hot"], "PostgreSQL");
    late.err().context("a deadline passes")?.expect(Code::DeadlineExceeded, &[]);
    postgres.set(Link::Pass);
    until("PostgreSQL answers again", async || Ok(scenario.client.query(ALL).await.is_ok())).await?;
    until_mirrored(&scenario.client, ALL).await?;
    assert_eq!(scenario.client.query(ALL).await?.row_count(), ALL_ROWS);
    let failed = scenario.client.query("SELECT count(*) AS c FROM system.moments WHERE error IS NOT NULL").await?;
    ensure!(!failed.text().contains(" 0 "), "the moment that failed is told: {}", failed.text());
    Ok(())
}
