//! Where the versions of dirty rows stand in files. A set of dirty ids is mostly the one before it: only what came and
//! what went is looked up.

use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringBitmap;
use translator::lake::IdSet;

use super::file_index::{FileIndex, IndexError};

/// The positions of a set of ids in the files that were asked about.
#[derive(Debug, Clone, Default)]
pub(crate) struct IdPositions {
    ids: Arc<IdSet>,
    /// By the place of the index: a file's index is never written twice at one place while it is held.
    files: HashMap<usize, (Arc<FileIndex>, Arc<RoaringBitmap>)>,
}

impl IdPositions {
    /// The positions of `ids` in `files`, from scratch.
    pub(crate) fn of(ids: &Arc<IdSet>, files: &[Arc<FileIndex>]) -> Result<Self, IndexError> {
        Self { ids: Arc::clone(ids), files: HashMap::new() }.changed_to(ids, files)
    }

    /// The same for another set of ids and files, by what differs.
    pub(crate) fn changed_to(&self, ids: &Arc<IdSet>, files: &[Arc<FileIndex>]) -> Result<Self, IndexError> {
        let (came, went) = if Arc::ptr_eq(ids, &self.ids) { Default::default() } else { difference(&self.ids, ids) };
        let all: Vec<u128> =
            if files.iter().all(|file| self.known(file).is_some()) { Vec::new() } else { ids.iter().collect() };
        let mut changed = HashMap::with_capacity(files.len());
        for file in files {
            let positions = match self.known(file) {
                Some(known) if came.is_empty() && went.is_empty() => Arc::clone(known),
                Some(known) => {
                    let mut positions = Arc::clone(known);
                    file.lookup(&went, |entry| {
                        Arc::make_mut(&mut positions).remove(entry.position);
                    })?;
                    file.lookup(&came, |entry| {
                        Arc::make_mut(&mut positions).insert(entry.position);
                    })?;
                    positions
                }
                None => {
                    let mut positions = RoaringBitmap::new();
                    file.lookup(&all, |entry| {
                        positions.insert(entry.position);
                    })?;
                    Arc::new(positions)
                }
            };
            changed.insert(Arc::as_ptr(file) as usize, (Arc::clone(file), positions));
        }
        Ok(Self { ids: Arc::clone(ids), files: changed })
    }

    /// The positions in a file; `None` when it wasn't asked about.
    pub(crate) fn in_file(&self, file: &Arc<FileIndex>) -> Option<&Arc<RoaringBitmap>> {
        self.known(file)
    }

    fn known(&self, file: &Arc<FileIndex>) -> Option<&Arc<RoaringBitmap>> {
        // The entry holds the index, so that no other one stands where it stood.
        self.files.get(&(Arc::as_ptr(file) as usize)).map(|(_, positions)| positions)
    }
}

/// What is only in `after`, and what was only in `before`.
fn difference(before: &IdSet, after: &IdSet) -> (Vec<u128>, Vec<u128>) {
    let (mut came, mut went) = (Vec::new(), Vec::new());
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    loop {
        match (before.peek().copied(), after.peek().copied()) {
            (Some(old), Some(new)) if old == new => {
                before.next();
                after.next();
            }
            (Some(old), new) if new.is_none_or(|new| old < new) => {
                went.push(old);
                before.next();
            }
            (_, Some(new)) => {
                came.push(new);
                after.next();
            }
            (_, None) => return (came, went),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_differ_by_what_came_and_went() {
        let set = |ids: &[u128]| IdSet::new(ids.to_vec());
        assert_eq!(difference(&set(&[1, 3, 5]), &set(&[2, 3, 6])), (vec![2, 6], vec![1, 5]));
        assert_eq!(difference(&set(&[]), &set(&[2])), (vec![2], vec![]));
        assert_eq!(difference(&set(&[2, 9]), &set(&[])), (vec![], vec![2, 9]));
    }
}
