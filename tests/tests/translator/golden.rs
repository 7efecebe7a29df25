//! Golden cases: SQL in, what the translator makes of it out, as text that a reviewer can read.
//!
//! `tests/golden/README.md` says how the files are written. `UPDATE_GOLDEN=1 cargo xtask test golden` writes the answers
//! anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use translator::catalog::{Catalog, Column};
use translator::emit::{EmitContext, emit, emit_for_binding};
use translator::lake::{FileColumn, FileType, LakeFile, RowGroup};
use translator::options::{QueryOptions, Tier};
use translator::planner::{Facts, plan};
use translator::positions::{FilePositions, PositionFacts};
use translator::postgres::{Pushdown, PushedPredicate, TableNames, hot_statement};
use translator::predicate::Conjunct;
use translator::value::Value;
use translator::{Placeholder, QualifiedName, Query, Reference, StatementForm, TranslateError};

use crate::duck::Parser;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Show {
    /// One predicate over `everything a` a case: PostgreSQL's text and DuckDB's.
    Predicates,
    /// One query a case: its references, what is pushed down, the text that DuckDB gets.
    Pushdown,
    /// One query a case: the PostgreSQL statement of each reference.
    Postgres,
    /// One query a case: plan and federated statement.
    Statement,
}

/// What the lines before the first case say.
struct Header {
    catalog: Catalog,
    show: Show,
    facts: Facts,
}

struct Golden {
    parser: Parser,
    header: Header,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// All inputs of the golden files with their catalogs: also the corpus of the tests with hostile input.
pub(crate) fn inputs() -> Result<Vec<(Catalog, String)>> {
    let mut inputs = Vec::new();
    for path in files()? {
        let text = std::fs::read_to_string(&path)?;
        let header = header(&text)?;
        for block in blocks(&text) {
            let Some(input) = input(&block) else { continue };
            let sql = match header.show {
                Show::Predicates => predicate_sql(&input),
                Show::Pushdown | Show::Postgres | Show::Statement => input,
            };
            inputs.push((header.catalog.clone(), sql));
        }
    }
    Ok(inputs)
}

fn files() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[test]
fn golden_cases_stay() -> Result<()> {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1");
    let (mut cases, mut changed) = (0, Vec::new());
    for path in files()? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path)?;
        let golden = Golden { parser: Parser::new()?, header: header(&text).with_context(|| name.clone())? };
        let mut fresh = String::new();
        for block in blocks(&text) {
            if !fresh.is_empty() {
                fresh.push('\n');
            }
            let kept = block.iter().filter(|line| line.starts_with(['>', '@', '#']));
            kept.for_each(|line| fresh.push_str(&format!("{}\n", line.trim_end())));
            if let Some(input) = input(&block) {
                cases += 1;
                fresh.push_str(&golden.answer(&input, &block).with_context(|| format!("{name}: {input}"))?);
            }
        }
        if fresh == text {
            continue;
        }
        if update {
            std::fs::write(&path, fresh)?;
        } else {
            changed.push(difference(&name, &text, &fresh));
        }
    }
    ensure!(changed.is_empty(), "{}\n\nUPDATE_GOLDEN=1 accepts the new answers", changed.join("\n\n"));
    ensure!(cases > 300, "only {cases} golden cases were found");
    Ok(())
}

/// The first case that differs.
fn difference(name: &str, old: &str, new: &str) -> String {
    let (old, new) = (blocks(old), blocks(new));
    let at = old.iter().zip(&new).position(|(old, new)| old != new).unwrap_or(old.len().min(new.len()));
    let show = |blocks: &[Vec<&str>]| blocks.get(at).map(|block| block.join("\n  ")).unwrap_or_default();
    format!("{name} differs first here:\n  {}\nis now\n  {}", show(&old), show(&new))
}

/// Runs of lines between empty lines.
fn blocks(text: &str) -> Vec<Vec<&str>> {
    let lines: Vec<&str> = text.lines().collect();
    lines.split(|line| line.trim().is_empty()).filter(|block| !block.is_empty()).map(<[&str]>::to_vec).collect()
}

fn input(block: &[&str]) -> Option<String> {
    let lines: Vec<&str> = block.iter().filter_map(|line| line.strip_prefix('>')).collect();
    (!lines.is_empty())
        .then(|| lines.iter().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n"))
}

fn predicate_sql(predicate: &str) -> String {
    format!("SELECT a.row_id FROM everything a WHERE {predicate}")
}

fn header(text: &str) -> Result<Header> {
    let (mut catalog, mut show, mut facts) = (None, None, Facts::default());
    for line in text.lines().filter_map(|line| line.strip_prefix("@@ ")) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "catalog" => {
                let toml = std::fs::read_to_string(directory().join(format!("{rest}.toml")))?;
                catalog = Some(Catalog::parse(&toml).map_err(|faults| anyhow::anyhow!("{rest}.toml: {faults}"))?);
            }
            "show" => {
                show = Some(match rest {
                    "predicates" => Show::Predicates,
                    "pushdown" => Show::Pushdown,
                    "postgres" => Show::Postgres,
                    "statement" => Show::Statement,
                    other => bail!("show {other}?"),
                });
            }
            "dirty" => {
                let (schema_id, rows) = rest.split_once(' ').context("dirty SCHEMA_ID ROWS")?;
                facts.dirty_rows.insert(schema_id.parse()?, rows.parse()?);
            }
            "file" => {
                let (schema_id, file) = lake_file(rest)?;
                facts.files.entry(schema_id).or_default().push(file);
            }
            "hidden" => {
                let words: Vec<&str> = rest.split_whitespace().collect();
                let [path, hidden, gone] = words[..] else { bail!("hidden PATH HIDDEN GONE") };
                let positions = FilePositions { hidden: hidden.parse()?, gone: gone.parse()? };
                positions_of(&mut facts, path)?.files.insert(path.to_owned(), positions);
            }
            "row" => {
                let words: Vec<&str> = rest.split_whitespace().collect();
                let [id, path, position] = words[..] else { bail!("row ID PATH POSITION") };
                let rows = positions_of(&mut facts, path)?.rows.get_or_insert_default();
                rows.entry(id.parse()?).or_default().push((path.to_owned(), position.parse()?));
            }
            other => bail!("the header has an unknown word {other}"),
        }
    }
    Ok(Header { catalog: catalog.context("no catalog")?, show: show.context("no show")?, facts })
}

/// What is known by position of the entity that a file belongs to.
fn positions_of<'a>(facts: &'a mut Facts, path: &str) -> Result<&'a mut PositionFacts> {
    Ok(facts.positions.entry(schema_id(path)?).or_default())
}

fn schema_id(path: &str) -> Result<i16> {
    Ok(path.split('/').nth(1).context("base/SCHEMA_ID/…")?.parse()?)
}

/// `PATH ROWS WORD…`: `ids=LOW..HIGH`, `changed=LOW..HIGH`, `unique`, `tombstones`, `COLUMN:TYPE=LOW..HIGH`,
/// `group:ROWS=LOW..HIGH` for each row group with its ids.
fn lake_file(text: &str) -> Result<(i16, LakeFile)> {
    let mut words = text.split_whitespace();
    let path = words.next().context("a path")?;
    let schema_id = schema_id(path)?;
    let tier = if path.starts_with("base/") { Tier::Cold } else { Tier::Warm };
    let rows = words.next().context("a number of rows")?.parse()?;
    let system = |name: &str, file_type| {
        // Milliseconds of this century.
        let range = (file_type == FileType::Int(64)).then_some((Value::Int(0), Value::Int(4_102_444_800_000)));
        FileColumn { name: name.to_owned(), file_type, range, null_count: None }
    };
    let mut file = LakeFile {
        etag: None,
        path: path.to_owned(),
        tier,
        bytes: 1000,
        row_count: rows,
        row_id_range: None,
        changed_at_range: None,
        unique_rows: false,
        may_hold_tombstones: false,
        row_groups: std::sync::Arc::default(),
        columns: vec![
            system("row_id", FileType::Uuid),
            system("created_at", FileType::Int(64)),
            system("changed_at", FileType::Int(64)),
        ],
    };
    for word in words {
        let (name, range) = word.split_once('=').unwrap_or((word, ""));
        let (low, high) = range.split_once("..").unwrap_or(("", ""));
        match name {
            "ids" => file.row_id_range = Some((low.parse()?, high.parse()?)),
            "changed" => file.changed_at_range = Some((low.parse()?, high.parse()?)),
            "unique" => file.unique_rows = true,
            "tombstones" => {
                file.may_hold_tombstones = true;
                file.columns.push(system("deleted_at", FileType::Int(64)));
            }
            group if group.starts_with("group:") => {
                let row_id_range = Some((low.parse()?, high.parse()?));
                let group = RowGroup { rows: group["group:".len()..].parse()?, row_id_range };
                file.row_groups = file.row_groups.iter().copied().chain([group]).collect();
            }
            column => {
                let (name, kind) = column.split_once(':').context("COLUMN:TYPE")?;
                let value = |text: &str| -> Result<Value> {
                    Ok(match kind {
                        "text" => Value::Text(text.to_owned()),
                        "double" => Value::Double(text.parse()?),
                        _ => Value::Int(text.parse()?),
                    })
                };
                let file_type = match kind {
                    "text" => FileType::Text,
                    "double" => FileType::Double,
                    "int" => FileType::Int(32),
                    other => bail!("the type {other}?"),
                };
                let range = if range.is_empty() { None } else { Some((value(low)?, value(high)?)) };
                file.columns.push(FileColumn { name: name.to_owned(), file_type, range, null_count: None });
            }
        }
    }
    Ok((schema_id, file))
}

impl Golden {
    fn answer(&self, input: &str, block: &[&str]) -> Result<String> {
        let sql = match self.header.show {
            Show::Predicates => predicate_sql(input),
            Show::Pushdown | Show::Postgres | Show::Statement => input.to_owned(),
        };
        let query = match self.parser.translate(&sql, &self.header.catalog)? {
            Ok(query) => query,
            Err(error) => return Ok(refusal(&error, &sql)),
        };
        match self.header.show {
            Show::Predicates => Ok(conjuncts(&query.references[0], "", true)),
            Show::Pushdown => self.pushdown(&query),
            Show::Postgres => Ok(postgres(&query)),
            Show::Statement => self.statement(&query, block),
        }
    }

    fn print(&self, tree: &serde_json::Value) -> Result<String, TranslateError> {
        self.parser.print(tree).map_err(|error| TranslateError {
            kind: translator::TranslateErrorKind::Internal,
            message: error.to_string(),
            position: None,
        })
    }

    fn pushdown(&self, query: &Query) -> Result<String> {
        let mut out = String::new();
        if query.form != StatementForm::Select {
            writeln!(out, "form {:?}", query.form)?;
        }
        for reference in &query.references {
            let columns: Vec<&str> =
                reference.columns.iter().map(|column| reference.entity.column_name(*column)).collect();
            writeln!(out, "{} = {} ({})", reference.alias, reference.entity.name, columns.join(", "))?;
            out.push_str(&conjuncts(reference, "  ", false));
        }
        for table in &query.system_tables {
            writeln!(out, "{}.{}", table.schema, table.table)?;
        }
        let name = |placeholder| {
            let table = match placeholder {
                Placeholder::Reference(index) => format!("{}_rows", query.references[index].entity.name),
                Placeholder::System(index) => format!("system_{}", query.system_tables[index].table),
            };
            QualifiedName { catalog: String::new(), schema: String::new(), table }
        };
        writeln!(out, "duckdb: {}", emit_for_binding(query, &name, &|tree| self.print(tree))?)?;
        Ok(out)
    }

    fn statement(&self, query: &Query, block: &[&str]) -> Result<String> {
        let mut options = QueryOptions::default();
        for line in block.iter().filter_map(|line| line.strip_prefix("@ ")) {
            let (name, value) = line.split_once(" = ").context("@ OPTION = VALUE")?;
            options.set(name, value)?;
        }
        let plan = match plan(query, &self.header.facts, &options, &TableNames::default()) {
            Ok(plan) => plan,
            Err(error) => return Ok(format!("refused: {error}\n")),
        };
        let mut out = format!("route {}: {}\n", plan.route.as_str(), plan.route_reason);
        for reference in &plan.references {
            writeln!(
                out,
                "{} = {}, merge {}: {}",
                reference.alias,
                reference.entity.name,
                reference.merge.as_str(),
                reference.merge_proof
            )?;
            if let Some(hot) = &reference.hot {
                writeln!(out, "  hot: {}", hot.statement.sql)?;
            }
            for source in [&reference.warm, &reference.cold].into_iter().flatten() {
                let files: Vec<&str> = source.files.iter().map(|file| file.file.path.as_str()).collect();
                writeln!(
                    out,
                    "  {}: {} of {} files: {}",
                    source.tier.as_str(),
                    files.len(),
                    source.files_total,
                    files.join(" ")
                )?;
                source.pushed.iter().try_for_each(|pushed| writeln!(out, "    pushed {pushed}"))?;
                source.residual.iter().try_for_each(|residual| writeln!(out, "    kept   {residual}"))?;
            }
        }
        let print = |tree: &serde_json::Value| self.print(tree);
        let statement = emit(query, &plan, EmitContext { print: &print, lake_prefix: "s3://lake" })?;
        writeln!(out, "{}", statement.sql)?;
        Ok(out)
    }
}

fn conjuncts(reference: &Reference, indent: &str, with_logical: bool) -> String {
    let mut out = String::new();
    for conjunct in &reference.conjuncts {
        match PushedPredicate::new(conjunct, &reference.entity) {
            Ok(pushed) => {
                let word = match pushed.pushdown {
                    Pushdown::Exact => "exact  ",
                    Pushdown::Inexact => "inexact",
                };
                out.push_str(&format!("{indent}{word} {}\n", pushed.sql));
            }
            Err(reason) => out.push_str(&format!("{indent}kept    {}: {reason}\n", conjunct.text)),
        }
        if let (true, Conjunct { predicate: Ok(predicate), .. }) = (with_logical, conjunct) {
            out.push_str(&format!("{indent}duckdb  {}\n", predicate.to_duckdb(&reference.entity, None)));
        }
    }
    for kept in &reference.kept_back {
        out.push_str(&format!("{indent}kept    {kept}\n"));
    }
    out
}

fn postgres(query: &Query) -> String {
    let mut out = String::new();
    for reference in &query.references {
        let pushed: Vec<PushedPredicate> = reference
            .conjuncts
            .iter()
            .filter_map(|conjunct| PushedPredicate::new(conjunct, &reference.entity).ok())
            .collect();
        let columns: Vec<Column> =
            reference.entity.all_columns().filter(|column| reference.columns.contains(column)).collect();
        let statement = hot_statement(&TableNames::default(), &reference.entity, columns, &pushed, false);
        let wires: BTreeMap<&str, String> = statement
            .columns
            .iter()
            .map(|column| (reference.entity.column_name(column.column), format!("{:?}", column.wire)))
            .collect();
        let wires: Vec<String> = wires.into_iter().map(|(name, wire)| format!("{name} {wire}")).collect();
        out.push_str(&format!("{}: {}\n", reference.alias, statement.sql));
        if !wires.is_empty() {
            out.push_str(&format!("  {}\n", wires.join(", ")));
        }
    }
    out
}

/// The message, under the place it speaks of.
fn refusal(error: &TranslateError, sql: &str) -> String {
    let place = match error.position {
        Some(position) => {
            let rest: String = sql.get(position..).unwrap_or("(outside the text)").chars().take(20).collect();
            format!(" at {position} `{}`", rest.replace('\n', " "))
        }
        None => String::new(),
    };
    format!("{:?}{place}: {}\n", error.kind, error.message)
}
