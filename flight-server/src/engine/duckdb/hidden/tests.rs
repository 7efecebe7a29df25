use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use rand::{Rng, SeedableRng};

use super::*;

/// Five files of 10,000 rows in row groups of 2,048, and an instance over them: `id` goes through all of them, `shuffled`
/// has the same numbers in no order, `word` is text with NULLs.
struct Files {
    _directory: tempfile::TempDir,
    connection: Connection,
    list: String,
}

const FILES: usize = 5;
const ROWS: u32 = 10_000;

fn files() -> Files {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(&[]).unwrap();
    let connection = database.connect().unwrap();
    database.add_hidden_function(&connection).unwrap();
    let path = |file: usize| directory.path().join(format!("{file}.parquet")).display().to_string();
    for file in 0..FILES {
        let from = file * ROWS as usize;
        connection
            .execute(&format!(
                "COPY (SELECT i AS id, (i * 7919) % 50021 AS shuffled, CASE WHEN i % 3 > 0 THEN 'w' || (i % 100) END AS word \
                 FROM range({from}, {from} + {ROWS}) r(i)) TO '{}' (ROW_GROUP_SIZE 2048)",
                path(file)
            ))
            .unwrap();
    }
    let list = (0..FILES).map(|file| format!("'{}'", path(file))).collect::<Vec<_>>().join(", ");
    Files { _directory: directory, connection, list }
}

fn numbers(connection: &Connection, sql: &str) -> Vec<Option<i64>> {
    let (_, batches) = connection.query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>()).collect()
}

/// Random positions: none, few, many, all of a file.
fn random_set(rng: &mut impl Rng) -> HiddenSet {
    let share = |rng: &mut dyn rand::RngCore| [0.0, 0.001, 0.3, 0.9, 1.0][rng.random_range(0..5)];
    (0..FILES)
        .map(|_| {
            let share: f64 = share(rng);
            Arc::new((0..ROWS).filter(|_| rng.random_bool(share)).collect())
        })
        .collect()
}

/// What is left out is left out whatever else filters, cuts, orders or joins: row numbers are those of the file.
#[test]
fn positions_stay_absolute() {
    let Files { connection, list, _directory } = files();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    for round in 0..12 {
        let set = random_set(&mut rng);
        let gone: Vec<i64> = set
            .iter()
            .enumerate()
            .flat_map(|(file, rows)| rows.iter().map(move |row| i64::from(row) + file as i64 * i64::from(ROWS)))
            .collect();
        connection.hide(vec![Vec::new(), set]);
        connection.execute("CREATE OR REPLACE TEMPORARY TABLE gone (id BIGINT)").unwrap();
        let ids = arrow::array::Int64Array::from(gone);
        let batch =
            arrow::array::RecordBatch::try_from_iter([("id", Arc::new(ids) as arrow::array::ArrayRef)]).unwrap();
        connection.append("gone", &batch).unwrap();
        let kept = format!(
            "(SELECT * FROM read_parquet([{list}]) WHERE NOT {HIDDEN_FUNCTION}(1, file_index, file_row_number))"
        );
        let wanted = format!("(SELECT * FROM read_parquet([{list}]) f ANTI JOIN gone g ON f.id = g.id)");
        let low = rng.random_range(0..50_000);
        let high = low + rng.random_range(1..9_000);
        for query in [
            "SELECT id FROM {} ORDER BY id".to_owned(),
            format!("SELECT id FROM {{}} WHERE id BETWEEN {low} AND {high} ORDER BY id"),
            format!("SELECT id FROM {{}} WHERE id = {low} OR shuffled BETWEEN {low} AND {high} ORDER BY id"),
            "SELECT id FROM {} WHERE word = 'w17' ORDER BY id".to_owned(),
            "SELECT id FROM {} WHERE word IS NULL ORDER BY id DESC LIMIT 10".to_owned(),
            "SELECT shuffled FROM {} ORDER BY shuffled DESC LIMIT 7".to_owned(),
            "SELECT count(*) FROM {}".to_owned(),
            "SELECT sum(shuffled)::BIGINT FROM {}".to_owned(),
            "SELECT count(*) FROM (SELECT id FROM {} LIMIT 100)".to_owned(),
            "SELECT f.id FROM range(0, 50000, 97) r(i) LEFT JOIN {} f ON f.id = r.i ORDER BY r.i".to_owned(),
            "SELECT max(id) FROM {} WHERE word LIKE 'w1%'".to_owned(),
            "SELECT count(*) FROM {} a JOIN {} b ON a.shuffled = b.id WHERE b.word > 'w5'".to_owned(),
            "SELECT id FROM {} WHERE id % 1000 = 3 AND length(word) = 2 ORDER BY id".to_owned(),
        ] {
            let answer = numbers(&connection, &query.replace("{}", &kept));
            assert_eq!(answer, numbers(&connection, &query.replace("{}", &wanted)), "round {round}: {query}");
        }
    }
}

#[test]
fn each_connection_has_sets_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(&[]).unwrap();
    let first = database.connect().unwrap();
    database.add_hidden_function(&first).unwrap();
    let file = directory.path().join("a.parquet").display().to_string();
    first.execute(&format!("COPY (SELECT i FROM range(100) r(i)) TO '{file}'")).unwrap();
    let second = database.connect().unwrap();
    first.hide(vec![vec![Arc::new((0..10).collect())]]);
    second.hide(vec![vec![Arc::new((0..60).collect())]]);
    let sql = format!(
        "SELECT count(*) FROM read_parquet('{file}') WHERE NOT {HIDDEN_FUNCTION}(0, file_index, file_row_number)"
    );
    assert_eq!(numbers(&first, &sql), [Some(90)]);
    assert_eq!(numbers(&second, &sql), [Some(40)]);
    // A statement that runs keeps what it was bound with.
    let mut running = first
        .stream(&format!(
            "SELECT i FROM read_parquet('{file}') WHERE NOT {HIDDEN_FUNCTION}(0, file_index, file_row_number)"
        ))
        .unwrap();
    first.hide(vec![vec![Arc::default()]]);
    let rows: usize = std::iter::from_fn(|| running.next().unwrap()).map(|batch| batch.num_rows()).sum();
    assert_eq!(rows, 90);
    drop(running);
    assert_eq!(numbers(&first, &sql), [Some(100)]);
    drop(second);
    assert_eq!(database.hidden.lock().len(), 1);
}

/// Without bitmaps for its files a scan fails instead of letting rows through.
#[test]
fn unknown_sets_fail() {
    let Files { connection, list, _directory } = files();
    let sql = |set: u8| {
        format!("SELECT id FROM read_parquet([{list}]) WHERE NOT {HIDDEN_FUNCTION}({set}, file_index, file_row_number)")
    };
    assert!(connection.query(&sql(0)).is_err());
    connection.hide(vec![vec![Arc::default(); FILES - 1]]);
    assert!(connection.query(&sql(0)).is_err());
    assert!(connection.query(&sql(1)).is_err());
    connection.hide(vec![vec![Arc::default(); FILES]]);
    assert!(connection.query(&sql(0)).is_ok());
}

/// The way without a function: a bitstring a file, and a scan for each.
#[test]
fn bitstrings_leave_out_the_same_rows() {
    const FILES: usize = 3;
    const ROWS: u32 = 10_000;
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(&[]).unwrap();
    let connection = database.connect().unwrap();
    database.add_hidden_function(&connection).unwrap();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    let paths: Vec<String> =
        (0..FILES).map(|file| directory.path().join(format!("{file}.parquet")).display().to_string()).collect();
    for path in &paths {
        connection
            .execute(&format!("COPY (SELECT i AS a, (i * 7919) % 1000 AS b FROM range({ROWS}) r(i)) TO '{path}'"))
            .unwrap();
    }
    let hidden: Vec<RoaringBitmap> =
        paths.iter().map(|_| (0..ROWS).filter(|_| rng.random_bool(0.021)).collect()).collect();
    let by_bits: Vec<String> = paths
        .iter()
        .zip(&hidden)
        .map(|(path, hidden)| {
            let bits: String = (0..ROWS).map(|row| if hidden.contains(row) { '1' } else { '0' }).collect();
            format!("SELECT a, b FROM read_parquet('{path}') WHERE get_bit('{bits}'::BIT, file_row_number::INT) = 0")
        })
        .collect();
    let list = paths.iter().map(|path| format!("'{path}'")).collect::<Vec<_>>().join(", ");
    let by_function =
        format!("SELECT a, b FROM read_parquet([{list}]) WHERE NOT {HIDDEN_FUNCTION}(0, file_index, file_row_number)");
    connection.hide(vec![hidden.into_iter().map(Arc::new).collect()]);
    for condition in ["true", "a BETWEEN 5000 AND 5100", "b = 7"] {
        let rows = |from: &str| {
            let sql = format!("SELECT count(*), sum(a)::BIGINT, sum(b)::BIGINT FROM ({from}) f WHERE {condition}");
            connection.query(&sql).unwrap().1
        };
        assert_eq!(rows(&by_function), rows(&by_bits.join(" UNION ALL ")), "{condition}");
    }
}
