//! Bound parameters: one row, one column a parameter. Clients may send any Arrow type; encodings that only a column
//! profits from (dictionaries, views, run ends) become the plain type of the same values.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow_flight::FlightData;
use arrow_flight::utils::flight_data_to_batches;
use bytes::Bytes;

use super::failure::{Failure, Outcome};
use super::wire_schema;

/// The largest set of parameters, in bytes. It travels in every handle and ticket, which clients cap at 4 MB.
const MAX_PARAMETER_BYTES: usize = 2 * 1024 * 1024;

/// Reads the parameters that a DoPut stream binds; `None` when it binds a row without columns.
pub(super) fn of_messages(messages: &[FlightData]) -> Outcome<Option<RecordBatch>> {
    let size: usize = messages.iter().map(|message| message.data_body.len()).sum();
    if size > MAX_PARAMETER_BYTES {
        return Err(too_large(size));
    }
    // The reader of the IPC format trusts offsets in places; a client's bytes must not take the connection down.
    let batches = catch_unwind(AssertUnwindSafe(|| flight_data_to_batches(messages)))
        .map_err(|_| Failure::invalid("the parameters are not a valid Arrow stream"))?
        .map_err(|error| Failure::invalid(format!("the parameters are not a valid Arrow stream: {error}")))?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let row = batches.into_iter().find(|batch| batch.num_rows() > 0);
    match row {
        Some(row) if rows == 1 => plain(row).map(|row| Some(row).filter(|row| row.num_columns() > 0)),
        Some(row) if row.num_columns() == 0 => Ok(None),
        Some(_) => Err(Failure::invalid(format!(
            "{rows} rows of parameters were bound, but a query takes exactly one: execute it once a row"
        ))),
        None if messages.is_empty() => Err(Failure::invalid("no parameters were sent")),
        None => no_row(messages),
    }
}

/// The form in which a handle carries parameters.
pub(super) fn encode(parameters: Option<&RecordBatch>) -> Outcome<Bytes> {
    let Some(parameters) = parameters else { return Ok(Bytes::new()) };
    let write = || {
        let mut writer = StreamWriter::try_new(Vec::new(), parameters.schema_ref())?;
        writer.write(parameters)?;
        writer.into_inner()
    };
    let bytes = write().map_err(|error| Failure::invalid(format!("the parameters cannot be encoded: {error}")))?;
    if bytes.len() > MAX_PARAMETER_BYTES {
        return Err(too_large(bytes.len()));
    }
    Ok(bytes.into())
}

/// Reads what [`encode`] made, or bytes that claim to be that.
pub(super) fn decode(bytes: &[u8]) -> Outcome<Option<RecordBatch>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let read = || -> Option<RecordBatch> {
        let mut batches = StreamReader::try_new(bytes, None).ok()?;
        let batch = batches.next()?.ok()?;
        (batch.num_rows() == 1 && batches.next().is_none()).then_some(batch)
    };
    let batch = catch_unwind(AssertUnwindSafe(read)).unwrap_or_default();
    batch.map(Some).ok_or_else(|| Failure::invalid("the handle's parameters are damaged: bind them again"))
}

fn plain(row: RecordBatch) -> Outcome<RecordBatch> {
    let schema = wire_schema::plain(row.schema_ref());
    if &schema == row.schema_ref() {
        return Ok(row);
    }
    let columns = row
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| cast(column, field.data_type()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Failure::invalid(format!("a parameter has a type that cannot be bound: {error}")))?;
    let options = RecordBatchOptions::new().with_row_count(Some(row.num_rows()));
    RecordBatch::try_new_with_options(schema, columns, &options).map_err(Failure::internal)
}

/// A stream without rows binds nothing, which is right only for a statement without parameters.
fn no_row(messages: &[FlightData]) -> Outcome<Option<RecordBatch>> {
    let schema = messages
        .first()
        .and_then(|message| catch_unwind(AssertUnwindSafe(|| arrow::datatypes::Schema::try_from(message).ok())).ok()?);
    match schema {
        Some(schema) if schema.fields().is_empty() => Ok(None),
        Some(_) | None => Err(Failure::invalid("no row of parameters was bound, but a query takes exactly one")),
    }
}

fn too_large(bytes: usize) -> Failure {
    Failure::limit(format!("the parameters take {bytes} bytes, the limit max_parameter_bytes is {MAX_PARAMETER_BYTES}"))
}

#[cfg(test)]
mod tests;
