//! `thermocline sql`: a shell on a server.
//!
//! Where standard input is no terminal, the statements and commands in it are run one after the other, and results are
//! written without colours and boxes.

mod command;
mod completion;
mod editor;
mod lexer;
mod pager;
mod paint;
mod running;
mod script;
mod session;
mod table;
mod words;

use std::io::{IsTerminal, Read, Write};
use std::sync::Arc;

use anyhow::{Context, bail};

use super::client::{Client, ServerArgs};
use super::output::Format;
use editor::{Entered, LineEditor};
use session::{Flow, Session};
use words::Words;

/// Asks a Thermocline server statement by statement.
///
/// Statements end with `;`, Ctrl-C cancels a query, `\?` lists the shell's commands. Statements can be piped in too: then
/// the first one that fails ends the program with exit code 1.
#[derive(Debug, clap::Args)]
pub struct SqlArgs {
    #[command(flatten)]
    pub server: ServerArgs,

    /// Form of results that go to a pipe or a file; a terminal shows tables.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// Runs the shell.
///
/// # Errors
/// The server can't be reached, the terminal can't be used, or a statement that was piped in failed.
pub async fn run(args: SqlArgs) -> anyhow::Result<()> {
    let (input, output) = (std::io::stdin().is_terminal(), std::io::stdout().is_terminal());
    if output && !input && args.format.is_binary() {
        bail!("an Arrow or Parquet file does not belong on a terminal: use a pipe");
    }
    let client = Client::connect(&args.server).await?;
    let form = (!output).then_some(args.format);
    let mut session = Session::new(client, args.server.options, form);
    if input {
        return interact(&mut session, &args.server.server).await;
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("cannot read statements from standard input")?;
    session.run(&text, 0).await.map(drop)
}

async fn interact(session: &mut Session, server: &str) -> anyhow::Result<()> {
    let paint = session.paint();
    // Without the catalog there is nothing to complete, but all else works.
    let words = match session.words().await {
        Ok(words) => words,
        Err(error) => {
            say(&paint.warning(&format!("warning: no completion of tables and columns: {error:#}")))?;
            Words::default()
        }
    };
    say(&format!("Thermocline {} on {server}. \\? for help, \\q to quit.", env!("CARGO_PKG_VERSION")))?;
    let mut editor = LineEditor::open(Arc::new(words), paint, editor::history_path())?;
    loop {
        // The editor waits for keys; the connection lives on other threads meanwhile.
        let text = match tokio::task::block_in_place(|| editor.read())? {
            Entered::Text(text) => text,
            Entered::Nothing => continue,
            Entered::End => return Ok(()),
        };
        match session.run(&text, 0).await {
            Ok(Flow::GoOn | Flow::Stop) => {}
            Ok(Flow::Quit) => return Ok(()),
            Err(error) => say(&paint.server_error(&format!("{error:#}")))?,
        }
    }
}

/// A line on standard error, where everything goes that is no result.
fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stderr(), "{line}")?;
    Ok(())
}
