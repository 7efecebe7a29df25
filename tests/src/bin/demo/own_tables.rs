//! The second act: ordinary tables in the same PostgreSQL become entities, and rows of theirs leave it, without a change of
//! any answer.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use thermocline_tests::client::Client;
use thermocline_tests::oracle::rows_of;
use thermocline_tests::postgres::TestDatabase;
use tokio::process::Command;

/// What an application has: nothing of Thermocline's.
const APPLICATION: &str = "
  CREATE SCHEMA shop;
  CREATE TYPE shop.state AS ENUM ('open', 'paid', 'sent');
  CREATE TABLE shop.customers (id integer PRIMARY KEY, name text NOT NULL);
  CREATE TABLE shop.orders (
    id bigint PRIMARY KEY, customer integer NOT NULL, state shop.state NOT NULL,
    amount numeric(10,2) NOT NULL, placed_at timestamptz NOT NULL, tags text[]);
  INSERT INTO shop.customers SELECT i, 'Customer ' || i FROM generate_series(1, 50) i;
  INSERT INTO shop.orders
  SELECT i, i % 50 + 1, (ARRAY['open', 'paid', 'sent']::shop.state[])[i % 3 + 1], i % 1000 + 0.99,
    timestamptz '2024-01-01 00:00:00+00' + i * interval '1 minute', ARRAY['tag ' || i % 7]
  FROM generate_series(1, 20000) i";

const ASK: &str = "SELECT c.name, o.state, count(*) AS orders, sum(o.amount) AS amount
     FROM shop_orders o JOIN shop_customers c ON c.id = o.customer
     WHERE o.id <= 15000 GROUP BY ALL ORDER BY amount DESC, name, state LIMIT 3";

const TIERS: &str = "SELECT _tier, count(*) AS orders FROM shop_orders GROUP BY _tier ORDER BY _tier";

/// Shows the way of the tables, each step printed as a user types it.
pub(crate) async fn show(binary: &Path, directory: &Path, database: &TestDatabase) -> Result<()> {
    let directory = directory.join("shop");
    std::fs::create_dir(&directory)?;
    let config = directory.join("thermocline.toml");
    let postgres = database.connect().await?;
    println!("\nPostgreSQL> {}", APPLICATION.trim_start());
    postgres.batch_execute(APPLICATION).await.context("cannot make the application's tables")?;
    let lake = format!("file://{}", directory.join("lake").display());
    let run = async |args: &[&str], shown: &str| {
        println!("\n$ thermocline {shown}");
        let mut command = Command::new(binary);
        command.args(args).arg("--config").arg(&config);
        super::succeed(command).await
    };
    run(
        &[
            "init",
            "--postgres",
            &database.url(),
            "--lake",
            &lake,
            "--tables",
            "shop.*",
            "--apply",
            "--backfill",
            "--yes",
        ],
        &format!("init --postgres … --lake {lake} --tables 'shop.*' --apply --backfill --yes"),
    )
    .await?;
    let mut settings: toml::Table = std::fs::read_to_string(&config)?.parse()?;
    let ports = toml::toml! {
        listen = "127.0.0.1:0"
        admin_listen = "127.0.0.1:0"
    };
    settings.insert("server".to_owned(), ports.into());
    std::fs::write(&config, settings.to_string())?;
    let (_server, address) = super::start_server(binary, &directory, &config).await?;
    let client = Client::connect(&address.replacen("grpc://", "http://", 1)).await?;
    let before = answer(&client, ASK).await?;
    answer(&client, TIERS).await?;
    for args in [&["flush"][..], &["compact", "--full"], &["prune", "--older-than", "0s"]] {
        run(args, &args.join(" ")).await?;
    }
    let left: i64 = postgres.query_one("SELECT count(*) FROM shop.orders", &[]).await?.get(0);
    println!("\nPostgreSQL> SELECT count(*) FROM shop.orders\n     {left}");
    ensure!(left == 0, "{left} orders were not pruned");
    answer(&client, TIERS).await?;
    ensure!(answer(&client, ASK).await? == before, "the answer has changed");
    run(&["restore", "shop_orders", "--where", "id = 7"], "restore shop_orders --where 'id = 7'").await?;
    println!("\nPostgreSQL> UPDATE shop.orders SET state = 'paid' WHERE id = 7");
    let updated = postgres.execute("UPDATE shop.orders SET state = 'paid' WHERE id = 7", &[]).await?;
    ensure!(updated == 1, "the row didn't come back");
    let changed = answer(&client, "SELECT id, state, _tier FROM shop_orders WHERE id = 7").await?;
    ensure!(changed == ["7 | paid | hot"], "{changed:?}");
    Ok(())
}

async fn answer(client: &Client, sql: &str) -> Result<Vec<String>> {
    let answer = client.query(sql).await?;
    let rows: Vec<String> = rows_of(&answer.batches)
        .iter()
        .map(|row| row.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "))
        .collect();
    println!("\nSQL> {sql}\n     {}", rows.join("\n     "));
    Ok(rows)
}
