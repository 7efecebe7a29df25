//! `thermocline init`: what it writes, that it can run again, and that it leaves nothing behind.

use anyhow::{Result, ensure};
use thermocline_tests::postgres::{Cluster, TestDatabase};
use tokio_postgres::NoTls;

use super::{OpenShop, Shop};

const SCHEMA: &str = "CREATE TABLE orders (id bigint PRIMARY KEY, note text, created_at timestamptz DEFAULT now());
    CREATE TABLE \"Odd Name\" (\"Key\" integer PRIMARY KEY, \"a.b\" integer, \"A b\" text);
    CREATE SCHEMA sales; CREATE TABLE sales.orders (id uuid PRIMARY KEY);
    INSERT INTO orders SELECT i, 'order ' || i FROM generate_series(1, 1000) i; INSERT INTO \"Odd Name\" VALUES (1, 2, 'x')";

/// Everything in the database that `init` could have made or changed.
const OBJECTS: &str = "SELECT 'relation ' || c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
    UNION ALL SELECT 'function ' || p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
    UNION ALL SELECT 'trigger ' || tgname || ' ' || tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'schema ' || nspname FROM pg_namespace ORDER BY 1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_runs_again_without_harm_and_goes_without_trace() -> Result<()> {
    let shop = Shop::new(SCHEMA).await?;
    let before = shop.rows(OBJECTS).await?;
    let said = shop.init(&["--tables", "public.*,sales.orders"]).await?;
    ensure!(said.contains("new       orders: 3 columns of public.orders, key id"), "{said}");
    ensure!(said.contains("sales_orders") && said.contains("Odd_Name"), "{said}");
    assert_eq!(shop.rows(OBJECTS).await?, before, "init without --apply touched the database");
    let files = ["thermocline.toml", "catalog.toml", "setup.sql"].map(|name| shop.read(name).unwrap());
    ensure!(files[1].contains("name = \"table_created_at\""), "{}", files[1]);
    // Again: nothing is new, nothing is written anew.
    let said = shop.init(&["--tables", "public.*,sales.*"]).await?;
    ensure!(said.contains("nothing is new"), "{said}");
    assert_eq!(files, ["thermocline.toml", "catalog.toml", "setup.sql"].map(|name| shop.read(name).unwrap()));
    let refused = shop.try_command(&["init", "--apply"]).await?;
    ensure!(!refused.success && refused.stderr.contains("--yes"), "{}", refused.stderr);
    shop.init(&["--apply", "--yes"]).await?;
    let objects = shop.rows(OBJECTS).await?;
    shop.init(&["--apply", "--yes"]).await?;
    assert_eq!(shop.rows(OBJECTS).await?, objects);
    // setup.sql is what it ran, and psql can run it.
    shop.sql(&shop.read("setup.sql")?).await?;
    assert_eq!(shop.rows(OBJECTS).await?, objects);
    // The backfill goes on where it was, and enters each row once.
    let backfill = ["--backfill", "--batch", "100"];
    shop.sql("UPDATE orders SET note = 'written before' WHERE id = 500; DELETE FROM orders WHERE id = 501").await?;
    let said = shop.init(&backfill).await?;
    ensure!(said.contains("orders: 998 rows were entered"), "{said}");
    let again = shop.init(&backfill).await?;
    ensure!(again.contains("orders: 998 rows were entered"), "{again}");
    assert_eq!(shop.count("SELECT count(*) FROM thermocline_log.change_log WHERE schema_id = 2").await?, 1000);
    // New columns and tables are added where they belong; what has gone is told.
    shop.sql("ALTER TABLE orders ADD COLUMN price numeric(10,2), DROP COLUMN note; CREATE TABLE extra (id integer PRIMARY KEY)").await?;
    std::fs::write(shop.path("catalog.toml"), shop.read("catalog.toml")? + "# a word of my own\n")?;
    let said = shop.init(&["--tables", "*"]).await?;
    for part in ["added     orders.price", "new       extra", "public.orders has no column note any more"] {
        ensure!(said.contains(part), "{part} is not in\n{said}");
    }
    let catalog = shop.read("catalog.toml")?;
    ensure!(catalog.contains("# a word of my own") && catalog.contains("name = \"note\""), "{catalog}");
    let entity = catalog.find("name = \"orders\"").unwrap()..catalog.find("name = \"sales_orders\"").unwrap();
    ensure!(catalog[entity].contains("decimal(10,2)"), "{catalog}");
    shop.init(&["--apply", "--yes"]).await?;
    let check = shop.try_command(&["check"]).await?;
    ensure!(check.stdout.contains("no column note") && check.stdout.contains("1 wrong"), "{}", check.stdout);
    shop.sql("ALTER TABLE orders ADD COLUMN note text").await?;
    shop.init(&["--backfill"]).await?;
    let check = shop.command(&["check"]).await?;
    ensure!(check.contains("0 wrong, 0 to improve"), "{check}");
    // Switched off, missing: each with the statements that mend it.
    shop.sql("ALTER TABLE orders DISABLE TRIGGER ALL").await?;
    let check = shop.try_command(&["check"]).await?;
    ensure!(!check.success && check.stdout.contains("ENABLE ALWAYS TRIGGER"), "{}", check.stdout);
    shop.init(&["--apply", "--yes"]).await?;
    shop.command(&["check"]).await?;
    shop.init(&["--remove", "--yes"]).await?;
    shop.sql("DROP TABLE extra").await?;
    assert_eq!(shop.rows(OBJECTS).await?, before);
    assert_eq!(shop.count("SELECT count(*) FROM orders").await?, 999);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_not_written_is_the_primary_key() -> Result<()> {
    let shop = Shop::set_up(SCHEMA, "orders").await?;
    let catalog = shop.read("catalog.toml")?;
    let without: String =
        catalog.lines().filter(|line| !line.starts_with("key =")).map(|line| format!("{line}\n")).collect();
    assert_ne!(without, catalog);
    std::fs::write(shop.path("catalog.toml"), without)?;
    shop.sql("ALTER TABLE orders ADD COLUMN price numeric(10,2)").await?;
    shop.init(&["--tables", "orders", "--apply", "--yes"]).await?;
    ensure!(shop.read("catalog.toml")?.contains("decimal(10,2)"), "{}", shop.read("catalog.toml")?);
    shop.command(&["check"]).await?;
    shop.command(&["flush"]).await?;
    let open = shop.open().await?;
    open.shop.sql("UPDATE orders SET price = 2.5 WHERE id = 7").await?;
    let same = "SELECT id, note, price FROM orders WHERE id < 20 ORDER BY id";
    open.check("without a written key", same, same).await?;
    let OpenShop { shop, .. } = open;
    shop.sql("ALTER TABLE orders DROP CONSTRAINT orders_pkey").await?;
    let refused = shop.try_command(&["flush"]).await?;
    ensure!(!refused.success && refused.stderr.contains("`key` is missing"), "{}", refused.stderr);
    shop.sql("ALTER TABLE orders ADD PRIMARY KEY (id)").await?;
    let config = shop.read("thermocline.toml")?;
    std::fs::write(
        shop.path("thermocline.toml"),
        config.replace(&shop.database.url(), "postgresql://127.0.0.1:1/nowhere"),
    )?;
    let refused = shop.try_command(&["flush"]).await?;
    ensure!(!refused.success && refused.stderr.contains("can't be asked for the primary key"), "{}", refused.stderr);
    Ok(())
}

/// The triggers of the table behind it maintain the view's rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_answers_and_is_not_pruned() -> Result<()> {
    let shop = Shop::set_up(SCHEMA, "orders").await?;
    shop.sql("CREATE VIEW seen AS SELECT id, note, created_at FROM orders").await?;
    let catalog = shop.read("catalog.toml")?.replace("name = \"public.orders\"", "name = \"public.seen\"");
    std::fs::write(shop.path("catalog.toml"), catalog)?;
    let checked = shop.command(&["check"]).await?;
    ensure!(checked.contains("public.seen is a view") && checked.contains("0 wrong, 1 to improve"), "{checked}");
    shop.command(&["flush"]).await?;
    let open = shop.open().await?;
    open.shop
        .sql("UPDATE orders SET note = 'x' WHERE id = 7; DELETE FROM orders WHERE id = 8; INSERT INTO orders VALUES (5000, 'n')")
        .await?;
    let same = "SELECT id, note FROM orders WHERE id < 20 OR id > 4000 ORDER BY id";
    open.check("over a view", same, same).await?;
    open.shop.command(&["flush"]).await?;
    open.shop.command(&["compact"]).await?;
    open.check("over a view, from files", same, same).await?;
    let refused = open.shop.try_command(&["prune", "orders", "--older-than", "0s"]).await?;
    ensure!(!refused.success && refused.stderr.contains("public.seen is a view"), "{}", refused.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_knows_nothing_of_thermocline_writes_as_before() -> Result<()> {
    let shop = Shop::set_up(SCHEMA, "orders").await?;
    shop.sql(
        "DO $$ BEGIN CREATE ROLE clerk LOGIN PASSWORD 'clerk'; EXCEPTION WHEN duplicate_object THEN NULL; END $$; \
              GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO clerk",
    )
    .await?;
    let url = shop.database.url().replace(
        &format!("{}:{}", thermocline_tests::postgres::USER, thermocline_tests::postgres::PASSWORD),
        "clerk:clerk",
    );
    let (clerk, connection) = tokio_postgres::connect(&url, NoTls).await?;
    let connection = tokio::spawn(connection);
    // A path on which nothing of ours is found, and functions of the same names that are.
    clerk.batch_execute("SET search_path = pg_temp, public; INSERT INTO orders VALUES (2000, 'clerk'); DELETE FROM orders WHERE id = 1").await?;
    drop(clerk);
    connection.await??;
    assert_eq!(shop.count("SELECT count(*) FROM thermocline_log.change_log WHERE deleted_at IS NOT NULL").await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eav_installations_are_listed_with_guessed_types() -> Result<()> {
    let database = TestDatabase::create_in(&Cluster::shared().await?).await?;
    let client = database.connect().await?;
    client
        .batch_execute(
            "INSERT INTO schema_registry VALUES (7, 'things');
             INSERT INTO entity_main (ltbase_schema_id, ltbase_row_id, text_01, ltbase_created_at, ltbase_updated_at)
               VALUES (7, '00000000-0000-4000-8000-000000000001', 'a', 1, 1);
             INSERT INTO eav_data VALUES (7, '00000000-0000-4000-8000-000000000001', 201, '', NULL, 5),
               (7, '00000000-0000-4000-8000-000000000001', 202, '0', 'x', NULL),
               (7, '00000000-0000-4000-8000-000000000001', 203, '', NULL, 0.5),
               (7, '00000000-0000-4000-8000-000000000001', 204, '', '00000000-0000-4000-8000-000000000001', NULL);
             INSERT INTO change_log VALUES (7, '00000000-0000-4000-8000-000000000001', 0, 5, NULL)",
        )
        .await?;
    let shop = Shop { database, dir: tempfile::tempdir()? };
    let said = shop.init(&["--eav", "--apply", "--yes"]).await?;
    ensure!(said.contains("things: 5 columns of entity_main and eav_data"), "{said}");
    let open = shop.open().await?;
    let sql = "SELECT text_01, attr_201, CAST(to_json(attr_202) AS VARCHAR), attr_203, attr_204 FROM things";
    assert_eq!(open.ask(&open.client, sql).await?, ["a|5|[\"x\"]|0.5|00000000-0000-4000-8000-000000000001"]);
    let check = open.shop.command(&["check"]).await?;
    ensure!(check.contains("0 wrong"), "{check}");
    open.shop.init(&["--remove", "--yes"]).await?;
    assert_eq!(open.shop.count("SELECT count(*) FROM change_log").await?, 1);
    Ok(())
}
