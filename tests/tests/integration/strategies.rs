//! Merge strategies without the version index, and routes: each gives the oracle's rows, and each is chosen only when it is right.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use serde_json::Value as Json;
use thermocline_tests::lake::{LakeFile, UuidForm, write_parquet};
use thermocline_tests::model::{Value, Version};
use thermocline_tests::oracle::{HotVersion, Order, Stored, View};
use thermocline_tests::scenario::{LakeKind, Scenario, live, row_id, tombstone};
use tokio::time::Instant;

use crate::{thing, things};

const QUERIES: [&str; 8] = [
    "SELECT * FROM things",
    "SELECT count(*) AS c, sum(n) AS s FROM things",
    "SELECT name, n FROM things WHERE name = 'base'",
    "SELECT name, n FROM things WHERE n BETWEEN 3 AND 8 AND note LIKE 'note%'",
    "SELECT row_id, name FROM things WHERE row_id = '01900000-0000-7000-8000-000000000005'",
    "SELECT name, n FROM things WHERE updated_at < make_timestamptz(15000)",
    "SELECT a.n, b.name FROM things a JOIN things b ON a.n = b.n AND b.name = 'delta'",
    "SELECT name, count(*) AS c FROM things GROUP BY name",
];

/// A scenario whose server merges by statistics alone.
pub(crate) async fn without_index(stored: Vec<Stored>) -> Result<Scenario> {
    Scenario::start_with(stored, LakeKind::Local, |config| config.with("query", "merge", "layered")).await
}

/// Runs all queries on server and oracle.
async fn check_all(scenario: &Scenario) -> Result<()> {
    let oracle = scenario.oracle(View::default())?;
    for sql in QUERIES {
        scenario.check(&oracle, sql, Order::Any).await?;
    }
    Ok(())
}

/// Asks until the merge of the first reference is as `wanted`: checks of files run behind the queries.
pub(crate) async fn wait_for_merge(scenario: &Scenario, wanted: impl Fn(&Json) -> bool) -> Result<Json> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let plan = scenario.client.query("SELECT * FROM things").await?.final_plan;
        if wanted(&plan["references"][0]["merge"]) {
            return Ok(plan.clone());
        }
        if Instant::now() > deadline {
            bail!("the merge stays {:#}", plan["references"][0]["merge"]);
        }
        tokio::task::yield_now().await;
    }
}

fn versions(rows: std::ops::Range<u128>, changed_at: i64, name: &str) -> Vec<Version> {
    rows.map(|n| live(n, changed_at, thing(name, i32::try_from(n % 10).unwrap()))).collect()
}

fn source<'a>(plan: &'a Json, tier: &str) -> &'a Json {
    let sources = plan["references"][0]["sources"].as_array().expect("sources");
    sources.iter().find(|source| source["tier"] == tier).unwrap_or_else(|| panic!("no {tier} source in {plan:#}"))
}

#[tokio::test]
async fn layered_is_used_once_its_proof_is_known() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    let mut delta = versions(10..20, 20, "delta");
    delta.push(tombstone(5, 20, thing("dead", 0)));
    delta.push(live(10, 21, thing("delta again", 1)));
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", versions(0..50, 10, "base")),
        LakeFile::base(&entity, "b.parquet", versions(50..100, 12, "base")),
        LakeFile::base(&entity, "c.parquet", versions(100..150, 12, "base")),
        LakeFile::delta(&entity, "a.parquet", delta),
    ];
    stored.hot = vec![
        HotVersion { version: live(7, 5, thing("hot", 1)), dirty: true, has_main: true },
        HotVersion { version: tombstone(60, 30, thing("gone", 1)), dirty: true, has_main: false },
    ];
    let scenario = without_index(vec![stored]).await?;
    check_all(&scenario).await?;
    let plan = wait_for_merge(&scenario, |merge| merge["strategy"] == "layered").await?;
    check_all(&scenario).await?;
    // Only the files that hold superseded ids are checked against them.
    assert_eq!(source(&plan, "cold")["files_scanned"], 3, "{plan:#}");
    assert_eq!(source(&plan, "cold")["anti_join_files"], 2, "{plan:#}");
    // Rows of known ids are sought only where their winner can be.
    for (n, route, cold, warm, answer) in [
        (5, "lake", 0, 1, ""),
        (10, "lake", 0, 1, "delta again"),
        (11, "lake", 0, 1, "delta"),
        (6, "lake", 1, 0, "base"),
        (7, "hot", 0, 0, "hot"),
        (60, "hot", 0, 0, ""),
        (120, "lake", 1, 0, "base"),
        (777, "lake", 0, 0, ""),
    ] {
        let found = scenario.client.query(&format!("SELECT name FROM things WHERE row_id = '{}'", row_id(n))).await?;
        let plan = &found.final_plan;
        assert_eq!(found.text(), answer, "row {n}: {plan:#}");
        assert_eq!(plan["route"], route, "row {n}: {plan:#}");
        assert_eq!(source(plan, "cold")["files_scanned"], cold, "row {n}: {plan:#}");
        assert_eq!(source(plan, "warm")["files_scanned"], warm, "row {n}: {plan:#}");
    }
    Ok(())
}

#[tokio::test]
async fn overlapping_base_files_are_merged_by_window() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", versions(0..50, 10, "base")),
        LakeFile::base(&entity, "b.parquet", versions(40..90, 12, "newer base")),
        LakeFile::delta(&entity, "a.parquet", versions(45..60, 20, "delta")),
    ];
    let scenario = without_index(vec![stored]).await?;
    let plan =
        wait_for_merge(&scenario, |merge| merge["proof"].as_str().is_some_and(|why| why.contains("overlap"))).await?;
    assert_eq!(plan["references"][0]["merge"]["strategy"], "window");
    check_all(&scenario).await
}

#[tokio::test]
async fn base_that_is_newer_than_delta_is_merged_by_window() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", versions(0..50, 30, "newer base")),
        LakeFile::delta(&entity, "a.parquet", versions(45..60, 20, "delta")),
    ];
    let scenario = without_index(vec![stored]).await?;
    let newer = |merge: &Json| merge["proof"].as_str().is_some_and(|why| why.contains("newer version"));
    let plan = wait_for_merge(&scenario, newer).await?;
    assert_eq!(plan["references"][0]["merge"]["strategy"], "window");
    check_all(&scenario).await
}

/// Row ids compare as UUIDs, whatever text a file keeps: one id in upper and in lower case is one row.
#[tokio::test]
async fn ids_in_two_cases_are_one_row() -> Result<()> {
    let entity = things();
    for tier in ["base", "delta"] {
        let scenario = Scenario::start(vec![Stored::new(&entity)], LakeKind::Local).await?;
        // One row in two versions, its id in other letters.
        let mut file = LakeFile::base(
            &entity,
            "twice.parquet",
            vec![live(21, 10, thing("old", 1)), live(22, 12, thing("new", 2))],
        );
        file.row_id = UuidForm::Text;
        let batch = file.to_batch()?;
        let id = "0190abcd-0000-7000-8000-0000000000ef";
        let ids: ArrayRef = Arc::new(StringArray::from(vec![id.to_uppercase(), id.to_owned()]));
        let mut columns = batch.columns().to_vec();
        columns[batch.schema().index_of("row_id")?] = ids;
        let bytes = write_parquet(&RecordBatch::try_new(batch.schema(), columns)?, 100, true)?;
        scenario.lake.put_bytes(&format!("{tier}/100/twice.parquet"), bytes).await?;
        // The check of the file runs behind the queries: answers are right before, while and after it does.
        for _ in 0..20 {
            let answer = scenario.client.query(&format!("SELECT name FROM things WHERE row_id = '{id}'")).await?;
            assert_eq!(answer.text(), "new", "{tier}");
            assert_eq!(scenario.client.query("SELECT count(*) AS n FROM things").await?.text(), "1", "{tier}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn base_with_a_row_twice_is_never_taken_for_unique() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    let mut twice = versions(0..20, 10, "base");
    twice.push(live(3, 11, thing("again", 7)));
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", twice),
        LakeFile::base(&entity, "b.parquet", versions(30..40, 10, "base")),
    ];
    let scenario = without_index(vec![stored]).await?;
    // The other file is found unique; this one stays the reason for the window.
    for _ in 0..20 {
        check_all(&scenario).await?;
        let plan = scenario.client.query("SELECT * FROM things").await?.final_plan;
        assert_eq!(plan["references"][0]["merge"]["strategy"], "window", "{plan:#}");
    }
    Ok(())
}

/// The window's pre-filter takes rows of which any version passes; the filter itself sees the winner.
#[tokio::test]
async fn the_prefilter_of_the_window_exposes_no_old_version() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", versions(0..30, 10, "wanted")),
        LakeFile::base(&entity, "b.parquet", versions(10..20, 12, "other")),
        LakeFile::delta(&entity, "a.parquet", versions(25..35, 20, "wanted")),
    ];
    let scenario = without_index(vec![stored]).await?;
    let answer = scenario.client.query("SELECT count(*) AS c FROM things WHERE name = 'wanted'").await?;
    assert_eq!(answer.text(), "25");
    assert!(
        answer.plan["statement"].as_str().is_some_and(|sql| sql.contains("row_id IN (SELECT row_id")),
        "{:#}",
        answer.plan
    );
    Ok(())
}

fn hot_things() -> Stored {
    let entity = things();
    let mut stored = Stored::new(&entity);
    let names = ["b", "A", "ä", "a", "B", "_", "Z"];
    let mut rows: Vec<Version> = (0..40u128)
        .map(|n| {
            live(
                n,
                30 + i64::try_from(n).unwrap(),
                thing(names[n as usize % names.len()], i32::try_from(n % 6).unwrap()),
            )
        })
        .collect();
    for (number, version) in rows.iter_mut().enumerate() {
        if number % 5 == 0 {
            version.values[number % 4] = Value::Null;
        }
    }
    rows.push(tombstone(50, 99, thing("gone", 1)));
    stored.hot = rows.into_iter().map(|version| HotVersion { version, dirty: true, has_main: true }).collect();
    stored.hot.push(HotVersion { version: live(51, 100, thing("inconsistent", 1)), dirty: true, has_main: false });
    stored.files = vec![LakeFile::base(&entity, "a.parquet", versions(30..80, 10, "base"))];
    stored
}

#[tokio::test]
async fn postgres_alone_answers_what_it_can_answer_whole() -> Result<()> {
    let scenario = Scenario::start(vec![hot_things()], LakeKind::Local).await?;
    let client = scenario.client.with_option("tiers", "hot");
    let oracle = scenario.oracle(View { hot: true, warm: false, cold: false, ..View::default() })?;
    for (sql, order) in [
        ("SELECT * FROM things", Order::Any),
        ("SELECT count(*) FROM things WHERE n > 2", Order::Any),
        ("SELECT name, n, name FROM things WHERE size_cm < 4 AND note IS NOT NULL", Order::Any),
        ("SELECT row_id, name AS x FROM things ORDER BY name DESC, n LIMIT 9 OFFSET 3", Order::Exact),
        (
            "SELECT t.updated_at, t.size_cm FROM things t ORDER BY t.size_cm NULLS FIRST, t.updated_at DESC LIMIT 12",
            Order::Exact,
        ),
        ("SELECT created_at, updated_at, n FROM things WHERE name IN ('a', 'ä') ORDER BY row_id", Order::Exact),
    ] {
        let answer = client.query(sql).await?;
        let plan = &answer.final_plan;
        assert_eq!(plan["route"], "hot");
        assert!(plan["statement"].as_str().is_some_and(|sql| sql.contains("\"change_log\"")), "{sql}: {plan:#}");
        assert!(answer.warnings().iter().any(|warning| warning.contains("1 dirty rows have no")), "{sql}: {plan:#}");
        scenario.check_with(&client, &oracle, sql, sql, order).await?;
    }
    // What PostgreSQL would order or compute otherwise stays with DuckDB.
    for sql in [
        "SELECT upper(name) AS u FROM things",
        "SELECT name FROM things WHERE n % 2 = 1",
        "SELECT DISTINCT n FROM things",
    ] {
        let plan = client.query(sql).await?.final_plan;
        assert!(plan["statement"].as_str().is_some_and(|sql| sql.contains("pg_source")), "{sql}: {plan:#}");
        scenario.check_with(&client, &oracle, sql, sql, Order::Any).await?;
    }
    let cut = client.with_option("max_rows", "5").query("SELECT name FROM things").await?;
    assert_eq!(cut.row_count(), 5);
    assert_eq!(cut.final_plan["execution"]["truncated"], true);
    Ok(())
}

#[tokio::test]
async fn prefer_hot_leaves_the_lake_out_only_when_hot_rows_fill_the_limit() -> Result<()> {
    let scenario = Scenario::start(vec![hot_things()], LakeKind::Local).await?;
    let client = scenario.client.with_option("prefer_hot", "true");
    let enough = client.query("SELECT name FROM things LIMIT 40").await?;
    assert_eq!(enough.final_plan["route"], "hot", "{:#}", enough.final_plan);
    assert_eq!(enough.plan["route"], "hot", "{:#}", enough.plan);
    assert_eq!(enough.row_count(), 40);
    let more = client.query("SELECT name FROM things LIMIT 41").await?;
    assert_eq!(more.final_plan["route"], "federated", "{:#}", more.final_plan);
    assert_eq!(more.row_count(), 41);
    let only_hot = client.with_option("allow_s3_fallback", "false");
    let less = only_hot.query("SELECT name FROM things LIMIT 41").await?;
    assert_eq!((less.final_plan["route"].as_str(), less.row_count()), (Some("hot"), 40));
    assert!(less.warnings().iter().any(|warning| warning.contains("allow_s3_fallback")), "{:?}", less.warnings());
    assert_eq!(only_hot.query("SELECT count(*) AS c FROM things").await?.text(), "40");
    Ok(())
}

/// A lookup reads the row groups that may hold its rows, in every form that files keep ids in, and finds each of them.
#[tokio::test]
async fn lookups_read_the_row_groups_that_may_hold_the_rows() -> Result<()> {
    for form in [UuidForm::Uuid, UuidForm::Bytes, UuidForm::Text] {
        let entity = things();
        let mut base = LakeFile::base(&entity, "a.parquet", versions(0..100, 10, "base"));
        let mut delta = LakeFile::delta(&entity, "b.parquet", versions(30..60, 20, "delta"));
        (base.rows_per_group, delta.rows_per_group) = (7, 4);
        (base.row_id, delta.row_id) = (form, form);
        let mut stored = Stored::new(&entity);
        stored.files = vec![base, delta];
        let scenario = without_index(vec![stored]).await?;
        wait_for_merge(&scenario, |merge| merge["strategy"] == "layered").await?;
        for number in 0..101 {
            let answer = scenario
                .client
                .query(&format!("SELECT name, n FROM things WHERE row_id = '{}'", row_id(number)))
                .await?;
            let wanted = match number {
                30..60 => format!("delta|{}", number % 10),
                0..100 => format!("base|{}", number % 10),
                _ => String::new(),
            };
            assert_eq!(answer.text(), wanted, "{form:?}, row {number}: {:#}", answer.plan);
        }
        for first in [0, 13, 29, 58, 85] {
            let sql = format!(
                "SELECT count(*) AS c, count(DISTINCT row_id) AS d FROM things WHERE row_id BETWEEN '{}' AND '{}'",
                row_id(first),
                row_id(first + 20)
            );
            let rows = 100.min(first + 21) - first;
            assert_eq!(scenario.client.query(&sql).await?.text(), format!("{rows}|{rows}"), "{form:?}, from {first}");
        }
        let read = |plan: &Json, tier: &str| source(plan, tier)["row_estimate"].as_u64();
        let ids = [row_id(8), row_id(27)];
        let answer = scenario
            .client
            .query(&format!("SELECT name FROM things WHERE row_id IN ('{}', '{}')", ids[0], ids[1]))
            .await?;
        assert_eq!(answer.text(), "base\nbase");
        // The second to the fourth row group; bounds of text are cut, and then say less.
        let rows = if form == UuidForm::Text { 28 } else { 21 };
        assert_eq!(read(&answer.final_plan, "cold"), Some(rows), "{form:?}: {:#}", answer.final_plan);
        let returned = answer.final_plan["execution"]["sources"][1]["rows_returned"].as_u64();
        assert!(returned.is_some_and(|returned| (2..=rows).contains(&returned)), "{form:?}: {:#}", answer.final_plan);
    }
    Ok(())
}
