//! Files that are replaced in place, which the contract forbids: answers are those of the file that is there.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use arrow::array::{ArrayRef, Int32Array};
use thermocline_tests::oracle::Stored;
use thermocline_tests::scenario::{LakeKind, Scenario};

use super::{SOUND_ROWS, base, rows, samples, with_columns};

/// A file whose `n` is everywhere this; other numbers make no other size.
fn file_of(n: i32) -> Result<Vec<u8>> {
    let numbers = Arc::new(Int32Array::from(vec![n; SOUND_ROWS])) as ArrayRef;
    super::parquet(&with_columns(&base("x.parquet", 10), vec![("n", numbers)])?)
}

async fn expect_only(scenario: &Scenario, n: i32) -> Result<()> {
    for (asked, expected) in [(1001, 1001 == n), (1002, 1002 == n)] {
        let sql = format!("SELECT count(*), max(n), min(n) FROM samples WHERE n = {asked}");
        let found = rows(&scenario.client, &sql).await?;
        let count = if expected { SOUND_ROWS.to_string() } else { "0".to_owned() };
        ensure!(found[0][0] == count, "n = {asked} after {n}: {found:?}");
    }
    let found = rows(&scenario.client, "SELECT max(n), min(n) FROM samples").await?;
    ensure!(found == [[n.to_string(), n.to_string()]], "{found:?} after {n}");
    Ok(())
}

/// Of the same size, in the same second, under the same inode.
#[tokio::test]
async fn a_local_file_that_is_replaced_in_place_is_read_anew() -> Result<()> {
    let scenario = Scenario::start(vec![Stored::new(&samples())], LakeKind::Local).await?;
    scenario.lake.put_bytes("base/400/a.parquet", file_of(1001)?).await?;
    let path = scenario.lake.folder().unwrap().join("base/400/a.parquet");
    // DuckDB trusts files that have been left alone for some seconds.
    let second = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    File::options().write(true).open(&path)?.set_modified(second)?;
    expect_only(&scenario, 1001).await?;
    let (old, new) = (std::fs::read(&path)?, file_of(1002)?);
    ensure!(old.len() == new.len() && old != new);
    let mut file = OpenOptions::new().write(true).open(&path)?;
    file.write_all(&new)?;
    file.set_modified(second + Duration::from_millis(400))?;
    drop(file);
    expect_only(&scenario, 1002).await
}

#[tokio::test]
async fn an_object_that_is_replaced_in_place_is_read_anew() -> Result<()> {
    let scenario = Scenario::start(vec![Stored::new(&samples())], LakeKind::S3).await?;
    for n in [1001, 1002, 1001, 1002] {
        scenario.lake.put_bytes("base/400/a.parquet", file_of(n)?).await?;
        expect_only(&scenario, n).await?;
    }
    Ok(())
}
