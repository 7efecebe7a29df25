//! Changes of a table by every way that rows take, each of which must be in the change log as what it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};

use super::{OpenShop, Shop};

const ITEMS: &str = "CREATE TABLE items (id integer PRIMARY KEY, n integer NOT NULL, note text);
                     CREATE TABLE twin (id integer PRIMARY KEY, n integer NOT NULL, note text)";

const MINE: &str = "SELECT id, n, note FROM items ORDER BY id";
const TRUTH: &str = "SELECT id, n, note FROM twin ORDER BY id";

/// Runs statements on the table and on its twin, in one transaction.
async fn both(shop: &Shop, sql: &str) -> Result<()> {
    shop.sql(&format!("BEGIN; {}; {}; COMMIT", sql.replace("TABLE", "items"), sql.replace("TABLE", "twin"))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_writing_is_a_change_of_its_rows() -> Result<()> {
    let deferrable = "ALTER TABLE items DROP CONSTRAINT items_pkey, ADD PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED";
    for schema in [ITEMS.to_owned(), format!("{ITEMS}; {deferrable}")] {
        let is_deferrable = schema.contains("DEFERRABLE");
        let open = Shop::set_up(&schema, "items").await?.open().await?;
        let mut steps = vec![
            "INSERT INTO TABLE SELECT i, i, 'a' FROM generate_series(1, 50) i",
            "UPDATE TABLE SET n = n + 1 WHERE id % 2 = 0",
            "DELETE FROM TABLE WHERE id % 5 = 0",
            "UPDATE TABLE SET id = id + 1000 WHERE id < 10",
            "INSERT INTO TABLE VALUES (5, 5, 'again')",
            "SAVEPOINT s; DELETE FROM TABLE; ROLLBACK TO s; UPDATE TABLE SET n = 0 WHERE id = 11",
            "WITH gone AS (DELETE FROM TABLE WHERE id = 12 RETURNING *) INSERT INTO TABLE SELECT id + 500, n, 'moved' FROM gone",
        ];
        if open.shop.count("SELECT current_setting('server_version_num')::bigint").await? >= 150_000 {
            steps.push(
                "MERGE INTO TABLE t USING (VALUES (13, 1), (900, 2)) v (id, n) ON t.id = v.id \
                 WHEN MATCHED THEN UPDATE SET n = v.n WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.n, 'merged')",
            );
        }
        if is_deferrable {
            steps.extend([
                // The later rows take the keys of the earlier ones over before these have left them.
                "UPDATE TABLE SET id = id + 1 WHERE id BETWEEN 20 AND 40",
                "UPDATE TABLE SET id = CASE id WHEN 21 THEN 22 ELSE 21 END WHERE id IN (21, 22)",
                "INSERT INTO TABLE SELECT id, n + 7, 'newer' FROM TABLE WHERE id = 31; DELETE FROM TABLE WHERE id = 31 AND note \
                 <> 'newer'",
            ]);
            open.shop
                .sql("ALTER TABLE twin DROP CONSTRAINT twin_pkey, ADD PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED")
                .await?;
        } else {
            steps.push(
                "INSERT INTO TABLE VALUES (1, 1, 'x'), (14, 9, 'x'), (2001, 1, 'x') ON CONFLICT (id) DO UPDATE SET n = \
                 EXCLUDED.n, note = 'upserted'",
            );
        }
        for (at, step) in steps.into_iter().enumerate() {
            both(&open.shop, step).await?;
            open.check(&format!("dirty after {step}"), MINE, TRUTH).await?;
            if at % 2 == 0 {
                open.shop.command(&["flush"]).await?;
                open.check(&format!("flushed after {step}"), MINE, TRUTH).await?;
            }
        }
        // COPY, in the text form that psql sends.
        let client = open.shop.database.connect().await?;
        for table in ["items", "twin"] {
            let sink = client.copy_in::<_, bytes::Bytes>(&format!("COPY {table} FROM STDIN")).await?;
            let mut sink = std::pin::pin!(sink);
            futures::SinkExt::send(&mut sink, bytes::Bytes::from_static(b"7001\t1\tcopied\n7002\t2\t\\N\n")).await?;
            sink.finish().await?;
        }
        open.check("copied", MINE, TRUTH).await?;
        // As logical replication applies changes.
        both(&open.shop, "SET LOCAL session_replication_role = replica; UPDATE TABLE SET n = 77 WHERE id = 7001")
            .await?;
        open.check("applied", MINE, TRUTH).await?;
        open.shop.command(&["flush"]).await?;
        open.shop.command(&["compact", "--full"]).await?;
        open.check("at last", MINE, TRUTH).await?;
        assert_eq!(open.shop.dirty().await?, 0);
    }
    Ok(())
}

#[tokio::test]
async fn truncate_is_refused_or_deletes() -> Result<()> {
    let shop = Shop::set_up(ITEMS, "items").await?;
    shop.sql("INSERT INTO items VALUES (1, 1, 'a'), (2, 2, 'b')").await?;
    let refused = shop.sql("TRUNCATE items").await.expect_err("TRUNCATE was let through");
    ensure!(format!("{refused:#}").contains("would leave its rows in the lake"), "{refused:#}");
    shop.init(&["--truncate", "--apply", "--yes"]).await?;
    let open = shop.open().await?;
    open.shop.command(&["flush"]).await?;
    open.shop.sql("TRUNCATE items; INSERT INTO items VALUES (2, 3, 'c')").await?;
    assert_eq!(open.ask(&open.client, MINE).await?, ["2|3|c"]);
    open.shop.command(&["flush"]).await?;
    open.shop.command(&["compact", "--full"]).await?;
    assert_eq!(open.ask(&open.client, MINE).await?, ["2|3|c"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_of_another_type_is_told_and_not_read() -> Result<()> {
    let open = Shop::set_up(ITEMS, "items").await?.open().await?;
    open.shop.sql("INSERT INTO items VALUES (1, 1, '5')").await?;
    open.shop.sql("ALTER TABLE items ALTER COLUMN note TYPE integer USING note::integer").await?;
    let failure = open.client.query("SELECT note FROM items").await.expect_err("it read another type");
    assert_eq!(failure.code, tonic::Code::Unavailable, "{failure}");
    ensure!(
        failure.message.contains("column note of items is integer; the catalog says text")
            || failure.message.contains("public.items is integer"),
        "{failure}"
    );
    assert_eq!(open.ask(&open.client, "SELECT id, n FROM items").await?, ["1|1"]);
    let check = open.shop.try_command(&["check"]).await?;
    ensure!(!check.success && check.stdout.contains("public.items.note"), "{}", check.stdout);
    open.shop.sql("ALTER TABLE items DROP COLUMN note").await?;
    let failure = open.client.query("SELECT note FROM items").await.expect_err("it read a column that is gone");
    assert_eq!(failure.code, tonic::Code::Unavailable, "{failure}");
    ensure!(open.client.query("SELECT id FROM items").await.is_ok());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_arrow_cannot_hold_name_row_and_column() -> Result<()> {
    let schema = "CREATE TABLE moments (id integer PRIMARY KEY, d date, t timestamptz, c time)";
    let open = Shop::set_up(schema, "moments").await?.open().await?;
    for (column, value) in [("d", "infinity"), ("t", "-infinity"), ("c", "24:00:00")] {
        open.shop
            .sql(&format!("DELETE FROM moments; INSERT INTO moments (id, {column}) VALUES (7, '{value}')"))
            .await?;
        let failure = open.client.query(&format!("SELECT {column} FROM moments")).await.expect_err("it read it");
        assert_eq!(failure.code, tonic::Code::Unavailable, "{failure}");
        for part in [format!("attribute `{column}`"), "7468726d-636c-8000-8000-000000000007".to_owned()] {
            ensure!(failure.message.contains(&part), "{part}: {failure}");
        }
    }
    Ok(())
}

/// Writers that move amounts between rows, so that the sum stays: by updates, upserts, key updates and savepoints.
async fn write(open: Arc<OpenShop>, seed: i32, stop: Arc<AtomicBool>) -> Result<u64> {
    let client = open.shop.database.connect().await?;
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        let (a, b) = ((seed * 7 + rounds * 13) % 40, (seed * 11 + rounds * 17 + 1) % 40);
        let (a, b) = (a.min(b), a.max(b));
        if a == b {
            rounds += 1;
            continue;
        }
        let move_one = format!(
            "UPDATE items SET n = n - 1 WHERE id % 1000 = {a} AND note <> 'x'; UPDATE items SET n = n + 1 WHERE id % 1000 = {b} \
             AND note <> 'x'"
        );
        let sql = match rounds % 5 {
            0 => format!("BEGIN; {move_one}; COMMIT"),
            1 => format!("BEGIN; SAVEPOINT s; {move_one}; ROLLBACK TO s; {move_one}; COMMIT"),
            2 => format!(
                "BEGIN; SELECT 1 FROM items WHERE id % 1000 IN ({a}, {b}) ORDER BY id FOR UPDATE; {move_one}; COMMIT"
            ),
            3 => format!("BEGIN; UPDATE items SET id = (id + 1000) % 4000 WHERE id % 1000 = {a}; COMMIT"),
            _ => format!(
                "BEGIN; INSERT INTO items VALUES ({id}, 0, 'x') ON CONFLICT (id) DO UPDATE SET note = 'x'; DELETE FROM items WHERE \
                 id = {id}; COMMIT",
                id = 100_000 + seed
            ),
        };
        match client.batch_execute(&sql).await {
            Ok(()) => {}
            // Two writers that wait for each other: PostgreSQL ends one of them.
            Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::T_R_DEADLOCK_DETECTED) => {
                client.batch_execute("ROLLBACK").await?;
            }
            Err(error) => return Err(error).context(sql),
        }
        rounds += 1;
    }
    Ok(u64::try_from(rounds)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_stay_while_rows_are_written_flushed_and_compacted() -> Result<()> {
    for catalog in ["manifest", "listing"] {
        let shop = Shop::set_up(ITEMS, "items").await?;
        shop.sql("INSERT INTO items SELECT i, 100, 'a' FROM generate_series(0, 39) i").await?;
        let config =
            shop.read("thermocline.toml")?.replace("catalog = \"manifest\"", &format!("catalog = \"{catalog}\""));
        std::fs::write(shop.path("thermocline.toml"), config)?;
        let open = Arc::new(shop.open().await?);
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> =
            (1..4).map(|seed| tokio::spawn(write(Arc::clone(&open), seed, Arc::clone(&stop)))).collect();
        for round in 0..12 {
            open.shop.command(&["flush"]).await?;
            match round % 4 {
                1 => drop(open.shop.command(&["compact"]).await?),
                3 => drop(open.shop.command(&["gc", "--grace", "10m"]).await?),
                _ => {}
            }
            for _ in 0..4 {
                let found = open.ask(&open.client, "SELECT sum(n), count(*) FROM items WHERE id < 100000").await?;
                ensure!(found == ["4000|40"], "{catalog}, round {round}: {found:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            ensure!(writer.await?? > 3, "a writer wrote nothing");
        }
    }
    Ok(())
}
