//! Empty tables of the entities' shapes: parsing, printing and binding without touching a source.
//!
//! The user's SQL is bound here in its own words, so that errors carry positions in it, and the schema that comes out is
//! the one that every RPC answers with.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use serde_json::Value as Json;
use translator::catalog::{CATALOG_NAME, Catalog, Column, Entity};
use translator::quote::{Ident, duckdb_text};
use translator::{Placeholder, QualifiedName, Query, SystemTable};

use super::duckdb::{Connection, Database, DuckError};
use crate::flight::SqlVocabulary;
use crate::query::system_tables;

/// Schema with the tables that have the hidden columns too.
const HIDDEN_SCHEMA: &str = "tc_hidden";
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
    /// Name and, when it can be inferred, a one-field schema with the type.
    pub(crate) parameters: Vec<(String, Option<SchemaRef>)>,
}

impl ShapeDatabase {
    pub(crate) fn new(catalog: Arc<Catalog>) -> Result<Self, DuckError> {
        let database = Database::open(&super::execution::fixed_settings())?;
        let connection = database.connect()?;
        connection.execute(&format!("ATTACH ':memory:' AS {0}; SET GLOBAL TimeZone = 'UTC'", Ident(CATALOG_NAME)))?;
        connection.execute(&format!("USE {}", Ident(CATALOG_NAME)))?;
        connection.execute(&format!("CREATE SCHEMA {HIDDEN_SCHEMA}; CREATE SCHEMA {SYSTEM_SCHEMA}"))?;
        for entity in catalog.entities() {
            connection.execute(&create_table("main", entity, entity.public_columns()))?;
            connection.execute(&create_table(HIDDEN_SCHEMA, entity, entity.all_columns()))?;
        }
        for (table, columns) in system_tables::SHAPES {
            connection.execute(&format!("CREATE TABLE {SYSTEM_SCHEMA}.{} ({columns})", Ident(table)))?;
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
                if schema == "system" { (SYSTEM_SCHEMA, table.clone()) } else { ("information_schema", table.clone()) }
            }
        };
        let catalog = if schema == "information_schema" { String::new() } else { CATALOG_NAME.to_owned() };
        QualifiedName { catalog, schema: schema.to_owned(), table }
    }

    /// Rows of an `information_schema` table, without what isn't the client's business.
    pub(crate) fn information_schema(&self, table: &str) -> Result<(SchemaRef, Vec<RecordBatch>), DuckError> {
        let (catalog, schema) =
            if table == "schemata" { ("catalog_name", "schema_name") } else { ("table_catalog", "table_schema") };
        self.query(&format!(
            "SELECT * FROM information_schema.{} WHERE {catalog} = {} AND {schema} = 'main'",
            Ident(table),
            duckdb_text(CATALOG_NAME)
        ))
    }

    /// Names that editors complete, from DuckDB's own lists.
    pub(crate) fn vocabulary(&self) -> Result<SqlVocabulary, DuckError> {
        let list = |sql: &str| -> Result<Vec<String>, DuckError> {
            let (_, batches) = self.query(sql)?;
            let columns = batches.iter().filter_map(|batch| batch.column(0).as_string_opt::<i32>());
            Ok(columns.flat_map(|column| column.iter().flatten().map(str::to_owned).collect::<Vec<_>>()).collect())
        };
        // DuckDB sorts functions into no groups; the first argument's type does.
        let functions = |types: &str| {
            list(&format!(
                "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = 'scalar' \
                 AND parameter_types[1] IN ({types}) AND regexp_full_match(function_name, '[a-z][a-z0-9_]*') ORDER BY 1"
            ))
        };
        Ok(SqlVocabulary {
            keywords: list(
                "SELECT upper(keyword_name) FROM duckdb_keywords() WHERE keyword_category = 'reserved' ORDER BY 1",
            )?,
            numeric_functions: functions("'DOUBLE', 'BIGINT', 'INTEGER', 'FLOAT', 'TINYINT'")?,
            string_functions: functions("'VARCHAR'")?,
            datetime_functions: functions("'DATE', 'TIMESTAMP', 'TIMESTAMP WITH TIME ZONE', 'INTERVAL', 'TIME'")?,
            system_functions: ["current_catalog", "current_database", "current_schema", "version"]
                .map(str::to_owned)
                .to_vec(),
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

fn create_table(schema: &str, entity: &Entity, columns: impl Iterator<Item = Column>) -> String {
    let columns: Vec<String> =
        columns.map(|column| format!("{} {}", Ident(entity.column_name(column)), entity.duckdb_type(column))).collect();
    format!("CREATE TABLE {}.{} ({})", Ident(schema), Ident(&entity.name), columns.join(", "))
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
