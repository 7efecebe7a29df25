//! `cargo xtask test`: every check of the workspace, in the order that fails soonest.

use std::{
    fmt::Write as _,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{cache::Checkout, clients, dependencies, layers, postgres, process};

#[derive(Debug)]
pub(crate) struct CheckOptions {
    /// Also the tests that take minutes.
    pub(crate) long: bool,
    /// Only the tests whose name contains this.
    pub(crate) filter: Option<String>,
    pub(crate) ci: bool,
}

/// The translator is pure: these must not be among its dependencies.
const FORBIDDEN_IN_TRANSLATOR: &[&str] =
    &["arrow-flight", "duckdb", "libduckdb-sys", "object_store", "tokio", "tokio-postgres", "tonic"];

pub(crate) fn run(checkout: &Checkout, options: &CheckOptions) -> Result<()> {
    let mut report = Report { steps: Vec::new(), missing: Vec::new() };
    let result = run_steps(checkout, options, &mut report);
    println!("\n{}", report.summary());
    result?;
    println!("all passed");
    Ok(())
}

fn run_steps(checkout: &Checkout, options: &CheckOptions, report: &mut Report) -> Result<()> {
    if options.filter.is_none() {
        static_checks(checkout, options, report)?;
    }
    report.step("build the server", || {
        let arguments = ["build", "--package", "flight-server", "--bin", "thermocline"];
        process::run(cargo(checkout, options).args(arguments))
    })?;
    // The tests of other languages' clients are among them: they start their programs beside a server of their own.
    let missing = clients::missing(checkout)?;
    report.step("cargo test", || {
        let mut test = cargo(checkout, options);
        test.args(["test", "--workspace"]).args(&options.filter);
        if !missing.is_empty() {
            test.arg("--");
            test.args(missing.iter().flat_map(|client| ["--skip", client.tests]));
        }
        set_test_environment(checkout, options, &mut test);
        process::run(&mut test)
    })?;
    if options.filter.is_none() {
        for version in &postgres::VERSIONS {
            report.step(version.name, || {
                let mut test = cargo(checkout, options);
                test.args(["test", "--workspace", "--test", "integration", "--"]).args(postgres::TESTS);
                test.args(["--skip", postgres::LEFT_OUT]);
                set_test_environment(checkout, options, &mut test);
                test.env("THERMOCLINE_TEST_POSTGRES", version.programs(checkout));
                process::run(&mut test)
            })?;
        }
    }
    for client in &missing {
        report.missing(client.tests, client.tool);
    }
    let is_gate = options.ci || std::env::var_os("CI").is_some();
    ensure!(missing.is_empty() || !is_gate, "the merge gate runs every client");
    Ok(())
}

fn static_checks(checkout: &Checkout, options: &CheckOptions, report: &mut Report) -> Result<()> {
    let tool = |name: &str| process::works(checkout.cargo().args([name, "--version"]));
    if tool("fmt")? {
        report.step("format", || process::run(cargo(checkout, options).args(["fmt", "--all", "--check"])))?;
    } else {
        report.missing("format", "rustfmt (`rustup component add rustfmt`)");
    }
    report.step("translator's dependencies", || check_translator(checkout))?;
    report.step("house rules", || layers::check(checkout.root()))?;
    report.step("dependencies", || dependencies::check(checkout))?;
    let mut asked = false;
    report.step("advisories", || {
        asked = dependencies::check_advisories(checkout)?;
        Ok(())
    })?;
    if !asked {
        report.missing("advisories", dependencies::ADVISORIES_TOOL);
    }
    if tool("clippy")? {
        report.step("clippy", || {
            let arguments = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
            process::run(cargo(checkout, options).args(arguments))
        })?;
    } else {
        report.missing("clippy", "clippy (`rustup component add clippy`)");
    }
    report.step("documents", || {
        let mut doc = cargo(checkout, options);
        doc.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "--deny warnings");
        process::run(&mut doc)
    })
}

fn cargo(checkout: &Checkout, options: &CheckOptions) -> Command {
    let mut cargo = checkout.cargo();
    if options.ci {
        cargo.env("CARGO_TERM_COLOR", "never").env("CARGO_INCREMENTAL", "0");
    }
    cargo
}

fn set_test_environment(checkout: &Checkout, options: &CheckOptions, command: &mut Command) {
    command.env("THERMOCLINE_BIN", checkout.target_dir().join("debug/thermocline"));
    // The tests of the packages ask for this very program.
    if let Ok(xtask) = std::env::current_exe() {
        command.env("THERMOCLINE_XTASK", xtask);
    }
    if options.long {
        command.env("THERMOCLINE_TEST_LONG", "1");
    }
}

fn check_translator(checkout: &Checkout) -> Result<()> {
    let mut tree = checkout.cargo();
    tree.args(["tree", "--package", "translator", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"]);
    let tree = process::output(&mut tree)?;
    let found: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| FORBIDDEN_IN_TRANSLATOR.contains(name))
        .collect();
    ensure!(found.is_empty(), "translator must stay pure but depends on {}", found.join(", "));
    println!("   translator depends on none of {}", FORBIDDEN_IN_TRANSLATOR.join(", "));
    Ok(())
}

#[derive(Debug)]
struct Report {
    steps: Vec<(&'static str, Duration, bool)>,
    missing: Vec<(&'static str, &'static str)>,
}

impl Report {
    fn step(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        println!("\n== {name}");
        let started = Instant::now();
        let result = step();
        let took = started.elapsed();
        self.steps.push((name, took, result.is_ok()));
        println!("   {name}: {} ({took:.1?})", if result.is_ok() { "ok" } else { "FAILED" });
        result.with_context(|| format!("the step `{name}` failed"))
    }

    fn missing(&mut self, check: &'static str, tool: &'static str) {
        println!("\n== {check}\n   NOT RUN: {tool} is missing");
        self.missing.push((check, tool));
    }

    fn summary(&self) -> String {
        let mut text = String::from("== Summary\n");
        for (name, took, ok) in &self.steps {
            // Writing to a string can't fail.
            let _ = writeln!(text, "   {:<8}{:>8.1} s  {name}", if *ok { "ok" } else { "FAILED" }, took.as_secs_f64());
        }
        for (check, tool) in &self.missing {
            let _ = writeln!(text, "   NOT RUN             {check}: {tool} is missing");
        }
        text.pop();
        text
    }
}
