//! A running statement: DuckDB on a thread of its own, a bounded channel, and an end by ownership.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::blame::execution_error;
use super::error::QueryError;
use super::threads::QueryThread;
use crate::breaker::Breaker;
use crate::engine::duckdb::{Connection, InterruptHandle, ProfileNode};

/// Chunks of DuckDB (2,048 rows) are put together until they hold about this many bytes.
const BATCH_BYTES: usize = 1 << 20;
/// Batches that may wait for a slow client.
const WAITING_BATCHES: usize = 4;
/// DuckDB forgets an interrupt that comes before its statement starts, so it is repeated at this interval.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(20);
/// DuckDB that computes heeds an interrupt sooner, and its query's permit is free.
const PERMIT_PATIENCE: Duration = Duration::from_secs(1);
/// A query that was cancelled on a busy machine says nothing of the lake; one that nothing ends for so long does.
const LAKE_PATIENCE: Duration = Duration::from_secs(5);

/// What a run sends.
#[derive(Debug)]
pub(super) enum RunEvent {
    Batch(RecordBatch),
    /// The regular end.
    End(RunSummary),
}

/// Figures of a finished run.
#[derive(Debug, Clone, Default)]
pub(super) struct RunSummary {
    /// Until the first batch.
    pub(super) execution: Duration,
    /// From then to the end, the client's speed included.
    pub(super) streaming: Duration,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) truncated: bool,
    /// Whether DuckDB ran it, not PostgreSQL alone.
    pub(super) by_duckdb: bool,
    /// What DuckDB measured, operator by operator.
    pub(super) profile: Option<ProfileNode>,
}

/// A running statement. Dropping it interrupts DuckDB and ends the thread.
#[derive(Debug)]
pub(super) struct Run {
    receiver: mpsc::Receiver<Result<RunEvent, QueryError>>,
    interrupt: InterruptHandle,
    stop: Arc<AtomicBool>,
    finished: Arc<AtomicBool>,
    permit: RunPermit,
    stuck: StuckRuns,
}

/// The query's permit, as long as its thread works.
type RunPermit = Arc<Mutex<Option<Arc<OwnedSemaphorePermit>>>>;

/// Room for threads whose query has ended while DuckDB waits for an answer of the lake, which no interrupt ends (it gives
/// up after two minutes). They give their permit to the next query, and tell the lake's breaker. When there is no room
/// left, permits wait with their threads: so their number is bounded.
#[derive(Debug, Clone)]
pub(super) struct StuckRuns {
    room: Arc<Semaphore>,
    /// `None` for a query that reads no file.
    lake: Option<Arc<Breaker>>,
}

impl StuckRuns {
    pub(super) fn new(room: usize, lake: Arc<Breaker>) -> Self {
        Self { room: Arc::new(Semaphore::new(room)), lake: Some(lake) }
    }

    /// For a query that reads no file: whatever keeps it, the lake isn't it.
    pub(super) fn without_lake(&self) -> Self {
        Self { lake: None, ..self.clone() }
    }

    /// Takes the permit off a thread that doesn't end.
    fn enter(&self, permit: &RunPermit) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.room).try_acquire_owned().ok()?;
        permit.lock().unwrap_or_else(PoisonError::into_inner).take();
        Some(place)
    }
}

impl Run {
    /// Starts `sql` on a thread, which holds the permit as long as it works.
    pub(super) fn start(
        connection: Arc<Connection>,
        sql: String,
        schema: SchemaRef,
        max_rows: Option<u64>,
        permit: Arc<OwnedSemaphorePermit>,
        stuck: StuckRuns,
    ) -> Result<Self, QueryError> {
        let (sender, receiver) = mpsc::channel(WAITING_BATCHES);
        let interrupt = connection.interrupt_handle();
        let stop = Arc::new(AtomicBool::new(false));
        let finished = Arc::new(AtomicBool::new(false));
        let permit: RunPermit = Arc::new(Mutex::new(Some(permit)));
        let held = Arc::clone(&permit);
        let run = Self { receiver, interrupt, stop: Arc::clone(&stop), finished: Arc::clone(&finished), permit, stuck };
        let worker = Worker { connection, schema, max_rows, sender, stop };
        let thread = QueryThread::new();
        std::thread::Builder::new()
            .name("duckdb-query".to_owned())
            .spawn(move || {
                let _thread = thread;
                let sender = worker.sender.clone();
                // A panic is this query's failure and nothing else's.
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.work(&sql)))
                    .unwrap_or_else(|_| Err(QueryError::internal(anyhow::anyhow!("the query's thread panicked"))));
                finished.store(true, Ordering::Release);
                drop(held.lock().unwrap_or_else(PoisonError::into_inner).take());
                if let Some(last) = outcome.transpose() {
                    // Nobody to tell when the client has gone.
                    let _gone = sender.blocking_send(last.map(RunEvent::End));
                }
            })
            .map_err(QueryError::internal)?;
        Ok(run)
    }

    pub(super) async fn next(&mut self) -> Option<Result<RunEvent, QueryError>> {
        self.receiver.recv().await
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if self.finished.load(Ordering::Acquire) {
            return;
        }
        let finished = Arc::clone(&self.finished);
        let (permit, stuck) = (Arc::clone(&self.permit), self.stuck.clone());
        let mut place = None;
        end_by_interrupts(
            self.interrupt.clone(),
            stuck.lake.clone(),
            move || finished.load(Ordering::Acquire),
            move |waited| {
                if place.is_none() && waited > PERMIT_PATIENCE {
                    place = stuck.enter(&permit);
                }
            },
        );
    }
}

/// Interrupts a statement that nobody waits for any more until it has ended, in the background. When that takes long, the
/// lake keeps DuckDB waiting, and its breaker learns of it. `meanwhile` gets the time since the first interrupt.
pub(super) fn end_by_interrupts(
    interrupt: InterruptHandle,
    lake: Option<Arc<Breaker>>,
    has_ended: impl Fn() -> bool + Send + 'static,
    mut meanwhile: impl FnMut(Duration) + Send + 'static,
) {
    interrupt.interrupt();
    // Without a runtime the process is about to end.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        let since = Instant::now();
        let mut told = false;
        while !has_ended() {
            interrupt.interrupt();
            meanwhile(since.elapsed());
            if !told && since.elapsed() > LAKE_PATIENCE {
                told = true;
                tracing::warn!("DuckDB doesn't end an interrupted query");
                if let Some(lake) = &lake {
                    lake.record_failure();
                }
            }
            tokio::time::sleep(INTERRUPT_INTERVAL).await;
        }
    });
}

struct Worker {
    connection: Arc<Connection>,
    schema: SchemaRef,
    max_rows: Option<u64>,
    sender: mpsc::Sender<Result<RunEvent, QueryError>>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    /// Sends the batches; `None` when nobody waits for them any more.
    fn work(self, sql: &str) -> Result<Option<RunSummary>, QueryError> {
        crate::failpoint::panic_point("query.run");
        let started = Instant::now();
        let mut summary = RunSummary { by_duckdb: true, ..RunSummary::default() };
        let mut first = None;
        let mut stream = self.connection.stream_of_one_snapshot(sql).map_err(execution_error)?;
        let mut pending = Pending::default();
        let mut left = self.max_rows.unwrap_or(u64::MAX);
        loop {
            if self.stop.load(Ordering::Acquire) {
                return Ok(None);
            }
            let Some(chunk) = stream.next().map_err(execution_error)? else { break };
            if left == 0 {
                summary.truncated = true;
                break;
            }
            let rows = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.num_rows());
            summary.truncated |= rows < chunk.num_rows();
            left -= rows as u64;
            pending.push(conform(&chunk.slice(0, rows), &self.schema)?);
            // The first rows go out as soon as they are there.
            if first.is_none() || pending.bytes >= BATCH_BYTES {
                first.get_or_insert_with(Instant::now);
                if !self.send(&mut pending, &mut summary)? {
                    return Ok(None);
                }
            }
            if summary.truncated {
                break;
            }
        }
        drop(stream);
        if !self.send(&mut pending, &mut summary)? {
            return Ok(None);
        }
        let first = first.unwrap_or_else(Instant::now);
        summary.execution = first - started;
        summary.streaming = first.elapsed();
        summary.profile = self.connection.profile();
        Ok(Some(summary))
    }

    /// Sends what is pending; false when the client has gone.
    fn send(&self, pending: &mut Pending, summary: &mut RunSummary) -> Result<bool, QueryError> {
        let Some(batch) = pending.take(&self.schema)? else { return Ok(true) };
        summary.rows += batch.num_rows() as u64;
        summary.bytes += batch.get_array_memory_size() as u64;
        Ok(self.sender.blocking_send(Ok(RunEvent::Batch(batch))).is_ok())
    }
}

/// Chunks that wait to become one batch.
#[derive(Default)]
struct Pending {
    chunks: Vec<RecordBatch>,
    bytes: usize,
}

impl Pending {
    fn push(&mut self, chunk: RecordBatch) {
        self.bytes += chunk.get_array_memory_size();
        self.chunks.push(chunk);
    }

    fn take(&mut self, schema: &SchemaRef) -> Result<Option<RecordBatch>, QueryError> {
        self.bytes = 0;
        let chunks = std::mem::take(&mut self.chunks);
        match chunks.len() {
            0 => Ok(None),
            1 => Ok(chunks.into_iter().next()),
            _ => concat_batches(schema, &chunks).map(Some).map_err(QueryError::internal),
        }
    }
}

/// A chunk with exactly the schema that the client was promised.
pub(super) fn conform(chunk: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, QueryError> {
    crate::conform::conform(chunk, schema).map_err(QueryError::internal)
}
