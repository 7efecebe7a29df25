//! The three files that `init` writes.

use translator::catalog::print::{attribute_toml, entity_toml, quoted};
use translator::catalog::{Attribute, Entity, OwnTable, PrimaryKeys};
use translator::postgres::{
    TableNames, Tracking, Truncate, bookkeeping_ddl, bookkeeping_removal, cursor_ddl, cursor_removal, tracking_ddl,
    tracking_removal,
};

use translator::quote::Ident;

use super::choose::{Choice, LeftOut};
use crate::config::TableName;
use crate::postgres::{FoundTable, manifest_ddl};

/// A new `thermocline.toml`. `schema` is where the bookkeeping tables are.
pub(super) fn config_toml(url: &str, lake: &str, schema: Option<&str>, is_eav: bool) -> String {
    let mut text = format!(
        "# Written by `thermocline init`; docs/configuration.md has every key. A password can come from the environment\n\
         # instead: THERMOCLINE__POSTGRES__URL.\n\n[postgres]\nurl = {}\n",
        quoted(url)
    );
    if let Some(schema) = schema {
        text.push_str("# Thermocline's own tables; those of the application stay where they are.\n");
        for table in ["schema_registry", "change_log", "lake_file"] {
            text.push_str(&format!("{table} = {}\n", quoted(&format!("{schema}.{table}"))));
        }
    }
    text.push_str(&format!("\n[lake]\nurl = {}\n", quoted(lake)));
    if !is_eav {
        text.push_str("# The table lake_file knows the files, so that a query and a flush can never disagree.\ncatalog = \"manifest\"\n");
    }
    text.push_str("\n[catalog]\npath = \"catalog.toml\"\n");
    text
}

/// The catalog file after this run: what is there stays as it is, what is new is added where it belongs.
pub(super) fn catalog_toml(before: Option<&str>, keys: &PrimaryKeys, choice: &Choice) -> String {
    let mut text = match before {
        Some(before) => with_attributes(before, keys, &choice.added),
        None => "# Written by `thermocline init`: the tables that queries see. Running it again adds what is new and changes\n\
                 # nothing else; rename entities and attributes, or take them out, as you like.\n"
            .to_owned(),
    };
    for entity in &choice.new {
        if !text.ends_with("\n\n") {
            text.push('\n');
        }
        text.push_str(&entity_toml(entity));
        for left_out in choice.left_out.iter().filter(|left_out| left_out.of_entity.as_ref() == Some(&entity.name)) {
            text.push_str(&left_out_comment(left_out));
        }
    }
    if before.is_none() {
        for left_out in choice.left_out.iter().filter(|left_out| left_out.of_entity.is_none()) {
            text.push_str(&format!("\n{}", left_out_comment(left_out)));
        }
    }
    text
}

fn left_out_comment(left_out: &LeftOut) -> String {
    format!("# left out: {}: {}\n", left_out.what, left_out.why.replace('\n', " "))
}

/// Adds attributes to entities of a catalog file, each at the end of its entity.
fn with_attributes(text: &str, keys: &PrimaryKeys, added: &[(String, Attribute)]) -> String {
    if added.is_empty() {
        return text.to_owned();
    }
    let mut parts: Vec<String> = Vec::new();
    for line in text.split_inclusive('\n') {
        let starts = line.trim_start().starts_with("[[entity]]");
        match parts.last_mut() {
            Some(part) if !starts => part.push_str(line),
            _ => parts.push(line.to_owned()),
        }
    }
    for part in &mut parts {
        let Ok(catalog) = translator::catalog::Catalog::parse_with_keys(part, keys) else { continue };
        let [entity] = catalog.entities() else { continue };
        for (_, attribute) in added.iter().filter(|(name, _)| *name == entity.name) {
            let trimmed = part.trim_end().len();
            let rest = part.split_off(trimmed);
            part.push_str(&format!("\n\n{}", attribute_toml(attribute)));
            part.push_str(rest.strip_prefix('\n').unwrap_or(&rest));
        }
    }
    parts.concat()
}

/// How the table of an entity is tracked.
pub(crate) fn tracking(table: &FoundTable, truncate: Truncate) -> Tracking {
    Tracking {
        partitions: table.partitions.clone(),
        has_deferrable_key: table.key.as_ref().is_some_and(|key| key.is_deferrable),
        truncate,
    }
}

/// `setup.sql`: one transaction, which can run again without harm.
pub(super) fn setup_sql(
    tables: &TableNames,
    manifest: Option<&TableName>,
    tracked: &[(Entity, FoundTable)],
    truncate: Truncate,
) -> String {
    let mut sql = Script::new(
        "-- Written by `thermocline init`. It makes Thermocline's own tables and, on each table of an entity, the triggers \
         that\n-- enter changes in the change log. It can run again without harm; `thermocline init --remove` takes all of \
         it away.\n-- A table that is being written holds it up, and it holds up that table's writers until it commits: it \
         gives up\n-- after the lock timeout, and then has done nothing.\n",
    );
    sql.plain("BEGIN");
    sql.plain("SET LOCAL lock_timeout = '10s'");
    sql.plain("SET LOCAL client_min_messages = warning");
    let own: Vec<(&Entity, &OwnTable, &FoundTable)> =
        tracked.iter().filter_map(|(entity, found)| Some((entity, entity.own_table()?, found))).collect();
    if !own.is_empty() {
        sql.topic("Thermocline's own tables, and the functions that make row ids of keys.");
        sql.all(bookkeeping_ddl(tables));
    }
    if let Some(manifest) = manifest {
        sql.topic("The files of the lake.");
        sql.plain(&manifest_ddl(manifest));
    }
    sql.topic("The cursor: what changed since a moment is found by an index.");
    sql.all(cursor_ddl(tables));
    for (entity, table, found) in own {
        sql.topic(&format!("{} as `{}`.", table.name, entity.name));
        sql.all(tracking_ddl(tables, entity, table, &tracking(found, truncate)));
    }
    sql.plain("COMMIT");
    sql.text
}

/// What takes everything of `setup.sql` away again.
pub(super) fn removal_sql(tables: &TableNames, tracked: &[(Entity, FoundTable)], keeps_log: bool) -> String {
    let mut sql = Script::new("");
    sql.plain("BEGIN");
    sql.plain("SET LOCAL lock_timeout = '10s'");
    sql.plain("SET LOCAL client_min_messages = warning");
    for (entity, found) in tracked {
        let Some(table) = entity.own_table() else { continue };
        sql.all(tracking_removal(tables, entity, table, &tracking(found, Truncate::Refused)));
    }
    // A change log that entity_main's rows are in belongs to the application.
    sql.all(if keeps_log { cursor_removal(tables) } else { bookkeeping_removal(tables) });
    if let (Some((schema, _)), false) = (tables.change_log.split_once('.'), keeps_log) {
        // Only when nothing else is in it.
        sql.plain(&format!(
            "DO $do$ BEGIN DROP SCHEMA IF EXISTS {}; EXCEPTION WHEN dependent_objects_still_exist THEN NULL; END $do$",
            Ident(schema)
        ));
    }
    sql.plain("COMMIT");
    sql.text
}

struct Script {
    text: String,
}

impl Script {
    fn new(header: &str) -> Self {
        Self { text: header.to_owned() }
    }

    fn topic(&mut self, topic: &str) {
        self.text.push_str(&format!("\n-- {}\n", topic.replace('\n', " ")));
    }

    fn plain(&mut self, statement: &str) {
        self.text.push_str(statement);
        self.text.push_str(";\n");
    }

    fn all(&mut self, statements: Vec<String>) {
        for statement in statements {
            self.plain(&statement);
        }
    }
}
