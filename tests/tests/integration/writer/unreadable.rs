//! Rows with values that don't fit their declared types: they stay dirty and are named, and nothing else waits for them.

use anyhow::{Result, ensure};
use thermocline_tests::model::{Entity, Kind, Value};
use thermocline_tests::oracle::Stored;
use thermocline_tests::scenario::{LakeKind, live, row_id};
use thermocline_tests::server::http_get;
use tonic::Code;

use super::{CATALOGS, command, dirty_rows, hot, rows, start, try_command};

fn entity() -> Entity {
    Entity::new("things", 100)
        .main("name", Kind::Text, "text_01")
        .main("doc", Kind::Json, "text_02")
        .eav("score", Kind::Integer, 205)
        .eav("scores", Kind::SmallInt, 206)
        .list()
}

#[tokio::test]
async fn rows_that_cannot_be_read_hold_nothing_up() -> Result<()> {
    for catalog in CATALOGS {
        let mut stored = Stored::new(&entity());
        let values = |n: i64| {
            let list = Value::List(vec![Value::Integer(n), Value::Integer(1)]);
            vec![Value::text(&format!("name {n}")), Value::text("{}"), Value::Integer(n), list]
        };
        stored.hot = (0..40).map(|n| hot(live(n, 10, values(i64::try_from(n).unwrap_or_default())))).collect();
        let scenario = start(vec![stored], LakeKind::Local, catalog).await?;
        let client = scenario.database.connect().await?;
        let (a, b, c) = (row_id(3), row_id(17), row_id(39));
        client
            .batch_execute(&format!(
                "UPDATE eav_data SET value_numeric = 1.5 WHERE row_id = '{a}' AND attr_id = 205;
                 UPDATE entity_main SET text_02 = '{{' WHERE ltbase_row_id = '{b}';
                 UPDATE eav_data SET value_numeric = 1e6 WHERE row_id = '{c}' AND attr_id = 206 AND array_indices = '1'"
            ))
            .await?;
        let names = "SELECT count(DISTINCT name) AS n FROM things";
        assert_eq!(rows(&scenario.client, names).await?, ["40"]);
        let failure = scenario.client.refusal("SELECT sum(score) FROM things").await;
        assert_eq!(failure.code, Code::Unavailable, "{failure}");
        ensure!(failure.message.contains(&a.to_string()) && failure.message.contains("score"), "{failure}");
        let (_, metrics) = http_get(&scenario.server.admin_address()?, "/metrics").await?;
        ensure!(metrics.lines().any(|line| line.starts_with("fed_query_errors") && line.contains("unreadable_value")));
        ensure!(metrics.contains(r#"fed_unreadable_rows{entity="things"} 3"#), "{metrics}");

        let checked = try_command(&scenario, &["check"]).await?;
        ensure!(checked.stdout.contains("3 dirty rows of `things` can't be read"), "{}", checked.stdout);
        for attempt in 0..2 {
            let flushed = try_command(&scenario, &["flush"]).await?;
            assert_eq!(flushed.code, Some(5), "{}{}", flushed.stdout, flushed.stderr);
            for id in [a, b, c] {
                ensure!(flushed.stderr.contains(&id.to_string()), "{id}: {}", flushed.stderr);
            }
            assert_eq!(dirty_rows(&scenario).await?, 3, "attempt {attempt}");
        }
        assert_eq!(rows(&scenario.client, names).await?, ["40"]);
        assert_eq!(rows(&scenario.client, "SELECT count(*) AS n FROM things WHERE _tier = 'hot'").await?, ["3"]);
        let others = format!("SELECT sum(score) AS s FROM things WHERE row_id NOT IN ('{a}', '{b}', '{c}')");
        assert_eq!(rows(&scenario.client, &others).await?, [(780 - 3 - 17 - 39).to_string()]);

        client
            .batch_execute(
                "UPDATE eav_data SET value_numeric = 2 WHERE value_numeric IN (1.5, 1e6);
                 UPDATE entity_main SET text_02 = '[]' WHERE text_02 = '{'",
            )
            .await?;
        command(&scenario, &["flush"]).await?;
        assert_eq!(dirty_rows(&scenario).await?, 0);
        ensure!(command(&scenario, &["check"]).await?.contains("0 wrong"));
        assert_eq!(rows(&scenario.client, "SELECT sum(score) AS s FROM things").await?, [(780 - 3 + 2).to_string()]);
    }
    Ok(())
}
