use super::*;

#[test]
fn every_option_reads_its_own_text_form() {
    let mut options =
        QueryOptions { max_rows: Some(7), timeout: Some(Duration::from_millis(1500)), ..QueryOptions::default() };
    options.tiers = Tiers::parse("cold, hot").unwrap();
    let mut read = QueryOptions::default();
    for (name, value) in options.entries() {
        read.set(name, &value).unwrap();
    }
    assert_eq!(read, options);
}

#[test]
fn bad_options_say_what_is_valid() {
    let mut options = QueryOptions::default();
    let unknown = options.set("consistancy", "strict").unwrap_err().to_string();
    assert!(unknown.contains("`consistancy`") && unknown.contains("consistency, allow_partial"), "{unknown}");
    for (name, value) in [
        ("consistency", "weak"),
        ("allow_partial", "yes please"),
        ("tiers", ""),
        ("tiers", "hot,lukewarm"),
        ("max_rows", "-1"),
        ("max_rows", "0"),
        ("timeout", "5 parsecs"),
        ("timeout", "0s"),
        ("hot_scan", "seq"),
    ] {
        let message = options.set(name, value).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("expected"), "{message}");
    }
    assert_eq!(options, QueryOptions::default());
}
