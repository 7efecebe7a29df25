//! The messages of a DoGet stream: the schema at once, batches of a size every client takes, and with the last one the plan.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::{CompressionContext, DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use arrow_flight::{FlightData, SchemaAsIpc};
use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use tonic::Status;

use super::failure::{FailedQuery, Failure, Outcome};
use super::split::Slices;
use super::wire_schema;
use crate::query::{QueryError, QueryEvent, QueryStream};

/// How long a batch waits to learn whether it is the last one.
const LAST_BATCH_PATIENCE: Duration = Duration::from_millis(5);

pub(super) type FlightDataStream = BoxStream<'static, Result<FlightData, Status>>;

/// The stream of a running query. Dropping it drops the query, which cancels it.
pub(super) fn of_query(query: QueryStream, id: FailedQuery, target_bytes: usize) -> FlightDataStream {
    let schema = wire_schema::plain(&query.schema);
    let state = Running {
        encoder: Encoder::new(Arc::clone(&schema)),
        events: query.events,
        slices: Slices::new(RecordBatch::new_empty(schema), target_bytes),
        ahead: None,
        target_bytes,
        at: At::Schema,
    };
    stream::try_unfold(state, move |mut state| {
        let id = id.clone();
        async move {
            match state.next().await {
                Ok(Some(message)) => Ok(Some((message, state))),
                Ok(None) => Ok(None),
                Err(failure) => Err(Status::from(Failure { query: Some(id), ..failure })),
            }
        }
    })
    .boxed()
}

/// The stream of a batch that is there already.
pub(super) fn of_batch(batch: RecordBatch, target_bytes: usize) -> Outcome<FlightDataStream> {
    let mut encoder = Encoder::new(batch.schema());
    let mut messages = vec![Ok(encoder.schema())];
    for slice in Slices::new(batch, target_bytes) {
        messages.push(Ok(encoder.batch(&slice)?));
    }
    Ok(stream::iter(messages).boxed())
}

struct Running {
    encoder: Encoder,
    events: Pin<Box<dyn Stream<Item = Result<QueryEvent, QueryError>> + Send>>,
    /// The event that follows the batch that is being sent, where it came in time.
    ahead: Option<Result<QueryEvent, QueryError>>,
    /// What is left of the batch that is being sent.
    slices: Slices,
    target_bytes: usize,
    at: At,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Schema,
    Batches,
    End,
}

impl Running {
    async fn next(&mut self) -> Outcome<Option<FlightData>> {
        match self.at {
            At::Schema => {
                self.at = At::Batches;
                Ok(Some(self.encoder.schema()))
            }
            At::Batches => self.next_batch().await.map(Some),
            At::End => Ok(None),
        }
    }

    async fn next_batch(&mut self) -> Outcome<FlightData> {
        loop {
            if let Some(slice) = self.slices.next() {
                return self.send(&slice).await;
            }
            let event = match self.ahead.take() {
                Some(event) => Some(event),
                None => self.events.next().await,
            };
            match event {
                Some(Ok(QueryEvent::Batch(batch))) => {
                    let batch = wire_schema::conform(batch, &self.encoder.schema)?;
                    self.slices = Slices::new(batch, self.target_bytes);
                }
                Some(Ok(QueryEvent::End(plan))) => {
                    self.at = At::End;
                    let none = RecordBatch::new_empty(Arc::clone(&self.encoder.schema));
                    return self.encoder.last(&none, &plan);
                }
                Some(Err(error)) => return Err(error.into()),
                // A short result must never pass for a whole one.
                None => return Err(Failure::internal(anyhow::anyhow!("the result ended without its end event"))),
            }
        }
    }

    /// Rows, with the plan when they turn out to be the last ones. An end that takes longer comes with a batch of its own.
    async fn send(&mut self, slice: &RecordBatch) -> Outcome<FlightData> {
        if self.slices.is_done() {
            let next = tokio::time::timeout(LAST_BATCH_PATIENCE, self.events.next()).await;
            match next {
                Ok(Some(Ok(QueryEvent::End(plan)))) => {
                    self.at = At::End;
                    return self.encoder.last(slice, &plan);
                }
                Ok(event) => self.ahead = event,
                Err(_elapsed) => {}
            }
        }
        self.encoder.batch(slice)
    }
}

/// Encodes batches of one schema. The types are plain, so no dictionary message ever arises.
struct Encoder {
    schema: SchemaRef,
    options: IpcWriteOptions,
    dictionaries: DictionaryTracker,
    compression: CompressionContext,
}

impl Encoder {
    fn new(schema: SchemaRef) -> Self {
        Self {
            schema,
            options: IpcWriteOptions::default(),
            dictionaries: DictionaryTracker::new(false),
            compression: CompressionContext::default(),
        }
    }

    fn schema(&self) -> FlightData {
        SchemaAsIpc::new(&self.schema, &self.options).into()
    }

    fn batch(&mut self, batch: &RecordBatch) -> Outcome<FlightData> {
        let (_, encoded) = IpcDataGenerator::default()
            .encode(batch, &mut self.dictionaries, &self.options, &mut self.compression)
            .map_err(Failure::internal)?;
        Ok(encoded.into())
    }

    /// The last rows with the plan, which needs a batch to ride on: a message of metadata alone is legal, but Go's reader
    /// takes every message for a schema, dictionary or batch.
    fn last(&mut self, batch: &RecordBatch, plan: &serde_json::Value) -> Outcome<FlightData> {
        let message = self.batch(batch)?;
        let plan = serde_json::to_vec(plan).map_err(Failure::internal)?;
        Ok(FlightData { app_metadata: Bytes::from(plan), ..message })
    }
}

#[cfg(test)]
mod tests;
