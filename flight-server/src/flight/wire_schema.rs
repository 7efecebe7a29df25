//! Types as they go over the wire: only those that the weakest client reads. JDBC knows no views and no run ends, and
//! dictionaries cost more than they save in short batches.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use bytes::Bytes;

use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::{IpcMessage, SchemaAsIpc};

use super::failure::{Failure, Outcome};

/// The same columns with plain types.
pub(super) fn plain(schema: &SchemaRef) -> SchemaRef {
    if schema.fields().iter().all(|field| plain_type(field.data_type()).is_none()) {
        return Arc::clone(schema);
    }
    let fields: Fields = schema.fields().iter().map(plain_field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// A batch with exactly the types of `schema`.
///
/// # Errors
/// The batch has other columns: a bug.
pub(super) fn conform(batch: RecordBatch, schema: &SchemaRef) -> Outcome<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    crate::conform::conform(&batch, schema).map_err(Failure::internal)
}

/// The encapsulated IPC message of a schema, as FlightInfo, GetSchema and prepared statements carry it.
pub(super) fn to_ipc(schema: &Schema) -> Outcome<Bytes> {
    let options = IpcWriteOptions::default();
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &options).try_into().map_err(Failure::internal)?;
    Ok(bytes)
}

/// A digest of the names and types of a result's columns; never 0.
pub(super) fn digest(schema: &Schema) -> Outcome<u64> {
    Ok(checksum(&to_ipc(schema)?).max(1))
}

/// FNV-1a over 64 bits.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// `None` when the type is plain already.
fn plain_type(data_type: &DataType) -> Option<DataType> {
    let inner = |field: &FieldRef| plain_type(field.data_type()).map(|_| plain_field(field));
    match data_type {
        DataType::Dictionary(_, values) => Some(plain_type(values).unwrap_or_else(|| values.as_ref().clone())),
        DataType::RunEndEncoded(_, values) => {
            Some(plain_type(values.data_type()).unwrap_or_else(|| values.data_type().clone()))
        }
        DataType::Utf8View => Some(DataType::Utf8),
        DataType::BinaryView => Some(DataType::Binary),
        DataType::ListView(item) => Some(DataType::List(plain_field(item))),
        DataType::LargeListView(item) => Some(DataType::LargeList(plain_field(item))),
        DataType::List(item) => inner(item).map(DataType::List),
        DataType::LargeList(item) => inner(item).map(DataType::LargeList),
        DataType::FixedSizeList(item, size) => inner(item).map(|item| DataType::FixedSizeList(item, *size)),
        DataType::Map(entries, sorted) => inner(entries).map(|entries| DataType::Map(entries, *sorted)),
        DataType::Struct(fields) => fields
            .iter()
            .any(|field| plain_type(field.data_type()).is_some())
            .then(|| DataType::Struct(fields.iter().map(plain_field).collect())),
        // Arrow's own enum, most of which is plain; a union's members are left as they are.
        _ => None,
    }
}

fn plain_field(field: &FieldRef) -> FieldRef {
    match plain_type(field.data_type()) {
        None => Arc::clone(field),
        Some(data_type) => {
            Arc::new(Field::new(field.name(), data_type, field.is_nullable()).with_metadata(field.metadata().clone()))
        }
    }
}

#[cfg(test)]
mod tests;
