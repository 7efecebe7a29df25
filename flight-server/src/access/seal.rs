//! Seals under the server's signing keys. All replicas hold the same keys, so what one seals every one opens.
//!
//! Each purpose has a key of its own, derived by HKDF-SHA-256 (RFC 5869) from the signing key: what was sealed as a token is
//! no ticket. The seal is HMAC-SHA-256 (RFC 2104) over the length of the owner's name
//! in eight bytes, the name, and the body.

use std::path::Path;

use anyhow::{Context, ensure};
use ring::{hkdf, hmac};

/// Bytes of a seal.
pub(crate) const SEAL_LEN: usize = 32;
/// The least that a signing key holds.
const LEAST_KEY_BYTES: usize = 32;

/// What something sealed is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Token,
    Handle,
}

/// The first key seals, all of them open.
#[derive(Clone)]
pub(crate) struct SigningKeys(Vec<hkdf::Prk>);

impl std::fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SigningKeys").field(&self.0.len()).finish()
    }
}

struct HmacKey;

impl hkdf::KeyType for HmacKey {
    fn len(&self) -> usize {
        SEAL_LEN
    }
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Token => b"thermocline token",
            Self::Handle => b"thermocline handle",
        }
    }
}

impl SigningKeys {
    /// Reads a file with a key a line.
    ///
    /// # Errors
    /// The file can't be read, is empty, or holds a key that is too short.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read the signing key {}", path.display()))?;
        let keys: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        ensure!(
            !keys.is_empty(),
            "the signing key file {} is empty; `thermocline auth new-signing-key` makes a key",
            path.display()
        );
        for (index, key) in keys.iter().enumerate() {
            ensure!(
                key.len() >= LEAST_KEY_BYTES,
                "key {} of {} has {} bytes; expected {LEAST_KEY_BYTES} or more",
                index + 1,
                path.display(),
                key.len()
            );
        }
        Ok(Self::of(keys.into_iter().map(str::as_bytes)))
    }

    /// A key of this process alone.
    pub(crate) fn random() -> anyhow::Result<Self> {
        Ok(Self::of([random_bytes::<32>()?.as_slice()]))
    }

    fn of<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"thermocline");
        Self(keys.into_iter().map(|key| salt.extract(key)).collect())
    }

    fn key(prk: &hkdf::Prk, purpose: Purpose) -> Option<hmac::Key> {
        let mut bytes = [0; SEAL_LEN];
        prk.expand(&[purpose.label()], HmacKey).and_then(|okm| okm.fill(&mut bytes)).ok()?;
        Some(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
    }

    /// The seal of a body that belongs to `owner`.
    pub(crate) fn seal(&self, purpose: Purpose, owner: &str, body: &[u8]) -> Option<[u8; SEAL_LEN]> {
        let key = Self::key(self.0.first()?, purpose)?;
        let mut context = hmac::Context::with_key(&key);
        for part in [&(owner.len() as u64).to_be_bytes(), owner.as_bytes(), body] {
            context.update(part);
        }
        context.sign().as_ref().try_into().ok()
    }

    /// Whether this is the seal of such a body, by any of the keys.
    pub(crate) fn opens(&self, purpose: Purpose, owner: &str, body: &[u8], seal: &[u8]) -> bool {
        let message = [&(owner.len() as u64).to_be_bytes(), owner.as_bytes(), body].concat();
        // Every key is tried whatever the others say.
        let tries = self.0.iter().filter_map(|prk| Self::key(prk, purpose));
        tries.fold(false, |found, key| found | hmac::verify(&key, &message, seal).is_ok())
    }
}

pub(crate) fn random_bytes<const N: usize>() -> anyhow::Result<[u8; N]> {
    use ring::rand::SecureRandom;
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_of_one_purpose_owner_body_and_key() {
        let (old, other) =
            (b"0123456789abcdef0123456789abcdef".as_slice(), b"another key that is long enough!".as_slice());
        let keys = SigningKeys::of([old]);
        let seal = keys.seal(Purpose::Token, "ann", b"body").unwrap();
        assert!(keys.opens(Purpose::Token, "ann", b"body", &seal));
        assert!(!keys.opens(Purpose::Handle, "ann", b"body", &seal));
        assert!(!keys.opens(Purpose::Token, "bob", b"body", &seal));
        assert!(!keys.opens(Purpose::Token, "ann", b"bodY", &seal));
        assert!(!keys.opens(Purpose::Token, "ann\0b", b"body", &keys.seal(Purpose::Token, "ann", b"\0bbody").unwrap()));
        for place in 0..SEAL_LEN {
            let mut damaged = seal;
            damaged[place] ^= 1;
            assert!(!keys.opens(Purpose::Token, "ann", b"body", &damaged));
        }
        assert!(!SigningKeys::of([other]).opens(Purpose::Token, "ann", b"body", &seal));
        // A key that was put in front leaves what the old one sealed open.
        let rotated = SigningKeys::of([other, old]);
        assert!(rotated.opens(Purpose::Token, "ann", b"body", &seal));
        assert!(!keys.opens(Purpose::Token, "ann", b"body", &rotated.seal(Purpose::Token, "ann", b"body").unwrap()));
    }
}
