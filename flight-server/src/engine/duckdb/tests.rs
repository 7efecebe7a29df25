use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryBuilder, Float64Array,
    Int32Array, ListArray, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Int32Type, Int64Type};

use rand::{Rng, SeedableRng};

use super::*;
use crate::engine::create_temporary_table;

fn connection() -> Connection {
    Database::open(&[]).unwrap().connect().unwrap()
}

#[test]
fn batches_go_in_and_come_back_unchanged() {
    let connection = connection();
    let mut ids = FixedSizeBinaryBuilder::new(16);
    for index in 0..5000u128 {
        ids.append_value(index.to_be_bytes()).unwrap();
    }
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(
        (0..5000).map(|index| (index % 3 != 0).then(|| vec![Some(index), None])),
    );
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("row_id", Arc::new(ids.finish())),
        ("number", Arc::new((0..5000).map(|index| (index % 7 != 0).then_some(index)).collect::<Int32Array>())),
        ("text", Arc::new((0..5000).map(|index| Some(format!("text number {index}"))).collect::<StringArray>())),
        ("flag", Arc::new((0..5000).map(|index| Some(index % 2 == 0)).collect::<BooleanArray>())),
        ("double", Arc::new((0..5000).map(|index| Some(f64::from(index) / 3.0)).collect::<Float64Array>())),
        ("moment", Arc::new(TimestampMicrosecondArray::from_iter_values(0..5000).with_timezone("UTC"))),
        ("amount", Arc::new(Decimal128Array::from_iter_values(0..5000).with_precision_and_scale(9, 2).unwrap())),
        ("list", Arc::new(list)),
    ];
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap();
    create_temporary_table(&connection, "t", &batch.schema()).unwrap();
    connection.append("t", &batch).unwrap();
    let (schema, batches) = connection.query("SELECT * FROM temp.main.t").unwrap();
    let read = arrow::compute::concat_batches(&schema, &batches).unwrap();
    assert_eq!(read.num_rows(), 5000);
    for (index, column) in batch.columns().iter().enumerate().skip(1) {
        let cast = arrow::compute::cast(read.column(index), column.data_type()).unwrap();
        assert_eq!(&cast, column, "{}", batch.schema().field(index).name());
    }
    let ids = read.column(0).as_any().downcast_ref::<BinaryArray>().unwrap();
    assert_eq!(ids.value(4999), 4999u128.to_be_bytes());
    let (_, uuids) = connection.query("SELECT CAST(CAST(row_id AS UUID) AS VARCHAR) FROM temp.main.t LIMIT 1").unwrap();
    assert_eq!(uuids[0].column(0).as_string::<i32>().value(0), "00000000-0000-0000-0000-000000000000");
}

#[test]
fn failures_in_mid_stream_are_errors() {
    let mut stream = connection()
        .stream("SELECT CASE WHEN range = 400000 THEN error('broken') ELSE range END AS x FROM range(1000000)")
        .unwrap();
    let error = loop {
        match stream.next() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without an error"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, DuckErrorKind::Value);
    assert!(error.text().contains("broken"));
}

/// What a thread of DuckDB does to the others when it fails. Nobody asked for this interrupt.
fn raise_flag(connection: &Connection) {
    // SAFETY: the connection is open.
    unsafe { ffi::duckdb_interrupt(connection.raw.raw) }
}

#[test]
fn a_failure_behind_the_readers_back_keeps_its_error() {
    let connection = connection();
    for begin in ["SELECT 1", "BEGIN"] {
        connection.execute(begin).unwrap();
        let mut stream = connection
            .stream("SELECT CASE WHEN range = 900000 THEN error('broken') ELSE range END AS x FROM range(1000000)")
            .unwrap();
        raise_flag(&connection);
        let error = stream.next().unwrap_err();
        assert_eq!((error.kind, error.text()), (DuckErrorKind::Value, "broken"), "{begin}");
    }
}

#[test]
fn a_failure_that_does_not_come_back_is_told_from_an_interrupt() {
    let connection = connection();
    for sql in ["SELECT * FROM range(1000000)", "DESCRIBE SELECT 1"] {
        let mut stream = connection.stream(sql).unwrap();
        raise_flag(&connection);
        assert_eq!(stream.next().unwrap_err().kind, DuckErrorKind::Lost);
    }
    let mut stream = connection.stream("SELECT * FROM range(1000000)").unwrap();
    connection.interrupt_handle().interrupt();
    assert_eq!(stream.next().unwrap_err().kind, DuckErrorKind::Interrupted);
}

#[test]
fn an_interrupt_ends_a_statement() {
    let connection = connection();
    let handle = connection.interrupt_handle();
    let runner = std::thread::spawn(move || connection.query("SELECT max(range % 7) FROM range(1000000000000000)"));
    while !runner.is_finished() {
        handle.interrupt();
        std::thread::yield_now();
    }
    assert_eq!(runner.join().unwrap().unwrap_err().kind, DuckErrorKind::Interrupted);
}

#[test]
fn errors_point_into_the_statement() {
    let sql = "SELECT 1,\n  nope FROM (SELECT 1 AS hope)";
    let error = connection().prepare(sql).unwrap_err();
    assert_eq!(error.kind, DuckErrorKind::Binder);
    assert_eq!(error.position(sql), sql.find("nope"));
    assert!(error.text().contains("nope"), "{}", error.text());
}

#[test]
fn what_is_bound_in_a_transaction_runs_over_what_it_was_bound_over() {
    let database = Database::open(&[]).unwrap();
    let (writer, reader) = (database.connect().unwrap(), database.connect().unwrap());
    writer.execute("CREATE TABLE t AS SELECT i, 1 AS since FROM range(10) r(i)").unwrap();
    reader.execute("BEGIN").unwrap();
    let prepared = reader.prepare("SELECT count(*) FROM t WHERE since <= 1").unwrap();
    writer.execute("INSERT INTO t SELECT i, 2 FROM range(5) r(i)").unwrap();
    let batch = prepared.stream("").unwrap().next().unwrap().unwrap();
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(0), 10);
}

#[test]
fn a_prepared_statement_describes_itself() {
    let connection = connection();
    connection.execute("CREATE TABLE t (a INTEGER, b VARCHAR)").unwrap();
    let prepared = connection.prepare("SELECT a AS x, b FROM t WHERE a > $1 AND b = $2").unwrap();
    let schema = prepared.schema().unwrap().unwrap();
    assert_eq!(schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["x", "b"]);
    let parameters = prepared.parameters().unwrap();
    assert_eq!(parameters.len(), 2);
    assert_eq!(parameters[0].schema.as_ref().unwrap().field(0).data_type(), &DataType::Int32);
    assert_eq!(parameters[0].sql_type, Some(SqlType::Integer));
    let (_, batches) = connection.query("SELECT count(*) FROM t").unwrap();
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), 0);
}

use arrow::datatypes::DataType;

#[test]
fn an_append_that_finds_no_room_is_out_of_memory() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(&[
        ("memory_limit", "8MB".to_owned()),
        ("threads", "1".to_owned()),
        ("temp_directory", directory.path().display().to_string()),
        ("max_temp_directory_size", "1MB".to_owned()),
    ])
    .unwrap();
    let connection = database.connect().unwrap();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    let mut batch = || {
        let texts = (0..10_000).map(|_| Some(format!("{:032x}", rng.random::<u128>())));
        let texts: StringArray = texts.collect();
        RecordBatch::try_from_iter([("a", Arc::new(texts) as ArrayRef)]).unwrap()
    };
    create_temporary_table(&connection, "t", &batch().schema()).unwrap();
    let failure = (0..500).find_map(|_| connection.append("t", &batch()).err()).unwrap();
    assert_eq!(failure.kind, DuckErrorKind::OutOfMemory, "{failure}");
}
