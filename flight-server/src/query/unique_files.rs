//! Which files hold each row once: a one-time check of an immutable file, remembered. It runs behind the queries, so the
//! first ones over a file that other software wrote use the `window` strategy and later ones may use `layered`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::AsArray;
use translator::emit::unique_rows_statement;
use translator::lake::LakeFile;
use translator::options::Tier;

use crate::engine::Engine;
use crate::engine::duckdb::DuckError;

/// Path, size and etag: what one content of a file is known by.
pub(super) type FileKey = (String, u64, Option<String>);

/// Answers by file; `None` while a check is under way.
#[derive(Debug, Clone, Default)]
pub(super) struct UniqueFiles(Arc<Mutex<HashMap<FileKey, Option<bool>>>>);

impl UniqueFiles {
    /// Marks the files that are known to hold each row once.
    pub(super) fn mark(&self, files: &mut [LakeFile]) {
        let known = self.lock();
        for file in files.iter_mut().filter(|file| !file.unique_rows) {
            file.unique_rows = known.get(&key(file)).copied().flatten() == Some(true);
        }
    }

    /// Checks base files that nothing is known of, one after the other, on a thread of its own.
    pub(super) fn check_in_background(&self, files: &[LakeFile], engine: &Arc<Engine>, lake_root: &str) {
        let mut unknown = Vec::new();
        {
            let mut known = self.lock();
            if known.values().any(Option::is_none) {
                // One batch of checks at a time: queries come first.
                return;
            }
            for file in files.iter().filter(|file| file.tier == Tier::Cold && !file.unique_rows && file.row_count > 0) {
                let key = key(file);
                if !known.contains_key(&key) {
                    known.insert(key.clone(), None);
                    unknown.push((key, unique_rows_statement(file, lake_root)));
                }
            }
        }
        if unknown.is_empty() {
            return;
        }
        let (this, engine) = (self.clone(), Arc::clone(engine));
        tokio::task::spawn_blocking(move || {
            for (key, statement) in unknown {
                match is_unique(&engine, &statement) {
                    Ok(unique) => {
                        this.lock().insert(key, Some(unique));
                    }
                    Err(error) => {
                        tracing::warn!(file = key.0, %error, "cannot check whether a file holds each row once");
                        this.lock().remove(&key);
                    }
                }
            }
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<FileKey, Option<bool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn key(file: &LakeFile) -> FileKey {
    (file.path.clone(), file.bytes, file.etag.clone())
}

/// Runs a statement that tells whether rows are unique. An answer that isn't a boolean proves nothing.
fn is_unique(engine: &Engine, statement: &str) -> Result<bool, DuckError> {
    let (_, batches) = engine.connect()?.query(statement)?;
    Ok(batches.first().is_some_and(|batch| batch.column(0).as_boolean_opt().is_some_and(|unique| unique.value(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_of_one_content() {
        let file = |etag: &str| LakeFile {
            path: "base/1/a.parquet".to_owned(),
            tier: Tier::Cold,
            bytes: 100,
            etag: Some(etag.to_owned()),
            row_count: 10,
            row_id_range: None,
            changed_at_range: None,
            unique_rows: false,
            may_hold_tombstones: true,
            row_groups: Arc::default(),
            columns: Vec::new(),
        };
        let checked = UniqueFiles::default();
        checked.lock().insert(key(&file("one")), Some(true));
        let mut files = [file("one"), file("two")];
        checked.mark(&mut files);
        assert!(files[0].unique_rows && !files[1].unique_rows);
    }
}
