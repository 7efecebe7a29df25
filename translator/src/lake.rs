//! What the planner knows of the files of the lake.

use std::sync::Arc;

use crate::catalog::fold;
use crate::options::Tier;
use crate::value::Value;

/// One immutable Parquet file of an entity, with the facts of its footer (or of its manifest row).
#[derive(Debug, Clone, PartialEq)]
pub struct LakeFile {
    /// Path relative to the lake URL, without a leading slash; the last tie-break of last-write-wins.
    pub path: String,
    /// [`Tier::Warm`] for delta files, [`Tier::Cold`] for base files.
    pub tier: Tier,
    /// Size of the object.
    pub bytes: u64,
    /// What tells this content from another of the same path and size: the etag, or the time of modification where the
    /// store has none. `None` for files of the manifest, whose names are never used again.
    pub etag: Option<String>,
    pub row_count: u64,
    /// Smallest and greatest `row_id`, when every row group has the statistic.
    pub row_id_range: Option<(u128, u128)>,
    /// Smallest and greatest `changed_at` in milliseconds, when every row group has the statistic.
    pub changed_at_range: Option<(i64, i64)>,
    /// Whether it is known that no `row_id` occurs twice in this file.
    pub unique_rows: bool,
    /// Whether the file may hold tombstones: it has a `deleted_at` column that isn't known to be all NULL.
    pub may_hold_tombstones: bool,
    /// Row groups in file order; none when the footer wasn't read, as of files of the manifest.
    pub row_groups: Arc<[RowGroup]>,
    /// Top-level columns in file order.
    pub columns: Vec<FileColumn>,
}

/// A row group of a Parquet file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowGroup {
    pub rows: u64,
    /// Smallest and greatest `row_id`, when the statistic is there.
    pub row_id_range: Option<(u128, u128)>,
}

/// A top-level column of a Parquet file.
#[derive(Debug, Clone, PartialEq)]
pub struct FileColumn {
    pub name: String,
    pub file_type: FileType,
    /// Smallest and greatest value over all row groups, when every row group has exact bounds of a type that
    /// [`Value`] holds. NaN never appears here: a column with floating-point values has no bounds unless they are
    /// known to be free of NaN.
    pub range: Option<(Value, Value)>,
    /// Number of NULLs, when every row group has the statistic.
    pub null_count: Option<u64>,
}

/// A Parquet column type, named as DuckDB reads it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileType {
    Boolean,
    /// Signed integer of this many bits (8, 16, 32, 64).
    Int(u8),
    /// Unsigned integer of this many bits.
    UInt(u8),
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Text,
    /// Binary of any length, or of a fixed length other than 16.
    Blob,
    /// Fixed 16 bytes without the UUID annotation: DuckDB reads a BLOB.
    FixedBytes16,
    /// Fixed 16 bytes with the UUID annotation: DuckDB reads a UUID.
    Uuid,
    Date,
    /// A time of day without a zone; `unit` as of a timestamp.
    Time {
        unit: u8,
    },
    /// `unit` is the number of decimal digits after the second: 3, 6 or 9.
    Timestamp {
        unit: u8,
        utc: bool,
    },
    Json,
    /// Parquet's type of a column without values, which writers give a column of nothing: NULL in every row.
    Null,
    List(Box<FileType>),
    /// Anything else, as Parquet names it.
    Other(String),
}

/// A set of row ids, asked whether any of them lies in a range.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdSet(Vec<u128>);

impl IdSet {
    pub fn new(mut ids: Vec<u128>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        Self(ids)
    }

    /// This set with other ids in it and without some of its own; both in ascending order.
    #[must_use]
    pub fn changed(&self, added: &[u128], removed: &[u128]) -> Self {
        let mut ids = Vec::with_capacity(self.0.len() + added.len());
        let mut added = added.iter().copied().peekable();
        let mut removed = removed.iter().copied().peekable();
        for id in self.0.iter().copied() {
            while let Some(new) = added.next_if(|new| *new <= id) {
                if new < id {
                    ids.push(new);
                }
            }
            while removed.next_if(|gone| *gone < id).is_some() {}
            if removed.peek() != Some(&id) {
                ids.push(id);
            }
        }
        ids.extend(added);
        Self(ids)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its ids in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u128> + Clone + '_ {
        self.0.iter().copied()
    }

    pub fn contains(&self, id: u128) -> bool {
        self.0.binary_search(&id).is_ok()
    }

    /// Whether an id lies in `low..=high`.
    pub fn any_within(&self, (low, high): (u128, u128)) -> bool {
        self.0.get(self.0.partition_point(|id| *id < low)).is_some_and(|id| *id <= high)
    }
}

/// Two columns of a file, either of which may be the one that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AmbiguousColumn<'a> {
    pub first: &'a str,
    pub second: &'a str,
}

impl LakeFile {
    /// Finds a column; names are case-insensitive, as in DuckDB.
    pub fn column(&self, name: &str) -> Option<&FileColumn> {
        self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// The column that holds the attribute of the folded name `name`: it is called so, or by a name that folds to it, in any
    /// letter case. `None` when the file surely lacks it.
    ///
    /// # Errors
    /// Several columns may be it.
    pub fn stored_column(&self, name: &str) -> Result<Option<&FileColumn>, AmbiguousColumn<'_>> {
        let mut found = self.columns.iter().filter(|column| fold(&column.name).eq_ignore_ascii_case(name));
        let Some(column) = found.next() else { return Ok(None) };
        match found.next().or_else(|| self.takes_its_name(column)) {
            Some(other) => Err(AmbiguousColumn { first: &column.name, second: &other.name }),
            None => Ok(Some(column)),
        }
    }

    /// A column that DuckDB gives the name of `column`: of `n` and `N` it calls the second one `N_1`.
    fn takes_its_name(&self, column: &FileColumn) -> Option<&FileColumn> {
        let (base, number) = column.name.rsplit_once('_')?;
        let numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        self.columns.iter().filter(|other| numbered && other.name.eq_ignore_ascii_case(base)).nth(1)
    }
}

impl std::fmt::Display for FileType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Boolean => f.write_str("BOOLEAN"),
            Self::Int(bits) => write!(f, "INT{bits}"),
            Self::UInt(bits) => write!(f, "UINT{bits}"),
            Self::Float => f.write_str("FLOAT"),
            Self::Double => f.write_str("DOUBLE"),
            Self::Decimal { precision, scale } => write!(f, "DECIMAL({precision},{scale})"),
            Self::Text => f.write_str("STRING"),
            Self::Blob => f.write_str("BYTE_ARRAY"),
            Self::FixedBytes16 => f.write_str("FIXED_LEN_BYTE_ARRAY(16)"),
            Self::Uuid => f.write_str("UUID"),
            Self::Date => f.write_str("DATE"),
            Self::Time { unit } => write!(f, "TIME({})", unit_name(*unit)),
            Self::Timestamp { unit, utc } => {
                write!(f, "TIMESTAMP({}{})", unit_name(*unit), if *utc { ", UTC" } else { "" })
            }
            Self::Json => f.write_str("JSON"),
            Self::Null => f.write_str("NULL"),
            Self::List(element) => write!(f, "LIST<{element}>"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// Parquet's name of a unit of time, of its digits after the second.
fn unit_name(digits: u8) -> &'static str {
    match digits {
        3 => "MILLIS",
        6 => "MICROS",
        _ => "NANOS",
    }
}

#[cfg(test)]
mod tests;
