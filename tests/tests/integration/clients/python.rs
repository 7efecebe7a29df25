//! `tests/python`: the Python clients, all of them in one run of pytest.

use anyhow::{Result, ensure};
use thermocline_tests::client_data;
use thermocline_tests::r#gen;
use thermocline_tests::scenario::{LakeKind, Scenario};
use tokio::process::Command;

use super::{Findings, repository, run};

pub(super) const CLIENTS: &[&str] = &[
    "pyarrow.flight",
    "ADBC (Python DBAPI)",
    "ADBC (Python, low level)",
    "Polars",
    "pandas",
    "DuckDB, over ADBC",
    "SQLAlchemy (sqlalchemy-adbc)",
];

#[tokio::test]
async fn python_clients_read_everything() -> Result<()> {
    let python = thermocline_tests::cache_dir()?.join("python/bin/python");
    ensure!(python.is_file(), "no {}; run `cargo xtask setup`", python.display());
    let mut stored = client_data::stored();
    stored.push(r#gen::stored(&mut r#gen::rng(42), &r#gen::every_type("everything", 7), 60));
    let scenario = Scenario::start(stored, LakeKind::Local).await?;
    let mut pytest = Command::new(python);
    pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no"]).arg(repository().join("tests/python"));
    pytest.env("THERMOCLINE_ENDPOINT", scenario.server.grpc_uri()).env("PYTHONDONTWRITEBYTECODE", "1");
    Findings::of_output("Python", &run(&mut pytest, &scenario).await?)?.check()
}
