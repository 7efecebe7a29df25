use super::*;

#[test]
fn patterns() {
    let cases = [
        ("flights", "flights", true),
        ("FLIGHTS", "flights", true),
        ("flight", "flights", false),
        ("%", "flights", true),
        ("%", "", true),
        ("", "", true),
        ("", "flights", false),
        ("f%s", "flights", true),
        ("f%x", "flights", false),
        ("%ight%", "flights", true),
        ("%%", "flights", true),
        ("_lights", "flights", true),
        ("_______", "flights", true),
        ("________", "flights", false),
        ("air_lines", "airxlines", true),
        ("air\\_lines", "airxlines", false),
        ("air\\_lines", "air_lines", true),
        ("100\\%", "100%", true),
        ("100\\%", "1000", false),
        ("a\\\\b", "a\\b", true),
        ("a\\", "a\\", true),
        ("%é", "café", true),
        ("a%b%c", "aXbXbc", true),
        ("a%b%c", "aXbXbd", false),
    ];
    for (pattern, name, expected) in cases {
        assert_eq!(name_matches(Some(pattern), name), expected, "{pattern} over {name}");
    }
    assert!(name_matches(None, "anything"));
}

#[test]
fn a_hostile_pattern_is_quick() {
    let pattern = "%a".repeat(2_000);
    assert!(!name_matches(Some(&pattern), &"a".repeat(1_999)));
}

#[test]
fn catalog_and_schema_filters() {
    assert!(catalog_matches(None) && catalog_matches(Some("thermocline")));
    assert!(!catalog_matches(Some("")) && !catalog_matches(Some("%")) && !catalog_matches(Some("other")));
    assert!(schema_matches(None) && schema_matches(Some("main")) && schema_matches(Some("%")));
    assert!(!schema_matches(Some("")) && !schema_matches(Some("public")));
    assert!(schema_is(Some("main")) && !schema_is(Some("%")) && !schema_is(Some("")));
}
