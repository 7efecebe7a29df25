//! From a query to its client. A task owns the query and hands its events over; the client's stream only receives them. So
//! whatever ends a query ends it while nobody reads, too: cancellation, timeout, the server's end, a client that has gone.
//!
//! ```text
//! Delivery (task): guard, query's stream ──▶ channel of one event ──▶ QueryStream (the call) ──▶ client
//!        └── stopped: its last word ──────────────────────────────────────▲  overtakes what wasn't read
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use crate::query::admission::QueryGuard;
use crate::query::error::{ErrorKind, QueryError};
use crate::query::record::{QueryRecord, Watched};
use crate::query::unread::UnreadSlots;
use crate::query::{QueryEvent, QueryStream};

/// What a query's delivery goes by.
pub(super) struct Delivery {
    pub(super) guard: QueryGuard,
    /// Where it is told that the query's slot waits for the client; `None` for an answer that holds no slot.
    pub(super) unread: Option<Arc<UnreadSlots>>,
    /// How long a query waits for its client to read.
    pub(super) idle_timeout: Option<Duration>,
}

/// Why a query was stopped, when it was.
type Stopped = Arc<Mutex<Option<QueryError>>>;

impl Delivery {
    /// Hands `stream` over in a task, which ends when the result is dropped.
    pub(super) fn start(self, record: QueryRecord, stream: QueryStream) -> QueryStream {
        let schema = Arc::clone(&stream.schema);
        let (sender, receiver) = mpsc::channel(1);
        let stopped = Stopped::default();
        tokio::spawn(self.run(record.watch(stream), sender, Arc::clone(&stopped)));
        let events = stream::unfold((receiver, stopped), async |(mut receiver, stopped)| {
            let event = receiver.recv().await;
            let stop = stopped.lock().unwrap_or_else(PoisonError::into_inner).take();
            if stop.is_some() {
                // What wasn't read yet is void.
                receiver.close();
                while receiver.try_recv().is_ok() {}
            }
            stop.map(Err).or(event).map(|event| (event, (receiver, stopped)))
        });
        QueryStream { schema, events: Box::pin(events) }
    }

    async fn run(self, mut query: Watched, sender: mpsc::Sender<Result<QueryEvent, QueryError>>, stopped: Stopped) {
        let handed_over = tokio::select! {
            biased;
            // Nobody is there any more: the query is dropped.
            () = sender.closed() => return,
            handed_over = self.guard.within(self.hand_over(&mut query, &sender)) => handed_over,
        };
        if let Err(error) = handed_over {
            query.stop(&error);
            *stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }

    async fn hand_over(
        &self,
        query: &mut Watched,
        sender: &mpsc::Sender<Result<QueryEvent, QueryError>>,
    ) -> Result<(), QueryError> {
        while let Some(event) = query.next().await {
            let is_last = !matches!(event, Ok(QueryEvent::Batch(_)));
            if is_last {
                // The slot is free, whenever the client reads the rest.
                query.let_go();
            }
            let room = match sender.try_reserve() {
                Ok(room) => room,
                Err(_) => {
                    let _unread = self.unread.as_ref().filter(|_| !is_last).map(UnreadSlots::enter);
                    tokio::select! {
                        room = sender.reserve() => match room {
                            Ok(room) => room,
                            // The client has gone.
                            Err(_) => return Ok(()),
                        },
                        error = idle(self.idle_timeout.filter(|_| !is_last)) => return Err(error),
                    }
                }
            };
            room.send(event);
        }
        Ok(())
    }
}

/// What is said of a client that doesn't read for that long.
async fn idle(limit: Option<Duration>) -> QueryError {
    let Some(limit) = limit else { return std::future::pending().await };
    tokio::time::sleep(limit).await;
    let message = format!(
        "idle_timeout: the client read nothing for {limit:?} while the query held its slot; read on, or raise \
         query.idle_timeout"
    );
    QueryError::new(ErrorKind::LimitExceeded, message)
}
