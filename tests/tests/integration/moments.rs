//! Moments: rows in memory answer as PostgreSQL would, queries share what was read, and what breaks the rule is found.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::Value as Json;
use thermocline_tests::client::Client;
use thermocline_tests::lake::LakeFile;
use thermocline_tests::model::Value;
use thermocline_tests::oracle::{HotVersion, Order, Stored, View, rows_of};
use thermocline_tests::postgres::{Cluster, TestDatabase};
use thermocline_tests::scenario::{LakeKind, Scenario, live, row_id, tombstone};
use thermocline_tests::server::ServerConfig;
use thermocline_tests::{r#gen, until};
use translator::postgres::{TableNames, cursor_ddl};

use crate::writers::{self, ACCOUNTS, BALANCE, accounts};
use crate::{thing, things};

/// The settings under which rows are kept in memory.
pub(crate) fn mirrored(config: ServerConfig) -> ServerConfig {
    config.with("hot", "mirror", "auto").with("query", "merge", "auto")
}

/// Installs the cursor.
pub(crate) async fn install_cursor(database: &TestDatabase) -> Result<()> {
    let statements = cursor_ddl(&TableNames::default()).join(";\n");
    Ok(database.connect().await?.batch_execute(&format!("BEGIN;\n{statements};\nCOMMIT")).await?)
}

/// How the hot rows of each reference of a plan were read; nothing of one without.
fn accesses(plan: &Json) -> Vec<&str> {
    let references = plan["references"].as_array().into_iter().flatten();
    let sources = references.flat_map(|reference| reference["sources"].as_array().into_iter().flatten());
    sources.filter_map(|source| source["access"].as_str()).collect()
}

/// Asks until rows in memory answer: they are loaded behind the first query.
pub(crate) async fn until_mirrored(client: &Client, sql: &str) -> Result<()> {
    until("rows in memory answer", async || {
        let plan = client.query(sql).await?.final_plan;
        Ok(!plan["moment"].is_null() && accesses(&plan).iter().all(|access| *access == "mirror"))
    })
    .await
}

/// Three tiers of things with what each rule of the merge is about.
fn layers() -> Stored {
    let entity = things();
    let mut stored = Stored::new(&entity);
    let base = (0..12).map(|n| live(n, 10, thing("base", i32::try_from(n).unwrap()))).collect();
    let delta = (2..6).map(|n| live(n, 20, thing("delta", 3))).chain([tombstone(6, 20, thing("gone", 6))]).collect();
    stored.files = vec![LakeFile::base(&entity, "a.parquet", base), LakeFile::delta(&entity, "b.parquet", delta)];
    let hot = |version, has_main| HotVersion { version, dirty: true, has_main };
    stored.hot = vec![
        hot(live(1, 30, thing("hot", 4)), true),
        // Older than its file versions, and it wins all the same.
        hot(live(3, 5, thing("hot", 5)), true),
        hot(tombstone(4, 30, thing("gone", 0)), true),
        hot(tombstone(5, 30, thing("gone", 0)), false),
        hot(live(40, 30, thing("new", 7)), true),
        HotVersion { version: live(8, 10, thing("flushed", 8)), dirty: false, has_main: true },
    ];
    stored
}

const QUERIES: [&str; 9] = [
    "SELECT * FROM things",
    "SELECT count(*) AS c, sum(n) AS s, max(size_cm) AS m FROM things",
    "SELECT name, n, note FROM things WHERE name = 'hot'",
    "SELECT row_id, name FROM things WHERE row_id = '01900000-0000-7000-8000-000000000003'",
    "SELECT row_id, name FROM things WHERE row_id = '01900000-0000-7000-8000-000000000007'",
    "SELECT row_id, note FROM things WHERE row_id > '01900000-0000-7000-8000-000000000003'",
    "SELECT name, n FROM things ORDER BY n DESC, name LIMIT 3",
    "SELECT a.n, b.name FROM things a JOIN things b ON a.n = b.n AND b.name = 'delta'",
    "SELECT name, count(*) AS c FROM things WHERE updated_at > make_timestamptz(4000) GROUP BY name",
];

#[tokio::test]
async fn rows_in_memory_answer_as_postgres_does() -> Result<()> {
    let scenario = Scenario::start_with(vec![layers()], LakeKind::Local, mirrored).await?;
    until_mirrored(&scenario.client, QUERIES[0]).await?;
    let views = [
        ("strict", View::default(), None),
        ("with tombstones", View { include_deleted: true, ..View::default() }, Some(("include_deleted", "true"))),
    ];
    for (name, view, option) in views {
        let oracle = scenario.oracle(view)?;
        let client =
            option.map_or_else(|| scenario.client.clone(), |(key, value)| scenario.client.with_option(key, value));
        for sql in QUERIES {
            scenario.check_with(&client, &oracle, sql, sql, Order::Any).await.context(name)?;
        }
    }
    let plan = scenario.client.query("SELECT * FROM things").await?.final_plan;
    assert_eq!(accesses(&plan), ["mirror"], "{plan:#}");
    assert_eq!(plan["references"][0]["dirty_rows"], 5);
    ensure!(plan["moment"]["id"].as_u64() > Some(0) && plan["moment"]["shared"].as_u64() > Some(0), "{plan:#}");
    ensure!(plan["moment"]["changed_rows"] == 0, "nothing changed: {plan:#}");
    let one = format!("SELECT name FROM things WHERE row_id = '{}'", row_id(3));
    let plan = scenario.client.query(&one).await?.final_plan;
    assert_eq!(plan["references"][0]["dirty_rows"], 1, "of the ids that are asked for");
    // Who asks for hot rows alone gets them from memory too, and who asks for scans gets scans.
    let hot = scenario.client.with_option("tiers", "hot").query("SELECT count(*) AS c FROM things").await?;
    assert_eq!((hot.text().contains('3'), accesses(&hot.final_plan)), (true, vec!["mirror"]), "{}", hot.text());
    let scanned = scenario.client.with_option("hot_scan", "scan").query("SELECT count(*) AS c FROM things").await?;
    assert_eq!(accesses(&scanned.final_plan), ["scan"]);
    Ok(())
}

/// Values of every type, in every tier.
#[tokio::test]
async fn every_type_survives_in_memory() -> Result<()> {
    for seed in 0..3 {
        let entity = r#gen::every_type("everything", 7);
        let stored = r#gen::stored(&mut r#gen::rng(seed), &entity, 60);
        let scenario = Scenario::start_with(vec![stored], LakeKind::Local, mirrored).await?;
        until_mirrored(&scenario.client, "SELECT * FROM everything").await?;
        let oracle = scenario.oracle(View::default())?;
        scenario
            .check(&oracle, "SELECT * FROM everything", Order::Any)
            .await
            .with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn writes_show_at_once_with_and_without_the_cursor() -> Result<()> {
    for with_cursor in [false, true] {
        let scenario = Scenario::start_with(vec![layers()], LakeKind::Local, mirrored).await?;
        if with_cursor {
            install_cursor(&scenario.database).await?;
        }
        let sql = "SELECT row_id, name FROM things";
        until_mirrored(&scenario.client, sql).await?;
        let writer = scenario.database.connect().await?;
        let name = |n: u128| {
            let (client, sql) =
                (&scenario.client, format!("SELECT name, _tier FROM things WHERE row_id = '{}'", row_id(n)));
            async move { Ok::<_, anyhow::Error>(client.query(&sql).await?.text()) }
        };
        for round in 0..5 {
            let id = row_id(if round % 2 == 0 { 1 } else { 9 });
            writer
                .batch_execute(&format!(
                    "BEGIN; INSERT INTO entity_main (ltbase_schema_id, ltbase_row_id, text_01, ltbase_created_at, ltbase_updated_at) \
                     VALUES (100, '{id}', 'w{round}', 1, 1) ON CONFLICT (ltbase_schema_id, ltbase_row_id) DO UPDATE SET text_01 = 'w{round}'; \
                     INSERT INTO change_log (schema_id, row_id, changed_at) VALUES (100, '{id}', {}) \
                     ON CONFLICT (schema_id, row_id, flushed_at) DO UPDATE SET changed_at = excluded.changed_at; COMMIT",
                    100 + round
                ))
                .await?;
            let text = name(if round % 2 == 0 { 1 } else { 9 }).await?;
            ensure!(text.contains(&format!("w{round}")) && text.contains("hot"), "round {round}: {text}");
        }
        // What is rolled back never shows.
        writer.batch_execute("BEGIN; UPDATE change_log SET changed_at = 999 WHERE schema_id = 100; ROLLBACK").await?;
        // A delete whose row is gone, a flush, and a row that is dirty anew beside its flushed entry.
        writer
            .batch_execute(&format!(
                "BEGIN; DELETE FROM entity_main WHERE ltbase_row_id = '{0}'; \
                 UPDATE change_log SET deleted_at = 200, changed_at = 200 WHERE row_id = '{0}' AND flushed_at = 0; COMMIT; \
                 UPDATE change_log SET flushed_at = 300 WHERE row_id = '{1}' AND flushed_at = 0",
                row_id(9),
                row_id(40)
            ))
            .await?;
        assert!(!name(9).await?.contains("w3"), "deleted");
        assert!(!name(40).await?.contains("new"), "flushed, and no file has it");
        writer
            .batch_execute(&format!(
                "INSERT INTO change_log (schema_id, row_id, changed_at) VALUES (100, '{}', 400)",
                row_id(40)
            ))
            .await?;
        assert!(name(40).await?.contains("new"), "dirty anew");
        // Entries that are deleted, and all of them at once.
        writer.execute("DELETE FROM change_log WHERE row_id = $1", &[&row_id(40)]).await?;
        assert!(!name(40).await?.contains("new"), "no longer dirty");
        writer.batch_execute("TRUNCATE change_log").await?;
        let answer = scenario.client.query("SELECT count(*) AS c FROM things WHERE _tier = 'hot'").await?;
        assert!(answer.text().contains('0'), "{}", answer.text());
        assert!(!answer.final_plan["moment"].is_null(), "moments went on: {:#}", answer.final_plan);
    }
    Ok(())
}

/// With the cursor a moment reads what changed and nothing else.
#[tokio::test]
async fn the_cursor_makes_moments_small() -> Result<()> {
    let scenario = Scenario::start_with(vec![layers()], LakeKind::Local, mirrored).await?;
    install_cursor(&scenario.database).await?;
    until_mirrored(&scenario.client, "SELECT * FROM things").await?;
    let before = scenario.database.statements()?.len();
    scenario.client.query("SELECT * FROM things").await?;
    let statements = scenario.database.statements()?;
    let of_server: Vec<&str> = statements[before..].iter().map(|statement| statement.sql.as_str()).collect();
    ensure!(of_server.iter().any(|sql| sql.contains("changed_tx")), "{of_server:#?}");
    ensure!(!of_server.iter().any(|sql| sql.contains("SELECT c.row_id, c.xmin, c.ctid")), "{of_server:#?}");
    // A trigger that was off for a while: the whole set is compared again.
    let writer = scenario.database.connect().await?;
    writer
        .batch_execute(&format!(
            "ALTER TABLE change_log DISABLE TRIGGER change_log_stamp; \
             UPDATE change_log SET changed_at = 500 WHERE row_id = '{0}' AND flushed_at = 0; \
             UPDATE entity_main SET text_01 = 'unseen' WHERE ltbase_row_id = '{0}'; \
             ALTER TABLE change_log ENABLE ALWAYS TRIGGER change_log_stamp",
            row_id(1)
        ))
        .await?;
    let sql = format!("SELECT name FROM things WHERE row_id = '{}'", row_id(1));
    assert!(scenario.client.query(&sql).await?.text().contains("unseen"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_share_few_transactions() -> Result<()> {
    let scenario = Scenario::start_with(vec![layers()], LakeKind::Local, mirrored).await?;
    until_mirrored(&scenario.client, "SELECT * FROM things").await?;
    let before = scenario.database.statements()?.len();
    let (clients, rounds) = (16, 10);
    let sql = format!("SELECT name FROM things WHERE row_id = '{}'", row_id(1));
    let asking = (0..clients).map(|_| {
        let (endpoint, sql) = (scenario.server.endpoint().to_owned(), sql.clone());
        tokio::spawn(async move {
            let client = Client::connect(&endpoint).await?;
            for _ in 0..rounds {
                let answer = client.query(&sql).await?;
                ensure!(answer.text().contains("hot"), "{}", answer.text());
            }
            anyhow::Ok(())
        })
    });
    for asked in futures::future::join_all(asking).await {
        asked??;
    }
    let statements = scenario.database.statements()?;
    let begun = statements[before..].iter().filter(|statement| statement.sql.starts_with("BEGIN")).count();
    // Each query is planned for GetFlightInfo and again for DoGet.
    let asked = clients * rounds * 2;
    ensure!(begun * 2 < asked, "{begun} transactions for {asked} plans");
    let rows = statements[before..].iter().filter(|statement| statement.sql.contains("ltbase_created_at")).count();
    assert_eq!(rows, 0, "nothing changed, and no row was read");
    let shared = scenario.client.query("SELECT sum(shared)::BIGINT AS s, count(*) AS c FROM system.moments").await?;
    let counts: Vec<u64> = rows_of(&shared.batches)[0].iter().map(|cell| cell.to_string().parse().unwrap()).collect();
    ensure!(counts[0] > counts[1], "queries share moments: {counts:?}");
    let metrics = scenario.server.metrics().await?;
    ensure!(metrics.contains("fed_moment_queries") && metrics.contains("fed_mirror_rows"), "{metrics}");
    Ok(())
}

/// Something that writes values without the change log is found, told, and never believed again.
#[tokio::test]
async fn an_application_that_breaks_the_rule_is_found() -> Result<()> {
    let scenario = Scenario::start_with(vec![layers()], LakeKind::Local, |config| {
        mirrored(config).with("hot", "audit_interval", "100ms")
    })
    .await?;
    let sql = format!("SELECT note FROM things WHERE row_id = '{}'", row_id(1));
    until_mirrored(&scenario.client, &sql).await?;
    let writer = scenario.database.connect().await?;
    writer
        .execute(
            "UPDATE eav_data SET value_text = 'behind the back' WHERE row_id = $1 AND attr_id = 201",
            &[&row_id(1)],
        )
        .await?;
    until("the audit switches the copy off", async || {
        let off = scenario.client.query("SELECT source, reason FROM system.health WHERE status = 'off'").await?;
        Ok(off.text().contains("mirror of things"))
    })
    .await?;
    let answer = scenario.client.query(&sql).await?;
    ensure!(answer.text().contains("behind the back"), "{}", answer.text());
    ensure!(answer.warnings().iter().any(|warning| warning.contains("an audit found")), "{:?}", answer.warnings());
    ensure!(answer.final_plan["moment"].is_null(), "{:#}", answer.final_plan);
    ensure!(scenario.server.log()?.contains("their copy is switched off"), "the log tells");
    ensure!(scenario.server.metrics().await?.contains("fed_mirror_audits"), "a metric tells");
    Ok(())
}

#[tokio::test]
async fn what_does_not_fit_or_cannot_be_read_is_read_by_each_query() -> Result<()> {
    let scenario = Scenario::start_with(vec![layers()], LakeKind::Local, |config| {
        mirrored(config).with("hot", "memory_limit", "1KiB")
    })
    .await?;
    let oracle = scenario.oracle(View::default())?;
    for _ in 0..3 {
        scenario.check(&oracle, QUERIES[0], Order::Any).await?;
    }
    until("the limit is told", async || Ok(scenario.server.log()?.contains("beyond hot.memory_limit"))).await?;
    let plan = scenario.client.query(QUERIES[0]).await?.final_plan;
    assert_eq!(accesses(&plan), ["copy"]);

    // A value that is no number of its type: only queries that need the attribute meet it.
    let entity = thermocline_tests::model::Entity::new("counts", 101)
        .main("name", thermocline_tests::model::Kind::Text, "text_01")
        .eav("whole", thermocline_tests::model::Kind::BigInt, 1);
    let mut stored = Stored::new(&entity);
    stored.hot = vec![HotVersion {
        version: live(1, 1, vec![Value::text("a"), Value::Integer(5)]),
        dirty: true,
        has_main: true,
    }];
    let scenario = Scenario::start_with(vec![stored], LakeKind::Local, mirrored).await?;
    until_mirrored(&scenario.client, "SELECT whole FROM counts").await?;
    let writer = scenario.database.connect().await?;
    writer
        .batch_execute("BEGIN; UPDATE eav_data SET value_numeric = 0.5; UPDATE change_log SET changed_at = 2; COMMIT")
        .await?;
    let refused = scenario.client.refusal("SELECT whole FROM counts").await;
    ensure!(refused.message.contains("attribute `whole`"), "{refused}");
    until_mirrored(&scenario.client, "SELECT name FROM counts").await?;
    let refused = scenario.client.refusal("SELECT whole FROM counts").await;
    ensure!(refused.message.contains("attribute `whole`"), "{refused}");
    Ok(())
}

/// A restart goes on; tables that were put back from a dump, and a promoted standby, begin anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_history_is_never_combined_with_this_one() -> Result<()> {
    let cluster = Cluster::start().await?;
    let database = TestDatabase::create_in(&cluster).await?;
    let scenario = Scenario::start_on(database, vec![layers()], LakeKind::Local, mirrored).await?;
    let sql = "SELECT name FROM things WHERE _tier = 'hot' ORDER BY name";
    until_mirrored(&scenario.client, sql).await?;
    let expected = scenario.client.query(sql).await?.text();
    cluster.stop()?;
    cluster.restart().await?;
    until("the server has reconnected", async || Ok(scenario.client.query(sql).await.is_ok())).await?;
    assert_eq!(scenario.client.query(sql).await?.text(), expected);
    // As a dump that is restored: the same rows in other tables, but for one.
    let writer = scenario.database.connect().await?;
    writer
        .batch_execute(&format!(
            "BEGIN; CREATE TABLE other (LIKE change_log INCLUDING ALL); \
             INSERT INTO other SELECT * FROM change_log WHERE row_id <> '{}'; DROP TABLE change_log; \
             ALTER TABLE other RENAME TO change_log; COMMIT",
            row_id(40)
        ))
        .await?;
    assert!(!scenario.client.query(sql).await?.text().contains("new"));
    until_mirrored(&scenario.client, sql).await?;
    assert!(!scenario.client.query(sql).await?.text().contains("new"));
    Ok(())
}

/// Transfers keep the sum of all balances, in every moment and whoever asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_one_answer_are_of_one_moment() -> Result<()> {
    let entity = accounts();
    let mut stored = Stored::new(&entity);
    let start = |n| live(n, 1, vec![Value::Integer(BALANCE), Value::Integer(0)]);
    stored.files = vec![LakeFile::base(&entity, "a.parquet", (0..ACCOUNTS).map(start).collect())];
    stored.hot = (0..ACCOUNTS).map(|n| HotVersion { version: start(n), dirty: false, has_main: true }).collect();
    let scenario = Arc::new(Scenario::start_with(vec![stored], LakeKind::Local, mirrored).await?);
    install_cursor(&scenario.database).await?;
    let sql = "SELECT sum(balance)::BIGINT AS s, count(*) AS c, sum(transfers)::BIGINT AS t FROM accounts";
    let (stop, clock) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(1_000)));
    let writer = {
        let (scenario, stop, clock) = (Arc::clone(&scenario), Arc::clone(&stop), Arc::clone(&clock));
        tokio::spawn(async move { writers::transfer_until(&scenario.database, &stop, &clock).await })
    };
    until_mirrored(&scenario.client, sql).await?;
    let readers = (0..4).map(|_| {
        let scenario = Arc::clone(&scenario);
        tokio::spawn(async move {
            let client = Client::connect(scenario.server.endpoint()).await?;
            let mut seen = 0;
            for _ in 0..40 {
                let answer = client.query(sql).await?;
                let cells = &rows_of(&answer.batches)[0];
                let row: Vec<i64> = cells.iter().map(|cell| cell.to_string().parse().unwrap()).collect();
                let whole = row[0] == BALANCE * i64::try_from(ACCOUNTS)? && row[1] == i64::try_from(ACCOUNTS)?;
                // Every transfer counts on both sides, and nobody sees less than before.
                ensure!(whole && row[2] % 2 == 0 && row[2] >= seen, "{row:?} after {seen}: {:#}", answer.final_plan);
                seen = row[2];
            }
            Ok(seen)
        })
    });
    for reader in futures::future::join_all(readers).await {
        ensure!(reader?? > 0, "the race was no race");
    }
    stop.store(true, Ordering::Release);
    writer.await??;
    Ok(())
}
