//! pgbench's own tables under pgbench's own load: its four sums are the same in every answer, while everything runs.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use thermocline_tests::postgres::{PASSWORD, binaries};

use super::Shop;

/// Each transaction of pgbench adds one number to an account, a branch, a teller and the history.
const SUMS: &str = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches),
    (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT COALESCE(sum(delta), 0) FROM pgbench_history)";

fn pgbench(shop: &Shop, args: &[&str]) -> Result<tokio::process::Command> {
    let program = binaries()?.join("pgbench");
    let program = if program.is_file() { program } else { "pgbench".into() };
    let mut command = tokio::process::Command::new(program);
    command.args(args).arg(shop.database.name());
    command.env("PGHOST", "127.0.0.1").env("PGPORT", shop.database.cluster().port().to_string());
    command.env("PGUSER", thermocline_tests::postgres::USER).env("PGPASSWORD", PASSWORD);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sums_of_pgbench_agree_at_every_moment() -> Result<()> {
    let (scale, seconds) = if crate::is_long() { ("10", 600) } else { ("1", 20) };
    for (catalog, has_cursor) in [("manifest", true), ("listing", false)] {
        let shop = Shop::new("SELECT 1").await?;
        let made = pgbench(&shop, &["-i", "-q", "-s", scale])?.output().await?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // History has no key of its own, as many such tables.
        shop.sql("ALTER TABLE pgbench_history ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY").await?;
        shop.init(&["--tables", "pgbench_*", "--apply", "--backfill", "--yes"]).await?;
        if !has_cursor {
            let removal = translator::postgres::cursor_removal(&translator::postgres::TableNames {
                change_log: "thermocline_log.change_log".to_owned(),
                ..translator::postgres::TableNames::default()
            });
            shop.sql(&removal.join(";")).await?;
        }
        let config =
            shop.read("thermocline.toml")?.replace("catalog = \"manifest\"", &format!("catalog = \"{catalog}\""));
        std::fs::write(shop.path("thermocline.toml"), config)?;
        let open = shop.open().await?;
        open.shop.command(&["flush"]).await?;
        open.shop.command(&["compact"]).await?;
        let load = pgbench(&open.shop, &["-n", "-c", "3", "-T", &seconds.to_string()])?.spawn()?;
        let load = tokio::spawn(load.wait_with_output());
        let upkeep = async {
            let mut rounds = 0_u32;
            while !load.is_finished() {
                open.shop.command(&["flush"]).await?;
                // What pgbench only ever inserts may leave PostgreSQL; the rest it updates in place.
                open.shop.command(&["prune", "pgbench_history", "--older-than", "1s"]).await?;
                if rounds % 3 == 2 {
                    open.shop.command(&["compact"]).await?;
                    open.shop.command(&["gc", "--grace", "10m"]).await?;
                }
                rounds += 1;
            }
            anyhow::Ok(rounds)
        };
        let until = Instant::now() + Duration::from_secs(seconds + 60);
        let queries = async {
            let mut asked = 0_u32;
            while !load.is_finished() && Instant::now() < until {
                let found = open.ask(&open.client, SUMS).await?;
                let sums: Vec<&str> = found.first().context("no sums")?.split('|').collect();
                ensure!(sums.iter().all(|sum| *sum == sums[0]), "{catalog}, query {asked}: {sums:?}");
                asked += 1;
            }
            anyhow::Ok(asked)
        };
        let (rounds, asked) = futures::try_join!(upkeep, queries)?;
        let load = load.await??;
        ensure!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
        ensure!(rounds > 1 && asked > 3, "{rounds} rounds, {asked} queries");
        open.shop.command(&["flush"]).await?;
        open.shop.command(&["prune", "pgbench_history", "--older-than", "0s"]).await?;
        assert_eq!(open.shop.count("SELECT count(*) FROM pgbench_history").await?, 0);
        let found = open.ask(&open.client, SUMS).await?;
        let truth = open
            .shop
            .rows("SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches)")
            .await?;
        ensure!(found[0].starts_with(&truth[0]), "{found:?} {truth:?}");
    }
    Ok(())
}
