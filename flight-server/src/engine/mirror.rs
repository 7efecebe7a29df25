//! Tables of the shared instance with versions of dirty rows (see [`translator::plan::MirrorTable`]).
//!
//! One writer changes them, in transactions; a version is added with the moment from which it is the row, and closed with
//! the moment from which it isn't any more. A query reads the versions of its own moment, whatever was closed or added since.
//! DuckDB keeps the tables within its memory limit and spills them like its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{AsArray, FixedSizeBinaryArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use translator::catalog::{Attribute, Entity};
use translator::emit::MIRROR_CATALOG;
use translator::quote::Ident;

use super::duckdb::{Connection, Database, DuckError, DuckErrorKind};
use super::temporary_table::create_temporary_table;

/// A version that nothing has closed.
const OPEN: &str = "9223372036854775807";
/// Where batches wait to become rows.
const STAGING: &str = "tc_staged";
const STAGED_IDS: &str = "tc_staged_ids";
const STAGED_BARE: &str = "tc_staged_bare";

/// The writer of mirror tables.
#[derive(Debug)]
pub(crate) struct MirrorStore {
    database: Arc<Database>,
    next: AtomicU64,
    dropped: Dropped,
}

type Dropped = Arc<Mutex<Vec<String>>>;

/// A table. When the last of its holders lets go of it, the store drops it with its next work.
#[derive(Debug)]
pub(crate) struct MirrorHandle {
    pub(crate) name: String,
    dropped: Dropped,
}

/// New versions on their way into a table, as the hot statement of its attributes gives them. They wait in DuckDB, not here.
#[derive(Debug)]
pub(crate) struct StagedRows {
    connection: Connection,
    is_empty: bool,
}

/// What a table keeps of an entity.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mirrored<'a> {
    pub(crate) entity: &'a Entity,
    /// Places of the attributes that are kept, in ascending order.
    pub(crate) attributes: &'a [usize],
}

/// What becomes of a table from one moment on, beside new versions.
#[derive(Debug, Default)]
pub(crate) struct MirrorChanges {
    /// Ids of dirty rows that are no row: live, without an `entity_main` row.
    pub(crate) bare: Vec<u128>,
    /// Ids whose version isn't the row any more: those with a new one, and those that are dirty no longer.
    pub(crate) closed: Vec<u128>,
}

impl StagedRows {
    pub(crate) fn push(&mut self, batch: &RecordBatch) -> Result<(), DuckError> {
        if self.is_empty {
            create_temporary_table(&self.connection, STAGING, batch.schema_ref())?;
            self.is_empty = false;
        }
        self.connection.append(STAGING, batch)
    }
}

impl Drop for MirrorHandle {
    fn drop(&mut self) {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.name));
    }
}

/// The schema of a column of ids, as DuckDB takes them.
fn ids_schema() -> Schema {
    Schema::new(vec![Field::new("row_id", DataType::FixedSizeBinary(16), false)])
}

fn ids_batch(ids: &[u128]) -> Result<RecordBatch, DuckError> {
    let bytes = ids.iter().map(|id| id.to_be_bytes());
    let array = FixedSizeBinaryArray::try_from_iter(bytes).map_err(|error| other(&error.to_string()))?;
    RecordBatch::try_new(Arc::new(ids_schema()), vec![Arc::new(array)]).map_err(|error| other(&error.to_string()))
}

fn table(name: &str) -> String {
    format!("{MIRROR_CATALOG}.main.{}", Ident(name))
}

impl MirrorStore {
    pub(super) fn new(database: &Arc<Database>) -> Self {
        Self { database: Arc::clone(database), next: AtomicU64::new(1), dropped: Dropped::default() }
    }

    /// A new, empty table of these attributes.
    pub(crate) fn create(&self, mirrored: Mirrored<'_>) -> Result<Arc<MirrorHandle>, DuckError> {
        let handle = self.handle(mirrored.entity.schema_id);
        let columns = mirrored.columns();
        let columns: Vec<String> =
            columns.map(|attribute| format!(", {} {}", Ident(&attribute.column), attribute.duckdb_type())).collect();
        self.connect()?.execute(&format!(
            "CREATE TABLE {} (row_id UUID, _tc_whole BOOLEAN, changed_at BIGINT, deleted_at BIGINT, created_at BIGINT{}, \
             _tc_from BIGINT, _tc_to BIGINT)",
            table(&handle.name),
            columns.concat()
        ))?;
        Ok(handle)
    }

    /// Room for new versions.
    pub(crate) fn stage(&self) -> Result<StagedRows, DuckError> {
        Ok(StagedRows { connection: self.connect()?, is_empty: true })
    }

    /// Adds and closes versions as of a moment, in one transaction.
    pub(crate) fn apply(
        &self,
        handle: &MirrorHandle,
        mirrored: Mirrored<'_>,
        staged: &StagedRows,
        changes: &MirrorChanges,
        moment: u64,
    ) -> Result<(), DuckError> {
        let connection = &staged.connection;
        stage_ids(connection, STAGED_IDS, &changes.closed)?;
        stage_ids(connection, STAGED_BARE, &changes.bare)?;
        let name = table(&handle.name);
        let mut sql = String::from("BEGIN;");
        if !changes.closed.is_empty() {
            sql.push_str(&format!(
                "UPDATE {name} SET _tc_to = {moment} WHERE _tc_to = {OPEN} AND row_id IN (SELECT CAST(row_id AS UUID) FROM \
                 temp.main.{STAGED_IDS});"
            ));
        }
        if !staged.is_empty {
            sql.push_str(&insert(&name, mirrored, moment));
        }
        if !changes.bare.is_empty() {
            sql.push_str(&format!(
                "INSERT INTO {name} (row_id, _tc_whole, changed_at, _tc_from, _tc_to) SELECT CAST(row_id AS UUID), false, 0, \
                 {moment}, {OPEN} FROM temp.main.{STAGED_BARE};"
            ));
        }
        sql.push_str("COMMIT");
        connection.execute(&sql)
    }

    /// A copy of a table without the versions that are closed. The copy has the rows of every moment from the last one on.
    pub(crate) fn rebuild(&self, handle: &MirrorHandle, entity: &Entity) -> Result<Arc<MirrorHandle>, DuckError> {
        let copy = self.handle(entity.schema_id);
        self.connect()?.execute(&format!(
            "CREATE TABLE {} AS SELECT * FROM {} WHERE _tc_to = {OPEN}",
            table(&copy.name),
            table(&handle.name)
        ))?;
        Ok(copy)
    }

    /// How many of these rows differ from the open versions of a table with the same ids, or have none.
    pub(crate) fn differences(
        &self,
        handle: &MirrorHandle,
        mirrored: Mirrored<'_>,
        rows: &StagedRows,
    ) -> Result<u64, DuckError> {
        if rows.is_empty {
            return Ok(0);
        }
        let same: Vec<String> = ["changed_at", "deleted_at", "created_at"]
            .into_iter()
            .map(|column| Ident(column).to_string())
            .chain(mirrored.columns().map(|attribute| Ident(&attribute.column).to_string()))
            .map(|column| format!("s.{column} IS NOT DISTINCT FROM m.{column}"))
            .collect();
        let sql = format!(
            "SELECT count(*)::BIGINT FROM (SELECT {} FROM temp.main.{STAGING}) s WHERE NOT EXISTS (SELECT 1 FROM {} m \
             WHERE m.row_id = s.row_id AND m._tc_to = {OPEN} AND m._tc_whole AND {})",
            staged_columns(mirrored),
            table(&handle.name),
            same.join(" AND ")
        );
        let (_, batches) = rows.connection.query(&sql)?;
        let count =
            batches.first().and_then(|batch| batch.column(0).as_primitive_opt::<Int64Type>()).map(|c| c.value(0));
        count.and_then(|count| u64::try_from(count).ok()).ok_or_else(|| other("a count returned no number"))
    }

    /// Drops the tables that nobody holds any more.
    pub(crate) fn sweep(&self) -> Result<(), DuckError> {
        let names = std::mem::take(&mut *self.dropped.lock().unwrap_or_else(PoisonError::into_inner));
        if names.is_empty() {
            return Ok(());
        }
        let connection = self.connect()?;
        names.iter().try_for_each(|name| connection.execute(&format!("DROP TABLE IF EXISTS {}", table(name))))
    }

    fn handle(&self, schema_id: i16) -> Arc<MirrorHandle> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Arc::new(MirrorHandle { name: format!("e{schema_id}_{number}"), dropped: Arc::clone(&self.dropped) })
    }

    fn connect(&self) -> Result<Connection, DuckError> {
        self.database.connect()
    }
}

impl<'a> Mirrored<'a> {
    fn columns(self) -> impl Iterator<Item = &'a Attribute> {
        self.attributes.iter().map(move |index| &self.entity.attributes[*index])
    }
}

fn stage_ids(connection: &Connection, table: &str, ids: &[u128]) -> Result<(), DuckError> {
    if ids.is_empty() {
        return Ok(());
    }
    create_temporary_table(connection, table, &ids_schema())?;
    connection.append(table, &ids_batch(ids)?)
}

/// The staged columns with the types of the table.
fn staged_columns(mirrored: Mirrored<'_>) -> String {
    let columns = mirrored.columns().map(|attribute| {
        let column = Ident(&attribute.column);
        format!(", CAST({column} AS {}) AS {column}", attribute.duckdb_type())
    });
    let columns: Vec<String> = columns.collect();
    format!("CAST(row_id AS UUID) AS row_id, changed_at, deleted_at, created_at{}", columns.concat())
}

fn insert(name: &str, mirrored: Mirrored<'_>, moment: u64) -> String {
    let attributes: Vec<String> =
        mirrored.columns().map(|attribute| format!(", {}", Ident(&attribute.column))).collect();
    format!(
        "INSERT INTO {name} (row_id, changed_at, deleted_at, created_at{}, _tc_whole, _tc_from, _tc_to) \
         SELECT {}, true, {moment}, {OPEN} FROM temp.main.{STAGING};",
        attributes.concat(),
        staged_columns(mirrored)
    )
}

fn other(message: &str) -> DuckError {
    DuckError { kind: DuckErrorKind::Other, message: message.to_owned() }
}

#[cfg(test)]
mod tests;
