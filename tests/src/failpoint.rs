//! Programs that wait at a failpoint, to be killed there or told to go on.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tokio::process::{Child, ChildStderr, Command};

use crate::postgres::TestDatabase;
use crate::server::{CommandOutput, output_of};

/// A program that waits at a failpoint.
#[derive(Debug)]
pub struct Halted {
    file: PathBuf,
    program: Child,
}

impl Halted {
    /// Runs the program until it waits there; `directory` is for the files by which it is told.
    ///
    /// # Errors
    /// It never comes there: what it said.
    pub async fn at(mut program: Command, directory: &Path, failpoint: &str) -> Result<Self> {
        let file = directory.join(format!("{failpoint}-{}", uuid::Uuid::new_v4().simple()));
        let mut program =
            program.env("THERMOCLINE_FAILPOINT", format!("{failpoint}=wait:{}", file.display())).spawn()?;
        let reached = PathBuf::from(format!("{}.reached", file.display()));
        let until = Instant::now() + Duration::from_secs(60);
        while !reached.exists() {
            let has_ended = program.try_wait()?.is_some();
            if has_ended || Instant::now() > until {
                program.start_kill()?;
                let output = output_of(program).await?;
                bail!("the program never came to {failpoint}: {}{}", output.stdout, output.stderr);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Self { file, program })
    }

    /// What it says on standard error while it waits; taken once.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.program.stderr.take()
    }

    /// Lets it go on to its end.
    ///
    /// # Errors
    /// It can't be told or waited for.
    pub async fn go_on(self) -> Result<CommandOutput> {
        std::fs::write(&self.file, "")?;
        output_of(self.program).await
    }

    /// Ends it by SIGKILL, and by nothing else.
    ///
    /// # Errors
    /// It ended by itself.
    pub async fn kill(mut self) -> Result<()> {
        use std::os::unix::process::ExitStatusExt;
        self.program.start_kill()?;
        let status = self.program.wait().await?;
        ensure!(status.signal() == Some(9), "it ended by itself: {status}");
        Ok(())
    }
}

/// Waits until PostgreSQL lets go of the advisory locks of the dead: once it notices.
///
/// # Errors
/// It doesn't.
pub async fn wait_for_locks(database: &TestDatabase) -> Result<()> {
    let client = database.connect().await?;
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let until = Instant::now() + Duration::from_secs(30);
    while client.query_one(locks, &[]).await?.get::<_, i64>(0) > 0 {
        ensure!(Instant::now() < until, "the locks of the dead are still held");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
