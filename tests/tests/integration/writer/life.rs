//! What becomes of rows: flushed, merged, deleted, held back, in new shapes.

use anyhow::{Context, Result, ensure};
use thermocline_tests::r#gen;
use thermocline_tests::lake::LakeFile;
use thermocline_tests::model::{Entity, Kind, Value};
use thermocline_tests::oracle::{HotVersion, Order, Stored, View};
use thermocline_tests::postgres::HotRow;
use thermocline_tests::scenario::{LakeKind, live, row_id, tombstone};
use tokio::io::AsyncBufReadExt;

use super::{CATALOGS, Catalog, command, data_files, dirty_rows, halt, hot, rows, start, try_command};
use crate::{is_long, thing, things};

#[tokio::test]
async fn answers_stay_the_same_through_flush_and_compact() -> Result<()> {
    let kinds =
        [(LakeKind::Local, Catalog::Listing), (LakeKind::Local, Catalog::Manifest), (LakeKind::S3, Catalog::Manifest)];
    for (number, (kind, catalog)) in kinds.into_iter().enumerate() {
        let mut rng = r#gen::rng(70 + number as u64);
        let mut stored = r#gen::stored(&mut rng, &r#gen::every_type("everything", 7), 60);
        for hot in stored.hot.iter_mut() {
            // Files go by their timestamps: a version that is flushed is newer than those before it.
            hot.version.changed_at += 1_000;
            hot.version.deleted_at = hot.version.deleted_at.map(|at| if at == 0 { 0 } else { hot.version.changed_at });
        }
        let scenario = start(vec![stored], kind, catalog).await?;
        let oracle = scenario.oracle(View::default())?;
        let check = async |step: &str| {
            for sql in ["SELECT * FROM everything", "SELECT count(*) AS c FROM everything"] {
                let checked = scenario.check(&oracle, sql, Order::Any).await;
                checked.with_context(|| format!("{kind:?}, {catalog:?}, {step}"))?;
            }
            anyhow::Ok(())
        };
        check("before").await?;
        let said = command(&scenario, &["flush", "--file-rows", "7"]).await?;
        ensure!(said.contains("everything: flushed "), "{said}");
        check("flushed").await?;
        let said = command(&scenario, &["compact", "--dry-run", "everything"]).await?;
        ensure!(said.contains("would rewrite"), "{said}");
        check("planned").await?;
        let said = command(&scenario, &["compact", "--file-rows", "20"]).await?;
        ensure!(said.contains("rewrote "), "{said}");
        check("compacted").await?;
        command(&scenario, &["gc", "--grace", "0s"]).await?;
        check("collected").await?;
        let files = data_files(&scenario).await?;
        ensure!(files.iter().all(|path| path.starts_with("base/7/")) && files.len() > 1, "{files:?}");
        // Rows that are dirty without an entity_main row stay dirty: window or not, each row is once in base.
        let answer = scenario.client.query("SELECT count(*) AS c FROM everything").await?;
        let strategy = &answer.plan["references"][0]["merge"]["strategy"];
        ensure!(strategy != "window", "{:#}", answer.plan);
        let said = command(&scenario, &["compact", "--full", "--file-rows", "50"]).await?;
        ensure!(said.contains("rewrote "), "{said}");
        check("rewritten").await?;
        if catalog == Catalog::Manifest {
            let said = command(&scenario, &["manifest", "verify"]).await?;
            ensure!(said.contains("0 missing, 0 damaged"), "{said}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_row_goes_from_hot_to_warm_to_cold() -> Result<()> {
    for catalog in CATALOGS {
        let scenario = start(vec![Stored::new(&things())], LakeKind::Local, catalog).await?;
        let sql = "SELECT name, n, _tier FROM things";
        scenario
            .database
            .write(&things(), &[HotRow { version: &live(1, 10, thing("one", 1)), dirty: true, has_main: true }])
            .await?;
        assert_eq!(rows(&scenario.client, sql).await?, ["one|1|hot"]);
        command(&scenario, &["flush"]).await?;
        assert_eq!(rows(&scenario.client, sql).await?, ["one|1|warm"]);
        command(&scenario, &["compact"]).await?;
        command(&scenario, &["gc", "--grace", "0s"]).await?;
        assert_eq!(rows(&scenario.client, sql).await?, ["one|1|cold"]);
        let said = command(&scenario, &["compact"]).await?;
        ensure!(said.contains("nothing to compact"), "{said}");
        let said = command(&scenario, &["flush"]).await?;
        ensure!(said.contains("nothing to flush"), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn deleted_rows_stay_deleted_and_their_tombstones_go() -> Result<()> {
    for catalog in CATALOGS {
        let entity = things();
        let mut stored = Stored::new(&entity);
        stored.files =
            vec![LakeFile::base(&entity, "a.parquet", (0..10).map(|n| live(n, 10, thing("base", 1))).collect())];
        stored.hot = vec![
            hot(tombstone(1, 20, thing("gone", 2))),
            HotVersion { version: tombstone(2, 20, thing("gone", 2)), dirty: true, has_main: false },
            // Nothing older is anywhere.
            hot(tombstone(30, 20, thing("gone", 2))),
        ];
        let scenario = start(vec![stored], LakeKind::Local, catalog).await?;
        let count = "SELECT count(*) FROM things";
        let deleted = scenario.client.with_option("include_deleted", "true");
        let shown = "SELECT row_id, name FROM things WHERE _deleted_at IS NOT NULL ORDER BY row_id";
        command(&scenario, &["flush"]).await?;
        assert_eq!(rows(&scenario.client, count).await?, ["8"]);
        let expected = [format!("{}|gone", row_id(1)), format!("{}|NULL", row_id(2)), format!("{}|gone", row_id(30))];
        assert_eq!(rows(&deleted, shown).await?, expected, "{catalog:?}");
        command(&scenario, &["compact"]).await?;
        assert_eq!(rows(&scenario.client, count).await?, ["8"]);
        command(&scenario, &["gc", "--grace", "0s"]).await?;
        assert_eq!(rows(&scenario.client, count).await?, ["8"]);
        // In listing mode the old files were still read beside the new one: tombstones with older versions stay in it.
        let left = if catalog == Catalog::Manifest { 0 } else { 2 };
        assert_eq!(rows(&deleted, shown).await?.len(), left, "{catalog:?}");
        command(&scenario, &["compact", "--full"]).await?;
        command(&scenario, &["gc", "--grace", "0s"]).await?;
        assert_eq!(rows(&deleted, shown).await?.len(), 0, "{catalog:?}");
        assert_eq!(rows(&scenario.client, count).await?, ["8"]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_written_during_a_flush_stays_dirty() -> Result<()> {
    for catalog in CATALOGS {
        let entity = things();
        let mut stored = Stored::new(&entity);
        stored.hot = (0..4).map(|n| hot(live(n, 10, thing("first", 1)))).collect();
        let scenario = start(vec![stored], LakeKind::Local, catalog).await?;
        let halted = halt(&scenario, &["flush"], "flush.published").await?;
        let client = scenario.database.connect().await?;
        // Row 0 within the same millisecond, row 1 later, row 2 is locked by a transaction that hasn't ended yet.
        for (number, changed_at) in [(0, 10_i64), (1, 11)] {
            client
                .execute("UPDATE entity_main SET text_01 = 'second' WHERE ltbase_row_id = $1", &[&row_id(number)])
                .await?;
            client
                .execute(
                    "INSERT INTO change_log (schema_id, row_id, changed_at) VALUES (100, $1, $2) \
                     ON CONFLICT (schema_id, row_id, flushed_at) DO UPDATE SET changed_at = excluded.changed_at",
                    &[&row_id(number), &changed_at],
                )
                .await?;
        }
        let mut other = scenario.database.connect().await?;
        let open = other.transaction().await?;
        open.execute("UPDATE change_log SET changed_at = 12 WHERE row_id = $1 AND flushed_at = 0", &[&row_id(2)])
            .await?;
        let output = halted.go_on().await?;
        ensure!(output.success && output.stdout.contains("3 written again"), "{}{}", output.stdout, output.stderr);
        open.commit().await?;
        assert_eq!(dirty_rows(&scenario).await?, 3);
        let sql = "SELECT name, _tier FROM things ORDER BY row_id";
        let expected = ["second|hot", "second|hot", "first|hot", "first|warm"];
        assert_eq!(rows(&scenario.client, sql).await?, expected, "{catalog:?}");
        // The second file of row 0 has the same `changed_at`; its greater name makes it win.
        command(&scenario, &["flush"]).await?;
        assert_eq!(dirty_rows(&scenario).await?, 0);
        let expected = ["second|warm", "second|warm", "first|warm", "first|warm"];
        assert_eq!(rows(&scenario.client, sql).await?, expected, "{catalog:?}");
        command(&scenario, &["compact"]).await?;
        command(&scenario, &["gc", "--grace", "0s"]).await?;
        let expected = ["second|cold", "second|cold", "first|cold", "first|cold"];
        assert_eq!(rows(&scenario.client, sql).await?, expected, "{catalog:?}");
    }
    Ok(())
}

#[tokio::test]
async fn progress_is_told_where_there_is_no_terminal() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.hot = (0..2_000).map(|n| hot(live(n, 10, thing("a", 1)))).collect();
    let scenario = start(vec![stored], LakeKind::Local, Catalog::Manifest).await?;
    for (args, failpoint, line) in [
        (["flush", "--progress-every", "10ms"], "flush.published", "things: flushing 2,000 of 2,000 rows"),
        (["compact", "--progress-every", "10ms"], "compact.published", "things: compacting 2,000 of 2,000 rows"),
    ] {
        let mut halted = halt(&scenario, &args, failpoint).await?;
        let stderr = halted.stderr().context("no standard error")?;
        let mut lines = tokio::io::BufReader::new(stderr).lines();
        // While it waits at the failpoint it tells again and again.
        let told = async {
            while let Some(told) = lines.next_line().await? {
                if told == line {
                    return Ok(());
                }
            }
            anyhow::bail!("it never said {line}")
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), told).await??;
        // A pipe that nobody reads would fill up and hold the writer.
        drop(lines);
        ensure!(halted.go_on().await?.success, "{args:?}");
    }
    Ok(())
}

#[tokio::test]
async fn triggers_and_ages_hold_rows_back() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    let now = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis())?;
    stored.hot = vec![hot(live(1, 20, thing("old", 1))), hot(live(2, now, thing("new", 1)))];
    let scenario = start(vec![stored], LakeKind::Local, Catalog::Listing).await?;
    let said = command(&scenario, &["flush", "--when-rows", "3", "--when-bytes", "1GB"]).await?;
    ensure!(said.contains("2 rows are dirty; no flush is due"), "{said}");
    let said = command(&scenario, &["flush", "--dry-run"]).await?;
    ensure!(said.contains("would flush 2 rows"), "{said}");
    let said = command(&scenario, &["flush", "--min-age", "1h", "--when-age", "1d"]).await?;
    ensure!(said.contains("flushed 1 rows"), "{said}");
    let sql = "SELECT name, _tier FROM things ORDER BY row_id";
    assert_eq!(rows(&scenario.client, sql).await?, ["old|warm", "new|hot"]);
    let said = command(&scenario, &["flush", "--when-bytes", "10"]).await?;
    ensure!(said.contains("flushed 1 rows"), "{said}");
    Ok(())
}

#[tokio::test]
async fn compact_brings_old_files_into_the_newest_shape() -> Result<()> {
    let narrow = Entity::new("things", 100).main("name", Kind::Text, "text_01").main("n", Kind::SmallInt, "bigint_01");
    let wide = Entity::new("things", 100).main("name", Kind::Text, "text_01").main("n", Kind::BigInt, "bigint_01").eav(
        "note",
        Kind::Text,
        201,
    );
    for catalog in CATALOGS {
        let old = LakeFile::base(
            &narrow,
            "a.parquet",
            (0..5).map(|n| live(n, 10, vec![Value::text("old"), Value::Integer(1)])).collect(),
        );
        let mut stored = Stored::new(&wide);
        let value = || vec![Value::text("new"), Value::Integer(5_000_000_000), Value::text("note")];
        stored.files = vec![old];
        stored.hot = vec![hot(live(7, 20, value()))];
        let scenario = start(vec![stored], LakeKind::Local, catalog).await?;
        let sql = "SELECT name, n, note FROM things ORDER BY row_id DESC LIMIT 2";
        let expected = ["new|5000000000|note", "old|1|NULL"];
        assert_eq!(rows(&scenario.client, sql).await?, expected);
        command(&scenario, &["flush"]).await?;
        assert_eq!(rows(&scenario.client, sql).await?, expected);
        command(&scenario, &["compact", "--full"]).await?;
        command(&scenario, &["gc", "--grace", "0s"]).await?;
        assert_eq!(rows(&scenario.client, sql).await?, expected);
        let files = data_files(&scenario).await?;
        ensure!(files.len() == 1, "{files:?}");
        let place = scenario.lake.folder().context("a local lake")?.join(&files[0]);
        let connection = duckdb::Connection::open_in_memory()?;
        let sql = format!(
            "SELECT string_agg(column_name || ' ' || column_type, ', ') FROM (DESCRIBE FROM '{}')",
            place.display()
        );
        let columns: String = connection.query_row(&sql, [], |row| row.get(0))?;
        assert_eq!(
            columns,
            "row_id UUID, name VARCHAR, n BIGINT, note VARCHAR, created_at BIGINT, changed_at BIGINT, deleted_at BIGINT"
        );
    }
    Ok(())
}

/// A process that has merged in DuckDB ends as its work did, again and again.
#[tokio::test]
async fn a_compaction_that_succeeds_says_so_in_its_exit_code() -> Result<()> {
    for kind in [LakeKind::Local, LakeKind::S3] {
        let entity = things();
        let mut stored = Stored::new(&entity);
        stored.files =
            vec![LakeFile::base(&entity, "a.parquet", (0..500).map(|n| live(n, 10, thing("base", 1))).collect())];
        let scenario = start(vec![stored], kind, Catalog::Manifest).await?;
        for _ in 0..if is_long() { 100 } else { 4 } {
            let output = try_command(&scenario, &["compact", "--full"]).await?;
            assert_eq!(output.code, Some(0), "{kind:?}: {}{}", output.stdout, output.stderr);
        }
    }
    Ok(())
}
