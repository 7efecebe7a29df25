//! Which entities moments have, and what is done about those that they don't have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use translator::catalog::Entity;

use super::Wanted;

/// An entity that couldn't be loaded is tried again after this time, when it is asked for.
pub(super) const RETRY: Duration = Duration::from_secs(10);
/// As [`RETRY`], of one that is too large.
pub(super) const RETRY_LARGE: Duration = Duration::from_secs(60);
/// An attribute that couldn't be read is tried again after this time.
const RETRY_ATTRIBUTES: Duration = Duration::from_secs(300);

/// Whether moments have what a query wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    /// Not now: the query reads PostgreSQL.
    NotNow,
    /// Never again in this process, and why: the query reads PostgreSQL, and tells.
    Off(String),
}

#[derive(Debug)]
enum State {
    Loading,
    Ready { entity: Arc<Entity>, attributes: BTreeSet<usize>, since: Instant },
    Waiting { until: Instant },
    Off { entity: String, reason: String },
}

/// What is known of each entity, by `schema_id`.
#[derive(Debug, Default)]
pub(super) struct States(Mutex<BTreeMap<i16, State>>);

impl States {
    /// Whether all of this is there; `load` gets each entity that is to be loaded.
    pub(super) fn have(&self, wanted: &[Wanted], mut load: impl FnMut(&Arc<Entity>)) -> Readiness {
        let now = Instant::now();
        let mut states = self.lock();
        let mut readiness = Readiness::Ready;
        for Wanted { entity, attributes, .. } in wanted {
            let (is_there, loads) = match states.get(&entity.schema_id) {
                None => (false, true),
                Some(State::Loading) => (false, false),
                Some(State::Waiting { until }) => (false, *until <= now),
                Some(State::Off { entity, reason }) => {
                    readiness = Readiness::Off(format!("{entity}: {reason}"));
                    (false, false)
                }
                Some(State::Ready { entity: kept, .. }) if *kept != *entity => (false, true),
                Some(State::Ready { attributes: kept, since, .. }) => {
                    let all = attributes.is_subset(kept);
                    (all, !all && now.duration_since(*since) > RETRY_ATTRIBUTES)
                }
            };
            if !is_there && readiness == Readiness::Ready {
                readiness = Readiness::NotNow;
            }
            if loads {
                states.insert(entity.schema_id, State::Loading);
                load(entity);
            }
        }
        readiness
    }

    pub(super) fn loading(&self, entity: &Entity) {
        self.lock().insert(entity.schema_id, State::Loading);
    }

    pub(super) fn ready(&self, entity: &Arc<Entity>, attributes: &[usize]) {
        let attributes = attributes.iter().copied().collect();
        let state = State::Ready { entity: Arc::clone(entity), attributes, since: Instant::now() };
        self.lock().insert(entity.schema_id, state);
    }

    pub(super) fn wait(&self, entity: &Entity, time: Duration) {
        self.lock().insert(entity.schema_id, State::Waiting { until: Instant::now() + time });
    }

    pub(super) fn switch_off(&self, entity: &Entity, reason: &str) {
        let state = State::Off { entity: entity.name.clone(), reason: reason.to_owned() };
        self.lock().insert(entity.schema_id, state);
    }

    pub(super) fn is_off(&self, entity: &Entity) -> bool {
        matches!(self.lock().get(&entity.schema_id), Some(State::Off { .. }))
    }

    /// Entities that are switched off, and why.
    pub(super) fn switched_off(&self) -> Vec<(String, String)> {
        let states = self.lock();
        let off = states.values().filter_map(|state| match state {
            State::Off { entity, reason } => Some((entity.clone(), reason.clone())),
            State::Loading | State::Ready { .. } | State::Waiting { .. } => None,
        });
        off.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i16, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
