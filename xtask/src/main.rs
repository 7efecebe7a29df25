//! Developer commands of Thermocline: `cargo xtask setup | test | ci | demo | bench | package`.
//!
//! `setup` fetches what cargo does not (libduckdb, DuckDB's extensions, Python clients, the demo's data, PostgreSQL if
//! the system has none) into a cache outside the checkout. The other commands set up first and then run cargo with a
//! target directory in that cache, so that a fresh clone compiles its dependencies only once on a machine.
//! This crate knows nothing of the workspace's other crates and stays small: it is compiled before anything else.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that can't go on should panic"))]
#![expect(clippy::print_stdout, reason = "a developer's command talks on standard output")]

mod artifact;
mod cache;
mod check;
mod clients;
mod dependencies;
mod layers;
mod nycflights13;
mod package;
mod postgres;
mod process;
mod python;
mod setup;
mod tools;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{cache::Checkout, check::CheckOptions, setup::Extent};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Thermocline's developer commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetch what is missing into the cache, verify it and link it to this checkout.
    Setup {
        /// Only what building needs: libduckdb and the extensions.
        #[arg(long)]
        build_only: bool,
    },
    /// Set up, then format, lint, document, build and test.
    Test {
        /// Also run the tests that take minutes.
        #[arg(long)]
        long: bool,
        /// Run only the tests whose name contains this (and leave out format, lints and documents).
        filter: Option<String>,
    },
    /// What `test` does, as the merge gate runs it: colourless, nothing left out.
    Ci,
    /// Start the server on the demonstration data and show how to query it.
    Demo {
        /// Run the sample queries, print results and plans, stop everything and exit.
        #[arg(long)]
        once: bool,
        /// Keep the Parquet lake behind an S3 endpoint instead of in a local folder.
        #[arg(long)]
        s3: bool,
    },
    /// Make a Python wheel, a tarball and a Debian package in dist/.
    Package(package::PackageArgs),
    /// Run the benchmarks with the given arguments.
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let checkout = Checkout::locate()?;
    let extent = match command {
        Command::Setup { build_only: true } | Command::Package(_) => Extent::Build,
        Command::Demo { .. } | Command::Bench { .. } => Extent::Demo,
        Command::Setup { build_only: false } | Command::Test { .. } | Command::Ci => Extent::Everything,
    };
    setup::run(&checkout, extent)?;
    match command {
        Command::Setup { .. } => {
            println!("\nSet up. `cargo build --release` gives target/release/thermocline.");
            Ok(())
        }
        Command::Test { long, filter } => check::run(&checkout, &CheckOptions { long, filter, ci: false }),
        Command::Ci => check::run(&checkout, &CheckOptions { long: false, filter: None, ci: true }),
        Command::Demo { once, s3 } => demo(&checkout, once, s3),
        Command::Bench { args } => bench(&checkout, args),
        Command::Package(args) => package::run(&checkout, &args),
    }
}

fn bench(checkout: &Checkout, args: Vec<String>) -> Result<()> {
    artifact::QUACK.ensure(checkout)?;
    println!("\n== Building server and benchmarks (the first time compiles every dependency: some minutes)");
    let mut build = checkout.cargo();
    build.args([
        "build",
        "--release",
        "--package",
        "flight-server",
        "--bin",
        "thermocline",
        "--package",
        "benchmarks",
        "--bin",
        "benchmarks",
    ]);
    process::run(&mut build)?;
    let built = checkout.target_dir().join("release");
    let mut bench = std::process::Command::new(built.join("benchmarks"));
    checkout.set_environment(&mut bench);
    // As a server of this size has it: a quarter of the memory would be usual, the tables fit into this.
    bench.env("THERMOCLINE_TEST_SHARED_BUFFERS", "1GB");
    bench.env("THERMOCLINE_BIN", built.join("thermocline")).args(args);
    process::replace(bench)
}

fn demo(checkout: &Checkout, once: bool, s3: bool) -> Result<()> {
    println!("\n== Building the server and the demo (the first time compiles every dependency: some minutes)");
    let mut build = checkout.cargo();
    // Unoptimised on purpose: DuckDB, which does the work, is optimised already, and the tests share the build.
    build.args(["build", "--package", "flight-server", "--bin", "thermocline"]);
    build.args(["--package", "thermocline-tests", "--bin", "demo"]);
    process::run(&mut build)?;

    let built = checkout.target_dir().join("debug");
    let mut demo = std::process::Command::new(built.join("demo"));
    checkout.set_environment(&mut demo);
    demo.env("THERMOCLINE_BIN", built.join("thermocline"));
    demo.args(once.then_some("--once")).args(s3.then_some("--s3"));
    // The demo takes this process's place, so that Ctrl-C and the exit code are its own.
    process::replace(demo)
}
