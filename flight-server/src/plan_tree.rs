//! A plan as a tree for people. The plan is JSON from a server that may be newer: what is missing is left out.

use indicatif::{HumanBytes, HumanCount};
use serde_json::Value;

use crate::engine::duckdb::ProfileNode;

/// A line of the tree and what hangs under it.
struct Node {
    label: String,
    children: Vec<Node>,
}

/// The plan as text, with a line break at the end.
pub(crate) fn render(plan: &Value) -> String {
    let mut text = heading(plan) + "\n";
    let mut nodes: Vec<Node> = items(&plan["references"]).map(reference).collect();
    nodes.extend(execution(&plan["execution"]));
    nodes.extend(warnings(plan).into_iter().map(|warning| leaf(format!("warning: {warning}"))));
    nodes.extend(timings(&plan["timings_ms"]));
    if let Some(statement) = plan["statement"].as_str() {
        nodes.push(Node { label: "statement".to_owned(), children: vec![leaf(statement)] });
    }
    draw(&nodes, "", &mut text);
    text
}

/// What a reader of the result should know: the plan's warnings, what is missing, and a cut result.
pub(crate) fn warnings(plan: &Value) -> Vec<String> {
    let mut warnings: Vec<String> = texts(&plan["warnings"]);
    let degraded = &plan["degraded"];
    if degraded["is_degraded"].as_bool() == Some(true) {
        let missing = texts(&degraded["missing_tiers"]).join(", ");
        let reasons = texts(&degraded["reasons"]).join("; ");
        let mut text = "the answer is degraded".to_owned();
        if !missing.is_empty() {
            text += &format!(", without {missing}");
        }
        if !reasons.is_empty() {
            text += &format!(": {reasons}");
        }
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }
    if plan["execution"]["truncated"].as_bool() == Some(true) {
        warnings.push("the result was cut at max_rows".to_owned());
    }
    warnings
}

fn heading(plan: &Value) -> String {
    let mut parts = Vec::new();
    if let Some(route) = plan["route"].as_str() {
        parts.push(match plan["route_reason"].as_str() {
            Some(reason) if !reason.is_empty() => format!("{route} ({reason})"),
            Some(_) | None => route.to_owned(),
        });
    }
    parts.extend(plan["consistency"].as_str().map(str::to_owned));
    let tiers = texts(&plan["tiers"]);
    if !tiers.is_empty() {
        parts.push(format!("tiers {}", tiers.join(", ")));
    }
    parts.extend(plan["query_id"].as_str().map(|id| format!("query {id}")));
    parts.join(" · ")
}

fn reference(reference: &Value) -> Node {
    let mut label = reference["entity"].as_str().unwrap_or("?").to_owned();
    if let Some(alias) = reference["alias"].as_str().filter(|alias| *alias != label) {
        label += &format!(" as {alias}");
    }
    if let Some(rows) = reference["dirty_rows"].as_u64() {
        label += &format!(" · {} dirty rows", HumanCount(rows));
    }
    if let Some(strategy) = reference["merge"]["strategy"].as_str() {
        label += &format!(" · merge {strategy}");
        if let Some(proof) = reference["merge"]["proof"].as_str() {
            label += &format!(" ({proof})");
        }
    }
    Node { label, children: items(&reference["sources"]).map(source).collect() }
}

fn source(source: &Value) -> Node {
    let mut label = source["tier"].as_str().unwrap_or("?").to_owned();
    if let Some(engine) = source["engine"].as_str() {
        label += &format!(" from {engine}");
    }
    let mut facts = Vec::new();
    if let (Some(scanned), Some(total)) = (source["files_scanned"].as_u64(), source["files_total"].as_u64()) {
        facts.push(format!("{} of {} files", HumanCount(scanned), HumanCount(total)));
    }
    facts.extend(source["bytes"].as_u64().map(human_bytes));
    facts.extend(source["row_estimate"].as_u64().map(|rows| format!("about {} rows", HumanCount(rows))));
    let anti_join = source["anti_join_files"].as_u64().filter(|files| *files > 0);
    facts.extend(anti_join.map(|files| format!("anti-join in {}", HumanCount(files))));
    if !facts.is_empty() {
        label += &format!(": {}", facts.join(", "));
    }
    let mut children = Vec::new();
    for (name, field) in [("pushed", "pushed"), ("left to DuckDB", "residual")] {
        children.extend(texts(&source[field]).into_iter().map(|text| leaf(format!("{name}: {text}"))));
    }
    children.extend(source["sql"].as_str().map(|sql| Node { label: "sql".to_owned(), children: vec![leaf(sql)] }));
    Node { label, children }
}

/// What DuckDB measured, operator by operator, with a line break at the end.
pub(crate) fn profile(root: &ProfileNode) -> String {
    let mut text = "DuckDB's operators: rows that left each, and the time of all threads in it\n".to_owned();
    // The root stands for the statement.
    let nodes: Vec<Node> =
        if root.name.is_empty() { root.children.iter().map(operator).collect() } else { vec![operator(root)] };
    draw(&nodes, "", &mut text);
    text
}

fn operator(node: &ProfileNode) -> Node {
    let mut label = format!("{}: {} rows, {:.1} ms", node.name, HumanCount(node.rows), node.ms);
    if !node.info.is_empty() {
        label += &format!("\n{}", shortened(&node.info));
    }
    Node { label, children: node.children.iter().map(operator).collect() }
}

/// Long lists of files would drown the rest.
fn shortened(info: &str) -> String {
    const LIMIT: usize = 300;
    match info.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", &info[..end]),
        None => info.to_owned(),
    }
}

fn human_bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

fn execution(execution: &Value) -> Option<Node> {
    let rows = execution["rows"].as_u64()?;
    let mut label = format!("executed: {} rows", HumanCount(rows));
    label += &execution["bytes"].as_u64().map(|bytes| format!(", {}", human_bytes(bytes))).unwrap_or_default();
    for (field, name) in [("execution_ms", "executing"), ("streaming_ms", "streaming")] {
        label += &execution[field].as_f64().map(|ms| format!(", {ms:.1} ms {name}")).unwrap_or_default();
    }
    let children = items(&execution["sources"]).map(|source| {
        let count = |field: &str| source[field].as_u64().map_or_else(|| "?".to_owned(), |n| HumanCount(n).to_string());
        let tier = source["tier"].as_str().unwrap_or("?");
        let ms = source["ms"].as_f64().map(|ms| format!(", {ms:.1} ms")).unwrap_or_default();
        let shared = if source["shared"] == true { ", other scans of these files included" } else { "" };
        leaf(format!("{tier}: {} rows scanned, {} returned{ms}{shared}", count("rows_scanned"), count("rows_returned")))
    });
    Some(Node { label, children: children.collect() })
}

fn timings(timings: &Value) -> Option<Node> {
    let timings = timings.as_object()?.iter();
    let parts: Vec<_> = timings.filter_map(|(name, ms)| Some(format!("{name} {:.1} ms", ms.as_f64()?))).collect();
    (!parts.is_empty()).then(|| leaf(parts.join(", ")))
}

fn draw(nodes: &[Node], indent: &str, text: &mut String) {
    for (index, node) in nodes.iter().enumerate() {
        let last = index + 1 == nodes.len();
        let (branch, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        for (line_number, line) in node.label.lines().enumerate() {
            let lead = if line_number == 0 { branch } else { below };
            text.push_str(&format!("{indent}{lead}{line}\n"));
        }
        draw(&node.children, &format!("{indent}{below}"), text);
    }
}

fn leaf(label: impl Into<String>) -> Node {
    Node { label: label.into(), children: Vec::new() }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts(value: &Value) -> Vec<String> {
    items(value).filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests;
