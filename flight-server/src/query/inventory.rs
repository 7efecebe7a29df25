//! What the tiers hold at this moment, for `system.files` and `system.tiers`.

use translator::catalog::Entity;
use translator::lake::LakeFile;

use super::error::QueryError;
use super::sources::{Sources, lake_error, postgres_error};
use crate::config::LakeCatalog;

/// The dirty set of one entity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HotTier {
    pub(super) rows: u64,
    /// Unix milliseconds; `None` of an empty set.
    pub(super) oldest: Option<i64>,
    pub(super) newest: Option<i64>,
}

impl Sources {
    /// The files in force of an entity, by the listing or the manifest.
    pub(super) async fn files_of(&self, entity: &Entity) -> Result<Vec<LakeFile>, QueryError> {
        match self.lake_catalog {
            LakeCatalog::Listing => {
                let listing = self.lake.list(entity).await.map_err(lake_error)?;
                self.lake.files(&listing).await.map_err(lake_error)
            }
            LakeCatalog::Manifest => {
                let mut snapshot = self.postgres.begin().await.map_err(postgres_error)?;
                let files = snapshot.manifest(entity.schema_id).await.map_err(postgres_error)?;
                snapshot.finish().await.map_err(postgres_error)?;
                Ok(files)
            }
        }
    }

    /// Size and age of an entity's dirty set.
    pub(super) async fn hot_tier(&self, entity: &Entity) -> Result<HotTier, QueryError> {
        let mut snapshot = self.postgres.begin().await.map_err(postgres_error)?;
        let of = |what: &str| {
            format!(
                "SELECT {what} FROM {} WHERE schema_id = {} AND flushed_at = 0",
                self.postgres.tables().change_log,
                entity.schema_id
            )
        };
        let rows = snapshot.count(&of("count(*)")).await.map_err(postgres_error)?;
        let mut tier = HotTier { rows, ..HotTier::default() };
        if rows > 0 {
            let oldest = snapshot.count(&of("greatest(min(changed_at), 0)")).await.map_err(postgres_error)?;
            let newest = snapshot.count(&of("greatest(max(changed_at), 0)")).await.map_err(postgres_error)?;
            (tier.oldest, tier.newest) = (i64::try_from(oldest).ok(), i64::try_from(newest).ok());
        }
        snapshot.finish().await.map_err(postgres_error)?;
        Ok(tier)
    }
}
