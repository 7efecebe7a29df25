//! What `thermocline init` does in PostgreSQL: running `setup.sql`, and entering rows that are there already.

use tokio_postgres::types::ToSql;
use translator::catalog::{Entity, OwnTable};
use translator::postgres::{backfill_insert_sql, backfill_next_sql, bookkeeping_name};

use super::{PostgresError, WriteSession};

/// How far entering a table's rows has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backfilled {
    /// Rows that this batch entered.
    pub entered: u64,
    /// Rows that all batches together entered.
    pub total: u64,
    pub is_done: bool,
}

impl WriteSession {
    /// Runs a script of statements; one that begins and commits a transaction leaves none open.
    ///
    /// # Errors
    /// Unavailable, Misconfigured, with PostgreSQL's own text; nothing of a script in one transaction was done then.
    pub async fn run_script(&self, script: &str) -> Result<(), PostgresError> {
        match self.client.batch_execute(script).await {
            Ok(()) => Ok(()),
            Err(error) => {
                // Outside of a transaction this is a warning and no error.
                if let Err(second) = self.client.batch_execute("ROLLBACK").await {
                    tracing::debug!(%second, "the connection is lost");
                }
                Err(error.into())
            }
        }
    }

    /// Enters the next batch of a table's rows that no entry of the change log knows, by their key, and remembers how far
    /// it has come, in one transaction.
    ///
    /// The batch locks its rows against deletion while it lasts, and against nothing else.
    ///
    /// # Errors
    /// Unavailable, Misconfigured; then this batch did nothing, and the next call begins where the last one ended.
    pub async fn backfill(
        &mut self,
        entity: &Entity,
        table: &OwnTable,
        batch: u32,
    ) -> Result<Backfilled, PostgresError> {
        let tables = self.plain_tables();
        let progress = bookkeeping_name(&tables, "backfill");
        let transaction = self.client.transaction().await?;
        let known = transaction
            .query_opt(
                &format!("SELECT last_key::text, entered, done FROM {progress} WHERE schema_id = $1 FOR UPDATE"),
                &[&entity.schema_id],
            )
            .await?;
        let (last, mut total, is_done): (Option<String>, i64, bool) = match known {
            Some(row) => (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?),
            None => (None, 0, false),
        };
        if is_done {
            transaction.commit().await?;
            return Ok(Backfilled { entered: 0, total: count(total), is_done: true });
        }
        let limit = i64::from(batch);
        let next: Option<String> = transaction
            .query_opt(&backfill_next_sql(table), &[&last, &limit])
            .await?
            .map(|row| row.try_get(0))
            .transpose()?
            .flatten();
        let mut entered = 0;
        if let Some(next) = &next {
            let parameters: [&(dyn ToSql + Sync); 2] = [&last, next];
            entered = transaction.execute(&backfill_insert_sql(&tables, entity, table), &parameters).await?;
        }
        total += i64::try_from(entered).unwrap_or(i64::MAX);
        let is_done = next.is_none();
        transaction
            .execute(
                &format!(
                    "INSERT INTO {progress} AS b (schema_id, last_key, entered, done) VALUES ($1, $2::text::jsonb, $3, $4) \
                     ON CONFLICT (schema_id) DO UPDATE SET last_key = COALESCE(EXCLUDED.last_key, b.last_key), \
                     entered = EXCLUDED.entered, done = EXCLUDED.done"
                ),
                &[&entity.schema_id, &next, &total, &is_done],
            )
            .await?;
        transaction.commit().await?;
        Ok(Backfilled { entered, total: count(total), is_done })
    }

    /// Lets PostgreSQL count the change log's rows: plans that were made for an empty table read all of it for each row.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn analyze_change_log(&self) -> Result<(), PostgresError> {
        Ok(self.client.batch_execute(&format!("ANALYZE {}", self.tables.change_log)).await?)
    }

    pub(super) fn plain_tables(&self) -> translator::postgres::TableNames {
        self.tables.plain()
    }
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
