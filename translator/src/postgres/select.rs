//! A SELECT as a value: its clauses are filled in wherever they are known, and printed once.

use std::fmt::{self, Display};

/// One SELECT of PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Select {
    shown: Vec<String>,
    pub(crate) from: String,
    /// All of them must hold.
    conditions: Vec<String>,
    order: Vec<String>,
    limit: Option<u64>,
    offset: u64,
}

impl Select {
    pub(crate) fn new(shown: impl IntoIterator<Item = String>, from: String) -> Self {
        Self {
            shown: shown.into_iter().collect(),
            from,
            conditions: Vec::new(),
            order: Vec::new(),
            limit: None,
            offset: 0,
        }
    }

    /// Adds an output column.
    pub(crate) fn show(&mut self, expression: String) {
        self.shown.push(expression);
    }

    /// Adds a condition.
    pub(crate) fn filter(&mut self, condition: String) {
        self.conditions.push(condition);
    }

    /// Adds a key of the order, after those that are there.
    pub(crate) fn order_by(&mut self, key: String) {
        self.order.push(key);
    }

    /// Cuts the rows.
    pub(crate) fn cut(&mut self, limit: Option<u64>, offset: u64) {
        (self.limit, self.offset) = (limit, offset);
    }
}

impl Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SELECT {} FROM {}", self.shown.join(", "), self.from)?;
        if !self.conditions.is_empty() {
            write!(f, " WHERE {}", self.conditions.join(" AND "))?;
        }
        if !self.order.is_empty() {
            write!(f, " ORDER BY {}", self.order.join(", "))?;
        }
        if let Some(limit) = self.limit {
            write!(f, " LIMIT {limit}")?;
        }
        if self.offset > 0 {
            write!(f, " OFFSET {}", self.offset)?;
        }
        Ok(())
    }
}
