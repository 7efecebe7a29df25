//! Sessions: options that a client sets once and that its later calls share, found again by a cookie.
//!
//! ```text
//!   SetSessionOptions (no cookie)  → set-cookie: arrow_flight_session_id=<id>     open
//!   any call with the cookie       → its options count, the idle time starts anew
//!   CloseSession, or idle too long → the cookie is unknown from then on           closed
//! ```
//!
//! The name of the cookie is the one that the session middleware of the Arrow clients expects.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tonic::metadata::{MetadataMap, MetadataValue};
use uuid::Uuid;

use super::failure::{Failure, Outcome};

pub(super) mod messages;

const COOKIE: &str = "arrow_flight_session_id";

/// Options of a session by name, values as the options' text form.
pub(super) type SessionOptions = HashMap<&'static str, String>;

/// Identifies a session of a caller; only the client that was given it knows it, and to other callers it is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SessionId {
    owner: String,
    id: String,
}

/// The sessions of this process: bounded in number, each forgotten after an idle time.
#[derive(Debug)]
pub(super) struct SessionStore {
    max: usize,
    idle: Duration,
    sessions: Mutex<HashMap<SessionId, Session>>,
}

#[derive(Debug)]
struct Session {
    options: SessionOptions,
    used: Instant,
}

impl SessionStore {
    pub(super) fn new(max: usize, idle: Duration) -> Self {
        Self { max, idle, sessions: Mutex::new(HashMap::new()) }
    }

    /// Opens a session of a caller, without options.
    pub(super) fn open(&self, owner: &str, now: Instant) -> Outcome<SessionId> {
        let mut sessions = self.lock();
        if sessions.len() >= self.max {
            sessions.retain(|_, session| session.is_alive(now, self.idle));
        }
        if sessions.len() >= self.max {
            return Err(Failure::limit(format!("max_sessions: {} sessions are open already", self.max)));
        }
        let id = SessionId { owner: owner.to_owned(), id: Uuid::new_v4().to_string() };
        sessions.insert(id.clone(), Session { options: SessionOptions::new(), used: now });
        Ok(id)
    }

    /// The options of a session; counts as a use of it.
    pub(super) fn options(&self, id: &SessionId, now: Instant) -> Outcome<SessionOptions> {
        self.with(id, now, |options| options.clone())
    }

    /// Changes the options of a session; counts as a use of it.
    pub(super) fn with<T>(
        &self,
        id: &SessionId,
        now: Instant,
        change: impl FnOnce(&mut SessionOptions) -> T,
    ) -> Outcome<T> {
        let mut sessions = self.lock();
        match sessions.get_mut(id) {
            Some(session) if session.is_alive(now, self.idle) => {
                session.used = now;
                Ok(change(&mut session.options))
            }
            Some(_) => {
                sessions.remove(id);
                Err(Failure::unknown_session())
            }
            None => Err(Failure::unknown_session()),
        }
    }

    /// Forgets a session; whether there was one is all the same.
    pub(super) fn close(&self, id: &SessionId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Session>> {
        // A panic elsewhere cannot leave the map half changed: every change is one insert, remove or retain.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn is_alive(&self, now: Instant, idle: Duration) -> bool {
        now.saturating_duration_since(self.used) < idle
    }
}

/// The session of a caller that the call's cookies name.
pub(super) fn of_call(metadata: &MetadataMap, owner: &str) -> Option<SessionId> {
    metadata
        .get_all("cookie")
        .iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| SessionId { owner: owner.to_owned(), id: value.trim_matches('"').to_owned() })
        .filter(|id| !id.id.is_empty())
}

/// Tells the client to send the session's cookie from now on.
pub(super) fn set_cookie(metadata: &mut MetadataMap, id: &SessionId) {
    // An id is the text of a UUID that this module made, which a header always holds.
    if let Ok(value) = MetadataValue::try_from(format!("{COOKIE}={}", id.id)) {
        metadata.insert("set-cookie", value);
    }
}

/// Tells the client to forget its cookie.
pub(super) fn forget_cookie(metadata: &mut MetadataMap) {
    if let Ok(value) = MetadataValue::try_from(format!("{COOKIE}=; Max-Age=0")) {
        metadata.insert("set-cookie", value);
    }
}

#[cfg(test)]
mod tests;
