//! What a SELECT hands to whoever reads it: the names of its columns, and which of them are columns of a reference.

use serde_json::Value as Json;

use super::pages::aggregates;
use super::scope::{FromItem, Origin, Output, OutputColumn, PushRule, has_duplicates, resolve};
use crate::tree::{array, column_path, is_star, is_vacant, text};

/// Output columns of a SELECT. Names may occur twice.
pub(super) fn of_select(node: &Json, items: &[FromItem]) -> Output {
    let mut columns: Vec<OutputColumn> = Vec::new();
    let barrier = barrier(node);
    let seen_from_outside = |item: &FromItem, mut column: OutputColumn| {
        for origin in &mut column.origins {
            origin.push = barrier.map_or(origin.push.and(item.push), PushRule::Never);
        }
        column
    };
    for expression in array(&node["select_list"]) {
        let alias = text(&expression["alias"]);
        if is_star(expression) {
            let plain = ["exclude_list", "replace_list", "qualified_exclude_list", "rename_list", "expr", "columns"];
            if !alias.is_empty() || plain.iter().any(|field| !is_vacant(&expression[*field])) {
                return None;
            }
            let relation = text(&expression["relation_name"]);
            for item in items.iter().filter(|item| item.visible) {
                if relation.is_empty() || item.alias.eq_ignore_ascii_case(relation) {
                    columns.extend(item.columns.clone()?.into_iter().map(|column| seen_from_outside(item, column)));
                }
            }
        } else if let Some(path) = column_path(expression) {
            let name = if alias.is_empty() { path.last().copied().unwrap_or_default() } else { alias };
            let column = match resolve(&path, items) {
                Some((item, origins)) => {
                    seen_from_outside(item, OutputColumn { name: name.to_owned(), origins: origins.to_vec() })
                }
                None => OutputColumn::computed(name),
            };
            columns.push(column);
        } else if text(&expression["class"]) == "FUNCTION" && text(&expression["function_name"]) == "unnest" {
            return None;
        } else {
            // Without an alias DuckDB names it after its text; nothing of ours is called like that.
            columns.push(OutputColumn::computed(alias));
        }
    }
    Some(columns)
}

/// Output columns of a set operation: named by its first branch, and of the references of all branches where each branch
/// hands through a column of the same type. `type_of` gives the type of a column of a reference.
pub(super) fn of_set_operation(node: &Json, branches: Vec<Output>, type_of: &dyn Fn(Origin) -> String) -> Output {
    let branches: Vec<Vec<OutputColumn>> = branches.into_iter().collect::<Option<_>>()?;
    let (first, others) = branches.split_first()?;
    // A filter leaves the same rows of a UNION whether it stands above it or in each branch.
    let is_union = text(&node["setop_type"]) == "UNION";
    let is_aligned = is_union && others.iter().all(|other| other.len() == first.len());
    let limit = limit(node);
    let column = |(index, column): (usize, &OutputColumn)| {
        let mut origins: Vec<Origin> = branches.iter().flat_map(|branch| branch[index].origins.clone()).collect();
        // Another type among the branches would be cast to, and text orders otherwise than numbers.
        let is_whole = branches.iter().all(|branch| !branch[index].origins.is_empty())
            && origins.windows(2).all(|pair| type_of(pair[0]) == type_of(pair[1]));
        if !is_whole {
            origins.clear();
        }
        if let Some(why) = limit {
            origins.iter_mut().for_each(|origin| origin.push = PushRule::Never(why));
        }
        OutputColumn { name: column.name.clone(), origins }
    };
    if is_aligned { Some(first.iter().enumerate().map(column).collect()) } else { Some(computed(first.clone())) }
}

/// Why a filter on the output of a query may not be one on its input: its clauses after the last operator.
fn limit(node: &Json) -> Option<&'static str> {
    for modifier in array(&node["modifiers"]) {
        match text(&modifier["type"]) {
            "ORDER_MODIFIER" => {}
            "DISTINCT_MODIFIER" => return Some("the subquery is DISTINCT"),
            _ => return Some("the subquery has a LIMIT or OFFSET"),
        }
    }
    None
}

/// Why a filter on the output of a SELECT may not filter its input.
fn barrier(node: &Json) -> Option<&'static str> {
    if let Some(why) = limit(node) {
        return Some(why);
    }
    if aggregates(node) {
        return Some("the subquery groups its rows");
    }
    if !is_vacant(&node["qualify"]) || has_window(&node["select_list"]) {
        return Some("the subquery has a window function");
    }
    None
}

fn has_window(value: &Json) -> bool {
    match value {
        Json::Array(items) => items.iter().any(has_window),
        Json::Object(map) => match text(&value["class"]) {
            "WINDOW" => true,
            "SUBQUERY" => has_window(&value["child"]),
            _ => map.values().any(has_window),
        },
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => false,
    }
}

/// Whether the SELECT means the same whichever further columns its stars stand for: nothing in it goes by position, by
/// all columns, or by names that a star could make ambiguous.
pub(super) fn names_columns(node: &Json) -> bool {
    let plain_order = |order: &Json| column_path(&order["expression"]).is_some();
    array(&node["modifiers"]).iter().all(|modifier| match text(&modifier["type"]) {
        "ORDER_MODIFIER" => array(&modifier["orders"]).iter().all(plain_order),
        "LIMIT_MODIFIER" | "LIMIT_PERCENT_MODIFIER" => true,
        _ => false,
    }) && !aggregates(node)
        && array(&node["select_list"]).iter().any(is_star)
}

/// The same columns, as nobody's.
pub(super) fn computed(columns: Vec<OutputColumn>) -> Vec<OutputColumn> {
    columns.into_iter().map(|column| OutputColumn::computed(column.name)).collect()
}

/// Names after `AS t(a, b)`, which renames from the left.
pub(super) fn renamed(output: Output, aliases: &Json) -> Output {
    let mut columns = output?;
    for (column, alias) in columns.iter_mut().zip(array(aliases)) {
        text(alias).clone_into(&mut column.name);
    }
    Some(if has_duplicates(&columns) { computed(columns) } else { columns })
}
