//! Slots whose query waits for its client to read. When all of them do, the server stands still while its sources are well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A client that reads slowly isn't one that has stopped.
const PATIENCE: Duration = Duration::from_secs(5);

/// The slots that wait, and since when.
#[derive(Debug)]
pub(crate) struct UnreadSlots {
    max_concurrent: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    since: HashMap<u64, Instant>,
    next: u64,
}

/// A slot that waits, as long as this value lives.
#[derive(Debug)]
pub(super) struct UnreadSlot {
    slots: Arc<UnreadSlots>,
    number: u64,
}

impl UnreadSlots {
    pub(super) fn new(max_concurrent: usize) -> Self {
        Self { max_concurrent, waiting: Mutex::default() }
    }

    /// A slot waits from now on.
    pub(super) fn enter(self: &Arc<Self>) -> UnreadSlot {
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.since.insert(number, Instant::now());
        UnreadSlot { slots: Arc::clone(self), number }
    }

    /// Slots that wait now.
    pub(super) fn count(&self) -> usize {
        self.lock().since.len()
    }

    /// `Err` with the reason when no slot has moved for long, and none can before a client reads.
    pub(crate) fn state(&self) -> Result<(), String> {
        let waiting = self.lock();
        // The one that moved last.
        let still = waiting.since.values().max().map_or(Duration::ZERO, Instant::elapsed);
        if waiting.since.len() < self.max_concurrent || still < PATIENCE {
            return Ok(());
        }
        let slots = self.max_concurrent;
        Err(format!(
            "no query has moved for {} s: each of the {slots} slots waits for a client that doesn't read",
            still.as_secs()
        ))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnreadSlot {
    fn drop(&mut self) {
        self.slots.lock().since.remove(&self.number);
    }
}
