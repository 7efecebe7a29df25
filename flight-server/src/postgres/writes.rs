//! What the writer side does in PostgreSQL: locks, marking rows flushed, and the manifest table.
//!
//! Everything that changes data runs on the connection that holds the lock: a writer that lost its lock can't commit.

use deadpool_postgres::{ClientWrapper, Object};
use futures::{Stream, StreamExt};
use tokio_postgres::types::{ToSql, Type};
use translator::lake::{FileColumn, LakeFile};
use translator::options::Tier;
use translator::value::Value;
use uuid::Uuid;

use super::error::PostgresError;
use super::{PostgresSource, Snapshot, manifest};
use crate::config::{TableName, TableNames};

/// What a lock is for. Flushing and compacting an entity go on side by side; two of the same kind don't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockPurpose {
    Flush,
    Compact,
    Prune,
}

/// The version of a row that a flush exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportedVersion {
    pub row_id: Uuid,
    pub changed_at: i64,
    /// The transaction that wrote the `change_log` row.
    pub written_by: i64,
}

/// Size of a dirty set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirtySize {
    pub rows: u64,
    /// The smallest `changed_at`, without rows `None`.
    pub oldest: Option<i64>,
    /// Estimated bytes of values.
    pub bytes: u64,
}

/// A file as the manifest gets it.
#[derive(Debug, Clone)]
pub struct ManifestFile {
    pub facts: LakeFile,
    pub sha256: Vec<u8>,
}

/// A row of the manifest, retired ones included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestEntry {
    pub path: String,
    pub bytes: i64,
    pub sha256: Option<Vec<u8>>,
    /// `None` while in force.
    pub retired_at: Option<i64>,
}

/// Why a swap of files was not made.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    #[error("another writer has changed the set of files since it was read: nothing was swapped")]
    FilesChanged,
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

/// A connection of a writer. Its advisory locks last until it is dropped.
pub struct WriteSession {
    pub(super) client: ClientWrapper,
    pub(super) tables: TableNames,
}

impl std::fmt::Debug for WriteSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteSession").field("tables", &self.tables).finish_non_exhaustive()
    }
}

impl PostgresSource {
    /// A connection for a writer.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn write_session(&self) -> Result<WriteSession, PostgresError> {
        // A connection that idled may be dead; a writer starts with one that answers. It is taken from the pool, so
        // that its locks end with it.
        let mut client = Object::take(self.pool.get().await?);
        if client.simple_query("SELECT 1").await.is_err() {
            self.pool.retain(|_, _| false);
            client = Object::take(self.pool.get().await?);
        }
        Ok(WriteSession { client, tables: self.tables.clone() })
    }
}

impl Snapshot {
    /// Runs the translator's `dirty_versions_sql`.
    ///
    /// # Errors
    /// Unavailable, Misconfigured; each item may fail likewise.
    pub async fn dirty_versions(
        &mut self,
        sql: &str,
        mut on_version: impl FnMut(ExportedVersion) -> std::io::Result<()>,
    ) -> Result<std::io::Result<u64>, PostgresError> {
        self.start()?;
        let none: [&(dyn ToSql + Sync); 0] = [];
        let rows = self.client()?.query_raw(sql, none).await?;
        let mut rows = std::pin::pin!(rows);
        let mut count = 0;
        while let Some(row) = rows.next().await {
            let row = row?;
            let version =
                ExportedVersion { row_id: row.try_get(0)?, changed_at: row.try_get(1)?, written_by: row.try_get(2)? };
            if let Err(error) = on_version(version) {
                return Ok(Err(error));
            }
            count += 1;
        }
        self.statement_running = false;
        Ok(Ok(count))
    }

    /// Runs the translator's `dirty_size_sql`.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn dirty_size(&mut self, sql: &str) -> Result<DirtySize, PostgresError> {
        self.start()?;
        let row = self.client()?.query_one(sql, &[]).await?;
        self.statement_running = false;
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(DirtySize { rows: count(row.try_get(0)?), oldest: row.try_get(1)?, bytes: count(row.try_get(2)?) })
    }
}

impl WriteSession {
    /// Takes the lock of an entity; `false` when another writer has it.
    ///
    /// # Errors
    /// Unavailable.
    pub async fn try_lock(&self, purpose: LockPurpose, schema_id: i16) -> Result<bool, PostgresError> {
        let row = self
            .client
            .query_one(
                "SELECT pg_try_advisory_lock($1, $2)",
                &[&lock_namespace(purpose, &self.tables.change_log), &i32::from(schema_id)],
            )
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Makes sure that the connection, and so its locks, lives: a writer that was cut off meanwhile publishes nothing.
    ///
    /// # Errors
    /// Unavailable.
    pub async fn still_locked(&self) -> Result<(), PostgresError> {
        Ok(self.client.batch_execute("SELECT 1").await?)
    }

    /// Lets go of all locks.
    ///
    /// # Errors
    /// Unavailable; then the server lets go of them with the connection.
    pub async fn end(self) -> Result<(), PostgresError> {
        self.client.batch_execute("SELECT pg_advisory_unlock_all()").await?;
        Ok(())
    }

    /// Puts the files of a flush into the manifest and marks rows as flushed whose version is still the exported one,
    /// in one transaction. `files` is `None` without a manifest. Returns the number of marked rows.
    ///
    /// # Errors
    /// Nothing was changed, unless the connection was lost while committing.
    pub async fn commit_flush<V>(
        &mut self,
        schema_id: i16,
        files: Option<&[ManifestFile]>,
        versions: V,
        now: i64,
        before_commit: impl Future<Output = ()>,
    ) -> Result<u64, PostgresError>
    where
        V: Stream<Item = std::io::Result<Vec<ExportedVersion>>>,
    {
        let transaction = self.client.transaction().await?;
        if let Some(files) = files {
            insert_files(&transaction, &self.tables.lake_file, schema_id, files, now).await?;
        }
        // Plans for the arrays at hand read the whole dirty set for each part (measured: 0.5 s against 0.2 s a part of
        // 5,000 of 300,000 rows); the generic plan looks each row up.
        transaction.batch_execute("SET LOCAL plan_cache_mode = force_generic_plan").await?;
        // SKIP LOCKED: a row that is being written right now stays dirty, and a flush that waits for no application
        // can't deadlock with one. The subselect: a row may have been flushed within the same millisecond.
        let change_log = &self.tables.change_log;
        let mark = transaction
            .prepare_typed(
                &format!(
                    "WITH exported AS (SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) \
                       AS e(row_id, changed_at, written_by)), \
                     unchanged AS MATERIALIZED (SELECT c.row_id FROM exported e JOIN {change_log} c ON c.row_id = e.row_id \
                       WHERE c.schema_id = $4 AND c.flushed_at = 0 AND c.changed_at = e.changed_at \
                       AND c.xmin::text::bigint = e.written_by FOR UPDATE OF c SKIP LOCKED) \
                     UPDATE {change_log} c SET flushed_at = GREATEST($5, (SELECT max(h.flushed_at) + 1 FROM {change_log} h \
                       WHERE h.schema_id = c.schema_id AND h.row_id = c.row_id)) \
                     FROM unchanged u WHERE c.schema_id = $4 AND c.row_id = u.row_id AND c.flushed_at = 0"
                ),
                &[Type::UUID_ARRAY, Type::INT8_ARRAY, Type::INT8_ARRAY, Type::INT2, Type::INT8],
            )
            .await?;
        let mut marked = 0;
        let mut versions = std::pin::pin!(versions);
        while let Some(part) = versions.next().await {
            let part =
                part.map_err(|error| PostgresError::internal("cannot read the exported versions").with_source(error))?;
            let ids: Vec<Uuid> = part.iter().map(|version| version.row_id).collect();
            let changed: Vec<i64> = part.iter().map(|version| version.changed_at).collect();
            let written: Vec<i64> = part.iter().map(|version| version.written_by).collect();
            marked += transaction.execute(&mark, &[&ids, &changed, &written, &schema_id, &now]).await?;
        }
        before_commit.await;
        transaction.commit().await?;
        Ok(marked)
    }

    /// Replaces files of the manifest by others, in one transaction: all of `old` are still in force, or nothing
    /// changes.
    ///
    /// # Errors
    /// Nothing was changed, unless the connection was lost while committing.
    pub async fn swap_files(
        &mut self,
        schema_id: i16,
        old: &[String],
        new: &[ManifestFile],
        now: i64,
        before_commit: impl Future<Output = ()>,
    ) -> Result<(), SwapError> {
        let transaction = self.client.transaction().await.map_err(PostgresError::from)?;
        let retired = transaction
            .execute(
                &format!(
                    "UPDATE {} SET retired_at = $3 WHERE schema_id = $1 AND path = ANY($2) AND retired_at IS NULL",
                    self.tables.lake_file
                ),
                &[&schema_id, &old, &now],
            )
            .await
            .map_err(PostgresError::from)?;
        if usize::try_from(retired).ok() != Some(old.len()) {
            return Err(SwapError::FilesChanged);
        }
        insert_files(&transaction, &self.tables.lake_file, schema_id, new, now).await?;
        before_commit.await;
        transaction.commit().await.map_err(PostgresError::from)?;
        Ok(())
    }

    /// Makes the manifest table unless it is there.
    ///
    /// # Errors
    /// Unavailable, Misconfigured: no right to create a table.
    pub async fn create_manifest(&self) -> Result<(), PostgresError> {
        Ok(self.client.batch_execute(&manifest_ddl(&self.tables.lake_file)).await?)
    }

    /// Puts files that the manifest doesn't know into it, in one transaction, and returns their number.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn import_files(
        &mut self,
        schema_id: i16,
        files: &[ManifestFile],
        now: i64,
    ) -> Result<(), PostgresError> {
        let transaction = self.client.transaction().await?;
        insert_files(&transaction, &self.tables.lake_file, schema_id, files, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// All files of an entity that the manifest knows, retired ones too.
    ///
    /// # Errors
    /// Unavailable; Misconfigured without the table.
    pub async fn manifest_entries(&self, schema_id: i16) -> Result<Vec<ManifestEntry>, PostgresError> {
        let rows = self
            .client
            .query(
                &format!(
                    "SELECT path, bytes, sha256, retired_at FROM {} WHERE schema_id = $1 ORDER BY path COLLATE \"C\"",
                    self.tables.lake_file
                ),
                &[&schema_id],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(ManifestEntry {
                    path: row.try_get(0)?,
                    bytes: row.try_get(1)?,
                    sha256: row.try_get(2)?,
                    retired_at: row.try_get(3)?,
                })
            })
            .collect()
    }

    /// Forgets a retired file whose object is gone.
    ///
    /// # Errors
    /// Unavailable.
    pub async fn forget_file(&self, schema_id: i16, path: &str) -> Result<(), PostgresError> {
        let sql = format!(
            "DELETE FROM {} WHERE schema_id = $1 AND path = $2 AND retired_at IS NOT NULL",
            self.tables.lake_file
        );
        self.client.execute(&sql, &[&schema_id, &path]).await?;
        Ok(())
    }
}

/// The manifest table of docs/contract.md, "Lake files".
pub fn manifest_ddl(table: &TableName) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (schema_id SMALLINT NOT NULL, path TEXT NOT NULL, tier TEXT NOT NULL \
         CHECK (tier IN ('delta', 'base')), row_count BIGINT NOT NULL, bytes BIGINT NOT NULL, min_row_id UUID, \
         max_row_id UUID, min_changed_at BIGINT, max_changed_at BIGINT, unique_rows BOOLEAN NOT NULL, columns JSONB NOT NULL, \
         sha256 BYTEA, created_at BIGINT NOT NULL, retired_at BIGINT, PRIMARY KEY (schema_id, path))"
    )
}

async fn insert_files(
    transaction: &deadpool_postgres::Transaction<'_>,
    table: &TableName,
    schema_id: i16,
    files: &[ManifestFile],
    now: i64,
) -> Result<(), PostgresError> {
    let sql = format!(
        "INSERT INTO {table} (schema_id, path, tier, row_count, bytes, min_row_id, max_row_id, min_changed_at, \
         max_changed_at, unique_rows, columns, sha256, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text::jsonb, $12, $13)"
    );
    for file in files {
        let facts = &file.facts;
        let tier = if facts.tier == Tier::Cold { "base" } else { "delta" };
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let ids = facts.row_id_range.map(|(min, max)| (Uuid::from_u128(min), Uuid::from_u128(max)));
        transaction
            .execute(
                &sql,
                &[
                    &schema_id,
                    &facts.path,
                    &tier,
                    &number(facts.row_count),
                    &number(facts.bytes),
                    &ids.map(|ids| ids.0),
                    &ids.map(|ids| ids.1),
                    &facts.changed_at_range.map(|range| range.0),
                    &facts.changed_at_range.map(|range| range.1),
                    &facts.unique_rows,
                    &manifest::columns_to_json(&storable_columns(&facts.columns)).to_string(),
                    &file.sha256,
                    &now,
                ],
            )
            .await?;
    }
    Ok(())
}

/// JSONB holds no NUL character: bounds with one are left out.
fn storable_columns(columns: &[FileColumn]) -> Vec<FileColumn> {
    let holds_nul = |value: &Value| matches!(value, Value::Text(text) if text.contains('\0'));
    let mut columns = columns.to_vec();
    for column in &mut columns {
        column.range = column.range.take().filter(|(min, max)| !holds_nul(min) && !holds_nul(max));
    }
    columns
}

/// The first key of an advisory lock: other programs' locks and other installations in the same database stay apart.
fn lock_namespace(purpose: LockPurpose, change_log: &TableName) -> i32 {
    let purpose = match purpose {
        LockPurpose::Flush => "flush",
        LockPurpose::Compact => "compact",
        LockPurpose::Prune => "prune",
    };
    // FNV-1a, 32 bits.
    let text = format!("thermocline {purpose} {change_log}");
    text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)).cast_signed()
}
