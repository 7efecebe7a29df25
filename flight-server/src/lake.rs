//! The warm and cold tiers: Parquet files on a local disk or in S3, their listing and their footers.
//!
//! [`Lake::list`] gives the files of an entity, [`Lake::list_in_force`] those of them that a query reads, and
//! [`Lake::files`] what the planner knows of each. DuckDB reads the data itself; it gets explicit paths
//! ([`Lake::duckdb_url`]) and S3 credentials ([`Lake::s3_credentials`]) from here. Knows neither Flight nor tonic nor
//! DuckDB.

mod cache;
mod counted;
mod encryption;
mod error;
mod footer;
mod in_force;
mod nanoseconds;
mod probe;
pub(crate) mod retired;
mod second_reader;
mod store;
mod upkeep;

pub use error::{LakeError, LakeErrorKind};
pub use footer::UNIQUE_ROWS_KEY;
pub use second_reader::{SecondFacts, SecondReader};
pub use store::S3Credentials;
pub use upkeep::{Superseded, compaction_due};

use std::sync::{Arc, Mutex};

use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3;
use object_store::path::{Path, PathPart};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetObjectReader};
use translator::catalog::Entity;
use translator::lake::LakeFile;
use translator::options::Tier;

use crate::config::{LakeConfig, LakeUrl};
use crate::s3_requests::S3RequestCount;
pub(crate) use cache::FooterLookups;
use cache::{FileIdentity, FooterCache};
use in_force::KnownNotes;
use store::Store;

/// Footers are mostly smaller than this; what is larger takes a second request.
const FOOTER_GUESS: usize = 64 * 1024;
/// Footers that are read at once.
const CONCURRENT_FOOTERS: usize = 32;
/// Footers that are remembered.
const CACHED_FOOTERS: usize = 65_536;

/// A lake. Cheap to clone; clones share what they remember of footers and retire notes.
#[derive(Debug, Clone)]
pub struct Lake {
    url: LakeUrl,
    store: Store,
    base: String,
    delta: String,
    footers: Arc<FooterCache>,
    notes: Arc<KnownNotes>,
    /// A file that could be read, with its size: the next probe tries it first.
    probed: Arc<Mutex<Option<(String, u64)>>>,
    second_reader: Option<Arc<dyn SecondReader>>,
}

/// The files of one entity at one moment, by path. Two listings are equal when they hold the same files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    pub files: Vec<ListedFile>,
}

/// A file as its listing shows it. Files are immutable: the same path, size and etag is the same content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile {
    /// Path relative to the lake URL, without a leading slash.
    pub path: String,
    /// [`Tier::Warm`] for delta files, [`Tier::Cold`] for base files.
    pub tier: Tier,
    pub bytes: u64,
    pub etag: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub modified_at: i64,
}

/// An object under an entity's prefixes, whatever it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Path relative to the lake URL, without a leading slash.
    pub path: String,
    pub bytes: u64,
    /// Milliseconds since the Unix epoch.
    pub modified_at: i64,
}

/// The facts of a file from its footer, for its writer.
pub fn facts_of(metadata: &parquet::file::metadata::ParquetMetaData, path: &str, tier: Tier, bytes: u64) -> LakeFile {
    footer::read_facts(metadata, path, tier, bytes)
}

impl ListedFile {
    /// See [`LakeFile::etag`].
    fn version(&self) -> Option<String> {
        Some(self.etag.clone().unwrap_or_else(|| self.modified_at.to_string()))
    }
}

impl Lake {
    /// Sets the lake up; nothing is read yet, so a lake that is down is no error here.
    ///
    /// # Errors
    /// Misconfigured: a path or endpoint that cannot be used.
    pub fn open(config: &LakeConfig) -> Result<Self, LakeError> {
        Ok(Self {
            url: config.url.clone(),
            store: Store::open(config)?,
            base: config.base.clone(),
            delta: config.delta.clone(),
            footers: Arc::new(FooterCache::new(CACHED_FOOTERS)),
            notes: Arc::default(),
            probed: Arc::default(),
            second_reader: None,
        })
    }

    /// Reads footers by `reader` that can't be read otherwise.
    #[must_use]
    pub fn with_second_reader(mut self, reader: Arc<dyn SecondReader>) -> Self {
        self.second_reader = Some(reader);
        self
    }

    /// Lists the base and delta files of an entity. An existing root without files gives an empty listing.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn list(&self, entity: &Entity) -> Result<Listing, LakeError> {
        self.data_files(entity, &self.list_prefixes(entity).await?)
    }

    /// Everything under the prefixes of an entity, each object once.
    async fn list_prefixes(&self, entity: &Entity) -> Result<Vec<ObjectMeta>, LakeError> {
        self.check_root().await?;
        let base = self.prefix(entity, Tier::Cold);
        let delta = self.prefix(entity, Tier::Warm);
        match (base.holds(&delta), delta.holds(&base)) {
            // One prefix inside the other: one listing finds both.
            (true, _) => self.list_prefix(&base).await,
            (false, true) => self.list_prefix(&delta).await,
            (false, false) => {
                let (mut objects, more) = futures::try_join!(self.list_prefix(&base), self.list_prefix(&delta))?;
                objects.extend(more);
                Ok(objects)
            }
        }
    }

    /// The data files among the objects of an entity.
    fn data_files(&self, entity: &Entity, objects: &[ObjectMeta]) -> Result<Listing, LakeError> {
        let base = self.prefix(entity, Tier::Cold);
        let delta = self.prefix(entity, Tier::Warm);
        let mut files = Vec::with_capacity(objects.len());
        for object in objects {
            let Some(relative) = self.listed_path(object) else { continue };
            // Of one prefix inside the other, the inner one names its own files.
            let prefixes = [&base, &delta].into_iter();
            let innermost =
                prefixes.filter(|prefix| prefix.holds_file(&relative)).max_by_key(|prefix| prefix.path.len());
            let Some(prefix) = innermost else { continue };
            if !is_data_file(&relative[prefix.path.len() + 1..]) {
                continue;
            }
            if relative.contains(['*', '?', '[']) {
                return Err(LakeError::new(
                    LakeErrorKind::Misconfigured,
                    format!(
                        "lake {}, file `{relative}`: its name holds one of * ? [, which stand for patterns",
                        self.url
                    ),
                ));
            }
            files.push(ListedFile {
                path: relative,
                tier: prefix.tier,
                bytes: object.size,
                etag: object.e_tag.clone(),
                modified_at: object.last_modified.timestamp_millis(),
            });
        }
        files.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(Listing { files })
    }

    /// The facts of every file of a listing, in its order. Footers that were read before are not read again.
    ///
    /// # Errors
    /// Unavailable, Misconfigured; Corrupt and NotFound name the file.
    pub async fn files(&self, listing: &Listing) -> Result<Vec<LakeFile>, LakeError> {
        futures::stream::iter(listing.files.clone())
            .map(|file| async move { self.facts(&file).await })
            .buffered(CONCURRENT_FOOTERS)
            .try_collect()
            .await
    }

    async fn facts(&self, file: &ListedFile) -> Result<LakeFile, LakeError> {
        let identity = FileIdentity {
            path: file.path.clone(),
            bytes: file.bytes,
            etag: file.etag.clone(),
            modified_at: file.modified_at,
        };
        let facts = self.footers.get_or_read(identity, self.read_facts(file)).await?;
        Ok(LakeFile { tier: file.tier, etag: file.version(), ..(*facts).clone() })
    }

    async fn read_facts(&self, file: &ListedFile) -> Result<LakeFile, LakeError> {
        let lake = self.url.to_string();
        if file.bytes == 0 {
            return Err(LakeError::corrupt(&lake, &file.path, "it is empty"));
        }
        let mut reader = ParquetObjectReader::new(Arc::clone(&self.store.objects), self.location(&file.path))
            .with_file_size(file.bytes)
            .with_footer_size_hint(FOOTER_GUESS.min(usize::try_from(file.bytes).unwrap_or(FOOTER_GUESS)));
        let metadata = match reader.get_metadata(None).await {
            Ok(metadata) => metadata,
            Err(error) => return self.read_again(file, LakeError::of_footer(&lake, &file.path, error)).await,
        };
        if let Some(reason) = footer::unreadable_codec(&metadata) {
            return Err(LakeError::unreadable(&lake, &file.path, &reason));
        }
        let mut facts = footer::read_facts(&metadata, &file.path, file.tier, file.bytes);
        nanoseconds::settle(&mut facts, &reader, &metadata).await;
        Ok(facts)
    }

    /// What the second reader says of a file that the first one refused for `failure`.
    async fn read_again(&self, file: &ListedFile, failure: LakeError) -> Result<LakeFile, LakeError> {
        if !matches!(failure.kind(), LakeErrorKind::Corrupt { .. }) {
            return Err(failure);
        }
        if let Some(reason) = self.why_unreadable(&file.path).await {
            return Err(LakeError::unreadable(&self.url.to_string(), &file.path, &reason));
        }
        let Some(second) = self.second_reader.clone() else { return Err(failure) };
        let url = self.duckdb_url(&file.path);
        match tokio::task::spawn_blocking(move || second.read(&url)).await {
            Ok(Ok(facts)) => {
                tracing::info!(file = file.path, %failure, "DuckDB reads a footer that the Parquet reader refuses");
                Ok(facts.of(file))
            }
            Ok(Err(second)) => {
                tracing::warn!(file = file.path, error = second, "DuckDB can't read the footer either");
                Err(failure)
            }
            Err(panic) => Err(failure.with_source(panic)),
        }
    }

    /// Why a file can't be read that no reader understands, when the file itself tells: it is encrypted.
    pub(crate) async fn why_unreadable(&self, path: &str) -> Option<String> {
        let location = self.location(path);
        let objects = &self.store.objects;
        let bytes = objects.head(&location).await.ok()?.size;
        let tail_at = bytes.checked_sub(encryption::TAIL)?;
        let tail = objects.get_range(&location, tail_at..bytes).await.ok()?;
        let is_encrypted = match encryption::read_tail(tail.as_ref().try_into().ok()?) {
            encryption::Tail::EncryptedFooter => true,
            encryption::Tail::Footer(length) => {
                let footer = objects.get_range(&location, tail_at.checked_sub(length)?..tail_at).await.ok()?;
                encryption::has_encrypted_columns(&footer)
            }
        };
        is_encrypted.then(|| "it is encrypted, and no encrypted file is read: write it in plain".to_owned())
    }

    /// Number of footers that are remembered.
    pub fn cached_footers(&self) -> usize {
        self.footers.len()
    }

    /// How often a footer was asked for and remembered, and asked for and not.
    pub(crate) fn footer_lookups(&self) -> FooterLookups {
        self.footers.lookups()
    }

    /// Requests to S3 since the server started, but for those of DuckDB.
    pub(crate) fn s3_requests(&self) -> Vec<S3RequestCount> {
        self.store.requests.counts()
    }

    /// Asks whether the root can be listed.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn probe(&self) -> Result<(), LakeError> {
        self.check_root().await?;
        match self.store.objects.list(Some(&self.store.root)).next().await {
            Some(Err(error)) => Err(LakeError::of_store(&self.url.to_string(), error)),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// The root as DuckDB names it: an absolute directory, or `s3://bucket/prefix`.
    pub fn duckdb_root(&self) -> String {
        match &self.url {
            LakeUrl::Local(directory) => directory.display().to_string().trim_end_matches('/').to_owned(),
            LakeUrl::S3 { .. } => self.url.to_string(),
        }
    }

    /// A file as DuckDB names it; `path` is relative to the lake URL.
    pub fn duckdb_url(&self, path: &str) -> String {
        format!("{}/{path}", self.duckdb_root())
    }

    /// The path relative to the lake URL of a file as DuckDB names it; another name stays as it is.
    pub fn relative_path(&self, duckdb_url: &str) -> String {
        let root = self.duckdb_root();
        let relative = duckdb_url.strip_prefix(&root).and_then(|rest| rest.strip_prefix('/'));
        relative.unwrap_or(duckdb_url).to_owned()
    }

    /// Credentials and endpoint for a DuckDB secret, as object_store has them at this moment; `None` for a local lake.
    ///
    /// Temporary credentials expire: ask again before they do.
    ///
    /// # Errors
    /// Unavailable, Misconfigured: no credentials can be had.
    pub async fn s3_credentials(&self) -> Result<Option<S3Credentials>, LakeError> {
        let Some(s3) = &self.store.s3 else { return Ok(None) };
        s3.credentials().await.map(Some).map_err(|error| LakeError::of_store(&self.url.to_string(), error))
    }

    /// Everything under the prefixes of an entity, staging included, by path relative to the lake URL.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn list_objects(&self, entity: &Entity) -> Result<Vec<StoredObject>, LakeError> {
        self.check_root().await?;
        let mut found = std::collections::BTreeMap::new();
        for tier in [Tier::Cold, Tier::Warm] {
            for object in self.list_prefix(&self.prefix(entity, tier)).await? {
                let Some(path) = self.listed_path(&object) else { continue };
                let modified_at = object.last_modified.timestamp_millis();
                found.insert(path.clone(), StoredObject { path, bytes: object.size, modified_at });
            }
        }
        Ok(found.into_values().collect())
    }

    /// Where the files of an entity and tier are, relative to the lake URL.
    pub fn prefix_of(&self, entity: &Entity, tier: Tier) -> String {
        self.prefix(entity, tier).path
    }

    fn prefix(&self, entity: &Entity, tier: Tier) -> Prefix {
        let template = if tier == Tier::Cold { &self.base } else { &self.delta };
        Prefix::new(template, entity, tier)
    }

    /// The object store, for writers of the lake.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.store.objects
    }

    /// The object store with uploads in parts, for writers of the lake; `None` for a local lake.
    pub fn multipart(&self) -> Option<Arc<AmazonS3>> {
        self.store.s3.as_ref().map(store::S3Store::store)
    }

    /// The object store's location of a file; `path` is relative to the lake URL.
    pub fn location(&self, path: &str) -> Path {
        path.split('/').filter(|part| !part.is_empty()).fold(self.store.root.clone(), |location, part| {
            // Parts that a listing gave are already in the store's own spelling.
            match PathPart::parse(part) {
                Ok(part) => location.join(part),
                Err(_) => location.join(part),
            }
        })
    }

    /// A missing directory lists as empty; only asking for it tells a lake that is down.
    async fn check_root(&self) -> Result<(), LakeError> {
        let LakeUrl::Local(directory) = &self.url else { return Ok(()) };
        let unavailable = |reason| LakeError::new(LakeErrorKind::Unavailable, format!("lake {}: {reason}", self.url));
        match tokio::fs::metadata(directory).await {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => Err(unavailable("it is no directory")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(unavailable("the directory doesn't exist").with_source(error))
            }
            Err(error) => Err(unavailable("the directory cannot be read").with_source(error)),
        }
    }

    async fn list_prefix(&self, prefix: &Prefix) -> Result<Vec<ObjectMeta>, LakeError> {
        let location = self.location(&prefix.path);
        let objects = self.store.objects.list(Some(&location)).try_collect().await;
        objects.map_err(|error| LakeError::of_store(&self.url.to_string(), error))
    }

    fn listed_path(&self, object: &ObjectMeta) -> Option<String> {
        let root = self.store.root.as_ref();
        let rest = object.location.as_ref().strip_prefix(root)?;
        if root.is_empty() { Some(rest.to_owned()) } else { rest.strip_prefix('/').map(str::to_owned) }
    }
}

/// Where the files of one entity and tier are, relative to the lake's root.
#[derive(Debug)]
struct Prefix {
    path: String,
    tier: Tier,
}

impl Prefix {
    fn new(template: &str, entity: &Entity, tier: Tier) -> Self {
        let path =
            template.replace("{schema_id}", &entity.schema_id.to_string()).replace("{schema_name}", &entity.name);
        Self { path, tier }
    }

    fn holds(&self, other: &Self) -> bool {
        self.holds_file(&other.path)
    }

    fn holds_file(&self, path: &str) -> bool {
        path.strip_prefix(&self.path).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// Whether a path under a prefix is a Parquet file outside staging.
fn is_data_file(path: &str) -> bool {
    path.ends_with(".parquet") && !path.split('/').any(|part| part.starts_with(['_', '.']))
}

#[cfg(test)]
mod tests;
