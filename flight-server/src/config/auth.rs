//! `[auth]`: who may call.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::path;
use super::tree::{Faults, Section};

/// Who may call.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// Whether callers without credentials are served. Beside users they have the role `anonymous`.
    pub anonymous: bool,
    /// The file with users, keys and roles; `None`: there are no logins.
    pub access: Option<PathBuf>,
    /// The file with the keys that seal tokens and handles; `None`: a key of this process alone.
    pub signing_key_file: Option<PathBuf>,
    /// How long a token is good.
    pub token_ttl: Duration,
    /// How long after a login its tokens are renewed.
    pub session_max: Duration,
}

pub(super) fn read(
    mut section: Section,
    base: &Path,
    listen: SocketAddr,
    has_tls: bool,
    faults: &mut Faults,
) -> AuthConfig {
    let place = section.place().clone();
    let anonymous = section.boolean("anonymous", faults);
    let access_place = section.place_of("access");
    let access = path(&mut section, "access", base, faults);
    let signing_key_file = path(&mut section, "signing_key_file", base, faults);
    let token_ttl = section.duration("token_ttl", faults).unwrap_or(Duration::from_secs(12 * 3600));
    let session_max = section.duration("session_max", faults).unwrap_or(Duration::from_secs(7 * 24 * 3600));
    let insecure = section.boolean("insecure_transport", faults).is_some_and(|found| found.value);
    for (old, new) in [
        ("users", "[[user]] of the file that auth.access names"),
        ("token", "[[auth.issuer]], which this version doesn't enforce"),
        ("issuer", "nothing yet: tokens of identity providers aren't enforced by this version"),
    ] {
        section.refuse(old, new, faults);
    }
    let key = section.key("anonymous");
    if access.is_some() && !has_tls && !insecure && !listen.ip().is_loopback() {
        faults.report(
            &access_place,
            section.key("access"),
            format!(
                "passwords and tokens would cross the network to {listen} in clear; expected a [tls] section, or \
                 insecure_transport = true behind a proxy that encrypts"
            ),
        );
    }
    section.finish(faults);
    let anonymous = match anonymous {
        Some(found) => {
            if !found.value && access.is_none() {
                let expected = "nobody could log in; expected `access`, a file with users, beside it, or true";
                faults.report(&found.place, key, expected);
            }
            found.value
        }
        // Whoever lists users wants them asked for their passwords.
        None if access.is_some() => false,
        None if listen.ip().is_loopback() => true,
        None => {
            faults.report(
                &place,
                key,
                format!(
                    "server.listen {listen} can be reached from other machines; expected `anonymous = true` in words, \
                     or `access`, a file with users"
                ),
            );
            false
        }
    };
    AuthConfig { anonymous, access, signing_key_file, token_ttl, session_max }
}
