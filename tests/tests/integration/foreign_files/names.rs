//! Column names: other cases, dots and spaces, and several columns that could be one.

use std::sync::Arc;

use anyhow::{Result, ensure};
use arrow::array::{ArrayRef, Int32Array, RecordBatch};

use super::{SOUND_ROWS, ask_of, base, batch_of, expect_refused, parquet, start};

/// The rows of a file, its columns renamed.
fn renamed(names: &[(&str, &str)]) -> Result<RecordBatch> {
    let batch = base("x.parquet", 10).to_batch()?;
    let schema = batch.schema();
    let name = |name: &str| names.iter().find(|(from, _)| *from == name).map_or(name, |(_, to)| to).to_owned();
    batch_of(schema.fields().iter().map(|field| name(field.name())).zip(batch.columns().iter().cloned()).collect())
}

#[tokio::test]
async fn a_column_is_read_under_any_name_that_is_its_own() -> Result<()> {
    let scenario = start().await?;
    let sql = "SELECT name, n, delay_minutes, seen_at FROM samples WHERE delay_minutes >= 11 ORDER BY n";
    let expected = ask_of(&scenario, "folded.parquet", parquet(&renamed(&[])?)?, sql).await?;
    ensure!(expected.len() == SOUND_ROWS - 1);
    for (place, names) in [
        &[("delay_minutes", "delay.minutes"), ("seen_at", "seen at")][..],
        &[("delay_minutes", "Delay Minutes"), ("seen_at", "SEEN_AT"), ("n", "N"), ("name", "Name")],
        &[("row_id", "ROW_ID"), ("changed_at", "Changed_At"), ("created_at", "CREATED_AT"), ("n", "N")],
    ]
    .into_iter()
    .enumerate()
    {
        let found = ask_of(&scenario, &format!("names-{place}.parquet"), parquet(&renamed(names)?)?, sql).await?;
        assert_eq!(found, expected, "{names:?}");
    }
    Ok(())
}

#[tokio::test]
async fn columns_that_could_both_be_it_are_refused_by_name() -> Result<()> {
    let scenario = start().await?;
    let numbers = || Arc::new(Int32Array::from(vec![1; SOUND_ROWS])) as ArrayRef;
    for (name, added, words) in [
        ("case.parquet", &["N"][..], &["`n`", "`N`"]),
        ("plain.parquet", &["delay.minutes"], &["`delay_minutes`", "`delay.minutes`"]),
        ("system.parquet", &["Changed_At"], &["`changed_at`", "`Changed_At`"]),
    ] {
        let batch = base("x.parquet", 10).to_batch()?;
        let schema = batch.schema();
        let mut columns: Vec<(String, ArrayRef)> =
            schema.fields().iter().map(|field| field.name().clone()).zip(batch.columns().iter().cloned()).collect();
        columns.extend(added.iter().map(|name| ((*name).to_owned(), numbers())));
        expect_refused(&scenario, name, parquet(&batch_of(columns)?)?, words).await?;
    }
    Ok(())
}
