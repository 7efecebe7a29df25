//! SetSessionOptions, GetSessionOptions and CloseSession. Session options are the query options by name, and `catalog` and
//! `schema`, which can only be what they are.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use prost::Message;
use translator::catalog::{CATALOG_NAME, SCHEMA_NAME};
use translator::options::{OPTION_NAMES, QueryOptions};

use super::{ActionAnswer, SessionCookie};
use crate::flight::context::CallContext;
use crate::flight::failure::Outcome;
use crate::flight::server::FlightSqlServer;
use crate::flight::session::messages::{
    CloseSessionResult, CloseSessionStatus, GetSessionOptionsResult, SessionOptionValue, SetSessionOptionError,
    SetSessionOptionErrorValue, SetSessionOptionsRequest, SetSessionOptionsResult,
};

/// Sets what can be set; the answer names what cannot. Opens a session for a client that has none.
pub(super) fn set(
    server: &FlightSqlServer,
    call: &CallContext,
    request: &SetSessionOptionsRequest,
) -> Outcome<ActionAnswer> {
    let mut changes = Vec::new();
    let mut errors = HashMap::new();
    for (name, value) in &request.session_options {
        match change(name, value) {
            Ok(change) => changes.push(change),
            Err(error) => {
                errors.insert(name.clone(), SetSessionOptionError { value: error.into() });
            }
        }
    }
    let now = Instant::now();
    let (session, cookie) = match &call.session {
        Some(id) => (id.clone(), SessionCookie::Unchanged),
        None => {
            let id = server.sessions.open(&call.caller.name, now)?;
            (id.clone(), SessionCookie::Set(id))
        }
    };
    server.sessions.with(&session, now, |options| {
        for (name, value) in changes {
            match value {
                Some(value) => options.insert(name, value),
                None => options.remove(name),
            };
        }
    })?;
    let result = SetSessionOptionsResult { errors };
    Ok(ActionAnswer { results: vec![result.encode_to_vec().into()], cookie })
}

/// Every option with the value in force, set in this session or not.
pub(super) fn get(server: &FlightSqlServer, call: &CallContext) -> Outcome<Bytes> {
    let options = call.options(server.pipeline.default_options())?;
    let mut session_options: HashMap<String, SessionOptionValue> =
        options.entries().into_iter().map(|(name, value)| (name.to_owned(), SessionOptionValue::text(value))).collect();
    session_options.insert("catalog".to_owned(), SessionOptionValue::text(CATALOG_NAME));
    session_options.insert("schema".to_owned(), SessionOptionValue::text(SCHEMA_NAME));
    Ok(GetSessionOptionsResult { session_options }.encode_to_vec().into())
}

/// Closing without a session is no mistake: drivers close whatever they had.
pub(super) fn close(server: &FlightSqlServer, call: &CallContext) -> ActionAnswer {
    let cookie = match &call.session {
        Some(id) => {
            server.sessions.close(id);
            SessionCookie::Forget
        }
        None => SessionCookie::Unchanged,
    };
    let result = CloseSessionResult { status: CloseSessionStatus::Closed.into() };
    ActionAnswer { results: vec![result.encode_to_vec().into()], cookie }
}

/// A checked change: the option's name and its new value, `None` to unset it.
fn change(
    name: &str,
    value: &SessionOptionValue,
) -> Result<(&'static str, Option<String>), SetSessionOptionErrorValue> {
    let text = value.to_text();
    match name {
        "catalog" => only("catalog", CATALOG_NAME, text),
        "schema" => only("schema", SCHEMA_NAME, text),
        _ => {
            let folded = name.replace('-', "_");
            let name = OPTION_NAMES
                .into_iter()
                .find(|known| *known == folded)
                .ok_or(SetSessionOptionErrorValue::InvalidName)?;
            if let Some(text) = &text {
                QueryOptions::default().set(name, text).map_err(|_| SetSessionOptionErrorValue::InvalidValue)?;
            }
            Ok((name, text))
        }
    }
}

fn only(
    name: &'static str,
    value: &'static str,
    text: Option<String>,
) -> Result<(&'static str, Option<String>), SetSessionOptionErrorValue> {
    match text {
        None => Ok((name, None)),
        Some(text) if text.eq_ignore_ascii_case(value) => Ok((name, Some(value.to_owned()))),
        Some(_) => Err(SetSessionOptionErrorValue::InvalidValue),
    }
}
