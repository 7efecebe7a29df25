//! The line editor: history, completion, highlighting, and statements of several lines.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use super::lexer::{self, Kind};
use super::paint::Paint;
use super::words::{KEYWORDS, Words};
use super::{command, completion};

const PROMPT: &str = "thermocline> ";
const HISTORY_ENTRIES: usize = 10_000;

/// What a user entered.
#[derive(Debug)]
pub(super) enum Entered {
    Text(String),
    /// Ctrl-C: what stood there is thrown away.
    Nothing,
    /// Ctrl-D.
    End,
}

/// An editor on the terminal.
pub(super) struct LineEditor {
    editor: Editor<SqlHelper, FileHistory>,
    history: Option<PathBuf>,
}

impl std::fmt::Debug for LineEditor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LineEditor").field("history", &self.history).finish_non_exhaustive()
    }
}

impl LineEditor {
    /// An editor that knows these words, with the history of earlier times.
    ///
    /// # Errors
    /// The terminal can't be used, or the history can't be read.
    pub(super) fn open(words: Arc<Words>, paint: Paint, history: Option<PathBuf>) -> anyhow::Result<Self> {
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .history_ignore_space(true)
            .auto_add_history(false)
            .max_history_size(HISTORY_ENTRIES)?
            .build();
        let mut editor = Editor::with_config(config).context("the terminal can't be used")?;
        editor.set_helper(Some(SqlHelper { words, paint, files: FilenameCompleter::new() }));
        if let Some(path) = &history {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            }
            if path.exists() {
                editor.load_history(path).with_context(|| format!("cannot read {}", path.display()))?;
            }
        }
        Ok(Self { editor, history })
    }

    /// Waits for one entry, and keeps it in the history.
    ///
    /// # Errors
    /// The terminal went away, or the history can't be written.
    pub(super) fn read(&mut self) -> anyhow::Result<Entered> {
        match self.editor.readline(PROMPT) {
            Ok(text) => {
                self.remember(&text)?;
                Ok(Entered::Text(text))
            }
            Err(ReadlineError::Interrupted) => Ok(Entered::Nothing),
            Err(ReadlineError::Eof) => Ok(Entered::End),
            Err(error) => Err(error).context("the terminal can't be read"),
        }
    }

    fn remember(&mut self, text: &str) -> anyhow::Result<()> {
        if self.editor.add_history_entry(text)?
            && let Some(path) = &self.history
        {
            self.editor.append_history(path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// Where the history is kept: `$THERMOCLINE_HISTORY` (none when empty), else in the user's state directory.
pub(super) fn history_path() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("THERMOCLINE_HISTORY") {
        return (!path.is_empty()).then(|| PathBuf::from(path));
    }
    let state = std::env::var_os("XDG_STATE_HOME").filter(|path| Path::new(path).is_absolute()).map(PathBuf::from);
    let state = state.or_else(|| std::env::home_dir().map(|home| home.join(".local/state")));
    state.map(|state| state.join("thermocline/history"))
}

struct SqlHelper {
    words: Arc<Words>,
    paint: Paint,
    files: FilenameCompleter,
}

impl Helper for SqlHelper {}

impl Hinter for SqlHelper {
    type Hint = String;
}

impl Completer for SqlHelper {
    type Candidate = Pair;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        match completion::complete(&self.words, &line[..position], &line[position..]) {
            Some((start, candidates)) => {
                let pair = |text: String| Pair { display: text.clone(), replacement: text };
                Ok((start, candidates.into_iter().map(pair).collect()))
            }
            None => self.files.complete_path(line, position),
        }
    }
}

impl Validator for SqlHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input();
        let is_done = text.trim().is_empty() || command::is_command(text) || lexer::is_complete(text);
        Ok(if is_done { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Highlighter for SqlHelper {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        if self.paint.is_on() { Cow::Owned(highlighted(line, self.paint)) } else { Cow::Borrowed(line) }
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        Cow::Owned(self.paint.bold(prompt))
    }

    fn highlight_char(&self, _: &str, _: usize, kind: CmdKind) -> bool {
        self.paint.is_on() && kind != CmdKind::MoveCursor
    }
}

/// The text in colours, nothing else changed.
fn highlighted(text: &str, paint: Paint) -> String {
    let mut shown = String::with_capacity(text.len() * 2);
    let mut end = 0;
    for token in lexer::tokens(text) {
        shown += &text[end..token.place.start];
        end = token.place.end;
        let part = &text[token.place];
        shown += &match token.kind {
            Kind::Word if KEYWORDS.binary_search(&part.to_ascii_uppercase().as_str()).is_ok() => paint.keyword(part),
            Kind::Text => paint.literal(part),
            Kind::Number => paint.number(part),
            Kind::Comment => paint.dim(part),
            Kind::Word | Kind::QuotedName | Kind::Semicolon | Kind::Other => part.to_owned(),
        };
    }
    shown + &text[end..]
}
