use translator::catalog::Catalog;

use super::*;
use crate::access::hash_password;

fn access(users: &str) -> Arc<Access> {
    Arc::new(Access::parse(users, "access.toml", &Catalog::default()).unwrap())
}

fn settings(anonymous: bool) -> LoginSettings {
    LoginSettings { anonymous, token_ttl: Duration::from_secs(3600), session_max: Duration::from_secs(3600 * 24) }
}

fn logins(users: &str, anonymous: bool) -> Logins {
    Logins::new(access(users), SigningKeys::random().unwrap(), settings(anonymous)).unwrap()
}

fn user(name: &str, password: &str) -> String {
    format!("[[user]]\nname = \"{name}\"\nroles = []\npassword_hash = \"{}\"\n", hash_password(password).unwrap())
}

async fn log_in(logins: &Logins, credentials: Credentials) -> Result<Session, LoginFailure> {
    logins.log_in(credentials, &Peer::default()).await
}

fn password(user: &str, password: &str) -> Credentials {
    Credentials::Password { user: user.to_owned(), password: password.to_owned() }
}

async fn is_refused(logins: &Logins, credentials: Credentials) -> bool {
    matches!(log_in(logins, credentials).await, Err(LoginFailure::Refused))
}

#[tokio::test]
async fn a_password_gives_a_token_that_lasts_until_it_is_changed() {
    let (before, after) = (user("ann", "one"), user("ann", "two"));
    let logins = logins(&before, false);
    let session = log_in(&logins, password("ann", "one")).await.unwrap();
    assert_eq!(session.caller.name, "ann");
    let token = logins.token(&session).unwrap();
    for credentials in [Credentials::Bearer(token.clone()), password("token", &token), password("", &token)] {
        assert_eq!(log_in(&logins, credentials).await.unwrap().caller.name, "ann");
    }
    for wrong in [password("ann", "two"), password("bob", "one"), password("ann", ""), Credentials::Nothing] {
        assert!(is_refused(&logins, wrong.clone()).await, "{wrong:?}");
    }
    logins.replace(access(&after), logins.keys(), settings(true));
    assert!(is_refused(&logins, Credentials::Bearer(token.clone())).await);
    assert!(is_refused(&logins, password("ann", "one")).await, "a password that was right is remembered too long");
    logins.replace(access(&format!("{before}disabled = true\n")), logins.keys(), settings(true));
    assert!(is_refused(&logins, Credentials::Bearer(token.clone())).await);
    logins.replace(access(&format!("{before}not_before = 2999-01-01T00:00:00Z\n")), logins.keys(), settings(true));
    assert!(is_refused(&logins, Credentials::Bearer(token.clone())).await);
    logins.replace(access(&before), SigningKeys::random().unwrap(), settings(true));
    assert!(is_refused(&logins, Credentials::Bearer(token)).await, "a token of other keys");
}

#[tokio::test]
async fn a_damaged_token_is_none() {
    let logins = logins(&user("ann", "one"), false);
    let token = logins.token(&log_in(&logins, password("ann", "one")).await.unwrap()).unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(&token[TOKEN_PREFIX.len()..]).unwrap();
    for place in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[place] ^= 1;
        let damaged = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(damaged));
        assert!(is_refused(&logins, Credentials::Bearer(damaged)).await, "flipped at {place}");
        let cut = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes[..place]));
        assert!(is_refused(&logins, Credentials::Bearer(cut)).await, "cut at {place}");
    }
    for other in ["", "tct_", "tct_%", "anonymous", "tck_x_y"] {
        assert!(is_refused(&logins, Credentials::Bearer(other.to_owned())).await, "{other}");
    }
}

#[tokio::test]
async fn tokens_end_and_are_renewed_for_as_long_as_a_session_lasts() {
    let logins = logins(&user("ann", "one"), false);
    let mut session = log_in(&logins, password("ann", "one")).await.unwrap();
    assert_eq!(logins.renewal(&session).unwrap(), None, "it is new");
    let hour = 3600;
    let age = |session: &mut Session, seconds: i64| {
        session.login.auth_time -= seconds;
        session.login.iat -= seconds;
        session.login.exp -= seconds;
    };
    age(&mut session, hour / 2 + 1);
    let renewed = logins.in_force().open(&logins.renewal(&session).unwrap().unwrap()).unwrap();
    assert_eq!(renewed.auth_time, session.login.auth_time);
    assert!(renewed.exp > session.login.exp);
    // Near the end of the session a token lives no longer than that.
    session.login.auth_time = unix_now() - 24 * hour + 100;
    let last = logins.in_force().open(
        &logins
            .renewal(&Session { login: Login { exp: unix_now() + 1, ..session.login.clone() }, ..session.clone() })
            .unwrap()
            .unwrap(),
    );
    assert_eq!(last.unwrap().exp, session.login.auth_time + 24 * hour);
    session.login.auth_time -= 200;
    assert_eq!(logins.renewal(&session).unwrap(), None, "the session is over");
    age(&mut session, hour);
    let expired = logins.token(&session).unwrap();
    assert!(is_refused(&logins, Credentials::Bearer(expired)).await);
    session.login.iat = unix_now() + CLOCK_SKEW + 10;
    session.login.exp = unix_now() + hour;
    let ahead = logins.token(&session).unwrap();
    assert!(is_refused(&logins, Credentials::Bearer(ahead)).await, "of a clock far ahead");
}

#[tokio::test]
async fn service_keys_are_good_until_they_expire() {
    let key = NewKey::of("cron1").unwrap();
    let written = |more: &str| {
        format!(
            "[[user]]\nname = \"etl\"\nroles = []\n[[key]]\nid = \"cron1\"\nuser = \"etl\"\nsha256 = \"{}\"\n{more}",
            key.sha256
        )
    };
    let logins = logins(&written(""), false);
    let session = log_in(&logins, Credentials::Bearer(key.key.clone())).await.unwrap();
    assert_eq!(session.caller.name, "etl");
    let token = Credentials::Bearer(logins.token(&session).unwrap());
    assert!(log_in(&logins, token.clone()).await.is_ok());
    let other = format!("{}x", key.key);
    assert!(is_refused(&logins, Credentials::Bearer(other)).await);
    assert!(is_refused(&logins, password("etl", "")).await, "who has no password has none");
    logins.replace(access(&written("expires = 2020-01-01T00:00:00Z\n")), logins.keys(), settings(true));
    assert!(is_refused(&logins, Credentials::Bearer(key.key.clone())).await);
    assert!(is_refused(&logins, token).await, "the token of an expired key");
}

#[tokio::test]
async fn certificates_name_users() {
    let users = "[[user]]\nname = \"etl\"\nroles = []\n[[certificate]]\nname = \"spiffe://corp/etl\"\nuser = \"etl\"\n";
    let logins = logins(users, true);
    let with =
        |names: &[&str]| Peer { address: None, certificate: names.iter().map(|name| (*name).to_owned()).collect() };
    let name = |session: Result<Session, LoginFailure>| session.map(|session| session.caller.name.clone());
    assert_eq!(
        name(logins.log_in(Credentials::Nothing, &with(&["x", "spiffe://corp/etl"])).await),
        Ok("etl".to_owned())
    );
    assert_eq!(name(logins.log_in(Credentials::Nothing, &with(&["x"])).await), Ok(ANONYMOUS.to_owned()));
    let wrong = Credentials::Bearer("tct_wrong".to_owned());
    assert_eq!(
        name(logins.log_in(wrong, &with(&["spiffe://corp/etl"])).await),
        Err(LoginFailure::Refused),
        "no way around"
    );
    let strict = users.replace("roles = []", "roles = []\nrequire_certificate = true");
    let key = NewKey::of("k").unwrap();
    logins.replace(
        access(&format!("{strict}[[key]]\nid = \"k\"\nuser = \"etl\"\nsha256 = \"{}\"\n", key.sha256)),
        logins.keys(),
        settings(true),
    );
    let bearer = Credentials::Bearer(key.key);
    assert_eq!(name(logins.log_in(bearer.clone(), &with(&[])).await), Err(LoginFailure::Refused));
    assert_eq!(name(logins.log_in(bearer, &with(&["spiffe://corp/etl"])).await), Ok("etl".to_owned()));
}
