//! Who calls: credentials from a call's headers and its connection, and the caller that they are of.

use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use tonic::Request;
use tonic::metadata::{MetadataMap, MetadataValue};

use super::failure::{Failure, Outcome};
use super::handle_seal::HandleSeal;
use crate::access::{Caller, Credentials, LoginFailure, Logins, MOST_CREDENTIALS, Peer, Session, names_of};
use crate::query::{ErrorKind, QueryError};
use crate::transport;

/// Clients log in with `authorization: Basic …` (RFC 7617) and go on with `authorization: Bearer …` (RFC 6750).
pub(super) const AUTHORIZATION: &str = "authorization";
/// Where old clients of Flight put the token that a handshake's payload gave them.
const TOKEN_BINARY: &str = "auth-token-bin";

/// Go's clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a call brings besides its message.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) metadata: MetadataMap,
    pub(super) peer: Peer,
}

/// The caller of an RPC.
#[derive(Debug)]
pub(super) struct Authenticated {
    pub(super) caller: Arc<Caller>,
    pub(super) seal: HandleSeal,
    /// `None`: the server has no logins.
    pub(super) session: Option<Session>,
}

impl Incoming {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        let peer = request.extensions().get::<transport::Peer>();
        let peer = peer.map(|peer| Peer {
            address: Some(peer.address.ip()),
            certificate: peer.certificate.as_ref().map(|der| names_of(der)).unwrap_or_default(),
        });
        Self { metadata: request.metadata().clone(), peer: peer.unwrap_or_default() }
    }
}

/// Finds out who calls, before anything of the call's message is looked at. Without logins everybody may come in, whatever
/// they present.
pub(super) async fn authenticate(logins: Option<&Logins>, incoming: &Incoming) -> Outcome<Authenticated> {
    let Some(logins) = logins else {
        return Ok(Authenticated { caller: Caller::unrestricted(), seal: HandleSeal::Checksum, session: None });
    };
    let credentials = credentials(&incoming.metadata).ok_or_else(refused)?;
    log_in(logins, credentials, &incoming.peer).await
}

pub(super) async fn log_in(logins: &Logins, credentials: Credentials, peer: &Peer) -> Outcome<Authenticated> {
    let session = logins.log_in(credentials, peer).await.map_err(|failure| match failure {
        LoginFailure::Refused => refused(),
        LoginFailure::Crowded => Failure::limit("logins: too many passwords are being checked; try again in a moment"),
    })?;
    let caller = Arc::clone(&session.caller);
    let seal = HandleSeal::Keyed { keys: logins.keys(), owner: caller.name.clone() };
    Ok(Authenticated { caller, seal, session: Some(session) })
}

/// One text for all that is wrong with credentials.
pub(super) fn refused() -> Failure {
    QueryError::new(
        ErrorKind::Unauthenticated,
        "not logged in: the credentials are missing, wrong, expired or revoked; present a user and password, a service key or a \
         token",
    )
    .into()
}

/// The header that hands a token to a client.
pub(super) fn bearer(token: &str) -> Outcome<MetadataValue<tonic::metadata::Ascii>> {
    MetadataValue::try_from(format!("Bearer {token}")).map_err(Failure::internal)
}

/// Whether a call presents anything in its headers.
pub(super) fn presents(metadata: &MetadataMap) -> bool {
    metadata.contains_key(AUTHORIZATION) || metadata.contains_key(TOKEN_BINARY)
}

/// What the headers present; `None` when it is contradictory or can't be read.
fn credentials(metadata: &MetadataMap) -> Option<Credentials> {
    let mut found: Option<Credentials> = None;
    let mut add = |credentials: Credentials| match &found {
        Some(known) if *known != credentials => None,
        _ => {
            found = Some(credentials);
            Some(())
        }
    };
    for value in metadata.get_all(AUTHORIZATION) {
        add(of_header(value.to_str().ok()?)?)?;
    }
    for value in metadata.get_all_bin(TOKEN_BINARY) {
        let token = String::from_utf8(value.to_bytes().ok()?.to_vec()).ok()?;
        add(of_token(&token)?)?;
    }
    Some(found.unwrap_or(Credentials::Nothing))
}

fn of_header(value: &str) -> Option<Credentials> {
    if value.len() > MOST_CREDENTIALS {
        return None;
    }
    let (scheme, rest) = value.trim().split_once([' ', '\t'])?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return of_token(rest);
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64.decode(rest.trim()).ok()?).ok()?;
    // A password may hold colons, a name may not.
    let (user, password) = decoded.split_once(':')?;
    Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
}

fn of_token(token: &str) -> Option<Credentials> {
    let token = token.trim();
    (!token.is_empty() && token.len() <= MOST_CREDENTIALS).then(|| Credentials::Bearer(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[&str]) -> Option<Credentials> {
        let mut metadata = MetadataMap::new();
        for header in headers {
            metadata.append(AUTHORIZATION, header.parse().unwrap());
        }
        credentials(&metadata)
    }

    fn password(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
    }

    #[test]
    fn basic_credentials_are_read_with_and_without_padding() {
        for text in ["Basic YW5uOmE6Yg==", "Basic YW5uOmE6Yg", "bAsIc \t YW5uOmE6Yg== "] {
            assert_eq!(of(&[text]), password("ann", "a:b"), "{text}");
        }
        assert_eq!(of(&["Basic Og=="]), password("", ""));
        for wrong in ["Basic", "Basic ", "Basic YW5u", "Basic _-_-", "Basic /w==", "Digest x", "YW5uOmE6Yg=="] {
            assert_eq!(of(&[wrong]), None, "{wrong}");
        }
        assert_eq!(of(&[&format!("Basic {}", "A".repeat(MOST_CREDENTIALS))]), None);
    }

    #[test]
    fn bearers_are_one_and_not_empty() {
        let bearer = |token: &str| Some(Credentials::Bearer(token.to_owned()));
        for text in ["Bearer t", "bearer t", "BEARER  t", "Bearer\tt"] {
            assert_eq!(of(&[text]), bearer("t"), "{text}");
        }
        assert_eq!(of(&["Bearer t", "bearer t"]), bearer("t"));
        assert_eq!(of(&["Bearer t", "Bearer u"]), None);
        assert_eq!(of(&["Bearer "]), None);
        assert_eq!(of(&[]), Some(Credentials::Nothing));
        let mut metadata = MetadataMap::new();
        metadata.insert_bin(TOKEN_BINARY, MetadataValue::from_bytes(b"t"));
        assert_eq!(credentials(&metadata), bearer("t"));
        metadata.insert(AUTHORIZATION, "Bearer u".parse().unwrap());
        assert_eq!(credentials(&metadata), None, "two callers in one call");
    }
}
