use std::collections::BTreeMap;

use super::House;

fn house(sources: &[(&str, &str)]) -> House {
    let sources: BTreeMap<String, String> =
        sources.iter().map(|(module, text)| ((*module).to_owned(), (*text).to_owned())).collect();
    House::from_sources("flight-server/src".to_owned(), &sources).unwrap()
}

#[test]
fn a_planted_arrow_is_found_with_its_reason() {
    let house = house(&[
        ("query", "use std::sync::Arc;"),
        ("query/run", "fn f() -> tonic::Status { loop {} }"),
        ("query/plan", "use crate::{flight::status::{self, Code as C}, lake::Lake};"),
        ("flight/status", ""),
        ("lake", ""),
    ]);
    let faults = house.forbidden();
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(
        faults.iter().any(|fault| fault.contains("query/run names tonic::Status: the query pipeline")),
        "{faults:?}"
    );
    assert!(faults.iter().any(|fault| fault.contains("crate::flight::status::Code:")), "{faults:?}");
}

#[test]
fn a_planted_circle_is_found_once_and_a_modules_own_parts_are_none() {
    let house = house(&[
        ("a", "mod part; use crate::b::B;"),
        ("a/part", "use super::A;"),
        ("b", "use crate::c::C;"),
        ("c", "fn f(_: super::a::part::P) {}"),
        ("d", "use crate::a::A;"),
    ]);
    // Through the part of `a` the circle closes only where the part leads on.
    assert_eq!(house.circles().len(), 0, "{:?}", house.circles());
    let house = self::house(&[("a", "use crate::b::B;"), ("b", "use crate::c;"), ("c", "use super::a;")]);
    let circles = house.circles();
    assert_eq!(circles, ["  a circle in flight-server/src: a → b; b → c; c → a;"]);
}

#[test]
fn the_house_as_it_stands_keeps_its_rules() {
    super::check(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()).unwrap();
}
