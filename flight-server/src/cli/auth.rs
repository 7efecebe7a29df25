//! `thermocline auth`: what goes into an access file, made ready to be pasted.

use std::io::{IsTerminal, Read, Write};

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::access::{NewKey, hash_password, random_bytes};

/// Make hashes and keys for the access file.
#[derive(Debug, clap::Args)]
pub struct AuthArgs {
    #[command(subcommand)]
    command: AuthCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AuthCommand {
    /// Hash a password, which is read from standard input.
    Hash,
    /// Make a service key: printed once, with the lines for the access file.
    NewKey {
        /// A short name of letters and digits.
        id: String,
        /// The user that the key logs in.
        #[arg(long)]
        user: String,
    },
    /// Make a line for the file that `auth.signing_key_file` names.
    NewSigningKey,
}

/// # Errors
/// No password, an id that isn't one, a system without random bytes.
pub fn run(arguments: &AuthArgs) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match &arguments.command {
        AuthCommand::Hash => writeln!(out, "{}", hash_password(&read_password()?)?)?,
        AuthCommand::NewKey { id, user } => {
            ensure!(
                !id.is_empty() && id.chars().all(|letter| letter.is_ascii_alphanumeric()),
                "`{id}` is no id of a key; expected letters and digits"
            );
            let NewKey { key, sha256 } = NewKey::of(id)?;
            writeln!(out, "{key}")?;
            writeln!(
                std::io::stderr(),
                "The key above is shown once. For the access file:\n\n[[key]]\nid = \"{id}\"\nsha256 = \"{sha256}\"\nuser = \
                 {user:?}"
            )?;
        }
        AuthCommand::NewSigningKey => writeln!(out, "{}", URL_SAFE_NO_PAD.encode(random_bytes::<32>()?))?,
    }
    Ok(())
}

/// The first line of standard input.
fn read_password() -> anyhow::Result<String> {
    let mut input = std::io::stdin();
    if input.is_terminal() {
        writeln!(std::io::stderr(), "The password, and Enter (it is shown as you type; a pipe shows nothing):")?;
        let mut line = String::new();
        input.read_line(&mut line).context("cannot read the password")?;
        return not_empty(&line);
    }
    let mut text = String::new();
    input.read_to_string(&mut text).context("cannot read the password")?;
    not_empty(text.lines().next().unwrap_or_default())
}

fn not_empty(line: &str) -> anyhow::Result<String> {
    let password = line.trim_end_matches(['\r', '\n']);
    ensure!(!password.is_empty(), "the password is empty");
    Ok(password.to_owned())
}
