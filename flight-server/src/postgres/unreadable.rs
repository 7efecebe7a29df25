//! Dirty rows with values that don't fit their declared types: queries of those attributes fail, and flush leaves the rows.

use futures::TryStreamExt;
use translator::catalog::Entity;
use translator::postgres::{DirtySelection, flush_statement};

use super::{PostgresError, PostgresSource, UnreadableRow};

/// The unreadable ones among an entity's dirty rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableRows {
    pub count: u64,
    pub first: UnreadableRow,
}

impl PostgresSource {
    /// Reads every dirty row as a flush would; `None`: all can be read.
    ///
    /// # Errors
    /// PostgreSQL, or columns that can't be read at all.
    pub async fn unreadable_rows(&self, entity: &Entity) -> Result<Option<UnreadableRows>, PostgresError> {
        let statement = flush_statement(&self.tables().plain(), entity, DirtySelection::default());
        let mut snapshot = self.begin().await?;
        let mut rows = snapshot.hot_rows(&statement.sql, entity, &statement.columns).await?;
        rows.leave_unreadable_out();
        let mut first = None;
        while rows.try_next().await?.is_some() {
            first = first.or(rows.take_unreadable().into_iter().next());
        }
        first = first.or(rows.take_unreadable().into_iter().next());
        let count = rows.summary().unreadable_rows;
        snapshot.finish().await?;
        Ok(first.map(|first| UnreadableRows { count, first }))
    }
}
