//! The catalog: entities, their attributes, and where each attribute is stored.
//!
//! A [`Catalog`] is made from the text of a `catalog.toml` by [`Catalog::parse`]; every fault of the file is reported
//! together, with its line. A value of this type is always consistent: names are unique after folding, every storage
//! column fits its attribute's type.

mod parse;
pub mod print;
mod types;
mod visible;

pub use parse::{CatalogFault, CatalogFaults};
pub use types::{
    KeyColumn, Layout, MAX_PRECISION_OF_DOUBLES, MainColumnKind, OwnTable, ScalarType, Storage, TimeEncoding,
};
pub use visible::{ALL_TABLES, GrantedColumns, TableGrant};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Name of the one catalog that clients see.
pub const CATALOG_NAME: &str = "thermocline";
/// Name of the one schema that clients see.
pub const SCHEMA_NAME: &str = "main";
/// Hidden column with the tier of the winning version: `hot`, `warm` or `cold`.
pub const TIER_COLUMN: &str = "_tier";
/// Hidden column with the time of deletion, NULL while live.
pub const DELETED_AT_COLUMN: &str = "_deleted_at";

/// The columns of tables' primary keys, by the name of the table as the catalog file writes it.
pub type PrimaryKeys = BTreeMap<String, Vec<String>>;

/// All entities, in file order.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    entities: Vec<Arc<Entity>>,
}

/// A logical table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Name in SQL.
    pub name: String,
    /// `schema_id` in PostgreSQL and in the lake's path templates.
    pub schema_id: i16,
    /// Remarks for clients.
    pub description: Option<String>,
    /// Attributes in file order.
    pub attributes: Vec<Attribute>,
    /// How PostgreSQL keeps its rows.
    pub layout: Layout,
    /// Whether a grant of all tables leaves it out.
    pub classified: bool,
    /// Public columns that whoever this catalog is for doesn't see.
    pub hidden: BTreeSet<Column>,
}

/// A logical column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Name as the catalog file writes it (`delay.minutes`).
    pub name: String,
    /// The folded name: the SQL and Parquet column name (`delay_minutes`).
    pub column: String,
    /// The type of the attribute, or of its elements when [`Attribute::list`] is set.
    pub scalar: ScalarType,
    /// Whether the attribute is a LIST of [`Attribute::scalar`].
    pub list: bool,
    /// Where PostgreSQL keeps it.
    pub storage: Storage,
    /// How PostgreSQL keeps a date or timestamp; meaningless for other types and in a table of its own, whose columns
    /// have types.
    pub encoding: TimeEncoding,
    /// Remarks for clients.
    pub description: Option<String>,
}

/// A column that a reference to an entity offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Column {
    /// `row_id UUID`
    RowId,
    /// The attribute at this place of [`Entity::attributes`].
    Attribute(usize),
    /// `created_at TIMESTAMPTZ`
    CreatedAt,
    /// `updated_at TIMESTAMPTZ`: the winning version's `changed_at`
    UpdatedAt,
    /// `_tier VARCHAR`, hidden
    Tier,
    /// `_deleted_at TIMESTAMPTZ`, hidden
    DeletedAt,
}

impl Column {
    /// Whether `SELECT *` leaves the column out.
    pub fn is_hidden(self) -> bool {
        matches!(self, Self::Tier | Self::DeletedAt)
    }
}

impl Catalog {
    /// Reads the text of a `catalog.toml`.
    ///
    /// # Errors
    /// All faults of the file together, each with its line.
    pub fn parse(text: &str) -> Result<Self, CatalogFaults> {
        Self::parse_with_keys(text, &PrimaryKeys::new())
    }

    /// The same, where a table of its own whose key isn't written has its primary key for one.
    ///
    /// # Errors
    /// As [`Catalog::parse`].
    pub fn parse_with_keys(text: &str, keys: &PrimaryKeys) -> Result<Self, CatalogFaults> {
        parse::parse(text, keys)
    }

    /// Names of the tables in the text of a `catalog.toml` whose keys aren't written.
    pub fn tables_without_key(text: &str) -> Vec<String> {
        parse::tables_without_key(text)
    }

    /// The entities in file order.
    pub fn entities(&self) -> &[Arc<Entity>] {
        &self.entities
    }

    /// Finds an entity by name; names are case-insensitive, as in DuckDB.
    pub fn entity(&self, name: &str) -> Option<&Arc<Entity>> {
        self.entities.iter().find(|entity| entity.name.eq_ignore_ascii_case(name))
    }

    /// Finds an entity by its `schema_id`.
    pub fn entity_by_schema_id(&self, schema_id: i16) -> Option<&Arc<Entity>> {
        self.entities.iter().find(|entity| entity.schema_id == schema_id)
    }
}

impl Entity {
    /// The table of the application that holds its rows, unless they are in `entity_main` and `eav_data`.
    pub fn own_table(&self) -> Option<&OwnTable> {
        match &self.layout {
            Layout::Table(table) => Some(table),
            Layout::Eav => None,
        }
    }

    /// Public columns in contract order, as far as they are seen: `row_id`, the attributes, `created_at`, `updated_at`.
    pub fn public_columns(&self) -> impl Iterator<Item = Column> + '_ {
        std::iter::once(Column::RowId)
            .chain((0..self.attributes.len()).map(Column::Attribute))
            .chain([Column::CreatedAt, Column::UpdatedAt])
            .filter(|column| !self.hidden.contains(column))
    }

    /// Public columns and then the two hidden ones.
    pub fn all_columns(&self) -> impl Iterator<Item = Column> + '_ {
        self.public_columns().chain([Column::Tier, Column::DeletedAt])
    }

    /// The SQL name of a column.
    pub fn column_name(&self, column: Column) -> &str {
        match column {
            Column::RowId => "row_id",
            Column::Attribute(index) => &self.attributes[index].column,
            Column::CreatedAt => "created_at",
            Column::UpdatedAt => "updated_at",
            Column::Tier => TIER_COLUMN,
            Column::DeletedAt => DELETED_AT_COLUMN,
        }
    }

    /// The DuckDB type of a column, as SQL text.
    pub fn duckdb_type(&self, column: Column) -> String {
        match column {
            Column::RowId => "UUID".to_owned(),
            Column::Attribute(index) => self.attributes[index].duckdb_type(),
            Column::CreatedAt | Column::UpdatedAt | Column::DeletedAt => "TIMESTAMPTZ".to_owned(),
            Column::Tier => "VARCHAR".to_owned(),
        }
    }

    /// Finds a column, hidden ones included; names are case-insensitive, as in DuckDB.
    pub fn column(&self, name: &str) -> Option<Column> {
        self.all_columns().find(|column| self.column_name(*column).eq_ignore_ascii_case(name))
    }
}

/// The SQL and Parquet column name of an attribute: dots and spaces fold to `_`.
pub fn fold(name: &str) -> String {
    name.replace(['.', ' '], "_")
}

impl Attribute {
    /// The DuckDB type of the attribute, as SQL text (`DECIMAL(9,2)[]`).
    pub fn duckdb_type(&self) -> String {
        let scalar = self.scalar.duckdb_type();
        if self.list { format!("{scalar}[]") } else { scalar }
    }
}
