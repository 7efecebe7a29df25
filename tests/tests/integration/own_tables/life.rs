//! A table through its whole life: entered, flushed, compacted, pruned, restored, and every value as it was.

use anyhow::{Context, Result, ensure};

use super::Shop;

const SCHEMA: &str = "CREATE EXTENSION IF NOT EXISTS citext;
    CREATE TYPE mood AS ENUM ('sad', 'glad');
    CREATE DOMAIN money_amount AS numeric(12,2) CHECK (VALUE >= -1000000);
    CREATE TABLE customers (id uuid PRIMARY KEY, name citext NOT NULL);
    CREATE TABLE orders (
      region text NOT NULL, number integer NOT NULL, placed_on date NOT NULL,
      customer uuid REFERENCES customers (id),
      small smallint, big bigint, r real, d double precision, amount money_amount, huge numeric(38,10),
      flag boolean, v varchar(20), c char(5), ci citext, m mood, at_day date, at_time time,
      moment timestamptz, naive timestamp, doc json, docb jsonb, bytes bytea,
      numbers integer[], texts text[], moods mood[], amounts numeric(9,2)[],
      created_at timestamptz DEFAULT now(),
      doubled bigint GENERATED ALWAYS AS (number::bigint * 2) STORED,
      span tstzrange,
      PRIMARY KEY (region, number, placed_on)) PARTITION BY RANGE (placed_on);
    CREATE TABLE orders_2023 PARTITION OF orders FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
    CREATE TABLE orders_2024 PARTITION OF orders FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    CREATE TABLE no_key (a integer);
    CREATE VIEW glad AS SELECT * FROM orders WHERE m = 'glad';
    INSERT INTO customers SELECT ('00000000-0000-4000-8000-0000000000' || to_char(i, 'FM00'))::uuid, 'Customer ' || i
      FROM generate_series(1, 20) i;
    INSERT INTO orders (region, number, placed_on, customer, small, big, r, d, amount, huge, flag, v, c, ci, m, at_day, at_time,
        moment, naive, doc, docb, bytes, numbers, texts, moods, amounts)
      SELECT 'region ' || i % 7, i, date '2023-01-01' + (i * 7 % 700), CASE WHEN i % 5 > 0 THEN
          ('00000000-0000-4000-8000-0000000000' || to_char(i % 20 + 1, 'FM00'))::uuid END,
        i % 100, i::bigint * 10000000000, i * 0.5, i * 0.25, i * 1.25, i * 12345678901234567.0123456789, i % 2 = 0,
        'v' || i, 'c' || i % 9, 'Ci' || i, CASE WHEN i % 3 = 0 THEN 'sad' ELSE 'glad' END::mood,
        date '1999-12-31' + i, time '00:00:00.000001' + i * interval '1 second',
        timestamptz '1969-12-31 23:59:59.999999+00' + i * interval '1 hour', timestamp '2024-02-29 12:00:00.5' + i * interval '1 day',
        json_build_object('i', i, 'text', 'it''s \"' || i), jsonb_build_object('b', i, 'a', ARRAY[i, NULL]),
        decode(lpad(to_hex(i), 4, '0'), 'hex'), ARRAY[i, NULL, -i], ARRAY['x' || i, 'y,\"z', NULL],
        ARRAY['sad', NULL]::mood[], ARRAY[i * 0.5, NULL]::numeric(9,2)[]
      FROM generate_series(1, 300) i;
    INSERT INTO orders (region, number, placed_on, r, d) VALUES ('nan', 1, '2023-05-05', 'NaN', 'NaN'), ('', -1, '2024-05-05', -0.5, 0);
    CREATE TABLE twin AS SELECT * FROM orders;";

/// Every column as text, alike in both databases.
const SHOWN: &str =
    "SELECT region, number, placed_on::text, customer::text, small, big, lower(r::text), lower(d::text),
    amount::text, huge::text, flag::text, v, c, ci, m, at_day::text, at_time::text, moment::text, naive::text, doc::text,
    docb::text, upper(HEX), JSON(numbers), JSON(texts), JSON(moods), amounts::text, table_created_at::text, doubled
    FROM orders ORDER BY region, number, placed_on";

fn of_twin() -> String {
    SHOWN
        .replace("HEX", "encode(bytes, 'hex')")
        .replace("lower(r::text), lower(d::text)", "lower(r::text) || '$', lower(d::text) || '$'")
        .replace("JSON(numbers)", "array_to_json(numbers)::text")
        .replace("JSON(texts)", "array_to_json(texts)::text")
        .replace("JSON(moods)", "array_to_json(moods)::text")
        .replace("amounts::text", "array_to_json(amounts::text[])::text")
        .replace("table_created_at", "created_at")
        .replace("c, ci", "c::text, ci::text")
        .replace("m, at_day", "m::text, at_day")
        .replace("FROM orders ORDER BY region", "FROM twin ORDER BY region COLLATE \"C\"")
}

fn shown_by_server() -> String {
    SHOWN
        .replace("HEX", "hex(bytes)")
        // PostgreSQL shows no `.0` of a whole number.
        .replace(
            "lower(r::text), lower(d::text)",
            "replace(lower(r::text) || '$', '.0$', '$'), replace(lower(d::text) || '$', '.0$', '$')",
        )
        .replace("JSON(numbers)", "CAST(to_json(numbers) AS VARCHAR)")
        .replace("JSON(texts)", "CAST(to_json(texts) AS VARCHAR)")
        .replace("JSON(moods)", "CAST(to_json(moods) AS VARCHAR)")
        .replace("amounts::text", "CAST(to_json(CAST(amounts AS VARCHAR[])) AS VARCHAR)")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_every_type_keeps_every_value_through_its_life() -> Result<()> {
    let shop = Shop::new(SCHEMA).await?;
    let said = shop.init(&["--tables", "public.*", "--apply", "--backfill", "--yes"]).await?;
    for left_out in ["no_key: it has neither a primary key", "orders.span: tstzrange", "glad: it is a view"] {
        ensure!(said.contains(left_out), "{left_out} is not in\n{said}");
    }
    // The twin has a key of none, and is no entity.
    ensure!(said.contains("twin: it has neither"), "{said}");
    assert_eq!(shop.dirty().await?, 322);
    let open = shop.open().await?;
    let (mine, truth) = (shown_by_server(), of_twin());
    let checked = async |step: &str| {
        open.check(step, &mine, &truth).await?;
        let scan = open.client.with_option("hot_scan", "scan");
        if step == "hot" || step == "changed" {
            open.check_by(&scan, &format!("{step}, by scan"), &mine, &truth).await?;
        }
        open.check(
            step,
            "SELECT c.name, count(*), sum(o.amount)::text FROM orders o JOIN customers c ON c.id = o.customer GROUP BY c.name \
             ORDER BY c.name",
            "SELECT c.name, count(*), sum(o.amount)::text FROM twin o JOIN customers c ON c.id = o.customer GROUP BY c.name \
             ORDER BY c.name::text COLLATE \"C\"",
        )
        .await
    };
    checked("hot").await?;
    open.shop.command(&["flush"]).await?;
    assert_eq!(open.shop.dirty().await?, 0);
    checked("warm").await?;
    open.shop.command(&["compact", "--full"]).await?;
    checked("cold").await?;
    let change = "UPDATE TABLE SET amount = amount + 1, numbers = numbers || 7, docb = '{\"new\": true}' WHERE number % 11 = 0;
                  DELETE FROM TABLE WHERE number % 13 = 0;
                  UPDATE TABLE SET region = 'moved', placed_on = placed_on + 365 WHERE number % 17 = 0 AND placed_on < '2023-12-01';
                  INSERT INTO TABLE (region, number, placed_on, m) VALUES ('new', 1, '2024-06-01', 'sad')";
    open.shop.sql(&change.replace("TABLE", "orders")).await?;
    open.shop
        .sql(&change.replace("TABLE", "twin").replace("SET region", "SET doubled = doubled, region").replace(
            "(region, number, placed_on, m) VALUES ('new', 1, '2024-06-01', 'sad')",
            "(region, number, placed_on, m, doubled, created_at) SELECT region, number, placed_on, m, doubled, created_at FROM \
             orders WHERE region = 'new'",
        ))
        .await?;
    checked("changed").await?;
    open.shop.command(&["flush"]).await?;
    checked("flushed again").await?;
    let would = open.shop.command(&["prune", "orders", "--older-than", "0s", "--dry-run"]).await?;
    ensure!(would.contains("would prune 280 of 280"), "{would}");
    let did = open.shop.command(&["prune", "orders", "--older-than", "0s", "--batch", "37"]).await?;
    ensure!(did.contains("pruned 280 of 280"), "{did}");
    assert_eq!(open.shop.count("SELECT count(*) FROM orders").await?, 0);
    assert_eq!(open.shop.dirty().await?, 0);
    checked("pruned").await?;
    open.shop.command(&["compact"]).await?;
    checked("pruned and compacted").await?;
    let back = open.shop.command(&["restore", "orders", "--where", "region IN ('moved', 'new') OR isnan(d)"]).await?;
    ensure!(back.contains("rows came back; 0 were there already"), "{back}");
    let same = open
        .shop
        .count("SELECT count(*) FROM (SELECT o::text FROM orders o EXCEPT SELECT t::text FROM twin t) d")
        .await?;
    assert_eq!(same, 0, "a row that came back is another one");
    // Seven were moved, one is new, one is no number.
    assert_eq!(open.shop.count("SELECT count(*) FROM orders").await?, 9);
    checked("restored").await?;
    open.shop
        .sql("UPDATE orders SET v = 'again' WHERE region = 'moved'; UPDATE twin SET v = 'again' WHERE region = 'moved'")
        .await?;
    checked("changed after it came back").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_on_every_type_give_the_rows_of_postgresql() -> Result<()> {
    let open = Shop::set_up(SCHEMA, "orders,customers").await?.open().await?;
    let filters = [
        ("region = 'region 3'", ""),
        ("region > 'region 5'", "region COLLATE \"C\" > 'region 5'"),
        ("number = 7", ""),
        ("number BETWEEN 10 AND 20", ""),
        ("number IN (1, 2, 300)", ""),
        ("number < 2.5", ""),
        ("region = 'region 1' AND number = 8 AND placed_on = DATE '2023-02-26'", ""),
        ("small <> 5", ""),
        ("big > 2900000000000", ""),
        ("r = 1.5", ""),
        ("r > 149", ""),
        ("d <= 0.5", ""),
        ("amount = 2.5", ""),
        ("amount < 10", ""),
        ("amount > 3.5e2", ""),
        ("huge > 3000000000000000000.5", ""),
        ("flag", ""),
        ("NOT flag", ""),
        ("v LIKE 'v1%'", ""),
        ("c = 'c3'", "c::text = 'c3'"),
        ("ci = 'Ci7'", "ci::text = 'Ci7'"),
        ("ci = 'ci7'", "ci::text = 'ci7'"),
        ("m = 'sad'", "m::text = 'sad'"),
        ("m IN ('none', 'glad')", "m::text IN ('none', 'glad')"),
        ("at_day >= DATE '2000-10-01'", ""),
        ("at_time < TIME '00:00:10'", ""),
        ("moment > TIMESTAMPTZ '1970-01-12 00:00:00+00'", ""),
        ("moment::DATE = DATE '1970-01-02'", "(moment AT TIME ZONE 'UTC')::date = '1970-01-02'"),
        ("naive >= TIMESTAMP '2024-12-01 00:00:00'", ""),
        ("naive < DATE '2024-03-03'", ""),
        ("bytes = '\\x00\\x07'::BLOB", "bytes = '\\x0007'"),
        ("customer = '00000000-0000-4000-8000-000000000003'", ""),
        ("customer IS NULL", ""),
        ("doc IS NOT NULL", ""),
        ("list_contains(numbers, 12)", "12 = ANY (numbers)"),
        ("list_contains(texts, 'x12')", "'x12' = ANY (texts)"),
        ("list_contains(amounts, 6.00)", "6.00 = ANY (amounts)"),
        ("amount IS DISTINCT FROM 2.5", ""),
        ("m = 'sad' OR number = 1", "m::text = 'sad' OR number = 1"),
    ];
    let checked = async |step: &str| {
        for (filter, of_postgres) in filters {
            let truth = if of_postgres.is_empty() { filter } else { of_postgres };
            let order = "ORDER BY region, number, placed_on";
            open.check(
                &format!("{step}: {filter}"),
                &format!("SELECT region, number, placed_on::text FROM orders WHERE {filter} {order}"),
                &format!(
                    "SELECT region, number, placed_on::text FROM twin WHERE {truth} {}",
                    order.replace("region", "region COLLATE \"C\"")
                ),
            )
            .await?;
        }
        anyhow::Ok(())
    };
    checked("hot").await?;
    // PostgreSQL filters them, all but a few.
    let answer = open
        .client
        .query("SELECT number FROM orders WHERE m = 'sad' AND amount < 10 AND list_contains(numbers, 3)")
        .await?;
    let pushed = answer.plan["references"][0]["sources"][0]["pushed"].as_array().context("nothing is pushed")?.len();
    assert_eq!(pushed, 3, "{:#}", answer.plan["references"]);
    let hot_only = open.client.with_option("tiers", "hot");
    let counted =
        open.ask(&hot_only, "SELECT count(*) FROM orders WHERE m = 'sad' AND at_time < TIME '00:01:00'").await?;
    assert_eq!(counted, open.shop.rows("SELECT count(*) FROM twin WHERE m = 'sad' AND at_time < '00:01:00'").await?);
    open.shop.command(&["flush", "--file-rows", "50"]).await?;
    checked("warm").await?;
    open.shop.command(&["compact", "--full", "--file-rows", "50"]).await?;
    open.shop.sql("UPDATE orders SET small = small WHERE number % 3 = 0").await?;
    checked("cold and hot").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_on_the_key_leave_files_out() -> Result<()> {
    let schema = "CREATE TABLE things (id bigint PRIMARY KEY, name text);
                  INSERT INTO things SELECT i, 'thing ' || i FROM generate_series(-500, 499) i";
    let open = Shop::set_up(schema, "things").await?.open().await?;
    open.shop.command(&["flush", "--file-rows", "100"]).await?;
    open.shop.command(&["compact", "--full", "--file-rows", "100"]).await?;
    for (filter, files, rows) in
        [("id = 7", 1, 1), ("id BETWEEN -5 AND 5", 2, 11), ("id > 450", 1, 49), ("id IN (1, 499)", 2, 2)]
    {
        let answer = open.client.query(&format!("SELECT name FROM things WHERE {filter}")).await?;
        let source = answer.plan["references"][0]["sources"]
            .as_array()
            .context("no sources")?
            .iter()
            .find(|source| source["tier"] == "cold");
        let scanned = source.context("no cold tier")?["files_scanned"].as_u64();
        assert_eq!(scanned, Some(files), "{filter}: {:#}", answer.plan["references"]);
        assert_eq!(answer.batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), rows, "{filter}");
    }
    open.shop.sql("UPDATE things SET name = 'changed' WHERE id IN (7, 8)").await?;
    let answer = open.client.query("SELECT name FROM things WHERE id = 7").await?;
    assert_eq!(answer.final_plan["references"][0]["dirty_rows"], 1, "{:#}", answer.final_plan);
    Ok(())
}
