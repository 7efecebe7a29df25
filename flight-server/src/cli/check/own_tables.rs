//! What `check` finds out about entities with tables of their own: the table, the types behind its attributes, its key, and
//! whether every change of it is entered in the change log.

use std::sync::Arc;

use translator::catalog::print::type_name;
use translator::catalog::{Entity, OwnTable, Storage};
use translator::postgres::{TableNames, Truncate, cursor_ddl, cursor_fingerprint_sql, tracking_ddl, trigger};
use translator::quote::TableName;

use super::Finding;
use crate::init::{column_type, reads_as, tracking};
use crate::postgres::{FoundTable, PostgresError, PostgresSource, TableKind};

/// Checks every entity with a table of its own.
pub(super) async fn inspect(
    source: &PostgresSource,
    entities: &[Arc<Entity>],
    finding: &mut Finding,
) -> Result<(), PostgresError> {
    let own: Vec<(&Entity, &OwnTable)> =
        entities.iter().filter_map(|entity| Some((entity.as_ref(), entity.own_table()?))).collect();
    if own.is_empty() {
        return Ok(());
    }
    let tables = source.bookkeeping_tables().await?;
    let found = source.found_tables().await?;
    for (entity, table) in own {
        let matching = found.iter().find(|found| table.name == format!("{}.{}", found.schema, found.name));
        let Some(found) = matching else {
            finding.faults.push(format!(
                "there is no table {}, which holds the rows of `{}`, or this role may not see it; the catalog names it with \
                 its schema",
                table.name, entity.name
            ));
            continue;
        };
        check_columns(entity, table, found, finding);
        if found.kind == TableKind::View {
            finding.advice.push(format!(
                "{} is a view: whether the key of `{}` is unique there, and whether changes of its rows are entered in {}, only \
                 who maintains it knows",
                table.name, entity.name, tables.change_log
            ));
        } else {
            check_key(entity, table, found, finding);
            check_triggers(source, &tables, entity, table, found, finding).await?;
        }
        if !source.is_backfilled(&tables, entity).await? {
            finding.advice.push(format!(
                "rows that were in {} before it was tracked are not all entered, so `{}` lacks them; thermocline init \
                 --backfill",
                table.name, entity.name
            ));
        }
    }
    if source.cursor_fingerprint(&cursor_fingerprint_sql(&tables)).await?.is_none() {
        finding.advice.push(format!(
            "{} has no whole cursor: what changed is found by reading all dirty rows; thermocline init --apply, or these \
             statements:\n{};",
            tables.change_log,
            cursor_ddl(&tables).join(";\n")
        ));
    }
    Ok(())
}

fn check_columns(entity: &Entity, table: &OwnTable, found: &FoundTable, finding: &mut Finding) {
    for attribute in &entity.attributes {
        let Storage::Own { column } = &attribute.storage else { continue };
        let of = format!("attribute `{}` of `{}`", attribute.name, entity.name);
        let Some(known) = found.columns.iter().find(|known| known.name == *column) else {
            finding.faults.push(format!(
                "{} has no column {column}, where {of} is kept; take the attribute out of the catalog, or bring the column \
                 back",
                table.name
            ));
            continue;
        };
        let fits =
            column_type(known).is_ok_and(|(scalar, list)| list == attribute.list && reads_as(scalar, attribute.scalar));
        if !fits {
            let list = if attribute.list { "[]" } else { "" };
            finding.faults.push(format!(
                "{}.{column}, where {of} is kept, is {}; the catalog says {}{list}: give the new type to an attribute of \
                 another name",
                table.name,
                known.type_text,
                type_name(attribute.scalar)
            ));
        }
    }
}

fn check_key(entity: &Entity, table: &OwnTable, found: &FoundTable, finding: &mut Finding) {
    let key: Vec<&str> = table.key.iter().map(|key| key.column.as_str()).collect();
    let is_key = found.key.as_ref().is_some_and(|found| {
        found.columns.len() == key.len() && found.columns.iter().all(|column| key.contains(&column.as_str()))
    });
    if !is_key {
        let known = found.key.as_ref().map_or("none".to_owned(), |key| key.columns.join(", "));
        finding.faults.push(format!(
            "the key of {} is {known}, and the catalog says {} for `{}`: rows could be taken for each other; ALTER TABLE {} \
             ADD PRIMARY KEY ({})",
            table.name,
            key.join(", "),
            entity.name,
            TableName(&table.name),
            key.join(", ")
        ));
    }
}

async fn check_triggers(
    source: &PostgresSource,
    tables: &TableNames,
    entity: &Entity,
    table: &OwnTable,
    found: &FoundTable,
    finding: &mut Finding,
) -> Result<(), PostgresError> {
    let (row, truncate) = (trigger(entity, "row"), trigger(entity, "truncate"));
    let firing = source.firing(&TableName(&table.name).to_string(), &row, &truncate).await?;
    let silent: Vec<&str> = firing.iter().filter(|firing| !firing.row).map(|firing| firing.table.as_str()).collect();
    let truncated: Vec<&str> =
        firing.iter().filter(|firing| !firing.truncate).map(|firing| firing.table.as_str()).collect();
    if !silent.is_empty() {
        finding.faults.push(format!(
            "changes of {} are not entered in the change log: the trigger {row} doesn't fire always there; thermocline init \
             --apply, or these statements:\n{};",
            silent.join(", "),
            tracking_ddl(tables, entity, table, &tracking(found, Truncate::Refused)).join(";\n")
        ));
    } else if !truncated.is_empty() {
        finding.faults.push(format!(
            "TRUNCATE of {} would leave its rows in the lake: the trigger {truncate} doesn't fire always there; thermocline \
             init --apply",
            truncated.join(", ")
        ));
    }
    Ok(())
}
