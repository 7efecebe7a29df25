//! `cargo xtask package`: the server with all its parts as a Python wheel, a tarball and a Debian package.
//!
//! All three hold one tree, and the program finds its parts from where it is itself:
//!
//! ```text
//! bin/thermocline
//! lib/libduckdb.so
//! lib/thermocline/extensions/v1.5.5/linux_amd64/*.duckdb_extension
//! ```

mod debian;
mod program;
mod wheel;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use flate2::{Compression, write::GzEncoder};

use crate::{artifact, cache::Checkout, cache::remove_dir_if_there, process};

/// Version of the workspace, and of the packages.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What to package, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct PackageArgs {
    /// Cargo's profile to build the server with; `dev` makes packages for tests only.
    #[arg(long, default_value = "release")]
    profile: String,
    /// A server that is built already.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Only the wheel.
    #[arg(long)]
    wheel_only: bool,
    /// Where the packages go.
    #[arg(long, value_name = "DIRECTORY", default_value = "dist")]
    output: PathBuf,
}

/// A file of a package.
#[derive(Debug)]
struct Part {
    /// In the tree: `bin/thermocline`.
    path: String,
    file: PathBuf,
    mode: u32,
}

/// What every package is made of.
struct Contents<'a> {
    checkout: &'a Checkout,
    parts: Vec<Part>,
    needs: program::Needs,
    /// Where the packages go.
    output: PathBuf,
    compression: Compression,
}

pub(crate) fn run(checkout: &Checkout, args: &PackageArgs) -> Result<()> {
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => build(checkout, &args.profile)?,
    };
    let output = checkout.root().join(&args.output);
    fs::create_dir_all(&output).with_context(|| format!("cannot make `{}`", output.display()))?;
    let staging = output.join(".staging");
    remove_dir_if_there(&staging)?;
    fs::create_dir(&staging).with_context(|| format!("cannot make `{}`", staging.display()))?;
    println!("\n== Packaging {}", binary.display());
    let parts = parts(checkout, &binary, &staging)?;
    let needs = program::needs(&parts)?;
    println!("   needs glibc {}, libstdc++ of GLIBCXX {}", needs.glibc, needs.glibcxx);
    // Packages for tests are gone in a minute: squeezing them would take most of it.
    let compression = if args.profile == "dev" { Compression::none() } else { Compression::default() };
    let contents = Contents { checkout, parts, needs, output, compression };
    packed("wheel", || wheel::write(&contents))?;
    if !args.wheel_only {
        packed("tarball", || tarball(&contents))?;
        packed("Debian package", || debian::write(&contents))?;
    }
    remove_dir_if_there(&staging)
}

fn packed(what: &str, write: impl FnOnce() -> Result<PathBuf>) -> Result<()> {
    let started = Instant::now();
    let path = write().with_context(|| format!("cannot write the {what}"))?;
    let megabytes = fs::metadata(&path)?.len() / 1_000_000;
    println!("   {what}: {} ({megabytes} MB, {:.1?})", path.display(), started.elapsed());
    Ok(())
}

fn build(checkout: &Checkout, profile: &str) -> Result<PathBuf> {
    println!("\n== Building the server (profile {profile}; the first time compiles every dependency: some minutes)");
    let mut build = checkout.cargo();
    build.args(["build", "--profile", profile, "--package", "flight-server", "--bin", "thermocline"]);
    process::run(&mut build)?;
    // Cargo's own name for where the profile `dev` builds to.
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(checkout.target_dir().join(folder).join("thermocline"))
}

/// The tree, with a program that looks for libraries only beside itself.
fn parts(checkout: &Checkout, binary: &Path, staging: &Path) -> Result<Vec<Part>> {
    let program = staging.join("thermocline");
    program::strip(binary, &program, &checkout.libduckdb_dir())?;
    let mut parts = vec![Part { path: "bin/thermocline".to_owned(), file: program, mode: 0o755 }];
    for artifact in artifact::DUCKDB {
        ensure!(artifact.is_cached(checkout)?, "`{}` is missing: run `cargo xtask setup`", artifact.path);
        let path = match artifact.path.strip_prefix("duckdb/extensions/") {
            Some(extension) => format!("lib/thermocline/extensions/{extension}"),
            None => artifact.path.replacen("duckdb/", "lib/", 1),
        };
        parts.push(Part { path, file: checkout.cache().join(artifact.path), mode: 0o644 });
    }
    Ok(parts)
}

/// An entry of a tar archive as root's, with no time of its own: the same parts make the same archive.
fn root_owned(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Adds a file to a tar archive.
fn append(archive: &mut tar::Builder<impl std::io::Write>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = root_owned(tar::EntryType::Regular, mode);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content)?;
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))
}

fn tarball(contents: &Contents<'_>) -> Result<PathBuf> {
    let Contents { checkout, parts, output, compression, .. } = contents;
    let name = format!("thermocline-{VERSION}-x86_64-linux");
    let path = output.join(format!("{name}.tar.gz"));
    let mut archive = tar::Builder::new(GzEncoder::new(fs::File::create(&path)?, *compression));
    for part in parts {
        append(&mut archive, &format!("{name}/{}", part.path), part.mode, &read(&part.file)?)?;
    }
    append(&mut archive, &format!("{name}/LICENSE"), 0o644, &read(&checkout.root().join("LICENSE"))?)?;
    archive.into_inner()?.finish()?;
    Ok(path)
}
