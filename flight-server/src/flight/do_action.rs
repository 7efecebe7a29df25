//! DoAction and ListActions.

mod cancel;
mod prepared_statement;
mod session_options;

use arrow_flight::{Action, ActionType};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tonic::{Response, Status};

use super::command::FlightSqlAction;
use super::context::CallContext;
use super::failure::{Failure, Outcome};
use super::server::FlightSqlServer;
use super::session;

pub(super) type ActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;

/// What an action did.
#[derive(Debug)]
struct ActionAnswer {
    /// The results, most often one.
    results: Vec<Bytes>,
    cookie: SessionCookie,
}

#[derive(Debug, PartialEq, Eq)]
enum SessionCookie {
    Unchanged,
    Set(session::SessionId),
    Forget,
}

pub(super) async fn do_action(
    server: &FlightSqlServer,
    call: &CallContext,
    action: &Action,
) -> Outcome<Response<ActionStream>> {
    let answer = match FlightSqlAction::parse(action)? {
        FlightSqlAction::CreatePreparedStatement { sql } => prepared_statement::create(server, call, sql).await?.into(),
        FlightSqlAction::ClosePreparedStatement => ActionAnswer { results: vec![], cookie: SessionCookie::Unchanged },
        FlightSqlAction::CancelFlightInfo(request) => cancel::cancel_flight_info(server, call, &request)?.into(),
        FlightSqlAction::CancelQuery(request) => cancel::cancel_query(server, call, &request)?.into(),
        FlightSqlAction::RenewFlightEndpoint(request) => cancel::renew_endpoint(request)?.into(),
        FlightSqlAction::SetSessionOptions(request) => session_options::set(server, call, &request)?,
        FlightSqlAction::GetSessionOptions => session_options::get(server, call)?.into(),
        FlightSqlAction::CloseSession => session_options::close(server, call),
        FlightSqlAction::Refused(name) => {
            return Err(Failure::unsupported(format!(
                "{name} is not supported: this server is read-only, each query is a transaction of its own, and the \
                 language is SQL"
            )));
        }
    };
    let results = answer.results.into_iter().map(|body| Ok(arrow_flight::Result { body }));
    let mut response = Response::new(stream::iter(results.collect::<Vec<_>>()).boxed());
    match answer.cookie {
        SessionCookie::Unchanged => {}
        SessionCookie::Set(id) => session::set_cookie(response.metadata_mut(), &id),
        SessionCookie::Forget => session::forget_cookie(response.metadata_mut()),
    }
    Ok(response)
}

/// The actions that do something; refused ones are not offered.
pub(super) fn list_actions() -> Vec<ActionType> {
    [
        ("CreatePreparedStatement", "Prepares a SELECT and tells the schemas of its result and parameters."),
        ("ClosePreparedStatement", "Ends the use of a prepared statement; the server keeps nothing for it."),
        ("CancelFlightInfo", "Cancels the query of a FlightInfo."),
        ("CancelQuery", "Cancels the query of a FlightInfo (deprecated: use CancelFlightInfo)."),
        ("RenewFlightEndpoint", "Returns the endpoint as it is: endpoints do not expire."),
        ("SetSessionOptions", "Sets query options for the session that the response's cookie names."),
        ("GetSessionOptions", "Returns the options in force for this session."),
        ("CloseSession", "Forgets the session and its options."),
    ]
    .map(|(name, description)| ActionType { r#type: name.to_owned(), description: description.to_owned() })
    .into()
}

impl From<Bytes> for ActionAnswer {
    fn from(result: Bytes) -> Self {
        Self { results: vec![result], cookie: SessionCookie::Unchanged }
    }
}
