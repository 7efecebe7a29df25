//! `cargo xtask bench`: benchmarks of the server beside what one could do without it, as ratios of one run.
//!
//! ```text
//! DuckDB ─COPY─▶ lake files (cached) ─┐              ┌─ plain: DuckDB in this process over the base files
//! DuckDB ─────▶ PostgreSQL ───────────┼─▶ server     ├─ naive: DuckDB in this process over everything
//!                                     └──────────────┴─ quack, bare Flight: other processes, the same scan
//! ```
//!
//! Knows the server only as a process with a wire protocol, and the translator as a library.

#![expect(clippy::print_stdout, reason = "a developer's command talks on standard output")]

mod cases;
mod data;
mod duck;
mod memory_server;
mod planning;
mod quack;
mod report;
mod samples;
mod triggers;
mod writer;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::data::Ids;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench", about = "Thermocline's benchmarks")]
struct Cli {
    /// Rows of the base files; everything else keeps its proportion to them.
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    /// How often each measurement is repeated.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Rows that the writer's case flushes and compacts; a tenth of `--rows` when it isn't given.
    #[arg(long)]
    writer_rows: Option<u64>,
    /// One kind of ids only.
    #[arg(long, value_enum)]
    ids: Option<Ids>,
    /// Only the cases whose name contains this; the report is then not written.
    #[arg(long)]
    only: Option<String>,
    /// Where `report.json`, `report.md` and the plots go.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/report"))]
    out: PathBuf,
    /// Afterwards keep the server and PostgreSQL running, for a closer look.
    #[arg(long)]
    hold: bool,
    #[command(subcommand)]
    server: Option<BaselineServer>,
}

/// Servers to compare with, each a process of its own.
#[derive(Debug, Subcommand)]
enum BaselineServer {
    /// Serves the batches of a statement from memory over Flight.
    #[command(hide = true)]
    ServeMemory { sql: String },
    /// Serves a statement as the view `v` over DuckDB's remote protocol.
    #[command(hide = true)]
    ServeQuack { sql: String, port: u16 },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match cli.server {
        Some(BaselineServer::ServeMemory { sql }) => return runtime.block_on(memory_server::serve(&sql)),
        Some(BaselineServer::ServeQuack { sql, port }) => return quack::serve(&sql, port),
        None => (),
    }
    anyhow::ensure!(cli.rows >= 10_000, "--rows must be at least 10000");
    let mut measured = report::Report::new(cli.rows, cli.runs.max(1))?;
    let kinds = cli.ids.map_or(vec![Ids::Time, Ids::Random], |ids| vec![ids]);
    let only_triggers = cli.only.as_ref().is_some_and(|only| triggers::NAME.contains(only.as_str()));
    if cli.only.is_none() || only_triggers {
        runtime.block_on(triggers::measure(cli.runs.max(1), &mut measured)).context("the triggers' case")?;
    }
    for ids in kinds.into_iter().filter(|_| !only_triggers) {
        println!("== {} ids", ids.as_str());
        let only_writer = cli.only.as_ref().is_some_and(|only| writer::NAME.contains(only.as_str()));
        if cli.only.is_none() || only_writer {
            let rows = cli.writer_rows.unwrap_or(cli.rows / 10);
            let runs = cli.runs.clamp(1, 3);
            runtime.block_on(writer::measure(rows, ids, runs, &mut measured)).context("the writer's case")?;
        }
        if only_writer {
            continue;
        }
        let options = cases::Options { runs: cli.runs.max(1), only: cli.only.clone(), hold: cli.hold };
        runtime
            .block_on(cases::run_all(cli.rows, ids, &options, &mut measured))
            .with_context(|| format!("with {} ids", ids.as_str()))?;
    }
    if cli.only.is_none() {
        measured.write(&cli.out)?;
        println!("\nreport: {}", cli.out.join("report.md").display());
    }
    Ok(())
}
