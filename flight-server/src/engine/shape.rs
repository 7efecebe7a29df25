//! Empty tables of the entities' shapes: parsing, printing and binding without touching a source.
//!
//! The user's SQL is bound here in its own words, so that errors carry positions in it, and the schema that comes out is
//! the one that every RPC answers with.

mod print;

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use serde_json::Value as Json;
use translator::catalog::{CATALOG_NAME, Catalog, Column, Entity};
use translator::quote::{Ident, duckdb_text};
use translator::{Placeholder, QualifiedName, Query, SystemTable, functions};

use super::duckdb::{Connection, Database, DuckError, Parameter};
use super::system_shapes::SYSTEM_SHAPES;
use super::vocabulary::SqlVocabulary;

/// Schema with the views that have the hidden columns too.
const HIDDEN_SCHEMA: &str = "tc_hidden";
/// Schema with the empty tables behind all views. Queries are bound over views: a table has a `rowid`, which the
/// relations that a query runs over don't have.
const BASE_SCHEMA: &str = "tc_base";
/// Schema with the `system` tables (`system` itself is a catalog of DuckDB's).
const SYSTEM_SCHEMA: &str = "tc_system";

/// A DuckDB instance with one empty table an entity.
#[derive(Debug)]
pub(crate) struct ShapeDatabase {
    database: Arc<Database>,
    catalog: Arc<Catalog>,
    idle: Mutex<Vec<Connection>>,
}

/// What binding a statement tells.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    /// `None` when it hangs on parameters whose types can't be inferred.
    pub(crate) schema: Option<SchemaRef>,
    pub(crate) parameters: Vec<Parameter>,
}

impl ShapeDatabase {
    pub(crate) fn new(catalog: Arc<Catalog>) -> Result<Self, DuckError> {
        let database = Database::open(&super::execution::fixed_settings())?;
        let connection = database.connect()?;
        connection.execute(&format!("ATTACH ':memory:' AS {0}; SET GLOBAL TimeZone = 'UTC'", Ident(CATALOG_NAME)))?;
        connection.execute(&format!("USE {}", Ident(CATALOG_NAME)))?;
        for schema in [HIDDEN_SCHEMA, SYSTEM_SCHEMA, BASE_SCHEMA] {
            connection.execute(&format!("CREATE SCHEMA {schema}"))?;
        }
        for entity in catalog.entities() {
            connection.execute(&create_shape("main", entity, entity.public_columns()))?;
            connection.execute(&create_shape(HIDDEN_SCHEMA, entity, entity.all_columns()))?;
        }
        for (table, columns) in SYSTEM_SHAPES {
            connection.execute(&create_view(SYSTEM_SCHEMA, table, columns))?;
        }
        connection.execute(&create_view(SYSTEM_SCHEMA, ENTITY_NAMES, "name VARCHAR"))?;
        let mut names: Vec<&str> = catalog.entities().iter().map(|entity| entity.name.as_str()).collect();
        names.sort_unstable();
        for name in names {
            let name = duckdb_text(name);
            connection.execute(&format!("INSERT INTO {} VALUES ({name})", base_table(SYSTEM_SCHEMA, ENTITY_NAMES)))?;
        }
        connection.execute("SET enable_external_access = false")?;
        Ok(Self { database, catalog, idle: Mutex::new(vec![connection]) })
    }

    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The parse tree of some SQL: the answer of `json_serialize_sql`, errors included.
    pub(crate) fn parse(&self, sql: &str) -> Result<String, DuckError> {
        let call = format!("SELECT json_serialize_sql(CAST({} AS VARCHAR))", duckdb_text(sql));
        self.with_connection(|connection| one_text(connection, &call))
    }

    /// SQL from a parse tree.
    pub(crate) fn print(&self, tree: &Json) -> Result<String, DuckError> {
        print::in_parts(tree, &|tree| self.print_whole(tree))
    }

    fn print_whole(&self, tree: &Json) -> Result<String, DuckError> {
        let call = format!("SELECT json_deserialize_sql(CAST({} AS JSON))", duckdb_text(&tree.to_string()));
        self.with_connection(|connection| one_text(connection, &call))
    }

    /// Binds SQL over the empty tables.
    pub(crate) fn bind(&self, sql: &str) -> Result<Bound, DuckError> {
        self.with_connection(|connection| {
            let prepared = connection.prepare(sql)?;
            Ok(Bound { schema: prepared.schema()?, parameters: prepared.parameters()? })
        })
    }

    /// Runs a statement over the empty tables: what describes shapes and reads no row.
    pub(crate) fn query(&self, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), DuckError> {
        self.with_connection(|connection| connection.query(sql))
    }

    /// The tables that stand for a query's references while binding.
    pub(crate) fn name(&self, query: &Query, placeholder: Placeholder) -> QualifiedName {
        let (schema, table) = match placeholder {
            Placeholder::Reference(index) => {
                let reference = &query.references[index];
                let schema = if reference.uses_hidden_columns() { HIDDEN_SCHEMA } else { "main" };
                (schema, reference.entity.name.clone())
            }
            Placeholder::System(index) => {
                let SystemTable { schema, table } = &query.system_tables[index];
                match schema.as_str() {
                    "system" => (SYSTEM_SCHEMA, table.clone()),
                    "show" => (SYSTEM_SCHEMA, ENTITY_NAMES.to_owned()),
                    _ => ("information_schema", table.clone()),
                }
            }
        };
        let catalog = if schema == "information_schema" { String::new() } else { CATALOG_NAME.to_owned() };
        QualifiedName { catalog, schema: schema.to_owned(), table }
    }

    /// Rows of an `information_schema` table, without what isn't the client's business.
    pub(crate) fn information_schema(&self, table: &str) -> Result<(SchemaRef, Vec<RecordBatch>), DuckError> {
        let (catalog, schema) =
            if table == "schemata" { ("catalog_name", "schema_name") } else { ("table_catalog", "table_schema") };
        // An entity is a table to its clients.
        let columns = if table == "tables" { "* REPLACE ('BASE TABLE' AS table_type)" } else { "*" };
        self.query(&format!(
            "SELECT {columns} FROM information_schema.{} WHERE {catalog} = {} AND {schema} = 'main'",
            Ident(table),
            duckdb_text(CATALOG_NAME)
        ))
    }

    /// What SHOW TABLES lists: the names of all entities.
    pub(crate) fn entity_names(&self) -> Result<(SchemaRef, Vec<RecordBatch>), DuckError> {
        self.query(&format!("SELECT name FROM {SYSTEM_SCHEMA}.{ENTITY_NAMES} ORDER BY name"))
    }

    /// Names that editors complete, from DuckDB's own lists.
    pub(crate) fn vocabulary(&self) -> Result<SqlVocabulary, DuckError> {
        let list = |sql: &str| -> Result<Vec<String>, DuckError> {
            let (_, batches) = self.query(sql)?;
            let columns = batches.iter().filter_map(|batch| batch.column(0).as_string_opt::<i32>());
            Ok(columns.flat_map(|column| column.iter().flatten().map(str::to_owned).collect::<Vec<_>>()).collect())
        };
        // What a query may not call is nothing to offer.
        let callable = |names: Vec<String>| -> Vec<String> {
            let is_callable = |name: &String| functions::function(name).is_some() && functions::refusal(name).is_none();
            names.into_iter().filter(is_callable).collect()
        };
        // DuckDB sorts functions into no groups; the first argument's type does.
        let functions = |types: &str| {
            list(&format!(
                "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = 'scalar' \
                 AND parameter_types[1] IN ({types}) AND regexp_full_match(function_name, '[a-z][a-z0-9_]*') ORDER BY 1"
            ))
            .map(callable)
        };
        Ok(SqlVocabulary {
            keywords: list(
                "SELECT upper(keyword_name) FROM duckdb_keywords() WHERE keyword_category = 'reserved' ORDER BY 1",
            )?,
            numeric_functions: functions("'DOUBLE', 'BIGINT', 'INTEGER', 'FLOAT', 'TINYINT'")?,
            string_functions: functions("'VARCHAR'")?,
            datetime_functions: functions("'DATE', 'TIMESTAMP', 'TIMESTAMP WITH TIME ZONE', 'INTERVAL', 'TIME'")?,
            system_functions: callable(
                ["current_catalog", "current_database", "current_schema", "version"].map(str::to_owned).to_vec(),
            ),
        })
    }

    fn with_connection<T>(&self, work: impl FnOnce(&Connection) -> Result<T, DuckError>) -> Result<T, DuckError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let connection = self.database.connect()?;
                connection.execute(&format!("USE {}", Ident(CATALOG_NAME)))?;
                connection
            }
        };
        let result = work(&connection);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        result
    }
}

/// Table in [`SYSTEM_SCHEMA`] with the names of all entities.
const ENTITY_NAMES: &str = "tc_entities";

fn create_shape(schema: &str, entity: &Entity, columns: impl Iterator<Item = Column>) -> String {
    let columns: Vec<String> =
        columns.map(|column| format!("{} {}", Ident(entity.column_name(column)), entity.duckdb_type(column))).collect();
    create_view(schema, &entity.name, &columns.join(", "))
}

/// An empty table and the view of it.
fn create_view(schema: &str, name: &str, columns: &str) -> String {
    let table = base_table(schema, name);
    format!("CREATE TABLE {table} ({columns}); CREATE VIEW {}.{} AS SELECT * FROM {table}", Ident(schema), Ident(name))
}

fn base_table(schema: &str, name: &str) -> String {
    format!("{BASE_SCHEMA}.{}", Ident(&format!("{schema}.{name}")))
}

fn one_text(connection: &Connection, sql: &str) -> Result<String, DuckError> {
    let (_, batches) = connection.query(sql)?;
    let text = batches.first().and_then(|batch| {
        let column = batch.column(0).as_string_opt::<i32>()?;
        (!column.is_empty() && column.is_valid(0)).then(|| column.value(0).to_owned())
    });
    text.ok_or_else(|| DuckError {
        kind: super::duckdb::DuckErrorKind::Other,
        message: "DuckDB answered with no text".to_owned(),
    })
}

#[cfg(test)]
mod tests;
