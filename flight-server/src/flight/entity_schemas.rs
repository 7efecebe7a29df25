//! The Arrow schemas of the tables, as queries return them: the pipeline is asked, so that metadata and results can never
//! disagree about a type.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tokio::sync::Mutex;
use translator::catalog::{Catalog, Entity};

use super::failure::Outcome;
use super::table_path::select_table;
use super::wire_schema;
use crate::access::Caller;
use crate::query::QueryPipeline;

/// A table with its schema.
#[derive(Debug, Clone)]
pub(super) struct EntitySchema {
    pub(super) entity: Arc<Entity>,
    /// What `SELECT *` of it returns.
    pub(super) schema: SchemaRef,
}

/// Catalogs whose schemas are kept: callers see different ones.
const MOST_CACHED: usize = 16;

/// Schemas of the catalogs that were asked for last.
#[derive(Debug, Default)]
pub(super) struct EntitySchemas {
    cached: Mutex<VecDeque<Cached>>,
}

#[derive(Debug)]
struct Cached {
    of: Arc<Catalog>,
    schemas: Arc<[EntitySchema]>,
}

impl EntitySchemas {
    /// All tables, in the order of the catalog.
    pub(super) async fn all(&self, pipeline: &dyn QueryPipeline, caller: &Arc<Caller>) -> Outcome<Arc<[EntitySchema]>> {
        let catalog = pipeline.catalog(caller);
        // The lock is held while the schemas are made: callers that come together ask once.
        let mut cached = self.cached.lock().await;
        // A reload makes a new catalog; holding the old one keeps its address from being used again.
        if let Some(cached) = cached.iter().find(|cached| Arc::ptr_eq(&cached.of, &catalog)) {
            return Ok(Arc::clone(&cached.schemas));
        }
        let mut schemas = Vec::with_capacity(catalog.entities().len());
        for entity in catalog.entities() {
            let prepared = pipeline.prepare(caller, &select_table(&entity.name)).await?;
            schemas.push(EntitySchema { entity: Arc::clone(entity), schema: wire_schema::plain(&prepared.schema) });
        }
        let schemas: Arc<[EntitySchema]> = schemas.into();
        cached.truncate(MOST_CACHED - 1);
        cached.push_front(Cached { of: catalog, schemas: Arc::clone(&schemas) });
        Ok(schemas)
    }
}
