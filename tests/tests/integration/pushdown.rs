//! What reached PostgreSQL: the statements of its log, and what its own EXPLAIN says of them.

use anyhow::{Context, Result};
use serde_json::Value as Json;
use thermocline_tests::oracle::{HotVersion, Order, Stored, View};
use thermocline_tests::scenario::{LakeKind, Scenario, live};

use crate::{thing, things};

/// 4,000 rows in PostgreSQL of which 200 are dirty.
async fn scenario() -> Result<Scenario> {
    let mut stored = Stored::new(&things());
    stored.hot = (0..4000u32)
        .map(|n| {
            let version = live(n.into(), 10, thing(&format!("name {n}"), i32::try_from(n % 1000).unwrap_or_default()));
            HotVersion { version, dirty: n < 200, has_main: true }
        })
        .collect();
    let scenario = Scenario::start(vec![stored], LakeKind::Local).await?;
    scenario.database.connect().await?.batch_execute("ANALYZE").await?;
    Ok(scenario)
}

/// The hot statement that a query made PostgreSQL run.
async fn hot_statement(scenario: &Scenario, sql: &str) -> Result<String> {
    let [statement] = <[String; 1]>::try_from(hot_statements(scenario, sql).await?)
        .map_err(|statements| anyhow::anyhow!("one hot statement a reference: {statements:#?}"))?;
    Ok(statement)
}

/// The hot statements that a query made PostgreSQL run, in the order of its references.
async fn hot_statements(scenario: &Scenario, sql: &str) -> Result<Vec<String>> {
    let before = scenario.database.statements()?.len();
    let oracle = scenario.oracle(View::default())?;
    scenario.check(&oracle, sql, Order::Any).await?;
    let statements = scenario.database.statements()?;
    let hot = statements[before..]
        .iter()
        .map(|statement| statement.sql.as_str())
        .filter(|sql| sql.contains("entity_main") && sql.contains("flushed_at"));
    // What COPY wraps is what is explained.
    let inner = hot.map(|sql| sql.trim_start_matches("COPY ("));
    Ok(inner.map(|sql| sql.split_once(") TO STDOUT").map_or(sql, |(inner, _)| inner).to_owned()).collect())
}

/// The nodes of PostgreSQL's plan, run and counted.
async fn explain(scenario: &Scenario, statement: &str) -> Result<Vec<Json>> {
    fn walk(node: &Json, out: &mut Vec<Json>) {
        out.push(node.clone());
        for child in node["Plans"].as_array().into_iter().flatten() {
            walk(child, out);
        }
    }
    let client = scenario.database.connect().await?;
    let rows = client.simple_query(&format!("EXPLAIN (ANALYZE, FORMAT JSON) {statement}")).await?;
    let text: String = rows
        .iter()
        .filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        })
        .collect();
    let plan: Json = serde_json::from_str(&text).with_context(|| text.clone())?;
    let mut nodes = Vec::new();
    walk(&plan[0]["Plan"], &mut nodes);
    Ok(nodes)
}

#[tokio::test]
async fn postgres_returns_only_rows_that_pass() -> Result<()> {
    let scenario = scenario().await?;
    for (predicate, rows) in [
        ("name = 'name 7'", 1),
        ("note = 'note of name 7'", 1),
        ("size_cm < 10", 10),
        ("name LIKE 'name 1_'", 10),
        ("n IN (1, 2, 3) AND note IS NOT NULL", 3),
        ("name = 'name 500'", 0),
        ("NOT (n >= 5) AND starts_with(note, 'note')", 5),
    ] {
        let statement = hot_statement(&scenario, &format!("SELECT row_id, name FROM things WHERE {predicate}")).await?;
        let nodes = explain(&scenario, &statement).await?;
        assert_eq!(nodes[0]["Actual Rows"].as_f64(), Some(f64::from(rows)), "{predicate}: {statement}\n{nodes:#?}");
    }
    Ok(())
}

/// Each mention of an entity is filtered by its own conditions.
#[tokio::test]
async fn each_reference_has_its_own_filter() -> Result<()> {
    let scenario = scenario().await?;
    let cases: [(&str, &[u32]); 5] = [
        ("SELECT a.name FROM things a JOIN things b ON a.note = b.note AND b.n < 20 WHERE a.n < 5", &[5, 20]),
        ("SELECT a.name FROM things a LEFT JOIN things b ON a.n = b.n + 1 AND b.n < 3 WHERE b.n IS NULL", &[200, 3]),
        (
            "SELECT u.name FROM (SELECT * FROM things UNION ALL SELECT * FROM things WHERE n < 9) u WHERE u.n < 4",
            &[4, 4],
        ),
        (
            "SELECT name FROM things a WHERE n < 6 AND EXISTS (SELECT 1 FROM things b WHERE b.n < 8 AND b.n = a.n)",
            &[6, 8],
        ),
        ("SELECT n, count(*) AS c FROM things GROUP BY n HAVING n < 7 AND count(*) = 1", &[7]),
    ];
    for (sql, rows) in cases {
        let mut returned = Vec::new();
        for statement in hot_statements(&scenario, sql).await? {
            let nodes = explain(&scenario, &statement).await?;
            returned.push(nodes[0]["Actual Rows"].as_f64().unwrap_or_default());
        }
        let expected: Vec<f64> = rows.iter().copied().map(f64::from).collect();
        assert_eq!(returned, expected, "{sql}");
    }
    Ok(())
}

/// The dirty set leads the way, by its index: no table is read whole.
#[tokio::test]
async fn postgres_reads_the_dirty_set_by_its_indexes() -> Result<()> {
    let scenario = scenario().await?;
    for sql in [
        "SELECT row_id, note FROM things WHERE note = 'note of name 7'",
        "SELECT * FROM things",
        "SELECT x.note FROM (SELECT * FROM things) x WHERE x.name = 'name 7'",
    ] {
        let statement = hot_statement(&scenario, sql).await?;
        let nodes = explain(&scenario, &statement).await?;
        let scans: Vec<&Json> = nodes.iter().filter(|node| node["Relation Name"] == "eav_data").collect();
        assert!(
            !scans.is_empty() && scans.iter().all(|scan| scan["Node Type"] != "Seq Scan"),
            "{statement}: {scans:#?}"
        );
        let dirty = nodes.iter().find(|node| node["Relation Name"] == "change_log").context("no scan of change_log")?;
        let scanned = dirty["Actual Rows"].as_f64().unwrap_or_default();
        assert!(scanned <= 200.0, "{scanned} rows of change_log: {dirty:#}");
    }
    Ok(())
}

/// A column that only a star of a subquery offers isn't pivoted unless somebody names it.
#[tokio::test]
async fn only_named_attributes_are_pivoted() -> Result<()> {
    let scenario = scenario().await?;
    let statement =
        hot_statement(&scenario, "SELECT x.note FROM (SELECT * FROM things) x WHERE x.name = 'name 7'").await?;
    assert!(statement.contains("201") && !statement.contains("202"), "{statement}");
    let statement = hot_statement(&scenario, "WITH c AS (SELECT * FROM things) SELECT name FROM c WHERE n = 7").await?;
    assert!(!statement.contains("eav_data"), "{statement}");
    Ok(())
}

/// What DuckDB's printer would turn into another query, or into no query.
#[tokio::test]
async fn printed_queries_stay_what_they_are() -> Result<()> {
    let scenario = scenario().await?;
    let oracle = scenario.oracle(View::default())?;
    for sql in [
        "SELECT 1e0 AS x, 0.1e0 + 0.2e0 AS y, 1.5 AS z",
        "SELECT sum(n * 1e-1) AS s FROM things WHERE n > 5e0",
        "SELECT count(*) AS n FROM things a CROSS JOIN (VALUES (1), (2)) v(x) LEFT JOIN things b ON b.n = a.n AND b.n = v.x",
        "SELECT count(*) AS n FROM things a LEFT JOIN (things b CROSS JOIN (VALUES (1), (2)) v(x)) ON a.n = b.n + v.x",
        "SELECT #2 AS second FROM things WHERE n = 7",
        "SELECT * FROM (UNPIVOT (SELECT name, note FROM things WHERE n = 7) ON name, note INTO NAME k VALUE v)",
    ] {
        scenario.check(&oracle, sql, Order::Any).await?;
    }
    Ok(())
}

/// An error behind EXPLAIN points into the user's own text.
#[tokio::test]
async fn errors_behind_explain_have_their_place() -> Result<()> {
    let scenario = scenario().await?;
    for (sql, place) in [
        ("EXPLAIN SELECT getenv('X') FROM things", "getenv"),
        ("EXPLAIN ANALYZE SELECT nam FROM things", "nam"),
        ("  EXPLAIN  SELECT * FROM thing", "thing"),
        ("EXPLAIN SELECT FROM FROM", "FROM"),
    ] {
        let failure = scenario.client.refusal(sql).await;
        assert!(failure.message.contains(place), "{failure}");
        let column = sql.rfind(place).unwrap_or_default() + 1;
        assert!(failure.message.contains(&format!("line 1, column {column}")), "{sql}: {failure}");
    }
    Ok(())
}
