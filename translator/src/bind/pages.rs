//! Stable pages (docs/contract.md, "Stable pages"): a SELECT with ORDER BY and LIMIT or OFFSET is ordered by `row_id`
//! last, so that two pages of an unchanged table never share or lose a row.

use serde_json::{Value as Json, json};

use super::scope::{FromItem, Source, resolve};
use crate::catalog::Column;
use crate::functions;
use crate::tree::{array, column_path, column_ref, integer_constant, is_star, is_vacant, text};

/// Macros of DuckDB that expand to aggregates.
const AGGREGATE_MACROS: [&str; 7] = [
    "geomean",
    "geometric_mean",
    "json_group_array",
    "json_group_object",
    "json_group_structure",
    "wavg",
    "weighted_avg",
];

/// Appends `row_id ASC` of each entity in FROM to the ORDER BY of a paged SELECT; other queries stay as they are.
pub(super) fn add_tie_breaks(node: &mut Json, items: &[FromItem], width: Option<usize>) {
    let modifiers = array(&node["modifiers"]);
    let is_paged =
        modifiers.iter().any(|modifier| matches!(text(&modifier["type"]), "LIMIT_MODIFIER" | "LIMIT_PERCENT_MODIFIER"));
    let is_distinct = modifiers.iter().any(|modifier| text(&modifier["type"]) == "DISTINCT_MODIFIER");
    let Some(order) = modifiers.iter().position(|modifier| text(&modifier["type"]) == "ORDER_MODIFIER") else { return };
    if !is_paged || is_distinct || aggregates(node) {
        return;
    }
    let Some(mut orders) = expand_order_by_all(array(&node["modifiers"][order]["orders"]), node, width) else { return };
    let before = orders.len();
    for item in items.iter().filter(|item| item.visible) {
        let Source::Reference { .. } = &item.source else { continue };
        let Some(row_id) = item.columns.as_ref().and_then(|columns| columns.first()).map(|first| first.name.as_str())
        else {
            continue;
        };
        let present = orders.iter().any(|order| {
            column_path(&order["expression"]).is_some_and(|path| {
                resolve(&path, items).is_some_and(|(found, origins)| {
                    std::ptr::eq(found, item) && origins.iter().any(|origin| origin.column == Column::RowId)
                })
            })
        });
        if !present {
            orders.push(json!({"type": "ASCENDING", "null_order": "NULLS LAST",
                "expression": column_ref(&[&item.alias, row_id])}));
        }
    }
    if orders.len() > before {
        node["modifiers"][order]["orders"] = json!(orders);
    }
}

/// `ORDER BY ALL` as the positions it stands for, since it can't have company; `None` when the width isn't known.
fn expand_order_by_all(orders: &[Json], node: &Json, width: Option<usize>) -> Option<Vec<Json>> {
    let [only] = orders else { return Some(orders.to_vec()) };
    if !is_star(&only["expression"]) {
        return Some(orders.to_vec());
    }
    let has_unnest = array(&node["select_list"]).iter().any(|item| text(&item["function_name"]) == "unnest");
    let width = width.filter(|_| !has_unnest)?;
    (1..=i64::try_from(width).ok()?)
        .map(|position| {
            Some(json!({"type": only["type"], "null_order": only["null_order"], "expression": integer_constant(position)}))
        })
        .collect()
}

/// Whether the SELECT groups or aggregates.
pub(super) fn aggregates(node: &Json) -> bool {
    !is_vacant(&node["group_expressions"])
        || !array(&node["group_sets"]).is_empty()
        || text(&node["aggregate_handling"]) != "STANDARD_HANDLING"
        || !node["having"].is_null()
        || calls_aggregate(&node["select_list"])
        || calls_aggregate(&node["modifiers"])
}

fn calls_aggregate(value: &Json) -> bool {
    match value {
        Json::Array(items) => items.iter().any(calls_aggregate),
        Json::Object(map) => {
            let class = text(&value["class"]);
            if class == "SUBQUERY" {
                return calls_aggregate(&value["child"]);
            }
            if class == "FUNCTION" {
                let name = text(&value["function_name"]);
                let aggregate = functions::function(name).is_some_and(|function| function.is_aggregate)
                    || AGGREGATE_MACROS.iter().any(|known| known.eq_ignore_ascii_case(name));
                if aggregate {
                    return true;
                }
            }
            map.values().any(calls_aggregate)
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => false,
    }
}
