//! The dirty rows of one entity in memory: which they are, in which table, and as of which snapshot.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use futures::TryStreamExt;
use translator::catalog::Entity;
use translator::plan::MirrorTable;
use translator::postgres::{HotStatement, TableNames, mirror_statement, stamps_sql, touched_sql};

use super::MirrorError;
use super::versions::{Difference, DirtyVersions};
use crate::engine::duckdb::DuckError;
use crate::engine::mirror::{MirrorChanges, MirrorHandle, MirrorStore, Mirrored, StagedRows};
use crate::postgres::{PhysicalColumns, PostgresError, Snapshot, SnapshotIdentity};

/// Rows that are asked for by their ids in one statement.
const IDS_A_STATEMENT: usize = 4096;
/// A table with more closed versions than this, and more than open ones, is copied without them.
const CLOSED_ROWS: u64 = 20_000;
/// What an id and its stamp take in memory, about.
const ID_BYTES: u64 = 120;

/// What reading and keeping dirty rows needs.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) tables: TableNames,
    pub(super) store: Arc<MirrorStore>,
    pub(super) silence_limit: Option<Duration>,
}

/// A snapshot that is read, and what it is of.
#[derive(Debug)]
pub(super) struct ReadSnapshot<'a> {
    pub(super) snapshot: &'a mut Snapshot,
    pub(super) identity: &'a SnapshotIdentity,
    /// The cursor's fingerprint; `None` without a cursor that is whole.
    pub(super) cursor: Option<&'a str>,
}

/// The copy of an entity's dirty rows. Only its maker changes it, and only forward.
#[derive(Debug)]
pub(super) struct EntityMirror {
    pub(super) entity: Arc<Entity>,
    /// The attributes that are kept, in ascending order.
    attributes: Vec<usize>,
    table: Arc<MirrorHandle>,
    versions: DirtyVersions,
    snapshot: SnapshotIdentity,
    /// The types that the rows were read from.
    physical: Arc<PhysicalColumns>,
    cursor: Option<String>,
    table_rows: u64,
    table_bytes: u64,
    /// Where the next audit goes on, in the order of ids.
    audited: usize,
}

/// Rows on their way into a table.
struct Staged {
    rows: StagedRows,
    /// Ids of them.
    ids: HashSet<u128>,
    bytes: u64,
}

impl Means {
    /// Waits for PostgreSQL, but not for a server that has gone silent.
    async fn ask<T>(&self, work: impl Future<Output = Result<T, PostgresError>>) -> Result<T, MirrorError> {
        match self.silence_limit {
            None => work.await,
            Some(limit) => tokio::time::timeout(limit, work).await.map_err(|_| MirrorError::Silent(limit))?,
        }
        .map_err(MirrorError::Postgres)
    }

    /// Brings the rows of statements into DuckDB, which works on a thread of its own.
    async fn stage(
        &self,
        snapshot: &mut Snapshot,
        entity: &Entity,
        statements: Vec<HotStatement>,
    ) -> Result<Staged, MirrorError> {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<RecordBatch>(4);
        let store = Arc::clone(&self.store);
        let stager = tokio::task::spawn_blocking(move || -> Result<StagedRows, DuckError> {
            let mut rows = store.stage()?;
            while let Some(batch) = receiver.blocking_recv() {
                rows.push(&batch)?;
            }
            Ok(rows)
        });
        let (mut ids, mut bytes) = (HashSet::new(), 0);
        'statements: for statement in statements {
            let mut rows = self.ask(snapshot.hot_rows(&statement.sql, entity, &statement.columns)).await?;
            while let Some(batch) = self.ask(rows.try_next()).await? {
                bytes += batch.get_array_memory_size() as u64;
                ids.extend(ids_of(&batch));
                if sender.send(batch).await.is_err() {
                    // The stager has failed and says why below.
                    break 'statements;
                }
            }
        }
        drop(sender);
        let rows = stager.await.map_err(|_| MirrorError::Abandoned)??;
        Ok(Staged { rows, ids, bytes })
    }
}

/// Work of DuckDB, on a thread where blocking is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DuckError> + Send + 'static,
) -> Result<T, MirrorError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| MirrorError::Abandoned)?.map_err(MirrorError::Duck)
}

fn ids_of(batch: &RecordBatch) -> impl Iterator<Item = u128> + '_ {
    let ids = batch.column(0).as_fixed_size_binary_opt().into_iter().flatten();
    ids.filter_map(|id| id?.try_into().ok().map(u128::from_be_bytes))
}

impl EntityMirror {
    /// Reads the whole dirty set.
    pub(super) async fn load(
        means: &Means,
        from: ReadSnapshot<'_>,
        entity: &Arc<Entity>,
        attributes: Vec<usize>,
    ) -> Result<Self, MirrorError> {
        let sql = stamps_sql(&means.tables, entity.schema_id);
        let all = means.ask(from.snapshot.stamps(&sql, &from.identity.seen)).await?;
        let (store, kept, kept_attributes) = (Arc::clone(&means.store), Arc::clone(entity), attributes.clone());
        let table = blocking(move || store.create(Mirrored { entity: &kept, attributes: &kept_attributes })).await?;
        let mut mirror = Self {
            entity: Arc::clone(entity),
            attributes,
            table,
            versions: DirtyVersions::default(),
            snapshot: from.identity.clone(),
            physical: Arc::clone(from.snapshot.physical()),
            cursor: from.cursor.map(str::to_owned),
            table_rows: 0,
            table_bytes: 0,
            audited: 0,
        };
        let difference = mirror.versions.difference_to(&all);
        let statement = mirror_statement(&means.tables, entity, mirror.attributes.iter().copied(), None);
        let staged = means.stage(from.snapshot, entity, vec![statement]).await?;
        // Moments begin at 1: the table is whole before the first one that reads it.
        mirror.keep(means, staged, &difference, 0).await?;
        Ok(mirror)
    }

    /// Goes on to a later snapshot, as of `moment`; gives the number of rows that were read.
    ///
    /// After an error of DuckDB the mirror is of no more use.
    pub(super) async fn advance(
        &mut self,
        means: &Means,
        from: ReadSnapshot<'_>,
        moment: u64,
    ) -> Result<u64, MirrorError> {
        let entity = Arc::clone(&self.entity);
        let seen = &from.identity.seen;
        // What was written while the cursor wasn't whole has no stamp.
        let by_cursor = from.cursor.is_some() && from.cursor == self.cursor.as_deref();
        let difference = if by_cursor {
            let sql = touched_sql(&means.tables, entity.schema_id, &self.snapshot.seen.to_string());
            self.versions.difference_of(&means.ask(from.snapshot.stamps(&sql, seen)).await?)
        } else {
            let sql = stamps_sql(&means.tables, entity.schema_id);
            self.versions.difference_to(&means.ask(from.snapshot.stamps(&sql, seen)).await?)
        };
        let read = difference.written.len() as u64;
        if !difference.is_empty() {
            let ids: Vec<u128> = difference.written.iter().map(|(id, _)| *id).collect();
            let attributes = || self.attributes.iter().copied();
            let mut statements = Vec::new();
            for ids in ids.chunks(IDS_A_STATEMENT) {
                statements.push(mirror_statement(&means.tables, &entity, attributes(), Some(ids)));
            }
            let staged = means.stage(from.snapshot, &entity, statements).await?;
            self.keep(means, staged, &difference, moment).await?;
        }
        self.snapshot = from.identity.clone();
        self.cursor = from.cursor.map(str::to_owned);
        Ok(read)
    }

    async fn keep(
        &mut self,
        means: &Means,
        staged: Staged,
        difference: &Difference,
        moment: u64,
    ) -> Result<(), MirrorError> {
        let written = difference.written.iter().map(|(id, _)| *id);
        let changes = MirrorChanges {
            bare: written.filter(|id| !staged.ids.contains(id)).collect(),
            closed: self.versions.closed_by(difference),
        };
        let (store, table) = (Arc::clone(&means.store), Arc::clone(&self.table));
        let (entity, attributes) = (Arc::clone(&self.entity), self.attributes.clone());
        let Staged { rows, ids, bytes } = staged;
        blocking(move || {
            let mirrored = Mirrored { entity: &entity, attributes: &attributes };
            store.apply(&table, mirrored, &rows, &changes, moment)
        })
        .await?;
        self.versions.apply(difference, &ids);
        self.table_rows += difference.written.len() as u64;
        self.table_bytes += bytes;
        let open = self.versions.len() as u64;
        if self.table_rows.saturating_sub(open) > open.max(CLOSED_ROWS) {
            let (store, table, entity) = (Arc::clone(&means.store), Arc::clone(&self.table), Arc::clone(&self.entity));
            self.table = blocking(move || store.rebuild(&table, &entity)).await?;
            self.table_bytes = self.table_bytes * open / self.table_rows.max(1);
            self.table_rows = open;
        }
        Ok(())
    }

    /// Whether one of the next rows, or PostgreSQL's count of them, differs from the copy. `snapshot` is the one that the
    /// mirror has come to.
    pub(super) async fn differs(
        &mut self,
        means: &Means,
        snapshot: &mut Snapshot,
        rows: usize,
    ) -> Result<bool, MirrorError> {
        let all = self.versions.len();
        let sample: Vec<u128> = self.versions.ids().iter().cycle().skip(self.audited).take(rows.min(all)).collect();
        if sample.is_empty() {
            return Ok(false);
        }
        self.audited = (self.audited + sample.len()) % all;
        let bare = sample.iter().filter(|id| self.versions.bare().contains(**id)).count();
        let attributes = self.attributes.iter().copied();
        let statement = mirror_statement(&means.tables, &self.entity, attributes, Some(&sample));
        let staged = means.stage(snapshot, &self.entity, vec![statement]).await?;
        if staged.ids.len() + bare != sample.len() {
            return Ok(true);
        }
        let (store, table) = (Arc::clone(&means.store), Arc::clone(&self.table));
        let (entity, attributes) = (Arc::clone(&self.entity), self.attributes.clone());
        let differences = blocking(move || {
            store.differences(&table, Mirrored { entity: &entity, attributes: &attributes }, &staged.rows)
        });
        Ok(differences.await? > 0)
    }

    /// The cursor of the snapshot that this mirror has come to.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    pub(super) fn snapshot(&self) -> &SnapshotIdentity {
        &self.snapshot
    }

    /// Whether a snapshot is of the same history, with columns of the same types, and holds all that this mirror holds.
    pub(super) fn is_continued_by(&self, identity: &SnapshotIdentity, snapshot: &Snapshot) -> bool {
        identity.continues(&self.snapshot) && *self.physical == **snapshot.physical()
    }

    pub(super) fn attributes(&self) -> &[usize] {
        &self.attributes
    }

    pub(super) fn versions(&self) -> &DirtyVersions {
        &self.versions
    }

    pub(super) fn handle(&self) -> &Arc<MirrorHandle> {
        &self.table
    }

    /// The table as of a moment that this mirror has come to.
    pub(super) fn table_at(&self, moment: u64) -> MirrorTable {
        MirrorTable {
            name: self.table.name.clone(),
            moment,
            rows: self.versions.len() as u64,
            inconsistent_rows: self.versions.bare().len() as u64,
        }
    }

    /// Rows and bytes in memory, closed versions too.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.table_rows, self.table_bytes + self.versions.len() as u64 * ID_BYTES)
    }
}
