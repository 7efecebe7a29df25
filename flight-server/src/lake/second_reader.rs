//! A second opinion on footers: the Parquet reader of this process refuses files that DuckDB, which reads the data, takes.

use translator::lake::{FileColumn, FileType, LakeFile};

use super::ListedFile;

/// What reads footers that the first reader refuses.
pub trait SecondReader: std::fmt::Debug + Send + Sync {
    /// The facts of a file, under the name that DuckDB knows it by.
    ///
    /// # Errors
    /// It can't be read either: the words for it.
    fn read(&self, url: &str) -> Result<SecondFacts, String>;
}

/// Facts without statistics.
#[derive(Debug, Clone, PartialEq)]
pub struct SecondFacts {
    pub row_count: u64,
    /// Top-level columns in file order.
    pub columns: Vec<(String, FileType)>,
}

impl SecondFacts {
    /// As the planner knows files: no statistic leaves anything out.
    pub(super) fn of(self, file: &ListedFile) -> LakeFile {
        let may_hold_tombstones = self.columns.iter().any(|(name, _)| name.eq_ignore_ascii_case("deleted_at"));
        let columns = self.columns.into_iter();
        LakeFile {
            path: file.path.clone(),
            tier: file.tier,
            bytes: file.bytes,
            etag: None,
            row_count: self.row_count,
            row_id_range: None,
            changed_at_range: None,
            unique_rows: false,
            may_hold_tombstones,
            row_groups: std::sync::Arc::default(),
            columns: columns
                .map(|(name, file_type)| FileColumn { name, file_type, range: None, null_count: None })
                .collect(),
        }
    }
}
