//! TPC-H's 22 queries over entities whose rows lie in all tiers give what a plain DuckDB gives.

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use thermocline_tests::oracle::{Order, compare};
use thermocline_tests::scenario::{LakeKind, Scenario};
use thermocline_tests::tpch;

#[tokio::test]
async fn tpch_answers_are_those_of_plain_duckdb() -> Result<()> {
    let tables = tpch::tables(0.01);
    let directory = tempfile::tempdir()?;
    let duckdb = duckdb::Connection::open_in_memory()?;
    for table in &tables {
        table.load(&duckdb, directory.path())?;
    }
    let stored = tables.iter().map(tpch::Table::stored).collect::<Result<Vec<_>>>()?;
    let scenario = Scenario::start(stored, LakeKind::Local).await?;
    for table in &tables {
        let sql = format!("SELECT count(*) AS c FROM {}", table.entity.name);
        assert_eq!(scenario.ask(&scenario.client, &sql).await?.text(), table.lines.len().to_string(), "{sql}");
    }
    let cases = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/tpch");
    let mut rows = 0;
    for number in 1..=22 {
        let name = format!("q{number:02}.sql");
        let sql = std::fs::read_to_string(cases.join(&name)).with_context(|| name.clone())?;
        let sql = sql.trim().trim_end_matches(';');
        let expected: Vec<RecordBatch> = duckdb.prepare(sql)?.query_arrow([])?.collect();
        let answer = scenario.ask(&scenario.client, sql).await?;
        compare(&expected, &answer.schema, &answer.batches, Order::Exact).with_context(|| name.clone())?;
        rows += answer.row_count();
    }
    assert!(rows > 500, "the queries find {rows} rows");
    Ok(())
}
