//! `thermocline restore`: rows of the lake come back into PostgreSQL, for an application that must update them.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::Context;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use indicatif::HumanCount;
use translator::catalog::{Attribute, Entity, ScalarType, Storage};
use translator::quote::{Ident, timestamp_text};
use uuid::Uuid;

use super::lake::LakeQueries;
use super::own_table;
use crate::writer::{Writer, say};

/// Bring rows that are in the lake alone back into their PostgreSQL table.
///
/// Rows that PostgreSQL has already stay as they are there. The rows count as flushed until somebody changes them.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// The entity.
    pub entity: String,
    /// Which rows, as a condition in SQL over the entity's columns: `id = 7`, `customer = 'x'`.
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: String,
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "thermocline.toml")]
    pub config: PathBuf,
    /// Say how many rows of the lake meet the condition, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

impl RestoreArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// A configuration that is wrong, a condition that is no SQL, a source that fails, a row that the table refuses.
    pub async fn run(self) -> anyhow::Result<()> {
        let writer = Writer::open(&self.config).await?;
        let entities = writer.entities(std::slice::from_ref(&self.entity))?;
        let entity = entities.first().context("there is no entity")?;
        let table = own_table(entity)?;
        let queries = LakeQueries::start(&writer.config, &writer.catalog).await?;
        let mut session = writer.postgres.write_session().await?;
        let written = session.written_columns(table).await?;
        let attributes: Vec<(&Attribute, &str)> = entity
            .attributes
            .iter()
            .filter_map(|attribute| match &attribute.storage {
                Storage::Own { column } if written.contains(column) => Some((attribute, column.as_str())),
                Storage::Own { .. } | Storage::Main { .. } | Storage::Eav { .. } => None,
            })
            .collect();
        let columns: Vec<&str> = attributes.iter().map(|(_, column)| *column).collect();
        let (mut found, mut restored) = (0_u64, 0_u64);
        queries
            .each_batch(self.sql(entity, &attributes), "hot,warm,cold", async |batch| {
                found += batch.num_rows() as u64;
                if !self.dry_run {
                    let (rows, versions) = rows_of(&batch, &attributes)?;
                    restored += session.restore(entity, table, &columns, &rows, &versions).await?;
                }
                Ok(())
            })
            .await?;
        session.end().await?;
        if self.dry_run {
            return say(&format!("{}: {} rows of the lake meet the condition", entity.name, HumanCount(found)));
        }
        say(&format!(
            "{}: {} rows came back; {} were there already",
            entity.name,
            HumanCount(restored),
            HumanCount(found.saturating_sub(restored))
        ))
    }

    fn sql(&self, entity: &Entity, attributes: &[(&Attribute, &str)]) -> String {
        let names: Vec<String> = attributes.iter().map(|(attribute, _)| Ident(&attribute.column).to_string()).collect();
        format!(
            "SELECT row_id, updated_at, {} FROM {} WHERE ({}) AND _tier <> 'hot'",
            names.join(", "),
            Ident(&entity.name),
            self.condition
        )
    }
}

/// The rows of a batch as JSON texts by the table's column names, and their versions by their ids.
fn rows_of(
    batch: &RecordBatch,
    attributes: &[(&Attribute, &str)],
) -> anyhow::Result<(Vec<String>, HashMap<Uuid, i64>)> {
    let ids = batch.column(0).as_string_opt::<i32>().context("row ids came as something else than text")?;
    let changed = batch
        .column(1)
        .as_primitive_opt::<TimestampMicrosecondType>()
        .context("`updated_at` came as something else than a timestamp")?;
    let mut rows = Vec::with_capacity(batch.num_rows());
    let mut versions = HashMap::new();
    for row in 0..batch.num_rows() {
        versions.insert(Uuid::try_parse(ids.value(row))?, changed.value(row).div_euclid(1000));
        let mut text = String::from("{");
        for (place, (attribute, column)) in attributes.iter().enumerate() {
            if place > 0 {
                text.push(',');
            }
            text.push_str(&serde_json::to_string(column)?);
            text.push(':');
            text.push_str(&value_json(batch.column(place + 2), row, attribute)?);
        }
        text.push('}');
        rows.push(text);
    }
    Ok((rows, versions))
}

/// A value as JSON: a text that PostgreSQL reads as the column's type, JSON as itself, a list as an array.
fn value_json(array: &ArrayRef, row: usize, attribute: &Attribute) -> anyhow::Result<String> {
    if array.is_null(row) {
        return Ok("null".to_owned());
    }
    if let Some(list) = array.as_list_opt::<i32>() {
        let elements = list.value(row);
        let texts: anyhow::Result<Vec<String>> =
            (0..elements.len()).map(|element| scalar_json(&elements, element, attribute)).collect();
        return Ok(format!("[{}]", texts?.join(",")));
    }
    scalar_json(array, row, attribute)
}

fn scalar_json(array: &ArrayRef, row: usize, attribute: &Attribute) -> anyhow::Result<String> {
    if array.is_null(row) {
        return Ok("null".to_owned());
    }
    let text = match array.as_primitive_opt::<TimestampMicrosecondType>() {
        // Arrow prints moments with a zone only by a table of zones.
        Some(moments) if attribute.scalar == ScalarType::Timestamp => {
            format!("{}+00", timestamp_text(moments.value(row)))
        }
        _ => ArrayFormatter::try_new(array.as_ref(), &FormatOptions::default())?.value(row).try_to_string()?,
    };
    Ok(match attribute.scalar {
        // As it is: another text of the same value would be another value of a `json` column.
        ScalarType::Json if !attribute.list => text,
        ScalarType::Blob => serde_json::to_string(&format!("\\x{text}"))?,
        _ => serde_json::to_string(&text)?,
    })
}
