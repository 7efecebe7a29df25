//! Columns of `entity_main` and `eav_data` as applications made them: with collations and types of their own. What is
//! evaluated in PostgreSQL says what DuckDB would say of the values that are delivered, or the column is refused.

use anyhow::{Context, Result, ensure};
use thermocline_tests::client::Client;
use thermocline_tests::model::{Entity, Kind, Value};
use thermocline_tests::oracle::{HotVersion, Order, Stored, View};
use thermocline_tests::scenario::{LakeKind, Scenario, live};
use thermocline_tests::server::run;
use tonic::Code;

fn hot(entity: &Entity, rows: impl IntoIterator<Item = Vec<Value>>) -> Stored {
    let mut stored = Stored::new(entity);
    stored.hot = (1..)
        .zip(rows)
        .map(|(n, values)| HotVersion { version: live(n, 10, values), dirty: true, has_main: true })
        .collect();
    stored
}

async fn alter(scenario: &Scenario, sql: &str) -> Result<()> {
    scenario.database.connect().await?.batch_execute(sql).await.with_context(|| sql.to_owned())
}

/// The ways by which PostgreSQL's values are read.
fn ways(client: &Client) -> [Client; 3] {
    [client.with_option("hot_scan", "copy"), client.with_option("hot_scan", "scan"), client.with_option("tiers", "hot")]
}

/// Under this collation `abc`, `ABC` and `ábc` are equal, and patterns are refused by PostgreSQL.
const LOOSE: &str = "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level1', deterministic = false);";

#[tokio::test]
async fn collations_decide_no_answer() -> Result<()> {
    let entity = Entity::new("texts", 410)
        .main("name", Kind::Text, "text_01")
        .main("id", Kind::Uuid, "text_02")
        .main("day", Kind::Date, "text_03")
        .iso8601()
        .eav("note", Kind::Text, 201)
        .eav("tags", Kind::Text, 202)
        .list();
    let texts = ["abc", "ABC", "ábc", "abcd", "xabc", "xABC", "b", "B", "", "Ä"];
    let rows = texts.iter().enumerate().map(|(n, text)| {
        let id = uuid::Uuid::from_u128(0xabcd_ef00 + n as u128);
        let day = i32::try_from(n).unwrap_or_default();
        vec![
            Value::text(text),
            Value::Uuid(id),
            Value::Date(day),
            Value::text(text),
            Value::List(vec![Value::text(text), Value::text("tag")]),
        ]
    });
    let scenario = Scenario::start(vec![hot(&entity, rows)], LakeKind::Local).await?;
    let columns = "ALTER TABLE entity_main ALTER text_01 TYPE text COLLATE loose, ALTER text_02 TYPE text COLLATE loose, \
                   ALTER text_03 TYPE text COLLATE loose; ALTER TABLE eav_data ALTER value_text TYPE text COLLATE loose;";
    alter(&scenario, &format!("{LOOSE}{columns}")).await?;
    let oracle = scenario.oracle(View::default())?;
    let mut predicates = Vec::new();
    for column in ["name", "note"] {
        for predicate in [
            "= 'abc'",
            "<> 'abc'",
            "< 'abc'",
            ">= 'ABC'",
            "IN ('abc', 'b')",
            "NOT IN ('abc', 'b')",
            "IS DISTINCT FROM 'abc'",
            "IS NOT DISTINCT FROM 'abc'",
            "BETWEEN 'A' AND 'a'",
            "LIKE 'a_c'",
            "LIKE '%bc'",
            "NOT LIKE 'abc%'",
            "LIKE 'a|_c' ESCAPE '|'",
            "ILIKE 'aBC%'",
            "IS NULL",
        ] {
            predicates.push(format!("{column} {predicate}"));
        }
        for function in ["starts_with", "prefix", "suffix", "ends_with", "contains"] {
            predicates.push(format!("{function}({column}, 'bc')"));
            predicates.push(format!("NOT {function}({column}, 'a')"));
        }
    }
    for predicate in [
        "list_contains(tags, 'abc')",
        "list_contains(tags, 'TAG')",
        "id = '00000000-0000-0000-0000-0000abcdef01'",
        "id > '00000000-0000-0000-0000-0000abcdef03'",
        "day = DATE '1970-01-03'",
        "day < DATE '1970-01-03'",
        "name = 'abc' AND note IN ('abc', 'ABC') OR NOT (name = 'abcd')",
    ] {
        predicates.push(predicate.to_owned());
    }
    for client in ways(&scenario.client) {
        for predicate in &predicates {
            let sql = format!("SELECT name, note, tags FROM texts WHERE {predicate}");
            scenario.check_with(&client, &oracle, &sql, &sql, Order::Any).await?;
        }
        for predicate in &predicates[..15] {
            let sql = format!("SELECT count(*) AS n FROM texts WHERE {predicate}");
            scenario.check_with(&client, &oracle, &sql, &sql, Order::Any).await?;
        }
        let sql = "SELECT name FROM texts ORDER BY name DESC LIMIT 7";
        scenario.check_with(&client, &oracle, sql, sql, Order::Exact).await?;
    }
    let output = run(&["check", "--config", &scenario.server.config_path().display().to_string()]).await?;
    ensure!(output.success, "{}", output.stdout);
    Ok(())
}

fn numbered() -> Entity {
    Entity::new("numbered", 420)
        .main("code", Kind::Text, "text_01")
        .main("doc", Kind::Json, "text_02")
        .main("flag", Kind::Boolean, "smallint_01")
        .main("n", Kind::Integer, "integer_01")
        .main("ratio", Kind::Double, "double_01")
        .main("price", Kind::Decimal { precision: 9, scale: 2 }, "double_02")
        .eav("note", Kind::Text, 201)
        .eav("weight", Kind::Double, 202)
}

fn numbered_rows() -> impl Iterator<Item = Vec<Value>> {
    [("ab", true, 1, 0.5), ("b", false, 2, 1.25), ("cde", true, -3, -8.0)].into_iter().map(|(code, flag, n, ratio)| {
        vec![
            Value::text(code),
            Value::text(&format!("{{\"n\": {n}}}")),
            Value::Boolean(flag),
            Value::Integer(n),
            Value::Double(ratio),
            Value::Decimal(n * 25),
            Value::text(code),
            Value::Double(ratio),
        ]
    })
}

/// Types that come through without loss give what the usual ones give, filtered in PostgreSQL or not.
#[tokio::test]
async fn types_of_ones_own_are_read_as_the_usual_ones() -> Result<()> {
    let types = [
        ("text_01", "char(5)", ""),
        ("text_01", "varchar(5)", ""),
        ("text_01", "citext", ""),
        ("text_01", "word", "CREATE DOMAIN word AS varchar(9) CHECK (value <> 'x')"),
        ("text_01", "shout", "CREATE DOMAIN loud AS char(5); CREATE DOMAIN shout AS loud"),
        ("text_01", "letters", "CREATE TYPE letters AS ENUM ('cde', 'b', 'ab', 'abc')"),
        ("text_02", "jsonb", ""),
        ("text_02", "json", ""),
        ("smallint_01", "boolean USING smallint_01 = 1", ""),
        ("smallint_01", "integer", ""),
        ("integer_01", "smallint", ""),
        ("integer_01", "bigint", ""),
        ("integer_01", "numeric(9,0)", ""),
        ("integer_01", "whole", "CREATE DOMAIN whole AS integer"),
        ("double_01", "real", ""),
        ("double_01", "numeric(9,4)", ""),
        ("double_02", "numeric(9,2)", ""),
        ("double_02", "real", ""),
        ("value_text", "citext", ""),
        ("value_text", "char(5)", ""),
        ("value_text", "letters", "CREATE TYPE letters AS ENUM ('cde', 'b', 'ab', 'abc')"),
        ("value_numeric", "real", ""),
        ("value_numeric", "numeric(12,3)", ""),
    ];
    let entity = numbered();
    for (column, new, before) in types {
        let scenario = Scenario::start(vec![hot(&entity, numbered_rows())], LakeKind::Local).await?;
        let using = if new.contains("USING") { String::new() } else { format!("USING {column}::{new}") };
        let table = if column.starts_with("value") { "eav_data" } else { "entity_main" };
        alter(
            &scenario,
            &format!("CREATE EXTENSION citext; {before}; ALTER TABLE {table} ALTER {column} TYPE {new} {using}"),
        )
        .await?;
        let oracle = scenario.oracle(View::default())?;
        for (tier, client) in [("copy", scenario.client.clone()), ("hot", scenario.client.with_option("tiers", "hot"))]
        {
            for tail in [
                "WHERE code = 'ab'",
                "WHERE code <> 'ab'",
                "WHERE code IN ('ab', 'zz')",
                "WHERE code LIKE '%b'",
                "WHERE code || '' = 'ab'",
                "WHERE code > 'ab' ORDER BY code LIMIT 2",
                "WHERE code = 'AB'",
                "WHERE suffix(code, 'e')",
                "WHERE note = 'ab' OR note >= 'b'",
                "WHERE flag",
                "WHERE NOT flag OR flag = true",
                "WHERE n = 2 OR n IN (1, 7)",
                "WHERE n < 1.5",
                "WHERE ratio = 1.25 OR ratio < 0",
                "WHERE weight >= 0.5",
                "WHERE price = 0.25",
                "ORDER BY n DESC LIMIT 2",
            ] {
                // What jsonb prints is the same here, with blanks behind colons.
                let sql = format!("SELECT code, doc, flag, n, ratio, price, note, weight FROM numbered {tail}");
                let order = if tail.contains("ORDER") { Order::Exact } else { Order::Any };
                scenario
                    .check_with(&client, &oracle, &sql, &sql, order)
                    .await
                    .with_context(|| format!("{column} {new}, {tier}"))?;
            }
        }
        let config = scenario.server.config_path().display().to_string();
        let output = run(&["check", "--config", &config]).await?;
        ensure!(output.success, "{column} {new}: {}", output.stdout);
        let output = run(&["flush", "--config", &config]).await?;
        ensure!(output.success, "{column} {new}: {}", output.stderr);
        let sql = "SELECT code, doc, flag, n, ratio, price, note, weight FROM numbered";
        scenario.check(&oracle, sql, Order::Any).await.with_context(|| format!("{column} {new}, flushed"))?;
    }
    Ok(())
}

/// Types that would lose something are refused in the words of `check`, by queries of that attribute alone.
#[tokio::test]
async fn lossy_types_are_refused_in_the_words_of_check() -> Result<()> {
    let types = [
        ("text_01", "bytea USING text_01::bytea", "code"),
        ("text_01", "date USING NULL", "code"),
        ("integer_01", "numeric", "n"),
        ("integer_01", "numeric(9,1)", "n"),
        ("integer_01", "boolean USING integer_01 = 1", "n"),
        ("smallint_01", "bigint", "flag"),
        ("double_01", "numeric", "ratio"),
        ("double_02", "bigint", "price"),
        ("value_numeric", "numeric", "weight"),
        ("value_text", "timestamptz USING NULL", "note"),
    ];
    let entity = numbered();
    let scenario = Scenario::start(vec![hot(&entity, numbered_rows())], LakeKind::Local).await?;
    let config = scenario.server.config_path().display().to_string();
    let usual = [
        ("text_01", "text"),
        ("integer_01", "integer"),
        ("smallint_01", "smallint"),
        ("double_01", "double precision"),
        ("double_02", "double precision"),
        ("value_text", "text"),
        ("value_numeric", "double precision"),
    ];
    for (column, new, attribute) in types {
        let table = if column.starts_with("value") { "eav_data" } else { "entity_main" };
        alter(&scenario, &format!("ALTER TABLE {table} ALTER {column} TYPE {new}")).await?;
        let checked = run(&["check", "--config", &config]).await?;
        for sql in [
            format!("SELECT {attribute} FROM numbered"),
            format!("SELECT count(*) FROM numbered WHERE {attribute} IS NOT NULL"),
            format!("SELECT row_id FROM numbered ORDER BY {attribute} LIMIT 1"),
        ] {
            for client in ways(&scenario.client) {
                let failure = client.refusal(&sql).await;
                assert_eq!(failure.code, Code::Unavailable, "{column} {new}, {sql}: {failure}");
                ensure!(failure.message.contains(&format!("{column}, where attribute `{attribute}`")), "{failure}");
                let words = failure.message.lines().next().unwrap_or_default();
                let words = words.split(" (query").next().unwrap_or(words);
                ensure!(checked.stdout.contains(words), "{column} {new}: {words}\n{}", checked.stdout);
            }
        }
        let others = "SELECT count(*) AS n FROM numbered WHERE doc IS NOT NULL";
        assert_eq!(scenario.client.query(others).await?.text(), "3");
        let flushed = run(&["flush", "--config", &config]).await?;
        ensure!(!flushed.success && flushed.stderr.contains(column), "{column} {new}: {}", flushed.stderr);
        let back = usual.iter().find(|(name, _)| *name == column).map_or("text", |(_, usual)| *usual);
        alter(&scenario, &format!("ALTER TABLE {table} ALTER {column} TYPE {back} USING NULL")).await?;
    }
    Ok(())
}

/// DuckDB's scans read types as they are: those that would come out otherwise are refused with the way out.
#[tokio::test]
async fn scans_refuse_what_they_would_read_otherwise() -> Result<()> {
    let scenario = Scenario::start(vec![hot(&numbered(), numbered_rows())], LakeKind::Local).await?;
    alter(&scenario, "ALTER TABLE entity_main ALTER text_01 TYPE char(5)").await?;
    let failure = scenario.client.with_option("hot_scan", "scan").refusal("SELECT code FROM numbered").await;
    ensure!(failure.message.contains("character(5)") && failure.message.contains("hot_scan = copy"), "{failure}");
    Ok(())
}
