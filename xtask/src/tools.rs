//! Programs that the set-up uses. As root on Debian a missing one is installed; otherwise the error says what to do.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::process;

/// A CPython that the pinned wheels exist for, with `venv` and `pip`.
pub(crate) fn python() -> Result<PathBuf> {
    if let Some(python) = find_python()? {
        return Ok(python);
    }
    apt_install("a Python of 3.11 to 3.14 with venv", &["python3", "python3-venv"])?;
    find_python()?.context("Python 3.11 to 3.14 is needed, and this system's `python3` is another")
}

fn find_python() -> Result<Option<PathBuf>> {
    for name in ["python3", "python3.13", "python3.12", "python3.11", "python3.14"] {
        // A pyenv shim exists for versions that are not there, and Debian splits ensurepip off: try, don't look.
        let probe = "import sys, venv, ensurepip, struct; \
                     sys.exit(not ((3, 11) <= sys.version_info < (3, 15) and struct.calcsize('P') == 8))";
        if process::works(Command::new(name).args(["-c", probe]))? {
            let path = process::output(Command::new(name).args(["-c", "import sys; print(sys.executable)"]))?;
            return Ok(Some(PathBuf::from(path.trim())));
        }
    }
    Ok(None)
}

pub(crate) fn npm() -> Result<()> {
    if !process::works(Command::new("npm").arg("--version"))? {
        apt_install("npm", &["npm"])?;
    }
    Ok(())
}

/// The directory of the system's PostgreSQL programs: the newest under Debian's, else by `PATH`.
pub(crate) fn find_postgres() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, bin)| is_postgres(bin))
        .collect();
    versions.sort();
    let debian = versions.pop().map(|(_, bin)| bin);
    debian.or_else(|| std::env::split_paths(&std::env::var_os("PATH")?).find(|dir| is_postgres(dir)))
}

pub(crate) fn is_postgres(bin: &Path) -> bool {
    ["postgres", "initdb", "pg_ctl"].iter().all(|program| bin.join(program).is_file())
}

/// Whether `apt-get` may be used without asking.
pub(crate) fn may_apt() -> Result<bool> {
    let root = process::output(Command::new("id").arg("-u"))?.trim() == "0";
    Ok(root && Path::new("/etc/debian_version").exists())
}

pub(crate) fn apt_install(what: &str, packages: &[&str]) -> Result<()> {
    if !may_apt()? {
        bail!("{what} is missing; install it (on Debian: `apt-get install {}`)", packages.join(" "));
    }
    println!("   {what} is missing: installing {} with apt-get", packages.join(" "));
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-qq", "-o", "Dpkg::Use-Pty=0"]);
        // Another apt-get may be at work.
        apt.args(["-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=600"]).args(arguments);
        process::run(&mut apt)
    };
    apt(&["update"])?;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(packages);
    apt(&install).with_context(|| format!("cannot install {what}"))
}
