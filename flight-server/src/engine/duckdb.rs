//! A safe face of DuckDB's C API: the only module with `unsafe` code.
//!
//! The `duckdb` crate's streaming iterator panics when DuckDB fails in mid-stream and tells no error types, and it can't
//! describe a prepared statement without running it; so this module calls the crate's C bindings itself. Result chunks
//! cross as Arrow arrays through the C data interface, without a copy on our side.

#![expect(unsafe_code, reason = "calls DuckDB's C API; every block says why it is sound")]

mod hidden;
mod log;
mod types;

pub(crate) use hidden::HiddenSet;
use hidden::HiddenSets;

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{RecordBatch, StructArray};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi};
use duckdb::ffi;

use super::sql_type::SqlType;
use types::{LogicalType, sql_type, unsendable};

/// What kind of failure DuckDB reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum DuckErrorKind {
    /// The statement can't be bound: unknown column, type clash.
    Binder,
    /// The text isn't SQL.
    Parser,
    /// A value can't be converted, or the arguments of a function make no sense: the query's data or constants.
    Value,
    OutOfMemory,
    Interrupted,
    /// The statement failed, DuckDB lost the error, and the error didn't come back: see [`Stream::cause`].
    Lost,
    /// A file or object can't be read.
    Io,
    Permission,
    Other,
}

/// An error of DuckDB.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct DuckError {
    pub(crate) kind: DuckErrorKind,
    pub(crate) message: String,
}

impl DuckError {
    fn new(message: String) -> Self {
        // A statement that failed before its rows were asked for hides its error in another one.
        const WRAPPING: &str = "Attempting to execute an unsuccessful or closed pending query result\nError: ";
        let message = message.split_once(WRAPPING).map_or(message.as_str(), |(_, error)| error).to_owned();
        let message = in_words(message);
        const KINDS: [(&str, DuckErrorKind); 17] = [
            ("Binder Error", DuckErrorKind::Binder),
            ("Catalog Error", DuckErrorKind::Binder),
            ("Parser Error", DuckErrorKind::Parser),
            // Of a pattern, or of anything else that a value is the text of.
            ("Syntax Error", DuckErrorKind::Value),
            ("Conversion Error", DuckErrorKind::Value),
            ("Out of Range Error", DuckErrorKind::Value),
            ("Invalid Input Error", DuckErrorKind::Value),
            ("Invalid type Error", DuckErrorKind::Value),
            ("Mismatch Type Error", DuckErrorKind::Value),
            ("Divide by Zero Error", DuckErrorKind::Value),
            ("Not implemented Error", DuckErrorKind::Value),
            ("Out of Memory Error", DuckErrorKind::OutOfMemory),
            ("INTERRUPT Error", DuckErrorKind::Interrupted),
            ("IO Error", DuckErrorKind::Io),
            ("HTTP Error", DuckErrorKind::Io),
            ("Permission Error", DuckErrorKind::Permission),
            ("Parameter Not Allowed Error", DuckErrorKind::Binder),
        ];
        let kind = KINDS
            .iter()
            .find(|(prefix, _)| message.starts_with(prefix))
            .map_or(DuckErrorKind::Other, |(_, kind)| *kind);
        Self { kind, message }
    }

    /// The error of an error object, which may keep its kind beside the message only, as those of appenders do.
    fn of_type(message: String, kind: ffi::duckdb_error_type) -> Self {
        let mut error = Self::new(message);
        if error.kind == DuckErrorKind::Other {
            error.kind = match kind {
                ffi::duckdb_error_type_DUCKDB_ERROR_OUT_OF_MEMORY => DuckErrorKind::OutOfMemory,
                ffi::duckdb_error_type_DUCKDB_ERROR_INTERRUPT => DuckErrorKind::Interrupted,
                ffi::duckdb_error_type_DUCKDB_ERROR_IO => DuckErrorKind::Io,
                _ => error.hidden_by_commit(),
            };
        }
        error
    }

    /// The kind of what made a commit fail. DuckDB 1.5.5 calls that an error of the transaction and keeps the text alone, so
    /// a temporary table that finds no room is known by what the buffer manager says.
    fn hidden_by_commit(&self) -> DuckErrorKind {
        const NO_ROOM: [&str; 6] = [
            "could not allocate block",
            "failed to allocate data",
            "failed to offload data block",
            "failed to pin block",
            "failed to reserve memory",
            "failed to resize block",
        ];
        if NO_ROOM.iter().any(|sign| self.message.contains(sign)) {
            DuckErrorKind::OutOfMemory
        } else if self.message.contains("duckdb_temp_") {
            DuckErrorKind::Io
        } else {
            DuckErrorKind::Other
        }
    }

    /// The error of a statement that was bound already. Some functions look at their arguments' types only when they are
    /// called, and call what they find a failure to bind.
    fn while_running(mut self) -> Self {
        if matches!(self.kind, DuckErrorKind::Binder | DuckErrorKind::Parser) {
            self.kind = DuckErrorKind::Value;
        }
        self
    }

    /// The message without DuckDB's leading kind and without its excerpt of the statement.
    pub(crate) fn text(&self) -> &str {
        // After an error of its own code DuckDB prints the stack, which are addresses of this process.
        const EXTRAS: [&str; 4] =
            ["\n\nLINE ", "\n\nStack Trace:", "\nStack Trace:", "\nThis error signals an assertion"];
        let cut = EXTRAS.iter().filter_map(|extra| self.message.find(extra)).min();
        let text = &self.message[..cut.unwrap_or(self.message.len())];
        let text = text.split_once(" Error: ").map_or(text, |(_, text)| text);
        text.trim()
    }

    /// Where the statement is wrong: the byte offset that DuckDB's excerpt (`LINE 1: …` with a caret) points at, for a
    /// statement `sql` that DuckDB got as it is.
    pub(crate) fn position(&self, sql: &str) -> Option<usize> {
        let (_, excerpt) = self.message.split_once("\nLINE ")?;
        let mut lines = excerpt.lines();
        let line = lines.next()?;
        let caret = lines.next()?.find('^')?;
        let (number, shown) = line.split_once(": ")?;
        let before = caret.checked_sub("LINE ".len() + number.len() + ": ".len())?;
        let line_start = match number.parse::<usize>().ok()?.checked_sub(1)? {
            0 => 0,
            lines_before => sql.match_indices('\n').nth(lines_before - 1)?.0 + 1,
        };
        // A long line is shown in part, between dots.
        let sql_line = sql[line_start..].lines().next()?;
        let shown_body = shown.trim_start_matches("...");
        let cut = shown.len() - shown_body.len();
        let shown_body = shown_body.trim_end_matches("...");
        let offset_of_shown = sql_line.find(shown_body)?;
        let within = before.checked_sub(cut)?;
        let bytes: usize = shown_body.chars().take(within).map(char::len_utf8).sum();
        Some(line_start + offset_of_shown + bytes)
    }
}

/// The words of an error that DuckDB gives as JSON, as it does where an exception passes through its C API untouched.
/// What else the JSON holds (places, candidates, the stack) is for programs.
fn in_words(message: String) -> String {
    let Some(start) = message.find("{\"exception_type\":") else { return message };
    let mut documents = serde_json::Deserializer::from_str(&message[start..]).into_iter::<serde_json::Value>();
    let Some(Ok(error)) = documents.next() else { return message };
    let part = |name: &str| error[name].as_str().unwrap_or_default();
    in_words(format!("{} Error: {}", part("exception_type"), part("exception_message")))
}

/// A DuckDB instance in memory.
#[derive(Debug)]
pub(crate) struct Database {
    raw: ffi::duckdb_database,
    /// What scans of running statements leave out.
    hidden: Arc<HiddenSets>,
}

// SAFETY: a duckdb_database is a shared pointer to a DatabaseInstance, which DuckDB documents as thread-safe.
unsafe impl Send for Database {}
// SAFETY: as above; the only call through a shared reference is duckdb_connect.
unsafe impl Sync for Database {}

#[derive(Debug)]
struct RawConnection {
    raw: ffi::duckdb_connection,
    /// Whether somebody asked for an interrupt, ever.
    interrupted: AtomicBool,
    database: Arc<Database>,
}

// SAFETY: DuckDB locks a connection's context for every call; duckdb_interrupt is made to be called from other threads.
unsafe impl Send for RawConnection {}
// SAFETY: as above.
unsafe impl Sync for RawConnection {}

/// A connection: temporary tables and one running statement of its own.
#[derive(Debug)]
pub(crate) struct Connection {
    raw: Arc<RawConnection>,
}

/// Interrupts whatever its connection runs, from any thread.
#[derive(Debug, Clone)]
pub(crate) struct InterruptHandle {
    raw: Arc<RawConnection>,
}

/// Interrupts whatever its connection runs when it is dropped before [`InterruptGuard::finish`].
#[derive(Debug)]
#[must_use]
pub(crate) struct InterruptGuard {
    handle: InterruptHandle,
    is_finished: bool,
}

/// An operator of a statement that has ended, with what DuckDB measured.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ProfileNode {
    /// Such as `HASH_JOIN`; empty at the root.
    pub(crate) name: String,
    /// Rows that left the operator.
    pub(crate) rows: u64,
    /// Time of all threads in it.
    pub(crate) ms: f64,
    /// DuckDB's notes as it prints a map: `{key=value, 'another key'='a value'}`.
    pub(crate) info: String,
    pub(crate) children: Vec<ProfileNode>,
}

impl ProfileNode {
    /// The node and what is under it, with DuckDB's notes as they are.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let children: Vec<_> = self.children.iter().map(Self::to_json).collect();
        serde_json::json!({"name": self.name, "rows": self.rows, "ms": self.ms, "info": self.info, "children": children})
    }
}

/// A parameter of a prepared statement.
#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    /// One field with the type that is inferred; `None` when DuckDB can't tell.
    pub(crate) schema: Option<SchemaRef>,
    /// The same type, when values can be bound as it.
    pub(crate) sql_type: Option<SqlType>,
}

/// A prepared statement.
#[derive(Debug)]
pub(crate) struct Prepared {
    raw: ffi::duckdb_prepared_statement,
    connection: Arc<RawConnection>,
}

// SAFETY: the statement is owned by one value and used by one thread at a time.
unsafe impl Send for Prepared {}

/// A running statement: chunks come as DuckDB makes them.
#[derive(Debug)]
pub(crate) struct Stream {
    result: ffi::duckdb_result,
    options: ffi::duckdb_arrow_options,
    /// The types of the result, in the form that Arrow arrays are imported with.
    ffi_schema: FFI_ArrowSchema,
    schema: SchemaRef,
    done: bool,
    sql: String,
    connection: Arc<RawConnection>,
}

// SAFETY: the result is owned by one value and used by one thread at a time.
unsafe impl Send for Stream {}

fn c_string(text: &str) -> Result<CString, DuckError> {
    CString::new(text).map_err(|_| DuckError::new("Parser Error: the text holds a NUL character".to_owned()))
}

/// Copies a C string that DuckDB owns.
///
/// # Safety
/// `text` is null or a valid C string.
unsafe fn owned(text: *const c_char) -> String {
    if text.is_null() {
        return "unknown error".to_owned();
    }
    // SAFETY: not null, and valid by the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Takes an error object of DuckDB.
///
/// # Safety
/// `data` is null or an error object that nobody else destroys.
unsafe fn check(mut data: ffi::duckdb_error_data) -> Result<(), DuckError> {
    if data.is_null() {
        return Ok(());
    }
    // SAFETY: valid by the caller's promise; destroyed exactly once.
    unsafe {
        let failed = ffi::duckdb_error_data_has_error(data);
        let message = if failed { owned(ffi::duckdb_error_data_message(data)) } else { String::new() };
        let kind = ffi::duckdb_error_data_error_type(data);
        ffi::duckdb_destroy_error_data(&mut data);
        if failed { Err(DuckError::of_type(message, kind)) } else { Ok(()) }
    }
}

impl Database {
    /// Opens an instance in memory.
    pub(crate) fn open(settings: &[(&str, String)]) -> Result<Arc<Self>, DuckError> {
        let settings = settings
            .iter()
            .map(|(name, value)| Ok((c_string(name)?, c_string(value)?, format!("{name} = {value}"))))
            .collect::<Result<Vec<_>, DuckError>>()?;
        let mut config: ffi::duckdb_config = ptr::null_mut();
        // SAFETY: duckdb_create_config fills the pointer or fails. From there the config is destroyed before every return,
        // and nothing between returns but what does so itself.
        unsafe {
            if ffi::duckdb_create_config(&mut config) != ffi::DuckDBSuccess {
                return Err(DuckError::new("cannot create a DuckDB configuration".to_owned()));
            }
            for (name, value, setting) in &settings {
                if ffi::duckdb_set_config(config, name.as_ptr(), value.as_ptr()) != ffi::DuckDBSuccess {
                    ffi::duckdb_destroy_config(&mut config);
                    return Err(DuckError::new(format!("DuckDB doesn't take the setting {setting}")));
                }
            }
            let mut raw: ffi::duckdb_database = ptr::null_mut();
            let mut error: *mut c_char = ptr::null_mut();
            let state = ffi::duckdb_open_ext(ptr::null(), &mut raw, config, &mut error);
            ffi::duckdb_destroy_config(&mut config);
            if state != ffi::DuckDBSuccess {
                let message = owned(error);
                ffi::duckdb_free(error.cast());
                return Err(DuckError::new(message));
            }
            Ok(Arc::new(Self { raw, hidden: Arc::default() }))
        }
    }

    pub(crate) fn connect(self: &Arc<Self>) -> Result<Connection, DuckError> {
        let mut raw: ffi::duckdb_connection = ptr::null_mut();
        // SAFETY: the database is open as long as `self` lives; the pointer is filled on success.
        if unsafe { ffi::duckdb_connect(self.raw, &mut raw) } != ffi::DuckDBSuccess {
            return Err(DuckError::new("cannot connect to DuckDB".to_owned()));
        }
        Ok(Connection {
            raw: Arc::new(RawConnection { raw, interrupted: AtomicBool::new(false), database: Arc::clone(self) }),
        })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once; connections keep the database alive through their Arc.
        unsafe { ffi::duckdb_close(&mut self.raw) }
    }
}

impl Drop for RawConnection {
    fn drop(&mut self) {
        self.database.hidden.forget(self);
        // SAFETY: connected once, disconnected once; statements and results keep the connection alive.
        unsafe { ffi::duckdb_disconnect(&mut self.raw) }
    }
}

impl RawConnection {
    fn execute(&self, sql: &str) -> Result<(), DuckError> {
        let sql = c_string(sql)?;
        // SAFETY: a zeroed duckdb_result is what the call expects; it is destroyed on every path.
        unsafe {
            let mut result: ffi::duckdb_result = std::mem::zeroed();
            let state = ffi::duckdb_query(self.raw, sql.as_ptr(), &mut result);
            let error = (state != ffi::DuckDBSuccess).then(|| owned(ffi::duckdb_result_error(&mut result)));
            ffi::duckdb_destroy_result(&mut result);
            error.map_or(Ok(()), |message| Err(DuckError::new(message)))
        }
    }
}

impl InterruptHandle {
    pub(crate) fn interrupt(&self) {
        self.raw.interrupted.store(true, Ordering::Release);
        // SAFETY: the connection is open as long as `self` lives, and DuckDB allows this from any thread.
        unsafe { ffi::duckdb_interrupt(self.raw.raw) }
    }
}

impl Drop for InterruptGuard {
    fn drop(&mut self) {
        if !self.is_finished {
            self.handle.interrupt();
        }
    }
}

impl InterruptGuard {
    /// Nothing is left to interrupt.
    pub(crate) fn finish(mut self) {
        self.is_finished = true;
    }
}

impl Connection {
    pub(crate) fn interrupt_handle(&self) -> InterruptHandle {
        InterruptHandle { raw: Arc::clone(&self.raw) }
    }

    /// For who waits for a statement on another thread: interrupts it when dropped.
    pub(crate) fn interrupt_on_drop(&self) -> InterruptGuard {
        InterruptGuard { handle: self.interrupt_handle(), is_finished: false }
    }

    /// Runs statements and forgets their results.
    pub(crate) fn execute(&self, sql: &str) -> Result<(), DuckError> {
        self.raw.execute(sql)
    }

    /// What scans of the next statements leave out by position: `tc_hidden(set, file, row)` asks the set of this number.
    pub(crate) fn hide(&self, sets: Vec<HiddenSet>) {
        self.raw.database.hidden.set(&self.raw, sets);
    }

    /// Prepares one statement: parses and binds it, runs nothing.
    pub(crate) fn prepare(&self, sql: &str) -> Result<Prepared, DuckError> {
        let sql = c_string(sql)?;
        let mut raw: ffi::duckdb_prepared_statement = ptr::null_mut();
        // SAFETY: the connection is open; the statement is destroyed by Prepared, also after a failure.
        unsafe {
            let state = ffi::duckdb_prepare(self.raw.raw, sql.as_ptr(), &mut raw);
            let prepared = Prepared { raw, connection: Arc::clone(&self.raw) };
            if state != ffi::DuckDBSuccess {
                return Err(DuckError::new(owned(ffi::duckdb_prepare_error(prepared.raw))));
            }
            Ok(prepared)
        }
    }

    /// Runs one statement as a stream.
    pub(crate) fn stream(&self, sql: &str) -> Result<Stream, DuckError> {
        self.prepare(sql)?.stream(sql)
    }

    /// Runs one statement as a stream over tables that others write meanwhile. A plan rests on how far the values of a table
    /// reached when it was bound, and drops the conditions that all of them met (duckdb/duckdb#23704): so what it is bound over
    /// must be what it reads. The transaction stays open as long as the connection.
    pub(crate) fn stream_of_one_snapshot(&self, sql: &str) -> Result<Stream, DuckError> {
        self.execute("BEGIN")?;
        self.stream(sql)
    }

    /// All of a small result.
    pub(crate) fn query(&self, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), DuckError> {
        let mut stream = self.stream(sql)?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next()? {
            batches.push(batch);
        }
        Ok((Arc::clone(&stream.schema), batches))
    }

    /// What the last statement of a connection that profiles has measured; its stream must be gone.
    pub(crate) fn profile(&self) -> Option<ProfileNode> {
        // SAFETY: the connection is open; the info lives in it until its next statement, which `&self` on one thread
        // doesn't start meanwhile. A null info is checked.
        unsafe {
            let info = ffi::duckdb_get_profiling_info(self.raw.raw);
            (!info.is_null()).then(|| profile_node(info))
        }
    }

    /// Appends a batch to a temporary table whose columns have the batch's types.
    pub(crate) fn append(&self, table: &str, batch: &RecordBatch) -> Result<(), DuckError> {
        // DuckDB's vectors hold 2,048 values.
        const VECTOR: usize = 2048;
        let appender = Appender::open(&self.raw, table)?;
        let schema = ArrowImport::new(&self.raw, batch.schema_ref())?;
        for offset in (0..batch.num_rows()).step_by(VECTOR) {
            let part = batch.slice(offset, VECTOR.min(batch.num_rows() - offset));
            appender.append(&schema, &part)?;
        }
        appender.finish()
    }
}

/// Copies a node of a profile and what is under it.
///
/// # Safety
/// `info` is a profile's node that is alive.
unsafe fn profile_node(info: ffi::duckdb_profiling_info) -> ProfileNode {
    // SAFETY: valid by the caller's promise; values are destroyed and texts freed once; children live in their parent.
    unsafe {
        let metric = |key: &CStr| {
            let mut value = ffi::duckdb_profiling_info_get_value(info, key.as_ptr());
            if value.is_null() {
                return String::new();
            }
            let text = ffi::duckdb_get_varchar(value);
            let copy = if text.is_null() { String::new() } else { owned(text) };
            ffi::duckdb_free(text.cast());
            ffi::duckdb_destroy_value(&mut value);
            copy.trim_matches('"').to_owned()
        };
        let count = ffi::duckdb_profiling_info_get_child_count(info);
        ProfileNode {
            name: metric(c"OPERATOR_NAME").trim().to_owned(),
            rows: metric(c"OPERATOR_CARDINALITY").parse().unwrap_or(0),
            ms: metric(c"OPERATOR_TIMING").parse().map_or(0.0, |seconds: f64| seconds * 1000.0),
            info: metric(c"EXTRA_INFO"),
            children: (0..count).map(|index| profile_node(ffi::duckdb_profiling_info_get_child(info, index))).collect(),
        }
    }
}

struct Appender<'a> {
    raw: ffi::duckdb_appender,
    connection: &'a RawConnection,
}

impl<'a> Appender<'a> {
    fn open(connection: &'a RawConnection, table: &str) -> Result<Self, DuckError> {
        let table = c_string(table)?;
        let mut appender = Self { raw: ptr::null_mut(), connection };
        // SAFETY: the connection is open; the strings live through the call; Drop destroys the appender on every path.
        let state = unsafe {
            ffi::duckdb_appender_create_ext(
                connection.raw,
                c"temp".as_ptr(),
                c"main".as_ptr(),
                table.as_ptr(),
                &mut appender.raw,
            )
        };
        appender.check(state)?;
        Ok(appender)
    }

    fn check(&self, state: ffi::duckdb_state) -> Result<(), DuckError> {
        if state == ffi::DuckDBSuccess {
            return Ok(());
        }
        // SAFETY: the error object is taken and destroyed by `check`.
        unsafe { check(ffi::duckdb_appender_error_data(self.raw)) }?;
        Err(DuckError::new("cannot append to a temporary table".to_owned()))
    }

    fn append(&self, schema: &ArrowImport, batch: &RecordBatch) -> Result<(), DuckError> {
        let data = arrow::array::ArrayData::from(StructArray::from(batch.clone()));
        let mut array = FFI_ArrowArray::new(&data);
        let mut chunk: ffi::duckdb_data_chunk = ptr::null_mut();
        // SAFETY: both structs follow the Arrow C data interface. DuckDB takes what it needs of `array` and leaves a
        // released struct behind, or leaves it to us on failure; FFI_ArrowArray's Drop handles both.
        unsafe {
            check(ffi::duckdb_data_chunk_from_arrow(
                self.connection.raw,
                (&raw mut array).cast(),
                schema.raw,
                &mut chunk,
            ))?;
            let state = ffi::duckdb_append_data_chunk(self.raw, chunk);
            ffi::duckdb_destroy_data_chunk(&mut chunk);
            self.check(state)
        }
    }

    fn finish(self) -> Result<(), DuckError> {
        // SAFETY: the appender is open; Drop destroys it afterwards.
        let state = unsafe { ffi::duckdb_appender_flush(self.raw) };
        self.check(state)
    }
}

impl Drop for Appender<'_> {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once; a null appender is accepted.
        unsafe {
            ffi::duckdb_appender_destroy(&mut self.raw);
        }
    }
}

/// Arrow types as DuckDB imports them.
struct ArrowImport {
    raw: ffi::duckdb_arrow_converted_schema,
}

impl ArrowImport {
    fn new(connection: &RawConnection, schema: &Schema) -> Result<Self, DuckError> {
        let mut exported = FFI_ArrowSchema::try_from(schema)
            .map_err(|error| DuckError::new(format!("cannot export an Arrow schema: {error}")))?;
        let mut import = Self { raw: ptr::null_mut() };
        // SAFETY: `exported` follows the Arrow C data interface and outlives the call; its Drop releases it.
        unsafe {
            check(ffi::duckdb_schema_from_arrow(connection.raw, (&raw mut exported).cast(), &mut import.raw))?;
        }
        Ok(import)
    }
}

impl Drop for ArrowImport {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once; null is accepted.
        unsafe { ffi::duckdb_destroy_arrow_converted_schema(&mut self.raw) }
    }
}

struct ArrowOptions(ffi::duckdb_arrow_options);

impl Drop for ArrowOptions {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once.
        unsafe { ffi::duckdb_destroy_arrow_options(&mut self.0) }
    }
}

/// The Arrow schema of columns with DuckDB types.
///
/// # Safety
/// `options` is valid, and so is every type.
unsafe fn arrow_schema(
    options: ffi::duckdb_arrow_options,
    types: &[LogicalType],
    names: &[CString],
) -> Result<(FFI_ArrowSchema, SchemaRef), DuckError> {
    let mut exported = FFI_ArrowSchema::empty();
    let mut types: Vec<_> = types.iter().map(|logical| logical.0).collect();
    let mut names: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: both arrays have the given length; `exported` is filled following the Arrow C data interface.
    unsafe {
        check(ffi::duckdb_to_arrow_schema(
            options,
            types.as_mut_ptr(),
            names.as_mut_ptr(),
            types.len() as ffi::idx_t,
            (&raw mut exported).cast(),
        ))?;
    }
    let schema = Schema::try_from(&exported)
        .map_err(|error| DuckError::new(format!("a column has a type that Arrow has no counterpart for: {error}")))?;
    Ok((exported, Arc::new(schema)))
}

/// The first column whose type DuckDB can't export, as a geometry with a reference system.
///
/// # Safety
/// As of [`arrow_schema`].
unsafe fn name_column(
    options: ffi::duckdb_arrow_options,
    types: &[LogicalType],
    names: &[CString],
) -> Option<DuckError> {
    types.iter().zip(names).find_map(|(logical, name)| {
        // SAFETY: by the caller's promise.
        let error =
            unsafe { arrow_schema(options, std::slice::from_ref(logical), std::slice::from_ref(name)) }.err()?;
        Some(DuckError::new(format!(
            "Binder Error: the type of the column `{}` can't be sent as Arrow ({}); write CAST(… AS VARCHAR)",
            name.to_string_lossy(),
            error.text()
        )))
    })
}

impl Prepared {
    /// The schema of the result, as the running statement would give it; `None` when it hangs on parameters whose types
    /// can't be inferred.
    pub(crate) fn schema(&self) -> Result<Option<SchemaRef>, DuckError> {
        // SAFETY: the statement is valid; every object that the calls return is owned here and freed once.
        unsafe {
            let mut options = ArrowOptions(ptr::null_mut());
            ffi::duckdb_connection_get_arrow_options(self.connection.raw, &mut options.0);
            let count = ffi::duckdb_prepared_statement_column_count(self.raw);
            let mut types = Vec::new();
            let mut names = Vec::new();
            for index in 0..count {
                let logical = LogicalType(ffi::duckdb_prepared_statement_column_logical_type(self.raw, index));
                if logical.0.is_null() || ffi::duckdb_get_type_id(logical.0) == ffi::DUCKDB_TYPE_DUCKDB_TYPE_INVALID {
                    return Ok(None);
                }
                types.push(logical);
                let name = ffi::duckdb_prepared_statement_column_name(self.raw, index);
                names.push(if name.is_null() { CString::default() } else { CStr::from_ptr(name).to_owned() });
                ffi::duckdb_free(name.cast_mut().cast());
            }
            for (logical, name) in types.iter().zip(&names) {
                if let Some(type_name) = unsendable(logical) {
                    return Err(DuckError::new(format!(
                        "Binder Error: the column `{}` is a {type_name}, which no type of Arrow holds; write CAST(… AS VARCHAR)",
                        name.to_string_lossy()
                    )));
                }
            }
            match arrow_schema(options.0, &types, &names) {
                Ok((_, schema)) => Ok(Some(schema)),
                // A parameter inside a struct or a list leaves a type that Arrow can't hold.
                Err(_) if ffi::duckdb_nparams(self.raw) > 0 => Ok(None),
                Err(error) => Err(name_column(options.0, &types, &names).unwrap_or(error)),
            }
        }
    }

    /// The parameters in order.
    pub(crate) fn parameters(&self) -> Result<Vec<Parameter>, DuckError> {
        // SAFETY: as in `schema`; parameter indexes start at 1.
        unsafe {
            let mut options = ArrowOptions(ptr::null_mut());
            ffi::duckdb_connection_get_arrow_options(self.connection.raw, &mut options.0);
            let mut parameters = Vec::new();
            for index in 1..=ffi::duckdb_nparams(self.raw) {
                let name = ffi::duckdb_parameter_name(self.raw, index);
                let text = owned(name);
                ffi::duckdb_free(name.cast_mut().cast());
                let logical = LogicalType(ffi::duckdb_param_logical_type(self.raw, index));
                let known = !logical.0.is_null()
                    && !matches!(
                        ffi::duckdb_get_type_id(logical.0),
                        ffi::DUCKDB_TYPE_DUCKDB_TYPE_INVALID
                            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_ANY
                            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_SQLNULL
                    );
                let schema = if known && unsendable(&logical).is_none() {
                    Some(arrow_schema(options.0, std::slice::from_ref(&logical), &[CString::default()])?.1)
                } else {
                    None
                };
                let sql_type = if known { sql_type(&logical) } else { None };
                parameters.push(Parameter { name: text, schema, sql_type });
            }
            Ok(parameters)
        }
    }

    /// Runs the statement as a stream. `sql` is its text.
    fn stream(self, sql: &str) -> Result<Stream, DuckError> {
        // SAFETY: a zeroed duckdb_result is what the call expects. From here on Stream owns the result and destroys it.
        unsafe {
            let mut result: ffi::duckdb_result = std::mem::zeroed();
            let state = ffi::duckdb_execute_prepared_streaming(self.raw, &mut result);
            if state != ffi::DuckDBSuccess {
                let message = owned(ffi::duckdb_result_error(&mut result));
                ffi::duckdb_destroy_result(&mut result);
                return Err(DuckError::new(message).while_running());
            }
            let options = ffi::duckdb_result_get_arrow_options(&mut result);
            let mut stream = Stream {
                result,
                options,
                ffi_schema: FFI_ArrowSchema::empty(),
                schema: Arc::new(Schema::empty()),
                done: false,
                sql: sql.to_owned(),
                connection: Arc::clone(&self.connection),
            };
            let count = ffi::duckdb_column_count(&mut stream.result);
            let mut types = Vec::new();
            let mut names = Vec::new();
            for index in 0..count {
                types.push(LogicalType(ffi::duckdb_column_logical_type(&mut stream.result, index)));
                names.push(CStr::from_ptr(ffi::duckdb_column_name(&mut stream.result, index)).to_owned());
            }
            (stream.ffi_schema, stream.schema) = arrow_schema(options, &types, &names)?;
            Ok(stream)
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once; null is accepted.
        unsafe { ffi::duckdb_destroy_prepare(&mut self.raw) }
    }
}

impl Stream {
    /// The next chunk (about 2,048 rows), or `None` after the last one.
    pub(crate) fn next(&mut self) -> Result<Option<RecordBatch>, DuckError> {
        if self.done {
            return Ok(None);
        }
        // SAFETY: the result is open. A null chunk is the end or an error, which the result then tells. The chunk is
        // destroyed after its conversion; the exported array follows the Arrow C data interface and owns its buffers.
        unsafe {
            let mut chunk = ffi::duckdb_fetch_chunk(self.result);
            if chunk.is_null() {
                self.done = true;
                let error = ffi::duckdb_result_error(&mut self.result);
                if !error.is_null() && !CStr::from_ptr(error).is_empty() {
                    return Err(self.cause(DuckError::new(owned(error)).while_running()));
                }
                return Ok(None);
            }
            if ffi::duckdb_data_chunk_get_size(chunk) == 0 {
                ffi::duckdb_destroy_data_chunk(&mut chunk);
                self.done = true;
                return Ok(None);
            }
            let rows = ffi::duckdb_data_chunk_get_size(chunk);
            if let Err(error) = types::check_intervals(chunk, &self.schema) {
                ffi::duckdb_destroy_data_chunk(&mut chunk);
                return Err(error);
            }
            let mut array = FFI_ArrowArray::empty();
            let converted = check(ffi::duckdb_data_chunk_to_arrow(self.options, chunk, (&raw mut array).cast()));
            ffi::duckdb_destroy_data_chunk(&mut chunk);
            converted?;
            let data = from_ffi(array, &self.ffi_schema)
                .map_err(|error| DuckError::new(format!("cannot import a result chunk: {error}")))?;
            let columns = StructArray::from(data);
            types::check_values(&columns, &self.schema)?;
            let rows = usize::try_from(rows).unwrap_or_default();
            RecordBatch::try_new_with_options(
                Arc::clone(&self.schema),
                columns.columns().to_vec(),
                &arrow::array::RecordBatchOptions::new().with_row_count(Some(rows)),
            )
            .map(Some)
            .map_err(|error| DuckError::new(format!("cannot import a result chunk: {error}")))
        }
    }
}

impl Stream {
    /// The cause of an interrupt that nobody asked for.
    ///
    /// When a statement fails in one of DuckDB's own threads while its reader is busy elsewhere, DuckDB 1.5 answers the
    /// reader's next call with "Interrupted!" and drops the error: the failing thread raises the flag of interrupts to
    /// stop the others (<https://github.com/duckdb/duckdb/pull/10337>), and `SimpleBufferedData::ExecuteTaskInternal`
    /// looks at the flag before it looks for an error. A statement that isn't streamed keeps its error: so this one runs
    /// once more, with its rows thrown away, to fail as it did.
    fn cause(&self, error: DuckError) -> DuckError {
        if error.kind != DuckErrorKind::Interrupted || self.connection.interrupted.load(Ordering::Acquire) {
            return error;
        }
        let again = format!("EXPLAIN ANALYZE {}", self.sql);
        let outcome = match self.connection.execute(&again) {
            // An interrupt ends the transaction that it falls in.
            Err(error) if error.message.contains("Current transaction is aborted") => {
                self.connection.execute("ROLLBACK").and_then(|()| self.connection.execute(&again))
            }
            outcome => outcome,
        };
        match outcome {
            // What can't be explained was bound before: its error would be about `EXPLAIN`.
            Err(cause) if !matches!(cause.kind, DuckErrorKind::Parser | DuckErrorKind::Binder) => cause,
            _ => DuckError {
                kind: DuckErrorKind::Lost,
                message: "the statement failed once, and not again when it was tried: send the query again".to_owned(),
            },
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: both are owned and destroyed once.
        unsafe {
            ffi::duckdb_destroy_arrow_options(&mut self.options);
            ffi::duckdb_destroy_result(&mut self.result);
        }
    }
}

#[cfg(test)]
mod tests;
