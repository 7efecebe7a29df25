//! What the RPCs share.

use std::sync::Arc;
use std::time::Instant;

use tonic::metadata::MetadataMap;

use super::FlightSettings;
use super::context::CallContext;
use super::entity_schemas::EntitySchemas;
use super::failure::Outcome;
use super::session::SessionStore;
use crate::query::QueryPipeline;

/// Implements every RPC of Flight for Flight SQL clients.
pub struct FlightSqlServer {
    pub(super) pipeline: Arc<dyn QueryPipeline>,
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
    pub(super) fn new(pipeline: Arc<dyn QueryPipeline>, settings: FlightSettings) -> Self {
        Self {
            pipeline,
            sessions: SessionStore::new(settings.max_sessions, settings.session_idle),
            settings,
            entity_schemas: EntitySchemas::default(),
        }
    }

    pub(super) fn context(&self, metadata: &MetadataMap) -> Outcome<CallContext> {
        CallContext::read(metadata, &self.sessions, Instant::now())
    }
}
