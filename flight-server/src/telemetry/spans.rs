//! Attributes of the spans of a query's stages.

use tracing::Span;
use tracing::field::Empty;
use translator::plan::FederatedPlan;

/// The span of planning; [`record_plan`] fills it.
pub(crate) fn plan_span() -> Span {
    tracing::info_span!(
        "plan",
        route = Empty,
        merge = Empty,
        dirty_rows = Empty,
        files_total = Empty,
        files_scanned = Empty,
        degraded = Empty
    )
}

/// Says in the span what was planned; sums over all references.
pub(crate) fn record_plan(span: &Span, plan: &FederatedPlan) {
    let lake = || plan.references.iter().flat_map(|reference| [&reference.warm, &reference.cold]).flatten();
    let merges: Vec<&str> = plan.references.iter().map(|reference| reference.merge.as_str()).collect();
    span.record("route", plan.route.as_str());
    span.record("merge", merges.join(","));
    span.record("dirty_rows", plan.references.iter().filter_map(|reference| reference.dirty_rows).sum::<u64>());
    span.record("files_total", lake().map(|source| source.files_total).sum::<usize>());
    span.record("files_scanned", lake().map(|source| source.files.len()).sum::<usize>());
    span.record("degraded", plan.degraded.is_degraded());
}
