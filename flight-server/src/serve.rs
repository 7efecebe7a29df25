//! `thermocline serve`: from the configuration to a listening server, and its orderly end.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use translator::catalog::Catalog;

use crate::config::{Config, LogFormat, TelemetryConfig, environment};
use crate::flight::{self, FlightSettings};
use crate::query::Pipeline;

/// Running queries get this long to finish once the server is told to stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// Runs the server until it is told to stop.
///
/// # Errors
/// A configuration or catalog that is wrong (all faults together), an address that can't be listened on.
pub async fn run(config_path: &Path) -> anyhow::Result<()> {
    let config = Config::load(config_path, environment()).map_err(|faults| anyhow::anyhow!("{faults}"))?;
    start_logging(&config.telemetry)?;
    refuse_unenforced(&config)?;
    let catalog = read_catalog(&config.catalog.path)?;
    let pipeline = Arc::new(Pipeline::start(&config, catalog).await?);

    let listener = TcpListener::bind(config.server.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.server.listen))?;
    let address = listener.local_addr()?;
    let (health_reporter, health_service) = tonic_health::server::health_reporter();
    health_reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;

    let reload = tokio::spawn(reload_on_hangup(Arc::clone(&pipeline), config.catalog.path.clone()));
    let (drained_sender, drained) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async move {
        wait_for_stop().await;
        tracing::info!("draining: running queries finish, new ones are refused");
        health_reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        // The receiver is gone when the server has ended already.
        let _ended = drained_sender.send(());
    };
    let server = flight::tuned(Server::builder())
        .add_service(health_service)
        .add_service(flight::service(pipeline, FlightSettings::default()))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), shutdown);

    // Whoever started us waits for this line.
    writeln!(std::io::stdout(), "listening on grpc://{address}")?;
    std::io::stdout().flush()?;
    tracing::info!(%address, "listening");

    let late = async {
        match drained.await {
            Ok(()) => tokio::time::sleep(DRAIN_LIMIT).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        result = server => result.context("the server failed")?,
        () = late => tracing::warn!("queries still ran after {DRAIN_LIMIT:?}; they are cut off"),
    }
    reload.abort();
    Ok(())
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

/// SIGHUP: reads the catalog again. A bad file leaves the old catalog in force.
async fn reload_on_hangup(pipeline: Arc<Pipeline>, path: PathBuf) {
    let Ok(mut hangups) = signal(SignalKind::hangup()) else {
        tracing::warn!("cannot listen for SIGHUP: the catalog is not reloaded");
        return;
    };
    while hangups.recv().await.is_some() {
        match read_catalog(&path).and_then(|catalog| Ok(pipeline.set_catalog(catalog)?)) {
            Ok(()) => tracing::info!("the catalog was reloaded"),
            Err(error) => tracing::error!("the old catalog stays in force: {error:#}"),
        }
    }
}

async fn wait_for_stop() {
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) else {
        tracing::warn!("cannot listen for SIGTERM: only SIGKILL stops this server");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn start_logging(config: &TelemetryConfig) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log_level).context("telemetry.log_level")?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match config.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}
