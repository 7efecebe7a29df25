//! Users and signing keys, read before they are in force.

use std::sync::Arc;

use translator::catalog::Catalog;

use crate::access::{Access, LoginSettings, Logins, SigningKeys};
use crate::config::Config;

/// What the configuration says of logins.
#[derive(Debug)]
pub(super) struct Users {
    access: Arc<Access>,
    /// `None`: no file names them.
    keys: Option<SigningKeys>,
}

impl Users {
    /// `None` of a server without logins.
    ///
    /// # Errors
    /// The files can't be read or are wrong.
    pub(super) fn read(config: &Config, catalog: &Catalog) -> anyhow::Result<Option<Self>> {
        let Some(path) = &config.auth.access else { return Ok(None) };
        let access = Arc::new(Access::read(path, catalog)?);
        let keys = config.auth.signing_key_file.as_deref().map(SigningKeys::read).transpose()?;
        Ok(Some(Self { access, keys }))
    }

    pub(super) fn logins(self, config: &Config) -> anyhow::Result<Arc<Logins>> {
        let keys = match self.keys {
            Some(keys) => keys,
            None => {
                tracing::warn!(
                    "no auth.signing_key_file: tokens end with this process, and other replicas don't accept them"
                );
                SigningKeys::random()?
            }
        };
        Ok(Arc::new(Logins::new(self.access, keys, settings(config))?))
    }

    /// Replaces what is in force. A key of the process stays.
    pub(super) fn put_in_force(self, logins: &Logins, config: &Config) {
        let keys = self.keys.unwrap_or_else(|| logins.keys());
        logins.replace(self.access, keys, settings(config));
    }
}

fn settings(config: &Config) -> LoginSettings {
    LoginSettings {
        anonymous: config.auth.anonymous,
        token_ttl: config.auth.token_ttl,
        session_max: config.auth.session_max,
    }
}
