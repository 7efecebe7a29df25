//! The plan as JSON (design section 7): what the translator planned, with the server's id, SQL, timings and figures.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use translator::emit::hot_table;
use translator::options::QueryOptions;
use translator::plan::FederatedPlan;

use super::run::RunSummary;
use super::scan_figures::{LakeScan, rows_kept, scan_figures};
use super::sources::{BreakerStates, HotExecution};

/// Everything of a plan that is known before it runs.
#[derive(Debug, Clone)]
pub(super) struct PlanParts<'a> {
    pub(super) query_id: &'a str,
    pub(super) sql: &'a str,
    pub(super) plan: Option<&'a FederatedPlan>,
    pub(super) options: &'a QueryOptions,
    pub(super) statement: &'a str,
    pub(super) translation: Duration,
    pub(super) planning: Duration,
    pub(super) breakers: BreakerStates,
}

/// The plan JSON without `execution`.
pub(super) fn planned(parts: &PlanParts<'_>) -> Json {
    let mut json = match parts.plan {
        Some(plan) => plan.to_json(),
        None => json!({
            "route": "lake",
            "route_reason": "answered from the catalog; no source is asked",
            "consistency": parts.options.consistency.as_str(),
            "tiers": parts.options.tiers.iter().map(|tier| tier.as_str()).collect::<Vec<_>>(),
            "references": [],
            "degraded": {"is_degraded": false, "missing_tiers": [], "reasons": []},
            "warnings": [],
        }),
    };
    json["version"] = json!(1);
    json["query_id"] = json!(parts.query_id);
    json["sql"] = json!(parts.sql);
    json["statement"] = json!(parts.statement);
    json["breakers"] = json!({"postgres": parts.breakers.postgres, "lake": parts.breakers.lake});
    json["timings_ms"] = json!({"translation": millis(parts.translation), "planning": millis(parts.planning)});
    json
}

/// Adds a warning that showed while the query ran.
pub(super) fn warn(plan: &mut Json, warning: &str) {
    if let Some(warnings) = plan["warnings"].as_array_mut() {
        warnings.push(json!(warning));
    }
}

/// The plan JSON with `execution` filled in. `scans` has the lake sources in the plan's order.
pub(super) fn executed(planned: &Json, hot: &[HotExecution], scans: &[LakeScan], summary: &RunSummary) -> Arc<Json> {
    let mut json = planned.clone();
    let mut measured = scan_figures(summary.profile.as_ref(), scans).into_iter();
    let mut hot = hot.iter();
    let mut sources = Vec::new();
    let (mut read, mut kept) = (0, 0);
    for (index, reference) in items(&planned["references"]).iter().enumerate() {
        for source in items(&reference["sources"]) {
            if source["engine"] == "postgres" {
                if let Some(hot) = hot.next() {
                    read += hot.rows_returned;
                    kept += rows_kept(summary.profile.as_ref(), &hot_table(index)).unwrap_or(hot.rows_returned);
                    sources.push(json!({"tier": "hot", "rows_scanned": hot.rows_scanned,
                        "rows_returned": hot.rows_returned, "ms": round(hot.ms)}));
                }
            } else {
                let scan = measured.next().flatten();
                let mut measured = json!({"tier": source["tier"], "rows_scanned": source["row_estimate"],
                    "rows_returned": scan.map(|scan| scan.rows), "ms": scan.map(|scan| round(scan.ms))});
                if scan.is_some_and(|scan| scan.shared) {
                    measured["shared"] = json!(true);
                }
                sources.push(measured);
            }
        }
    }
    json["execution"] = json!({
        "execution_ms": millis(summary.execution),
        "streaming_ms": millis(summary.streaming),
        "rows": summary.rows,
        "bytes": summary.bytes,
        "truncated": summary.truncated,
        "engine": if summary.by_duckdb { "duckdb" } else { "postgres" },
        "sources": sources,
        "pushdown_efficiency": efficiency(read, kept),
    });
    Arc::new(json)
}

fn items(value: &Json) -> &[Json] {
    value.as_array().map_or(&[][..], Vec::as_slice)
}

/// Rows read from PostgreSQL for each of them that passed the filters left to DuckDB; at best 1.
#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn efficiency(read: u64, kept: u64) -> f64 {
    if read <= kept { 1.0 } else { round(read as f64 / kept.max(1) as f64) }
}

fn millis(duration: Duration) -> f64 {
    round(duration.as_secs_f64() * 1000.0)
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
