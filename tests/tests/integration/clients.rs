//! The client matrix: official clients, unmodified, each as a program of its own language against a server that holds
//! `client_data`. Every client has a row in docs/clients.md, and every cell there is what its test found.
//!
//! A test fails when its client's row says something else; `THERMOCLINE_WRITE_DOCS=1` writes what it found instead.

mod go;
mod jdbc;
mod python;
mod rust;
mod spark;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use thermocline_tests::client_data;
use thermocline_tests::scenario::{LakeKind, Scenario};
use tokio::process::Command;

/// Columns of the table.
const CAPABILITIES: [&str; 7] = ["connect", "query", "types", "parameters", "metadata", "options", "cancel"];
/// What a cell says of a capability that a client doesn't offer.
const NOT_OFFERED: &str = "–";
/// How long a client's program may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// What a test found of its clients: capability and verdict, by client.
#[derive(Debug, Default)]
struct Findings(BTreeMap<String, BTreeMap<String, String>>);

impl Findings {
    fn add(&mut self, client: &str, capability: &str, verdict: &str) -> Result<()> {
        ensure!(CAPABILITIES.contains(&capability), "there is no capability `{capability}`");
        let cells = self.0.entry(client.to_owned()).or_default();
        let before = cells.insert(capability.to_owned(), verdict.to_owned());
        ensure!(before.is_none(), "`{client}` says twice what it does for `{capability}`");
        Ok(())
    }

    /// Reads lines `CELL capability: verdict`, with `client | ` before the capability where one program stands for
    /// several clients.
    fn of_output(client: &str, output: &str) -> Result<Self> {
        let mut findings = Self::default();
        for cell in output.lines().filter_map(|line| line.split_once("CELL ").map(|(_, cell)| cell)) {
            let (subject, verdict) = cell.split_once(": ").context("a cell without a verdict")?;
            let (client, capability) = subject.split_once(" | ").unwrap_or((client, subject));
            findings.add(client, capability, verdict)?;
        }
        ensure!(!findings.0.is_empty(), "`{client}` found nothing:\n{output}");
        Ok(findings)
    }

    /// Compares with the rows of docs/clients.md, or writes them.
    fn check(&self) -> Result<()> {
        /// Tests of several clients may write at once.
        static TABLE: Mutex<()> = Mutex::new(());
        let _guard = TABLE.lock().unwrap();
        let path = repository().join("docs/clients.md");
        let mut text = std::fs::read_to_string(&path).context("cannot read docs/clients.md")?;
        let is_written = std::env::var_os("THERMOCLINE_WRITE_DOCS").is_some_and(|value| value == "1");
        for (client, cells) in &self.0 {
            let cell = |capability: &&str| cells.get(*capability).map_or(NOT_OFFERED, String::as_str);
            let row = format!("| {client} | {} |", CAPABILITIES.iter().map(cell).collect::<Vec<_>>().join(" | "));
            let found = text.lines().find(|line| line.starts_with(&format!("| {client} |"))).map(str::to_owned);
            if is_written {
                match found {
                    Some(found) => text = text.replace(&found, &row),
                    None => text = text.replace("<!-- end of table -->", &format!("{row}\n<!-- end of table -->")),
                }
            } else {
                ensure!(
                    found.as_ref() == Some(&row),
                    "docs/clients.md has\n{}\nbut the clients do\n{row}\nrun again with THERMOCLINE_WRITE_DOCS=1 and read the \
                     difference",
                    found.as_deref().unwrap_or("no such row")
                );
            }
        }
        if is_written {
            std::fs::write(&path, text)?;
        }
        Ok(())
    }
}

/// The server of the matrix.
async fn server() -> Result<Scenario> {
    Scenario::start(client_data::stored(), LakeKind::Local).await
}

/// `127.0.0.1:PORT`
fn address(scenario: &Scenario) -> &str {
    scenario.server.endpoint().trim_start_matches("http://")
}

/// Runs a client's program to its end; what it and the server said is in the error.
async fn run(command: &mut Command, scenario: &Scenario) -> Result<String> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.stdin(std::process::Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(DEADLINE, output).await.with_context(|| format!("{program} takes too long"))?;
    let output = output.with_context(|| format!("cannot start {program}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}\n{said}\nserver log:\n{}", output.status, scenario.server.log()?);
    Ok(said)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A row that no test stands for would stay forever.
#[test]
fn the_table_has_a_row_for_each_client_and_no_other() -> Result<()> {
    let text = std::fs::read_to_string(repository().join("docs/clients.md"))?;
    let rows = text.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
    let mut clients: Vec<&str> =
        rows.map_while(|line| line.strip_prefix("| ")?.split_once(" |")).map(|(client, _)| client).collect();
    clients.sort_unstable();
    let mut expected = [python::CLIENTS, rust::CLIENTS, go::CLIENTS, jdbc::CLIENTS, spark::CLIENTS].concat();
    expected.sort_unstable();
    assert_eq!(clients, expected);
    Ok(())
}
