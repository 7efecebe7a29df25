//! Writers that die, and sources that fail under them: nothing is lost, doubled or left behind.

use anyhow::{Context, Result, ensure};
use thermocline_tests::failpoint::wait_for_locks;
use thermocline_tests::lake::LakeFile;
use thermocline_tests::oracle::Stored;
use thermocline_tests::postgres::{Cluster, TestDatabase};
use thermocline_tests::s3::Fault;
use thermocline_tests::scenario::{LakeKind, Scenario, live, tombstone};

use super::{
    ALL_THINGS, Catalog, command, data_files, dirty_rows, halt, hot, rows, start, temp_directory, try_command,
    with_manifest,
};
use crate::{thing, things};

/// Kills a writer while it waits at a failpoint.
async fn die(scenario: &Scenario, args: &[&str], failpoint: &str) -> Result<()> {
    halt(scenario, args, failpoint).await?.kill().await?;
    wait_for_locks(&scenario.database).await
}

#[tokio::test]
async fn a_writer_that_is_killed_loses_and_doubles_nothing() -> Result<()> {
    const FLUSH: &[&str] = &[
        "flush.writing",
        "flush.exported",
        "flush.published_one",
        "flush.published",
        "flush.marking",
        "flush.committed",
    ];
    const COMPACT: &[&str] = &[
        "compact.merging",
        "compact.merged",
        "compact.published_one",
        "compact.published",
        "compact.swapping",
        "compact.swapped",
    ];
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
        let spilled = std::fs::read_dir(temp_directory(&scenario))?.count();
        assert_eq!(spilled, 0, "temporary directories of the dead are still there");
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
    let sql = "SELECT name, _tier FROM things";
    for (args, failpoint, before, after) in [
        (&["flush"][..], "flush.marking", "one|1|hot", "one|1|warm"),
        (&["compact"][..], "compact.swapping", "one|1|warm", "one|1|cold"),
    ] {
        let sql = sql.replace("name,", "name, n,");
        let halted = halt(&scenario, args, failpoint).await?;
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

#[tokio::test]
async fn a_fault_of_s3_during_a_flush_changes_nothing() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.hot = vec![hot(live(1, 10, thing("one", 1)))];
    let scenario = start(vec![stored], LakeKind::S3, Catalog::Manifest).await?;
    let s3 = scenario.lake.s3_server().context("an S3 lake")?;
    s3.inject(Fault::Status(403), 0, usize::MAX, |request| request.method == "PUT");
    let output = try_command(&scenario, &["flush"]).await?;
    ensure!(!output.success && output.stderr.contains("cannot upload"), "{}", output.stderr);
    s3.clear_faults();
    assert_eq!(rows(&scenario.client, "SELECT name, _tier FROM things").await?, ["one|hot"]);
    command(&scenario, &["flush"]).await?;
    assert_eq!(rows(&scenario.client, "SELECT name, _tier FROM things").await?, ["one|warm"]);
    Ok(())
}

/// A lake on S3 with dirty rows whose file is too large for one request.
async fn start_with_a_large_file() -> Result<Scenario> {
    let scenario = start(vec![Stored::new(&things())], LakeKind::S3, Catalog::Manifest).await?;
    // Random digits take half a byte each when compressed.
    scenario
        .database
        .connect()
        .await?
        .batch_execute(
            "INSERT INTO entity_main (ltbase_schema_id, ltbase_row_id, text_01, integer_01, ltbase_created_at, ltbase_updated_at) \
             SELECT 100, md5(i::text)::uuid, (SELECT string_agg(md5((i * 40 + j)::text), '') FROM generate_series(1, 40) j), i, 1, 1 \
             FROM generate_series(1, 32000) i; \
             INSERT INTO change_log (schema_id, row_id, changed_at) \
             SELECT 100, md5(i::text)::uuid, i FROM generate_series(1, 32000) i; ANALYZE change_log",
        )
        .await?;
    Ok(scenario)
}

const SUMS: &str = "SELECT count(*), sum(n), sum(length(name)) FROM things";

/// Whatever the bucket's directory holds besides objects: parts of uploads that never ended.
fn parts(scenario: &Scenario) -> Result<usize> {
    let s3 = scenario.lake.s3_server().context("an S3 lake")?;
    Ok(s3.upload_parts()?.len())
}

#[tokio::test]
async fn an_upload_that_is_killed_leaves_no_parts_behind() -> Result<()> {
    let scenario = start_with_a_large_file().await?;
    let expected = rows(&scenario.client, SUMS).await?;
    for failpoint in ["upload.part", "upload.completed"] {
        die(&scenario, &["flush"], failpoint).await?;
        assert_eq!(parts(&scenario)? > 0, failpoint == "upload.part");
        let left = scenario.lake.list().await?;
        ensure!(left.iter().any(|path| path.ends_with(".upload")), "{left:?}");
        assert_eq!(rows(&scenario.client, SUMS).await?, expected);
        let kept = command(&scenario, &["gc"]).await?;
        ensure!(kept.contains("deleted 0 objects"), "{kept}");
        let would = command(&scenario, &["gc", "--grace", "0s", "--dry-run"]).await?;
        let did = command(&scenario, &["gc", "--grace", "0s"]).await?;
        ensure!(did.contains("a writer died during this upload"), "{did}");
        assert_eq!(would.replace("would delete", "deleted"), did);
        assert_eq!((parts(&scenario)?, scenario.lake.list().await?.len()), (0, 0));
    }
    command(&scenario, &["flush"]).await?;
    assert_eq!((dirty_rows(&scenario).await?, rows(&scenario.client, SUMS).await?), (0, expected));
    assert_eq!((parts(&scenario)?, scenario.lake.list().await?.len()), (0, 1));
    Ok(())
}

#[tokio::test]
async fn faults_of_s3_during_an_upload_in_parts_change_nothing() -> Result<()> {
    let scenario = start_with_a_large_file().await?;
    let expected = rows(&scenario.client, SUMS).await?;
    let s3 = scenario.lake.s3_server().context("an S3 lake")?;
    // The second part is refused; the upload can't be completed; its note can't be written.
    for (method, word) in [("PUT", "partNumber=2"), ("POST", "uploadId"), ("PUT", ".upload")] {
        s3.inject(Fault::Status(403), 0, usize::MAX, move |request| {
            request.method == method && format!("{}?{}", request.path, request.query).contains(word)
        });
        let output = try_command(&scenario, &["flush"]).await?;
        ensure!(!output.success && output.stderr.contains("cannot upload"), "{word}: {}", output.stderr);
        s3.clear_faults();
        assert_eq!((parts(&scenario)?, scenario.lake.list().await?.len()), (0, 0), "{word}");
        assert_eq!(rows(&scenario.client, SUMS).await?, expected, "{word}");
    }
    // What passes by itself is asked for again.
    s3.inject(Fault::Status(503), 0, 1, |request| request.query.contains("partNumber=1"));
    s3.inject(Fault::Reset, 0, 1, |request| request.query.contains("partNumber=2"));
    command(&scenario, &["flush"]).await?;
    s3.clear_faults();
    assert_eq!((dirty_rows(&scenario).await?, rows(&scenario.client, SUMS).await?), (0, expected));
    assert_eq!((parts(&scenario)?, scenario.lake.list().await?.len()), (0, 1));
    command(&scenario, &["manifest", "verify"]).await?;
    Ok(())
}

#[tokio::test]
async fn a_fault_of_s3_during_a_swap_changes_nothing() -> Result<()> {
    for catalog in [Catalog::Listing, Catalog::Manifest] {
        let entity = things();
        let mut stored = Stored::new(&entity);
        stored.files =
            vec![LakeFile::base(&entity, "a.parquet", (0..9).map(|n| live(n, 10, thing("base", 1))).collect())];
        stored.hot = (5..12).map(|n| hot(live(n, 20, thing("hot", 2)))).collect();
        stored.hot.push(hot(tombstone(3, 20, thing("gone", 2))));
        let scenario = start(vec![stored], LakeKind::S3, catalog).await?;
        let expected = rows(&scenario.client, ALL_THINGS).await?;
        command(&scenario, &["flush"]).await?;
        let s3 = scenario.lake.s3_server().context("an S3 lake")?;
        // The second new file; with a listing also the note that retires the old ones; reading an old one.
        let mut faults = vec![("PUT", "base/100/", 1), ("GET", "delta/100/", 0)];
        if catalog == Catalog::Listing {
            faults.push(("PUT", "_retired", 0));
        }
        for (method, word, skip) in faults {
            s3.inject(Fault::Status(403), skip, usize::MAX, move |request| {
                request.method == method && request.path.contains(word)
            });
            let output = try_command(&scenario, &["compact", "--file-rows", "4"]).await?;
            ensure!(!output.success, "{catalog:?}, {word}: {}{}", output.stdout, output.stderr);
            s3.clear_faults();
            assert_eq!(rows(&scenario.client, ALL_THINGS).await?, expected, "{catalog:?}, {word}");
        }
        command(&scenario, &["compact", "--file-rows", "4"]).await?;
        command(&scenario, &["gc", "--grace", "0s"]).await?;
        command(&scenario, &["compact"]).await?;
        command(&scenario, &["gc", "--grace", "0s"]).await?;
        assert_eq!(rows(&scenario.client, ALL_THINGS).await?, expected, "{catalog:?}");
        assert_eq!(scenario.lake.list().await?, data_files(&scenario).await?);
    }
    Ok(())
}
