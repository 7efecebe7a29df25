//! Trees that DuckDB prints as text of another meaning, made into ones that it prints right.
//!
//! DuckDB's printer writes no parentheses around joins, and a double as a decimal. A test prints and parses every golden
//! case and compares the trees.

use serde_json::{Value as Json, json};

use crate::tree::text;

/// Rewrites a tree into one of the same meaning that survives printing.
pub(super) fn make_printable(node: &mut Json) {
    match node {
        Json::Object(map) => {
            map.values_mut().for_each(make_printable);
            if text(&node["type"]) == "JOIN" {
                join(node);
            } else if text(&node["class"]) == "CONSTANT" && text(&node["value"]["type"]["id"]) == "DOUBLE" {
                double(node);
            }
        }
        Json::Array(items) => items.iter_mut().for_each(make_printable),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

/// A cross join prints as a comma, which binds weaker than any JOIN: inside another join it is one ON true.
fn join(node: &mut Json) {
    if text(&node["ref_type"]) == "CROSS" {
        return;
    }
    for side in ["left", "right"] {
        on_true(&mut node[side]);
    }
}

fn on_true(node: &mut Json) {
    if text(&node["type"]) != "JOIN" || text(&node["ref_type"]) != "CROSS" {
        return;
    }
    node["ref_type"] = json!("REGULAR");
    node["condition"] = json!({"class": "CAST", "type": "OPERATOR_CAST", "alias": "", "query_location": u64::MAX,
        "try_cast": false, "cast_type": {"id": "BOOLEAN", "type_info": null}, "child": varchar("true")});
    for side in ["left", "right"] {
        on_true(&mut node[side]);
    }
}

/// `1e0` prints as `1.0`, which is a DECIMAL.
fn double(node: &mut Json) {
    let Some(value) = node["value"]["value"].as_f64() else { return };
    let alias = node["alias"].take();
    *node = json!({"class": "CAST", "type": "OPERATOR_CAST", "alias": alias, "query_location": u64::MAX,
        "try_cast": false, "cast_type": {"id": "DOUBLE", "type_info": null}, "child": varchar(&format!("{value:e}"))});
}

fn varchar(text: &str) -> Json {
    json!({"class": "CONSTANT", "type": "VALUE_CONSTANT", "alias": "", "query_location": u64::MAX,
        "value": {"type": {"id": "VARCHAR", "type_info": null}, "is_null": false, "value": text}})
}
