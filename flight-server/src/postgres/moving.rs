//! Transactions by which `prune` and `restore` move rows between PostgreSQL and the lake.

use tokio_postgres::types::{ToSql, Type};
use translator::catalog::{Entity, OwnTable};
use translator::postgres::{
    CHECKED_ROWS, HoldingKey, TableNames, moving_transaction_sql, partition_candidates_sql, prune_candidates_sql,
    prune_delete_sql, prune_held_sql, prune_lock_sql, prune_partition_sql, restore_sql, restore_undo_sql,
};
use uuid::Uuid;

use super::error::PostgresError;
use super::{Reference, WriteSession};
use crate::failpoint::failpoint;

/// A flushed row that may be pruned once the lake is seen to hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub row_id: Uuid,
    /// Its last entry in the change log.
    pub flushed_at: i64,
    /// The version that the entry speaks of.
    pub changed_at: i64,
}

/// What one transaction of a prune did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    pub rows: u64,
    /// Rows that somebody was writing.
    pub busy: u64,
    /// Rows that each foreign key holds back, by the key's name and the table that refers.
    pub held: Vec<(String, u64)>,
    /// Rows that were written since the candidates were read.
    pub changed: u64,
}

fn holding(references: &[Reference]) -> Vec<HoldingKey<'_>> {
    references.iter().map(|reference| HoldingKey { from: &reference.from, columns: &reference.columns }).collect()
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn candidate(row: &tokio_postgres::Row) -> Result<Candidate, PostgresError> {
    Ok(Candidate { row_id: row.try_get(0)?, flushed_at: row.try_get(1)?, changed_at: row.try_get(2)? })
}

impl WriteSession {
    /// The next rows that may be pruned, behind `after`, in the order of their ids.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn prune_candidates(
        &self,
        entity: &Entity,
        table: &OwnTable,
        after: Uuid,
        changed_until: i64,
        limit: i64,
    ) -> Result<Vec<Candidate>, PostgresError> {
        let sql = prune_candidates_sql(&self.plain_tables(), entity, table);
        let rows = self.client.query(&sql, &[&after, &changed_until, &limit]).await?;
        rows.iter().map(candidate).collect()
    }

    /// Deletes those of `rows` that are as they were, that nobody writes and that no foreign key refers to, in one
    /// transaction; with `dry_run` it is rolled back.
    ///
    /// # Errors
    /// Nothing was deleted, unless the connection was lost while committing.
    pub async fn prune(
        &mut self,
        entity: &Entity,
        table: &OwnTable,
        rows: &[Candidate],
        references: &[Reference],
        dry_run: bool,
    ) -> Result<Pruned, PostgresError> {
        let tables = self.plain_tables();
        self.client.batch_execute(&moving_transaction_sql()).await?;
        let work = self.prune_within(&tables, entity, table, rows, references).await;
        self.end_transaction(work, dry_run, "prune.deleted", "prune.committed").await
    }

    async fn prune_within(
        &self,
        tables: &TableNames,
        entity: &Entity,
        table: &OwnTable,
        rows: &[Candidate],
        references: &[Reference],
    ) -> Result<Pruned, PostgresError> {
        let by_id: std::collections::HashMap<Uuid, i64> =
            rows.iter().map(|candidate| (candidate.row_id, candidate.flushed_at)).collect();
        let arrays = |ids: &[Uuid]| -> (Vec<Uuid>, Vec<i64>) {
            ids.iter().filter_map(|id| Some((*id, *by_id.get(id)?))).unzip()
        };
        let all: Vec<Uuid> = rows.iter().map(|candidate| candidate.row_id).collect();
        let (ids, entries) = arrays(&all);
        let locked = self.client.query(&prune_lock_sql(tables, entity, table), &[&ids, &entries]).await?;
        let locked: Vec<Uuid> = locked.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        failpoint("prune.locked").await;
        let (ids, entries) = arrays(&locked);
        let mut pruned = Pruned { busy: (rows.len() - ids.len()) as u64, ..Pruned::default() };
        let parameters: [&(dyn ToSql + Sync); 2] = [&ids, &entries];
        for (reference, key) in references.iter().zip(holding(references)) {
            let held: i64 =
                self.client.query_one(&prune_held_sql(tables, entity, table, &key), &parameters).await?.try_get(0)?;
            if held > 0 {
                pruned.held.push((format!("{} of {}", reference.name, reference.from), count(held)));
            }
        }
        let sql = prune_delete_sql(tables, entity, table, &holding(references));
        pruned.rows = count(self.client.query_one(&sql, &parameters).await?.try_get(0)?);
        let at_most_held: u64 = pruned.held.iter().map(|(_, rows)| rows).sum();
        pruned.changed = (ids.len() as u64).saturating_sub(pruned.rows + at_most_held);
        Ok(pruned)
    }

    /// All rows of a partition, given as a quoted name, that may be pruned, in the order of their ids.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn partition_candidates(
        &self,
        entity: &Entity,
        table: &OwnTable,
        partition: &str,
        changed_until: i64,
    ) -> Result<Vec<Candidate>, PostgresError> {
        let sql = partition_candidates_sql(&self.plain_tables(), entity, table, partition);
        let rows = self.client.query(&sql, &[&changed_until]).await?;
        rows.iter().map(candidate).collect()
    }

    /// The number of rows of a partition, given as a quoted name.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn partition_rows(&self, partition: &str) -> Result<u64, PostgresError> {
        Ok(count(self.client.query_one(&format!("SELECT count(*) FROM {partition}"), &[]).await?.try_get(0)?))
    }

    /// Detaches and drops a partition, given as a quoted name, when every row in it is among the checked `rows` and still
    /// qualifies; `false` when one doesn't.
    ///
    /// # Errors
    /// Nothing was changed; a lock that can't be had within a few seconds is one of the reasons.
    pub async fn drop_partition(
        &mut self,
        entity: &Entity,
        table: &OwnTable,
        partition: &str,
        rows: &[Candidate],
        references: &[Reference],
        dry_run: bool,
    ) -> Result<bool, PostgresError> {
        let tables = self.plain_tables();
        self.client.batch_execute(&moving_transaction_sql()).await?;
        let work = self.drop_within(&tables, entity, table, partition, rows, references, dry_run).await;
        self.end_transaction(work, dry_run, "prune.dropping", "prune.dropped").await
    }

    #[expect(clippy::too_many_arguments, reason = "what a partition must be checked against")]
    async fn drop_within(
        &self,
        tables: &TableNames,
        entity: &Entity,
        table: &OwnTable,
        partition: &str,
        rows: &[Candidate],
        references: &[Reference],
        dry_run: bool,
    ) -> Result<bool, PostgresError> {
        self.client
            .batch_execute(&format!(
                "SET LOCAL lock_timeout = '5s'; CREATE TEMPORARY TABLE {CHECKED_ROWS} (row_id uuid PRIMARY KEY, flushed_at \
                 bigint NOT NULL) ON COMMIT DROP"
            ))
            .await?;
        let (ids, entries): (Vec<Uuid>, Vec<i64>) = rows.iter().map(|row| (row.row_id, row.flushed_at)).unzip();
        let fill = self
            .client
            .prepare_typed(
                &format!("INSERT INTO {CHECKED_ROWS} SELECT * FROM unnest($1::uuid[], $2::bigint[])"),
                &[Type::UUID_ARRAY, Type::INT8_ARRAY],
            )
            .await?;
        self.client.execute(&fill, &[&ids, &entries]).await?;
        let others = prune_partition_sql(tables, entity, table, partition, &holding(references));
        // Once without a lock, so that writers of a partition that stays aren't held up.
        if self.client.query_one(&others, &[]).await?.try_get::<_, i64>(0)? > 0 {
            return Ok(false);
        }
        if dry_run {
            return Ok(true);
        }
        let parent: Option<String> = self
            .client
            .query_one(
                "SELECT (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class \
                 c ON c.oid = i.inhparent JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE i.inhrelid = \
                 to_regclass($1))",
                &[&partition],
            )
            .await?
            .try_get(0)?;
        let Some(parent) = parent else { return Ok(false) };
        self.client.batch_execute(&format!("LOCK TABLE {parent}, {partition} IN ACCESS EXCLUSIVE MODE")).await?;
        if self.client.query_one(&others, &[]).await?.try_get::<_, i64>(0)? > 0 {
            return Ok(false);
        }
        self.client
            .batch_execute(&format!("ALTER TABLE {parent} DETACH PARTITION {partition}; DROP TABLE {partition}"))
            .await?;
        Ok(true)
    }

    /// Puts rows of the lake back into their table, in one transaction: `rows` are JSON texts, `versions` their ids and
    /// `changed_at`. Returns how many came back.
    ///
    /// # Errors
    /// Nothing came back, unless the connection was lost while committing.
    pub async fn restore(
        &mut self,
        entity: &Entity,
        table: &OwnTable,
        columns: &[&str],
        rows: &[String],
        versions: &std::collections::HashMap<Uuid, i64>,
    ) -> Result<u64, PostgresError> {
        let tables = self.plain_tables();
        self.client.batch_execute(&moving_transaction_sql()).await?;
        let work = async {
            let restored = self.client.query(&restore_sql(&tables, entity, table, columns), &[&rows]).await?;
            let ids: Vec<Uuid> = restored.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
            failpoint("restore.inserted").await;
            // An id that isn't the lake's own would be a row of another key: it takes nothing out.
            let changed: Vec<i64> = ids.iter().map(|id| versions.get(id).copied().unwrap_or(i64::MIN)).collect();
            let sql = restore_undo_sql(&tables, entity, table);
            let undone: i64 = self.client.query_one(&sql, &[&ids, &changed]).await?.try_get(0)?;
            Ok::<_, PostgresError>((ids.len() as u64).saturating_sub(count(undone)))
        }
        .await;
        self.end_transaction(work, false, "restore.checked", "restore.committed").await
    }

    /// The columns of a table that can be written: those that PostgreSQL doesn't compute itself.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn written_columns(&self, table: &OwnTable) -> Result<Vec<String>, PostgresError> {
        let name = translator::quote::TableName(&table.name).to_string();
        let rows = self
            .client
            .query(
                "SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 \
                 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum",
                &[&name],
            )
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    async fn end_transaction<T>(
        &self,
        work: Result<T, PostgresError>,
        roll_back: bool,
        before: &str,
        after: &str,
    ) -> Result<T, PostgresError> {
        if work.is_err() || roll_back {
            let ended = self.client.batch_execute("ROLLBACK").await;
            let work = work?;
            ended?;
            return Ok(work);
        }
        failpoint(before).await;
        self.client.batch_execute("COMMIT").await?;
        failpoint(after).await;
        work
    }
}
