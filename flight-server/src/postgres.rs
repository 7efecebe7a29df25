//! The hot tier: PostgreSQL, read in one REPEATABLE READ snapshot a query, by binary COPY, straight into Arrow.
//!
//! [`PostgresSource::begin`] opens a [`Snapshot`]; its statements come from the translator. Knows neither Flight nor
//! tonic nor DuckDB.

mod connect;
mod copy;
mod decode;
mod eav_inventory;
mod error;
mod hosts;
mod inspect;
mod introspect;
mod manifest;
mod moment;
mod moving;
mod physical;
mod rows;
mod scanned;
mod setup;
mod tls;
mod unreadable;
mod writes;

pub use decode::{HotSummary, UnreadableRow, hot_schema};
pub use eav_inventory::EavAttribute;
pub use error::{PostgresError, PostgresErrorKind};
pub use inspect::{IndexFacts, TableFacts};
pub use introspect::{Firing, FoundColumn, FoundKey, FoundTable, Reference, TableKind};
pub use manifest::{columns_from_json, columns_to_json};
pub use moment::{SeenTransactions, SnapshotIdentity, SourceIdentity, Stamp, Stamped};
pub use moving::{Candidate, Pruned};
pub use physical::{PhysicalColumns, Reader};
pub use rows::{DirtyIds, HotRows, dirty_ids_schema};
pub(crate) use scanned::{ScannedRows, passing_scan_failure, scan_failure};
pub use setup::Backfilled;
pub use unreadable::UnreadableRows;
pub use writes::{
    DirtySize, ExportedVersion, LockPurpose, ManifestEntry, ManifestFile, SwapError, WriteSession, manifest_ddl,
};

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::SimpleQueryMessage;
use translator::catalog::Entity;
use translator::hot::HotColumn;
use translator::lake::LakeFile;

use crate::config::postgres_url::PostgresUrl;
use crate::config::{PostgresConfig, TableNames};
use hosts::Hosts;
use physical::physical_columns_sql;
use rows::CopyStream;
use tls::Connector;

/// A cancel request or a rollback in the background gets this long; then the connection is simply closed.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// A PostgreSQL server, or several that serve the same data, behind a pool of connections. Cheap to clone.
#[derive(Clone)]
pub struct PostgresSource {
    pool: Pool,
    connector: Connector,
    connect_timeout: Duration,
    statement_timeout: Option<Duration>,
    tables: TableNames,
}

impl std::fmt::Debug for PostgresSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresSource").field("pool", &self.pool.status()).finish_non_exhaustive()
    }
}

/// Connections of the pool at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStatus {
    pub max: usize,
    pub open: usize,
    pub idle: usize,
    pub waiting: usize,
}

impl PostgresSource {
    /// Makes the pool; nothing is connected yet, so a server that is down is no error here.
    ///
    /// # Errors
    /// A URL that cannot be read, or root certificates that cannot be used.
    pub fn new(config: &PostgresConfig) -> Result<Self, PostgresError> {
        let mut target = PostgresUrl::parse(config.url.expose()).ok_or_else(|| {
            PostgresError::new(PostgresErrorKind::Misconfigured, "PostgreSQL: the URL cannot be understood")
        })?;
        if target.config.get_connect_timeout().is_none() {
            // For each host; the pool's limit below is for all of them.
            target.config.connect_timeout(config.connect_timeout);
        }
        let connector = connect::connector(&target)?;
        let limit = target.config.get_connect_timeout().copied().unwrap_or(config.connect_timeout);
        let hosts = Hosts::new(&target.config, connector.clone(), limit);
        let create_timeout = limit.saturating_mul(hosts.len());
        // Fast: a dead connection is known to be closed without asking it; `begin` copes with those that aren't.
        let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_connect(target.config, hosts, manager_config);
        let pool = Pool::builder(manager)
            .max_size(config.pool_size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(config.connect_timeout))
            .create_timeout(Some(create_timeout))
            .recycle_timeout(Some(config.connect_timeout))
            .build()
            .map_err(|error| PostgresError::internal("PostgreSQL: cannot build the pool").with_source(error))?;
        Ok(Self {
            pool,
            connector,
            connect_timeout: config.connect_timeout,
            statement_timeout: config.statement_timeout,
            tables: config.tables.clone(),
        })
    }

    /// Opens a snapshot: everything read through it is of one moment, which is inside this call.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn begin(&self) -> Result<Snapshot, PostgresError> {
        let client = self.pool.get().await?;
        let has_idled = Object::metrics(&client).recycle_count > 0;
        match self.begin_on(client).await {
            Err(error) if has_idled && error.kind() == PostgresErrorKind::Unavailable => {
                // A connection that idled through a restart or a failover looks alive until it is used, and so do
                // the others.
                self.pool.retain(|_, _| false);
                self.begin_on(self.pool.get().await?).await
            }
            result => result,
        }
    }

    async fn begin_on(&self, client: Object) -> Result<Snapshot, PostgresError> {
        let mut snapshot = Snapshot {
            client: Some(client),
            connector: self.connector.clone(),
            statement_running: true,
            tables: self.tables.clone(),
            physical: Arc::default(),
        };
        let timeout = self.statement_timeout.map_or_else(String::new, |timeout| {
            format!("SET LOCAL statement_timeout = {};", timeout.as_millis().clamp(1, i32::MAX.unsigned_abs().into()))
        });
        // One round trip. BEGIN takes no snapshot yet, the first query does; that one asks what the tables are, which may
        // have changed since the last snapshot.
        let sql = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {timeout} {}",
            physical_columns_sql(&self.tables)
        );
        let begun = tokio::time::timeout(self.connect_timeout, snapshot.client()?.simple_query(&sql)).await;
        let Ok(messages) = begun else {
            return Err(PostgresError::new(
                PostgresErrorKind::Unavailable,
                "PostgreSQL: opening a snapshot took too long",
            ));
        };
        snapshot.physical = Arc::new(PhysicalColumns::read(&messages?)?);
        snapshot.statement_running = false;
        Ok(snapshot)
    }

    /// Asks PostgreSQL for a row of each table that these entities need: it is up, lets us in, and has them.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn probe(&self, entities: &[Arc<Entity>]) -> Result<(), PostgresError> {
        let mut snapshot = self.begin().await?;
        let tables = &self.tables;
        let mut needed = vec![tables.schema_registry.to_string(), tables.change_log.to_string()];
        if entities.is_empty() || entities.iter().any(|entity| entity.own_table().is_none()) {
            needed.extend([tables.entity_main.to_string(), tables.eav_data.to_string()]);
        }
        let own = entities.iter().filter_map(|entity| entity.own_table());
        needed.extend(own.map(|table| translator::quote::TableName(&table.name).to_string()));
        let one_of = |table: &String| format!("(SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT 1) r)");
        let sql = format!("/* probe */ SELECT {}", needed.iter().map(one_of).collect::<Vec<_>>().join(" + "));
        snapshot.count(&sql).await?;
        snapshot.finish().await
    }

    /// Names of the tables this source reads.
    pub fn tables(&self) -> &TableNames {
        &self.tables
    }

    pub fn pool_status(&self) -> PoolStatus {
        let status = self.pool.status();
        PoolStatus { max: status.max_size, open: status.size, idle: status.available, waiting: status.waiting }
    }
}

/// One read-only transaction. [`Snapshot::finish`] gives its connection back.
///
/// Dropped while a statement runs, it cancels the statement and closes the connection; dropped between statements, it
/// rolls back and gives the connection back. Either happens in the background, at once.
#[must_use]
pub struct Snapshot {
    /// `None` only once the connection was given back.
    client: Option<Object>,
    connector: Connector,
    /// Whether the server may still be working on a statement of ours.
    statement_running: bool,
    tables: TableNames,
    physical: Arc<PhysicalColumns>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("statement_running", &self.statement_running).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// Runs a statement that returns the one column `row_id uuid`: a stream of batches of [`dirty_ids_schema`].
    ///
    /// # Errors
    /// Unavailable, Misconfigured, StatementTimeout.
    pub async fn dirty_ids(&mut self, sql: &str) -> Result<DirtyIds<&mut Self>, PostgresError> {
        let stream = self.copy_out(sql).await?;
        Ok(DirtyIds::new(self, stream))
    }

    /// Runs a hot statement of the translator (see [`translator::hot`]): a stream of batches of [`hot_schema`].
    ///
    /// # Errors
    /// Unavailable, Misconfigured, StatementTimeout; Data from the stream.
    pub async fn hot_rows(
        &mut self,
        sql: &str,
        entity: &Entity,
        columns: &[HotColumn],
    ) -> Result<HotRows<&mut Self>, PostgresError> {
        let stream = self.copy_out(sql).await?;
        HotRows::new(self, stream, entity, columns)
    }

    /// As [`Snapshot::hot_rows`], with a stream that owns the snapshot; [`HotRows::into_snapshot`] gives it back.
    ///
    /// # Errors
    /// As [`Snapshot::hot_rows`].
    pub async fn into_hot_rows(
        mut self,
        sql: &str,
        entity: &Entity,
        columns: &[HotColumn],
    ) -> Result<HotRows<Self>, PostgresError> {
        let stream = self.copy_out(sql).await?;
        HotRows::new(self, stream, entity, columns)
    }

    /// The columns behind attributes, as they are in this snapshot.
    pub fn physical(&self) -> &Arc<PhysicalColumns> {
        &self.physical
    }

    /// Runs a statement that returns one `int8`.
    ///
    /// # Errors
    /// Unavailable, Misconfigured, StatementTimeout.
    pub async fn count(&mut self, sql: &str) -> Result<u64, PostgresError> {
        self.start()?;
        let messages = self.client()?.simple_query(sql).await?;
        self.statement_running = false;
        messages
            .iter()
            .find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
                _ => None,
            })
            .ok_or_else(|| PostgresError::internal("a count returned no number"))
    }

    /// A name by which other connections see what this snapshot sees, as long as it is open.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn export(&mut self) -> Result<String, PostgresError> {
        self.start()?;
        let messages = self.client()?.simple_query("SELECT pg_export_snapshot()").await?;
        self.statement_running = false;
        let name = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        // It goes into another statement: digits, letters and hyphens need no quoting.
        name.filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'))
            .ok_or_else(|| PostgresError::internal("an exported snapshot has no name"))
    }

    /// Files of an entity that are in force in this snapshot, from the manifest table, by path.
    ///
    /// # Errors
    /// Unavailable, Misconfigured, StatementTimeout; Data when a manifest row cannot be understood.
    pub async fn manifest(&mut self, schema_id: i16) -> Result<Vec<LakeFile>, PostgresError> {
        self.start()?;
        let rows = self
            .client()?
            .query_typed(&manifest::select(&self.tables.lake_file), &[(&schema_id, tokio_postgres::types::Type::INT2)])
            .await?;
        self.statement_running = false;
        rows.iter().map(manifest::read_row).collect()
    }

    /// Ends the transaction and gives the connection back to the pool.
    ///
    /// # Errors
    /// Unavailable. What was read stays valid: it is a read-only transaction.
    pub async fn finish(mut self) -> Result<(), PostgresError> {
        self.start()?;
        self.client()?.batch_execute("COMMIT").await?;
        self.statement_running = false;
        // Gives the connection back before `Drop` would roll it back.
        self.client = None;
        Ok(())
    }

    async fn copy_out(&mut self, sql: &str) -> Result<CopyStream, PostgresError> {
        self.start()?;
        let copy = format!("COPY ({sql}) TO STDOUT (FORMAT binary)");
        Ok(Box::pin(self.client()?.copy_out(&copy).await?))
    }

    /// Marks that a statement runs from here on; only its regular end takes the mark away.
    fn start(&mut self) -> Result<(), PostgresError> {
        if self.statement_running {
            return Err(PostgresError::internal("a statement of this snapshot was not read to its end"));
        }
        self.statement_running = true;
        Ok(())
    }

    /// Names of the tables, as the translator takes them.
    fn plain_tables(&self) -> translator::postgres::TableNames {
        self.tables.plain()
    }

    fn client(&self) -> Result<&Object, PostgresError> {
        self.client.as_ref().ok_or_else(|| PostgresError::internal("the snapshot has ended"))
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        // Without a runtime the program is ending: taking the connection from the pool closes it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            drop(Object::take(client));
            return;
        };
        // What broke has nothing left to cancel, and asking would cost a dead server one more connection.
        if self.statement_running && client.is_closed() {
            drop(Object::take(client));
        } else if self.statement_running {
            let connector = self.connector.clone();
            let client = Object::take(client);
            let cancel = client.cancel_token();
            // Closes the connection as soon as the server has stopped sending.
            drop(client);
            runtime.spawn(async move {
                let cancelled = tokio::time::timeout(CLEAN_UP_TIMEOUT, cancel.cancel_query(connector)).await;
                if !matches!(cancelled, Ok(Ok(()))) {
                    tracing::warn!("a running PostgreSQL statement could not be cancelled");
                }
            });
        } else {
            runtime.spawn(async move {
                let rolled_back = tokio::time::timeout(CLEAN_UP_TIMEOUT, client.batch_execute("ROLLBACK")).await;
                if !matches!(rolled_back, Ok(Ok(()))) {
                    drop(Object::take(client));
                }
            });
        }
    }
}
