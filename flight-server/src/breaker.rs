//! Circuit breakers, one a source (docs/contract.md, "Unavailable sources").
//!
//! ```text
//!              `failures` within `window`            `cooldown` is over: one probe
//!   closed ─────────────────────────────▶ open ─────────────────────────────▶ half open
//!     ▲                                    ▲                                    │   │
//!     │                                    └──────────── it fails ──────────────┘   │
//!     └───────────────────────────────── it succeeds ───────────────────────────────┘
//! ```
//!
//! Only failures of the source count: a client's mistake or a cancelled query gives no verdict, and a probe without a
//! verdict is released for the next caller. Time comes from a [`Clock`], so that tests need not wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::BreakerConfig;

/// Tells the time.
pub(crate) trait Clock: Send + Sync + std::fmt::Debug {
    fn now(&self) -> Instant;
}

/// The real time.
#[derive(Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// The breaker of one source.
#[derive(Debug)]
pub(crate) struct Breaker {
    config: BreakerConfig,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Times of recent failures, the oldest first.
    Closed(VecDeque<Instant>),
    Open {
        since: Instant,
    },
    /// One probe is under way.
    HalfOpen,
}

/// Leave to try the source once. Dropped without a verdict, it counts for nothing.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
    decided: bool,
}

/// The breaker is open: the source isn't asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Until the next probe may go; zero while one is under way.
    pub(crate) retry_after: Duration,
}

impl Breaker {
    pub(crate) fn new(config: BreakerConfig, clock: Arc<dyn Clock>) -> Self {
        Self { config, clock, state: Mutex::new(State::Closed(VecDeque::new())) }
    }

    /// Asks for leave to try the source.
    pub(crate) fn attempt(&self) -> Result<Attempt<'_>, Refused> {
        let now = self.clock.now();
        let mut state = self.lock();
        let is_probe = match &*state {
            State::Closed(_) => false,
            State::HalfOpen => return Err(Refused { retry_after: Duration::ZERO }),
            State::Open { since } => {
                let passed = now.saturating_duration_since(*since);
                if passed < self.config.cooldown {
                    return Err(Refused { retry_after: self.config.cooldown - passed });
                }
                *state = State::HalfOpen;
                true
            }
        };
        Ok(Attempt { breaker: self, is_probe, decided: false })
    }

    /// Counts a failure that showed after the attempt had succeeded (a connection lost in mid-stream).
    pub(crate) fn record_failure(&self) {
        let now = self.clock.now();
        let mut state = self.lock();
        match &mut *state {
            State::Closed(failures) => {
                failures.push_back(now);
                while failures.front().is_some_and(|at| now.saturating_duration_since(*at) > self.config.window) {
                    failures.pop_front();
                }
                if failures.len() >= self.config.failures as usize {
                    *state = State::Open { since: now };
                }
            }
            // A straggler from before the breaker opened says nothing new.
            State::Open { .. } | State::HalfOpen => {}
        }
    }

    /// `closed`, `open` or `half_open`, as plans and metrics show it.
    pub(crate) fn state(&self) -> &'static str {
        let now = self.clock.now();
        match &*self.lock() {
            State::Closed(_) => "closed",
            State::Open { since } if now.saturating_duration_since(*since) < self.config.cooldown => "open",
            State::Open { .. } | State::HalfOpen => "half_open",
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt<'_> {
    /// The source works.
    pub(crate) fn succeeded(mut self) {
        self.decided = true;
        // Failures of a source that works now and then still count within the window.
        if self.is_probe {
            *self.breaker.lock() = State::Closed(VecDeque::new());
        }
    }

    /// The source doesn't.
    pub(crate) fn failed(mut self) {
        self.decided = true;
        if self.is_probe {
            *self.breaker.lock() = State::Open { since: self.breaker.clock.now() };
        } else {
            self.breaker.record_failure();
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.is_probe && !self.decided {
            // The next caller may probe at once.
            let ready = self.breaker.clock.now().checked_sub(self.breaker.config.cooldown);
            *self.breaker.lock() = State::Open { since: ready.unwrap_or_else(|| self.breaker.clock.now()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Hand(Mutex<Instant>);

    impl Clock for Hand {
        fn now(&self) -> Instant {
            *self.0.lock().unwrap()
        }
    }

    fn breaker() -> (Breaker, Arc<Hand>) {
        // Far from the clock's start, so that times before it exist.
        let hand = Arc::new(Hand(Mutex::new(Instant::now() + Duration::from_secs(1000))));
        let config = BreakerConfig { failures: 3, window: Duration::from_secs(30), cooldown: Duration::from_secs(10) };
        (Breaker::new(config, Arc::<Hand>::clone(&hand)), hand)
    }

    fn pass(hand: &Hand, seconds: u64) {
        *hand.0.lock().unwrap() += Duration::from_secs(seconds);
    }

    #[test]
    fn failures_within_the_window_open_it() {
        let (breaker, hand) = breaker();
        for _ in 0..2 {
            breaker.attempt().unwrap().failed();
        }
        pass(&hand, 31);
        breaker.attempt().unwrap().failed();
        assert_eq!(breaker.state(), "closed", "the first two are out of the window");
        breaker.attempt().unwrap().failed();
        breaker.record_failure();
        assert_eq!(breaker.state(), "open");
        assert_eq!(breaker.attempt().unwrap_err().retry_after, Duration::from_secs(10));
    }

    #[test]
    fn one_probe_decides() {
        let (breaker, hand) = breaker();
        for _ in 0..3 {
            breaker.attempt().unwrap().failed();
        }
        pass(&hand, 10);
        assert_eq!(breaker.state(), "half_open");
        let probe = breaker.attempt().unwrap();
        assert_eq!(breaker.attempt().unwrap_err().retry_after, Duration::ZERO, "one at a time");
        probe.failed();
        assert_eq!(breaker.state(), "open");
        pass(&hand, 10);
        breaker.attempt().unwrap().succeeded();
        assert_eq!(breaker.state(), "closed");
        breaker.attempt().unwrap().failed();
        assert_eq!(breaker.state(), "closed", "the old failures are forgotten");
    }

    #[test]
    fn a_probe_without_a_verdict_is_released() {
        let (breaker, hand) = breaker();
        for _ in 0..3 {
            breaker.attempt().unwrap().failed();
        }
        pass(&hand, 10);
        drop(breaker.attempt().unwrap());
        breaker.attempt().unwrap().succeeded();
        assert_eq!(breaker.state(), "closed");
    }

    #[test]
    fn an_attempt_without_a_verdict_counts_for_nothing() {
        let (breaker, _) = breaker();
        for _ in 0..10 {
            drop(breaker.attempt().unwrap());
        }
        assert_eq!(breaker.state(), "closed");
    }
}
