//! Directories that DuckDB spills into while files are merged. One that outlived its process is removed by the next writer
//! with the same temporary directory.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::TempDir;

const PREFIX: &str = "thermocline-merge-";
/// Locked as long as its process lives.
const LOCK: &str = "lock";

/// A directory that goes with the value, or after the process.
#[derive(Debug)]
pub(super) struct SpillDirectory {
    directory: TempDir,
    _lock: File,
}

impl SpillDirectory {
    /// Makes a directory under `parent` and removes what processes that died left there.
    pub(super) fn create(parent: &Path) -> anyhow::Result<Self> {
        let make = || {
            std::fs::create_dir_all(parent)?;
            remove_abandoned(parent)?;
            let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
            // Under its name it is never seen without its lock.
            let unlocked = directory.path().join("unlocked");
            let lock = File::create(&unlocked)?;
            lock.lock()?;
            std::fs::rename(unlocked, directory.path().join(LOCK))?;
            Ok::<_, std::io::Error>(Self { directory, _lock: lock })
        };
        make().with_context(|| format!("cannot make a directory in {}", parent.display()))
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

fn remove_abandoned(parent: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(parent)? {
        let path = entry?.path();
        let is_ours = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX));
        if is_ours && is_abandoned(&path) {
            // Another writer may be faster, or it belongs to another user.
            if let Err(error) = std::fs::remove_dir_all(&path) {
                tracing::info!(%error, path = %path.display(), "an old directory stays");
            }
        }
    }
    Ok(())
}

fn is_abandoned(directory: &Path) -> bool {
    let lock: PathBuf = directory.join(LOCK);
    File::open(lock).is_ok_and(|lock| lock.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_the_dead_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let living = SpillDirectory::create(parent.path()).unwrap();
        let dead = parent.path().join(format!("{PREFIX}dead"));
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join(LOCK), "").unwrap();
        let other = parent.path().join("other");
        std::fs::create_dir(&other).unwrap();
        drop(SpillDirectory::create(parent.path()).unwrap());
        assert!(living.path().exists() && other.exists() && !dead.exists());
    }
}
