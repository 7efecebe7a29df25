//! Flushed and compacted files, read by other software: every value is the one that was written.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value as Json, json};
use thermocline_tests::r#gen;
use thermocline_tests::model::{Attribute, Entity, Kind, Value, Version, decimal_text};
use thermocline_tests::oracle::Stored;
use thermocline_tests::scenario::{LakeKind, Scenario};
use tokio::process::Command;

use super::{Catalog, command, data_files, hot, start};

/// Files with what was written to them.
struct Written {
    /// Keeps the files.
    _scenario: Scenario,
    /// A Parquet file and a JSON file with its rows.
    files: Vec<(PathBuf, PathBuf)>,
}

/// Every type with its edges, in a flushed file and in a compacted one.
async fn write() -> Result<Written> {
    let entity = r#gen::every_type("everything", 7);
    let mut rng = r#gen::rng(5);
    let versions: Vec<Version> = (0..200).map(|number| r#gen::version(&mut rng, &entity, number)).collect();
    let mut stored = Stored::new(&entity);
    stored.hot = versions.iter().cloned().map(hot).collect();
    let scenario = start(vec![stored], LakeKind::Local, Catalog::Listing).await?;
    let folder = scenario.lake.folder().context("a local lake")?.to_owned();
    let live: Vec<Version> = versions.iter().filter(|version| !version.is_deleted()).cloned().collect();
    let mut files = Vec::new();
    // Of tombstones without an older version compaction leaves nothing.
    for (verb, tier, rows) in [("flush", "delta", versions), ("compact", "base", live)] {
        command(&scenario, &[verb]).await?;
        let mut found = data_files(&scenario).await?;
        found.retain(|path| path.starts_with(tier));
        ensure!(found.len() == 1, "{found:?}");
        let expected = scenario.server.dir().join(format!("{verb}.json"));
        std::fs::write(&expected, expected_rows(&entity, &rows)?.to_string())?;
        files.push((folder.join(&found[0]), expected));
    }
    Ok(Written { _scenario: scenario, files })
}

/// Columns in the order of the files, and rows in the plain form of `lake_values.py`.
fn expected_rows(entity: &Entity, versions: &[Version]) -> Result<Json> {
    let mut columns = vec!["row_id".to_owned()];
    columns.extend(entity.attributes.iter().map(Attribute::column));
    columns.extend(["created_at", "changed_at", "deleted_at"].map(str::to_owned));
    let rows = versions.iter().map(|version| {
        let mut row = vec![json!(version.row_id.to_string())];
        for (attribute, value) in entity.attributes.iter().zip(&version.values) {
            row.push(plain(value, attribute.kind)?);
        }
        row.extend([json!(version.created_at), json!(version.changed_at)]);
        row.push(json!(version.deleted_at.filter(|at| *at != 0)));
        Ok(Json::Array(row))
    });
    let mut types = vec!["BINARY".to_owned()];
    types.extend(entity.attributes.iter().map(spark_type));
    types.extend(["BIGINT"; 3].map(str::to_owned));
    let schema: Vec<String> = columns.iter().zip(types).map(|(name, kind)| format!("`{name}` {kind}")).collect();
    Ok(json!({"columns": columns, "spark_schema": schema.join(", "), "rows": rows.collect::<Result<Vec<_>>>()?}))
}

/// Spark's type of a column; it knows no UUIDs.
fn spark_type(attribute: &Attribute) -> String {
    let scalar = match attribute.kind {
        Kind::Text | Kind::Json => "STRING".to_owned(),
        Kind::SmallInt => "SMALLINT".to_owned(),
        Kind::Integer => "INT".to_owned(),
        Kind::BigInt => "BIGINT".to_owned(),
        Kind::Double => "DOUBLE".to_owned(),
        Kind::Boolean => "BOOLEAN".to_owned(),
        Kind::Uuid => "BINARY".to_owned(),
        Kind::Date => "DATE".to_owned(),
        Kind::Timestamp => "TIMESTAMP".to_owned(),
        Kind::Decimal { precision, scale } => format!("DECIMAL({precision},{scale})"),
    };
    if attribute.list { format!("ARRAY<{scalar}>") } else { scalar }
}

fn plain(value: &Value, kind: Kind) -> Result<Json> {
    Ok(match value {
        Value::Null => Json::Null,
        Value::Boolean(value) => json!(value),
        Value::Integer(value) | Value::Timestamp(value) => json!(value),
        Value::Double(value) if value.is_nan() => json!("NaN"),
        Value::Double(value) => json!(format!("{:016x}", value.to_bits())),
        Value::Decimal(unscaled) => {
            let Kind::Decimal { scale, .. } = kind else { anyhow::bail!("{unscaled} is no {kind:?}") };
            json!(decimal_text(*unscaled, scale))
        }
        Value::Text(value) => json!(value),
        Value::Uuid(value) => json!(value.to_string()),
        Value::Date(days) => {
            let day = chrono::NaiveDate::default().checked_add_signed(chrono::TimeDelta::days((*days).into()));
            json!(day.context("a day out of range")?.to_string())
        }
        Value::List(elements) => {
            elements.iter().map(|element| plain(element, kind)).collect::<Result<Vec<_>>>()?.into()
        }
    })
}

/// Runs a program of `tests/python` with one of the Pythons of the cache.
async fn python(environment: &str, script: &str, files: &[(PathBuf, PathBuf)]) -> Result<String> {
    let python = thermocline_tests::cache_dir()?.join(environment).join("bin/python");
    ensure!(python.is_file(), "no {}; run `cargo xtask setup`", python.display());
    // Spark leaves folders where it runs.
    let directory = tempfile::tempdir()?;
    let mut program = Command::new(&python);
    program.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script));
    program.args(files.iter().flat_map(|(file, rows)| [file, rows]));
    program.current_dir(directory.path()).env("TZ", "UTC").env("PYTHONDONTWRITEBYTECODE", "1");
    program.env("PYSPARK_PYTHON", &python).env("SPARK_LOCAL_DIRS", directory.path());
    let output = program.stdin(std::process::Stdio::null()).kill_on_drop(true).output().await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    Ok(said)
}

#[tokio::test]
async fn pyarrow_polars_and_duckdb_read_files_unchanged() -> Result<()> {
    for file in &write().await?.files {
        let said = python("python", "read_lake_file.py", std::slice::from_ref(file)).await?;
        for reader in ["pyarrow: ", "Polars: ", "DuckDB: ", "checksums: "] {
            ensure!(said.contains(reader), "{said}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn spark_reads_files_unchanged() -> Result<()> {
    let said = python("spark", "spark_lake_file.py", &write().await?.files).await?;
    assert_eq!(said.matches("Spark: ").count(), 2, "{said}");
    Ok(())
}
