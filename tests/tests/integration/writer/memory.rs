//! What writing many rows takes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use thermocline_tests::oracle::Stored;
use thermocline_tests::scenario::{LakeKind, Scenario};
use thermocline_tests::server::binary;

use super::{command, dirty_rows, rows, with_manifest};
use crate::{is_long, things};

/// The most memory of a process while it runs, in bytes.
async fn peak_memory_of(scenario: &Scenario, args: &[&str]) -> Result<u64> {
    let mut child = tokio::process::Command::new(binary()?)
        .args(args)
        .arg("--config")
        .arg(scenario.server.config_path())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let status = format!("/proc/{}/status", child.id().context("it has ended")?);
    let mut peak = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = kib.unwrap_or(0).max(peak);
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "{args:?}: {status}");
            return Ok(peak * 1024);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn many_rows_need_no_more_memory_and_large_files_go_up_in_parts() -> Result<()> {
    const MEMORY: u64 = 600 << 20;
    let entity = things();
    let scenario = Scenario::start_with(vec![Stored::new(&entity)], LakeKind::S3, |config| {
        with_manifest(config).with("duckdb", "memory_limit", "200MB")
    })
    .await?;
    command(&scenario, &["manifest", "import"]).await?;
    let count: i64 = if is_long() { 3_000_000 } else { 150_000 };
    let client = scenario.database.connect().await?;
    client
        .batch_execute(&format!(
            "INSERT INTO entity_main (ltbase_schema_id, ltbase_row_id, text_01, integer_01, ltbase_created_at, ltbase_updated_at) \
             SELECT 100, md5(i::text)::uuid, concat(md5(i::text), md5((i + 1)::text), md5((i + 2)::text), md5((i + 3)::text), \
             md5((i + 4)::text), md5((i + 5)::text), md5((i + 6)::text), md5((i + 7)::text), md5((i + 8)::text)), i, 1, 1 \
             FROM generate_series(1, {count}) i; \
             INSERT INTO change_log (schema_id, row_id, changed_at) \
             SELECT 100, md5(i::text)::uuid, i FROM generate_series(1, {count}) i; ANALYZE change_log"
        ))
        .await?;
    let sql = "SELECT count(*), sum(n), sum(length(name)) FROM things";
    let expected = rows(&scenario.client, sql).await?;
    let s3 = scenario.lake.s3_server().context("an S3 lake")?;
    s3.forget_requests();
    let flush = peak_memory_of(&scenario, &["flush"]).await?;
    assert_eq!(dirty_rows(&scenario).await?, 0);
    ensure!(s3.requests().iter().any(|request| request.query.contains("partNumber")), "no upload in parts");
    assert_eq!(rows(&scenario.client, sql).await?, expected);
    let compact = peak_memory_of(&scenario, &["compact"]).await?;
    assert_eq!(rows(&scenario.client, sql).await?, expected);
    command(&scenario, &["manifest", "verify"]).await?;
    eprintln!("{count} rows: flush {} MiB, compact {} MiB", flush >> 20, compact >> 20);
    ensure!(flush < MEMORY && compact < MEMORY, "flush {flush}, compact {compact} bytes");
    Ok(())
}
