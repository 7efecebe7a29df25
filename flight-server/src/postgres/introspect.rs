//! What tables a database has, for `thermocline init`, `check` and `prune`.

use tokio_postgres::types::Oid;
use translator::catalog::{Entity, PrimaryKeys};
use translator::quote::TableName;

use super::{PostgresError, PostgresSource};

/// A table, view or the like, as PostgreSQL's catalogs describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTable {
    pub schema: String,
    pub name: String,
    pub kind: TableKind,
    /// Whether it is a partition, or a child by inheritance, of another table.
    pub has_parent: bool,
    /// Whether other tables inherit from it without being its partitions.
    pub has_children: bool,
    pub comment: Option<String>,
    /// About how many rows it holds; `None` when nobody has counted yet.
    pub rows: Option<u64>,
    pub columns: Vec<FoundColumn>,
    pub key: Option<FoundKey>,
    /// Its partitions of all levels, each quoted with its schema.
    pub partitions: Vec<String>,
}

/// What kind of relation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    Table,
    Partitioned,
    View,
    MaterializedView,
    Foreign,
}

/// A column; domains are looked through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundColumn {
    pub name: String,
    /// The type as PostgreSQL prints it.
    pub type_text: String,
    /// PostgreSQL's name of the type below all domains.
    pub base: String,
    pub is_enum: bool,
    /// Of an array: the name of the element's type, and whether that is an enum.
    pub element: Option<(String, bool)>,
    /// The type's modifier, -1 without one.
    pub modifier: i32,
    pub comment: Option<String>,
}

/// The primary key, or the first unique index over columns that are never NULL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundKey {
    pub columns: Vec<String>,
    pub is_deferrable: bool,
}

/// A foreign key that points to a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub name: String,
    /// The table that refers, quoted with its schema.
    pub from: String,
    /// The columns that refer and the columns they refer to.
    pub columns: Vec<(String, String)>,
}

const TABLES: &str = "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, \
    EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid), \
    c.relkind = 'r' AND EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid), \
    obj_description(c.oid, 'pg_class'), \
    CASE WHEN c.relkind = 'p' THEN (SELECT sum(greatest(p.reltuples, 0)) FROM pg_catalog.pg_partition_tree(c.oid) t \
      JOIN pg_catalog.pg_class p ON p.oid = t.relid AND t.isleaf)::bigint ELSE NULLIF(c.reltuples, -1)::bigint END, \
    ARRAY(SELECT format('%I.%I', pn.nspname, p.relname) FROM pg_catalog.pg_partition_tree(c.oid) t \
      JOIN pg_catalog.pg_class p ON p.oid = t.relid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace \
      WHERE c.relkind = 'p' AND p.oid <> c.oid ORDER BY 1) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
    AND n.nspname NOT LIKE 'pg\\_toast%' AND n.nspname NOT LIKE 'pg\\_temp%' \
    ORDER BY n.nspname, c.relname";

const COLUMNS: &str = "WITH RECURSIVE base AS ( \
    SELECT a.attrelid, a.attnum, a.atttypid AS typ, a.atttypmod AS modifier FROM pg_catalog.pg_attribute a \
    WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped \
    UNION ALL SELECT b.attrelid, b.attnum, t.typbasetype, CASE WHEN t.typtypmod <> -1 THEN t.typtypmod ELSE b.modifier END \
    FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.typ WHERE t.typtype = 'd') \
    SELECT a.attrelid, a.attname::text, format_type(a.atttypid, a.atttypmod), t.typname::text, t.typtype = 'e', \
    e.typname::text, COALESCE(e.typtype = 'e', false), b.modifier, col_description(a.attrelid, a.attnum) \
    FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.typ AND t.typtype <> 'd' \
    JOIN pg_catalog.pg_attribute a ON a.attrelid = b.attrelid AND a.attnum = b.attnum \
    LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A' ORDER BY a.attrelid, a.attnum";

const KEYS: &str = "SELECT DISTINCT ON (i.indrelid) i.indrelid, \
    ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, place) \
      JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
      WHERE k.place <= i.indnkeyatts ORDER BY k.place), NOT i.indimmediate \
    FROM pg_catalog.pg_index i WHERE i.indrelid = ANY($1) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL \
    AND i.indexprs IS NULL AND NOT EXISTS (SELECT FROM unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, place) \
      JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
      WHERE k.place <= i.indnkeyatts AND NOT a.attnotnull) \
    ORDER BY i.indrelid, i.indisprimary DESC, i.indnkeyatts, i.indexrelid";

const PRIMARY_KEY: &str = "SELECT ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, place) \
      JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
      WHERE k.place <= i.indnkeyatts ORDER BY k.place) \
    FROM pg_catalog.pg_index i WHERE i.indrelid = to_regclass($1)::oid AND i.indisprimary";

const REFERENCES: &str = "SELECT k.conname::text, format('%I.%I', n.nspname, c.relname), \
    ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u (attnum, place) \
      JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum ORDER BY u.place), \
    ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u (attnum, place) \
      JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum ORDER BY u.place) \
    FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE k.contype = 'f' AND k.confrelid = to_regclass($1) AND k.conparentid = 0 ORDER BY 1, 2";

const TRIGGERS: &str = "SELECT DISTINCT t.tgname::text FROM pg_catalog.pg_trigger t \
    WHERE t.tgrelid = to_regclass($1) AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND (t.tgtype & 8) <> 0 ORDER BY 1";

const FIRING: &str = "SELECT c.oid::regclass::text, COALESCE((SELECT t.tgenabled::text FROM pg_catalog.pg_trigger t \
    WHERE t.tgrelid = c.oid AND t.tgname = $2), ''), \
    COALESCE((SELECT t.tgenabled::text FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = $3), ''), \
    c.relkind = 'v' FROM pg_catalog.pg_class c WHERE c.oid = to_regclass($1) OR c.oid IN (SELECT p.relid::oid FROM \
    pg_catalog.pg_partition_tree(to_regclass($1)) p) ORDER BY 1";

/// Whether the triggers of one table or partition fire always.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing {
    /// The table, quoted as needed.
    pub table: String,
    pub row: bool,
    pub truncate: bool,
    /// No such trigger can sit on it.
    pub is_view: bool,
}

impl PostgresSource {
    /// The columns of these tables' primary keys. A table that isn't there, or has none, has no entry.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn primary_keys(&self, tables: &[String]) -> Result<PrimaryKeys, PostgresError> {
        let mut snapshot = self.begin().await?;
        snapshot.start()?;
        let client = snapshot.client()?;
        let mut keys = PrimaryKeys::new();
        for table in tables {
            let found = client.query_opt(PRIMARY_KEY, &[&TableName(table).to_string()]).await?;
            if let Some(row) = found {
                keys.insert(table.clone(), row.try_get(0)?);
            }
        }
        snapshot.statement_running = false;
        snapshot.finish().await?;
        Ok(keys)
    }

    /// All tables and views of the database that this role may know of, but for PostgreSQL's own.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn found_tables(&self) -> Result<Vec<FoundTable>, PostgresError> {
        let mut snapshot = self.begin().await?;
        snapshot.start()?;
        let client = snapshot.client()?;
        let rows = client.query(TABLES, &[]).await?;
        let mut tables = Vec::with_capacity(rows.len());
        for row in &rows {
            let kind: &str = row.try_get(3)?;
            let rows: Option<i64> = row.try_get(7)?;
            let table = FoundTable {
                schema: row.try_get(1)?,
                name: row.try_get(2)?,
                kind: match kind {
                    "p" => TableKind::Partitioned,
                    "v" => TableKind::View,
                    "m" => TableKind::MaterializedView,
                    "f" => TableKind::Foreign,
                    _ => TableKind::Table,
                },
                has_parent: row.try_get(4)?,
                has_children: row.try_get(5)?,
                comment: row.try_get(6)?,
                rows: rows.and_then(|rows| u64::try_from(rows).ok()),
                columns: Vec::new(),
                key: None,
                partitions: row.try_get(8)?,
            };
            tables.push((row.try_get::<_, Oid>(0)?, table));
        }
        let oids: Vec<Oid> = tables.iter().map(|(oid, _)| *oid).collect();
        let place = |oid: Oid| tables.iter().position(|(known, _)| *known == oid);
        let mut columns = Vec::new();
        for row in client.query(COLUMNS, &[&oids]).await? {
            let element: Option<String> = row.try_get(5)?;
            let is_enum: bool = row.try_get(6)?;
            let column = FoundColumn {
                name: row.try_get(1)?,
                type_text: row.try_get(2)?,
                base: row.try_get(3)?,
                is_enum: row.try_get(4)?,
                element: element.map(|element| (element, is_enum)),
                modifier: row.try_get(7)?,
                comment: row.try_get(8)?,
            };
            columns.push((place(row.try_get(0)?), column));
        }
        let mut keys = Vec::new();
        for row in client.query(KEYS, &[&oids]).await? {
            let key = FoundKey { columns: row.try_get(1)?, is_deferrable: row.try_get(2)? };
            keys.push((place(row.try_get(0)?), key));
        }
        snapshot.statement_running = false;
        snapshot.finish().await?;
        for (place, column) in columns {
            if let Some((_, table)) = place.and_then(|place| tables.get_mut(place)) {
                table.columns.push(column);
            }
        }
        for (place, key) in keys {
            if let Some((_, table)) = place.and_then(|place| tables.get_mut(place)) {
                table.key = Some(key);
            }
        }
        Ok(tables.into_iter().map(|(_, table)| table).collect())
    }

    /// The foreign keys that point to a table, given as a quoted name.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn references_to(&self, table: &str) -> Result<Vec<Reference>, PostgresError> {
        let rows = self.ask(REFERENCES, table).await?;
        rows.iter()
            .map(|row| {
                let (from, to): (Vec<String>, Vec<String>) = (row.try_get(2)?, row.try_get(3)?);
                Ok(Reference {
                    name: row.try_get(0)?,
                    from: row.try_get(1)?,
                    columns: from.into_iter().zip(to).collect(),
                })
            })
            .collect()
    }

    /// The partitions of a table, given as a quoted name, that hold rows themselves, quoted.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn leaf_partitions(&self, table: &str) -> Result<Vec<String>, PostgresError> {
        const SQL: &str = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_partition_tree(to_regclass($1)) p \
            JOIN pg_catalog.pg_class c ON c.oid = p.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
            WHERE p.isleaf AND p.level > 0 ORDER BY 1";
        let rows = self.ask(SQL, table).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// The triggers that fire when a row of a table, given as a quoted name, is deleted.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn delete_triggers(&self, table: &str) -> Result<Vec<String>, PostgresError> {
        let rows = self.ask(TRIGGERS, table).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Whether the triggers of these names fire always on a table, given as a quoted name, and on each of its partitions.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn firing(&self, table: &str, row: &str, truncate: &str) -> Result<Vec<Firing>, PostgresError> {
        let mut snapshot = self.begin().await?;
        snapshot.start()?;
        let rows = snapshot.client()?.query(FIRING, &[&table, &row, &truncate]).await?;
        snapshot.statement_running = false;
        snapshot.finish().await?;
        rows.iter()
            .map(|row| {
                let always = |text: &str| text == "A";
                Ok(Firing {
                    table: row.try_get(0)?,
                    row: always(row.try_get(1)?),
                    truncate: always(row.try_get(2)?),
                    is_view: row.try_get(3)?,
                })
            })
            .collect()
    }

    /// Whether the rows of a table that were there before it was tracked are all entered in the change log, or there are no
    /// notes of it.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn is_backfilled(
        &self,
        tables: &translator::postgres::TableNames,
        entity: &Entity,
    ) -> Result<bool, PostgresError> {
        let progress = translator::postgres::bookkeeping_name(tables, "backfill");
        let there = self.ask("SELECT to_regclass($1) IS NOT NULL", &progress).await?;
        if !there.first().is_some_and(|row| row.get(0)) {
            return Ok(false);
        }
        let mut snapshot = self.begin().await?;
        let sql = format!("SELECT count(*) FROM {progress} WHERE schema_id = {} AND done", entity.schema_id);
        let done = snapshot.count(&sql).await?;
        snapshot.finish().await?;
        Ok(done > 0)
    }

    /// Asks for the fingerprint of the cursor, by the translator's statement.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn cursor_fingerprint(&self, sql: &str) -> Result<Option<String>, PostgresError> {
        let mut snapshot = self.begin().await?;
        snapshot.start()?;
        let row = snapshot.client()?.query_opt(sql, &[]).await?;
        snapshot.statement_running = false;
        snapshot.finish().await?;
        row.map_or(Ok(None), |row| Ok(row.try_get(0)?))
    }

    /// The schema in which a table without one is, or would be made.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn default_schema(&self, table: &crate::config::TableName) -> Result<String, PostgresError> {
        const SQL: &str = "SELECT COALESCE((SELECT n.nspname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
            ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)), current_schema()::text, 'public')";
        let rows = self.ask(SQL, &table.to_string()).await?;
        let row = rows.first().ok_or_else(|| PostgresError::internal("a schema has no name"))?;
        Ok(row.try_get(0)?)
    }

    async fn ask(&self, sql: &str, argument: &str) -> Result<Vec<tokio_postgres::Row>, PostgresError> {
        let mut snapshot = self.begin().await?;
        snapshot.start()?;
        let rows = snapshot.client()?.query(sql, &[&argument]).await?;
        snapshot.statement_running = false;
        snapshot.finish().await?;
        Ok(rows)
    }
}
