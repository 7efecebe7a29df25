//! Passwords against their argon2 hashes: off the runtime's threads, a few at a time.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash as Phc;
use argon2::{Argon2, PasswordVerifier};
use tokio::sync::Semaphore;

use crate::config::Secret;

/// Hashes that wait for a thread at most.
const MOST_WAITING: usize = 64;
/// What a hash may ask for at most: kibibytes of memory, passes, lanes.
const MOST_MEMORY: u32 = 1 << 20;
const MOST_PASSES: u32 = 20;
const MOST_LANES: u32 = 16;

/// A hash in PHC form whose price is bounded.
#[derive(Debug, Clone)]
pub(super) struct PasswordHash(Secret<String>);

/// Verifies passwords.
#[derive(Debug)]
pub(super) struct Passwords {
    running: Arc<Semaphore>,
    places: Semaphore,
    /// What an unknown user's password is compared with, so that it takes as long.
    dummy: PasswordHash,
}

/// Too many passwords wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crowded;

impl PasswordHash {
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected an argon2 hash in PHC form, as `thermocline auth hash` prints it";
        let hash = Phc::new(text).map_err(|_| EXPECTED.to_owned())?;
        let params = argon2::Params::try_from(&hash).map_err(|_| EXPECTED.to_owned())?;
        if !hash.algorithm.as_str().starts_with("argon2") || hash.hash.is_none() {
            return Err(EXPECTED.to_owned());
        }
        if params.m_cost() > MOST_MEMORY || params.t_cost() > MOST_PASSES || params.p_cost() > MOST_LANES {
            return Err(format!(
                "the hash takes too much: expected m ≤ {MOST_MEMORY} (KiB), t ≤ {MOST_PASSES}, p ≤ {MOST_LANES}"
            ));
        }
        Ok(Self(Secret::new(text.to_owned())))
    }

    pub(super) fn text(&self) -> &str {
        self.0.expose()
    }

    fn verify(&self, password: &[u8]) -> bool {
        let Ok(hash) = Phc::new(self.text()) else { return false };
        Argon2::default().verify_password(password, &hash).is_ok()
    }
}

impl Passwords {
    /// # Errors
    /// The system gives no random bytes.
    pub(super) fn new() -> anyhow::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1));
        let dummy = PasswordHash::parse(&hash_password("nobody's")?).map_err(anyhow::Error::msg)?;
        Ok(Self { running: Arc::new(Semaphore::new(threads)), places: Semaphore::new(MOST_WAITING + threads), dummy })
    }

    /// Whether it is the password; without a hash it isn't, after the same time.
    pub(super) async fn verify(&self, hash: Option<&PasswordHash>, password: String) -> Result<bool, Crowded> {
        let _place = self.places.try_acquire().map_err(|_| Crowded)?;
        let permit = Arc::clone(&self.running).acquire_owned().await.map_err(|_| Crowded)?;
        let (compared, is_known) = (hash.unwrap_or(&self.dummy).clone(), hash.is_some());
        let verified = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            compared.verify(password.as_bytes())
        });
        Ok(verified.await.unwrap_or(false) && is_known)
    }
}

/// The argon2id hash of a password, with the parameters that OWASP's password storage cheat sheet names.
pub(crate) fn hash_password(password: &str) -> anyhow::Result<String> {
    use argon2::PasswordHasher;
    let salt = super::seal::random_bytes::<16>()?;
    let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt);
    Ok(hash.map_err(|error| anyhow::anyhow!("cannot hash the password: {error}"))?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_that_of_its_hash() {
        let hash = PasswordHash::parse(&hash_password("geheim: ü").unwrap()).unwrap();
        let passwords = Passwords::new().unwrap();
        assert_eq!(passwords.verify(Some(&hash), "geheim: ü".to_owned()).await, Ok(true));
        assert_eq!(passwords.verify(Some(&hash), "geheim".to_owned()).await, Ok(false));
        assert_eq!(passwords.verify(None, "nobody's".to_owned()).await, Ok(false));
        assert!(!format!("{hash:?}").contains("argon2"));
    }

    #[test]
    fn a_hash_has_a_price() {
        for (text, part) in [
            ("hunter2", "expected an argon2 hash"),
            ("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ", "expected an argon2 hash"),
            ("$argon2id$v=19$m=2000000,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA", "takes too much"),
        ] {
            assert!(PasswordHash::parse(text).unwrap_err().contains(part), "{text}");
        }
    }
}
