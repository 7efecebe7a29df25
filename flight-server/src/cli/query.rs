//! `thermocline query`: runs one statement on a server and prints or saves the result.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde_json::Value;

use super::client::{Client, Received, ServerArgs, plan_of};
use super::output::{self, Destination, Format, Output};
use super::sql::{self, SqlArgs};
use crate::plan_tree;

/// Runs a SELECT on a Thermocline server.
///
/// Rows go to standard output or a file as they arrive; row count, time, progress, warnings and errors go to standard
/// error. The exit code is 0 when the whole result was written and 1 otherwise.
#[derive(Debug, clap::Args)]
pub struct QueryArgs {
    /// The statement, or `-` to read it from standard input. Without one, a terminal becomes a shell (`thermocline sql`).
    pub sql: Option<String>,

    #[command(flatten)]
    pub server: ServerArgs,

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

    /// Show all rows in a table, however many; without it the first 1,000.
    #[arg(long)]
    pub all: bool,
}

/// Form of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PlanForm {
    Tree,
    Json,
}

/// Runs the command.
///
/// # Errors
/// The server's own text with the place in the SQL, or what went wrong on this side.
pub async fn run(args: QueryArgs) -> anyhow::Result<()> {
    let sql = match &args.sql {
        Some(sql) => read_sql(sql)?,
        None if std::io::stdin().is_terminal() && args.output.is_none() && args.plan.is_none() => {
            return sql::run(SqlArgs { server: args.server, format: args.format }).await;
        }
        None => bail!("there is no statement: give one, or `-` to read it from standard input"),
    };
    let terminal = args.output.is_none() && std::io::stdout().is_terminal();
    if terminal && args.format.is_binary() && (args.plan.is_none() || args.run) {
        bail!("an Arrow or Parquet file does not belong on a terminal: name a file with --output, or use a pipe");
    }
    let mut client = Client::connect(&args.server).await?;
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
    let received = client
        .run(info, |received| match (received, &mut output) {
            (Received::Schema(schema), output) => {
                let rows_shown = if args.all { None } else { Some(output::TABLE_ROWS) };
                *output = Some(Output::start(args.format, &schema, destination.writer()?, rows_shown)?);
                Ok(())
            }
            (Received::Rows(batch), Some(output)) => {
                progress.inc(batch.num_rows() as u64);
                output.write(&batch)
            }
            (Received::Rows(_), None) => bail!("rows came before their schema"),
        })
        .await;
    progress.finish_and_clear();
    let written = received.and_then(|plan| Ok((plan, output.map(Output::finish).transpose()?.flatten())));
    let (plan, note) = match written {
        // Whoever read them has seen enough.
        Err(_) if pipe.is_broken() => return Ok(()),
        written => written?,
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

fn read_sql(argument: &str) -> anyhow::Result<String> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut sql = String::new();
    std::io::stdin().read_to_string(&mut sql).context("cannot read the statement from standard input")?;
    Ok(sql)
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
