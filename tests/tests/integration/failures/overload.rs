//! Too many queries, too little memory or disk, and a bug in one query: the others go on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow_flight::FlightDescriptor;
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use futures::StreamExt;
use futures::future::join_all;
use prost::Message;
use thermocline_tests::client::first_ticket;
use thermocline_tests::postgres::TestDatabase;
use thermocline_tests::proxy::Link;
use thermocline_tests::s3::Fault;
use thermocline_tests::scenario::{LakeKind, Scenario};
use thermocline_tests::until;
use tonic::Code;
use tonic_types::StatusExt;

use super::{ALL, ALL_ROWS, Proxied, fill_with_large_rows, stored};

const ENDLESS: &str = "SELECT r.range AS i FROM range(100000000000) r";

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() -> Result<()> {
    let scenario = Scenario::start_with(vec![stored()], LakeKind::Local, |config| {
        config.with("query", "max_concurrent", 1).with("query", "max_queued", 0)
    })
    .await?;
    let mut endless = scenario.client.stream(ENDLESS).await?;
    endless.next().await.context("no batch")??;
    let ticket = first_ticket(scenario.client.info(ALL).await?)?;
    let started = Instant::now();
    let status = scenario.client.flight().do_get(scenario.client.request(ticket)).await.unwrap_err();
    ensure!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert_eq!(status.code(), Code::ResourceExhausted);
    ensure!(status.message().contains("max_queued") && status.message().contains("try again in 1s"), "{status}");
    assert_eq!(status.get_details_retry_info().and_then(|hint| hint.retry_delay), Some(Duration::from_secs(1)));
    drop(endless);
    until("the permit is free", async || Ok(scenario.client.query(ALL).await.is_ok())).await
}

#[tokio::test]
async fn an_open_breaker_says_when_to_come_back() -> Result<()> {
    let database = TestDatabase::create().await?;
    let Proxied { scenario, postgres } = Proxied::start(database, vec![stored()], LakeKind::Local, |config| {
        config.with("breaker", "failures", 1).with("breaker", "cooldown", "1h")
    })
    .await?;
    postgres.set(Link::Refuse);
    scenario.client.refusal(ALL).await.expect(Code::Unavailable, &["PostgreSQL"]);
    let command = CommandStatementQuery { query: ALL.to_owned(), transaction_id: None };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let status = scenario.client.flight().get_flight_info(scenario.client.request(descriptor)).await.unwrap_err();
    let wait = status.get_details_retry_info().and_then(|hint| hint.retry_delay).context("no hint")?;
    ensure!(wait > Duration::from_secs(3000) && wait <= Duration::from_secs(3600), "{wait:?}");
    Ok(())
}

/// A panic at three places: while planning, while the answer streams, and on DuckDB's thread. Another query of the very
/// same connection goes through all of them.
#[tokio::test]
async fn a_panic_is_one_querys_internal_error_and_nothing_else() -> Result<()> {
    for place in ["query.plan", "query.stream", "query.run"] {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("now");
        let wanted = format!("{place}=panic:{}", file.display());
        let scenario = Scenario::start_with(vec![stored()], LakeKind::Local, |mut config| {
            config.env.push(("THERMOCLINE_FAILPOINT".to_owned(), wanted));
            config.with("query", "max_concurrent", 2)
        })
        .await?;
        let mut neighbour = scenario.client.stream(ENDLESS).await?;
        neighbour.next().await.context("no batch")??;
        for _ in 0..4 {
            std::fs::write(&file, "")?;
            let failure = scenario.client.refusal("SELECT name FROM things").await;
            failure.expect(Code::Internal, &["internal error", "query id"]);
            ensure!(!failure.message.contains("failpoint"), "{failure}");
            // Its permit is free again, and the connection works.
            assert_eq!(scenario.client.query(ALL).await?.row_count(), ALL_ROWS, "{place}");
            neighbour.next().await.context("the neighbour has ended")??;
        }
        ensure!(scenario.server.log()?.contains(&format!("the failpoint {place} was asked to panic")), "{place}");
    }
    Ok(())
}

/// Many queries meet a source that has just died: each asks it once, second attempts share a budget, and once the
/// breaker is open nobody asks.
#[tokio::test]
async fn many_queries_that_meet_a_dead_postgres_make_no_storm() -> Result<()> {
    const QUERIES: usize = 60;
    /// Second attempts that the server allows at once, and each second.
    const BUDGET: usize = 10;
    for (failures, has_breaker) in [(1_000_000, false), (5, true)] {
        let database = TestDatabase::create().await?;
        let Proxied { scenario, postgres } = Proxied::start(database, vec![stored()], LakeKind::Local, |config| {
            config.with("breaker", "failures", failures).with("breaker", "cooldown", "10m").with(
                "query",
                "max_concurrent",
                QUERIES as i64,
            )
        })
        .await?;
        fill_with_large_rows(&scenario.database, 2_000).await?;
        let tickets: Vec<_> = join_all((0..QUERIES).map(|_| scenario.client.info(ALL))).await;
        let refused = async || {
            let mut messages = Vec::new();
            for answer in join_all(tickets.iter().map(|info| scenario.client.collect(info.clone().unwrap()))).await {
                let failure = answer.unwrap_err();
                failure.expect(Code::Unavailable, &["PostgreSQL"]);
                messages.push(failure.message);
            }
            messages
        };
        // Dead in the middle of the rows: where a second attempt makes sense.
        postgres.set(Link::CutAfter { bytes: 300_000, times: usize::MAX });
        let (before, started) = (postgres.accepted(), Instant::now());
        refused().await;
        let storm = postgres.accepted() - before;
        let seconds = started.elapsed().as_secs() as usize + 1;
        // A probe comes every five seconds.
        let probes = |seconds: usize| seconds / 5 + 1;
        ensure!(storm <= QUERIES + BUDGET + seconds + probes(seconds), "{storm} connections for {QUERIES} queries");
        if has_breaker {
            let (before, started) = (postgres.accepted(), Instant::now());
            for message in refused().await {
                ensure!(message.contains("isn't asked for now"), "{message}");
            }
            let asked = postgres.accepted() - before;
            ensure!(asked <= probes(started.elapsed().as_secs() as usize), "{asked} connections: the breaker is open");
        } else {
            ensure!(storm > QUERIES / 2, "{storm} connections: the storm didn't take place");
        }
    }
    Ok(())
}

#[tokio::test]
async fn many_queries_that_meet_a_dead_lake_make_no_storm() -> Result<()> {
    const QUERIES: usize = 30;
    /// A request and its repetitions, for the files of base and of delta.
    const REQUESTS: usize = 2 * 4;
    let scenario = Scenario::start_with(vec![stored()], LakeKind::S3, |config| {
        config.without_index().with("breaker", "cooldown", "10m").with("query", "max_concurrent", QUERIES as i64)
    })
    .await?;
    let s3 = scenario.lake.s3_server().unwrap();
    s3.inject(Fault::Status(503), 0, usize::MAX, |_| true);
    let refused = async || {
        let mut messages = Vec::new();
        for answer in join_all((0..QUERIES).map(|_| scenario.client.info(ALL))).await {
            let failure = answer.unwrap_err();
            failure.expect(Code::Unavailable, &["lake"]);
            messages.push(failure.message);
        }
        messages
    };
    s3.forget_requests();
    refused().await;
    let storm = s3.requests().len();
    ensure!(storm <= QUERIES * REQUESTS, "{storm} requests for {QUERIES} queries");
    s3.forget_requests();
    for message in refused().await {
        ensure!(message.contains("isn't asked for now"), "{message}");
    }
    // The last ones of the queries before may arrive late.
    let asked = s3.requests().len();
    ensure!(asked < QUERIES, "{asked} requests: the breaker is open");
    Ok(())
}

/// DuckDB may spill, and the directory is full before it is done.
#[tokio::test]
async fn a_full_temp_directory_is_a_limit_and_no_outage() -> Result<()> {
    let scenario = Scenario::start_with(vec![stored()], LakeKind::Local, |config| {
        config
            .with("duckdb", "memory_limit", "64MB")
            .with("duckdb", "temp_directory_limit", "1MB")
            .with("duckdb", "threads", 1)
            .with("breaker", "failures", 1)
    })
    .await?;
    let sql = "SELECT md5(r.range::VARCHAR) AS m FROM range(5000000) r ORDER BY m";
    let failure = scenario.client.refusal(sql).await;
    failure.expect(Code::ResourceExhausted, &["temp_directory_limit", "max_temp_directory_size"]);
    let answer = scenario.client.query(ALL).await?;
    assert_eq!(answer.row_count(), ALL_ROWS);
    assert_eq!(answer.final_plan["breakers"]["lake"], "closed");
    Ok(())
}

/// DuckDB can't spill at all: its directory can't be made. The lake has nothing to do with it.
#[tokio::test]
async fn a_temp_directory_that_cannot_be_used_is_a_limit_and_no_outage() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("file");
    std::fs::write(&file, "")?;
    let scenario = Scenario::start_with(vec![stored()], LakeKind::Local, |config| {
        config
            .with("duckdb", "memory_limit", "64MB")
            .with("duckdb", "temp_directory", file.join("spill").display().to_string())
            .with("duckdb", "threads", 1)
            .with("breaker", "failures", 1)
    })
    .await?;
    let sql = "SELECT md5(r.range::VARCHAR) AS m FROM range(5000000) r ORDER BY m";
    scenario.client.refusal(sql).await.expect(Code::ResourceExhausted, &["temp_directory"]);
    let answer = scenario.client.query(ALL).await?;
    assert_eq!((answer.row_count(), &answer.final_plan["breakers"]["lake"]), (ALL_ROWS, &"closed".into()));
    Ok(())
}

/// Queries that need more memory than there is fail one by one; the process and its other queries go on.
#[tokio::test]
async fn memory_pressure_fails_queries_and_never_the_process() -> Result<()> {
    let scenario = Scenario::start_with(vec![stored()], LakeKind::Local, |config| {
        config.with("duckdb", "memory_limit", "100MB").with("duckdb", "temp_directory_limit", "1MB")
    })
    .await?;
    let hungry = "SELECT md5(r.range::VARCHAR) AS m FROM range(2000000) r ORDER BY m";
    let pid = scenario.server.pid();
    let mut refused = 0;
    for answer in join_all((0..8).map(|_| scenario.client.query(hungry))).await {
        match answer {
            // Once the others have failed there may be enough for it.
            Ok(answer) => assert_eq!(answer.row_count(), 2_000_000),
            Err(failure) => {
                // DuckDB may lose the error, and not meet it again once the others have failed: then it says so.
                if failure.code == Code::Unavailable {
                    failure.expect(Code::Unavailable, &["failed once, and not again"]);
                } else {
                    failure.expect(Code::ResourceExhausted, &["memory_limit"]);
                }
                refused += 1;
            }
        }
    }
    ensure!(refused > 0, "there was enough memory for all");
    assert_eq!(scenario.client.query(ALL).await?.row_count(), ALL_ROWS);
    assert_eq!(scenario.server.pid(), pid);
    Ok(())
}
