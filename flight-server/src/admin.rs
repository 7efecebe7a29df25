//! The admin port: `/livez`, `/readyz` and `/metrics` over HTTP, for probes and Prometheus. No query comes in here.
//!
//! Probes of an orchestrator carry no token: `/livez` and the code of `/readyz` are for everybody. What names tables and
//! tells of faults is for those who know the token, where there is one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::config::Secret;
use crate::health::HealthMonitor;
use crate::query::Pipeline;
use crate::telemetry::Telemetry;

/// Why the last reload left the old settings in force; `None` when it didn't.
pub type ReloadFault = Arc<Mutex<Option<String>>>;

/// What the admin port shows.
#[derive(Debug, Clone)]
pub struct Admin {
    pub health: Arc<HealthMonitor>,
    pub telemetry: Arc<Telemetry>,
    pub pipeline: Arc<Pipeline>,
    pub token: Arc<AdminToken>,
    /// Why the last reload of settings failed, if it did.
    pub reload_fault: ReloadFault,
}

/// How long `/metrics` waits for what the tiers hold; after that it shows what was found before.
const TIERS_LIMIT: Duration = Duration::from_secs(3);
/// A client has this long to say what it asks for.
const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// Connections at most; more wait.
const MAX_CONNECTIONS: usize = 64;
/// A shorter token could be guessed.
const MIN_TOKEN: usize = 16;

/// The token that callers must know; without one everybody may see everything.
#[derive(Debug, Default)]
pub struct AdminToken(RwLock<Option<Secret<String>>>);

/// Why the token can't be had.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    #[error("cannot read server.admin_token_file {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("server.admin_token_file {} holds no token of at least {MIN_TOKEN} characters on one line", path.display())]
    Weak { path: PathBuf },
}

impl AdminToken {
    /// # Errors
    /// The file can't be read or holds no token.
    pub fn open(path: Option<&Path>) -> Result<Self, AdminTokenError> {
        Ok(Self(RwLock::new(Self::read(path)?)))
    }

    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn read(path: Option<&Path>) -> Result<Option<Secret<String>>, AdminTokenError> {
        let Some(path) = path else { return Ok(None) };
        let text =
            std::fs::read_to_string(path).map_err(|source| AdminTokenError::Read { path: path.to_owned(), source })?;
        let token = text.trim();
        if token.len() < MIN_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(AdminTokenError::Weak { path: path.to_owned() });
        }
        Ok(Some(Secret::new(token.to_owned())))
    }

    pub(crate) fn replace(&self, token: Option<Secret<String>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// Whether the caller knows the token, or none is asked for.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let token = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(token) = token.as_ref() else { return true };
        let said = headers.get(header::AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
        said.strip_prefix(b"Bearer ").is_some_and(|said| bool::from(said.ct_eq(token.expose().as_bytes())))
    }
}

/// Serves the admin port for as long as the process runs.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) {
    let router = router(admin);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Before a connection is taken: those that are too many wait in the kernel.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin port can't take a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            let http = http.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT);
            if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a connection of the admin port ended early");
            }
            drop(place);
        });
    }
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

/// 200 when every source answers and the server isn't about to end; else 503. The body tells each source's state, and
/// whether settings could be reloaded.
async fn ready(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let report = admin.health.report().await;
    let draining = admin.health.is_draining();
    let status = if report.is_ready() && !draining { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if !admin.token.admits(&headers) {
        return status.into_response();
    }
    let mut body = report.to_json(draining);
    let fault = admin.reload_fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
    body["reload"] = fault.map_or_else(|| "ok".into(), Into::into);
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body:#}\n")).into_response()
}

async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    if !admin.token.admits(&headers) {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")]).into_response();
    }
    // Too late is no error: the gauges of the tiers show the last look.
    let _late = tokio::time::timeout(TIERS_LIMIT, admin.pipeline.refresh_tiers()).await;
    match admin.telemetry.prometheus() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
