//! `tc_hidden(set, file, row)`: whether a scan leaves a row of a file out, by its position.
//!
//! A statement's sets are put on its connection before it is prepared; binding takes them into the statement, so that what
//! it leaves out stays what it was for as long as it runs. A set has a bitmap for each file of one scan, in the scan's order:
//! `file` is DuckDB's `file_index` and `row` its `file_row_number`, or the `rowid` of a table that counts as one file.
//!
//! Against `get_bit` on a bitstring the statement stays small, and most vectors are dealt with at once: their rows follow
//! each other, and few of them are hidden.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use duckdb::ffi;
use roaring::RoaringBitmap;
use translator::emit::HIDDEN_FUNCTION;

use super::{Connection, Database, DuckError, LogicalType, RawConnection, c_string};

/// The positions that a scan leaves out, of each of its files in the scan's order.
pub(crate) type HiddenSet = Vec<Arc<RoaringBitmap>>;

/// Sets by the connection that they are for.
#[derive(Debug, Default)]
pub(super) struct HiddenSets(Mutex<HashMap<ffi::idx_t, Arc<Vec<HiddenSet>>>>);

impl HiddenSets {
    pub(super) fn set(&self, connection: &RawConnection, sets: Vec<HiddenSet>) {
        self.lock().insert(connection.id(), Arc::new(sets));
    }

    pub(super) fn forget(&self, connection: &RawConnection) {
        self.lock().remove(&connection.id());
    }

    fn of(&self, connection: ffi::idx_t) -> Arc<Vec<HiddenSet>> {
        self.lock().get(&connection).map(Arc::clone).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ffi::idx_t, Arc<Vec<HiddenSet>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RawConnection {
    /// DuckDB's number of the connection, which no other one of its instance ever has.
    fn id(&self) -> ffi::idx_t {
        let mut context: ffi::duckdb_client_context = std::ptr::null_mut();
        // SAFETY: the connection is open; the context is destroyed once.
        unsafe {
            ffi::duckdb_connection_get_client_context(self.raw, &mut context);
            let id = ffi::duckdb_client_context_get_connection_id(context);
            ffi::duckdb_destroy_client_context(&mut context);
            id
        }
    }
}

impl Database {
    /// Adds the function to the instance, for all of its connections.
    pub(crate) fn add_hidden_function(&self, connection: &Connection) -> Result<(), DuckError> {
        let name = c_string(HIDDEN_FUNCTION)?;
        let sets = Arc::into_raw(Arc::clone(&self.hidden));
        // SAFETY: the function and its types are destroyed once; DuckDB keeps a copy of the name. The extra info is an Arc
        // given away, which `drop_sets` takes back when DuckDB drops the function.
        let state = unsafe {
            let mut function = ffi::duckdb_create_scalar_function();
            ffi::duckdb_scalar_function_set_name(function, name.as_ptr());
            for parameter in [
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGINT,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_UBIGINT,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGINT,
            ] {
                let parameter = LogicalType(ffi::duckdb_create_logical_type(parameter));
                ffi::duckdb_scalar_function_add_parameter(function, parameter.0);
            }
            let boolean = LogicalType(ffi::duckdb_create_logical_type(ffi::DUCKDB_TYPE_DUCKDB_TYPE_BOOLEAN));
            ffi::duckdb_scalar_function_set_return_type(function, boolean.0);
            ffi::duckdb_scalar_function_set_extra_info(function, sets.cast_mut().cast(), Some(drop_sets));
            ffi::duckdb_scalar_function_set_bind(function, Some(bind));
            ffi::duckdb_scalar_function_set_function(function, Some(execute));
            let state = ffi::duckdb_register_scalar_function(connection.raw.raw, function);
            ffi::duckdb_destroy_scalar_function(&mut function);
            state
        };
        if state == ffi::DuckDBSuccess {
            return Ok(());
        }
        Err(DuckError::new(format!("cannot add the function {HIDDEN_FUNCTION} to DuckDB")))
    }
}

/// # Safety
/// `data` came from `Arc::into_raw` in [`Database::add_hidden_function`].
unsafe extern "C" fn drop_sets(data: *mut c_void) {
    // SAFETY: by the caller's promise; DuckDB calls this once.
    drop(unsafe { Arc::from_raw(data.cast::<HiddenSets>().cast_const()) });
}

/// Takes the sets of the statement's connection into the statement.
///
/// # Safety
/// DuckDB calls it for the function of [`Database::add_hidden_function`].
unsafe extern "C" fn bind(info: ffi::duckdb_bind_info) {
    // SAFETY: the extra info is the function's, which outlives this call; the context is destroyed once; the bind data is an
    // Arc given away, of which `copy_bound` makes more and which `drop_bound` takes back.
    unsafe {
        let sets = &*ffi::duckdb_scalar_function_bind_get_extra_info(info).cast::<HiddenSets>().cast_const();
        let mut context: ffi::duckdb_client_context = std::ptr::null_mut();
        ffi::duckdb_scalar_function_get_client_context(info, &mut context);
        let connection = ffi::duckdb_client_context_get_connection_id(context);
        ffi::duckdb_destroy_client_context(&mut context);
        let bound = Arc::into_raw(sets.of(connection));
        ffi::duckdb_scalar_function_set_bind_data(info, bound.cast_mut().cast(), Some(drop_bound));
        ffi::duckdb_scalar_function_set_bind_data_copy(info, Some(copy_bound));
    }
}

/// # Safety
/// `data` came from [`bind`] or [`copy_bound`].
unsafe extern "C" fn drop_bound(data: *mut c_void) {
    // SAFETY: by the caller's promise; DuckDB calls this once for each.
    drop(unsafe { Arc::from_raw(data.cast::<Vec<HiddenSet>>().cast_const()) });
}

/// # Safety
/// `data` came from [`bind`] or [`copy_bound`] and is alive.
unsafe extern "C" fn copy_bound(data: *mut c_void) -> *mut c_void {
    // SAFETY: by the caller's promise.
    unsafe { Arc::increment_strong_count(data.cast::<Vec<HiddenSet>>().cast_const()) };
    data
}

/// # Safety
/// DuckDB calls it for the function of [`Database::add_hidden_function`], with a chunk of its three parameters, flat, and a
/// vector of booleans as long.
unsafe extern "C" fn execute(
    info: ffi::duckdb_function_info,
    input: ffi::duckdb_data_chunk,
    output: ffi::duckdb_vector,
) {
    // SAFETY: DuckDB flattens the parameters for functions of this API, so that each has as many values as the chunk has
    // rows; the bind data lives as long as the statement.
    unsafe {
        let sets = &*ffi::duckdb_scalar_function_get_bind_data(info).cast::<Vec<HiddenSet>>().cast_const();
        let rows = usize::try_from(ffi::duckdb_data_chunk_get_size(input)).unwrap_or_default();
        let column = |index| ffi::duckdb_vector_get_data(ffi::duckdb_data_chunk_get_vector(input, index));
        let numbers = std::slice::from_raw_parts(column(0).cast::<i64>().cast_const(), rows);
        let files = std::slice::from_raw_parts(column(1).cast::<u64>().cast_const(), rows);
        let positions = std::slice::from_raw_parts(column(2).cast::<i64>().cast_const(), rows);
        let output = std::slice::from_raw_parts_mut(ffi::duckdb_vector_get_data(output).cast::<bool>(), rows);
        if mark(sets, numbers, files, positions, output).is_none() {
            // A row that nobody can judge must not pass as one that stays.
            ffi::duckdb_scalar_function_set_error(info, c"the positions of a scan are not known".as_ptr());
        }
    }
}

/// Judges rows, run by run of the same file; `None` when a file has no bitmap.
fn mark(sets: &[HiddenSet], numbers: &[i64], files: &[u64], positions: &[i64], output: &mut [bool]) -> Option<()> {
    let mut start = 0;
    while start < positions.len() {
        let file = (numbers[start], files[start]);
        let same = (start..positions.len()).take_while(|at| (numbers[*at], files[*at]) == file).count();
        let set = sets.get(usize::try_from(file.0).ok()?)?;
        let hidden = set.get(usize::try_from(file.1).ok()?)?;
        mark_run(hidden, &positions[start..start + same], &mut output[start..start + same])?;
        start += same;
    }
    Some(())
}

/// Rows of one file.
fn mark_run(hidden: &RoaringBitmap, positions: &[i64], output: &mut [bool]) -> Option<()> {
    let (first, last) = (*positions.first()?, *positions.last()?);
    let follow_each_other = positions.iter().zip(first..).all(|(position, wanted)| *position == wanted);
    if follow_each_other {
        output.fill(false);
        for position in hidden.range(u32::try_from(first).ok()?..=u32::try_from(last).ok()?) {
            output[usize::try_from(i64::from(position) - first).ok()?] = true;
        }
        return Some(());
    }
    // After another filter rows are missing in between. Walking beside the bitmap pays while it has about as many steps.
    let near = i64::try_from(positions.len()).ok()?.saturating_mul(4);
    if positions.is_sorted() && last - first < near {
        let mut steps = hidden.range(u32::try_from(first).ok()?..=u32::try_from(last).ok()?).map(i64::from).peekable();
        for (position, output) in positions.iter().zip(output) {
            while steps.next_if(|step| step < position).is_some() {}
            *output = steps.peek() == Some(position);
        }
        return Some(());
    }
    for (position, output) in positions.iter().zip(output) {
        *output = hidden.contains(u32::try_from(*position).ok()?);
    }
    Some(())
}

#[cfg(test)]
mod tests;
