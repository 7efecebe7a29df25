use std::fmt::Write as _;

use translator::functions;

use super::*;

fn shape() -> ShapeDatabase {
    let text = "[[entity]]\nname = \"things\"\nschema_id = 100\n\n[[entity.attribute]]\nname = \"n\"\ntype = \"integer\"\n\
                column = \"integer_01\"\n";
    ShapeDatabase::new(Arc::new(Catalog::parse(text).expect("a catalog"))).expect("a shape database")
}

#[test]
fn nothing_is_offered_that_is_refused() {
    let vocabulary = shape().vocabulary().unwrap();
    let lists = [
        vocabulary.numeric_functions,
        vocabulary.string_functions,
        vocabulary.datetime_functions,
        vocabulary.system_functions,
    ];
    for name in lists.iter().flatten() {
        assert!(functions::function(name).is_some() && functions::refusal(name).is_none(), "{name}");
    }
    assert!(lists.iter().all(|list| !list.is_empty()));
}

#[test]
fn long_lists_are_printed_as_short_ones_are() {
    let shape = shape();
    let list = |item: &dyn Fn(usize) -> String, between: &str| (0..1_000).map(item).collect::<Vec<_>>().join(between);
    let mut texts = String::new();
    for index in 0..600 {
        write!(texts, "{}'it''s {index}'", if index == 0 { "" } else { ", " }).unwrap();
    }
    for sql in [
        format!("SELECT n FROM things WHERE n IN ({})", list(&|n| n.to_string(), ", ")),
        format!("SELECT n FROM things WHERE n NOT IN ({}) AND n > 1", list(&|n| format!("{n} + 1"), ", ")),
        format!("SELECT n FROM things WHERE {} OR n IS NULL", list(&|n| format!("n = {n}"), " OR ")),
        format!("SELECT n FROM things WHERE {}", list(&|n| format!("n <> {n}"), " AND ")),
        format!("SELECT * FROM (VALUES {}) t(a, b)", list(&|n| format!("({n}, 'x{n}')"), ", ")),
        format!("VALUES {}", list(&|n| format!("({n})"), ", ")),
        format!("SELECT greatest({}), [{texts}] FROM things", list(&|n| n.to_string(), ", ")),
        format!("SELECT coalesce({}) FROM things", list(&|n| format!("nullif(n, {n})"), ", ")),
        // A list in a list, and a text that looks like the name of a place.
        format!(
            "SELECT n FROM things WHERE n IN ({}, greatest({}))",
            list(&|n| n.to_string(), ", "),
            list(&|n| n.to_string(), ", ")
        ),
        format!("SELECT 'tc_list_0_' FROM things WHERE 'tc_list_' IN ({texts})"),
    ] {
        let document: Json = serde_json::from_str(&shape.parse(&sql).unwrap()).unwrap();
        let (whole, parts) = (shape.print_whole(&document).unwrap(), shape.print(&document).unwrap());
        // The parts of a chain of AND or OR are in parentheses of their own.
        let flat = |text: &str| text.replace(['(', ')'], "");
        assert_eq!(flat(&parts), flat(&whole), "{}", &sql[..60]);
        if !sql.contains(" OR ") && !sql.contains("<>") {
            assert_eq!(parts, whole, "{}", &sql[..60]);
        }
        assert!(shape.bind(&parts).is_ok(), "{}", &sql[..60]);
    }
}
