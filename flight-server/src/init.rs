//! `thermocline init`: from a database that exists to the three files that Thermocline runs by, and the triggers in it.

mod choose;
mod eav;
mod files;

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use translator::catalog::{Catalog, Entity, PrimaryKeys};
use translator::postgres::{TableNames, Truncate};

pub(crate) use choose::{column_type, reads_as};
pub(crate) use files::tracking;

use crate::catalog_file;
use crate::config::{Config, LakeCatalog, environment};
use crate::postgres::{FoundTable, PostgresError, PostgresSource};
use choose::{Choice, Pattern, choose};

/// Where a new installation keeps its own tables. Not `thermocline`: a role of that name would find this schema first, and
/// make its tables here.
const SCHEMA: &str = "thermocline_log";

/// Make entities of a database's tables: write thermocline.toml, catalog.toml and setup.sql, and say what is left out.
///
/// Run again, it adds what is new and changes nothing else. `--apply` runs setup.sql; before, nothing in the database is
/// touched.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// The database: `postgresql://user:password@host/database`. Not needed once the configuration file is there.
    #[arg(long, value_name = "URL")]
    pub postgres: Option<String>,
    /// The lake: `s3://bucket/prefix` or `file:///directory`. Not needed once the configuration file is there.
    #[arg(long, value_name = "URL")]
    pub lake: Option<String>,
    /// Tables that become entities: `public.*`, `orders`, `sales.order_*`. Without a schema `public` is meant.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub tables: Vec<String>,
    /// The database keeps its rows in entity_main and eav_data: list what is there as entities, with guessed types.
    #[arg(long)]
    pub eav: bool,
    /// The configuration file; catalog.toml and setup.sql are written beside it.
    #[arg(long, value_name = "FILE", default_value = "thermocline.toml")]
    pub config: PathBuf,
    /// Run setup.sql, in one transaction.
    #[arg(long)]
    pub apply: bool,
    /// Enter the rows that are in the tables already, in batches; can be stopped and run again.
    #[arg(long)]
    pub backfill: bool,
    /// Rows of a batch of the backfill.
    #[arg(long, value_name = "ROWS", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Let TRUNCATE of a table count as the deletion of every row in it, instead of refusing it.
    #[arg(long)]
    pub truncate: bool,
    /// Take triggers, functions and Thermocline's own tables out of the database, and leave the data.
    #[arg(long, conflicts_with_all = ["apply", "backfill", "tables", "eav"])]
    pub remove: bool,
    /// Ask nothing.
    #[arg(long)]
    pub yes: bool,
}

impl InitArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// Files that are wrong or can't be written, a database that doesn't answer, a setup that fails, an answer of no.
    pub async fn run(self) -> anyhow::Result<()> {
        if !self.config.exists() {
            if self.remove {
                bail!("there is no {}: nothing is known of an installation", self.config.display());
            }
            self.write_config()?;
        } else if self.postgres.is_some() || self.lake.is_some() {
            say(&format!("{} is there already and stays as it is", self.config.display()))?;
        }
        let config = Config::load(&self.config, environment()).map_err(|faults| anyhow::anyhow!("{faults}"))?;
        let postgres = PostgresSource::new(&config.postgres)?;
        let before = read_if_there(&config.catalog.path)?;
        let catalog = match &before {
            Some(_) => catalog_file::read(&config).await?,
            None => Catalog::default(),
        };
        let tables = postgres.bookkeeping_tables().await?;
        let found = postgres.found_tables().await?;
        if self.remove {
            return self.remove(&postgres, &tables, &catalog, &found).await;
        }
        let patterns: Vec<Pattern> = self.tables.iter().map(|pattern| Pattern::parse(pattern)).collect();
        let mut choice = choose(&found, &patterns, &catalog, &tables);
        if self.eav {
            let known: Vec<i16> = catalog.entities().iter().map(|entity| entity.schema_id).collect();
            choice.new.extend(eav::entities(&postgres, &known).await?);
        }
        if choice.new.is_empty() && catalog.entities().is_empty() {
            for left_out in &choice.left_out {
                say(&format!("  left out  {}: {}", left_out.what, left_out.why))?;
            }
            bail!(
                "no table became an entity; --tables takes patterns such as 'public.*', --eav lists an EAV installation"
            );
        }
        let keys = match &before {
            Some(before) => catalog_file::unwritten_keys(before, &config).await?,
            None => PrimaryKeys::new(),
        };
        let text = files::catalog_toml(before.as_deref(), &keys, &choice);
        if let Err(faults) = Catalog::parse_with_keys(&text, &keys) {
            bail!("the new catalog would be wrong, so nothing was written:\n{faults}");
        }
        if before.as_deref() != Some(text.as_str()) {
            write(&config.catalog.path, &text)?;
        }
        let truncate = if self.truncate { Truncate::DeletesRows } else { Truncate::Refused };
        let manifest = (config.lake.catalog == LakeCatalog::Manifest).then_some(&config.postgres.tables.lake_file);
        let sql = files::setup_sql(&tables, manifest, &choice.tables, truncate);
        let setup = config.catalog.path.with_file_name("setup.sql");
        write(&setup, &sql)?;
        report(&choice, before.is_some())?;
        say(&format!("wrote {} and {}", config.catalog.path.display(), setup.display()))?;
        if self.apply {
            self.apply(&postgres, &sql, choice.tables.len()).await?;
        } else {
            say(&format!(
                "next: read {}, then run it with `thermocline init --apply` or psql, and `thermocline init --backfill`",
                setup.display()
            ))?;
        }
        if self.backfill {
            for (entity, found) in &choice.tables {
                self.backfill(&postgres, entity, found).await?;
            }
        }
        Ok(())
    }

    fn write_config(&self) -> anyhow::Result<()> {
        let url = self.setting(self.postgres.clone(), "--postgres", "The database's URL", None)?;
        let near = std::env::current_dir().map_or_else(|_| "lake".into(), |directory| directory.join("lake"));
        let lake =
            self.setting(self.lake.clone(), "--lake", "The lake's URL", Some(format!("file://{}", near.display())))?;
        let schema = (!self.eav).then_some(SCHEMA);
        let text = files::config_toml(&url, &lake, schema, self.eav);
        if let Some(directory) = lake.strip_prefix("file://") {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot make the lake's directory {directory}"))?;
        }
        write_private(&self.config, &text)?;
        say(&format!("wrote {}", self.config.display()))
    }

    /// A setting that was given, or that is asked for on a terminal.
    fn setting(
        &self,
        given: Option<String>,
        flag: &str,
        question: &str,
        default: Option<String>,
    ) -> anyhow::Result<String> {
        if let Some(given) = given {
            return Ok(given);
        }
        if !std::io::stdin().is_terminal() || self.yes {
            return default
                .filter(|_| self.yes)
                .with_context(|| format!("there is no {} yet, so {flag} must be given", self.config.display()));
        }
        let hint = default.as_ref().map(|default| format!(" [{default}]")).unwrap_or_default();
        let answer = ask(&format!("{question}{hint}: "))?;
        if answer.is_empty() { default.with_context(|| format!("{flag} is needed")) } else { Ok(answer) }
    }

    /// Asks on a terminal whether to go on; without one `--yes` must say so.
    fn agreed(&self, question: &str, default: bool) -> anyhow::Result<()> {
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            bail!("{question} Without a terminal to ask on, --yes must say so");
        }
        let answer = ask(&format!("{question} [{}] ", if default { "Y/n" } else { "y/N" }))?.to_lowercase();
        let is_yes = answer.starts_with('y') || (answer.is_empty() && default);
        if is_yes { Ok(()) } else { bail!("nothing was changed in the database") }
    }

    async fn apply(&self, postgres: &PostgresSource, sql: &str, tables: usize) -> anyhow::Result<()> {
        self.agreed(&format!("Set up the change log and the triggers of {tables} tables in this database?"), true)?;
        let session = postgres.write_session().await?;
        session.run_script(sql).await.context("setup.sql failed, and nothing of it was done")?;
        session.end().await?;
        say("the database is set up; from now on every change is in the change log")
    }

    async fn remove(
        &self,
        postgres: &PostgresSource,
        tables: &TableNames,
        catalog: &Catalog,
        found: &[FoundTable],
    ) -> anyhow::Result<()> {
        let tracked: Vec<(Entity, FoundTable)> = catalog
            .entities()
            .iter()
            .filter_map(|entity| {
                let own = entity.own_table()?;
                let found = found.iter().find(|found| choose::qualified(found) == own.name)?;
                Some((entity.as_ref().clone(), found.clone()))
            })
            .collect();
        let keeps_log = catalog.entities().iter().any(|entity| entity.own_table().is_none());
        self.agreed(
            &format!(
                "Take Thermocline's triggers on {} tables and its own tables out of this database? Rows that were pruned \
                 are in the lake alone: `thermocline restore` brings them back, and only before this.",
                tracked.len()
            ),
            false,
        )?;
        let session = postgres.write_session().await?;
        session.run_script(&files::removal_sql(tables, &tracked, keeps_log)).await.context("nothing was removed")?;
        session.end().await?;
        say("the database is as it was before; the files of the lake and the three files here stay")
    }

    async fn backfill(&self, postgres: &PostgresSource, entity: &Entity, found: &FoundTable) -> anyhow::Result<()> {
        let Some(table) = entity.own_table() else { return Ok(()) };
        let mut session = postgres.write_session().await?;
        let mut told = std::time::Instant::now();
        let mut batches = 0_u64;
        loop {
            let batch = session
                .backfill(entity, table, self.batch)
                .await
                .with_context(|| format!("entering the rows of {}; run it again to go on", table.name))?;
            batches += 1;
            // Early, and then as the table grows: at 1, 2, 4, 8, … batches.
            if batch.is_done || batches.is_power_of_two() {
                session.analyze_change_log().await?;
            }
            if batch.is_done {
                say(&format!("{}: {} rows were entered", entity.name, batch.total))?;
                break;
            }
            if told.elapsed() >= Duration::from_secs(5) {
                told = std::time::Instant::now();
                let of = found.rows.map(|rows| format!(" of about {rows}")).unwrap_or_default();
                say(&format!("{}: {} rows{of} are entered", entity.name, batch.total))?;
            }
        }
        session.end().await?;
        Ok(())
    }
}

fn report(choice: &Choice, is_again: bool) -> anyhow::Result<()> {
    for entity in &choice.new {
        let of = match entity.own_table() {
            Some(table) => {
                let key: Vec<&str> = table.key.iter().map(|key| key.column.as_str()).collect();
                format!("{}, key {}", table.name, key.join(", "))
            }
            None => "entity_main and eav_data".to_owned(),
        };
        say(&format!("  new       {}: {} columns of {of}", entity.name, entity.attributes.len()))?;
    }
    for (entity, attribute) in &choice.added {
        say(&format!("  added     {entity}.{}", attribute.name))?;
    }
    for missing in &choice.missing {
        say(&format!("  differs   {missing}; mend the catalog by hand"))?;
    }
    for left_out in &choice.left_out {
        say(&format!("  left out  {}: {}", left_out.what, left_out.why))?;
    }
    if is_again && choice.new.is_empty() && choice.added.is_empty() {
        say("nothing is new")?;
    }
    Ok(())
}

fn ask(question: &str) -> anyhow::Result<String> {
    let mut out = std::io::stdout();
    write!(out, "{question}")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}

fn read_if_there(path: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a file that may hold a password: only its owner may read it.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

/// Names of the own tables with their schemas, as triggers need them, which don't search a path.
fn qualified_tables(tables: &crate::config::TableNames, schema: &str) -> TableNames {
    let mut plain = tables.plain();
    for (name, plain) in [
        (&tables.schema_registry, &mut plain.schema_registry),
        (&tables.entity_main, &mut plain.entity_main),
        (&tables.eav_data, &mut plain.eav_data),
        (&tables.change_log, &mut plain.change_log),
        (&tables.lake_file, &mut plain.lake_file),
    ] {
        if name.schema.is_none() {
            *plain = format!("{schema}.{}", name.table);
        }
    }
    plain
}

impl PostgresSource {
    /// The names of the own tables, each with its schema.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub(crate) async fn bookkeeping_tables(&self) -> Result<TableNames, PostgresError> {
        let schema = self.default_schema(&self.tables().change_log).await?;
        Ok(qualified_tables(self.tables(), &schema))
    }
}
