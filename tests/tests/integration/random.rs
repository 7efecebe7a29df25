//! Random data and random queries against the oracle. A failure names its seed: `THERMOCLINE_TEST_SEED=7 cargo xtask test
//! random` runs that one alone.

use anyhow::{Context, Result};
use rand::Rng;
use thermocline_tests::r#gen;
use thermocline_tests::oracle::{Order, View};
use thermocline_tests::scenario::{LakeKind, Scenario};

use crate::is_long;

fn seeds(short: std::ops::Range<u64>, long: std::ops::Range<u64>) -> Result<Vec<u64>> {
    if let Some(seed) = std::env::var_os("THERMOCLINE_TEST_SEED") {
        let seed = seed.to_str().context("the seed is no text")?;
        return Ok(vec![seed.parse().context("the seed is no number")?]);
    }
    Ok(if is_long() { long.collect() } else { short.collect() })
}

/// Whole queries over two random entities with versions in every tier.
#[tokio::test]
async fn random_queries_equal_the_oracle() -> Result<()> {
    let mut failures = Vec::new();
    for seed in seeds(0..4, 0..60)? {
        let mut rng = r#gen::rng(seed);
        let left = r#gen::entity(&mut rng, "lefts", 1);
        let right = r#gen::entity(&mut rng, "rights", 2);
        let stored = vec![r#gen::stored(&mut rng, &left, 40), r#gen::stored(&mut rng, &right, 25)];
        let kind = if seed % 4 == 3 { LakeKind::S3 } else { LakeKind::Local };
        let scenario = Scenario::start(stored, kind).await.with_context(|| format!("seed {seed}"))?;
        let oracle = scenario.oracle(View::default())?;
        for number in 0..40 {
            let query = r#gen::query(&mut rng, &left, &right);
            let order = if query.ordered { Order::Exact } else { Order::Any };
            if let Err(error) = scenario.check(&oracle, &query.sql, order).await {
                failures.push(format!("seed {seed}, query {number}: {error:#}"));
            }
        }
    }
    report(&failures)
}

/// Single predicates over every type: each row says for itself whether it passes.
#[tokio::test]
async fn random_predicates_equal_the_oracle() -> Result<()> {
    let mut failures = Vec::new();
    for seed in seeds(100..102, 100..140)? {
        let mut rng = r#gen::rng(seed);
        let entity = r#gen::every_type("everything", 7);
        let stored = r#gen::stored(&mut rng, &entity, 50);
        let scenario = Scenario::start(vec![stored], LakeKind::Local).await.with_context(|| format!("seed {seed}"))?;
        let oracle = scenario.oracle(View::default())?;
        for number in 0..if is_long() { 500 } else { 120 } {
            let depth = rng.random_range(0..3);
            let predicate = r#gen::predicate(&mut rng, &entity, "a", depth);
            let sql = format!("SELECT a.row_id FROM everything a WHERE {predicate}");
            if let Err(error) = scenario.check(&oracle, &sql, Order::Any).await {
                failures.push(format!("seed {seed}, predicate {number}: {error:#}"));
            }
        }
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
