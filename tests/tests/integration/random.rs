//! Random data and random queries against the oracle. A failure names its seed: `THERMOCLINE_TEST_SEED=7 cargo xtask test
//! random` runs that one alone.

use anyhow::{Context, Result};
use rand::Rng;
use thermocline_tests::client::Client;
use thermocline_tests::model::Entity;
use thermocline_tests::oracle::{Oracle, Order, Stored, View, compare};
use thermocline_tests::scenario::{LakeKind, Scenario};
use thermocline_tests::server::{Server, ServerConfig};
use thermocline_tests::{r#gen, shrink};

use crate::is_long;

fn seeds(short: std::ops::Range<u64>, long: std::ops::Range<u64>) -> Result<Vec<u64>> {
    if let Some(seed) = std::env::var_os("THERMOCLINE_TEST_SEED") {
        let seed = seed.to_str().context("the seed is no text")?;
        return Ok(vec![seed.parse().context("the seed is no number")?]);
    }
    Ok(if is_long() { long.collect() } else { short.collect() })
}

/// Stored data behind two servers, one of which pushes no condition down.
struct Pair {
    scenario: Scenario,
    unpushing: Client,
    oracle: Oracle,
    _server: Server,
}

/// What a run has shown.
#[derive(Default)]
struct Counts {
    asked: usize,
    predicates: usize,
    /// Queries of which PostgreSQL or the choice of files got a condition.
    pushed: usize,
}

impl Pair {
    async fn start(stored: Vec<Stored>, kind: LakeKind) -> Result<Self> {
        let entities: Vec<Entity> = stored.iter().map(|stored| stored.entity.clone()).collect();
        let scenario = Scenario::start(stored, kind).await?;
        let config = ServerConfig::new(&scenario.database, &scenario.lake, &entities);
        let server = config.with("query", "pushdown", false).start().await?;
        let unpushing = Client::connect(server.endpoint()).await?;
        let oracle = scenario.oracle(View::default())?;
        Ok(Self { scenario, unpushing, oracle, _server: server })
    }

    /// Both servers give the oracle's answer, and one of them without any push-down.
    async fn check(&self, sql: &str, order: Order, counts: &mut Counts) -> Result<()> {
        let expected = self.oracle.query(sql)?;
        for (client, pushes) in [(&self.scenario.client, true), (&self.unpushing, false)] {
            let answer = self.scenario.ask(client, sql).await?;
            compare(&expected, &answer.schema, &answer.batches, order).with_context(|| {
                let statement = answer.plan["statement"].as_str().unwrap_or("none");
                format!("{sql}\npush-down: {pushes}\nstatement: {statement}")
            })?;
            let is_pushed = pushed(&answer.plan);
            anyhow::ensure!(pushes || !is_pushed, "{sql}\npushed all the same: {}", answer.plan);
            counts.pushed += usize::from(is_pushed);
        }
        counts.asked += 1;
        Ok(())
    }

    /// A failure for the report, made as small as it gets.
    async fn failure(&self, name: &str, sql: &str, order: Order, error: &anyhow::Error) -> Result<String> {
        // A smaller query that the oracle takes and that still fails.
        let fails = async |smaller: &str| {
            self.oracle.query(smaller).is_ok() && self.check(smaller, order, &mut Counts::default()).await.is_err()
        };
        let smallest = shrink::smallest(sql, fails).await?;
        Ok(format!("{name}: {error:#}\nsmallest: {smallest}"))
    }
}

fn progress(seed: u64, counts: &Counts) {
    let Counts { asked, predicates, pushed } = counts;
    eprintln!(
        "seed {seed}: by now {asked} queries, {pushed} with something pushed down; {predicates} predicates alone"
    );
}

/// Whether a source of the plan has got a condition.
fn pushed(plan: &serde_json::Value) -> bool {
    let references = plan["references"].as_array().into_iter().flatten();
    let mut sources = references.flat_map(|reference| reference["sources"].as_array().into_iter().flatten());
    sources.any(|source| source["pushed"].as_array().is_some_and(|pushed| !pushed.is_empty()))
}

/// Whole queries over two random entities with versions in every tier, with push-down and without.
#[tokio::test]
async fn random_queries_equal_the_oracle() -> Result<()> {
    let (mut failures, mut counts) = (Vec::new(), Counts::default());
    for seed in seeds(0..4, 0..60)? {
        let mut rng = r#gen::rng(seed);
        let left = r#gen::entity(&mut rng, "lefts", 1);
        let right = r#gen::entity(&mut rng, "rights", 2);
        let stored = vec![r#gen::stored(&mut rng, &left, 40), r#gen::stored(&mut rng, &right, 25)];
        let kind = if seed % 4 == 3 { LakeKind::S3 } else { LakeKind::Local };
        let pair = Pair::start(stored, kind).await.with_context(|| format!("seed {seed}"))?;
        for number in 0..40 {
            let query = r#gen::query(&mut rng, &left, &right);
            let order = if query.ordered { Order::Exact } else { Order::Any };
            if let Err(error) = pair.check(&query.sql, order, &mut counts).await {
                let name = format!("seed {seed}, query {number}");
                failures.push(pair.failure(&name, &query.sql, order, &error).await?);
            }
        }
        progress(seed, &counts);
    }
    report(&failures)?;
    anyhow::ensure!(counts.pushed * 2 > counts.asked, "only {} of {} queries push", counts.pushed, counts.asked);
    Ok(())
}

/// Single predicates over every type, with push-down and without: each row says for itself whether it passes.
#[tokio::test]
async fn random_predicates_equal_the_oracle() -> Result<()> {
    let (mut failures, mut counts) = (Vec::new(), Counts::default());
    for seed in seeds(100..102, 100..140)? {
        let mut rng = r#gen::rng(seed);
        let entity = r#gen::every_type("everything", 7);
        let stored = r#gen::stored(&mut rng, &entity, 50);
        let pair = Pair::start(vec![stored], LakeKind::Local).await.with_context(|| format!("seed {seed}"))?;
        let (count, together) = if is_long() { (500, 10) } else { (120, 1) };
        let predicates: Vec<String> = (0..count)
            .map(|_| {
                let depth = rng.random_range(0..3);
                r#gen::predicate(&mut rng, &entity, "a", depth)
            })
            .collect();
        for (chunk, batch) in predicates.chunks(together).enumerate() {
            // Each has a reference of its own in a query of many.
            let of = |number: usize, predicate| {
                format!("SELECT {number} AS n, a.row_id FROM everything a WHERE {predicate}")
            };
            let all: Vec<String> = batch.iter().enumerate().map(|(at, predicate)| of(at, predicate)).collect();
            if let Err(error) = pair.check(&all.join(" UNION ALL "), Order::Any, &mut counts).await {
                let name = format!("seed {seed}, predicates from {}", chunk * together);
                failures.push(pair.failure(&name, &all.join(" UNION ALL "), Order::Any, &error).await?);
            }
            counts.predicates += batch.len();
        }
        progress(seed, &counts);
    }
    report(&failures)
}

/// Random data under every choice of tiers, with and without tombstones.
#[tokio::test]
async fn random_views_equal_the_oracle() -> Result<()> {
    let mut failures = Vec::new();
    for seed in seeds(200..203, 200..240)? {
        let mut rng = r#gen::rng(seed);
        let entity = r#gen::entity(&mut rng, "lefts", 1);
        let stored = r#gen::stored(&mut rng, &entity, 60);
        let scenario = Scenario::start(vec![stored], LakeKind::Local).await.with_context(|| format!("seed {seed}"))?;
        for choice in 1..8u8 {
            for include_deleted in [false, true] {
                let view = View { hot: choice & 1 != 0, warm: choice & 2 != 0, cold: choice & 4 != 0, include_deleted };
                let tiers: Vec<&str> = [(view.hot, "hot"), (view.warm, "warm"), (view.cold, "cold")]
                    .into_iter()
                    .filter_map(|(is_read, tier)| is_read.then_some(tier))
                    .collect();
                let client = scenario
                    .client
                    .with_option("tiers", &tiers.join(","))
                    .with_option("include_deleted", &include_deleted.to_string());
                let oracle = scenario.oracle(view)?;
                let filtered = format!("SELECT * FROM lefts a WHERE {}", r#gen::predicate(&mut rng, &entity, "a", 1));
                for sql in ["SELECT * FROM lefts", &filtered] {
                    if let Err(error) = scenario.check_with(&client, &oracle, sql, sql, Order::Any).await {
                        failures.push(format!("seed {seed}, {view:?}: {error:#}"));
                    }
                }
            }
        }
    }
    report(&failures)
}

fn report(failures: &[String]) -> Result<()> {
    anyhow::ensure!(
        failures.is_empty(),
        "{} failures; the first:\n{}",
        failures.len(),
        failures.iter().take(6).map(String::as_str).collect::<Vec<_>>().join("\n\n")
    );
    Ok(())
}
