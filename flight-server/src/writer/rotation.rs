//! Sorted rows into files of a bounded size, none of which spans a boundary.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use translator::catalog::Entity;

use super::parquet_file::{FileError, file_schema, row_ids, shape};
use super::staging::{Destination, GrowingFile, StagedFile};

/// How large files may grow.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileLimits {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// Writes rows that come by `row_id`, each once.
#[derive(Debug)]
pub(super) struct RotatingWriter {
    destination: Destination,
    schema: SchemaRef,
    limits: FileLimits,
    /// Row ids from which on rows belong to another file, ascending.
    boundaries: VecDeque<u128>,
    current: Option<(GrowingFile, u64)>,
    finished: Vec<StagedFile>,
    rows: u64,
}

impl RotatingWriter {
    pub(super) fn new(destination: Destination, entity: &Entity, limits: FileLimits, boundaries: Vec<u128>) -> Self {
        Self {
            destination,
            schema: file_schema(entity),
            limits,
            boundaries: boundaries.into(),
            current: None,
            finished: Vec::new(),
            rows: 0,
        }
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds rows; their ids are greater than all before.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), FileError> {
        let mut rest = shape(batch, &self.schema)?;
        while rest.num_rows() > 0 {
            let below = match self.boundaries.front() {
                Some(boundary) => row_ids(&rest).position(|id| id >= *boundary).unwrap_or(rest.num_rows()),
                None => rest.num_rows(),
            };
            if below == 0 {
                self.boundaries.pop_front();
                self.rotate()?;
                continue;
            }
            let room = match &self.current {
                Some((_, rows)) => self.limits.rows.saturating_sub(*rows),
                None => self.limits.rows,
            };
            let take = below.min(usize::try_from(room).unwrap_or(usize::MAX)).max(1);
            self.append(&rest.slice(0, take))?;
            rest = rest.slice(take, rest.num_rows() - take);
        }
        Ok(())
    }

    fn append(&mut self, batch: &RecordBatch) -> Result<(), FileError> {
        let (file, rows) = match &mut self.current {
            Some(current) => current,
            None => self.current.insert((self.destination.start(&self.schema)?, 0)),
        };
        file.writer.write(batch)?;
        *rows += batch.num_rows() as u64;
        self.rows += batch.num_rows() as u64;
        let bytes = file.writer.size() as u64;
        if *rows >= self.limits.rows || bytes >= self.limits.bytes {
            self.rotate()?;
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), FileError> {
        if let Some((file, _)) = self.current.take() {
            self.finished.push(file.finish()?);
        }
        Ok(())
    }

    /// Completes the last file; gives all of them, by `row_id`.
    pub(super) fn finish(mut self) -> Result<Vec<StagedFile>, FileError> {
        self.rotate()?;
        Ok(self.finished)
    }
}
