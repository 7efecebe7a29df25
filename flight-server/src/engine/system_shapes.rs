//! Shapes of the `system` tables (docs/operations.md), which binding needs before anybody fills them.

/// Name and columns (DuckDB types) of each table of the `system` schema.
pub(crate) const SYSTEM_SHAPES: [(&str, &str); 6] = [
    ("options", "name VARCHAR, value VARCHAR"),
    (
        "queries",
        "query_id VARCHAR, started_at TIMESTAMPTZ, state VARCHAR, route VARCHAR, total_ms DOUBLE, translation_ms DOUBLE, \
         planning_ms DOUBLE, execution_ms DOUBLE, streaming_ms DOUBLE, \"rows\" BIGINT, bytes BIGINT, degraded BOOLEAN, \
         error_kind VARCHAR, error VARCHAR, sql VARCHAR, plan VARCHAR, principal VARCHAR",
    ),
    (
        "files",
        "entity VARCHAR, schema_id SMALLINT, tier VARCHAR, path VARCHAR, \"rows\" BIGINT, bytes BIGINT, min_row_id VARCHAR, \
         max_row_id VARCHAR, min_changed_at TIMESTAMPTZ, max_changed_at TIMESTAMPTZ, unique_rows BOOLEAN, superseded_rows BIGINT",
    ),
    (
        "tiers",
        "entity VARCHAR, schema_id SMALLINT, tier VARCHAR, \"rows\" BIGINT, bytes BIGINT, files BIGINT, \
         oldest_changed_at TIMESTAMPTZ, newest_changed_at TIMESTAMPTZ, lag_seconds DOUBLE, superseded_rows BIGINT, compaction VARCHAR",
    ),
    (
        "moments",
        "id BIGINT, snapshot VARCHAR, made_at TIMESTAMPTZ, age_ms DOUBLE, made_ms DOUBLE, entities VARCHAR, changed_rows BIGINT, \
         shared BIGINT, error VARCHAR",
    ),
    ("health", "source VARCHAR, status VARCHAR, reason VARCHAR, ms DOUBLE, breaker VARCHAR, checked_at TIMESTAMPTZ"),
];
