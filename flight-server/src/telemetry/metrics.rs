//! The instruments, and the gauges that are read when somebody asks.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};
use serde_json::Value as Json;

/// Every metric, by its name.
pub const METRIC_NAMES: [&str; 22] = [
    "fed_query_latency_histogram",
    "fed_query_row_count",
    "fed_query_pushdown_efficiency",
    "fed_query_count",
    "fed_query_errors",
    "fed_query_degraded",
    "fed_query_warnings",
    "fed_queries_in_flight",
    "fed_queries_queued",
    "fed_sent_rows",
    "fed_sent_bytes",
    "fed_breaker_state",
    "fed_postgres_pool_connections",
    "fed_lake_cached_footers",
    "fed_tier_rows",
    "fed_tier_bytes",
    "fed_tier_files",
    "fed_tier_superseded_rows",
    "fed_hot_lag_seconds",
    "fed_compaction_due",
    "fed_lake_footer_lookups",
    "fed_s3_requests",
];

/// What the gauges show at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    pub queued: u64,
    /// Connections of the pool: `max`, `open`, `idle`, `waiting`.
    pub pool: [u64; 4],
    pub cached_footers: u64,
    /// Footers asked for: remembered, and not.
    pub footer_lookups: [u64; 2],
    /// Requests to S3: who asked, what, how it ended, how often.
    pub s3_requests: Vec<([&'static str; 3], u64)>,
    /// A source and its breaker: `closed`, `half_open` or `open`.
    pub breakers: Vec<(&'static str, &'static str)>,
    pub entities: Vec<ObservedEntity>,
}

/// What an entity's tiers hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedEntity {
    pub entity: String,
    pub dirty_rows: u64,
    /// Age of the oldest dirty row; 0 without one.
    pub hot_lag_seconds: u64,
    pub lake: [ObservedTier; 2],
    pub is_compaction_due: bool,
}

/// What the files of a tier hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedTier {
    pub tier: &'static str,
    pub rows: u64,
    pub bytes: u64,
    pub files: u64,
    /// At most so many versions are hidden by newer ones in delta files.
    pub superseded_rows: u64,
}

/// Reads the gauges; `None` once the pipeline has gone.
pub(super) type Observer = Box<dyn Fn() -> Option<Observed> + Send + Sync>;

#[derive(Debug)]
pub(super) struct Instruments {
    latency: Histogram<f64>,
    rows: Counter<u64>,
    efficiency: Histogram<f64>,
    queries: Counter<u64>,
    errors: Counter<u64>,
    degraded: Counter<u64>,
    warnings: Counter<u64>,
    sent_rows: Counter<u64>,
    sent_bytes: Counter<u64>,
}

/// Milliseconds: from a hot look-up to a scan of the whole lake.
const LATENCY_BOUNDS: [f64; 17] = [
    0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 30_000.0, 60_000.0,
    300_000.0,
];
/// Rows read from PostgreSQL for each row of the result that came from there.
const EFFICIENCY_BOUNDS: [f64; 10] = [1.0, 1.5, 2.0, 5.0, 10.0, 50.0, 100.0, 1_000.0, 10_000.0, 100_000.0];

impl Instruments {
    pub(super) fn new(meter: &Meter, observer: &Arc<OnceLock<Observer>>, in_flight: &Arc<AtomicI64>) -> Self {
        gauges(meter, observer, in_flight);
        let counter = |name, text| meter.u64_counter(name).with_description(text).build();
        // Without labels a counter is there from the start: nothing counted is a fact too.
        let plain = |name, text| {
            let counter = counter(name, text);
            counter.add(0, &[]);
            counter
        };
        Self {
            latency: meter
                .f64_histogram("fed_query_latency_histogram")
                .with_unit("ms")
                .with_description("Time of a query by stage: translation, execution, streaming")
                .with_boundaries(LATENCY_BOUNDS.to_vec())
                .build(),
            rows: counter(
                "fed_query_row_count",
                "Rows: pg read from PostgreSQL, s3 delivered by scans of Parquet files, duckdb in the results of DuckDB",
            ),
            efficiency: meter
                .f64_histogram("fed_query_pushdown_efficiency")
                .with_description(
                    "Rows read from PostgreSQL for each row of the result that came from there; 1 is best",
                )
                .with_boundaries(EFFICIENCY_BOUNDS.to_vec())
                .build(),
            queries: counter("fed_query_count", "Queries that ended, by route and outcome"),
            errors: counter("fed_query_errors", "Failed calls by kind of error"),
            degraded: plain("fed_query_degraded", "Answers that lack a tier or a file"),
            warnings: plain("fed_query_warnings", "Warnings that went out with answers"),
            sent_rows: plain("fed_sent_rows", "Rows sent to clients"),
            sent_bytes: plain("fed_sent_bytes", "Bytes of record batches sent to clients"),
        }
    }

    pub(super) fn error(&self, kind: &'static str) {
        self.errors.add(1, &[KeyValue::new("kind", kind)]);
    }

    pub(super) fn latency(&self, stage: &'static str, ms: f64) {
        self.latency.record(ms, &[KeyValue::new("stage", stage)]);
    }

    pub(super) fn sent(&self, rows: u64, bytes: u64) {
        self.sent_rows.add(rows, &[]);
        self.sent_bytes.add(bytes, &[]);
    }

    pub(super) fn ended(&self, route: String, outcome: &'static str) {
        self.queries.add(1, &[KeyValue::new("route", route), KeyValue::new("outcome", outcome)]);
    }

    /// The figures of a finished plan.
    pub(super) fn finished(&self, plan: &Json) {
        let execution = &plan["execution"];
        let mut read_from_postgres = false;
        for source in execution["sources"].as_array().into_iter().flatten() {
            let (label, rows) = if source["tier"] == "hot" {
                read_from_postgres = true;
                ("pg", &source["rows_scanned"])
            } else {
                ("s3", &source["rows_returned"])
            };
            if let Some(rows) = rows.as_u64() {
                self.rows.add(rows, &[KeyValue::new("source", label)]);
            }
        }
        if let (Some("duckdb"), Some(rows)) = (execution["engine"].as_str(), execution["rows"].as_u64()) {
            self.rows.add(rows, &[KeyValue::new("source", "duckdb")]);
        }
        if let Some(efficiency) = execution["pushdown_efficiency"].as_f64().filter(|_| read_from_postgres) {
            self.efficiency.record(efficiency, &[]);
        }
        if plan["degraded"]["is_degraded"] == true {
            self.degraded.add(1, &[]);
        }
        if let Some(warnings) = plan["warnings"].as_array().filter(|warnings| !warnings.is_empty()) {
            self.warnings.add(warnings.len() as u64, &[]);
        }
    }
}

/// A value of a gauge, with its labels.
type Reading = (u64, Vec<KeyValue>);

fn gauges(meter: &Meter, observer: &Arc<OnceLock<Observer>>, in_flight: &Arc<AtomicI64>) {
    let flying = Arc::clone(in_flight);
    meter
        .i64_observable_gauge("fed_queries_in_flight")
        .with_description("Queries between their start and the end of their stream")
        .with_callback(move |gauge| gauge.observe(flying.load(Ordering::Relaxed), &[]))
        .build();
    let gauge = |name: &'static str, text: &'static str, read: fn(&Observed) -> Vec<Reading>| {
        let observer = Arc::clone(observer);
        meter
            .u64_observable_gauge(name)
            .with_description(text)
            .with_callback(move |gauge| {
                let observed = observer.get().and_then(|observe| observe());
                for (value, labels) in observed.iter().flat_map(read) {
                    gauge.observe(value, &labels);
                }
            })
            .build();
    };
    gauge("fed_queries_queued", "Queries that wait for a permit", |observed| vec![(observed.queued, vec![])]);
    gauge("fed_lake_cached_footers", "Footers of Parquet files that are remembered", |observed| {
        vec![(observed.cached_footers, vec![])]
    });
    let counter = |name: &'static str, text: &'static str, read: fn(&Observed) -> Vec<Reading>| {
        let observer = Arc::clone(observer);
        meter
            .u64_observable_counter(name)
            .with_description(text)
            .with_callback(move |counter| {
                let observed = observer.get().and_then(|observe| observe());
                for (value, labels) in observed.iter().flat_map(read) {
                    counter.observe(value, &labels);
                }
            })
            .build();
    };
    counter(
        "fed_lake_footer_lookups",
        "Footers of Parquet files that were asked for: remembered, or read",
        |observed| {
            let outcomes = ["hit", "miss"].into_iter().zip(observed.footer_lookups);
            outcomes.map(|(outcome, count)| (count, vec![KeyValue::new("outcome", outcome)])).collect()
        },
    );
    counter("fed_s3_requests", "HTTP requests to S3 by client, operation and outcome; retries count", |observed| {
        let labels = |values: [&'static str; 3]| {
            let names = ["client", "operation", "outcome"].into_iter();
            names.zip(values).map(|(name, value)| KeyValue::new(name, value)).collect()
        };
        observed.s3_requests.iter().map(|(values, count)| (*count, labels(*values))).collect()
    });
    gauge(
        "fed_postgres_pool_connections",
        "Connections to PostgreSQL: max, open, idle, and queries that wait for one",
        {
            |observed| {
                let states = ["max", "open", "idle", "waiting"].into_iter().zip(observed.pool);
                states.map(|(state, count)| (count, vec![KeyValue::new("state", state)])).collect()
            }
        },
    );
    gauge("fed_tier_rows", "Rows by tier: dirty rows of hot, versions in the files of warm and cold", |observed| {
        let hot = |entity: &ObservedEntity| (entity.dirty_rows, tier_labels(entity, "hot"));
        observed.entities.iter().map(hot).chain(of_lake(observed, |tier| tier.rows)).collect()
    });
    gauge("fed_tier_bytes", "Bytes of the files in force by tier", |observed| of_lake(observed, |tier| tier.bytes));
    gauge("fed_tier_files", "Files in force by tier", |observed| of_lake(observed, |tier| tier.files));
    gauge(
        "fed_tier_superseded_rows",
        "At most so many versions in files are hidden by newer ones in delta files",
        |observed| of_lake(observed, |tier| tier.superseded_rows),
    );
    gauge("fed_hot_lag_seconds", "Age of the oldest row that no file has yet", |observed| {
        let lag = |entity: &ObservedEntity| (entity.hot_lag_seconds, vec![entity_label(entity)]);
        observed.entities.iter().map(lag).collect()
    });
    gauge("fed_compaction_due", "1 when compaction is due by the rule of the operations page, else 0", |observed| {
        let due = |entity: &ObservedEntity| (u64::from(entity.is_compaction_due), vec![entity_label(entity)]);
        observed.entities.iter().map(due).collect()
    });
    gauge("fed_breaker_state", "State of a source's breaker: 0 closed, 1 half open, 2 open", |observed| {
        let number = |state: &str| match state {
            "open" => 2,
            "half_open" => 1,
            _ => 0,
        };
        let breakers = observed.breakers.iter();
        breakers.map(|(source, state)| (number(state), vec![KeyValue::new("source", *source)])).collect()
    });
}

fn entity_label(entity: &ObservedEntity) -> KeyValue {
    KeyValue::new("entity", entity.entity.clone())
}

fn tier_labels(entity: &ObservedEntity, tier: &'static str) -> Vec<KeyValue> {
    vec![entity_label(entity), KeyValue::new("tier", tier)]
}

/// A reading of each tier of files.
fn of_lake(observed: &Observed, read: fn(&ObservedTier) -> u64) -> Vec<Reading> {
    let of_entity =
        |entity: &ObservedEntity| entity.lake.each_ref().map(|tier| (read(tier), tier_labels(entity, tier.tier)));
    observed.entities.iter().flat_map(of_entity).collect()
}
