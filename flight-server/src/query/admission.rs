//! Which queries run: permits, the bounded queue, and the register of running queries that cancellation looks into.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::{ErrorKind, QueryError};
use crate::access::Caller;

/// A client that met a full queue is told to come back after this time: the queue moves as fast as queries end.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Lets `max_concurrent` queries run and `max_queued` wait.
#[derive(Debug)]
pub(super) struct Admission {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_concurrent: usize,
    max_queued: usize,
}

/// Queries that run or wait, by id. A ticket that is used twice at once makes two queries of one id.
#[derive(Debug, Clone, Default)]
pub(super) struct RunningQueries(Arc<Register>);

#[derive(Debug, Default)]
struct Register {
    queries: Mutex<HashMap<String, Vec<Running>>>,
    /// The server ends, and its queries with it.
    ended: AtomicBool,
}

#[derive(Debug)]
struct Running {
    token: Arc<CancellationToken>,
    caller: Arc<Caller>,
}

/// A registered query. Dropping it takes it off the register.
#[derive(Debug)]
pub(super) struct QueryGuard {
    query_id: String,
    token: Arc<CancellationToken>,
    deadline: Option<(Instant, Duration)>,
    running: RunningQueries,
}

impl Admission {
    pub(super) fn new(max_concurrent: usize, max_queued: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max_concurrent)),
            waiting: AtomicUsize::new(0),
            max_concurrent,
            max_queued,
        }
    }

    /// Queries that wait for a permit.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Waits for a permit; refuses at once when the queue is full.
    pub(super) async fn acquire(&self) -> Result<OwnedSemaphorePermit, QueryError> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let place = Waiting::enter(&self.waiting, self.max_queued).ok_or_else(|| {
            QueryError::new(
                ErrorKind::LimitExceeded,
                format!(
                    "max_queued: {} queries run and {} wait already; try again in {RETRY_AFTER:?}",
                    self.max_concurrent, self.max_queued
                ),
            )
            .retry_after(RETRY_AFTER)
        })?;
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(QueryError::internal);
        drop(place);
        permit
    }
}

/// A place in the queue, given up on drop.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let entered =
            waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| (count < limit).then_some(count + 1));
        entered.ok().map(|_| Self(waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl RunningQueries {
    pub(super) fn register(&self, query_id: &str, caller: &Arc<Caller>, timeout: Option<Duration>) -> QueryGuard {
        let token = Arc::new(CancellationToken::new());
        let mut queries = self.lock();
        let running = Running { token: Arc::clone(&token), caller: Arc::clone(caller) };
        queries.entry(query_id.to_owned()).or_default().push(running);
        if self.0.ended.load(Ordering::Acquire) {
            token.cancel();
        }
        drop(queries);
        let deadline = timeout.map(|timeout| (Instant::now() + timeout, timeout));
        QueryGuard { query_id: query_id.to_owned(), token, deadline, running: self.clone() }
    }

    /// Tells all queries of an id to stop that are the caller's to stop; false when none runs.
    pub(super) fn cancel(&self, query_id: &str, caller: &Caller) -> bool {
        let running = self.lock();
        let of_id = running.get(query_id).map_or(&[][..], Vec::as_slice).iter();
        let theirs = of_id.filter(|query| caller.rights.admin || query.caller.name == caller.name);
        theirs.map(|query| query.token.cancel()).count() > 0
    }

    /// Tells the queries of such callers to stop.
    pub(super) fn cancel_those_of(&self, is_such: impl Fn(&Caller) -> bool) {
        let running = self.lock();
        running.values().flatten().filter(|query| is_such(&query.caller)).for_each(|query| query.token.cancel());
    }

    /// Tells every query to stop, those too that are yet to come: the server ends.
    pub(super) fn end(&self) {
        let running = self.lock();
        self.0.ended.store(true, Ordering::Release);
        running.values().flatten().for_each(|query| query.token.cancel());
    }

    /// Why a query was told to stop.
    fn reason(&self) -> QueryError {
        if self.0.ended.load(Ordering::Acquire) {
            QueryError::new(
                ErrorKind::Unavailable,
                "the server ends, and server.drain_limit is over: send the query again",
            )
        } else {
            QueryError::new(ErrorKind::Cancelled, "the query was cancelled")
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<Running>>> {
        self.0.queries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueryGuard {
    /// Runs some work of the query until it is done, cancelled or late.
    pub(super) async fn within<T>(&self, work: impl Future<Output = Result<T, QueryError>>) -> Result<T, QueryError> {
        let late = async {
            match self.deadline {
                Some((deadline, _)) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.token.cancelled() => Err(self.running.reason()),
            () = late => {
                let timeout = self.deadline.map(|(_, timeout)| timeout).unwrap_or_default();
                let message = format!("timeout: the query ran longer than {timeout:?}; raise the option or narrow the query");
                Err(QueryError::new(ErrorKind::DeadlineExceeded, message))
            }
            result = work => result,
        }
    }
}

impl Drop for QueryGuard {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        if let Some(queries) = running.get_mut(&self.query_id) {
            queries.retain(|query| !Arc::ptr_eq(&query.token, &self.token));
            if queries.is_empty() {
                running.remove(&self.query_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let admission = Admission::new(1, 0);
        let permit = admission.acquire().await.unwrap();
        let error = admission.acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert!(error.message().contains("max_queued"));
        assert_eq!(error.retry_hint(), Some(RETRY_AFTER));
        drop(permit);
        drop(admission.acquire().await.unwrap());
    }

    #[tokio::test]
    async fn a_cancel_hits_its_query_and_no_other() {
        let running = RunningQueries::default();
        let (one, other) = (
            running.register("one", &Caller::unrestricted(), None),
            running.register("other", &Caller::unrestricted(), None),
        );
        assert!(running.cancel("one", &Caller::unrestricted()));
        let stopped = one.within(std::future::pending::<Result<(), QueryError>>()).await.unwrap_err();
        assert_eq!(stopped.kind(), ErrorKind::Cancelled);
        other.within(async { Ok(()) }).await.unwrap();
        let again = running.register("one", &Caller::unrestricted(), None);
        drop(one);
        assert!(running.cancel("one", &Caller::unrestricted()), "the second use of a ticket is still there");
        drop(again);
        assert!(!running.cancel("one", &Caller::unrestricted()));
    }

    #[tokio::test]
    async fn the_end_of_the_server_stops_those_who_run_and_those_who_come() {
        let running = RunningQueries::default();
        let before = running.register("before", &Caller::unrestricted(), None);
        running.end();
        for query in [before, running.register("after", &Caller::unrestricted(), None)] {
            let stopped = query.within(std::future::pending::<Result<(), QueryError>>()).await.unwrap_err();
            assert_eq!(stopped.kind(), ErrorKind::Unavailable);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_the_work() {
        let query =
            RunningQueries::default().register("late", &Caller::unrestricted(), Some(Duration::from_secs(3600)));
        let error = query.within(std::future::pending::<Result<(), QueryError>>()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    }
}
