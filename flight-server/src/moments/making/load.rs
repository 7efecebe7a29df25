//! Loading an entity's dirty rows for the first time, behind the queries, in a snapshot of its own.

use std::sync::Arc;

use translator::catalog::Entity;
use translator::postgres::{cursor_fingerprint_sql, mirror_size_sql};

use super::Maker;
use crate::moments::error::{MirrorError, MomentError};
use crate::moments::mirror::{EntityMirror, ReadSnapshot};
use crate::moments::readiness::{RETRY, RETRY_LARGE};
use crate::postgres::{PostgresError, PostgresErrorKind, Reader};

/// Why an entity can't be loaded.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Snapshot(#[from] MomentError),
    #[error(transparent)]
    Mirror(#[from] MirrorError),
}

impl LoadError {
    /// The attribute of which PostgreSQL holds a value that can't be read.
    fn unreadable(&self, entity: &Entity) -> Option<usize> {
        match self {
            Self::Mirror(MirrorError::Postgres(error)) => unreadable_attribute(error, entity),
            Self::Mirror(_) | Self::Snapshot(_) => None,
        }
    }
}

/// The attribute that a value can't be read of.
pub(super) fn unreadable_attribute(error: &PostgresError, entity: &Entity) -> Option<usize> {
    let name = error.attribute().filter(|_| error.kind() == PostgresErrorKind::Data)?;
    entity.attributes.iter().position(|attribute| attribute.name == name)
}

impl Maker {
    /// Loads an entity without some of its attributes, and without those that turn out to be unreadable: only queries
    /// that touch them read PostgreSQL then.
    pub(super) fn load_in_background(self: &Arc<Self>, entity: Arc<Entity>, without: Vec<usize>) {
        let maker = Arc::clone(self);
        tokio::spawn(async move {
            let Ok(_one) = maker.loads.acquire().await else { return };
            let mut without = without;
            loop {
                match maker.load(&entity, &without).await {
                    Ok(mirror) => {
                        tracing::debug!(entity = entity.name, rows = mirror.size().0, "dirty rows are in memory");
                        maker.adopt(mirror).await;
                        return;
                    }
                    Err(error) => match error.unreadable(&entity).filter(|attribute| !without.contains(attribute)) {
                        Some(attribute) => {
                            tracing::warn!(entity = entity.name, %error, "the attribute is read by each query that needs it");
                            without.push(attribute);
                        }
                        None => {
                            let is_large = matches!(error, LoadError::Mirror(MirrorError::TooLarge { .. }));
                            tracing::info!(entity = entity.name, %error, "dirty rows aren't kept in memory for now");
                            maker.states.wait(&entity, if is_large { RETRY_LARGE } else { RETRY });
                            return;
                        }
                    },
                }
            }
        });
    }

    async fn load(&self, entity: &Arc<Entity>, without: &[usize]) -> Result<EntityMirror, LoadError> {
        let mut snapshot = self.open().await?;
        let identity = self.ask(snapshot.identity()).await?;
        let size = self.ask(snapshot.count(&mirror_size_sql(&self.means.tables, entity))).await?;
        let left = self.memory_limit.saturating_sub(self.bytes_without(entity));
        if size > left {
            return Err(MirrorError::TooLarge { bytes: size }.into());
        }
        // What doesn't come through without loss is refused by each query that asks for it.
        let (tables, physical) = (self.sources.postgres.tables(), snapshot.physical());
        let is_readable =
            |index: &usize| physical.fault(tables, entity, &entity.attributes[*index], Reader::Statement).is_none();
        let attributes =
            (0..entity.attributes.len()).filter(|index| !without.contains(index)).filter(is_readable).collect();
        let cursor = self.ask(snapshot.text(&cursor_fingerprint_sql(&self.means.tables))).await?;
        let from = ReadSnapshot { snapshot: &mut snapshot, identity: &identity, cursor: cursor.as_deref() };
        let mirror = EntityMirror::load(&self.means, from, entity, attributes).await?;
        self.ask(snapshot.finish()).await?;
        Ok(mirror)
    }
}
