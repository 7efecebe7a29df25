//! `thermocline flush`, `compact`, `gc` and `manifest`, on both lake catalogs: answers stay what they were, whatever
//! happens to the writers on the way.

mod crash;
mod life;
mod manifest;
mod memory;
mod race;
mod readers;
mod retired;
mod unreadable;
mod upkeep;

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use thermocline_tests::client::Client;
use thermocline_tests::failpoint::Halted;
use thermocline_tests::oracle::{HotVersion, Stored, rows_of};
use thermocline_tests::scenario::{LakeKind, Scenario};
use thermocline_tests::server::{CommandOutput, ServerConfig, binary, output_of};
use tokio::process::Command;

/// Who knows the set of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Catalog {
    Listing,
    Manifest,
}

const CATALOGS: [Catalog; 2] = [Catalog::Listing, Catalog::Manifest];

fn with_manifest(config: ServerConfig) -> ServerConfig {
    config.with("lake", "catalog", "manifest")
}

async fn start(stored: Vec<Stored>, kind: LakeKind, catalog: Catalog) -> Result<Scenario> {
    start_with(stored, kind, catalog, |config| config).await
}

/// The same with changed settings.
async fn start_with(
    stored: Vec<Stored>,
    kind: LakeKind,
    catalog: Catalog,
    change: fn(ServerConfig) -> ServerConfig,
) -> Result<Scenario> {
    let configure = |config| change(if catalog == Catalog::Manifest { with_manifest(config) } else { config });
    let scenario = Scenario::start_with(stored, kind, configure).await?;
    if catalog == Catalog::Manifest {
        command(&scenario, &["manifest", "import"]).await?;
    }
    Ok(scenario)
}

/// The program with the server's configuration.
fn program(scenario: &Scenario, args: &[&str]) -> Result<Command> {
    let mut program = Command::new(binary()?);
    program.args(args).arg("--config").arg(scenario.server.config_path());
    program.env("TMPDIR", temp_directory(scenario));
    program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(program)
}

/// Where the programs of [`program`] keep what isn't for the lake.
fn temp_directory(scenario: &Scenario) -> PathBuf {
    scenario.server.dir().join("tmp")
}

async fn try_command(scenario: &Scenario, args: &[&str]) -> Result<CommandOutput> {
    output_of(program(scenario, args)?.spawn()?).await
}

/// The same, and it must succeed; returns what it said.
async fn command(scenario: &Scenario, args: &[&str]) -> Result<String> {
    let output = try_command(scenario, args).await?;
    ensure!(output.success, "{args:?} failed: {}{}", output.stdout, output.stderr);
    Ok(output.stdout)
}

/// Rows of a query as text.
async fn rows(client: &Client, sql: &str) -> Result<Vec<String>> {
    let answer = client.query(sql).await.with_context(|| sql.to_owned())?;
    let cells =
        |row: &Vec<_>| row.iter().map(|cell: &thermocline_tests::oracle::Cell| cell.to_string()).collect::<Vec<_>>();
    Ok(rows_of(&answer.batches).iter().map(|row| cells(row).join("|")).collect())
}

async fn dirty_rows(scenario: &Scenario) -> Result<i64> {
    let client = scenario.database.connect().await?;
    Ok(client.query_one("SELECT count(*) FROM change_log WHERE flushed_at = 0", &[]).await?.get(0))
}

fn hot(version: thermocline_tests::model::Version) -> HotVersion {
    HotVersion { version, dirty: true, has_main: true }
}

/// Files of the lake that queries may read.
async fn data_files(scenario: &Scenario) -> Result<Vec<String>> {
    let mut files = scenario.lake.list().await?;
    files.retain(|path| path.ends_with(".parquet") && !path.contains("/_"));
    Ok(files)
}

const ALL_THINGS: &str = "SELECT row_id, name, n, note, size_cm, created_at, updated_at FROM things ORDER BY row_id";

/// A writer that waits at a failpoint.
async fn halt(scenario: &Scenario, args: &[&str], failpoint: &str) -> Result<Halted> {
    Halted::at(program(scenario, args)?, scenario.server.dir(), failpoint).await
}
