//! Where things lie: this checkout, and the cache outside it that every checkout of this user shares.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// A checkout and the cache it uses.
#[derive(Debug)]
pub(crate) struct Checkout {
    root: PathBuf,
    cache: PathBuf,
}

impl Checkout {
    /// The checkout this program was built from, and the cache: `$THERMOCLINE_CACHE`, else
    /// `$XDG_CACHE_HOME/thermocline`, else `~/.cache/thermocline`.
    pub(crate) fn locate() -> Result<Self> {
        // Cargo sets the variable at run time too: a binary in a shared target directory serves several checkouts.
        let manifest =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = manifest.parent().context("xtask lies in no workspace")?.to_owned();
        let cache = match (env::var_os("THERMOCLINE_CACHE"), env::var_os("XDG_CACHE_HOME"), env::home_dir()) {
            (Some(cache), _, _) if !cache.is_empty() => PathBuf::from(cache),
            (_, Some(base), _) if !base.is_empty() => PathBuf::from(base).join("thermocline"),
            (_, _, Some(home)) => home.join(".cache/thermocline"),
            (_, _, None) => bail!("there is no home directory: set THERMOCLINE_CACHE to a directory for the cache"),
        };
        ensure!(cache.is_absolute(), "the cache `{}` must be an absolute path", cache.display());
        Ok(Self { root, cache })
    }

    #[cfg(test)]
    pub(crate) fn at(root: PathBuf, cache: PathBuf) -> Self {
        Self { root, cache }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    pub(crate) fn libduckdb_dir(&self) -> PathBuf {
        self.cache.join("duckdb")
    }

    pub(crate) fn venv_python(&self) -> PathBuf {
        self.cache.join("python/bin/python")
    }

    /// The target directory of the commands that build: the user's own choice, else one in the cache.
    pub(crate) fn target_dir(&self) -> PathBuf {
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.cache.join("target"), |dir| self.root.join(dir))
    }

    /// A cargo that builds this checkout into [`Self::target_dir`].
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root);
        self.set_environment(&mut cargo);
        cargo
    }

    /// The Go command for the Go client, with its modules and what it compiles in the cache.
    pub(crate) fn go(&self) -> Command {
        let mut go = Command::new("go");
        go.current_dir(self.root.join("tests/go"));
        // The same as in `tests/tests/integration/clients/go.rs`.
        go.env("GOMODCACHE", self.cache.join("go/mod")).env("GOCACHE", self.cache.join("go/build"));
        go.env("GOFLAGS", "-mod=readonly -modcacherw -buildvcs=false").env("GOTOOLCHAIN", "local");
        go
    }

    /// What tests and the demo need to know of the set-up.
    pub(crate) fn set_environment(&self, command: &mut Command) {
        // `cargo run` leaves the variables of this package behind; they would reach build scripts of others.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text.starts_with("CARGO_BIN_") {
                command.env_remove(&name);
            }
        }
        // Programs built here carry an rpath; documentation tests are linked elsewhere and need the variable.
        let mut library_path = self.libduckdb_dir().into_os_string();
        if let Some(before) = env::var_os("LD_LIBRARY_PATH").filter(|before| !before.is_empty()) {
            library_path.push(":");
            library_path.push(before);
        }
        command
            .env("LD_LIBRARY_PATH", library_path)
            .env("CARGO_TARGET_DIR", self.target_dir())
            .env("THERMOCLINE_CACHE", &self.cache)
            .env("THERMOCLINE_PYTHON", self.venv_python());
    }

    /// Keeps a second set-up waiting until the returned file is dropped.
    pub(crate) fn lock(&self) -> Result<File> {
        fs::create_dir_all(&self.cache).with_context(|| format!("cannot make the cache `{}`", self.cache.display()))?;
        let path = self.cache.join(".lock");
        let file = File::create(&path).with_context(|| format!("cannot open `{}`", path.display()))?;
        if file.try_lock().is_err() {
            println!("   waiting for another set-up to finish");
            file.lock().with_context(|| format!("cannot lock `{}`", path.display()))?;
        }
        Ok(file)
    }

    /// A new, empty directory in the cache, from where finished things are renamed into place.
    /// What an interrupted set-up left is removed: the caller holds the lock, so nobody else uses it.
    pub(crate) fn staging(&self, name: &str) -> Result<PathBuf> {
        let staging = self.cache.join(".staging").join(name);
        remove_dir_if_there(&staging)?;
        fs::create_dir_all(&staging).with_context(|| format!("cannot make `{}`", staging.display()))?;
        Ok(staging)
    }

    /// Points `.deps` in the checkout to the cache: `.cargo/config.toml` can only name paths relative to the checkout.
    pub(crate) fn link(&self) -> Result<()> {
        let link = self.root.join(".deps");
        match fs::read_link(&link) {
            Ok(target) if target == self.cache => return Ok(()),
            Ok(_) => {}
            Err(_) if !link.exists() => {}
            Err(_) => bail!("`{}` is in the way of a link to the cache: move it elsewhere", link.display()),
        }
        let next = self.root.join(format!(".deps.{}", std::process::id()));
        std::os::unix::fs::symlink(&self.cache, &next).with_context(|| format!("cannot link `{}`", next.display()))?;
        fs::rename(&next, &link).with_context(|| format!("cannot link `{}`", link.display()))
    }
}

pub(crate) fn remove_dir_if_there(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove `{}`", path.display())),
    }
}
