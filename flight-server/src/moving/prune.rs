//! `thermocline prune`: rows that the lake holds leave PostgreSQL.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::HumanCount;
use translator::catalog::{Entity, OwnTable};
use translator::postgres::trigger;
use translator::quote::TableName;
use uuid::Uuid;

use super::lake::{LakeQueries, check_files};
use super::own_table;
use crate::failpoint::failpoint;
use crate::postgres::{Candidate, LockPurpose, Pruned, Reference, WriteSession};
use crate::writer::{ONCE, Writer, each_entity, now_ms, rounds, say};

/// Candidates that are looked up in the lake at once.
const LOOKED_UP_AT_ONCE: i64 = 500_000;

/// Delete rows from PostgreSQL that are flushed and old enough; queries still return them, from the lake.
///
/// Only rows of tables of their own are pruned, and only those whose version is found in files that are in force. The exit
/// code is 3 when another prune is at work on an entity, and 1 after any other failure.
#[derive(Debug, clap::Args)]
pub struct PruneArgs {
    /// Entities to prune; all that have a table of their own when none is named.
    pub entities: Vec<String>,
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "thermocline.toml")]
    pub config: PathBuf,
    /// Rows that changed within this time stay.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub older_than: Duration,
    /// Keep running, with this pause between two rounds.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub every: Option<Duration>,
    /// Rows that one transaction deletes at most.
    #[arg(long, value_name = "ROWS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Detach and drop partitions whose rows all qualify, before rows are deleted one by one.
    #[arg(long)]
    pub partitions: bool,
    /// Prune although the table has triggers of the application that fire on DELETE; they fire then.
    #[arg(long)]
    pub fire_triggers: bool,
    /// Say what would be pruned and what is held back, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// What a round did to an entity.
#[derive(Debug, Default)]
struct Outcome {
    candidates: u64,
    rows: u64,
    partitions: Vec<String>,
    /// Flushed rows whose version the lake doesn't show.
    not_in_lake: u64,
    busy: u64,
    changed: u64,
    held: BTreeMap<String, u64>,
}

impl PruneArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// A configuration that is wrong, a source that fails, another prune at work, a table that isn't tracked.
    pub async fn run(self) -> anyhow::Result<()> {
        let writer = Writer::open(&self.config).await?;
        let mut entities = writer.entities(&self.entities)?;
        if self.entities.is_empty() {
            entities.retain(|entity| entity.own_table().is_some());
            if entities.is_empty() {
                bail!("no entity has a table of its own; rows of entity_main and eav_data aren't pruned");
            }
        }
        let queries = LakeQueries::start(&writer.config, &writer.catalog).await?;
        rounds(self.every, async || {
            each_entity(&writer, &entities, "prune", ONCE, &[LockPurpose::Prune], async |entity, session| {
                let outcome = self.prune(&writer, &queries, entity, session).await?;
                report(entity, &outcome, self.dry_run, self.every.is_some())
            })
            .await
        })
        .await
    }

    async fn prune(
        &self,
        writer: &Writer,
        queries: &LakeQueries,
        entity: &Entity,
        session: &mut WriteSession,
    ) -> anyhow::Result<Outcome> {
        let table = own_table(entity)?;
        let references = self.check_table(writer, entity, table).await?;
        let age = i64::try_from(self.older_than.as_millis()).unwrap_or(i64::MAX);
        let until = now_ms().saturating_sub(age);
        let mut outcome = Outcome::default();
        if self.partitions {
            self.drop_partitions(writer, queries, entity, session, &references, until, &mut outcome).await?;
        }
        let mut after = Uuid::nil();
        loop {
            let candidates = session.prune_candidates(entity, table, after, until, LOOKED_UP_AT_ONCE).await?;
            let (Some(first), Some(last)) = (candidates.first(), candidates.last()) else { break };
            after = last.row_id;
            outcome.candidates += candidates.len() as u64;
            check_files(writer, entity, first.row_id, last.row_id).await?;
            let held = queries.held(entity, &candidates).await?;
            outcome.not_in_lake += (candidates.len() - held.len()) as u64;
            failpoint("prune.checked").await;
            for batch in held.chunks(usize::try_from(self.batch).unwrap_or(1_000)) {
                let pruned = session.prune(entity, table, batch, &references, self.dry_run).await?;
                outcome.add(pruned);
            }
        }
        Ok(outcome)
    }

    /// Makes sure that every change of the table is tracked, and learns what refers to it.
    async fn check_table(&self, writer: &Writer, entity: &Entity, table: &OwnTable) -> anyhow::Result<Vec<Reference>> {
        let name = TableName(&table.name).to_string();
        let (row, truncate) = (trigger(entity, "row"), trigger(entity, "truncate"));
        let firing = writer.postgres.firing(&name, &row, &truncate).await?;
        if firing.is_empty() {
            bail!("{}: there is no table {}", entity.name, table.name);
        }
        if firing.iter().any(|firing| firing.is_view) {
            bail!("{}: {} is a view, and nothing is pruned through one", entity.name, table.name);
        }
        if let Some(silent) = firing.iter().find(|firing| !firing.row) {
            bail!(
                "{}: the trigger {row} doesn't fire always on {}, so changes may have been missed; run `thermocline init \
                 --apply`, and see that nothing was written meanwhile",
                entity.name,
                silent.table
            );
        }
        let own = [row, truncate];
        let others: Vec<String> = writer
            .postgres
            .delete_triggers(&name)
            .await?
            .into_iter()
            .filter(|trigger| !own.contains(trigger))
            .collect();
        if !others.is_empty() && !self.fire_triggers {
            bail!(
                "{}: the triggers {} would fire for each pruned row; --fire-triggers lets them",
                entity.name,
                others.join(", ")
            );
        }
        Ok(writer.postgres.references_to(&name).await?)
    }

    #[expect(clippy::too_many_arguments, reason = "what a partition must be checked against")]
    async fn drop_partitions(
        &self,
        writer: &Writer,
        queries: &LakeQueries,
        entity: &Entity,
        session: &mut WriteSession,
        references: &[Reference],
        until: i64,
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let table = own_table(entity)?;
        let name = TableName(&table.name).to_string();
        for partition in writer.postgres.leaf_partitions(&name).await? {
            let candidates = session.partition_candidates(entity, table, &partition, until).await?;
            let (Some(first), Some(last)) = (candidates.first(), candidates.last()) else { continue };
            if candidates.len() as u64 != session.partition_rows(&partition).await? {
                continue;
            }
            check_files(writer, entity, first.row_id, last.row_id).await?;
            let held: Vec<Candidate> = queries.held(entity, &candidates).await?;
            if held.len() != candidates.len() {
                continue;
            }
            let dropped = session
                .drop_partition(entity, table, &partition, &held, references, self.dry_run)
                .await
                .with_context(|| format!("the partition {partition} could not be dropped"))?;
            if dropped {
                outcome.rows += held.len() as u64;
                outcome.candidates += held.len() as u64;
                outcome.partitions.push(partition);
            }
        }
        Ok(())
    }
}

impl Outcome {
    fn add(&mut self, pruned: Pruned) {
        self.rows += pruned.rows;
        self.busy += pruned.busy;
        self.changed += pruned.changed;
        for (key, rows) in pruned.held {
            *self.held.entry(key).or_default() += rows;
        }
    }
}

fn report(entity: &Entity, outcome: &Outcome, dry_run: bool, is_service: bool) -> anyhow::Result<()> {
    let name = &entity.name;
    let verb = if dry_run { "would prune" } else { "pruned" };
    if outcome.not_in_lake > 0 {
        let _unheard = writeln!(
            std::io::stderr(),
            "thermocline: {name}: {} flushed rows were not found in the lake as they were flushed, and stay",
            outcome.not_in_lake
        );
    }
    for (key, rows) in &outcome.held {
        say(&format!("{name}: {} rows are held back by {key}", HumanCount(*rows)))?;
    }
    for partition in &outcome.partitions {
        say(&format!("{name}: {} the partition {partition}", if dry_run { "would drop" } else { "dropped" }))?;
    }
    if is_service && outcome.candidates == 0 && !dry_run {
        return Ok(());
    }
    let busy = if outcome.busy + outcome.changed > 0 {
        format!("; {} are being written and stay", HumanCount(outcome.busy + outcome.changed))
    } else {
        String::new()
    };
    say(&format!(
        "{name}: {verb} {} of {} rows that are flushed and old enough{busy}",
        HumanCount(outcome.rows),
        HumanCount(outcome.candidates)
    ))
}
