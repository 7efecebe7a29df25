//! Facts of footers, kept by the identity of the immutable file they were read from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;
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
    /// Empty while they are read for the first time, and after a failure.
    facts: Arc<OnceCell<Arc<LakeFile>>>,
    used_at: u64,
}

impl FooterCache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, state: Mutex::default() }
    }

    /// What is remembered, or else what `read` gives. Of those that ask at once for the same file one reads and the
    /// others wait for it; when it fails or is dropped, the next one reads.
    ///
    /// # Errors
    /// Those of `read`.
    pub(super) async fn get_or_read<E>(
        &self,
        identity: FileIdentity,
        read: impl Future<Output = Result<LakeFile, E>>,
    ) -> Result<Arc<LakeFile>, E> {
        let facts = self.entry(identity);
        let mut missed = false;
        let found = facts.get_or_try_init(|| {
            missed = true;
            self.state().lookups.misses += 1;
            async { read.await.map(Arc::new) }
        });
        let found = found.await?;
        if !missed {
            self.state().lookups.hits += 1;
        }
        Ok(Arc::clone(found))
    }

    pub(super) fn lookups(&self) -> FooterLookups {
        self.state().lookups
    }

    /// Number of files whose facts are remembered.
    pub(super) fn len(&self) -> usize {
        self.state().entries.values().filter(|entry| entry.facts.initialized()).count()
    }

    fn entry(&self, identity: FileIdentity) -> Arc<OnceCell<Arc<LakeFile>>> {
        let mut state = self.state();
        state.clock += 1;
        let used_at = state.clock;
        let entry = state.entries.entry(identity).or_insert_with(|| Entry { facts: Arc::default(), used_at });
        entry.used_at = used_at;
        let facts = Arc::clone(&entry.facts);
        if state.entries.len() > self.capacity {
            // A quarter at a time, so that a full cache isn't searched for each new entry.
            let mut ages: Vec<u64> = state.entries.values().map(|entry| entry.used_at).collect();
            let place = ages.len() / 4;
            let (_, oldest_kept, _) = ages.select_nth_unstable(place);
            let oldest_kept = *oldest_kept;
            state.entries.retain(|_, entry| entry.used_at >= oldest_kept);
        }
        facts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use tokio::sync::Notify;
    use translator::options::Tier;

    use super::*;

    fn identity(path: &str) -> FileIdentity {
        FileIdentity { path: path.to_owned(), bytes: 1, etag: None, modified_at: 0 }
    }

    fn facts(path: &str) -> LakeFile {
        LakeFile {
            path: path.to_owned(),
            tier: Tier::Cold,
            bytes: 1,
            etag: None,
            row_count: 1,
            row_id_range: None,
            changed_at_range: None,
            unique_rows: false,
            may_hold_tombstones: false,
            row_groups: Arc::default(),
            columns: Vec::new(),
        }
    }

    #[tokio::test]
    async fn of_many_that_ask_at_once_one_reads() {
        let cache = FooterCache::new(10);
        let gate = Notify::new();
        let asked = join_all((0..20).map(|_| {
            cache.get_or_read(identity("a"), async {
                gate.notified().await;
                Ok::<_, ()>(facts("a"))
            })
        }));
        let (found, ()) = tokio::join!(asked, async { gate.notify_one() });
        assert!(found.iter().all(|found| found.as_ref().is_ok_and(|facts| facts.path == "a")));
        assert_eq!(cache.lookups(), FooterLookups { hits: 19, misses: 1 });
        assert_eq!(cache.len(), 1);
    }

    #[tokio::test]
    async fn a_failure_is_not_remembered() {
        let cache = FooterCache::new(10);
        assert_eq!(cache.get_or_read(identity("a"), async { Err("down") }).await.err(), Some("down"));
        assert_eq!(cache.len(), 0);
        assert!(cache.get_or_read(identity("a"), async { Ok::<_, ()>(facts("a")) }).await.is_ok());
        assert_eq!(cache.lookups(), FooterLookups { hits: 0, misses: 2 });
    }

    #[tokio::test]
    async fn the_longest_unasked_are_forgotten() {
        let cache = FooterCache::new(8);
        for name in ["a", "b", "c", "d", "e", "f", "g", "a", "h", "i"] {
            assert!(cache.get_or_read(identity(name), async { Ok::<_, ()>(facts(name)) }).await.is_ok());
        }
        let misses = cache.lookups().misses;
        for name in ["a", "h", "i"] {
            assert!(cache.get_or_read(identity(name), async { Err(()) }).await.is_ok(), "{name}");
        }
        assert!(cache.get_or_read(identity("b"), async { Err(()) }).await.is_err());
        assert_eq!(cache.lookups().misses, misses + 1);
    }
}
