//! One stored double is one decimal, whichever tier keeps it.

use std::sync::Arc;

use anyhow::{Result, ensure};
use arrow::array::{ArrayRef, Float64Array, Float64Builder, ListBuilder, RecordBatch};
use arrow::datatypes::Schema;
use thermocline_tests::lake::{LakeFile, write_parquet};
use thermocline_tests::model::{Entity, Kind, Value};
use thermocline_tests::oracle::{HotVersion, Stored, rows_of};
use thermocline_tests::scenario::{LakeKind, Scenario, live, row_id};
use thermocline_tests::server::run;

const DECIMAL: Kind = Kind::Decimal { precision: 9, scale: 2 };

/// Doubles and what they are as `decimal(9,2)`. The products of the first ones with 100 are on the wrong side of the half.
const VALUES: [(f64, &str); 14] = [
    (1.005, "1.01"),
    (-1.005, "-1.01"),
    (0.285, "0.29"),
    (1.115, "1.12"),
    (2.675, "2.68"),
    (4.35, "4.35"),
    (0.125, "0.13"),
    (-0.135, "-0.14"),
    (0.004_999_999_999_999, "0.00"),
    (5e-324, "0.00"),
    (1e-7, "0.00"),
    (9_999_999.994_999, "9999999.99"),
    (1_234_567.885, "1234567.89"),
    (0.145, "0.15"),
];

fn entity() -> Entity {
    Entity::new("prices", 430).main("a", DECIMAL, "double_01").eav("b", DECIMAL, 201).eav("c", DECIMAL, 202).list()
}

async fn found(scenario: &Scenario, tier: &str) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT CAST(a AS VARCHAR) AS a, CAST(b AS VARCHAR) AS b, CAST(c[1] AS VARCHAR) AS c, len(c) AS n FROM prices \
         WHERE _tier = '{tier}' ORDER BY row_id"
    );
    let answer = scenario.client.query(&sql).await?;
    let text =
        |row: &Vec<_>| row.iter().map(|cell: &thermocline_tests::oracle::Cell| cell.to_string()).collect::<Vec<_>>();
    Ok(rows_of(&answer.batches).iter().map(|row| text(row).join("|")).collect())
}

#[tokio::test]
async fn a_double_rounds_alike_in_every_tier() -> Result<()> {
    let entity = entity();
    let mut stored = Stored::new(&entity);
    let count = u128::try_from(VALUES.len())?;
    let placeholder = || vec![Value::Decimal(1), Value::Decimal(1), Value::List(vec![Value::Decimal(1), Value::Null])];
    stored.hot =
        (0..count).map(|n| HotVersion { version: live(n, 10, placeholder()), dirty: true, has_main: true }).collect();
    let scenario = Scenario::start(vec![stored], LakeKind::Local).await?;
    let client = scenario.database.connect().await?;
    for (n, (value, _)) in (0..).zip(VALUES) {
        let id = row_id(n);
        client.execute("UPDATE entity_main SET double_01 = $1 WHERE ltbase_row_id = $2", &[&value, &id]).await?;
        let sql = "UPDATE eav_data SET value_numeric = $1 WHERE row_id = $2 AND array_indices IN ('', '0')";
        client.execute(sql, &[&value, &id]).await?;
    }
    // The same doubles in a file that other software wrote, as other rows.
    let versions = (0..count).map(|n| live(100 + n, 10, placeholder())).collect();
    let batch = LakeFile::base(&entity, "doubles.parquet", versions).to_batch()?;
    let doubles: ArrayRef = Arc::new(Float64Array::from_iter_values(VALUES.map(|(value, _)| value)));
    let mut lists = ListBuilder::new(Float64Builder::new());
    for (value, _) in VALUES {
        lists.append_value([Some(value), None]);
    }
    let lists: ArrayRef = Arc::new(lists.finish());
    let (mut fields, mut columns) = (batch.schema().fields().to_vec(), batch.columns().to_vec());
    for (name, column) in [("a", &doubles), ("b", &doubles), ("c", &lists)] {
        let at = batch.schema().index_of(name)?;
        fields[at] = Arc::new(fields[at].as_ref().clone().with_data_type(column.data_type().clone()));
        columns[at] = Arc::clone(column);
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    scenario.lake.put_bytes("base/430/doubles.parquet", write_parquet(&batch, 100, true)?).await?;

    let wanted: Vec<String> = VALUES.iter().map(|(_, text)| format!("{text}|{text}|{text}|2")).collect();
    assert_eq!(found(&scenario, "hot").await?, wanted);
    assert_eq!(found(&scenario, "cold").await?, wanted);
    // What is looked for is found in both: push-down and pruning keep to the rounded value.
    for (_, text) in VALUES {
        let sql = format!(
            "SELECT count(DISTINCT _tier) AS n FROM prices WHERE a = {text} AND b = {text} AND list_contains(c, {text})"
        );
        assert_eq!(scenario.client.query(&sql).await?.text(), "2", "{text}");
    }
    let output = run(&["flush", "--config", &scenario.server.config_path().display().to_string()]).await?;
    ensure!(output.success, "{}", output.stderr);
    assert_eq!(found(&scenario, "warm").await?, wanted);
    Ok(())
}
