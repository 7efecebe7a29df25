//! Any Arrow batch as bound parameters: of any count, names, types, nesting and values. Each is answered or refused in
//! words; nothing panics. The statements are the lines of `tests/golden/parameters/statements.sql`.
//!
//! `THERMOCLINE_TEST_SEED=7` runs the case of that seed alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow::array::{
    Array, ArrayData, ArrayRef, BooleanArray, DictionaryArray, FixedSizeListArray, Int32Array, LargeListArray,
    LargeStringArray, ListArray, MapArray, NullArray, RecordBatch, RecordBatchOptions, RunArray, StringArray,
    StringViewArray, StructArray, UnionArray, make_array, new_null_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Int8Type, Int32Type, IntervalUnit, Schema, TimeUnit, UnionFields,
};
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use arrow_flight::sql::{CommandPreparedStatementQuery, DoPutPreparedStatementResult, ProstMessageExt};
use arrow_flight::{FlightData, FlightDescriptor, PutResult};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use rand::Rng;
use rand::seq::IndexedRandom;
use thermocline_tests::client::{Client, Failure};
use thermocline_tests::scenario::{LakeKind, Scenario};
use thermocline_tests::{client_data, r#gen, is_long};
use tonic::{Code, Status};

const TEXTS: [&str; 12] =
    ["", "1", "-1.5", "it's", "NULL", "1970-01-01", "2024-02-30 25:61:00+99", "true", "\0", "日本", "{\"a\":[", "$1"];

/// A random array of some rows.
fn array(rng: &mut impl Rng, depth: u32, rows: usize) -> ArrayRef {
    if depth == 0 || rng.random_bool(0.6) {
        return leaf(rng, rows);
    }
    let item = |values: &ArrayRef| Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let each = rng.random_range(0..4);
    let values = array(rng, depth - 1, rows * each);
    let nulls = nulls(rng, rows);
    match rng.random_range(0..6) {
        0 => Arc::new(ListArray::new(item(&values), OffsetBuffer::from_repeated_length(each, rows), values, nulls)),
        1 => {
            Arc::new(LargeListArray::new(item(&values), OffsetBuffer::from_repeated_length(each, rows), values, nulls))
        }
        2 if each > 0 => Arc::new(FixedSizeListArray::new(item(&values), i32::try_from(each).unwrap(), values, nulls)),
        3 => {
            let other = array(rng, depth - 1, rows);
            let fields: Fields = vec![Field::new("a", other.data_type().clone(), true)].into();
            Arc::new(StructArray::new(fields, vec![other], nulls))
        }
        4 => {
            let keys: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows * each).map(|n| n.to_string())));
            let fields: Fields =
                vec![Field::new("keys", DataType::Utf8, false), Field::new("values", values.data_type().clone(), true)]
                    .into();
            let entries = StructArray::new(fields.clone(), vec![keys, values], None);
            let field: FieldRef = Arc::new(Field::new("entries", DataType::Struct(fields), false));
            Arc::new(MapArray::new(field, OffsetBuffer::from_repeated_length(each, rows), entries, nulls, false))
        }
        _ => {
            let one = array(rng, depth - 1, rows);
            let fields = UnionFields::from_fields([Field::new("a", one.data_type().clone(), true)]);
            Arc::new(UnionArray::try_new(fields, ScalarBuffer::from(vec![0i8; rows]), None, vec![one]).unwrap())
        }
    }
}

fn nulls(rng: &mut impl Rng, rows: usize) -> Option<NullBuffer> {
    rng.random_bool(0.4).then(|| (0..rows).map(|_| rng.random_bool(0.7)).collect())
}

fn leaf(rng: &mut impl Rng, rows: usize) -> ArrayRef {
    let huge = if rng.random_bool(0.02) { rng.random_range(0..5_000_000) } else { 0 };
    let texts: Vec<Option<String>> = (0..rows)
        .map(|_| rng.random_bool(0.8).then(|| TEXTS.choose(rng).unwrap().to_string() + &"x".repeat(huge)))
        .collect();
    let texts = StringArray::from(texts);
    let cast = |to: &DataType| arrow::compute::cast(&texts, to).unwrap_or_else(|_| new_null_array(to, rows));
    match rng.random_range(0..12) {
        0 => Arc::new(NullArray::new(rows)),
        1 => Arc::new(texts),
        2 => Arc::new(LargeStringArray::from_iter(texts.iter())),
        3 => Arc::new(StringViewArray::from_iter(texts.iter())),
        4 => Arc::new(texts.iter().collect::<DictionaryArray<Int8Type>>()),
        5 => Arc::new(texts.iter().collect::<RunArray<Int32Type>>()),
        6 => cast([DataType::Binary, DataType::LargeBinary, DataType::BinaryView].choose(rng).unwrap()),
        7 => Arc::new(BooleanArray::from(
            (0..rows).map(|_| rng.random_bool(0.8).then(|| rng.random())).collect::<Vec<Option<bool>>>(),
        )),
        8 => {
            let values = leaf_of(rng, &DataType::Decimal128(38, 2), rows.max(1));
            let keys = Int32Array::from(vec![0; rows]);
            DictionaryArray::try_new(keys, values)
                .map_or_else(|_| new_null_array(&DataType::Int8, rows), |array| Arc::new(array))
        }
        _ => {
            let zone = [None, Some("UTC"), Some("+14:00"), Some("Europe/Berlin"), Some("no zone"), Some("")];
            let unit = *[TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond]
                .choose(rng)
                .unwrap();
            let types = [
                DataType::Int8,
                DataType::Int16,
                DataType::Int32,
                DataType::Int64,
                DataType::UInt8,
                DataType::UInt64,
                DataType::Float16,
                DataType::Float32,
                DataType::Float64,
                DataType::Decimal32(9, 2),
                DataType::Decimal64(18, 0),
                DataType::Decimal128(38, 38),
                DataType::Decimal128(5, -3),
                DataType::Decimal256(76, 10),
                DataType::Date32,
                DataType::Date64,
                DataType::Time32(TimeUnit::Millisecond),
                DataType::Time64(TimeUnit::Nanosecond),
                DataType::Timestamp(unit, zone.choose(rng).unwrap().map(Into::into)),
                DataType::Duration(unit),
                DataType::Interval(IntervalUnit::YearMonth),
                DataType::Interval(IntervalUnit::DayTime),
                DataType::Interval(IntervalUnit::MonthDayNano),
            ];
            let data_type = types.choose(rng).unwrap();
            leaf_of(rng, data_type, rows)
        }
    }
}

/// Values of a type of fixed width, made of bytes: nothing, everything, the least, the greatest, a small one, any.
fn leaf_of(rng: &mut impl Rng, data_type: &DataType, rows: usize) -> ArrayRef {
    let width = data_type.primitive_width().unwrap();
    let mut bytes = Vec::new();
    for _ in 0..rows {
        let mut value = match rng.random_range(0..6) {
            0 => vec![0; width],
            1 | 2 => vec![0xff; width],
            3 => {
                let mut any = vec![0; width];
                rng.fill(any.as_mut_slice());
                any
            }
            _ => {
                let mut small = vec![0; width];
                small[0] = rng.random();
                small
            }
        };
        if rng.random_bool(0.3) {
            value[width - 1] ^= 0x80;
        }
        bytes.extend(value);
    }
    let data =
        ArrayData::builder(data_type.clone()).len(rows).add_buffer(Buffer::from_vec(bytes)).nulls(nulls(rng, rows));
    data.build().map_or_else(|_| new_null_array(data_type, rows), make_array)
}

/// A random batch for a statement that takes `wanted` parameters.
fn batch(rng: &mut impl Rng, wanted: usize) -> RecordBatch {
    let columns = if rng.random_bool(0.85) { wanted } else { rng.random_range(0..6) };
    let rows = if rng.random_bool(0.85) { 1 } else { rng.random_range(0..4) };
    let names = ["a", "", "$1", "1", "named", "日"];
    let columns: Vec<ArrayRef> = (0..columns)
        .map(|_| {
            let depth = rng.random_range(0..4);
            array(rng, depth, rows)
        })
        .collect();
    let fields: Vec<Field> = columns
        .iter()
        .map(|column| Field::new(*names.choose(rng).unwrap(), column.data_type().clone(), true))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).unwrap()
}

/// Binds and executes a random batch; `None` when no client could send it.
async fn case(client: &Client, statements: &[(String, Bytes)], seed: u64) -> Option<(String, Result<(), Status>)> {
    let mut rng = r#gen::rng(seed);
    let (sql, handle) = statements.choose(&mut rng).unwrap();
    let batch = batch(&mut rng, sql.matches('$').count());
    let command = CommandPreparedStatementQuery { prepared_statement_handle: handle.clone() };
    let dictionaries = if rng.random() { DictionaryHandling::Resend } else { DictionaryHandling::Hydrate };
    let messages = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command.as_any().encode_to_vec())))
        .with_dictionary_handling(dictionaries)
        .build(stream::iter([Ok(batch.clone())]))
        .try_collect()
        .await
        .ok()?;
    let outcome = bind_and_execute(client, messages).await;
    Some((format!("{sql}\n{:?}\n{} rows", batch.schema(), batch.num_rows()), outcome))
}

async fn bind_and_execute(client: &Client, messages: Vec<FlightData>) -> Result<(), Status> {
    let request = client.request(stream::iter(messages));
    let results: Vec<PutResult> = client.flight().do_put(request).await?.into_inner().try_collect().await?;
    let metadata = results.into_iter().next().ok_or_else(|| Status::internal("no result of DoPut"))?.app_metadata;
    let result = DoPutPreparedStatementResult::decode(metadata).map_err(|error| Status::internal(error.to_string()))?;
    let handle = result.prepared_statement_handle.ok_or_else(|| Status::internal("no handle"))?;
    let failed = |failure: Failure| Status::new(failure.code, failure.message);
    let answer = client.execute_prepared(&handle).await.map_err(failed)?;
    if answer.schema != answer.info_schema {
        return Err(Status::internal(format!("promised {:?}, sent {:?}", answer.info_schema, answer.schema)));
    }
    Ok(())
}

#[tokio::test]
async fn any_batch_is_bound_or_refused() -> Result<()> {
    let seeds = match std::env::var("THERMOCLINE_TEST_SEED") {
        Ok(seed) => vec![seed.parse().context("the seed is no number")?],
        Err(_) => (0..if is_long() { 20_000 } else { 1_000 }).collect::<Vec<u64>>(),
    };
    let scenario = Scenario::start(client_data::stored(), LakeKind::Local).await?;
    // A number may be how many rows a statement makes.
    let client = &scenario.client.with_option("max_rows", "1000");
    let mut statements = Vec::new();
    for sql in include_str!("../../golden/parameters/statements.sql").lines() {
        let prepared = client.prepare(sql).await.with_context(|| sql.to_owned())?;
        statements.push((sql.to_owned(), prepared.handle));
    }
    let statements = &statements;
    let mut codes = BTreeMap::<String, u64>::new();
    let mut cases =
        stream::iter(seeds).map(|seed| async move { (seed, case(client, statements, seed).await) }).buffer_unordered(8);
    while let Some((seed, outcome)) = cases.next().await {
        let Some((what, outcome)) = outcome else { continue };
        let code = outcome.as_ref().err().map_or(Code::Ok, Status::code);
        *codes.entry(format!("{code:?}")).or_default() += 1;
        let is_clean = matches!(code, Code::Ok | Code::InvalidArgument)
            || outcome.as_ref().is_err_and(|status| status.message().contains("max_parameter_bytes"));
        ensure!(is_clean, "seed {seed}: {outcome:?}\n{what}\n{}", scenario.server.log()?);
    }
    eprintln!("{codes:?}");
    let log = scenario.server.log()?;
    let ours: Vec<&str> =
        log.lines().filter(|line| line.contains("panicked at") && !line.contains("/arrow-")).collect();
    ensure!(ours.is_empty(), "the server panicked:\n{}", ours.join("\n"));
    assert_eq!(client.query("SELECT count(*) AS c FROM things").await?.text(), "120");
    Ok(())
}
