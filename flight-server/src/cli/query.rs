//! `thermocline query`: runs one statement on a server and prints or saves the result.

mod client;
mod output;

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use arrow_flight::decode::DecodedPayload;
use futures::StreamExt;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::plan_tree;
use client::Client;
use output::{Destination, Output};

/// Runs a SELECT on a Thermocline server.
///
/// Rows go to standard output or a file as they arrive; row count, time, progress, warnings and errors go to standard
/// error. The exit code is 0 when the whole result was written and 1 otherwise.
#[derive(Debug, clap::Args)]
pub struct QueryArgs {
    /// The statement, or `-` to read it from standard input.
    pub sql: String,

    /// Address of the server.
    #[arg(long, env = "THERMOCLINE_SERVER", default_value = "grpc://127.0.0.1:32010", value_name = "URL")]
    pub server: String,

    /// Form of the result.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,

    /// Write the result to this file instead of standard output; it appears only once it is complete.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Print the plan instead of running the query: as a tree, or with `--plan=json` as the server sent it.
    #[arg(long, value_enum, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "tree")]
    pub plan: Option<PlanForm>,

    /// With --plan: run the query too, and print the plan with what execution measured to standard error.
    #[arg(long, requires = "plan")]
    pub run: bool,

    /// A query option such as `tiers=hot` or `consistency=eventual`; may be given several times.
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub options: Vec<(String, String)>,

    /// Show all rows in a table, however many; without it the first 1,000.
    #[arg(long)]
    pub all: bool,
}

/// Form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table for people.
    Table,
    /// CSV with a header line; lists and structs as text.
    Csv,
    /// One JSON object a line (NDJSON), NULLs included.
    Json,
    /// An Arrow IPC file.
    Arrow,
    /// A Parquet file, compressed with zstd.
    Parquet,
}

/// Form of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PlanForm {
    Tree,
    Json,
}

impl Format {
    fn is_binary(self) -> bool {
        match self {
            Self::Arrow | Self::Parquet => true,
            Self::Table | Self::Csv | Self::Json => false,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// The server's own text with the place in the SQL, or what went wrong on this side.
pub async fn run(args: QueryArgs) -> anyhow::Result<()> {
    let sql = read_sql(&args.sql)?;
    let terminal = args.output.is_none() && std::io::stdout().is_terminal();
    if terminal && args.format.is_binary() && (args.plan.is_none() || args.run) {
        bail!("an Arrow or Parquet file does not belong on a terminal: name a file with --output, or use a pipe");
    }
    let mut client = Client::connect(&args.server, &args.options).await?;
    let info = client.plan(&sql).await?;
    match args.plan {
        Some(form) if !args.run => print_plan(&mut std::io::stdout().lock(), form, &plan_of(&info.app_metadata)?),
        Some(_) | None => tokio::select! {
            finished = run_query(&mut client, info, &args, terminal) => finished,
            // Dropping the other branch cancels the query on the server and removes a file that is not complete.
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        },
    }
}

async fn run_query(
    client: &mut Client,
    info: arrow_flight::FlightInfo,
    args: &QueryArgs,
    terminal: bool,
) -> anyhow::Result<()> {
    let started = Instant::now();
    // Lines of rows and a progress line would get mixed up on one terminal; a table comes in one piece at the end.
    let progress = progress_bar(!terminal || args.format == Format::Table);
    let destination = Destination::open(args.output.as_deref())?;
    let pipe = destination.pipe();
    let mut output = None;
    let mut plan = None;

    let mut results = client.execute(info).await?;
    while let Some(message) = results.next().await {
        let message = message.map_err(client::readable)?;
        if !message.app_metadata().is_empty() {
            plan = Some(plan_of(&message.app_metadata())?);
        }
        let wrote = match message.payload {
            DecodedPayload::Schema(schema) => {
                let rows_shown = if args.all { None } else { Some(output::TABLE_ROWS) };
                Output::start(args.format, &schema, destination.writer()?, rows_shown).map(|new| output = Some(new))
            }
            DecodedPayload::RecordBatch(batch) if batch.num_rows() > 0 => {
                progress.inc(batch.num_rows() as u64);
                match &mut output {
                    Some(output) => output.write(&batch),
                    None => bail!("the server sent rows before their schema"),
                }
            }
            DecodedPayload::RecordBatch(_) | DecodedPayload::None => Ok(()),
        };
        match wrote {
            Err(_) if pipe.is_broken() => return Ok(()),
            wrote => wrote?,
        }
    }
    progress.finish_and_clear();

    let Some(output) = output else { bail!("the server sent no schema") };
    let note = match output.finish() {
        Err(_) if pipe.is_broken() => return Ok(()),
        finished => finished?,
    };
    destination.complete()?;
    report(plan.as_ref(), progress.position(), started.elapsed(), note, args.plan)
}

/// Everything about a result that is no row goes to standard error.
fn report(
    plan: Option<&Value>,
    rows: u64,
    elapsed: Duration,
    note: Option<String>,
    form: Option<PlanForm>,
) -> anyhow::Result<()> {
    let mut stderr = std::io::stderr().lock();
    let unit = if rows == 1 { "row" } else { "rows" };
    writeln!(stderr, "{} {unit} in {:.3} s", HumanCount(rows), elapsed.as_secs_f64())?;
    if let Some(note) = note {
        writeln!(stderr, "note: {note}")?;
    }
    if let Some(plan) = plan {
        for warning in plan_tree::warnings(plan) {
            writeln!(stderr, "warning: {warning}")?;
        }
        if let Some(form) = form {
            print_plan(&mut stderr, form, plan)?;
        }
    }
    Ok(())
}

fn print_plan(out: &mut dyn Write, form: PlanForm, plan: &Value) -> anyhow::Result<()> {
    let text = match form {
        PlanForm::Tree => plan_tree::render(plan),
        PlanForm::Json => serde_json::to_string_pretty(plan)? + "\n",
    };
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

fn plan_of(app_metadata: &[u8]) -> anyhow::Result<Value> {
    serde_json::from_slice(app_metadata).context("the server's plan is not JSON: is it a Thermocline server?")
}

fn read_sql(argument: &str) -> anyhow::Result<String> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut sql = String::new();
    std::io::stdin().read_to_string(&mut sql).context("cannot read the statement from standard input")?;
    Ok(sql)
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// A line on standard error that counts rows; hidden where standard error is no terminal.
fn progress_bar(wanted: bool) -> ProgressBar {
    if !wanted || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} rows, {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

#[cfg(test)]
mod tests;
