//! The plan of a query: a value that prints, serialises to the JSON of docs/plan.md and snapshots in tests.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::catalog::{Column, Entity};
use crate::hot_query::HotQuery;
use crate::lake::LakeFile;
use crate::options::{Consistency, Tier, Tiers};
use crate::postgres::{HotStatement, PushedPredicate};

/// Which engines answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// Only PostgreSQL.
    Hot,
    /// Only files.
    Lake,
    /// Both.
    Federated,
}

/// How versions in files become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MergeStrategy {
    /// A window over all versions picks the newest. Always right.
    Window,
    /// Base rows that nothing supersedes, plus the newest delta versions.
    Layered,
    /// Every version that isn't its row is left out by its position in its file.
    Positions,
    /// One tier answers, and holds each row once.
    None,
}

/// The plan of one query.
#[derive(Debug, Clone, PartialEq)]
pub struct FederatedPlan {
    pub route: Route,
    pub route_reason: String,
    pub consistency: Consistency,
    pub tiers: Tiers,
    pub include_deleted: bool,
    pub references: Vec<ReferencePlan>,
    /// On the `hot` route: the query as PostgreSQL answers it whole, without DuckDB.
    pub hot_query: Option<HotQuery>,
    pub degraded: Degradation,
    pub warnings: Vec<String>,
}

/// The plan of one reference.
#[derive(Debug, Clone, PartialEq)]
pub struct ReferencePlan {
    pub entity: Arc<Entity>,
    pub alias: String,
    /// Columns to read, in the entity's order; always with `row_id`.
    pub columns: Vec<Column>,
    /// Size of the dirty set; `None` when PostgreSQL isn't asked.
    pub dirty_rows: Option<u64>,
    pub merge: MergeStrategy,
    /// What proves that the strategy is right.
    pub merge_proof: String,
    /// For [`MergeStrategy::Window`]: a condition that winners of the answer meet. Only rows with a version that meets
    /// it go through the window.
    pub prefilter: Option<String>,
    pub hot: Option<HotSource>,
    pub warm: Option<LakeSource>,
    pub cold: Option<LakeSource>,
    /// Conditions that DuckDB alone evaluates, with the reason.
    pub kept_back: Vec<String>,
}

/// Rows from PostgreSQL.
#[derive(Debug, Clone, PartialEq)]
pub struct HotSource {
    pub statement: HotStatement,
    pub pushed: Vec<PushedPredicate>,
    pub residual: Vec<String>,
    pub row_estimate: u64,
    pub access: HotAccess,
}

/// How hot rows are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HotAccess {
    /// PostgreSQL runs the statement; its rows come by binary COPY into a temporary table.
    Copy,
    /// DuckDB runs the statement where PostgreSQL is attached. `inconsistent_sql` is PostgreSQL's and counts the live dirty
    /// rows without an `entity_main` row.
    Scan { inconsistent_sql: String },
    /// No statement runs: the server keeps the rows in memory.
    Mirror(MirrorTable),
}

/// A table of DuckDB with versions of an entity's dirty rows, as of one moment.
///
/// Its columns are `row_id UUID`, `_tc_whole BOOLEAN`, `changed_at`, `deleted_at` and `created_at` in milliseconds, the
/// attributes with their public types, and `_tc_from` and `_tc_to`: a version is the row at the moments from the first to
/// before the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorTable {
    /// Its name, unquoted, in the main schema of [`crate::emit::MIRROR_CATALOG`].
    pub name: String,
    /// The moment that is read.
    pub moment: u64,
    /// Rows of that moment.
    pub rows: u64,
    /// Of these, live ones without an `entity_main` row: they are dirty, and left out of every answer.
    pub inconsistent_rows: u64,
}

impl HotAccess {
    /// As the plan shows it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Scan { .. } => "scan",
            Self::Mirror(_) => "mirror",
        }
    }
}

/// Files of one tier.
#[derive(Debug, Clone, PartialEq)]
pub struct LakeSource {
    pub tier: Tier,
    pub files_total: usize,
    /// Files that are read, by path.
    pub files: Vec<ScannedFile>,
    /// Conditions that DuckDB can push into the scan of these files.
    pub pushed: Vec<String>,
    pub residual: Vec<String>,
}

/// A file that is read.
#[derive(Debug, Clone, PartialEq)]
pub struct ScannedFile {
    pub file: LakeFile,
    /// Whether it may hold superseded ids, so that its rows must be checked against them.
    pub anti_join: bool,
    /// Whether each of its rows is in it once and in no other file that is read with it.
    pub once: bool,
    /// The row numbers that can matter, from the first to before the second; `None`: all of the file.
    pub rows: Option<(u64, u64)>,
    /// Under [`MergeStrategy::Positions`]: how many of its versions are left out by position.
    pub hidden: u64,
}

impl ScannedFile {
    fn row_count(&self) -> u64 {
        self.rows.map_or(self.file.row_count, |(from, to)| to - from)
    }
}

/// What is missing from an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Degradation {
    pub missing_tiers: Vec<Tier>,
    pub reasons: Vec<String>,
}

impl Route {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Lake => "lake",
            Self::Federated => "federated",
        }
    }
}

impl MergeStrategy {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Layered => "layered",
            Self::Positions => "positions",
            Self::None => "none",
        }
    }
}

impl Degradation {
    pub fn is_degraded(&self) -> bool {
        !self.missing_tiers.is_empty() || !self.reasons.is_empty()
    }
}

impl FederatedPlan {
    /// Rows that the sources are expected to read, before any filter.
    pub fn scan_row_estimate(&self) -> u64 {
        let sources = |reference: &ReferencePlan| {
            let lake = [&reference.warm, &reference.cold];
            let lake: u64 = lake.into_iter().flatten().map(LakeSource::row_estimate).sum();
            lake + reference.hot.as_ref().map_or(0, |hot| hot.row_estimate)
        };
        self.references.iter().map(sources).sum()
    }

    /// The planner's part of the plan JSON (docs/plan.md); the server adds id, SQL, statement and timings.
    pub fn to_json(&self) -> Json {
        json!({
            "route": self.route.as_str(),
            "route_reason": self.route_reason,
            "consistency": self.consistency.as_str(),
            "tiers": self.tiers.iter().map(Tier::as_str).collect::<Vec<_>>(),
            "references": self.references.iter().map(ReferencePlan::to_json).collect::<Vec<_>>(),
            "degraded": {
                "is_degraded": self.degraded.is_degraded(),
                "missing_tiers": self.degraded.missing_tiers.iter().map(|tier| tier.as_str()).collect::<Vec<_>>(),
                "reasons": self.degraded.reasons,
            },
            "warnings": self.warnings,
        })
    }
}

impl ReferencePlan {
    fn to_json(&self) -> Json {
        let hot = self.hot.iter().map(HotSource::to_json);
        let lake = [&self.warm, &self.cold].into_iter().flatten().map(LakeSource::to_json);
        json!({
            "entity": self.entity.name,
            "alias": self.alias,
            "schema_id": self.entity.schema_id,
            "dirty_rows": self.dirty_rows,
            "merge": {"strategy": self.merge.as_str(), "proof": self.merge_proof},
            "sources": hot.chain(lake).collect::<Vec<_>>(),
        })
    }

    /// All files that are read, delta before base.
    pub fn files(&self) -> impl Iterator<Item = &LakeFile> {
        [&self.warm, &self.cold]
            .into_iter()
            .flatten()
            .flat_map(|source| source.files.iter().map(|scanned| &scanned.file))
    }
}

impl HotSource {
    fn to_json(&self) -> Json {
        json!({
            "tier": "hot",
            "engine": match self.access {
                HotAccess::Copy | HotAccess::Scan { .. } => "postgres",
                HotAccess::Mirror(_) => "duckdb",
            },
            "access": self.access.as_str(),
            "row_estimate": self.row_estimate,
            "pushed": self.pushed.iter().map(|pushed| pushed.sql.as_str()).collect::<Vec<_>>(),
            "residual": self.residual,
            "sql": match self.access {
                HotAccess::Copy | HotAccess::Scan { .. } => Some(&self.statement.sql),
                HotAccess::Mirror(_) => None,
            },
        })
    }
}

impl LakeSource {
    pub fn row_estimate(&self) -> u64 {
        self.files.iter().map(ScannedFile::row_count).sum()
    }

    fn to_json(&self) -> Json {
        json!({
            "tier": self.tier.as_str(),
            "engine": "parquet",
            "files_total": self.files_total,
            "files_scanned": self.files.len(),
            "bytes": self.files.iter().map(|scanned| scanned.file.bytes).sum::<u64>(),
            "row_estimate": self.row_estimate(),
            "pushed": self.pushed,
            "residual": self.residual,
            "anti_join_files": self.files.iter().filter(|scanned| scanned.anti_join).count(),
            "hidden_rows": self.files.iter().map(|scanned| scanned.hidden).sum::<u64>(),
        })
    }
}
