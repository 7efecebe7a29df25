//! Smaller queries that fail like a given one: DuckDB's parse tree, a piece at a time left out.

use anyhow::{Context, Result};
use serde_json::Value as Json;

/// How many smaller queries are tried at most.
const TRIES: usize = 400;

/// Leaves out of a query whatever can go while it still fails.
///
/// # Errors
/// DuckDB can't parse the query itself.
pub async fn smallest(sql: &str, fails: impl AsyncFn(&str) -> bool) -> Result<String> {
    let duckdb = duckdb::Connection::open_in_memory()?;
    let convert = |function: &str, text: &str| -> Result<String> {
        Ok(duckdb.query_row(&format!("SELECT {function}"), [text], |row| row.get(0))?)
    };
    let mut best = sql.to_owned();
    let mut tries = 0;
    'smaller: loop {
        let document = convert("json_serialize_sql(CAST($1 AS VARCHAR))", &best)?;
        let document: Json = serde_json::from_str(&document).with_context(|| best.clone())?;
        for number in 0.. {
            let mut smaller = document.clone();
            if !cut(&mut smaller, &mut { number }) || tries == TRIES {
                return Ok(best);
            }
            let Ok(text) = convert("json_deserialize_sql(CAST($1 AS JSON))", &smaller.to_string()) else { continue };
            if text.len() >= best.len() {
                continue;
            }
            tries += 1;
            if fails(&text).await {
                best = text;
                continue 'smaller;
            }
        }
    }
}

/// Makes the cut of a number, counting from the top; false when the tree has fewer places to cut.
fn cut(node: &mut Json, number: &mut usize) -> bool {
    let here = cuts(node);
    if *number < here.len() {
        *node = here.into_iter().nth(*number).unwrap_or_default();
        return true;
    }
    *number -= here.len();
    match node {
        Json::Object(map) => map.values_mut().any(|child| cut(child, number)),
        Json::Array(items) => items.iter_mut().any(|child| cut(child, number)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => false,
    }
}

/// What may stand in the place of a node.
fn cuts(node: &Json) -> Vec<Json> {
    let kind = node["type"].as_str().unwrap_or_default();
    let mut cuts: Vec<Json> = match kind {
        "CONJUNCTION_AND" | "CONJUNCTION_OR" | "OPERATOR_NOT" => {
            node["children"].as_array().into_iter().flatten().cloned().collect()
        }
        "SET_OPERATION_NODE" | "JOIN" => [&node["left"], &node["right"]].into_iter().cloned().collect(),
        _ => Vec::new(),
    };
    for clause in ["where_clause", "having", "qualify"] {
        if node[clause].is_object() {
            let mut without = node.clone();
            without[clause] = Json::Null;
            cuts.push(without);
        }
    }
    for list in ["select_list", "modifiers"] {
        let length = node[list].as_array().map_or(0, Vec::len);
        let least = usize::from(list == "select_list");
        for index in 0..if length > least { length } else { 0 } {
            let mut without = node.clone();
            without[list].as_array_mut().map(|items| items.remove(index));
            cuts.push(without);
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_matter_goes() -> Result<()> {
        let sql = "SELECT a, b FROM x JOIN y ON x.k = y.k WHERE (a = 1 OR NOT (b = 2 AND c = 3)) AND d = 4 ORDER BY a LIMIT 3";
        let smallest = smallest(sql, async |text: &str| text.contains("b = 2")).await?;
        assert_eq!(smallest, "SELECT b FROM x WHERE (b = 2)");
        Ok(())
    }
}
