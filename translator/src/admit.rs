//! The sandbox: which parse trees may run at all.
//!
//! Every node class and type is named here with the fields it may carry; whatever isn't named is refused, so a new
//! construct of a later DuckDB is refused until somebody has thought about it. This wall and the engine's lockdown
//! (docs/contract.md, "Running a query") are independent.

use std::cell::Cell;

use serde_json::Value as Json;

use crate::catalog::{CATALOG_NAME, SCHEMA_NAME};
use crate::error::{TranslateError, TranslateErrorKind};
use crate::functions::{self, TABLE_FUNCTIONS};
use crate::tree::{array, ctes, fields, is_vacant, location, text};

type Admitted = Result<(), TranslateError>;

/// Deepest nesting of expressions and subqueries; DuckDB's own `max_expression_depth` is 1000.
const MAX_DEPTH: usize = 500;

/// Admits a query node and everything under it.
///
/// # Errors
/// [`TranslateErrorKind::Refused`] with the name and place of what is not admitted.
pub(crate) fn admit(node: &Json) -> Admitted {
    let seen = Cell::new(0);
    query_node(node, Depth { levels: 0, seen: &seen })?;
    // Whatever stands where nobody looks was not admitted.
    if seen.get() == count(node) {
        Ok(())
    } else {
        Err(refuse("the query holds an expression in a place that is not supported", node))
    }
}

fn refuse(what: impl Into<String>, node: &Json) -> TranslateError {
    TranslateError::refused(what, location(node))
}

/// Refuses fields that say something and aren't listed.
fn only(node: &Json, what: &str, known: &[&str]) -> Admitted {
    for (name, value) in fields(node) {
        if !known.contains(&name.as_str()) && !is_vacant(value) {
            return Err(refuse(format!("`{name}` on {what} is not supported"), node));
        }
    }
    Ok(())
}

/// A whole statement inside another.
fn statement(statement: &Json, depth: Depth<'_>) -> Admitted {
    only(statement, "a subquery", &["node", "named_param_map"])?;
    query_node(&statement["node"], depth)
}

/// How deep a node is, and how many expressions and tables were seen so far.
#[derive(Clone, Copy)]
struct Depth<'a> {
    levels: usize,
    seen: &'a Cell<usize>,
}

impl Depth<'_> {
    fn see(self) {
        self.seen.set(self.seen.get() + 1);
    }
}

/// Counts expressions and tables wherever they are, but for what is inside a constant.
fn count(value: &Json) -> usize {
    match value {
        Json::Object(map) => {
            let is_constant = text(&value["class"]) == "CONSTANT";
            let is_counted = map.contains_key("class") || SOURCES.contains(&text(&value["type"]));
            let below: usize =
                map.iter().filter(|(name, _)| !(is_constant && *name == "value")).map(|(_, value)| count(value)).sum();
            usize::from(is_counted) + below
        }
        Json::Array(items) => items.iter().map(count).sum(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => 0,
    }
}

/// Tables that read something.
const SOURCES: [&str; 3] = ["BASE_TABLE", "TABLE_FUNCTION", "SHOW_REF"];

fn deeper(depth: Depth<'_>) -> Result<Depth<'_>, TranslateError> {
    if depth.levels >= MAX_DEPTH {
        return Err(TranslateError::refused(
            format!(
                "the query is nested deeper than {MAX_DEPTH} levels; write it flatter (for example IN instead of a chain of OR)"
            ),
            None,
        ));
    }
    Ok(Depth { levels: depth.levels + 1, ..depth })
}

fn query_node(node: &Json, depth: Depth<'_>) -> Admitted {
    let depth = deeper(depth)?;
    if !node["cte_map"].is_object() || !node["cte_map"]["map"].is_array() {
        return Err(refuse("a query without its list of WITH entries is not supported", node));
    }
    for (_, cte) in ctes(node) {
        only(cte, "a WITH clause", &["aliases", "query", "materialized"])?;
        if !is_vacant(&cte["key_targets"]) {
            return Err(refuse("USING KEY in a recursive WITH is not supported", cte));
        }
        statement(&cte["query"], depth)?;
    }
    for modifier in array(&node["modifiers"]) {
        modifier_node(modifier, depth)?;
    }
    match text(&node["type"]) {
        "SELECT_NODE" => select_node(node, depth),
        "SET_OPERATION_NODE" => {
            only(
                node,
                "a set operation",
                &["type", "modifiers", "cte_map", "setop_type", "setop_all", "left", "right", "children"],
            )?;
            match text(&node["setop_type"]) {
                "UNION" | "UNION_BY_NAME" | "EXCEPT" | "INTERSECT" => {}
                other => return Err(refuse(format!("the set operation {other} is not supported"), node)),
            }
            for side in ["left", "right"] {
                if !node[side].is_null() {
                    query_node(&node[side], depth)?;
                }
            }
            array(&node["children"]).iter().try_for_each(|child| query_node(child, depth))
        }
        "RECURSIVE_CTE_NODE" => {
            only(
                node,
                "a recursive WITH",
                &["type", "modifiers", "cte_map", "cte_name", "union_all", "left", "right", "aliases"],
            )?;
            query_node(&node["left"], depth)?;
            query_node(&node["right"], depth)
        }
        other => Err(refuse(format!("the query form {other} is not supported"), node)),
    }
}

fn select_node(node: &Json, depth: Depth<'_>) -> Admitted {
    only(
        node,
        "a SELECT",
        &[
            "type",
            "modifiers",
            "cte_map",
            "select_list",
            "from_table",
            "where_clause",
            "group_expressions",
            "group_sets",
            "aggregate_handling",
            "having",
            "sample",
            "qualify",
        ],
    )?;
    table_ref(&node["from_table"], depth)?;
    expressions(&node["select_list"], depth)?;
    expressions(&node["group_expressions"], depth)?;
    for clause in ["where_clause", "having", "qualify"] {
        optional(&node[clause], depth)?;
    }
    Ok(())
}

fn modifier_node(modifier: &Json, depth: Depth<'_>) -> Admitted {
    only(modifier, "a clause", &["type", "orders", "limit", "offset", "distinct_on_targets"])?;
    match text(&modifier["type"]) {
        "ORDER_MODIFIER" => orders(&modifier["orders"], depth),
        "LIMIT_MODIFIER" | "LIMIT_PERCENT_MODIFIER" => {
            optional(&modifier["limit"], depth)?;
            optional(&modifier["offset"], depth)
        }
        "DISTINCT_MODIFIER" => expressions(&modifier["distinct_on_targets"], depth),
        other => Err(refuse(format!("the clause {other} is not supported"), modifier)),
    }
}

fn orders(list: &Json, depth: Depth<'_>) -> Admitted {
    array(list).iter().try_for_each(|order| {
        only(order, "ORDER BY", &["type", "null_order", "expression"])?;
        expression(&order["expression"], depth)
    })
}

fn table_ref(table: &Json, depth: Depth<'_>) -> Admitted {
    let depth = deeper(depth)?;
    if SOURCES.contains(&text(&table["type"])) {
        depth.see();
    }
    match text(&table["type"]) {
        "EMPTY" => Ok(()),
        "BASE_TABLE" => {
            only(
                table,
                "a table",
                &[
                    "type",
                    "alias",
                    "sample",
                    "query_location",
                    "schema_name",
                    "table_name",
                    "column_name_alias",
                    "catalog_name",
                    "at_clause",
                ],
            )?;
            if !is_vacant(&table["at_clause"]) {
                return Err(refuse("AT (time travel) is not supported", table));
            }
            Ok(())
        }
        "SUBQUERY" => {
            only(table, "a subquery", &["type", "alias", "sample", "query_location", "subquery", "column_name_alias"])?;
            statement(&table["subquery"], depth)
        }
        "JOIN" => {
            only(
                table,
                "a join",
                &[
                    "type",
                    "alias",
                    "sample",
                    "query_location",
                    "left",
                    "right",
                    "condition",
                    "join_type",
                    "ref_type",
                    "using_columns",
                ],
            )?;
            match text(&table["join_type"]) {
                "INNER" | "LEFT" | "RIGHT" | "FULL" | "OUTER" | "SEMI" | "ANTI" => {}
                other => return Err(refuse(format!("the join type {other} is not supported"), table)),
            }
            match text(&table["ref_type"]) {
                "REGULAR" | "NATURAL" | "CROSS" | "POSITIONAL" | "ASOF" => {}
                other => return Err(refuse(format!("the join form {other} is not supported"), table)),
            }
            // DuckDB prints joins without parentheses. Where no ON says how they nest, the text would nest otherwise.
            if matches!(text(&table["ref_type"]), "NATURAL" | "POSITIONAL") && text(&table["right"]["type"]) == "JOIN" {
                let form = text(&table["ref_type"]);
                let what =
                    format!("a {form} JOIN whose right side is a join is not supported; put it on the left side");
                return Err(refuse(what, table));
            }
            table_ref(&table["left"], depth)?;
            table_ref(&table["right"], depth)?;
            optional(&table["condition"], depth)
        }
        "EXPRESSION_LIST" => {
            only(
                table,
                "a VALUES list",
                &["type", "alias", "sample", "query_location", "expected_names", "expected_types", "values"],
            )?;
            array(&table["values"]).iter().try_for_each(|row| expressions(row, depth))
        }
        "TABLE_FUNCTION" => table_function(table, depth),
        "PIVOT" => {
            only(
                table,
                "a PIVOT",
                &[
                    "type",
                    "alias",
                    "sample",
                    "query_location",
                    "source",
                    "aggregates",
                    "unpivot_names",
                    "pivots",
                    "groups",
                    "column_name_alias",
                    "include_nulls",
                ],
            )?;
            table_ref(&table["source"], depth)?;
            expressions(&table["aggregates"], depth)?;
            for pivot in array(&table["pivots"]) {
                only(pivot, "a PIVOT", &["pivot_expressions", "unpivot_names", "entries", "pivot_enum"])?;
                if !is_vacant(&pivot["pivot_enum"]) {
                    return Err(refuse("PIVOT over an enum type is not supported", table));
                }
                expressions(&pivot["pivot_expressions"], depth)?;
                for entry in array(&pivot["entries"]) {
                    optional(&entry["star_expr"], depth)?;
                }
            }
            Ok(())
        }
        "SHOW_REF" => show_ref(table, depth),
        other => Err(refuse(format!("{other} in FROM is not supported"), table)),
    }
}

fn table_function(table: &Json, depth: Depth<'_>) -> Admitted {
    only(
        table,
        "a table function",
        &["type", "alias", "sample", "query_location", "function", "column_name_alias", "with_ordinality"],
    )?;
    let call = &table["function"];
    let name = text(&call["function_name"]);
    if !TABLE_FUNCTIONS.iter().any(|admitted| admitted.eq_ignore_ascii_case(name)) || text(&call["class"]) != "FUNCTION"
    {
        let why = functions::refusal(name).map(|why| format!(": {why}")).unwrap_or_default();
        return Err(refuse(
            format!(
                "the table function `{name}` is not allowed{why}; FROM takes entities, WITH names, VALUES lists and {}",
                TABLE_FUNCTIONS.join(", ")
            ),
            table,
        ));
    }
    qualified_builtin(call)?;
    depth.see();
    expressions(&call["children"], depth)
}

fn show_ref(table: &Json, depth: Depth<'_>) -> Admitted {
    only(
        table,
        "SHOW",
        &[
            "type",
            "alias",
            "sample",
            "query_location",
            "table_name",
            "query",
            "show_type",
            "catalog_name",
            "schema_name",
        ],
    )?;
    match text(&table["show_type"]) {
        "DESCRIBE" | "SUMMARY" if !is_vacant(&table["query"]) => query_node(&table["query"], depth),
        "SHOW_UNQUALIFIED" if text(&table["table_name"]) == "\"tables\"" && is_vacant(&table["query"]) => Ok(()),
        "SHOW_FROM" => {
            let (catalog, schema) = (text(&table["catalog_name"]), text(&table["schema_name"]));
            let is = |name: &str, own: &str| name.eq_ignore_ascii_case(own);
            // One name may be either.
            let is_own = (catalog.is_empty() || is(catalog, CATALOG_NAME))
                && (is(schema, SCHEMA_NAME) || (catalog.is_empty() && is(schema, CATALOG_NAME)));
            if is_own {
                return Ok(());
            }
            let name = if catalog.is_empty() { schema.to_owned() } else { format!("{catalog}.{schema}") };
            Err(refuse(
                format!("SHOW TABLES FROM {name} finds no schema of entities; all are in {CATALOG_NAME}.{SCHEMA_NAME}"),
                table,
            ))
        }
        _ => {
            let name = text(&table["table_name"]).trim_matches('"');
            let name = if name == "__show_tables_expanded" { "ALL TABLES" } else { name };
            Err(refuse(
                format!("SHOW {name} is not answered here; SHOW TABLES, DESCRIBE <entity> and SUMMARIZE <entity> are"),
                table,
            ))
        }
    }
}

fn optional(value: &Json, depth: Depth<'_>) -> Admitted {
    if value.is_null() { Ok(()) } else { expression(value, depth) }
}

fn expressions(list: &Json, depth: Depth<'_>) -> Admitted {
    array(list).iter().try_for_each(|item| expression(item, depth))
}

fn expression(node: &Json, depth: Depth<'_>) -> Admitted {
    let depth = deeper(depth)?;
    depth.see();
    const COMMON: [&str; 4] = ["class", "type", "alias", "query_location"];
    let class = text(&node["class"]);
    let known = |more: &[&str]| only(node, "an expression", &[&COMMON[..], more].concat());
    match class {
        "COLUMN_REF" => {
            if array(&node["column_names"]).is_empty() {
                return Err(refuse("a column without a name is not supported", node));
            }
            known(&["column_names"])
        }
        "CONSTANT" => known(&["value"]),
        "PARAMETER" => known(&["identifier"]),
        "POSITIONAL_REFERENCE" => known(&["index"]),
        "DEFAULT" => Err(refuse("DEFAULT is not supported in a query", node)),
        "STAR" => {
            known(&[
                "relation_name",
                "exclude_list",
                "replace_list",
                "columns",
                "expr",
                "qualified_exclude_list",
                "rename_list",
                "unpacked",
            ])?;
            for replacement in array(&node["replace_list"]) {
                expression(&replacement["value"], depth)?;
            }
            optional(&node["expr"], depth)
        }
        "COMPARISON" => {
            known(&["left", "right"])?;
            expression(&node["left"], depth)?;
            expression(&node["right"], depth)
        }
        "CONJUNCTION" => {
            known(&["children"])?;
            expressions(&node["children"], depth)
        }
        "OPERATOR" => {
            known(&["children"])?;
            operator(node)?;
            expressions(&node["children"], depth)
        }
        "BETWEEN" => {
            known(&["input", "lower", "upper"])?;
            ["input", "lower", "upper"].into_iter().try_for_each(|part| expression(&node[part], depth))
        }
        "CAST" => {
            known(&["child", "cast_type", "try_cast"])?;
            cast_type(&node["cast_type"], node)?;
            expression(&node["child"], depth)
        }
        "CASE" => {
            known(&["case_checks", "else_expr"])?;
            for check in array(&node["case_checks"]) {
                only(check, "a CASE", &["when_expr", "then_expr"])?;
                expression(&check["when_expr"], depth)?;
                expression(&check["then_expr"], depth)?;
            }
            optional(&node["else_expr"], depth)
        }
        "COLLATE" => {
            known(&["child", "collation"])?;
            expression(&node["child"], depth)
        }
        "LAMBDA" => {
            known(&["lhs", "expr", "syntax_type"])?;
            expression(&node["lhs"], depth)?;
            expression(&node["expr"], depth)
        }
        "SUBQUERY" => {
            known(&["subquery_type", "subquery", "child", "comparison_type"])?;
            optional(&node["child"], depth)?;
            statement(&node["subquery"], depth)
        }
        "FUNCTION" => {
            known(&[
                "function_name",
                "schema",
                "catalog",
                "children",
                "filter",
                "order_bys",
                "distinct",
                "is_operator",
            ])?;
            function_call(node)?;
            expressions(&node["children"], depth)?;
            optional(&node["filter"], depth)?;
            orders(&node["order_bys"]["orders"], depth)
        }
        "WINDOW" => {
            known(&[
                "function_name",
                "schema",
                "catalog",
                "children",
                "partitions",
                "orders",
                "start",
                "end",
                "start_expr",
                "end_expr",
                "offset_expr",
                "default_expr",
                "ignore_nulls",
                "filter_expr",
                "exclude_clause",
                "distinct",
                "arg_orders",
            ])?;
            function_call(node)?;
            expressions(&node["children"], depth)?;
            expressions(&node["partitions"], depth)?;
            orders(&node["orders"], depth)?;
            orders(&node["arg_orders"], depth)?;
            ["start_expr", "end_expr", "offset_expr", "default_expr", "filter_expr"]
                .into_iter()
                .try_for_each(|part| optional(&node[part], depth))
        }
        _ => Err(refuse(format!("the expression form {class} ({}) is not supported", text(&node["type"])), node)),
    }
}

fn operator(node: &Json) -> Admitted {
    match text(&node["type"]) {
        "OPERATOR_NOT"
        | "OPERATOR_IS_NULL"
        | "OPERATOR_IS_NOT_NULL"
        | "OPERATOR_COALESCE"
        | "OPERATOR_NULLIF"
        | "OPERATOR_TRY"
        | "OPERATOR_UNPACK"
        | "COMPARE_IN"
        | "COMPARE_NOT_IN"
        | "ARRAY_EXTRACT"
        | "ARRAY_SLICE"
        | "ARRAY_CONSTRUCTOR"
        | "STRUCT_EXTRACT"
        | "GROUPING_FUNCTION" => Ok(()),
        other => Err(refuse(format!("the operator {other} is not supported"), node)),
    }
}

fn function_call(node: &Json) -> Admitted {
    qualified_builtin(node)?;
    let name = text(&node["function_name"]);
    if let Some(why) = functions::refusal(name) {
        return Err(refuse(format!("the function `{name}` is not allowed: {why}"), node));
    }
    if name.eq_ignore_ascii_case("bitstring_agg") && array(&node["children"]).len() == 1 {
        let what = "bitstring_agg takes its bounds from statistics that not every source has; write bitstring_agg(value, least, greatest)";
        return Err(refuse(what, node));
    }
    if functions::function(name).is_none() && !name.is_empty() {
        let near = nearest(name, functions::names());
        let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        return Err(refuse(format!("unknown function `{name}`{hint}"), node));
    }
    Ok(())
}

/// Functions are DuckDB's own: no other catalog or schema holds any.
fn qualified_builtin(call: &Json) -> Admitted {
    let catalog = text(&call["catalog"]);
    let schema = text(&call["schema"]);
    let own_catalog = catalog.is_empty() || catalog.eq_ignore_ascii_case("system");
    let own_schema =
        schema.is_empty() || schema.eq_ignore_ascii_case("main") || schema.eq_ignore_ascii_case("pg_catalog");
    if own_catalog && own_schema {
        return Ok(());
    }
    Err(refuse(
        format!("`{}` is called from another schema; call it by its name alone", text(&call["function_name"])),
        call,
    ))
}

/// Types are DuckDB's own; a name that the parser could not resolve must be one that the binder knows without loading
/// anything.
fn cast_type(cast_type: &Json, node: &Json) -> Admitted {
    let info = &cast_type["type_info"];
    if text(&cast_type["id"]) == "UNBOUND" {
        const LATE_BOUND: [&str; 6] = ["json", "variant", "geometry", "bignum", "varint", "null"];
        let name = text(&info["name"]);
        if !LATE_BOUND.iter().any(|known| known.eq_ignore_ascii_case(name)) || !is_vacant(&info["catalog"]) {
            return Err(refuse(unknown_type(name, info), node));
        }
    }
    for (_, value) in fields(info) {
        nested_types(value, node)?;
    }
    Ok(())
}

/// Why a type that the parser left open is none of DuckDB's.
fn unknown_type(name: &str, info: &Json) -> String {
    let modifiers: Vec<String> = array(&info["user_type_modifiers"])
        .iter()
        .map(|modifier| match &modifier["value"] {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        })
        .collect();
    if modifiers.is_empty() {
        return format!("unknown type `{name}`");
    }
    let written = format!("{name}({})", modifiers.join(", "));
    if ["decimal", "numeric", "dec"].iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return format!(
            "`{written}` is no type: DECIMAL(width, scale) takes a width of 1 to 38 and a scale of 0 to the width; use \
             DOUBLE or VARCHAR for more digits"
        );
    }
    format!("unknown type `{written}`; no type but DECIMAL takes anything in parentheses")
}

fn nested_types(value: &Json, node: &Json) -> Admitted {
    match value {
        Json::Object(map) if map.contains_key("id") => cast_type(value, node),
        Json::Object(map) => map.values().try_for_each(|value| nested_types(value, node)),
        Json::Array(items) => items.iter().try_for_each(|value| nested_types(value, node)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Ok(()),
    }
}

/// The error for a table that is none of ours.
pub(crate) fn unknown_table<'a>(table: &Json, entities: impl Iterator<Item = &'a str> + Clone) -> TranslateError {
    let name = text(&table["table_name"]);
    let qualified = [text(&table["catalog_name"]), text(&table["schema_name"]), name]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(".");
    let near = nearest(name, entities.clone()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    let list = entities.take(20).collect::<Vec<_>>().join(", ");
    TranslateError::new(
        TranslateErrorKind::UnknownTable,
        format!("unknown table `{qualified}`{near} (tables: {list}; all are in {CATALOG_NAME}.{SCHEMA_NAME})"),
        location(table),
    )
}

/// The candidate most like `name`, when one is like enough.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    candidates
        .map(|candidate| (strsim::jaro_winkler(&name, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity >= 0.85)
        .max_by(|left, right| left.0.total_cmp(&right.0).then_with(|| right.1.cmp(left.1)))
        .map(|(_, candidate)| candidate)
}
