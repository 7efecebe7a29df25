//! Writers of results, each a batch at a time, and where they write to.

pub(super) mod text;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use arrow::array::RecordBatch;
use arrow::csv;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::FileWriter;
use arrow::json;
use arrow::json::writer::LineDelimited;
use arrow::util::display::FormatOptions;
use arrow::util::pretty::pretty_format_batches_with_options;
use indicatif::HumanCount;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

/// Form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table for people.
    Table,
    /// CSV with a header line; lists and structs as text.
    Csv,
    /// One JSON object a line (NDJSON), NULLs included.
    Json,
    /// An Arrow IPC file.
    Arrow,
    /// A Parquet file, compressed with zstd.
    Parquet,
}

impl Format {
    pub(super) fn is_binary(self) -> bool {
        match self {
            Self::Arrow | Self::Parquet => true,
            Self::Table | Self::Csv | Self::Json => false,
        }
    }
}

/// So many rows of a table are shown unless all are asked for.
pub(super) const TABLE_ROWS: usize = 1_000;

type Writer = Box<dyn Write + Send>;

/// A result that is being written.
pub(super) enum Output {
    Table(Table),
    Csv(Box<csv::Writer<Writer>>),
    Json(json::Writer<Writer, LineDelimited>),
    Arrow(Box<FileWriter<Writer>>),
    Parquet(Box<ArrowWriter<Writer>>),
}

/// A table is drawn once its last row is known, because columns are as wide as their widest value.
pub(super) struct Table {
    writer: Writer,
    batches: Vec<RecordBatch>,
    rows: usize,
    rows_shown: Option<usize>,
}

impl Output {
    pub(super) fn start(
        format: Format,
        schema: &SchemaRef,
        writer: Writer,
        rows_shown: Option<usize>,
    ) -> anyhow::Result<Self> {
        Ok(match format {
            Format::Table => {
                let empty = text::readable(&RecordBatch::new_empty(Arc::clone(schema)))?;
                Self::Table(Table { writer, batches: vec![empty], rows: 0, rows_shown })
            }
            Format::Csv => {
                let mut writer = csv::WriterBuilder::new().with_header(true).build(writer);
                // An empty result has a header line too.
                writer.write(&text::flat(&RecordBatch::new_empty(Arc::clone(schema)))?)?;
                Self::Csv(Box::new(writer))
            }
            Format::Json => Self::Json(json::WriterBuilder::new().with_explicit_nulls(true).build(writer)),
            Format::Arrow => Self::Arrow(Box::new(FileWriter::try_new(writer, schema)?)),
            Format::Parquet => {
                let compression = Compression::ZSTD(ZstdLevel::default());
                let properties = WriterProperties::builder().set_compression(compression).build();
                let writer = ArrowWriter::try_new(writer, Arc::clone(schema), Some(properties));
                Self::Parquet(Box::new(writer.context("the result cannot be written as Parquet")?))
            }
        })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        match self {
            Self::Table(table) => table.keep(batch)?,
            Self::Csv(writer) => writer.write(&text::flat(batch)?)?,
            Self::Json(writer) => writer.write(&text::readable(batch)?)?,
            Self::Arrow(writer) => writer.write(batch)?,
            Self::Parquet(writer) => writer.write(batch)?,
        }
        Ok(())
    }

    /// Writes what is left; a note tells of rows that were not shown.
    pub(super) fn finish(self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Table(table) => return table.draw(),
            Self::Csv(writer) => writer.into_inner().flush()?,
            Self::Json(mut writer) => {
                writer.finish()?;
                writer.into_inner().flush()?;
            }
            Self::Arrow(writer) => writer.into_inner()?.flush()?,
            Self::Parquet(writer) => writer.into_inner()?.flush()?,
        }
        Ok(None)
    }
}

impl Table {
    fn keep(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        let kept = match self.rows_shown {
            None => batch.num_rows(),
            Some(shown) => shown.saturating_sub(self.rows).min(batch.num_rows()),
        };
        if kept > 0 {
            self.batches.push(text::readable(&batch.slice(0, kept))?);
        }
        self.rows += batch.num_rows();
        Ok(())
    }

    fn draw(mut self) -> anyhow::Result<Option<String>> {
        let options = FormatOptions::new().with_null("NULL");
        writeln!(self.writer, "{}", pretty_format_batches_with_options(&self.batches, &options)?)?;
        self.writer.flush()?;
        Ok(self.rows_shown.filter(|shown| *shown < self.rows).map(|shown| {
            format!(
                "the table shows the first {} of {} rows; --all shows all",
                HumanCount(shown as u64),
                HumanCount(self.rows as u64)
            )
        }))
    }
}

/// Where a result goes.
#[derive(Debug)]
pub(super) enum Destination {
    Stdout(Pipe),
    /// A file that gets its name once it is complete.
    NewFile {
        partial: PathBuf,
        path: PathBuf,
    },
    /// Something that is there and no regular file: a named pipe, a device.
    Special {
        path: PathBuf,
        pipe: Pipe,
    },
}

/// Remembers that the reader of a pipe went away, which ends the program quietly (`… | head`).
#[derive(Debug, Clone, Default)]
pub(super) struct Pipe(Arc<AtomicBool>);

impl Pipe {
    pub(super) fn is_broken(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Destination {
    pub(super) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::Stdout(Pipe::default())) };
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Ok(Self::Special { path: path.to_owned(), pipe: Pipe::default() });
        }
        let name = path.file_name().with_context(|| format!("{} is not the name of a file", path.display()))?;
        let mut partial = std::ffi::OsString::from(".");
        partial.push(name);
        partial.push(format!(".{}.partial", std::process::id()));
        Ok(Self::NewFile { partial: path.with_file_name(partial), path: path.to_owned() })
    }

    pub(super) fn pipe(&self) -> Pipe {
        match self {
            Self::Stdout(pipe) | Self::Special { pipe, .. } => pipe.clone(),
            Self::NewFile { .. } => Pipe::default(),
        }
    }

    /// Opens it for writing.
    pub(super) fn writer(&self) -> anyhow::Result<Writer> {
        let (sink, pipe): (Writer, Pipe) = match self {
            Self::Stdout(pipe) => (Box::new(io::stdout()), pipe.clone()),
            Self::Special { path, pipe } => {
                let file = File::options().write(true).open(path);
                (Box::new(file.with_context(|| format!("cannot write to {}", path.display()))?), pipe.clone())
            }
            Self::NewFile { partial, path } => {
                let file = File::create(partial);
                (Box::new(file.with_context(|| format!("cannot write to {}", path.display()))?), Pipe::default())
            }
        };
        Ok(Box::new(BufWriter::with_capacity(1 << 16, WatchedSink { sink, pipe })))
    }

    /// Gives a finished file its name.
    pub(super) fn complete(&self) -> anyhow::Result<()> {
        match self {
            Self::Stdout(_) | Self::Special { .. } => Ok(()),
            Self::NewFile { partial, path } => {
                std::fs::rename(partial, path).with_context(|| format!("cannot write to {}", path.display()))
            }
        }
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        // A completed file has its name already, and there is nothing to remove.
        if let Self::NewFile { partial, .. } = self {
            let _ = std::fs::remove_file(partial);
        }
    }
}

struct WatchedSink {
    sink: Writer,
    pipe: Pipe,
}

impl WatchedSink {
    fn watch<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            self.pipe.0.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl Write for WatchedSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.sink.write(bytes);
        self.watch(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.sink.flush();
        self.watch(result)
    }
}
