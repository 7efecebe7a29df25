//! What a call brings besides its message: the caller, its session, query options in headers, and its deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::metadata::{Ascii, KeyAndValueRef, MetadataMap, MetadataValue};
use translator::options::QueryOptions;

use super::auth::{AUTHORIZATION, Authenticated, Incoming, authenticate, bearer};
use super::failure::{Failure, Outcome};
use super::handle_seal::HandleSeal;
use super::session::{self, SessionId, SessionOptions, SessionStore};
use crate::access::{Caller, Logins};

const OPTION_HEADER_PREFIX: &str = "x-thermocline-";
/// Names and values of a call's headers, in bytes. The transport reads more, so that who goes beyond it is told so: what the
/// transport refuses ends the connection.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// The context of one call, valid as a whole: options are checked when it is made.
#[derive(Debug)]
pub(super) struct CallContext {
    pub(super) caller: Arc<Caller>,
    /// How handles of this caller are sealed.
    pub(super) seal: HandleSeal,
    /// The header with a token that goes on where this call's ends.
    renewed: Option<MetadataValue<Ascii>>,
    pub(super) session: Option<SessionId>,
    session_options: SessionOptions,
    /// Options from this call's headers, in the order they came.
    pub(super) call_options: Vec<(String, String)>,
    /// How long the client waits for this call.
    deadline: Option<Duration>,
}

impl CallContext {
    pub(super) async fn read(
        logins: Option<&Logins>,
        incoming: &Incoming,
        sessions: &SessionStore,
        now: Instant,
    ) -> Outcome<Self> {
        let metadata = &incoming.metadata;
        limit_headers(metadata)?;
        let Authenticated { caller, seal, session: login } = authenticate(logins, incoming).await?;
        let renewed = match (logins, &login) {
            (Some(logins), Some(login)) => logins.renewal(login).map_err(Failure::internal)?,
            _ => None,
        };
        let renewed = renewed.as_deref().map(bearer).transpose()?;
        let session = session::of_call(metadata, &caller.name);
        let session_options = match &session {
            Some(id) => sessions.options(id, now)?,
            None => SessionOptions::new(),
        };
        let call_options = call_options(metadata)?;
        Ok(Self { caller, seal, renewed, session, session_options, call_options, deadline: deadline(metadata) })
    }

    /// Tells the client to go on with another token, when its own has lived half its life.
    pub(super) fn renew(&self, metadata: &mut MetadataMap) {
        if let Some(renewed) = &self.renewed {
            metadata.insert(AUTHORIZATION, renewed.clone());
        }
    }

    /// The options in force for this call: header over session over `defaults`.
    pub(super) fn options(&self, defaults: QueryOptions) -> Outcome<QueryOptions> {
        let mut options = defaults;
        // Catalog and schema are session options too, but say nothing of how a query runs.
        for (name, value) in self.session_options.iter().filter(|(name, _)| is_query_option(name)) {
            set(&mut options, name, value)?;
        }
        self.override_with_headers(&mut options)?;
        Ok(options)
    }

    /// Applies this call's headers to options that were settled by an earlier call.
    pub(super) fn override_with_headers(&self, options: &mut QueryOptions) -> Outcome<()> {
        for (name, value) in &self.call_options {
            set(options, name, value)?;
        }
        Ok(())
    }

    /// Shortens the timeout to this call's deadline.
    pub(super) fn limit_to_deadline(&self, options: &mut QueryOptions) {
        if let Some(deadline) = self.deadline {
            options.timeout = Some(options.timeout.map_or(deadline, |timeout| timeout.min(deadline)));
        }
    }
}

/// Refuses headers that take more than a call may bring.
pub(super) fn limit_headers(metadata: &MetadataMap) -> Outcome<()> {
    let size = |entry| match entry {
        KeyAndValueRef::Ascii(key, value) => key.as_str().len() + value.as_encoded_bytes().len(),
        KeyAndValueRef::Binary(key, value) => key.as_str().len() + value.as_encoded_bytes().len(),
    };
    let bytes: usize = metadata.iter().map(size).sum();
    if bytes <= MAX_HEADER_BYTES {
        return Ok(());
    }
    Err(Failure::limit(format!(
        "the call's headers take {bytes} bytes, the limit max_header_bytes is {MAX_HEADER_BYTES}"
    )))
}

/// Sets one option from text.
pub(super) fn set(options: &mut QueryOptions, name: &str, value: &str) -> Outcome<()> {
    options.set(name, value).map_err(|fault| Failure::invalid(fault.to_string()))
}

fn is_query_option(name: &str) -> bool {
    translator::options::OPTION_NAMES.contains(&name)
}

fn call_options(metadata: &MetadataMap) -> Outcome<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut checked = QueryOptions::default();
    for entry in metadata.iter() {
        let KeyAndValueRef::Ascii(key, value) = entry else { continue };
        let Some(name) = key.as_str().strip_prefix(OPTION_HEADER_PREFIX) else { continue };
        let name = name.replace('-', "_");
        let value = value
            .to_str()
            .map_err(|_| Failure::invalid(format!("the header `{key}` must hold printable ASCII text")))?;
        set(&mut checked, &name, value)?;
        found.push((name, value.to_owned()));
    }
    Ok(found)
}

/// Reads `grpc-timeout`: up to eight digits and a unit. A malformed one is ignored, as gRPC servers do.
fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let unit = text.len().checked_sub(1).filter(|end| text.is_char_boundary(*end))?;
    let (digits, unit) = text.split_at(unit);
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
