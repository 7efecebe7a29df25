//! One making at a time: who arrives during one waits for the next, and all who wait share it.
//!
//! ```text
//! a ─▶ making 1 (a) ──────▶ a
//! b, c ─▶ …wait… ─▶ making 2 (b, c) ──────▶ b, c
//! ```
//!
//! A making is a task of its own: a query that gives up takes nothing from the others.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use tokio::sync::watch;

use super::{Moment, MomentError, Wanted};

type Made = Result<Arc<Moment>, Arc<MomentError>>;

/// Brings queries together that can share a moment.
#[derive(Debug)]
pub(super) struct Commit<M> {
    maker: Arc<M>,
    state: Mutex<State>,
}

/// Makes moments.
pub(super) trait Make: Send + Sync + 'static {
    /// Makes one that begins now. `shared` counts the queries that wait for it.
    fn make(self: Arc<Self>, wanted: Vec<Wanted>, shared: Arc<AtomicU64>) -> impl Future<Output = Made> + Send;
}

#[derive(Debug, Default)]
struct State {
    is_making: bool,
    next: Option<Generation>,
}

/// Who waits for one making.
#[derive(Debug)]
struct Generation {
    wanted: Vec<Wanted>,
    shared: Arc<AtomicU64>,
    made: watch::Sender<Option<Made>>,
}

impl<M: Make> Commit<M> {
    pub(super) fn new(maker: Arc<M>) -> Arc<Self> {
        Arc::new(Self { maker, state: Mutex::default() })
    }

    /// The first making that begins after this call.
    pub(super) async fn join(self: &Arc<Self>, wanted: Vec<Wanted>) -> Made {
        let mut receiver = {
            let mut state = self.lock();
            let generation = state.next.get_or_insert_with(|| Generation {
                wanted: Vec::new(),
                shared: Arc::default(),
                made: watch::Sender::new(None),
            });
            generation.add(wanted);
            let receiver = generation.made.subscribe();
            if !state.is_making {
                state.is_making = true;
                tokio::spawn(Arc::clone(self).work());
            }
            receiver
        };
        let made = receiver.wait_for(Option::is_some).await.map(|made| made.clone());
        // The runtime is ending.
        made.ok().flatten().unwrap_or_else(|| Err(Arc::new(MomentError::Abandoned)))
    }

    /// Makes what is waited for, one after the other, until nobody waits.
    async fn work(self: Arc<Self>) {
        loop {
            let Generation { wanted, shared, made } = {
                let mut state = self.lock();
                match state.next.take() {
                    Some(generation) => generation,
                    None => {
                        state.is_making = false;
                        return;
                    }
                }
            };
            if made.is_closed() {
                continue;
            }
            let making = AssertUnwindSafe(Arc::clone(&self.maker).make(wanted, shared)).catch_unwind().await;
            made.send_replace(Some(making.unwrap_or_else(|_| Err(Arc::new(MomentError::Abandoned)))));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generation {
    /// Takes in what one more query wants.
    fn add(&mut self, wanted: Vec<Wanted>) {
        self.shared.fetch_add(1, Ordering::Relaxed);
        for one in wanted {
            match self.wanted.iter_mut().find(|known| *known.entity == *one.entity) {
                Some(known) => {
                    known.attributes.extend(one.attributes);
                    known.files |= one.files;
                }
                None => self.wanted.push(one),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    /// Makings that end when they are told to.
    #[derive(Debug)]
    struct Slow {
        begun: AtomicU64,
        leave: Semaphore,
    }

    impl Make for Slow {
        async fn make(self: Arc<Self>, _wanted: Vec<Wanted>, shared: Arc<AtomicU64>) -> Made {
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            self.leave.acquire().await.unwrap().forget();
            if number == 3 {
                panic!("the third one fails");
            }
            Err(Arc::new(MomentError::Test { number, shared: shared.load(Ordering::SeqCst) }))
        }
    }

    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_arrives_during_a_making_shares_the_next_one() {
        let slow = Arc::new(Slow { begun: AtomicU64::new(0), leave: Semaphore::new(0) });
        let commit = Commit::new(Arc::clone(&slow));
        let join = || {
            let commit = Arc::clone(&commit);
            tokio::spawn(async move { commit.join(Vec::new()).await.unwrap_err().to_string() })
        };
        let first = join();
        until(|| slow.begun.load(Ordering::SeqCst) == 1).await;
        let (second, third, gone) = (join(), join(), join());
        until(|| commit.lock().next.as_ref().is_some_and(|next| next.shared.load(Ordering::SeqCst) == 3)).await;
        gone.abort();
        assert_eq!(slow.begun.load(Ordering::SeqCst), 1, "one at a time");
        slow.leave.add_permits(1);
        assert_eq!(first.await.unwrap(), "making 1 for 1");
        slow.leave.add_permits(1);
        assert_eq!(second.await.unwrap(), "making 2 for 3");
        assert_eq!(third.await.unwrap(), "making 2 for 3");
        let fails = join();
        slow.leave.add_permits(1);
        assert!(fails.await.unwrap().contains("given up"), "a panic is told");
        let after = join();
        slow.leave.add_permits(1);
        assert_eq!(after.await.unwrap(), "making 4 for 1", "and harms nobody after");
    }

    #[tokio::test]
    async fn nothing_is_made_for_nobody() {
        let slow = Arc::new(Slow { begun: AtomicU64::new(0), leave: Semaphore::new(0) });
        let commit = Commit::new(Arc::clone(&slow));
        let first = tokio::spawn({
            let commit = Arc::clone(&commit);
            async move { commit.join(Vec::new()).await.is_err() }
        });
        until(|| slow.begun.load(Ordering::SeqCst) == 1).await;
        let gone = tokio::spawn({
            let commit = Arc::clone(&commit);
            async move { commit.join(Vec::new()).await.is_err() }
        });
        until(|| commit.lock().next.is_some()).await;
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        slow.leave.add_permits(1);
        assert!(first.await.unwrap());
        until(|| !commit.lock().is_making).await;
        assert_eq!(slow.begun.load(Ordering::SeqCst), 1);
    }
}
