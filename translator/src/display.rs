//! Expressions as text for people: plans and error messages. Nothing runs this text.

use serde_json::Value as Json;

use crate::tree::{array, text};

/// SQL-like text of an expression, shortened where it is long.
pub(crate) fn expression(node: &Json) -> String {
    const LONGEST: usize = 200;
    let full = render(node, 0);
    if full.chars().count() <= LONGEST {
        return full;
    }
    let cut: String = full.chars().take(LONGEST).collect();
    format!("{cut}…")
}

fn render(node: &Json, depth: usize) -> String {
    if depth > 20 {
        return "…".to_owned();
    }
    let child = |node: &Json| render(node, depth + 1);
    let children =
        |node: &Json, between: &str| array(&node["children"]).iter().map(child).collect::<Vec<_>>().join(between);
    let kind = text(&node["type"]);
    match text(&node["class"]) {
        "COLUMN_REF" => array(&node["column_names"]).iter().map(text).collect::<Vec<_>>().join("."),
        "CONSTANT" => constant(&node["value"]),
        "PARAMETER" => format!("${}", text(&node["identifier"])),
        "CAST" => format!("{}::{}", child(&node["child"]), text(&node["cast_type"]["id"])),
        "COMPARISON" => format!("{} {} {}", child(&node["left"]), comparison(kind), child(&node["right"])),
        "BETWEEN" => {
            format!("{} BETWEEN {} AND {}", child(&node["input"]), child(&node["lower"]), child(&node["upper"]))
        }
        "CONJUNCTION" if kind == "CONJUNCTION_OR" => format!("({})", children(node, " OR ")),
        "CONJUNCTION" => format!("({})", children(node, " AND ")),
        "OPERATOR" => match (kind, array(&node["children"])) {
            ("OPERATOR_NOT", [inner]) => format!("NOT ({})", child(inner)),
            ("OPERATOR_IS_NULL", [inner]) => format!("{} IS NULL", child(inner)),
            ("OPERATOR_IS_NOT_NULL", [inner]) => format!("{} IS NOT NULL", child(inner)),
            ("COMPARE_IN" | "COMPARE_NOT_IN", [input, values @ ..]) => {
                let not = if kind == "COMPARE_NOT_IN" { "NOT " } else { "" };
                format!("{} {not}IN ({})", child(input), values.iter().map(child).collect::<Vec<_>>().join(", "))
            }
            _ => format!("{}({})", kind.trim_start_matches("OPERATOR_").to_ascii_lowercase(), children(node, ", ")),
        },
        "FUNCTION" => {
            let name = text(&node["function_name"]);
            let operator = match name {
                "~~" => "LIKE",
                "!~~" => "NOT LIKE",
                "~~*" => "ILIKE",
                "!~~*" => "NOT ILIKE",
                other => other,
            };
            match array(&node["children"]) {
                [left, right] if node["is_operator"].as_bool() == Some(true) => {
                    format!("{} {operator} {}", child(left), child(right))
                }
                _ => format!("{name}({})", children(node, ", ")),
            }
        }
        "SUBQUERY" => "(subquery)".to_owned(),
        "STAR" => "*".to_owned(),
        other => format!("<{}>", other.to_ascii_lowercase()),
    }
}

fn constant(value: &Json) -> String {
    if value["is_null"].as_bool() == Some(true) {
        return "NULL".to_owned();
    }
    match &value["value"] {
        Json::String(text) => format!("'{}'", text.replace('\'', "''")),
        content @ (Json::Number(_) | Json::Object(_)) => {
            let scale = value["type"]["type_info"]["scale"].as_u64().and_then(|scale| u8::try_from(scale).ok());
            match (crate::literal::integer(content), scale) {
                (Some(unscaled), Some(scale)) => crate::quote::decimal_text(unscaled, scale),
                (Some(whole), None) => whole.to_string(),
                (None, _) => content.to_string(),
            }
        }
        other => other.to_string(),
    }
}

fn comparison(kind: &str) -> &str {
    match kind {
        "COMPARE_EQUAL" => "=",
        "COMPARE_NOTEQUAL" => "<>",
        "COMPARE_LESSTHAN" => "<",
        "COMPARE_LESSTHANOREQUALTO" => "<=",
        "COMPARE_GREATERTHAN" => ">",
        "COMPARE_GREATERTHANOREQUALTO" => ">=",
        "COMPARE_DISTINCT_FROM" => "IS DISTINCT FROM",
        "COMPARE_NOT_DISTINCT_FROM" => "IS NOT DISTINCT FROM",
        other => other,
    }
}
