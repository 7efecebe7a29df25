//! The plan JSON of docs/plan.md, and the options that change it.

use anyhow::Result;
use serde_json::Value as Json;
use thermocline_tests::lake::LakeFile;
use thermocline_tests::oracle::{HotVersion, Stored};
use thermocline_tests::postgres::PASSWORD;
use thermocline_tests::s3::SECRET_KEY;
use thermocline_tests::scenario::{LakeKind, Scenario, live};

use crate::{thing, things};

async fn scenario(kind: LakeKind) -> Result<Scenario> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", (0..50).map(|n| live(n, 10, thing("base", 1))).collect()),
        LakeFile::delta(&entity, "a.parquet", (40..60).map(|n| live(n, 20, thing("delta", 2))).collect()),
    ];
    stored.hot =
        (55..70).map(|n| HotVersion { version: live(n, 30, thing("hot", 3)), dirty: true, has_main: true }).collect();
    Scenario::start(vec![stored], kind).await
}

#[tokio::test]
async fn the_plan_has_the_shape_of_the_contract() -> Result<()> {
    let scenario = scenario(LakeKind::Local).await?;
    let sql = "SELECT f.name, f.size_cm FROM things f WHERE f.name = 'hot' AND f.size_cm > 1";
    let answer = scenario.client.query(sql).await?;
    assert_eq!(answer.row_count(), 15);
    let plan = &answer.plan;
    assert_eq!(plan["version"], 1);
    assert_eq!(plan["sql"], sql);
    assert_eq!(plan["route"], "federated", "{plan:#}");
    assert_eq!(plan["consistency"], "strict");
    assert_eq!(plan["tiers"], serde_json::json!(["hot", "warm", "cold"]));
    assert!(plan["query_id"].as_str().is_some_and(|id| uuid::Uuid::parse_str(id).is_ok()), "{plan:#}");
    for key in ["route_reason", "statement"] {
        assert!(plan[key].as_str().is_some_and(|text| !text.is_empty()), "{key} of {plan:#}");
    }
    let reference = &plan["references"][0];
    assert_eq!(reference["entity"], "things");
    assert_eq!(reference["alias"], "f");
    assert_eq!(reference["schema_id"], 100);
    assert!(reference["merge"]["strategy"].is_string(), "{plan:#}");
    let hot = source(plan, "hot");
    assert_eq!(hot["engine"], "postgres");
    assert_eq!(hot["pushed"].as_array().map(Vec::len), Some(2), "both conjuncts go to PostgreSQL: {plan:#}");
    assert_eq!(hot["residual"], serde_json::json!([]));
    assert_eq!(source(plan, "cold")["engine"], "parquet");
    assert_eq!(plan["degraded"]["is_degraded"], false);
    assert_eq!(plan["breakers"], serde_json::json!({"postgres": "closed", "lake": "closed"}));
    assert!(plan["timings_ms"]["translation"].is_number() && plan["timings_ms"]["planning"].is_number(), "{plan:#}");
    let execution = &answer.final_plan["execution"];
    assert_eq!(execution["rows"], 15, "{:#}", answer.final_plan);
    assert_eq!(execution["truncated"], false);
    for key in ["execution_ms", "streaming_ms", "bytes"] {
        assert!(execution[key].is_number(), "{key} of {execution:#}");
    }
    assert_eq!(answer.final_plan["query_id"], plan["query_id"]);
    assert_eq!(answer.final_plan["statement"].is_string(), plan["statement"].is_string());
    Ok(())
}

fn source<'a>(plan: &'a Json, tier: &str) -> &'a Json {
    let sources = plan["references"][0]["sources"].as_array().expect("sources");
    sources.iter().find(|source| source["tier"] == tier).unwrap_or_else(|| panic!("no {tier} source in {plan:#}"))
}

#[tokio::test]
async fn routes_follow_the_facts() -> Result<()> {
    let scenario = scenario(LakeKind::Local).await?;
    let sql = "SELECT name FROM things";
    for (tiers, route) in [("hot", "hot"), ("warm,cold", "lake"), ("hot,warm,cold", "federated")] {
        let answer = scenario.client.with_option("tiers", tiers).query(sql).await?;
        assert_eq!(answer.final_plan["route"], route, "tiers={tiers}: {:#}", answer.final_plan);
    }
    let mut clean = Stored::new(&things());
    clean.files = vec![LakeFile::base(&things(), "a.parquet", vec![live(1, 10, thing("base", 1))])];
    let scenario = Scenario::start(vec![clean], LakeKind::Local).await?;
    let answer = scenario.client.query(sql).await?;
    assert_eq!(answer.final_plan["route"], "lake", "nothing is dirty: {:#}", answer.final_plan);
    Ok(())
}

/// `tiers` without `hot` doesn't ask PostgreSQL for anything of the entity.
#[tokio::test]
async fn the_lake_alone_never_asks_postgres() -> Result<()> {
    let scenario = scenario(LakeKind::Local).await?;
    let before = scenario.database.statements()?.len();
    scenario.client.with_option("tiers", "warm,cold").query("SELECT * FROM things").await?;
    let after = scenario.database.statements()?;
    let asked: Vec<_> = after[before..].iter().filter(|statement| statement.sql.contains("change_log")).collect();
    assert!(asked.is_empty(), "{asked:?}");
    Ok(())
}

/// What was pushed is in the text that PostgreSQL received, and the hot side of a reference is one statement.
#[tokio::test]
async fn predicates_reach_postgres() -> Result<()> {
    let scenario = scenario(LakeKind::Local).await?;
    let before = scenario.database.statements()?.len();
    scenario.client.query("SELECT name FROM things WHERE name = 'needle-in-main' AND note = 'needle-in-eav'").await?;
    let statements = scenario.database.statements()?;
    let hot: Vec<&str> = statements[before..]
        .iter()
        .map(|statement| statement.sql.as_str())
        .filter(|sql| sql.contains("m.ltbase_row_id"))
        .collect();
    assert_eq!(hot.len(), 1, "{hot:#?}");
    assert!(hot[0].contains("needle-in-main") && hot[0].contains("needle-in-eav"), "{}", hot[0]);
    assert!(!hot[0].contains("202"), "the attribute size.cm isn't needed: {}", hot[0]);
    Ok(())
}

#[tokio::test]
async fn max_rows_cuts_and_says_so() -> Result<()> {
    let scenario = scenario(LakeKind::Local).await?;
    let answer = scenario.client.with_option("max_rows", "7").query("SELECT * FROM things").await?;
    assert_eq!(answer.row_count(), 7);
    assert_eq!(answer.final_plan["execution"]["truncated"], true, "{:#}", answer.final_plan);
    let answer = scenario.client.with_option("max_rows", "70").query("SELECT * FROM things").await?;
    assert_eq!(answer.row_count(), 70);
    assert_eq!(answer.final_plan["execution"]["truncated"], false);
    let failure = scenario.client.with_option("max_scan_rows", "3").refusal("SELECT * FROM things").await;
    failure.expect(tonic::Code::ResourceExhausted, &["max_scan_rows"]);
    Ok(())
}

/// Neither plans nor logs nor error texts hold a password or key.
#[tokio::test]
async fn no_secret_is_shown() -> Result<()> {
    let scenario = scenario(LakeKind::S3).await?;
    let answer = scenario.client.query("SELECT * FROM things").await?;
    assert_eq!(answer.row_count(), 70);
    scenario.client.refusal("SELECT * FROM nothing").await;
    for (place, text) in [
        ("plan", answer.plan.to_string()),
        ("final plan", answer.final_plan.to_string()),
        ("log", scenario.server.log()?),
    ] {
        for secret in [PASSWORD, SECRET_KEY] {
            assert!(!text.contains(secret), "the {place} shows {secret}");
        }
    }
    Ok(())
}
