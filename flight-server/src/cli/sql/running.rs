//! One statement on its way: received, watched and, by Ctrl-C, cancelled.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightInfo;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::cli::client::{Client, Received};
use crate::cli::output::{Destination, Format, Output, TABLE_ROWS};

/// So many rows are kept for the screen; those after them are only counted.
pub(super) const SCREEN_ROWS: usize = 10_000;
/// Queries that are done by then show no progress.
const PATIENCE: Duration = Duration::from_millis(500);
/// A server that doesn't hear of a cancellation within this time sees the stream end all the same.
const CANCEL_LIMIT: Duration = Duration::from_secs(5);

/// How a statement ended.
#[derive(Debug)]
pub(super) enum Ending {
    Complete(Answer),
    /// By Ctrl-C.
    Cancelled,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) rows: u64,
    pub(super) elapsed: Duration,
    /// With what execution measured.
    pub(super) plan: Option<Value>,
    /// What is to be drawn, when the screen asked.
    pub(super) screen: Option<Screen>,
    /// Of rows that aren't shown.
    pub(super) note: Option<String>,
}

/// Rows for the screen, at most [`SCREEN_ROWS`].
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) schema: SchemaRef,
    pub(super) batches: Vec<RecordBatch>,
    pub(super) rows: usize,
}

/// Where rows go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    Screen,
    /// Standard output in a form for programs.
    Stdout(Format),
    File(&'a Path, Format),
}

/// Runs a statement to its end, or until Ctrl-C.
///
/// # Errors
/// The server's own text, or what went wrong while the result was written.
pub(super) async fn run(client: &Client, sql: &str, target: Target<'_>, watch: bool) -> anyhow::Result<Ending> {
    let started = Instant::now();
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let mut asking = client.clone();
    let progress = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    let info = tokio::select! {
        info = watched(asking.plan(sql), &progress, watch) => info?,
        // A statement that isn't planned yet runs nowhere.
        pressed = &mut interrupt => { pressed?; progress.finish_and_clear(); return Ok(Ending::Cancelled) }
    };
    let cancel = info.clone();
    let work = watched(receive(asking, info, target, &progress), &progress, watch);
    tokio::pin!(work);
    let received = tokio::select! {
        received = &mut work => Some(received),
        pressed = &mut interrupt => { pressed?; None }
    };
    progress.finish_and_clear();
    match received {
        Some(received) => {
            let mut answer = received?;
            answer.elapsed = started.elapsed();
            Ok(Ending::Complete(answer))
        }
        None => {
            // It may have ended by itself meanwhile, which is as good; the end of the stream says the same once more.
            let _unknown = tokio::time::timeout(CANCEL_LIMIT, client.clone().cancel(cancel)).await;
            Ok(Ending::Cancelled)
        }
    }
}

/// Shows the progress line once the work has taken a while.
async fn watched<T>(work: impl Future<Output = T>, progress: &ProgressBar, watch: bool) -> T {
    tokio::pin!(work);
    if watch {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(PATIENCE) => {}
        }
        if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} rows, {elapsed} · Ctrl-C cancels") {
            progress.set_style(style);
        }
        progress.set_draw_target(ProgressDrawTarget::stderr());
        progress.enable_steady_tick(Duration::from_millis(100));
    }
    work.await
}

async fn receive(
    mut client: Client,
    info: FlightInfo,
    target: Target<'_>,
    progress: &ProgressBar,
) -> anyhow::Result<Answer> {
    let destination = match target {
        Target::Screen => None,
        Target::Stdout(_) => Some(Destination::open(None)?),
        Target::File(path, _) => Some(Destination::open(Some(path))?),
    };
    let pipe = destination.as_ref().map(Destination::pipe).unwrap_or_default();
    let (mut sink, mut rows) = (Sink::Waiting, 0);
    let received = client
        .run(info, |received| match received {
            Received::Schema(schema) => {
                sink = Sink::open(target, schema, destination.as_ref())?;
                Ok(())
            }
            Received::Rows(batch) => {
                rows += batch.num_rows() as u64;
                progress.set_position(rows);
                sink.take(batch)
            }
        })
        .await;
    let written = received.and_then(|plan| Ok((plan, sink.finish()?)));
    let (plan, (screen, note)) = match written {
        // A reader of the pipe that went away ends nothing badly: there is only nobody to write to.
        Err(_) if pipe.is_broken() => (None, (None, None)),
        written => {
            let written = written?;
            if let Some(destination) = &destination {
                destination.complete()?;
            }
            written
        }
    };
    Ok(Answer { rows, elapsed: Duration::ZERO, plan, screen, note })
}

enum Sink {
    /// For the schema.
    Waiting,
    Screen(Screen),
    Output(Output),
}

impl Sink {
    fn open(target: Target<'_>, schema: SchemaRef, destination: Option<&Destination>) -> anyhow::Result<Self> {
        Ok(match (target, destination) {
            (Target::Stdout(format) | Target::File(_, format), Some(destination)) => {
                Self::Output(Output::start(format, &schema, destination.writer()?, Some(TABLE_ROWS))?)
            }
            (Target::Screen | Target::Stdout(_) | Target::File(..), _) => {
                Self::Screen(Screen { schema, batches: Vec::new(), rows: 0 })
            }
        })
    }

    fn take(&mut self, batch: RecordBatch) -> anyhow::Result<()> {
        match self {
            Self::Waiting => bail!("the server sent rows before their schema"),
            Self::Screen(screen) => {
                let room = SCREEN_ROWS.saturating_sub(screen.rows).min(batch.num_rows());
                if room > 0 {
                    screen.batches.push(batch.slice(0, room));
                    screen.rows += room;
                }
                Ok(())
            }
            Self::Output(output) => output.write(&batch),
        }
    }

    /// What is to be drawn, and a note on rows that aren't shown.
    fn finish(self) -> anyhow::Result<(Option<Screen>, Option<String>)> {
        Ok(match self {
            Self::Waiting => (None, None),
            Self::Screen(screen) => (Some(screen), None),
            Self::Output(output) => (None, output.finish()?),
        })
    }
}
