//! An OpenTelemetry collector in the test's own process: it decodes what it gets, by gRPC or by HTTP.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// How the collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    Grpc,
    HttpProtobuf,
}

/// A collector on a port of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Collector {
    endpoint: String,
    received: Arc<Mutex<Received>>,
    task: JoinHandle<()>,
}

/// All that arrived.
#[derive(Debug, Default)]
pub struct Received {
    pub spans: Vec<Span>,
    pub logs: Vec<LogRecord>,
    /// The newest state of each metric.
    pub metrics: Vec<Metric>,
    pub resources: Vec<Resource>,
    /// Values of the header `authorization`, one an export that has it.
    pub authorizations: Vec<String>,
}

impl OtlpProtocol {
    /// OpenTelemetry's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    /// # Errors
    /// No port can be had.
    pub async fn start(protocol: OtlpProtocol) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let received = Arc::new(Mutex::new(Received::default()));
        let task = match protocol {
            OtlpProtocol::Grpc => tokio::spawn(serve_grpc(listener, Arc::clone(&received))),
            OtlpProtocol::HttpProtobuf => tokio::spawn(serve_http(listener, Arc::clone(&received))),
        };
        Ok(Self { endpoint, received, task })
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What arrived so far.
    pub fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until what arrived satisfies `check`; says why it doesn't when that takes too long.
    ///
    /// # Errors
    /// The last complaint of `check`.
    pub async fn until<T>(&self, check: impl Fn(&Received) -> Result<T>) -> Result<T> {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let checked = check(&self.received());
            match checked {
                Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(20)).await,
                checked => return checked,
            }
        }
    }
}

impl Received {
    fn traces(&mut self, request: ExportTraceServiceRequest) {
        for resource in request.resource_spans {
            self.resources.extend(resource.resource);
            self.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }

    fn metrics(&mut self, request: ExportMetricsServiceRequest) {
        for resource in request.resource_metrics {
            self.resources.extend(resource.resource);
            for metric in resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                self.metrics.retain(|known| known.name != metric.name);
                self.metrics.push(metric);
            }
        }
    }

    fn logs(&mut self, request: ExportLogsServiceRequest) {
        for resource in request.resource_logs {
            self.resources.extend(resource.resource);
            self.logs.extend(resource.scope_logs.into_iter().flat_map(|scope| scope.log_records));
        }
    }

    /// The one span of this name in a trace.
    ///
    /// # Errors
    /// There is none, or several.
    pub fn span(&self, trace_id: &[u8], name: &str) -> Result<&Span> {
        let mut found = self.spans.iter().filter(|span| span.trace_id == trace_id && span.name == name);
        match (found.next(), found.next()) {
            (Some(span), None) => Ok(span),
            (None, _) => bail!("no span {name}"),
            (Some(_), Some(_)) => bail!("several spans {name}"),
        }
    }

    /// The newest state of a metric.
    ///
    /// # Errors
    /// It never arrived.
    pub fn metric(&self, name: &str) -> Result<&Metric> {
        let found = self.metrics.iter().find(|metric| metric.name == name);
        found.ok_or_else(|| anyhow::anyhow!("no metric {name}"))
    }
}

/// An attribute as text; empty when it isn't there.
pub fn attribute(attributes: &[KeyValue], name: &str) -> String {
    let value =
        attributes.iter().find(|attribute| attribute.key == name).and_then(|attribute| attribute.value.as_ref());
    match value.and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::BoolValue(flag)) => flag.to_string(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::DoubleValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

#[derive(Debug, Clone)]
struct Service(Arc<Mutex<Received>>);

impl Service {
    fn take<T>(&self, request: Request<T>, take: fn(&mut Received, T)) {
        let mut received = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        received.authorizations.extend(authorization.map(str::to_owned));
        take(&mut received, request.into_inner());
    }
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take(request, Received::traces);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.take(request, Received::metrics);
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Service {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.take(request, Received::logs);
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

async fn serve_grpc(listener: TcpListener, received: Arc<Mutex<Received>>) {
    let service = Service(received);
    let served = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(service.clone()))
        .add_service(MetricsServiceServer::new(service.clone()))
        .add_service(LogsServiceServer::new(service))
        .serve_with_incoming(TcpListenerStream::new(listener));
    if let Err(error) = served.await {
        eprintln!("the collector ended: {error}");
    }
}

async fn serve_http(listener: TcpListener, received: Arc<Mutex<Received>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let received = Arc::clone(&received);
        let answer = hyper::service::service_fn(move |request| {
            let received = Arc::clone(&received);
            async move {
                let status = match take_http(request, &received).await {
                    Ok(()) => 200,
                    Err(error) => {
                        eprintln!("the collector got nonsense: {error:#}");
                        400
                    }
                };
                let mut response = hyper::Response::new(Full::new(Bytes::new()));
                *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
                Ok::<_, Infallible>(response)
            }
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

async fn take_http(request: hyper::Request<Incoming>, received: &Mutex<Received>) -> Result<()> {
    let kind = request.headers().get("content-type").and_then(|value| value.to_str().ok()).map(str::to_owned);
    ensure!(kind.as_deref() == Some("application/x-protobuf"), "{kind:?}");
    let authorization = request.headers().get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
    received.authorizations.extend(authorization);
    match path.as_str() {
        "/v1/traces" => received.traces(ExportTraceServiceRequest::decode(body)?),
        "/v1/metrics" => received.metrics(ExportMetricsServiceRequest::decode(body)?),
        "/v1/logs" => received.logs(ExportLogsServiceRequest::decode(body)?),
        other => bail!("path {other}"),
    }
    Ok(())
}
