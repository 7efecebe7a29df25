//! The queries that `system.queries` shows.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value as Json;

/// Queries that are remembered.
const CAPACITY: usize = 256;

/// One query that runs or has ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct QueryEntry {
    pub(crate) query_id: String,
    /// Who asked.
    pub(crate) principal: String,
    pub(crate) sql: String,
    /// Unix milliseconds.
    pub(crate) started_at: i64,
    /// `running`, `finished`, `failed` or `cancelled`.
    pub(crate) state: &'static str,
    /// Since the start, the time in the queue and the client's speed included.
    pub(crate) total_ms: Option<f64>,
    pub(crate) rows: u64,
    pub(crate) error_kind: Option<&'static str>,
    pub(crate) error: Option<String>,
    /// With `execution` once the query has finished.
    pub(crate) plan: Option<Arc<Json>>,
}

#[derive(Debug, Default)]
pub(super) struct RecentQueries(VecDeque<Arc<QueryEntry>>);

impl RecentQueries {
    /// Puts a query in, in the place of its earlier state.
    pub(super) fn put(&mut self, entry: QueryEntry) {
        let entry = Arc::new(entry);
        match self.0.iter_mut().rev().find(|known| known.query_id == entry.query_id) {
            Some(known) => *known = entry,
            None => {
                if self.0.len() == CAPACITY {
                    // Running queries stay, whatever their age.
                    let oldest = self.0.iter().position(|entry| entry.state != "running").unwrap_or(0);
                    self.0.remove(oldest);
                }
                self.0.push_back(entry);
            }
        }
    }

    pub(super) fn newest_first(&self) -> Vec<Arc<QueryEntry>> {
        self.0.iter().rev().cloned().collect()
    }
}
