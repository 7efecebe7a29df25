//! Files that a compaction has replaced, on a listing: when queries leave them out, and that answers never change.

use anyhow::{Context, Result, ensure};
use thermocline_tests::failpoint::wait_for_locks;
use thermocline_tests::lake::LakeFile;
use thermocline_tests::oracle::Stored;
use thermocline_tests::scenario::{LakeKind, Scenario, live, tombstone};
use thermocline_tests::until;

use super::{ALL_THINGS, Catalog, command, data_files, halt, hot, rows, start};
use crate::{thing, things};

/// A base file, and rows that a flush writes: new versions, new rows, tombstones over the base file and over nothing.
fn stored() -> Stored {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![LakeFile::base(&entity, "a.parquet", (0..20).map(|n| live(n, 10, thing("base", 1))).collect())];
    stored.hot = (10..30).map(|n| hot(live(n, 20, thing("hot", 2)))).collect();
    stored.hot.extend([5, 6, 90].map(|n| hot(tombstone(n, 20, thing("gone", 2)))));
    stored
}

const LIVE_ROWS: usize = 28;

/// The files that queries read.
async fn files_in_force(scenario: &Scenario) -> Result<Vec<String>> {
    rows(&scenario.client, "SELECT path FROM system.files ORDER BY path").await
}

/// The path of the only retire note.
async fn note(scenario: &Scenario) -> Result<String> {
    let notes: Vec<String> =
        scenario.lake.list().await?.into_iter().filter(|path| path.contains("/_retired/")).collect();
    let [note] = notes.as_slice() else { anyhow::bail!("{notes:?}") };
    Ok(note.clone())
}

/// Queries with and without a snapshot give the expected rows.
async fn check(scenario: &Scenario, expected: &[String], step: &str) -> Result<()> {
    let lake_only = scenario.client.with_option("tiers", "warm,cold");
    for client in [&scenario.client, &lake_only] {
        let found = rows(client, ALL_THINGS).await.with_context(|| step.to_owned())?;
        ensure!(found == expected, "{step}: {found:#?}");
    }
    Ok(())
}

/// What a reader sees that knows of no notes.
async fn check_without_notes(scenario: &Scenario, expected: &[String], step: &str) -> Result<()> {
    let path = note(scenario).await?;
    let content = scenario.lake.get(&path).await?;
    scenario.lake.delete(&path).await?;
    assert_eq!(files_in_force(scenario).await?, data_files(scenario).await?, "{step}");
    check(scenario, expected, &format!("{step}, without notes")).await?;
    scenario.lake.put_bytes(&path, content.to_vec()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_every_step_of_a_compaction_old_or_new_files_are_read() -> Result<()> {
    for kind in [LakeKind::Local, LakeKind::S3] {
        let scenario = start(vec![stored()], kind, Catalog::Listing).await?;
        let expected = rows(&scenario.client, ALL_THINGS).await?;
        assert_eq!(expected.len(), LIVE_ROWS);
        command(&scenario, &["flush", "--file-rows", "8"]).await?;
        let old = data_files(&scenario).await?;
        let compact = ["compact", "--full", "--file-rows", "8"];
        // Those that died before they wrote a note leave files that count, and count as old ones for the next one.
        let steps =
            ["compact.merging", "compact.merged", "compact.published_one", "compact.published", "compact.swapping"];
        for step in steps {
            let halted = halt(&scenario, &compact, step).await?;
            assert_eq!(files_in_force(&scenario).await?, data_files(&scenario).await?, "{step}");
            check(&scenario, &expected, step).await?;
            halted.kill().await?;
            wait_for_locks(&scenario.database).await?;
        }
        let all_old = data_files(&scenario).await?;
        ensure!(all_old.len() > old.len(), "{all_old:?}");

        let halted = halt(&scenario, &compact, "compact.swapped").await?;
        let mut new = data_files(&scenario).await?;
        new.retain(|path| !all_old.contains(path));
        ensure!(new.len() > 2, "{new:?}");
        assert_eq!(files_in_force(&scenario).await?, new);
        check(&scenario, &expected, "swapped").await?;
        ensure!(halted.go_on().await?.success, "compact");
        check_without_notes(&scenario, &expected, "compacted").await?;
        assert_eq!(files_in_force(&scenario).await?, new, "the note is back");

        // A new file that isn't shown, for whatever reason: the old ones hold its rows.
        for path in &new {
            let content = scenario.lake.get(path).await?;
            scenario.lake.delete(path).await?;
            let shown = files_in_force(&scenario).await?;
            ensure!(all_old.iter().all(|old| shown.contains(old)) && !shown.contains(path), "{shown:?}");
            check(&scenario, &expected, "a new file isn't shown").await?;
            scenario.lake.put_bytes(path, content.to_vec()).await?;
        }
        assert_eq!(files_in_force(&scenario).await?, new);

        // A flush and a second compaction while the replaced files of the first one wait for gc.
        command(&scenario, &["compact", "--full", "--file-rows", "100"]).await?;
        let last = files_in_force(&scenario).await?;
        ensure!(last.len() == 1 && !new.contains(&last[0]), "{last:?}");
        check(&scenario, &expected, "compacted again").await?;

        // Each single deletion of gc: the answer stays, and so do the files in force.
        loop {
            let before = scenario.lake.list().await?.len();
            let halted = halt(&scenario, &["gc", "--grace", "0s"], "gc.deleted_one").await;
            let Ok(halted) = halted else { break };
            assert_eq!(files_in_force(&scenario).await?, last, "gc");
            check(&scenario, &expected, "gc").await?;
            halted.kill().await?;
            wait_for_locks(&scenario.database).await?;
            ensure!(scenario.lake.list().await?.len() < before, "gc deletes nothing");
        }
        assert_eq!(scenario.lake.list().await?, last);
        check(&scenario, &expected, "collected").await?;

        // Only now the tombstones go: no file holds an older version.
        let deleted = scenario.client.with_option("include_deleted", "true");
        let count = "SELECT count(*) FROM things WHERE _deleted_at IS NOT NULL";
        assert_eq!(rows(&deleted, count).await?, ["2"]);
        let halted = halt(&scenario, &["compact", "--full"], "compact.swapped").await?;
        check(&scenario, &expected, "tombstones dropped").await?;
        assert_eq!(rows(&deleted, count).await?, ["0"]);
        ensure!(halted.go_on().await?.success, "compact");
        check_without_notes(&scenario, &expected, "tombstones dropped").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_query_asks_for_no_replaced_file_and_reads_a_note_once() -> Result<()> {
    let scenario = start(vec![stored()], LakeKind::S3, Catalog::Listing).await?;
    let s3 = scenario.lake.s3_server().context("an S3 lake")?;
    // The first probe lists the entity too.
    until("a probe has ended", async || Ok(scenario.server.admin_get("/readyz").await?.0 == 200)).await?;
    let expected = rows(&scenario.client, ALL_THINGS).await?;
    command(&scenario, &["flush"]).await?;
    assert_eq!(rows(&scenario.client, ALL_THINGS).await?, expected);
    // A check in the background reads files too.
    let checked = "SELECT bool_and(unique_rows)::VARCHAR FROM system.files";
    until("files are checked", async || Ok(rows(&scenario.client, checked).await? == ["true"])).await?;
    let lists = || s3.requests().iter().filter(|request| request.is_list()).count();
    let reads = |word: &str| {
        let requests = s3.requests();
        requests.iter().filter(|request| request.is_read() && request.path.contains(word)).count()
    };
    s3.forget_requests();
    assert_eq!(rows(&scenario.client, ALL_THINGS).await?, expected);
    let usual = lists();

    // Planned before the compaction: these files are still there.
    let planned_before = scenario.client.info(ALL_THINGS).await?;
    let old = data_files(&scenario).await?;
    command(&scenario, &["compact"]).await?;
    s3.forget_requests();
    let answer = scenario.client.query(ALL_THINGS).await?;
    let sources = answer.plan["references"][0]["sources"].as_array().context("no sources")?;
    assert_eq!(sources.iter().filter_map(|source| source["files_total"].as_u64()).sum::<u64>(), 1, "{:#}", answer.plan);
    assert_eq!(reads("_retired"), 1);
    for path in &old {
        assert_eq!(reads(path), 0, "{path}");
    }
    s3.forget_requests();
    assert_eq!(rows(&scenario.client, ALL_THINGS).await?, expected);
    assert_eq!((reads("_retired"), lists()), (0, usual), "while nothing changes a query costs what it cost before");

    // Planned before gc, executed after it.
    let planned = scenario.client.info(ALL_THINGS).await?;
    command(&scenario, &["gc", "--grace", "0s"]).await?;
    s3.forget_requests();
    for info in [planned, planned_before] {
        let answer = scenario.client.collect(info).await?;
        assert_eq!(answer.row_count(), LIVE_ROWS);
        let plan = &answer.final_plan;
        ensure!(plan["warnings"] == serde_json::json!([]), "{plan:#}");
    }
    for path in &old {
        assert_eq!(reads(path), 0, "{path}");
    }
    ensure!(!scenario.server.log()?.contains("planning again"), "a file was missed");
    Ok(())
}

#[tokio::test]
async fn what_is_no_note_changes_nothing() -> Result<()> {
    let scenario = start(vec![stored()], LakeKind::S3, Catalog::Listing).await?;
    let expected = rows(&scenario.client, ALL_THINGS).await?;
    let broken = br#"{"retired_at": 1, "paths": ["base/100/a.parquet"], "replaced_by""#;
    // A note of a release that didn't name the new files.
    let earlier = br#"{"retired_at": 1, "paths": ["base/100/a.parquet"]}"#;
    for (name, content) in [("broken", broken.to_vec()), ("earlier", earlier.to_vec())] {
        scenario.lake.put_bytes(&format!("base/100/_retired/{name}.json"), content).await?;
        assert_eq!(rows(&scenario.client, ALL_THINGS).await?, expected, "{name}");
    }
    assert_eq!(files_in_force(&scenario).await?, data_files(&scenario).await?);
    assert_eq!(scenario.server.log()?.matches("is no retire note").count(), 1, "it is said once");
    Ok(())
}
