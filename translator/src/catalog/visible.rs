//! What of a catalog is granted: what isn't doesn't exist, for whoever binds, lists or describes by the narrowed catalog.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Catalog, Column, Entity};

/// Columns of one table, or of all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableGrant {
    /// Name of the entity, or `*`.
    pub table: String,
    pub columns: GrantedColumns,
}

/// Names of columns in SQL, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GrantedColumns {
    Only(BTreeSet<String>),
    /// A column that is added later is granted.
    Except(BTreeSet<String>),
}

/// The grant of every table that isn't classified.
pub const ALL_TABLES: &str = "*";

impl TableGrant {
    fn covers(&self, entity: &Entity) -> bool {
        if self.table == ALL_TABLES { !entity.classified } else { self.table.eq_ignore_ascii_case(&entity.name) }
    }

    fn shows(&self, column: &str) -> bool {
        let column = column.to_ascii_lowercase();
        match &self.columns {
            GrantedColumns::Only(names) => names.contains(&column),
            GrantedColumns::Except(names) => !names.contains(&column),
        }
    }
}

impl Catalog {
    /// The entities and columns that any of the grants covers.
    #[must_use]
    pub fn visible(&self, grants: &BTreeSet<TableGrant>) -> Self {
        let visible = |entity: &Arc<Entity>| {
            let covering: Vec<&TableGrant> = grants.iter().filter(|grant| grant.covers(entity)).collect();
            let hidden: BTreeSet<Column> = entity
                .public_columns()
                .filter(|column| !covering.iter().any(|grant| grant.shows(entity.column_name(*column))))
                .collect();
            if hidden.len() == entity.public_columns().count() {
                return None;
            }
            Some(if hidden.is_empty() { Arc::clone(entity) } else { Arc::new(entity.without(hidden)) })
        };
        Self { entities: self.entities.iter().filter_map(visible).collect() }
    }
}

impl Entity {
    fn without(&self, hidden: BTreeSet<Column>) -> Self {
        Self { hidden, ..self.clone() }
    }

    /// The entity with all of its columns: what is shared between callers knows nothing of who sees what.
    #[must_use]
    pub fn whole(self: &Arc<Self>) -> Arc<Self> {
        if self.hidden.is_empty() { Arc::clone(self) } else { Arc::new(self.without(BTreeSet::new())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        let entity = |name: &str, id: u8, more: &str| {
            format!(
                "[[entity]]\nname = \"{name}\"\nschema_id = {id}\n{more}\n[[entity.attribute]]\nname = \"a.b\"\ntype = \"text\"\n\
                 column = \"text_01\"\n[[entity.attribute]]\nname = \"ssn\"\ntype = \"text\"\ncolumn = \"text_02\"\n"
            )
        };
        Catalog::parse(&(entity("open", 1, "") + &entity("closed", 2, "classified = true"))).unwrap()
    }

    fn seen(grants: &[(&str, GrantedColumns)]) -> Vec<String> {
        let grants =
            grants.iter().map(|(table, columns)| TableGrant { table: (*table).to_owned(), columns: columns.clone() });
        let visible = catalog().visible(&grants.collect());
        let columns = |entity: &Arc<Entity>| {
            let names: Vec<&str> = entity.public_columns().map(|column| entity.column_name(column)).collect();
            format!("{}: {}", entity.name, names.join(" "))
        };
        visible.entities().iter().map(columns).collect()
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_is_not_granted_is_not_there() {
        let (only, except) = (GrantedColumns::Only, GrantedColumns::Except);
        assert!(seen(&[]).is_empty());
        assert_eq!(seen(&[("*", except(names(&["ssn"])))]), ["open: row_id a_b created_at updated_at"]);
        assert_eq!(seen(&[("CLOSED", only(names(&["ssn"])))]), ["closed: ssn"]);
        assert_eq!(
            seen(&[
                ("open", only(names(&["row_id", "a_b"]))),
                ("open", only(names(&["ssn"]))),
                ("closed", only(names(&["x"])))
            ]),
            ["open: row_id a_b ssn"]
        );
    }

    #[test]
    fn a_hidden_column_has_no_name() {
        let grants = [TableGrant { table: "open".to_owned(), columns: GrantedColumns::Only(names(&["a_b"])) }];
        let visible = catalog().visible(&grants.into());
        let entity = visible.entity("open").unwrap();
        assert_eq!(
            (entity.column("ssn"), entity.column("row_id"), entity.column("A_B")),
            (None, None, Some(Column::Attribute(0)))
        );
        assert_eq!(*entity.whole(), *catalog().entities()[0]);
    }
}
