use super::*;
use crate::engine::duckdb::{Connection, Database};

const PROFILING: &str = r#"SET enable_profiling = 'no_output'; SET custom_profiling_settings = '{"OPERATOR_NAME": "true", "OPERATOR_CARDINALITY": "true", "OPERATOR_TIMING": "true", "EXTRA_INFO": "true"}'"#;

/// A connection that profiles, and files `a` with 10 and `b` with 20 rows of some columns.
fn set_up(directory: &std::path::Path) -> (Connection, impl Fn(&[&str]) -> BTreeSet<String>) {
    let connection = Database::open(&[]).unwrap().connect().unwrap();
    let path = directory.display().to_string();
    for (name, rows) in [("a, first", 10), ("b", 20)] {
        let sql = format!(
            "COPY (SELECT range AS row_id, range AS n, range AS m, range AS k FROM range({rows})) TO '{path}/{name}.parquet'"
        );
        connection.execute(&sql).unwrap();
    }
    connection.execute(PROFILING).unwrap();
    (connection, move |names| names.iter().map(|name| format!("{path}/{name}.parquet")).collect())
}

fn read(files: &BTreeSet<String>) -> String {
    let files: Vec<String> = files.iter().map(|file| format!("'{file}'")).collect();
    format!("read_parquet([{}])", files.join(", "))
}

fn profile(connection: &Connection, sql: &str) -> ProfileNode {
    let mut stream = connection.stream(sql).unwrap();
    while stream.next().unwrap().is_some() {}
    drop(stream);
    connection.profile().expect("a profile")
}

fn source(files: &BTreeSet<String>, attributes: &[&str]) -> LakeScan {
    LakeScan { files: files.clone(), attributes: attributes.iter().map(|name| (*name).to_owned()).collect() }
}

fn rows(figures: &[Option<ScanFigures>]) -> Vec<Option<(u64, bool)>> {
    figures.iter().map(|figures| figures.map(|figures| (figures.rows, figures.shared))).collect()
}

#[test]
fn scans_are_told_apart_by_their_files_and_columns() {
    let directory = tempfile::tempdir().unwrap();
    let (connection, files) = set_up(directory.path());
    let (a, both) = (files(&["a, first"]), files(&["a, first", "b"]));
    let sql = format!(
        "SELECT x.n, y.m, z.k FROM (SELECT row_id, n FROM {} WHERE n < 5) x JOIN (SELECT row_id, m FROM {}) y USING (row_id), \
         (SELECT k FROM {} WHERE k > 7) z",
        read(&both),
        read(&both),
        read(&a)
    );
    let profile = profile(&connection, &sql);
    let sources = [source(&both, &["n"]), source(&both, &["m"]), source(&a, &["k"])];
    let figures = scan_figures(Some(&profile), &sources);
    assert_eq!(figures[2].map(|figures| figures.rows), Some(2), "k > 7 of one: {profile:#?}");
    assert!(figures.iter().all(|figures| figures.is_some_and(|figures| !figures.shared)), "{profile:#?}");
    assert_eq!(figures[0].map(|figures| figures.rows), Some(10), "n < 5 of both files: {profile:#?}");
}

#[test]
fn scans_that_look_alike_share_their_figures_and_say_so() {
    let directory = tempfile::tempdir().unwrap();
    let (connection, files) = set_up(directory.path());
    let both = files(&["a, first", "b"]);
    let read = read(&both);
    let profile = profile(
        &connection,
        &format!("SELECT x.n, y.n FROM (SELECT n FROM {read} WHERE n < 5) x, (SELECT n FROM {read} WHERE n > 17) y"),
    );
    let sources = [source(&both, &["n"]), source(&both, &["n"])];
    assert_eq!(rows(&scan_figures(Some(&profile), &sources)), [Some((12, true)), None], "{profile:#?}");
    assert_eq!(rows(&scan_figures(None, &sources)), [None, None]);
}

#[test]
fn rows_are_kept_when_they_pass_the_filters_above_their_scan() {
    let connection = Database::open(&[]).unwrap().connect().unwrap();
    connection.execute(PROFILING).unwrap();
    connection.execute("CREATE TEMP TABLE tc_hot_1 AS SELECT range::INTEGER AS n FROM range(100)").unwrap();
    for (sql, kept) in [
        ("SELECT n FROM tc_hot_1", 100),
        // In the scan.
        ("SELECT n FROM tc_hot_1 WHERE n < 7", 7),
        // In an operator above it.
        ("SELECT n + 1 FROM tc_hot_1 WHERE n % 10 = 3", 10),
        ("SELECT count(*) FROM tc_hot_1 WHERE n % 10 = 3 AND n < 50", 5),
        // Under a union with other rows.
        ("SELECT n FROM (FROM tc_hot_1 UNION ALL SELECT range::INTEGER FROM range(7)) WHERE n % 60 = 3", 2),
        // What a LIMIT cuts was wanted all the same.
        ("SELECT n FROM tc_hot_1 WHERE n % 10 = 3 ORDER BY n DESC LIMIT 1", 10),
        ("SELECT a.n FROM tc_hot_1 a LEFT JOIN range(5) r(n) ON a.n = r.n WHERE a.n % 10 = 3", 10),
    ] {
        let profile = profile(&connection, sql);
        assert_eq!(rows_kept(Some(&profile), "tc_hot_1"), Some(kept), "{sql}: {profile:#?}");
        assert_eq!(rows_kept(Some(&profile), "tc_hot_11"), None, "{sql}");
    }
    assert_eq!(rows_kept(None, "tc_hot_1"), None);
}

#[test]
fn notes_are_read_as_duckdb_writes_them() {
    let info = "{Function=READ_PARQUET, Projections=i\nk, Total Files Read=2, 'Filename(s)'='/l/it\\'s.parquet, /l/b.parquet'}";
    assert_eq!(note(info, "Projections").as_deref(), Some("i\nk"));
    assert_eq!(note(info, "Filename(s)").as_deref(), Some("/l/it's.parquet, /l/b.parquet"));
    assert_eq!(note(info, "Filters"), None);
}
