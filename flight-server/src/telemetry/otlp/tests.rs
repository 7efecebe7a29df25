use std::path::Path;

use super::*;
use crate::config::Config;

const ENDPOINT: &str = "otlp_endpoint = \"http://config:1\"\n";

/// The target of a signal under a `[telemetry]` section and variables, and the variables that were passed over.
fn target(signal: Signal, telemetry: &str, variables: &[(&str, &str)]) -> (Option<OtlpTarget>, Vec<String>) {
    let mut ignored = Vec::new();
    let target = with_settings(telemetry, variables, |settings| settings.target(signal, &mut ignored));
    (target, ignored)
}

fn with_settings<T>(telemetry: &str, variables: &[(&str, &str)], ask: impl FnOnce(&OtlpSettings<'_>) -> T) -> T {
    let text =
        format!("[postgres]\nurl = \"postgresql://h/d\"\n[lake]\nurl = \"file:///lake\"\n[telemetry]\n{telemetry}");
    let config = Config::parse(&text, Path::new("x.toml"), []).expect("a configuration").telemetry;
    let variable =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    ask(&OtlpSettings::new(&config, &variable))
}

/// Endpoint and protocol of traces and metrics.
fn endpoints(telemetry: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let signals = [Signal::Traces, Signal::Metrics].into_iter();
    signals
        .map(|signal| match target(signal, telemetry, variables).0 {
            Some(target) => format!("{} {}", target.protocol.as_str(), target.endpoint),
            None => "nowhere".to_owned(),
        })
        .collect()
}

#[test]
fn without_a_collector_nothing_goes_anywhere() {
    assert_eq!(endpoints("", &[]), ["nowhere", "nowhere"]);
    assert_eq!(endpoints("otlp_protocol = \"http/protobuf\"\n", &[]), ["nowhere", "nowhere"]);
}

#[test]
fn a_variable_goes_before_the_configuration_and_that_of_the_signal_before_all() {
    assert_eq!(endpoints(ENDPOINT, &[]), ["grpc http://config:1", "grpc http://config:1"]);
    let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:2");
    assert_eq!(endpoints(ENDPOINT, &[general]), ["grpc http://general:2", "grpc http://general:2"]);
    let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:3");
    assert_eq!(endpoints(ENDPOINT, &[general, traces]), ["grpc http://traces:3", "grpc http://general:2"]);
    assert_eq!(endpoints("", &[traces]), ["grpc http://traces:3", "nowhere"]);
    // An empty variable is as good as none.
    assert_eq!(endpoints(ENDPOINT, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")])[0], "grpc http://config:1");
}

#[test]
fn http_appends_the_path_of_the_signal_to_a_general_endpoint_alone() {
    let http = format!("{ENDPOINT}otlp_protocol = \"http/protobuf\"\n");
    assert_eq!(
        endpoints(&http, &[]),
        ["http/protobuf http://config:1/v1/traces", "http/protobuf http://config:1/v1/metrics"]
    );
    assert_eq!(
        endpoints(&http, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:2/base/")])[1],
        "http/protobuf http://general:2/base/v1/metrics"
    );
    let as_it_is = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://metrics:4/as/it/is");
    assert_eq!(endpoints(&http, &[as_it_is])[1], "http/protobuf http://metrics:4/as/it/is");
    // Each setting is looked up on its own.
    let protocol = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let metrics = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf");
    assert_eq!(
        endpoints(&http, &[protocol, metrics]),
        ["grpc http://config:1", "http/protobuf http://config:1/v1/metrics"]
    );
}

#[test]
fn export_can_be_switched_off() {
    assert_eq!(endpoints(ENDPOINT, &[("OTEL_SDK_DISABLED", "True")]), ["nowhere", "nowhere"]);
    assert_eq!(endpoints(ENDPOINT, &[("OTEL_SDK_DISABLED", "false")])[0], "grpc http://config:1");
    assert_eq!(endpoints(ENDPOINT, &[("OTEL_TRACES_EXPORTER", "none")]), ["nowhere", "grpc http://config:1"]);
}

#[test]
fn timeouts_are_milliseconds_and_nonsense_is_passed_over_and_named() {
    let timeout = |telemetry: &str, variables: &[(&str, &str)]| {
        let (target, ignored) = target(Signal::Traces, &format!("{ENDPOINT}{telemetry}"), variables);
        (target.expect("a target").timeout, ignored)
    };
    assert_eq!(timeout("", &[]), (Duration::from_secs(10), vec![]));
    assert_eq!(timeout("otlp_timeout = \"3s\"\n", &[]).0, Duration::from_secs(3));
    let general = ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500");
    assert_eq!(timeout("otlp_timeout = \"3s\"\n", &[general]).0, Duration::from_millis(1500));
    let traces = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon");
    let (found, ignored) = timeout("", &[traces, general]);
    assert_eq!((found, ignored), (Duration::from_millis(1500), vec!["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT".to_owned()]));
    let (_, ignored) = target(Signal::Logs, ENDPOINT, &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]);
    assert_eq!(ignored, ["OTEL_EXPORTER_OTLP_PROTOCOL"]);
}

#[test]
fn headers_of_the_configuration_reach_the_exporter_and_no_log() {
    let headers = format!("{ENDPOINT}otlp_headers = \"authorization=Bearer%20hidden, x-tenant=a\"\n");
    let found = target(Signal::Traces, &headers, &[]).0.expect("a target").headers;
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(found, [pair("authorization", "Bearer hidden"), pair("x-tenant", "a")]);
    assert_eq!(metadata(&found).len(), 2);
    with_settings(&headers, &[], |settings| assert!(!format!("{:?}", settings.config).contains("hidden")));
}

#[test]
fn the_service_is_named_by_a_variable_first() {
    let name = |variables: &[(&str, &str)]| {
        with_settings("service_name = \"configured\"\n", variables, |settings| settings.service_name())
    };
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "team=x, service.name=of-attributes");
    assert_eq!(name(&[]), "configured");
    assert_eq!(name(&[attributes]), "of-attributes");
    assert_eq!(name(&[attributes, ("OTEL_SERVICE_NAME", "by-name")]), "by-name");
}
