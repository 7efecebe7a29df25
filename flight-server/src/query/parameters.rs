//! Bound parameters: one Arrow row to typed constants in the parse tree.
//!
//! A bound value means what the same literal means. It takes the type that DuckDB inferred for its parameter where that
//! changes nothing ([`meaning`]), and keeps its own elsewhere. Text becomes a literal, which fits wherever a literal does:
//! a client that knows no better binds any value as text.

mod meaning;
mod value;

use std::collections::HashMap;

use arrow::array::RecordBatch;
use translator::ParsedStatement;

use super::blame::translate_error;
use super::error::{ErrorKind, QueryError};
use crate::engine::ShapeDatabase;
use crate::engine::duckdb::Parameter;

/// The value of one parameter as DuckDB's SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParameterValue {
    name: String,
    pub(super) sql: String,
    /// The same value read as ids, when its text or bytes are such.
    pub(super) as_ids: Option<String>,
}

/// Reads the values of a statement's parameters from the first row.
pub(super) fn read(
    names: &[String],
    inferred: &[Parameter],
    values: &RecordBatch,
) -> Result<Vec<ParameterValue>, QueryError> {
    if values.num_rows() != 1 || values.num_columns() != names.len() {
        return Err(QueryError::new(
            ErrorKind::InvalidQuery,
            format!(
                "the statement takes {} parameter(s) in one row; {} row(s) of {} value(s) are bound",
                names.len(),
                values.num_rows(),
                values.num_columns()
            ),
        ));
    }
    let schema = values.schema_ref();
    let one = |(index, name): (usize, &String)| {
        let value = value::read(values.column(index), 0, schema.field(index))
            .map_err(|reason| QueryError::new(ErrorKind::InvalidQuery, format!("parameter ${name}: {reason}")))?;
        let wanted = wanted(inferred, name).and_then(|parameter| parameter.sql_type.as_ref());
        let sql = meaning::sql(&value, wanted);
        Ok(ParameterValue { name: name.clone(), sql, as_ids: meaning::ids(&value) })
    };
    names.iter().enumerate().map(one).collect()
}

/// Replaces the parameters of a statement by values, each in the reading that is asked for.
pub(super) fn substitute(
    statement: &mut ParsedStatement,
    values: &[ParameterValue],
    reading: &dyn Fn(&ParameterValue) -> &str,
    shape: &ShapeDatabase,
) -> Result<(), QueryError> {
    let mut constants = HashMap::new();
    for value in values {
        constants.insert(value.name.as_str(), expression(shape, reading(value))?);
    }
    statement.set_parameters(&|name| constants.get(name).cloned());
    Ok(())
}

/// Replaces the parameters of a statement by NULLs of their inferred types, and by `unknown` where there is none.
pub(super) fn assume(
    statement: &mut ParsedStatement,
    inferred: &[Parameter],
    unknown: &str,
    shape: &ShapeDatabase,
) -> Result<(), QueryError> {
    let mut constants = HashMap::new();
    for name in &statement.parameters {
        let sql = match wanted(inferred, name).and_then(|parameter| parameter.sql_type.as_ref()) {
            Some(sql_type) => format!("CAST(NULL AS {sql_type})"),
            None => unknown.to_owned(),
        };
        constants.insert(name.clone(), expression(shape, &sql)?);
    }
    statement.set_parameters(&|name| constants.get(name).cloned());
    Ok(())
}

/// What DuckDB inferred of a parameter.
fn wanted<'a>(inferred: &'a [Parameter], name: &str) -> Option<&'a Parameter> {
    inferred.iter().find(|parameter| parameter.name == name)
}

fn expression(shape: &ShapeDatabase, sql: &str) -> Result<serde_json::Value, QueryError> {
    let parsed = shape.parse(&format!("SELECT {sql}")).map_err(QueryError::internal)?;
    Ok(ParsedStatement::parse(&parsed).map_err(translate_error)?.into_expression().unwrap_or_default())
}
