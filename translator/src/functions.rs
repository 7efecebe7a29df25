//! The functions a query may call: those of DuckDB 1.5.5 (list in `functions.txt`) but for the refused ones.
//!
//! The list is `duckdb_functions()` of that version: a line is a name, its kinds (`s` scalar, `a` aggregate, `m` macro)
//! and `v` when it is volatile. A test compares it with the linked DuckDB.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What is known of a function name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Function {
    pub is_scalar: bool,
    pub is_aggregate: bool,
    pub is_macro: bool,
    pub is_volatile: bool,
}

static FUNCTIONS: LazyLock<HashMap<&'static str, Function>> = LazyLock::new(|| {
    include_str!("functions.txt")
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, kinds)| {
            let has = |kind| kinds.contains(kind);
            let function =
                Function { is_scalar: has('s'), is_aggregate: has('a'), is_macro: has('m'), is_volatile: has('v') };
            (name, function)
        })
        .collect()
});

/// Functions that are refused by name, and why.
const REFUSED: &[(&[&str], &str)] = &[
    (&["getenv"], "it reads the server's environment"),
    (&["current_setting", "getvariable", "in_search_path"], "it reads the server's settings"),
    (&["current_query", "current_query_id", "current_connection_id"], "it reads the server's internal state"),
    (&["current_transaction_id", "txid_current", "stats", "get_block_size"], "it reads the server's internal state"),
    (&["nextval", "currval", "setseed", "write_log"], "it changes the server's state"),
    (&["sleep_ms", "pg_sleep"], "it only occupies the server"),
    (&["json_serialize_plan", "json_deserialize_sql", "json_serialize_sql"], "it reads or writes SQL as data"),
    (&["query", "query_table"], "it runs SQL that was not checked"),
    (&["parse_duckdb_log_message"], "it reads the server's log"),
];

/// Table functions a query may call in FROM.
pub const TABLE_FUNCTIONS: [&str; 3] = ["range", "generate_series", "unnest"];

/// Looks a function up; `None` when DuckDB has no function of that name.
pub fn function(name: &str) -> Option<Function> {
    FUNCTIONS.get(name).or_else(|| FUNCTIONS.get(name.to_ascii_lowercase().as_str())).copied()
}

/// Why a function is refused, if it is.
pub fn refusal(name: &str) -> Option<&'static str> {
    REFUSED
        .iter()
        .find(|(names, _)| names.iter().any(|refused| refused.eq_ignore_ascii_case(name)))
        .map(|(_, why)| *why)
}

/// Names of all functions, in no order.
pub fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.keys().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known() {
        assert!(function("SUM").unwrap().is_aggregate);
        assert!(function("random").unwrap().is_volatile);
        assert!(function("lower").unwrap().is_scalar);
        assert_eq!(function("no_such_function"), None);
        assert!(refusal("GetEnv").is_some() && refusal("lower").is_none());
    }
}
