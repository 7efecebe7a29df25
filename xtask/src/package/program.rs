//! The program as it is packaged, and what it needs of a system.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::Part;
use crate::process;

/// What all parts together need.
#[derive(Debug)]
pub(super) struct Needs {
    pub(super) glibc: Version,
    pub(super) glibcxx: Version,
}

/// Such as `2.34`, in the order of versions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(Vec<u32>);

/// What every system has that a manylinux wheel installs on ([PEP 600](https://peps.python.org/pep-0600/)).
const EVERYWHERE: &[&str] = &[
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
];

/// Copies the program without debugging information and without the run path of the machine that built it.
pub(super) fn strip(binary: &Path, target: &Path, built_with: &Path) -> Result<()> {
    process::output(Command::new("strip").args(["--strip-debug", "-o"]).arg(target).arg(binary))?;
    let mut program = fs::read(target)?;
    // The run path is a list in one text that ends with a zero byte, and this is its last entry (flight-server/build.rs):
    // zeros in its place end the list before it.
    let entry = format!(":{}\0", built_with.canonicalize()?.display());
    if let Some(at) = program.windows(entry.len()).position(|window| window == entry.as_bytes()) {
        program[at..at + entry.len()].fill(0);
        fs::write(target, program)?;
    }
    let dynamic = process::output(Command::new("readelf").args(["--dynamic", "--wide"]).arg(target))?;
    let path = dynamic.lines().find(|line| line.contains("(RUNPATH)") || line.contains("(RPATH)"));
    let (_, list) = path.and_then(|line| line.split_once('[')).context("the program has no run path")?;
    let entries: Vec<&str> = list.trim_end_matches(']').split(':').collect();
    ensure!(entries.contains(&"$ORIGIN/../lib"), "the program doesn't look for libraries in ../lib: {entries:?}");
    ensure!(entries.iter().all(|entry| entry.starts_with("$ORIGIN/")), "the run path names a machine's: {entries:?}");
    Ok(())
}

/// Reads which libraries and versions of their symbols the parts ask for.
pub(super) fn needs(parts: &[Part]) -> Result<Needs> {
    let mut needs = Needs { glibc: Version(vec![2, 17]), glibcxx: Version(vec![3, 4]) };
    for part in parts {
        let readelf = |what: &str| process::output(Command::new("readelf").args([what, "--wide"]).arg(&part.file));
        for line in readelf("--dynamic")?.lines().filter(|line| line.contains("(NEEDED)")) {
            let library = line.split(['[', ']']).nth(1).context("readelf names a library in brackets")?;
            ensure!(
                EVERYWHERE.contains(&library) || library == "libduckdb.so",
                "{} needs {library}, which not every system has",
                part.path
            );
        }
        for name in readelf("--version-info")?.split_whitespace() {
            let newest = |mark: &str| name.strip_prefix(mark).and_then(Version::parse);
            if let Some(version) = newest("GLIBC_").filter(|version| *version > needs.glibc) {
                needs.glibc = version;
            }
            if let Some(version) = newest("GLIBCXX_").filter(|version| *version > needs.glibcxx) {
                needs.glibcxx = version;
            }
        }
    }
    Ok(needs)
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        text.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>().map(Self)
    }

    /// `2_34`
    pub(super) fn with_underscores(&self) -> String {
        self.to_string().replace('.', "_")
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = self.0.iter().map(u32::to_string).collect();
        formatter.write_str(&parts.join("."))
    }
}
