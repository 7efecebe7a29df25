use std::collections::BTreeSet;

use rand::{Rng, SeedableRng};
use translator::options::Tier;

use super::*;

fn file(path: &str, rows: u64) -> LakeFile {
    LakeFile {
        path: path.to_owned(),
        tier: if path.starts_with("base") { Tier::Cold } else { Tier::Warm },
        bytes: 100,
        etag: Some("e".to_owned()),
        row_count: rows,
        row_id_range: None,
        changed_at_range: None,
        unique_rows: false,
        may_hold_tombstones: true,
        row_groups: Arc::default(),
        columns: Vec::new(),
    }
}

/// Indexes a file with these ids, one version each, all of one age.
fn learn(index: &VersionIndex, file: &LakeFile, ids: &[u128], changed_at: i64) -> bool {
    let Some(mut build) = index.store().build(file).unwrap() else { return false };
    let mut entries: Vec<Entry> = ids
        .iter()
        .zip(0..)
        .map(|(id, position)| Entry { id: *id, changed_at, is_tombstone: false, position })
        .collect();
    entries.sort_by_key(|entry| entry.id);
    entries.into_iter().for_each(|entry| build.writer().unwrap().push(entry).unwrap());
    index.store().finish(build).unwrap();
    true
}

fn settled(index: &VersionIndex, files: &[&LakeFile]) -> Arc<Settled> {
    match index.known(1, files).unwrap() {
        Known::Settled(settled) => settled,
        other => panic!("{other:?}"),
    }
}

/// Dirty sets that change at random, each looked up by what differs from the one before, against the ids themselves.
#[test]
fn positions_of_dirty_rows_follow_the_dirty_set() {
    let directory = tempfile::tempdir().unwrap();
    let index = VersionIndex::open(directory.path(), 1 << 30, "lake");
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    let files = [file("base/1/a", 3000), file("base/1/b", 2000), file("delta/1/c", 500)];
    let ids: Vec<Vec<u128>> = files
        .iter()
        .map(|file| {
            let ids: BTreeSet<u128> = (0..file.row_count).map(|_| rng.random_range(0..8000)).collect();
            let mut ids: Vec<u128> = ids.into_iter().collect();
            rand::seq::SliceRandom::shuffle(ids.as_mut_slice(), &mut rng);
            ids
        })
        .collect();
    let all: Vec<&LakeFile> = files.iter().collect();
    assert!(matches!(index.known(1, &all).unwrap(), Known::Unindexed));
    for (number, (file, ids)) in files.iter().zip(&ids).enumerate() {
        assert!(learn(&index, file, ids, i64::try_from(number).unwrap()));
    }
    let mut dirty: BTreeSet<u128> = BTreeSet::new();
    for step in 0..40 {
        for _ in 0..rng.random_range(0..60) {
            let id = rng.random_range(0..9000);
            if !dirty.remove(&id) {
                dirty.insert(id);
            }
        }
        // Now and then the tiers, or only ids that matter to one query.
        let some: Vec<&LakeFile> = if step % 5 == 4 { all[..2].to_vec() } else { all.clone() };
        let are_all = step % 7 != 6;
        let settled = settled(&index, &some);
        let set = Arc::new(IdSet::new(dirty.iter().copied().filter(|id| are_all || id % 2 == 0).collect()));
        let hidden = index.hidden(1, &settled, Some((&set, are_all))).unwrap();
        for (file, (known, ids)) in some.iter().zip(files.iter().zip(&ids)) {
            assert_eq!(file.path, known.path);
            for (id, position) in ids.iter().zip(0u32..) {
                let loses = settled.files()[&file.path].hidden.contains(position);
                let wanted = loses || set.contains(*id);
                assert_eq!(hidden.files[&file.path].hidden.contains(position), wanted, "step {step}, id {id}");
            }
        }
    }
}

/// A restart finds indexes again, and finds none of another content, of another lake, or without room.
#[test]
fn indexes_are_found_again_by_identity() {
    let directory = tempfile::tempdir().unwrap();
    let a = file("base/1/a", 3);
    {
        let index = VersionIndex::open(directory.path(), 1 << 30, "lake");
        assert!(learn(&index, &a, &[1, 2, 3], 5));
        assert!(!learn(&index, &a, &[1, 2, 3], 5), "it is there");
    }
    let again = VersionIndex::open(directory.path(), 1 << 30, "lake");
    assert!(matches!(again.known(1, &[&a]).unwrap(), Known::Settled(_)));
    let changed = LakeFile { etag: Some("f".to_owned()), ..a.clone() };
    assert!(matches!(again.known(1, &[&changed]).unwrap(), Known::Unindexed));
    let elsewhere = VersionIndex::open(directory.path(), 1 << 30, "another lake");
    assert!(matches!(elsewhere.known(1, &[&a]).unwrap(), Known::Unindexed));
    let off = VersionIndex::open(directory.path(), 0, "lake");
    assert!(!off.store().is_enabled());
    assert!(matches!(off.known(1, &[&a]).unwrap(), Known::Unindexed));
}

#[test]
fn room_is_made_by_what_is_gone_and_never_by_what_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let index = VersionIndex::open(directory.path(), 700, "lake");
    let (a, b, c) = (file("base/1/a", 10), file("base/1/b", 10), file("base/1/c", 10));
    index.keep_only(1, &[a.clone(), b.clone()]);
    assert!(learn(&index, &a, &[1], 5));
    assert!(learn(&index, &b, &[2], 5));
    let (bytes, files) = index.store().figures();
    assert!(bytes > 200 && files == 2, "{bytes} bytes in {files} files");
    assert!(!learn(&index, &file("base/1/large", 20), &[3], 5), "no room beside what is in use");
    index.keep_only(1, &[a.clone(), c.clone()]);
    assert_eq!(index.store().figures().1, 1);
    assert!(matches!(index.known(1, &[&a, &b]).unwrap(), Known::Unindexed));
    assert!(learn(&index, &c, &[3], 5));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
}

/// What fails in the middle leaves nothing, and isn't tried again at once.
#[test]
fn a_build_that_is_given_up_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let index = VersionIndex::open(directory.path(), 1 << 30, "lake");
    let a = file("base/1/a", 10);
    let mut build = index.store().build(&a).unwrap().expect("a build");
    build.writer().unwrap().push(Entry { id: 1, changed_at: 1, is_tombstone: false, position: 0 }).unwrap();
    drop(build);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    assert!(index.store().build(&a).unwrap().is_some());
    index.store().failed(&a);
    assert!(index.store().build(&a).unwrap().is_none());
}
