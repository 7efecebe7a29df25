//! Streams of record batches from the statements of a snapshot.

use std::borrow::BorrowMut;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::{ArrayRef, FixedSizeBinaryBuilder, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::Stream;
use tokio_postgres::CopyOutStream;
use translator::catalog::Entity;
use translator::hot::HotColumn;

use super::Snapshot;
use super::copy::CopyReader;
use super::decode::{HotSummary, RowDecoder, UnreadableRow};
use super::error::{PostgresError, PostgresErrorKind};

pub(super) type CopyStream = Pin<Box<CopyOutStream>>;

/// A batch has at most about this many rows: what one message of PostgreSQL holds may go beyond it.
const BATCH_ROWS: usize = 8192;
/// A batch has at most about this many bytes of values.
const BATCH_BYTES: usize = 1 << 20;

/// Schema of the batches of [`Snapshot::dirty_ids`].
pub fn dirty_ids_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("row_id", DataType::FixedSizeBinary(16), false)]))
}

/// The ids of a dirty set. `S` is the snapshot, borrowed or owned.
#[derive(Debug)]
#[must_use]
pub struct DirtyIds<S: BorrowMut<Snapshot> + Unpin> {
    copy: Copy<S>,
    schema: SchemaRef,
    ids: FixedSizeBinaryBuilder,
    pending: usize,
    total: u64,
}

/// The rows of a hot statement. `S` is the snapshot, borrowed or owned.
#[derive(Debug)]
#[must_use]
pub struct HotRows<S: BorrowMut<Snapshot> + Unpin> {
    copy: Copy<S>,
    decoder: RowDecoder,
}

/// A running COPY.
struct Copy<S> {
    snapshot: S,
    /// `None` after the end or an error.
    stream: Option<CopyStream>,
    reader: CopyReader,
}

impl<S> std::fmt::Debug for Copy<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copy").field("ended", &self.stream.is_none()).finish_non_exhaustive()
    }
}

impl<S: BorrowMut<Snapshot> + Unpin> Copy<S> {
    fn new(snapshot: S, stream: CopyStream) -> Self {
        Self { snapshot, stream: Some(stream), reader: CopyReader::default() }
    }

    /// Reads one message; `Ready(Ok(false))` is the end.
    fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
        on_row: impl FnMut(super::copy::CopyRow<'_>) -> Result<(), PostgresError>,
    ) -> Poll<Result<bool, PostgresError>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(false)) };
        let result = match ready!(stream.as_mut().poll_next(cx)) {
            Some(Ok(message)) => self.reader.read(&message, on_row).map(|()| true),
            Some(Err(error)) => Err(error.into()),
            None if self.reader.is_complete() => {
                self.snapshot.borrow_mut().statement_running = false;
                Ok(false)
            }
            None => Err(PostgresError::new(PostgresErrorKind::Unavailable, "PostgreSQL ended a COPY before its end")),
        };
        if !matches!(result, Ok(true)) {
            self.stream = None;
        }
        Poll::Ready(result)
    }
}

impl<S: BorrowMut<Snapshot> + Unpin> DirtyIds<S> {
    pub(super) fn new(snapshot: S, stream: CopyStream) -> Self {
        Self {
            copy: Copy::new(snapshot, stream),
            schema: dirty_ids_schema(),
            ids: FixedSizeBinaryBuilder::new(16),
            pending: 0,
            total: 0,
        }
    }

    /// Number of ids read so far; all of them once the stream has ended.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn take_batch(&mut self) -> Result<RecordBatch, PostgresError> {
        self.pending = 0;
        let ids: ArrayRef = Arc::new(self.ids.finish());
        RecordBatch::try_new(Arc::clone(&self.schema), vec![ids])
            .map_err(|error| PostgresError::internal("cannot build a batch of row ids").with_source(error))
    }
}

impl<S: BorrowMut<Snapshot> + Unpin> Stream for DirtyIds<S> {
    type Item = Result<RecordBatch, PostgresError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if this.pending >= BATCH_ROWS {
                return Poll::Ready(Some(this.take_batch()));
            }
            let Self { copy, ids, pending, total, .. } = this;
            let more = ready!(copy.poll_message(cx, |row| {
                let id = (row.len() == 1).then(|| row.field(0)).flatten();
                if id.is_none_or(|id| ids.append_value(id).is_err()) {
                    return Err(PostgresError::internal("a dirty set returned something else than row ids"));
                }
                *pending += 1;
                *total += 1;
                Ok(())
            }));
            match more {
                Ok(true) => {}
                Ok(false) if this.pending == 0 => return Poll::Ready(None),
                Ok(false) => return Poll::Ready(Some(this.take_batch())),
                Err(error) => {
                    this.pending = 0;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl<S: BorrowMut<Snapshot> + Unpin> HotRows<S> {
    pub(super) fn new(
        snapshot: S,
        stream: CopyStream,
        entity: &Entity,
        columns: &[HotColumn],
    ) -> Result<Self, PostgresError> {
        Ok(Self { copy: Copy::new(snapshot, stream), decoder: RowDecoder::new(entity, columns)? })
    }

    pub fn schema(&self) -> &SchemaRef {
        self.decoder.schema()
    }

    /// From here on rows with a value that doesn't fit its declared type are left out; without this they end the stream
    /// with an error.
    pub fn leave_unreadable_out(&mut self) {
        self.decoder.leave_unreadable_out();
    }

    /// The rows that were left out since the last call, in the order of the statement.
    pub fn take_unreadable(&mut self) -> Vec<UnreadableRow> {
        self.decoder.take_unreadable()
    }

    /// What was read so far; all of it once the stream has ended.
    pub fn summary(&self) -> HotSummary {
        self.decoder.summary()
    }

    /// The snapshot. Before the stream has ended, it is only good for dropping, which cancels the statement.
    pub fn into_snapshot(self) -> S {
        self.copy.snapshot
    }
}

impl<S: BorrowMut<Snapshot> + Unpin> Stream for HotRows<S> {
    type Item = Result<RecordBatch, PostgresError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if this.decoder.rows() >= BATCH_ROWS || this.decoder.bytes() >= BATCH_BYTES {
                return Poll::Ready(Some(this.decoder.take_batch()));
            }
            let Self { copy, decoder } = this;
            match ready!(copy.poll_message(cx, |row| decoder.push(row))) {
                Ok(true) => {}
                Ok(false) if this.decoder.rows() == 0 => return Poll::Ready(None),
                Ok(false) => return Poll::Ready(Some(this.decoder.take_batch())),
                Err(error) => {
                    // Rows before the error must not come out behind it.
                    this.decoder.discard();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}
