//! `thermocline serve`: from the configuration to a listening server, and its orderly end.

mod reload;
mod users;

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

use crate::admin::{self, Admin, AdminToken};
use crate::catalog_file;
use crate::config::{Config, environment};
use crate::flight::{self, FlightSettings};
use crate::health::{HealthMonitor, PROBED};
use crate::query::Pipeline;
use crate::telemetry;
use crate::transport::{TlsFiles, Transport};
use reload::InForce;
use users::Users;

/// What gRPC's health service tells of all together.
const WHOLE: &str = "";
/// How long the streams of queries that are cut off get to say so.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The gRPC health service is brought up to date this often.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// Runs the server until it is told to stop.
///
/// # Errors
/// A configuration or catalog that is wrong (all faults together), an address that can't be listened on.
pub async fn run(config_path: &Path) -> anyhow::Result<()> {
    let config = Config::load(config_path, environment()).map_err(|faults| anyhow::anyhow!("{faults}"))?;
    let (telemetry, exporters, log_level) = telemetry::start(&config.telemetry)?;
    let catalog = Arc::new(catalog_file::read(&config).await?);
    let logins = Users::read(&config, &catalog)?.map(|users| users.logins(&config)).transpose()?;
    let tls = config.tls.as_ref().map(TlsFiles::open).transpose()?.map(Arc::new);
    let admin_token = Arc::new(AdminToken::open(config.server.admin_token_file.as_deref())?);
    let pipeline = Arc::new(Pipeline::start(&config, catalog, Arc::clone(&telemetry)).await?);
    let in_force =
        Arc::new(InForce::new(&config, &pipeline, logins.clone(), tls.clone(), &admin_token, log_level, &telemetry));

    let drain_limit = config.server.drain_limit;
    let listener = TcpListener::bind(config.server.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.server.listen))?;
    let address = listener.local_addr()?;
    let (health_reporter, health_service) = tonic_health::server::health_reporter();
    // Known from the start, and not serving before the first probe says so.
    for service in services() {
        health_reporter.set_service_status(service, ServingStatus::NotServing).await;
    }
    let health = pipeline.health();
    let watch = tokio::spawn(report_health(Arc::clone(&health), health_reporter.clone()));
    let admin = Admin {
        health: Arc::clone(&health),
        telemetry: Arc::clone(&telemetry),
        pipeline: Arc::clone(&pipeline),
        token: admin_token,
        reload_fault: in_force.fault(),
    };
    let admin = listen_for_admin(config.server.admin_listen, admin).await;

    // Before anybody is told that the server is there: a signal that nobody listens for ends the process.
    let hangups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let reload = tokio::spawn(in_force.keep(hangups));
    let (drained_sender, drained) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async move {
        wait_for_stop(terminate, interrupt).await;
        tracing::info!("draining: running queries finish, new ones are refused");
        health.drain();
        // No probe tells its finding after this.
        watch.abort();
        let _aborted = watch.await;
        end_health_streams(&health_reporter).await;
        // The receiver is gone when the server has ended already.
        let _ended = drained_sender.send(());
    };
    // Strangers needn't know what there is to call.
    let reflection = logins.is_none().then(reflection).transpose()?;
    let scheme = if tls.is_some() { "grpc+tls" } else { "grpc" };
    let connections = Transport::new(&config.server, tls, telemetry).accept(listener);
    let mut server = flight::tuned(Server::builder());
    if let Some(tls) = &config.tls {
        server = server.max_connection_age(tls.max_connection_age);
    }
    let server = server
        .trace_fn(telemetry::call_span)
        .add_service(health_service.accept_compressed(CompressionEncoding::Gzip))
        .add_optional_service(reflection.map(|service| service.accept_compressed(CompressionEncoding::Gzip)))
        .add_service(flight::service(Arc::clone(&pipeline) as _, logins, FlightSettings::default()))
        .serve_with_incoming_shutdown(connections, shutdown);

    // Whoever started us waits for this line.
    writeln!(std::io::stdout(), "listening on {scheme}://{address}")?;
    std::io::stdout().flush()?;
    tracing::info!(%address, scheme, "listening");

    let late = async {
        match drained.await {
            Ok(()) => tokio::time::sleep(drain_limit).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::pin!(server);
    tokio::select! {
        result = &mut server => result.context("the server failed")?,
        () = late => {
            tracing::warn!("queries still ran after server.drain_limit, {drain_limit:?}; they are cut off");
            pipeline.end_queries();
            // Who reads is told; who doesn't isn't waited for.
            if let Ok(result) = tokio::time::timeout(LAST_WORDS, &mut server).await {
                result.context("the server failed")?;
            }
        }
    }
    for task in [Some(reload), admin].into_iter().flatten() {
        task.abort();
    }
    // The exporters' last words; the limit is theirs.
    let _flushed = tokio::task::spawn_blocking(move || exporters.flush()).await;
    Ok(())
}

/// Serves the admin port. A port that can't be had doesn't keep the server from its work.
async fn listen_for_admin(address: SocketAddr, admin: Admin) -> Option<JoinHandle<()>> {
    let listening = async {
        let listener = TcpListener::bind(address).await?;
        Ok::<_, std::io::Error>((listener.local_addr()?, listener))
    };
    match listening.await {
        Ok((address, listener)) => {
            tracing::info!(%address, "admin port: /livez, /readyz, /metrics");
            Some(tokio::spawn(admin::serve(listener, admin)))
        }
        Err(error) => {
            tracing::warn!(%address, %error, "no admin port: cannot listen on server.admin_listen");
            None
        }
    }
}

/// What gRPC's health service tells of.
fn services() -> impl Iterator<Item = &'static str> {
    [WHOLE].into_iter().chain(PROBED)
}

/// Keeps gRPC's health service at what the probes find: each by its name, and `""` for all of them.
async fn report_health(health: Arc<HealthMonitor>, reporter: HealthReporter) {
    loop {
        let report = health.report().await;
        let status = |ok: bool| if ok { ServingStatus::Serving } else { ServingStatus::NotServing };
        for source in &report.sources {
            reporter.set_service_status(source.name, status(source.state.is_ok())).await;
        }
        reporter.set_service_status(WHOLE, status(report.is_ready() && !health.is_draining())).await;
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
}

/// Tells those who watch the health service that this server ends, and ends their streams: a drain waits for every open
/// stream, and these have no end of their own.
async fn end_health_streams(reporter: &HealthReporter) {
    for service in services() {
        reporter.set_service_status(service, ServingStatus::NotServing).await;
    }
    let mut reporter = reporter.clone();
    for service in services() {
        reporter.clear_service_status(service).await;
    }
}

/// The reflection service: names and shapes of what this port serves.
fn reflection() -> anyhow::Result<ServerReflectionServer<impl ServerReflection>> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_file_descriptor_set(flight::file_descriptors())
        .build_v1()
        .context("cannot set gRPC reflection up")
}

async fn wait_for_stop(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
