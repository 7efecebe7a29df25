//! Hostile input: any bytes as SQL, any tree as JSON. Nothing panics, no stack overflows, and what is admitted reads
//! nothing but entities, the server's own metadata and generated numbers.
//!
//! The corpus is every input of `tests/golden` and the files of `tests/golden/hostile`; each case is a mutation of one
//! or two of them, named by its seed: `THERMOCLINE_TEST_SEED=7 cargo xtask test hostile` runs the cases of that seed.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value as Json, json};
use thermocline_tests::{r#gen, is_long};
use translator::catalog::Catalog;
use translator::emit::{EmitContext, emit};
use translator::options::QueryOptions;
use translator::planner::{Facts, plan};
use translator::postgres::TableNames;
use translator::{ParsedStatement, Placeholder, QualifiedName, Query, TranslateErrorKind};

use crate::duck::Parser;
use crate::golden;

/// What the server's worker threads have.
const STACK: usize = 16 * 1024 * 1024;

/// Pieces that hostile SQL is made of.
const PIECES: [&str; 42] = [
    "SELECT ",
    "FROM ",
    "flights",
    "carriers",
    "WHERE ",
    "read_parquet('x')",
    "getenv('HOME')",
    "(",
    ")",
    "'",
    "\"",
    "--",
    "/*",
    "*/",
    ";",
    "$1",
    "$$",
    "\\",
    "\0",
    "*",
    "UNION ALL ",
    "WITH x AS (SELECT * FROM flights) ",
    "query('SELECT 1')",
    "query_table('flights')",
    "temp.main.tc_hot_0",
    "'file.parquet'",
    "pg_catalog.pg_class",
    "LATERAL ",
    "SHOW TABLES",
    "DESCRIBE ",
    "COLUMNS('.*')",
    "#1",
    "1e308",
    "NULL",
    " AT (VERSION => 1)",
    "::json",
    "lambda x: ",
    "PIVOT ",
    "é",
    "\u{212a}",
    "system.",
    "duckdb_secrets()",
];

/// Functions that no admitted statement may call, in words of this test's own.
const FORBIDDEN: [&str; 22] = [
    "getenv",
    "current_setting",
    "getvariable",
    "query",
    "query_table",
    "read_parquet",
    "read_csv",
    "read_csv_auto",
    "read_json",
    "read_json_auto",
    "read_text",
    "read_blob",
    "parquet_scan",
    "glob",
    "postgres_scan",
    "postgres_query",
    "sqlite_scan",
    "duckdb_settings",
    "duckdb_secrets",
    "pragma_database_list",
    "nextval",
    "write_log",
];

fn on_a_server_stack(work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(work)?;
    thread.join().unwrap_or_else(|_| bail!("the thread panicked"))
}

fn seeds(short: u64, long: u64) -> Result<Vec<u64>> {
    match std::env::var("THERMOCLINE_TEST_SEED") {
        Ok(seed) => Ok(vec![seed.parse().context("the seed is no number")?]),
        Err(_) => Ok((0..if is_long() { long } else { short }).collect()),
    }
}

fn corpus() -> Result<Vec<(Catalog, String)>> {
    let mut corpus = golden::inputs()?;
    let (flights, _) =
        corpus.iter().find(|(catalog, _)| catalog.entity("flights").is_some()).cloned().context("no flights")?;
    let hostile = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/hostile");
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(hostile)? {
        paths.push(entry?.path());
    }
    paths.sort();
    for path in paths {
        corpus.push((flights.clone(), std::fs::read_to_string(path)?));
    }
    Ok(corpus)
}

#[test]
fn hostile_text_never_panics_or_escapes() -> Result<()> {
    on_a_server_stack(|| {
        let corpus = corpus()?;
        let parser = Parser::new()?;
        let (mut asked, mut admitted) = (0, 0);
        for seed in seeds(30, 600)? {
            let mut rng = r#gen::rng(seed);
            for number in 0..100 {
                let (catalog, sql) = corpus.choose(&mut rng).context("an empty corpus")?;
                let (_, other) = corpus.choose(&mut rng).context("an empty corpus")?;
                let sql = mutate(&mut rng, sql, other);
                let outcome = catch_unwind(AssertUnwindSafe(|| text_case(&parser, catalog, &sql)));
                match outcome {
                    Ok(Ok(was_admitted)) => admitted += usize::from(was_admitted),
                    Ok(Err(error)) => bail!("seed {seed}, case {number}: {error:#}\n{sql:?}"),
                    Err(_) => bail!("seed {seed}, case {number} panics: {sql:?}"),
                }
                asked += 1;
            }
        }
        eprintln!("{asked} hostile texts, {admitted} admitted");
        ensure!(admitted * 50 > asked, "only {admitted} of {asked} were admitted: the mutations are too wild");
        Ok(())
    })
}

#[test]
fn hostile_trees_never_panic_or_escape() -> Result<()> {
    on_a_server_stack(|| {
        let parser = Parser::new()?;
        let mut trees: Vec<(Catalog, Json)> = Vec::new();
        for (catalog, sql) in corpus()? {
            // DuckDB writes an infinite number as no JSON.
            let Ok(tree) = tree_of(&parser.serialize(&sql)?) else { continue };
            if tree["error"] == false {
                trees.push((catalog, tree));
            }
        }
        let (mut asked, mut admitted) = (0, 0);
        for seed in seeds(40, 2000)? {
            let mut rng = r#gen::rng(seed);
            for number in 0..100 {
                let (catalog, tree) = trees.choose(&mut rng).context("no trees")?;
                let (_, other) = trees.choose(&mut rng).context("no trees")?;
                let mut tree = tree.clone();
                for _ in 0..rng.random_range(1..4) {
                    mutate_tree(&mut rng, &mut tree, other);
                }
                let text = tree.to_string();
                let outcome = catch_unwind(AssertUnwindSafe(|| tree_case(catalog, &text)));
                match outcome {
                    Ok(Ok(was_admitted)) => admitted += usize::from(was_admitted),
                    Ok(Err(error)) => bail!("seed {seed}, case {number}: {error:#}\n{text}"),
                    Err(_) => bail!("seed {seed}, case {number} panics: {text}"),
                }
                asked += 1;
            }
        }
        eprintln!("{asked} hostile trees, {admitted} admitted");
        Ok(())
    })
}

/// Every node of a tree in turn is something else: nothing, empty, of another kind, or nested as deep as it may be.
#[test]
fn trees_with_any_node_changed_never_panic_or_escape() -> Result<()> {
    /// Nearly the deepest that is read at all.
    const DEEP: usize = 2900;
    on_a_server_stack(|| {
        let parser = Parser::new()?;
        let nest = |open: &str, close: &str| format!("{}{}", open.repeat(DEEP), close.repeat(DEEP));
        let conjunction = r#"{"class":"CONJUNCTION","type":"CONJUNCTION_AND","alias":"","children":["#;
        let others = ["null", "{}", "[]", "\"\"", "[{}]", "{\"type\":\"\"}"].map(str::to_owned).into_iter();
        let deep = [nest("[", "]"), format!("{}1{}", "{\"a\":".repeat(DEEP), "}".repeat(DEEP))];
        let deepest = format!("{}{}", conjunction.repeat(DEEP / 2), "]}".repeat(DEEP / 2));
        let others: Vec<Json> =
            others.chain(deep).chain([deepest]).map(|text| tree_of(&text)).collect::<Result<_>>()?;
        let (every, mut asked) = (if is_long() { 5 } else { 200 }, 0);
        for (catalog, sql) in corpus()?.iter().step_by(every) {
            let Ok(tree) = tree_of(&parser.serialize(sql)?) else { continue };
            for place in 1..count(&tree) {
                for other in &others {
                    let mut changed = tree.clone();
                    *node_at(&mut changed, place).context("a node")? = other.clone();
                    let text = changed.to_string();
                    let outcome = catch_unwind(AssertUnwindSafe(|| tree_case(catalog, &text)));
                    let start: String = other.to_string().chars().take(40).collect();
                    let case = || format!("node {place} is {start} in {sql:?}");
                    outcome.map_err(|_| anyhow::anyhow!("panics: {}", case()))?.with_context(case)?;
                    asked += 1;
                }
            }
        }
        eprintln!("{asked} changed trees");
        ensure!(asked > 1000, "only {asked} trees");
        Ok(())
    })
}

/// Nesting of every kind is answered or refused, whatever its depth.
#[test]
fn deep_nesting_never_overflows() -> Result<()> {
    on_a_server_stack(|| {
        let parser = Parser::new()?;
        let (catalog, _) =
            corpus()?.into_iter().find(|(catalog, _)| catalog.entity("flights").is_some()).context("flights")?;
        let deepest: &[usize] = if is_long() { &[3000, 20_000] } else { &[3000] };
        for depth in [10, 90, 110, 240, 260, 480, 520, 990].iter().chain(deepest).copied() {
            let nest =
                |open: &str, core: &str, close: &str| format!("{}{core}{}", open.repeat(depth), close.repeat(depth));
            let cases = [
                format!("SELECT {}", nest("(", "1", ")")),
                format!("SELECT {}", nest("-", "distance", "")).replace("--", "- -") + " FROM flights",
                format!("SELECT 1 FROM flights WHERE {}", nest("NOT ", "carrier = 'x'", "")),
                format!("SELECT 1 FROM flights WHERE {}", nest("(distance = 1 OR ", "distance = 2", ")")),
                format!("SELECT 1 FROM flights WHERE {}distance = 2", "distance = 1 OR ".repeat(depth)),
                format!("SELECT 1 FROM flights WHERE {}distance = 2", "distance <> 1 AND ".repeat(depth)),
                format!("SELECT {}1", "1 + ".repeat(depth)),
                format!("SELECT {}", nest("[", "1", "]")),
                format!("SELECT {}", nest("lower(", "'x'", ")")),
                format!("SELECT {}", nest("(SELECT ", "1", ")")),
                format!("SELECT * FROM {}", nest("(SELECT * FROM ", "flights", ")")),
                format!("SELECT {}", nest("CASE WHEN true THEN ", "1", " END")),
                format!("SELECT {}", nest("CAST(", "1", " AS INTEGER)")),
                format!("{}SELECT 1", "SELECT 1 UNION ALL ".repeat(depth)),
                format!("SELECT 1 FROM flights{}", " JOIN flights USING (row_id)".repeat(depth)),
                format!("SELECT 1 FROM flights f0{}", ", flights".repeat(depth)),
                format!("SELECT 1 WHERE 1 IN ({}1)", "1, ".repeat(depth)),
                format!(
                    "WITH {} SELECT 1",
                    (0..depth).map(|n| format!("x{n} AS (SELECT 1)")).collect::<Vec<_>>().join(", ")
                ),
                format!("SELECT CAST(NULL AS INTEGER{})", "[]".repeat(depth)),
                format!("SELECT CAST(NULL AS {})", nest("STRUCT(a ", "INTEGER", ")")),
            ];
            for sql in cases {
                let case = text_case(&parser, &catalog, &sql);
                let start: String = sql.chars().take(60).collect();
                case.with_context(|| format!("depth {depth}: {start}"))?;
            }
        }
        Ok(())
    })
}

fn text_case(parser: &Parser, catalog: &Catalog, sql: &str) -> Result<bool> {
    // DuckDB itself may refuse to look at a text; then nothing reaches the translator.
    let Ok(serialized) = parser.serialize(sql) else { return Ok(false) };
    let statement = match ParsedStatement::parse(&serialized) {
        Ok(statement) => statement,
        Err(error) => return refused(error.kind, sql, error.position),
    };
    match translator::translate(statement, catalog) {
        Ok(query) => {
            let document = check_admitted(&query, catalog)?;
            // What runs is the printed text: it must hold nothing more than the tree.
            let Ok(printed) = parser.print(&document) else { return Ok(false) };
            let again = tree_of(&parser.serialize(&printed)?)?;
            ensure!(again["error"] == false, "the printed text is no SQL: {printed}: {again}");
            check_names(&again["statements"][0]["node"], &query)?;
            Ok(true)
        }
        Err(error) => refused(error.kind, sql, error.position),
    }
}

/// A tree of any depth.
fn tree_of(serialized: &str) -> Result<Json> {
    let mut deserializer = serde_json::Deserializer::from_str(serialized);
    deserializer.disable_recursion_limit();
    deserializer.into_iter().next().context("no tree")?.with_context(|| {
        let end = serialized.len().min(760);
        format!("no JSON: {}", serialized.get(end.saturating_sub(60)..end).unwrap_or_default())
    })
}

fn refused(kind: TranslateErrorKind, sql: &str, position: Option<usize>) -> Result<bool> {
    ensure!(kind != TranslateErrorKind::Internal, "an internal error");
    ensure!(position.is_none_or(|position| position <= sql.len()), "the position {position:?} is outside the text");
    Ok(false)
}

fn tree_case(catalog: &Catalog, text: &str) -> Result<bool> {
    let Ok(statement) = ParsedStatement::parse(text) else { return Ok(false) };
    let Ok(query) = translator::translate(statement, catalog) else { return Ok(false) };
    check_admitted(&query, catalog)?;
    Ok(true)
}

/// Plans and emits an admitted query, and looks for names in it that are none of ours.
fn check_admitted(query: &Query, catalog: &Catalog) -> Result<Json> {
    let mut facts = Facts::default();
    for entity in catalog.entities() {
        facts.dirty_rows.insert(entity.schema_id, 5);
    }
    let plan = plan(query, &facts, &QueryOptions::default(), &TableNames::default())?;
    let print = |tree: &Json| Ok(tree.to_string());
    emit(query, &plan, EmitContext { print: &print, lake_prefix: "s3://lake" })?;
    let name = |table: String| QualifiedName { catalog: String::new(), schema: "tc".to_owned(), table };
    let node = query.render(&|placeholder| match placeholder {
        Placeholder::Reference(index) => name(format!("relation_{index}")),
        Placeholder::System(index) => name(format!("system_{index}")),
    });
    check_names(&node, query)?;
    Ok(json!({"error": false, "statements": [{"node": node, "named_param_map": []}]}))
}

fn check_names(node: &Json, query: &Query) -> Result<()> {
    let mut ctes = HashSet::new();
    collect_ctes(node, &mut ctes);
    check_node(node, query, &ctes)
}

fn text(value: &Json) -> String {
    value.as_str().unwrap_or_default().to_ascii_lowercase()
}

fn collect_ctes(node: &Json, names: &mut HashSet<String>) {
    match node {
        Json::Object(map) => {
            for entry in node["cte_map"]["map"].as_array().into_iter().flatten() {
                names.insert(text(&entry["key"]));
            }
            if map.contains_key("cte_name") {
                names.insert(text(&node["cte_name"]));
            }
            map.values().for_each(|value| collect_ctes(value, names));
        }
        Json::Array(items) => items.iter().for_each(|item| collect_ctes(item, names)),
        _ => {}
    }
}

fn check_node(node: &Json, query: &Query, ctes: &HashSet<String>) -> Result<()> {
    match node {
        Json::Object(map) => {
            let class = text(&node["class"]);
            // An expression is what its class says, whatever its type.
            let kind = if class.is_empty() { text(&node["type"]) } else { String::new() };
            if kind == "base_table" {
                let (schema, table) = (text(&node["schema_name"]), text(&node["table_name"]));
                let ours = schema == "tc"
                    && ((0..query.references.len()).any(|index| table == format!("relation_{index}"))
                        || (0..query.system_tables.len()).any(|index| table == format!("system_{index}")));
                let cte = schema.is_empty() && text(&node["catalog_name"]).is_empty() && ctes.contains(&table);
                ensure!(ours || cte, "the admitted statement reads {schema}.{table}");
            }
            if kind == "table_function" {
                let function = text(&node["function"]["function_name"]);
                ensure!(
                    ["range", "generate_series", "unnest"].contains(&function.as_str()),
                    "it calls {function} in FROM"
                );
            }
            if kind == "show_ref" {
                ensure!(!node["query"].is_null() || text(&node["table_name"]).contains("tables"), "it shows {node}");
            }
            if class == "constant" {
                // A value, whatever it looks like.
                return Ok(());
            }
            if class == "function" || class == "window" {
                let function = text(&node["function_name"]);
                ensure!(!FORBIDDEN.contains(&function.as_str()), "it calls {function}");
            }
            map.values().try_for_each(|value| check_node(value, query, ctes))
        }
        Json::Array(items) => items.iter().try_for_each(|item| check_node(item, query, ctes)),
        _ => Ok(()),
    }
}

fn mutate(rng: &mut ChaCha8Rng, sql: &str, other: &str) -> String {
    let mut characters: Vec<char> = sql.chars().collect();
    for _ in 0..rng.random_range(0..4) {
        let at = rng.random_range(0..=characters.len());
        match rng.random_range(0..7) {
            0 => {
                let end = (at + rng.random_range(0..12)).min(characters.len());
                characters.drain(at..end);
            }
            1 => {
                let piece = PIECES.choose(rng).expect("pieces");
                characters.splice(at..at, piece.chars());
            }
            2 => {
                let piece = PIECES.choose(rng).expect("pieces");
                let end = (at + rng.random_range(0..10)).min(characters.len());
                characters.splice(at..end, piece.chars());
            }
            // A part of another text.
            3 => {
                let other: Vec<char> = other.chars().collect();
                let from = rng.random_range(0..=other.len());
                let to = (from + rng.random_range(0..40)).min(other.len());
                characters.splice(at..at, other[from..to].iter().copied());
            }
            // A word of another text in the place of a word.
            4 => {
                let words: Vec<&str> = other.split_whitespace().collect();
                let text: String = characters.iter().collect();
                let mut own: Vec<&str> = text.split(' ').collect();
                if let (Some(word), false) = (words.choose(rng), own.is_empty()) {
                    let place = rng.random_range(0..own.len());
                    own[place] = word;
                }
                characters = own.join(" ").chars().collect();
            }
            5 => {
                let from = rng.random_range(0..=at);
                let copy: Vec<char> = characters[from..at].to_vec();
                characters.splice(at..at, copy);
            }
            _ => {
                if let Some(character) = characters.get_mut(at) {
                    *character = char::from_u32(rng.random_range(0..0x250)).unwrap_or('x');
                }
            }
        }
        characters.truncate(4000);
    }
    characters.into_iter().collect()
}

fn count(node: &Json) -> usize {
    1 + match node {
        Json::Object(map) => map.values().map(count).sum(),
        Json::Array(items) => items.iter().map(count).sum(),
        _ => 0,
    }
}

/// The node at a place in the order of a walk.
fn node_at(node: &mut Json, mut place: usize) -> Option<&mut Json> {
    if place == 0 {
        return Some(node);
    }
    place -= 1;
    let children: Vec<&mut Json> = match node {
        Json::Object(map) => map.values_mut().collect(),
        Json::Array(items) => items.iter_mut().collect(),
        _ => Vec::new(),
    };
    for child in children {
        let size = count(child);
        if place < size {
            return node_at(child, place);
        }
        place -= size;
    }
    None
}

fn mutate_tree(rng: &mut ChaCha8Rng, tree: &mut Json, other: &Json) {
    let total = count(tree);
    let mut donor = other.clone();
    let donor_place = rng.random_range(0..count(&donor));
    let part = node_at(&mut donor, donor_place).map(Json::take).unwrap_or_default();
    let Some(node) = node_at(tree, rng.random_range(0..total)) else { return };
    *node = match rng.random_range(0..9) {
        0 => Json::Null,
        1 => json!([]),
        2 => json!({}),
        3 => json!(*[-1i64, 0, 1, i64::MAX].choose(rng).expect("numbers")),
        4 => json!(u64::MAX),
        5 => json!(PIECES.choose(rng)),
        6 => json!({"class": "FUNCTION", "type": "FUNCTION", "function_name": "getenv", "children": []}),
        7 => match node.take() {
            Json::Array(mut items) => {
                let copy = items.first().cloned().unwrap_or_default();
                items.push(copy);
                Json::Array(items)
            }
            Json::Object(mut map) => {
                let key = map.keys().nth(rng.random_range(0..map.len().max(1))).cloned();
                if let Some(key) = key {
                    map.remove(&key);
                }
                Json::Object(map)
            }
            other => other,
        },
        _ => part,
    };
}
