//! From SQL text to a bound statement: parse, admit, bind. Touches no source.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use translator::emit::emit_for_binding;
use translator::{ParsedStatement, Query, TranslateError, TranslateErrorKind};

use super::error::{ErrorKind, QueryError};
use super::parameters;
use crate::engine::ShapeDatabase;
use crate::engine::duckdb::{DuckError, DuckErrorKind};

/// A statement that may run, with the schema of its result.
#[derive(Debug, Clone)]
pub(super) struct BoundStatement {
    pub(super) query: Query,
    pub(super) explain: Explain,
    /// Schema of the result; every field is nullable.
    pub(super) schema: SchemaRef,
    /// Name and inferred type of each parameter that has no value yet.
    pub(super) parameters: SchemaRef,
    pub(super) shape: Arc<ShapeDatabase>,
    /// The statement over the shape database.
    pub(super) shape_sql: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Explain {
    No,
    Plan,
    Analyze,
}

/// Parses, admits and binds a statement. Blocks for a moment.
pub(super) fn bind(
    shape: &Arc<ShapeDatabase>,
    sql: &str,
    values: Option<&RecordBatch>,
) -> Result<BoundStatement, QueryError> {
    let (explain, body_at) = split_explain(sql);
    let body = &sql[body_at..];
    let serialized = shape.parse(body).map_err(|error| bind_error(&error, sql, body_at))?;
    let mut statement = ParsedStatement::parse(&serialized).map_err(|error| translate_error(error.shifted(body_at)))?;
    if let Some(values) = values {
        let inferred = inferred_parameters(shape, body, body_at, sql)?;
        parameters::substitute(&mut statement, &inferred, values, shape)?;
    }
    let has_values = values.is_some();
    let query =
        translator::translate(statement, shape.catalog()).map_err(|error| translate_error(error.shifted(body_at)))?;

    // The user's own text is bound where it can be, so that errors point into it. The entities' tables there have no
    // hidden columns, `system` is no schema of DuckDB, and values are only in the tree.
    let uses_system = query.system_tables.iter().any(|table| table.schema == "system");
    let shape_sql = if query.uses_hidden_columns() || uses_system || has_values {
        let print = |tree: &serde_json::Value| print(shape, tree);
        emit_for_binding(&query, &|placeholder| shape.name(&query, placeholder), &print).map_err(translate_error)?
    } else {
        body.to_owned()
    };
    let bound = shape.bind(&shape_sql).map_err(|error| {
        let at = if shape_sql == body { body_at } else { usize::MAX };
        bind_error(&error, sql, at)
    })?;
    let schema = if explain == Explain::No { nullable(&bound.schema) } else { explain_schema() };
    Ok(BoundStatement {
        query,
        explain,
        schema,
        parameters: parameter_schema(&bound.parameters),
        shape: Arc::clone(shape),
        shape_sql,
    })
}

fn inferred_parameters(shape: &ShapeDatabase, body: &str, body_at: usize, sql: &str) -> Result<SchemaRef, QueryError> {
    // Also of a query that is refused or wrong: the caller finds out next.
    match shape.bind(body) {
        Ok(bound) => Ok(parameter_schema(&bound.parameters)),
        Err(error) => Err(bind_error(&error, sql, body_at)),
    }
}

/// Prints a tree through the shape database, for the translator.
pub(super) fn print(shape: &ShapeDatabase, tree: &serde_json::Value) -> Result<String, TranslateError> {
    shape.print(tree).map_err(|error| TranslateError {
        kind: TranslateErrorKind::Internal,
        message: format!("cannot print a parse tree: {error}"),
        position: None,
    })
}

fn parameter_schema(parameters: &[(String, Option<SchemaRef>)]) -> SchemaRef {
    let field = |(name, schema): &(String, Option<SchemaRef>)| {
        let data_type = schema.as_ref().map_or(DataType::Null, |schema| schema.field(0).data_type().clone());
        Field::new(format!("${name}"), data_type, true)
    };
    Arc::new(Schema::new(parameters.iter().map(field).collect::<Vec<_>>()))
}

/// The same columns, nullable and without metadata.
fn nullable(schema: &Schema) -> SchemaRef {
    let field = |field: &Arc<Field>| Field::new(field.name(), field.data_type().clone(), true);
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// Columns of EXPLAIN, as DuckDB names them.
fn explain_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("explain_key", DataType::Utf8, true),
        Field::new("explain_value", DataType::Utf8, true),
    ]))
}

/// Cuts EXPLAIN or EXPLAIN ANALYZE off: the parser gives no tree for them. The offset is where the query starts.
fn split_explain(sql: &str) -> (Explain, usize) {
    let start = skip_blanks(sql, 0);
    let Some(after) = keyword(sql, start, "EXPLAIN") else { return (Explain::No, 0) };
    let after = skip_blanks(sql, after);
    match keyword(sql, after, "ANALYZE") {
        Some(end) => (Explain::Analyze, end),
        None => (Explain::Plan, after),
    }
}

fn keyword(sql: &str, at: usize, word: &str) -> Option<usize> {
    let end = at + word.len();
    let matches = sql.get(at..end)?.eq_ignore_ascii_case(word);
    let continues = sql[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
    (matches && !continues).then_some(end)
}

/// Skips white space and comments.
fn skip_blanks(sql: &str, mut at: usize) -> usize {
    loop {
        let rest = &sql[at..];
        let trimmed = rest.trim_start();
        at += rest.len() - trimmed.len();
        if trimmed.starts_with("--") {
            at += trimmed.find('\n').unwrap_or(trimmed.len());
        } else if let Some(comment) = trimmed.strip_prefix("/*") {
            at += comment.find("*/").map_or(trimmed.len(), |end| end + 4);
        } else {
            return at;
        }
    }
}

pub(super) fn translate_error(error: TranslateError) -> QueryError {
    let kind = match error.kind {
        TranslateErrorKind::Syntax | TranslateErrorKind::Refused => ErrorKind::InvalidQuery,
        TranslateErrorKind::UnknownTable => ErrorKind::NotFound,
        TranslateErrorKind::Internal => return QueryError::internal(error),
    };
    QueryError::new(kind, error.message).at(error.position)
}

/// An error of binding over the shape database. `body_at` is where the bound text starts in the user's SQL, or
/// `usize::MAX` when the bound text isn't the user's own.
fn bind_error(error: &DuckError, sql: &str, body_at: usize) -> QueryError {
    match error.kind {
        DuckErrorKind::Binder | DuckErrorKind::Parser | DuckErrorKind::Value | DuckErrorKind::Other => {
            let position = sql.get(body_at..).and_then(|body| error.position(body)).map(|at| at + body_at);
            QueryError::new(ErrorKind::InvalidQuery, error.text()).at(position)
        }
        DuckErrorKind::OutOfMemory => {
            QueryError::new(ErrorKind::LimitExceeded, format!("memory_limit: {}", error.text()))
        }
        DuckErrorKind::Permission => QueryError::new(ErrorKind::InvalidQuery, "the query reaches outside the entities"),
        DuckErrorKind::Interrupted | DuckErrorKind::Io => QueryError::internal(error.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explain_is_cut_off() {
        assert_eq!(split_explain("SELECT 1"), (Explain::No, 0));
        assert_eq!(split_explain(" explain\tselect 1"), (Explain::Plan, 9));
        assert_eq!(split_explain("EXPLAIN ANALYZE SELECT 1"), (Explain::Analyze, 15));
        assert_eq!(split_explain("-- x\n/* y */ EXPLAIN /**/ ANALYZE SELECT 1").0, Explain::Analyze);
        assert_eq!(split_explain("EXPLAINED"), (Explain::No, 0));
        assert_eq!(split_explain("/* open"), (Explain::No, 0));
    }
}
