//! Translator and planner of Thermocline.
//!
//! From DuckDB's parse tree of a user's SELECT, a [`catalog::Catalog`] and the facts of the moment (dirty set size, files
//! with their statistics, options) to a plan and one federated DuckDB statement. Pure: no I/O, no async, no clock, no
//! logging. It knows neither DuckDB nor PostgreSQL as running programs, only their dialects.
//!
//! ```text
//! json_serialize_sql ─ tree ─ admit ─ bind ─ predicate ─ (pushdown: postgres, prune) ─ planner ─ emit ─ statement
//! ```
//!
//! [`translate`] does everything up to the bound [`Query`]; [`planner::plan`] and [`emit::emit`] the rest.

#![deny(unsafe_code)]

mod admit;
mod bind;
pub mod catalog;
pub mod derived;
mod display;
pub mod emit;
mod error;
pub mod functions;
pub mod hot;
pub mod hot_query;
pub mod lake;
mod lake_read;
mod literal;
pub mod options;
pub mod plan;
pub mod planner;
pub mod positions;
pub mod postgres;
pub mod predicate;
mod prune;
pub mod quote;
mod row_ids;
mod tree;
pub mod value;

pub use bind::{
    INFORMATION_SCHEMA_TABLES, Placeholder, QualifiedName, Query, Reference, SHOW_TABLES, SYSTEM_TABLES, StatementForm,
    SystemTable,
};
pub use error::{TranslateError, TranslateErrorKind};
pub use lake_read::DATA_ERROR;
pub use tree::ParsedStatement;

use catalog::Catalog;

/// Admits and binds one parsed statement.
///
/// # Errors
/// What is not admitted, or a table that doesn't exist, with its place in the user's SQL.
pub fn translate(statement: ParsedStatement, catalog: &Catalog) -> Result<Query, TranslateError> {
    admit::admit(&statement.node)?;
    bind::bind(statement.node, statement.parameters, catalog)
}
