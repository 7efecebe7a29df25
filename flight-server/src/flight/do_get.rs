//! DoGet: from a ticket to a stream of batches. The query is planned again; nothing is kept from GetFlightInfo.

use std::sync::Arc;

use arrow_flight::Ticket;

use super::command::FlightSqlTicket;
use super::context::CallContext;
use super::failure::{FailedQuery, Failure, Outcome};
use super::handle::StatementHandle;
use super::result_stream::{self, FlightDataStream};
use super::server::FlightSqlServer;
use super::wire_schema;
use crate::query::{ErrorKind, QueryError, QueryRequest};

pub(super) async fn do_get(server: &FlightSqlServer, call: &CallContext, ticket: &Ticket) -> Outcome<FlightDataStream> {
    match FlightSqlTicket::parse(ticket, &call.seal)? {
        FlightSqlTicket::Statement(statement) => execute(server, call, statement).await,
        FlightSqlTicket::Metadata(command) => {
            let batch = command.answer(server, &call.caller).await?;
            result_stream::of_batch(batch, server.settings.target_batch_bytes)
        }
    }
}

async fn execute(
    server: &FlightSqlServer,
    call: &CallContext,
    statement: StatementHandle,
) -> Outcome<FlightDataStream> {
    let StatementHandle { query_id, sql, parameters, mut options, schema_digest } = statement;
    call.override_with_headers(&mut options)?;
    call.limit_to_deadline(&mut options);
    let caller = Arc::clone(&call.caller);
    let request = QueryRequest { query_id: query_id.clone(), sql: sql.clone(), parameters, options, caller };
    let query = server.pipeline.execute(request).await;
    let query = query.map_err(|error| Failure::of_query(error, &query_id, &sql))?;
    // A reload of the catalog in between, or a replica with another one.
    if schema_digest != 0 && schema_digest != wire_schema::digest(&wire_schema::plain(&query.schema))? {
        let message = "the result has another schema than its FlightInfo promised, because the catalog was changed since: \
                       plan the query again";
        return Err(Failure::of_query(QueryError::new(ErrorKind::InvalidQuery, message), &query_id, &sql));
    }
    Ok(result_stream::of_query(query, FailedQuery { query_id, sql }, server.settings.target_batch_bytes))
}
