//! Names in scope: WITH names, FROM sources, and how a column path resolves among them.

use std::sync::Arc;

use crate::catalog::{Column, Entity};

/// Names of WITH clauses in force, with their output columns.
#[derive(Debug, Clone, Default)]
pub(super) struct CteScope(Vec<(String, Option<Vec<String>>)>);

/// A source in a FROM clause.
#[derive(Debug, Clone)]
pub(super) struct FromItem {
    pub(super) alias: String,
    /// Column names, when they are known.
    pub(super) columns: Option<Vec<String>>,
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
    pub(super) fn with(&self, name: &str, columns: Option<Vec<String>>) -> Self {
        let mut names = self.0.clone();
        names.push((name.to_owned(), columns));
        Self(names)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Option<Vec<String>>> {
        self.0.iter().rev().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, columns)| columns)
    }
}

impl FromItem {
    pub(super) fn derived(alias: &str, columns: Option<Vec<String>>) -> Self {
        Self { alias: alias.to_owned(), columns, source: Source::Derived, push: PushRule::Always, visible: true }
    }

    pub(super) fn becomes_nullable(&mut self) {
        if self.push == PushRule::Always {
            self.push = PushRule::NullRejecting;
        }
    }
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

    pub(super) fn has_reference(&self, alias: &str) -> bool {
        self.items()
            .any(|item| matches!(item.source, Source::Reference { .. }) && item.alias.eq_ignore_ascii_case(alias))
    }

    pub(super) fn has_alias(&self, alias: &str) -> bool {
        self.items().any(|item| item.alias.eq_ignore_ascii_case(alias))
    }
}

/// The source and, for a column of an entity, the column that a path certainly means.
pub(super) fn resolve<'a>(path: &[String], items: &'a [FromItem]) -> Option<(&'a FromItem, Option<Column>)> {
    resolve_strs(&path.iter().map(String::as_str).collect::<Vec<_>>(), items)
}

/// See [`resolve`].
pub(super) fn resolve_strs<'a>(path: &[&str], items: &'a [FromItem]) -> Option<(&'a FromItem, Option<Column>)> {
    let has = |item: &FromItem, name: &str| {
        item.columns.as_ref().map(|columns| columns.iter().any(|column| column.eq_ignore_ascii_case(name)))
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
    let column = match &item.source {
        Source::Reference { entity, renamed: false, .. } => entity.column(name).filter(|column| !column.is_hidden()),
        Source::Reference { .. } | Source::Derived => None,
    };
    Some((item, column))
}
