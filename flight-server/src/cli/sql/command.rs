//! Commands of the shell itself, which begin with a backslash.

use std::path::PathBuf;

/// What the shell can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// `\d`: all tables, or the columns of one.
    Describe(Option<String>),
    /// `\plan`: of the last query, or of a statement that isn't run.
    Plan(Option<String>),
    /// `\tiers`: what lies in each tier.
    Tiers,
    /// `\timing`: how long queries took, on or off.
    Timing,
    /// `\set`: all options, or one's new value; without a value the server's default again.
    Set(Option<(String, Option<String>)>),
    /// `\o`: the next result goes to this file.
    Output(Option<PathBuf>),
    /// `\i`: statements and commands of a file.
    Include(PathBuf),
    Help,
    Quit,
}

/// Name, what follows it, and what it does, for `\?` and for completion.
pub(super) const COMMANDS: &[(&str, &str, &str)] = &[
    (r"\d", "[TABLE]", "all tables, or the columns and tiers of one"),
    (r"\plan", "[SELECT …]", "the plan of the last query with what it measured, or of a statement that isn't run"),
    (r"\tiers", "", "rows, bytes and files of each tier"),
    (r"\timing", "", "show where a query's time went, or stop showing it"),
    (r"\set", "[OPTION [VALUE]]", "the query options; set one; without a value: the server's default again"),
    (r"\o", "[FILE]", "write the next result to a .parquet, .arrow, .csv or .json file; without a file: show it"),
    (r"\i", "FILE", "run the statements and commands of a file"),
    (r"\?", "", "this list"),
    (r"\q", "", "quit, as Ctrl-D does"),
];

/// Words that end the shell or ask for help although no backslash stands before them.
const PLAIN: &[(&str, Command)] = &[("quit", Command::Quit), ("exit", Command::Quit), ("help", Command::Help)];

/// Whether a line is for the shell and not for the server.
pub(super) fn is_command(line: &str) -> bool {
    line.trim_start().starts_with('\\') || plain(line).is_some()
}

fn plain(line: &str) -> Option<Command> {
    let word = line.trim().trim_end_matches(';').trim_end();
    PLAIN.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, command)| command.clone())
}

/// Reads a command.
///
/// # Errors
/// What is wrong with it, for the user.
pub(super) fn parse(line: &str) -> Result<Command, String> {
    if let Some(command) = plain(line) {
        return Ok(command);
    }
    let line = line.trim();
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim().trim_end_matches(';').trim_end();
    let given = (!rest.is_empty()).then(|| rest.to_owned());
    let alone = |command: Command| match given {
        Some(_) => Err(format!("{name} takes nothing after it")),
        None => Ok(command),
    };
    match name.trim_end_matches(';') {
        r"\d" => Ok(Command::Describe(given)),
        r"\plan" => Ok(Command::Plan(given)),
        r"\tiers" => alone(Command::Tiers),
        r"\timing" => alone(Command::Timing),
        r"\set" => Ok(Command::Set(given.map(|given| match given.split_once([' ', '=', '\t']) {
            Some((option, value)) => (option.to_owned(), Some(value.trim_start_matches([' ', '=', '\t']).to_owned())),
            None => (given, None),
        }))),
        r"\o" => Ok(Command::Output(given.map(|path| unquoted(&path)))),
        r"\i" => match given {
            Some(path) => Ok(Command::Include(unquoted(&path))),
            None => Err(r"\i needs the name of a file".to_owned()),
        },
        r"\?" => alone(Command::Help),
        r"\q" => alone(Command::Quit),
        unknown => Err(format!(r"there is no command {unknown}; \? lists them")),
    }
}

/// A file's name may be quoted as in SQL.
fn unquoted(path: &str) -> PathBuf {
    let inner = path.strip_prefix('\'').and_then(|path| path.strip_suffix('\''));
    PathBuf::from(inner.unwrap_or(path))
}

/// The list of commands.
pub(super) fn help() -> String {
    let mut text =
        String::from("Statements end with `;` and may take several lines. Ctrl-C cancels a query. Commands:\n");
    for (name, arguments, what) in COMMANDS {
        text += &format!("  {:<24}{what}\n", format!("{name} {arguments}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let set = |option: &str, value: Option<&str>| Command::Set(Some((option.to_owned(), value.map(str::to_owned))));
        for (line, command) in [
            (r"\d", Command::Describe(None)),
            (r" \d  flights; ", Command::Describe(Some("flights".to_owned()))),
            (r"\plan SELECT 1;", Command::Plan(Some("SELECT 1".to_owned()))),
            (r"\set", Command::Set(None)),
            (r"\set consistency eventual", set("consistency", Some("eventual"))),
            (r"\set tiers = hot,warm", set("tiers", Some("hot,warm"))),
            (r"\set tiers", set("tiers", None)),
            (r"\o 'my file.parquet'", Command::Output(Some(PathBuf::from("my file.parquet")))),
            (r"\i a.sql", Command::Include(PathBuf::from("a.sql"))),
            (r"\q;", Command::Quit),
            ("EXIT;", Command::Quit),
        ] {
            assert!(is_command(line), "{line}");
            assert_eq!(parse(line), Ok(command), "{line}");
        }
        assert!(!is_command("SELECT 1"));
        for line in [r"\nothing", r"\i", r"\tiers hot"] {
            assert!(parse(line).is_err(), "{line}");
        }
        for (name, ..) in COMMANDS {
            assert!(help().contains(name));
        }
    }
}
