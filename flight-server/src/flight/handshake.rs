//! Handshake: a login that every caller passes while the server is anonymous.
//!
//! Clients log in in one of two ways. Current ones send `authorization: Basic …` with the call and read
//! `authorization: Bearer …` from the headers of the response, before they have sent any message. Old ones send a
//! `BasicAuth` message and read the token from the response's payload. Both find the token where they look.

use arrow_flight::{HandshakeRequest, HandshakeResponse};
use futures::stream::{self, BoxStream, StreamExt};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::auth::{ANONYMOUS_TOKEN, authenticate};
use super::context::limit_headers;
use super::failure::{Failure, Outcome};

pub(super) type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;

pub(super) async fn handshake(request: Request<Streaming<HandshakeRequest>>) -> Outcome<Response<HandshakeStream>> {
    limit_headers(request.metadata())?;
    authenticate(request.metadata())?;
    // Go's client waits for the answer before it closes its side: never wait for a message when a header logs in.
    let protocol_version = if request.metadata().contains_key("authorization") {
        0
    } else {
        first_message(request.into_inner()).await?.map_or(0, |message| message.protocol_version)
    };
    let token = ANONYMOUS_TOKEN;
    let message = HandshakeResponse { protocol_version, payload: token.into() };
    let mut response = Response::new(stream::iter([Ok(message)]).boxed());
    let bearer = MetadataValue::try_from(format!("Bearer {token}")).map_err(Failure::internal)?;
    response.metadata_mut().insert("authorization", bearer);
    Ok(response)
}

async fn first_message(mut messages: Streaming<HandshakeRequest>) -> Outcome<Option<HandshakeRequest>> {
    messages.message().await.map_err(|_| Failure::invalid("the handshake message cannot be read"))
}
