//! What leaves by OTLP: names, labels, units, values, spans and logs, as a collector decodes them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use thermocline_tests::client::Answer;
use thermocline_tests::collector::{Collector, OtlpProtocol, Received, attribute};
use thermocline_tests::lake::LakeFile;
use thermocline_tests::oracle::{HotVersion, Stored};
use thermocline_tests::scenario::{LakeKind, Scenario, live};
use thermocline_tests::server::ServerConfig;

use crate::{thing, things};

/// 50 base rows, 20 delta rows of which 10 supersede base rows, and 15 hot rows of which 5 supersede delta rows: 70 rows.
async fn scenario(configure: impl FnOnce(ServerConfig) -> ServerConfig) -> Result<Scenario> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", (0..50).map(|n| live(n, 10, thing("base", 1))).collect()),
        LakeFile::delta(&entity, "a.parquet", (40..60).map(|n| live(n, 20, thing("delta", 2))).collect()),
    ];
    stored.hot =
        (55..70).map(|n| HotVersion { version: live(n, 30, thing("hot", 3)), dirty: true, has_main: true }).collect();
    Scenario::start_with(vec![stored], LakeKind::Local, configure).await
}

/// Telemetry is sent at once, not every minute, and given up late: what wasn't sent in time isn't sent again.
fn promptly(config: ServerConfig) -> ServerConfig {
    let mut config = config.with("telemetry", "otlp_timeout", "10m");
    for name in ["OTEL_METRIC_EXPORT_INTERVAL", "OTEL_BSP_SCHEDULE_DELAY", "OTEL_BLRP_SCHEDULE_DELAY"] {
        config.env.push((name.to_owned(), "100".to_owned()));
    }
    config
}

const PARENT_SPAN: &str = "00f067aa0ba902b7";

#[tokio::test]
async fn a_grpc_collector_gets_spans_metrics_and_logs() -> Result<()> {
    collector_gets_everything(OtlpProtocol::Grpc).await
}

#[tokio::test]
async fn an_http_collector_gets_spans_metrics_and_logs() -> Result<()> {
    collector_gets_everything(OtlpProtocol::HttpProtobuf).await
}

async fn collector_gets_everything(protocol: OtlpProtocol) -> Result<()> {
    let collector = Collector::start(protocol).await?;
    let scenario = scenario(|config| {
        promptly(config)
            .with("telemetry", "otlp_endpoint", collector.endpoint())
            .with("telemetry", "otlp_protocol", protocol.as_str())
            .with("telemetry", "otlp_headers", "authorization=Bearer%20s3cret")
            .with("telemetry", "service_name", "measured-server")
    })
    .await?;
    let trace = *uuid::Uuid::new_v4().as_bytes();
    let parent = format!("00-{}-{PARENT_SPAN}-01", hex(&trace));
    let client = scenario.client.with_header("traceparent", &parent);
    let answer = client.query("SELECT n FROM things WHERE n + 0 > 0").await?;
    assert_eq!(answer.row_count(), 70);
    scenario.client.refusal("SELECT nothing FROM things").await;

    collector.until(|received| spans_are_those_of(received, &trace, &answer)).await?;
    collector.until(|received| log_is_that_of(received, &trace, &answer)).await?;
    collector.until(|received| metrics_are_those_of(received, &answer)).await?;
    let received = collector.received();
    assert!(received.authorizations.iter().all(|value| value == "Bearer s3cret"), "{:?}", received.authorizations);
    assert!(!received.authorizations.is_empty());
    for resource in &received.resources {
        assert_eq!(attribute(&resource.attributes, "service.name"), "measured-server");
        assert!(!attribute(&resource.attributes, "service.version").is_empty());
    }
    assert!(!scenario.server.log()?.contains("s3cret"));
    Ok(())
}

/// One trace: the caller's span over one call each, the query's span under DoGet, and its stages under that.
fn spans_are_those_of(received: &Received, trace: &[u8], answer: &Answer) -> Result<()> {
    let calls: BTreeMap<String, &Span> = received
        .spans
        .iter()
        .filter(|span| span.trace_id == trace && span.name == "call")
        .map(|span| (attribute(&span.attributes, "rpc.method"), span))
        .collect();
    ensure!(calls.keys().eq(["DoGet", "GetFlightInfo"]), "calls: {:?}", calls.keys());
    for call in calls.values() {
        ensure!(hex(&call.parent_span_id) == PARENT_SPAN, "the caller's span is the parent: {call:?}");
        ensure!(call.kind() == SpanKind::Server, "{call:?}");
    }
    let query = received.span(trace, "query")?;
    let query_id = answer.plan["query_id"].as_str().context("a query id")?;
    for (name, value) in [("query_id", query_id), ("route", "federated"), ("rows", "70"), ("outcome", "finished")] {
        ensure!(attribute(&query.attributes, name) == value, "{name} of {query:?}");
    }
    let info = received.span(trace, "query_info")?;
    ensure!(attribute(&info.attributes, "query_id") == query_id, "{info:?}");
    ensure!(info.parent_span_id == calls["GetFlightInfo"].span_id, "{info:?}");

    // GetFlightInfo has stages of the same names.
    let stage = |name: &str, parent: &Span| -> Result<&Span> {
        let mut found = received
            .spans
            .iter()
            .filter(|span| span.trace_id == trace && span.name == name && span.parent_span_id == parent.span_id);
        let span = found.next().with_context(|| format!("no {name} under {}", parent.name))?;
        ensure!(found.next().is_none(), "several {name} under {}", parent.name);
        ensure!(span.start_time_unix_nano >= parent.start_time_unix_nano, "{name} begins before {}", parent.name);
        ensure!(span.end_time_unix_nano <= parent.end_time_unix_nano, "{name} outlives {}", parent.name);
        Ok(span)
    };
    ensure!(query.parent_span_id == calls["DoGet"].span_id, "{query:?}");
    let translate = stage("translate", query)?;
    let plan = stage("plan", query)?;
    let snapshot = stage("snapshot", plan)?;
    let list = stage("list", plan)?;
    let execute = stage("execute", query)?;
    let stream = stage("stream", query)?;
    for (earlier, later) in
        [(translate, plan), (plan, execute), (execute, stream), (snapshot, execute), (list, execute)]
    {
        ensure!(earlier.end_time_unix_nano <= later.end_time_unix_nano, "{} ends after {}", earlier.name, later.name);
    }
    let wanted = [
        (plan, "route", "federated"),
        (plan, "dirty_rows", "15"),
        (plan, "files_total", "2"),
        (plan, "files_scanned", "2"),
        (plan, "degraded", "false"),
        (list, "entities", "1"),
        (list, "files", "2"),
        (stream, "rows", "70"),
        (stream, "truncated", "false"),
    ];
    for (span, name, value) in wanted {
        ensure!(attribute(&span.attributes, name) == value, "{name} of {span:?}");
    }
    stage("translate", info)?;
    stage("plan", info)?;
    Ok(())
}

/// The log line of a finished query stands in its trace and says its id.
fn log_is_that_of(received: &Received, trace: &[u8], answer: &Answer) -> Result<()> {
    let query = received.span(trace, "query")?;
    let said = |record: &&opentelemetry_proto::tonic::logs::v1::LogRecord| {
        format!("{:?}", record.body).contains("query finished") && record.trace_id == trace
    };
    let record = received.logs.iter().find(said).context("no log line of the query")?;
    let query_id = answer.plan["query_id"].as_str().context("a query id")?;
    ensure!(attribute(&record.attributes, "query_id") == query_id, "{record:?}");
    ensure!(record.severity_text == "INFO", "{record:?}");
    let inside = received.spans.iter().find(|span| span.span_id == record.span_id).context("the line's span")?;
    ensure!(inside.parent_span_id == query.span_id, "the line is inside a stage of the query: {record:?}");
    Ok(())
}

/// Name, kind, unit, labels and values of every metric, against what was asked.
fn metrics_are_those_of(received: &Received, answer: &Answer) -> Result<()> {
    let execution = &answer.final_plan["execution"];
    let sources = execution["sources"].as_array().context("sources")?;
    let rows_of_files: f64 = sources
        .iter()
        .filter(|source| source["tier"] != "hot")
        .filter_map(|source| source["rows_returned"].as_f64())
        .sum();
    let number = |value: &serde_json::Value| value.as_f64().context("a number");
    let efficiency = number(&execution["pushdown_efficiency"])?;
    let counters: [(&str, &[(&str, f64)]); 7] = [
        ("fed_query_row_count", &[("source=duckdb", 70.0), ("source=pg", 15.0), ("source=s3", rows_of_files)]),
        ("fed_query_count", &[("outcome=finished,route=federated", 1.0)]),
        ("fed_query_errors", &[("kind=invalid_query", 1.0)]),
        ("fed_sent_rows", &[("", 70.0)]),
        ("fed_sent_bytes", &[("", number(&execution["bytes"])?)]),
        ("fed_query_degraded", &[("", 0.0)]),
        ("fed_query_warnings", &[("", 0.0)]),
    ];
    for (name, wanted) in counters {
        let found = counter(received.metric(name)?)?;
        let wanted: BTreeMap<String, f64> =
            wanted.iter().map(|(labels, value)| ((*labels).to_owned(), *value)).collect();
        ensure!(found == wanted, "{name} is {found:?}, not {wanted:?}");
    }
    // Each file is read once; whoever asks again is served from memory, the gauges of entities too.
    let footers = counter(received.metric("fed_lake_footer_lookups")?)?;
    ensure!(footers["outcome=miss"] == 2.0 && footers["outcome=hit"] >= 2.0, "{footers:?}");
    let gauges: [(&str, &[(&str, f64)]); 5] = [
        ("fed_queries_in_flight", &[("", 0.0)]),
        ("fed_queries_queued", &[("", 0.0)]),
        ("fed_breaker_state", &[("source=lake", 0.0), ("source=postgres", 0.0)]),
        ("fed_lake_cached_footers", &[("", 2.0)]),
        ("fed_postgres_pool_connections", &[("state=max", 16.0), ("state=waiting", 0.0)]),
    ];
    for (name, wanted) in gauges {
        let found = gauge(received.metric(name)?)?;
        for (labels, value) in wanted {
            ensure!(found.get(*labels) == Some(value), "{name} is {found:?}");
        }
    }
    let latency = received.metric("fed_query_latency_histogram")?;
    ensure!(latency.unit == "ms", "{latency:?}");
    let found = histogram(latency)?;
    let stages: Vec<(&str, u64)> = found.iter().map(|(labels, (count, _))| (labels.as_str(), *count)).collect();
    ensure!(stages == [("stage=execution", 1), ("stage=streaming", 1), ("stage=translation", 1)], "{stages:?}");
    let translation = number(&answer.final_plan["timings_ms"]["translation"])?;
    ensure!((found["stage=translation"].1 - translation).abs() < 60_000.0, "{found:?}");
    ensure!(found["stage=execution"].1 > 0.0, "{found:?}");
    let found = histogram(received.metric("fed_query_pushdown_efficiency")?)?;
    ensure!(found == BTreeMap::from([(String::new(), (1, efficiency))]), "{found:?} is not {efficiency}");

    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md"))?;
    for metric in &received.metrics {
        ensure!(metric.name.starts_with("fed_") && !metric.description.is_empty(), "{metric:?}");
        ensure!(page.contains(&format!("`{}`", metric.name)), "docs/operations.md lacks {}", metric.name);
    }
    Ok(())
}

/// OpenTelemetry's variables go before the configuration, those of a signal before the general ones.
#[tokio::test]
async fn variables_go_before_the_configuration() -> Result<()> {
    let (general, metrics) =
        (Collector::start(OtlpProtocol::HttpProtobuf).await?, Collector::start(OtlpProtocol::Grpc).await?);
    let scenario = scenario(|config| {
        let mut config = promptly(config)
            .with("telemetry", "otlp_endpoint", "http://127.0.0.1:1")
            .with("telemetry", "otlp_protocol", "grpc")
            .with("telemetry", "otlp_headers", "authorization=of-the-file")
            .with("telemetry", "service_name", "of-the-file");
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", general.endpoint()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=of-the-variable"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", metrics.endpoint()),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "600000"),
            ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "soon"),
            ("OTEL_SERVICE_NAME", "of-the-variable"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team=blue,service.name=of-the-attributes"),
            ("OTEL_LOGS_EXPORTER", "none"),
        ] {
            config.env.push((name.to_owned(), value.to_owned()));
        }
        config
    })
    .await?;
    assert_eq!(scenario.client.query("SELECT n FROM things").await?.row_count(), 70);
    general
        .until(|received| received.spans.iter().find(|span| span.name == "query").map(drop).context("no span"))
        .await?;
    metrics.until(|received| received.metric("fed_sent_rows").map(drop)).await?;
    for collector in [&general, &metrics] {
        let received = collector.received();
        assert!(
            received.authorizations.iter().all(|value| value == "of-the-variable"),
            "{:?}",
            received.authorizations
        );
        assert!(!received.resources.is_empty() && received.logs.is_empty());
        for resource in &received.resources {
            assert_eq!(attribute(&resource.attributes, "service.name"), "of-the-variable");
            assert_eq!(attribute(&resource.attributes, "team"), "blue");
        }
    }
    assert!(general.received().metrics.is_empty() && metrics.received().spans.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_disabled_sdk_sends_nothing_and_metrics_can_be_scraped_all_the_same() -> Result<()> {
    let collector = Collector::start(OtlpProtocol::Grpc).await?;
    let scenario = scenario(|config| {
        let mut config = promptly(config).with("telemetry", "otlp_endpoint", collector.endpoint());
        config.env.push(("OTEL_SDK_DISABLED".to_owned(), "true".to_owned()));
        config
    })
    .await?;
    scenario.client.query("SELECT n FROM things").await?;
    let address = scenario.server.admin_address()?;
    let (_, text) = thermocline_tests::server::http_get(&address, "/metrics").await?;
    assert!(text.contains("fed_sent_rows 70"), "{text}");
    // Whatever waited would be sent at the end.
    let Scenario { server, client, .. } = scenario;
    drop(client);
    let status = tokio::task::spawn_blocking(move || server.stop(Duration::from_secs(120))).await??;
    assert!(status.success(), "{status}");
    let received = collector.received();
    assert!(received.spans.is_empty() && received.metrics.is_empty() && received.logs.is_empty());
    Ok(())
}

/// A collector that can't be reached, and one that takes connections and never answers, change nothing for a query.
#[tokio::test]
async fn a_dead_or_hanging_collector_changes_nothing() -> Result<()> {
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    for address in [format!("http://{}", silent.local_addr()?), "http://127.0.0.1:1".to_owned()] {
        for protocol in [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf] {
            let scenario = scenario(|config| {
                promptly(config).with("telemetry", "otlp_endpoint", address.clone()).with(
                    "telemetry",
                    "otlp_protocol",
                    protocol.as_str(),
                )
            })
            .await?;
            let started = std::time::Instant::now();
            for _ in 0..20 {
                assert_eq!(scenario.client.query("SELECT n FROM things").await?.row_count(), 70);
            }
            // An export may take ten minutes; one query that waited for one would show.
            assert!(started.elapsed() < Duration::from_secs(300), "{:?}", started.elapsed());
            let Scenario { server, client, .. } = scenario;
            drop(client);
            let status = tokio::task::spawn_blocking(move || server.stop(Duration::from_secs(120))).await??;
            assert!(status.success(), "{status}");
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Labels as `name=value,name=value`, by name.
fn labels(attributes: &[KeyValue]) -> String {
    let sorted: BTreeMap<&str, String> =
        attributes.iter().map(|label| (label.key.as_str(), attribute(attributes, &label.key))).collect();
    sorted.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

fn points(points: &[opentelemetry_proto::tonic::metrics::v1::NumberDataPoint]) -> Result<BTreeMap<String, f64>> {
    let value = |value: Option<number_data_point::Value>| match value {
        Some(number_data_point::Value::AsDouble(value)) => Ok(value),
        Some(number_data_point::Value::AsInt(value)) => Ok(value as f64),
        None => anyhow::bail!("a point without a value"),
    };
    points.iter().map(|point| Ok((labels(&point.attributes), value(point.value)?))).collect()
}

fn counter(metric: &Metric) -> Result<BTreeMap<String, f64>> {
    match &metric.data {
        Some(Data::Sum(sum)) if sum.is_monotonic => {
            ensure!(sum.aggregation_temporality() == AggregationTemporality::Cumulative, "{metric:?}");
            points(&sum.data_points)
        }
        _ => anyhow::bail!("no counter: {metric:?}"),
    }
}

fn gauge(metric: &Metric) -> Result<BTreeMap<String, f64>> {
    match &metric.data {
        Some(Data::Gauge(gauge)) => points(&gauge.data_points),
        _ => anyhow::bail!("no gauge: {metric:?}"),
    }
}

/// Count and sum by labels.
fn histogram(metric: &Metric) -> Result<BTreeMap<String, (u64, f64)>> {
    match &metric.data {
        Some(Data::Histogram(histogram)) => {
            let points = histogram.data_points.iter();
            Ok(points.map(|point| (labels(&point.attributes), (point.count, point.sum.unwrap_or(f64::NAN)))).collect())
        }
        _ => anyhow::bail!("no histogram: {metric:?}"),
    }
}
