//! Which versions in a set of files aren't the row, by position: last-write-wins over indexes instead of over rows.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use roaring::RoaringBitmap;
use translator::options::Tier;

use super::block::Entry;
use super::file_index::{Cursor, FileIndex, IndexError};

/// A file whose versions are known.
#[derive(Debug, Clone)]
pub(crate) struct IndexedFile {
    /// Relative to the lake URL: the last but one tie-break of last-write-wins.
    pub(crate) path: String,
    pub(crate) tier: Tier,
    pub(crate) index: Arc<FileIndex>,
}

/// The positions of one file that aren't the row, of versions in files alone.
#[derive(Debug, Clone)]
pub(crate) struct SettledFile {
    pub(crate) index: Arc<FileIndex>,
    /// Versions that lose to another version of their row.
    pub(crate) hidden: Arc<RoaringBitmap>,
    /// Tombstones that win: the row is gone.
    pub(crate) dead: Arc<RoaringBitmap>,
    /// Both together.
    pub(crate) gone: Arc<RoaringBitmap>,
}

/// A set of files, resolved. By path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settled {
    files: BTreeMap<String, SettledFile>,
}

/// Positions under construction.
#[derive(Debug, Clone, Default)]
struct Positions {
    hidden: RoaringBitmap,
    dead: RoaringBitmap,
}

impl Settled {
    /// Resolves all versions of these files, by a merge of their indexes.
    pub(crate) fn of(files: &[IndexedFile]) -> Result<Self, IndexError> {
        let files = by_rank(files);
        let mut positions = vec![Positions::default(); files.len()];
        let mut cursors = files.iter().map(|file| file.index.cursor()).collect::<Result<Vec<Cursor<'_>>, _>>()?;
        let first = cursors.iter().enumerate();
        let mut heap: BinaryHeap<Reverse<(u128, usize)>> =
            first.filter_map(|(file, cursor)| Some(Reverse((cursor.current()?.id, file)))).collect();
        let mut versions: Vec<(usize, Entry)> = Vec::new();
        while let Some(Reverse((id, file))) = heap.pop() {
            versions.clear();
            let mut after = take(&mut cursors[file], id, file, &mut versions)?;
            let others = heap.peek().map(|Reverse((id, _))| *id);
            if others != Some(id) {
                settle(&files, &versions, &mut positions);
                // Most often no other file has anything to say about the next ids either.
                while let Some(id) = after.filter(|id| others.is_none_or(|other| *id < other)) {
                    versions.clear();
                    after = take(&mut cursors[file], id, file, &mut versions)?;
                    settle(&files, &versions, &mut positions);
                }
            } else {
                while let Some(Reverse((_, other))) = heap.peek().copied().filter(|Reverse((other, _))| *other == id) {
                    heap.pop();
                    if let Some(next) = take(&mut cursors[other], id, other, &mut versions)? {
                        heap.push(Reverse((next, other)));
                    }
                }
                settle(&files, &versions, &mut positions);
            }
            heap.extend(after.map(|next| Reverse((next, file))));
        }
        drop(cursors);
        Ok(Self::new(&files, positions))
    }

    /// Resolves a set of files that differs from this one by few: looks only at the ids of those that came or went.
    pub(crate) fn changed_to(&self, files: &[IndexedFile]) -> Result<Self, IndexError> {
        let files = by_rank(files);
        let is_same =
            |file: &IndexedFile| self.files.get(&file.path).is_some_and(|known| Arc::ptr_eq(&known.index, &file.index));
        let gone = self.files.iter().filter(|(path, known)| {
            !files.iter().any(|file| file.path == **path && Arc::ptr_eq(&known.index, &file.index))
        });
        let mut ids = Vec::new();
        for index in gone.map(|(_, known)| &known.index).chain(files.iter().filter(|f| !is_same(f)).map(|f| &f.index)) {
            let mut cursor = index.cursor()?;
            while let Some(entry) = cursor.current() {
                ids.push(entry.id);
                cursor.advance()?;
            }
        }
        ids.sort_unstable();
        ids.dedup();
        let mut positions: Vec<Positions> = Vec::with_capacity(files.len());
        let mut versions: Vec<(usize, Entry)> = Vec::new();
        for (number, file) in files.iter().enumerate() {
            positions.push(match self.files.get(&file.path).filter(|_| is_same(file)) {
                Some(known) => Positions { hidden: (*known.hidden).clone(), dead: (*known.dead).clone() },
                None => Positions::default(),
            });
            file.index.lookup(&ids, |entry| versions.push((number, entry)))?;
        }
        versions.sort_unstable_by_key(|(number, entry)| (entry.id, *number, entry.position));
        for versions in versions.chunk_by(|(_, left), (_, right)| left.id == right.id) {
            settle(&files, versions, &mut positions);
        }
        Ok(Self::new(&files, positions))
    }

    /// Rows of files that are in one of the two sets and not in the other: what [`Self::changed_to`] costs.
    pub(crate) fn distance(&self, files: &[IndexedFile]) -> u64 {
        let known = |file: &&IndexedFile| {
            self.files.get(&file.path).is_some_and(|known| Arc::ptr_eq(&known.index, &file.index))
        };
        let both: u64 = files.iter().filter(known).map(|file| file.index.rows()).sum();
        let all = |rows: u64, index: &Arc<FileIndex>| rows + index.rows();
        let ours = self.files.values().map(|known| &known.index).fold(0, all);
        let theirs = files.iter().map(|file| &file.index).fold(0, all);
        (ours - both) + (theirs - both)
    }

    /// Whether it is this set that is resolved.
    pub(crate) fn is_of(&self, files: &[IndexedFile]) -> bool {
        self.files.len() == files.len() && self.distance(files) == 0
    }

    pub(crate) fn files(&self) -> &BTreeMap<String, SettledFile> {
        &self.files
    }

    fn new(files: &[&IndexedFile], positions: Vec<Positions>) -> Self {
        let settled = files.iter().zip(positions).map(|(file, Positions { hidden, dead })| {
            let hidden = Arc::new(hidden);
            let gone = if dead.is_empty() { Arc::clone(&hidden) } else { Arc::new(&*hidden | &dead) };
            (file.path.clone(), SettledFile { index: Arc::clone(&file.index), hidden, dead: Arc::new(dead), gone })
        });
        Self { files: settled.collect() }
    }
}

/// Files in the order in which they win ties: tier, and the greater path. A tombstone goes between the two.
fn by_rank(files: &[IndexedFile]) -> Vec<&IndexedFile> {
    let mut files: Vec<&IndexedFile> = files.iter().collect();
    files.sort_unstable_by(|left, right| left.path.cmp(&right.path));
    files
}

/// Takes all versions of an id from a cursor that stands at the first; says which id comes next.
fn take(
    cursor: &mut Cursor<'_>,
    id: u128,
    file: usize,
    versions: &mut Vec<(usize, Entry)>,
) -> Result<Option<u128>, IndexError> {
    while let Some(entry) = cursor.current() {
        if entry.id != id {
            return Ok(Some(entry.id));
        }
        versions.push((file, entry));
        cursor.advance()?;
    }
    Ok(None)
}

/// Of all versions of one row the winner stays (docs/contract.md, "Last write wins"), the others are hidden.
fn settle(files: &[&IndexedFile], versions: &[(usize, Entry)], positions: &mut [Positions]) {
    // A file's number is its rank by path.
    let order = |(file, entry): &(usize, Entry)| {
        (entry.changed_at, files[*file].tier == Tier::Warm, entry.is_tombstone, *file, entry.position)
    };
    let Some(winner) = versions.iter().max_by_key(|version| order(version)) else { return };
    for (file, entry) in versions {
        let positions = &mut positions[*file];
        let wins = (*file, entry.position) == (winner.0, winner.1.position);
        set(&mut positions.hidden, entry.position, !wins);
        set(&mut positions.dead, entry.position, wins && entry.is_tombstone);
    }
}

/// Most versions are no news: nothing is set, and nothing there.
fn set(bitmap: &mut RoaringBitmap, position: u32, wanted: bool) {
    if wanted {
        bitmap.insert(position);
    } else if !bitmap.is_empty() {
        bitmap.remove(position);
    }
}

#[cfg(test)]
mod tests;
