//! What operators see: the admin port, the health service, metrics, `system` tables, EXPLAIN.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use thermocline_tests::lake::LakeFile;
use thermocline_tests::oracle::{HotVersion, Stored};
use thermocline_tests::scenario::{LakeKind, Scenario, live};
use thermocline_tests::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{thing, things};

async fn scenario() -> Result<Scenario> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", (0..50).map(|n| live(n, 10, thing("base", 1))).collect()),
        LakeFile::delta(&entity, "a.parquet", (40..60).map(|n| live(n, 20, thing("delta", 2))).collect()),
    ];
    stored.hot =
        (55..70).map(|n| HotVersion { version: live(n, 30, thing("hot", 3)), dirty: true, has_main: true }).collect();
    Scenario::start(vec![stored], LakeKind::Local).await
}

/// Status and body of an answer of the admin port, whose address is in the log.
async fn get(server: &Server, path: &str) -> Result<(u16, String)> {
    let log = server.log()?;
    let line = log.lines().find(|line| line.contains("admin port:")).context("no admin port in the log")?;
    let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()).context("address")?;
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
    let status = head.split_whitespace().nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

#[tokio::test]
async fn the_admin_port_tells_health_and_metrics() -> Result<()> {
    let scenario = scenario().await?;
    assert_eq!(get(&scenario.server, "/livez").await?.0, 200);
    let (status, body) = get(&scenario.server, "/readyz").await?;
    assert_eq!(status, 200, "{body}");
    for source in ["postgres", "lake", "duckdb"] {
        assert!(body.contains(source), "{body}");
    }
    let answer = scenario.client.query("SELECT n FROM things").await?;
    assert_eq!(answer.row_count(), 70);
    scenario.client.refusal("SELECT nothing FROM things").await;
    let (status, metrics) = get(&scenario.server, "/metrics").await?;
    assert_eq!(status, 200, "{metrics}");
    for line in [
        r#"fed_query_latency_histogram_count{stage="translation"} 1"#,
        r#"fed_query_latency_histogram_count{stage="execution"} 1"#,
        r#"fed_query_latency_histogram_count{stage="streaming"} 1"#,
        r#"fed_query_row_count{source="pg"} 15"#,
        r#"fed_query_row_count{source="duckdb"} 70"#,
        "fed_query_pushdown_efficiency_count 1",
        r#"fed_query_errors{kind="invalid_query"} 1"#,
        r#"fed_breaker_state{source="postgres"} 0"#,
        "fed_sent_rows 70",
        "fed_queries_in_flight 0",
        "fed_queries_queued 0",
        "fed_lake_cached_footers 2",
        r#"fed_postgres_pool_connections{state="max"} 16"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    }
    Ok(())
}

#[tokio::test]
async fn readiness_names_the_source_that_is_down() -> Result<()> {
    let scenario = scenario().await?;
    std::fs::remove_dir_all(scenario.lake.folder().context("a local lake")?)?;
    tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let (status, body) = get(&scenario.server, "/readyz").await?;
            if status == 503 {
                ensure!(body.contains("\"reason\": \"lake file://"), "{body}");
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await??;
    // Alive all the same: a restart mends nothing.
    assert_eq!(get(&scenario.server, "/livez").await?.0, 200);
    let health = scenario.client.query("SELECT source FROM system.health WHERE status = 'down'").await?;
    assert!(health.row_count() == 1 && health.text().contains("lake"), "{}", health.text());
    Ok(())
}

#[tokio::test]
async fn the_system_tables_tell_what_the_server_did_and_holds() -> Result<()> {
    let scenario = scenario().await?;
    scenario.client.query("SELECT n FROM things WHERE n > 1").await?;
    scenario.client.refusal("SELECT nothing FROM things").await;
    let queries = scenario
        .client
        .query(
            "SELECT query_id FROM system.queries WHERE state = 'finished' AND route = 'federated' AND \"rows\" = 30 \
             AND translation_ms >= 0 AND total_ms > 0 AND (plan->>'$.query_id') = query_id AND error IS NULL",
        )
        .await?;
    assert_eq!(queries.row_count(), 1);
    let tiers = scenario
        .client
        .query(
            "SELECT tier FROM system.tiers WHERE entity = 'things' AND lag_seconds > 0 \
             AND (tier, \"rows\", coalesce(files, 0)) IN (('hot', 15, 0), ('warm', 20, 1), ('cold', 50, 1))",
        )
        .await?;
    assert_eq!(tiers.row_count(), 3);
    let files = scenario
        .client
        .query("SELECT path FROM system.files WHERE bytes > 0 AND max_changed_at IS NOT NULL ORDER BY path")
        .await?;
    assert_eq!(files.row_count(), 2);
    let health = scenario.client.query("SELECT * FROM system.health WHERE status = 'ok'").await?;
    assert_eq!(health.row_count(), 3);
    Ok(())
}

#[tokio::test]
async fn explain_reads_well_and_analyze_measures() -> Result<()> {
    let scenario = scenario().await?;
    let plan = scenario.client.query("EXPLAIN SELECT n FROM things WHERE n > 1").await?.text();
    for part in ["federated_plan|federated (", "things", "merge", "warm from parquet: 1 of 1 files", "pushed: "] {
        assert!(plan.contains(part), "no {part} in\n{plan}");
    }
    assert!(!plan.contains("executed:"), "{plan}");
    let plan = scenario.client.query("EXPLAIN ANALYZE SELECT n FROM things WHERE n > 1").await?.text();
    for part in ["executed: 30 rows", "hot: 15 rows scanned, 15 returned", "analyzed_plan|", "READ_PARQUET"] {
        assert!(plan.contains(part), "no {part} in\n{plan}");
    }
    let hot = scenario.client.with_option("tiers", "hot");
    let plan = hot.query("EXPLAIN ANALYZE SELECT n FROM things WHERE n > 1").await?.text();
    assert!(plan.contains("executed: 15 rows") && !plan.contains("analyzed_plan"), "{plan}");
    Ok(())
}

/// Rows of each source are what DuckDB and PostgreSQL counted.
#[tokio::test]
async fn figures_of_the_sources_are_measured() -> Result<()> {
    let scenario = scenario().await?;
    // Base rows are n = 1, delta rows n = 2: the filter reaches both scans.
    let answer = scenario.client.with_option("tiers", "warm,cold").query("SELECT n FROM things WHERE n = 2").await?;
    assert_eq!(answer.row_count(), 20);
    let sources = &answer.final_plan["execution"]["sources"];
    assert_eq!(sources[0]["tier"], "warm", "{sources:#}");
    assert_eq!(sources[0]["rows_scanned"], 20, "{sources:#}");
    assert!(sources[0]["rows_returned"].as_u64() >= Some(20), "{sources:#}");
    assert!(sources[0]["ms"].is_number(), "{sources:#}");
    // DuckDB alone can evaluate the condition: all 15 hot rows come, one stays.
    let sql = "SELECT n FROM things WHERE row_id = (SELECT max(row_id) FROM things)";
    let answer = scenario.client.query(sql).await?;
    assert_eq!(answer.row_count(), 1);
    assert_eq!(answer.final_plan["execution"]["sources"][0]["rows_returned"], 15);
    Ok(())
}
