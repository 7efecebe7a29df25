//! What operators see of the tiers: lag, sizes, superseded versions, and whether compaction is due.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use thermocline_tests::lake::LakeFile;
use thermocline_tests::oracle::Stored;
use thermocline_tests::scenario::{LakeKind, Scenario, live};
use thermocline_tests::until;

use super::{CATALOGS, command, hot, rows, start};
use crate::{thing, things};

/// Files and rows by tier, superseded versions, and why compaction is due.
const TIERS: &str =
    "SELECT tier, \"rows\", files, superseded_rows, compaction FROM system.tiers ORDER BY tier = 'cold', tier = 'warm'";

fn now_ms() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

/// A metric of `/metrics` that is looked up by name and labels. On a busy machine the tiers may be looked at in vain.
async fn metric(scenario: &Scenario, line: &str) -> Result<u64> {
    let mut value = None;
    until(line, async || {
        let (status, metrics) = crate::operations::get(&scenario.server, "/metrics").await?;
        ensure!(status == 200, "{metrics}");
        value = metrics.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' ')).map(str::to_owned);
        Ok(value.is_some())
    })
    .await?;
    value.context("no value")?.parse().context("no number")
}

#[tokio::test]
async fn lag_and_due_compactions_show_in_tables_and_metrics() -> Result<()> {
    for catalog in CATALOGS {
        let entity = things();
        let mut stored = Stored::new(&entity);
        stored.files =
            vec![LakeFile::base(&entity, "a.parquet", (0..100).map(|n| live(n, 10, thing("base", 1))).collect())];
        let an_hour_ago = now_ms()? - 3_600_000;
        stored.hot = (95..104).map(|n| hot(live(n, an_hour_ago, thing("hot", 2)))).collect();
        let scenario = start(vec![stored], LakeKind::Local, catalog).await?;
        let tiers = async || rows(&scenario.client, TIERS).await;
        let lag = "SELECT lag_seconds BETWEEN 3600 AND 4200 FROM system.tiers WHERE tier = 'hot'";

        // The footer of a file of other software proves nothing until it was looked through, once.
        if catalog == super::Catalog::Listing {
            command(&scenario, &["compact", "--full"]).await?;
            command(&scenario, &["gc", "--grace", "0s"]).await?;
        }
        assert_eq!(tiers().await?, ["hot|9|NULL|NULL|NULL", "warm|0|0|0|NULL", "cold|100|1|0|NULL"], "{catalog:?}");
        assert_eq!(rows(&scenario.client, lag).await?, ["true"]);
        let seconds = metric(&scenario, r#"fed_hot_lag_seconds{entity="things"}"#).await?;
        assert!((3_600..4_200).contains(&seconds), "{seconds}");
        assert_eq!(metric(&scenario, r#"fed_tier_rows{entity="things",tier="hot"}"#).await?, 9);
        assert_eq!(metric(&scenario, r#"fed_compaction_due{entity="things"}"#).await?, 0);

        command(&scenario, &["flush"]).await?;
        assert_eq!(tiers().await?, ["hot|0|NULL|NULL|NULL", "warm|9|1|0|NULL", "cold|100|1|9|NULL"], "{catalog:?}");
        let by_file = "SELECT tier, superseded_rows FROM system.files ORDER BY tier";
        assert_eq!(rows(&scenario.client, by_file).await?, ["cold|9", "warm|0"]);
        let said = command(&scenario, &["compact", "--when-due"]).await?;
        ensure!(said.contains("nothing to compact (1 delta file)"), "{said}");

        // One row more makes a tenth.
        scenario
            .database
            .write(
                &entity,
                &[thermocline_tests::postgres::HotRow {
                    version: &live(104, an_hour_ago + 1, thing("hot", 3)),
                    dirty: true,
                    has_main: true,
                }],
            )
            .await?;
        command(&scenario, &["flush"]).await?;
        let due = "delta files hold 10 % as many rows as base files";
        assert_eq!(tiers().await?[1], format!("warm|10|2|0|{due}"), "{catalog:?}");
        let said = command(&scenario, &["compact", "--when-due"]).await?;
        ensure!(said.contains("rewrote 3 files"), "{said}");
        // Replaced files that a listing still shows are gc's business.
        ensure!(tiers().await?[1].ends_with("|NULL"), "{:?}", tiers().await?);
        command(&scenario, &["gc", "--grace", "0s"]).await?;
        assert_eq!(tiers().await?, ["hot|0|NULL|NULL|NULL", "warm|0|0|0|NULL", "cold|105|1|0|NULL"], "{catalog:?}");
    }
    Ok(())
}

#[tokio::test]
async fn metrics_tell_of_files_and_due_compactions() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = (0..10)
        .map(|n| LakeFile::delta(&entity, &format!("{n}.parquet"), vec![live(n, 10, thing("delta", 1))]))
        .collect();
    let scenario = start(vec![stored], LakeKind::Local, super::Catalog::Manifest).await?;
    assert_eq!(metric(&scenario, r#"fed_compaction_due{entity="things"}"#).await?, 1);
    assert_eq!(metric(&scenario, r#"fed_tier_files{entity="things",tier="warm"}"#).await?, 10);
    assert_eq!(metric(&scenario, r#"fed_tier_superseded_rows{entity="things",tier="warm"}"#).await?, 0);
    assert_eq!(metric(&scenario, r#"fed_hot_lag_seconds{entity="things"}"#).await?, 0);
    let bytes = metric(&scenario, r#"fed_tier_bytes{entity="things",tier="warm"}"#).await?;
    let expected = rows(&scenario.client, "SELECT sum(bytes)::BIGINT FROM system.files").await?;
    assert_eq!(expected, [bytes.to_string()]);
    assert_eq!(rows(&scenario.client, TIERS).await?[1], "warm|10|10|0|10 delta files");
    Ok(())
}
