//! `cargo xtask setup`: everything that cargo itself doesn't fetch.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::{
    artifact,
    cache::{Checkout, remove_dir_if_there},
    clients, dependencies, nycflights13, postgres, python,
};

/// How much to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What building needs.
    Build,
    /// What the demo and the benchmarks need too.
    Demo,
    /// What the tests need too: clients of other languages, other versions of PostgreSQL.
    Everything,
}

/// Brings the cache up to date. What is there is verified and not fetched again.
pub(crate) fn run(checkout: &Checkout, extent: Extent) -> Result<()> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "the set-up knows x86-64 Linux only; elsewhere build with `--features bundled`"
    );
    let started = Instant::now();
    println!("== Set-up in {}", checkout.cache().display());
    let lock = checkout.lock()?;
    for artifact in artifact::DUCKDB {
        artifact.ensure(checkout)?;
    }
    if extent != Extent::Build {
        nycflights13::ensure(checkout)?;
        postgres::ensure(checkout)?;
        python::ensure_environment(checkout)?;
    }
    if extent == Extent::Everything {
        clients::ensure(checkout)?;
        postgres::VERSIONS.iter().try_for_each(|version| version.ensure(checkout))?;
        dependencies::ensure(checkout)?;
    }
    remove_dir_if_there(&checkout.cache().join(".staging"))?;
    checkout.link()?;
    drop(lock);
    println!("   all there ({:.1?})", started.elapsed());
    Ok(())
}
