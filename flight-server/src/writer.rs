//! The writer side: `thermocline flush`, `compact`, `gc` and `manifest`.
//!
//! ```text
//! flush    lock ── snapshot ── dirty rows ─▶ staged files ── published ── one transaction: manifest, rows marked flushed
//! compact  lock ── file set ── merged rows ─▶ staged files ── published ── one transaction: swap   (listing: a retire note)
//! gc       locks ── retired files after the grace, leftovers of writers that died
//! ```
//!
//! A file is complete before it is visible, has a name that is never used again, and is visible before anything says so.
//! A writer that dies at any point leaves at most files that nothing refers to, or versions that are there twice and
//! equal. Knows neither Flight nor tonic nor the query pipeline.

mod commands;
mod compact;
mod flush;
mod gc;
mod manifest;
mod merge;
mod page_checksums;
mod parquet_file;
mod progress;
mod rotation;
mod spill;
mod staging;
mod upload;

pub use commands::{CompactArgs, FlushArgs, GcArgs, ManifestArgs, WriterError};
pub(crate) use commands::{ONCE, each_entity, rounds, say};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use translator::catalog::{Catalog, Entity};
use translator::lake::LakeFile;
use translator::options::Tier;
use translator::postgres::TableNames;

use crate::catalog_file;
use crate::config::{Config, LakeCatalog, LakeUrl, environment};
use crate::engine::{Engine, EngineSettings, LakeAccess};
use crate::lake::{Lake, LakeErrorKind, Listing, retired};
use crate::postgres::PostgresSource;
use crate::second_reader::DuckDbReader;
use spill::SpillDirectory;

/// Directory of growing files under an entity's prefix.
const STAGING: &str = "_staging";

/// Both sources, opened for writing.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) config: Config,
    pub(crate) catalog: Catalog,
    pub(crate) postgres: PostgresSource,
    pub(crate) lake: Lake,
    tables: TableNames,
}

impl Writer {
    pub(crate) async fn open(config_path: &Path) -> anyhow::Result<Self> {
        let mut config = Config::load(config_path, environment()).map_err(|faults| anyhow::anyhow!("{faults}"))?;
        // The limit is meant for queries; a flush of many rows takes what it takes.
        config.postgres.statement_timeout = None;
        let catalog = catalog_file::read(&config).await?;
        let postgres = PostgresSource::new(&config.postgres)?;
        let lake = Lake::open(&config.lake)?;
        let tables = config.postgres.tables.plain();
        Ok(Self { config, catalog, postgres, lake, tables })
    }

    /// The entities of these names; all of them when none is named.
    pub(crate) fn entities(&self, names: &[String]) -> anyhow::Result<Vec<Arc<Entity>>> {
        if names.is_empty() {
            return Ok(self.catalog.entities().to_vec());
        }
        let known = || self.catalog.entities().iter().map(|entity| entity.name.as_str()).collect::<Vec<_>>().join(", ");
        names
            .iter()
            .map(|name| {
                let found = self.catalog.entity(name).map(Arc::clone);
                found.with_context(|| format!("there is no entity `{name}`; the catalog has {}", known()))
            })
            .collect()
    }

    fn has_manifest(&self) -> bool {
        self.config.lake.catalog == LakeCatalog::Manifest
    }

    /// The root directory of a local lake.
    fn local_root(&self) -> Option<&Path> {
        match &self.config.lake.url {
            LakeUrl::Local(directory) => Some(directory),
            LakeUrl::S3 { .. } => None,
        }
    }

    /// Where files grow before they are uploaded, and where DuckDB spills.
    fn temp_directory(&self) -> PathBuf {
        self.config.duckdb.temp_directory.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// A DuckDB instance for merging, which spills into `temp_directory`.
    async fn engine(&self, temp_directory: &Path) -> anyhow::Result<Engine> {
        let lake = match self.local_root() {
            Some(_) => LakeAccess::Folder(self.lake.duckdb_root()),
            None => LakeAccess::S3 { prefix: self.lake.duckdb_root(), credentials: self.lake.s3_credentials().await? },
        };
        let duckdb = &self.config.duckdb;
        let settings = EngineSettings {
            memory_limit: duckdb.memory_limit.clone(),
            threads: duckdb.threads,
            temp_directory: temp_directory.to_owned(),
            temp_directory_limit: duckdb.temp_directory_limit.clone(),
            extension_directory: duckdb.extension_directory.clone(),
            lake,
        };
        tokio::task::spawn_blocking(move || Engine::open(&settings)).await?.context("cannot set DuckDB up")
    }

    /// The facts of listed files. DuckDB is set up only for a footer that the Parquet reader refuses.
    async fn facts(&self, listing: &Listing) -> anyhow::Result<Vec<LakeFile>> {
        match self.lake.files(listing).await {
            Err(error) if matches!(error.kind(), LakeErrorKind::Corrupt { .. }) => {
                let spill = SpillDirectory::create(&self.temp_directory())?;
                let reader = DuckDbReader(Arc::new(self.engine(spill.path()).await?));
                Ok(self.lake.clone().with_second_reader(Arc::new(reader)).files(listing).await?)
            }
            facts => Ok(facts?),
        }
    }

    /// The files of an entity in force, from the manifest or from a listing without what compactions have retired.
    async fn files(&self, entity: &Entity) -> anyhow::Result<FileSet> {
        if self.has_manifest() {
            let mut snapshot = self.postgres.begin().await?;
            let files = snapshot.manifest(entity.schema_id).await.map_err(|error| self.explain_manifest(error))?;
            snapshot.finish().await?;
            if files.is_empty() {
                self.refuse_unimported(entity).await?;
            }
            return Ok(FileSet { files, is_all: true });
        }
        let retired = retired::read_notes(&self.lake, entity).await?;
        let before = self.lake.list(entity).await?;
        let listed = self.lake.list(entity).await?;
        let mut listing = listed.clone();
        listing.files.retain(|file| !retired.iter().any(|note| note.paths.contains(&file.path)));
        // One listing alone may show what a flush has just published and miss what an earlier one published before it.
        let is_all = listing == listed && before == listed;
        Ok(FileSet { files: self.facts(&listing).await?, is_all })
    }

    /// The files of an entity in force.
    pub(crate) async fn files_in_force(&self, entity: &Entity) -> anyhow::Result<Vec<LakeFile>> {
        Ok(self.files(entity).await?.files)
    }

    /// Files that are there while the manifest of the entity is empty would vanish from every answer without a word.
    async fn refuse_unimported(&self, entity: &Entity) -> anyhow::Result<()> {
        let session = self.postgres.write_session().await?;
        let known = session.manifest_entries(entity.schema_id).await.map_err(|error| self.explain_manifest(error))?;
        session.end().await?;
        // What was written for this manifest and never entered it is a leftover, not an answer's file.
        let is_leftover =
            |path: &str| path.rsplit('/').next().is_some_and(|name| name.starts_with(staging::name_prefix(true)));
        if known.is_empty() && self.lake.list(entity).await?.files.iter().any(|file| !is_leftover(&file.path)) {
            bail!(
                "{}: the lake has files and the manifest knows none of them; run `thermocline manifest import` first",
                entity.name
            );
        }
        Ok(())
    }

    /// Tells what to do when the manifest table is missing.
    fn explain_manifest(&self, error: crate::postgres::PostgresError) -> anyhow::Error {
        if error.to_string().contains("42P01") {
            let table = &self.config.postgres.tables.lake_file;
            return anyhow::anyhow!(
                "the manifest table is missing: run `thermocline manifest import`, or this statement:\n{};",
                crate::postgres::manifest_ddl(table)
            );
        }
        error.into()
    }
}

/// The files of an entity in force.
#[derive(Debug)]
struct FileSet {
    files: Vec<LakeFile>,
    /// Whether no other file can hold an older version of their rows: none that compactions have retired is listed any
    /// more, and none was published while the set was listed.
    is_all: bool,
}

impl FileSet {
    fn of(&self, tier: Tier) -> Vec<&LakeFile> {
        self.files.iter().filter(|file| file.tier == tier).collect()
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
