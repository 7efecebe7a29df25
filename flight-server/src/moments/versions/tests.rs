//! The dirty set against a plain map.

use std::collections::BTreeMap;

use rand::Rng;
use rand::SeedableRng;

use super::*;
use crate::postgres::Stamp;

/// What PostgreSQL has: the stamp of each dirty row, and whether it is whole.
type Model = BTreeMap<u128, (Stamp, bool)>;

fn stamped(model: &Model) -> Vec<Stamped> {
    model.iter().map(|(id, (stamp, _))| (*id, Some(*stamp))).collect()
}

fn go_on(versions: &mut DirtyVersions, difference: &Difference, model: &Model) {
    let whole = difference.written.iter().map(|(id, _)| *id).filter(|id| model[id].1).collect();
    versions.apply(difference, &whole);
}

fn check(versions: &DirtyVersions, model: &Model) {
    assert_eq!(versions.len(), model.len());
    assert!(model.iter().all(|(id, (stamp, _))| versions.stamp(*id) == Some(*stamp)));
    let bare = model.iter().filter(|(_, (_, is_whole))| !is_whole).map(|(id, _)| *id);
    assert_eq!(versions.bare().iter().collect::<Vec<_>>(), bare.collect::<Vec<_>>());
    assert_eq!(versions.ids().iter().collect::<Vec<_>>(), model.keys().copied().collect::<Vec<_>>());
}

/// Random writes, flushes and rows that go and come back, read whole or by what was touched.
#[test]
fn it_follows_a_plain_map() {
    for seed in 0..40 {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let (mut model, mut versions) = (Model::new(), DirtyVersions::default());
        let mut written = 0;
        for _ in 0..60 {
            let earlier = model.clone();
            let mut touched = Vec::new();
            for _ in 0..rng.random_range(0..12) {
                let id = rng.random_range(0..40);
                touched.push(id);
                if rng.random_bool(0.4) {
                    model.remove(&id);
                } else {
                    written += 1;
                    model.insert(id, (Stamp::of(written, rng.random_range(0..3)), rng.random_bool(0.9)));
                }
            }
            // What is read twice is harmless.
            touched.extend((0..rng.random_range(0..3)).map(|_| rng.random_range(0..40)));
            let difference = if rng.random_bool(0.5) {
                versions.difference_to(&stamped(&model))
            } else {
                let touched: Vec<Stamped> =
                    touched.iter().map(|id| (*id, model.get(id).map(|(stamp, _)| *stamp))).collect();
                let mut difference = versions.difference_of(&touched);
                // The cursor gives each row once.
                difference.written.dedup();
                difference.gone.dedup();
                difference
            };
            let closed = versions.closed_by(&difference);
            assert!(closed.iter().all(|id| earlier.contains_key(id)), "only what is there ends");
            let changed = earlier.iter().filter(|(id, old)| model.get(id).map(|new| new.0) != Some(old.0)).count();
            assert_eq!(closed.len(), changed, "seed {seed}");
            go_on(&mut versions, &difference, &model);
            check(&versions, &model);
            assert!(versions.difference_to(&stamped(&model)).is_empty());
        }
    }
}
