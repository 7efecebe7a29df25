//! `[cache]`: what the server keeps on local disk to find again.

use std::path::{Path, PathBuf};

use super::tree::{Faults, Section};

/// Where the version index is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// `None`: the user's cache directory.
    pub directory: Option<PathBuf>,
    /// Bytes of all indexes together; 0: there is none.
    pub limit: u64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { directory: None, limit: 10_000_000_000 }
    }
}

impl CacheConfig {
    /// The directory in force: the one that is set, the user's cache directory, or one under `temporary`.
    pub(crate) fn directory(&self, temporary: &Path) -> PathBuf {
        let from = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let of_user = || from("XDG_CACHE_HOME").or_else(|| Some(from("HOME")?.join(".cache")));
        self.directory
            .clone()
            .unwrap_or_else(|| of_user().unwrap_or_else(|| temporary.to_owned()).join("thermocline").join("versions"))
    }
}

pub(super) fn read(mut section: Section, base: &Path, faults: &mut Faults) -> CacheConfig {
    let directory = super::path(&mut section, "directory", base, faults);
    let limit = section.parsed("limit", "a size such as 512MiB or 10GB", faults, read_bytes);
    section.finish(faults);
    CacheConfig { directory, limit: limit.map_or(CacheConfig::default().limit, |found| found.value) }
}

/// A whole number of bytes with a unit; units of `1000` and of `1024`.
pub(super) fn read_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_with_a_unit() {
        assert_eq!(read_bytes("512MiB"), Some(512 << 20));
        assert_eq!(read_bytes("4 GB"), Some(4_000_000_000));
        assert_eq!(read_bytes("0B"), Some(0));
        for wrong in ["", "5", "MiB", "80%", "1.5GB", "99999999TiB"] {
            assert_eq!(read_bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_directory_that_is_set_is_taken() {
        let set = CacheConfig { directory: Some("/var/cache/t".into()), ..CacheConfig::default() };
        assert_eq!(set.directory(Path::new("/tmp")), Path::new("/var/cache/t"));
        assert!(CacheConfig::default().directory(Path::new("/tmp")).ends_with("thermocline/versions"));
    }
}
