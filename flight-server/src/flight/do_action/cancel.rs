//! CancelFlightInfo, the deprecated CancelQuery, and RenewFlightEndpoint.

use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, Any, ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{
    CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo, RenewFlightEndpointRequest,
};
use bytes::Bytes;
use prost::Message;

use crate::flight::context::CallContext;
use crate::flight::failure::{Failure, Outcome};
use crate::flight::handle;
use crate::flight::handle_seal::HandleSeal;
use crate::flight::server::FlightSqlServer;
use crate::query::CancelOutcome;

/// `ActionCancelQueryResult.CancelResult.CANCEL_RESULT_CANCELLED`
const CANCEL_RESULT_CANCELLED: i32 = 1;

pub(super) fn cancel_flight_info(
    server: &FlightSqlServer,
    call: &CallContext,
    request: &CancelFlightInfoRequest,
) -> Outcome<Bytes> {
    let info = request.info.as_ref().ok_or_else(|| Failure::invalid("the request holds no FlightInfo"))?;
    cancel(server, call, info)?;
    Ok(CancelFlightInfoResult::new(CancelStatus::Cancelled).encode_to_vec().into())
}

pub(super) fn cancel_query(
    server: &FlightSqlServer,
    call: &CallContext,
    request: &ActionCancelQueryRequest,
) -> Outcome<Bytes> {
    let info = FlightInfo::decode(request.info.as_ref())
        .map_err(|_| Failure::invalid("the request's info is not a FlightInfo"))?;
    cancel(server, call, &info)?;
    Ok(ActionCancelQueryResult { result: CANCEL_RESULT_CANCELLED }.as_any().encode_to_vec().into())
}

/// Endpoints hold their query and never expire, so renewing one changes nothing.
pub(super) fn renew_endpoint(request: RenewFlightEndpointRequest) -> Outcome<Bytes> {
    let endpoint = request.endpoint.ok_or_else(|| Failure::invalid("the request holds no endpoint"))?;
    Ok(endpoint.encode_to_vec().into())
}

fn cancel(server: &FlightSqlServer, call: &CallContext, info: &FlightInfo) -> Outcome<()> {
    let query_id = query_id(info, &call.seal)?;
    match server.pipeline.cancel(&call.caller, &query_id) {
        CancelOutcome::Cancelled => Ok(()),
        CancelOutcome::NotFound => Err(Failure::not_found(format!("no query with the id {query_id} runs here"))),
    }
}

/// The query of a FlightInfo that this server made: its ticket names it.
fn query_id(info: &FlightInfo, seal: &HandleSeal) -> Outcome<String> {
    let foreign = || Failure::not_found("the FlightInfo is not of a query of this server");
    let ticket = info.endpoint.iter().find_map(|endpoint| endpoint.ticket.as_ref()).ok_or_else(foreign)?;
    let any = Any::decode(ticket.ticket.as_ref()).map_err(|_| foreign())?;
    let ticket: Option<TicketStatementQuery> = any.unpack().map_err(|_| foreign())?;
    handle::query_id(&ticket.ok_or_else(foreign)?.statement_handle, seal)
}
