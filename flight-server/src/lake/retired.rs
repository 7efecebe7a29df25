//! Retire notes: how a compaction says, without a manifest, which files its new ones replace.
//!
//! A note is a small object under `_retired` in the entity's base prefix, written once all new files are there and never
//! changed. It names the old files and the new ones. Queries leave the old ones out when that is safe (`in_force.rs`); a
//! reader that doesn't know of notes reads old and new files, which hold the same newest versions. `gc` deletes what a
//! note lists once the note is older than any query, base files first, and the note last.

use anyhow::Context;
use object_store::ObjectStoreExt;
use serde_json::{Value as Json, json};
use translator::catalog::Entity;
use translator::options::Tier;

use super::Lake;

/// Directory of the notes under an entity's base prefix.
pub(crate) const NOTES: &str = "_retired";

/// Files that were replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RetireNote {
    /// Path of the note itself, relative to the lake URL.
    pub(crate) path: String,
    pub(crate) retired_at: i64,
    /// Paths of the files, relative to the lake URL, in the order they are to be deleted in.
    pub(crate) paths: Vec<String>,
    /// Paths of the files that hold the newest versions of theirs: none when no row was left. `None` in a note of a
    /// release that didn't name them.
    pub(super) replaced_by: Option<Vec<String>>,
}

/// Whether an object under a base prefix is a note.
pub(super) fn is_note(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('/')?.strip_prefix(NOTES)?.strip_prefix('/'))
        .is_some_and(|name| name.ends_with(".json"))
}

/// All notes of an entity.
pub(crate) async fn read_notes(lake: &Lake, entity: &Entity) -> anyhow::Result<Vec<RetireNote>> {
    let prefix = lake.prefix_of(entity, Tier::Cold);
    let mut notes = Vec::new();
    for object in lake.list_objects(entity).await? {
        if !is_note(&object.path, &prefix) {
            continue;
        }
        let read = || async { lake.objects().get(&lake.location(&object.path)).await?.bytes().await };
        let bytes = match read().await {
            Ok(bytes) => bytes,
            // Another gc was faster.
            Err(object_store::Error::NotFound { .. }) => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", object.path)),
        };
        notes.push(parse(&object.path, &bytes).with_context(|| format!("`{}` is no retire note", object.path))?);
    }
    Ok(notes)
}

pub(super) fn parse(path: &str, bytes: &[u8]) -> Option<RetireNote> {
    let note: Json = serde_json::from_slice(bytes).ok()?;
    let paths = |list: &Json| -> Option<Vec<String>> {
        list.as_array()?.iter().map(|path| path.as_str().map(str::to_owned)).collect()
    };
    let replaced_by = match &note["replaced_by"] {
        Json::Null => None,
        list => Some(paths(list)?),
    };
    let retired_at = note["retired_at"].as_i64()?;
    Some(RetireNote { path: path.to_owned(), retired_at, paths: paths(&note["paths"])?, replaced_by })
}

/// Writes a note. All files that replace the old ones are visible.
pub(crate) async fn write_note(
    lake: &Lake,
    entity: &Entity,
    retired_at: i64,
    paths: &[String],
    replaced_by: &[&str],
) -> anyhow::Result<()> {
    let name = uuid::Uuid::now_v7().simple();
    let path = format!("{}/{NOTES}/{name}.json", lake.prefix_of(entity, Tier::Cold));
    let note = json!({"retired_at": retired_at, "paths": paths, "replaced_by": replaced_by}).to_string();
    lake.objects()
        .put(&lake.location(&path), note.into_bytes().into())
        .await
        .with_context(|| format!("cannot write `{path}`"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_told_from_files() {
        assert!(is_note("base/7/_retired/a.json", "base/7"));
        assert!(!is_note("base/7/a.json", "base/7"));
        assert!(!is_note("base/70/_retired/a.json", "base/7"));
        let old = parse("n", br#"{"retired_at": 5, "paths": ["a"]}"#).unwrap();
        assert_eq!((old.paths, old.replaced_by), (vec!["a".to_owned()], None));
        let note = parse("n", br#"{"retired_at": 5, "paths": ["a"], "replaced_by": []}"#).unwrap();
        assert_eq!(note.replaced_by, Some(Vec::new()));
        assert_eq!(parse("n", br#"{"paths": ["a"]}"#), None);
        assert_eq!(parse("n", br#"{"retired_at": 5, "paths": ["a"], "replaced_by": "b"}"#), None);
    }
}
