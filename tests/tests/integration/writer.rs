//! `thermocline flush`, `compact`, `gc` and `manifest`, on both lake catalogs: answers stay what they were, whatever
//! happens to the writers on the way.

mod crash;
mod life;
mod manifest;
mod memory;
mod race;
mod readers;
mod retired;
mod upkeep;

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use thermocline_tests::client::Client;
use thermocline_tests::oracle::{HotVersion, Stored, rows_of};
use thermocline_tests::scenario::{LakeKind, Scenario};
use thermocline_tests::server::{CommandOutput, ServerConfig, binary};
use tokio::process::{Child, Command};

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
    let configure = |config| if catalog == Catalog::Manifest { with_manifest(config) } else { config };
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

async fn output_of(program: Child) -> Result<CommandOutput> {
    let output = program.wait_with_output().await?;
    Ok(CommandOutput {
        success: output.status.success(),
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: format!("{} ({})", String::from_utf8_lossy(&output.stderr), output.status),
    })
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
struct Halted {
    file: PathBuf,
    program: Child,
}

impl Halted {
    async fn at(scenario: &Scenario, args: &[&str], failpoint: &str) -> Result<Self> {
        let file = scenario.server.dir().join(format!("{failpoint}-{}", uuid::Uuid::new_v4().simple()));
        let mut program = program(scenario, args)?;
        let mut program =
            program.env("THERMOCLINE_FAILPOINT", format!("{failpoint}=wait:{}", file.display())).spawn()?;
        let reached = PathBuf::from(format!("{}.reached", file.display()));
        let until = Instant::now() + Duration::from_secs(60);
        while !reached.exists() {
            let has_ended = program.try_wait()?.is_some();
            if has_ended || Instant::now() > until {
                program.start_kill()?;
                let output = output_of(program).await?;
                anyhow::bail!("{args:?} never came to {failpoint}: {}{}", output.stdout, output.stderr);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Self { file, program })
    }

    async fn go_on(self) -> Result<CommandOutput> {
        std::fs::write(&self.file, "")?;
        output_of(self.program).await
    }

    /// Ends it by SIGKILL, and by nothing else.
    async fn kill(mut self) -> Result<()> {
        use std::os::unix::process::ExitStatusExt;
        self.program.start_kill()?;
        let status = self.program.wait().await?;
        ensure!(status.signal() == Some(9), "it ended by itself: {status}");
        Ok(())
    }
}
