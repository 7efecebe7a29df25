//! Query options (docs/contract.md, "Flight SQL"): one name, one type, one default each.

use std::time::Duration;

/// Options of one query, after header, session and default have been merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryOptions {
    pub consistency: Consistency,
    pub allow_partial: bool,
    pub prefer_hot: bool,
    pub allow_s3_fallback: bool,
    pub tiers: Tiers,
    /// At most this many rows are sent; a cut result is marked `truncated`.
    pub max_rows: Option<u64>,
    /// A plan whose estimate is above this is refused before anything is read.
    pub max_scan_rows: Option<u64>,
    pub timeout: Option<Duration>,
    pub include_deleted: bool,
    pub hot_scan: HotScan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Consistency {
    Strict,
    Eventual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HotScan {
    Copy,
    Scan,
}

/// One of the three storage tiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    Hot,
    Warm,
    Cold,
}

/// A set of tiers that is never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tiers {
    hot: bool,
    warm: bool,
    cold: bool,
}

/// An unknown option name or a bad value. The text names the valid ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    #[error("unknown query option `{name}`; the options are: {}", OPTION_NAMES.join(", "))]
    Unknown { name: String },
    #[error("query option `{name}` cannot be `{value}`: expected {expected}")]
    BadValue { name: &'static str, value: String, expected: &'static str },
}

/// All option names, in the order of the contract.
pub const OPTION_NAMES: [&str; 10] = [
    "consistency",
    "allow_partial",
    "prefer_hot",
    "allow_s3_fallback",
    "tiers",
    "max_rows",
    "max_scan_rows",
    "timeout",
    "include_deleted",
    "hot_scan",
];

impl Default for QueryOptions {
    fn default() -> Self {
        Self {
            consistency: Consistency::Strict,
            allow_partial: false,
            prefer_hot: false,
            allow_s3_fallback: true,
            tiers: Tiers::ALL,
            max_rows: None,
            max_scan_rows: None,
            timeout: None,
            include_deleted: false,
            hot_scan: HotScan::Copy,
        }
    }
}

impl QueryOptions {
    /// Sets one option from its text form.
    ///
    /// # Errors
    /// An unknown name, or a value that the option cannot take; the options are unchanged then.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), OptionError> {
        let Some(name) = OPTION_NAMES.into_iter().find(|known| *known == name) else {
            return Err(OptionError::Unknown { name: name.to_owned() });
        };
        let value = value.trim();
        let bad = |expected| OptionError::BadValue { name, value: value.to_owned(), expected };
        let boolean = || parse_bool(value).ok_or_else(|| bad("true or false"));
        let rows = || parse_rows(value).ok_or_else(|| bad("a number of rows, 1 or more, or none"));
        match name {
            "consistency" => {
                self.consistency = match value.to_ascii_lowercase().as_str() {
                    "strict" => Consistency::Strict,
                    "eventual" => Consistency::Eventual,
                    _ => return Err(bad("strict or eventual")),
                }
            }
            "allow_partial" => self.allow_partial = boolean()?,
            "prefer_hot" => self.prefer_hot = boolean()?,
            "allow_s3_fallback" => self.allow_s3_fallback = boolean()?,
            "tiers" => {
                self.tiers = Tiers::parse(value).ok_or_else(|| bad("a comma-separated list of hot, warm and cold"))?;
            }
            "max_rows" => self.max_rows = rows()?,
            "max_scan_rows" => self.max_scan_rows = rows()?,
            "timeout" => {
                self.timeout =
                    parse_timeout(value).ok_or_else(|| bad("a duration such as 500ms, 30s, 5m or 1h, or none"))?;
            }
            "include_deleted" => self.include_deleted = boolean()?,
            _ => {
                self.hot_scan = match value.to_ascii_lowercase().as_str() {
                    "copy" => HotScan::Copy,
                    "scan" => HotScan::Scan,
                    _ => return Err(bad("copy or scan")),
                }
            }
        }
        Ok(())
    }

    /// Every option with its value in text form, in the order of [`OPTION_NAMES`].
    pub fn entries(&self) -> [(&'static str, String); 10] {
        let rows = |rows: Option<u64>| rows.map_or_else(|| "none".to_owned(), |rows| rows.to_string());
        let values = [
            self.consistency.as_str().to_owned(),
            self.allow_partial.to_string(),
            self.prefer_hot.to_string(),
            self.allow_s3_fallback.to_string(),
            self.tiers.to_string(),
            rows(self.max_rows),
            rows(self.max_scan_rows),
            self.timeout.map_or_else(|| "none".to_owned(), |timeout| format!("{}ms", timeout.as_millis())),
            self.include_deleted.to_string(),
            self.hot_scan.as_str().to_owned(),
        ];
        let mut values = values.into_iter();
        OPTION_NAMES.map(|name| (name, values.next().unwrap_or_default()))
    }
}

impl Consistency {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Eventual => "eventual",
        }
    }
}

impl HotScan {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Scan => "scan",
        }
    }
}

impl Tier {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

impl Tiers {
    pub const ALL: Self = Self { hot: true, warm: true, cold: true };
    pub const HOT: Self = Self { hot: true, warm: false, cold: false };

    /// Reads `hot,warm,cold` or a part of it, in any order; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut tiers = Self { hot: false, warm: false, cold: false };
        for tier in text.split(',') {
            match tier.trim().to_ascii_lowercase().as_str() {
                "hot" => tiers.hot = true,
                "warm" => tiers.warm = true,
                "cold" => tiers.cold = true,
                _ => return None,
            }
        }
        Some(tiers)
    }

    pub fn contains(self, tier: Tier) -> bool {
        match tier {
            Tier::Hot => self.hot,
            Tier::Warm => self.warm,
            Tier::Cold => self.cold,
        }
    }

    /// Whether any tier of the lake is in the set.
    pub fn any_lake(self) -> bool {
        self.warm || self.cold
    }

    pub fn iter(self) -> impl Iterator<Item = Tier> {
        [Tier::Hot, Tier::Warm, Tier::Cold].into_iter().filter(move |tier| self.contains(*tier))
    }
}

impl std::fmt::Display for Tiers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, tier) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(tier.as_str())?;
        }
        Ok(())
    }
}

fn parse_bool(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn parse_rows(value: &str) -> Option<Option<u64>> {
    if value.eq_ignore_ascii_case("none") {
        return Some(None);
    }
    value.parse().ok().filter(|rows| *rows > 0).map(Some)
}

/// Reads a number with a unit (`ms`, `s`, `m`, `h`); a bare number is seconds, as in gRPC tools.
fn parse_timeout(value: &str) -> Option<Option<Duration>> {
    if value.eq_ignore_ascii_case("none") {
        return Some(None);
    }
    let digits = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit.trim() {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return None,
    };
    let timeout = Duration::try_from_secs_f64(seconds).ok()?;
    (!timeout.is_zero()).then_some(Some(timeout))
}

#[cfg(test)]
mod tests;
