//! Dirty rows with values that don't fit their declared types: queries of those attributes fail, and flush leaves the rows.

use std::sync::Arc;

use tokio::time::Instant;
use translator::catalog::Entity;

use super::{Finding, LIMIT};
use crate::config::PostgresConfig;
use crate::postgres::{PostgresError, PostgresSource, UnreadableRows};

/// Reads every dirty row as a flush would, and says which can't be read.
pub(super) async fn check_dirty_rows(
    config: &PostgresConfig,
    entities: &[Arc<Entity>],
    finding: &mut Finding,
) -> Result<(), PostgresError> {
    let source = PostgresSource::new(config)?;
    let until = Instant::now() + LIMIT;
    for entity in entities {
        match tokio::time::timeout_at(until, source.unreadable_rows(entity)).await {
            Ok(found) => {
                if let Some(UnreadableRows { count, first }) = found? {
                    finding.faults.push(format!(
                        "{count} dirty rows of `{}` can't be read, and flush leaves them dirty; the first: {}",
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
