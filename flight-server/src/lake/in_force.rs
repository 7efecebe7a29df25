//! Which of the listed files a query reads: all but those that a retire note names as replaced, when that is safe.
//!
//! A compaction publishes its new files, and only then its note; `gc` deletes the old files after the grace. Reading
//! old and new files is always right, for the newest version wins. Leaving the old ones out is right too, as what `gc`
//! makes of the listing is. It is worth it because then only queries that planned before the note was there know of the
//! old files, and the grace is longer than a query.
//!
//! **The rule.** A note is in force in a listing when
//!
//! 1. the listing shows the note,
//! 2. the note had been read before the listing began, and
//! 3. the listing shows every file that the note names as new.
//!
//! All files that a note in force names as old are left out together. A note that isn't in force changes nothing.
//!
//! **Why no row is lost.** The new files hold the newest version of every row of the old ones, but for tombstones that
//! the compaction dropped. By 3 they are there. They may be old files of a later note: that one is in force only with
//! its own new files, which hold the same or newer versions, and so on up to files that are read. A listing isn't of
//! one moment: what it shows partly, because a compaction or `gc` is at work meanwhile, is caught by 3 as well.
//!
//! **Why no deleted row comes back.** A compaction drops a tombstone only when none of its inputs holds an older
//! version and no file of an earlier note is listed any more: at that time no file holds an older version. But a slow
//! listing might have passed such a file before `gc` deleted it, and come to the note of the later compaction in the
//! end; the tombstone would be left out, and its row not. By 2 that can't be: the note was there before the listing
//! began, so every file that was gone before the note is missing in the listing, for names are never used again.
//!
//! A listing that shows new notes is made once more, after they were read. Notes never change, so one is read once, and
//! while nothing changes a listing costs what it costs without them. Readers that ignore notes see old and new files:
//! compactions keep tombstones for as long as retired files are listed.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStoreExt};
use translator::catalog::Entity;
use translator::options::Tier;

use super::cache::FileIdentity;
use super::retired::{RetireNote, is_note, parse};
use super::{CONCURRENT_FOOTERS, Lake, LakeError, LakeErrorKind, Listing};

/// The notes of one entity; `None` of an object that is no note.
type Notes = HashMap<FileIdentity, Option<Arc<RetireNote>>>;

/// What was read of the notes that the last listing of each entity showed, by `schema_id`.
#[derive(Debug, Default)]
pub(super) struct KnownNotes(Mutex<HashMap<i16, Arc<Notes>>>);

impl KnownNotes {
    fn of(&self, entity: &Entity) -> Arc<Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&entity.schema_id).map(Arc::clone).unwrap_or_default()
    }

    fn set(&self, entity: &Entity, notes: Arc<Notes>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(entity.schema_id, notes);
    }
}

impl Lake {
    /// Lists the files of an entity without those that were replaced, by the rule above.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn list_in_force(&self, entity: &Entity) -> Result<Listing, LakeError> {
        let mut known = self.notes.of(entity);
        let mut objects = self.list_prefixes(entity).await?;
        let shown = self.shown_notes(entity, &objects);
        let shows_new = shown.iter().any(|note| !known.contains_key(note));
        if shows_new || shown.len() < known.len() {
            known = Arc::new(self.read_unknown(shown, &known).await?);
            self.notes.set(entity, Arc::clone(&known));
        }
        if shows_new {
            objects = self.list_prefixes(entity).await?;
        }
        self.in_force(entity, &objects, &known)
    }

    /// The files in force of a listing that began after the known notes had been read.
    fn in_force(&self, entity: &Entity, objects: &[ObjectMeta], known: &Notes) -> Result<Listing, LakeError> {
        let mut listing = self.data_files(entity, objects)?;
        let shown = self.shown_notes(entity, objects);
        leave_out_replaced(&mut listing, shown.iter().filter_map(|note| known.get(note)?.as_deref()));
        Ok(listing)
    }

    fn shown_notes(&self, entity: &Entity, objects: &[ObjectMeta]) -> Vec<FileIdentity> {
        let prefix = self.prefix_of(entity, Tier::Cold);
        let notes = objects.iter().filter_map(|object| {
            let path = self.listed_path(object).filter(|path| is_note(path, &prefix))?;
            Some(FileIdentity {
                path,
                bytes: object.size,
                etag: object.e_tag.clone(),
                modified_at: object.last_modified.timestamp_millis(),
            })
        });
        notes.collect()
    }

    /// What the shown notes say. One that has vanished meanwhile is none: `gc` has deleted its files.
    async fn read_unknown(&self, shown: Vec<FileIdentity>, known: &Notes) -> Result<Notes, LakeError> {
        let reads = futures::stream::iter(shown).map(|note| async move {
            if let Some(read) = known.get(&note) {
                return Ok(Some((note, read.clone())));
            }
            match self.read_note(&note.path).await {
                Ok(read) => Ok(Some((note, read.map(Arc::new)))),
                Err(error) if matches!(error.kind(), LakeErrorKind::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let read: Vec<_> = reads.buffered(CONCURRENT_FOOTERS).try_collect().await?;
        Ok(read.into_iter().flatten().collect())
    }

    async fn read_note(&self, path: &str) -> Result<Option<RetireNote>, LakeError> {
        let read = async { self.store.objects.get(&self.location(path)).await?.bytes().await };
        let bytes = read.await.map_err(|error| LakeError::of_file(&self.url.to_string(), path, error))?;
        let note = parse(path, &bytes);
        if note.is_none() {
            tracing::warn!(path, "this is no retire note: the files that it may name are read");
        }
        Ok(note)
    }
}

/// Takes out what the notes that are in force name as old. The listing shows all of these notes and began after they had
/// been read.
fn leave_out_replaced<'a>(listing: &mut Listing, notes: impl Iterator<Item = &'a RetireNote>) {
    let listed: BTreeSet<&str> = listing.files.iter().map(|file| file.path.as_str()).collect();
    let is_in_force = |note: &&RetireNote| {
        note.replaced_by.as_ref().is_some_and(|new| new.iter().all(|path| listed.contains(path.as_str())))
    };
    let replaced: BTreeSet<&str> =
        notes.filter(is_in_force).flat_map(|note| note.paths.iter().map(String::as_str)).collect();
    listing.files.retain(|file| !replaced.contains(file.path.as_str()));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::{entity, lake, put};
    use super::*;

    /// Old files `a` and `d`, the new ones `c1` and `c2`.
    const OLD: [&str; 2] = ["base/7/a.parquet", "delta/7/d.parquet"];
    const NEW: [&str; 2] = ["base/7/c1.parquet", "base/7/c2.parquet"];

    fn put_note(root: &Path, name: &str, old: &[&str], new: Option<&[&str]>) {
        let mut note = serde_json::json!({"retired_at": 1, "paths": old});
        if let Some(new) = new {
            note["replaced_by"] = new.into();
        }
        put(root, &format!("base/7/_retired/{name}.json"), note.to_string().as_bytes());
    }

    fn remove(root: &Path, path: &str) {
        std::fs::remove_file(root.join(path)).unwrap();
    }

    /// Names of the files in force.
    async fn in_force(lake: &Lake) -> Vec<String> {
        names(&lake.list_in_force(&entity()).await.unwrap())
    }

    fn names(listing: &Listing) -> Vec<String> {
        let name = |path: &str| path.rsplit('/').next().unwrap().trim_end_matches(".parquet").to_owned();
        listing.files.iter().map(|file| name(&file.path)).collect()
    }

    #[tokio::test]
    async fn old_files_are_read_until_all_new_ones_and_their_note_are_there() {
        let root = tempfile::tempdir().unwrap();
        let (root, lake) = (root.path(), lake(root.path(), ""));
        OLD.iter().for_each(|path| put(root, path, b"x"));
        assert_eq!(in_force(&lake).await, ["a", "d"]);
        put(root, NEW[0], b"x");
        assert_eq!(in_force(&lake).await, ["a", "c1", "d"]);
        put(root, NEW[1], b"x");
        assert_eq!(in_force(&lake).await, ["a", "c1", "c2", "d"]);
        put_note(root, "n", &OLD, Some(&NEW));
        assert_eq!(in_force(&lake).await, ["c1", "c2"], "by the first query already");
        // A flush goes on meanwhile.
        put(root, "delta/7/e.parquet", b"x");
        assert_eq!(in_force(&lake).await, ["c1", "c2", "e"]);
        // A new file isn't shown: it was lost, or the listing isn't of one moment.
        remove(root, NEW[1]);
        assert_eq!(in_force(&lake).await, ["a", "c1", "d", "e"]);
        put(root, NEW[1], b"x");
        // As gc deletes: base files first, the note last.
        for path in OLD {
            assert_eq!(in_force(&lake).await, ["c1", "c2", "e"]);
            remove(root, path);
        }
        remove(root, "base/7/_retired/n.json");
        assert_eq!(in_force(&lake).await, ["c1", "c2", "e"]);
        assert!(lake.notes.of(&entity()).is_empty(), "what is gone is forgotten");
    }

    #[tokio::test]
    async fn a_note_that_was_not_read_before_the_listing_began_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (root, lake, entity) = (root.path(), lake(root.path(), ""), entity());
        OLD.iter().chain(&NEW).for_each(|path| put(root, path, b"x"));
        put_note(root, "n", &OLD, Some(&NEW));
        let objects = lake.list_prefixes(&entity).await.unwrap();
        let unread = lake.in_force(&entity, &objects, &Notes::default()).unwrap();
        assert_eq!(names(&unread), ["a", "c1", "c2", "d"]);
        let read = lake.read_unknown(lake.shown_notes(&entity, &objects), &Notes::default()).await.unwrap();
        assert_eq!(names(&lake.in_force(&entity, &objects, &read).unwrap()), ["c1", "c2"]);
        // A note that is read and gone is as if it had never been.
        remove(root, "base/7/_retired/n.json");
        let objects = lake.list_prefixes(&entity).await.unwrap();
        assert_eq!(names(&lake.in_force(&entity, &objects, &read).unwrap()), ["a", "c1", "c2", "d"]);
    }

    #[tokio::test]
    async fn a_compaction_of_compacted_files_leaves_only_the_last_ones() {
        let root = tempfile::tempdir().unwrap();
        let (root, lake) = (root.path(), lake(root.path(), ""));
        OLD.iter().chain(&NEW).for_each(|path| put(root, path, b"x"));
        put_note(root, "1", &OLD, Some(&NEW));
        put_note(root, "2", &NEW, Some(&["base/7/z.parquet"]));
        // The second one isn't in force yet: its file isn't shown.
        assert_eq!(in_force(&lake).await, ["c1", "c2"]);
        put(root, "base/7/z.parquet", b"x");
        assert_eq!(in_force(&lake).await, ["z"]);
        // Clocks differed, and gc takes the files of the second note first: the oldest ones are read again, beside the
        // newest one, which kept every tombstone because they were still listed.
        remove(root, NEW[0]);
        assert_eq!(in_force(&lake).await, ["a", "z", "d"]);
    }

    #[tokio::test]
    async fn notes_that_name_no_new_files_and_what_is_no_note_change_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (root, lake) = (root.path(), lake(root.path(), ""));
        OLD.iter().for_each(|path| put(root, path, b"x"));
        put_note(root, "of_an_earlier_release", &OLD, None);
        put(root, "base/7/_retired/other.json", b"{}");
        put(root, "base/7/_retired/broken.json", b"{\"paths\": [");
        assert_eq!(in_force(&lake).await, ["a", "d"]);
        // A compaction that leaves no row makes no file.
        put_note(root, "of_tombstones", &OLD[1..], Some(&[]));
        assert_eq!(in_force(&lake).await, ["a"]);
    }
}
