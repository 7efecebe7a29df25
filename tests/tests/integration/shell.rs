//! `thermocline sql`, the shell: in a pseudo-terminal, and with statements piped in.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use thermocline_tests::lake::LakeFile;
use thermocline_tests::oracle::Stored;
use thermocline_tests::scenario::{LakeKind, Scenario, live};
use thermocline_tests::server::binary;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::{thing, things};

async fn scenario() -> Result<Scenario> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    let versions = vec![live(1, 10, thing("one", 1)), live(2, 10, thing("two", 2))];
    stored.files = vec![LakeFile::base(&entity, "a.parquet", versions)];
    Scenario::start(vec![stored], LakeKind::Local).await
}

#[tokio::test]
async fn the_shell_works_in_a_terminal() -> Result<()> {
    let scenario = scenario().await?;
    let directory = tempfile::tempdir()?;
    let python = std::env::var("THERMOCLINE_PYTHON").context("start with `cargo xtask test`")?;
    let mut driver = Command::new(python);
    driver.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/shell.py")).arg(directory.path());
    driver.env("THERMOCLINE_BIN", binary()?).env("THERMOCLINE_SERVER", scenario.server.grpc_uri());
    let output = driver.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.stdout.ends_with(b"the shell did it all\n"));
    Ok(())
}

/// What is piped in runs to the first failure, and nothing in the answers is for a terminal.
#[tokio::test]
async fn statements_are_piped_in() -> Result<()> {
    let scenario = scenario().await?;
    let text = "SELECT name FROM things ORDER BY n;\n\\set tiers cold\nSELECT count(*) AS c\nFROM things";
    let (success, out, err) = piped(&scenario, &["--format", "csv"], text).await?;
    ensure!(success, "{err}");
    assert_eq!((out.as_str(), err.as_str()), ("name\none\ntwo\nc\n2\n", ""));

    let (success, out, err) =
        piped(&scenario, &[], "SELECT 1 AS one; SELECT nothing FROM things; SELECT 3 AS three").await?;
    ensure!(!success && out.contains("one") && !out.contains("three") && !out.contains('\u{1b}'), "{out}");
    ensure!(err.contains("nothing") && err.contains('^') && !err.contains('\u{1b}'), "{err}");
    Ok(())
}

async fn piped(scenario: &Scenario, args: &[&str], text: &str) -> Result<(bool, String, String)> {
    let mut shell = Command::new(binary()?);
    shell.arg("sql").args(args).env("THERMOCLINE_SERVER", scenario.server.grpc_uri());
    shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut shell = shell.spawn()?;
    shell.stdin.take().context("a pipe")?.write_all(text.as_bytes()).await?;
    let output = shell.wait_with_output().await?;
    Ok((output.status.success(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}
