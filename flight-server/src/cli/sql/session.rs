//! What a shell remembers, and what it does with an entry.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use arrow::array::RecordBatch;
use console::Term;
use indicatif::HumanCount;
use serde_json::Value;
use translator::quote::Ident;

use super::command::{self, Command};
use super::paint::Paint;
use super::running::{self, Answer, Ending, Screen, Target};
use super::script::{Piece, pieces};
use super::words::{COLUMNS_SQL, OPTIONS_SQL, Words};
use super::{pager, table};
use crate::cli::client::{Client, plan_of};
use crate::cli::output::Format;
use crate::plan_tree;

/// Files that name each other end somewhere.
const MAX_DEPTH: usize = 16;

const TABLES_SQL: &str = "SELECT table_name AS \"table\", count(*) AS columns FROM information_schema.columns \
     WHERE table_schema = 'main' GROUP BY ALL ORDER BY ALL";
const TIERS_SQL: &str = "SELECT * FROM system.tiers ORDER BY ALL";
const SET_SQL: &str = "SELECT name AS \"option\", value FROM system.options ORDER BY name";

/// Whether the shell goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    GoOn,
    /// Ctrl-C: what else was entered with the statement isn't run.
    Stop,
    Quit,
}

/// A shell's state.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    options: Vec<(String, String)>,
    paint: Paint,
    /// The form of results where standard output is no terminal; `None` draws them for one.
    form: Option<Format>,
    shows_timing: bool,
    /// The next result goes there.
    output: Option<PathBuf>,
    last_plan: Option<Value>,
}

impl Session {
    pub(super) fn new(client: Client, options: Vec<(String, String)>, form: Option<Format>) -> Self {
        let paint = if form.is_none() { Paint::of_terminal() } else { Paint::plain() };
        Self { client, options, paint, form, shows_timing: false, output: None, last_plan: None }
    }

    pub(super) fn paint(&self) -> Paint {
        self.paint
    }

    /// Asks the server for what completion offers.
    ///
    /// # Errors
    /// It doesn't answer.
    pub(super) async fn words(&self) -> anyhow::Result<Words> {
        Ok(Words::new(&self.fetch(COLUMNS_SQL).await?, &self.fetch(OPTIONS_SQL).await?))
    }

    async fn fetch(&self, sql: &str) -> anyhow::Result<Vec<RecordBatch>> {
        match running::run(&self.client, sql, Target::Screen, false).await? {
            Ending::Complete(answer) => Ok(answer.screen.map(|screen| screen.batches).unwrap_or_default()),
            Ending::Cancelled => bail!("interrupted"),
        }
    }

    /// Runs statements and commands one after the other; the first that fails ends them.
    ///
    /// # Errors
    /// The server's own text, or what is wrong with a command.
    pub(super) async fn run(&mut self, text: &str, depth: usize) -> anyhow::Result<Flow> {
        for piece in pieces(text) {
            let flow = match piece {
                Piece::Command(line) => self.command(line, depth).await?,
                Piece::Statement(sql) => self.statement(sql).await?,
            };
            if flow != Flow::GoOn {
                return Ok(flow);
            }
        }
        Ok(Flow::GoOn)
    }

    async fn command(&mut self, line: &str, depth: usize) -> anyhow::Result<Flow> {
        match command::parse(line).map_err(anyhow::Error::msg)? {
            Command::Describe(None) => return self.statement(TABLES_SQL).await,
            Command::Describe(Some(table)) => return self.statement(&describe(&table)).await,
            Command::Plan(Some(sql)) => {
                let info = interruptible(self.client.plan(&sql)).await?;
                self.show(&plan_tree::render(&plan_of(&info.app_metadata)?))?;
            }
            Command::Plan(None) => match &self.last_plan {
                Some(plan) => self.show(&plan_tree::render(plan))?,
                None => bail!(r"no query has run yet; \plan SELECT … shows a plan without running it"),
            },
            Command::Tiers => return self.statement(TIERS_SQL).await,
            Command::Timing => {
                self.shows_timing = !self.shows_timing;
                self.tell(if self.shows_timing { "timing is on" } else { "timing is off" })?;
            }
            Command::Set(None) => return self.statement(SET_SQL).await,
            Command::Set(Some((name, value))) => self.set(&name, value).await?,
            Command::Output(path) => {
                if let Some(path) = &path {
                    format_of(path)?;
                }
                self.output = path;
            }
            Command::Include(path) => {
                if depth >= MAX_DEPTH {
                    bail!("files include each other more than {MAX_DEPTH} deep");
                }
                let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                return Box::pin(self.run(&text, depth + 1)).await;
            }
            Command::Help => self.show(&command::help())?,
            Command::Quit => return Ok(Flow::Quit),
        }
        Ok(Flow::GoOn)
    }

    /// Sets an option when the server knows it with this value, and leaves all as it was otherwise.
    async fn set(&mut self, name: &str, value: Option<String>) -> anyhow::Result<()> {
        let name = name.to_ascii_lowercase().replace('-', "_");
        let mut options = self.options.clone();
        options.retain(|(known, _)| known.replace('-', "_") != name);
        options.extend(value.map(|value| (name, value)));
        let mut client = self.client.clone();
        client.set_options(&options)?;
        interruptible(client.plan(OPTIONS_SQL)).await?;
        self.client = client;
        self.options = options;
        Ok(())
    }

    async fn statement(&mut self, sql: &str) -> anyhow::Result<Flow> {
        let file = self.output.take();
        let target = match (&file, self.form) {
            (Some(path), _) => Target::File(path, format_of(path)?),
            (None, Some(format)) => Target::Stdout(format),
            (None, None) => Target::Screen,
        };
        let is_terminal = self.form.is_none();
        let answer = match running::run(&self.client, sql, target, is_terminal).await? {
            Ending::Complete(answer) => answer,
            Ending::Cancelled if is_terminal => {
                self.tell(&self.paint.warning("cancelled"))?;
                return Ok(Flow::Stop);
            }
            Ending::Cancelled => bail!("interrupted"),
        };
        match (&answer.screen, &file) {
            (Some(screen), _) => {
                let text = self.drawn(screen, &answer)?;
                self.show(&text)?;
            }
            (None, Some(path)) => self.tell(&format!("{} in {}", rows(answer.rows), path.display()))?,
            (None, None) => {}
        }
        self.report(&answer)?;
        self.last_plan = answer.plan;
        Ok(Flow::GoOn)
    }

    fn drawn(&self, screen: &Screen, answer: &Answer) -> anyhow::Result<String> {
        let (_, width) = Term::stdout().size();
        let table = table::draw(&screen.schema, &screen.batches, usize::from(width), self.paint)?;
        let mut foot = rows(answer.rows);
        if (screen.rows as u64) < answer.rows {
            foot += &format!(" ({} shown; \\o keeps all in a file)", HumanCount(screen.rows as u64));
        }
        if table.hidden_columns > 0 {
            let all = screen.schema.fields().len();
            foot += &format!(", {all} columns ({} shown)", all - table.hidden_columns);
        }
        Ok(table.text + &self.paint.dim(&foot) + "\n")
    }

    /// Everything about a result that is no row: warnings always, times when they are asked for.
    fn report(&self, answer: &Answer) -> anyhow::Result<()> {
        if let Some(note) = &answer.note {
            self.tell(&format!("note: {note}"))?;
        }
        for warning in answer.plan.iter().flat_map(plan_tree::warnings) {
            self.tell(&self.paint.warning(&format!("warning: {}", table::visible(&warning))))?;
        }
        if self.shows_timing {
            let mut text = format!("{:.3} s", answer.elapsed.as_secs_f64());
            let stages = [
                ("translation", "/timings_ms/translation"),
                ("planning", "/timings_ms/planning"),
                ("execution", "/execution/execution_ms"),
                ("streaming", "/execution/streaming_ms"),
            ];
            for (name, pointer) in stages {
                let time = answer.plan.as_ref().and_then(|plan| plan.pointer(pointer)).and_then(Value::as_f64);
                text += &time.map(|time| format!(" · {name} {time:.1} ms")).unwrap_or_default();
            }
            self.tell(&self.paint.dim(&text))?;
        }
        Ok(())
    }

    /// Shows a text, by pages on a terminal.
    fn show(&self, text: &str) -> anyhow::Result<()> {
        if self.form.is_none() {
            tokio::task::block_in_place(|| pager::show(text))?;
        } else {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(text.as_bytes())?;
            stdout.flush()?;
        }
        Ok(())
    }

    /// A line beside the results.
    #[expect(clippy::unused_self, reason = "what a session says goes through the session")]
    fn tell(&self, line: &str) -> anyhow::Result<()> {
        writeln!(std::io::stderr(), "{line}")?;
        Ok(())
    }
}

/// Work that Ctrl-C ends.
async fn interruptible<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        pressed = tokio::signal::ctrl_c() => { pressed?; bail!("interrupted") }
    }
}

fn rows(count: u64) -> String {
    format!("{} {}", HumanCount(count), if count == 1 { "row" } else { "rows" })
}

/// `DESCRIBE` of a table that is named as in SQL: `flights`, `system.tiers`, `"odd name"`.
fn describe(table: &str) -> String {
    let parts = table.split('.').map(|part| {
        let inner = part.strip_prefix('"').and_then(|part| part.strip_suffix('"'));
        Ident(&inner.map_or_else(|| part.to_owned(), |inner| inner.replace("\"\"", "\""))).to_string()
    });
    format!("DESCRIBE {}", parts.collect::<Vec<_>>().join("."))
}

/// The form of a file by its name's ending.
fn format_of(path: &Path) -> anyhow::Result<Format> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    Ok(match ending.as_str() {
        "parquet" => Format::Parquet,
        "arrow" | "feather" | "ipc" => Format::Arrow,
        "csv" => Format::Csv,
        "json" | "jsonl" | "ndjson" => Format::Json,
        "txt" => Format::Table,
        _ => bail!("{} ends in none of .parquet, .arrow, .csv, .json and .txt", path.display()),
    })
}
