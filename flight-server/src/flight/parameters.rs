//! Bound parameters: one row, one column a parameter. Clients may send any Arrow type; encodings that only a column
//! profits from (dictionaries, views, run ends) become the plain type of the same values.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Fields, Schema};
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::utils::batches_to_flight_data;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use prost::Message;

use super::failure::{Failure, Outcome};
use super::wire_schema;

/// The largest set of parameters, in bytes. It travels in every handle and ticket, which clients cap at 4 MB.
const MAX_PARAMETER_BYTES: usize = 2 * 1024 * 1024;

/// An Arrow IPC message as a handle carries it: the schema or the row.
///
/// Header and body are kept apart, as FlightData keeps them. In the IPC stream format the header tells the length of the
/// body, and its reader allocates that much before it looks: a forged length would end the process.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ParameterMessage {
    #[prost(bytes = "bytes", tag = "1")]
    header: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    body: Bytes,
}

/// Reads the parameters that a DoPut stream binds; `None` when it binds a row without columns.
pub(super) fn of_messages(messages: &[FlightData]) -> Outcome<Option<RecordBatch>> {
    let size: usize = messages.iter().map(|message| message.data_body.len()).sum();
    check_size(size)?;
    let batches = read(messages)
        .map_err(|fault| Failure::invalid(format!("the parameters are not a valid Arrow stream{fault}")))?;
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

/// Refuses parameters that take more than a handle may carry.
pub(super) fn check_size(bytes: usize) -> Outcome<()> {
    if bytes <= MAX_PARAMETER_BYTES {
        return Ok(());
    }
    Err(Failure::limit(format!(
        "the parameters take {bytes} bytes, the limit max_parameter_bytes is {MAX_PARAMETER_BYTES}"
    )))
}

/// The form in which a handle carries parameters; nothing at all when none are bound.
pub(super) fn encode(parameters: Option<&RecordBatch>) -> Outcome<Vec<ParameterMessage>> {
    let Some(parameters) = parameters else { return Ok(Vec::new()) };
    let messages = batches_to_flight_data(parameters.schema_ref(), vec![parameters.clone()])
        .map_err(|error| Failure::invalid(format!("the parameters cannot be encoded: {error}")))?;
    let size = messages.iter().map(|message| message.data_header.len() + message.data_body.len()).sum();
    check_size(size)?;
    let message = |message: FlightData| ParameterMessage { header: message.data_header, body: message.data_body };
    Ok(messages.into_iter().map(message).collect())
}

/// Reads what [`encode`] made, or messages that claim to be that.
pub(super) fn decode(messages: Vec<ParameterMessage>) -> Outcome<Option<RecordBatch>> {
    if messages.is_empty() {
        return Ok(None);
    }
    let message = |message: ParameterMessage| FlightData {
        data_header: message.header,
        data_body: message.body,
        ..FlightData::default()
    };
    let messages: Vec<FlightData> = messages.into_iter().map(message).collect();
    let batch = match read(&messages).ok().as_deref() {
        Some([batch]) if batch.num_rows() == 1 => Some(batch.clone()),
        Some(_) | None => None,
    };
    batch.map(Some).ok_or_else(|| Failure::invalid("the handle's parameters are damaged: bind them again"))
}

/// The batches of a client's messages. The reader of the IPC format trusts offsets in places, and a client's bytes must
/// not take the connection down.
fn read(messages: &[FlightData]) -> Result<Vec<RecordBatch>, String> {
    let messages = stream::iter(messages.to_vec()).map(Ok);
    // All messages are there, so the stream never waits.
    let batches = || FlightRecordBatchStream::new_from_flight_data(messages).try_collect::<Vec<_>>().now_or_never();
    match catch_unwind(AssertUnwindSafe(batches)) {
        Ok(Some(Ok(batches))) => Ok(batches),
        Ok(Some(Err(error))) => Err(format!(": {error}")),
        Ok(None) | Err(_) => Err(String::new()),
    }
}

fn plain(row: RecordBatch) -> Outcome<RecordBatch> {
    let fields = wire_schema::plain(row.schema_ref());
    let fields: Fields = fields.fields().iter().map(in_utc).collect();
    if &fields == row.schema_ref().fields() {
        return Ok(row);
    }
    let columns = row
        .columns()
        .iter()
        .zip(&fields)
        .map(|(column, field)| cast(column, field.data_type()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Failure::invalid(format!("a parameter has a type that cannot be bound: {error}")))?;
    let options = RecordBatchOptions::new().with_row_count(Some(row.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).map_err(Failure::internal)
}

/// Names the zone of a timestamp by the offset of UTC. The value counts from the epoch whatever the zone is called, and
/// names of zones need a database of them to be read.
fn in_utc(field: &FieldRef) -> FieldRef {
    match field.data_type() {
        DataType::Timestamp(unit, Some(_)) => {
            let data_type = DataType::Timestamp(*unit, Some("+00:00".into()));
            Arc::new(field.as_ref().clone().with_data_type(data_type))
        }
        // Arrow's own enum: whatever else it has stays as it is.
        _ => Arc::clone(field),
    }
}

/// A stream without rows binds nothing, which is right only for a statement without parameters.
fn no_row(messages: &[FlightData]) -> Outcome<Option<RecordBatch>> {
    let schema =
        messages.first().and_then(|message| catch_unwind(AssertUnwindSafe(|| Schema::try_from(message).ok())).ok()?);
    match schema {
        Some(schema) if schema.fields().is_empty() => Ok(None),
        Some(_) | None => Err(Failure::invalid("no row of parameters was bound, but a query takes exactly one")),
    }
}

#[cfg(test)]
mod tests;
