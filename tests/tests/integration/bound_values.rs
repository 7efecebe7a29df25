//! A bound value means what the same literal means, wherever it stands: values of every type beside constants and columns
//! of every type. The answer is the literal's, or the value is refused in words.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use arrow::array::*;
use arrow::datatypes::{DataType, Field};
use thermocline_tests::client_data;
use thermocline_tests::is_long;
use thermocline_tests::scenario::{LakeKind, Scenario};
use tonic::Code;

use crate::prepared::{answer, answer_of_row, list};

fn double(value: f64) -> ArrayRef {
    Arc::new(Float64Array::from(vec![value]))
}

fn bigint(value: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![value]))
}

fn decimal(unscaled: i128, width: u8, scale: i8) -> ArrayRef {
    Arc::new(Decimal128Array::from(vec![unscaled]).with_precision_and_scale(width, scale).unwrap())
}

/// 2024-01-01 05:00:00.
const FIVE_O_CLOCK: i64 = 1_704_085_200_000_000;

fn micros(value: i64) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(vec![value]))
}

/// Values, and the literals that mean the same.
fn values() -> Vec<(ArrayRef, &'static str)> {
    let utc = |value| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(vec![value]).with_timezone("UTC")) };
    let text = |value| -> ArrayRef { Arc::new(StringArray::from(vec![value])) };
    vec![
        (bigint(3), "3::BIGINT"),
        (bigint(2), "2::BIGINT"),
        (bigint(1), "1::BIGINT"),
        (bigint(100_000), "100000::BIGINT"),
        (bigint(9_007_199_254_740_993), "9007199254740993::BIGINT"),
        (Arc::new(Int8Array::from(vec![-7])), "(-7)::TINYINT"),
        (Arc::new(UInt64Array::from(vec![u64::MAX])), "18446744073709551615::UBIGINT"),
        (double(2.6), "2.6::DOUBLE"),
        (double(3.0), "3.0::DOUBLE"),
        (double(1.5), "1.5::DOUBLE"),
        (double(-0.0), "(-0.0)::DOUBLE"),
        (double(0.001), "0.001::DOUBLE"),
        (double(9_007_199_254_740_992.0), "9007199254740992::DOUBLE"),
        (double(1e300), "1e300::DOUBLE"),
        (double(f64::NAN), "'NaN'::DOUBLE"),
        (double(f64::INFINITY), "'Infinity'::DOUBLE"),
        (Arc::new(Float32Array::from(vec![0.1])), "0.1::FLOAT"),
        (decimal(1001, 9, 3), "1.001::DECIMAL(9,3)"),
        (decimal(150, 9, 2), "1.50::DECIMAL(9,2)"),
        (decimal(15, 9, 1), "1.5::DECIMAL(9,1)"),
        (decimal(42, 38, 0), "42::DECIMAL(38,0)"),
        (Arc::new(BooleanArray::from(vec![true])), "true"),
        (Arc::new(Date32Array::from(vec![19_723])), "DATE '2024-01-01'"),
        (micros(FIVE_O_CLOCK), "TIMESTAMP '2024-01-01 05:00:00'"),
        (micros(FIVE_O_CLOCK / 86_400_000_000 * 86_400_000_000), "TIMESTAMP '2024-01-01 00:00:00'"),
        (utc(FIVE_O_CLOCK), "TIMESTAMPTZ '2024-01-01 05:00:00+00'"),
        (
            Arc::new(TimestampNanosecondArray::from(vec![FIVE_O_CLOCK * 1000 + 1])),
            "TIMESTAMP_NS '2024-01-01 05:00:00.000000001'",
        ),
        (Arc::new(Time64MicrosecondArray::from(vec![45_296_000_000])), "TIME '12:34:56'"),
        (text("42"), "'42'"),
        (text("2.6"), "'2.6'"),
        (text("2024-01-01 05:00:00"), "'2024-01-01 05:00:00'"),
        (text("abc"), "'abc'"),
        (Arc::new(BinaryArray::from(vec![b"abc".as_slice()])), "'abc'::BLOB"),
        (Arc::new(Int32Array::from(vec![None])), "NULL::INTEGER"),
    ]
}

const CONSTANTS: [&str; 14] = [
    "3",
    "3.5",
    "1.00::DECIMAL(4,2)",
    "2.5::DOUBLE",
    "0.1::FLOAT",
    "7::SMALLINT",
    "9007199254740993",
    "18446744073709551615::UBIGINT",
    "true",
    "DATE '2024-01-01'",
    "TIMESTAMP '2024-01-01 05:00:00'",
    "TIMESTAMPTZ '2024-01-01 05:00:00+00'",
    "'abc'::VARCHAR",
    "TIME '12:34:56'",
];

/// Where a value (`$`) may stand beside another (`#`).
const PLACES: [&str; 20] = [
    "# = $",
    "$ <> #",
    "# < $",
    "# <= $",
    "$ > #",
    "# >= $",
    "# IS DISTINCT FROM $",
    "# IS NOT DISTINCT FROM $",
    "# IN ($)",
    "$ NOT IN (#, #)",
    "$ BETWEEN # AND #",
    "# BETWEEN $ AND $",
    "CASE # WHEN $ THEN 1 ELSE 2 END",
    "coalesce($, #)",
    "coalesce(nullif(#, #), $)",
    "greatest(#, $)",
    "least($, #)",
    "list_contains([#], $)",
    "[#, $]",
    "(SELECT count(*) FROM (SELECT # AS a) l JOIN (SELECT 1 AS b) r ON l.a < $ GROUP BY l.a HAVING max(l.a) <> $)",
];

fn placed(place: &str, other: &str, value: &str) -> String {
    // Constants hold neither sign.
    place.replace('#', other).replace('$', value)
}

/// Asks whether the value means what the literal means; true when it was answered, false when it was refused.
async fn means_the_literal(scenario: &Scenario, place: &str, other: &str, value: &(ArrayRef, &str)) -> Result<bool> {
    let (array, literal) = value;
    let sql = format!(
        "SELECT ({}) IS NOT DISTINCT FROM ({}) AS same",
        placed(place, other, "\u{1}").replace('\u{1}', "$1"),
        placed(place, other, literal)
    );
    match answer(scenario, &sql, &[Arc::clone(array)]).await {
        Ok(same) => {
            ensure!(same == "true", "{sql} with {literal}: {same}");
            Ok(true)
        }
        Err(refusal) => {
            ensure!(refusal.code() == Code::InvalidArgument, "{sql} with {literal}: {refusal}");
            Ok(false)
        }
    }
}

#[tokio::test]
async fn a_bound_value_means_what_the_literal_means() -> Result<()> {
    let scenario = Scenario::start(client_data::stored(), LakeKind::Local).await?;
    let (mut answered, mut asked) = (0, 0);
    let mut faults = Vec::new();
    for (row, other) in CONSTANTS.iter().enumerate() {
        for (column, value) in values().iter().enumerate() {
            for (index, place) in PLACES.iter().enumerate() {
                // Each pair of types meets in some places, and each place meets all types.
                if !is_long() && (row + column * 3 + index) % 11 != 0 {
                    continue;
                }
                asked += 1;
                match means_the_literal(&scenario, place, other, value).await {
                    Ok(is_answered) => answered += usize::from(is_answered),
                    Err(fault) => faults.push(format!("{fault:#}")),
                }
            }
        }
    }
    ensure!(faults.is_empty(), "{} of {asked}:\n{}", faults.len(), faults.join("\n"));
    // Many pairs of types can't be compared at all.
    ensure!(answered * 3 > asked, "{answered} of {asked} were answered");
    Ok(())
}

/// Conditions of a column that push down to PostgreSQL and into the files.
const CONDITIONS: [&str; 10] = [
    "# = $",
    "# <> $",
    "# < $",
    "# <= $",
    "# > $",
    "$ <= #",
    "# IN ($, $)",
    "# NOT IN ($)",
    "# BETWEEN $ AND $",
    "# IS DISTINCT FROM $",
];

#[tokio::test]
async fn columns_are_compared_with_bound_values_as_with_literals() -> Result<()> {
    let scenario = Scenario::start(client_data::stored(), LakeKind::Local).await?;
    // `things` has hot rows with values.
    let columns = [
        ("a_smallint", "golden"),
        ("a_integer", "golden"),
        ("a_bigint", "golden"),
        ("a_double", "golden"),
        ("a_decimal", "golden"),
        ("a_boolean", "golden"),
        ("a_date", "golden"),
        ("a_timestamp", "golden"),
        ("a_text", "golden"),
        ("created_at", "golden"),
        ("n", "things"),
        ("size_cm", "things"),
        ("name", "things"),
    ];
    let mut faults = Vec::new();
    for (row, (column, table)) in columns.iter().enumerate() {
        for (index, value) in values().iter().enumerate() {
            for (at, condition) in CONDITIONS.iter().enumerate() {
                if !is_long() && (row + index * 3 + at) % 7 != 0 {
                    continue;
                }
                let place = format!("SELECT count(*) FROM {table} WHERE {condition}");
                if let Err(fault) = means_the_literal(&scenario, &place, column, value).await {
                    faults.push(format!("{fault:#}"));
                }
            }
        }
    }
    ensure!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    Ok(())
}

#[tokio::test]
async fn values_are_not_rounded_to_what_stands_beside_them() -> Result<()> {
    let scenario = Scenario::start(client_data::stored(), LakeKind::Local).await?;
    let cases: Vec<(&str, ArrayRef, &str)> = vec![
        ("SELECT 3 = $1", double(2.6), "false"),
        ("SELECT 3 > $1", double(2.6), "true"),
        ("SELECT DATE '2024-01-01' < $1", micros(FIVE_O_CLOCK), "true"),
        ("SELECT 1.00::DECIMAL(4,2) = $1", decimal(1001, 4, 3), "false"),
        ("SELECT true = $1", bigint(2), "false"),
        ("SELECT CAST(coalesce(NULL::INTEGER, $1) AS VARCHAR)", double(2.6), "2.6"),
        ("SELECT CAST([1, $1] AS VARCHAR)", double(2.6), "[1.0, 2.6]"),
        ("SELECT count(*) FROM golden WHERE a_smallint = $1", double(7.5), "0"),
        ("SELECT count(*) FROM golden WHERE a_smallint = $1", double(7.0), "1"),
        ("SELECT count(*) FROM golden WHERE a_smallint < $1", bigint(100_000), "2"),
        ("SELECT count(*) FROM things WHERE n = $1", double(2.5), "0"),
        ("SELECT count(*) FROM things WHERE n < $1", double(2.5), "105"),
    ];
    for (sql, value, expected) in cases {
        assert_eq!(
            answer(&scenario, sql, &[value]).await.map_err(|refusal| format!("{sql}: {refusal}")),
            Ok(expected.to_owned()),
            "{sql}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_id_is_bound_in_every_form() -> Result<()> {
    let scenario = Scenario::start(client_data::stored(), LakeKind::Local).await?;
    let answer_all = scenario.client.query("SELECT CAST(row_id AS VARCHAR) AS id FROM golden WHERE n = 1").await?;
    let id = answer_all.text();
    let bytes: Vec<u8> = {
        let hex: String = id.chars().filter(|c| *c != '-').collect();
        (0..16).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
    };
    let fixed: ArrayRef = Arc::new(FixedSizeBinaryArray::try_from_iter([bytes.clone()].iter()).unwrap());
    let uuid = |name: &str, array: &ArrayRef| {
        let metadata = HashMap::from([("ARROW:extension:name".to_owned(), "arrow.uuid".to_owned())]);
        Field::new(name, array.data_type().clone(), true).with_metadata(metadata)
    };
    let list_field = |item: Field| Field::new("p", DataType::List(Arc::new(item)), true);
    let marked_list: ArrayRef = {
        let item = Arc::new(uuid("item", &fixed));
        let offsets = arrow::buffer::OffsetBuffer::from_lengths([1]);
        Arc::new(ListArray::new(item, offsets, Arc::clone(&fixed), None))
    };
    let text: ArrayRef = Arc::new(StringArray::from(vec![id.to_uppercase()]));
    let plain = |array: &ArrayRef| Field::new("p", array.data_type().clone(), true);
    let binary: ArrayRef = Arc::new(BinaryArray::from(vec![bytes.as_slice()]));
    let single = [
        (uuid("p", &fixed), Arc::clone(&fixed)),
        (plain(&fixed), Arc::clone(&fixed)),
        (plain(&binary), Arc::clone(&binary)),
        (plain(&text), Arc::clone(&text)),
    ];
    for (field, value) in &single {
        for condition in [
            "row_id = $1",
            "row_id IN ($1)",
            "$1 = row_id",
            "list_contains([$1], row_id)",
            "a_uuid = $1 OR row_id = $1",
        ] {
            let sql = format!("SELECT n FROM golden WHERE {condition}");
            let found = answer_of_row(&scenario, &sql, &[(field.clone(), Arc::clone(value))]).await;
            assert_eq!(found.map_err(|refusal| refusal.to_string()), Ok("1".to_owned()), "{sql} with {field:?}");
        }
    }
    let lists = [
        (list_field(uuid("item", &fixed)), marked_list),
        (plain(&list(Arc::clone(&fixed))), list(Arc::clone(&fixed))),
        (plain(&list(Arc::clone(&text))), list(Arc::clone(&text))),
        (plain(&list(Arc::clone(&binary))), list(Arc::clone(&binary))),
    ];
    for (field, value) in &lists {
        for condition in ["row_id = ANY($1)", "list_contains($1, row_id)", "row_id IN (SELECT unnest($1))"] {
            let sql = format!("SELECT n FROM golden WHERE {condition}");
            let found = answer_of_row(&scenario, &sql, &[(field.clone(), Arc::clone(value))]).await;
            assert_eq!(found.map_err(|refusal| refusal.to_string()), Ok("1".to_owned()), "{sql} with {field:?}");
        }
    }
    // By itself it is a UUID too, and the lookup reads the one row.
    let own = answer_of_row(&scenario, "SELECT typeof($1) AS t", &[single[0].clone()]).await;
    assert_eq!(own.map_err(|refusal| refusal.to_string()), Ok("UUID".to_owned()));
    Ok(())
}
