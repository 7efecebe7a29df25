//! Listings of the lake, and the last one of each entity: the set that a listing must equal to be of a snapshot's moment
//! (invariant 1).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::try_join_all;
use translator::catalog::Entity;

use super::ListError;
use crate::breaker::Breaker;
use crate::lake::{Lake, LakeError, LakeErrorKind, Listing};

/// The files of several entities, by `schema_id`.
pub(crate) type EntityListings = BTreeMap<i16, Listing>;

/// Lists, and remembers.
#[derive(Debug)]
pub(crate) struct Listings {
    lake: Lake,
    breaker: Arc<Breaker>,
    /// The last listing of each entity's files in force, by `schema_id`.
    known: Mutex<HashMap<i16, Listing>>,
}

impl Listings {
    pub(crate) fn new(lake: Lake, breaker: Arc<Breaker>) -> Self {
        Self { lake, breaker, known: Mutex::default() }
    }

    /// Lists every one of these entities.
    #[tracing::instrument(name = "list", skip_all, fields(entities = entities.len(), files))]
    pub(crate) async fn list(&self, entities: &[Arc<Entity>]) -> Result<EntityListings, ListError> {
        let attempt = self.breaker.attempt().map_err(ListError::Refused)?;
        let lists = entities
            .iter()
            .map(|entity| async { Ok::<_, LakeError>((entity.schema_id, self.lake.list_in_force(entity).await?)) });
        match try_join_all(lists).await {
            Ok(listings) => {
                attempt.succeeded();
                let listings: EntityListings = listings.into_iter().collect();
                let files: usize = listings.values().map(|listing| listing.files.len()).sum();
                tracing::Span::current().record("files", files);
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.extend(listings.iter().map(|(schema_id, listing)| (*schema_id, listing.clone())));
                Ok(listings)
            }
            Err(error) => {
                // A wrong setting or a damaged file is no outage.
                if *error.kind() == LakeErrorKind::Unavailable {
                    attempt.failed();
                }
                Err(ListError::Lake(error))
            }
        }
    }

    /// The listings that are known of all these entities: made before this call.
    pub(crate) fn known(&self, entities: &[Arc<Entity>]) -> Option<EntityListings> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        entities.iter().map(|entity| Some((entity.schema_id, known.get(&entity.schema_id)?.clone()))).collect()
    }

    /// Forgets what is known: a file has vanished.
    pub(crate) fn forget(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
