//! Facts of footers, kept by the identity of the immutable file they were read from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use translator::lake::LakeFile;

/// What makes a file the same file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct FileIdentity {
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) etag: Option<String>,
    /// Milliseconds since the Unix epoch: identifies files of stores without etags.
    pub(super) modified_at: i64,
}

/// How often the cache was asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FooterLookups {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
}

/// A bounded cache that forgets what was not asked for the longest.
#[derive(Debug)]
pub(super) struct FooterCache {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    clock: u64,
    lookups: FooterLookups,
    entries: HashMap<FileIdentity, Entry>,
}

#[derive(Debug)]
struct Entry {
    facts: Arc<LakeFile>,
    used_at: u64,
}

impl FooterCache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, state: Mutex::default() }
    }

    pub(super) fn get(&self, identity: &FileIdentity) -> Option<Arc<LakeFile>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clock += 1;
        let now = state.clock;
        let Some(entry) = state.entries.get_mut(identity) else {
            state.lookups.misses += 1;
            return None;
        };
        entry.used_at = now;
        let facts = Arc::clone(&entry.facts);
        state.lookups.hits += 1;
        Some(facts)
    }

    pub(super) fn lookups(&self) -> FooterLookups {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).lookups
    }

    pub(super) fn insert(&self, identity: FileIdentity, facts: Arc<LakeFile>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clock += 1;
        let used_at = state.clock;
        state.entries.insert(identity, Entry { facts, used_at });
        if state.entries.len() > self.capacity {
            // A quarter at a time, so that a full cache isn't searched for each new entry.
            let mut ages: Vec<u64> = state.entries.values().map(|entry| entry.used_at).collect();
            let place = ages.len() / 4;
            let (_, oldest_kept, _) = ages.select_nth_unstable(place);
            let oldest_kept = *oldest_kept;
            state.entries.retain(|_, entry| entry.used_at >= oldest_kept);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).entries.len()
    }
}
