//! The strategy `positions` and the version index behind it.

use std::path::Path;

use anyhow::{Result, ensure};
use rand::Rng;
use serde_json::Value as Json;
use thermocline_tests::client::Client;
use thermocline_tests::r#gen;
use thermocline_tests::lake::{LakeFile, UuidForm};
use thermocline_tests::model::Version;
use thermocline_tests::oracle::{HotVersion, Oracle, Order, Stored, View, compare};
use thermocline_tests::postgres::HotRow;
use thermocline_tests::scenario::{LakeKind, Scenario, live, row_id, tombstone};
use thermocline_tests::server::{Server, ServerConfig};

use crate::strategies::wait_for_merge;
use crate::{is_long, thing, things};

/// Servers over the same data, each of which merges in its own way.
struct Strategies {
    scenario: Scenario,
    clients: Vec<(&'static str, Client)>,
    _servers: Vec<Server>,
}

const STRATEGIES: [&str; 3] = ["positions", "layered", "window"];

impl Strategies {
    async fn start(stored: Vec<Stored>) -> Result<Self> {
        let entities: Vec<_> = stored.iter().map(|stored| stored.entity.clone()).collect();
        let scenario = Scenario::start(stored, LakeKind::Local).await?;
        let (mut clients, mut servers) = (vec![("auto", scenario.client.clone())], Vec::new());
        for strategy in STRATEGIES {
            let config = ServerConfig::new(&scenario.database, &scenario.lake, &entities);
            let server = config.with("query", "merge", strategy).start().await?;
            clients.push((strategy, Client::connect(server.endpoint()).await?));
            servers.push(server);
        }
        Ok(Self { scenario, clients, _servers: servers })
    }

    /// All servers give the oracle's answer, and merge as they are told to.
    async fn check(&self, oracle: &Oracle, options: &[(&str, &str)], sql: &str) -> Result<()> {
        let expected = oracle.query(sql)?;
        for (strategy, client) in &self.clients {
            let client = options.iter().fold(client.clone(), |client, (name, value)| client.with_option(name, value));
            let answer = self.scenario.ask(&client, sql).await?;
            let plan = &answer.final_plan;
            let named = |error: anyhow::Error| error.context(format!("{strategy}, {options:?}: {sql}\n{plan:#}"));
            compare(&expected, &answer.schema, &answer.batches, Order::Any).map_err(named)?;
            for reference in plan["references"].as_array().into_iter().flatten() {
                let merge = reference["merge"]["strategy"].as_str().unwrap_or_default();
                let others: &[&str] = match *strategy {
                    "positions" => &["layered", "window"],
                    "layered" => &["positions"],
                    "window" => &["positions", "layered"],
                    _ => &[],
                };
                ensure!(!others.contains(&merge), "{strategy} merges by {merge}: {plan:#}");
            }
        }
        Ok(())
    }
}

/// Random data that proves nothing (rows twice within and across base files, base newer than delta, ties, tombstones
/// anywhere, ids in every form) under every choice of tiers, by each strategy.
#[tokio::test]
async fn all_strategies_give_the_oracles_rows() -> Result<()> {
    let mut failures = Vec::new();
    for seed in if is_long() { 300..330 } else { 300..302 } {
        let mut rng = r#gen::rng(seed);
        let entity = r#gen::entity(&mut rng, "lefts", 1);
        let mut stored = r#gen::stored(&mut rng, &entity, 60);
        for file in &mut stored.files {
            // The same row twice in a file, older, newer or of the same age.
            let again: Vec<Version> = file.versions.iter().filter(|_| rng.random_bool(0.2)).cloned().collect();
            for mut version in again {
                version.changed_at += rng.random_range(-1..=1);
                version.created_at += 1;
                file.versions.push(version);
            }
        }
        let strategies = Strategies::start(vec![stored]).await?;
        for choice in 1..8u8 {
            let view = View {
                hot: choice & 1 != 0,
                warm: choice & 2 != 0,
                cold: choice & 4 != 0,
                include_deleted: rng.random(),
            };
            let tiers = [(view.hot, "hot"), (view.warm, "warm"), (view.cold, "cold")];
            let tiers: Vec<&str> = tiers.into_iter().filter_map(|(is_read, tier)| is_read.then_some(tier)).collect();
            let (tiers, include_deleted) = (tiers.join(","), view.include_deleted.to_string());
            let options = [("tiers", tiers.as_str()), ("include_deleted", include_deleted.as_str())];
            let oracle = strategies.scenario.oracle(view)?;
            let mut queries = vec!["SELECT * FROM lefts".to_owned(), "SELECT count(*) AS c FROM lefts".to_owned()];
            for depth in 0..3 {
                let predicate = r#gen::predicate(&mut rng, &entity, "a", depth);
                queries.push(format!("SELECT * FROM lefts a WHERE {predicate}"));
            }
            let ids: Vec<String> = (0..3).map(|_| format!("'{}'", row_id(rng.random_range(0..70)))).collect();
            queries.push(format!("SELECT * FROM lefts WHERE row_id IN ({})", ids.join(", ")));
            queries.push(format!("SELECT * FROM lefts WHERE row_id = {}", ids[0]));
            for sql in &queries {
                if let Err(error) = strategies.check(&oracle, &options, sql).await {
                    failures.push(format!("seed {seed}, {view:?}: {error:#}"));
                }
            }
        }
    }
    let first: Vec<&str> = failures.iter().take(4).map(String::as_str).collect();
    ensure!(failures.is_empty(), "{} failures; the first:\n{}", failures.len(), first.join("\n\n"));
    Ok(())
}

fn versions(rows: std::ops::Range<u128>, changed_at: i64, name: &str) -> Vec<Version> {
    rows.map(|n| live(n, changed_at, thing(name, i32::try_from(n % 10).unwrap()))).collect()
}

fn stored() -> Stored {
    let entity = things();
    let mut stored = Stored::new(&entity);
    let mut delta = versions(10..20, 20, "delta");
    delta.push(tombstone(5, 20, thing("dead", 0)));
    let mut base = LakeFile::base(&entity, "a.parquet", versions(0..50, 10, "base"));
    base.rows_per_group = 7;
    let mut newer = LakeFile::base(&entity, "b.parquet", versions(40..90, 30, "newer base"));
    newer.row_id = UuidForm::Text;
    stored.files = vec![base, newer, LakeFile::delta(&entity, "a.parquet", delta)];
    stored.hot = vec![
        HotVersion { version: live(7, 5, thing("hot", 1)), dirty: true, has_main: true },
        HotVersion { version: tombstone(60, 30, thing("gone", 1)), dirty: true, has_main: false },
    ];
    stored
}

const QUERIES: [&str; 7] = [
    "SELECT * FROM things",
    "SELECT count(*) AS c, sum(n) AS s FROM things",
    "SELECT name, n FROM things WHERE name = 'base'",
    "SELECT name, n FROM things WHERE n BETWEEN 3 AND 8 AND note LIKE 'note%'",
    "SELECT name, n FROM things WHERE updated_at < make_timestamptz(15000)",
    "SELECT a.n, b.name FROM things a LEFT JOIN things b ON a.row_id = b.row_id AND b.name = 'delta'",
    "SELECT name, count(*) AS c FROM things GROUP BY name",
];

async fn check_all(scenario: &Scenario, client: &Client) -> Result<()> {
    let oracle = scenario.oracle(View::default())?;
    for sql in QUERIES {
        scenario.check_with(client, &oracle, sql, sql, Order::Any).await?;
    }
    Ok(())
}

fn source<'a>(plan: &'a Json, tier: &str) -> &'a Json {
    let sources = plan["references"][0]["sources"].as_array().expect("sources");
    sources.iter().find(|source| source["tier"] == tier).unwrap_or_else(|| panic!("no {tier} source in {plan:#}"))
}

#[tokio::test]
async fn positions_are_used_once_they_are_known() -> Result<()> {
    let scenario = Scenario::start(vec![stored()], LakeKind::Local).await?;
    check_all(&scenario, &scenario.client).await?;
    let plan = wait_for_merge(&scenario, |merge| merge["strategy"] == "positions").await?;
    check_all(&scenario, &scenario.client).await?;
    // Of base ten rows are newer in another base file, ten in delta, one is deleted there, and two are dirty.
    assert_eq!(source(&plan, "cold")["hidden_rows"], 23, "{plan:#}");
    assert_eq!(source(&plan, "cold")["anti_join_files"], 0, "{plan:#}");
    let statement = plan["statement"].as_str().expect("a statement");
    assert!(!statement.contains("JOIN") && !statement.contains("QUALIFY"), "{statement}");
    // A row is read where its winner stands, and nowhere else.
    for (n, route, cold, warm, answer) in [
        (5, "lake", 0, 0, ""),
        (10, "lake", 0, 1, "delta"),
        (6, "lake", 1, 0, "base"),
        (7, "hot", 0, 0, "hot"),
        (45, "lake", 1, 0, "newer base"),
        (60, "hot", 0, 0, ""),
        (777, "lake", 0, 0, ""),
    ] {
        let found = scenario.client.query(&format!("SELECT name FROM things WHERE row_id = '{}'", row_id(n))).await?;
        let plan = &found.final_plan;
        assert_eq!(found.text(), answer, "row {n}: {plan:#}");
        assert_eq!(plan["route"], route, "row {n}: {plan:#}");
        for (tier, rows) in [("cold", cold), ("warm", warm)] {
            assert_eq!(source(plan, tier)["files_scanned"], rows, "row {n}: {plan:#}");
            assert_eq!(source(plan, tier)["row_estimate"], rows, "row {n}: {plan:#}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn files_that_come_and_go_are_followed() -> Result<()> {
    let entity = things();
    let mut scenario = Scenario::start(vec![stored()], LakeKind::Local).await?;
    wait_for_merge(&scenario, |merge| merge["strategy"] == "positions").await?;
    let mut newest = versions(15..45, 40, "newest");
    newest.push(tombstone(80, 40, thing("dead", 0)));
    scenario.add_file(LakeFile::delta(&entity, "b.parquet", newest)).await?;
    check_all(&scenario, &scenario.client).await?;
    wait_for_merge(&scenario, |merge| merge["strategy"] == "positions").await?;
    check_all(&scenario, &scenario.client).await?;
    let gone = scenario.stored[0].files.remove(1);
    scenario.lake.delete(&gone.path).await?;
    check_all(&scenario, &scenario.client).await?;
    wait_for_merge(&scenario, |merge| merge["strategy"] == "positions").await?;
    check_all(&scenario, &scenario.client).await?;
    // Rows become dirty and are flushed meanwhile.
    let dirty = HotVersion { version: live(30, 50, thing("hot again", 3)), dirty: true, has_main: true };
    let row = HotRow { version: &dirty.version, dirty: true, has_main: true };
    scenario.database.write(&entity, &[row]).await?;
    scenario.stored[0].hot.push(dirty);
    check_all(&scenario, &scenario.client).await?;
    assert_eq!(indexes(&scenario.server.dir().join("versions"))?.len(), 3);
    Ok(())
}

fn indexes(directory: &Path) -> Result<Vec<std::path::PathBuf>> {
    Ok(std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?)
}

/// A restart finds the indexes of before; damaged ones are noticed, and built anew behind right answers.
#[tokio::test]
async fn a_restart_is_warm_and_damage_is_noticed() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let scenario = Scenario::start_with(vec![stored()], LakeKind::Local, |config| {
        config.with("cache", "directory", directory.path().display().to_string())
    })
    .await?;
    wait_for_merge(&scenario, |merge| merge["strategy"] == "positions").await?;
    let again = async || -> Result<(Server, Client)> {
        let config = ServerConfig::new(&scenario.database, &scenario.lake, &[things()]).with(
            "cache",
            "directory",
            directory.path().display().to_string(),
        );
        let server = config.start().await?;
        let client = Client::connect(server.endpoint()).await?;
        Ok((server, client))
    };
    let (server, client) = again().await?;
    let first = client.query("SELECT count(*) AS c FROM things").await?;
    assert_eq!(first.final_plan["references"][0]["merge"]["strategy"], "positions", "{:#}", first.final_plan);
    check_all(&scenario, &client).await?;
    drop((server, client));
    for path in indexes(directory.path())? {
        let mut bytes = std::fs::read(&path)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        std::fs::write(&path, bytes)?;
    }
    let (server, client) = again().await?;
    check_all(&scenario, &client).await?;
    let is_known = async || -> Result<bool> {
        let plan = client.query("SELECT * FROM things").await?.final_plan;
        Ok(plan["references"][0]["merge"]["strategy"] == "positions")
    };
    thermocline_tests::until("positions are known again", is_known).await?;
    check_all(&scenario, &client).await?;
    ensure!(server.log()?.contains("built anew"), "{}", server.log()?);
    Ok(())
}

/// A directory that can't be made costs the index and no answer.
#[tokio::test]
async fn without_a_directory_for_the_index_queries_are_answered() -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    let scenario = Scenario::start_with(vec![stored()], LakeKind::Local, |config| {
        config.with("cache", "directory", file.path().join("below").display().to_string())
    })
    .await?;
    check_all(&scenario, &scenario.client).await?;
    thermocline_tests::until("the server says so", async || Ok(scenario.server.log()?.contains("cannot index a file")))
        .await?;
    check_all(&scenario, &scenario.client).await
}
