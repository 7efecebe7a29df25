//! The Python environments of the clients.

use std::{fs, path::Path, process::Command, time::Instant};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::{
    cache::{Checkout, remove_dir_if_there},
    process, tools,
};

const REQUIREMENTS: &str = "tests/python/requirements.txt";
pub(crate) const SDIST_TOOLS: &str = "tests/python/requirements-sdist.txt";
const SPARK: &str = "tests/python/requirements-spark.txt";

/// Makes the environment of the Python clients, again if the pinned packages or the interpreter changed.
pub(crate) fn ensure_environment(checkout: &Checkout) -> Result<()> {
    ensure(checkout, "python", REQUIREMENTS, "import pyarrow.flight", |python| {
        install(python, &checkout.root().join(REQUIREMENTS))
    })
}

/// Makes the environment of Spark, which is apart from the others because it is many times as large.
pub(crate) fn ensure_spark(checkout: &Checkout) -> Result<()> {
    ensure(checkout, "spark", SPARK, "import pyspark.sql", |python| {
        install(python, &checkout.root().join(SDIST_TOOLS))?;
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]);
        pip.args(["--no-build-isolation", "--no-deps", "--requirement"]).arg(checkout.root().join(SPARK));
        process::with_network(|| process::output(&mut pip))?;
        Ok(())
    })
}

/// Makes the virtual environment `name` of the cache, unless its stamp says that it is up to date and it passes `probe`.
fn ensure(
    checkout: &Checkout,
    name: &str,
    requirements: &str,
    probe: &str,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let python = tools::python()?;
    let wanted = fingerprint(checkout, &python, requirements)?;
    let venv = checkout.cache().join(name);
    let venv_python = venv.join("bin/python");
    let stamp = venv.join("thermocline.stamp");
    let probe = || process::works(Command::new(&venv_python).args(["-c", probe]));
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && probe()? {
        return Ok(());
    }
    let started = Instant::now();
    println!("   making the Python environment `{name}`");
    // A virtual environment holds its own absolute path, so it is made in place; the stamp is written last.
    remove_dir_if_there(&venv)?;
    make_venv(&python, &venv)?;
    fill(&venv_python)?;
    anyhow::ensure!(probe()?, "the Python packages in `{}` were installed but don't load", venv.display());
    fs::write(&stamp, wanted).with_context(|| format!("cannot write `{}`", stamp.display()))?;
    println!("   made the Python environment `{name}` in {:.1?}", started.elapsed());
    Ok(())
}

pub(crate) fn make_venv(python: &Path, venv: &Path) -> Result<()> {
    process::output(Command::new(python).args(["-m", "venv"]).arg(venv))?;
    Ok(())
}

pub(crate) fn install(python: &Path, requirements: &Path) -> Result<()> {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]);
    pip.args(["--only-binary=:all:", "--requirement"]).arg(requirements);
    process::with_network(|| process::output(&mut pip))?;
    Ok(())
}

fn fingerprint(checkout: &Checkout, python: &Path, requirements: &str) -> Result<String> {
    let path = checkout.root().join(requirements);
    let requirements = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let version = process::output(Command::new(python).arg("--version"))?;
    Ok(format!("{} {}", version.trim(), hex::encode(Sha256::digest(requirements))))
}
