//! `thermocline flush`, `compact`, `gc` and `manifest`, on both lake catalogs: answers stay what they were, whatever
//! happens to the writers on the way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use thermocline_tests::client::Client;
use thermocline_tests::r#gen;
use thermocline_tests::lake::LakeFile;
use thermocline_tests::model::{Entity, Kind, Value};
use thermocline_tests::oracle::{HotVersion, Order, Stored, View, rows_of};
use thermocline_tests::postgres::{Cluster, HotRow, TestDatabase};
use thermocline_tests::scenario::{LakeKind, Scenario, live, row_id, tombstone};
use thermocline_tests::server::{CommandOutput, ServerConfig, binary};

use crate::writers::{self, ACCOUNTS, BALANCE, accounts};
use crate::{is_long, thing, things};

/// Who knows the set of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Catalog {
    Listing,
    Manifest,
}

const CATALOGS: [Catalog; 2] = [Catalog::Listing, Catalog::Manifest];

fn with_manifest(config: ServerConfig) -> ServerConfig {
    config.with("lake", "catalog", "manifest")
}

async fn start(stored: Vec<Stored>, kind: LakeKind, catalog: Catalog) -> Result<Scenario> {
    let configure = |config| if catalog == Catalog::Manifest { with_manifest(config) } else { config };
    let scenario = Scenario::start_with(stored, kind, configure).await?;
    if catalog == Catalog::Manifest {
        command(&scenario, &["manifest", "import"]).await?;
    }
    Ok(scenario)
}

/// Runs the program with the server's configuration.
async fn try_command(scenario: &Scenario, args: &[&str], env: &[(&str, String)]) -> Result<CommandOutput> {
    let mut program = tokio::process::Command::new(binary()?);
    program.args(args).arg("--config").arg(scenario.server.config_path());
    program.env("TMPDIR", scenario.server.dir().join("tmp"));
    program.envs(env.iter().map(|(name, value)| (name, value)));
    let output = program.stdin(std::process::Stdio::null()).kill_on_drop(true).output().await?;
    Ok(CommandOutput {
        success: output.status.success(),
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: format!("{} ({})", String::from_utf8_lossy(&output.stderr), output.status),
    })
}

/// The same, and it must succeed; returns what it said.
async fn command(scenario: &Scenario, args: &[&str]) -> Result<String> {
    let output = try_command(scenario, args, &[]).await?;
    ensure!(output.success, "{args:?} failed: {}{}", output.stdout, output.stderr);
    Ok(output.stdout)
}

/// Runs a writer until it dies at a failpoint.
async fn die(scenario: &Scenario, args: &[&str], failpoint: &str) -> Result<()> {
    let output = try_command(scenario, args, &[("THERMOCLINE_FAILPOINT", failpoint.to_owned())]).await?;
    ensure!(output.code.is_none(), "{args:?} passed {failpoint}: {}{}", output.stdout, output.stderr);
    Ok(())
}

/// Rows of a query as text.
async fn rows(client: &Client, sql: &str) -> Result<Vec<String>> {
    let answer = client.query(sql).await.with_context(|| sql.to_owned())?;
    let cells =
        |row: &Vec<_>| row.iter().map(|cell: &thermocline_tests::oracle::Cell| cell.to_string()).collect::<Vec<_>>();
    Ok(rows_of(&answer.batches).iter().map(|row| cells(row).join("|")).collect())
}

async fn dirty_rows(scenario: &Scenario) -> Result<i64> {
    let client = scenario.database.connect().await?;
    Ok(client.query_one("SELECT count(*) FROM change_log WHERE flushed_at = 0", &[]).await?.get(0))
}

fn hot(version: thermocline_tests::model::Version) -> HotVersion {
    HotVersion { version, dirty: true, has_main: true }
}

/// Files of the lake that queries may read.
async fn data_files(scenario: &Scenario) -> Result<Vec<String>> {
    let mut files = scenario.lake.list().await?;
    files.retain(|path| path.ends_with(".parquet") && !path.contains("/_"));
    Ok(files)
}

const ALL_THINGS: &str = "SELECT row_id, name, n, note, size_cm, created_at, updated_at FROM things ORDER BY row_id";

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

/// Halts a writer at a failpoint until it is told to go on.
struct Halted {
    file: PathBuf,
    run: tokio::task::JoinHandle<Result<CommandOutput>>,
}

impl Halted {
    async fn at(scenario: &Arc<Scenario>, args: &'static [&'static str], failpoint: &str) -> Result<Self> {
        let file = scenario.server.dir().join(failpoint);
        let env = [("THERMOCLINE_FAILPOINT", format!("{failpoint}=wait:{}", file.display()))];
        let scenario = Arc::clone(scenario);
        let run = tokio::spawn(async move { try_command(&scenario, args, &env).await });
        let reached = PathBuf::from(format!("{}.reached", file.display()));
        let until = Instant::now() + Duration::from_secs(60);
        while !reached.exists() {
            ensure!(Instant::now() < until && !run.is_finished(), "{args:?} never came to {failpoint}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Self { file, run })
    }

    async fn go_on(self) -> Result<CommandOutput> {
        std::fs::write(&self.file, "")?;
        self.run.await?
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_written_during_a_flush_stays_dirty() -> Result<()> {
    for catalog in CATALOGS {
        let entity = things();
        let mut stored = Stored::new(&entity);
        stored.hot = (0..4).map(|n| hot(live(n, 10, thing("first", 1)))).collect();
        let scenario = Arc::new(start(vec![stored], LakeKind::Local, catalog).await?);
        let halted = Halted::at(&scenario, &["flush"], "flush.published").await?;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_the_second_says_so_and_stops() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.hot = vec![hot(live(1, 10, thing("one", 1)))];
    let scenario = Arc::new(start(vec![stored], LakeKind::Local, Catalog::Manifest).await?);
    for (args, failpoint) in [(&["flush"][..], "flush.published"), (&["compact", "--full"][..], "compact.published")] {
        let halted = Halted::at(&scenario, args, failpoint).await?;
        let second = try_command(&scenario, args, &[]).await?;
        assert_eq!(second.code, Some(3), "{}{}", second.stdout, second.stderr);
        ensure!(second.stderr.contains("is at work on things"), "{}", second.stderr);
        let first = halted.go_on().await?;
        ensure!(first.success, "{}{}", first.stdout, first.stderr);
    }
    assert_eq!(rows(&scenario.client, "SELECT name, _tier FROM things").await?, ["one|cold"]);
    Ok(())
}

#[tokio::test]
async fn a_writer_that_is_killed_loses_and_doubles_nothing() -> Result<()> {
    const FLUSH: &[&str] =
        &["flush.exported", "flush.published_one", "flush.published", "flush.marking", "flush.committed"];
    const COMPACT: &[&str] =
        &["compact.merged", "compact.published_one", "compact.published", "compact.swapping", "compact.swapped"];
    for (kind, catalog) in
        [(LakeKind::Local, Catalog::Listing), (LakeKind::Local, Catalog::Manifest), (LakeKind::S3, Catalog::Manifest)]
    {
        let entity = things();
        let mut stored = Stored::new(&entity);
        stored.files =
            vec![LakeFile::base(&entity, "a.parquet", (0..20).map(|n| live(n, 10, thing("base", 1))).collect())];
        stored.hot = (10..30).map(|n| hot(live(n, 20, thing("hot", 2)))).collect();
        stored.hot.push(hot(tombstone(5, 20, thing("gone", 2))));
        let scenario = start(vec![stored], kind, catalog).await?;
        let expected = rows(&scenario.client, ALL_THINGS).await?;
        assert_eq!(expected.len(), 29);
        let check = async |step: &str| {
            let found = rows(&scenario.client, ALL_THINGS).await.with_context(|| format!("{catalog:?}, {step}"))?;
            ensure!(found == expected, "{kind:?}, {catalog:?}, {step}: {found:#?}");
            anyhow::Ok(())
        };
        for failpoint in FLUSH {
            die(&scenario, &["flush", "--file-rows", "8"], failpoint).await?;
            check(failpoint).await?;
        }
        command(&scenario, &["flush"]).await?;
        check("flushed").await?;
        assert_eq!(dirty_rows(&scenario).await?, 0);
        for failpoint in COMPACT {
            die(&scenario, &["compact", "--full", "--file-rows", "8"], failpoint).await?;
            check(failpoint).await?;
        }
        die(&scenario, &["gc", "--grace", "0s"], "gc.deleted_one").await?;
        check("gc died").await?;
        command(&scenario, &["compact"]).await?;
        check("compacted").await?;
        let would = command(&scenario, &["gc", "--grace", "0s", "--dry-run"]).await?;
        let did = command(&scenario, &["gc", "--grace", "0s"]).await?;
        assert_eq!(would.replace("would delete", "deleted"), did);
        check("collected").await?;
        // What is left is what is in force, each row once.
        let left = scenario.lake.list().await?;
        assert_eq!(left, data_files(&scenario).await?);
        let lake_only = scenario.client.with_option("tiers", "warm,cold");
        let answer = lake_only.query("SELECT count(*) AS c FROM things").await?;
        let sources = answer.final_plan["references"][0]["sources"].as_array().context("no sources")?;
        let total: u64 = sources.iter().filter_map(|source| source["files_total"].as_u64()).sum();
        assert_eq!(usize::try_from(total)?, left.len(), "{:#}", answer.final_plan);
        let again = command(&scenario, &["gc", "--grace", "0s"]).await?;
        ensure!(again.contains("deleted 0 objects"), "{again}");
    }
    Ok(())
}

#[tokio::test]
async fn gc_keeps_what_a_query_or_another_program_may_need() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![LakeFile::base(&entity, "a.parquet", vec![live(1, 10, thing("base", 1))])];
    stored.hot = vec![hot(live(1, 20, thing("hot", 2)))];
    let scenario = start(vec![stored], LakeKind::Local, Catalog::Manifest).await?;
    command(&scenario, &["flush"]).await?;
    command(&scenario, &["compact"]).await?;
    let other = LakeFile::delta(&entity, "other.parquet", vec![live(9, 10, thing("other", 1))]);
    scenario.lake.put(&other).await?;
    let before = scenario.lake.list().await?;
    let said = command(&scenario, &["gc"]).await?;
    ensure!(said.contains("deleted 0 objects, 2 files replaced"), "{said}");
    ensure!(said.contains("left delta/100/other.parquet"), "{said}");
    assert_eq!(scenario.lake.list().await?, before);
    let said = command(&scenario, &["gc", "--grace", "0s"]).await?;
    ensure!(said.contains("deleted base/100/a.parquet: it was replaced"), "{said}");
    assert_eq!(scenario.lake.list().await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn the_manifest_is_imported_and_verified() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    let twice = vec![live(1, 10, thing("a", 1)), live(1, 11, thing("b", 1)), live(2, 10, thing("c", 1))];
    stored.files = vec![
        LakeFile::base(&entity, "twice.parquet", twice),
        LakeFile::delta(&entity, "d.parquet", vec![live(2, 20, thing("d", 1))]),
    ];
    stored.hot = vec![hot(live(3, 20, thing("e", 1)))];
    let scenario = Scenario::start_with(vec![stored], LakeKind::S3, with_manifest).await?;
    let refused = try_command(&scenario, &["flush"], &[]).await?;
    ensure!(!refused.success && refused.stderr.contains("CREATE TABLE IF NOT EXISTS"), "{}", refused.stderr);
    let said = command(&scenario, &["manifest", "import", "--dry-run"]).await?;
    ensure!(said.contains("would import 2 files with 4 rows"), "{said}");
    let said = command(&scenario, &["manifest", "import"]).await?;
    ensure!(said.contains("twice.parquet holds a row more than once"), "{said}");
    let said = command(&scenario, &["manifest", "import"]).await?;
    ensure!(said.contains("imported 0 files with 0 rows; 2 files known before"), "{said}");
    let sql = "SELECT name, _tier FROM things ORDER BY row_id";
    assert_eq!(rows(&scenario.client, sql).await?, ["b|cold", "d|warm", "e|hot"]);
    command(&scenario, &["manifest", "verify"]).await?;

    // A bit flips, a file vanishes, one comes from nowhere.
    let path = "base/100/twice.parquet";
    let mut content = scenario.lake.get(path).await?.to_vec();
    content[40] ^= 1;
    scenario.lake.put_bytes(path, content).await?;
    scenario.lake.delete("delta/100/d.parquet").await?;
    scenario.lake.put(&LakeFile::delta(&entity, "x.parquet", vec![live(9, 10, thing("x", 1))])).await?;
    let verified = try_command(&scenario, &["manifest", "verify"], &[]).await?;
    assert_eq!(verified.code, Some(4), "{}{}", verified.stdout, verified.stderr);
    for part in [
        "damaged base/100/twice.parquet: its content isn't what was written",
        "missing delta/100/d.parquet",
        "orphaned delta/100/x.parquet",
        "2 files in force, 1 missing, 1 damaged, 1 orphaned",
    ] {
        ensure!(verified.stdout.contains(part), "no {part} in {}", verified.stdout);
    }
    Ok(())
}

#[tokio::test]
async fn files_that_a_new_manifest_does_not_know_stop_writers() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.hot = vec![hot(live(3, 20, thing("e", 1)))];
    let scenario = start(vec![stored], LakeKind::Local, Catalog::Manifest).await?;
    scenario.lake.put(&LakeFile::delta(&entity, "x.parquet", vec![live(9, 10, thing("x", 1))])).await?;
    for args in [&["flush"][..], &["compact"][..]] {
        let refused = try_command(&scenario, args, &[]).await?;
        ensure!(!refused.success && refused.stderr.contains("manifest import"), "{}", refused.stderr);
    }
    assert_eq!(dirty_rows(&scenario).await?, 1);
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

#[tokio::test]
async fn other_readers_find_the_same_values_in_the_files() -> Result<()> {
    let python = thermocline_tests::cache_dir()?.join("python/bin/python");
    ensure!(python.is_file(), "no {}; run `cargo xtask setup`", python.display());
    let entity = r#gen::every_type("everything", 7);
    let mut stored = Stored::new(&entity);
    let mut rng = r#gen::rng(5);
    stored.hot = (0..50).map(|number| hot(r#gen::version(&mut rng, &entity, number))).collect();
    let scenario = start(vec![stored], LakeKind::Local, Catalog::Listing).await?;
    command(&scenario, &["flush"]).await?;
    let files = data_files(&scenario).await?;
    ensure!(files.len() == 1, "{files:?}");
    let place = scenario.lake.folder().context("a local lake")?.join(&files[0]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/read_flushed.py");
    let output = tokio::process::Command::new(python)
        .arg(script)
        .arg(place)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.contains("50 rows, all readers agree"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_hold_while_real_writers_work_on_a_listing() -> Result<()> {
    race(LakeKind::Local, Catalog::Listing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_hold_while_real_writers_work_on_a_manifest() -> Result<()> {
    race(LakeKind::S3, Catalog::Manifest).await
}

/// Writers of the application, two flushers, a compactor and a collector, while queries watch the sum.
async fn race(kind: LakeKind, catalog: Catalog) -> Result<()> {
    let entity = accounts();
    let mut stored = Stored::new(&entity);
    let start_value = |n| live(n, 1, vec![Value::Integer(BALANCE), Value::Integer(0)]);
    stored.files = vec![LakeFile::base(&entity, "a.parquet", (0..ACCOUNTS).map(start_value).collect())];
    stored.hot = (0..ACCOUNTS).map(|n| HotVersion { version: start_value(n), dirty: false, has_main: true }).collect();
    let scenario = Arc::new(start(vec![stored], kind, catalog).await?);
    let stop = Arc::new(AtomicBool::new(false));
    let clock = Arc::new(AtomicI64::new(1_000));
    let transfers = {
        let (scenario, stop, clock) = (Arc::clone(&scenario), Arc::clone(&stop), Arc::clone(&clock));
        tokio::spawn(async move { writers::transfer_until(&scenario.database, &stop, &clock).await })
    };
    let again = |args: &'static [&'static str]| {
        let (scenario, stop) = (Arc::clone(&scenario), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut done = 0;
            while !stop.load(Ordering::Acquire) {
                let output = try_command(&scenario, args, &[]).await?;
                // Another one of the same kind may be at work.
                ensure!(matches!(output.code, Some(0 | 3)), "{args:?}: {}{}", output.stdout, output.stderr);
                done += usize::from(output.success);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            anyhow::Ok(done)
        })
    };
    let flushers = [again(&["flush"]), again(&["flush", "--file-rows", "11"])];
    let compactor = again(&["compact", "--file-rows", "15"]);
    let collector = again(&["gc", "--grace", "5s"]);

    let until = Instant::now() + Duration::from_secs(if is_long() { 600 } else { 8 });
    let sql = "SELECT sum(balance)::BIGINT AS s, count(*) AS c, sum(transfers)::BIGINT AS t FROM accounts";
    let (mut reads, mut warned, mut seen) = (0_u32, 0_u32, 0_i64);
    let mut torn = Vec::new();
    while Instant::now() < until && torn.is_empty() {
        let answer = scenario.client.query(sql).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                stop.store(true, Ordering::Release);
                anyhow::bail!("{failure}");
            }
        };
        reads += 1;
        if !answer.warnings().is_empty() {
            warned += 1;
            continue;
        }
        let row: Vec<i64> =
            rows_of(&answer.batches)[0].iter().map(|cell| cell.to_string().parse().unwrap_or(-1)).collect();
        let sum = BALANCE * i64::try_from(ACCOUNTS)?;
        if row[0] != sum || row[1] != i64::try_from(ACCOUNTS)? || row[2] % 2 != 0 || row[2] < seen {
            torn.push(format!("{row:?} after {seen}: {:#}", answer.final_plan));
        }
        seen = seen.max(row[2]);
    }
    stop.store(true, Ordering::Release);
    let transfers = transfers.await??;
    let mut flushes = 0;
    for flusher in flushers {
        flushes += flusher.await??;
    }
    let (compactions, collections) = (compactor.await??, collector.await??);
    eprintln!(
        "{catalog:?}: {reads} reads ({warned} with a warning), {transfers} transfers, {flushes} flushes, {compactions} \
         compactions, {collections} collections"
    );
    ensure!(torn.is_empty(), "{}", torn.join("\n"));
    ensure!(transfers > 20 && flushes > 2 && compactions > 1 && collections > 0 && reads > warned, "no race");
    ensure!(catalog == Catalog::Listing || warned == 0, "the manifest leaves nothing to warn of");

    // Every version that was committed is accounted for.
    command(&scenario, &["flush"]).await?;
    command(&scenario, &["compact"]).await?;
    command(&scenario, &["gc", "--grace", "0s"]).await?;
    assert_eq!(dirty_rows(&scenario).await?, 0);
    let main = scenario.database.connect().await?;
    let stored = main
        .query(
            "SELECT m.ltbase_row_id::text, m.bigint_01, COALESCE(e.value_numeric, 0)::bigint FROM entity_main m \
             LEFT JOIN eav_data e ON e.schema_id = 300 AND e.row_id = m.ltbase_row_id AND e.attr_id = 1 \
             WHERE m.ltbase_schema_id = 300 ORDER BY m.ltbase_row_id",
            &[],
        )
        .await?;
    let expected: Vec<String> = stored
        .iter()
        .map(|row| format!("{}|{}|{}|cold", row.get::<_, String>(0), row.get::<_, i64>(1), row.get::<_, i64>(2)))
        .collect();
    let sql = "SELECT row_id, balance, transfers, _tier FROM accounts ORDER BY row_id";
    assert_eq!(rows(&scenario.client, sql).await?, expected);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_go_on_until_they_are_told_to_stop() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.hot = vec![hot(live(1, 10, thing("one", 1)))];
    let scenario = start(vec![stored], LakeKind::Local, Catalog::Manifest).await?;
    let mut services = Vec::new();
    for name in ["flush", "compact"] {
        let child = tokio::process::Command::new(binary()?)
            .args([name, "--every", "100ms", "--config"])
            .arg(scenario.server.config_path())
            .stdout(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        services.push(child);
    }
    let until = Instant::now() + Duration::from_secs(60);
    while rows(&scenario.client, "SELECT name FROM things WHERE _tier = 'cold'").await? != ["one"] {
        ensure!(Instant::now() < until, "the services do nothing");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for mut service in services {
        let pid = service.id().context("it has ended")?;
        thermocline_tests::supervise::send_signal("TERM", &[pid])?;
        let status = tokio::time::timeout(Duration::from_secs(30), service.wait()).await??;
        ensure!(status.success(), "{status}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_postgresql_during_a_commit_changes_nothing() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.hot = vec![hot(live(1, 10, thing("one", 1)))];
    let cluster = Cluster::start().await?;
    let database = TestDatabase::create_in(&cluster).await?;
    let scenario = Scenario::start_on(database, vec![stored], LakeKind::Local, with_manifest).await?;
    command(&scenario, &["manifest", "import"]).await?;
    let scenario = Arc::new(scenario);
    let sql = "SELECT name, _tier FROM things";
    for (args, failpoint, before, after) in [
        (&["flush"][..], "flush.marking", "one|1|hot", "one|1|warm"),
        (&["compact"][..], "compact.swapping", "one|1|warm", "one|1|cold"),
    ] {
        let sql = sql.replace("name,", "name, n,");
        let halted = Halted::at(&scenario, args, failpoint).await?;
        cluster.stop()?;
        cluster.restart().await?;
        let output = halted.go_on().await?;
        ensure!(!output.success, "{}{}", output.stdout, output.stderr);
        assert_eq!(rows(&scenario.client, &sql).await?, [before]);
        command(&scenario, args).await?;
        assert_eq!(rows(&scenario.client, &sql).await?, [after]);
    }
    command(&scenario, &["gc", "--grace", "0s"]).await?;
    assert_eq!(scenario.lake.list().await?.len(), 1);
    assert_eq!(rows(&scenario.client, sql).await?, ["one|cold"]);
    Ok(())
}

/// The most memory of a process while it runs, in bytes.
async fn peak_memory_of(scenario: &Scenario, args: &[&str]) -> Result<u64> {
    let mut child = tokio::process::Command::new(binary()?)
        .args(args)
        .arg("--config")
        .arg(scenario.server.config_path())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let status = format!("/proc/{}/status", child.id().context("it has ended")?);
    let mut peak = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = kib.unwrap_or(0).max(peak);
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "{args:?}: {status}");
            return Ok(peak * 1024);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn many_rows_need_no_more_memory_and_large_files_go_up_in_parts() -> Result<()> {
    const MEMORY: u64 = 600 << 20;
    let entity = things();
    let scenario = Scenario::start_with(vec![Stored::new(&entity)], LakeKind::S3, |config| {
        with_manifest(config).with("duckdb", "memory_limit", "200MB")
    })
    .await?;
    command(&scenario, &["manifest", "import"]).await?;
    let count: i64 = if is_long() { 3_000_000 } else { 150_000 };
    let client = scenario.database.connect().await?;
    client
        .batch_execute(&format!(
            "INSERT INTO entity_main (ltbase_schema_id, ltbase_row_id, text_01, integer_01, ltbase_created_at, ltbase_updated_at) \
             SELECT 100, md5(i::text)::uuid, concat(md5(i::text), md5((i + 1)::text), md5((i + 2)::text), md5((i + 3)::text), \
             md5((i + 4)::text), md5((i + 5)::text), md5((i + 6)::text), md5((i + 7)::text), md5((i + 8)::text)), i, 1, 1 \
             FROM generate_series(1, {count}) i; \
             INSERT INTO change_log (schema_id, row_id, changed_at) \
             SELECT 100, md5(i::text)::uuid, i FROM generate_series(1, {count}) i; ANALYZE change_log"
        ))
        .await?;
    let sql = "SELECT count(*), sum(n), sum(length(name)) FROM things";
    let expected = rows(&scenario.client, sql).await?;
    let s3 = scenario.lake.s3_server().context("an S3 lake")?;
    s3.forget_requests();
    let flush = peak_memory_of(&scenario, &["flush"]).await?;
    assert_eq!(dirty_rows(&scenario).await?, 0);
    ensure!(s3.requests().iter().any(|request| request.query.contains("partNumber")), "no upload in parts");
    assert_eq!(rows(&scenario.client, sql).await?, expected);
    let compact = peak_memory_of(&scenario, &["compact"]).await?;
    assert_eq!(rows(&scenario.client, sql).await?, expected);
    command(&scenario, &["manifest", "verify"]).await?;
    eprintln!("{count} rows: flush {} MiB, compact {} MiB", flush >> 20, compact >> 20);
    ensure!(flush < MEMORY && compact < MEMORY, "flush {flush}, compact {compact} bytes");
    Ok(())
}

#[tokio::test]
async fn a_fault_of_s3_during_a_flush_changes_nothing() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.hot = vec![hot(live(1, 10, thing("one", 1)))];
    let scenario = start(vec![stored], LakeKind::S3, Catalog::Manifest).await?;
    let s3 = scenario.lake.s3_server().context("an S3 lake")?;
    s3.inject(thermocline_tests::s3::Fault::Status(403), 0, usize::MAX, |request| request.method == "PUT");
    let output = try_command(&scenario, &["flush"], &[]).await?;
    ensure!(!output.success && output.stderr.contains("cannot upload"), "{}", output.stderr);
    s3.clear_faults();
    assert_eq!(rows(&scenario.client, "SELECT name, _tier FROM things").await?, ["one|hot"]);
    command(&scenario, &["flush"]).await?;
    assert_eq!(rows(&scenario.client, "SELECT name, _tier FROM things").await?, ["one|warm"]);
    Ok(())
}
