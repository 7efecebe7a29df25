//! What can be asked right now: real probes of PostgreSQL, the lake and DuckDB, with limits, remembered for a moment, and
//! whether the slots of queries move.
//!
//! Knows neither HTTP nor gRPC; `admin` and `serve` publish what it finds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tokio::sync::Mutex;
use translator::catalog::Entity;

use crate::engine::Engine;
use crate::lake::Lake;
use crate::postgres::PostgresSource;
use crate::query::UnreadSlots;

/// A probe that takes longer counts as failed.
const PROBE_LIMIT: Duration = Duration::from_secs(3);
/// A finding is this long as good as a new one.
const FRESH: Duration = Duration::from_secs(2);

/// What is probed, by the names that health services and `system.health` have.
pub(crate) const PROBED: [&str; 4] = ["postgres", "lake", "duckdb", "queries"];

/// Probes the sources of one server.
pub struct HealthMonitor {
    postgres: PostgresSource,
    lake: Lake,
    engine: Arc<Engine>,
    unread: Arc<UnreadSlots>,
    entities: Box<dyn Fn() -> Vec<Arc<Entity>> + Send + Sync>,
    draining: AtomicBool,
    last: Mutex<Option<(Instant, Arc<HealthReport>)>>,
}

impl std::fmt::Debug for HealthMonitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HealthMonitor").field("draining", &self.draining).finish_non_exhaustive()
    }
}

/// What the probes found.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthReport {
    /// `postgres`, `lake`, `duckdb` and `queries`.
    pub sources: [SourceHealth; 4],
    /// Unix milliseconds.
    pub checked_at: i64,
}

/// The state of one source.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceHealth {
    pub name: &'static str,
    /// `Err` with the reason; never a secret.
    pub state: Result<(), String>,
    pub took: Duration,
}

impl HealthReport {
    /// Whether every source answers, and queries move.
    pub fn is_ready(&self) -> bool {
        self.sources.iter().all(|source| source.state.is_ok())
    }

    /// The body of `/readyz`.
    pub fn to_json(&self, draining: bool) -> Json {
        let source = |source: &SourceHealth| {
            let mut json = json!({"status": source.status(), "ms": (source.took.as_secs_f64() * 1000.0).round()});
            if let Err(reason) = &source.state {
                json["reason"] = json!(reason);
            }
            json
        };
        let sources: serde_json::Map<_, _> =
            self.sources.iter().map(|found| (found.name.to_owned(), source(found))).collect();
        json!({"ready": self.is_ready() && !draining, "draining": draining, "checked_at": self.checked_at, "sources": sources})
    }
}

impl SourceHealth {
    pub fn status(&self) -> &'static str {
        if self.state.is_ok() { "ok" } else { "down" }
    }
}

impl HealthMonitor {
    pub(crate) fn new(
        postgres: PostgresSource,
        lake: Lake,
        engine: Arc<Engine>,
        unread: Arc<UnreadSlots>,
        entities: impl Fn() -> Vec<Arc<Entity>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            postgres,
            lake,
            engine,
            unread,
            entities: Box::new(entities),
            draining: AtomicBool::new(false),
            last: Mutex::const_new(None),
        }
    }

    /// From here on the server isn't ready, whatever the sources say.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// The latest finding; probes when there is none that is fresh. Calls that come meanwhile share one probe.
    pub async fn report(&self) -> Arc<HealthReport> {
        let mut last = self.last.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < FRESH
        {
            return Arc::clone(report);
        }
        let report = Arc::new(self.probe().await);
        *last = Some((Instant::now(), Arc::clone(&report)));
        report
    }

    async fn probe(&self) -> HealthReport {
        let entities = (self.entities)();
        let engine = Arc::clone(&self.engine);
        let duckdb = async move {
            let asked = tokio::task::spawn_blocking(move || {
                engine.connect().and_then(|connection| connection.query("SELECT 1")).map(|_| ())
            });
            match asked.await {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            }
        };
        let [postgres_name, lake_name, duckdb_name, queries_name] = PROBED;
        let sources = futures::join!(
            probe(postgres_name, async { self.postgres.probe(&entities).await.map_err(|error| error.to_string()) }),
            probe(lake_name, async { self.lake.probe_object(&entities).await.map_err(|error| error.to_string()) }),
            probe(duckdb_name, duckdb),
            probe(queries_name, async { self.unread.state() }),
        );
        HealthReport { sources: sources.into(), checked_at: chrono::Utc::now().timestamp_millis() }
    }
}

async fn probe(name: &'static str, work: impl Future<Output = Result<(), String>>) -> SourceHealth {
    let started = Instant::now();
    let state = match tokio::time::timeout(PROBE_LIMIT, work).await {
        Ok(state) => state,
        Err(_) => Err(format!("no answer within {PROBE_LIMIT:?}")),
    };
    SourceHealth { name, state, took: started.elapsed() }
}
