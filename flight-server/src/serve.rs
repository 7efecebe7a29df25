//! `thermocline serve`: from the configuration to a listening server, and its orderly end.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use translator::catalog::Catalog;

use crate::admin::{self, Admin};
use crate::config::{Config, environment};
use crate::flight::{self, FlightSettings};
use crate::health::HealthMonitor;
use crate::query::Pipeline;
use crate::telemetry::{self, LogLevel};

/// What gRPC's health service tells of; `""` is all together.
const SERVICES: [&str; 4] = ["", "postgres", "lake", "duckdb"];
/// The gRPC health service is brought up to date this often.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// Runs the server until it is told to stop.
///
/// # Errors
/// A configuration or catalog that is wrong (all faults together), an address that can't be listened on.
pub async fn run(config_path: &Path) -> anyhow::Result<()> {
    let config = Config::load(config_path, environment()).map_err(|faults| anyhow::anyhow!("{faults}"))?;
    let (telemetry, exporters, log_level) = telemetry::start(&config.telemetry)?;
    refuse_unenforced(&config)?;
    let catalog = read_catalog(&config.catalog.path)?;
    let pipeline = Arc::new(Pipeline::start(&config, catalog, Arc::clone(&telemetry)).await?);

    let drain_limit = config.server.drain_limit;
    let listener = TcpListener::bind(config.server.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.server.listen))?;
    let address = listener.local_addr()?;
    let (health_reporter, health_service) = tonic_health::server::health_reporter();
    // Known from the start, and not serving before the first probe says so.
    for service in SERVICES {
        health_reporter.set_service_status(service, ServingStatus::NotServing).await;
    }
    let health = pipeline.health();
    let watch = tokio::spawn(report_health(Arc::clone(&health), health_reporter.clone()));
    let admin = Admin { health: Arc::clone(&health), telemetry, pipeline: Arc::clone(&pipeline) };
    let admin = listen_for_admin(config.server.admin_listen, admin).await;

    // Before anybody is told that the server is there: a signal that nobody listens for ends the process.
    let hangups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let reload = tokio::spawn(reload_on_hangup(hangups, Arc::clone(&pipeline), config.path.clone(), log_level));
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
    let server = flight::tuned(Server::builder())
        .trace_fn(telemetry::call_span)
        .add_service(health_service)
        .add_service(reflection()?)
        .add_service(flight::service(pipeline, FlightSettings::default()))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), shutdown);

    // Whoever started us waits for this line.
    writeln!(std::io::stdout(), "listening on grpc://{address}")?;
    std::io::stdout().flush()?;
    tracing::info!(%address, "listening");

    let late = async {
        match drained.await {
            Ok(()) => tokio::time::sleep(drain_limit).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        result = server => result.context("the server failed")?,
        () = late => tracing::warn!("queries still ran after server.drain_limit, {drain_limit:?}; they are cut off"),
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
            Some(tokio::spawn(async move {
                if let Err(error) = axum::serve(listener, admin::router(admin)).await {
                    tracing::error!(%error, "the admin port is closed");
                }
            }))
        }
        Err(error) => {
            tracing::warn!(%address, %error, "no admin port: cannot listen on server.admin_listen");
            None
        }
    }
}

/// Keeps gRPC's health service at what the probes find: `postgres`, `lake`, `duckdb`, and `""` for all of them.
async fn report_health(health: Arc<HealthMonitor>, reporter: HealthReporter) {
    loop {
        let report = health.report().await;
        let status = |ok: bool| if ok { ServingStatus::Serving } else { ServingStatus::NotServing };
        for source in &report.sources {
            reporter.set_service_status(source.name, status(source.state.is_ok())).await;
        }
        reporter.set_service_status("", status(report.is_ready() && !health.is_draining())).await;
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
}

/// Tells those who watch the health service that this server ends, and ends their streams: a drain waits for every open
/// stream, and these have no end of their own.
async fn end_health_streams(reporter: &HealthReporter) {
    for service in SERVICES {
        reporter.set_service_status(service, ServingStatus::NotServing).await;
    }
    let mut reporter = reporter.clone();
    for service in SERVICES {
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

/// What the configuration asks for and this version doesn't enforce must not look enforced.
fn refuse_unenforced(config: &Config) -> anyhow::Result<()> {
    if config.tls.is_some() {
        bail!("[tls] is set, but this version serves plain text only; put a TLS proxy in front and remove [tls]");
    }
    if !config.auth.anonymous || !config.auth.users.is_empty() || config.auth.token.is_some() {
        bail!(
            "[auth] asks for logins, but this version lets everybody in; set auth.anonymous = true and no users or token"
        );
    }
    Ok(())
}

fn read_catalog(path: &Path) -> anyhow::Result<Arc<Catalog>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the catalog file {}", path.display()))?;
    match Catalog::parse(&text) {
        Ok(catalog) => Ok(Arc::new(catalog)),
        Err(faults) => bail!("the catalog file {} is wrong:\n{faults}", path.display()),
    }
}

/// SIGHUP: reads the catalog and the log level again. What is wrong leaves the old one in force.
async fn reload_on_hangup(mut hangups: Signal, pipeline: Arc<Pipeline>, config_path: PathBuf, log_level: LogLevel) {
    while hangups.recv().await.is_some() {
        let reloaded = Config::load(&config_path, environment())
            .map_err(|faults| anyhow::anyhow!("{faults}"))
            .and_then(|config| {
                let catalog = read_catalog(&config.catalog.path)?;
                pipeline.set_catalog(catalog)?;
                log_level.set(&config.telemetry.log_level)
            });
        match reloaded {
            Ok(()) => tracing::info!("the catalog and the log level were reloaded"),
            Err(error) => tracing::error!("catalog and log level stay as they were: {error:#}"),
        }
    }
}

async fn wait_for_stop(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
