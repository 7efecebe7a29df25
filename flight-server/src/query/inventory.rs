//! What the tiers hold at this moment, for `system.files`, `system.tiers` and the metrics.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use translator::catalog::Entity;
use translator::lake::LakeFile;
use translator::options::Tier;

use super::error::QueryError;
use super::source_errors::{lake_error, postgres_error};
use super::sources::Sources;
use crate::config::LakeCatalog;
use crate::lake::{Superseded, compaction_due};
use crate::telemetry::{ObservedEntity, ObservedTier};

/// The dirty set of one entity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HotTier {
    pub(super) rows: u64,
    /// Unix milliseconds; `None` of an empty set.
    pub(super) oldest: Option<i64>,
    pub(super) newest: Option<i64>,
}

impl HotTier {
    /// Age of the oldest row that no file has yet, in milliseconds.
    pub(super) fn lag_ms(self, now: i64) -> Option<i64> {
        self.oldest.map(|oldest| now.saturating_sub(oldest))
    }
}

impl Sources {
    /// The files in force of an entity, by the listing or the manifest.
    pub(super) async fn files_of(&self, entity: &Entity) -> Result<Vec<LakeFile>, QueryError> {
        let mut files = match self.lake_catalog {
            LakeCatalog::Listing => {
                let listing = self.lake.list_in_force(entity).await.map_err(lake_error)?;
                self.lake.files(&listing).await.map_err(lake_error)?
            }
            LakeCatalog::Manifest => {
                let mut snapshot = self.postgres.begin().await.map_err(postgres_error)?;
                let files = snapshot.manifest(entity.schema_id).await.map_err(postgres_error)?;
                snapshot.finish().await.map_err(postgres_error)?;
                files
            }
        };
        self.unique_files.mark(&mut files);
        Ok(files)
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

    /// How many of an entity's dirty rows can't be read; `None` where finding out would read too many, or fails.
    async fn unreadable_rows(&self, entity: &Entity, hot: HotTier) -> Option<u64> {
        let in_memory = match &self.moments {
            Some(moments) => moments.keep_all_of(entity).await,
            None => false,
        };
        if in_memory || hot.rows == 0 {
            return Some(0);
        }
        if hot.rows > MOST_READ {
            return None;
        }
        match self.postgres.unreadable_rows(entity).await {
            Ok(found) => Some(found.map_or(0, |found| found.count)),
            Err(error) => {
                tracing::debug!(entity = entity.name, %error, "its dirty rows can't be read");
                None
            }
        }
    }
}

/// Dirty rows that a look at the tiers reads at most, to count those that can't be read.
const MOST_READ: u64 = 10_000;

/// A look at the tiers is this long as good as a new one.
const FRESH: Duration = Duration::from_secs(10);

/// The last look at the tiers, for the gauges, which can't wait for sources.
#[derive(Debug, Default)]
pub(super) struct TierMonitor {
    last: Mutex<Option<(Instant, Vec<ObservedEntity>)>>,
    /// One look at a time.
    looking: tokio::sync::Mutex<()>,
}

impl TierMonitor {
    /// What was found last; nothing of an entity whose sources didn't answer.
    pub(super) fn last(&self) -> Vec<ObservedEntity> {
        self.lock().as_ref().map(|(_, found)| found.clone()).unwrap_or_default()
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.lock().as_ref().is_some_and(|(at, _)| at.elapsed() < FRESH)
    }

    /// Looks again unless the last look is fresh.
    pub(super) async fn refresh(&self, sources: &Sources, entities: &[Arc<Entity>]) {
        let _one = self.looking.lock().await;
        if self.is_fresh() {
            return;
        }
        let mut found = Vec::with_capacity(entities.len());
        for entity in entities {
            match look(sources, entity).await {
                Ok(observed) => found.push(observed),
                Err(error) => tracing::debug!(entity = entity.name, %error, "no metrics of its tiers"),
            }
        }
        *self.lock() = Some((Instant::now(), found));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Vec<ObservedEntity>)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look(sources: &Sources, entity: &Entity) -> Result<ObservedEntity, QueryError> {
    let hot = sources.hot_tier(entity).await?;
    let files = sources.files_of(entity).await?;
    let superseded = Superseded::of(&files);
    let of_lake = |tier: Tier| {
        let of_tier = || files.iter().filter(|file| file.tier == tier);
        ObservedTier {
            tier: tier.as_str(),
            rows: of_tier().map(|file| file.row_count).sum(),
            bytes: of_tier().map(|file| file.bytes).sum(),
            files: of_tier().count() as u64,
            superseded_rows: superseded.of_tier(tier),
        }
    };
    let lag = hot.lag_ms(chrono::Utc::now().timestamp_millis()).unwrap_or(0);
    Ok(ObservedEntity {
        entity: entity.name.clone(),
        unreadable_rows: sources.unreadable_rows(entity, hot).await,
        dirty_rows: hot.rows,
        hot_lag_seconds: u64::try_from(lag / 1000).unwrap_or(0),
        lake: [of_lake(Tier::Warm), of_lake(Tier::Cold)],
        is_compaction_due: compaction_due(&files).is_some(),
    })
}
