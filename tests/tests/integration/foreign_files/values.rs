//! Values that are none of their type: an error names file, row and attribute, and nothing becomes NULL or is cut in silence.

use std::sync::Arc;

use anyhow::{Result, ensure};
use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray, TimestampMillisecondArray, TimestampNanosecondArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::Field;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use thermocline_tests::lake::UuidForm;
use thermocline_tests::scenario::row_id;

use super::{SOUND_ROWS, ask_of, base, expect_refused, parquet, start, with_columns};

const TIMES: &str = "SELECT seen_at, times FROM samples WHERE n >= 10 ORDER BY n";

/// A list of one element a row.
fn lists(elements: ArrayRef) -> Result<ArrayRef> {
    let field = Arc::new(Field::new("element", elements.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(vec![1; elements.len()]);
    Ok(Arc::new(ListArray::try_new(field, offsets, elements, None)?))
}

fn nanoseconds(values: [i64; SOUND_ROWS], utc: bool) -> ArrayRef {
    let array = TimestampNanosecondArray::from(values.to_vec());
    Arc::new(if utc { array.with_timezone("UTC") } else { array })
}

#[tokio::test]
async fn malformed_values_are_named_with_file_and_row() -> Result<()> {
    let scenario = start().await?;
    let file = base("x.parquet", 10);
    let id = row_id(11).to_string();
    let texts = |bad: &str| Arc::new(StringArray::from(vec!["1", bad, "null"])) as ArrayRef;
    for (name, column, array) in [
        ("json.parquet", "doc", texts("{")),
        ("surrogate.parquet", "doc", texts(r#""\ud800""#)),
        ("json-list.parquet", "docs", lists(texts("{"))?),
        ("surrogates.parquet", "docs", lists(texts(r#""\ud800""#))?),
        ("nanoseconds.parquet", "seen_at", nanoseconds([1_000, 1_001, 2_000], false)),
        ("nanosecond-lists.parquet", "times", lists(nanoseconds([1_000, 1_001, 2_000], false))?),
    ] {
        let content = parquet(&with_columns(&file, vec![(column, array)])?)?;
        let attribute = if column == "seen_at" { "seen at" } else { column };
        expect_refused(&scenario, name, content, &[&id, &format!("`{attribute}`")]).await?;
    }
    let ids = Arc::new(StringArray::from(vec![id.as_str(), "no id", id.as_str()])) as ArrayRef;
    let content = parquet(&with_columns(&file, vec![("uuids", lists(Arc::clone(&ids))?)])?)?;
    expect_refused(&scenario, "uuids.parquet", content, &[&id, "`uuids`"]).await?;
    // The row has no id to be named by.
    let content = parquet(&with_columns(&file, vec![("row_id", ids)])?)?;
    expect_unreadable_but_in_check(&scenario, "ids.parquet", content).await
}

/// The row id is shown as a UUID in whatever form the file keeps it.
#[tokio::test]
async fn errors_of_values_show_the_row_id_as_a_uuid() -> Result<()> {
    let scenario = start().await?;
    for (name, form) in [("bytes.parquet", UuidForm::Bytes), ("text.parquet", UuidForm::Text)] {
        let mut file = base("x.parquet", 10);
        (file.row_id, file.uuids) = (form, form);
        let bad = Arc::new(StringArray::from(vec!["{", "{", "{"])) as ArrayRef;
        let batch = with_columns(&file, vec![("doc", bad)])?;
        let content = thermocline_tests::lake::write_parquet(&batch, 100, false)?;
        expect_refused(&scenario, name, content, &["row_id 01900000-0000-7000-8000-"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn nanoseconds_in_utc_are_read_when_they_are_whole_microseconds() -> Result<()> {
    let scenario = start().await?;
    let file = base("x.parquet", 10);
    let columns = |values, utc| -> Result<Vec<u8>> {
        let lists = lists(nanoseconds(values, utc))?;
        parquet(&with_columns(&file, vec![("seen_at", nanoseconds(values, utc)), ("times", lists)])?)
    };
    let whole = [1_000, 2_000_000, -3_000];
    let naive = ask_of(&scenario, "naive.parquet", columns(whole, false)?, TIMES).await?;
    ensure!(naive.len() == SOUND_ROWS);
    assert_eq!(ask_of(&scenario, "utc.parquet", columns(whole, true)?, TIMES).await?, naive);
    for (name, column, array) in [
        ("cut.parquet", "seen_at", nanoseconds([1_000, 1_001, 2_000], true)),
        ("cut-lists.parquet", "times", lists(nanoseconds([1_000, 1_001, 2_000], true))?),
    ] {
        let content = parquet(&with_columns(&file, vec![(column, array)])?)?;
        expect_refused(&scenario, name, content, &[column, "NANOS"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn milliseconds_that_are_no_time_are_named() -> Result<()> {
    let scenario = start().await?;
    let file = base("x.parquet", 10);
    let beyond = 1_i64 << 62;
    let far = Arc::new(TimestampMillisecondArray::from(vec![0, beyond, 0]).with_timezone("UTC")) as ArrayRef;
    let content = parquet(&with_columns(&file, vec![("seen_at", far)])?)?;
    expect_unreadable_but_in_check(&scenario, "milliseconds.parquet", content).await?;
    let id = row_id(11).to_string();
    for (place, column) in ["created_at", "changed_at", "deleted_at"].into_iter().enumerate() {
        for (turn, time) in [beyond, -beyond].into_iter().enumerate() {
            let times = Arc::new(Int64Array::from(vec![1, time, 1])) as ArrayRef;
            let batch = with_columns(&file, vec![(column, times)])?;
            let name = format!("times-{place}-{turn}.parquet");
            expect_refused(&scenario, &name, parquet(&batch)?, &[&id, column]).await?;
            // Without statistics each value is looked at, and the good ones are as good.
            let properties = WriterProperties::builder().set_statistics_enabled(EnabledStatistics::None).build();
            let mut content = Vec::new();
            let mut writer = parquet::arrow::ArrowWriter::try_new(&mut content, batch.schema(), Some(properties))?;
            writer.write(&batch)?;
            writer.close()?;
            expect_refused(&scenario, &format!("blind-{name}"), content, &[&id, column]).await?;
        }
    }
    Ok(())
}

/// DuckDB itself fails on the value: the file is named, and left out with leave. The first row is in order.
async fn expect_unreadable_but_in_check(
    scenario: &thermocline_tests::scenario::Scenario,
    name: &str,
    content: Vec<u8>,
) -> Result<()> {
    let path = format!("base/400/{name}");
    scenario.lake.put_bytes(&path, content).await?;
    scenario.client.refusal(super::ALL).await.expect(tonic::Code::Unavailable, &[&path]);
    let answer = scenario.client.with_option("allow_partial", "true").query(super::ALL).await?;
    ensure!(answer.row_count() == SOUND_ROWS);
    scenario.lake.delete(&path).await
}
