//! What operators see: the admin port, the health service, metrics, `system` tables, EXPLAIN.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value as Json;
use thermocline_tests::lake::LakeFile;
use thermocline_tests::oracle::{HotVersion, Stored};
use thermocline_tests::scenario::{LakeKind, Scenario, live};
use thermocline_tests::server::Server;

use crate::{thing, things};

async fn scenario() -> Result<Scenario> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", (0..50).map(|n| live(n, 10, thing("base", 1))).collect()),
        LakeFile::delta(&entity, "a.parquet", (40..60).map(|n| live(n, 20, thing("delta", 2))).collect()),
    ];
    stored.hot =
        (55..70).map(|n| HotVersion { version: live(n, 30, thing("hot", 3)), dirty: true, has_main: true }).collect();
    Scenario::start(vec![stored], LakeKind::Local).await
}

/// Status and body of an answer of the admin port.
pub(crate) async fn get(server: &Server, path: &str) -> Result<(u16, String)> {
    server.admin_get(path).await
}

#[tokio::test]
async fn the_admin_port_tells_health_and_metrics() -> Result<()> {
    let scenario = scenario().await?;
    assert_eq!(get(&scenario.server, "/livez").await?.0, 200);
    let (status, body) = get(&scenario.server, "/readyz").await?;
    assert_eq!(status, 200, "{body}");
    for source in ["postgres", "lake", "duckdb"] {
        assert!(body.contains(source), "{body}");
    }
    let answer = scenario.client.query("SELECT n FROM things").await?;
    assert_eq!(answer.row_count(), 70);
    scenario.client.refusal("SELECT nothing FROM things").await;
    let (status, metrics) = get(&scenario.server, "/metrics").await?;
    assert_eq!(status, 200, "{metrics}");
    for line in [
        r#"fed_query_latency_histogram_count{stage="translation"} 1"#,
        r#"fed_query_latency_histogram_count{stage="execution"} 1"#,
        r#"fed_query_latency_histogram_count{stage="streaming"} 1"#,
        r#"fed_query_row_count{source="pg"} 15"#,
        r#"fed_query_row_count{source="duckdb"} 70"#,
        "fed_query_pushdown_efficiency_count 1",
        r#"fed_query_errors{kind="invalid_query"} 1"#,
        r#"fed_breaker_state{source="postgres"} 0"#,
        "fed_sent_rows 70",
        "fed_queries_in_flight 0",
        "fed_queries_queued 0",
        "fed_lake_cached_footers 2",
        r#"fed_postgres_pool_connections{state="max"} 16"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    }
    Ok(())
}

#[tokio::test]
async fn readiness_names_the_source_that_is_down() -> Result<()> {
    let scenario = scenario().await?;
    std::fs::remove_dir_all(scenario.lake.folder().context("a local lake")?)?;
    tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let (status, body) = get(&scenario.server, "/readyz").await?;
            if status == 503 {
                ensure!(body.contains("\"reason\": \"lake file://"), "{body}");
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await??;
    // Alive all the same: a restart mends nothing.
    assert_eq!(get(&scenario.server, "/livez").await?.0, 200);
    let health = scenario.client.query("SELECT source FROM system.health WHERE status = 'down'").await?;
    assert!(health.row_count() == 1 && health.text().contains("lake"), "{}", health.text());
    Ok(())
}

#[tokio::test]
async fn the_system_tables_tell_what_the_server_did_and_holds() -> Result<()> {
    let scenario = scenario().await?;
    scenario.client.query("SELECT n FROM things WHERE n > 1").await?;
    scenario.client.refusal("SELECT nothing FROM things").await;
    let queries = scenario
        .client
        .query(
            "SELECT query_id FROM system.queries WHERE state = 'finished' AND route = 'federated' AND \"rows\" = 30 \
             AND translation_ms >= 0 AND total_ms > 0 AND (plan->>'$.query_id') = query_id AND error IS NULL",
        )
        .await?;
    assert_eq!(queries.row_count(), 1);
    let tiers = scenario
        .client
        .query(
            "SELECT tier FROM system.tiers WHERE entity = 'things' AND lag_seconds > 0 \
             AND (tier, \"rows\", coalesce(files, 0)) IN (('hot', 15, 0), ('warm', 20, 1), ('cold', 50, 1))",
        )
        .await?;
    assert_eq!(tiers.row_count(), 3);
    let files = scenario
        .client
        .query("SELECT path FROM system.files WHERE bytes > 0 AND max_changed_at IS NOT NULL ORDER BY path")
        .await?;
    assert_eq!(files.row_count(), 2);
    let health = scenario.client.query("SELECT * FROM system.health WHERE status = 'ok'").await?;
    assert_eq!(health.row_count(), 3);
    Ok(())
}

#[tokio::test]
async fn explain_reads_well_and_analyze_measures() -> Result<()> {
    let scenario = scenario().await?;
    let plan = scenario.client.query("EXPLAIN SELECT n FROM things WHERE n > 1").await?.text();
    for part in ["federated_plan|federated (", "things", "merge", "warm from parquet: 1 of 1 files", "pushed: "] {
        assert!(plan.contains(part), "no {part} in\n{plan}");
    }
    assert!(!plan.contains("executed:"), "{plan}");
    let plan = scenario.client.query("EXPLAIN ANALYZE SELECT n FROM things WHERE n > 1").await?.text();
    for part in ["executed: 30 rows", "hot: 15 rows scanned, 15 returned", "analyzed_plan|", "READ_PARQUET"] {
        assert!(plan.contains(part), "no {part} in\n{plan}");
    }
    let hot = scenario.client.with_option("tiers", "hot");
    let plan = hot.query("EXPLAIN ANALYZE SELECT n FROM things WHERE n > 1").await?.text();
    assert!(plan.contains("executed: 15 rows") && !plan.contains("analyzed_plan"), "{plan}");
    Ok(())
}

/// Rows of each source are what DuckDB and PostgreSQL counted.
#[tokio::test]
async fn figures_of_the_sources_are_measured() -> Result<()> {
    let scenario = scenario().await?;
    // Base rows are n = 1, delta rows n = 2: the filter reaches both scans.
    let answer = scenario.client.with_option("tiers", "warm,cold").query("SELECT n FROM things WHERE n = 2").await?;
    assert_eq!(answer.row_count(), 20);
    let sources = &answer.final_plan["execution"]["sources"];
    assert_eq!(sources[0]["tier"], "warm", "{sources:#}");
    assert_eq!(sources[0]["rows_scanned"], 20, "{sources:#}");
    assert!(sources[0]["rows_returned"].as_u64() >= Some(20), "{sources:#}");
    assert!(sources[0]["ms"].is_number(), "{sources:#}");
    // DuckDB alone can evaluate the condition: all 15 hot rows come, one stays.
    let sql = "SELECT n FROM things WHERE row_id = (SELECT max(row_id) FROM things)";
    let answer = scenario.client.query(sql).await?;
    assert_eq!(answer.row_count(), 1);
    assert_eq!(answer.final_plan["execution"]["sources"][0]["rows_returned"], 15);
    Ok(())
}

/// What of JSON Schema `docs/plan.schema.json` uses; a keyword that isn't known here is a fault.
fn schema_faults(root: &Json, schema: &Json, value: &Json, at: &str, faults: &mut Vec<String>) {
    for (keyword, wanted) in schema.as_object().expect("a schema is an object") {
        match keyword.as_str() {
            "$schema" | "title" | "$defs" => {}
            "$ref" => {
                let pointer = wanted.as_str().expect("text").trim_start_matches('#');
                schema_faults(root, root.pointer(pointer).expect("a definition"), value, at, faults);
            }
            "const" => {
                if value != wanted {
                    faults.push(format!("{at} is {value}, not {wanted}"));
                }
            }
            "enum" => {
                if !wanted.as_array().expect("a list").contains(value) {
                    faults.push(format!("{at} is {value}, none of {wanted}"));
                }
            }
            "type" => {
                let found = match value {
                    Json::Null => "null",
                    Json::Bool(_) => "boolean",
                    Json::Number(number) if number.is_f64() => "number",
                    Json::Number(_) => "integer",
                    Json::String(_) => "string",
                    Json::Array(_) => "array",
                    Json::Object(_) => "object",
                };
                let names = wanted.as_array().cloned().unwrap_or_else(|| vec![wanted.clone()]);
                if !names.iter().any(|name| name == found || (name == "number" && found == "integer")) {
                    faults.push(format!("{at} is {found}, not {wanted}"));
                }
            }
            "required" => {
                for key in wanted.as_array().expect("a list").iter().filter_map(Json::as_str) {
                    if value.get(key).is_none() {
                        faults.push(format!("{at} has no {key}"));
                    }
                }
            }
            "properties" | "additionalProperties" => {
                for (key, inner) in value.as_object().into_iter().flatten() {
                    match schema["properties"].get(key) {
                        Some(schema) if keyword == "properties" => {
                            schema_faults(root, schema, inner, &format!("{at}.{key}"), faults);
                        }
                        None if *wanted == false => faults.push(format!("{at}.{key} isn't in the schema")),
                        Some(_) | None => {}
                    }
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    schema_faults(root, wanted, item, &format!("{at}[{index}]"), faults);
                }
            }
            unknown => faults.push(format!("the schema's keyword {unknown} isn't checked")),
        }
    }
}

#[tokio::test]
async fn plans_follow_their_schema() -> Result<()> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/plan.schema.json"))?;
    let schema: Json = serde_json::from_str(&text)?;
    let scenario = scenario().await?;
    for tiers in ["hot", "warm,cold", "hot,warm,cold"] {
        for sql in [
            "SELECT n FROM things WHERE n > 1 AND note LIKE 'note%'",
            "SELECT a.n, count(*) FROM things a JOIN things b USING (row_id) GROUP BY ALL",
            "SELECT count(*) FROM things",
            "SELECT * FROM system.options",
            "DESCRIBE things",
            "EXPLAIN SELECT n FROM things",
        ] {
            let answer = scenario.client.with_option("tiers", tiers).query(sql).await?;
            for plan in [&answer.plan, &answer.final_plan] {
                let mut faults = Vec::new();
                schema_faults(&schema, &schema, plan, "plan", &mut faults);
                assert!(faults.is_empty(), "{sql} with tiers={tiers}: {faults:#?}\n{plan:#}");
            }
            assert!(answer.final_plan.get("execution").is_some(), "{sql}");
        }
    }
    Ok(())
}

/// A collector that can't be reached, and one that takes connections and never answers, cost a query nothing.
#[tokio::test]
async fn a_dead_collector_changes_nothing() -> Result<()> {
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let addresses = [format!("http://{}", silent.local_addr()?), "http://127.0.0.1:1".to_owned()];
    for address in addresses {
        let mut stored = Stored::new(&things());
        stored.files = vec![LakeFile::base(&things(), "a.parquet", vec![live(1, 10, thing("base", 1))])];
        let scenario = Scenario::start_with(vec![stored], LakeKind::Local, |config| {
            config.with("telemetry", "otlp_endpoint", address.clone())
        })
        .await?;
        let started = std::time::Instant::now();
        for _ in 0..20 {
            assert_eq!(scenario.client.query("SELECT n FROM things").await?.row_count(), 1);
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        let Scenario { server, client, lake: _lake, database: _database, .. } = scenario;
        drop(client);
        let status = tokio::task::spawn_blocking(move || server.stop(Duration::from_secs(30))).await??;
        assert!(status.success(), "{status}");
    }
    Ok(())
}

/// A collector that keeps the bytes of all it gets; names and ids stand in them as they are.
async fn collector() -> Result<(String, Arc<Mutex<Vec<u8>>>)> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let got = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&got);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            let answer = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let kept = Arc::clone(&kept);
                async move {
                    let body = request.into_body().collect().await?.to_bytes();
                    kept.lock().unwrap().extend_from_slice(&body);
                    let trailers = [("grpc-status", "0")].into_iter();
                    let trailers = trailers
                        .map(|(name, value)| {
                            (
                                hyper::header::HeaderName::from_static(name),
                                hyper::header::HeaderValue::from_static(value),
                            )
                        })
                        .collect();
                    // An empty message and a good end.
                    let frames = [
                        Ok::<_, hyper::Error>(Frame::data(bytes::Bytes::from_static(&[0; 5]))),
                        Ok(Frame::trailers(trailers)),
                    ];
                    let mut response = hyper::Response::new(StreamBody::new(futures::stream::iter(frames)));
                    let kind = hyper::header::HeaderValue::from_static("application/grpc");
                    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
                    Ok::<_, hyper::Error>(response)
                }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), answer));
        }
    });
    Ok((address, got))
}

#[tokio::test]
async fn a_collector_gets_the_callers_trace_and_the_metrics() -> Result<()> {
    let (address, got) = collector().await?;
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![LakeFile::base(&entity, "a.parquet", (0..9).map(|n| live(n, 10, thing("base", 1))).collect())];
    stored.hot = vec![HotVersion { version: live(9, 30, thing("hot", 3)), dirty: true, has_main: true }];
    let scenario = Scenario::start_with(vec![stored], LakeKind::Local, |mut config| {
        for name in ["OTEL_METRIC_EXPORT_INTERVAL", "OTEL_BSP_SCHEDULE_DELAY"] {
            config.env.push((name.to_owned(), "200".to_owned()));
        }
        config.with("telemetry", "otlp_endpoint", address).with("telemetry", "service_name", "measured-server")
    })
    .await?;
    let trace = uuid::Uuid::new_v4();
    let parent = format!("00-{}-00f067aa0ba902b7-01", trace.simple());
    assert_eq!(
        scenario.client.with_header("traceparent", &parent).query("SELECT n FROM things").await?.row_count(),
        10
    );
    let wanted: Vec<&[u8]> = vec![
        trace.as_bytes(),
        b"measured-server",
        b"query",
        b"translate",
        b"plan",
        b"snapshot",
        b"list",
        b"execute",
        b"stream",
        b"fed_query_latency_histogram",
        b"fed_query_row_count",
        b"fed_query_pushdown_efficiency",
    ];
    let missing = || {
        let got = got.lock().unwrap();
        let missing = wanted.iter().filter(|part| !got.windows(part.len()).any(|window| window == **part));
        missing.map(|part| String::from_utf8_lossy(part).into_owned()).collect::<Vec<_>>()
    };
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while !missing().is_empty() {
        ensure!(std::time::Instant::now() < until, "the collector got no {:?}", missing());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
