//! Indexes on local disk: found again after a restart, and bounded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};
use translator::lake::LakeFile;

use super::file_index::{FileIndex, Identity, IndexError, IndexWriter};

/// How names of indexes end, and of those that are being built.
const DONE: &str = "tcvi";
const BUILDING: &str = "building";
/// What was used within this time isn't removed to make room.
const IN_USE: Duration = Duration::from_secs(600);
/// After a failure a file isn't indexed again for this long.
const AFTER_FAILURE: Duration = Duration::from_secs(60);
/// A builder that a crash ended left its file behind.
const ABANDONED: Duration = Duration::from_secs(3600);
/// Bytes that an entry takes at most, about.
const ENTRY: u64 = 29;

/// Path, size and etag: what one content of a file is known by.
pub(super) type FileKey = (String, u64, Option<String>);

/// A directory of indexes.
#[derive(Debug)]
pub(crate) struct IndexStore {
    directory: PathBuf,
    limit: u64,
    lake: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Files that were asked about.
    files: HashMap<FileKey, FileState>,
    /// Everything in the directory: size and when it was used last.
    on_disk: HashMap<PathBuf, (u64, SystemTime)>,
}

#[derive(Debug)]
enum FileState {
    Ready(Arc<FileIndex>),
    /// There is none, and it isn't tried again before this.
    NotBefore(Instant),
    Missing,
}

/// An index that is being built. Dropped before the end, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Build {
    writer: Option<IndexWriter>,
    temporary: tempfile::TempPath,
    path: PathBuf,
    identity: Identity,
    key: FileKey,
}

impl Build {
    pub(crate) fn writer(&mut self) -> Option<&mut IndexWriter> {
        self.writer.as_mut()
    }
}

impl IndexStore {
    /// Looks at what is there. A directory that can't be read or made is one without indexes: building fails then.
    pub(super) fn open(directory: &Path, limit: u64, lake: &str) -> Self {
        let store = Self { directory: directory.to_owned(), limit, lake: lake.to_owned(), state: Mutex::default() };
        if limit > 0
            && let Err(error) = store.look()
        {
            tracing::warn!(directory = %directory.display(), %error, "the directory of version indexes can't be used");
        }
        store
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.limit > 0
    }

    /// Bytes on disk, and indexes that are open.
    pub(crate) fn figures(&self) -> (u64, u64) {
        let state = self.lock();
        let open = state.files.values().filter(|file| matches!(file, FileState::Ready(_))).count();
        (state.on_disk.values().map(|(bytes, _)| bytes).sum(), open as u64)
    }

    /// The index of a file, when there is one.
    pub(super) fn index(&self, file: &LakeFile) -> Option<Arc<FileIndex>> {
        if !self.is_enabled() {
            return None;
        }
        let mut state = self.lock();
        let key = key(file);
        match state.files.get(&key) {
            Some(FileState::Ready(index)) => {
                let index = Arc::clone(index);
                state.touch(index.path());
                Some(index)
            }
            Some(FileState::NotBefore(_) | FileState::Missing) => None,
            None => {
                let identity = self.identity(&key);
                let path = self.path(&identity);
                let found = state.on_disk.contains_key(&path).then(|| FileIndex::open(&path, &identity));
                let (file, index) = match found {
                    Some(Ok(index)) => {
                        let index = Arc::new(index);
                        state.touch(&path);
                        (FileState::Ready(Arc::clone(&index)), Some(index))
                    }
                    Some(Err(error)) => {
                        tracing::warn!(%error, "a version index is built anew");
                        state.remove(&path);
                        (FileState::Missing, None)
                    }
                    None => (FileState::Missing, None),
                };
                state.files.insert(key, file);
                index
            }
        }
    }

    /// Begins the index of a file; `None` when there is one, when there is no room for it, or when it failed just now.
    pub(crate) fn build(&self, file: &LakeFile) -> Result<Option<Build>, IndexError> {
        let key = key(file);
        {
            let mut state = self.lock();
            match state.files.get(&key) {
                Some(FileState::Ready(_)) => return Ok(None),
                Some(FileState::NotBefore(until)) if *until > Instant::now() => return Ok(None),
                _ => {}
            }
            // Positions are numbers of 32 bits.
            let fits = u32::try_from(file.row_count).is_ok();
            if !fits || !state.make_room(file.row_count.saturating_mul(ENTRY), self.limit) {
                tracing::debug!(file = file.path, "there is no room for a version index");
                state.files.insert(key, FileState::NotBefore(Instant::now() + IN_USE));
                return Ok(None);
            }
        }
        let identity = self.identity(&key);
        let io = |source| IndexError::Io { action: "create", path: self.directory.clone(), source };
        std::fs::create_dir_all(&self.directory).map_err(io)?;
        let name = tempfile::Builder::new().suffix(&format!(".{BUILDING}")).make_in(&self.directory, |path| {
            IndexWriter::create(path, &identity).map_err(|error| match error {
                IndexError::Io { source, .. } => source,
                other => std::io::Error::other(other),
            })
        });
        let (writer, temporary) = name.map_err(io)?.into_parts();
        Ok(Some(Build { writer: Some(writer), temporary, path: self.path(&identity), identity, key }))
    }

    /// Puts a finished index in force.
    pub(crate) fn finish(&self, mut build: Build) -> Result<(), IndexError> {
        let Some(writer) = build.writer.take() else { return Ok(()) };
        writer.finish()?;
        let io = |source| IndexError::Io { action: "rename", path: build.path.clone(), source };
        build.temporary.persist(&build.path).map_err(|error| io(error.error))?;
        let index = Arc::new(FileIndex::open(&build.path, &build.identity)?);
        let mut state = self.lock();
        state.on_disk.insert(build.path, (index.bytes(), SystemTime::now()));
        state.files.insert(build.key, FileState::Ready(index));
        Ok(())
    }

    /// A file that can't be indexed isn't tried again at once.
    pub(crate) fn failed(&self, file: &LakeFile) {
        self.lock().files.insert(key(file), FileState::NotBefore(Instant::now() + AFTER_FAILURE));
    }

    /// Removes the index that an error speaks of; it is built anew.
    pub(super) fn discard(&self, error: &IndexError) {
        let (IndexError::Io { path, .. } | IndexError::Damaged { path }) = error else { return };
        tracing::warn!(%error, "a version index is built anew");
        let mut state = self.lock();
        state.files.retain(|_, file| !matches!(file, FileState::Ready(index) if index.path() == path));
        state.remove(path);
    }

    /// Removes the indexes of files that are gone. Who holds one can still read it.
    pub(super) fn forget<'a>(&self, gone: impl Iterator<Item = &'a FileKey>) {
        let mut state = self.lock();
        for key in gone {
            state.files.remove(key);
            state.remove(&self.path(&self.identity(key)));
        }
    }

    fn look(&self) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        let mut state = self.lock();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let (path, metadata) = (entry.path(), entry.metadata()?);
            let modified = metadata.modified()?;
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(DONE) => {
                    state.on_disk.insert(path, (metadata.len(), modified));
                }
                Some(BUILDING) if modified.elapsed().is_ok_and(|age| age > ABANDONED) => std::fs::remove_file(path)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn identity(&self, (path, bytes, etag): &FileKey) -> Identity {
        let mut digest = Sha256::new();
        for part in [self.lake.as_str(), path, etag.as_deref().unwrap_or_default()] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        digest.update(bytes.to_le_bytes());
        digest.finalize().into()
    }

    fn path(&self, identity: &Identity) -> PathBuf {
        let name: String = identity[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        self.directory.join(name).with_extension(DONE)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Notes a use, now and then on disk too, so that the next process knows.
    fn touch(&mut self, path: &Path) {
        let Some((_, used)) = self.on_disk.get_mut(path) else { return };
        if used.elapsed().is_ok_and(|age| age > IN_USE / 2) {
            *used = SystemTime::now();
            let touched = std::fs::File::open(path).and_then(|file| file.set_modified(*used));
            if let Err(error) = touched {
                tracing::debug!(%error, "cannot note that a version index was used");
            }
        }
    }

    /// Removes what was unused longest until `wanted` bytes fit; false when they don't.
    fn make_room(&mut self, wanted: u64, limit: u64) -> bool {
        loop {
            let used: u64 = self.on_disk.values().map(|(bytes, _)| bytes).sum();
            if used.saturating_add(wanted) <= limit {
                return true;
            }
            let unused = self.on_disk.iter().filter(|(_, (_, used))| used.elapsed().is_ok_and(|age| age > IN_USE));
            let Some((path, _)) = unused.min_by_key(|(_, (_, used))| *used) else { return false };
            let path = path.clone();
            self.files.retain(|_, file| !matches!(file, FileState::Ready(index) if index.path() == path));
            self.remove(&path);
        }
    }

    fn remove(&mut self, path: &Path) {
        if self.on_disk.remove(path).is_some()
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(path = %path.display(), %error, "cannot remove a version index");
        }
    }
}

pub(super) fn key(file: &LakeFile) -> FileKey {
    (file.path.clone(), file.bytes, file.etag.clone())
}
