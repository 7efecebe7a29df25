//! The life of a row: written to PostgreSQL, flushed, compacted, and the same answer all the way.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use thermocline_tests::client::Client;
use thermocline_tests::oracle::rows_of;
use thermocline_tests::postgres::TestDatabase;
use tokio::process::Command;

/// What an application does in one transaction.
const WRITE: &str = "
  WITH written AS (SELECT gen_random_uuid() AS id, (extract(epoch FROM now()) * 1000)::bigint AS ms),
  main AS (INSERT INTO entity_main
      (ltbase_schema_id, ltbase_row_id, text_01, text_02, ltbase_created_at, ltbase_updated_at)
    SELECT 101, id, 'ZZ', 'Zephyr Air', ms, ms FROM written)
  INSERT INTO change_log (schema_id, row_id, changed_at) SELECT 101, id, ms FROM written";

const ASK: &str = "SELECT carrier, name, _tier FROM airlines WHERE carrier = 'ZZ'";

/// What is run at each step, and the tier that answers then. A listing shows replaced files until gc deletes them, and
/// of equal versions the one in a delta file answers.
const STEPS: &[(&[&[&str]], &str)] =
    &[(&[&["flush", "airlines"]], "warm"), (&[&["compact", "airlines"], &["gc", "airlines", "--grace", "0s"]], "cold")];

/// Takes a row through its life and prints each step.
pub(crate) async fn show(binary: &Path, config: &Path, address: &str, database: &TestDatabase) -> Result<()> {
    let client = Client::connect(&address.replacen("grpc://", "http://", 1)).await?;
    println!("\nPostgreSQL> {}", WRITE.trim_start());
    database.connect().await?.batch_execute(WRITE).await.context("cannot write the row")?;
    answer(&client, "hot").await?;
    for (commands, tier) in STEPS {
        for args in *commands {
            println!("\n$ thermocline {}", args.join(" "));
            let mut command = Command::new(binary);
            command.args(*args).arg("--config").arg(config);
            super::succeed(command).await?;
        }
        answer(&client, tier).await?;
    }
    Ok(())
}

/// Asks for the row; it must come from this tier.
async fn answer(client: &Client, tier: &str) -> Result<()> {
    let answer = client.query(ASK).await?;
    let rows: Vec<String> = rows_of(&answer.batches)
        .iter()
        .map(|row| row.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "))
        .collect();
    let plan = &answer.final_plan;
    println!("SQL> {ASK}\n     {}", rows.join("\n     "));
    println!(
        "     route {}: {}; merge {}",
        plan["route"].as_str().unwrap_or("?"),
        plan["route_reason"].as_str().unwrap_or("?"),
        plan["references"][0]["merge"]["strategy"].as_str().unwrap_or("?")
    );
    ensure!(rows == [format!("ZZ | Zephyr Air | {tier}")], "the row isn't answered from {tier}: {rows:?}");
    Ok(())
}
