//! The plan as JSON (docs/plan.md): what the translator planned, with the server's id, SQL, timings and figures.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value as Json, json};
use translator::options::QueryOptions;
use translator::plan::FederatedPlan;

use super::run::RunSummary;
use super::scan_figures::{LakeScan, rows_kept, scan_figures};
use super::sources::{BreakerStates, HotExecution};
use crate::moments::Moment;

/// Everything of a plan that is known before it runs.
#[derive(Debug, Clone)]
pub(super) struct PlanParts<'a> {
    pub(super) query_id: &'a str,
    pub(super) sql: &'a str,
    pub(super) plan: Option<&'a FederatedPlan>,
    /// The moment that the plan is of, when it shares one.
    pub(super) moment: Option<&'a Moment>,
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
    json["moment"] = parts.moment.map_or(Json::Null, moment);
    json["breakers"] = json!({"postgres": parts.breakers.postgres, "lake": parts.breakers.lake});
    json["timings_ms"] = json!({"translation": millis(parts.translation), "planning": millis(parts.planning)});
    cut(&mut json);
    json
}

/// The longest text of a plan, and the longest plan: beyond that its texts are cut shorter. A statement may be megabytes
/// of literals, the plan holds it several times over, and a gRPC client takes 4 MB in a message unless told otherwise.
const MAX_TEXT_BYTES: usize = 64 * 1024;
const MAX_PLAN_BYTES: usize = 1024 * 1024;
const SHORT_TEXT_BYTES: usize = 1024;

/// Cuts long texts, and says in `cut` which.
fn cut(plan: &mut Json) {
    let mut places = Vec::new();
    cut_texts(plan, MAX_TEXT_BYTES, &mut String::new(), &mut places);
    if plan.to_string().len() > MAX_PLAN_BYTES {
        places.clear();
        cut_texts(plan, SHORT_TEXT_BYTES, &mut String::new(), &mut places);
    }
    if !places.is_empty() {
        plan["cut"] = json!(places);
    }
}

/// `at` is the place of `value` as a JSON pointer (RFC 6901).
fn cut_texts(value: &mut Json, longest: usize, at: &mut String, places: &mut Vec<String>) {
    let length = at.len();
    let mut inside = |part: &str, value: &mut Json| {
        at.push('/');
        at.push_str(part);
        cut_texts(value, longest, at, places);
        at.truncate(length);
    };
    match value {
        Json::String(text) if text.len() > longest => {
            let end = (0..=longest).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
            let whole = text.len();
            text.truncate(end);
            text.push_str(&format!("… (cut: the first {end} of {whole} bytes)"));
            places.push(at.clone());
        }
        Json::Array(items) => {
            items.iter_mut().enumerate().for_each(|(index, item)| inside(&index.to_string(), item));
        }
        Json::Object(map) => map.iter_mut().for_each(|(name, value)| inside(name, value)),
        Json::String(_) | Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

fn moment(moment: &Moment) -> Json {
    json!({
        "id": moment.id,
        "snapshot": moment.snapshot.seen.to_string(),
        "made_ms": millis(moment.took),
        "changed_rows": moment.changed_rows,
        "shared": moment.shared.load(Ordering::Relaxed),
    })
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
    for reference in items(&planned["references"]) {
        for source in items(&reference["sources"]) {
            if source["tier"] == "hot" {
                let Some(hot) = hot.next() else { continue };
                let passed = hot.table.as_ref().and_then(|table| rows_kept(summary.profile.as_ref(), table));
                let passed = passed.unwrap_or(hot.rows_returned);
                // Of rows in memory none was read from PostgreSQL.
                let returned = if hot.is_mirrored { passed } else { hot.rows_returned };
                if !hot.is_mirrored {
                    read += hot.rows_returned;
                    kept += passed;
                }
                sources.push(json!({"tier": "hot", "access": source["access"], "rows_scanned": hot.rows_scanned,
                    "rows_returned": returned, "ms": round(hot.ms)}));
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
fn efficiency(read: u64, kept: u64) -> f64 {
    if read <= kept { 1.0 } else { round(read as f64 / kept.max(1) as f64) }
}

fn millis(duration: Duration) -> f64 {
    round(duration.as_secs_f64() * 1000.0)
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_and_named() {
        let long = "é".repeat(MAX_TEXT_BYTES);
        let mut plan =
            json!({"sql": long, "route": "lake", "references": [{"sources": [{"sql": long, "tier": "hot"}]}]});
        cut(&mut plan);
        assert_eq!(plan["cut"], json!(["/references/0/sources/0/sql", "/sql"]));
        assert_eq!(plan["route"], "lake");
        assert!(plan["sql"].as_str().unwrap().ends_with("… (cut: the first 65536 of 131072 bytes)"), "{plan}");
        assert!(plan.to_string().len() < 3 * MAX_TEXT_BYTES);
        let mut short = json!({"sql": "SELECT 1"});
        cut(&mut short);
        assert_eq!(short, json!({"sql": "SELECT 1"}));
    }

    #[test]
    fn a_plan_of_many_texts_is_cut_shorter() {
        let mut plan = json!({"references": vec![json!({"sql": "x".repeat(MAX_TEXT_BYTES)}); 500]});
        cut(&mut plan);
        assert!(plan.to_string().len() < MAX_PLAN_BYTES);
        assert_eq!(plan["cut"].as_array().unwrap().len(), 500);
    }
}
