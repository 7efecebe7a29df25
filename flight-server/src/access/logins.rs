//! From credentials to a caller, and tokens for those who logged in.
//!
//! ```text
//! user and password ─┐                        ┌─▶ Caller
//! service key ───────┼─▶ users of the access ─┤
//! client certificate ┤   file in force        └─▶ token `tct_…`: whose, how and when logged in, until when
//! token ─────────────┘
//! ```
//!
//! A token says who logged in, never what they may do: that is looked up by each call, so a reload of the access file holds
//! at once, and a changed password ends every token that it gave.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use super::file::{Access, ServiceKey, User};
use super::passwords::{PasswordHash, Passwords};
use super::seal::{Purpose, SEAL_LEN, SigningKeys, random_bytes};
use super::slowdown::Slowdown;
use super::{ANONYMOUS, Caller, Sees};

const TOKEN_PREFIX: &str = "tct_";
const KEY_PREFIX: &str = "tck_";
/// Tokens that were issued later than that by another replica's clock are refused: seconds.
const CLOCK_SKEW: i64 = 60;
/// A password that was right is right for so long without another look: some clients send it with each call.
const REMEMBERED: Duration = Duration::from_secs(60);
const MOST_REMEMBERED: usize = 1_000;
/// Attempts that are kept waiting at most; who comes after is sent away at once.
const MOST_DELAYED: usize = 1_000;
/// No credentials are longer.
pub(crate) const MOST_CREDENTIALS: usize = 4096;

/// What a call presents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    Nothing,
    Password { user: String, password: String },
    Bearer(String),
}

/// Where a call comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) address: Option<IpAddr>,
    /// Names in its verified certificate.
    pub(crate) certificate: Vec<String>,
}

/// Why nobody is let in. One text for all wrong credentials tells nothing of which users there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoginFailure {
    Refused,
    /// Too many passwords are being checked.
    Crowded,
}

/// Who logged in, and how.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) caller: Arc<Caller>,
    login: Login,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Login {
    #[serde(rename = "sub")]
    user: String,
    method: Method,
    /// What the login rests on, as it was: another password or key makes it void.
    version: String,
    /// Unix seconds: of the login, of this token, of its end.
    auth_time: i64,
    iat: i64,
    exp: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Method {
    Anonymous,
    Password,
    Key(String),
    Certificate(String),
}

#[derive(Debug, Clone)]
pub(crate) struct LoginSettings {
    pub(crate) anonymous: bool,
    pub(crate) token_ttl: Duration,
    pub(crate) session_max: Duration,
}

/// What a reload replaces, as one value.
#[derive(Debug)]
struct InForce {
    access: Arc<Access>,
    keys: SigningKeys,
    settings: LoginSettings,
}

/// The logins of a server with users.
#[derive(Debug)]
pub(crate) struct Logins {
    in_force: RwLock<Arc<InForce>>,
    passwords: Passwords,
    slowdown: Slowdown,
    /// Attempts that are kept waiting.
    delayed: Semaphore,
    /// Digests of passwords that were right, with the hash that they were compared with.
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    process_key: [u8; 32],
}

/// A service key, which is shown once.
#[derive(Debug)]
pub(crate) struct NewKey {
    pub(crate) key: String,
    pub(crate) sha256: String,
}

impl NewKey {
    /// # Errors
    /// The system gives no random bytes.
    pub(crate) fn of(id: &str) -> anyhow::Result<Self> {
        let key = format!("{KEY_PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(random_bytes::<32>()?));
        let sha256 = hex::encode(Sha256::digest(&key));
        Ok(Self { key, sha256 })
    }
}

impl Logins {
    /// # Errors
    /// The system gives no random bytes.
    pub(crate) fn new(access: Arc<Access>, keys: SigningKeys, settings: LoginSettings) -> anyhow::Result<Self> {
        Ok(Self {
            in_force: RwLock::new(Arc::new(InForce { access, keys, settings })),
            passwords: Passwords::new()?,
            slowdown: Slowdown::default(),
            delayed: Semaphore::new(MOST_DELAYED),
            remembered: Mutex::default(),
            process_key: random_bytes()?,
        })
    }

    /// Puts another access file, other keys and settings in force for the next calls.
    pub(crate) fn replace(&self, access: Arc<Access>, keys: SigningKeys, settings: LoginSettings) {
        let in_force = Arc::new(InForce { access, keys, settings });
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = in_force;
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether a caller of an earlier moment was disabled or has lost a grant since.
    pub(crate) fn has_lost(&self, caller: &Caller) -> bool {
        let in_force = self.in_force();
        let access = &in_force.access;
        let now = if caller.name == ANONYMOUS {
            in_force.settings.anonymous.then(|| access.anonymous())
        } else {
            access.still(&caller.name)
        };
        match (&caller.sees, now.as_ref().map(|now| &now.sees)) {
            (_, None) => true,
            (Sees::Granted(before), Some(Sees::Granted(now))) => !before.is_subset(now),
            (_, Some(_)) => false,
        }
    }

    fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&self.in_force.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The keys that seal what callers carry around.
    pub(crate) fn keys(&self) -> SigningKeys {
        self.in_force().keys.clone()
    }

    /// Who presents these credentials. A wrong credential is never passed over for another one.
    pub(crate) async fn log_in(&self, credentials: Credentials, peer: &Peer) -> Result<Session, LoginFailure> {
        let session = match credentials {
            Credentials::Nothing => self.in_force().by_certificate(peer),
            // Tools that ask for a user and a password alone take a token so.
            Credentials::Password { user, password } if user.is_empty() || user == "token" => {
                self.in_force().by_bearer(&password, peer)
            }
            Credentials::Password { user, password } => return self.by_password(user, password, peer).await,
            Credentials::Bearer(token) => self.in_force().by_bearer(&token, peer),
        };
        session.ok_or(LoginFailure::Refused)
    }

    async fn by_password(&self, name: String, password: String, peer: &Peer) -> Result<Session, LoginFailure> {
        let in_force = self.in_force();
        let known = in_force.access.user(&name, peer.address);
        let hash = known.and_then(|(user, _)| user.password.clone());
        let digest = hash.as_ref().map(|hash| self.digest_of(&name, &password, hash.text()));
        if digest.is_none_or(|digest| !self.remembers(&digest)) {
            // A connection without an address is of this process.
            let address = peer.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
            let wait = self.slowdown.begin(&name, address, Instant::now());
            if !wait.is_zero() {
                let _place = self.delayed.try_acquire().map_err(|_| LoginFailure::Crowded)?;
                tokio::time::sleep(wait).await;
            }
            if !self.passwords.verify(hash.as_ref(), password).await.map_err(|_| LoginFailure::Crowded)? {
                return Err(LoginFailure::Refused);
            }
            self.slowdown.succeeded(&name, address);
            digest.into_iter().for_each(|digest| self.remember(digest));
        }
        // That took its time: what counts is in force now.
        let version = hash.as_ref().map(password_version);
        self.in_force().by_verified_password(&name, version, peer).ok_or(LoginFailure::Refused)
    }

    /// The token of a session.
    pub(crate) fn token(&self, session: &Session) -> anyhow::Result<String> {
        let body = serde_json::to_vec(&session.login)?;
        let seal = self.keys().seal(Purpose::Token, "", &body);
        let seal = seal.ok_or_else(|| anyhow::anyhow!("the signing key seals nothing"))?;
        Ok(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode([&seal, body.as_slice()].concat())))
    }

    /// A new token for a session whose token has lived half its life, as long as the session may go on.
    pub(crate) fn renewal(&self, session: &Session) -> anyhow::Result<Option<String>> {
        let (now, login) = (unix_now(), &session.login);
        let settings = &self.in_force().settings;
        let last = login.auth_time + seconds(settings.session_max);
        let exp = last.min(now + seconds(settings.token_ttl));
        if now < login.iat + (login.exp - login.iat) / 2 || exp <= login.exp {
            return Ok(None);
        }
        let login = Login { iat: now, exp, ..login.clone() };
        self.token(&Session { caller: Arc::clone(&session.caller), login }).map(Some)
    }

    fn digest_of(&self, user: &str, password: &str, hash: &str) -> [u8; 32] {
        let mut digest = Sha256::new_with_prefix(self.process_key);
        for part in [user, password, hash] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    fn remembers(&self, digest: &[u8; 32]) -> bool {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(digest).is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    fn remember(&self, digest: [u8; 32]) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MOST_REMEMBERED {
            remembered.retain(|_, at| at.elapsed() < REMEMBERED);
        }
        if remembered.len() < MOST_REMEMBERED {
            remembered.insert(digest, Instant::now());
        }
    }
}

impl InForce {
    fn by_certificate(&self, peer: &Peer) -> Option<Session> {
        let known = peer.certificate.iter().find_map(|name| Some((name, self.access.certificates.get(name)?)));
        match known {
            Some((name, user)) => {
                let (_, caller) = self.user(user, peer)?;
                Some(self.session(caller, Method::Certificate(name.clone()), String::new()))
            }
            None if self.settings.anonymous => {
                Some(self.session(self.access.anonymous(), Method::Anonymous, String::new()))
            }
            None => None,
        }
    }

    /// `version` is that of the password which was right.
    fn by_verified_password(&self, name: &str, version: Option<String>, peer: &Peer) -> Option<Session> {
        let (user, caller) = self.user(name, peer)?;
        let is_the_same = user.password.as_ref().map(password_version) == version;
        is_the_same.then(|| self.session(caller, Method::Password, version.unwrap_or_default()))
    }

    fn by_bearer(&self, token: &str, peer: &Peer) -> Option<Session> {
        if let Some((id, _)) = token.strip_prefix(KEY_PREFIX).and_then(|rest| rest.split_once('_')) {
            let key = self.access.keys.get(id).filter(|key| is_ahead(key.expires))?;
            let digest: [u8; 32] = Sha256::digest(token).into();
            if !bool::from(digest.ct_eq(&key.sha256)) {
                return None;
            }
            let (_, caller) = self.user(&key.user, peer)?;
            return Some(self.session(caller, Method::Key(id.to_owned()), key_version(key)));
        }
        let login = self.open(token)?;
        let caller = self.caller_of(&login, peer)?;
        Some(Session { caller, login })
    }

    /// A user who may call from there, with a certificate of their own where one is asked for.
    fn user(&self, name: &str, peer: &Peer) -> Option<(&User, Arc<Caller>)> {
        let is_theirs = |held: &String| self.access.certificates.get(held).is_some_and(|user| user == name);
        self.access
            .user(name, peer.address)
            .filter(|(user, _)| !user.require_certificate || peer.certificate.iter().any(is_theirs))
    }

    fn open(&self, token: &str) -> Option<Login> {
        let bytes = URL_SAFE_NO_PAD.decode(token.strip_prefix(TOKEN_PREFIX)?).ok()?;
        let (seal, body) = bytes.split_first_chunk::<SEAL_LEN>()?;
        if !self.keys.opens(Purpose::Token, "", body, seal) {
            return None;
        }
        let login: Login = serde_json::from_slice(body).ok()?;
        let now = unix_now();
        (now < login.exp && login.iat <= now + CLOCK_SKEW).then_some(login)
    }

    /// Who a token is of, if what it rests on is as it was.
    fn caller_of(&self, login: &Login, peer: &Peer) -> Option<Arc<Caller>> {
        if login.method == Method::Anonymous {
            return (self.settings.anonymous && login.user == ANONYMOUS).then(|| self.access.anonymous());
        }
        let (user, caller) = self.user(&login.user, peer)?;
        let is_as_it_was = match &login.method {
            Method::Anonymous => false,
            Method::Password => user.password.as_ref().is_some_and(|hash| password_version(hash) == login.version),
            Method::Key(id) => self.access.keys.get(id).is_some_and(|key| {
                key.user == login.user && is_ahead(key.expires) && key_version(key) == login.version
            }),
            Method::Certificate(name) => self.access.certificates.get(name) == Some(&login.user),
        };
        (is_as_it_was && user.not_before.is_none_or(|least| login.iat >= least)).then_some(caller)
    }

    fn session(&self, caller: Arc<Caller>, method: Method, version: String) -> Session {
        let now = unix_now();
        let exp = now + seconds(self.settings.token_ttl.min(self.settings.session_max));
        let login = Login { user: caller.name.clone(), method, version, auth_time: now, iat: now, exp };
        Session { caller, login }
    }
}

fn password_version(hash: &PasswordHash) -> String {
    hex::encode(&Sha256::digest(hash.text())[..16])
}

fn key_version(key: &ServiceKey) -> String {
    hex::encode(&key.sha256[..16])
}

fn is_ahead(time: Option<i64>) -> bool {
    time.is_none_or(|time| unix_now() < time)
}

fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, seconds)
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests;
