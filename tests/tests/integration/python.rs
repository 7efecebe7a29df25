//! The official Python clients, unmodified: pytest runs `tests/python` against a server with data of every type.

use std::path::Path;

use anyhow::{Context, Result};
use thermocline_tests::r#gen;
use thermocline_tests::lake::LakeFile;
use thermocline_tests::oracle::{HotVersion, Stored};
use thermocline_tests::scenario::{LakeKind, Scenario, live};

use crate::{thing, things};

#[tokio::test]
async fn python_clients_read_everything() -> Result<()> {
    let python = thermocline_tests::cache_dir()?.join("python/bin/python");
    anyhow::ensure!(python.is_file(), "no {}; run `cargo xtask setup`", python.display());
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", (0..100).map(|n| live(n, 10, thing("base", 1))).collect()),
        LakeFile::delta(&entity, "a.parquet", (90..110).map(|n| live(n, 20, thing("delta", 2))).collect()),
    ];
    stored.hot = (105..120)
        .map(|n| HotVersion { version: live(n, 30, thing("it's hot", 3)), dirty: true, has_main: true })
        .collect();
    let everything = r#gen::stored(&mut r#gen::rng(42), &r#gen::every_type("everything", 7), 60);
    let scenario = Scenario::start(vec![stored, everything], LakeKind::Local).await?;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    let output = tokio::process::Command::new(python)
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no"])
        .arg(&tests)
        .env("THERMOCLINE_ENDPOINT", scenario.server.grpc_uri())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run pytest")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "pytest failed\n{said}\nserver log:\n{}", scenario.server.log()?);
    eprintln!("{said}");
    Ok(())
}
