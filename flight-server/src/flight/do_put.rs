//! DoPut: binds the parameters of a prepared statement. The answer is the handle that holds them, because the server keeps
//! nothing: the client must go on with that handle.

use arrow_flight::sql::DoPutPreparedStatementResult;
use arrow_flight::{FlightData, PutResult};
use prost::Message;
use tonic::Streaming;

use super::command::FlightSqlPut;
use super::context::CallContext;
use super::failure::{Failure, Outcome};
use super::handle::PreparedHandle;
use super::handle_seal::HandleSeal;
use super::parameters;

/// One row is one schema and one batch, and clients send dictionaries in messages of their own: this is plenty.
const MAX_MESSAGES: usize = 1_000;

pub(super) async fn do_put(call: &CallContext, mut stream: Streaming<FlightData>) -> Outcome<PutResult> {
    let first = read(&mut stream).await?.ok_or_else(|| Failure::invalid("DoPut without a message"))?;
    let descriptor = first.flight_descriptor.as_ref();
    let descriptor = descriptor.ok_or_else(|| Failure::invalid("the first message of DoPut must hold a descriptor"))?;
    match FlightSqlPut::parse(descriptor, &call.seal)? {
        FlightSqlPut::Refused(command) => Err(command.failure()),
        FlightSqlPut::BindParameters(statement) => {
            let mut size = first.data_body.len();
            let mut messages = vec![first];
            while let Some(message) = read(&mut stream).await? {
                if messages.len() == MAX_MESSAGES {
                    return Err(Failure::invalid(
                        "a query takes exactly one row of parameters; this stream is far longer",
                    ));
                }
                size += message.data_body.len();
                parameters::check_size(size)?;
                // A message of metadata alone binds nothing.
                if !message.data_header.is_empty() {
                    messages.push(message);
                }
            }
            bind(statement, &messages, &call.seal)
        }
    }
}

fn bind(statement: PreparedHandle, messages: &[FlightData], seal: &HandleSeal) -> Outcome<PutResult> {
    let bound = PreparedHandle { parameters: parameters::of_messages(messages)?, ..statement };
    let result = DoPutPreparedStatementResult { prepared_statement_handle: Some(bound.encode(seal)?) };
    Ok(PutResult { app_metadata: result.encode_to_vec().into() })
}

async fn read(stream: &mut Streaming<FlightData>) -> Outcome<Option<FlightData>> {
    stream
        .message()
        .await
        .map_err(|status| Failure::invalid(format!("the DoPut stream broke off: {}", status.message())))
}
