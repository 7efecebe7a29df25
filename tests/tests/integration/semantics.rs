//! Design section 3, rule by rule.

use std::collections::HashSet;

use anyhow::Result;
use thermocline_tests::r#gen;
use thermocline_tests::lake::{LakeFile, TimestampForm, UuidForm, write_parquet};
use thermocline_tests::model::{Entity, Kind, Value, Version};
use thermocline_tests::oracle::{HotVersion, Order, Stored, View, rows_of};
use thermocline_tests::scenario::{LakeKind, Scenario, live, row_id, tombstone};
use tonic::Code;

use crate::{thing, things};

fn hot(version: Version) -> HotVersion {
    HotVersion { version, dirty: true, has_main: true }
}

/// Starts a server over one entity.
async fn start(stored: Stored) -> Result<Scenario> {
    Scenario::start(vec![stored], LakeKind::Local).await
}

/// `name tier` of all rows, in the order of their row ids.
async fn winners(scenario: &Scenario) -> Result<String> {
    Ok(scenario.client.query("SELECT name, _tier FROM things ORDER BY row_id").await?.text())
}

#[tokio::test]
async fn a_file_version_of_a_dirty_row_is_discarded_whatever_its_timestamp() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.hot = vec![hot(live(1, 10, thing("hot", 1)))];
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", vec![live(1, 99, thing("newer base", 9)), live(2, 5, thing("clean", 2))]),
        LakeFile::delta(&entity, "a.parquet", vec![live(1, 98, thing("newer delta", 8))]),
    ];
    let scenario = start(stored).await?;
    assert_eq!(winners(&scenario).await?, "hot|hot\nclean|cold");
    // A filter that only the discarded versions pass finds nothing.
    assert_eq!(scenario.client.query("SELECT name FROM things WHERE n > 5").await?.text(), "");
    Ok(())
}

#[tokio::test]
async fn a_flushed_row_that_entity_main_still_holds_is_not_hot() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.hot = vec![HotVersion { version: live(1, 50, thing("left behind", 1)), dirty: false, has_main: true }];
    stored.files = vec![LakeFile::delta(&entity, "a.parquet", vec![live(1, 10, thing("flushed", 1))])];
    let scenario = start(stored).await?;
    assert_eq!(winners(&scenario).await?, "flushed|warm");
    Ok(())
}

#[tokio::test]
async fn ties_go_to_warm_then_to_the_tombstone_then_to_the_greater_path() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![
        LakeFile::base(
            &entity,
            "z.parquet",
            vec![
                live(1, 10, thing("base", 1)),
                live(2, 10, thing("live", 2)),
                tombstone(3, 10, thing("dead base", 3)),
                live(5, 11, thing("newest", 5)),
            ],
        ),
        LakeFile::base(&entity, "a.parquet", vec![tombstone(2, 10, thing("dead", 2)), live(4, 10, thing("path a", 4))]),
        LakeFile::base(&entity, "b.parquet", vec![live(4, 10, thing("path b", 4))]),
        LakeFile::delta(
            &entity,
            "a.parquet",
            vec![live(1, 10, thing("delta", 1)), live(3, 10, thing("live delta", 3)), live(5, 10, thing("older", 5))],
        ),
    ];
    let scenario = start(stored).await?;
    assert_eq!(winners(&scenario).await?, "delta|warm\nlive delta|warm\npath b|cold\nnewest|cold");
    Ok(())
}

#[tokio::test]
async fn deleted_rows_never_resurface_from_older_files() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    let names = ["hot tombstone", "hot tombstone without a row", "delta tombstone", "restored", "deleted at 0"];
    let versions: Vec<Version> =
        names.iter().enumerate().map(|(number, name)| live(number as u128, 10, thing(name, 1))).collect();
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", versions),
        LakeFile::delta(
            &entity,
            "a.parquet",
            vec![
                tombstone(2, 20, thing("delta tombstone", 1)),
                tombstone(3, 20, thing("restored", 1)),
                Version { deleted_at: Some(0), ..live(4, 20, thing("alive again", 1)) },
            ],
        ),
        LakeFile::delta(&entity, "b.parquet", vec![live(3, 30, thing("restored", 3))]),
    ];
    stored.hot = vec![
        hot(tombstone(0, 20, thing("hot tombstone", 1))),
        HotVersion { version: tombstone(1, 5, thing("gone", 1)), dirty: true, has_main: false },
    ];
    let scenario = start(stored).await?;
    assert_eq!(winners(&scenario).await?, "restored|warm\nalive again|warm");
    assert_eq!(scenario.client.query("SELECT count(*) AS n FROM things").await?.text(), "2");
    assert_eq!(scenario.client.query("SELECT name FROM things WHERE name LIKE '%tombstone%'").await?.text(), "");
    let all = scenario.client.with_option("include_deleted", "true");
    let shown = all.query("SELECT name, _tier, _deleted_at IS NULL AS live FROM things ORDER BY row_id").await?;
    assert_eq!(
        shown.text(),
        "hot tombstone|hot|false\nNULL|hot|false\ndelta tombstone|warm|false\nrestored|warm|true\nalive again|warm|true"
    );
    Ok(())
}

#[tokio::test]
async fn filters_see_winners_only() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", (0..4).map(|n| live(n, 10, thing("old", 1))).collect()),
        LakeFile::delta(&entity, "a.parquet", vec![live(0, 20, thing("new", 2)), tombstone(1, 20, thing("old", 1))]),
    ];
    stored.hot = vec![hot(live(2, 30, thing("hot", 3)))];
    let scenario = start(stored).await?;
    for (filter, expected) in [
        ("name = 'old'", "1"),
        ("n = 1", "1"),
        ("note = 'note of old'", "1"),
        ("size_cm < 2", "1"),
        ("name IN ('old', 'nothing')", "1"),
        ("name LIKE 'o%'", "1"),
        ("NOT (name <> 'old')", "1"),
        ("updated_at <= make_timestamptz(10000)", "1"),
        ("name = 'hot' AND size_cm = 3", "1"),
        ("name = 'new'", "1"),
        ("note IS NULL", "0"),
    ] {
        let answer = scenario.client.query(&format!("SELECT count(*) AS n FROM things WHERE {filter}")).await?;
        assert_eq!(answer.text(), expected, "{filter}");
    }
    Ok(())
}

#[tokio::test]
async fn pages_share_and_lose_no_row() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    // All rows tie on the user's key.
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", (0..60).rev().map(|n| live(n, 10, thing("same", 1))).collect()),
        LakeFile::delta(&entity, "a.parquet", (40..80).map(|n| live(n, 20, thing("same", 1))).collect()),
    ];
    stored.hot = (70..100).map(|n| hot(live(n, 30, thing("same", 1)))).collect();
    let scenario = start(stored).await?;
    for order in ["ORDER BY name", "ORDER BY n DESC, name", "ORDER BY 1"] {
        let mut seen = HashSet::new();
        for page in 0..15 {
            let sql = format!("SELECT name, row_id FROM things {order} LIMIT 7 OFFSET {}", page * 7);
            for row in rows_of(&scenario.client.query(&sql).await?.batches) {
                assert!(seen.insert(row[1].to_string()), "{order}: page {page} repeats a row");
            }
        }
        assert_eq!(seen.len(), 100, "{order}");
    }
    Ok(())
}

#[tokio::test]
async fn tiers_choose_what_is_read() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", vec![live(1, 10, thing("base", 1)), live(2, 10, thing("base", 2))]),
        LakeFile::delta(&entity, "a.parquet", vec![live(1, 20, thing("delta", 1)), live(3, 20, thing("delta", 3))]),
    ];
    stored.hot = vec![hot(live(1, 30, thing("hot", 1))), hot(tombstone(2, 30, thing("dead", 2)))];
    let scenario = start(stored).await?;
    for (tiers, view) in [
        ("hot", View { warm: false, cold: false, ..View::default() }),
        ("warm", View { hot: false, cold: false, ..View::default() }),
        ("cold", View { hot: false, warm: false, ..View::default() }),
        ("warm,cold", View { hot: false, ..View::default() }),
        ("hot,cold", View { warm: false, ..View::default() }),
        ("hot,warm,cold", View::default()),
    ] {
        let client = scenario.client.with_option("tiers", tiers);
        let sql = "SELECT * FROM things";
        scenario.check_with(&client, &scenario.oracle(view)?, sql, sql, Order::Any).await?;
    }
    Ok(())
}

#[tokio::test]
async fn staging_files_are_never_read() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![
        LakeFile::base(&entity, "deeper/and/deeper/a.parquet", vec![live(1, 10, thing("read", 1))]),
        LakeFile::delta(&entity, "_staging/a.parquet", vec![live(1, 20, thing("staged", 1))]),
        LakeFile::delta(&entity, ".hidden/a.parquet", vec![live(1, 20, thing("hidden", 1))]),
        LakeFile::delta(&entity, "x/_a.parquet", vec![live(1, 20, thing("staged name", 1))]),
    ];
    let scenario = start(stored).await?;
    scenario.lake.put_bytes("delta/100/_broken.parquet", b"not Parquet".to_vec()).await?;
    scenario.lake.put_bytes("delta/100/readme.txt", b"not Parquet".to_vec()).await?;
    // The prefix of another entity that begins the same way.
    let mut other = LakeFile::base(&entity, "a.parquet", vec![live(9, 10, thing("of entity 1001", 1))]);
    other.path = "base/1001/a.parquet".to_owned();
    scenario.lake.put(&other).await?;
    assert_eq!(winners(&scenario).await?, "read|cold");
    Ok(())
}

#[tokio::test]
async fn path_templates_take_the_id_or_the_name() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    let mut base = LakeFile::base(&entity, "a", vec![live(1, 10, thing("base", 1)), live(2, 10, thing("base", 2))]);
    base.path = "lake/things/cold/a.parquet".to_owned();
    let mut delta = LakeFile::delta(&entity, "a", vec![live(2, 20, thing("delta", 2))]);
    delta.path = "lake/warm-100/x/a.parquet".to_owned();
    stored.files = vec![base, delta];
    let scenario = Scenario::start_with(vec![stored], LakeKind::Local, |config| {
        config.with("lake", "base", "lake/{schema_name}/cold").with("lake", "delta", "lake/warm-{schema_id}")
    })
    .await?;
    assert_eq!(winners(&scenario).await?, "base|cold\ndelta|warm");
    Ok(())
}

#[tokio::test]
async fn a_column_that_a_file_lacks_is_null() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    let mut old = LakeFile::base(&entity, "a.parquet", vec![live(1, 10, thing("old", 1))]).without("note").without("n");
    old.has_deleted_at = false;
    stored.files = vec![old, LakeFile::base(&entity, "b.parquet", vec![live(2, 10, thing("new", 2))])];
    let scenario = start(stored).await?;
    let answer = scenario.client.query("SELECT name, n, note, size_cm FROM things ORDER BY row_id").await?;
    assert_eq!(answer.text(), "old|NULL|NULL|1\nnew|2|note of new|2");
    assert_eq!(scenario.client.query("SELECT name FROM things WHERE note IS NULL").await?.text(), "old");
    assert_eq!(scenario.client.query("SELECT name FROM things WHERE n = 2").await?.text(), "new");
    Ok(())
}

/// A file that breaks the contract is named with its column, never skipped.
#[tokio::test]
async fn a_file_that_breaks_the_contract_is_named() -> Result<()> {
    let entity = things();
    for column in ["row_id", "created_at", "changed_at"] {
        let scenario = start(Stored::new(&entity)).await?;
        let batch = LakeFile::base(&entity, "a", vec![live(1, 10, thing("x", 1))]).to_batch()?;
        let keep: Vec<usize> =
            (0..batch.num_columns()).filter(|index| batch.schema().field(*index).name() != column).collect();
        let content = write_parquet(&batch.project(&keep)?, 100, true)?;
        scenario.lake.put_bytes("base/100/lacks.parquet", content).await?;
        let failure = scenario.client.refusal("SELECT name FROM things").await;
        failure.expect(failure.code, &["lacks.parquet", column]);
        assert!(!matches!(failure.code, Code::Internal | Code::Unknown), "{failure}");
    }
    // Text where an integer is declared has no lossless cast.
    let text = Entity::new("things", 100).main("name", Kind::Text, "text_01").main("n", Kind::Text, "text_02");
    let scenario = start(Stored::new(&entity)).await?;
    let values = vec![Value::text("x"), Value::text("5")];
    scenario.lake.put(&LakeFile::base(&text, "clash.parquet", vec![live(1, 10, values)])).await?;
    let failure = scenario.client.refusal("SELECT n FROM things").await;
    failure.expect(failure.code, &["clash.parquet", "`n`"]);
    assert!(!matches!(failure.code, Code::Internal | Code::Unknown), "{failure}");
    Ok(())
}

#[tokio::test]
async fn row_ids_of_every_form_are_one_id() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    for (index, form) in [UuidForm::Uuid, UuidForm::Bytes, UuidForm::Text].into_iter().enumerate() {
        let at = 10 + i64::try_from(index)?;
        // Row 0 is in all of them; the last one wins.
        let own = index as u128 + 1;
        let versions = vec![live(0, at, thing(&format!("{form:?}"), 0)), live(own, at, thing(&format!("{form:?}"), 1))];
        let mut file = LakeFile::delta(&entity, &format!("{index}.parquet"), versions);
        file.row_id = form;
        stored.files.push(file);
    }
    stored.hot = vec![hot(live(1, 99, thing("hot", 5)))];
    let scenario = start(stored).await?;
    assert_eq!(winners(&scenario).await?, "Text|warm\nhot|hot\nBytes|warm\nText|warm");
    for number in 0..4 {
        let id = row_id(number).to_string().to_uppercase();
        let answer = scenario.client.query(&format!("SELECT row_id FROM things WHERE row_id = '{id}'")).await?;
        assert_eq!(answer.text(), row_id(number).to_string());
    }
    Ok(())
}

#[tokio::test]
async fn a_dirty_live_row_without_a_main_row_is_left_out_with_a_warning() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![LakeFile::base(&entity, "a.parquet", vec![live(1, 5, thing("stale", 1))])];
    stored.hot = vec![
        HotVersion { version: live(1, 10, thing("lost", 1)), dirty: true, has_main: false },
        hot(live(2, 10, thing("fine", 2))),
    ];
    let scenario = start(stored).await?;
    assert_eq!(winners(&scenario).await?, "fine|hot");
    let warnings = scenario.client.query("SELECT * FROM things").await?.warnings();
    assert!(warnings.iter().any(|warning| warning.contains('1') && warning.contains("entity_main")), "{warnings:?}");
    Ok(())
}

/// One row with a value of every type, from each tier: the same values and the same Arrow schema.
#[tokio::test]
async fn every_type_is_the_same_from_every_tier() -> Result<()> {
    let entity = r#gen::every_type("everything", 7);
    let mut rng = r#gen::rng(11);
    let versions: Vec<Version> = (0..40)
        .map(|number| {
            live(number, 10, entity.attributes.iter().map(|attribute| r#gen::value(&mut rng, attribute)).collect())
        })
        .collect();
    let mut schemas = Vec::new();
    for tier in 0..3 {
        let mut stored = Stored::new(&entity);
        match tier {
            0 => stored.hot = versions.iter().cloned().map(hot).collect(),
            1 => {
                let mut file = LakeFile::delta(&entity, "a.parquet", versions.clone());
                file.timestamps = TimestampForm::Millis;
                file.decimals_as_double = true;
                file.uuids = UuidForm::Text;
                stored.files.push(file);
            }
            _ => stored.files.push(LakeFile::base(&entity, "a.parquet", versions.clone())),
        }
        let scenario = start(stored).await?;
        let oracle = scenario.oracle(View::default())?;
        scenario.check(&oracle, "SELECT * FROM everything", Order::Any).await?;
        schemas.push(scenario.ask(&scenario.client, "SELECT *, _tier FROM everything").await?.schema);
    }
    assert_eq!(schemas[0], schemas[1]);
    assert_eq!(schemas[1], schemas[2]);
    Ok(())
}

#[tokio::test]
async fn several_references_read_one_snapshot_and_join() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![LakeFile::base(&entity, "a.parquet", (0..20).map(|n| live(n, 10, thing("b", 1))).collect())];
    stored.hot = (10..30).map(|n| hot(live(n, 20, thing("h", i32::try_from(n).unwrap_or(0))))).collect();
    let scenario = start(stored).await?;
    let oracle = scenario.oracle(View::default())?;
    for sql in [
        "SELECT a.row_id, b.n FROM things a JOIN things b USING (row_id) WHERE a.name = 'h' AND b.n > 15",
        "SELECT a.row_id, b.row_id AS other FROM things a LEFT JOIN things b ON a.n = b.n AND b.name = 'h'",
        "WITH h AS (SELECT * FROM things WHERE name = 'h'), b AS (SELECT * FROM things WHERE name = 'b') \
         SELECT (SELECT count(*) FROM h) AS h, (SELECT count(*) FROM b) AS b",
        "SELECT name, count(*) AS c, sum(size_cm) AS s FROM things GROUP BY ROLLUP (name)",
        "SELECT name, n, rank() OVER (PARTITION BY name ORDER BY n DESC) AS r FROM things QUALIFY r <= 2",
        "SELECT name FROM things UNION SELECT note FROM things EXCEPT SELECT 'b'",
        "SELECT * FROM thermocline.main.things WHERE things.n IN (SELECT max(n) FROM things GROUP BY name)",
        "FROM things SELECT count(*) AS n WHERE size_cm BETWEEN 5 AND 25",
        "SELECT t.name, r.range FROM things t, range(2) r WHERE t.n = r.range",
        "SELECT v.x, t.name FROM (VALUES (1), (29)) v(x) LEFT JOIN things t ON t.n = v.x AND t.name = 'h'",
    ] {
        let plain = sql.replace("thermocline.main.", "");
        scenario.check_with(&scenario.client, &oracle, sql, &plain, Order::Any).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_empty_entity_has_its_schema() -> Result<()> {
    let scenario = start(Stored::new(&things())).await?;
    let answer = scenario.client.query("SELECT * FROM things").await?;
    assert_eq!(answer.row_count(), 0);
    let names: Vec<&str> = answer.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["row_id", "name", "n", "note", "size_cm", "created_at", "updated_at"]);
    assert_eq!(answer.schema, answer.info_schema);
    assert_eq!(scenario.client.query("SELECT count(*) AS n FROM things").await?.text(), "0");
    Ok(())
}

#[tokio::test]
async fn hidden_columns_come_only_when_named() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![LakeFile::base(&entity, "a.parquet", vec![live(1, 10, thing("base", 1))])];
    stored.hot = vec![hot(live(2, 20, thing("hot", 2)))];
    let scenario = start(stored).await?;
    for (sql, expected) in [
        ("SELECT *, _tier FROM things", 8),
        ("SELECT _deleted_at, * FROM things", 8),
        ("SELECT t.*, t._tier FROM things t WHERE t._tier = 'hot'", 8),
        ("SELECT * FROM things WHERE _tier = 'hot'", 7),
        ("SELECT * FROM things ORDER BY _tier, n LIMIT 1", 7),
        ("SELECT * EXCLUDE (note) FROM things WHERE _deleted_at IS NULL", 6),
        ("SELECT a.*, b._tier FROM things a JOIN things b USING (row_id)", 8),
    ] {
        let answer = scenario.ask(&scenario.client, sql).await?;
        assert_eq!(answer.schema.fields().len(), expected, "{sql}: {:?}", answer.schema);
        assert!(answer.row_count() > 0, "{sql} has no rows");
    }
    Ok(())
}

/// Bounds of a column chunk say nothing of NaN, which is the greatest double.
#[tokio::test]
async fn filters_find_nan_in_files() -> Result<()> {
    let entity = Entity::new("doubles", 1).main("d", Kind::Double, "double_01").eav("e", Kind::Double, 205);
    let row = |n, d: f64| live(n, 10, vec![Value::Double(d), Value::Double(-d)]);
    let mut stored = Stored::new(&entity);
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", vec![row(1, 1.0), row(2, f64::NAN)]),
        LakeFile::base(&entity, "b.parquet", vec![row(3, 3.0)]),
        LakeFile::delta(&entity, "a.parquet", vec![row(4, f64::NAN), row(5, f64::INFINITY), row(6, -0.0)]),
    ];
    let scenario = Scenario::start(vec![stored], LakeKind::Local).await?;
    let oracle = scenario.oracle(View::default())?;
    for column in ["d", "e"] {
        for condition in ["= 'NaN'", "> 5", ">= 4", "<> 1", "IN (3, 'NaN')", "BETWEEN 2 AND 'NaN'", "< 'NaN'", "<= 1"] {
            for not in ["", "NOT "] {
                let sql = format!("SELECT * FROM doubles WHERE {not}({column} {condition})");
                scenario.check(&oracle, &sql, Order::Any).await?;
            }
        }
        let sql = format!("SELECT max({column}) AS most, count(nullif({column}, 'NaN')) AS n FROM doubles");
        scenario.check(&oracle, &sql, Order::Any).await?;
    }
    Ok(())
}
