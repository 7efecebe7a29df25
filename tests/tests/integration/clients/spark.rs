//! `tests/python/spark_client.py`: Spark's JDBC source with the Flight SQL JDBC driver.

use anyhow::{Result, ensure};
use tokio::process::Command;

use super::{Findings, address, jdbc, repository, run, server};

pub(super) const CLIENTS: &[&str] = &["Spark"];

#[tokio::test]
async fn spark_reads_in_partitions() -> Result<()> {
    let python = thermocline_tests::cache_dir()?.join("spark/bin/python");
    ensure!(python.is_file(), "no {}; run `cargo xtask setup`", python.display());
    let scenario = server().await?;
    // Spark leaves folders where it runs.
    let directory = tempfile::tempdir()?;
    let mut spark = Command::new(&python);
    spark
        .arg(repository().join("tests/python/spark_client.py").canonicalize()?)
        .arg(address(&scenario))
        .arg(jdbc::driver()?);
    spark.current_dir(directory.path()).env("TZ", "UTC").env("PYSPARK_PYTHON", &python);
    spark.env("SPARK_LOCAL_DIRS", directory.path()).env("PYTHONDONTWRITEBYTECODE", "1");
    Findings::of_output("Spark", &run(&mut spark, &scenario).await?)?.check()
}
