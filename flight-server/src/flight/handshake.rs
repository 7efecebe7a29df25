//! Handshake: a login, which every caller passes where there are no users.
//!
//! Clients log in in one of two ways. Current ones send `authorization: Basic …` with the call and read
//! `authorization: Bearer …` from the headers of the response, before they have sent any message. Old ones send a
//! `BasicAuth` message and read the token from the response's payload. Both find the token where they look.

use std::time::Duration;

use arrow_flight::{BasicAuth, HandshakeRequest, HandshakeResponse};
use futures::stream::{self, BoxStream, StreamExt};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::auth::{self, AUTHORIZATION, Incoming};
use super::context::limit_headers;
use super::failure::{Failure, Outcome};
use super::server::FlightSqlServer;
use crate::access::{Credentials, Logins, MOST_CREDENTIALS};

pub(super) type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;

/// The token that a handshake gives where there are no users.
const ANONYMOUS_TOKEN: &str = "anonymous";
/// How long a client may take to send the message that logs it in.
const PATIENCE: Duration = Duration::from_secs(10);
/// A stream that the server ends first is an error to some clients: it waits so long for them to end theirs.
const FAREWELL: Duration = Duration::from_secs(1);

pub(super) async fn handshake(
    server: &FlightSqlServer,
    request: Request<Streaming<HandshakeRequest>>,
) -> Outcome<Response<HandshakeStream>> {
    limit_headers(request.metadata())?;
    let incoming = Incoming::of(&request);
    let mut messages = request.into_inner();
    // Go's client waits for the answer before it closes its side: never wait for a message when a header logs in.
    let by_header = auth::presents(&incoming.metadata);
    let mut protocol_version = 0;
    let token = match server.logins.as_deref() {
        None => {
            if !by_header {
                let first = messages.message().await.map_err(unreadable)?;
                protocol_version = first.map_or(0, |message| message.protocol_version);
            }
            ANONYMOUS_TOKEN.to_owned()
        }
        Some(logins) => {
            let authenticated = if by_header {
                auth::authenticate(Some(logins), &incoming).await?
            } else {
                let first = tokio::time::timeout(PATIENCE, messages.message()).await.map_err(|_| auth::refused())?;
                let first = first.map_err(unreadable)?.unwrap_or_default();
                protocol_version = first.protocol_version;
                auth::log_in(logins, of_message(&first)?, &incoming.peer).await?
            };
            token_of(logins, authenticated)?
        }
    };
    let message = HandshakeResponse { protocol_version, payload: token.clone().into() };
    let farewell = stream::once(async move {
        let rest = async { while let Ok(Some(_)) = messages.message().await {} };
        // Whether the client has ended its side or takes too long is all the same.
        let _ended = tokio::time::timeout(FAREWELL, rest).await;
    });
    let answers = stream::iter([Ok(message)]).chain(farewell.filter_map(|()| async { None }));
    let mut response = Response::new(answers.boxed());
    response.metadata_mut().insert(AUTHORIZATION, auth::bearer(&token)?);
    Ok(response)
}

fn token_of(logins: &Logins, authenticated: auth::Authenticated) -> Outcome<String> {
    let session = authenticated.session.ok_or_else(auth::refused)?;
    logins.token(&session).map_err(Failure::internal)
}

/// Without a payload nothing is presented.
fn of_message(message: &HandshakeRequest) -> Outcome<Credentials> {
    if message.payload.is_empty() {
        return Ok(Credentials::Nothing);
    }
    if message.payload.len() > MOST_CREDENTIALS {
        return Err(auth::refused());
    }
    let BasicAuth { username, password } = BasicAuth::decode(message.payload.as_ref()).map_err(|_| auth::refused())?;
    Ok(Credentials::Password { user: username, password })
}

fn unreadable(_: Status) -> Failure {
    Failure::invalid("the handshake message cannot be read")
}
