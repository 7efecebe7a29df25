//! `hot_scan = "scan"`: DuckDB's own scans of PostgreSQL give the rows and the errors that `copy` gives, let plain
//! filters reach PostgreSQL, and tell nobody how it is reached.

use anyhow::{Context, Result};
use rand::Rng;
use thermocline_tests::client::Client;
use thermocline_tests::r#gen;
use thermocline_tests::model::{Entity, Kind, Value};
use thermocline_tests::oracle::{HotVersion, Order, Stored, View, compare};
use thermocline_tests::postgres::{Cluster, PASSWORD, TestDatabase};
use thermocline_tests::scenario::{LakeKind, Scenario, live, tombstone};
use tonic::Code;

use crate::is_long;

fn things() -> Entity {
    Entity::new("things", 400)
        .main("name", Kind::Text, "text_01")
        .main("size", Kind::Integer, "integer_01")
        .eav("score", Kind::Integer, 5)
        .eav("note", Kind::Text, 6)
}

fn stored() -> Stored {
    let mut stored = Stored::new(&things());
    let hot = |version, has_main| HotVersion { version, dirty: true, has_main };
    let row = |n: u128, name: &str, score| {
        live(n, 10, vec![Value::text(name), Value::Integer(7), Value::Integer(score), Value::text("it's")])
    };
    stored.hot = vec![
        hot(row(1, "one", 5), true),
        hot(row(2, "two", 9), true),
        hot(row(3, "three", 9), false),
        hot(tombstone(4, 12, vec![Value::Null; 4]), false),
    ];
    stored
}

fn both(client: &Client) -> (Client, Client) {
    (client.with_option("hot_scan", "copy"), client.with_option("hot_scan", "scan"))
}

/// Whole queries over two entities, with versions in every tier.
#[tokio::test]
async fn random_queries_over_scans_equal_those_over_copies() -> Result<()> {
    for seed in if is_long() { 800..820 } else { 800..801 } {
        let mut rng = r#gen::rng(seed);
        let left = r#gen::entity(&mut rng, "lefts", 1);
        let right = r#gen::entity(&mut rng, "rights", 2);
        let stored = vec![r#gen::stored(&mut rng, &left, 40), r#gen::stored(&mut rng, &right, 25)];
        let scenario = Scenario::start(stored, LakeKind::Local).await?;
        let (copy, scan) = both(&scenario.client);
        for _ in 0..30 {
            let query = r#gen::query(&mut rng, &left, &right);
            let order = if query.ordered { Order::Exact } else { Order::Any };
            let by_copy = scenario.ask(&copy, &query.sql).await?;
            let by_scan = scenario.ask(&scan, &query.sql).await?;
            compare(&by_copy.batches, &by_scan.schema, &by_scan.batches, order)
                .with_context(|| format!("seed {seed}, {}", query.sql))?;
        }
    }
    Ok(())
}

/// Random rows of every type, under random filters, with and without tombstones.
#[tokio::test]
async fn scans_and_copies_agree_on_random_data() -> Result<()> {
    for seed in if is_long() { 700..740 } else { 700..701 } {
        let mut rng = r#gen::rng(seed);
        let entity = r#gen::every_type("everything", 7);
        let stored = r#gen::stored(&mut rng, &entity, 40);
        let scenario = Scenario::start(vec![stored], LakeKind::Local).await?;
        let oracle = scenario.oracle(View::default())?;
        let (copy, scan) = both(&scenario.client);
        for number in 0..if is_long() { 60 } else { 25 } {
            let depth = rng.random_range(0..3);
            let predicate = r#gen::predicate(&mut rng, &entity, "a", depth);
            let sql = match number {
                0 => "SELECT * FROM everything".to_owned(),
                _ => format!("SELECT * FROM everything a WHERE {predicate}"),
            };
            let place = || format!("seed {seed}, {sql}");
            scenario.check_with(&scan, &oracle, &sql, &sql, Order::Any).await.with_context(place)?;
            let options = |client: &Client| client.with_option("tiers", "hot").with_option("include_deleted", "true");
            let by_copy = scenario.ask(&options(&copy), &sql).await?;
            let by_scan = scenario.ask(&options(&scan), &sql).await?;
            compare(&by_copy.batches, &by_scan.schema, &by_scan.batches, Order::Any).with_context(place)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn plain_filters_reach_postgres_through_the_scans() -> Result<()> {
    let scenario = Scenario::start(vec![stored()], LakeKind::Local).await?;
    let (_, scan) = both(&scenario.client);
    let sql = "SELECT name, note FROM things WHERE name >= 'a' AND score = 9 AND note LIKE 'it%'";
    let answer = scenario.ask(&scan, sql).await?;
    assert_eq!(answer.text(), "two|it's");
    let log = scenario.database.statements()?;
    let copied = |words: [&str; 2]| {
        log.iter().any(|statement| {
            statement.sql.starts_with("COPY (SELECT") && words.iter().all(|word| statement.sql.contains(word))
        })
    };
    assert!(copied(["\"entity_main\"", "\"text_01\" >= 'a'"]), "{log:#?}");
    assert!(copied(["\"eav_data\"", "\"value_numeric\" = '9"]), "{log:#?}");
    assert!(copied(["\"change_log\"", "\"flushed_at\" = '0'"]), "{log:#?}");

    let source = &answer.plan["references"][0]["sources"][0];
    assert_eq!(source["engine"], "postgres");
    assert!(source["sql"].as_str().is_some_and(|sql| sql.contains("pg.\"entity_main\"")), "{source:#}");
    assert_eq!(source["pushed"].as_array().map(Vec::len), Some(2), "{source:#}");
    assert_eq!(answer.final_plan["execution"]["sources"][0]["rows_returned"], 1, "{:#}", answer.final_plan);
    for plan in [&answer.plan, &answer.final_plan] {
        assert!(!plan.to_string().contains(PASSWORD) && !plan.to_string().contains("postgresql://"), "{plan:#}");
    }
    // The live row that lost its entity_main row is left out and said so, either way.
    let (copy, scan) = both(&scenario.client);
    let all = "SELECT name FROM things";
    let warnings = scenario.ask(&copy, all).await?.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(scenario.ask(&scan, all).await?.warnings(), warnings);
    Ok(())
}

#[tokio::test]
async fn a_value_of_the_wrong_type_is_the_same_error() -> Result<()> {
    let scenario = Scenario::start(vec![stored()], LakeKind::Local).await?;
    let client = scenario.database.connect().await?;
    client.execute("UPDATE eav_data SET value_numeric = 1.5 WHERE attr_id = 5", &[]).await?;
    let (copy, scan) = both(&scenario.client);
    let sql = "SELECT max(score) FROM things";
    let (by_copy, by_scan) = (copy.refusal(sql).await, scan.refusal(sql).await);
    assert!(by_copy.message.contains("score"), "{by_copy}");
    assert_eq!(by_scan.code, by_copy.code);
    // Which of several bad rows comes first is nobody's promise.
    let without_row = |message: &str| message.split(", row ").next().unwrap_or_default().to_owned();
    assert_eq!(without_row(&by_scan.message), without_row(&by_copy.message));
    Ok(())
}

#[tokio::test]
async fn scans_begin_when_postgres_comes_up() -> Result<()> {
    let cluster = Cluster::start().await?;
    let database = TestDatabase::create_in(&cluster).await?;
    let quick = |config: thermocline_tests::server::ServerConfig| {
        config.with("breaker", "cooldown", "100ms").with("postgres", "hot_scan", "scan")
    };
    let scenario = Scenario::start_on(database, vec![stored()], LakeKind::Local, quick).await?;
    let sql = "SELECT name FROM things ORDER BY name";
    // The cluster of the tests commits without waiting for its disk.
    scenario.database.connect().await?.batch_execute("CHECKPOINT").await?;
    cluster.stop()?;
    let refusal = scenario.client.refusal(sql).await;
    assert_eq!(refusal.code, Code::Unavailable, "{refusal}");
    cluster.restart().await?;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        match scenario.client.query(sql).await {
            Ok(answer) => {
                assert_eq!(answer.text(), "one\ntwo");
                break;
            }
            Err(failure) => assert!(std::time::Instant::now() < until, "{failure}"),
        }
    }
    // And again, with an instance that is attached already.
    cluster.stop()?;
    assert_eq!(scenario.client.refusal(sql).await.code, Code::Unavailable);
    cluster.restart().await?;
    while let Err(failure) = scenario.client.query(sql).await {
        assert!(std::time::Instant::now() < until, "{failure}");
    }
    assert!(!scenario.server.log()?.contains(PASSWORD));
    Ok(())
}

#[tokio::test]
async fn without_the_extension_only_scans_are_refused() -> Result<()> {
    let empty = tempfile::tempdir()?;
    let directory = empty.path().display().to_string();
    let scenario = Scenario::start_with(vec![stored()], LakeKind::Local, |config| {
        config.with("duckdb", "extension_directory", directory)
    })
    .await?;
    let (copy, scan) = both(&scenario.client);
    let sql = "SELECT name FROM things ORDER BY name";
    assert_eq!(scenario.ask(&copy, sql).await?.text(), "one\ntwo");
    let refusal = scan.refusal(sql).await;
    assert!(refusal.message.contains("postgres_scanner"), "{refusal}");
    assert!(!refusal.message.contains(PASSWORD));
    Ok(())
}
