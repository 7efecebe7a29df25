//! Where measures and logs go: standard error, Prometheus' registry, and an OTLP collector.

use std::io::IsTerminal;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use prometheus::Registry;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, filter, reload};

use super::Telemetry;
use super::metrics::Instruments;
use crate::config::{LogFormat, TelemetryConfig};

/// What is left unsent after this time is dropped when the server ends.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// Why telemetry can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("telemetry.log_level")]
    LogLevel(#[source] filter::ParseError),
    #[error("logging has started already")]
    Logging,
    #[error("telemetry.otlp_endpoint: cannot set the exporter up")]
    Otlp(#[source] opentelemetry_otlp::ExporterBuildError),
    #[error("cannot set the Prometheus registry up")]
    Prometheus(#[source] opentelemetry_sdk::error::OTelSdkError),
}

/// Changes the log level of the running server.
#[derive(Debug, Clone)]
pub struct LogLevel(reload::Handle<EnvFilter, tracing_subscriber::Registry>);

impl LogLevel {
    /// Puts new directives in force.
    ///
    /// # Errors
    /// They can't be understood; the old ones stay in force.
    pub fn set(&self, directives: &str) -> anyhow::Result<()> {
        self.0.reload(EnvFilter::try_new(directives)?)?;
        Ok(())
    }
}

/// The exporters' threads, to be flushed at the end.
#[derive(Debug)]
pub struct Exporters {
    meters: SdkMeterProvider,
    tracers: Option<SdkTracerProvider>,
}

impl Exporters {
    /// Sends what is pending, for a few seconds at most. Blocks.
    pub fn flush(self) {
        // A collector that can't be reached is no reason to end otherwise.
        if let Some(tracers) = self.tracers {
            let _undelivered = tracers.shutdown_with_timeout(FLUSH_LIMIT);
        }
        let _undelivered = self.meters.shutdown_with_timeout(FLUSH_LIMIT);
    }
}

/// Starts logging, metrics and, where a collector is named, traces. Call it inside the runtime, once a process.
///
/// # Errors
/// See [`ExportError`]. A collector that can't be reached is none.
pub fn start(config: &TelemetryConfig) -> Result<(Arc<Telemetry>, Exporters, LogLevel), ExportError> {
    let filter = EnvFilter::try_new(&config.log_level).map_err(ExportError::LogLevel)?;
    let (filter, handle) = reload::Layer::new(filter);
    let logs = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && config.log_format == LogFormat::Text);
    let logs = match config.log_format {
        LogFormat::Text => logs.boxed(),
        LogFormat::Json => logs.json().boxed(),
    };
    let tracers = if exports(config, "TRACES") { Some(tracers(config)?) } else { None };
    let spans = tracers.as_ref().map(|provider| {
        // The exporter's own connection makes spans too, which would be exported in turn.
        let ours = filter::Targets::new().with_target("flight_server", tracing::Level::INFO);
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("thermocline"))
            .with_threads(false)
            .with_location(false)
            .with_filter(ours)
    });
    tracing_subscriber::registry()
        .with(logs.with_filter(filter))
        .with(spans)
        .try_init()
        .map_err(|_| ExportError::Logging)?;
    let (telemetry, meters) = metered(config)?;
    Ok((telemetry, Exporters { meters, tracers }, LogLevel(handle)))
}

/// The span of one call, which continues the caller's trace.
pub(crate) fn call_span<B>(request: &tonic::codegen::http::Request<B>) -> Span {
    struct Headers<'a>(&'a tonic::codegen::http::HeaderMap);
    impl Extractor for Headers<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key)?.to_str().ok()
        }

        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(|key| key.as_str()).collect()
        }
    }
    let method = request.uri().path().rsplit('/').next().unwrap_or_default();
    let span = tracing::info_span!("call", rpc.system = "grpc", rpc.method = method, otel.kind = "server");
    if request.headers().contains_key("traceparent") {
        // Without a collector there is no layer to take the parent.
        let _no_layer = span.set_parent(TraceContextPropagator::new().extract(&Headers(request.headers())));
    }
    span
}

impl Telemetry {
    /// Measures that go nowhere but into memory.
    ///
    /// # Errors
    /// [`ExportError::Prometheus`].
    pub fn in_memory(config: &TelemetryConfig) -> Result<Arc<Self>, ExportError> {
        Ok(metered(&TelemetryConfig { otlp_endpoint: None, ..config.clone() })?.0)
    }
}

fn metered(config: &TelemetryConfig) -> Result<(Arc<Telemetry>, SdkMeterProvider), ExportError> {
    let registry = Registry::new();
    // The names are a contract: no suffix for the unit or the kind.
    let prometheus = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .without_units()
        .without_counter_suffixes()
        .scope_info_enabled(false)
        .build()
        .map_err(ExportError::Prometheus)?;
    let mut provider = SdkMeterProvider::builder().with_resource(resource(config)).with_reader(prometheus);
    if exports(config, "METRICS") {
        let builder = MetricExporter::builder().with_tonic();
        let exporter = match &config.otlp_endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint).build(),
            None => builder.build(),
        };
        provider = provider.with_periodic_exporter(exporter.map_err(ExportError::Otlp)?);
    }
    let provider = provider.build();
    let (observer, in_flight) = (Arc::new(OnceLock::new()), Arc::new(AtomicI64::new(0)));
    let instruments = Instruments::new(&provider.meter("thermocline"), &observer, &in_flight);
    let telemetry = Telemetry {
        instruments,
        _provider: provider.clone(),
        registry,
        recent: Mutex::default(),
        observer,
        in_flight,
        slow_query: config.slow_query,
    };
    Ok((Arc::new(telemetry), provider))
}

fn tracers(config: &TelemetryConfig) -> Result<SdkTracerProvider, ExportError> {
    let builder = SpanExporter::builder().with_tonic();
    let exporter = match &config.otlp_endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint).build(),
        None => builder.build(),
    };
    let exporter = exporter.map_err(ExportError::Otlp)?;
    Ok(SdkTracerProvider::builder().with_resource(resource(config)).with_batch_exporter(exporter).build())
}

/// Whether a collector is named, by the configuration or by OpenTelemetry's own variables.
fn exports(config: &TelemetryConfig, signal: &str) -> bool {
    let is_set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
    let disabled = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    let none = std::env::var(format!("OTEL_{signal}_EXPORTER")).is_ok_and(|value| value == "none");
    let named = config.otlp_endpoint.is_some()
        || is_set("OTEL_EXPORTER_OTLP_ENDPOINT")
        || is_set(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"));
    named && !disabled && !none
}

/// Who is measured; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` go before the configuration.
fn resource(config: &TelemetryConfig) -> Resource {
    let builder = Resource::builder();
    let named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty());
    let builder = if named { builder } else { builder.with_service_name(config.service_name.clone()) };
    builder.with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build()
}
