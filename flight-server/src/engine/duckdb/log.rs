//! DuckDB's log, entry by entry, without keeping any of it.

use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use duckdb::ffi;

use super::{Connection, Database, DuckError};

/// Takes the text of a log entry. Called from DuckDB's threads, several at once.
type Listener = Box<dyn Fn(&str) + Send + Sync>;

const STORAGE: &str = "listener";

impl Database {
    /// Hands each HTTP request that this instance makes from here on to `listener`, as DuckDB's log writes it. Once an
    /// instance, before it is locked down.
    ///
    /// # Errors
    /// DuckDB refuses the log.
    pub(crate) fn listen_to_http(
        &self,
        connection: &Connection,
        listener: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<(), DuckError> {
        let listener: Box<Listener> = Box::new(Box::new(listener));
        let name = std::ffi::CString::new(STORAGE).map_err(|_| DuckError::new("a NUL character".to_owned()))?;
        // SAFETY: the database is open. DuckDB owns the listener from `set_extra_data` on and frees it with `forget`
        // when it drops the storage; `destroy` frees only our handle of it.
        let state = unsafe {
            let mut storage = ffi::duckdb_create_log_storage();
            ffi::duckdb_log_storage_set_name(storage, name.as_ptr());
            ffi::duckdb_log_storage_set_write_log_entry(storage, Some(hear));
            ffi::duckdb_log_storage_set_extra_data(storage, Box::into_raw(listener).cast(), Some(forget));
            let state = ffi::duckdb_register_log_storage(self.raw, storage);
            ffi::duckdb_destroy_log_storage(&mut storage);
            state
        };
        if state != ffi::DuckDBSuccess {
            return Err(DuckError::new("cannot register a log storage".to_owned()));
        }
        connection.execute(&format!("CALL enable_logging('HTTP', storage = '{STORAGE}')"))
    }
}

/// # Safety
/// `listener` is what [`Database::listen_to_http`] registered; `message` is a valid C string.
unsafe extern "C" fn hear(
    listener: *mut c_void,
    _timestamp: *mut ffi::duckdb_timestamp,
    _level: *const c_char,
    _log_type: *const c_char,
    message: *const c_char,
) {
    if listener.is_null() || message.is_null() {
        return;
    }
    // SAFETY: by the caller's promise; the listener is shared and lives until `forget`.
    let (listener, message) = unsafe { (&*listener.cast::<Listener>(), CStr::from_ptr(message)) };
    // A panic must not unwind into DuckDB; there is nobody to tell of it.
    let _panic = catch_unwind(AssertUnwindSafe(|| listener(&message.to_string_lossy())));
}

/// # Safety
/// As for [`hear`], and called once.
unsafe extern "C" fn forget(listener: *mut c_void) {
    if !listener.is_null() {
        // SAFETY: made by `Box::into_raw` of a `Box<Listener>` and freed here alone.
        drop(unsafe { Box::from_raw(listener.cast::<Listener>()) });
    }
}
