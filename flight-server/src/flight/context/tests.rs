use translator::options::{Consistency, OPTION_NAMES, Tiers};

use futures::FutureExt;

use super::*;
use crate::access::{ANONYMOUS, Peer};

fn headers(pairs: &[(&'static str, &'static str)]) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    for (name, value) in pairs {
        metadata.append(*name, value.parse().unwrap());
    }
    metadata
}

fn read(metadata: &MetadataMap) -> Outcome<CallContext> {
    read_with(metadata, &SessionStore::new(1, Duration::from_secs(1)), Instant::now())
}

/// Without logins there is nothing to wait for.
fn read_with(metadata: &MetadataMap, sessions: &SessionStore, now: Instant) -> Outcome<CallContext> {
    let incoming = Incoming { metadata: metadata.clone(), peer: Peer::default() };
    CallContext::read(None, &incoming, sessions, now).now_or_never().unwrap()
}

#[test]
fn header_wins_over_session_wins_over_default() {
    let sessions = SessionStore::new(1, Duration::from_secs(60));
    let now = Instant::now();
    let id = sessions.open(ANONYMOUS, now).unwrap();
    sessions
        .with(&id, now, |options| {
            options.insert("tiers", "warm".to_owned());
            options.insert("consistency", "eventual".to_owned());
            options.insert("catalog", "thermocline".to_owned());
        })
        .unwrap();
    let mut metadata = headers(&[("x-thermocline-tiers", "hot")]);
    let mut set = MetadataMap::new();
    session::set_cookie(&mut set, &id);
    metadata.insert("cookie", set.get("set-cookie").unwrap().clone());

    let defaults = QueryOptions { max_rows: Some(7), tiers: Tiers::parse("cold").unwrap(), ..QueryOptions::default() };
    let context = read_with(&metadata, &sessions, now).unwrap();
    let options = context.options(defaults).unwrap();
    assert_eq!(options.tiers.to_string(), "hot");
    assert_eq!(options.consistency, Consistency::Eventual);
    assert_eq!(options.max_rows, Some(7));
}

#[test]
fn dashes_stand_for_underscores() {
    let context = read(&headers(&[("x-thermocline-allow-partial", "true"), ("x-other", "1")])).unwrap();
    assert!(context.options(QueryOptions::default()).unwrap().allow_partial);
}

#[test]
fn an_unknown_option_lists_all_and_a_bad_value_says_what_is_expected() {
    let unknown = read(&headers(&[("x-thermocline-tier", "hot")])).unwrap_err();
    for name in OPTION_NAMES {
        assert!(unknown.error.message().contains(name), "{}", unknown.error.message());
    }
    let bad = read(&headers(&[("x-thermocline-consistency", "maybe")])).unwrap_err();
    assert!(bad.error.message().contains("strict or eventual"), "{}", bad.error.message());
}

#[test]
fn the_shorter_of_deadline_and_timeout_counts() {
    let timeout = |header: &'static str, option: Option<Duration>| {
        let context = read(&headers(&[("grpc-timeout", header)])).unwrap();
        let mut options = QueryOptions { timeout: option, ..QueryOptions::default() };
        context.limit_to_deadline(&mut options);
        options.timeout
    };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(timeout("5S", None), seconds(5));
    assert_eq!(timeout("5S", seconds(2)), seconds(2));
    assert_eq!(timeout("2M", seconds(180)), seconds(120));
    assert_eq!(timeout("1500m", None), Some(Duration::from_millis(1500)));
    assert_eq!(timeout("99999999H", seconds(1)), seconds(1));
    for malformed in ["", "5", "S", "-1S", "5x", "123456789S"] {
        assert_eq!(timeout(malformed, None), None, "{malformed}");
    }
}

#[test]
fn an_unknown_cookie_is_an_error_that_clears_it() {
    let failure = read(&headers(&[("cookie", "arrow_flight_session_id=stale")])).unwrap_err();
    assert!(failure.forget_session);
}
