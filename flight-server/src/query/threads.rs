//! The threads of queries inside DuckDB, and waiting for them at the end of the process.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// One such thread, as long as this value lives.
#[derive(Debug)]
pub(super) struct QueryThread(());

impl QueryThread {
    pub(super) fn new() -> Self {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(())
    }
}

impl Drop for QueryThread {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_all();
    }
}

/// Waits until no query is inside DuckDB, or the limit is over: a process that ends beside such a thread cleans DuckDB's
/// library up while it works.
pub fn wait_for_threads(limit: Duration) {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    drop(ENDED.wait_timeout_while(running, limit, |running| *running > 0));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn threads_are_waited_for() {
        let (thread, ended) = (QueryThread::new(), Arc::new(AtomicBool::new(false)));
        let setter = Arc::clone(&ended);
        let other = std::thread::spawn(move || {
            setter.store(true, Ordering::Release);
            drop(thread);
        });
        wait_for_threads(Duration::from_secs(600));
        assert!(ended.load(Ordering::Acquire));
        other.join().unwrap();
    }
}
