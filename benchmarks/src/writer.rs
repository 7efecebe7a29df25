//! The writer side: `thermocline flush` and `compact` beside DuckDB's `COPY … TO` of the same rows.
//!
//! Every row is dirty and new. Flush reads all of them from PostgreSQL and writes delta files, compact merges those into
//! base files. DuckDB's two statements do the same to files that nobody guards: no snapshot shared with the manifest, no
//! digest, no page checksums, no marking.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use duckdb::Connection;
use thermocline_tests::client::Client;
use thermocline_tests::oracle::rows_of;
use thermocline_tests::postgres::TestDatabase;
use thermocline_tests::server::{Server, ServerConfig, binary};

use crate::data::{self, Ids, SCHEMA_ID};
use crate::duck;
use crate::report::{Case, Report, Target};
use crate::samples::Samples;

/// What `--only` selects these measurements by.
pub(crate) const NAME: &str = "writer: flush and compact";
/// Memory of DuckDB, in the writer and in the statements beside it.
const MEMORY_LIMIT: &str = "1GiB";

/// A run of a writer.
#[derive(Debug, Clone, Copy)]
struct Run {
    elapsed: Duration,
    /// The most resident memory of the process, in bytes.
    peak: u64,
}

/// Measures flush and compact of `rows` rows, `runs` times.
pub(crate) async fn measure(rows: u64, ids: Ids, runs: usize, report: &mut Report) -> Result<()> {
    let database = TestDatabase::create().await?;
    data::fill_dirty(&database, rows, ids).await?;
    let directory = tempfile::Builder::new().prefix("thermocline-bench-writer-").tempdir()?;
    let lake = directory.path().join("lake");
    std::fs::create_dir(&lake)?;
    let server = start_server(&database, &lake).await?;
    let client = Client::connect(server.endpoint()).await?;
    run_writer(&server, &["manifest", "import"]).await?;
    let expected = totals(&client).await?;

    let mut times = [(); 4].map(|()| Samples::default());
    let mut peaks = [0; 2];
    for _ in 0..runs {
        reset(&database, &lake).await?;
        let copied = copy_from_postgres(&database.url(), directory.path())?;
        let flush = run_writer(&server, &["flush"]).await?;
        ensure!(totals(&client).await? == expected, "flush changed the answer");
        let delta = duck::scan(&lake.join(format!("delta/{SCHEMA_ID}")))?;
        let merged = copy_merged(&delta, directory.path())?;
        let compact = run_writer(&server, &["compact"]).await?;
        ensure!(totals(&client).await? == expected, "compact changed the answer");
        for (samples, elapsed) in
            times.iter_mut().zip([Some(copied), Some(flush.elapsed), merged, Some(compact.elapsed)])
        {
            elapsed.into_iter().for_each(|elapsed| samples.push(elapsed));
        }
        peaks = [peaks[0].max(flush.peak), peaks[1].max(compact.peak)];
    }
    let mut case = Case::new(NAME, ids.as_str());
    let [copied, flush, merged, compact] = times;
    case.ratio("flush / COPY from PostgreSQL", flush.median() / copied.median(), Target::None);
    let has_merged = merged.len() > 0;
    if has_merged {
        case.ratio("compact / COPY of the merged files", compact.median() / merged.median(), Target::None);
    } else {
        case.note("DuckDB's COPY of the merged files ran out of memory".to_owned());
    }
    for (verb, samples, peak) in [("flush", &flush, peaks[0]), ("compact", &compact, peaks[1])] {
        case.ratio(&format!("{verb}, thousand rows a second"), rows as f64 / samples.median(), Target::None);
        case.ratio(&format!("{verb}, peak memory in MB"), peak as f64 / 1e6, Target::None);
    }
    case.series("COPY from PostgreSQL", "ms", copied);
    case.series("server's flush", "ms", flush);
    if has_merged {
        case.series("COPY of the merged files", "ms", merged);
    }
    case.series("server's compact", "ms", compact);
    case.note(format!("{rows} rows, all dirty; DuckDB has {MEMORY_LIMIT} on both sides; manifest catalog, local lake"));
    println!("{}", case.summary());
    report.add(case);
    Ok(())
}

async fn start_server(database: &TestDatabase, lake: &Path) -> Result<Server> {
    let mut config = ServerConfig::default()
        .with("postgres", "url", database.url())
        .with("lake", "url", format!("file://{}", lake.display()))
        .with("lake", "catalog", "manifest")
        .with("duckdb", "threads", i64::try_from(duck::THREADS)?)
        .with("duckdb", "memory_limit", MEMORY_LIMIT);
    config.catalog = data::catalog();
    config.start().await
}

/// What must not change.
async fn totals(client: &Client) -> Result<Vec<String>> {
    let sql = "SELECT count(*), sum(amount), sum(score), max(updated_at) FROM events";
    let answer = client.query(sql).await?;
    Ok(rows_of(&answer.batches).iter().flatten().map(ToString::to_string).collect())
}

/// All rows are dirty again, and the lake is empty.
async fn reset(database: &TestDatabase, lake: &Path) -> Result<()> {
    let client = database.connect().await?;
    client.batch_execute("DELETE FROM lake_file; UPDATE change_log SET flushed_at = 0 WHERE flushed_at <> 0").await?;
    client.batch_execute("VACUUM ANALYZE change_log").await?;
    for entry in std::fs::read_dir(lake)? {
        std::fs::remove_dir_all(entry?.path())?;
    }
    Ok(())
}

fn open() -> Result<Connection> {
    let connection = duck::open()?;
    connection.execute_batch(&format!("SET memory_limit = '{MEMORY_LIMIT}'"))?;
    Ok(connection)
}

/// Times a statement that writes its rows, ordered, to a file, and removes the file.
fn time_copy(connection: &Connection, rows: &str, directory: &Path) -> Result<Duration> {
    let file = directory.join("copy.parquet");
    let place = duck::quoted(&file.display().to_string());
    let started = Instant::now();
    connection
        .execute_batch(&format!("COPY ({rows} ORDER BY row_id) TO {place} (FORMAT parquet, COMPRESSION zstd)"))
        .context("COPY failed")?;
    let elapsed = started.elapsed();
    std::fs::remove_file(file)?;
    Ok(elapsed)
}

fn copy_from_postgres(url: &str, directory: &Path) -> Result<Duration> {
    let connection = open()?;
    duck::attach(&connection, url, true)?;
    let rows = format!(
        "SELECT c.row_id, m.text_01 AS carrier, m.integer_01 AS seats, m.double_01 AS distance, m.bigint_01 AS amount, \
         e.delay, e.score, m.ltbase_created_at AS created_at, c.changed_at, c.deleted_at \
         FROM pg.change_log c JOIN pg.entity_main m ON m.ltbase_schema_id = c.schema_id AND m.ltbase_row_id = c.row_id \
         LEFT JOIN (SELECT row_id, max(value_numeric) FILTER (attr_id = 205) AS delay, \
         CAST(max(value_numeric) FILTER (attr_id = 206) AS INTEGER) AS score FROM pg.eav_data \
         WHERE schema_id = {SCHEMA_ID} GROUP BY row_id) e ON e.row_id = c.row_id \
         WHERE c.schema_id = {SCHEMA_ID} AND c.flushed_at = 0"
    );
    time_copy(&connection, &rows, directory)
}

/// `None` when it needs more memory than [`MEMORY_LIMIT`]: a window over many rows does.
fn copy_merged(files: &str, directory: &Path) -> Result<Option<Duration>> {
    let newest = "row_number() OVER (PARTITION BY row_id ORDER BY changed_at DESC) = 1";
    match time_copy(&open()?, &format!("SELECT * FROM {files} QUALIFY {newest}"), directory) {
        Ok(elapsed) => Ok(Some(elapsed)),
        Err(error) if format!("{error:#}").contains("Out of Memory Error") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Runs the program to its end and watches its memory.
async fn run_writer(server: &Server, args: &[&str]) -> Result<Run> {
    let started = Instant::now();
    let mut child = tokio::process::Command::new(binary()?)
        .args(args)
        .arg("--config")
        .arg(server.config_path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let status = format!("/proc/{}/status", child.id().context("it has ended")?);
    let mut peak = 0;
    loop {
        // Its last moments have no memory to tell of.
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let kib = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak = kib.unwrap_or(0_u64).max(peak);
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "{args:?}: {status}");
            return Ok(Run { elapsed: started.elapsed(), peak: peak * 1024 });
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
