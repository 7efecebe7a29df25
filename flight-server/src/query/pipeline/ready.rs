//! Everything before the first row: facts, plan, hot rows, statement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tracing::Instrument;
use translator::catalog::Entity;
use translator::emit::{EmitContext, FederatedStatement, HiddenScan, emit, system_table};
use translator::hot_query::HotQuery;
use translator::options::QueryOptions;
use translator::plan::{FederatedPlan, ScannedFile};

use super::{Inner, blocking};
use crate::access::Caller;
use crate::engine::create_temporary_table;
use crate::engine::duckdb::{Connection, HiddenSet};
use crate::moments::Moment;
use crate::postgres::Snapshot;
use crate::query::QueryRequest;
use crate::query::blame::{execution_error, translate_error};
use crate::query::error::QueryError;
use crate::query::plan_json::{self, PlanParts};
use crate::query::recovery::Attempts;
use crate::query::scan_figures::LakeScan;
use crate::query::sources::HotExecution;
use crate::query::statement::{self, BoundStatement};
use crate::query::system_tables::{self, SystemSources};
use crate::telemetry;
use crate::versions::HiddenPositions;

/// The positions that a scan leaves out.
fn hidden_set(scan: &HiddenScan, known: &BTreeMap<i16, Arc<HiddenPositions>>) -> Result<HiddenSet, QueryError> {
    let files = known.get(&scan.schema_id).map(|positions| &positions.files);
    let bitmap = |path: &String| {
        let file = files?.get(path)?;
        Some(Arc::clone(if scan.tombstones { &file.gone } else { &file.hidden }))
    };
    let set: Option<HiddenSet> = scan.files.iter().map(bitmap).collect();
    set.ok_or_else(|| QueryError::internal(anyhow::anyhow!("a scan leaves out positions that nobody knows")))
}

/// A query that is ready to run.
pub(super) struct Ready {
    pub(super) connection: Arc<Connection>,
    /// The federated statement, or what EXPLAIN ANALYZE wraps around it.
    pub(super) sql: String,
    /// See [`FederatedStatement::user_part`].
    pub(super) user_part: usize,
    pub(super) plan: Json,
    pub(super) hot: Vec<HotExecution>,
    /// What the statement was made from.
    pub(super) federated: FederatedPlan,
    /// The lake sources in the plan's order.
    pub(super) scans: Vec<LakeScan>,
    /// The rows that the statement reads in memory stay as long as this is held.
    pub(super) _moment: Option<Arc<Moment>>,
    /// What answers without DuckDB.
    pub(super) hot_query: Option<(HotQuery, Arc<Entity>, Snapshot)>,
}

impl Inner {
    /// The statement that runs: DuckDB's, or PostgreSQL's where it answers alone.
    pub(super) async fn statement(
        &self,
        bound: &Arc<BoundStatement>,
        plan: &FederatedPlan,
    ) -> Result<FederatedStatement, QueryError> {
        if let Some(hot_query) = &plan.hot_query {
            return Ok(FederatedStatement { sql: hot_query.statement.sql.clone(), hidden: Vec::new(), user_part: 0 });
        }
        let (bound, plan) = (Arc::clone(bound), plan.clone());
        let lake_prefix = self.sources.lake.duckdb_root();
        blocking(move || {
            let print = |tree: &Json| statement::print(&bound.shape, tree);
            let context = EmitContext { print: &print, lake_prefix: &lake_prefix };
            emit(&bound.query, &plan, context).map_err(translate_error)
        })
        .await
    }

    /// Everything before the first row: facts, plan, hot rows, statement.
    pub(super) async fn ready(
        &self,
        bound: &Arc<BoundStatement>,
        request: &QueryRequest,
        translation: Duration,
        attempts: &mut Attempts,
    ) -> Result<Ready, QueryError> {
        let started = Instant::now();
        let options = attempts.options(&request.options);
        let connection = Arc::new(self.engine.connect().map_err(execution_error)?);
        let parts = |plan, moment, statement, planning| PlanParts {
            query_id: &request.query_id,
            sql: &request.sql,
            plan,
            moment,
            options: &request.options,
            statement,
            translation,
            planning,
            breakers: self.sources.breakers(),
        };
        if options.tiers.any_lake() && !bound.query.references.is_empty() {
            self.refresh_credentials().await?;
        }
        let load = self.load(bound, &options, attempts.overrides(), &connection);
        let span = telemetry::plan_span();
        let (mut loaded, note) = load.instrument(span.clone()).await?;
        telemetry::record_plan(&span, &loaded.plan);
        attempts.unless_hot_query(loaded.plan.hot_query.is_some())?;
        if let Some(note) = note {
            loaded.plan.route_reason = note.reason().to_owned();
            loaded.plan.warnings.extend(note.warning());
        }
        self.load_system_tables(bound, &request.options, &request.caller, &connection).await?;
        let FederatedStatement { sql, hidden, user_part } = self.statement(bound, &loaded.plan).await?;
        let hidden = hidden.iter().map(|scan| hidden_set(scan, &loaded.hidden));
        connection.hide(hidden.collect::<Result<_, _>>()?);
        let hot_query = match (&loaded.plan.hot_query, loaded.plan.references.first(), loaded.snapshot) {
            (Some(query), Some(reference), Some(snapshot)) => {
                Some((query.clone(), Arc::clone(&reference.entity), snapshot))
            }
            _ => None,
        };
        let loading: f64 = loaded.hot.iter().map(|hot| hot.ms).sum();
        let planning = started.elapsed().saturating_sub(Duration::from_secs_f64(loading / 1000.0));
        let plan = plan_json::planned(&parts(Some(&loaded.plan), loaded.moment.as_deref(), &sql, planning));
        if !loaded.plan.warnings.is_empty() {
            tracing::warn!(query_id = request.query_id, warnings = ?loaded.plan.warnings, "query with warnings");
        }
        let scans = LakeScan::of(&loaded.plan, |file: &ScannedFile| self.sources.lake.duckdb_url(&file.file.path));
        Ok(Ready {
            connection,
            sql,
            user_part,
            plan,
            hot: loaded.hot,
            federated: loaded.plan,
            scans,
            _moment: loaded.moment,
            hot_query,
        })
    }

    async fn refresh_credentials(&self) -> Result<(), QueryError> {
        match self.sources.lake.s3_credentials().await {
            Ok(Some(credentials)) => {
                let prefix = self.sources.lake.duckdb_root();
                self.engine.set_credentials(&prefix, &credentials).map_err(execution_error)
            }
            Ok(None) => Ok(()),
            // The listing says whether the lake is down, and whether the query may do without it.
            Err(error) => {
                tracing::warn!(%error, "no S3 credentials");
                Ok(())
            }
        }
    }

    async fn load_system_tables(
        &self,
        bound: &Arc<BoundStatement>,
        options: &QueryOptions,
        caller: &Caller,
        connection: &Arc<Connection>,
    ) -> Result<(), QueryError> {
        let from = SystemSources {
            shape: &bound.shape,
            sources: &self.sources,
            telemetry: &self.telemetry,
            health: &self.health,
            options,
            caller,
        };
        for (index, table) in bound.query.system_tables.iter().enumerate() {
            let (schema, batches) = system_tables::rows(&from, table).await?;
            let connection = Arc::clone(connection);
            blocking(move || {
                let name = system_table(index);
                create_temporary_table(&connection, &name, &schema).map_err(execution_error)?;
                batches.iter().try_for_each(|batch| connection.append(&name, batch)).map_err(execution_error)
            })
            .await?;
        }
        Ok(())
    }
}
