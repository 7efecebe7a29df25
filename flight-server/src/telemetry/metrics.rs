//! The instruments, and the gauges that are read when somebody asks.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};
use serde_json::Value as Json;

/// Every metric, by its name.
pub const METRIC_NAMES: [&str; 38] = [
    "fed_query_latency_histogram",
    "fed_query_row_count",
    "fed_query_pushdown_efficiency",
    "fed_query_count",
    "fed_query_errors",
    "fed_query_degraded",
    "fed_query_warnings",
    "fed_queries_in_flight",
    "fed_queries_queued",
    "fed_queries_unread",
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
    "fed_unreadable_rows",
    "fed_lake_footer_lookups",
    "fed_s3_requests",
    "fed_connections",
    "fed_connections_refused",
    "fed_reload_failures",
    "fed_index_bytes",
    "fed_index_files",
    "fed_index_lookups",
    "fed_moments",
    "fed_moment_queries",
    "fed_moment_changed_rows",
    "fed_moment_making_microseconds",
    "fed_mirror_rows",
    "fed_mirror_bytes",
    "fed_mirror_queries",
    "fed_mirror_audits",
];

/// What the gauges show at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    pub queued: u64,
    pub unread: u64,
    /// Connections of the pool: `max`, `open`, `idle`, `waiting`.
    pub pool: [u64; 4],
    pub cached_footers: u64,
    /// Footers asked for: remembered, and not.
    pub footer_lookups: [u64; 2],
    pub index: ObservedIndex,
    /// Requests to S3: who asked, what, how it ended, how often.
    pub s3_requests: Vec<([&'static str; 3], u64)>,
    /// A source and its breaker: `closed`, `half_open` or `open`.
    pub breakers: Vec<(&'static str, &'static str)>,
    pub entities: Vec<ObservedEntity>,
    pub moments: ObservedMoments,
}

/// What became of moments and of the rows in memory that they are made from. All but the sizes only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ObservedMoments {
    /// Made, and failed.
    pub outcomes: [u64; 2],
    /// Queries that they answered.
    pub queries: u64,
    pub changed_rows: u64,
    /// Time of making them all.
    pub making_microseconds: u64,
    pub mirror_rows: u64,
    pub mirror_bytes: u64,
    /// Queries that rows in memory answered, and queries that read PostgreSQL.
    pub mirror_queries: [u64; 2],
    /// Audits that found nothing, and those that found a difference.
    pub audits: [u64; 2],
}

/// What the version index holds and how it was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ObservedIndex {
    /// Bytes on disk.
    pub bytes: u64,
    /// Files whose index is open.
    pub files: u64,
    /// Sets of files that it was asked about: known, and not yet.
    pub lookups: [u64; 2],
}

/// What an entity's tiers hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedEntity {
    pub entity: String,
    pub dirty_rows: u64,
    /// Dirty rows with a value that doesn't fit its declared type; `None` while that isn't known.
    pub unreadable_rows: Option<u64>,
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

/// What is counted up and down.
#[derive(Debug, Clone, Default)]
pub(super) struct Now {
    pub(super) in_flight: Arc<AtomicI64>,
    pub(super) connections: Arc<AtomicI64>,
}

/// Reads the gauges; `None` once the pipeline has gone.
pub(super) type Observer = Box<dyn Fn() -> Option<Observed> + Send + Sync>;

#[derive(Debug)]
pub(crate) struct Instruments {
    latency: Histogram<f64>,
    rows: Counter<u64>,
    efficiency: Histogram<f64>,
    queries: Counter<u64>,
    errors: Counter<u64>,
    degraded: Counter<u64>,
    warnings: Counter<u64>,
    sent_rows: Counter<u64>,
    sent_bytes: Counter<u64>,
    refused_connections: Counter<u64>,
    reload_failures: Counter<u64>,
}

/// Milliseconds: from a hot look-up to a scan of the whole lake.
const LATENCY_BOUNDS: [f64; 17] = [
    0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 30_000.0, 60_000.0,
    300_000.0,
];
/// Rows read from PostgreSQL for each row of the result that came from there.
const EFFICIENCY_BOUNDS: [f64; 10] = [1.0, 1.5, 2.0, 5.0, 10.0, 50.0, 100.0, 1_000.0, 10_000.0, 100_000.0];

impl Instruments {
    pub(super) fn new(meter: &Meter, observer: &Arc<OnceLock<Observer>>, now: &Now) -> Self {
        gauges(meter, observer, now);
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
            refused_connections: counter("fed_connections_refused", "Connections that were closed, by why"),
            reload_failures: plain("fed_reload_failures", "Reloads that left the old settings in force"),
        }
    }

    pub(super) fn refused_connection(&self, reason: &'static str) {
        self.refused_connections.add(1, &[KeyValue::new("reason", reason)]);
    }

    pub(super) fn reload_failed(&self) {
        self.reload_failures.add(1, &[]);
    }

    pub(crate) fn error(&self, kind: &'static str) {
        self.errors.add(1, &[KeyValue::new("kind", kind)]);
    }

    pub(crate) fn latency(&self, stage: &'static str, ms: f64) {
        self.latency.record(ms, &[KeyValue::new("stage", stage)]);
    }

    pub(crate) fn sent(&self, rows: u64, bytes: u64) {
        self.sent_rows.add(rows, &[]);
        self.sent_bytes.add(bytes, &[]);
    }

    pub(crate) fn ended(&self, route: String, outcome: &'static str) {
        self.queries.add(1, &[KeyValue::new("route", route), KeyValue::new("outcome", outcome)]);
    }

    /// The figures of a finished plan.
    pub(crate) fn finished(&self, plan: &Json) {
        let execution = &plan["execution"];
        let mut read_from_postgres = false;
        for source in execution["sources"].as_array().into_iter().flatten() {
            let (label, rows) = if source["access"] == "mirror" {
                continue;
            } else if source["tier"] == "hot" {
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

fn gauges(meter: &Meter, observer: &Arc<OnceLock<Observer>>, now: &Now) {
    let number = |name: &'static str, text: &'static str, number: &Arc<AtomicI64>| {
        let number = Arc::clone(number);
        meter
            .i64_observable_gauge(name)
            .with_description(text)
            .with_callback(move |gauge| gauge.observe(number.load(Ordering::Relaxed), &[]))
            .build();
    };
    number("fed_queries_in_flight", "Queries between their start and the end of their stream", &now.in_flight);
    number("fed_connections", "Connections of clients that are open", &now.connections);
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
    gauge("fed_queries_unread", "Running queries that wait for their client to read", |observed| {
        vec![(observed.unread, vec![])]
    });
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
    gauge("fed_index_bytes", "Bytes on disk of the version index", |observed| vec![(observed.index.bytes, vec![])]);
    gauge("fed_index_files", "Files of the lake whose version index is open", |observed| {
        vec![(observed.index.files, vec![])]
    });
    counter(
        "fed_index_lookups",
        "Sets of files that the version index was asked about: known, or not yet",
        |observed| {
            let outcomes = ["hit", "miss"].into_iter().zip(observed.index.lookups);
            outcomes.map(|(outcome, count)| (count, vec![KeyValue::new("outcome", outcome)])).collect()
        },
    );
    counter("fed_moments", "Moments by outcome", |observed| outcomes(["made", "failed"], observed.moments.outcomes));
    counter("fed_moment_queries", "Queries that moments answered", |observed| vec![(observed.moments.queries, vec![])]);
    counter("fed_moment_changed_rows", "Rows that moments read from PostgreSQL", |observed| {
        vec![(observed.moments.changed_rows, vec![])]
    });
    counter("fed_moment_making_microseconds", "Time of making moments", |observed| {
        vec![(observed.moments.making_microseconds, vec![])]
    });
    gauge("fed_mirror_rows", "Versions of dirty rows in memory", |observed| {
        vec![(observed.moments.mirror_rows, vec![])]
    });
    gauge("fed_mirror_bytes", "Bytes of dirty rows in memory, estimated", |observed| {
        vec![(observed.moments.mirror_bytes, vec![])]
    });
    counter(
        "fed_mirror_queries",
        "Queries that rows in memory answered, or PostgreSQL although they are on",
        |observed| outcomes(["hit", "miss"], observed.moments.mirror_queries),
    );
    counter("fed_mirror_audits", "Comparisons of rows in memory with PostgreSQL, by outcome", |observed| {
        outcomes(["same", "different"], observed.moments.audits)
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
    gauge(
        "fed_unreadable_rows",
        "Dirty rows with a value that doesn't fit its declared type, where they are known",
        |observed| {
            let known = |entity: &ObservedEntity| Some((entity.unreadable_rows?, vec![entity_label(entity)]));
            observed.entities.iter().filter_map(known).collect()
        },
    );
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

/// A reading for each of two outcomes.
fn outcomes(names: [&'static str; 2], counts: [u64; 2]) -> Vec<Reading> {
    let readings = names.into_iter().zip(counts);
    readings.map(|(outcome, count)| (count, vec![KeyValue::new("outcome", outcome)])).collect()
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
