//! The data: lake files, made once and kept in the cache, and PostgreSQL's tables, made anew for each run.
//!
//! Rows are numbered. Of N base rows, the last fifth has delta versions (N/50 of them, a tenth new rows), and the last
//! tenth is still in `entity_main`, N/200 of it dirty (a fifth new rows). A version's values are a hash of row number and
//! version, so that all statements agree on them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use duckdb::Connection;
use thermocline_tests::postgres::TestDatabase;

use crate::duck;

/// Part of the cache's key: raise it when files get other contents.
const VERSION: u32 = 1;
pub(crate) const SCHEMA_ID: i16 = 100;
const BASE_FILES: u64 = 10;
const DELTA_FILES: u64 = 20;

/// How row ids relate to the time of their rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ids {
    /// As UUIDs of version 7: updates fall into few base files.
    Time,
    /// As UUIDs of version 4: updates fall everywhere.
    Random,
}

/// Numbers of rows, all from the number of base rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) base: u64,
    pub(crate) delta: u64,
    pub(crate) delta_new: u64,
    pub(crate) main: u64,
    pub(crate) dirty: u64,
    pub(crate) dirty_new: u64,
}

/// Which rows a lookup asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Hot,
    Warm,
    Cold,
}

impl Ids {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time-ordered",
            Self::Random => "random",
        }
    }

    /// The id of row `i`, as a DuckDB expression.
    fn expression(self) -> &'static str {
        match self {
            Self::Time => {
                "CAST(printf('%012x', 1700000000000 + i) || '7' || substr(md5(CAST(i AS VARCHAR)), 1, 3) || '8' \
                 || substr(md5(CAST(i AS VARCHAR)), 4, 15) AS UUID)"
            }
            Self::Random => "CAST(md5(CAST(i AS VARCHAR)) AS UUID)",
        }
    }
}

impl Sizes {
    pub(crate) fn new(base: u64) -> Self {
        let (delta, dirty) = (base / 50, base / 200);
        Self { base, delta, delta_new: delta / 10, main: base / 10, dirty, dirty_new: dirty / 5 }
    }
}

/// Numbers of the rows with delta versions.
fn delta_rows(sizes: Sizes) -> String {
    let (updates, start) = (sizes.delta - sizes.delta_new, sizes.base / 10 * 8);
    format!(
        "(SELECT {start} + k * {span} // {updates} AS i FROM range({updates}) t(k) \
         UNION ALL SELECT {base} + k FROM range({new}) t(k))",
        span = sizes.base - start,
        base = sizes.base,
        new = sizes.delta_new,
    )
}

/// Numbers of the dirty rows.
fn dirty_rows(sizes: Sizes) -> String {
    let (updates, start) = (sizes.dirty - sizes.dirty_new, sizes.base / 10 * 9);
    format!(
        "(SELECT {start} + k * {span} // {updates} AS i FROM range({updates}) t(k) \
         UNION ALL SELECT {first} + k FROM range({new}) t(k))",
        span = sizes.base - start,
        first = sizes.base + sizes.delta_new,
        new = sizes.dirty_new,
    )
}

/// Attribute columns of version `version` of row `i`.
fn values(version: u32) -> String {
    let h = |shift: u32| format!("(hash(i * 8 + {version}) >> {shift})");
    format!(
        "printf('AIR%03d', CAST({} % 100 AS INTEGER)) AS carrier, CAST({} % 400 AS INTEGER) AS seats, \
         CAST({} % 1000000 AS DOUBLE) / 100 AS distance, CAST({} % 1000000 AS BIGINT) AS amount, \
         CAST({} % 2000 AS DOUBLE) / 10 - 20 AS delay, CAST({} % 1000 AS INTEGER) AS score",
        h(0),
        h(8),
        h(16),
        h(24),
        h(32),
        h(40)
    )
}

/// The catalog file of the server.
pub(crate) fn catalog() -> String {
    let attributes = [
        ("carrier", "text", "column = \"text_01\""),
        ("seats", "integer", "column = \"integer_01\""),
        ("distance", "double", "column = \"double_01\""),
        ("amount", "bigint", "column = \"bigint_01\""),
        ("delay", "double", "attr_id = 205"),
        ("score", "integer", "attr_id = 206"),
    ];
    let attributes: Vec<String> = attributes
        .iter()
        .map(|(name, kind, place)| format!("[[entity.attribute]]\nname = \"{name}\"\ntype = \"{kind}\"\n{place}\n"))
        .collect();
    format!("[[entity]]\nname = \"events\"\nschema_id = {SCHEMA_ID}\n\n{}", attributes.join("\n"))
}

/// The lake: a folder with `base/100` and `delta/100`, from the cache or made now.
pub(crate) fn lake(rows: u64, ids: Ids) -> Result<PathBuf> {
    let cache = thermocline_tests::cache_dir()?.join("bench");
    let folder = cache.join(format!("v{VERSION}-{rows}-{}", ids.as_str()));
    if folder.is_dir() {
        return Ok(folder);
    }
    let staging = cache.join(format!(".making-{}", std::process::id()));
    let made = make_lake(&staging, Sizes::new(rows), ids);
    if made.is_ok() {
        std::fs::rename(&staging, &folder).with_context(|| format!("cannot place {}", folder.display()))?;
    } else if staging.exists() {
        std::fs::remove_dir_all(&staging)?;
    }
    made.map(|()| folder)
}

fn make_lake(folder: &Path, sizes: Sizes, ids: Ids) -> Result<()> {
    let connection = duck::open()?;
    connection.execute_batch("SET memory_limit = '8GiB'")?;
    let base = format!("(SELECT i FROM range({}) t(i))", sizes.base);
    // Base versions are older than delta versions, and those than dirty ones.
    let tiers = [
        ("base", base, 0, "1700000000000 + i", "CAST(NULL AS BIGINT)", BASE_FILES),
        (
            "delta",
            delta_rows(sizes),
            1,
            "1710000000000 + i",
            "CASE WHEN i % 100 = 7 THEN 1710000000000 + i END",
            DELTA_FILES,
        ),
    ];
    for (tier, rows, version, changed_at, deleted_at, files) in tiers {
        connection.execute_batch(&format!(
            "CREATE OR REPLACE TABLE versions AS SELECT {} AS row_id, {}, 1700000000000 + i AS created_at, \
             {changed_at} AS changed_at, {deleted_at} AS deleted_at FROM {rows} ORDER BY row_id",
            ids.expression(),
            values(version),
        ))?;
        let directory = folder.join(tier).join(SCHEMA_ID.to_string());
        std::fs::create_dir_all(&directory)?;
        let count: u64 = connection.query_row("SELECT count(*) FROM versions", [], |row| row.get(0))?;
        for file in 0..files {
            let (first, end) = (count * file / files, count * (file + 1) / files);
            let path = directory.join(format!("{file:02}.parquet"));
            connection.execute_batch(&format!(
                "COPY (SELECT * FROM versions WHERE rowid >= {first} AND rowid < {end}) TO {} \
                 (FORMAT parquet, KV_METADATA {{'thermocline.unique_rows': 'true'}})",
                duck::quoted(&path.display().to_string())
            ))?;
        }
    }
    Ok(())
}

/// Fills PostgreSQL's tables.
pub(crate) async fn fill(database: &TestDatabase, rows: u64, ids: Ids) -> Result<()> {
    let sizes = Sizes::new(rows);
    let url = database.url();
    tokio::task::spawn_blocking(move || -> Result<()> {
        let connection = duck::open()?;
        duck::attach(&connection, &url, false)?;
        let (dirty, first) = (dirty_rows(sizes), sizes.base - sizes.main);
        connection.execute_batch(&format!(
            "CREATE TABLE dirty AS SELECT i FROM {dirty};
             CREATE TABLE main_rows AS
               SELECT *, {id} AS row_id FROM (
                 SELECT i, true AS dirty, {dirty_values} FROM dirty
                 UNION ALL SELECT i, false, {flushed_values} FROM range({first}, {end}) t(i) ANTI JOIN dirty USING (i));
             INSERT INTO pg.schema_registry VALUES ({SCHEMA_ID}, 'events');
             INSERT INTO pg.entity_main (ltbase_schema_id, ltbase_row_id, text_01, integer_01, double_01, bigint_01,
                 ltbase_created_at, ltbase_updated_at)
               SELECT {SCHEMA_ID}, row_id, carrier, seats, distance, amount, 1700000000000 + i, 1720000000000 + i
               FROM main_rows ORDER BY row_id;
             INSERT INTO pg.eav_data (schema_id, row_id, attr_id, array_indices, value_numeric)
               SELECT {SCHEMA_ID}, row_id, attr_id, '', value FROM (
                 SELECT row_id, 205 AS attr_id, delay AS value FROM main_rows
                 UNION ALL SELECT row_id, 206, CAST(score AS DOUBLE) FROM main_rows) ORDER BY row_id, attr_id;
             INSERT INTO pg.change_log (schema_id, row_id, flushed_at, changed_at)
               SELECT {SCHEMA_ID}, row_id, CASE WHEN dirty THEN 0 ELSE 1715000000000 END,
                 CASE WHEN dirty THEN 1720000000000 ELSE 1700000000000 END + i
               FROM main_rows ORDER BY row_id;",
            id = ids.expression(),
            dirty_values = values(2),
            flushed_values = values(0),
            end = sizes.base,
        ))?;
        Ok(())
    })
    .await??;
    database.connect().await?.batch_execute("VACUUM ANALYZE").await?;
    Ok(())
}

/// Fills PostgreSQL's tables with dirty rows alone.
pub(crate) async fn fill_dirty(database: &TestDatabase, rows: u64, ids: Ids) -> Result<()> {
    let url = database.url();
    tokio::task::spawn_blocking(move || -> Result<()> {
        let connection = duck::open()?;
        duck::attach(&connection, &url, false)?;
        let dirty = format!("(SELECT i, {} AS row_id, {} FROM range({rows}) t(i))", ids.expression(), values(2));
        connection.execute_batch(&format!(
            "INSERT INTO pg.schema_registry VALUES ({SCHEMA_ID}, 'events');
             INSERT INTO pg.entity_main (ltbase_schema_id, ltbase_row_id, text_01, integer_01, double_01, bigint_01,
                 ltbase_created_at, ltbase_updated_at)
               SELECT {SCHEMA_ID}, row_id, carrier, seats, distance, amount, 1700000000000 + i, 1720000000000 + i
               FROM {dirty};
             INSERT INTO pg.eav_data (schema_id, row_id, attr_id, array_indices, value_numeric)
               SELECT {SCHEMA_ID}, row_id, 205, '', delay FROM {dirty};
             INSERT INTO pg.eav_data (schema_id, row_id, attr_id, array_indices, value_numeric)
               SELECT {SCHEMA_ID}, row_id, 206, '', CAST(score AS DOUBLE) FROM {dirty};
             INSERT INTO pg.change_log (schema_id, row_id, changed_at)
               SELECT {SCHEMA_ID}, row_id, 1720000000000 + i FROM {dirty};"
        ))?;
        Ok(())
    })
    .await??;
    database.connect().await?.batch_execute("VACUUM ANALYZE").await?;
    Ok(())
}

/// Ids of some rows that a tier answers for, spread over all such rows.
pub(crate) fn some_ids(connection: &Connection, rows: u64, ids: Ids, place: Place, count: u64) -> Result<Vec<String>> {
    let sizes = Sizes::new(rows);
    let numbers = match place {
        Place::Hot => dirty_rows(sizes),
        // Rows that only delta files know; those that are deleted there make no answer.
        Place::Warm => {
            format!(
                "(SELECT {} + k AS i FROM range({}) t(k) WHERE ({} + k) % 100 <> 7)",
                sizes.base, sizes.delta_new, sizes.base
            )
        }
        Place::Cold => format!("(SELECT i FROM range({}) t(i))", sizes.base / 10 * 8),
    };
    let sql = format!(
        "SELECT CAST({} AS VARCHAR) FROM (SELECT i FROM {numbers} ORDER BY hash(i) LIMIT {count})",
        ids.expression()
    );
    duck::texts(connection, &sql)
}
