//! Hot rows that DuckDB scanned (`hot_scan = "scan"`): the same decoder as for a COPY, so the same values and errors.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int64Type, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType,
};
use translator::catalog::Entity;
use translator::hot::HotColumn;

use super::copy::CopyRow;
use super::decode::{HotSummary, RowDecoder};
use super::error::{PostgresError, PostgresErrorKind};

/// Turns batches of PostgreSQL's own values into batches of [`super::hot_schema`].
#[derive(Debug)]
pub(crate) struct ScannedRows {
    decoder: RowDecoder,
    /// One row as it would be on the wire.
    bytes: Vec<u8>,
    fields: Vec<Option<(usize, usize)>>,
}

impl ScannedRows {
    /// # Errors
    /// As of a hot statement: internal, when columns and entity don't belong together.
    pub(crate) fn new(entity: &Entity, columns: &[HotColumn]) -> Result<Self, PostgresError> {
        Ok(Self { decoder: RowDecoder::new(entity, columns)?, bytes: Vec::new(), fields: Vec::new() })
    }

    /// Decodes one batch of the scan statement.
    ///
    /// # Errors
    /// Data, for a value that doesn't fit its declared type.
    pub(crate) fn decode(&mut self, batch: &RecordBatch) -> Result<RecordBatch, PostgresError> {
        for row in 0..batch.num_rows() {
            self.bytes.clear();
            self.fields.clear();
            for column in batch.columns() {
                let start = self.bytes.len();
                let is_there = write_value(column, row, &mut self.bytes)?;
                self.fields.push(is_there.then_some((start, self.bytes.len())));
            }
            self.decoder.push(CopyRow::new(&self.bytes, &self.fields))?;
        }
        self.decoder.take_batch()
    }

    pub(crate) fn summary(&self) -> HotSummary {
        self.decoder.summary()
    }
}

/// Writes a value in PostgreSQL's binary form; false for NULL.
fn write_value(column: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<bool, PostgresError> {
    if column.is_null(row) {
        return Ok(false);
    }
    match column.data_type() {
        DataType::Int64 => out.extend(column.as_primitive::<Int64Type>().value(row).to_be_bytes()),
        DataType::Float64 => out.extend(column.as_primitive::<Float64Type>().value(row).to_be_bytes()),
        DataType::Float32 => out.extend(column.as_primitive::<Float32Type>().value(row).to_be_bytes()),
        DataType::Date32 => out.extend(date(column.as_primitive::<Date32Type>().value(row)).to_be_bytes()),
        DataType::Time64(TimeUnit::Microsecond) => {
            out.extend(column.as_primitive::<Time64MicrosecondType>().value(row).to_be_bytes());
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            out.extend(timestamp(column.as_primitive::<TimestampMicrosecondType>().value(row)).to_be_bytes());
        }
        DataType::Boolean => out.push(u8::from(column.as_boolean().value(row))),
        DataType::Utf8 => out.extend(column.as_string::<i32>().value(row).as_bytes()),
        DataType::Binary => out.extend(column.as_binary::<i32>().value(row)),
        DataType::List(_) => write_list(&column.as_list::<i32>().value(row), out)?,
        other => return Err(PostgresError::internal(format!("a scan returned a column of {other}"))),
    }
    Ok(true)
}

/// Days since 2000-01-01, as PostgreSQL counts them. DuckDB's infinities are the ends of its range, as PostgreSQL's are of
/// its own.
fn date(days: i32) -> i32 {
    match days {
        i32::MAX => i32::MAX,
        days if days == -i32::MAX => i32::MIN,
        days => days.saturating_sub(10_957),
    }
}

/// Microseconds since 2000-01-01, likewise.
fn timestamp(micros: i64) -> i64 {
    match micros {
        i64::MAX => i64::MAX,
        micros if micros == -i64::MAX => i64::MIN,
        micros => micros.saturating_sub(946_684_800_000_000),
    }
}

/// A one-dimensional array in the form of `array_send`: dimensions, null flag, element type (which nobody reads), length,
/// lower bound, and each element behind its length.
fn write_list(elements: &ArrayRef, out: &mut Vec<u8>) -> Result<(), PostgresError> {
    let length = |length: usize| {
        i32::try_from(length).map_err(|_| PostgresError::internal("a scan returned a list beyond all limits"))
    };
    for number in [1, 1, 0, length(elements.len())?, 1] {
        out.extend(number.to_be_bytes());
    }
    let mut value = Vec::new();
    for element in 0..elements.len() {
        value.clear();
        if write_value(elements, element, &mut value)? {
            out.extend(length(value.len())?.to_be_bytes());
            out.extend(&value);
        } else {
            out.extend((-1_i32).to_be_bytes());
        }
    }
    Ok(())
}

/// Sorts a failure of a scan. DuckDB's own text may quote the connection string: only what is outside of quotes goes on,
/// and that to the log alone.
pub(crate) fn scan_failure(text: &str) -> PostgresError {
    sort_failure(text).with_source(anyhow::anyhow!(without_quotes(text)))
}

/// The failure of a scan that did not fail when it ran again.
pub(crate) fn passing_scan_failure() -> PostgresError {
    PostgresError::new(PostgresErrorKind::Unavailable, "PostgreSQL: a scan by DuckDB failed once, and not again")
}

fn sort_failure(text: &str) -> PostgresError {
    if let Some(other) = PostgresError::other_type(text) {
        return other;
    }
    const LOST: [&str; 6] =
        ["connect", "server closed", "terminating", "shutting down", "starting up", "invalid snapshot"];
    const REFUSED: [&str; 4] = ["permission denied", "authentication failed", "does not exist", "not be found"];
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if text.contains("statement timeout") {
        return PostgresError::new(
            PostgresErrorKind::StatementTimeout,
            "PostgreSQL: a scan by DuckDB took longer than the statement timeout",
        );
    }
    if text.contains("extension") && has(&["not found", "Failed to load", "could not be loaded", "LOAD"]) {
        return PostgresError::new(
            PostgresErrorKind::Misconfigured,
            "hot_scan = scan needs DuckDB's extension postgres_scanner in duckdb.extension_directory",
        );
    }
    if has(&REFUSED) {
        return PostgresError::new(
            PostgresErrorKind::Misconfigured,
            "PostgreSQL refuses a scan by DuckDB: a password, a table, a column or a right is not as the configuration says",
        );
    }
    if has(&LOST) {
        return PostgresError::new(PostgresErrorKind::Unavailable, "PostgreSQL: a scan by DuckDB lost its connection");
    }
    PostgresError::internal("a scan of PostgreSQL by DuckDB failed")
}

/// The text with every quotation cut to its quotes.
fn without_quotes(text: &str) -> String {
    text.split('"').enumerate().map(|(index, part)| if index % 2 == 0 { part } else { "\"…\"" }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_sorted_and_quote_nothing() {
        use PostgresErrorKind::{Internal, Misconfigured, StatementTimeout, Unavailable};
        for (text, kind) in [
            ("IO Error: Unable to connect to Postgres at \"secret\": Connection refused", Unavailable),
            ("IO Error: Unable to connect to Postgres at \"secret\": password authentication failed", Misconfigured),
            (
                "Error: Failed to execute query: ERROR:  canceling statement due to statement timeout secret",
                StatementTimeout,
            ),
            ("Catalog Error: Table with name secret does not exist!", Misconfigured),
            ("IO Error: Extension \"secret/postgres_scanner.duckdb_extension\" not found.", Misconfigured),
            ("secret", Internal),
        ] {
            let failure = scan_failure(text);
            assert_eq!(failure.kind(), kind, "{text}");
            assert!(!failure.to_string().contains("secret"), "{failure}");
        }
    }
}
