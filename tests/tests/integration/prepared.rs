//! Parameters of every Arrow type: each works or is refused in words, and nothing is ever a bug of the server's.

use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Int32Type, IntervalMonthDayNano, Schema, i256};
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandPreparedStatementQuery, DoPutPreparedStatementResult, ProstMessageExt};
use arrow_flight::{FlightDescriptor, PutResult};
use bytes::Bytes;
use futures::TryStreamExt;
use prost::Message;
use thermocline_tests::client::Failure;
use thermocline_tests::client_data;
use thermocline_tests::oracle::rows_of;
use thermocline_tests::scenario::{LakeKind, Scenario};
use tonic::{Code, Status};

/// `SELECT $1` with the value bound, as text, or the status that refuses it.
pub(crate) async fn answer(scenario: &Scenario, sql: &str, values: &[ArrayRef]) -> Result<String, Status> {
    let field = |(index, value): (usize, &ArrayRef)| Field::new(format!("p{index}"), value.data_type().clone(), true);
    let columns: Vec<_> = values.iter().enumerate().map(|column| (field(column), Arc::clone(column.1))).collect();
    answer_of_row(scenario, sql, &columns).await
}

/// The same with fields of the caller's.
pub(crate) async fn answer_of_row(
    scenario: &Scenario,
    sql: &str,
    columns: &[(Field, ArrayRef)],
) -> Result<String, Status> {
    let failed = |failure: Failure| Status::new(failure.code, failure.message);
    let prepared = scenario.client.prepare(sql).await.map_err(failed)?;
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.iter().cloned().unzip();
    let row = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
    let handle = bind(scenario, &prepared.handle, &row).await?;
    let answer = scenario.client.execute_prepared(&handle).await.map_err(failed)?;
    assert_eq!(answer.schema, answer.info_schema, "{sql}");
    let rows = rows_of(&answer.batches);
    let lines: Vec<String> =
        rows.iter().map(|row| row.iter().map(ToString::to_string).collect::<Vec<_>>().join("|")).collect();
    Ok(lines.join("\n"))
}

/// Binds one batch; the answer is the handle that holds it.
async fn bind(scenario: &Scenario, handle: &Bytes, row: &RecordBatch) -> Result<Bytes, Status> {
    let command = CommandPreparedStatementQuery { prepared_statement_handle: handle.clone() };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let messages: Vec<_> = arrow_flight::encode::FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor))
        .build(futures::stream::iter([Ok(row.clone())]))
        .try_collect()
        .await
        .map_err(|error| Status::internal(error.to_string()))?;
    let request = scenario.client.request(futures::stream::iter(messages));
    let results: Vec<PutResult> = scenario.client.flight().do_put(request).await?.into_inner().try_collect().await?;
    let [result] = results.as_slice() else { panic!("{} results of DoPut", results.len()) };
    let result = DoPutPreparedStatementResult::decode(result.app_metadata.clone()).unwrap();
    Ok(result.prepared_statement_handle.unwrap())
}

pub(crate) fn list(values: ArrayRef) -> ArrayRef {
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([values.len()]), values, None))
}

#[tokio::test]
async fn every_type_is_bound_exactly_or_refused_in_words() -> Result<()> {
    let scenario = Scenario::start(client_data::stored(), LakeKind::Local).await?;
    let decimal = Decimal128Array::from(vec![150]).with_precision_and_scale(9, 2)?;
    let wide = Decimal256Array::from(vec![i256::from_i128(150)]);
    let dictionary: DictionaryArray<Int32Type> = [Some("it's")].into_iter().collect();
    let ints: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(3)]));
    let record =
        StructArray::from(vec![(Arc::new(Field::new("a", DataType::Int32, true)), Arc::clone(&ints))]).slice(0, 1);
    let cases: Vec<(ArrayRef, &str)> = vec![
        (Arc::new(BooleanArray::from(vec![true])), "true"),
        (Arc::new(Int8Array::from(vec![i8::MIN])), "-128"),
        (Arc::new(Int16Array::from(vec![i16::MIN])), "-32768"),
        (Arc::new(Int32Array::from(vec![i32::MIN])), "-2147483648"),
        (Arc::new(Int64Array::from(vec![i64::MIN])), "-9223372036854775808"),
        (Arc::new(UInt8Array::from(vec![u8::MAX])), "255"),
        (Arc::new(UInt16Array::from(vec![u16::MAX])), "65535"),
        (Arc::new(UInt32Array::from(vec![u32::MAX])), "4294967295"),
        (Arc::new(UInt64Array::from(vec![u64::MAX])), "18446744073709551615"),
        (Arc::new(Float64Array::from(vec![0.1])), "0.1"),
        (Arc::new(Float64Array::from(vec![f64::NAN])), "NaN"),
        (Arc::new(Float64Array::from(vec![f64::NEG_INFINITY])), "-inf"),
        (Arc::new(decimal.clone()), "1.50"),
        (Arc::new(wide.clone().with_precision_and_scale(38, 2)?), "1.50"),
        (Arc::new(StringArray::from(vec!["it's"])), "it's"),
        (Arc::new(LargeStringArray::from(vec!["it's"])), "it's"),
        (Arc::new(StringViewArray::from(vec!["it's long enough to lie outside"])), "it's long enough to lie outside"),
        (Arc::new(dictionary), "it's"),
        (Arc::new(Date32Array::from(vec![19_782])), "day 19782"),
        (Arc::new(NullArray::new(1)), "NULL"),
        (Arc::new(Int64Array::from(vec![None])), "NULL"),
        (Arc::new(StringArray::from(vec![None::<&str>])), "NULL"),
        (Arc::new(decimal.clone().slice(0, 0)), "!no row"),
        (Arc::new(Int64Array::from(vec![1, 2])), "!2 rows"),
        (Arc::new(wide.with_precision_and_scale(50, 2)?), "!Decimal256"),
        (Arc::new(record), "!Struct"),
        (Arc::new(StringArray::from(vec!["a\0b"])), "!NUL"),
        (Arc::new(DurationNanosecondArray::from(vec![1])), "!microsecond"),
        (Arc::new(DurationSecondArray::from(vec![i64::MAX])), "!too long"),
    ];
    for (value, expected) in cases {
        let what = format!("{:?}", value.data_type());
        match answer(&scenario, "SELECT $1 AS v", &[value]).await {
            Ok(found) => assert_eq!(found, expected, "{what}"),
            Err(refusal) => {
                assert_eq!(refusal.code(), Code::InvalidArgument, "{what}: {refusal}");
                let part = expected.strip_prefix('!').with_context(|| format!("{what}: {refusal}"))?;
                assert!(refusal.message().contains(part), "{what}: {refusal}");
            }
        }
    }
    // What the text form above doesn't show, DuckDB prints.
    let texts: Vec<(ArrayRef, &str)> = vec![
        (Arc::new(DurationMillisecondArray::from(vec![-1500])), "-00:00:01.5"),
        (Arc::new(DurationSecondArray::from(vec![90_000])), "25:00:00"),
        (
            Arc::new(IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(14, -3, 5_000)])),
            "1 year 2 months -3 days 00:00:00.000005",
        ),
        (Arc::new(IntervalYearMonthArray::from(vec![14])), "1 year 2 months"),
        (Arc::new(Time64MicrosecondArray::from(vec![45_296_123_456])), "12:34:56.123456"),
        (Arc::new(Time32SecondArray::from(vec![45_296])), "12:34:56"),
        (Arc::new(TimestampSecondArray::from(vec![5])), "1970-01-01 00:00:05"),
        (Arc::new(TimestampMicrosecondArray::from(vec![-1])), "1969-12-31 23:59:59.999999"),
        (Arc::new(TimestampNanosecondArray::from(vec![1])), "1970-01-01 00:00:00.000000001"),
        (
            Arc::new(TimestampMillisecondArray::from(vec![5]).with_timezone("Europe/Berlin")),
            "1970-01-01 00:00:00.005+00",
        ),
        (
            Arc::new(TimestampNanosecondArray::from(vec![5_000]).with_timezone("+05:30")),
            "1970-01-01 00:00:00.000005+00",
        ),
        (Arc::new(Date64Array::from(vec![86_400_000])), "1970-01-02"),
        (Arc::new(BinaryArray::from(vec![b"a\x00\xff".as_slice()])), "a\\x00\\xFF"),
        (Arc::new(BinaryViewArray::from(vec![b"ab".as_slice()])), "ab"),
        (Arc::new(FixedSizeBinaryArray::from(vec![b"xy"])), "xy"),
        (list(Arc::clone(&ints)), "[1, NULL, 3]"),
        (list(Arc::new(StringViewArray::from(vec![Some("a'"), None]))), "['a\\'', NULL]"),
        (list(Arc::new(Int32Array::from(Vec::<i32>::new()))), "[]"),
        (list(list(ints)), "[[1, NULL, 3]]"),
        (list(Arc::new(decimal)), "[1.50]"),
    ];
    for (value, expected) in texts {
        let what = format!("{:?}", value.data_type());
        let found =
            answer(&scenario, "SELECT CAST($1 AS VARCHAR) AS v FROM (SELECT $1) t(x)", &[Arc::clone(&value)]).await;
        let direct = answer(&scenario, "SELECT CAST(x AS VARCHAR) AS v FROM (SELECT $1 AS x) t", &[value]).await;
        assert_eq!(direct.map_err(|refusal| format!("{what}: {refusal}")), Ok(expected.to_owned()), "{what}");
        // Here the parameter is inferred to be text; binding something else is a cast or a refusal.
        if let Err(refusal) = found {
            assert_eq!(refusal.code(), Code::InvalidArgument, "{what}: {refusal}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn parameters_whose_type_nothing_tells_are_taken_as_they_come() -> Result<()> {
    let scenario = Scenario::start(client_data::stored(), LakeKind::Local).await?;
    let one: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    for (sql, types) in [
        ("SELECT $1 AS v", vec![DataType::Utf8]),
        ("SELECT a_integer + $1 AS v FROM golden", vec![DataType::Utf8]),
        ("SELECT [$1] AS v", vec![DataType::Utf8]),
        ("SELECT {'a': $1} AS v", vec![DataType::Utf8]),
        ("SELECT $1 AS a, $2 AS b", vec![DataType::Utf8, DataType::Utf8]),
        ("SELECT n FROM golden WHERE a_integer = $1", vec![DataType::Int32]),
        ("SELECT n FROM golden WHERE a_decimal = $1", vec![DataType::Decimal128(9, 2)]),
        ("SELECT n FROM golden LIMIT $1", vec![DataType::Int64]),
    ] {
        let prepared = scenario.client.prepare(sql).await.with_context(|| sql.to_owned())?;
        let told: Vec<_> = prepared.parameters.fields().iter().map(|field| field.data_type().clone()).collect();
        assert_eq!(told, types, "{sql}");
        assert!(!prepared.schema.fields().is_empty(), "{sql}");
    }
    let expected = [
        ("SELECT a_integer + $1 AS v FROM golden WHERE n = 1", vec![&one], "43"),
        ("SELECT [$1, 2] AS v", vec![&one], "[1,2]"),
        ("SELECT $1 || $2 AS v", vec![&text, &text], "xx"),
        ("SELECT $2 AS b, $1 AS a", vec![&one, &text], "x|1"),
        ("SELECT CASE WHEN $1 IS NULL THEN 0 ELSE 1 END AS v", vec![&one], "1"),
        ("SELECT * FROM (VALUES ($1)) t(v)", vec![&one], "1"),
        ("SELECT name FROM things WHERE _tier = $1 LIMIT 1", vec![&text], ""),
        ("SELECT max($1) AS v FROM things", vec![&text], "x"),
    ];
    for (sql, values, expected) in expected {
        let values: Vec<ArrayRef> = values.into_iter().map(Arc::clone).collect();
        let found = answer(&scenario, sql, &values).await.with_context(|| sql.to_owned())?;
        assert_eq!(found.replace(", ", ","), expected, "{sql}");
    }
    for (sql, values) in [
        ("SELECT ? + ?", vec![&one]),
        ("SELECT n FROM golden WHERE n = $1", vec![&one, &one]),
        ("SELECT n FROM golden WHERE n = $1", vec![&text]),
        ("SELECT 1", vec![&one]),
    ] {
        let values: Vec<ArrayRef> = values.into_iter().map(Arc::clone).collect();
        let refusal = answer(&scenario, sql, &values).await.expect_err(sql);
        assert_eq!(refusal.code(), Code::InvalidArgument, "{sql}: {refusal}");
    }
    let unbound = scenario.client.prepare("SELECT $1 AS v").await?;
    scenario.client.execute_prepared(&unbound.handle).await.unwrap_err().expect(Code::InvalidArgument, &["$1"]);
    Ok(())
}

/// A bound value filters where a literal does.
#[tokio::test]
async fn bound_values_are_pushed_down() -> Result<()> {
    let scenario = Scenario::start(client_data::stored(), LakeKind::Local).await?;
    let decimal = Decimal128Array::from(vec![150]).with_precision_and_scale(9, 2)?;
    let id = "01900000-0000-7000-8000-00000000006F";
    let cases: Vec<(&str, ArrayRef, &str)> = vec![
        ("row_id = $1", Arc::new(StringArray::from(vec![id])), "00000000006f"),
        ("a_uuid = $1", Arc::new(StringArray::from(vec![id])), "uuid_01"),
        ("a_integer = $1", Arc::new(Int64Array::from(vec![5])), "integer_02"),
        ("a_double > $1", Arc::new(Float64Array::from(vec![1.5])), "double_01"),
        ("a_decimal = $1", Arc::new(decimal), "double_02"),
        ("a_boolean = $1", Arc::new(BooleanArray::from(vec![true])), "smallint_02"),
        ("a_date >= $1", Arc::new(Date32Array::from(vec![19_782])), "bigint_02"),
        ("a_timestamp < $1", Arc::new(TimestampMicrosecondArray::from(vec![5]).with_timezone("UTC")), "bigint_03"),
        ("\"a_text\" = $1", Arc::new(StringArray::from(vec!["it's"])), "text_01"),
        ("list_contains(integers, $1)", Arc::new(Int32Array::from(vec![1])), "a222"),
    ];
    for (condition, value, part) in cases {
        let prepared = scenario.client.prepare(&format!("SELECT n FROM golden WHERE {condition}")).await?;
        let handle = bind(&scenario, &prepared.handle, &RecordBatch::try_from_iter([("p", value)])?).await?;
        let answer = scenario.client.execute_prepared(&handle).await?;
        let sources = answer.plan["references"][0]["sources"].as_array().context("sources")?;
        let mut pushed = sources.iter().filter_map(|source| source["pushed"][0].as_str());
        assert!(pushed.any(|pushed| pushed.contains(part)), "{condition}: {sources:?}");
    }
    Ok(())
}

#[tokio::test]
async fn forged_handles_are_refused() -> Result<()> {
    let scenario = Scenario::start(client_data::stored(), LakeKind::Local).await?;
    let prepared = scenario.client.prepare("SELECT n FROM golden WHERE n = $1").await?;
    let row = RecordBatch::try_from_iter([("v", Arc::new(Int32Array::from(vec![1])) as ArrayRef)])?;
    let bound = bind(&scenario, &prepared.handle, &row).await?;
    assert_eq!(scenario.client.execute_prepared(&bound).await?.text(), "1");
    for index in 0..bound.len() {
        let mut forged = bound.to_vec();
        forged[index] ^= 0x55;
        let refusal = scenario.client.execute_prepared(&forged.into()).await.unwrap_err();
        assert!(matches!(refusal.code, Code::InvalidArgument | Code::NotFound), "byte {index}: {refusal}");
    }
    for length in 0..bound.len() {
        let refusal = scenario.client.execute_prepared(&bound.slice(..length)).await.unwrap_err();
        assert!(matches!(refusal.code, Code::InvalidArgument | Code::NotFound), "{length} bytes: {refusal}");
    }
    // The next client is served as ever.
    let mut client = FlightSqlServiceClient::new_from_inner(scenario.client.flight());
    client.execute("SELECT 1".to_owned(), None).await?;
    Ok(())
}
