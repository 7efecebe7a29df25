use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};

use super::*;

const IDENTITY: Identity = [7; 32];

fn write(path: &Path, entries: &[Entry]) {
    let mut writer = IndexWriter::create(path, &IDENTITY).unwrap();
    entries.iter().for_each(|entry| writer.push(*entry).unwrap());
    writer.finish().unwrap();
}

/// Entries as a file may have them: some ids several times, times in no order.
fn entries(rng: &mut impl Rng, rows: u32, ids: u64) -> Vec<Entry> {
    let mut entries: Vec<Entry> = (0..rows)
        .map(|position| Entry {
            id: u128::from(rng.random_range(0..ids)) << 64,
            changed_at: rng.random_range(-5..1_000_000),
            is_tombstone: rng.random_bool(0.1),
            position,
        })
        .collect();
    entries.sort_by_key(|entry| (entry.id, entry.position));
    entries
}

fn found(index: &FileIndex, ids: &[u128]) -> Vec<Entry> {
    let mut found = Vec::new();
    index.lookup(ids, |entry| found.push(entry)).unwrap();
    found
}

#[test]
fn lookups_and_walks_find_what_a_map_finds() {
    let directory = tempfile::tempdir().unwrap();
    for seed in 0..40 {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        // From a file without rows to one whose ids fill several blocks each.
        let rows = [0, 1, 1024, 1025, 5000][usize::try_from(seed % 5).unwrap()];
        let entries = entries(&mut rng, rows, [1, 3, 500, 100_000][usize::try_from(seed % 4).unwrap()]);
        let path = directory.path().join(seed.to_string());
        write(&path, &entries);
        let index = FileIndex::open(&path, &IDENTITY).unwrap();
        let mut map: BTreeMap<u128, Vec<Entry>> = BTreeMap::new();
        entries.iter().for_each(|entry| map.entry(entry.id).or_default().push(*entry));
        assert_eq!(index.rows(), entries.len() as u64, "{seed}");

        let mut cursor = index.cursor().unwrap();
        let mut walked = Vec::new();
        while let Some(entry) = cursor.current() {
            walked.push(entry);
            cursor.advance().unwrap();
        }
        assert_eq!(walked, entries, "{seed}");

        for share in [0.001, 0.1, 1.0] {
            let strangers = (0..20).map(|_| u128::from(rng.random::<u64>()) << 40).collect::<Vec<_>>();
            let mut ids: Vec<u128> = map.keys().copied().filter(|_| rng.random_bool(share)).chain(strangers).collect();
            ids.sort_unstable();
            ids.dedup();
            let wanted: Vec<Entry> = ids.iter().filter_map(|id| map.get(id)).flatten().copied().collect();
            assert_eq!(found(&index, &ids), wanted, "seed {seed}, share {share}");
        }
    }
}

#[test]
fn damaged_and_foreign_indexes_are_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let entries = entries(&mut rng, 3000, 1 << 40);
    let path = directory.path().join("index");
    write(&path, &entries);
    assert!(matches!(FileIndex::open(&path, &[8; 32]), Err(IndexError::Damaged { .. })), "of another file");
    let whole = std::fs::read(&path).unwrap();
    let all: Vec<u128> = entries.iter().map(|entry| entry.id).collect();
    let is_noticed = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let damaged = |error| matches!(error, IndexError::Damaged { .. });
        FileIndex::open(&path, &IDENTITY).and_then(|index| index.lookup(&all, |_| {})).is_err_and(damaged)
    };
    for length in [0, 1, 40, whole.len() / 2, whole.len() - 1] {
        assert!(is_noticed(&whole[..length]), "cut to {length}");
    }
    for _ in 0..200 {
        let mut flipped = whole.clone();
        let at = rng.random_range(0..flipped.len());
        flipped[at] ^= 1 << rng.random_range(0..8);
        assert!(is_noticed(&flipped), "a bit at {at}");
    }
    assert!(!is_noticed(&whole));
}

#[test]
fn entries_must_come_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let entry = |id, position| Entry { id, changed_at: 0, is_tombstone: false, position };
    let mut writer = IndexWriter::create(&directory.path().join("a"), &IDENTITY).unwrap();
    writer.push(entry(2, 5)).unwrap();
    assert!(matches!(writer.push(entry(2, 5)), Err(IndexError::OutOfOrder)));
    assert!(matches!(writer.push(entry(1, 9)), Err(IndexError::OutOfOrder)));
    writer.push(entry(2, 6)).unwrap();
}
