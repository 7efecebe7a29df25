//! DuckDB: one locked-down instance that executes, and one of empty tables that parses, prints and binds.
//!
//! Everything here blocks; callers run it on threads of their own. Knows neither Flight nor the sources.

pub(crate) mod duckdb;
mod execution;
mod http_log;
pub(crate) mod mirror;
mod scan;
pub(crate) mod shape;
pub(crate) mod sql_type;
mod system_shapes;
mod temporary_table;
mod vocabulary;

pub(crate) use execution::{Engine, EngineSettings, LakeAccess};
pub(crate) use scan::{ScanEngine, ScanSettings};
pub(crate) use shape::ShapeDatabase;
pub(crate) use temporary_table::create_temporary_table;
pub use vocabulary::SqlVocabulary;
