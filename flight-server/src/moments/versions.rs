//! Which rows of an entity are dirty, with the stamp of each.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use translator::lake::IdSet;

use crate::postgres::{Stamp, Stamped};

/// The dirty set of an entity at a moment.
#[derive(Debug, Default)]
pub(super) struct DirtyVersions {
    stamps: HashMap<u128, Stamp>,
    /// Of these, live ones without an `entity_main` row.
    bare: Arc<IdSet>,
    ids: Arc<IdSet>,
}

/// What makes a later dirty set of an earlier one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Rows that were written, by id.
    pub(super) written: Vec<(u128, Stamp)>,
    /// Rows that aren't dirty any more, by id.
    pub(super) gone: Vec<u128>,
}

impl Difference {
    pub(super) fn is_empty(&self) -> bool {
        self.written.is_empty() && self.gone.is_empty()
    }

    fn sorted(mut self) -> Self {
        self.written.sort_unstable_by_key(|(id, _)| *id);
        self.gone.sort_unstable();
        self
    }
}

impl DirtyVersions {
    pub(super) fn len(&self) -> usize {
        self.stamps.len()
    }

    pub(super) fn bare(&self) -> &Arc<IdSet> {
        &self.bare
    }

    pub(super) fn ids(&self) -> &Arc<IdSet> {
        &self.ids
    }

    #[cfg(test)]
    fn stamp(&self, id: u128) -> Option<Stamp> {
        self.stamps.get(&id).copied()
    }

    /// The difference to a whole dirty set.
    pub(super) fn difference_to(&self, all: &[Stamped]) -> Difference {
        let mut difference = self.difference_of(all);
        if all.len() < self.stamps.len() + difference.written.len() {
            let dirty: HashSet<u128> = all.iter().filter(|(_, stamp)| stamp.is_some()).map(|(id, _)| *id).collect();
            difference.gone = self.stamps.keys().copied().filter(|id| !dirty.contains(id)).collect();
        }
        difference.sorted()
    }

    /// The difference that these rows make; all others are as they were.
    pub(super) fn difference_of(&self, touched: &[Stamped]) -> Difference {
        let mut difference = Difference::default();
        for (id, stamp) in touched {
            match stamp {
                Some(stamp) if self.stamps.get(id) != Some(stamp) => difference.written.push((*id, *stamp)),
                None if self.stamps.contains_key(id) => difference.gone.push(*id),
                Some(_) | None => {}
            }
        }
        difference.sorted()
    }

    /// Ids whose version in memory ends with this difference.
    pub(super) fn closed_by(&self, difference: &Difference) -> Vec<u128> {
        let rewritten = difference.written.iter().map(|(id, _)| *id).filter(|id| self.stamps.contains_key(id));
        rewritten.chain(difference.gone.iter().copied()).collect()
    }

    /// Goes on to the later set. `whole` are the written rows that PostgreSQL has whole.
    pub(super) fn apply(&mut self, difference: &Difference, whole: &HashSet<u128>) {
        // Sorted, as the difference is.
        let (mut new, mut bare, mut not_bare) = (Vec::new(), Vec::new(), difference.gone.clone());
        for (id, stamp) in &difference.written {
            if self.stamps.insert(*id, *stamp).is_none() {
                new.push(*id);
            }
            if whole.contains(id) {
                not_bare.push(*id);
            } else {
                bare.push(*id);
            }
        }
        for id in &difference.gone {
            self.stamps.remove(id);
        }
        if !bare.is_empty() || !self.bare.is_empty() {
            not_bare.sort_unstable();
            self.bare = Arc::new(self.bare.changed(&bare, &not_bare));
        }
        if !new.is_empty() || !difference.gone.is_empty() {
            self.ids = Arc::new(self.ids.changed(&new, &difference.gone));
        }
    }
}

#[cfg(test)]
mod tests;
