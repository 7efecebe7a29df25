//! A thousand clients that come, ask and leave at any moment: the server holds nothing of them afterwards. And ending one
//! query ends no other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow_flight::sql::{ActionCancelQueryRequest, ProstMessageExt};
use arrow_flight::{CancelFlightInfoRequest, FlightInfo};
use futures::{StreamExt, stream};
use prost::Message;
use rand::Rng;
use thermocline_tests::client::{Client, Failure, first_ticket};
use thermocline_tests::client_data;
use thermocline_tests::r#gen;
use thermocline_tests::scenario::{LakeKind, Scenario};
use tonic::Code;

const ENDLESS: &str = "SELECT r.range AS i FROM range(100000000000) r";
/// `max_concurrent` of the server that the thousand visit.
const PERMITS: i64 = 4;
const MIB: u64 = 1024 * 1024;
/// How long the server may take to let go of what its clients left.
const DEADLINE: Duration = Duration::from_secs(60);

/// Connects, goes as far as chance wants, and drops everything.
async fn visit(endpoint: &str, seed: u64) -> Result<()> {
    let mut rng = r#gen::rng(seed);
    let client = Client::connect(endpoint).await?;
    let sql = match rng.random_range(0..5) {
        0 => ENDLESS,
        1 => "SELECT * FROM nothing",
        2 => "SELECT name, count(*) AS c FROM things GROUP BY name",
        _ => "SELECT * FROM things",
    };
    let stop = rng.random_range(0..7);
    if stop == 0 {
        return Ok(());
    }
    let wait = Duration::from_micros(rng.random_range(0..20_000));
    let whole = async {
        if stop == 1 {
            client.action("SetSessionOptions", bytes::Bytes::new()).await?;
        }
        if stop == 2 {
            let prepared = client.prepare("SELECT count(*) AS c FROM golden").await?;
            client.execute_prepared(&prepared.handle).await.map(drop)?;
        }
        let ticket = first_ticket(client.info(sql).await?)?;
        if stop == 3 {
            return Ok(());
        }
        let mut messages = client.do_get(ticket).await?;
        for _ in 0..stop {
            if messages.message().await.is_err() {
                break;
            }
        }
        Ok::<(), Failure>(())
    };
    // A client that gives up in the middle of a call drops its future, and with it the connection.
    match tokio::time::timeout(if stop == 6 { wait } else { DEADLINE }, whole).await {
        Ok(Err(failure)) => {
            let expected = [Code::NotFound, Code::ResourceExhausted];
            ensure!(expected.contains(&failure.code), "{failure}");
            Ok(())
        }
        Ok(Ok(())) => Ok(()),
        Err(_) if stop == 6 => Ok(()),
        Err(_) => anyhow::bail!("a call hangs"),
    }
}

#[tokio::test]
async fn a_thousand_connections_leave_nothing_behind() -> Result<()> {
    let scenario = Scenario::start_with(client_data::stored(), LakeKind::Local, |config| {
        config.with("query", "max_concurrent", PERMITS).with("duckdb", "memory_limit", "256MB")
    })
    .await?;
    let endpoint = scenario.server.endpoint();
    let visit_all = |seeds: std::ops::Range<u64>| async move {
        let visits = stream::iter(seeds)
            .map(|seed| async move { visit(endpoint, seed).await.with_context(|| format!("client {seed}")) });
        let mut visits = visits.buffer_unordered(16);
        while let Some(visit) = visits.next().await {
            visit?;
        }
        anyhow::Ok(())
    };
    all_permits_are_free(&scenario).await?;
    // What the first clients make the server build stays: pools, caches, the allocator's arenas.
    visit_all(0..250).await?;
    rests(&scenario).await?;
    let before = scenario.server.memory()?;
    visit_all(250..1_250).await?;
    rests(&scenario).await?;
    let after = scenario.server.memory()?;
    eprintln!("the server held {} MiB before and {} MiB after a thousand clients", before / MIB, after / MIB);
    ensure!(after < before + 96 * MIB, "memory grew from {} to {} MiB", before / MIB, after / MIB);

    all_permits_are_free(&scenario).await
}

/// As many queries run at once as may.
async fn all_permits_are_free(scenario: &Scenario) -> Result<()> {
    let mut streams = Vec::new();
    for number in 1..=PERMITS {
        let next = async {
            // A connection each: what a client leaves unread of one stream fills the window of them all.
            let client = Client::connect(scenario.server.endpoint()).await?;
            let mut stream = client.stream(ENDLESS).await?;
            stream.next().await.context("no batch")??;
            anyhow::Ok(stream)
        };
        let stream = tokio::time::timeout(DEADLINE, next).await;
        streams.push(stream.with_context(|| format!("query {number} gets no permit"))??);
    }
    Ok(())
}

/// Waits until the server has no connection but the test's own and holds no transaction.
async fn rests(scenario: &Scenario) -> Result<()> {
    let until = Instant::now() + DEADLINE;
    loop {
        let sockets = connections(scenario)?;
        let open = scenario.database.connect().await?;
        let row = open
            .query_one(
                "SELECT count(*) FILTER (WHERE state <> 'idle'), count(*) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
                &[],
            )
            .await?;
        let (busy, sessions): (i64, i64) = (row.get(0), row.get(1));
        if sockets <= 2 && busy == 0 && sessions <= 32 {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "{sockets} connections of clients, {busy} of {sessions} PostgreSQL sessions busy"
        );
        tokio::task::yield_now().await;
    }
}

/// Connections that the server's port has now.
fn connections(scenario: &Scenario) -> Result<usize> {
    let port: u16 = scenario.server.endpoint().rsplit_once(':').context("no port")?.1.parse()?;
    let port = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let is_ours = |line: &&str| {
        let mut columns = line.split_whitespace().skip(1);
        // 01 is ESTABLISHED, and the local address is the server's.
        columns.next().is_some_and(|local| local.ends_with(&port)) && columns.nth(1) == Some("01")
    };
    Ok(table.lines().filter(is_ours).count())
}

/// What ends the first of two queries; the second goes on.
#[derive(Debug, Clone, Copy)]
enum End {
    CancelFlightInfo,
    CancelQuery,
    Drop,
    Deadline,
    Timeout,
}

#[tokio::test]
async fn ending_one_query_ends_no_other() -> Result<()> {
    let scenario = Scenario::start(client_data::stored(), LakeKind::Local).await?;
    for end in [End::CancelFlightInfo, End::CancelQuery, End::Drop, End::Deadline, End::Timeout] {
        ends_alone(&scenario, end).await.with_context(|| format!("{end:?}"))?;
    }
    Ok(())
}

async fn ends_alone(scenario: &Scenario, end: End) -> Result<()> {
    let client = match end {
        End::Timeout => scenario.client.with_option("timeout", "5s"),
        End::Deadline => scenario.client.with_header("grpc-timeout", "5S"),
        End::CancelFlightInfo | End::CancelQuery | End::Drop => scenario.client.clone(),
    };
    let mut other = scenario.client.stream(ENDLESS).await?;
    other.next().await.context("no batch")??;
    let info = scenario.client.info(ENDLESS).await?;
    let mut stream = client.do_get(first_ticket(info.clone())?).await?;
    stream.message().await?.context("no message")?;
    let expected = match end {
        End::CancelFlightInfo => {
            cancel_flight_info(&client, info.clone()).await?;
            Code::Cancelled
        }
        End::CancelQuery => {
            let request = ActionCancelQueryRequest { info: info.encode_to_vec().into() };
            client.action("CancelQuery", request.as_any().encode_to_vec().into()).await?;
            Code::Cancelled
        }
        End::Deadline | End::Timeout => Code::DeadlineExceeded,
        End::Drop => Code::NotFound,
    };
    if matches!(end, End::Drop) {
        drop(stream);
    } else {
        let status = loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => anyhow::bail!("the stream ended as if it were whole"),
                Err(status) => break status,
            }
        };
        ensure!(status.code() == expected, "{status:?}");
    }
    // It is over for the server too: there is nothing left to cancel.
    let until = Instant::now() + DEADLINE;
    while let Ok(()) = cancel_flight_info(&scenario.client, info.clone()).await {
        ensure!(Instant::now() < until, "the query still runs");
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        other.next().await.context("the other query ended")??;
    }
    Ok(())
}

async fn cancel_flight_info(client: &Client, info: FlightInfo) -> Result<(), Failure> {
    let request = CancelFlightInfoRequest::new(info);
    client.action("CancelFlightInfo", request.encode_to_vec().into()).await.map(drop)
}
