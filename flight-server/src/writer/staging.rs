//! A file from its first byte to its place in the lake: complete before it is visible.
//!
//! On a local lake it grows in a `_staging` directory, which no reader looks into, and is renamed. For S3 it grows in an
//! unnamed local file and is uploaded, in parts when it is large; S3 shows an object only once it is complete.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use parquet::file::metadata::ParquetMetaDataReader;
use sha2::{Digest, Sha256};
use tempfile::TempPath;
use translator::catalog::Entity;
use translator::lake::LakeFile;
use translator::options::Tier;

use super::page_checksums::ChecksumWriter;
use super::parquet_file::FileError;
use super::upload::upload;
use super::{STAGING, Writer};
use crate::lake::{Lake, facts_of};
use crate::postgres::ManifestFile;

/// Where new files of one entity and tier go.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    lake_root: Option<PathBuf>,
    temp_directory: PathBuf,
    /// Relative to the lake URL.
    prefix: String,
    tier: Tier,
    /// What file names start with; see [`name_prefix`].
    name: &'static str,
}

/// Names of our own files start like this, depending on who knows the set of files. Without a manifest every file
/// counts; with one, a file that was made for it and that it doesn't know is a leftover.
pub(super) fn name_prefix(has_manifest: bool) -> &'static str {
    if has_manifest { "m-" } else { "f-" }
}

/// A file that is being written.
pub(super) struct GrowingFile {
    pub(super) writer: ChecksumWriter<DigestFile>,
    destination: Destination,
    path: String,
    place: Place,
}

/// A complete file that nobody sees yet.
#[derive(Debug)]
pub(super) struct StagedFile {
    pub(super) file: ManifestFile,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// The staged file, removed when it is dropped, and its final place, on a local lake.
    Local { staged: TempPath, published: PathBuf },
    /// A file without a name: gone with the process.
    Unnamed(File),
}

/// A file whose digest is computed on the way.
pub(super) struct DigestFile {
    file: BufWriter<File>,
    digest: Sha256,
    bytes: u64,
}

impl Write for DigestFile {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.digest.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl std::fmt::Debug for GrowingFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrowingFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Destination {
    pub(super) fn new(writer: &Writer, entity: &Entity, tier: Tier) -> Self {
        Self {
            lake_root: writer.local_root().map(Path::to_owned),
            temp_directory: writer.temp_directory(),
            prefix: writer.lake.prefix_of(entity, tier),
            tier,
            name: name_prefix(writer.has_manifest()),
        }
    }

    /// Starts a file under a new name. Names are UUIDs of version 7: never used again, and later files have greater
    /// ones, which decides between two versions of the same millisecond.
    pub(super) fn start(&self, schema: &arrow::datatypes::SchemaRef) -> Result<GrowingFile, FileError> {
        let name = format!("{}{}.parquet", self.name, uuid::Uuid::now_v7().simple());
        let path = format!("{}/{name}", self.prefix);
        let (file, place) = match &self.lake_root {
            Some(root) => {
                let directory = root.join(&self.prefix);
                let staging = directory.join(STAGING);
                std::fs::create_dir_all(&staging)?;
                let staged = staging.join(&name);
                let file = File::options().read(true).write(true).create_new(true).open(&staged)?;
                (file, Place::Local { staged: TempPath::try_from_path(staged)?, published: directory.join(&name) })
            }
            None => {
                std::fs::create_dir_all(&self.temp_directory)?;
                let file = tempfile::tempfile_in(&self.temp_directory)?;
                (file.try_clone()?, Place::Unnamed(file))
            }
        };
        let to = DigestFile { file: BufWriter::with_capacity(1 << 20, file), digest: Sha256::new(), bytes: 0 };
        Ok(GrowingFile { writer: super::parquet_file::open(schema, to)?, destination: self.clone(), path, place })
    }
}

impl GrowingFile {
    /// Completes the file and reads its facts back from its footer.
    pub(super) fn finish(self) -> Result<StagedFile, FileError> {
        let to = self.writer.into_inner()?;
        let (digest, bytes) = (to.digest, to.bytes);
        let file = to.file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&file)?;
        let facts: LakeFile = facts_of(&metadata, &self.path, self.destination.tier, bytes);
        Ok(StagedFile { file: ManifestFile { facts, sha256: digest.finalize().to_vec() }, place: self.place })
    }
}

impl StagedFile {
    /// Makes the file visible under its final name.
    pub(super) async fn publish(self, lake: &Lake) -> anyhow::Result<ManifestFile> {
        let path = &self.file.facts.path;
        match self.place {
            Place::Local { staged, published } => {
                let renamed = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
                    staged.persist(&published).map_err(|error| error.error)?;
                    // The new name must survive a power cut before anything refers to it.
                    published.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
                });
                renamed.await?.with_context(|| format!("cannot publish `{path}`"))?;
            }
            Place::Unnamed(file) => {
                upload(lake, path, file, self.file.facts.bytes)
                    .await
                    .with_context(|| format!("cannot upload `{path}`"))?;
            }
        }
        Ok(self.file)
    }
}
