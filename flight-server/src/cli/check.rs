//! `thermocline check`: everything that is wrong with an installation, together, and how to mend it.

mod files;
mod own_tables;
mod unreadable;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use translator::catalog::{Catalog, Entity, PrimaryKeys};
use translator::lake::LakeFile;
use translator::options::Tier;

use crate::access::Access;
use crate::catalog_file;
use crate::config::{self, Config, LakeCatalog, LakeUrl, TableName, environment};
use crate::engine::{Engine, EngineSettings, LakeAccess, ShapeDatabase};
use crate::lake::{Lake, Listing, S3Credentials};
use crate::postgres::{PostgresSource, Reader, TableFacts};
use crate::query::file_faults;

/// A source that takes longer counts as down.
const LIMIT: Duration = Duration::from_secs(30);
/// With more delta files than this, queries spend their time on opening files.
const MANY_DELTA_FILES: usize = 100;
/// Faulty files that are named.
const NAMED_FILES: usize = 20;

/// Check the configuration, the sources and what they hold.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "thermocline.toml")]
    config: PathBuf,
    /// Print the configuration in force, file and environment together, with secrets masked, and check nothing more.
    #[arg(long)]
    print_config: bool,
}

/// What was found about one part of the installation.
#[derive(Debug, Default)]
struct Finding {
    part: &'static str,
    /// What is there, in a few words.
    summary: String,
    /// Wrong: queries fail or would be wrong.
    faults: Vec<String>,
    /// Slow, or better otherwise.
    advice: Vec<String>,
}

/// Runs the check and prints what it finds.
///
/// # Errors
/// Something is wrong.
pub async fn run(arguments: &CheckArgs) -> anyhow::Result<()> {
    let config = match Config::load(&arguments.config, environment()) {
        Ok(config) => config,
        Err(faults) => {
            let faults = faults.faults.iter().map(ToString::to_string).collect();
            let finding = Finding { part: "configuration", faults, ..Finding::default() };
            // The sources wait until it is known which they are.
            let catalog = config::catalog_path(&arguments.config, environment());
            return report(&[finding, check_catalog(&catalog, None).await.1]);
        }
    };
    if arguments.print_config {
        write!(std::io::stdout(), "{}", config::effective(&config))?;
        return Ok(());
    }
    let mut findings = vec![Finding {
        part: "configuration",
        summary: format!("{} is understood", config.path.display()),
        ..Finding::default()
    }];
    let (catalog, finding) = check_catalog(&config.catalog.path, Some(&config)).await;
    findings.push(finding);
    if let (Some(path), Some(catalog)) = (&config.auth.access, &catalog) {
        findings.push(check_access(path, catalog));
    }
    let entities = catalog.as_ref().map(|catalog| catalog.entities().to_vec()).unwrap_or_default();
    let (postgres, lake) = futures::join!(check_postgres(&config, &entities), check_lake(&config, catalog.as_ref()));
    findings.extend([postgres, lake, check_duckdb(&config)]);
    report(&findings)
}

fn report(findings: &[Finding]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for finding in findings {
        let state = if finding.faults.is_empty() { "ok" } else { "WRONG" };
        let summary = if finding.summary.is_empty() { String::new() } else { format!(": {}", finding.summary) };
        writeln!(out, "{state:<6}{}{summary}", finding.part)?;
        for (mark, texts) in [("wrong:", &finding.faults), ("advice:", &finding.advice)] {
            for text in texts {
                writeln!(out, "      {mark} {}", text.replace('\n', "\n        "))?;
            }
        }
    }
    let count = |of: fn(&Finding) -> usize| findings.iter().map(of).sum::<usize>();
    let (faults, advice) = (count(|finding| finding.faults.len()), count(|finding| finding.advice.len()));
    writeln!(out, "{faults} wrong, {advice} to improve")?;
    if faults > 0 {
        bail!("not everything is as it must be");
    }
    Ok(())
}

/// Without a configuration there is no PostgreSQL to ask for keys.
async fn check_catalog(path: &Path, config: Option<&Config>) -> (Option<Arc<Catalog>>, Finding) {
    let mut finding = Finding { part: "catalog", ..Finding::default() };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            finding.faults.push(format!("{} can't be read: {error}; set catalog.path", path.display()));
            return (None, finding);
        }
    };
    let keys = match config {
        Some(config) => catalog_file::unwritten_keys(&text, config).await,
        None => Ok(PrimaryKeys::new()),
    };
    let parsed = match keys {
        Ok(keys) => Catalog::parse_with_keys(&text, &keys),
        Err(error) => {
            finding.faults.push(format!("{error:#}"));
            return (None, finding);
        }
    };
    match parsed {
        Ok(catalog) => {
            let attributes: usize = catalog.entities().iter().map(|entity| entity.attributes.len()).sum();
            finding.summary =
                format!("{}: {} entities, {attributes} attributes", path.display(), catalog.entities().len());
            if catalog.entities().is_empty() {
                finding.advice.push("there is no entity, so no table to ask for; add an [[entity]]".to_owned());
            }
            (Some(Arc::new(catalog)), finding)
        }
        Err(faults) => {
            finding.faults.extend(faults.to_string().lines().map(|line| format!("{}: {line}", path.display())));
            (None, finding)
        }
    }
}

fn check_access(path: &Path, catalog: &Catalog) -> Finding {
    let mut finding = Finding { part: "access", ..Finding::default() };
    match Access::read(path, catalog) {
        Ok(access) => finding.summary = format!("{}: {access}", path.display()),
        Err(faults) => finding.faults.extend(faults.to_string().lines().map(str::to_owned)),
    }
    finding
}

async fn check_postgres(config: &Config, entities: &[Arc<Entity>]) -> Finding {
    let mut finding = Finding { part: "postgres", ..Finding::default() };
    let inspected = tokio::time::timeout(LIMIT, inspect_postgres(config, entities, &mut finding)).await;
    match inspected {
        Ok(Ok(())) => {}
        Ok(Err(error)) => finding.faults.push(format!("{error}; see [postgres] and its url")),
        Err(_) => finding.faults.push(format!("no answer within {LIMIT:?}; see [postgres] and its url")),
    }
    // What is wrong with the tables would be said once more.
    if finding.faults.is_empty()
        && let Err(error) = unreadable::check_dirty_rows(&config.postgres, entities, &mut finding).await
    {
        finding.faults.push(format!("dirty rows can't be read: {error}"));
    }
    finding
}

async fn inspect_postgres(
    config: &Config,
    entities: &[Arc<Entity>],
    finding: &mut Finding,
) -> Result<(), crate::postgres::PostgresError> {
    let source = PostgresSource::new(&config.postgres)?;
    let names = &config.postgres.tables;
    let registry = source.table_facts(&names.schema_registry).await?;
    let main = source.table_facts(&names.entity_main).await?;
    let eav = source.table_facts(&names.eav_data).await?;
    let log = source.table_facts(&names.change_log).await?;
    let ids = ["smallint", "integer"].as_slice();
    let text = ["text", "character varying"].as_slice();
    let (big, uuid) = (["bigint"].as_slice(), ["uuid"].as_slice());
    let mut tables = vec![
        ("schema_registry", &names.schema_registry, &registry, vec![("schema_id", ids), ("schema_name", text)]),
        (
            "entity_main",
            &names.entity_main,
            &main,
            vec![
                ("ltbase_schema_id", ids),
                ("ltbase_row_id", uuid),
                ("ltbase_created_at", big),
                ("ltbase_updated_at", big),
                ("ltbase_deleted_at", big),
            ],
        ),
        (
            "eav_data",
            &names.eav_data,
            &eav,
            vec![("schema_id", ids), ("row_id", uuid), ("attr_id", ids), ("array_indices", text)],
        ),
        (
            "change_log",
            &names.change_log,
            &log,
            vec![("schema_id", ids), ("row_id", uuid), ("flushed_at", big), ("changed_at", big), ("deleted_at", big)],
        ),
    ];
    let manifest = source.table_facts(&names.lake_file).await?;
    if config.lake.catalog == LakeCatalog::Manifest {
        let wanted = vec![("schema_id", ids), ("path", text), ("tier", text), ("retired_at", big)];
        tables.push(("lake_file", &names.lake_file, &manifest, wanted));
    }
    if !entities.is_empty() && entities.iter().all(|entity| entity.own_table().is_some()) {
        // Nobody's rows are there.
        tables.retain(|(key, ..)| !matches!(*key, "entity_main" | "eav_data"));
    }
    for (key, name, facts, wanted) in &tables {
        check_table(key, name, facts, wanted, finding);
    }
    own_tables::inspect(&source, entities, finding).await?;
    check_attributes(&source, entities, names, finding).await?;
    check_indexes(&tables_with_keys(names, &main, &eav, &log), finding);
    if log.exists() && !has_dirty_index(&log) {
        finding.advice.push(format!(
            "{0} has no index of dirty rows: each query reads the whole table; CREATE INDEX change_log_dirty ON {0} \
             (schema_id, row_id) WHERE flushed_at = 0",
            names.change_log
        ));
    }
    if registry.exists() {
        let known = source.registry().await?;
        for entity in entities {
            match known.iter().find(|(id, _)| *id == entity.schema_id) {
                None => finding.advice.push(format!(
                    "{} has no row for schema_id {} of entity `{}`; is the id right?",
                    names.schema_registry, entity.schema_id, entity.name
                )),
                Some((_, name)) if *name != entity.name => finding.advice.push(format!(
                    "{} calls schema_id {} `{name}`, the catalog calls it `{}`; {{schema_name}} in a path is the catalog's",
                    names.schema_registry, entity.schema_id, entity.name
                )),
                Some(_) => {}
            }
        }
    }
    finding.summary = format!("{} tables", tables.iter().filter(|(_, _, facts, _)| facts.exists()).count());
    Ok(())
}

fn check_table(key: &str, name: &TableName, facts: &TableFacts, wanted: &[(&str, &[&str])], finding: &mut Finding) {
    if !facts.exists() {
        finding.faults.push(format!(
            "there is no table {name}, or this role may not see it; create it, grant USAGE on its schema, or set \
             postgres.{key}"
        ));
        return;
    }
    for (column, types) in wanted {
        match facts.type_of(column) {
            None => finding.faults.push(format!("{name} has no column {column} ({})", types[0])),
            Some(found) if !types.contains(&found) => {
                finding.faults.push(format!("{name}.{column} is {found}; expected {}", types.join(" or ")));
            }
            Some(_) => {}
        }
    }
}

/// Columns that are missing, or whose values queries and flushes can't read without loss.
async fn check_attributes(
    source: &PostgresSource,
    entities: &[Arc<Entity>],
    names: &config::TableNames,
    finding: &mut Finding,
) -> Result<(), crate::postgres::PostgresError> {
    let snapshot = source.begin().await?;
    let physical = Arc::clone(snapshot.physical());
    snapshot.finish().await?;
    for (entity, attribute) in entities.iter().flat_map(|entity| entity.attributes.iter().map(move |a| (entity, a))) {
        finding.faults.extend(physical.fault(names, entity, attribute, Reader::Statement));
    }
    Ok(())
}

type Keyed<'a> = (&'a TableName, &'a TableFacts, &'static [&'static str]);

fn tables_with_keys<'a>(
    names: &'a config::TableNames,
    main: &'a TableFacts,
    eav: &'a TableFacts,
    log: &'a TableFacts,
) -> [Keyed<'a>; 3] {
    [
        (&names.entity_main, main, &["ltbase_schema_id", "ltbase_row_id"]),
        (&names.eav_data, eav, &["schema_id", "row_id", "attr_id", "array_indices"]),
        (&names.change_log, log, &["schema_id", "row_id", "flushed_at"]),
    ]
}

fn check_indexes(tables: &[Keyed<'_>], finding: &mut Finding) {
    for (name, facts, key) in tables.iter().filter(|(_, facts, _)| facts.exists()) {
        let unique = facts.indexes.iter().any(|index| {
            index.unique
                && index.condition.is_none()
                && index.columns.len() == key.len()
                && key.iter().all(|column| index.columns.iter().any(|found| found == column))
        });
        if !unique {
            finding.faults.push(format!(
                "{name} has no unique index on ({0}): a row could be there twice; ALTER TABLE {name} ADD PRIMARY KEY ({0})",
                key.join(", ")
            ));
        }
    }
}

fn has_dirty_index(log: &TableFacts) -> bool {
    log.indexes.iter().any(|index| {
        let dirty =
            index.condition.as_deref().is_some_and(|condition| condition.replace(['(', ')'], "") == "flushed_at = 0");
        let leads =
            |columns: &[&str]| index.columns.iter().map(String::as_str).take(columns.len()).eq(columns.iter().copied());
        (dirty && leads(&["schema_id"])) || leads(&["schema_id", "flushed_at"]) || leads(&["flushed_at", "schema_id"])
    })
}

async fn check_lake(config: &Config, catalog: Option<&Arc<Catalog>>) -> Finding {
    let mut finding = Finding { part: "lake", ..Finding::default() };
    // What is missing for DuckDB is told there.
    let spill = tempfile::Builder::new().prefix("thermocline-check-").tempdir().ok();
    let reader = match &spill {
        Some(spill) => files::FileReader::open(config, spill.path()).await,
        None => None,
    };
    match tokio::time::timeout(LIMIT, inspect_lake(config, catalog, reader.as_ref(), &mut finding)).await {
        Ok(Ok(readable)) => {
            if let Some(reader) = reader {
                let faults = reader.look_into(readable, &mut finding.advice).await;
                name_files(faults, &mut finding.faults);
            }
        }
        Ok(Err(error)) => finding.faults.push(format!("{error}; see [lake]")),
        Err(_) => finding.faults.push(format!("no answer within {LIMIT:?}; see [lake] and its url")),
    }
    finding
}

async fn inspect_lake(
    config: &Config,
    catalog: Option<&Arc<Catalog>>,
    reader: Option<&files::FileReader>,
    finding: &mut Finding,
) -> Result<Vec<(Arc<Entity>, Vec<LakeFile>)>, crate::lake::LakeError> {
    let lake = match reader {
        Some(reader) => reader.lake.clone(),
        None => Lake::open(&config.lake)?,
    };
    lake.probe().await?;
    finding.summary = config.lake.url.to_string();
    let Some(catalog) = catalog else { return Ok(Vec::new()) };
    let shape = match ShapeDatabase::new(Arc::clone(catalog)) {
        Ok(shape) => Arc::new(shape),
        // What DuckDB is missing is told there.
        Err(_) => return Ok(Vec::new()),
    };
    let (mut total, mut faulty, mut readable) = (0, Vec::new(), Vec::new());
    for entity in catalog.entities() {
        let listing = lake.list(entity).await?;
        total += listing.files.len();
        let mut files: Vec<LakeFile> = Vec::new();
        for file in listing.files {
            match lake.files(&Listing { files: vec![file] }).await {
                Ok(read) => files.extend(read),
                Err(error) => faulty.push(error.to_string()),
            }
        }
        let mut sound = files.clone();
        match file_faults(&shape, entity, &files, &config.postgres.tables) {
            Ok(faults) => {
                // What is wrong by its footer needn't be read to say so again.
                sound.retain(|file| faults.iter().all(|(path, _)| *path != file.path));
                faulty.extend(faults.into_iter().map(|(_, fault)| fault));
            }
            Err(error) => faulty.push(error.to_string()),
        }
        let deltas = files.iter().filter(|file| file.tier == Tier::Warm).count();
        if deltas > MANY_DELTA_FILES {
            finding.advice.push(format!(
                "`{}` has {deltas} delta files, and each query opens those it needs; run `thermocline compact`",
                entity.name
            ));
        }
        let blind = files.iter().filter(|file| file.row_id_range.is_none() || file.changed_at_range.is_none()).count();
        if blind > 0 {
            finding.advice.push(format!(
                "{blind} files of `{}` have no statistics of row_id or changed_at: no file can be left out and versions \
                 are merged the slow way; write them with statistics",
                entity.name
            ));
        }
        readable.push((Arc::clone(entity), sound));
    }
    finding.summary += &format!(": {total} files of {} entities", catalog.entities().len());
    name_files(faulty, &mut finding.faults);
    Ok(readable)
}

/// Names faulty files, as many as one can read of.
fn name_files(faulty: Vec<String>, faults: &mut Vec<String>) {
    let more = faulty.len().saturating_sub(NAMED_FILES);
    faults.extend(faulty.into_iter().take(NAMED_FILES));
    if more > 0 {
        faults.push(format!("{more} more files are faulty"));
    }
}

fn check_duckdb(config: &Config) -> Finding {
    let mut finding = Finding { part: "duckdb", ..Finding::default() };
    let spill = match tempfile::Builder::new().prefix("thermocline-check-").tempdir() {
        Ok(spill) => spill,
        Err(error) => {
            finding.faults.push(format!("no directory for temporary files: {error}; set TMPDIR"));
            return finding;
        }
    };
    if let Some(directory) = &config.duckdb.temp_directory
        && let Err(error) = std::fs::create_dir_all(directory)
    {
        finding.faults.push(format!("duckdb.temp_directory {} can't be made: {error}", directory.display()));
    }
    let settings = engine_settings(config, spill.path(), None);
    let asked = Engine::open(&settings).and_then(|engine| engine.connect()?.query("SELECT 1"));
    match asked {
        Ok(_) => finding.summary = "runs".to_owned(),
        Err(error) => finding.faults.push(format!(
            "{}; for an s3:// lake, duckdb.extension_directory must hold the httpfs extension",
            error.to_string().lines().next().unwrap_or_default()
        )),
    }
    finding
}

fn engine_settings(config: &Config, temp_directory: &Path, credentials: Option<S3Credentials>) -> EngineSettings {
    let lake = match &config.lake.url {
        LakeUrl::Local(directory) => LakeAccess::Folder(directory.display().to_string()),
        LakeUrl::S3 { .. } => LakeAccess::S3 { prefix: config.lake.url.to_string(), credentials },
    };
    EngineSettings {
        memory_limit: config.duckdb.memory_limit.clone(),
        threads: config.duckdb.threads,
        temp_directory: temp_directory.to_owned(),
        temp_directory_limit: config.duckdb.temp_directory_limit.clone(),
        extension_directory: config.duckdb.extension_directory.clone(),
        lake,
    }
}
