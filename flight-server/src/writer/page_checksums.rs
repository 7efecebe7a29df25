//! Page checksums: the CRC-32 of each page in its header, which the Parquet library leaves out.
//!
//! ```text
//! batches ─▶ ArrowWriter: one row group in memory ─▶ its pages, each header with its checksum ─▶ the file
//! ```
//!
//! What a checksum covers and where it stands: `PageHeader.crc` of `parquet.thrift`, in Thrift's compact protocol.
//! Readers that check it (pyarrow with `page_checksum_verification`) name a damaged page instead of decoding it.

use std::io::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::add_encoded_arrow_schema_to_metadata;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{ReaderProperties, WriterProperties};
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::{ReadOptionsBuilder, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::SchemaDescriptor;

/// Rows of a row group: DuckDB gives each of its threads one row group at a time.
pub(super) const ROW_GROUP_ROWS: usize = 122_880;
/// Bytes of a row group, about: a writer holds two of them in memory.
const ROW_GROUP_BYTES: usize = 64 << 20;
/// Rows after which a row group's bytes are looked at.
const STEP_ROWS: usize = 8_192;

/// A Parquet writer whose pages have checksums.
pub(super) struct ChecksumWriter<W: Write + Send> {
    schema: SchemaRef,
    descriptor: SchemaDescriptor,
    properties: WriterProperties,
    /// A file of one row group, in memory.
    group: Option<ArrowWriter<Vec<u8>>>,
    file: SerializedFileWriter<W>,
}

impl<W: Write + Send> ChecksumWriter<W> {
    pub(super) fn new(
        to: W,
        schema: SchemaRef,
        descriptor: SchemaDescriptor,
        properties: WriterProperties,
    ) -> Result<Self, ParquetError> {
        let mut file_properties = properties.clone();
        add_encoded_arrow_schema_to_metadata(&schema, &mut file_properties);
        let file = SerializedFileWriter::new(to, descriptor.root_schema_ptr(), Arc::new(file_properties))?;
        Ok(Self { schema, descriptor, properties, group: None, file })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        let mut rest = batch.clone();
        while rest.num_rows() > 0 {
            let group = match &mut self.group {
                Some(group) => group,
                None => {
                    let options = ArrowWriterOptions::new()
                        .with_properties(self.properties.clone())
                        .with_parquet_schema(self.descriptor.clone());
                    let schema = Arc::clone(&self.schema);
                    self.group.insert(ArrowWriter::try_new_with_options(Vec::new(), schema, options)?)
                }
            };
            let room = ROW_GROUP_ROWS - group.in_progress_rows();
            let take = rest.num_rows().min(room).min(STEP_ROWS);
            group.write(&rest.slice(0, take))?;
            rest = rest.slice(take, rest.num_rows() - take);
            if group.in_progress_rows() >= ROW_GROUP_ROWS || group.in_progress_size() >= ROW_GROUP_BYTES {
                self.end_group()?;
            }
        }
        Ok(())
    }

    /// About how large the file would be if it ended here.
    pub(super) fn size(&self) -> usize {
        self.file.bytes_written() + self.group.as_ref().map_or(0, ArrowWriter::in_progress_size)
    }

    /// Completes the file.
    pub(super) fn into_inner(mut self) -> Result<W, ParquetError> {
        self.end_group()?;
        self.file.into_inner()
    }

    fn end_group(&mut self) -> Result<(), ParquetError> {
        let Some(mut group) = self.group.take() else { return Ok(()) };
        let metadata = group.finish()?;
        let bytes = Bytes::from(std::mem::take(group.inner_mut()));
        let written = read_with_bloom_filters(bytes.clone())?;
        let written = written.get_row_group(0)?;
        let mut to = self.file.next_row_group()?;
        for column in 0..metadata.row_group(0).num_columns() {
            let (chunk, mut close) = checksummed_chunk(&bytes, &metadata, column).ok_or_else(unlike)?;
            close.bloom_filter = written.get_column_bloom_filter(column).cloned();
            to.append_column(&Bytes::from(chunk), close)?;
        }
        to.close()?;
        Ok(())
    }
}

fn read_with_bloom_filters(file: Bytes) -> Result<SerializedFileReader<Bytes>, ParquetError> {
    let properties = ReaderProperties::builder().set_read_bloom_filter(true).build();
    let options = ReadOptionsBuilder::new().with_reader_properties(properties).build();
    SerializedFileReader::new_with_options(file, options)
}

/// The library's layout has changed; nothing that was read is at fault.
fn unlike() -> ParquetError {
    ParquetError::General("a page is laid out unlike what the Parquet library wrote so far: a bug".to_owned())
}

/// A column chunk of a file's only row group with checksums in its pages, and what describes it where it begins at 0.
fn checksummed_chunk(file: &[u8], metadata: &ParquetMetaData, column: usize) -> Option<(Vec<u8>, ColumnCloseResult)> {
    let (group, old) = (metadata.row_group(0), metadata.row_group(0).column(column));
    let mut offsets = metadata.offset_index()?.first()?.get(column)?.clone();
    let mut chunk = Vec::with_capacity(usize::try_from(old.compressed_size()).ok()? + 64);
    let page = |offset: i64, size: i64| {
        let offset = usize::try_from(offset).ok()?;
        file.get(offset..offset + usize::try_from(size).ok()?)
    };
    if let Some(dictionary) = old.dictionary_page_offset() {
        push_with_checksum(page(dictionary, old.data_page_offset() - dictionary)?, &mut chunk)?;
    }
    let data_page_offset = i64::try_from(chunk.len()).ok()?;
    for location in &mut offsets.page_locations {
        let start = chunk.len();
        push_with_checksum(page(location.offset, location.compressed_page_size.into())?, &mut chunk)?;
        location.offset = i64::try_from(start).ok()?;
        location.compressed_page_size = i32::try_from(chunk.len() - start).ok()?;
    }
    let bytes = i64::try_from(chunk.len()).ok()?;
    // Both sizes count headers.
    let grown = bytes - old.compressed_size();
    let new = old
        .clone()
        .into_builder()
        .set_dictionary_page_offset(old.dictionary_page_offset().map(|_| 0))
        .set_data_page_offset(data_page_offset)
        .set_total_compressed_size(bytes)
        // Where it stood in the file of one row group.
        .set_bloom_filter_offset(None)
        .set_bloom_filter_length(None)
        .set_total_uncompressed_size(old.uncompressed_size() + grown)
        .build()
        .ok()?;
    let close = ColumnCloseResult {
        bytes_written: chunk.len() as u64,
        rows_written: u64::try_from(group.num_rows()).ok()?,
        metadata: new,
        bloom_filter: None,
        column_index: metadata.column_index().and_then(|index| index.first()?.get(column).cloned()),
        offset_index: Some(offsets),
    };
    Some((chunk, close))
}

/// Header of a compact protocol's field: the distance to the last field's number, and the type.
const I32: u8 = 5;
const STRUCT: u8 = 12;
const NEXT_I32: u8 = 1 << 4 | I32;

/// Appends a page, its header extended by field 4, the CRC-32 of everything behind the header.
///
/// A header begins with three `i32` (type, uncompressed and compressed size of what follows it) and goes on with a
/// structure for the kind of page; `None` when it doesn't.
fn push_with_checksum(page: &[u8], to: &mut Vec<u8>) -> Option<()> {
    let mut rest = page;
    let mut size = 0;
    for _ in 0..3 {
        (size, rest) = varint(rest.strip_prefix(&[NEXT_I32])?)?;
    }
    let sizes = page.len() - rest.len();
    // Zigzag: a size is positive, and so even.
    let body = page.len().checked_sub(usize::try_from(size / 2).ok()?).and_then(|header| page.get(header..))?;
    let (kind, rest) = rest.split_first()?;
    if kind & 0x0f != STRUCT || kind >> 4 < 2 || body.len() > rest.len() {
        return None;
    }
    to.extend_from_slice(&page[..sizes]);
    to.push(NEXT_I32);
    let crc = crc32fast::hash(body).cast_signed();
    push_varint(((crc << 1) ^ (crc >> 31)).cast_unsigned(), to);
    // One field nearer now.
    to.push(kind - (1 << 4));
    to.extend_from_slice(rest);
    Some(())
}

fn varint(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

fn push_varint(mut value: u32, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::compute::concat_batches;
    use arrow::datatypes::{DataType, Field, Schema};
    use parquet::arrow::ArrowSchemaConverter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::schema::types::ColumnPath;

    use super::*;

    fn batch(rows: std::ops::Range<i64>) -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("n", DataType::Int64, false),
            Field::new("few", DataType::Utf8, true),
            Field::new("many", DataType::Utf8, false),
        ]);
        let few: StringArray = rows.clone().map(|n| (n % 3 > 0).then(|| format!("v{}", n % 5))).collect();
        let many: StringArray = rows.clone().map(|n| Some(format!("text {n}"))).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(rows.collect::<Int64Array>()), Arc::new(few), Arc::new(many)];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    fn write(batches: &[RecordBatch]) -> Bytes {
        let schema = batches[0].schema();
        let descriptor = ArrowSchemaConverter::new().convert(&schema).unwrap();
        let mut writer = ChecksumWriter::new(Vec::new(), schema, descriptor, WriterProperties::default()).unwrap();
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        Bytes::from(writer.into_inner().unwrap())
    }

    #[test]
    fn rows_survive_and_row_groups_are_bounded() {
        let batches = [batch(0..100_000), batch(100_000..250_000)];
        let file = write(&batches);
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let groups: Vec<i64> = reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
        assert_eq!(groups, [122_880, 122_880, 4_240]);
        let schema = Arc::clone(reader.schema());
        let read: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
        assert_eq!(concat_batches(&schema, &read).unwrap(), concat_batches(&schema, &batches).unwrap());
    }

    #[test]
    fn bloom_filters_stay_with_their_row_groups() {
        let batches = [batch(0..130_000)];
        let schema = batches[0].schema();
        let descriptor = ArrowSchemaConverter::new().convert(&schema).unwrap();
        let properties =
            WriterProperties::builder().set_column_bloom_filter_enabled(ColumnPath::from("many"), true).build();
        let mut writer = ChecksumWriter::new(Vec::new(), schema, descriptor, properties).unwrap();
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        let reader = read_with_bloom_filters(Bytes::from(writer.into_inner().unwrap())).unwrap();
        let groups: Vec<_> = (0..2).map(|group| reader.get_row_group(group).unwrap()).collect();
        assert!(groups.iter().all(|group| group.get_column_bloom_filter(0).is_none()));
        let holds = |group: usize, text: &str| groups[group].get_column_bloom_filter(2).expect("a filter").check(text);
        let found =
            |group: usize, rows: std::ops::Range<u32>| rows.filter(|n| holds(group, &format!("text {n}"))).count();
        assert_eq!((found(0, 0..122_880), found(1, 122_880..130_000)), (122_880, 7_120));
        assert!(found(1, 0..1000) < 100);
    }

    /// Follows the pages of each chunk from its start to its end.
    #[test]
    fn every_page_has_the_checksum_of_its_body() {
        let file = write(&[batch(0..50_000)]);
        let reader = ParquetRecordBatchReaderBuilder::try_new(file.clone()).unwrap();
        let mut pages = 0;
        for column in reader.metadata().row_group(0).columns() {
            let (start, length) = column.byte_range();
            let mut chunk = &file[start as usize..(start + length) as usize];
            while !chunk.is_empty() {
                let (mut rest, mut fields) = (chunk, [0; 4]);
                for field in &mut fields {
                    (*field, rest) = varint(rest.strip_prefix(&[NEXT_I32]).expect("an i32")).unwrap();
                }
                // Field 5 is a data page, 7 a dictionary.
                assert!([5 - 4, 7 - 4].contains(&(rest[0] >> 4)) && rest[0] & 0x0f == STRUCT);
                let (size, crc) = ((fields[2] / 2) as usize, (fields[3] >> 1) ^ (fields[3] & 1).wrapping_neg());
                let found = (1..rest.len() - size + 1).find(|header| crc32fast::hash(&rest[*header..][..size]) == crc);
                chunk = &rest[found.expect("the body of the page") + size..];
                pages += 1;
            }
        }
        assert!(pages > 6, "{pages} pages");
    }
}
