//! What the PostgreSQL tables are, for `thermocline check`.

use super::{PostgresError, PostgresSource};
use crate::config::TableName;

/// One table as PostgreSQL has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableFacts {
    /// Name and type of each column; empty when there is no such table.
    pub columns: Vec<(String, String)>,
    pub indexes: Vec<IndexFacts>,
}

/// One index that is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexFacts {
    pub columns: Vec<String>,
    pub unique: bool,
    /// The condition of a partial index, as PostgreSQL prints it.
    pub condition: Option<String>,
}

impl TableFacts {
    pub fn exists(&self) -> bool {
        !self.columns.is_empty()
    }

    pub fn type_of(&self, column: &str) -> Option<&str> {
        self.columns.iter().find(|(name, _)| name == column).map(|(_, found)| found.as_str())
    }
}

impl PostgresSource {
    /// Columns and indexes of a table.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn table_facts(&self, table: &TableName) -> Result<TableFacts, PostgresError> {
        let mut snapshot = self.begin().await?;
        let name = table.to_string();
        snapshot.start()?;
        let columns = snapshot
            .client()?
            .query(
                "SELECT a.attname::text, format_type(a.atttypid, NULL) FROM pg_attribute a \
                 WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
                &[&name],
            )
            .await?;
        let indexes = snapshot
            .client()?
            .query(
                "SELECT ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place) JOIN \
                 pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum ORDER BY k.place), i.indisunique, \
                 pg_get_expr(i.indpred, i.indrelid) FROM pg_index i WHERE i.indrelid = to_regclass($1) AND i.indisvalid",
                &[&name],
            )
            .await?;
        snapshot.statement_running = false;
        snapshot.finish().await?;
        Ok(TableFacts {
            columns: columns.iter().map(|row| (row.get(0), row.get(1))).collect(),
            indexes: indexes
                .iter()
                .map(|row| IndexFacts { columns: row.get(0), unique: row.get(1), condition: row.get(2) })
                .collect(),
        })
    }

    /// Ids and names of the schema registry.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn registry(&self) -> Result<Vec<(i16, String)>, PostgresError> {
        let mut snapshot = self.begin().await?;
        snapshot.start()?;
        let sql = format!("SELECT schema_id::int2, schema_name::text FROM {}", self.tables().schema_registry);
        let rows = snapshot.client()?.query(&sql, &[]).await?;
        snapshot.statement_running = false;
        snapshot.finish().await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}
