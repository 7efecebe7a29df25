//! DuckDB's parser and printer, as the server uses them.

use anyhow::{Context, Result};
use serde_json::Value as Json;
use translator::catalog::Catalog;
use translator::{ParsedStatement, Query, TranslateError};

/// A DuckDB connection that parses and prints.
pub(crate) struct Parser {
    duckdb: duckdb::Connection,
}

impl Parser {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { duckdb: duckdb::Connection::open_in_memory()? })
    }

    /// The answer of `json_serialize_sql`, errors included.
    pub(crate) fn serialize(&self, sql: &str) -> Result<String> {
        let mut statement = self.duckdb.prepare_cached("SELECT json_serialize_sql(CAST($1 AS VARCHAR))")?;
        Ok(statement.query_row([sql], |row| row.get(0))?)
    }

    /// SQL from the document that `json_serialize_sql` gives.
    pub(crate) fn print(&self, document: &Json) -> Result<String> {
        let mut statement = self.duckdb.prepare_cached("SELECT json_deserialize_sql(CAST($1 AS JSON))")?;
        Ok(statement.query_row([document.to_string()], |row| row.get(0))?)
    }

    /// Parses, admits and binds.
    pub(crate) fn translate(&self, sql: &str, catalog: &Catalog) -> Result<Result<Query, TranslateError>> {
        let serialized = self.serialize(sql).with_context(|| format!("DuckDB can't parse {sql}"))?;
        Ok(ParsedStatement::parse(&serialized).and_then(|statement| translator::translate(statement, catalog)))
    }
}
