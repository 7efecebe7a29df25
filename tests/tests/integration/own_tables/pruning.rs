//! `prune` and `restore`: what they leave alone, and that nothing is lost when they die or race.

use anyhow::{Result, ensure};

use super::Shop;

const SCHEMA: &str = "CREATE TABLE parents (id integer PRIMARY KEY, name text NOT NULL);
    CREATE TABLE children (id integer PRIMARY KEY, parent integer REFERENCES parents (id) ON DELETE CASCADE);
    INSERT INTO parents SELECT i, 'parent ' || i FROM generate_series(1, 100) i;
    INSERT INTO children SELECT i, i FROM generate_series(1, 10) i;
    CREATE TABLE twin AS SELECT * FROM parents";

const MINE: &str = "SELECT id, name FROM parents ORDER BY id";
const TRUTH: &str = "SELECT id, name FROM twin ORDER BY id";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_prune_leaves_alone() -> Result<()> {
    let open = Shop::set_up(SCHEMA, "parents").await?.open().await?;
    let prune = ["prune", "--older-than", "0s"];
    let said = open.shop.command(&prune).await?;
    ensure!(said.contains("pruned 0 of 0"), "nothing is flushed yet: {said}");
    open.shop.command(&["flush"]).await?;
    let said = open.shop.command(&["prune", "--older-than", "1h"]).await?;
    ensure!(said.contains("pruned 0 of 0"), "nothing is that old: {said}");
    // Dirty again, and one that is being written.
    open.shop
        .sql("UPDATE parents SET name = 'newer' WHERE id = 50; UPDATE twin SET name = 'newer' WHERE id = 50")
        .await?;
    let mut writer = open.shop.database.connect().await?;
    let transaction = writer.transaction().await?;
    transaction.batch_execute("UPDATE parents SET name = 'later' WHERE id = 60").await?;
    let would = open.shop.command(&["prune", "--older-than", "0s", "--dry-run"]).await?;
    let said = open.shop.command(&prune).await?;
    assert_eq!(would.replace("would prune", "pruned"), said);
    ensure!(
        said.contains("pruned 88 of 99 rows") && said.contains("10 rows are held back by children_parent_fkey"),
        "{said}"
    );
    ensure!(said.contains("1 are being written and stay"), "{said}");
    transaction.commit().await?;
    open.shop.sql("UPDATE twin SET name = 'later' WHERE id = 60").await?;
    assert_eq!(open.shop.rows("SELECT id FROM parents WHERE id > 10 ORDER BY id").await?, ["50", "60"]);
    assert_eq!(open.shop.count("SELECT count(*) FROM children").await?, 10);
    open.check("pruned", MINE, TRUTH).await?;
    // A row that the lake doesn't show as it was flushed stays.
    open.shop.command(&["flush"]).await?;
    open.shop
        .sql(
            "UPDATE thermocline_log.change_log SET changed_at = changed_at - 1 WHERE flushed_at <> 0 AND row_id = \
                   thermocline_log.thermocline_row_id(50)",
        )
        .await?;
    let output = open.shop.try_command(&prune).await?;
    ensure!(output.stderr.contains("1 flushed rows were not found in the lake"), "{}{}", output.stdout, output.stderr);
    assert_eq!(open.shop.rows("SELECT id FROM parents WHERE id > 10 ORDER BY id").await?, ["50"]);
    // A file that is gone or another one stops it.
    open.shop.sql("INSERT INTO parents VALUES (101, 'new'); INSERT INTO twin VALUES (101, 'new')").await?;
    open.shop.command(&["flush"]).await?;
    let paths = open
        .shop
        .rows("SELECT path FROM thermocline_log.lake_file WHERE retired_at IS NULL ORDER BY created_at DESC LIMIT 1")
        .await?;
    let file = open.shop.path("lake").join(&paths[0]);
    std::fs::rename(&file, file.with_extension("hidden"))?;
    let output = open.shop.try_command(&prune).await?;
    ensure!(!output.success && output.stderr.contains("nothing was pruned"), "{}", output.stderr);
    std::fs::rename(file.with_extension("hidden"), &file)?;
    open.shop.command(&prune).await?;
    open.check("at last", MINE, TRUTH).await?;
    // Triggers of the application would fire.
    open.shop
        .sql(
            "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'; \
                   CREATE TRIGGER shout BEFORE DELETE ON parents FOR EACH ROW EXECUTE FUNCTION shout()",
        )
        .await?;
    let output = open.shop.try_command(&prune).await?;
    ensure!(!output.success && output.stderr.contains("--fire-triggers"), "{}", output.stderr);
    open.shop.command(&["prune", "--older-than", "0s", "--fire-triggers"]).await?;
    // A trigger that is off means that changes may have been missed.
    open.shop.sql("ALTER TABLE parents DISABLE TRIGGER ALL").await?;
    let output = open.shop.try_command(&["prune", "--older-than", "0s", "--fire-triggers"]).await?;
    ensure!(!output.success && output.stderr.contains("doesn't fire always"), "{}", output.stderr);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prune_that_is_killed_loses_nothing() -> Result<()> {
    let schema = SCHEMA.replace("INSERT INTO children", "-- INSERT INTO children");
    let open = Shop::set_up(&schema, "parents").await?.open().await?;
    open.shop.command(&["flush", "--file-rows", "30"]).await?;
    let prune = ["prune", "--older-than", "0s", "--batch", "10"];
    for failpoint in ["prune.checked", "prune.locked", "prune.deleted", "prune.committed"] {
        open.shop.die(&prune, failpoint).await?;
        open.check(failpoint, MINE, TRUTH).await?;
        open.shop.command(&["compact", "--full"]).await?;
        open.check(failpoint, MINE, TRUTH).await?;
        assert_eq!(open.shop.dirty().await?, 0, "{failpoint}");
    }
    assert_eq!(open.shop.count("SELECT count(*) FROM parents").await?, 90);
    open.shop.command(&prune).await?;
    assert_eq!(open.shop.count("SELECT count(*) FROM parents").await?, 0);
    open.check("pruned", MINE, TRUTH).await?;
    for failpoint in ["restore.inserted", "restore.checked", "restore.committed"] {
        open.shop.die(&["restore", "parents", "--where", "id <= 20"], failpoint).await?;
        open.check(failpoint, MINE, TRUTH).await?;
        assert_eq!(open.shop.dirty().await?, 0, "{failpoint}");
    }
    assert_eq!(open.shop.count("SELECT count(*) FROM parents").await?, 20);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_change_while_they_are_moved_are_what_the_application_made_them() -> Result<()> {
    let schema = SCHEMA.replace("INSERT INTO children", "-- INSERT INTO children");
    let open = Shop::set_up(&schema, "parents").await?.open().await?;
    open.shop.command(&["flush"]).await?;
    // Written after the lake was asked, before the rows are locked.
    let program = open.shop.halt(&["prune", "--older-than", "0s"], "prune.checked").await?;
    for table in ["parents", "twin"] {
        open.shop
            .sql(&format!(
                "UPDATE {table} SET name = 'changed' WHERE id = 1; DELETE FROM {table} WHERE id = 2; UPDATE {table} SET id = 1003 \
                 WHERE id = 3; DELETE FROM {table} WHERE id = 4; INSERT INTO {table} VALUES (4, 'again')"
            ))
            .await?;
    }
    ensure!(program.go_on().await?.success);
    assert_eq!(
        open.shop.rows("SELECT id, name FROM parents ORDER BY id").await?,
        ["1|changed", "4|again", "1003|parent 3"]
    );
    open.check("pruned", MINE, TRUTH).await?;
    open.shop.command(&["flush"]).await?;
    open.shop.command(&["prune", "--older-than", "0s"]).await?;
    open.check("all pruned", MINE, TRUTH).await?;
    // The application makes a row anew whose old one is on its way back, and deletes it again.
    let program =
        open.shop.halt(&["restore", "parents", "--where", "id BETWEEN 10 AND 12"], "restore.inserted").await?;
    let writer = open.shop.database.connect().await?;
    let inserted = tokio::spawn(async move {
        writer
            .batch_execute("INSERT INTO parents VALUES (11, 'mine') ON CONFLICT (id) DO UPDATE SET name = 'mine'")
            .await
    });
    ensure!(program.go_on().await?.success);
    inserted.await??;
    open.shop.sql("UPDATE twin SET name = 'mine' WHERE id = 11").await?;
    open.check("restored", MINE, TRUTH).await?;
    open.shop.sql("DELETE FROM parents WHERE id = 10; DELETE FROM twin WHERE id = 10").await?;
    open.check("deleted after it came back", MINE, TRUTH).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_partitions_go_when_all_their_rows_may() -> Result<()> {
    let schema =
        "CREATE TABLE events (id bigint, day date NOT NULL, n integer, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
        CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
        CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
        CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM ('2024-03-01') TO ('2024-04-01');
        INSERT INTO events SELECT i, date '2024-01-01' + i % 90, i FROM generate_series(1, 300) i;
        CREATE TABLE twin AS SELECT * FROM events";
    let open = Shop::set_up(schema, "events").await?.open().await?;
    open.shop.command(&["flush"]).await?;
    open.shop
        .sql("UPDATE events SET n = -1 WHERE day = '2024-02-10'; UPDATE twin SET n = -1 WHERE day = '2024-02-10'")
        .await?;
    let would = open.shop.command(&["prune", "--older-than", "0s", "--partitions", "--dry-run"]).await?;
    ensure!(would.contains("would drop the partition public.events_1") && !would.contains("events_2"), "{would}");
    let said = open.shop.command(&["prune", "--older-than", "0s", "--partitions"]).await?;
    ensure!(said.contains("dropped the partition public.events_3"), "{said}");
    let left = open.shop.rows("SELECT relid::text FROM pg_partition_tree('events') WHERE isleaf").await?;
    assert_eq!(left, ["events_2"]);
    let sql = "SELECT id, CAST(day AS VARCHAR), n FROM events ORDER BY id";
    open.check("pruned", sql, "SELECT id, day::text, n FROM twin ORDER BY id").await?;
    // A partition that comes later is tracked as well.
    open.shop
        .sql(
            "CREATE TABLE events_4 PARTITION OF events FOR VALUES FROM ('2024-04-01') TO ('2024-05-01'); \
              INSERT INTO events VALUES (1000, '2024-04-04', 4); INSERT INTO twin VALUES (1000, '2024-04-04', 4); \
              UPDATE events SET day = '2024-04-05' WHERE id = 40; UPDATE twin SET day = '2024-04-05' WHERE id = 40",
        )
        .await?;
    open.check("a new partition", sql, "SELECT id, day::text, n FROM twin ORDER BY id").await?;
    Ok(())
}
