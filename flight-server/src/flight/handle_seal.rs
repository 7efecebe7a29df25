//! The envelope of tickets and prepared-statement handles.
//!
//! Layout: `TCLN`, one version byte, a seal over what follows, the handle. Without logins the seal is a checksum of eight
//! bytes (version 1), which tells damage from a handle of another kind. With logins it is an HMAC under the server's signing
//! key (version 2): a handle is its caller's alone. Neither grants anything that sending the SQL would not, since what a caller
//! may see is asked anew by each call.

use bytes::Bytes;

use super::failure::{Failure, Outcome};
use super::wire_schema::checksum;
use crate::access::{Purpose, SEAL_LEN, SigningKeys};

const MAGIC: &[u8; 4] = b"TCLN";

/// How handles are sealed.
#[derive(Debug, Clone)]
pub(super) enum HandleSeal {
    Checksum,
    /// With the name of the caller whose handles they are.
    Keyed {
        keys: SigningKeys,
        owner: String,
    },
}

impl HandleSeal {
    fn version(&self) -> u8 {
        match self {
            Self::Checksum => 1,
            Self::Keyed { .. } => 2,
        }
    }

    pub(super) fn seal(&self, body: &[u8]) -> Outcome<Bytes> {
        let mut bytes = [MAGIC.as_slice(), &[self.version()]].concat();
        match self {
            Self::Checksum => bytes.extend_from_slice(&checksum(body).to_be_bytes()),
            Self::Keyed { keys, owner } => {
                let seal = keys.seal(Purpose::Handle, owner, body);
                let seal = seal.ok_or_else(|| Failure::internal(anyhow::anyhow!("the signing key seals nothing")))?;
                bytes.extend_from_slice(&seal);
            }
        }
        bytes.extend_from_slice(body);
        Ok(bytes.into())
    }

    /// What was sealed, if it was for this caller.
    pub(super) fn open<'a>(&self, bytes: &'a [u8]) -> Outcome<&'a [u8]> {
        let foreign = || Failure::not_found("the handle was not made by this server");
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(foreign)?;
        let (version, rest) = rest.split_first().ok_or_else(damaged)?;
        if *version != self.version() {
            return Err(Failure::not_found(format!(
                "the handle has version {version}, this server makes version {}: prepare or plan the statement again",
                self.version()
            )));
        }
        match self {
            Self::Checksum => {
                let (sum, body) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
                (u64::from_be_bytes(*sum) == checksum(body)).then_some(body).ok_or_else(damaged)
            }
            Self::Keyed { keys, owner } => {
                let (seal, body) = rest.split_first_chunk::<SEAL_LEN>().ok_or_else(foreign)?;
                keys.opens(Purpose::Handle, owner, body, seal).then_some(body).ok_or_else(foreign)
            }
        }
    }
}

pub(super) fn damaged() -> Failure {
    Failure::invalid("the handle is damaged: prepare or plan the statement again")
}
