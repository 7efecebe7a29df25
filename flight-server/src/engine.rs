//! DuckDB: one locked-down instance that executes, and one of empty tables that parses, prints and binds.
//!
//! Everything here blocks; callers run it on threads of their own. Knows neither Flight nor the sources.

pub(crate) mod duckdb;
mod execution;
mod http_log;
mod scan;
pub(crate) mod shape;

pub(crate) use execution::{Engine, EngineSettings, LakeAccess, create_temporary_table};
pub(crate) use scan::{ScanEngine, ScanSettings};
pub(crate) use shape::ShapeDatabase;
