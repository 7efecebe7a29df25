//! Garbage collection: files that were replaced long enough ago, and what writers that died left behind.
//!
//! With the locks of flush and compact in hand no writer is at work on the entity. Deleted are: retired files after the
//! grace, staged files, uploads that never ended, and, with a manifest, files that were made for it and never entered it. Files of other software
//! are never touched.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use object_store::ObjectStoreExt;
use translator::catalog::Entity;
use translator::options::Tier;

use super::STAGING;
use super::staging::name_prefix;
use super::{Writer, now_ms, upload};
use crate::failpoint::failpoint;
use crate::lake::{StoredObject, retired};
use crate::postgres::WriteSession;

/// How long things stay.
#[derive(Debug, Clone, Copy)]
pub(super) struct GcOptions {
    pub(super) grace: Duration,
    pub(super) dry_run: bool,
}

/// An object that is deleted, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Removal {
    pub(super) path: String,
    pub(super) why: &'static str,
}

/// What a collection did, or would do.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) removed: Vec<Removal>,
    /// Retired files whose grace isn't over.
    pub(super) waiting: usize,
    /// Files that the manifest doesn't know and that weren't made for it: another hand put them there.
    pub(super) unknown: Vec<String>,
}

/// Collects the garbage of one entity. The caller holds both of its locks on `session`.
pub(super) async fn collect_entity(
    writer: &Writer,
    entity: &Entity,
    options: GcOptions,
    session: &mut WriteSession,
) -> anyhow::Result<Collected> {
    let grace = i64::try_from(options.grace.as_millis()).unwrap_or(i64::MAX);
    let until = now_ms().saturating_sub(grace);
    let mut collected = Collected::default();
    // Before files: the note of an upload that was completed is told by its object.
    let objects = writer.lake.list_objects(entity).await?;
    for object in objects.iter().filter(|object| is_staged(writer, entity, object) && object.modified_at <= until) {
        let mut why = "a writer died before it was complete";
        if upload::is_note(&object.path) {
            why = "a writer died during this upload";
            if !options.dry_run {
                upload::end_upload(&writer.lake, &object.path).await?;
            }
        }
        remove(writer, &object.path, why, options.dry_run, &mut collected).await?;
    }
    let known = if writer.has_manifest() {
        collect_manifest(writer, entity, until, options.dry_run, session, &mut collected).await?
    } else {
        BTreeSet::new()
    };
    // Notes may also be from before there was a manifest.
    collect_notes(writer, entity, until, options.dry_run, &known, &mut collected).await?;
    let removed: BTreeSet<&str> = collected.removed.iter().map(|removal| removal.path.as_str()).collect();
    collected.unknown.retain(|path| !removed.contains(path.as_str()));
    Ok(collected)
}

async fn collect_manifest(
    writer: &Writer,
    entity: &Entity,
    until: i64,
    dry_run: bool,
    session: &WriteSession,
    collected: &mut Collected,
) -> anyhow::Result<BTreeSet<String>> {
    let entries = session.manifest_entries(entity.schema_id).await.map_err(|error| writer.explain_manifest(error))?;
    for entry in &entries {
        match entry.retired_at {
            Some(retired_at) if retired_at <= until => {
                remove(writer, &entry.path, "it was replaced", dry_run, collected).await?;
                if !dry_run {
                    session.forget_file(entity.schema_id, &entry.path).await?;
                }
            }
            Some(_) => collected.waiting += 1,
            None => {}
        }
    }
    let known: BTreeSet<String> = entries.into_iter().map(|entry| entry.path).collect();
    let listing = writer.lake.list(entity).await?;
    for file in listing.files.into_iter().filter(|file| !known.contains(&file.path)) {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        if !name.starts_with(name_prefix(true)) {
            collected.unknown.push(file.path);
        } else if file.modified_at <= until {
            remove(writer, &file.path, "a writer died before the manifest knew it", dry_run, collected).await?;
        }
    }
    Ok(known)
}

async fn collect_notes(
    writer: &Writer,
    entity: &Entity,
    until: i64,
    dry_run: bool,
    known: &BTreeSet<String>,
    collected: &mut Collected,
) -> anyhow::Result<()> {
    let listed: BTreeSet<String> = writer.lake.list(entity).await?.files.into_iter().map(|file| file.path).collect();
    for note in retired::read_notes(&writer.lake, entity).await? {
        if note.retired_at > until {
            collected.waiting += note.paths.len();
            continue;
        }
        for path in note.paths.iter().filter(|path| listed.contains(*path) && !known.contains(*path)) {
            remove(writer, path, "it was replaced", dry_run, collected).await?;
        }
        remove(writer, &note.path, "all that it lists is gone", dry_run, collected).await?;
    }
    Ok(())
}

fn is_staged(writer: &Writer, entity: &Entity, object: &StoredObject) -> bool {
    [Tier::Cold, Tier::Warm].into_iter().any(|tier| {
        let prefix = format!("{}/{STAGING}/", writer.lake.prefix_of(entity, tier));
        object.path.starts_with(&prefix)
    })
}

async fn remove(
    writer: &Writer,
    path: &str,
    why: &'static str,
    dry_run: bool,
    collected: &mut Collected,
) -> anyhow::Result<()> {
    collected.removed.push(Removal { path: path.to_owned(), why });
    if dry_run {
        return Ok(());
    }
    match writer.lake.objects().delete(&writer.lake.location(path)).await {
        // A collection that died after the deletion of the object and before that of its entry.
        Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
        Err(error) => return Err(error).with_context(|| format!("cannot delete `{path}`")),
    }
    failpoint("gc.deleted_one").await;
    Ok(())
}
