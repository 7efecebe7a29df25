//! `tests/java/JdbcClient.java` with the Flight SQL JDBC driver, as DBeaver and most BI tools use it.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use tokio::process::Command;

use super::{Findings, address, repository, run, server};

pub(super) const CLIENTS: &[&str] = &["JDBC"];

/// The driver that `cargo xtask setup` fetched.
pub(super) fn driver() -> Result<PathBuf> {
    let jar = thermocline_tests::cache_dir()?.join("java/flight-sql-jdbc-driver.jar");
    ensure!(jar.is_file(), "no {}; run `cargo xtask setup`", jar.display());
    Ok(jar)
}

#[tokio::test]
async fn jdbc_tools_walk_the_catalog_and_read_every_type() -> Result<()> {
    let driver = driver()?;
    let scenario = server().await?;
    let classes = tempfile::tempdir()?;
    let source = repository().join("tests/java/JdbcClient.java");
    let mut compiler = Command::new("javac");
    compiler.args(["--release", "17", "-Xlint:all", "-Werror", "-d"]).arg(classes.path());
    run(compiler.arg("-cp").arg(&driver).arg(source), &scenario).await?;
    let mut java = Command::new("java");
    // Arrow reads its buffers through a module that Java closes by default.
    java.args(["--add-opens=java.base/java.nio=ALL-UNNAMED", "-Duser.timezone=UTC", "-cp"]);
    java.arg(std::env::join_paths([classes.path(), &driver])?).args(["JdbcClient", address(&scenario)]);
    Findings::of_output("JDBC", &run(&mut java, &scenario).await?)?.check()
}
