//! Printing trees with long lists.
//!
//! `json_deserialize_sql` of DuckDB 1.5 looks an element of a list up by walking to it: it takes the square of a list's
//! length. So a long list is printed in parts, and its place in the statement is held by a name that nothing else has.

use serde_json::{Value as Json, json};

use crate::engine::duckdb::{DuckError, DuckErrorKind};

/// Lists up to this length are printed as they are, longer ones in parts of it.
const PART: usize = 256;

type Print<'a> = &'a dyn Fn(&Json) -> Result<String, DuckError>;

/// Prints a statement's tree by `print`, which takes time with the square of the longest list.
///
/// # Errors
/// What `print` answers with.
pub(super) fn in_parts(tree: &Json, print: Print<'_>) -> Result<String, DuckError> {
    if !has_long_list(tree) {
        return print(tree);
    }
    let mut name = "tc_list_".to_owned();
    let text = tree.to_string();
    while text.contains(&name) {
        name.push('_');
    }
    drop(text);
    let mut parts = Parts { name, texts: Vec::new(), print };
    let mut tree = tree.clone();
    parts.take(&mut tree)?;
    let printed = print(&tree)?;
    parts.put_back(&printed)
}

/// Whether a list of the tree is one that [`Parts::take`] shortens.
fn has_long_list(node: &Json) -> bool {
    match node {
        Json::Object(map) => {
            ["children", "values"].iter().any(|field| map.get(*field).is_some_and(|list| list_of(list).is_some()))
                || map.values().any(has_long_list)
        }
        Json::Array(items) => items.iter().any(has_long_list),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => false,
    }
}

/// The elements of a long list. Named ones (`a := 1`) stay where they are.
fn list_of(list: &Json) -> Option<&Vec<Json>> {
    let items = list.as_array().filter(|items| items.len() > PART)?;
    items.iter().all(|item| item.is_array() || item["alias"] == "").then_some(items)
}

struct Parts<'a> {
    /// What the names that hold places start with.
    name: String,
    /// The text of each place.
    texts: Vec<String>,
    print: Print<'a>,
}

impl Parts<'_> {
    /// Prints long lists and puts names in their places.
    fn take(&mut self, node: &mut Json) -> Result<(), DuckError> {
        match node {
            Json::Object(map) => {
                map.values_mut().try_for_each(|value| self.take(value))?;
                let field =
                    if map.get("type").is_some_and(|kind| kind == "EXPRESSION_LIST") { "values" } else { "children" };
                let is_long = map.get(field).is_some_and(|list| list_of(list).is_some());
                if is_long {
                    self.shorten(node, field)?;
                }
                Ok(())
            }
            Json::Array(items) => items.iter_mut().try_for_each(|item| self.take(item)),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Ok(()),
        }
    }

    fn shorten(&mut self, node: &mut Json, field: &str) -> Result<(), DuckError> {
        let Some(items) = node[field].as_array_mut().map(std::mem::take) else { return Ok(()) };
        let text = |parts: Vec<String>, between: &str| parts.join(between);
        let shortened = match (node["class"].as_str(), field) {
            (Some("CONJUNCTION"), _) => {
                let between = if node["type"] == "CONJUNCTION_OR" { " OR " } else { " AND " };
                let parts = self.parts(&items[1..], &|part| {
                    let mut conjunction = node.clone();
                    conjunction["children"] = json!(part);
                    json!([conjunction])
                })?;
                let place = self.place(text(parts, between));
                json!([items[0], place])
            }
            (Some("OPERATOR"), _) if matches!(node["type"].as_str(), Some("COMPARE_IN" | "COMPARE_NOT_IN")) => {
                let parts = self.parts(&items[1..], &|part| json!(part))?;
                let place = self.place(text(parts, ", "));
                json!([items[0], place])
            }
            (None, "values") => {
                let rows = items.chunks(PART).map(|rows| self.rows(node, rows)).collect::<Result<Vec<_>, _>>()?;
                // The parentheses of the first row are those that the name stands in.
                let rows = text(rows, ", ");
                let inner = rows.strip_prefix('(').and_then(|rows| rows.strip_suffix(')')).unwrap_or(&rows);
                let place = self.place(inner.to_owned());
                json!([[place]])
            }
            // The arguments of a function or a list.
            (Some("FUNCTION" | "OPERATOR"), _) => {
                let parts = self.parts(&items, &|part| json!(part))?;
                let place = self.place(text(parts, ", "));
                json!([place])
            }
            _ => Json::Array(items),
        };
        node[field] = shortened;
        Ok(())
    }

    /// The text of expressions, part by part.
    fn parts(&self, items: &[Json], select_list: &dyn Fn(&[Json]) -> Json) -> Result<Vec<String>, DuckError> {
        let part = |part: &[Json]| {
            let text = (self.print)(&select(
                select_list(part),
                json!({"type": "EMPTY", "alias": "", "sample": null,
                "query_location": u64::MAX}),
            ))?;
            text.strip_prefix("SELECT ").map(str::to_owned).ok_or_else(|| unexpected(&text))
        };
        items.chunks(PART).map(part).collect()
    }

    /// The text of rows of a VALUES list.
    fn rows(&self, list: &Json, rows: &[Json]) -> Result<String, DuckError> {
        let mut list = list.clone();
        list["values"] = json!(rows);
        list["alias"] = json!("");
        let star = json!([{"class": "STAR", "type": "STAR", "alias": "", "query_location": u64::MAX, "relation_name": "",
            "exclude_list": [], "replace_list": [], "columns": false, "expr": null, "qualified_exclude_list": [],
            "rename_list": []}]);
        let text = (self.print)(&select(star, list))?;
        let rows = text.split_once("(VALUES ").and_then(|(_, rows)| rows.rsplit_once(')'));
        rows.map(|(rows, _)| rows.to_owned()).ok_or_else(|| unexpected(&text))
    }

    /// A name that holds the place of a text.
    fn place(&mut self, text: String) -> Json {
        let name = format!("{}{}_", self.name, self.texts.len());
        self.texts.push(text);
        json!({"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "query_location": u64::MAX,
            "column_names": [name]})
    }

    /// The statement with the texts in their places, which are in the order in which they were taken only within a list.
    fn put_back(&self, printed: &str) -> Result<String, DuckError> {
        let mut sql = String::with_capacity(printed.len() + self.texts.iter().map(String::len).sum::<usize>());
        let mut rest = printed;
        let mut put = 0;
        while let Some(start) = rest.find(&self.name) {
            sql.push_str(&rest[..start]);
            let after = &rest[start + self.name.len()..];
            let (index, after) = after.split_once('_').ok_or_else(|| unexpected(printed))?;
            let index: usize = index.parse().map_err(|_| unexpected(printed))?;
            let text = self.texts.get(index).ok_or_else(|| unexpected(printed))?;
            if text.contains(&self.name) {
                // A long list inside a long list.
                let inner = self.put_back(text)?;
                sql.push_str(&inner);
            } else {
                sql.push_str(text);
            }
            rest = after;
            put += 1;
        }
        sql.push_str(rest);
        if put == 0 && !self.texts.is_empty() { Err(unexpected(printed)) } else { Ok(sql) }
    }
}

fn select(select_list: Json, from_table: Json) -> Json {
    json!({"error": false, "statements": [{"named_param_map": [], "node": {"type": "SELECT_NODE", "modifiers": [],
        "cte_map": {"map": []}, "select_list": select_list, "from_table": from_table, "where_clause": null,
        "group_expressions": [], "group_sets": [], "aggregate_handling": "STANDARD_HANDLING", "having": null,
        "sample": null, "qualify": null}}]})
}

/// The printer doesn't print as it does.
fn unexpected(text: &str) -> DuckError {
    let start: String = text.chars().take(100).collect();
    DuckError { kind: DuckErrorKind::Other, message: format!("DuckDB printed a part of a list as `{start}`") }
}
