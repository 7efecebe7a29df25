//! Where each signal is exported to by OTLP, and how. Each setting is looked up on its own: OpenTelemetry's variable of
//! the signal, then its general variable, then the configuration.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
    WithTonicConfig,
};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};

use crate::config::{OtlpProtocol, TelemetryConfig};

/// As OpenTelemetry says.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    /// As in `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`.
    fn variable(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
            Self::Logs => "LOGS",
        }
    }

    /// As in `http://localhost:4318/v1/traces`.
    fn path(self) -> &'static str {
        match self {
            Self::Traces => "v1/traces",
            Self::Metrics => "v1/metrics",
            Self::Logs => "v1/logs",
        }
    }
}

/// Where one signal goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OtlpTarget {
    pub(super) endpoint: String,
    pub(super) protocol: OtlpProtocol,
    pub(super) timeout: Duration,
    /// Of the configuration; the exporter lays those of the variables over them.
    headers: Vec<(String, String)>,
}

/// OpenTelemetry's variables and the configuration under them.
pub(super) struct OtlpSettings<'a> {
    config: &'a TelemetryConfig,
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> OtlpSettings<'a> {
    pub(super) fn new(config: &'a TelemetryConfig, variable: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { config, variable }
    }

    /// Where a signal goes; `None` when no collector is named for it, or its export is switched off. Variables that
    /// can't be understood are passed over and named in `ignored`.
    pub(super) fn target(&self, signal: Signal, ignored: &mut Vec<String>) -> Option<OtlpTarget> {
        let is_disabled = self.set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let exporter = self.set(&format!("OTEL_{}_EXPORTER", signal.variable()));
        if is_disabled || exporter.is_some_and(|value| value == "none") {
            return None;
        }
        let protocol = self
            .read(signal, "PROTOCOL", ignored, OtlpProtocol::parse)
            .or(self.config.otlp_protocol)
            .unwrap_or(OtlpProtocol::Grpc);
        let of_signal = self.set(&format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.variable()));
        let general = || self.set("OTEL_EXPORTER_OTLP_ENDPOINT").or_else(|| self.config.otlp_endpoint.clone());
        let endpoint = match (of_signal, protocol) {
            (Some(endpoint), _) => endpoint,
            (None, OtlpProtocol::Grpc) => general()?,
            (None, OtlpProtocol::HttpProtobuf) => {
                format!("{}/{}", general()?.trim_end_matches('/'), signal.path())
            }
        };
        let timeout = self
            .read(signal, "TIMEOUT", ignored, |text| text.parse().ok().map(Duration::from_millis))
            .or(self.config.otlp_timeout)
            .unwrap_or(DEFAULT_TIMEOUT);
        let headers = self.config.otlp_headers.iter();
        let headers = headers.map(|(name, value)| (name.clone(), value.expose().clone())).collect();
        Some(OtlpTarget { endpoint, protocol, timeout, headers })
    }

    /// The name of the service: a variable's before the configuration's.
    pub(super) fn service_name(&self) -> String {
        let attributes = self.set("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        let of_attributes = attributes.split(',').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            (name.trim() == "service.name" && !value.trim().is_empty()).then(|| value.trim().to_owned())
        });
        self.set("OTEL_SERVICE_NAME").or(of_attributes).unwrap_or_else(|| self.config.service_name.clone())
    }

    /// A variable of the signal or of all signals that can be understood.
    fn read<T>(
        &self,
        signal: Signal,
        name: &str,
        ignored: &mut Vec<String>,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let names = [format!("OTEL_EXPORTER_OTLP_{}_{name}", signal.variable()), format!("OTEL_EXPORTER_OTLP_{name}")];
        names.into_iter().find_map(|name| {
            let text = self.set(&name)?;
            let value = read(text.trim());
            if value.is_none() && !ignored.contains(&name) {
                ignored.push(name);
            }
            value
        })
    }

    /// An empty variable is as good as none.
    fn set(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.trim().is_empty())
    }
}

/// Builds the exporter of one kind; the three builders share their methods but no type.
macro_rules! exporter {
    ($kind:ident, $target:expr) => {{
        let target = $target;
        match target.protocol {
            OtlpProtocol::Grpc => $kind::builder()
                .with_tonic()
                .with_endpoint(&target.endpoint)
                .with_timeout(target.timeout)
                .with_metadata(metadata(&target.headers))
                .build(),
            OtlpProtocol::HttpProtobuf => $kind::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint(&target.endpoint)
                .with_timeout(target.timeout)
                .with_headers(target.headers.iter().cloned().collect::<HashMap<_, _>>())
                .with_http_client(RuntimeClient::new(target.timeout)?)
                .build(),
        }
    }};
}

/// Call these inside the runtime, which does the work of the connections.
pub(super) fn span_exporter(target: &OtlpTarget) -> Result<SpanExporter, ExporterBuildError> {
    exporter!(SpanExporter, target)
}

pub(super) fn metric_exporter(target: &OtlpTarget) -> Result<MetricExporter, ExporterBuildError> {
    exporter!(MetricExporter, target)
}

pub(super) fn log_exporter(target: &OtlpTarget) -> Result<LogExporter, ExporterBuildError> {
    exporter!(LogExporter, target)
}

fn metadata(headers: &[(String, String)]) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    for (name, value) in headers {
        // The configuration took only names and values that can be headers.
        if let (Ok(name), Ok(value)) = (name.parse::<AsciiMetadataKey>(), value.parse::<AsciiMetadataValue>()) {
            metadata.insert(name, value);
        }
    }
    metadata
}

/// An HTTP client that works on the server's runtime: the exporters' own threads have none.
#[derive(Debug)]
struct RuntimeClient {
    client: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

impl RuntimeClient {
    fn new(timeout: Duration) -> Result<Self, ExporterBuildError> {
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .build()
            .map_err(|error| ExporterBuildError::InternalFailure(error.to_string()))?;
        Ok(Self { client, runtime: tokio::runtime::Handle::current() })
    }
}

#[async_trait]
impl HttpClient for RuntimeClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let work = async move {
            let answer = client.execute(request.try_into()?).await?;
            let mut response = Response::builder().status(answer.status());
            if let Some(headers) = response.headers_mut() {
                headers.extend(answer.headers().clone());
            }
            Ok::<_, HttpError>(response.body(answer.bytes().await?)?)
        };
        self.runtime.spawn(work).await?
    }
}

#[cfg(test)]
mod tests;
