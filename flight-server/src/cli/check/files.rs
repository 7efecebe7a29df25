//! Whether DuckDB can read the files of the lake: the first row of each is read, all columns of it. Codecs, encodings,
//! encryption and schemas that it doesn't understand show there; a page deeper in a file shows when a query reads it.

use std::path::Path;
use std::sync::Arc;

use translator::catalog::Entity;
use translator::emit::first_row_probe_statement;
use translator::lake::LakeFile;

use super::{LIMIT, engine_settings};
use crate::blame::{Blame, find_bad};
use crate::config::Config;
use crate::engine::Engine;
use crate::engine::duckdb::{DuckError, DuckErrorKind};
use crate::lake::Lake;
use crate::second_reader::DuckDbReader;

/// Files that one statement reads.
const FILES_AT_ONCE: usize = 64;

/// Reads files as queries do.
pub(super) struct FileReader {
    engine: Arc<Engine>,
    pub(super) lake: Lake,
}

impl FileReader {
    /// `None` when DuckDB or the lake can't be set up, which other parts of the check tell.
    pub(super) async fn open(config: &Config, temp_directory: &Path) -> Option<Self> {
        let lake = Lake::open(&config.lake).ok()?;
        let credentials = tokio::time::timeout(LIMIT, lake.s3_credentials()).await.ok()?.ok()?;
        let settings = engine_settings(config, temp_directory, credentials);
        let engine = tokio::task::spawn_blocking(move || Engine::open(&settings)).await.ok()?.ok()?;
        let engine = Arc::new(engine);
        let lake = lake.with_second_reader(Arc::new(DuckDbReader(Arc::clone(&engine))));
        Some(Self { engine, lake })
    }

    /// What is wrong with files, by name. What isn't read within the limit is told as advice.
    pub(super) async fn look_into(
        self,
        entities: Vec<(Arc<Entity>, Vec<LakeFile>)>,
        advice: &mut Vec<String>,
    ) -> Vec<String> {
        let total: usize = entities.iter().map(|(_, files)| files.len()).sum();
        let (mut faults, mut read) = (Vec::new(), 0);
        let all = async {
            for (entity, files) in &entities {
                for some in files.chunks(FILES_AT_ONCE) {
                    self.look_into_some(entity, some.to_vec(), &mut faults).await;
                    read += some.len();
                }
            }
        };
        if tokio::time::timeout(LIMIT, all).await.is_err() {
            advice.push(format!(
                "within {LIMIT:?} only {read} of {total} files were looked into; nothing is known of the others"
            ));
        }
        faults
    }

    async fn look_into_some(&self, entity: &Arc<Entity>, mut files: Vec<LakeFile>, faults: &mut Vec<String>) {
        while !files.is_empty() {
            let found = match self.first_bad(entity, files.clone()).await {
                Ok(Some(found)) => found,
                Ok(None) => return,
                // Of a stored value that is none of its type, or of the lake: it says so itself.
                Err(error) => {
                    faults.push(match Blame::of(&error) {
                        Blame::Value(message) => message,
                        _ => error.text().to_owned(),
                    });
                    return;
                }
            };
            let (place, failure) = found;
            let path = files.remove(place).path;
            let reason = self.lake.why_unreadable(&path).await.unwrap_or_else(|| failure.text().to_owned());
            faults.push(format!("the file `{path}` can't be read: {reason}"));
        }
    }

    /// The first of the files that can't be read, and why.
    async fn first_bad(
        &self,
        entity: &Arc<Entity>,
        files: Vec<LakeFile>,
    ) -> Result<Option<(usize, DuckError)>, DuckError> {
        let connection = self.engine.connect()?;
        let interrupt = connection.interrupt_on_drop();
        let (entity, root) = (Arc::clone(entity), self.lake.duckdb_root());
        let probed = tokio::task::spawn_blocking(move || {
            let places: Vec<usize> = (0..files.len()).collect();
            let read = |some: &[usize]| {
                let files: Vec<&LakeFile> = some.iter().map(|place| &files[*place]).collect();
                connection.query(&first_row_probe_statement(&entity, &files, &root)).map(|_| ())
            };
            find_bad(&places, &read).map(|found| found.map(|(place, failure)| (*place, failure)))
        });
        let panicked =
            |error: tokio::task::JoinError| Err(DuckError { kind: DuckErrorKind::Other, message: error.to_string() });
        let found = probed.await.unwrap_or_else(panicked);
        interrupt.finish();
        found
    }
}
