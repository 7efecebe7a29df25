//! DuckDB in this process: it makes the data and runs the baselines.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use arrow::array::{Array, RecordBatch};
use duckdb::{Config, Connection};

/// Threads of every DuckDB that is measured, the server's included.
pub(crate) const THREADS: usize = 2;
/// Memory limit of every DuckDB that is measured, the server's included.
pub(crate) const MEMORY_LIMIT: &str = "4GiB";

/// An instance with the settings that all measurements share.
pub(crate) fn open() -> Result<Connection> {
    let extensions = thermocline_tests::cache_dir()?.join("duckdb/extensions");
    let config = Config::default()
        .with("threads", THREADS.to_string())?
        .with("memory_limit", MEMORY_LIMIT)?
        .with("extension_directory", extensions.display().to_string())?
        .with("autoinstall_known_extensions", "false")?;
    let connection = Connection::open_in_memory_with_flags(config)?;
    connection.execute_batch("SET TimeZone = 'UTC'")?;
    Ok(connection)
}

/// Attaches PostgreSQL, read-only or to fill it, as the catalog `pg`.
pub(crate) fn attach(connection: &Connection, url: &str, is_read_only: bool) -> Result<()> {
    let access = if is_read_only { ", READ_ONLY" } else { "" };
    connection.execute_batch("LOAD postgres_scanner")?;
    connection
        .execute_batch(&format!("ATTACH {} AS pg (TYPE postgres{access})", quoted(url)))
        .context("cannot attach PostgreSQL")
}

/// What one run of a statement gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) elapsed: Duration,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// Runs a statement to Arrow, as a stream, and drops the batches.
pub(crate) fn run(connection: &Connection, sql: &str) -> Result<Run> {
    let started = Instant::now();
    let mut statement = connection.prepare(sql).with_context(|| format!("DuckDB refuses {sql}"))?;
    let (mut rows, mut bytes) = (0, 0);
    for batch in statement.stream_arrow([])? {
        rows += batch.num_rows() as u64;
        bytes += bytes_of(&batch);
    }
    Ok(Run { elapsed: started.elapsed(), rows, bytes })
}

/// Bytes of a batch's own values, whatever else its buffers hold.
pub(crate) fn bytes_of(batch: &RecordBatch) -> u64 {
    let sizes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size());
    sizes.sum::<Result<usize, _>>().unwrap_or_default() as u64
}

/// The first column of a small result, as text.
pub(crate) fn texts(connection: &Connection, sql: &str) -> Result<Vec<String>> {
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A text literal.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `read_parquet` of every Parquet file of a folder.
pub(crate) fn scan(folder: &Path) -> Result<String> {
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .map(|entry| Ok(quoted(&entry?.path().display().to_string())))
        .collect::<Result<_>>()?;
    files.retain(|file| file.ends_with(".parquet'"));
    files.sort();
    Ok(format!("read_parquet([{}])", files.join(", ")))
}
