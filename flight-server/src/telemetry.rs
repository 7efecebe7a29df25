//! What the server tells its operators: metrics, traces, logs and the recent queries.
//!
//! Stands under everybody who reports: it knows numbers and names, not queries. Nothing here waits for a collector: spans and metrics are exported by threads of their
//! own, and what can't be delivered is dropped.

mod export;
mod metrics;
mod otlp;
mod recent;
mod spans;

pub(crate) use export::call_span;
pub use export::{ExportError, Exporters, LogLevel, start};
use metrics::Instruments;
pub use metrics::{METRIC_NAMES, Observed, ObservedEntity, ObservedIndex, ObservedMoments, ObservedTier};
pub(crate) use recent::QueryEntry;
pub(crate) use spans::{plan_span, record_plan};

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::Registry;

use metrics::{Now, Observer};
use recent::RecentQueries;

/// The measures of one server.
pub struct Telemetry {
    instruments: Instruments,
    /// Keeps the meters alive.
    _provider: SdkMeterProvider,
    registry: Registry,
    recent: Mutex<RecentQueries>,
    /// Gauges that only the pipeline knows; set once it is there.
    observer: Arc<OnceLock<Observer>>,
    now: Now,
    slow_query: Option<Duration>,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").field("slow_query", &self.slow_query).finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Counts a failure that belongs to no running query: planning, preparing. `kind` is its name in metrics.
    pub(crate) fn failed(&self, kind: &'static str) {
        self.instruments.error(kind);
    }

    /// Counts a query that starts; [`Telemetry::query_ended`] must follow.
    pub(crate) fn query_started(&self) {
        self.now.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the end of a query: its route, and `finished`, `failed` or `cancelled`.
    pub(crate) fn query_ended(&self, route: String, outcome: &'static str) {
        self.now.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.instruments.ended(route, outcome);
    }

    pub(crate) fn instruments(&self) -> &Instruments {
        &self.instruments
    }

    /// Shows a query in `system.queries`, in the place of its earlier state.
    pub(crate) fn publish(&self, entry: QueryEntry) {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).put(entry);
    }

    /// Queries that take at least this long are logged with their plans.
    pub(crate) fn slow_query(&self) -> Option<Duration> {
        self.slow_query
    }

    /// The number of open connections, which whoever opens them counts.
    pub(crate) fn connections(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.now.connections)
    }

    pub(crate) fn refused_connection(&self, reason: &'static str) {
        self.instruments.refused_connection(reason);
    }

    pub(crate) fn reload_failed(&self) {
        self.instruments.reload_failed();
    }

    /// Takes the source of the gauges. The first one stays.
    pub(crate) fn observe(&self, observer: impl Fn() -> Option<Observed> + Send + Sync + 'static) {
        // A second pipeline of the same process doesn't take the gauges over.
        let _second = self.observer.set(Box::new(observer));
    }

    /// The metrics in Prometheus' text format.
    ///
    /// # Errors
    /// A metric that can't be written as text.
    pub fn prometheus(&self) -> Result<String, prometheus::Error> {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Recent queries, the newest first.
    pub(crate) fn recent(&self) -> Vec<Arc<QueryEntry>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).newest_first()
    }

    /// Queries between their start and the end of their stream.
    pub fn queries_in_flight(&self) -> i64 {
        self.now.in_flight.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::METRIC_NAMES;

    /// A dashboard that asks for a metric nobody exports shows nothing and says nothing.
    #[test]
    fn the_dashboard_asks_for_metrics_that_are_there() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/grafana/dashboards/thermocline.json");
        let dashboard: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).expect("the dashboard is JSON");
        let mut asked = std::collections::BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let words =
                    target["expr"].as_str().unwrap().split(|letter: char| letter != '_' && !letter.is_alphanumeric());
                asked.extend(
                    words
                        .filter(|word| word.starts_with("fed_"))
                        .map(|word| word.trim_end_matches("_bucket").to_owned()),
                );
            }
        }
        let exported: std::collections::BTreeSet<String> = METRIC_NAMES.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(asked, exported, "each metric has its place on the dashboard");
    }
}
