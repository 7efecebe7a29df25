//! The table of docs/contract.md, "Unavailable sources", cell by cell: what is down, what the client gave leave for,
//! each route, plain queries and prepared statements.

use anyhow::{Result, ensure};
use thermocline_tests::client::{Answer, Client, Failure};
use thermocline_tests::postgres::TestDatabase;
use thermocline_tests::proxy::Link;
use thermocline_tests::s3::Fault;
use thermocline_tests::scenario::LakeKind;
use tonic::Code;

use super::{ALL, ALL_ROWS, FILE_ROWS, HOT_ROWS, Proxied, stored};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Down {
    Postgres,
    Lake,
    Both,
}

/// What comes of a query: its rows and the tiers that are missing, or a word of the refusal.
type Expected = Result<(usize, &'static [&'static str]), &'static str>;

const LAKE: &[&str] = &["warm", "cold"];
const WHOLE: &[&str] = &[];

/// The tiers a query asks for, its SQL, its rows when all is well.
const ROUTES: [(&str, &str, usize); 4] = [
    ("hot", ALL, HOT_ROWS),
    // PostgreSQL can't say this alone: DuckDB runs it over the hot rows.
    ("hot", "SELECT reverse(name) AS r FROM things", HOT_ROWS),
    ("warm,cold", ALL, FILE_ROWS),
    ("hot,warm,cold", ALL, ALL_ROWS),
];

fn expected(down: Down, eventual: bool, partial: bool, tiers: &str, whole: usize) -> Expected {
    match (tiers, down) {
        ("hot", Down::Lake) | ("warm,cold", Down::Postgres) => Ok((whole, WHOLE)),
        ("hot", Down::Postgres | Down::Both) => Err("PostgreSQL"),
        ("warm,cold", Down::Lake | Down::Both) => Err("lake"),
        (_, Down::Postgres) if eventual => Ok((FILE_ROWS, &["hot"])),
        (_, Down::Postgres | Down::Both) if !eventual => Err("PostgreSQL"),
        (_, Down::Lake) if partial => Ok((HOT_ROWS, LAKE)),
        _ => Err("lake"),
    }
}

async fn ask(client: &Client, sql: &str, is_prepared: bool) -> Result<Answer, Failure> {
    if !is_prepared {
        return client.query(sql).await;
    }
    // Preparing touches no source.
    let prepared = client.prepare(sql).await?;
    client.execute_prepared(&prepared.handle).await
}

fn compare(answer: Result<Answer, Failure>, expected: Expected, log: &str) -> Result<()> {
    match (answer, expected) {
        (Err(failure), Err(word)) => failure.expect(Code::Unavailable, &[word]),
        (Ok(answer), Ok((rows, missing))) => {
            ensure!(answer.row_count() == rows, "{} rows, not {rows}", answer.row_count());
            // Known before the data, and said again behind it.
            for plan in [&answer.plan, &answer.final_plan] {
                let degraded = &plan["degraded"];
                ensure!(degraded["is_degraded"] == !missing.is_empty(), "{plan:#}");
                ensure!(degraded["missing_tiers"] == serde_json::json!(missing), "{degraded:#}");
                ensure!(
                    plan["warnings"].as_array().is_some_and(|all| all.is_empty() == missing.is_empty()),
                    "{plan:#}"
                );
            }
            let id = answer.final_plan["query_id"].as_str().unwrap_or_default();
            let is_logged =
                log.lines().any(|line| line.contains("WARN") && line.contains(id) && line.contains("warnings"));
            ensure!(is_logged != missing.is_empty(), "the log and {id}: {is_logged}");
        }
        (Err(failure), Ok(_)) => return Err(failure.into()),
        (Ok(answer), Err(word)) => anyhow::bail!("{} rows instead of a refusal for {word}", answer.row_count()),
    }
    Ok(())
}

async fn check(down: Down) -> Result<()> {
    let database = TestDatabase::create().await?;
    // Both ways to fail are shown: the first queries meet the source itself, later ones its open breaker.
    let Proxied { scenario, postgres } =
        Proxied::start(database, vec![stored()], LakeKind::S3, |config| config.with("breaker", "cooldown", "10m"))
            .await?;
    for (tiers, sql, rows) in ROUTES {
        let client = scenario.client.with_option("tiers", tiers);
        compare(ask(&client, sql, false).await, Ok((rows, WHOLE)), &scenario.server.log()?)?;
    }
    if down != Down::Lake {
        postgres.set(Link::Refuse);
    }
    if down != Down::Postgres {
        scenario.lake.s3_server().unwrap().inject(Fault::Reset, 0, usize::MAX, |_| true);
    }
    let mut degraded = 0;
    for (tiers, sql, rows) in ROUTES {
        for (eventual, partial) in [(false, false), (true, false), (false, true), (true, true)] {
            for is_prepared in [false, true] {
                let mut client = scenario.client.with_option("tiers", tiers);
                if eventual {
                    client = client.with_option("consistency", "eventual");
                }
                if partial {
                    client = client.with_option("allow_partial", "true");
                }
                let expected = expected(down, eventual, partial, tiers, rows);
                degraded += usize::from(expected.is_ok_and(|(_, missing)| !missing.is_empty()));
                let answer = ask(&client, sql, is_prepared).await;
                let place = format!(
                    "{down:?} down, tiers {tiers}, {sql}, eventual {eventual}, partial {partial}, prepared {is_prepared}"
                );
                compare(answer, expected, &scenario.server.log()?).map_err(|error| error.context(place))?;
            }
        }
    }
    let metrics = scenario.server.metrics().await?;
    let line = format!("fed_query_degraded {degraded}");
    ensure!(degraded == 0 || metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    Ok(())
}

#[tokio::test]
async fn every_cell_while_postgres_is_down() -> Result<()> {
    check(Down::Postgres).await
}

#[tokio::test]
async fn every_cell_while_the_lake_is_down() -> Result<()> {
    check(Down::Lake).await
}

#[tokio::test]
async fn every_cell_while_both_are_down() -> Result<()> {
    check(Down::Both).await
}
