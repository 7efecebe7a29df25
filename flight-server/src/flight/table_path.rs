//! Tables by their names: the path of a descriptor, and the statement that reads all of one.

use translator::catalog::{CATALOG_NAME, SCHEMA_NAME};
use translator::quote::Ident;

use super::failure::{Failure, Outcome};

/// The descriptor of one table, as ListFlights names it.
pub(super) fn table_path(entity: &str) -> Vec<String> {
    vec![CATALOG_NAME.to_owned(), SCHEMA_NAME.to_owned(), entity.to_owned()]
}

/// All of one table.
pub(super) fn select_table(entity: &str) -> String {
    // The only SQL the wire writes; the translator admits it like any client's statement.
    format!("SELECT * FROM {}", Ident(entity))
}

/// All of the table that a descriptor's path names.
pub(super) fn select_path(path: &[String]) -> Outcome<String> {
    let in_catalog = |catalog: &str| catalog.eq_ignore_ascii_case(CATALOG_NAME);
    let in_schema = |schema: &str| schema.eq_ignore_ascii_case(SCHEMA_NAME);
    match path {
        [table] => Ok(select_table(table)),
        [schema, table] if in_schema(schema) => Ok(select_table(table)),
        [catalog, schema, table] if in_catalog(catalog) && in_schema(schema) => Ok(select_table(table)),
        _ => Err(Failure::not_found(format!(
            "no table has this path; tables are {CATALOG_NAME}, {SCHEMA_NAME}, <table>, as ListFlights names them"
        ))),
    }
}
