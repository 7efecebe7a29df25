//! How long translating and planning take, without any source.

use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::Value as Json;
use translator::catalog::Catalog;
use translator::emit::{EmitContext, emit};
use translator::lake::{FileColumn, FileType, LakeFile};
use translator::options::{QueryOptions, Tier};
use translator::planner::{Facts, plan};
use translator::postgres::TableNames;
use translator::{ParsedStatement, TranslateError, TranslateErrorKind, translate};

use crate::data;
use crate::duck;
use crate::samples::Samples;

/// Times of the stages, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Planning {
    /// DuckDB's parser, and printing the tree again.
    pub(crate) parse_and_print: Samples,
    /// Everything of the translator: admit, bind, plan, emit.
    pub(crate) translator: Samples,
    pub(crate) total: Samples,
}

/// Translates and plans each statement `runs` times over the files of the benchmark.
pub(crate) fn measure(statements: &[&str], runs: usize) -> Result<Planning> {
    let catalog = Catalog::parse(&data::catalog()).context("the benchmark's catalog")?;
    let connection = duck::open()?;
    let facts = Facts {
        dirty_rows: [(data::SCHEMA_ID, 50_000)].into(),
        files: [(data::SCHEMA_ID, files())].into(),
        ..Facts::default()
    };
    let mut parse = connection.prepare("SELECT json_serialize_sql(CAST(? AS VARCHAR))")?;
    let printing = std::cell::RefCell::new(connection.prepare("SELECT json_deserialize_sql(CAST(? AS JSON))")?);
    let mut planning = Planning::default();
    for number in 0..runs * statements.len() {
        let sql = statements[number % statements.len()];
        let duckdb = std::cell::Cell::new(std::time::Duration::ZERO);
        let started = Instant::now();
        let tree: String = parse.query_row([sql], |row| row.get(0))?;
        duckdb.set(started.elapsed());
        let statement = ParsedStatement::parse(&tree)?;
        let query = translate(statement, &catalog)?;
        let planned = plan(&query, &facts, &QueryOptions::default(), &TableNames::default())?;
        let print = |tree: &Json| {
            let started = Instant::now();
            let text = printing.borrow_mut().query_row([tree.to_string()], |row| row.get::<_, String>(0));
            duckdb.set(duckdb.get() + started.elapsed());
            text.map_err(|error| TranslateError {
                kind: TranslateErrorKind::Internal,
                message: error.to_string(),
                position: None,
            })
        };
        emit(&query, &planned, EmitContext { print: &print, lake_prefix: "s3://bucket/lake" })?;
        let total = started.elapsed();
        planning.parse_and_print.push(duckdb.get());
        planning.translator.push(total.saturating_sub(duckdb.get()));
        planning.total.push(total);
    }
    Ok(planning)
}

/// Ten base files and twenty delta files, as their footers would tell.
fn files() -> Vec<LakeFile> {
    let column = |name: &str, file_type| FileColumn { name: name.to_owned(), file_type, range: None, null_count: None };
    let file = |tier, number: u64, rows: u64| LakeFile {
        etag: None,
        path: format!("{}/100/{number:02}.parquet", if tier == Tier::Warm { "delta" } else { "base" }),
        tier,
        bytes: rows * 40,
        row_count: rows,
        row_id_range: Some((u128::from(number) << 100, u128::from(number + 1) << 100)),
        changed_at_range: Some(if tier == Tier::Warm { (2_000, 3_000) } else { (0, 1_000) }),
        unique_rows: true,
        may_hold_tombstones: tier == Tier::Warm,
        row_groups: std::sync::Arc::default(),
        columns: vec![
            column("row_id", FileType::Uuid),
            column("carrier", FileType::Text),
            column("seats", FileType::Int(32)),
            column("distance", FileType::Double),
            column("amount", FileType::Int(64)),
            column("delay", FileType::Double),
            column("score", FileType::Int(32)),
            column("created_at", FileType::Int(64)),
            column("changed_at", FileType::Int(64)),
            column("deleted_at", FileType::Int(64)),
        ],
    };
    let delta = (0..20).map(|number| file(Tier::Warm, number, 10_000));
    delta.chain((0..10).map(|number| file(Tier::Cold, number, 1_000_000))).collect()
}
