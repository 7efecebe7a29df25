//! The one shape of file that Thermocline writes.
//!
//! `row_id` (annotated UUID), the attributes in catalog order with their native types, `created_at`, `changed_at`,
//! `deleted_at`; by `row_id`, each row once; zstd, statistics of every column chunk and page, a bloom filter of the row ids,
//! checksums of pages, and the metadata entry that vouches for unique rows.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryBuilder, Int64Array, ListArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::{Compression, LogicalType, Type as PhysicalType, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::{ColumnPath, SchemaDescriptor, Type};
use translator::catalog::{Column, Entity};
use translator::hot::{HotColumn, WireType};

use super::page_checksums::{ChecksumWriter, ROW_GROUP_ROWS};
use crate::lake::UNIQUE_ROWS_KEY;
use crate::postgres::hot_schema;

/// Why a batch can't be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("cannot write a Parquet file")]
    Parquet(#[from] ParquetError),
    #[error("cannot bring rows into the shape of the files")]
    Arrow(#[from] arrow::error::ArrowError),
    #[error("a row id is no UUID")]
    RowId,
    #[error("cannot write a file")]
    Io(#[from] std::io::Error),
}

/// The Arrow schema of an entity's files.
pub(super) fn file_schema(entity: &Entity) -> SchemaRef {
    // The wire type plays no part in the schema.
    let columns: Vec<HotColumn> = (0..entity.attributes.len())
        .map(|index| HotColumn { column: Column::Attribute(index), wire: WireType::Text })
        .collect();
    let hot = hot_schema(entity, &columns);
    let mut fields = vec![Field::new("row_id", DataType::FixedSizeBinary(16), false)];
    fields.extend(hot.fields().iter().skip(4).map(|field| field.as_ref().clone()));
    fields.push(Field::new("created_at", DataType::Int64, true));
    fields.push(Field::new("changed_at", DataType::Int64, false));
    fields.push(Field::new("deleted_at", DataType::Int64, true));
    Arc::new(Schema::new(fields))
}

/// Starts a file.
pub(super) fn open<W: Write + Send>(schema: &SchemaRef, to: W) -> Result<ChecksumWriter<W>, FileError> {
    let properties = WriterProperties::builder()
        .set_created_by(format!("thermocline {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::Page)
        // For readers that look rows up by their ids.
        .set_column_bloom_filter_enabled(ColumnPath::from("row_id"), true)
        .set_column_bloom_filter_ndv(ColumnPath::from("row_id"), ROW_GROUP_ROWS as u64)
        .set_column_bloom_filter_fpp(ColumnPath::from("row_id"), 0.01)
        // The writer ends row groups.
        .set_max_row_group_row_count(None)
        .set_max_row_group_bytes(None)
        .set_sorting_columns(Some(vec![SortingColumn { column_idx: 0, descending: false, nulls_first: false }]))
        .set_key_value_metadata(Some(vec![KeyValue::new(UNIQUE_ROWS_KEY.to_owned(), "true".to_owned())]))
        .build();
    let descriptor = ArrowSchemaConverter::new().convert(schema)?;
    let root = annotate_uuids(descriptor.root_schema_ptr().as_ref())?;
    Ok(ChecksumWriter::new(to, Arc::clone(schema), SchemaDescriptor::new(Arc::new(root)), properties)?)
}

/// The writer knows UUIDs only as 16 bytes; every such column of ours is one.
fn annotate_uuids(node: &Type) -> Result<Type, ParquetError> {
    let info = node.get_basic_info();
    Ok(match node {
        Type::PrimitiveType { physical_type: PhysicalType::FIXED_LEN_BYTE_ARRAY, type_length: 16, .. }
            if info.logical_type_ref().is_none() =>
        {
            Type::primitive_type_builder(info.name(), PhysicalType::FIXED_LEN_BYTE_ARRAY)
                .with_length(16)
                .with_repetition(info.repetition())
                .with_logical_type(Some(LogicalType::Uuid))
                .build()?
        }
        Type::PrimitiveType { .. } => node.clone(),
        Type::GroupType { fields, .. } => {
            let fields =
                fields.iter().map(|field| Ok(Arc::new(annotate_uuids(field)?))).collect::<Result<_, ParquetError>>()?;
            let mut group = Type::group_type_builder(info.name())
                .with_fields(fields)
                .with_logical_type(info.logical_type_ref().cloned())
                .with_converted_type(info.converted_type());
            if info.has_repetition() {
                group = group.with_repetition(info.repetition());
            }
            group.build()?
        }
    })
}

/// Brings a batch with the columns of `schema`, in any order and with UUIDs as text or bytes, into its shape.
/// A `deleted_at` of 0 becomes NULL: both say "live", and only one lets readers skip the column.
pub(super) fn shape(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, FileError> {
    let columns = schema
        .fields()
        .iter()
        .map(|field| {
            let index = batch.schema_ref().index_of(field.name())?;
            let column = convert(batch.column(index), field.data_type())?;
            Ok(if field.name() == "deleted_at" {
                let values = column.as_primitive::<Int64Type>();
                Arc::new(values.iter().map(|value| value.filter(|value| *value != 0)).collect::<Int64Array>())
            } else {
                column
            })
        })
        .collect::<Result<Vec<ArrayRef>, FileError>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn convert(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, FileError> {
    if column.data_type() == to {
        return Ok(Arc::clone(column));
    }
    match (column.data_type(), to) {
        (DataType::Utf8, DataType::FixedSizeBinary(16)) => {
            let texts = column.as_string::<i32>();
            let mut ids = FixedSizeBinaryBuilder::with_capacity(texts.len(), 16);
            for text in texts {
                match text {
                    Some(text) => {
                        let id = uuid::Uuid::try_parse(text).map_err(|_| FileError::RowId)?;
                        ids.append_value(id.as_bytes())?;
                    }
                    None => ids.append_null(),
                }
            }
            Ok(Arc::new(ids.finish()))
        }
        (DataType::List(_), DataType::List(element)) => {
            let list = column.as_list::<i32>();
            let values = convert(list.values(), element.data_type())?;
            let parts = (Arc::clone(element), list.offsets().clone(), values, list.nulls().cloned());
            Ok(Arc::new(ListArray::try_new(parts.0, parts.1, parts.2, parts.3)?))
        }
        _ => Ok(cast(column, to)?),
    }
}

/// The row ids of a batch of [`file_schema`].
pub(super) fn row_ids(batch: &RecordBatch) -> impl Iterator<Item = u128> + '_ {
    batch.column(0).as_fixed_size_binary().iter().map(|id| {
        let bytes = id.and_then(|id| <[u8; 16]>::try_from(id).ok());
        bytes.map_or(0, u128::from_be_bytes)
    })
}
