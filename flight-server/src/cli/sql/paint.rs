//! Colours of a terminal, or none.

use std::io::IsTerminal;

/// Whether and how texts are coloured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    is_on: bool,
}

impl Paint {
    /// Colours when standard output is a terminal that has them and [nobody minds](https://no-color.org).
    pub(super) fn of_terminal() -> Self {
        let minds = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let has_none = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { is_on: std::io::stdout().is_terminal() && !minds && !has_none }
    }

    pub(super) fn plain() -> Self {
        Self { is_on: false }
    }

    pub(super) fn is_on(self) -> bool {
        self.is_on
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.is_on && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(super) fn keyword(self, text: &str) -> String {
        self.with("1;34", text)
    }

    pub(super) fn literal(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(super) fn number(self, text: &str) -> String {
        self.with("36", text)
    }

    pub(super) fn warning(self, text: &str) -> String {
        self.with("33", text)
    }

    pub(super) fn error(self, text: &str) -> String {
        self.with("1;31", text)
    }

    /// An error of the server: its first line, and the caret under the place, stand out.
    pub(super) fn server_error(self, text: &str) -> String {
        let mut lines = text.lines().map(|line| {
            if line.trim() == "^" {
                self.error(line)
            } else if line.starts_with("(query id ") {
                self.dim(line)
            } else {
                line.to_owned()
            }
        });
        let first = lines.next().unwrap_or_default();
        let rest: String = lines.map(|line| format!("\n{line}")).collect();
        format!("{} {first}{rest}", self.error("error:"))
    }
}
