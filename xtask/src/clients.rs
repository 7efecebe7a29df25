//! Clients of other languages that the tests drive. Those whose runtime a machine lacks are left out, by name.

use std::{process::Command, time::Instant};

use anyhow::{Context, Result};

use crate::{artifact, cache::Checkout, process, python};

/// A test module that can't run here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Missing {
    /// Prefix of the tests' names.
    pub(crate) tests: &'static str,
    /// What to install.
    pub(crate) tool: &'static str,
}

/// Fetches and compiles what the clients need whose runtimes are here.
pub(crate) fn ensure(checkout: &Checkout) -> Result<()> {
    if has_java()? {
        artifact::JDBC_DRIVER.ensure(checkout)?;
        python::ensure_spark(checkout)?;
    }
    if has_go(checkout)? {
        let started = Instant::now();
        // Compiling fetches what is missing, checked by go.sum; the test compiles again, out of the cache.
        let target = checkout.cache().join("go/client");
        let mut go = checkout.go();
        go.args(["build", "-o"]).arg(target).arg(".");
        process::with_network(|| process::output(&mut go)).context("cannot build tests/go")?;
        println!("   compiled the Go client in {:.1?}", started.elapsed());
    }
    Ok(())
}

/// The clients that can't run here.
pub(crate) fn missing(checkout: &Checkout) -> Result<Vec<Missing>> {
    let mut missing = Vec::new();
    if !has_java()? {
        let tool = "a Java Development Kit of 17 or later, with Maven";
        missing.push(Missing { tests: "clients::jdbc", tool });
        missing.push(Missing { tests: "clients::spark", tool });
    }
    if !has_go(checkout)? {
        missing.push(Missing { tests: "clients::go", tool: "Go, of the version in tests/go/go.mod or later" });
    }
    Ok(missing)
}

fn has_java() -> Result<bool> {
    // `--release 17` is refused by an older compiler.
    let compiles = process::works(Command::new("javac").args(["--release", "17", "-version"]))?;
    Ok(compiles && process::works(Command::new("mvn").arg("--version"))?)
}

/// A Go that is older than go.mod asks for refuses every command there.
fn has_go(checkout: &Checkout) -> Result<bool> {
    process::works(checkout.go().args(["list", "-m"]))
}
