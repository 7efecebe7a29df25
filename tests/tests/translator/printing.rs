//! DuckDB prints the tree that was checked as the text that runs: that text must parse to the same tree again.

use anyhow::{Context, Result, ensure};
use serde_json::Value as Json;

use translator::{Placeholder, QualifiedName, StatementForm};

use crate::duck::Parser;
use crate::golden;

/// What printing has got wrong, or nearly.
const SHAPES: [&str; 16] = [
    "SELECT 1 FROM flights f CROSS JOIN carriers c LEFT JOIN carriers d ON d.code = f.carrier",
    "SELECT 1 FROM flights f, carriers c LEFT JOIN carriers d ON d.code = c.code",
    "SELECT 1 FROM (flights f CROSS JOIN carriers c) LEFT JOIN carriers d ON d.code = f.carrier",
    "SELECT 1 FROM flights f LEFT JOIN (carriers c CROSS JOIN carriers d) ON d.code = f.carrier",
    "SELECT 1 FROM flights f CROSS JOIN (carriers c LEFT JOIN carriers d ON d.code = c.code)",
    "SELECT 1 FROM flights f LEFT JOIN (carriers c JOIN carriers d ON c.code = d.code) ON f.carrier = c.code",
    "SELECT 1 FROM flights f LEFT JOIN carriers c USING (row_id) JOIN carriers d USING (row_id)",
    "SELECT 1 FROM (carriers c JOIN carriers d ON c.code = d.code) POSITIONAL JOIN flights f",
    "SELECT 1 FROM flights a, flights b, flights c JOIN flights d ON c.carrier = d.carrier, flights e",
    "SELECT 1 FROM flights a CROSS JOIN flights b CROSS JOIN flights c JOIN flights d ON a.carrier = d.carrier",
    "SELECT 1e0, 0.1e0 + 0.2e0, -1e-5, 1e300, 0.30000000000000004e0, 1.5 FROM flights",
    "SELECT distance + 1e0 AS x FROM flights WHERE delay_minutes BETWEEN -1e0 AND 1e0 ORDER BY 1e0 + distance",
    "SELECT f.* FROM flights f ASOF JOIN (carriers c JOIN carriers d ON c.code = d.code) ON f.updated_at >= c.updated_at",
    "SELECT a.distance FROM flights a, LATERAL (SELECT b.distance FROM flights b WHERE b.carrier = a.carrier) x",
    "SELECT CAST(x AS DOUBLE) FROM (SELECT 1e1 AS x) UNION ALL SELECT 2e0 EXCEPT SELECT 3e0",
    "SELECT sum(distance) FILTER (WHERE distance > 1e0) OVER (PARTITION BY carrier ORDER BY distance ROWS 1 PRECEDING) FROM flights",
];

/// The tree without places in the text and without what is only spelled otherwise.
fn meaning(value: &mut Json) {
    match value {
        Json::Object(map) => {
            map.remove("query_location");
            if map.get("alias").is_some_and(|alias| alias == "valueslist") {
                map.insert("alias".to_owned(), "".into());
            }
            map.values_mut().for_each(meaning);
            if let Some(Json::Array(list)) = map.get_mut("qualified_exclude_list") {
                list.sort_by_key(ToString::to_string);
            }
            // The width of an integer constant is its value's.
            if value["class"] == "CONSTANT"
                && value["value"]["value"].is_i64()
                && value["value"]["type"]["type_info"].is_null()
            {
                value["value"]["type"]["id"] = "integer".into();
            }
            // true is a constant in a tree and a cast of a text in another.
            if value["class"] == "CAST"
                && value["cast_type"]["id"] == "BOOLEAN"
                && value["child"]["class"] == "CONSTANT"
            {
                let text = value["child"]["value"]["value"].as_str().unwrap_or_default();
                *value = Json::Bool(text.starts_with('t'));
            } else if value["class"] == "CONSTANT" && value["value"]["type"]["id"] == "BOOLEAN" {
                *value = value["value"]["value"].clone();
            }
        }
        Json::Array(items) => items.iter_mut().for_each(meaning),
        _ => {}
    }
}

#[test]
fn printed_text_means_the_same() -> Result<()> {
    let parser = Parser::new()?;
    let mut failures = Vec::new();
    let mut inputs = golden::inputs()?;
    let (flights, _) = inputs
        .iter()
        .find(|(catalog, _)| catalog.entity("flights").is_some())
        .cloned()
        .context("no golden case speaks of flights")?;
    inputs.extend(SHAPES.iter().map(|sql| (flights.clone(), (*sql).to_owned())));
    let mut compared = 0;
    for (catalog, sql) in &inputs {
        let Ok(query) = parser.translate(sql, catalog)? else { continue };
        let name = |table: String| QualifiedName { catalog: String::new(), schema: String::new(), table };
        let node = query.render(&|placeholder| match placeholder {
            Placeholder::Reference(index) => name(format!("relation_{index}")),
            Placeholder::System(index) => name(format!("system_{index}")),
        });
        // VALUES prints with a subquery around it, which changes nothing.
        if query.form != StatementForm::Select || sql.contains("VALUES") {
            continue;
        }
        compared += 1;
        let mut tree = serde_json::json!({"error": false, "statements": [{"node": node, "named_param_map": []}]});
        let printed = match parser.print(&tree) {
            Ok(printed) => printed,
            Err(error) => {
                failures.push(format!("{sql}\n  can't be printed: {error:#}"));
                continue;
            }
        };
        let mut again: Json = serde_json::from_str(&parser.serialize(&printed)?).context("a tree")?;
        meaning(&mut tree);
        meaning(&mut again);
        if tree != again {
            failures.push(format!("{sql}\n  prints as {printed}"));
        }
    }
    ensure!(compared > 300, "only {compared} were compared");
    ensure!(failures.is_empty(), "{} of {}:\n{}", failures.len(), inputs.len(), failures.join("\n"));
    Ok(())
}
