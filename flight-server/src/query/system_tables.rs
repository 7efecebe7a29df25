//! Tables of the `system` schema (docs/operations.md) and their shapes, and the rows of all tables that the server
//! fills.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int16Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Schema, SchemaRef};
use translator::lake::LakeFile;
use translator::options::{QueryOptions, Tier};
use translator::quote::uuid_text;
use translator::{SHOW_TABLES, SystemTable};

use super::blame::execution_error;
use super::error::QueryError;
use super::permission;
use super::sources::Sources;
use crate::access::Caller;
use crate::engine::ShapeDatabase;
use crate::health::{HealthMonitor, HealthReport};
use crate::lake::{Superseded, compaction_due};
use crate::moments::{MomentEntry, Moments};
use crate::telemetry::{QueryEntry, Telemetry};

/// What the tables are filled from.
pub(super) struct SystemSources<'a> {
    pub(super) shape: &'a Arc<ShapeDatabase>,
    pub(super) sources: &'a Sources,
    pub(super) telemetry: &'a Telemetry,
    pub(super) health: &'a HealthMonitor,
    pub(super) options: &'a QueryOptions,
    pub(super) caller: &'a Caller,
}

/// The rows of a table that the server fills.
pub(super) async fn rows(
    from: &SystemSources<'_>,
    table: &SystemTable,
) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
    if table.schema != "system" {
        let (shape, table) = (Arc::clone(from.shape), table.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let rows = if (table.schema.as_str(), table.table.as_str()) == SHOW_TABLES {
                shape.entity_names()
            } else {
                shape.information_schema(&table.table)
            };
            rows.map_err(execution_error)
        });
        return asked.await.map_err(QueryError::internal)?;
    }
    let columns = match table.table.as_str() {
        "options" => options(from.options),
        "queries" => queries(&from.telemetry.recent(), from.caller),
        "files" => files(from).await?,
        "tiers" => tiers(from).await?,
        "health" => {
            let breakers = from.sources.breakers();
            let off = from.sources.moments.as_ref().map(Moments::switched_off).unwrap_or_default();
            health(&*from.health.report().await, &[("postgres", breakers.postgres), ("lake", breakers.lake)], &off)
        }
        "moments" => shared_moments(from),
        unknown => return Err(QueryError::internal(anyhow::anyhow!("system.{unknown} has no rows to give"))),
    };
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).map_err(QueryError::internal)?;
    Ok((schema, vec![batch]))
}

type Columns = Vec<(&'static str, ArrayRef)>;

fn texts<T: Into<String>>(values: impl Iterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.map(|value| value.map(Into::into)).collect::<StringArray>())
}

fn counts(values: impl Iterator<Item = Option<u64>>) -> ArrayRef {
    Arc::new(values.map(|value| value.and_then(|value| i64::try_from(value).ok())).collect::<Int64Array>())
}

fn numbers(values: impl Iterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.collect::<Float64Array>())
}

fn flags(values: impl Iterator<Item = Option<bool>>) -> ArrayRef {
    Arc::new(values.collect::<BooleanArray>())
}

/// Unix milliseconds as TIMESTAMPTZ.
fn moments(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    let micros = values.map(|millis| millis.map(|millis| millis.saturating_mul(1000)));
    Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

fn options(options: &QueryOptions) -> Columns {
    let entries = options.entries();
    vec![
        ("name", texts(entries.iter().map(|(name, _)| Some(*name)))),
        ("value", texts(entries.iter().map(|(_, value)| Some(value.as_str())))),
    ]
}

/// One's own queries, and those of others for who may see them.
fn queries(entries: &[Arc<QueryEntry>], caller: &Caller) -> Columns {
    let is_seen = |entry: &&Arc<QueryEntry>| caller.rights.admin || entry.principal == caller.name;
    let entries: Vec<&Arc<QueryEntry>> = entries.iter().filter(is_seen).collect();
    let plan = |pointer: &'static str| {
        entries.iter().map(move |entry| entry.plan.as_ref().and_then(|plan| plan.pointer(pointer)))
    };
    let millis = |pointer: &'static str| numbers(plan(pointer).map(|value| value.and_then(serde_json::Value::as_f64)));
    vec![
        ("query_id", texts(entries.iter().map(|entry| Some(entry.query_id.as_str())))),
        ("started_at", moments(entries.iter().map(|entry| Some(entry.started_at)))),
        ("state", texts(entries.iter().map(|entry| Some(entry.state)))),
        ("route", texts(plan("/route").map(|value| value.and_then(serde_json::Value::as_str)))),
        ("total_ms", numbers(entries.iter().map(|entry| entry.total_ms))),
        ("translation_ms", millis("/timings_ms/translation")),
        ("planning_ms", millis("/timings_ms/planning")),
        ("execution_ms", millis("/execution/execution_ms")),
        ("streaming_ms", millis("/execution/streaming_ms")),
        ("rows", counts(entries.iter().map(|entry| Some(entry.rows)))),
        ("bytes", counts(plan("/execution/bytes").map(|value| value.and_then(serde_json::Value::as_u64)))),
        ("degraded", flags(plan("/degraded/is_degraded").map(|value| value.and_then(serde_json::Value::as_bool)))),
        ("error_kind", texts(entries.iter().map(|entry| entry.error_kind))),
        ("error", texts(entries.iter().map(|entry| entry.error.clone()))),
        ("sql", texts(entries.iter().map(|entry| Some(entry.sql.as_str())))),
        (
            "plan",
            texts(entries.iter().map(|entry| {
                let seen = entry.plan.clone().map(|plan| permission::plan_for(caller, plan));
                seen.map(|plan| plan.to_string())
            })),
        ),
        ("principal", texts(entries.iter().map(|entry| Some(entry.principal.as_str())))),
    ]
}

async fn files(from: &SystemSources<'_>) -> Result<Columns, QueryError> {
    let mut rows: Vec<(String, i16, LakeFile)> = Vec::new();
    let mut superseded: Vec<u64> = Vec::new();
    for entity in from.shape.catalog().entities() {
        let files = from.sources.files_of(entity).await?;
        superseded.extend(Superseded::of(&files).by_file);
        rows.extend(files.into_iter().map(|file| (entity.name.clone(), entity.schema_id, file)));
    }
    let file = || rows.iter().map(|(_, _, file)| file);
    Ok(vec![
        ("entity", texts(rows.iter().map(|(entity, _, _)| Some(entity.as_str())))),
        ("schema_id", Arc::new(rows.iter().map(|(_, id, _)| Some(*id)).collect::<Int16Array>())),
        ("tier", texts(file().map(|file| Some(file.tier.as_str())))),
        ("path", texts(file().map(|file| Some(file.path.as_str())))),
        ("rows", counts(file().map(|file| Some(file.row_count)))),
        ("bytes", counts(file().map(|file| Some(file.bytes)))),
        ("min_row_id", texts(file().map(|file| file.row_id_range.map(|(min, _)| uuid_text(min))))),
        ("max_row_id", texts(file().map(|file| file.row_id_range.map(|(_, max)| uuid_text(max))))),
        ("min_changed_at", moments(file().map(|file| file.changed_at_range.map(|(min, _)| min)))),
        ("max_changed_at", moments(file().map(|file| file.changed_at_range.map(|(_, max)| max)))),
        ("unique_rows", flags(file().map(|file| Some(file.unique_rows)))),
        ("superseded_rows", counts(superseded.into_iter().map(Some))),
    ])
}

/// One row of `system.tiers`.
struct TierRow {
    entity: String,
    schema_id: i16,
    tier: Tier,
    rows: u64,
    bytes: Option<u64>,
    files: Option<u64>,
    oldest: Option<i64>,
    newest: Option<i64>,
    /// Hot: age of the oldest row that no file has yet. Warm and cold: time since the newest version there.
    lag_ms: Option<i64>,
    /// Versions hidden by newer ones in delta files, at most.
    superseded: Option<u64>,
    /// Warm: why compaction is due.
    compaction: Option<String>,
}

async fn tiers(from: &SystemSources<'_>) -> Result<Columns, QueryError> {
    let now = chrono::Utc::now().timestamp_millis();
    let mut rows = Vec::new();
    for entity in from.shape.catalog().entities() {
        let (entity_name, schema_id) = (entity.name.clone(), entity.schema_id);
        let hot = from.sources.hot_tier(entity).await?;
        rows.push(TierRow {
            entity: entity_name.clone(),
            schema_id,
            tier: Tier::Hot,
            rows: hot.rows,
            bytes: None,
            files: None,
            oldest: hot.oldest,
            newest: hot.newest,
            lag_ms: hot.lag_ms(now),
            superseded: None,
            compaction: None,
        });
        let files = from.sources.files_of(entity).await?;
        let superseded = Superseded::of(&files);
        let due = compaction_due(&files);
        for tier in [Tier::Warm, Tier::Cold] {
            let of_tier = || files.iter().filter(|file| file.tier == tier);
            let newest = of_tier().filter_map(|file| Some(file.changed_at_range?.1)).max();
            rows.push(TierRow {
                entity: entity_name.clone(),
                schema_id,
                tier,
                rows: of_tier().map(|file| file.row_count).sum(),
                bytes: Some(of_tier().map(|file| file.bytes).sum()),
                files: Some(of_tier().count() as u64),
                oldest: of_tier().filter_map(|file| Some(file.changed_at_range?.0)).min(),
                newest,
                lag_ms: newest.map(|newest| now.saturating_sub(newest)),
                superseded: Some(superseded.of_tier(tier)),
                compaction: due.clone().filter(|_| tier == Tier::Warm),
            });
        }
    }
    let lags = rows.iter().map(|row| row.lag_ms.map(|lag| lag as f64 / 1000.0));
    Ok(vec![
        ("entity", texts(rows.iter().map(|row| Some(row.entity.as_str())))),
        ("schema_id", Arc::new(rows.iter().map(|row| Some(row.schema_id)).collect::<Int16Array>())),
        ("tier", texts(rows.iter().map(|row| Some(row.tier.as_str())))),
        ("rows", counts(rows.iter().map(|row| Some(row.rows)))),
        ("bytes", counts(rows.iter().map(|row| row.bytes))),
        ("files", counts(rows.iter().map(|row| row.files))),
        ("oldest_changed_at", moments(rows.iter().map(|row| row.oldest))),
        ("newest_changed_at", moments(rows.iter().map(|row| row.newest))),
        ("lag_seconds", numbers(lags)),
        ("superseded_rows", counts(rows.iter().map(|row| row.superseded))),
        ("compaction", texts(rows.iter().map(|row| row.compaction.as_deref()))),
    ])
}

/// The last moments, as far as they are about entities of this catalog.
fn shared_moments(from: &SystemSources<'_>) -> Columns {
    let recent = from.sources.moments.as_ref().map(Moments::recent).unwrap_or_default();
    let now = chrono::Utc::now().timestamp_millis();
    let catalog = from.shape.catalog();
    let known = |entry: &MomentEntry| {
        let names = entry.entities.iter().filter(|name| catalog.entity(name).is_some());
        names.map(String::as_str).collect::<Vec<_>>().join(", ")
    };
    #[expect(clippy::cast_precision_loss, reason = "milliseconds for people")]
    let ages = recent.iter().map(|entry| Some(now.saturating_sub(entry.made_at).max(0) as f64));
    vec![
        ("id", counts(recent.iter().map(|entry| Some(entry.id)))),
        ("snapshot", texts(recent.iter().map(|entry| Some(entry.snapshot.as_str()).filter(|text| !text.is_empty())))),
        ("made_at", moments(recent.iter().map(|entry| Some(entry.made_at)))),
        ("age_ms", numbers(ages)),
        ("made_ms", numbers(recent.iter().map(|entry| Some(entry.took.as_secs_f64() * 1000.0)))),
        ("entities", texts(recent.iter().map(|entry| Some(known(entry))))),
        ("changed_rows", counts(recent.iter().map(|entry| Some(entry.changed_rows)))),
        ("shared", counts(recent.iter().map(|entry| Some(entry.shared.load(Ordering::Relaxed))))),
        ("error", texts(recent.iter().map(|entry| entry.error.as_deref()))),
    ]
}

/// A line a source, and one for each entity whose copy in memory is switched off.
fn health(report: &HealthReport, breakers: &[(&str, &'static str)], off: &[(String, String)]) -> Columns {
    let breaker = |name: &str| breakers.iter().find(|(source, _)| *source == name).map(|(_, state)| *state);
    let sources = || report.sources.iter();
    let lines = off.len();
    let mirrors = || off.iter().map(|(entity, _)| Some(format!("mirror of {entity}")));
    let reasons =
        sources().map(|source| source.state.clone().err()).chain(off.iter().map(|(_, why)| Some(why.clone())));
    let took = sources().map(|source| Some(source.took.as_secs_f64() * 1000.0));
    vec![
        ("source", texts(sources().map(|source| Some(source.name.to_owned())).chain(mirrors()))),
        ("status", texts(sources().map(|source| Some(source.status())).chain(off.iter().map(|_| Some("off"))))),
        ("reason", texts(reasons)),
        ("ms", numbers(took.chain(std::iter::repeat_n(None, lines)))),
        ("breaker", texts(sources().map(|source| breaker(source.name)).chain(std::iter::repeat_n(None, lines)))),
        ("checked_at", moments(std::iter::repeat_n(Some(report.checked_at), report.sources.len() + lines))),
    ]
}
