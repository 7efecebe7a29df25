//! The manifest from files that are already there, and whether manifest and files agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context;
use arrow::array::AsArray;
use futures::TryStreamExt;
use indicatif::ProgressBar;
use object_store::ObjectStoreExt;
use sha2::{Digest, Sha256};
use translator::catalog::Entity;
use translator::emit::unique_rows_statement;
use translator::options::Tier;
use translator::planner::check_file;

use super::spill::SpillDirectory;
use super::{Writer, now_ms};
use crate::lake::{Lake, retired};
use crate::postgres::{ManifestFile, WriteSession};

/// What an import did.
#[derive(Debug, Default)]
pub(super) struct Imported {
    pub(super) files: usize,
    pub(super) rows: u64,
    /// Files that the manifest knew already.
    pub(super) known: usize,
    /// Base files that hold a row twice: queries merge more work until compact rewrites them.
    pub(super) not_unique: Vec<String>,
}

/// Where manifest and objects differ.
#[derive(Debug, Default)]
pub(super) struct Verified {
    pub(super) files: usize,
    /// In the manifest, without an object.
    pub(super) missing: Vec<String>,
    /// Of another size or content than the manifest says, with what differs.
    pub(super) damaged: Vec<(String, &'static str)>,
    /// Objects that the manifest doesn't know.
    pub(super) orphaned: Vec<String>,
    /// Retired files that `gc` hasn't deleted yet.
    pub(super) retired: usize,
    /// Files without a digest: only their size could be compared.
    pub(super) without_digest: usize,
}

impl Verified {
    pub(super) fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.damaged.is_empty()
    }
}

/// Imports the files of one entity. The caller holds both of its locks on `session`.
pub(super) async fn import_entity(
    writer: &Writer,
    entity: &Entity,
    dry_run: bool,
    session: &mut WriteSession,
    progress: &ProgressBar,
) -> anyhow::Result<Imported> {
    // What a compaction has replaced would bring back rows whose tombstones are gone.
    let retired: BTreeSet<String> =
        retired::read_notes(&writer.lake, entity).await?.into_iter().flat_map(|note| note.paths).collect();
    let known: BTreeSet<String> = match session.manifest_entries(entity.schema_id).await {
        Ok(entries) => entries.into_iter().map(|entry| entry.path).collect(),
        Err(error) if dry_run && error.to_string().contains("42P01") => BTreeSet::new(),
        Err(error) => return Err(error.into()),
    };
    let mut listing = writer.lake.list(entity).await?;
    listing.files.retain(|file| !retired.contains(&file.path));
    let mut imported = Imported { known: listing.files.len(), ..Imported::default() };
    listing.files.retain(|file| !known.contains(&file.path));
    imported.known -= listing.files.len();
    let facts = writer.facts(&listing).await?;
    progress.set_length(facts.iter().map(|file| file.bytes).sum());
    let spill = SpillDirectory::create(&writer.temp_directory())?;
    let engine = Arc::new(writer.engine(spill.path()).await?);
    let root = writer.lake.duckdb_root();
    let mut files = Vec::with_capacity(facts.len());
    for mut facts in facts {
        check_file(&facts, entity)?;
        if facts.row_count > 0 {
            // The file's own word isn't enough for a proof that answers hang on.
            let (engine, statement) = (Arc::clone(&engine), unique_rows_statement(&facts, &root));
            let unique = tokio::task::spawn_blocking(move || -> Result<bool, crate::engine::duckdb::DuckError> {
                let (_, batches) = engine.connect()?.query(&statement)?;
                Ok(batches.first().is_some_and(|batch| batch.column(0).as_boolean().value(0)))
            });
            facts.unique_rows = unique.await?.with_context(|| format!("cannot check the rows of `{}`", facts.path))?;
        }
        if !facts.unique_rows && facts.tier == Tier::Cold && facts.row_count > 0 {
            imported.not_unique.push(facts.path.clone());
        }
        let sha256 = digest(&writer.lake, &facts.path, progress).await?;
        imported.files += 1;
        imported.rows += facts.row_count;
        files.push(ManifestFile { facts, sha256 });
    }
    if !dry_run {
        session.import_files(entity.schema_id, &files, now_ms()).await?;
    }
    Ok(imported)
}

/// Compares the manifest of one entity with the objects; with `quick` their contents stay unread.
pub(super) async fn verify_entity(
    writer: &Writer,
    entity: &Entity,
    quick: bool,
    session: &WriteSession,
    progress: &ProgressBar,
) -> anyhow::Result<Verified> {
    // The manifest first: a file that is published later is no orphan of this moment, but may look like one.
    let entries = session.manifest_entries(entity.schema_id).await.map_err(|error| writer.explain_manifest(error))?;
    let objects: BTreeMap<String, u64> =
        writer.lake.list(entity).await?.files.into_iter().map(|file| (file.path, file.bytes)).collect();
    let mut verified = Verified::default();
    let known: BTreeSet<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
    verified.orphaned.extend(objects.keys().filter(|path| !known.contains(path.as_str())).cloned());
    for entry in &entries {
        if entry.retired_at.is_some() {
            verified.retired += 1;
            continue;
        }
        verified.files += 1;
        let Some(bytes) = objects.get(&entry.path) else {
            verified.missing.push(entry.path.clone());
            continue;
        };
        if i64::try_from(*bytes) != Ok(entry.bytes) {
            verified.damaged.push((entry.path.clone(), "its size isn't the manifest's"));
            continue;
        }
        match &entry.sha256 {
            None => verified.without_digest += 1,
            Some(_) if quick => {}
            Some(expected) => {
                if digest(&writer.lake, &entry.path, progress).await? != *expected {
                    verified.damaged.push((entry.path.clone(), "its content isn't what was written"));
                }
            }
        }
    }
    Ok(verified)
}

async fn digest(lake: &Lake, path: &str, progress: &ProgressBar) -> anyhow::Result<Vec<u8>> {
    let read = async {
        let mut digest = Sha256::new();
        let mut content = lake.objects().get(&lake.location(path)).await?.into_stream();
        while let Some(part) = content.try_next().await? {
            digest.update(&part);
            progress.inc(part.len() as u64);
        }
        Ok::<_, object_store::Error>(digest.finalize().to_vec())
    };
    read.await.with_context(|| format!("cannot read `{path}`"))
}
