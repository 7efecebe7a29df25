//! Files of other writers: each is read as what it holds, or refused by name, never half-read. The traits are those of the
//! Parquet project's public test files and of files that pandas, Spark, Impala and Hadoop leave; the files are made here.
//! `docs/foreign-files.md` has the table.

mod names;
mod replaced;
mod traits;
mod values;

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};
use thermocline_tests::client::Client;
use thermocline_tests::lake::{LakeFile, write_parquet};
use thermocline_tests::model::{Entity, Kind, Value};
use thermocline_tests::oracle::{Stored, rows_of};
use thermocline_tests::scenario::{LakeKind, Scenario, live};
use thermocline_tests::server::run;
use tonic::Code;

/// Rows of the file that is always in order.
const SOUND_ROWS: usize = 3;
const ALL: &str = "SELECT * FROM samples";

fn samples() -> Entity {
    Entity::new("samples", 400)
        .main("name", Kind::Text, "text_01")
        .main("n", Kind::Integer, "integer_01")
        .main("u", Kind::Uuid, "uuid_01")
        .eav("seen at", Kind::Timestamp, 201)
        .eav("doc", Kind::Json, 202)
        .eav("docs", Kind::Json, 203)
        .list()
        .eav("times", Kind::Timestamp, 204)
        .list()
        .eav("uuids", Kind::Uuid, 205)
        .list()
        .eav("delay.minutes", Kind::Integer, 206)
}

fn values(n: i64) -> Vec<Value> {
    let id = thermocline_tests::scenario::row_id(n.unsigned_abs().into());
    vec![
        Value::text(&format!("name {n}")),
        Value::Integer(n),
        Value::Uuid(id),
        Value::Timestamp(n * 1000),
        Value::text("{}"),
        Value::List(vec![Value::text("1"), Value::Null]),
        Value::List(vec![Value::Timestamp(n)]),
        Value::List(vec![Value::Uuid(id)]),
        Value::Integer(n),
    ]
}

/// A base file of a few rows, with ids from `first` on.
fn base(name: &str, first: u32) -> LakeFile {
    let versions = (first..).take(SOUND_ROWS).map(|n| live(n.into(), 10, values(n.into()))).collect();
    LakeFile::base(&samples(), name, versions)
}

/// A server over one file that is in order.
async fn start() -> Result<Scenario> {
    let mut stored = Stored::new(&samples());
    stored.files = vec![base("sound.parquet", 1)];
    Scenario::start(vec![stored], LakeKind::Local).await
}

/// A file's rows with other columns in the place of those of the same names, or after them.
fn with_columns(file: &LakeFile, columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let batch = file.to_batch()?;
    let schema = batch.schema();
    let mut all: Vec<(String, ArrayRef)> =
        schema.fields().iter().map(|field| field.name().clone()).zip(batch.columns().iter().cloned()).collect();
    for (name, array) in columns {
        match all.iter_mut().find(|(found, _)| found == name) {
            Some((_, found)) => *found = array,
            None => all.push((name.to_owned(), array)),
        }
    }
    batch_of(all)
}

fn batch_of(columns: Vec<(String, ArrayRef)>) -> Result<RecordBatch> {
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(name, array.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

fn parquet(batch: &RecordBatch) -> Result<Vec<u8>> {
    write_parquet(batch, 1_000, true)
}

/// The rows of an answer as text.
async fn rows(client: &Client, sql: &str) -> Result<Vec<Vec<String>>> {
    let answer = client.query(sql).await.with_context(|| sql.to_owned())?;
    let rows = rows_of(&answer.batches);
    Ok(rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect())
}

async fn check(scenario: &Scenario) -> Result<String> {
    let config = scenario.server.dir().join("thermocline.toml");
    Ok(run(&["check", "--config", &config.display().to_string()]).await?.stdout)
}

/// Puts a file into the lake that can't be read: queries name it, with leave they do without it, and `check` names it.
async fn expect_unreadable(scenario: &Scenario, name: &str, content: Vec<u8>, words: &[&str]) -> Result<()> {
    let path = format!("base/400/{name}");
    scenario.lake.put_bytes(&path, content).await?;
    let mut expected = vec![path.as_str()];
    expected.extend(words);
    scenario.client.refusal(ALL).await.expect(Code::Unavailable, &expected);
    scenario.client.refusal("EXPLAIN ANALYZE SELECT * FROM samples").await.expect(Code::Unavailable, &expected);
    let answer = scenario.client.with_option("allow_partial", "true").query(ALL).await?;
    ensure!(answer.row_count() == SOUND_ROWS, "{name}: {} rows", answer.row_count());
    let degraded = answer.final_plan["degraded"].to_string();
    ensure!(degraded.contains(&path), "{name}: {degraded}");
    let checked = check(scenario).await?;
    for part in expected {
        ensure!(checked.to_lowercase().contains(&part.to_lowercase()), "{name}: {part}?\n{checked}");
    }
    scenario.lake.delete(&path).await?;
    ensure!(scenario.client.query(ALL).await?.row_count() == SOUND_ROWS);
    Ok(())
}

/// Puts a file into the lake that breaks the contract: queries fail and name it, whatever the leave.
async fn expect_refused(scenario: &Scenario, name: &str, content: Vec<u8>, words: &[&str]) -> Result<()> {
    let path = format!("base/400/{name}");
    scenario.lake.put_bytes(&path, content).await?;
    let mut expected = vec![path.as_str()];
    expected.extend(words);
    for client in [&scenario.client, &scenario.client.with_option("allow_partial", "true")] {
        client.refusal(ALL).await.expect(Code::Unavailable, &expected);
    }
    scenario.lake.delete(&path).await
}

/// Puts a file into the lake, asks, and takes it away again.
async fn ask_of(scenario: &Scenario, name: &str, content: Vec<u8>, sql: &str) -> Result<Vec<Vec<String>>> {
    let path = format!("base/400/{name}");
    scenario.lake.put_bytes(&path, content).await?;
    let answer = rows(&scenario.client, sql).await.with_context(|| name.to_owned());
    scenario.lake.delete(&path).await?;
    answer
}
