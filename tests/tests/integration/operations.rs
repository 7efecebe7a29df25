//! What operators see: the admin port, the health service, metrics, `system` tables, EXPLAIN.

use anyhow::{Context, Result};
use serde_json::Value as Json;
use thermocline_tests::lake::LakeFile;
use thermocline_tests::oracle::{HotVersion, Stored};
use thermocline_tests::scenario::{LakeKind, Scenario, live};
use thermocline_tests::server::Server;
use thermocline_tests::until;

use crate::strategies::{wait_for_merge, without_index};
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
    without_index(vec![stored]).await
}

/// Status and body of an answer of the admin port.
pub(crate) async fn get(server: &Server, path: &str) -> Result<(u16, String)> {
    server.admin_get(path).await
}

/// What `/readyz` says once the server is ready: a probe that takes long on a busy machine counts as failed.
async fn ready(server: &Server) -> Result<String> {
    let mut said = String::new();
    until("the server is ready", async || {
        let (status, body) = get(server, "/readyz").await?;
        said = body;
        Ok(status == 200)
    })
    .await?;
    Ok(said)
}

#[tokio::test]
async fn the_admin_port_tells_health_and_metrics() -> Result<()> {
    let scenario = scenario().await?;
    assert_eq!(get(&scenario.server, "/livez").await?.0, 200);
    let body = ready(&scenario.server).await?;
    for source in ["postgres", "lake", "duckdb", "queries"] {
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
    until("readiness names the lake", async || {
        let (status, body) = get(&scenario.server, "/readyz").await?;
        Ok(status == 503 && body.contains("\"reason\": \"lake file://"))
    })
    .await?;
    // Alive all the same: a restart mends nothing.
    assert_eq!(get(&scenario.server, "/livez").await?.0, 200);
    let down = "SELECT source FROM system.health WHERE status = 'down'";
    until("the lake alone is down", async || Ok(scenario.client.query(down).await?.text() == "lake")).await
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
    let ok = "SELECT * FROM system.health WHERE status = 'ok'";
    until("all sources are up", async || Ok(scenario.client.query(ok).await?.row_count() == 4)).await
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

/// Rows read from PostgreSQL for each of them that the result wanted, whoever evaluates the condition.
#[tokio::test]
async fn pushdown_efficiency_is_rows_read_for_each_row_kept() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files =
        vec![LakeFile::base(&entity, "a.parquet", (100..150).map(|n| live(n, 10, thing("base", 1000))).collect())];
    // 30 hot rows: n is 0 to 29.
    stored.hot = (0..30)
        .map(|n| HotVersion {
            version: live(n, 30, thing("hot", i32::try_from(n).unwrap())),
            dirty: true,
            has_main: true,
        })
        .collect();
    let scenario = Scenario::start(vec![stored], LakeKind::Local).await?;
    for (sql, rows, read, efficiency) in [
        // PostgreSQL evaluates it.
        ("SELECT n FROM things WHERE n < 6", 6, 6, 1.0),
        ("SELECT n FROM things", 80, 30, 1.0),
        // DuckDB does, in its scan of the hot rows or above it.
        ("SELECT n FROM things WHERE n % 10 = 3", 3, 30, 10.0),
        ("SELECT count(*) FROM things WHERE n % 10 = 3", 1, 30, 10.0),
        ("SELECT n FROM things WHERE regexp_matches(note, 'hot') AND n % 15 = 1", 2, 30, 15.0),
        // Half to PostgreSQL, half to DuckDB.
        ("SELECT n FROM things WHERE n < 20 AND n % 10 = 3", 2, 20, 10.0),
    ] {
        let answer = scenario.client.query(sql).await?;
        assert_eq!(answer.row_count(), rows, "{sql}");
        let execution = &answer.final_plan["execution"];
        assert_eq!(execution["sources"][0]["rows_returned"], read, "{sql}: {execution:#}");
        let found = execution["pushdown_efficiency"].as_f64().context("a number")?;
        assert!((found - efficiency).abs() < 1e-9, "{sql}: {found}, not {efficiency}\n{:#}", answer.final_plan);
    }
    let (_, metrics) = get(&scenario.server, "/metrics").await?;
    for line in ["fed_query_pushdown_efficiency_count 6", "fed_query_pushdown_efficiency_sum 47"] {
        assert!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    }
    Ok(())
}

#[tokio::test]
async fn files_under_a_window_have_their_figures() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    // Two base files of one row each that is in both: never layered.
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", vec![live(1, 10, thing("base", 1))]),
        LakeFile::base(&entity, "b.parquet", vec![live(1, 11, thing("base", 2))]),
        LakeFile::delta(&entity, "c.parquet", vec![live(2, 12, thing("delta", 3))]),
    ];
    let scenario = without_index(vec![stored]).await?;
    let answer =
        scenario.client.with_option("tiers", "warm,cold").query("SELECT n FROM things WHERE n + 0 > 0").await?;
    assert_eq!(answer.row_count(), 2);
    assert_eq!(answer.final_plan["references"][0]["merge"]["strategy"], "window");
    let sources = answer.final_plan["execution"]["sources"].as_array().context("sources")?;
    let rows: Vec<Option<u64>> = sources.iter().map(|source| source["rows_returned"].as_u64()).collect();
    assert_eq!(rows, [Some(1), Some(2)], "{sources:?}");
    Ok(())
}

/// Each reference has its own figures, unless DuckDB's scans look alike: then it says so, and sums are right.
#[tokio::test]
async fn references_to_the_same_files_are_told_apart_where_they_can_be() -> Result<()> {
    let scenario = scenario().await?;
    // Until then the window strategy reads the file twice for one reference.
    wait_for_merge(&scenario, |merge| merge["strategy"] == "layered").await?;
    let lake = scenario.client.with_option("tiers", "cold");
    let sql =
        "SELECT a.n, b.name FROM things a LEFT JOIN things b ON a.row_id = b.row_id AND b.name = 'base' WHERE a.n < 5";
    let answer = lake.query(sql).await?;
    assert_eq!(answer.row_count(), 50);
    let returned = |plan: &Json| -> Vec<(Option<u64>, bool)> {
        let sources = plan["execution"]["sources"].as_array().expect("sources");
        sources.iter().map(|source| (source["rows_returned"].as_u64(), source["shared"] == true)).collect()
    };
    let of = |alias: &str| {
        let references = answer.final_plan["references"].as_array().expect("references");
        references.iter().position(|reference| reference["alias"] == alias).expect("a reference")
    };
    let figures = returned(&answer.final_plan);
    assert_eq!(figures[of("a")], (Some(50), false), "{:#}", answer.final_plan);
    assert_eq!(figures[of("b")], (Some(50), false), "{:#}", answer.final_plan);

    let sql = "SELECT a.n FROM things a CROSS JOIN things b WHERE a.n = 1 AND b.n > 5";
    let answer = lake.query(sql).await?;
    assert_eq!(answer.row_count(), 0);
    let figures = returned(&answer.final_plan);
    assert!(figures.iter().filter(|(rows, _)| rows.is_none()).count() >= 1, "{:#}", answer.final_plan);
    assert!(figures.iter().filter_map(|(rows, _)| *rows).sum::<u64>() <= 50, "{:#}", answer.final_plan);
    Ok(())
}

/// What of JSON Schema `docs/plan.schema.json` uses; a keyword that isn't known here is a fault.
fn schema_faults(root: &Json, schema: &Json, value: &Json, at: &str, faults: &mut Vec<String>) {
    for (keyword, wanted) in schema.as_object().expect("a schema is an object") {
        match keyword.as_str() {
            "$schema" | "title" | "$defs" => {}
            "$ref" => {
                let pointer = wanted.as_str().expect("text").trim_start_matches('#');
                schema_faults(root, root.pointer(pointer).expect("a definition"), value, at, faults);
            }
            "const" => {
                if value != wanted {
                    faults.push(format!("{at} is {value}, not {wanted}"));
                }
            }
            "enum" => {
                if !wanted.as_array().expect("a list").contains(value) {
                    faults.push(format!("{at} is {value}, none of {wanted}"));
                }
            }
            "type" => {
                let found = match value {
                    Json::Null => "null",
                    Json::Bool(_) => "boolean",
                    Json::Number(number) if number.is_f64() => "number",
                    Json::Number(_) => "integer",
                    Json::String(_) => "string",
                    Json::Array(_) => "array",
                    Json::Object(_) => "object",
                };
                let names = wanted.as_array().cloned().unwrap_or_else(|| vec![wanted.clone()]);
                if !names.iter().any(|name| name == found || (name == "number" && found == "integer")) {
                    faults.push(format!("{at} is {found}, not {wanted}"));
                }
            }
            "required" => {
                for key in wanted.as_array().expect("a list").iter().filter_map(Json::as_str) {
                    // Of what is no object, nothing is required.
                    if value.is_object() && value.get(key).is_none() {
                        faults.push(format!("{at} has no {key}"));
                    }
                }
            }
            "properties" | "additionalProperties" => {
                for (key, inner) in value.as_object().into_iter().flatten() {
                    match schema["properties"].get(key) {
                        Some(schema) if keyword == "properties" => {
                            schema_faults(root, schema, inner, &format!("{at}.{key}"), faults);
                        }
                        None if *wanted == false => faults.push(format!("{at}.{key} isn't in the schema")),
                        Some(_) | None => {}
                    }
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    schema_faults(root, wanted, item, &format!("{at}[{index}]"), faults);
                }
            }
            unknown => faults.push(format!("the schema's keyword {unknown} isn't checked")),
        }
    }
}

#[tokio::test]
async fn plans_follow_their_schema() -> Result<()> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/plan.schema.json"))?;
    let schema: Json = serde_json::from_str(&text)?;
    let scenario = scenario().await?;
    for tiers in ["hot", "warm,cold", "hot,warm,cold"] {
        for sql in [
            "SELECT n FROM things WHERE n > 1 AND note LIKE 'note%'",
            "SELECT a.n, count(*) FROM things a JOIN things b USING (row_id) GROUP BY ALL",
            "SELECT count(*) FROM things",
            "SELECT * FROM system.options",
            "DESCRIBE things",
            "EXPLAIN SELECT n FROM things",
        ] {
            let answer = scenario.client.with_option("tiers", tiers).query(sql).await?;
            for plan in [&answer.plan, &answer.final_plan] {
                let mut faults = Vec::new();
                schema_faults(&schema, &schema, plan, "plan", &mut faults);
                assert!(faults.is_empty(), "{sql} with tiers={tiers}: {faults:#?}\n{plan:#}");
            }
            assert!(answer.final_plan.get("execution").is_some(), "{sql}");
        }
    }
    Ok(())
}
