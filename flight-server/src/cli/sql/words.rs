//! The words that completion offers and highlighting knows.

use std::collections::BTreeMap;

use arrow::array::{Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;

/// DuckDB's words in one SELECT, as far as the server admits them.
pub(super) const KEYWORDS: &[&str] = &[
    "ALL",
    "ANALYZE",
    "AND",
    "ANTI",
    "ANY",
    "AS",
    "ASC",
    "ASOF",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COLLATE",
    "COLUMNS",
    "CROSS",
    "CUBE",
    "CURRENT",
    "DATE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "ELSE",
    "END",
    "ESCAPE",
    "EXCEPT",
    "EXCLUDE",
    "EXISTS",
    "EXPLAIN",
    "FALSE",
    "FILTER",
    "FIRST",
    "FOLLOWING",
    "FROM",
    "FULL",
    "GROUP",
    "GROUPING",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "IS",
    "JOIN",
    "LAST",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "MATERIALIZED",
    "NATURAL",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PIVOT",
    "POSITIONAL",
    "PRECEDING",
    "QUALIFY",
    "RANGE",
    "RECURSIVE",
    "REPLACE",
    "RIGHT",
    "ROLLUP",
    "ROW",
    "ROWS",
    "SELECT",
    "SEMI",
    "SETS",
    "SHOW",
    "SIMILAR",
    "SUMMARIZE",
    "TABLES",
    "THEN",
    "TIMESTAMP",
    "TO",
    "TRUE",
    "TRY_CAST",
    "UNBOUNDED",
    "UNION",
    "UNPIVOT",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
    "WITHIN",
];

/// Functions that people write often; DuckDB has many more.
const FUNCTIONS: &[&str] = &[
    "abs",
    "approx_count_distinct",
    "arg_max",
    "arg_min",
    "avg",
    "bool_and",
    "bool_or",
    "ceil",
    "coalesce",
    "concat",
    "contains",
    "count",
    "date_diff",
    "date_part",
    "date_trunc",
    "day",
    "dense_rank",
    "extract",
    "first_value",
    "floor",
    "generate_series",
    "greatest",
    "hour",
    "lag",
    "last_value",
    "lead",
    "least",
    "len",
    "length",
    "list",
    "list_contains",
    "lower",
    "max",
    "median",
    "min",
    "minute",
    "mode",
    "month",
    "now",
    "ntile",
    "nullif",
    "quantile_cont",
    "rank",
    "regexp_extract",
    "regexp_matches",
    "regexp_replace",
    "replace",
    "round",
    "row_number",
    "split_part",
    "starts_with",
    "stddev",
    "strftime",
    "string_agg",
    "strptime",
    "substring",
    "sum",
    "trim",
    "unnest",
    "upper",
    "variance",
    "year",
];

/// The catalog and the options of a server.
#[derive(Debug, Clone, Default)]
pub(super) struct Words {
    /// Columns by table. Tables of other schemas than the entities' are written with theirs: `system.tiers`.
    tables: BTreeMap<String, Vec<String>>,
    options: Vec<String>,
}

/// What [`Words::new`] is made of: schema, table, column.
pub(super) const COLUMNS_SQL: &str = "SELECT table_schema, table_name, column_name FROM information_schema.columns";
pub(super) const OPTIONS_SQL: &str = "SELECT name FROM system.options ORDER BY name";

/// Tables that are there although `information_schema` doesn't list them.
const SERVERS_OWN: &[&str] = &[
    "information_schema.columns",
    "information_schema.schemata",
    "information_schema.tables",
    "system.files",
    "system.health",
    "system.moments",
    "system.options",
    "system.queries",
    "system.tiers",
];

impl Words {
    /// From the answers to [`COLUMNS_SQL`] and [`OPTIONS_SQL`].
    pub(super) fn new(columns: &[RecordBatch], options: &[RecordBatch]) -> Self {
        let mut words = Self::default();
        for own in SERVERS_OWN {
            words.tables.insert((*own).to_owned(), Vec::new());
        }
        for batch in columns {
            let [schemas, tables, names] = [0, 1, 2].map(|index| texts(batch, index));
            for ((schema, table), name) in schemas.into_iter().zip(tables).zip(names) {
                let table = if schema == "main" { plain(&table) } else { format!("{schema}.{table}") };
                words.tables.entry(table).or_default().push(name);
            }
        }
        words.options = options.iter().flat_map(|batch| texts(batch, 0)).collect();
        words
    }

    pub(super) fn tables(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(String::as_str)
    }

    /// The columns of a table, whatever the letter case of its name.
    pub(super) fn columns(&self, table: &str) -> Option<&[String]> {
        let table = table.strip_prefix("main.").unwrap_or(table);
        let found = self.tables.iter().find(|(name, _)| name.eq_ignore_ascii_case(table));
        found.map(|(_, columns)| columns.as_slice())
    }

    pub(super) fn options(&self) -> &[String] {
        &self.options
    }

    pub(super) fn functions() -> &'static [&'static str] {
        FUNCTIONS
    }
}

/// A name as SQL takes it: quoted where it isn't plain.
pub(super) fn plain(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && KEYWORDS.binary_search(&name.to_ascii_uppercase().as_str()).is_err();
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn texts(batch: &RecordBatch, column: usize) -> Vec<String> {
    let Some(column) = batch.columns().get(column) else { return Vec::new() };
    let Ok(column) = cast(column, &DataType::Utf8) else { return Vec::new() };
    let Some(column) = column.as_any().downcast_ref::<StringArray>() else { return Vec::new() };
    column.iter().flatten().map(str::to_owned).collect()
}

#[cfg(test)]
impl Words {
    pub(super) fn of(tables: &[(&str, &[&str])], options: &[&str]) -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let tables = tables.iter().map(|(table, columns)| ((*table).to_owned(), owned(columns))).collect();
        Self { tables, options: owned(options) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_sorted_and_odd_names_quoted() {
        assert!(KEYWORDS.is_sorted());
        assert_eq!(plain("dep_delay"), "dep_delay");
        assert_eq!(plain("Dep delay"), "\"Dep delay\"");
        assert_eq!(plain("order"), "\"order\"");
    }
}
