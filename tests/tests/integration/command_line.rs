//! `thermocline query`, the friendly client, and how `serve` starts and stops.

use std::time::Duration;

use anyhow::Result;
use thermocline_tests::lake::LakeFile;
use thermocline_tests::oracle::Stored;
use thermocline_tests::scenario::{LakeKind, Scenario, live};
use thermocline_tests::server::run;

use crate::{thing, things};

async fn scenario() -> Result<Scenario> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![LakeFile::base(
        &entity,
        "a.parquet",
        vec![live(1, 10, thing("one, \"quoted\"", 1)), live(2, 10, thing("two", 2))],
    )];
    Scenario::start(vec![stored], LakeKind::Local).await
}

#[tokio::test]
async fn the_query_command_prints_every_format() -> Result<()> {
    let scenario = scenario().await?;
    let sql = "SELECT name, n FROM things ORDER BY n";
    let table = scenario.server.run_query(&[sql]).await?;
    assert!(table.success, "{}", table.stderr);
    assert!(table.stdout.contains("name") && table.stdout.contains("two"), "{}", table.stdout);
    let csv = scenario.server.run_query(&["--format", "csv", sql]).await?;
    assert_eq!(csv.stdout.replace('\r', ""), "name,n\n\"one, \"\"quoted\"\"\",1\ntwo,2\n");
    let json = scenario.server.run_query(&["--format", "json", sql]).await?;
    assert!(json.stdout.contains(r#""name":"two""#) || json.stdout.contains(r#""name": "two""#), "{}", json.stdout);
    let plan = scenario.server.run_query(&["--plan", sql]).await?;
    assert!(plan.success && plan.stdout.contains("lake"), "{}{}", plan.stdout, plan.stderr);
    let refused = scenario.server.run_query(&["SELECT * FROM nothing"]).await?;
    assert!(!refused.success);
    assert!(refused.stderr.contains("nothing") && refused.stderr.contains("things"), "{}", refused.stderr);
    assert_eq!(refused.stdout, "");
    Ok(())
}

#[tokio::test]
async fn all_faults_of_a_config_are_reported_together() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("thermocline.toml");
    std::fs::write(&path, "[server]\nlisten = 5\ncolour = \"red\"\n[lake]\nurl = \"ftp://x\"\n")?;
    let output = run(&["serve", "--config", &path.display().to_string()]).await?;
    assert!(!output.success);
    for part in ["listen", "colour", "lake.url", "postgres.url", "thermocline.toml:2", "thermocline.toml:3"] {
        assert!(output.stderr.contains(part), "no {part} in\n{}", output.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_ends_well() -> Result<()> {
    let scenario = scenario().await?;
    scenario.client.query("SELECT * FROM things").await?;
    let Scenario { server, client, lake: _lake, database: _database, .. } = scenario;
    drop(client);
    let status = tokio::task::spawn_blocking(move || server.stop(Duration::from_secs(30))).await??;
    assert!(status.success(), "{status}");
    Ok(())
}
