//! Facts of footers, kept by the identity of the immutable file they were read from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;
use translator::lake::LakeFile;

use super::error::LakeError;

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

/// Empty while they are read. A failure stays for those who have waited for it; whoever asks later gets another cell.
type Facts = OnceCell<Result<Arc<LakeFile>, LakeError>>;

#[derive(Debug)]
struct Entry {
    facts: Arc<Facts>,
    used_at: u64,
}

impl FooterCache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, state: Mutex::default() }
    }

    /// What is remembered, or else what `read` gives. Of those that ask at once for the same file one reads, and the others
    /// get what it gets, be it a failure; when it is dropped, the next one reads. A failure isn't remembered.
    ///
    /// # Errors
    /// Those of `read`.
    pub(super) async fn get_or_read(
        &self,
        identity: FileIdentity,
        read: impl Future<Output = Result<LakeFile, LakeError>>,
    ) -> Result<Arc<LakeFile>, LakeError> {
        let facts = self.entry(identity);
        let mut missed = false;
        let found = facts.get_or_init(|| {
            missed = true;
            self.state().lookups.misses += 1;
            async { read.await.map(Arc::new) }
        });
        let found = found.await.clone()?;
        if !missed {
            self.state().lookups.hits += 1;
        }
        Ok(found)
    }

    pub(super) fn lookups(&self) -> FooterLookups {
        self.state().lookups
    }

    /// Number of files whose facts are remembered.
    pub(super) fn len(&self) -> usize {
        self.state().entries.values().filter(|entry| matches!(entry.facts.get(), Some(Ok(_)))).count()
    }

    fn entry(&self, identity: FileIdentity) -> Arc<Facts> {
        let mut state = self.state();
        state.clock += 1;
        let used_at = state.clock;
        let entry = state.entries.entry(identity).or_insert_with(|| Entry { facts: Arc::default(), used_at });
        entry.used_at = used_at;
        if let Some(Err(_)) = entry.facts.get() {
            entry.facts = Arc::default();
        }
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
    use crate::lake::LakeErrorKind;

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

    fn failure() -> LakeError {
        LakeError::new(LakeErrorKind::Unavailable, "down")
    }

    /// Twenty ask at once, and the one that reads gets `read`.
    async fn ask_at_once(
        cache: &FooterCache,
        read: Result<LakeFile, LakeError>,
    ) -> Vec<Result<Arc<LakeFile>, LakeError>> {
        let gate = Notify::new();
        let asked = join_all((0..20).map(|_| {
            cache.get_or_read(identity("a"), async {
                gate.notified().await;
                read.clone()
            })
        }));
        let (found, ()) = tokio::join!(asked, async { gate.notify_one() });
        found
    }

    #[tokio::test]
    async fn of_many_that_ask_at_once_one_reads() {
        let cache = FooterCache::new(10);
        let found = ask_at_once(&cache, Ok(facts("a"))).await;
        assert!(found.iter().all(|found| found.as_ref().is_ok_and(|facts| facts.path == "a")));
        assert_eq!(cache.lookups(), FooterLookups { hits: 19, misses: 1 });
        assert_eq!(cache.len(), 1);
    }

    #[tokio::test]
    async fn a_failure_is_told_to_all_that_wait_and_not_remembered() {
        let cache = FooterCache::new(10);
        let found = ask_at_once(&cache, Err(failure())).await;
        assert!(found.iter().all(|found| found.as_ref().is_err_and(|error| error.to_string() == "down")));
        assert_eq!((cache.lookups(), cache.len()), (FooterLookups { hits: 0, misses: 1 }, 0));
        assert!(cache.get_or_read(identity("a"), async { Ok(facts("a")) }).await.is_ok());
        assert_eq!((cache.lookups(), cache.len()), (FooterLookups { hits: 0, misses: 2 }, 1));
    }

    #[tokio::test]
    async fn when_the_one_that_reads_is_dropped_another_reads() {
        let cache = FooterCache::new(10);
        let mut first = Box::pin(cache.get_or_read(identity("a"), std::future::pending()));
        assert!(futures::poll!(&mut first).is_pending());
        let mut second = Box::pin(cache.get_or_read(identity("a"), async { Ok(facts("a")) }));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert!(second.await.is_ok());
    }

    #[tokio::test]
    async fn the_longest_unasked_are_forgotten() {
        let cache = FooterCache::new(8);
        for name in ["a", "b", "c", "d", "e", "f", "g", "a", "h", "i"] {
            assert!(cache.get_or_read(identity(name), async { Ok(facts(name)) }).await.is_ok());
        }
        let misses = cache.lookups().misses;
        for name in ["a", "h", "i"] {
            assert!(cache.get_or_read(identity(name), async { Err(failure()) }).await.is_ok(), "{name}");
        }
        assert!(cache.get_or_read(identity("b"), async { Err(failure()) }).await.is_err());
        assert_eq!(cache.lookups().misses, misses + 1);
    }
}
