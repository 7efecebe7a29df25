//! Where measures and logs go: standard error, Prometheus' registry, and an OTLP collector.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::{OpenTelemetryTracingBridge, TracingSpanAttributes};
use opentelemetry_otlp::{ExporterBuildError, MetricExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
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
use super::metrics::{Instruments, Now};
use super::otlp::{self, OtlpSettings, OtlpTarget, Signal};
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
    loggers: Option<SdkLoggerProvider>,
}

impl Exporters {
    /// Sends what is pending, for a few seconds at most. Blocks.
    pub fn flush(self) {
        // A collector that can't be reached is no reason to end otherwise.
        std::thread::scope(|scope| {
            scope.spawn(|| self.tracers.map(|tracers| tracers.shutdown_with_timeout(FLUSH_LIMIT)));
            scope.spawn(|| self.loggers.map(|loggers| loggers.shutdown_with_timeout(FLUSH_LIMIT)));
            scope.spawn(|| self.meters.shutdown_with_timeout(FLUSH_LIMIT));
        });
    }
}

/// Starts logging, metrics and, where a collector is named, their export. Call it inside the runtime, once a process.
///
/// # Errors
/// See [`ExportError`]. A collector that can't be reached is none.
pub fn start(config: &TelemetryConfig) -> Result<(Arc<Telemetry>, Exporters, LogLevel), ExportError> {
    let filter = EnvFilter::try_new(&config.log_level).map_err(ExportError::LogLevel)?;
    let (filter, handle) = reload::Layer::new(filter);
    let variable = |name: &str| std::env::var(name).ok();
    let settings = OtlpSettings::new(config, &variable);
    let mut ignored = Vec::new();
    let resource = resource(&settings);
    let tracers = settings.target(Signal::Traces, &mut ignored).map(|target| tracers(&target, resource.clone()));
    let loggers = settings.target(Signal::Logs, &mut ignored).map(|target| loggers(&target, resource.clone()));
    let metrics = settings.target(Signal::Metrics, &mut ignored).map(|target| otlp::metric_exporter(&target));
    let exporters =
        || -> Result<_, ExporterBuildError> { Ok((tracers.transpose()?, loggers.transpose()?, metrics.transpose()?)) };
    let (tracers, loggers, metrics) = exporters().map_err(ExportError::Otlp)?;

    let logs = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && config.log_format == LogFormat::Text);
    let logs = match config.log_format {
        LogFormat::Text => logs.boxed(),
        LogFormat::Json => logs.json().boxed(),
    };
    // An exporter's own connection logs and makes spans too, which would be exported in turn.
    let ours = |level| filter::Targets::new().with_target("flight_server", level).with_target("thermocline", level);
    let exported_logs = loggers.as_ref().map(|provider| {
        OpenTelemetryTracingBridge::builder(provider)
            .with_tracing_span_attributes(TracingSpanAttributes::allowlist(["query_id"]))
            .build()
            .with_filter(ours(tracing::Level::TRACE))
    });
    let spans = tracers.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("thermocline"))
            .with_threads(false)
            .with_location(false)
            .with_filter(ours(tracing::Level::INFO))
    });
    tracing_subscriber::registry()
        .with(logs.and_then(exported_logs).with_filter(filter))
        .with(spans)
        .try_init()
        .map_err(|_| ExportError::Logging)?;
    for name in ignored {
        tracing::warn!("the variable {name} can't be understood and is passed over");
    }
    let (telemetry, meters) = metered(config, resource, metrics)?;
    Ok((telemetry, Exporters { meters, tracers, loggers }, LogLevel(handle)))
}

/// The span of one call, which continues the caller's trace. Health checks and reflection have none: they come every few
/// seconds and would drown the queries.
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
    let path = request.uri().path();
    if path.starts_with("/grpc.") {
        return Span::none();
    }
    let method = path.rsplit('/').next().unwrap_or_default();
    // As an error: whatever the log level, what is logged in it carries the span.
    let span = tracing::error_span!("call", rpc.system = "grpc", rpc.method = method, otel.kind = "server");
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
        let resource = resource(&OtlpSettings::new(config, &|_| None));
        Ok(metered(config, resource, None)?.0)
    }
}

fn metered(
    config: &TelemetryConfig,
    resource: Resource,
    exporter: Option<MetricExporter>,
) -> Result<(Arc<Telemetry>, SdkMeterProvider), ExportError> {
    let registry = Registry::new();
    // The names are a contract: no suffix for the unit or the kind.
    let prometheus = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .without_units()
        .without_counter_suffixes()
        .scope_info_enabled(false)
        .build()
        .map_err(ExportError::Prometheus)?;
    let mut provider = SdkMeterProvider::builder().with_resource(resource).with_reader(prometheus);
    if let Some(exporter) = exporter {
        provider = provider.with_periodic_exporter(exporter);
    }
    let provider = provider.build();
    let (observer, now) = (Arc::new(OnceLock::new()), Now::default());
    let instruments = Instruments::new(&provider.meter("thermocline"), &observer, &now);
    let telemetry = Telemetry {
        instruments,
        _provider: provider.clone(),
        registry,
        recent: Mutex::default(),
        observer,
        now,
        slow_query: config.slow_query,
    };
    Ok((Arc::new(telemetry), provider))
}

fn tracers(target: &OtlpTarget, resource: Resource) -> Result<SdkTracerProvider, ExporterBuildError> {
    let exporter = otlp::span_exporter(target)?;
    Ok(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
}

fn loggers(target: &OtlpTarget, resource: Resource) -> Result<SdkLoggerProvider, ExporterBuildError> {
    let exporter = otlp::log_exporter(target)?;
    Ok(SdkLoggerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
}

/// Who is measured; the attributes of `OTEL_RESOURCE_ATTRIBUTES` among it.
fn resource(settings: &OtlpSettings<'_>) -> Resource {
    Resource::builder()
        .with_service_name(settings.service_name())
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_spans_and_health_checks_have_none() {
        let span = |path: &str| {
            let request = tonic::codegen::http::Request::builder().uri(format!("http://h{path}")).body(()).unwrap();
            call_span(&request).metadata().map(|metadata| metadata.name())
        };
        let subscriber = tracing_subscriber::registry();
        tracing::subscriber::with_default(subscriber, || {
            assert_eq!(span("/arrow.flight.protocol.FlightService/DoGet"), Some("call"));
            assert_eq!(span("/grpc.health.v1.Health/Watch"), None);
            assert_eq!(span("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"), None);
        });
    }
}
