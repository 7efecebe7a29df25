use std::sync::Arc;

use super::*;

fn file(names: &[&str]) -> LakeFile {
    let column =
        |name: &&str| FileColumn { name: (*name).to_owned(), file_type: FileType::Text, range: None, null_count: None };
    LakeFile {
        path: "base/1/a.parquet".to_owned(),
        tier: Tier::Cold,
        bytes: 1,
        etag: None,
        row_count: 1,
        row_id_range: None,
        changed_at_range: None,
        unique_rows: false,
        may_hold_tombstones: false,
        row_groups: Arc::default(),
        columns: names.iter().map(column).collect(),
    }
}

#[test]
fn a_column_is_found_by_any_name_that_folds_to_the_attributes() {
    for (names, wanted, found) in [
        (&["id", "delay_minutes"][..], "delay_minutes", Some("delay_minutes")),
        (&["id", "delay.minutes"], "delay_minutes", Some("delay.minutes")),
        (&["id", "Delay Minutes"], "delay_minutes", Some("Delay Minutes")),
        (&["id", "delayminutes"], "delay_minutes", None),
        (&["ID"], "id", Some("ID")),
        (&["n_1"], "n_1", Some("n_1")),
        (&["n", "n_1"], "n_1", Some("n_1")),
        (&["n", "N", "n_x"], "n_x", Some("n_x")),
        // Not the same letter for DuckDB either.
        (&["Ä"], "ä", None),
    ] {
        let file = file(names);
        let column = file.stored_column(wanted).map(|column| column.map(|column| column.name.as_str()));
        assert_eq!(column, Ok(found), "{names:?}");
    }
}

#[test]
fn columns_that_could_both_be_it_are_ambiguous() {
    for (names, wanted, first, second) in [
        (&["n", "N"][..], "n", "n", "N"),
        (&["delay_minutes", "delay.minutes"], "delay_minutes", "delay_minutes", "delay.minutes"),
        (&["a b", "a.B"], "a_b", "a b", "a.B"),
        // DuckDB reads the second column under the name of the third.
        (&["n", "N", "n_1"], "n_1", "n_1", "N"),
    ] {
        assert_eq!(file(names).stored_column(wanted), Err(AmbiguousColumn { first, second }), "{names:?}");
    }
}
