//! Random predicates on real PostgreSQL: what the translator pushes down must let every row through that DuckDB wants,
//! and say the same as DuckDB, NULL included, where it claims to be exact.
//!
//! A failure names its seed (`THERMOCLINE_TEST_SEED=7 cargo xtask test predicates_mean_the_same` runs that one alone)
//! and is shrunk to the smallest part of the predicate that fails.

use std::sync::Arc;

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use rand::Rng;
use thermocline_tests::model::{Entity, Version};
use thermocline_tests::oracle::{Cell, HotVersion, Oracle, Stored, View, rows_of};
use thermocline_tests::postgres::{HotRow, TestDatabase};
use thermocline_tests::{r#gen, is_long, shrink};
use tokio_postgres::Client;
use translator::catalog::Catalog;
use translator::postgres::{Pushdown, PushedPredicate, TableNames, hot_statement};

use crate::duck::Parser;

const BATCH: usize = 40;

/// One set of rows in both databases.
struct Bench {
    parser: Parser,
    catalog: Catalog,
    oracle: Oracle,
    /// `FROM … WHERE …` of the hot statement with every attribute at hand.
    from: String,
    client: Client,
    _database: TestDatabase,
}

/// A predicate with what became of it.
struct Case {
    text: String,
    conjuncts: Vec<PushedConjunct>,
    /// Every conjunct is pushed, whole, or at least translated whole.
    whole: bool,
}

struct PushedConjunct {
    text: String,
    logical: String,
    pushed: PushedPredicate,
}

#[derive(Default)]
struct Counts {
    predicates: usize,
    conjuncts: usize,
    exact: usize,
    telling: usize,
}

impl Bench {
    async fn start(entity: &Entity, versions: Vec<Version>) -> Result<Self> {
        let mut stored = Stored::new(entity);
        stored.hot = versions.into_iter().map(|version| HotVersion { version, dirty: true, has_main: true }).collect();
        let database = TestDatabase::create().await?;
        database.register(std::slice::from_ref(entity)).await?;
        let rows: Vec<HotRow<'_>> =
            stored.hot.iter().map(|hot| HotRow { version: &hot.version, dirty: true, has_main: true }).collect();
        database.write(entity, &rows).await?;
        let client = database.connect().await?;
        let catalog = Catalog::parse(&entity.catalog_toml()).context("the catalog")?;
        let oracle = Oracle::load(&[&stored], View::default(), false)?;
        let logical = Arc::clone(&catalog.entities()[0]);
        let statement = hot_statement(&TableNames::default(), &logical, logical.public_columns(), &[], false);
        let (_, from) = statement.sql.split_once(" FROM ").context("a hot statement without FROM")?;
        Ok(Self { parser: Parser::new()?, catalog, oracle, from: from.to_owned(), client, _database: database })
    }

    fn case(&self, text: &str) -> Result<Case> {
        let sql = format!("SELECT a.row_id FROM everything a WHERE {text}");
        let query = self.parser.translate(&sql, &self.catalog)?.with_context(|| format!("refused: {sql}"))?;
        let reference = &query.references[0];
        let mut whole = reference.kept_back.is_empty();
        let mut conjuncts = Vec::new();
        for conjunct in &reference.conjuncts {
            let (Ok(predicate), Ok(pushed)) = (&conjunct.predicate, PushedPredicate::new(conjunct, &reference.entity))
            else {
                whole = false;
                continue;
            };
            whole &= !conjunct.weakened;
            let logical = predicate.to_duckdb(&reference.entity, Some("a"));
            conjuncts.push(PushedConjunct { text: conjunct.text.clone(), logical, pushed });
        }
        // A predicate of constants alone belongs to no reference.
        whole &= !reference.conjuncts.is_empty();
        Ok(Case { text: text.to_owned(), conjuncts, whole })
    }

    /// What goes wrong with some predicates, by their place.
    async fn check(&self, cases: &[Case], counts: &mut Counts) -> Result<Vec<(usize, String)>> {
        let mut duckdb = vec!["CAST(a.row_id AS VARCHAR)".to_owned()];
        let mut postgres = vec!["c.row_id::text".to_owned()];
        for case in cases {
            duckdb.push(format!("CAST(({}) AS BOOLEAN)", case.text));
            for conjunct in &case.conjuncts {
                duckdb.push(conjunct.logical.clone());
                postgres.push(conjunct.pushed.sql.clone());
            }
        }
        let wanted = rows_of(&self.oracle.query(&format!("SELECT {} FROM everything a", duckdb.join(", ")))?);
        let sql = format!("SELECT {} FROM {}", postgres.join(", "), self.from);
        let rows = self.client.query(&sql, &[]).await.with_context(|| format!("PostgreSQL fails on {sql}"))?;
        let mut found: HashMap<String, Vec<Option<bool>>> = HashMap::new();
        for row in rows {
            found.insert(row.get(0), (1..postgres.len()).map(|at| row.get(at)).collect());
        }
        ensure!(found.len() == wanted.len(), "{} rows in DuckDB, {} in PostgreSQL", wanted.len(), found.len());

        let mut failures = Vec::new();
        let (mut logical_at, mut physical_at) = (1, 0);
        for (number, case) in cases.iter().enumerate() {
            let wish_at = logical_at;
            logical_at += 1 + case.conjuncts.len();
            let first_physical = physical_at;
            physical_at += case.conjuncts.len();
            counts.predicates += 1;
            counts.conjuncts += case.conjuncts.len();
            counts.exact +=
                case.conjuncts.iter().filter(|conjunct| conjunct.pushed.pushdown == Pushdown::Exact).count();
            let mut passed = 0;
            for row in &wanted {
                let id = row[0].to_string();
                let values = found.get(&id).with_context(|| format!("PostgreSQL lacks row {id}"))?;
                let wish = truth(&row[wish_at])?;
                passed += usize::from(wish == Some(true));
                let mut all = Some(true);
                for (index, conjunct) in case.conjuncts.iter().enumerate() {
                    let logical = truth(&row[wish_at + 1 + index])?;
                    let physical = values[first_physical + index];
                    all = and(all, logical);
                    let fits = match conjunct.pushed.pushdown {
                        // A weakened conjunct is inexact as a whole; its text still follows its predicate.
                        Pushdown::Exact => logical == physical,
                        Pushdown::Inexact => logical != Some(true) || physical == Some(true),
                    };
                    if !fits {
                        failures.push((
                            number,
                            format!(
                                "row {id}: {} is {logical:?}, but {:?} {} is {physical:?}\n  conjunct: {}",
                                conjunct.logical, conjunct.pushed.pushdown, conjunct.pushed.sql, conjunct.text
                            ),
                        ));
                    }
                }
                let fits = if case.whole { all == wish } else { wish != Some(true) || all == Some(true) };
                if !fits {
                    let texts: Vec<&str> = case.conjuncts.iter().map(|conjunct| conjunct.logical.as_str()).collect();
                    failures
                        .push((number, format!("row {id}: it is {wish:?}, but {} is {all:?}", texts.join(" AND "))));
                }
            }
            counts.telling += usize::from(passed > 0 && passed < wanted.len());
        }
        failures.dedup_by_key(|(number, _)| *number);
        Ok(failures)
    }

    /// The smallest part of a failing predicate that fails by itself.
    async fn shrink(&self, text: &str) -> Result<String> {
        let sql = format!("SELECT 1 FROM everything a WHERE {text}");
        let fails = async |smaller: &str| {
            let Some((_, part)) = smaller.split_once(" WHERE ") else { return false };
            let Ok(case) = self.case(part) else { return false };
            // A part that can't be run alone isn't smaller.
            self.check(&[case], &mut Counts::default()).await.is_ok_and(|failures| !failures.is_empty())
        };
        shrink::smallest(&sql, fails).await
    }
}

fn truth(cell: &Cell) -> Result<Option<bool>> {
    match cell {
        Cell::Boolean(value) => Ok(Some(*value)),
        Cell::Null => Ok(None),
        other => anyhow::bail!("a predicate gives {other}"),
    }
}

fn and(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

#[tokio::test]
async fn predicates_mean_the_same_in_both_databases() -> Result<()> {
    let (seeds, a_seed) = if is_long() { (1000..1025, 1000) } else { (1000..1002, 400) };
    let seeds: Vec<u64> = match std::env::var("THERMOCLINE_TEST_SEED") {
        Ok(seed) => vec![seed.parse().context("the seed is no number")?],
        Err(_) => seeds.collect(),
    };
    let mut counts = Counts::default();
    let mut failures = Vec::new();
    for seed in seeds {
        let mut rng = r#gen::rng(seed);
        let entity = r#gen::every_type("everything", 7);
        let versions = (0..100).map(|number| Version { deleted_at: None, ..r#gen::version(&mut rng, &entity, number) });
        let bench = Bench::start(&entity, versions.collect()).await.with_context(|| format!("seed {seed}"))?;
        for first in (0..a_seed).step_by(BATCH) {
            let mut cases = Vec::new();
            for _ in 0..BATCH {
                let depth = rng.random_range(0..3);
                cases.push(bench.case(&r#gen::predicate(&mut rng, &entity, "a", depth))?);
            }
            let found = bench.check(&cases, &mut counts).await.with_context(|| format!("seed {seed}, from {first}"))?;
            for (number, failure) in found {
                let smallest = bench.shrink(&cases[number].text).await?;
                failures.push(format!(
                    "seed {seed}, predicate {}: {}\n  {failure}\n  smallest: {smallest}",
                    first + number,
                    cases[number].text
                ));
            }
        }
    }
    println_counts(&counts);
    ensure!(
        failures.is_empty(),
        "{} of {} predicates fail; the first:\n{}",
        failures.len(),
        counts.predicates,
        failures.iter().take(8).map(String::as_str).collect::<Vec<_>>().join("\n\n")
    );
    // The test must test something: most predicates tell rows apart, and most reach PostgreSQL whole.
    ensure!(counts.telling * 3 > counts.predicates, "only {} predicates tell rows apart", counts.telling);
    ensure!(counts.exact * 3 > counts.predicates, "only {} conjuncts are exact", counts.exact);
    Ok(())
}

fn println_counts(counts: &Counts) {
    eprintln!(
        "{} predicates, {} pushed conjuncts ({} exact), {} tell rows apart",
        counts.predicates, counts.conjuncts, counts.exact, counts.telling
    );
}
