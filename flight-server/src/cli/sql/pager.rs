//! Long texts a screen at a time.

use std::io::Write;
use std::process::{Command, Stdio};

use console::Term;

/// Shows a text: by the user's pager when it has more lines than the terminal, otherwise as it is.
///
/// # Errors
/// Standard output can't be written to.
pub(super) fn show(text: &str) -> std::io::Result<()> {
    let (height, _) = Term::stdout().size();
    if text.lines().count() + 2 > usize::from(height) && page(text) {
        return Ok(());
    }
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Whether a pager took the text.
fn page(text: &str) -> bool {
    // As psql and git do it, the variable holds a command line.
    let chosen = std::env::var("PAGER").ok().filter(|pager| !pager.trim().is_empty());
    let chosen = chosen.unwrap_or_else(|| "less".to_owned());
    let mut words = chosen.split_whitespace();
    let Some(program) = words.next() else { return false };
    let mut pager = Command::new(program);
    pager.args(words).stdin(Stdio::piped());
    // Colours stay colours, long lines aren't wrapped, and what was shown stays on the screen.
    pager.env("LESS", std::env::var("LESS").unwrap_or_else(|_| "-RSFX".to_owned()));
    let Ok(mut pager) = pager.spawn() else { return false };
    if let Some(mut input) = pager.stdin.take() {
        // A user who has seen enough closes the pager before it has read all.
        let _closed = input.write_all(text.as_bytes());
    }
    pager.wait().is_ok()
}
