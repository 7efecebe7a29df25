//! A server's life as its operators drive it: health, reflection, signals, draining, what it logs.

use std::time::Duration;

use anyhow::{Context, Result};
use arrow_flight::Criteria;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use futures::TryStreamExt;
use prost::Message;
use prost_types::FileDescriptorProto;
use serde_json::Value as Json;
use thermocline_tests::client::{Client, first_ticket};
use thermocline_tests::lake::LakeFile;
use thermocline_tests::oracle::Stored;
use thermocline_tests::scenario::{LakeKind, Scenario, live};
use thermocline_tests::server::{Server, ServerConfig, http_get, run};
use thermocline_tests::until;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::{thing, things};

async fn scenario(configure: impl FnOnce(ServerConfig) -> ServerConfig) -> Result<Scenario> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![LakeFile::base(&entity, "a.parquet", (0..9).map(|n| live(n, 10, thing("base", 1))).collect())];
    Scenario::start_with(vec![stored], LakeKind::Local, configure).await
}

async fn channel(server: &Server) -> Result<Channel> {
    Ok(Channel::from_shared(server.endpoint().to_owned())?.connect().await?)
}

async fn watch(server: &Server, service: &str) -> Result<tonic::Streaming<HealthCheckResponse>> {
    let request = HealthCheckRequest { service: service.to_owned() };
    Ok(HealthClient::new(channel(server).await?).watch(request).await?.into_inner())
}

/// Waits until the health service says so.
async fn watched(watch: &mut tonic::Streaming<HealthCheckResponse>, wanted: ServingStatus) -> Result<()> {
    let wait = async {
        while let Some(said) = watch.message().await? {
            if said.status() == wanted {
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended before it said {wanted:?}")
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.with_context(|| format!("no {wanted:?} in time"))?
}

#[tokio::test]
async fn the_health_service_checks_and_watches() -> Result<()> {
    let scenario = scenario(|config| config).await?;
    let (mut all, mut lake) = (watch(&scenario.server, "").await?, watch(&scenario.server, "lake").await?);
    watched(&mut all, ServingStatus::Serving).await?;
    watched(&mut lake, ServingStatus::Serving).await?;
    let folder = scenario.lake.folder().context("a local lake")?;
    let aside = folder.with_extension("aside");
    std::fs::rename(folder, &aside)?;
    watched(&mut lake, ServingStatus::NotServing).await?;
    watched(&mut all, ServingStatus::NotServing).await?;
    let mut health = HealthClient::new(channel(&scenario.server).await?);
    for (service, status) in
        [("postgres", ServingStatus::Serving), ("duckdb", ServingStatus::Serving), ("lake", ServingStatus::NotServing)]
    {
        // A probe that takes long on a busy machine counts as failed.
        until(service, async || {
            let answer = health.check(HealthCheckRequest { service: service.to_owned() }).await?.into_inner();
            Ok(answer.status() == status)
        })
        .await?;
    }
    let unknown = health.check(HealthCheckRequest { service: "nobody".to_owned() }).await.expect_err("no such service");
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    std::fs::rename(&aside, folder)?;
    watched(&mut lake, ServingStatus::Serving).await?;
    watched(&mut all, ServingStatus::Serving).await?;
    Ok(())
}

#[tokio::test]
async fn reflection_describes_flight_and_health() -> Result<()> {
    let scenario = scenario(|config| config).await?;
    let mut client = ServerReflectionClient::new(channel(&scenario.server).await?);
    let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let questions = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("arrow.flight.protocol.FlightService".to_owned())),
        ask(MessageRequest::FileContainingSymbol("arrow.flight.protocol.FlightInfo".to_owned())),
        ask(MessageRequest::FileContainingSymbol("grpc.health.v1.Health".to_owned())),
        ask(MessageRequest::FileByFilename("google/protobuf/timestamp.proto".to_owned())),
    ];
    let answers = client.server_reflection_info(futures::stream::iter(questions)).await?.into_inner();
    let answers: Vec<_> = answers.map_ok(|answer| answer.message_response).try_collect().await?;
    let Some(MessageResponse::ListServicesResponse(listed)) = &answers[0] else { panic!("{:?}", answers[0]) };
    let names: Vec<&str> = listed.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["arrow.flight.protocol.FlightService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]
    {
        assert!(names.contains(&name), "{names:?}");
    }
    let files: Vec<FileDescriptorProto> = answers[1..]
        .iter()
        .map(|answer| match answer {
            Some(MessageResponse::FileDescriptorResponse(file)) => {
                Ok(FileDescriptorProto::decode(file.file_descriptor_proto[0].as_slice())?)
            }
            other => anyhow::bail!("{other:?}"),
        })
        .collect::<Result<_>>()?;
    let names: Vec<&str> = files.iter().map(FileDescriptorProto::package).collect();
    assert_eq!(names, ["arrow.flight.protocol", "arrow.flight.protocol", "grpc.health.v1", "google.protobuf"]);
    let methods: Vec<&str> = files[0].service[0].method.iter().map(prost_types::MethodDescriptorProto::name).collect();
    assert_eq!(
        methods,
        [
            "Handshake",
            "ListFlights",
            "GetFlightInfo",
            "PollFlightInfo",
            "GetSchema",
            "DoGet",
            "DoPut",
            "DoExchange",
            "DoAction",
            "ListActions"
        ]
    );
    Ok(())
}

/// A stream that nobody reads yet: the server can't finish it before somebody does.
const LONG: &str = "SELECT i FROM range(5000000) t(i)";

#[tokio::test]
async fn sigterm_lets_running_queries_finish_and_takes_no_more() -> Result<()> {
    let scenario = scenario(|config| config.with("server", "drain_limit", "10m")).await?;
    let admin = scenario.server.admin_address()?;
    let mut health = watch(&scenario.server, "").await?;
    watched(&mut health, ServingStatus::Serving).await?;
    assert_eq!(http_get(&admin, "/readyz").await?.0, 200);
    let info = scenario.client.info(LONG).await?;
    let ticket = info.endpoint[0].ticket.clone().context("a ticket")?;
    let stream = scenario.client.do_get(ticket).await?;
    scenario.server.signal("TERM")?;
    watched(&mut health, ServingStatus::NotServing).await?;
    let (status, body) = http_get(&admin, "/readyz").await?;
    assert_eq!(status, 503, "{body}");
    let body: Json = serde_json::from_str(&body)?;
    assert_eq!((&body["ready"], &body["draining"]), (&Json::Bool(false), &Json::Bool(true)), "{body}");
    assert_eq!(http_get(&admin, "/livez").await?.0, 200);
    until("no new connection", async || Ok(Client::connect(scenario.server.endpoint()).await.is_err())).await?;
    until("no new query on the old connection", async || Ok(scenario.client.query("SELECT 1").await.is_err())).await?;
    let batches: Vec<_> =
        FlightRecordBatchStream::new_from_flight_data(stream.map_err(FlightError::from)).try_collect().await?;
    let rows: usize = batches.iter().map(arrow::array::RecordBatch::num_rows).sum();
    assert_eq!(rows, 5_000_000);
    let Scenario { server, .. } = scenario;
    let status = tokio::task::spawn_blocking(move || server.stop(Duration::from_secs(120))).await??;
    assert!(status.success(), "{status}");
    Ok(())
}

/// Somebody who watches the health service doesn't keep a server from its end.
#[tokio::test]
async fn a_watcher_does_not_hold_a_drain_up() -> Result<()> {
    let scenario = scenario(|config| config.with("server", "drain_limit", "10m")).await?;
    let mut health = watch(&scenario.server, "").await?;
    watched(&mut health, ServingStatus::Serving).await?;
    scenario.server.signal("TERM")?;
    watched(&mut health, ServingStatus::NotServing).await?;
    let Scenario { server, .. } = scenario;
    let status = tokio::task::spawn_blocking(move || server.stop(Duration::from_secs(120))).await??;
    assert!(status.success(), "{status}");
    Ok(())
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off_at_the_limit() -> Result<()> {
    let scenario = scenario(|config| config.with("server", "drain_limit", "500ms")).await?;
    let info = scenario.client.info(LONG).await?;
    let ticket = info.endpoint[0].ticket.clone().context("a ticket")?;
    let _unread = scenario.client.do_get(ticket).await?;
    scenario.server.signal("TERM")?;
    until("the log says that a query was cut off", async || {
        Ok(scenario.server.log()?.contains("queries still ran after server.drain_limit"))
    })
    .await?;
    let Scenario { server, .. } = scenario;
    let status = tokio::task::spawn_blocking(move || server.stop(Duration::from_secs(120))).await??;
    assert!(status.success(), "{status}");
    Ok(())
}

#[tokio::test]
async fn sighup_reads_the_log_level_again_and_a_bad_file_changes_nothing() -> Result<()> {
    let scenario = scenario(|config| config.with("telemetry", "log_level", "info")).await?;
    let (server, client) = (&scenario.server, &scenario.client);
    let path = server.config_path();
    let config = std::fs::read_to_string(&path)?;
    let finished = || Ok::<_, anyhow::Error>(server.log()?.matches("query finished").count());
    let ask = async || client.query("SELECT n FROM things").await;

    ask().await?;
    until("the query is logged", async || Ok(finished()? == 1)).await?;
    std::fs::write(&path, config.replace("\"info\"", "\"error\""))?;
    server.signal("HUP")?;
    // What is said of the reload itself is below the new level.
    until("nothing is logged any more", async || {
        let before = finished()?;
        ask().await?;
        Ok(finished()? == before)
    })
    .await?;
    for bad in
        [config.replace("\"info\"", "\"loud\""), config.replace("[telemetry]", "[telemetri]"), "= nothing".to_owned()]
    {
        let said = || Ok::<_, anyhow::Error>(server.log()?.matches("all settings stay as they were").count());
        let before = said()?;
        std::fs::write(&path, bad)?;
        server.signal("HUP")?;
        until("the bad file is reported", async || Ok(said()? == before + 1)).await?;
        let before = finished()?;
        assert_eq!(ask().await?.row_count(), 9);
        assert_eq!(finished()?, before, "the level is still `error`");
    }
    std::fs::write(&path, &config)?;
    server.signal("HUP")?;
    until("the old level is back", async || {
        Ok(server.log()?.contains("configuration, catalog, users, TLS and log level were reloaded"))
    })
    .await?;
    let before = finished()?;
    ask().await?;
    until("the query is logged again", async || Ok(finished()? > before)).await?;
    Ok(())
}

/// What FlightInfo promised is what DoGet sends, or DoGet sends nothing.
#[tokio::test]
async fn a_ticket_from_before_a_reload_is_refused_when_its_schema_changed() -> Result<()> {
    let scenario = scenario(|config| config).await?;
    let (server, client) = (&scenario.server, &scenario.client);
    let (all, n) = ("SELECT * FROM things", "SELECT n FROM things");
    let tickets = [first_ticket(client.info(all).await?)?, first_ticket(client.info(n).await?)?];
    let listed: Vec<_> =
        client.flight().list_flights(client.request(Criteria::default())).await?.into_inner().try_collect().await?;
    let path = server.dir().join("catalog.toml");
    let catalog = std::fs::read_to_string(&path)?;
    std::fs::write(&path, catalog.replacen("name = \"note\"", "name = \"remark\"", 1))?;
    server.signal("HUP")?;
    until("the catalog is reloaded", async || {
        Ok(client.info(all).await?.try_decode_schema()?.column_with_name("remark").is_some())
    })
    .await?;
    for ticket in [tickets[0].clone(), first_ticket(listed[0].clone())?] {
        let failure = client.do_get(ticket).await.expect_err("another schema");
        failure.expect(tonic::Code::InvalidArgument, &["plan the query again"]);
    }
    // The schema of this one is as it was.
    client.do_get(tickets[1].clone()).await?;
    assert_eq!(client.query(all).await?.row_count(), 9);
    Ok(())
}

/// A line of the log, at any level, names its query.
#[tokio::test]
async fn slow_queries_are_logged_with_sql_and_plan() -> Result<()> {
    let scenario = scenario(|config| {
        config.with("telemetry", "slow_query", "1ms").with("telemetry", "log_format", "json").with(
            "telemetry",
            "log_level",
            "warn",
        )
    })
    .await?;
    let sql = "SELECT n FROM things WHERE n + 0 = 1";
    let answer = scenario.client.query(sql).await?;
    let slow = || -> Result<Option<Json>> {
        let lines = scenario.server.log()?;
        let mut lines = lines.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
        Ok(lines.find(|line| line["target"] == "thermocline::slow_query"))
    };
    until("the slow query is logged", async || Ok(slow()?.is_some())).await?;
    let line = slow()?.context("a line")?;
    let fields = &line["fields"];
    assert_eq!(fields["sql"], sql);
    assert_eq!(fields["state"], "finished");
    assert_eq!(fields["rows"], 9);
    assert!(fields["total_ms"].as_f64() >= Some(1.0), "{line:#}");
    let plan: Json = serde_json::from_str(fields["plan"].as_str().context("a plan")?)?;
    assert_eq!(plan, answer.final_plan);
    assert_eq!(line["span"]["query_id"], answer.plan["query_id"], "{line:#}");
    Ok(())
}

#[tokio::test]
async fn an_address_that_others_reach_needs_words() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("thermocline.toml");
    let config = "[server]\nlisten = \"0.0.0.0:0\"\n[postgres]\nurl = \"postgresql://127.0.0.1:1/none\"\n[lake]\nurl = \"file:///nowhere\"\n";
    std::fs::write(&path, config)?;
    std::fs::write(directory.path().join("catalog.toml"), "")?;
    let output = run(&["serve", "--config", &path.display().to_string()]).await?;
    assert!(!output.success);
    assert!(!output.stdout.contains("listening"), "{}", output.stdout);
    for part in ["auth.anonymous", "can be reached from other machines", "anonymous = true"] {
        assert!(output.stderr.contains(part), "no {part} in {}", output.stderr);
    }
    Ok(())
}
