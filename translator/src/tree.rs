//! DuckDB's parse tree, as `json_serialize_sql` prints it.
//!
//! The tree stays JSON, because DuckDB prints it back as SQL; this module gives names to the few shapes that the other
//! stages look at. [`ParsedStatement::parse`] reads the answer of `json_serialize_sql`, [`statement_document`]
//! gives what `json_deserialize_sql` takes.

use serde_json::{Map, Value as Json, json};

use crate::error::{TranslateError, TranslateErrorKind};

/// One statement's parse tree.
#[derive(Debug, Clone)]
pub struct ParsedStatement {
    /// A query node: `SELECT_NODE`, `SET_OPERATION_NODE`, …
    pub node: Json,
    /// Parameter names (`1`, `name`) in DuckDB's order.
    pub parameters: Vec<String>,
}

impl ParsedStatement {
    /// Reads the answer of `json_serialize_sql`.
    ///
    /// # Errors
    /// A syntax error with its position, a statement that is no SELECT, several statements, nesting that no stack bears.
    pub fn parse(serialized: &str) -> Result<Self, TranslateError> {
        if nesting(serialized) > MAX_NESTING {
            return Err(TranslateError::refused("the query is nested too deep; write it flatter", None));
        }
        let mut deserializer = serde_json::Deserializer::from_str(serialized);
        // Bounded above; serde's own bound of 128 would refuse long `a + b + …` chains.
        deserializer.disable_recursion_limit();
        let mut answer: Json = serde::Deserialize::deserialize(&mut deserializer).map_err(|error| {
            // JSON has no word for infinity, and DuckDB writes one all the same.
            if serialized.contains(":Infinity") || serialized.contains(":-Infinity") {
                TranslateError::refused("a number of the query is beyond the range of DOUBLE", None)
            } else {
                TranslateError::internal(format!("cannot read the parse tree: {error}"))
            }
        })?;
        if answer["error"].as_bool() == Some(true) {
            return Err(parse_error(&answer));
        }
        let statements =
            answer.get_mut("statements").and_then(Json::as_array_mut).map(std::mem::take).unwrap_or_default();
        let [mut statement]: [Json; 1] = statements.try_into().map_err(|statements: Vec<Json>| {
            let message = if statements.is_empty() {
                "the query is empty; send one SELECT".to_owned()
            } else {
                format!("one statement at a time: the query holds {}", statements.len())
            };
            TranslateError::new(TranslateErrorKind::Refused, message, None)
        })?;
        let mut parameters: Vec<(u64, String)> = array(&statement["named_param_map"])
            .iter()
            .map(|entry| (entry["value"].as_u64().unwrap_or_default(), text(&entry["key"]).to_owned()))
            .collect();
        parameters.sort();
        let node = statement.get_mut("node").map(Json::take).unwrap_or_default();
        Ok(Self { node, parameters: parameters.into_iter().map(|(_, name)| name).collect() })
    }
}

/// Deepest nesting of a tree's brackets. Everything that walks, copies or drops a tree recurses as deep as it is, so the
/// bound is here, before the tree exists. Each of the 500 levels that are admitted takes a few of these.
const MAX_NESTING: usize = 3000;

/// How deep the brackets of a JSON text nest.
fn nesting(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn parse_error(answer: &Json) -> TranslateError {
    let message = text(&answer["error_message"]);
    let position = match &answer["position"] {
        Json::String(position) => position.parse().ok(),
        other => other.as_u64().and_then(|position| usize::try_from(position).ok()),
    };
    if text(&answer["error_type"]) == "parser" {
        return TranslateError::new(TranslateErrorKind::Syntax, message.to_owned(), position);
    }
    let message = if message.contains("Only SELECT") {
        "only SELECT is answered here (also EXPLAIN, SHOW TABLES, DESCRIBE and SUMMARIZE): this server is read-only"
            .to_owned()
    } else {
        message.to_owned()
    };
    TranslateError::new(TranslateErrorKind::Refused, message, position)
}

impl ParsedStatement {
    /// The expression of `SELECT <expression>`.
    pub fn into_expression(mut self) -> Option<Json> {
        self.node.get_mut("select_list")?.get_mut(0).map(Json::take)
    }

    /// Puts constant expressions in the place of parameters. A parameter that `value` doesn't know stays.
    pub fn set_parameters(&mut self, value: &dyn Fn(&str) -> Option<Json>) {
        set_parameters(&mut self.node, value);
    }
}

fn set_parameters(node: &mut Json, value: &dyn Fn(&str) -> Option<Json>) {
    match node {
        Json::Object(map) => {
            if text(map.get("class").unwrap_or(&Json::Null)) == "PARAMETER" {
                let name = text(map.get("identifier").unwrap_or(&Json::Null));
                if let Some(mut constant) = value(name) {
                    constant["alias"] = map.get("alias").cloned().unwrap_or_else(|| json!(""));
                    *node = constant;
                }
                return;
            }
            map.values_mut().for_each(|child| set_parameters(child, value));
        }
        Json::Array(items) => items.iter_mut().for_each(|item| set_parameters(item, value)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

/// Wraps query nodes as the document that `json_deserialize_sql` prints.
pub(crate) fn statement_document(node: &Json) -> Json {
    json!({"error": false, "statements": [{"node": node, "named_param_map": []}]})
}

/// The text of a string, or "" for anything else.
pub(crate) fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_default()
}

/// The elements of an array, or none for anything else.
pub(crate) fn array(value: &Json) -> &[Json] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The elements of an array, or none for anything else.
pub(crate) fn array_mut(value: &mut Json) -> &mut [Json] {
    value.as_array_mut().map_or(&mut [], Vec::as_mut_slice)
}

/// Where the node stands in the user's SQL: a zero-based byte offset.
pub(crate) fn location(node: &Json) -> Option<usize> {
    // DuckDB writes 2^64 - 1 for "unknown".
    node["query_location"].as_u64().filter(|at| *at != u64::MAX).and_then(|at| usize::try_from(at).ok())
}

/// The parts of a column reference (`f.carrier` is `["f", "carrier"]`), or `None` for another expression.
pub(crate) fn column_path(expression: &Json) -> Option<Vec<&str>> {
    (text(&expression["class"]) == "COLUMN_REF").then(|| array(&expression["column_names"]).iter().map(text).collect())
}

/// Whether the expression is a `*` (also `f.*` and `COLUMNS(…)`).
pub(crate) fn is_star(expression: &Json) -> bool {
    text(&expression["class"]) == "STAR"
}

/// A column reference node.
pub(crate) fn column_ref(path: &[&str]) -> Json {
    json!({"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "query_location": u64::MAX, "column_names": path})
}

/// An integer constant node.
pub(crate) fn integer_constant(value: i64) -> Json {
    json!({"class": "CONSTANT", "type": "VALUE_CONSTANT", "alias": "", "query_location": u64::MAX,
        "value": {"type": {"id": "BIGINT", "type_info": null}, "is_null": false, "value": value}})
}

/// `SELECT * FROM (node)`, for nodes that SQL only allows in a FROM clause below a WITH.
pub(crate) fn select_star_from_node(node: Json) -> Json {
    json!({"type": "SELECT_NODE", "modifiers": [], "cte_map": {"map": []},
        "select_list": [{"class": "STAR", "type": "STAR", "alias": "", "query_location": u64::MAX, "relation_name": "",
            "exclude_list": [], "replace_list": [], "columns": false, "expr": null, "qualified_exclude_list": [],
            "rename_list": []}],
        "from_table": {"type": "SUBQUERY", "alias": "", "sample": null, "query_location": u64::MAX,
            "subquery": {"node": node, "named_param_map": []}, "column_name_alias": []},
        "where_clause": null, "group_expressions": [], "group_sets": [], "aggregate_handling": "STANDARD_HANDLING",
        "having": null, "sample": null, "qualify": null})
}

/// Entries of a node's WITH clause: (name, value with `query`, `aliases`, …).
pub(crate) fn ctes(node: &Json) -> impl Iterator<Item = (&str, &Json)> {
    array(&node["cte_map"]["map"]).iter().map(|entry| (text(&entry["key"]), &entry["value"]))
}

/// Whether a field of a node says nothing: absent, null, empty or false.
pub(crate) fn is_vacant(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::Bool(flag) => !flag,
        Json::String(text) => text.is_empty(),
        Json::Array(items) => items.is_empty(),
        Json::Object(fields) => fields.values().all(is_vacant),
        Json::Number(_) => false,
    }
}

/// The fields of an object, or none for anything else.
pub(crate) fn fields(value: &Json) -> impl Iterator<Item = (&String, &Json)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_counts_brackets_outside_texts() {
        assert_eq!(nesting(r#"{"a[": [1, {"b": "\"]}{{{"}], "c": [[]]}"#), 3);
        assert_eq!(nesting("]]]"), 0);
    }

    #[test]
    fn a_tree_of_any_depth_is_refused_before_it_is_read() {
        for depth in [MAX_NESTING, 10_000_000] {
            let text = format!(r#"{{"error":false,"statements":[{{"node":{}}}]}}"#, "[".repeat(depth));
            let error = ParsedStatement::parse(&text).expect_err("too deep");
            assert_eq!(error.kind, TranslateErrorKind::Refused);
            assert!(error.message.contains("nested too deep"), "{}", error.message);
        }
    }
}
