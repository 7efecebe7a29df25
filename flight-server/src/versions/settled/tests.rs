use std::path::Path;

use rand::{Rng, SeedableRng};

use super::super::file_index::IndexWriter;
use super::*;

/// A file as the model keeps it.
#[derive(Clone)]
struct ModelFile {
    path: String,
    tier: Tier,
    entries: Vec<Entry>,
}

fn indexed(directory: &Path, number: usize, file: &ModelFile) -> IndexedFile {
    let path = directory.join(number.to_string());
    let mut writer = IndexWriter::create(&path, &[1; 32]).unwrap();
    let mut entries = file.entries.clone();
    entries.sort_by_key(|entry| (entry.id, entry.position));
    entries.into_iter().for_each(|entry| writer.push(entry).unwrap());
    writer.finish().unwrap();
    let index = Arc::new(FileIndex::open(&path, &[1; 32]).unwrap());
    IndexedFile { path: file.path.clone(), tier: file.tier, index }
}

/// A winner by the words of the contract, one rule after the other.
fn beats(left: (&ModelFile, &Entry), right: (&ModelFile, &Entry)) -> bool {
    let ((left_file, left), (right_file, right)) = (left, right);
    if left.changed_at != right.changed_at {
        return left.changed_at > right.changed_at;
    }
    if left_file.tier != right_file.tier {
        return left_file.tier == Tier::Warm;
    }
    if left.is_tombstone != right.is_tombstone {
        return left.is_tombstone;
    }
    if left_file.path != right_file.path {
        return left_file.path > right_file.path;
    }
    left.position > right.position
}

fn assert_settled(settled: &Settled, files: &[ModelFile], note: &str) {
    assert_eq!(settled.files().len(), files.len(), "{note}");
    for file in files {
        let of_file = &settled.files()[&file.path];
        for entry in &file.entries {
            let rivals = files.iter().flat_map(|file| file.entries.iter().map(move |entry| (file, entry)));
            let loses = rivals.filter(|(_, rival)| rival.id == entry.id).any(|rival| beats(rival, (file, entry)));
            let (position, place) = (entry.position, format!("{note}: {} {}", file.path, entry.position));
            assert_eq!(of_file.hidden.contains(position), loses, "{place}");
            assert_eq!(of_file.dead.contains(position), !loses && entry.is_tombstone, "{place}");
            assert_eq!(of_file.gone.contains(position), loses || entry.is_tombstone, "{place}");
        }
    }
}

/// Random sets of files that come and go, each settled from scratch and from the set before it, against the rules.
#[test]
fn winners_are_those_of_the_rules() {
    let directory = tempfile::tempdir().unwrap();
    let mut number = 0;
    for seed in 0..60 {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut pairs: Vec<(ModelFile, IndexedFile)> = Vec::new();
        let mut settled = Settled::default();
        for step in 0..5 {
            if !pairs.is_empty() && rng.random_bool(0.4) {
                let gone = rng.random_range(0..pairs.len());
                pairs.remove(gone);
            }
            for _ in 0..rng.random_range(1..4) {
                number += 1;
                let cold = rng.random_bool(0.4);
                let ids = if rng.random_bool(0.5) { 0..30u128 } else { 20..90 };
                let entries = (0..rng.random_range(0..40)).map(|position| Entry {
                    id: rng.random_range(ids.clone()),
                    changed_at: rng.random_range(0..6),
                    is_tombstone: rng.random_bool(0.3),
                    position,
                });
                let file = ModelFile {
                    entries: entries.collect(),
                    path: format!(
                        "{}/1/{:03}",
                        if cold { "base" } else { "delta" },
                        rng.random_range(0..100) * 1000 + number
                    ),
                    tier: if cold { Tier::Cold } else { Tier::Warm },
                };
                let indexed = indexed(directory.path(), number, &file);
                pairs.push((file, indexed));
            }
            let (files, indexes): (Vec<ModelFile>, Vec<IndexedFile>) = pairs.iter().cloned().unzip();
            assert_settled(&Settled::of(&indexes).unwrap(), &files, &format!("seed {seed}, step {step}, anew"));
            settled = settled.changed_to(&indexes).unwrap();
            assert_settled(&settled, &files, &format!("seed {seed}, step {step}, by changes"));
            assert!(settled.is_of(&indexes) && !settled.is_of(&indexes[1..]));
        }
    }
}
