//! GetFlightInfo, PollFlightInfo and GetSchema.

use std::sync::Arc;

use arrow::datatypes::Schema;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, PollInfo, SchemaResult, Ticket};
use bytes::Bytes;
use prost::Message;
use uuid::Uuid;

use super::command::FlightSqlCommand;
use super::context::{self, CallContext};
use super::failure::{Failure, Outcome};
use super::handle::{PreparedHandle, StatementHandle};
use super::handle_seal::HandleSeal;
use super::server::FlightSqlServer;
use super::wire_schema;
use crate::query::QueryRequest;

pub(super) async fn get_flight_info(
    server: &FlightSqlServer,
    call: &CallContext,
    descriptor: FlightDescriptor,
) -> Outcome<FlightInfo> {
    let info = match FlightSqlCommand::parse(&descriptor, &call.seal)? {
        FlightSqlCommand::Statement { sql } => {
            let statement = PreparedHandle { sql, parameters: None, call_options: Vec::new() };
            plan(server, call, statement).await?
        }
        FlightSqlCommand::PreparedStatement(statement) => plan(server, call, statement).await?,
        FlightSqlCommand::Metadata(command) => info(command.schema(), command.to_ticket())?,
        FlightSqlCommand::Refused(command) => return Err(command.failure()),
    };
    Ok(info.with_descriptor(echo(descriptor)))
}

/// The descriptor as FlightInfo repeats it. A long statement travels once, in the ticket: its descriptor comes back empty,
/// since Arrow's C++ takes no FlightInfo without one.
fn echo(descriptor: FlightDescriptor) -> FlightDescriptor {
    const LONGEST: usize = 64 * 1024;
    if descriptor.cmd.len() > LONGEST { FlightDescriptor::new_cmd(Bytes::new()) } else { descriptor }
}

/// Planning is quick, so the first poll already has the whole answer: no descriptor to poll with again.
pub(super) async fn poll_flight_info(
    server: &FlightSqlServer,
    call: &CallContext,
    descriptor: FlightDescriptor,
) -> Outcome<PollInfo> {
    let info = get_flight_info(server, call, descriptor).await?;
    Ok(PollInfo { info: Some(info), flight_descriptor: None, progress: Some(1.0), expiration_time: None })
}

/// The schema alone: no source is asked.
pub(super) async fn get_schema(
    server: &FlightSqlServer,
    call: &CallContext,
    descriptor: &FlightDescriptor,
) -> Outcome<SchemaResult> {
    let schema = match FlightSqlCommand::parse(descriptor, &call.seal)? {
        FlightSqlCommand::Statement { sql } | FlightSqlCommand::PreparedStatement(PreparedHandle { sql, .. }) => {
            let query_id = Uuid::now_v7().to_string();
            let prepared = server.pipeline.prepare(&call.caller, &sql).await;
            wire_schema::plain(&prepared.map_err(|error| Failure::of_query(error, &query_id, &sql))?.schema)
        }
        FlightSqlCommand::Metadata(command) => command.schema(),
        FlightSqlCommand::Refused(command) => return Err(command.failure()),
    };
    Ok(SchemaResult { schema: wire_schema::to_ipc(&schema)? })
}

/// A ticket that runs `statement` with settled options.
pub(super) fn ticket(statement: &StatementHandle, seal: &HandleSeal) -> Outcome<Bytes> {
    let ticket = TicketStatementQuery { statement_handle: statement.encode(seal)? };
    Ok(ticket.as_any().encode_to_vec().into())
}

/// A FlightInfo with one endpoint and no location: the client reuses its connection.
pub(super) fn info(schema: impl AsRef<Schema>, ticket: Bytes) -> Outcome<FlightInfo> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket { ticket });
    let info = FlightInfo { schema: wire_schema::to_ipc(schema.as_ref())?, ..FlightInfo::new() };
    Ok(info.with_endpoint(endpoint).with_ordered(true))
}

async fn plan(server: &FlightSqlServer, call: &CallContext, statement: PreparedHandle) -> Outcome<FlightInfo> {
    let mut options = call.options(server.pipeline.default_options())?;
    for (name, value) in &statement.call_options {
        context::set(&mut options, name, value)?;
    }
    call.override_with_headers(&mut options)?;

    // The ticket keeps the options without this call's deadline: DoGet has one of its own.
    let PreparedHandle { sql, parameters, call_options: _ } = statement;
    let query_id = Uuid::now_v7().to_string();
    let mut limited = options.clone();
    call.limit_to_deadline(&mut limited);
    let request = QueryRequest {
        query_id: query_id.clone(),
        sql: sql.clone(),
        parameters: parameters.clone(),
        options: limited,
        caller: Arc::clone(&call.caller),
    };
    let planned = server.pipeline.plan(request).await;
    let planned = planned.map_err(|error| Failure::of_query(error, &query_id, &sql))?;
    let plan = serde_json::to_vec(&planned.plan).map_err(Failure::internal)?;
    let schema = wire_schema::plain(&planned.schema);
    let schema_digest = wire_schema::digest(&schema)?;
    let statement = StatementHandle { query_id, sql, parameters, options, schema_digest };
    let ticket = ticket(&statement, &call.seal)?;
    Ok(info(schema, ticket)?.with_total_records(planned.estimated_rows.max(-1)).with_app_metadata(plan))
}
