//! `tests/cases/*.slt` through Flight SQL and on a plain DuckDB: both must give what the files say.

use anyhow::Result;
use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use sqllogictest::{DB, DBOutput, DefaultColumnType, Runner};
use thermocline_tests::client::Client;
use thermocline_tests::client_data;
use thermocline_tests::oracle::{Oracle, View};
use thermocline_tests::scenario::{LakeKind, Scenario};
use tokio::runtime::Handle;

/// The server, asked by a thread that may block.
struct Remote {
    client: Client,
    runtime: Handle,
}

struct Plain(Oracle);

/// A statement that either of them refuses.
#[derive(Debug)]
struct Refusal(String);

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

impl DB for Remote {
    type Error = Refusal;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Refusal> {
        let answer = self.runtime.block_on(self.client.query(sql));
        let answer = answer.map_err(|failure| Refusal(failure.to_string()))?;
        output(answer.schema.fields().len(), &answer.batches)
    }
}

impl DB for Plain {
    type Error = Refusal;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Refusal> {
        let batches = self.0.query(sql).map_err(|failure| Refusal(format!("{failure:#}")))?;
        output(batches.first().map_or(0, RecordBatch::num_columns), &batches)
    }
}

fn output(columns: usize, batches: &[RecordBatch]) -> Result<DBOutput<DefaultColumnType>, Refusal> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<_, _>>()
            .map_err(|error| Refusal(error.to_string()))?;
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|column| column.value(row).to_string()).collect());
        }
    }
    Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows })
}

#[tokio::test]
async fn the_case_files_hold_here_and_on_plain_duckdb() -> Result<()> {
    let scenario = Scenario::start(client_data::stored(), LakeKind::Local).await?;
    let client = scenario.client.clone();
    let stored = scenario.stored.clone();
    let runtime = Handle::current();
    // The runner blocks while it waits.
    tokio::task::spawn_blocking(move || {
        let cases = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
        let mut files = 0;
        for entry in std::fs::read_dir(cases)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "slt") {
                continue;
            }
            Runner::new(|| async {
                let oracle = Oracle::load(&stored.iter().collect::<Vec<_>>(), View::default(), false);
                oracle.map(Plain).map_err(|failure| Refusal(format!("{failure:#}")))
            })
            .run_file(&path)
            .map_err(|failure| anyhow::anyhow!("plain DuckDB: {}", failure.display(false)))?;
            Runner::new(|| async { Ok(Remote { client: client.clone(), runtime: runtime.clone() }) })
                .run_file(&path)
                .map_err(|failure| anyhow::anyhow!("through Flight SQL: {}", failure.display(false)))?;
            files += 1;
        }
        assert_eq!(files, 2);
        Ok(())
    })
    .await?
}
