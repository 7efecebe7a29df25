//! Random data and random queries against the oracle. A failure names its seed: `THERMOCLINE_TEST_SEED=7 cargo xtask test
//! random` runs that one alone.

use anyhow::{Context, Result};
use futures::{StreamExt, stream};
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

/// A query with its name in a report.
struct Case {
    name: String,
    sql: String,
    order: Order,
    /// Asked without push-down too.
    both: bool,
}

/// What a run has shown.
#[derive(Default)]
struct Outcome {
    asked: usize,
    /// Queries of which PostgreSQL or the choice of files got a condition.
    pushed: usize,
    failures: Vec<String>,
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

    /// The servers give the oracle's answer, and one of them without any push-down; says whether the other pushed.
    async fn check(&self, sql: &str, order: Order, both: bool) -> Result<bool> {
        let expected = self.oracle.query(sql)?;
        let mut has_pushed = false;
        let servers = [(&self.scenario.client, true), (&self.unpushing, false)];
        for (client, pushes) in servers.into_iter().take(if both { 2 } else { 1 }) {
            let answer = self.scenario.ask(client, sql).await?;
            compare(&expected, &answer.schema, &answer.batches, order).with_context(|| {
                let statement = answer.plan["statement"].as_str().unwrap_or("none");
                format!("{sql}\npush-down: {pushes}\nstatement: {statement}")
            })?;
            let is_pushed = pushed(&answer.plan);
            anyhow::ensure!(pushes || !is_pushed, "{sql}\npushed all the same: {}", answer.plan);
            has_pushed |= is_pushed;
        }
        Ok(has_pushed)
    }

    /// Asks all cases, a few at a time, and makes failing ones as small as they get.
    async fn run(&self, seed: u64, cases: Vec<Case>, outcome: &mut Outcome) -> Result<()> {
        let ask = |case: Case| async move { (self.check(&case.sql, case.order, case.both).await, case) };
        let mut answers = stream::iter(cases).map(ask).buffer_unordered(4);
        while let Some((answer, case)) = answers.next().await {
            outcome.asked += 1;
            match answer {
                Ok(pushed) => outcome.pushed += usize::from(pushed),
                Err(error) => {
                    // A smaller query that the oracle takes and that still fails.
                    let fails = async |smaller: &str| {
                        self.oracle.query(smaller).is_ok() && self.check(smaller, case.order, case.both).await.is_err()
                    };
                    let smallest = shrink::smallest(&case.sql, fails).await?;
                    outcome.failures.push(format!("seed {seed}, {}: {error:#}\nsmallest: {smallest}", case.name));
                }
            }
        }
        let Outcome { asked, pushed, failures } = outcome;
        eprintln!("seed {seed}: by now {asked} queries, {pushed} push something down, {} fail", failures.len());
        Ok(())
    }
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
    let mut outcome = Outcome::default();
    for seed in seeds(0..4, 0..60)? {
        let mut rng = r#gen::rng(seed);
        let left = r#gen::entity(&mut rng, "lefts", 1);
        let right = r#gen::entity(&mut rng, "rights", 2);
        let stored = vec![r#gen::stored(&mut rng, &left, 40), r#gen::stored(&mut rng, &right, 25)];
        let kind = if seed % 4 == 3 { LakeKind::S3 } else { LakeKind::Local };
        let pair = Pair::start(stored, kind).await.with_context(|| format!("seed {seed}"))?;
        let case = |number| {
            let query = r#gen::query(&mut rng, &left, &right);
            let order = if query.ordered { Order::Exact } else { Order::Any };
            Case { name: format!("query {number}"), sql: query.sql, order, both: true }
        };
        pair.run(seed, (0..40).map(case).collect(), &mut outcome).await?;
    }
    report(&outcome.failures)?;
    anyhow::ensure!(outcome.pushed * 2 > outcome.asked, "only {} of {} push", outcome.pushed, outcome.asked);
    Ok(())
}

/// Single predicates over every type: each row says for itself whether it passes.
#[tokio::test]
async fn random_predicates_equal_the_oracle() -> Result<()> {
    let mut outcome = Outcome::default();
    for seed in seeds(100..102, 100..140)? {
        let mut rng = r#gen::rng(seed);
        let entity = r#gen::every_type("everything", 7);
        let stored = r#gen::stored(&mut rng, &entity, 50);
        let pair = Pair::start(vec![stored], LakeKind::Local).await.with_context(|| format!("seed {seed}"))?;
        let case = |number: usize| {
            let depth = rng.random_range(0..3);
            let predicate = r#gen::predicate(&mut rng, &entity, "a", depth);
            let sql = format!("SELECT a.row_id FROM everything a WHERE {predicate}");
            Case { name: format!("predicate {number}"), sql, order: Order::Any, both: number.is_multiple_of(10) }
        };
        pair.run(seed, (0..if is_long() { 500 } else { 120 }).map(case).collect(), &mut outcome).await?;
    }
    report(&outcome.failures)
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
