//! The admin port: `/livez`, `/readyz` and `/metrics` over HTTP, for probes and Prometheus. No query comes in here.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::health::HealthMonitor;
use crate::query::Pipeline;
use crate::telemetry::Telemetry;

/// What the admin port shows.
#[derive(Debug, Clone)]
pub struct Admin {
    pub health: Arc<HealthMonitor>,
    pub telemetry: Arc<Telemetry>,
    pub pipeline: Arc<Pipeline>,
}

/// How long `/metrics` waits for what the tiers hold; after that it shows what was found before.
const TIERS_LIMIT: Duration = Duration::from_secs(3);

/// The routes of the admin port.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

/// 200 when every source answers and the server isn't about to end; else 503. The body tells each source's state.
async fn ready(State(admin): State<Admin>) -> Response {
    let report = admin.health.report().await;
    let draining = admin.health.is_draining();
    let status = if report.is_ready() && !draining { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = format!("{:#}\n", report.to_json(draining));
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    // Too late is no error: the gauges of the tiers show the last look.
    let _late = tokio::time::timeout(TIERS_LIMIT, admin.pipeline.refresh_tiers()).await;
    match admin.telemetry.prometheus() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
