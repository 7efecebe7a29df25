//! Mirror tables against plain maps: what each moment reads, whatever later ones add and close.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use rand::{Rng, SeedableRng};
use translator::catalog::Catalog;

use super::*;

const ENTITY: &str = "[[entity]]\nname = \"a\"\nschema_id = 1\n[[entity.attribute]]\nname = \"n\"\ntype = \"text\"\ncolumn = \"text_01\"";

/// The rows of a moment: the text of each, `None` of one that is no row.
type Rows = BTreeMap<u128, Option<String>>;

fn store() -> (Arc<Database>, MirrorStore) {
    let database = Database::open(&[]).unwrap();
    database.connect().unwrap().execute(&format!("ATTACH ':memory:' AS {MIRROR_CATALOG}")).unwrap();
    let store = MirrorStore::new(&database);
    (database, store)
}

fn batch(rows: &[(u128, String)]) -> RecordBatch {
    let ids: Vec<[u8; 16]> = rows.iter().map(|(id, _)| id.to_be_bytes()).collect();
    let ids = FixedSizeBinaryArray::try_from_iter(ids.iter()).unwrap();
    let times = || Arc::new(Int64Array::from(vec![Some(1); rows.len()])) as ArrayRef;
    let texts: StringArray = rows.iter().map(|(_, text)| Some(text)).collect();
    RecordBatch::try_from_iter([
        ("row_id", Arc::new(ids) as ArrayRef),
        ("changed_at", times()),
        ("deleted_at", Arc::new(Int64Array::from(vec![None; rows.len()])) as ArrayRef),
        ("created_at", times()),
        ("n", Arc::new(texts) as ArrayRef),
    ])
    .unwrap()
}

fn read(store: &MirrorStore, handle: &MirrorHandle, moment: u64) -> Rows {
    let sql = format!(
        "SELECT CAST(row_id AS VARCHAR), _tc_whole, n FROM {} WHERE _tc_from <= {moment} AND _tc_to > {moment}",
        table(&handle.name)
    );
    let (_, batches) = store.connect().unwrap().query(&sql).unwrap();
    let mut rows = Rows::new();
    for batch in &batches {
        let (ids, texts) = (batch.column(0).as_string::<i32>(), batch.column(2).as_string::<i32>());
        for row in 0..batch.num_rows() {
            let id = uuid::Uuid::parse_str(ids.value(row)).unwrap().as_u128();
            let text = batch.column(1).as_boolean().value(row).then(|| texts.value(row).to_owned());
            assert!(rows.insert(id, text).is_none(), "moment {moment} has row {id} twice");
        }
    }
    rows
}

#[test]
fn every_moment_keeps_its_rows() {
    let catalog = Catalog::parse(ENTITY).unwrap();
    let mirrored = Mirrored { entity: &catalog.entities()[0], attributes: &[0] };
    for seed in 0..6 {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let (_database, store) = store();
        let mut handle = store.create(mirrored).unwrap();
        let mut now = Rows::new();
        // What readers hold: a moment, its table and its rows.
        let mut held: Vec<(u64, Arc<MirrorHandle>, Rows)> = Vec::new();
        for moment in 1..40 {
            let (mut rows, mut changes) = (Vec::new(), MirrorChanges::default());
            for id in 0..30_u128 {
                match rng.random_range(0..10) {
                    0 => {
                        changes.closed.extend(now.remove(&id).map(|_| id));
                    }
                    1 => {
                        changes.closed.extend(now.insert(id, None).map(|_| id));
                        changes.bare.push(id);
                    }
                    2 | 3 => {
                        let text = format!("{moment}/{id}");
                        changes.closed.extend(now.insert(id, Some(text.clone())).map(|_| id));
                        rows.push((id, text));
                    }
                    _ => {}
                }
            }
            let mut staged = store.stage().unwrap();
            if !rows.is_empty() {
                staged.push(&batch(&rows)).unwrap();
            }
            store.apply(&handle, mirrored, &staged, &changes, moment).unwrap();
            if rng.random_bool(0.2) {
                handle = store.rebuild(&handle, mirrored.entity).unwrap();
            }
            held.push((moment, Arc::clone(&handle), now.clone()));
            if rng.random_bool(0.3) {
                held.remove(rng.random_range(0..held.len()));
            }
            store.sweep().unwrap();
            for (moment, handle, rows) in &held {
                assert_eq!(&read(&store, handle, *moment), rows, "seed {seed}, moment {moment}");
            }
        }
        held.clear();
        store.sweep().unwrap();
        let tables = format!("SELECT 1 FROM duckdb_tables() WHERE database_name = '{MIRROR_CATALOG}'");
        let left: usize = store.connect().unwrap().query(&tables).unwrap().1.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(left, 1, "tables that nobody holds are dropped");
    }
}

#[test]
fn rows_that_differ_are_counted() {
    let catalog = Catalog::parse(ENTITY).unwrap();
    let mirrored = Mirrored { entity: &catalog.entities()[0], attributes: &[0] };
    let (_database, store) = store();
    let handle = store.create(mirrored).unwrap();
    let staged = |rows: &[(u128, &str)]| {
        let rows: Vec<(u128, String)> = rows.iter().map(|(id, text)| (*id, (*text).to_owned())).collect();
        let mut staged = store.stage().unwrap();
        staged.push(&batch(&rows)).unwrap();
        staged
    };
    store.apply(&handle, mirrored, &staged(&[(1, "a"), (2, "b")]), &MirrorChanges::default(), 1).unwrap();
    let differences = |rows: &[(u128, &str)]| store.differences(&handle, mirrored, &staged(rows)).unwrap();
    assert_eq!(differences(&[(1, "a"), (2, "b")]), 0);
    assert_eq!(differences(&[(1, "a"), (2, "x")]), 1);
    assert_eq!(differences(&[(3, "a")]), 1, "it isn't there");
    let closing = MirrorChanges { closed: vec![1], ..MirrorChanges::default() };
    store.apply(&handle, mirrored, &store.stage().unwrap(), &closing, 2).unwrap();
    assert_eq!(differences(&[(1, "a")]), 1, "it isn't open");
}
