//! The demonstration: the flights of 2013 in all tiers, and a server that answers about them.
//!
//! `cargo xtask demo` builds and runs this. Everything it starts ends with it, however it ends.

#![expect(clippy::print_stdout, reason = "a demonstration shows itself on standard output")]

#[path = "demo/life.rs"]
mod life;
#[path = "demo/own_tables.rs"]
mod own_tables;

use std::env;
use std::io::IsTerminal;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use tempfile::TempDir;
use thermocline_tests::lake::Lake;
use thermocline_tests::nycflights::{self, Source};
use thermocline_tests::postgres::TestDatabase;
use thermocline_tests::s3::S3Server;
use thermocline_tests::supervise::{Supervise, Supervised};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

const USUAL_ADDRESS: &str = "127.0.0.1:32010";

/// A Python program that asks through several clients; its argument is the address.
const CLIENTS: &str = include_str!("demo/clients.py");

/// What a sample query shows, and its SQL.
const SAMPLES: &[(&str, &str)] = &[
    ("One table over three tiers", "SELECT _tier, count(*) AS flights FROM flights GROUP BY _tier ORDER BY _tier"),
    (
        "A join of entities",
        "SELECT a.name, count(*) AS flights, round(avg(f.dep_delay), 1) AS delay
         FROM flights f JOIN airlines a USING (carrier)
         GROUP BY a.name ORDER BY flights DESC LIMIT 5",
    ),
    (
        "Filters on a main column, an EAV attribute and a date",
        "SELECT carrier, flight, dest, dep_delay, departed_at FROM flights
         WHERE origin = 'JFK' AND dep_delay > 300 AND flight_date >= DATE '2013-12-01'
         ORDER BY dep_delay DESC LIMIT 5",
    ),
    (
        "Late corrections win over the files",
        "SELECT flight_date, carrier, flight, dep_delay, _tier, updated_at FROM flights
         WHERE _tier = 'hot' AND flight_date < DATE '2013-12-01' ORDER BY flight_date LIMIT 5",
    ),
    (
        "Why flights never left, where an edit says it",
        "SELECT cancellation_reason, count(*) AS flights FROM flights WHERE cancelled GROUP BY ALL ORDER BY ALL",
    ),
    (
        "A CTE and a window: the worst day of each month",
        "WITH days AS (
           SELECT flight_date, round(avg(dep_delay), 1) AS delay FROM flights GROUP BY flight_date)
         SELECT flight_date, delay FROM days
         QUALIFY row_number() OVER (PARTITION BY month(flight_date) ORDER BY delay DESC) = 1
         ORDER BY flight_date",
    ),
    (
        "Weather at departure",
        "SELECT w.visib < 3 AS fog, count(*) AS flights, round(avg(f.dep_delay), 1) AS delay
         FROM flights f JOIN weather w
           ON w.origin = f.origin AND w.observed_at = date_trunc('hour', f.scheduled_departure)
         GROUP BY ALL ORDER BY fog",
    ),
    (
        "A set operation: planes of the table that never flew, and tail numbers without a plane",
        "SELECT 'never flew' AS what, count(*) AS tailnums
         FROM (SELECT tailnum FROM planes EXCEPT SELECT tailnum FROM flights)
         UNION ALL
         SELECT 'unknown plane', count(*)
         FROM (SELECT tailnum FROM flights WHERE tailnum IS NOT NULL EXCEPT SELECT tailnum FROM planes)",
    ),
];

/// Starts Thermocline on the flights of 2013.
#[derive(Debug, Parser)]
struct Options {
    /// Run the sample queries, print results and plans, stop everything and exit.
    #[arg(long)]
    once: bool,
    /// Keep the Parquet lake behind an S3 endpoint instead of in a local folder.
    #[arg(long)]
    s3: bool,
}

/// Everything that runs. Fields are dropped in this order: the server before its sources.
#[derive(Debug)]
struct Demo {
    binary: PathBuf,
    config: PathBuf,
    address: String,
    server: Supervised,
    _lake: Lake,
    database: TestDatabase,
    directory: TempDir,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Whatever is under way is dropped when a signal comes, and with it the child processes and directories.
    let work = async {
        let demo = Demo::start(&options).await?;
        if options.once { demo.run_samples().await } else { demo.serve().await }
    };
    tokio::select! {
        result = work => result,
        _ = interrupt.recv() => { println!("\nStopping."); Ok(()) }
        _ = terminate.recv() => { println!("\nStopping."); Ok(()) }
    }
}

impl Demo {
    async fn start(options: &Options) -> Result<Self> {
        let binary = env::var_os("THERMOCLINE_BIN").map(PathBuf::from);
        let binary = binary.context("THERMOCLINE_BIN doesn't name the server; start with `cargo xtask demo`")?;

        let mut clock = Instant::now();
        let mut done = |what: &str| {
            println!("   {what} ({:.1?})", clock.elapsed());
            clock = Instant::now();
        };
        println!("\n== Starting");
        let database = TestDatabase::create().await?;
        done("PostgreSQL is up");
        let lake = if options.s3 { Lake::s3(&Arc::new(S3Server::start()?))? } else { Lake::local()? };
        done(&format!("the lake is {}", lake.url()));

        println!("\n== Loading the flights of 2013");
        let source = Source::read(&nycflights::directory()?)?;
        done(&format!("read {} flights", source.flights.len()));
        let terminal = std::io::stderr().is_terminal();
        let loaded = nycflights::load(&source, &database, &lake, |step| {
            if terminal {
                eprint!("\r\x1b[K   {step}");
            }
        })
        .await?;
        if terminal {
            eprint!("\r\x1b[K");
        }
        done(&format!("{} versions in {} Parquet files", loaded.file_versions, loaded.files));
        println!("   {} dirty rows and {} flushed ones in PostgreSQL", loaded.dirty_rows, loaded.flushed_rows);

        let directory = tempfile::Builder::new().prefix("thermocline-demo-").tempdir()?;
        let config = write_config(directory.path(), options, &database, &lake)?;
        let (server, address) = start_server(&binary, directory.path(), &config).await?;
        done(&format!("the server listens on {address}"));
        Ok(Self { binary, config, address, server, _lake: lake, database, directory })
    }

    /// Runs the sample queries with the client.
    async fn run_samples(&self) -> Result<()> {
        for (index, (title, sql)) in SAMPLES.iter().enumerate() {
            println!("\n== {}. {title}\n\n{}\n", index + 1, unindent(sql));
            self.query(sql, &[]).await?;
            println!("\n-- its plan");
            self.query(sql, &["--plan"]).await?;
        }
        println!("\n== {}. Clients as they are published", SAMPLES.len() + 1);
        let mut clients = Command::new(python()?);
        clients.args(["-c", CLIENTS, &self.address]);
        succeed(clients).await?;
        println!("\n== {}. The life of a row", SAMPLES.len() + 2);
        life::show(&self.binary, &self.config, &self.address, &self.database).await?;
        println!("\n== {}. Second act: ordinary tables become entities", SAMPLES.len() + 3);
        own_tables::show(&self.binary, self.directory.path(), &self.database).await?;
        println!("\nEverything answered. Stopping.");
        Ok(())
    }

    async fn query(&self, sql: &str, flags: &[&str]) -> Result<()> {
        let mut client = Command::new(&self.binary);
        client.args(["query", "--server", &self.address]).args(flags).arg(sql);
        succeed(client).await.with_context(|| format!("the query failed: {sql}"))
    }

    /// Shows how to ask and waits until the server ends, which it only does by mistake.
    async fn serve(&self) -> Result<()> {
        println!("{}", instructions(&self.binary, &self.config, &self.address, &python()?));
        while !self.server.has_exited() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("the server ended by itself")
    }
}

/// The Python with the clients.
fn python() -> Result<String> {
    env::var("THERMOCLINE_PYTHON").context("THERMOCLINE_PYTHON names no Python; start with `cargo xtask demo`")
}

/// Runs a program to its end; it ends with us.
async fn succeed(mut command: Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).kill_on_drop(true).status().await?;
    ensure!(status.success(), "{status}");
    Ok(())
}

fn write_config(directory: &Path, options: &Options, database: &TestDatabase, lake: &Lake) -> Result<PathBuf> {
    std::fs::write(directory.join("catalog.toml"), nycflights::catalog_toml())?;
    // A port that is easy to remember, if it is free; several demonstrations may run at once.
    let usual_is_free = TcpListener::bind(USUAL_ADDRESS).is_ok();
    let listen = if !options.once && usual_is_free { USUAL_ADDRESS } else { "127.0.0.1:0" };
    let mut config = toml::Table::new();
    let section = |entries: &[(&str, &str)]| -> toml::Value {
        entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), toml::Value::from(*value)))
            .collect::<toml::Table>()
            .into()
    };
    config.insert("server".to_owned(), section(&[("listen", listen), ("admin_listen", "127.0.0.1:0")]));
    config.insert("postgres".to_owned(), section(&[("url", &database.url())]));
    config.insert("lake".to_owned(), lake.config().into());
    config.insert("catalog".to_owned(), section(&[("path", "catalog.toml")]));
    let path = directory.join("thermocline.toml");
    std::fs::write(&path, toml::to_string(&config)?)?;
    Ok(path)
}

/// Starts `thermocline serve` and returns it with its address.
async fn start_server(binary: &Path, directory: &Path, config: &Path) -> Result<(Supervised, String)> {
    let log = directory.join("server.log");
    let mut supervise = Supervise::new(binary);
    supervise.args = vec!["serve".to_owned(), "--config".to_owned(), config.display().to_string()];
    supervise.stderr = Some(log.clone());
    supervise.end_signal = "TERM";
    let server = supervise.spawn()?;
    let until = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until && !server.has_exited() {
        match server.next_line(Duration::ZERO) {
            Some(line) => {
                if let Some(address) = line.strip_prefix("listening on ") {
                    return Ok((server, address.to_owned()));
                }
            }
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    bail!("the server did not start:\n{}", std::fs::read_to_string(&log)?)
}

fn instructions(binary: &Path, config: &Path, address: &str, python: &str) -> String {
    let (binary, config) = (binary.display(), config.display());
    let plain = address.trim_start_matches("grpc://");
    format!(
        r#"
== Thermocline listens on {address}. Ctrl-C stops everything.

On the command line:

  {binary} query --server {address} 'SELECT carrier, count(*) FROM flights GROUP BY carrier'
  {binary} query --server {address} --plan "SELECT * FROM flights WHERE carrier = 'UA'"

Rows move on from PostgreSQL to delta files, and from there to base files, by these; the answers stay the same:

  {binary} flush --config {config}
  {binary} compact --config {config}

In Python ({python}):

  import adbc_driver_flightsql.dbapi as flightsql
  connection = flightsql.connect("{address}")
  cursor = connection.cursor()
  cursor.execute("SELECT origin, avg(dep_delay) AS delay FROM flights GROUP BY origin")
  print(cursor.fetch_arrow_table())

  import polars
  print(polars.read_database("SELECT * FROM airlines", connection))

  import pandas
  print(pandas.read_sql("SELECT month(flight_date) AS month, count(*) AS n FROM flights GROUP BY ALL", connection))

Tables: flights, airlines, airports, planes, weather. Host and port for other clients: {plain}"#
    )
}

/// The text without the indentation that its later lines have in common.
fn unindent(text: &str) -> String {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let common = text.lines().skip(1).filter(|line| !line.trim().is_empty()).map(indent).min().unwrap_or(0);
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |all, line| format!("{all}\n{}", line.get(common..).unwrap_or(line)))
}
