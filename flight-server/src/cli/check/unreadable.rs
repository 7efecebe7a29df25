//! Dirty rows with values that don't fit their declared types: queries of those attributes fail, and flush leaves the rows.

use std::sync::Arc;

use futures::TryStreamExt;
use tokio::time::Instant;
use translator::catalog::Entity;
use translator::postgres::{DirtySelection, TableNames, flush_statement};

use super::{Finding, LIMIT};
use crate::config::PostgresConfig;
use crate::postgres::{PostgresError, PostgresSource, UnreadableRow};

/// Reads every dirty row as a flush would, and says which can't be read.
pub(super) async fn check_dirty_rows(
    config: &PostgresConfig,
    entities: &[Arc<Entity>],
    finding: &mut Finding,
) -> Result<(), PostgresError> {
    let (source, tables) = (PostgresSource::new(config)?, config.tables.plain());
    let until = Instant::now() + LIMIT;
    for entity in entities {
        match tokio::time::timeout_at(until, unreadable_rows(&source, entity, &tables)).await {
            Ok(found) => {
                let (rows, first) = found?;
                if let Some(first) = first {
                    finding.faults.push(format!(
                        "{rows} dirty rows of `{}` can't be read, and flush leaves them dirty; the first: {}",
                        entity.name, first.message
                    ));
                }
            }
            Err(_) => finding.advice.push(format!(
                "the dirty rows of `{}` were not all read within {LIMIT:?}; run `thermocline flush`",
                entity.name
            )),
        }
    }
    Ok(())
}

/// How many rows can't be read, and the first of them.
async fn unreadable_rows(
    source: &PostgresSource,
    entity: &Entity,
    tables: &TableNames,
) -> Result<(u64, Option<UnreadableRow>), PostgresError> {
    let statement = flush_statement(tables, entity, DirtySelection::default());
    let mut snapshot = source.begin().await?;
    let mut rows = snapshot.hot_rows(&statement.sql, entity, &statement.columns).await?;
    rows.leave_unreadable_out();
    let mut first = None;
    while rows.try_next().await?.is_some() {
        first = first.or(rows.take_unreadable().into_iter().next());
    }
    let count = rows.summary().unreadable_rows;
    snapshot.finish().await?;
    Ok((count, first))
}
