//! Timestamps in nanoseconds and UTC. DuckDB 1.5 cuts them to microseconds as it reads them, so nobody can see later whether
//! that lost something. Their values are looked at once, with the file's footer: when none has more than microseconds, the
//! column counts as one of microseconds; otherwise it can't be read without loss.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampNanosecondType};
use futures::TryStreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{ParquetObjectReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use translator::lake::{FileType, LakeFile};

const NANOSECONDS: i64 = 1000;

/// Makes microseconds of the columns whose nanoseconds are whole microseconds.
pub(super) async fn settle(facts: &mut LakeFile, reader: &ParquetObjectReader, metadata: &Arc<ParquetMetaData>) {
    for (place, column) in facts.columns.iter_mut().enumerate() {
        let Some(settled) = in_microseconds(&column.file_type) else { continue };
        match are_whole(reader.clone(), Arc::clone(metadata), place).await {
            Ok(true) => column.file_type = settled,
            Ok(false) => {}
            // The column can't be read without loss, as far as anybody knows; a query that needs it says so.
            Err(error) => {
                tracing::warn!(file = facts.path, column = column.name, %error, "cannot look at nanoseconds");
            }
        }
    }
}

/// The type of microseconds for one of nanoseconds in UTC; `None` for any other.
fn in_microseconds(file_type: &FileType) -> Option<FileType> {
    match file_type {
        FileType::Timestamp { unit: 9, utc: true } => Some(FileType::Timestamp { unit: 6, utc: true }),
        FileType::List(element) => in_microseconds(element).map(|element| FileType::List(Box::new(element))),
        _ => None,
    }
}

/// Whether all values of the top-level column at `place` are whole microseconds.
async fn are_whole(
    reader: ParquetObjectReader,
    metadata: Arc<ParquetMetaData>,
    place: usize,
) -> Result<bool, ParquetError> {
    // The file's own schema, whatever Arrow schema its writer put beside it.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::try_new(metadata, options)?;
    let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata);
    let mask = ProjectionMask::roots(builder.parquet_schema(), [place]);
    let mut batches = builder.with_projection(mask).build()?;
    while let Some(batch) = batches.try_next().await? {
        if !batch.columns().iter().all(|column| holds_whole(column)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holds_whole(array: &dyn Array) -> bool {
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            array.as_primitive::<TimestampNanosecondType>().iter().flatten().all(|value| value % NANOSECONDS == 0)
        }
        DataType::List(_) => holds_whole(array.as_list::<i32>().values()),
        DataType::LargeList(_) => holds_whole(array.as_list::<i64>().values()),
        // No other type is a timestamp's.
        _ => false,
    }
}
