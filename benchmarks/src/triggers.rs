//! What tracking a table costs its writers: bulk COPY and single-row updates of a table with the triggers and the cursor,
//! beside the same table without them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::SinkExt;
use thermocline_tests::postgres::TestDatabase;
use tokio_postgres::Client;
use translator::catalog::Catalog;
use translator::postgres::{TableNames, Tracking, bookkeeping_ddl, cursor_ddl, tracking_ddl};

use crate::report::{Case, Report, Target};
use crate::samples::Samples;

/// What `--only` selects these measurements by.
pub(crate) const NAME: &str = "own tables: cost of the triggers";

const ROWS: usize = 100_000;
const UPDATES: usize = 2_000;

/// Measures both kinds of writes, `runs` times each, in turns.
pub(crate) async fn measure(runs: usize, report: &mut Report) -> Result<()> {
    let database = TestDatabase::create().await?;
    let client = database.connect().await?;
    let columns = "(id bigint PRIMARY KEY, customer text, amount numeric(10,2), at timestamptz)";
    client.batch_execute(&format!("CREATE TABLE public.bare {columns}; CREATE TABLE public.tracked {columns}")).await?;
    client.batch_execute(&setup()?.join(";\n")).await.context("cannot set the triggers up")?;
    let lines: String = (0..ROWS)
        .map(|id| format!("{id}\tcustomer {}\t{}.50\t2024-01-01 00:00:00+00\n", id % 100, id % 1000))
        .collect();
    let lines = Bytes::from(lines);
    let mut times = [(); 4].map(|()| Samples::default());
    for _ in 0..runs {
        for (at, table) in ["bare", "tracked"].into_iter().enumerate() {
            // VACUUM stands alone: several statements in one call are one transaction.
            client.batch_execute(&format!("DELETE FROM {table}; TRUNCATE change_log")).await?;
            client.batch_execute(&format!("VACUUM {table}")).await?;
            times[at].push(copy(&client, table, &lines).await?);
            // As in the steady state: each row has been flushed once.
            client.batch_execute("UPDATE change_log SET flushed_at = 1").await?;
            client.batch_execute("VACUUM ANALYZE change_log").await?;
            times[at + 2].push(update(&client, table).await?);
        }
    }
    let mut case = Case::new(NAME, "any");
    let [bare_copy, copied, bare_updates, updated] = times;
    case.ratio("COPY with / without", copied.median() / bare_copy.median(), Target::None);
    case.ratio("single-row updates with / without", updated.median() / bare_updates.median(), Target::None);
    case.series("COPY without", "ms", bare_copy);
    case.series("COPY with", "ms", copied);
    case.series("updates without", "ms", bare_updates);
    case.series("updates with", "ms", updated);
    case.note(format!(
        "{ROWS} rows by COPY; {UPDATES} updates of one row, each a transaction, by one connection; the server doesn't wait for \
         the disk, so the ratio of updates is an upper bound"
    ));
    println!("{}", case.summary());
    report.add(case);
    Ok(())
}

fn setup() -> Result<Vec<String>> {
    let catalog = Catalog::parse(
        "[[entity]]\nname = \"tracked\"\nschema_id = 1\n[entity.table]\nname = \"public.tracked\"\nkey = [\"id\"]\n\
         [[entity.attribute]]\nname = \"id\"\ntype = \"bigint\"\ncolumn = \"id\"\n",
    )
    .map_err(|faults| anyhow::anyhow!("{faults}"))?;
    let tables = TableNames {
        change_log: "public.change_log".to_owned(),
        schema_registry: "public.schema_registry".to_owned(),
        ..TableNames::default()
    };
    let entity = &catalog.entities()[0];
    let table = entity.own_table().context("no table")?;
    let mut statements = bookkeeping_ddl(&tables);
    statements.extend(cursor_ddl(&tables));
    statements.extend(tracking_ddl(&tables, entity, table, &Tracking::default()));
    Ok(statements)
}

async fn copy(client: &Client, table: &str, lines: &Bytes) -> Result<Duration> {
    let started = Instant::now();
    let sink = client.copy_in::<_, Bytes>(&format!("COPY {table} FROM STDIN")).await?;
    let mut sink = std::pin::pin!(sink);
    sink.send(lines.clone()).await?;
    sink.finish().await?;
    Ok(started.elapsed())
}

async fn update(client: &Client, table: &str) -> Result<Duration> {
    let statement = client.prepare(&format!("UPDATE {table} SET amount = amount + 1 WHERE id = $1")).await?;
    let started = Instant::now();
    for at in 0..UPDATES {
        let id = i64::try_from(at * 37 % ROWS)?;
        client.execute(&statement, &[&id]).await?;
    }
    Ok(started.elapsed())
}
