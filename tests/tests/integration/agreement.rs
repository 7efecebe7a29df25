//! Preparing and running agree: what can be bound over empty tables can be run, and what can't be sent is refused in words.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use thermocline_tests::client::Failure;
use thermocline_tests::client_data;
use thermocline_tests::scenario::{LakeKind, Scenario};
use tonic::Code;

/// What every client may see of an error: words, and nothing of the process or of a program's format.
fn check_words(sql: &str, failure: &Failure, words: &[&str]) -> Result<()> {
    let message = &failure.message;
    ensure!(failure.code == Code::InvalidArgument, "{sql}: {failure}");
    ensure!(!message.contains("exception_type") && !message.contains("0x"), "{sql}: {message}");
    let lacks: Vec<&&str> = words.iter().filter(|word| !message.contains(**word)).collect();
    ensure!(lacks.is_empty(), "{sql} lacks {lacks:?}: {message}");
    Ok(())
}

async fn scenario() -> Result<Scenario> {
    Scenario::start(client_data::stored(), LakeKind::Local).await
}

/// Checks that each statement is refused, by preparing it or by running it, with these words.
async fn refused(cases: &[(&str, &[&str])]) -> Result<()> {
    let scenario = scenario().await?;
    let mut faults = String::new();
    for (sql, words) in cases {
        let outcome = match scenario.client.query(sql).await {
            Ok(answer) => Err(anyhow::anyhow!("{sql}: {}", answer.text())),
            Err(failure) => check_words(sql, &failure, words),
        };
        if let Err(fault) = outcome {
            writeln!(faults, "{fault:#}")?;
        }
    }
    ensure!(faults.is_empty(), "{faults}");
    Ok(())
}

#[tokio::test]
async fn pseudo_columns_are_no_columns() -> Result<()> {
    refused(&[
        ("SELECT rowid FROM golden", &["rowid", "row_id"]),
        ("SELECT g.rowid FROM golden g", &["rowid"]),
        ("SELECT rowid FROM golden WHERE _tier = 'hot'", &["rowid"]),
        ("SELECT rowid FROM system.options", &["rowid"]),
        ("SELECT rowid FROM information_schema.tables", &["rowid"]),
        ("SELECT rowid FROM (SHOW TABLES)", &["rowid"]),
        ("SELECT filename FROM golden", &["filename"]),
        ("SELECT file_row_number FROM golden", &["file_row_number"]),
    ])
    .await
}

#[tokio::test]
async fn functions_that_fail_only_when_they_are_called_fail_in_words() -> Result<()> {
    refused(&[
        ("SELECT bitstring_agg(n) FROM golden", &["bitstring_agg(value, least, greatest)"]),
        ("SELECT equi_width_bins(a_text, a_text, 3, true) FROM golden", &["equi_width_bins"]),
        ("SELECT like_escape('a', 'a', 'abc')", &["escape"]),
        ("SELECT a_text LIKE 'x' ESCAPE 'abc' FROM golden", &["scape"]),
        ("SELECT json_keys('{')", &["JSON"]),
        ("SELECT regexp_matches('a', '(')", &["missing"]),
    ])
    .await
}

#[tokio::test]
async fn values_that_arrow_does_not_hold_are_refused_with_the_cast_that_helps() -> Result<()> {
    refused(&[
        ("SELECT md5_number('b') AS v", &["`v`", "UHUGEINT", "AS VARCHAR"]),
        ("SELECT CAST(170141183460469231731687303715884105727 AS HUGEINT) AS v", &["`v`", "39 digits", "AS VARCHAR"]),
        (
            "SELECT v + 1 AS s FROM (SELECT 99999999999999999999999999999999999999::HUGEINT AS v)",
            &["`s`", "39 digits", "AS VARCHAR"],
        ),
        ("SELECT '12:00:00+05:30'::TIMETZ AS v", &["`v`", "TIME WITH TIME ZONE", "AS VARCHAR"]),
        ("SELECT '101'::BIT AS v", &["`v`", "BIT", "AS VARCHAR"]),
        ("SELECT ['101'::BIT] AS v", &["`v`", "BIT"]),
        ("SELECT {'a': [md5_number('b')]} AS v", &["`v`", "UHUGEINT"]),
        ("SELECT MAP {'101'::BIT: 1} AS v", &["`v`", "BIT"]),
        ("SELECT '12345'::BIGNUM AS v", &["`v`", "BIGNUM"]),
        ("SELECT 'x'::VARIANT AS v", &["`v`", "VARIANT", "AS VARCHAR"]),
        ("SELECT st_setcrs('POINT(1 2)'::GEOMETRY, 'EPSG:4326') AS v", &["`v`", "AS VARCHAR"]),
        ("SELECT TIME '24:00:00' AS v", &["`v`", "24:00:00"]),
        ("SELECT [{'a': TIME '24:00:00'}] AS v", &["`v`", "24:00:00"]),
        ("SELECT 'infinity'::TIMESTAMP AS v", &["`v`", "infinity"]),
        ("SELECT [DATE '-infinity'] AS v", &["`v`", "infinity"]),
        ("SELECT INTERVAL '3000000 hours' AS v", &["`v`", "292 years"]),
        ("SELECT 1::DECIMAL(39,0)", &["DECIMAL(39, 0)", "1 to 38"]),
        ("SELECT 1::NUMERIC(4,5)", &["DECIMAL(4, 5)", "scale"]),
        ("SELECT TIME(9) '12:00:00'", &["TIME(9)"]),
        ("SELECT 1::nonsense", &["unknown type `nonsense`"]),
    ])
    .await
}

#[tokio::test]
async fn the_cast_helps() -> Result<()> {
    let scenario = scenario().await?;
    for (sql, expected) in [
        ("SELECT CAST(md5_number('b') AS VARCHAR) AS v", "190532336368564675417118094528692087698"),
        (
            "SELECT CAST(170141183460469231731687303715884105727 AS VARCHAR) AS v",
            "170141183460469231731687303715884105727",
        ),
        ("SELECT 99999999999999999999999999999999999999::HUGEINT AS v", "99999999999999999999999999999999999999e-0"),
        ("SELECT CAST('12:00:00+05:30'::TIMETZ AS VARCHAR) AS v", "12:00:00+05:30"),
        ("SELECT CAST('101'::BIT AS VARCHAR) AS v", "101"),
        ("SELECT CAST(TIME '24:00:00' AS VARCHAR) AS v", "24:00:00"),
        ("SELECT CAST(bitstring_agg(n, 1, 3) AS VARCHAR) AS v FROM golden", "111"),
        ("SELECT count(*) AS v FROM golden WHERE md5_number(a_text) > 0", "2"),
    ] {
        assert_eq!(scenario.client.query(sql).await?.text(), expected, "{sql}");
    }
    Ok(())
}

#[tokio::test]
async fn every_table_can_be_named_in_full_in_any_case() -> Result<()> {
    let scenario = scenario().await?;
    for (sql, expected) in [
        ("SELECT count(*) FROM thermocline.information_schema.tables", "2"),
        ("SELECT count(*) FROM THERMOCLINE.INFORMATION_SCHEMA.TABLES", "2"),
        ("SELECT count(*) FROM \"thermocline\".\"information_schema\".\"tables\" WHERE table_type = 'BASE TABLE'", "2"),
        ("SELECT information_schema.tables.table_name FROM information_schema.tables ORDER BY 1 LIMIT 1", "golden"),
        (
            "SELECT thermocline.Information_Schema.TABLES.table_name FROM information_schema.tables ORDER BY 1 LIMIT 1",
            "golden",
        ),
        ("SELECT tables.table_name FROM thermocline.information_schema.tables ORDER BY 1 LIMIT 1", "golden"),
        ("SELECT count(*) > 10 FROM thermocline.information_schema.columns", "true"),
        ("SELECT count(*) FROM thermocline.information_schema.schemata", "1"),
        ("SELECT count(thermocline.system.options.name) > 3 FROM Thermocline.System.Options", "true"),
        ("SELECT count(system.options.name) > 3 FROM system.options", "true"),
        ("SELECT count(*) FROM THERMOCLINE.GOLDEN", "3"),
        ("SELECT count(*) FROM \"Thermocline\".\"Main\".\"Golden\"", "3"),
        ("SELECT max(THERMOCLINE.main.\"GOLDEN\".n) FROM Thermocline.Main.golden", "3"),
    ] {
        assert_eq!(
            scenario.client.query(sql).await.map_err(|failure| format!("{sql}: {failure}")).map(|answer| answer.text()),
            Ok(expected.to_owned())
        );
    }
    Ok(())
}

#[tokio::test]
async fn show_tables_lists_entities_wherever_it_stands() -> Result<()> {
    let scenario = scenario().await?;
    for sql in [
        "SHOW TABLES",
        "SHOW TABLES FROM main",
        "SHOW TABLES FROM thermocline",
        "SHOW TABLES FROM Thermocline.MAIN",
        "SELECT name FROM (SHOW TABLES)",
        "SELECT t.name FROM (SHOW TABLES FROM main) t ORDER BY name",
        "SELECT DISTINCT t.name FROM (SHOW TABLES) t, golden ORDER BY 1",
        "WITH t AS (FROM (SHOW TABLES)) SELECT t.name FROM t, things GROUP BY ALL ORDER BY ALL",
    ] {
        assert_eq!(scenario.client.query(sql).await?.text(), "golden\nthings", "{sql}");
    }
    refused(&[
        ("SHOW TABLES FROM nowhere", &["SHOW TABLES FROM nowhere", "thermocline.main"]),
        ("SHOW TABLES FROM other.main", &["SHOW TABLES FROM other.main"]),
        ("SHOW TABLES FROM temp", &["SHOW TABLES FROM temp"]),
        ("SELECT * FROM (SHOW TABLES FROM tc_hidden)", &["tc_hidden"]),
    ])
    .await
}

#[tokio::test]
async fn explain_takes_options() -> Result<()> {
    let scenario = scenario().await?;
    let rows = |sql: &'static str| {
        let client = scenario.client.clone();
        async move { client.query(sql).await.map(|answer| answer.text()) }
    };
    let plan = rows("EXPLAIN (FORMAT json) SELECT n FROM golden").await?;
    ensure!(plan.contains("\"route\"") && !plan.contains("\"execution\""), "{plan}");
    let analyzed = rows("EXPLAIN (ANALYZE, FORMAT json) SELECT sum(n) FROM golden").await?;
    ensure!(analyzed.contains("\"execution\"") && analyzed.contains("analyzed_plan"), "{analyzed}");
    let text = rows("EXPLAIN (FORMAT text, ANALYZE) SELECT n FROM golden").await?;
    ensure!(text.contains("federated_plan") && !text.contains("\"route\""), "{text}");
    refused(&[
        ("EXPLAIN (FORMAT html) SELECT 1", &["`FORMAT html`", "FORMAT json"]),
        ("EXPLAIN (VERBOSE) SELECT 1", &["`VERBOSE`"]),
    ])
    .await
}
