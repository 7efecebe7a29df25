//! Names in scope: WITH names, FROM sources, and how a column path resolves among them.

use std::collections::HashSet;
use std::sync::Arc;

use crate::catalog::{Column, Entity};

/// Names of WITH clauses in force, with their output columns.
#[derive(Debug, Clone, Default)]
pub(super) struct CteScope(Vec<(String, Output)>);

/// Output columns of a query; `None` when they aren't known.
pub(super) type Output = Option<Vec<OutputColumn>>;

/// A column that a query or a table offers.
#[derive(Debug, Clone)]
pub(super) struct OutputColumn {
    pub(super) name: String,
    /// Where it comes from, when it is a column of a reference handed through unchanged; of a set operation, one column
    /// of each branch. Empty for anything else.
    pub(super) origins: Vec<Origin>,
}

/// A column of a reference, seen through subqueries and WITH clauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    /// Index of the reference.
    pub(super) index: usize,
    pub(super) column: Column,
    /// What a filter on the outer column may filter of the reference.
    pub(super) push: PushRule,
}

/// A source in a FROM clause.
#[derive(Debug, Clone)]
pub(super) struct FromItem {
    pub(super) alias: String,
    /// The schema of a table; a subquery or a WITH query is in none.
    pub(super) schema: Option<&'static str>,
    pub(super) columns: Output,
    pub(super) source: Source,
    /// What a WHERE clause may filter before the joins.
    pub(super) push: PushRule,
    /// Whether its columns can be named after the FROM clause (not the right side of SEMI and ANTI joins).
    pub(super) visible: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Source {
    Reference { index: usize, entity: Arc<Entity>, renamed: bool },
    Derived,
}

/// Whether a filter on one source may run before the joins of its FROM clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PushRule {
    Always,
    /// The source is padded with NULLs by an outer join: only filters that no NULL row passes.
    NullRejecting,
    Never(&'static str),
}

/// The FROM sources of a SELECT and of the queries around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scopes<'a> {
    items: &'a [FromItem],
    outer: Option<&'a Scopes<'a>>,
}

impl CteScope {
    pub(super) fn add(&mut self, name: &str, columns: Output) {
        self.0.push((name.to_owned(), columns));
    }

    pub(super) fn get(&self, name: &str) -> Option<&Output> {
        self.0.iter().rev().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, columns)| columns)
    }
}

impl FromItem {
    pub(super) fn derived(alias: &str, columns: Output) -> Self {
        let source = Source::Derived;
        Self { alias: alias.to_owned(), schema: None, columns, source, push: PushRule::Always, visible: true }
    }

    pub(super) fn becomes_nullable(&mut self) {
        self.push = self.push.and(PushRule::NullRejecting);
    }

    /// The column of a reference behind each known column.
    pub(super) fn origins(&self) -> impl Iterator<Item = Origin> + '_ {
        self.columns.iter().flatten().flat_map(|column| column.origins.iter().copied())
    }
}

impl PushRule {
    /// The stricter of two rules.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Never(why), _) | (_, Self::Never(why)) => Self::Never(why),
            (Self::NullRejecting, _) | (_, Self::NullRejecting) => Self::NullRejecting,
            (Self::Always, Self::Always) => Self::Always,
        }
    }
}

impl OutputColumn {
    pub(super) fn computed(name: impl Into<String>) -> Self {
        Self { name: name.into(), origins: Vec::new() }
    }
}

/// Columns of which two have one name: DuckDB renames the later ones, so no name is certain to stay what it is.
pub(super) fn has_duplicates(columns: &[OutputColumn]) -> bool {
    let mut seen = HashSet::new();
    columns.iter().any(|column| !column.name.is_empty() && !seen.insert(column.name.to_ascii_lowercase()))
}

impl<'a> Scopes<'a> {
    pub(super) fn none() -> Self {
        Self { items: &[], outer: None }
    }

    pub(super) fn inner<'b>(&'b self, items: &'b [FromItem]) -> Scopes<'b>
    where
        'a: 'b,
    {
        Scopes { items, outer: Some(self) }
    }

    pub(super) fn innermost(&self) -> &'a [FromItem] {
        self.items
    }

    /// All sources, the innermost first.
    pub(super) fn items(&self) -> impl Iterator<Item = &'a FromItem> {
        let mut scope = Some(*self);
        std::iter::from_fn(move || {
            let current = scope?;
            scope = current.outer.copied();
            Some(current.items.iter())
        })
        .flatten()
    }

    /// Whether a table of this schema is called so.
    pub(super) fn has_table(&self, schema: &str, alias: &str) -> bool {
        self.items().any(|item| {
            item.schema.is_some_and(|own| own.eq_ignore_ascii_case(schema)) && item.alias.eq_ignore_ascii_case(alias)
        })
    }

    pub(super) fn has_alias(&self, alias: &str) -> bool {
        self.items().any(|item| item.alias.eq_ignore_ascii_case(alias))
    }
}

/// The source that a path certainly means, and the columns of references behind it.
pub(super) fn resolve<'a>(path: &[&str], items: &'a [FromItem]) -> Option<(&'a FromItem, &'a [Origin])> {
    let has = |item: &FromItem, name: &str| {
        item.columns.as_ref().map(|columns| columns.iter().any(|column| column.name.eq_ignore_ascii_case(name)))
    };
    let (item, name) = match path {
        [name] => {
            let mut found = None;
            for item in items {
                match has(item, name) {
                    Some(false) => {}
                    Some(true) if found.is_none() => found = Some(item),
                    // Two candidates, or a source of unknown columns: not certain.
                    Some(true) | None => return None,
                }
            }
            (found?, *name)
        }
        [alias, name] => {
            let mut named = items.iter().filter(|item| item.alias.eq_ignore_ascii_case(alias));
            let item = named.next()?;
            if named.next().is_some() || has(item, name) == Some(false) {
                return None;
            }
            // `alias` may also be a struct column of another source.
            if items.iter().any(|other| has(other, alias) != Some(false) && !std::ptr::eq(other, item)) {
                return None;
            }
            (item, *name)
        }
        _ => return None,
    };
    let columns = item.columns.as_deref().unwrap_or_default();
    let column = columns.iter().find(|column| column.name.eq_ignore_ascii_case(name));
    Some((item, column.map_or(&[], |column| &column.origins)))
}
