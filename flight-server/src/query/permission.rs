//! What a caller may do with a statement that binds, and what of its plan they see.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::error::{ErrorKind, QueryError};
use super::explain::Explain;
use super::statement::BoundStatement;
use crate::access::{Caller, PlanDetail};

/// Tables that everybody has: one's own options and queries.
const OWN_TABLES: [&str; 2] = ["options", "queries"];

/// Refuses a statement that reads a table of the server's, or asks for a plan, which the caller's roles don't grant. That
/// these exist is no secret: the refusal names what is missing.
pub(super) fn check(bound: &BoundStatement, caller: &Caller) -> Result<(), QueryError> {
    let mut system = bound.query.system_tables.iter().filter(|table| table.schema == "system");
    let missing =
        system.find(|table| !OWN_TABLES.contains(&table.table.as_str()) && !caller.rights.system.covers(&table.table));
    if let Some(table) = missing {
        let message =
            format!("system.{0} isn't granted: no role of `{1}` has \"{0}\" in `system`", table.table, caller.name);
        return Err(QueryError::new(ErrorKind::PermissionDenied, message));
    }
    if bound.explain != Explain::No && caller.rights.plan < PlanDetail::Full {
        let message = format!("EXPLAIN isn't granted: no role of `{}` has plan = \"full\"", caller.name);
        return Err(QueryError::new(ErrorKind::PermissionDenied, message));
    }
    Ok(())
}

/// What of a plan a caller sees.
pub(super) fn plan_for(caller: &Caller, plan: Arc<Json>) -> Arc<Json> {
    let kept: &[&str] = match caller.rights.plan {
        PlanDetail::Full => return plan,
        PlanDetail::Summary => {
            &["version", "query_id", "route", "consistency", "tiers", "degraded", "warnings", "timings_ms", "execution"]
        }
        PlanDetail::None => &["version", "query_id", "degraded", "warnings"],
    };
    let mut seen: serde_json::Map<String, Json> =
        kept.iter().filter_map(|key| Some(((*key).to_owned(), plan.get(*key)?.clone()))).collect();
    if let Some(execution) = seen.get("execution") {
        let figures = ["rows", "bytes", "truncated", "execution_ms", "streaming_ms"];
        let kept: serde_json::Map<String, Json> =
            figures.iter().filter_map(|key| Some(((*key).to_owned(), execution.get(*key)?.clone()))).collect();
        seen.insert("execution".to_owned(), Json::Object(kept));
    }
    round(&mut seen);
    Arc::new(Json::Object(seen))
}

/// Whole milliseconds: finer ones tell of rows that aren't shown.
fn round(plan: &mut serde_json::Map<String, Json>) {
    for part in ["timings_ms", "execution"] {
        let Some(Json::Object(figures)) = plan.get_mut(part) else { continue };
        for (name, figure) in figures {
            if (part == "timings_ms" || name.ends_with("_ms"))
                && let Some(millis) = figure.as_f64()
            {
                *figure = json!(millis.round());
            }
        }
    }
}
