//! `[hot]`: the copies of dirty rows that the server keeps in memory.

use std::time::Duration;

use super::tree::{Faults, Section};

/// How dirty rows are kept in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotConfig {
    pub mirror: HotMirror,
    /// Bytes of all copies together. DuckDB's memory limit holds them too.
    pub memory_limit: u64,
    /// How often a sample of the copies is compared with PostgreSQL.
    pub audit_interval: Duration,
}

/// Whether dirty rows are kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HotMirror {
    /// Of each entity that is asked for, as far as the limit allows.
    Auto,
    /// Never: each query reads PostgreSQL.
    Off,
}

impl HotMirror {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
        }
    }
}

impl Default for HotConfig {
    fn default() -> Self {
        Self { mirror: HotMirror::Auto, memory_limit: 512 << 20, audit_interval: Duration::from_secs(30) }
    }
}

pub(super) fn read(mut section: Section, faults: &mut Faults) -> HotConfig {
    let defaults = HotConfig::default();
    let mirror = section
        .parsed("mirror", "auto or off", faults, |text| {
            [HotMirror::Auto, HotMirror::Off].into_iter().find(|mirror| mirror.as_str() == text)
        })
        .map_or(defaults.mirror, |found| found.value);
    let memory_limit = section
        .parsed("memory_limit", "a size such as 512MiB or 4GB", faults, read_bytes)
        .map_or(defaults.memory_limit, |found| found.value);
    let audit_interval = section.duration("audit_interval", faults).unwrap_or(defaults.audit_interval);
    section.finish(faults);
    HotConfig { mirror, memory_limit, audit_interval }
}

/// A whole number of bytes with a unit; units of `1000` and of `1024`.
fn read_bytes(text: &str) -> Option<u64> {
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
}
