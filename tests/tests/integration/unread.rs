//! Clients that ask and stop reading: their queries end all the same, and health tells when all slots wait for them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use arrow_flight::{CancelFlightInfoRequest, FlightInfo};
use futures::StreamExt;
use prost::Message;
use thermocline_tests::client::{Client, Failure, first_ticket};
use thermocline_tests::oracle::Stored;
use thermocline_tests::scenario::{LakeKind, Scenario};
use thermocline_tests::server::ServerConfig;
use thermocline_tests::{postgres::TestDatabase, until};
use tonic::Code;

use crate::things;

const ENDLESS: &str = "SELECT r.range AS i FROM range(100000000000) r";
/// Too large for the buffers between the server and a client that doesn't read.
const LARGE_ROWS: usize = 40_000;
/// PostgreSQL answers it alone.
const HOT: &str = "SELECT name, n FROM things";
/// How long a query may wait for a slot that another must leave.
const DEADLINE: Duration = Duration::from_secs(60);

/// A server with one slot; more settings by `configure`.
async fn scenario(configure: impl FnOnce(ServerConfig) -> ServerConfig) -> Result<Scenario> {
    Scenario::start_with(vec![Stored::new(&things())], LakeKind::Local, |config| {
        configure(config.with("query", "max_concurrent", 1))
    })
    .await
}

/// A query of a connection of its own that is read once and no more.
struct HalfRead {
    client: Client,
    info: FlightInfo,
    stream: tonic::Streaming<arrow_flight::FlightData>,
}

impl HalfRead {
    async fn start(scenario: &Scenario, sql: &str, options: &[(&str, &str)]) -> Result<Self> {
        let client = Client::connect(scenario.server.endpoint()).await?;
        let client = options.iter().fold(client, |client, (name, value)| client.with_option(name, value));
        let info = client.info(sql).await?;
        let mut stream = client.do_get(first_ticket(info.clone())?).await?;
        stream.message().await?.context("no message")?;
        until("the slot waits for its client", async || {
            Ok(scenario.server.metrics().await?.lines().any(|line| line == "fed_queries_unread 1"))
        })
        .await?;
        Ok(Self { client, info, stream })
    }

    async fn cancel(&self) -> Result<(), Failure> {
        let request = CancelFlightInfoRequest::new(self.info.clone());
        self.client.action("CancelFlightInfo", request.encode_to_vec().into()).await.map(drop)
    }

    /// Reads on to the error that ends the stream.
    async fn read_on(mut self) -> Result<tonic::Status> {
        loop {
            match self.stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => anyhow::bail!("the stream ended as if it were whole"),
                Err(status) => return Ok(status),
            }
        }
    }
}

/// Without a word of the client that holds it, the slot is free, and nothing counts its query as running.
async fn slot_gets_free(scenario: &Scenario) -> Result<()> {
    let other = Client::connect(scenario.server.endpoint()).await?;
    let answer = tokio::time::timeout(DEADLINE, other.query("SELECT 1 AS x")).await.context("no slot gets free")??;
    ensure!(answer.text() == "1");
    until("no query is in flight", async || {
        let metrics = scenario.server.metrics().await?;
        let has = |wanted: &str| metrics.lines().any(|line| line == wanted);
        Ok(has("fed_queries_in_flight 0") && has("fed_queries_unread 0"))
    })
    .await?;
    let sql = "SELECT count(*) AS c FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'";
    let sessions = scenario.database.connect().await?;
    until("no transaction is left", async || Ok(sessions.query_one(sql, &[]).await?.get::<_, i64>(0) == 0)).await
}

/// Dirty rows with long texts.
async fn fill(database: &TestDatabase) -> Result<()> {
    let sql = format!(
        "INSERT INTO entity_main (ltbase_schema_id, ltbase_row_id, text_01, integer_01, ltbase_created_at, ltbase_updated_at) \
         SELECT 100, ('0190aaaa-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid, repeat(md5(i::text), 32), i, 1, 1 \
         FROM generate_series(1, {LARGE_ROWS}) i; \
         INSERT INTO change_log (schema_id, row_id, changed_at) \
         SELECT 100, ('0190aaaa-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid, 40 FROM generate_series(1, {LARGE_ROWS}) i"
    );
    Ok(database.connect().await?.batch_execute(&sql).await?)
}

#[tokio::test]
async fn timeout_and_cancel_end_a_query_that_nobody_reads() -> Result<()> {
    let scenario = scenario(|config| config).await?;
    fill(&scenario.database).await?;
    for sql in [ENDLESS, HOT] {
        let late = HalfRead::start(&scenario, sql, &[("timeout", "2s")]).await?;
        slot_gets_free(&scenario).await?;
        let status = late.read_on().await?;
        ensure!(status.code() == Code::DeadlineExceeded && status.message().contains("timeout"), "{status:?}");

        let cancelled = HalfRead::start(&scenario, sql, &[]).await?;
        cancelled.cancel().await?;
        slot_gets_free(&scenario).await?;
        ensure!(cancelled.cancel().await.is_err_and(|failure| failure.code == Code::NotFound), "it is over");
        let status = cancelled.read_on().await?;
        ensure!(status.code() == Code::Cancelled, "{status:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_stops_reading_loses_its_slot() -> Result<()> {
    let scenario = scenario(|config| config.with("query", "idle_timeout", "1s")).await?;
    fill(&scenario.database).await?;
    for sql in [ENDLESS, HOT] {
        let idle = HalfRead::start(&scenario, sql, &[]).await?;
        slot_gets_free(&scenario).await?;
        let status = idle.read_on().await?;
        ensure!(status.code() == Code::ResourceExhausted && status.message().contains("idle_timeout"), "{status:?}");
    }
    Ok(())
}

/// A result that is all computed holds no slot, however late its client reads it.
#[tokio::test]
async fn a_finished_result_waits_for_its_reader_and_holds_nothing() -> Result<()> {
    let scenario = scenario(|config| config.with("query", "idle_timeout", "100ms")).await?;
    let client = Client::connect(scenario.server.endpoint()).await?;
    let mut stream = client.stream("SELECT r.range AS i FROM range(5000) r").await?;
    slot_gets_free(&scenario).await?;
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        rows += batch?.num_rows();
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    ensure!(rows == 5000, "{rows}");
    Ok(())
}

#[tokio::test]
async fn health_tells_when_nobody_reads() -> Result<()> {
    let scenario = scenario(|config| config).await?;
    until("ready", async || Ok(scenario.server.admin_get("/readyz").await?.0 == 200)).await?;
    let unread = HalfRead::start(&scenario, ENDLESS, &[]).await?;
    until("not ready", async || {
        let (status, body) = scenario.server.admin_get("/readyz").await?;
        let body: serde_json::Value = serde_json::from_str(&body)?;
        let reason = body["sources"]["queries"]["reason"].as_str().unwrap_or_default();
        Ok(status == 503 && reason.contains("waits for a client that doesn't read"))
    })
    .await?;
    unread.cancel().await?;
    until("ready again", async || Ok(scenario.server.admin_get("/readyz").await?.0 == 200)).await
}

#[tokio::test]
async fn a_server_that_ends_tells_its_clients() -> Result<()> {
    let scenario = Scenario::start_with(vec![Stored::new(&things())], LakeKind::Local, |config| {
        config.with("server", "drain_limit", "1s")
    })
    .await?;
    let _unread = HalfRead::start(&scenario, ENDLESS, &[]).await?;
    let mut reader = scenario.client.stream(ENDLESS).await?;
    scenario.server.signal("TERM")?;
    let failure = loop {
        match reader.next().await.context("the stream ended as if it were whole")? {
            Ok(_) => {}
            Err(failure) => break failure,
        }
    };
    failure.expect(Code::Unavailable, &["drain_limit"]);
    let Scenario { server, .. } = scenario;
    let status = tokio::task::spawn_blocking(move || server.stop(Duration::from_secs(120))).await??;
    ensure!(status.success(), "{status}");
    Ok(())
}
