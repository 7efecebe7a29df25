//! The `thermocline` binary.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use flight_server::{cli, init, moving, query, serve, writer};

/// One always-fresh table over hot PostgreSQL rows and Parquet files, served over Arrow Flight SQL.
#[derive(Debug, Parser)]
#[command(name = "thermocline", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve {
        /// The configuration file.
        #[arg(long, value_name = "FILE", default_value = "thermocline.toml")]
        config: PathBuf,
    },
    Check(cli::check::CheckArgs),
    Init(init::InitArgs),
    Auth(cli::auth::AuthArgs),
    /// Send a query to a server and print the result or the plan.
    Query(cli::query::QueryArgs),
    Sql(cli::sql::SqlArgs),
    Flush(writer::FlushArgs),
    Compact(writer::CompactArgs),
    Gc(writer::GcArgs),
    Manifest(writer::ManifestArgs),
    Prune(moving::PruneArgs),
    Restore(moving::RestoreArgs),
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Deeply nested queries are parsed and bound recursively.
        .thread_stack_size(16 * 1024 * 1024)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::from(error)),
    };
    // A server that is told to end must. Of a writer the exit code counts: its threads get time to end well.
    let patience = Duration::from_secs(match command {
        Command::Serve { .. }
        | Command::Check(_)
        | Command::Init(_)
        | Command::Auth(_)
        | Command::Query(_)
        | Command::Sql(_) => 2,
        Command::Flush(_)
        | Command::Compact(_)
        | Command::Gc(_)
        | Command::Manifest(_)
        | Command::Prune(_)
        | Command::Restore(_) => 30,
    });
    let result = runtime.block_on(async {
        match command {
            Command::Serve { config } => serve::run(&config).await,
            Command::Check(arguments) => cli::check::run(&arguments).await,
            Command::Init(arguments) => arguments.run().await,
            Command::Auth(arguments) => cli::auth::run(&arguments),
            Command::Query(arguments) => cli::query::run(arguments).await,
            Command::Sql(arguments) => cli::sql::run(arguments).await,
            Command::Flush(arguments) => arguments.run().await,
            Command::Compact(arguments) => arguments.run().await,
            Command::Gc(arguments) => arguments.run().await,
            Command::Manifest(arguments) => arguments.run().await,
            Command::Prune(arguments) => arguments.run().await,
            Command::Restore(arguments) => arguments.run().await,
        }
    });
    // Threads that have worked in DuckDB end before the process does: what they clean up mustn't race with what DuckDB's
    // library cleans up at exit. One that is still inside DuckDB isn't waited for much longer.
    runtime.shutdown_timeout(patience);
    query::wait_for_threads(patience);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    use std::io::Write;
    // Without standard error there is nobody to tell.
    let _unheard = writeln!(std::io::stderr(), "thermocline: {error:#}");
    error.downcast_ref::<writer::WriterError>().map_or(ExitCode::FAILURE, |error| error.exit_code().into())
}
