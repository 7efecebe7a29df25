//! The manifest from files that are there, its verification, and what gc may delete.

use anyhow::{Result, ensure};
use thermocline_tests::lake::LakeFile;
use thermocline_tests::oracle::Stored;
use thermocline_tests::scenario::{LakeKind, Scenario, live};

use super::{Catalog, command, dirty_rows, hot, rows, start, try_command, with_manifest};
use crate::{thing, things};

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
    let refused = try_command(&scenario, &["flush"]).await?;
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
    let verified = try_command(&scenario, &["manifest", "verify"]).await?;
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
        let refused = try_command(&scenario, args).await?;
        ensure!(!refused.success && refused.stderr.contains("manifest import"), "{}", refused.stderr);
    }
    assert_eq!(dirty_rows(&scenario).await?, 1);
    Ok(())
}
