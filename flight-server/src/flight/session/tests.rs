use super::*;

const IDLE: Duration = Duration::from_secs(60);

fn after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

#[test]
fn a_session_lives_while_it_is_used_and_expires_when_idle() {
    let store = SessionStore::new(10, IDLE);
    let start = Instant::now();
    let id = store.open("ann", start).unwrap();
    store.with(&id, after(start, 1), |options| options.insert("tiers", "hot".to_owned())).unwrap();
    assert_eq!(store.options(&id, after(start, 50)).unwrap()["tiers"], "hot");
    assert_eq!(store.options(&id, after(start, 109)).unwrap()["tiers"], "hot");

    let expired = store.options(&id, after(start, 109 + 60)).unwrap_err();
    assert!(expired.forget_session);
    // Once expired it stays so, whatever the clock says.
    assert!(store.options(&id, after(start, 110)).is_err());
}

#[test]
fn the_store_is_bounded_and_makes_room_from_expired_sessions() {
    let store = SessionStore::new(2, IDLE);
    let start = Instant::now();
    let first = store.open("ann", start).unwrap();
    store.open("ann", after(start, 30)).unwrap();
    let refused = store.open("ann", after(start, 31)).unwrap_err();
    assert!(refused.error.message().contains("max_sessions"), "{}", refused.error.message());
    let third = store.open("ann", after(start, 61)).unwrap();
    assert!(store.options(&first, after(start, 61)).is_err());
    assert!(store.options(&third, after(start, 61)).is_ok());
}

#[test]
fn closing_forgets() {
    let store = SessionStore::new(2, IDLE);
    let now = Instant::now();
    let id = store.open("ann", now).unwrap();
    store.close(&id);
    assert!(store.options(&id, now).is_err());
    store.close(&id);
}

#[test]
fn cookies_are_found_among_others() {
    let call = |cookies: &[&str]| {
        let mut metadata = MetadataMap::new();
        for cookie in cookies {
            metadata.append("cookie", cookie.parse().unwrap());
        }
        of_call(&metadata, "ann").map(|id| id.id)
    };
    assert_eq!(call(&[]), None);
    assert_eq!(call(&["a=b"]), None);
    assert_eq!(call(&["a=b; arrow_flight_session_id=xyz ;c=d"]), Some("xyz".to_owned()));
    assert_eq!(call(&["a=b", "arrow_flight_session_id=\"xyz\""]), Some("xyz".to_owned()));
    assert_eq!(call(&["arrow_flight_session_id="]), None);
}
