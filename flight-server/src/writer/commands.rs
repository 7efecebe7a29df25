//! The commands' arguments, their rounds over the entities, and what they say.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount};
use tokio::signal::unix::{SignalKind, signal};
use translator::catalog::Entity;

use super::Writer;
use super::compact::{CompactOptions, CompactOutcome, compact_entity};
use super::flush::{Due, FlushOptions, FlushOutcome, flush_entity};
use super::gc::{Collected, GcOptions, collect_entity};
use super::manifest::{import_entity, verify_entity};
use super::progress::Progress;
use super::rotation::FileLimits;
use crate::postgres::{LockPurpose, WriteSession};

/// A flush or compaction leaves an entity to the one that is at work on it.
pub(crate) const ONCE: Duration = Duration::ZERO;
/// What must be alone on an entity waits so long for services that flush and compact it in turns.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two attempts to take a lock.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Failures that have an exit code of their own.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// Another writer is at work.
    #[error("another {what} is at work on {}: nothing was done there", .entities.join(", "))]
    Busy { what: &'static str, entities: Vec<String> },
    /// `manifest verify` found differences.
    #[error("manifest and lake differ")]
    NotWhole,
    /// A flush left rows dirty that hold values which don't fit their declared types.
    #[error("{rows} dirty rows of {} can't be read and stay dirty; the others are flushed", .entities.join(", "))]
    Unreadable { rows: u64, entities: Vec<String> },
}

impl WriterError {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Busy { .. } => 3,
            Self::NotWhole => 4,
            Self::Unreadable { .. } => 5,
        }
    }
}

/// Write dirty rows of PostgreSQL to delta files of the lake, and mark them flushed.
///
/// A row with a value that doesn't fit its declared type stays dirty and is named.
///
/// The exit code is 3 when another flush is at work on an entity, 5 when rows can't be read, and 1 after any other failure.
#[derive(Debug, clap::Args)]
pub struct FlushArgs {
    /// Entities to flush; all of them when none is named.
    pub entities: Vec<String>,
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "thermocline.toml")]
    pub config: PathBuf,
    /// Keep running, with this pause between two rounds.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub every: Option<Duration>,
    /// Rows that changed within this time stay dirty.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    pub min_age: Duration,
    /// Flush once this many rows are dirty. With several triggers any of them will do; without one a flush is always due.
    #[arg(long, value_name = "ROWS")]
    pub when_rows: Option<u64>,
    /// Flush once dirty rows hold about this many bytes (such as 64MB).
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub when_bytes: Option<u64>,
    /// Flush once the oldest dirty row is this old.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub when_age: Option<Duration>,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub progress: ProgressArgs,
    /// Say what would be flushed, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Merge delta files into base files.
///
/// The exit code is 3 when another compaction is at work on an entity, and 1 after any other failure.
#[derive(Debug, clap::Args)]
pub struct CompactArgs {
    /// Entities to compact; all of them when none is named.
    pub entities: Vec<String>,
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "thermocline.toml")]
    pub config: PathBuf,
    /// Keep running, with this pause between two rounds.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub every: Option<Duration>,
    /// Leave fewer delta files than this for later.
    #[arg(long, value_name = "FILES", default_value_t = 0)]
    pub min_files: usize,
    /// Compact only when it is due, as `system.tiers` says: the files can only be merged by `window`, or there are 10 delta
    /// files, or delta rows are 10 % of the base rows, or 20 % of the versions may be superseded.
    #[arg(long)]
    pub when_due: bool,
    /// Rewrite every file, also those that nothing supersedes: all get the catalog's newest shape.
    #[arg(long)]
    pub full: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub progress: ProgressArgs,
    /// Say what would be rewritten and why, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// How large files may grow.
#[derive(Debug, clap::Args)]
pub struct LimitArgs {
    /// Most rows of a new file.
    #[arg(long, value_name = "ROWS", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub file_rows: u64,
    /// About the most bytes of a new file.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    pub file_bytes: u64,
}

/// How progress is told.
#[derive(Debug, clap::Args)]
pub struct ProgressArgs {
    /// How often progress is told on a standard error that is no terminal; on a terminal there is a bar.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub progress_every: Duration,
}

/// Delete files that were replaced, and what writers that died left behind.
#[derive(Debug, clap::Args)]
pub struct GcArgs {
    /// Entities to look at; all of them when none is named.
    pub entities: Vec<String>,
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "thermocline.toml")]
    pub config: PathBuf,
    /// Keep running, with this pause between two rounds.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub every: Option<Duration>,
    /// How long replaced files stay; longer than any query runs.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    pub grace: Duration,
    /// Say what would be deleted and why, and delete nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Make or check the manifest of the lake's files in PostgreSQL.
#[derive(Debug, clap::Args)]
pub struct ManifestArgs {
    #[command(subcommand)]
    pub command: ManifestCommand,
}

/// What to do with the manifest.
#[derive(Debug, clap::Subcommand)]
pub enum ManifestCommand {
    /// Enter the lake's files: the table is made when it is missing, footers and digests are read, rows checked for
    /// uniqueness. Stop other writers of the lake first.
    Import {
        /// Entities to import; all of them when none is named.
        entities: Vec<String>,
        /// The configuration file.
        #[arg(long, value_name = "FILE", default_value = "thermocline.toml")]
        config: PathBuf,
        /// Read and check everything, and enter nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Compare manifest, objects and their digests. The exit code is 4 when files are missing or damaged.
    Verify {
        /// Entities to verify; all of them when none is named.
        entities: Vec<String>,
        /// The configuration file.
        #[arg(long, value_name = "FILE", default_value = "thermocline.toml")]
        config: PathBuf,
        /// Compare sizes only, and read no contents.
        #[arg(long)]
        quick: bool,
    },
}

impl LimitArgs {
    fn limits(&self) -> FileLimits {
        FileLimits { rows: self.file_rows, bytes: self.file_bytes }
    }
}

impl FlushArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// A configuration that is wrong, a source that fails, [`WriterError::Busy`].
    pub async fn run(self) -> anyhow::Result<()> {
        let writer = Writer::open(&self.config).await?;
        let entities = writer.entities(&self.entities)?;
        let options = FlushOptions {
            min_age: self.min_age,
            due: Due { rows: self.when_rows, bytes: self.when_bytes, age: self.when_age },
            limits: self.limits.limits(),
            dry_run: self.dry_run,
        };
        rounds(self.every, async || {
            let (mut rows, mut unreadable) = (0, Vec::new());
            each_entity(&writer, &entities, "flush", ONCE, &[LockPurpose::Flush], async |entity, session| {
                let progress = Progress::of_rows(&format!("{}: flushing", entity.name), self.progress.progress_every);
                let work = flush_entity(&writer, entity, &options, session, progress.bar());
                let outcome = progress.during(work).await?;
                if let FlushOutcome::Flushed { unreadable: found, .. } = &outcome
                    && found.rows > 0
                {
                    rows += found.rows;
                    unreadable.push(entity.name.clone());
                }
                say_flush(entity, &outcome, options.dry_run, self.every.is_some())
            })
            .await?;
            if rows > 0 { Err(WriterError::Unreadable { rows, entities: unreadable }.into()) } else { Ok(()) }
        })
        .await
    }
}

impl CompactArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// A configuration that is wrong, a source that fails, [`WriterError::Busy`].
    pub async fn run(self) -> anyhow::Result<()> {
        let writer = Writer::open(&self.config).await?;
        let entities = writer.entities(&self.entities)?;
        let options = CompactOptions {
            limits: self.limits.limits(),
            min_files: self.min_files,
            when_due: self.when_due,
            full: self.full,
            dry_run: self.dry_run,
        };
        rounds(self.every, async || {
            each_entity(&writer, &entities, "compaction", ONCE, &[LockPurpose::Compact], async |entity, session| {
                let progress = Progress::of_rows(&format!("{}: compacting", entity.name), self.progress.progress_every);
                let work = compact_entity(&writer, entity, &options, session, progress.bar());
                say_compact(entity, &progress.during(work).await?, self.every.is_some())
            })
            .await
        })
        .await
    }
}

impl GcArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// A configuration that is wrong, a source that fails, [`WriterError::Busy`].
    pub async fn run(self) -> anyhow::Result<()> {
        let writer = Writer::open(&self.config).await?;
        let entities = writer.entities(&self.entities)?;
        let options = GcOptions { grace: self.grace, dry_run: self.dry_run };
        let locks = [LockPurpose::Flush, LockPurpose::Compact];
        rounds(self.every, async || {
            each_entity(&writer, &entities, "writer", PATIENCE, &locks, async |entity, session| {
                let collected = collect_entity(&writer, entity, options, session).await?;
                say_gc(entity, &collected, options.dry_run, self.every.is_some())
            })
            .await
        })
        .await
    }
}

impl ManifestArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// A configuration that is wrong, a source that fails, [`WriterError`].
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            ManifestCommand::Import { entities, config, dry_run } => {
                import(&Writer::open(&config).await?, &entities, dry_run).await
            }
            ManifestCommand::Verify { entities, config, quick } => {
                verify(&Writer::open(&config).await?, &entities, quick).await
            }
        }
    }
}

async fn import(writer: &Writer, names: &[String], dry_run: bool) -> anyhow::Result<()> {
    let entities = writer.entities(names)?;
    if !dry_run {
        let session = writer.postgres.write_session().await?;
        session.create_manifest().await?;
        session.end().await?;
    }
    let locks = [LockPurpose::Flush, LockPurpose::Compact];
    each_entity(writer, &entities, "writer", PATIENCE, &locks, async |entity, session| {
        let progress = Progress::of_bytes(&format!("{}: importing", entity.name));
        let imported = progress.during(import_entity(writer, entity, dry_run, session, progress.bar())).await?;
        for path in &imported.not_unique {
            say(&format!("{}: {path} holds a row more than once; compact rewrites it", entity.name))?;
        }
        let verb = if dry_run { "would import" } else { "imported" };
        say(&format!(
            "{}: {verb} {} with {} rows; {} known before",
            entity.name,
            count(imported.files, "file"),
            HumanCount(imported.rows),
            count(imported.known, "file")
        ))
    })
    .await
}

async fn verify(writer: &Writer, names: &[String], quick: bool) -> anyhow::Result<()> {
    let session = writer.postgres.write_session().await?;
    let mut is_whole = true;
    for entity in writer.entities(names)? {
        let progress = Progress::of_bytes(&format!("{}: verifying", entity.name));
        let verified = progress.during(verify_entity(writer, &entity, quick, &session, progress.bar())).await?;
        is_whole &= verified.is_whole();
        for path in &verified.missing {
            say(&format!("{}: missing {path}", entity.name))?;
        }
        for (path, what) in &verified.damaged {
            say(&format!("{}: damaged {path}: {what}", entity.name))?;
        }
        for path in &verified.orphaned {
            say(&format!("{}: orphaned {path}: the manifest doesn't know it", entity.name))?;
        }
        say(&format!(
            "{}: {} in force, {} missing, {} damaged, {} orphaned, {} retired, {} without a digest",
            entity.name,
            count(verified.files, "file"),
            verified.missing.len(),
            verified.damaged.len(),
            verified.orphaned.len(),
            verified.retired,
            verified.without_digest
        ))?;
    }
    session.end().await?;
    if is_whole { Ok(()) } else { Err(WriterError::NotWhole.into()) }
}

/// One round, or rounds until SIGTERM or SIGINT, which let a running round end.
pub(crate) async fn rounds(
    every: Option<Duration>,
    mut round: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Some(pause) = every else { return round().await };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        // A source that is down for a while, or a writer beside this one, doesn't end a service.
        if let Err(error) = round().await {
            let _unheard = writeln!(std::io::stderr(), "thermocline: {error:#}");
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

/// Works on each entity under its locks; those that others work on are named at the end.
pub(crate) async fn each_entity(
    writer: &Writer,
    entities: &[Arc<Entity>],
    what: &'static str,
    patience: Duration,
    locks: &[LockPurpose],
    mut work: impl AsyncFnMut(&Entity, &mut WriteSession) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut busy = Vec::new();
    for entity in entities {
        let mut session = writer.postgres.write_session().await?;
        if take_locks(&session, locks, entity.schema_id, patience).await? {
            work(entity, &mut session).await?;
        } else {
            busy.push(entity.name.clone());
        }
        session.end().await?;
    }
    if busy.is_empty() { Ok(()) } else { Err(WriterError::Busy { what, entities: busy }.into()) }
}

async fn take_locks(
    session: &WriteSession,
    locks: &[LockPurpose],
    schema_id: i16,
    patience: Duration,
) -> anyhow::Result<bool> {
    let until = Instant::now() + patience;
    for purpose in locks {
        while !session.try_lock(*purpose, schema_id).await? {
            if Instant::now() >= until {
                return Ok(false);
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    }
    Ok(true)
}

fn say_flush(entity: &Entity, outcome: &FlushOutcome, dry_run: bool, is_service: bool) -> anyhow::Result<()> {
    let name = &entity.name;
    match outcome {
        // A service says what it does, not that there is nothing to do.
        FlushOutcome::Nothing | FlushOutcome::Waiting { .. } if is_service && !dry_run => Ok(()),
        FlushOutcome::Nothing => say(&format!("{name}: nothing to flush")),
        FlushOutcome::Waiting { rows } if dry_run => say(&format!("{name}: would flush {} rows", HumanCount(*rows))),
        FlushOutcome::Waiting { rows } => {
            say(&format!("{name}: {} rows are dirty; no flush is due yet", HumanCount(*rows)))
        }
        FlushOutcome::Flushed { rows, marked, files, bytes, inconsistent, unreadable } => {
            for message in &unreadable.named {
                let _unheard = writeln!(std::io::stderr(), "thermocline: stays dirty: {message}");
            }
            if *inconsistent > 0 {
                let _unheard = writeln!(
                    std::io::stderr(),
                    "thermocline: {name}: {inconsistent} dirty rows have no entity_main row and were left out"
                );
            }
            let again = rows - marked;
            let again = if again > 0 { format!("; {again} written again meanwhile stay dirty") } else { String::new() };
            say(&format!(
                "{name}: flushed {} rows to {} ({}){again}",
                HumanCount(*rows),
                count(*files, "file"),
                HumanBytes(*bytes)
            ))
        }
    }
}

fn say_compact(entity: &Entity, outcome: &CompactOutcome, is_service: bool) -> anyhow::Result<()> {
    let name = &entity.name;
    match outcome {
        CompactOutcome::Nothing { .. } if is_service => Ok(()),
        CompactOutcome::Nothing { delta_files } => {
            say(&format!("{name}: nothing to compact ({})", count(*delta_files, "delta file")))
        }
        CompactOutcome::Planned(plan) => {
            for (file, reason) in &plan.inputs {
                say(&format!(
                    "{name}: would rewrite {} ({} rows, {}): {reason}",
                    file.path,
                    HumanCount(file.row_count),
                    HumanBytes(file.bytes)
                ))?;
            }
            say(&format!(
                "{name}: would rewrite {}, {} stay as they are",
                count(plan.inputs.len(), "file"),
                plan.untouched.len()
            ))
        }
        CompactOutcome::Compacted { plan, files, rows, bytes, tombstones_dropped } => say(&format!(
            "{name}: rewrote {} into {} ({} rows, {}), {} dropped; {} stay as they are",
            count(plan.inputs.len(), "file"),
            count(*files, "base file"),
            HumanCount(*rows),
            HumanBytes(*bytes),
            count(usize::try_from(*tombstones_dropped).unwrap_or(usize::MAX), "tombstone"),
            plan.untouched.len()
        )),
    }
}

fn say_gc(entity: &Entity, collected: &Collected, dry_run: bool, is_service: bool) -> anyhow::Result<()> {
    if is_service && collected.removed.is_empty() {
        return Ok(());
    }
    let verb = if dry_run { "would delete" } else { "deleted" };
    for removal in &collected.removed {
        say(&format!("{}: {verb} {}: {}", entity.name, removal.path, removal.why))?;
    }
    for path in &collected.unknown {
        say(&format!("{}: left {path}: the manifest doesn't know it, and Thermocline didn't write it", entity.name))?;
    }
    say(&format!(
        "{}: {verb} {}, {} replaced and still in their grace",
        entity.name,
        count(collected.removed.len(), "object"),
        count(collected.waiting, "file")
    ))
}

pub(crate) fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Reads a size: a whole number, and B, kB, MB, GB (powers of 1000) or KiB, MiB, GiB (powers of 1024).
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err("expected a size such as 64MB or 256MiB".to_owned()),
    };
    let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).filter(|size| *size > 0);
    size.ok_or_else(|| "expected a size such as 64MB or 256MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [("5", 5), ("64MB", 64_000_000), ("256MiB", 256 << 20), ("2 gib", 2 << 30)] {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
        for text in ["", "MB", "5x", "-1", "0", "99999999999999999999"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
