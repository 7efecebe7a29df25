//! What the RPCs share.

use std::sync::Arc;
use std::time::Instant;

use super::FlightSettings;
use super::auth::Incoming;
use super::context::CallContext;
use super::entity_schemas::EntitySchemas;
use super::failure::Outcome;
use super::session::SessionStore;
use crate::access::Logins;
use crate::query::QueryPipeline;

/// Implements every RPC of Flight for Flight SQL clients.
pub struct FlightSqlServer {
    pub(super) pipeline: Arc<dyn QueryPipeline>,
    /// `None`: everybody may come in.
    pub(super) logins: Option<Arc<Logins>>,
    pub(super) settings: FlightSettings,
    pub(super) sessions: SessionStore,
    pub(super) entity_schemas: EntitySchemas,
}

impl std::fmt::Debug for FlightSqlServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlightSqlServer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl FlightSqlServer {
    pub(super) fn new(pipeline: Arc<dyn QueryPipeline>, logins: Option<Arc<Logins>>, settings: FlightSettings) -> Self {
        Self {
            pipeline,
            logins,
            sessions: SessionStore::new(settings.max_sessions, settings.session_idle),
            settings,
            entity_schemas: EntitySchemas::default(),
        }
    }

    pub(super) async fn context(&self, incoming: Incoming) -> Outcome<CallContext> {
        CallContext::read(self.logins.as_deref(), &incoming, &self.sessions, Instant::now()).await
    }
}
