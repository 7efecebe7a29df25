//! From SQL text to a bound statement: parse, admit, bind. Touches no source.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use translator::emit::emit_for_binding;
use translator::{ParsedStatement, Query, TranslateError, TranslateErrorKind};

use super::blame::translate_error;
use super::error::{ErrorKind, QueryError};
use super::explain::{Explain, split_explain};
use super::parameters;
use crate::engine::ShapeDatabase;
use crate::engine::duckdb::{DuckError, DuckErrorKind, Parameter};
use crate::engine::shape::Bound;

/// A statement that may run, with the schema of its result.
#[derive(Debug, Clone)]
pub(super) struct BoundStatement {
    pub(super) query: Query,
    pub(super) explain: Explain,
    /// Schema of the result; every field is nullable.
    pub(super) schema: SchemaRef,
    /// What EXPLAIN explains has a schema of its own; otherwise the same.
    pub(super) answer: SchemaRef,
    /// Name and inferred type of each parameter that has no value yet.
    pub(super) parameters: SchemaRef,
    pub(super) shape: Arc<ShapeDatabase>,
    /// The statement over the shape database.
    pub(super) shape_sql: String,
}

/// Parses, admits and binds a statement. Blocks for a moment.
pub(super) fn bind(
    shape: &Arc<ShapeDatabase>,
    sql: &str,
    values: Option<&RecordBatch>,
) -> Result<BoundStatement, QueryError> {
    let (explain, body_at) = split_explain(sql)?;
    let body = &sql[body_at..];
    let serialized = shape.parse(body).map_err(|error| bind_error(&error, sql, body_at))?;
    let statement = ParsedStatement::parse(&serialized)
        .map_err(|error| translate_error(with_pivot_hint(error, body).shifted(body_at)))?;
    let text = UserText { sql, body, body_at };
    let (query, shape_sql, bound) = bind_tree(shape, &text, statement.clone(), true)?;
    let (query, shape_sql, bound) = match values {
        None => (query, shape_sql, bound),
        Some(values) => bind_values(shape, &text, &statement, &bound, values)?,
    };
    let answer = match (explain, &bound.schema) {
        (_, Some(schema)) => nullable(schema),
        (Explain::No, None) => nullable(&*assumed_schema(shape, &text, &statement, &bound)?),
        (Explain::Plan(_) | Explain::Analyze(_), None) => explain_schema(),
    };
    let schema = if explain == Explain::No { Arc::clone(&answer) } else { explain_schema() };
    Ok(BoundStatement {
        query,
        explain,
        schema,
        answer,
        parameters: parameter_schema(&bound.parameters),
        shape: Arc::clone(shape),
        shape_sql,
    })
}

/// Binds a statement again with its parameters' values.
fn bind_values(
    shape: &ShapeDatabase,
    text: &UserText<'_>,
    statement: &ParsedStatement,
    bound: &Bound,
    values: &RecordBatch,
) -> Result<(Query, String, Bound), QueryError> {
    let values = parameters::read(&statement.parameters, &bound.parameters, values)?;
    let bind = |reading: &dyn Fn(&parameters::ParameterValue) -> &str| {
        let mut statement = statement.clone();
        parameters::substitute(&mut statement, &values, reading, shape)?;
        bind_tree(shape, text, statement, false)
    };
    bind(&|value| &value.sql).or_else(|error| {
        // Where nothing tells the type, texts and bytes may be ids: `row_id = ANY(?)`.
        if error.kind() == ErrorKind::InvalidQuery && values.iter().any(|value| value.as_ids.is_some()) {
            bind(&|value| value.as_ids.as_deref().unwrap_or(&value.sql)).map_err(|_| error)
        } else {
            Err(error)
        }
    })
}

/// A PIVOT that names no values is two statements to DuckDB, of which the first writes.
fn with_pivot_hint(mut error: TranslateError, sql: &str) -> TranslateError {
    if error.kind == TranslateErrorKind::Refused && sql.to_ascii_lowercase().contains("pivot") {
        error.message.push_str("; name the values of a PIVOT: PIVOT t ON c IN ('x', 'y') USING sum(v)");
    }
    error
}

/// The text that the client sent, and the part of it that is bound.
struct UserText<'a> {
    sql: &'a str,
    body: &'a str,
    body_at: usize,
}

/// Admits a tree and binds it over the shape database. `as_written` says that the tree is the user's text still.
fn bind_tree(
    shape: &ShapeDatabase,
    text: &UserText<'_>,
    statement: ParsedStatement,
    as_written: bool,
) -> Result<(Query, String, Bound), QueryError> {
    let query = translator::translate(statement, shape.catalog())
        .map_err(|error| translate_error(error.shifted(text.body_at)))?;

    // The user's own text is bound where it can be, so that errors point into it. Values are only in the tree.
    let shape_sql = if !query.binds_as_written || !as_written {
        let print = |tree: &serde_json::Value| print(shape, tree);
        emit_for_binding(&query, &|placeholder| shape.name(&query, placeholder), &print).map_err(translate_error)?
    } else {
        text.body.to_owned()
    };
    let bound = shape.bind(&shape_sql).map_err(|error| {
        let at = if shape_sql == text.body { text.body_at } else { usize::MAX };
        bind_error(&error, text.sql, at)
    })?;
    Ok((query, shape_sql, bound))
}

/// The schema of a statement whose columns hang on parameters that DuckDB can't type, as `SELECT $1` does. Their values
/// decide it in the end; until they are bound they count as text where text fits, as [`parameter_schema`] says, and as
/// an untyped NULL elsewhere.
fn assumed_schema(
    shape: &ShapeDatabase,
    text: &UserText<'_>,
    statement: &ParsedStatement,
    bound: &Bound,
) -> Result<SchemaRef, QueryError> {
    let mut refusal = None;
    for unknown in ["''", "NULL"] {
        let mut assumed = statement.clone();
        parameters::assume(&mut assumed, &bound.parameters, unknown, shape)?;
        match bind_tree(shape, text, assumed, false) {
            Ok((_, _, Bound { schema: Some(schema), .. })) => return Ok(schema),
            Ok(_) => {}
            Err(error) => refusal = Some(error),
        }
    }
    Err(refusal.unwrap_or_else(|| {
        QueryError::new(ErrorKind::InvalidQuery, "the type of a parameter can't be inferred: write CAST(? AS …)")
    }))
}

/// Prints a tree through the shape database, for the translator.
pub(super) fn print(shape: &ShapeDatabase, tree: &serde_json::Value) -> Result<String, TranslateError> {
    shape.print(tree).map_err(|error| TranslateError {
        kind: TranslateErrorKind::Internal,
        message: format!("cannot print a parse tree: {error}"),
        position: None,
    })
}

/// Parameters as clients are told of them; they may bind any other type. JDBC alone binds only what it is told, takes no
/// value for an unknown type, and writes milliseconds into whatever unit a time has: so a parameter whose type can't be
/// inferred is called text, and times are told in milliseconds, which is what entities store.
fn parameter_schema(parameters: &[Parameter]) -> SchemaRef {
    let told = |data_type: &DataType| match data_type {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Millisecond, zone.clone()),
        DataType::Time64(_) => DataType::Time32(TimeUnit::Millisecond),
        // Arrow's own enum: whatever else it has is told as it is.
        other => other.clone(),
    };
    let field = |Parameter { name, schema, .. }: &Parameter| {
        let data_type = schema.as_ref().map_or(DataType::Utf8, |schema| told(schema.field(0).data_type()));
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
        DuckErrorKind::Interrupted | DuckErrorKind::Lost | DuckErrorKind::Io => QueryError::internal(error.clone()),
    }
}
