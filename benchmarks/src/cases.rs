//! What is measured: the table of targets, case by case.

mod requests;
mod stream;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use duckdb::Connection;
use futures::StreamExt;
use thermocline_tests::client::Client;
use thermocline_tests::postgres::TestDatabase;
use thermocline_tests::server::{Server, ServerConfig};

use crate::data::{self, Ids, Place, SCHEMA_ID};
use crate::duck;
use crate::planning;
use crate::report::{Case, Report, Target};
use crate::samples::Samples;

const AGGREGATE: &str =
    "SELECT carrier, count(*) AS n, sum(distance) AS total, avg(delay) AS mean FROM events GROUP BY carrier";
const WIDE_AGGREGATE: &str = "SELECT carrier, count(*) AS n, sum(seats) AS seats, sum(distance) AS total, \
    max(amount) AS most, avg(delay) AS mean, avg(score) AS score, min(created_at) AS first, max(updated_at) AS last \
    FROM events GROUP BY carrier";
const SELECTIVE: &str = "SELECT row_id, carrier, amount, delay FROM events WHERE amount BETWEEN 500000 AND 501999";
const HOT: &str = "SELECT row_id, carrier, delay FROM events WHERE carrier = 'AIR007' AND delay > 100";

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) runs: usize,
    pub(crate) only: Option<String>,
    pub(crate) hold: bool,
}

impl Options {
    fn wants(&self, case: &str) -> bool {
        self.only.as_ref().is_none_or(|only| case.contains(only.as_str()))
    }
}

/// Everything over one data set.
struct Bench<'a> {
    rows: u64,
    ids: Ids,
    options: &'a Options,
    folder: PathBuf,
    database: TestDatabase,
    server: Server,
    client: Client,
    /// A plain DuckDB over the base files, with the view `events`.
    plain: Connection,
    report: &'a mut Report,
}

/// Measures every case with one kind of ids.
pub(crate) async fn run_all(rows: u64, ids: Ids, options: &Options, report: &mut Report) -> Result<()> {
    let started = Instant::now();
    let folder = tokio::task::spawn_blocking(move || data::lake(rows, ids)).await??;
    let database = TestDatabase::create().await?;
    data::fill(&database, rows, ids).await?;
    let lake = toml::Table::from_iter([("url".to_owned(), format!("file://{}", folder.display()).into())]);
    let server = start_server(&database, lake).await?;
    let client = Client::connect(server.endpoint()).await?;
    let plain = duck::open()?;
    plain.execute_batch(&format!("CREATE VIEW events AS {}", base_rows(&folder)?))?;
    println!("   data and server ready in {:.1?}", started.elapsed());
    let mut bench = Bench { rows, ids, options, folder, database, server, client, plain, report };
    bench.scans().await?;
    bench.hot_only().await?;
    bench.lookups().await?;
    bench.stream().await?;
    bench.planning()?;
    bench.clients().await?;
    bench.s3_requests().await?;
    if options.hold {
        println!("   server {}, PostgreSQL {}; ctrl-c ends", bench.server.endpoint(), bench.database.url());
        tokio::signal::ctrl_c().await?;
    }
    Ok(())
}

/// `lake` is the configuration's section.
async fn start_server(database: &TestDatabase, lake: toml::Table) -> Result<Server> {
    let mut config = ServerConfig::default()
        .with("postgres", "url", database.url())
        .with("duckdb", "threads", i64::try_from(duck::THREADS)?)
        .with("duckdb", "memory_limit", duck::MEMORY_LIMIT);
    for (key, value) in lake {
        config.set("lake", &key, value);
    }
    config.catalog = data::catalog();
    config.start().await
}

/// Base files as rows of the entity.
fn base_rows(folder: &Path) -> Result<String> {
    Ok(format!(
        "SELECT row_id, carrier, seats, distance, amount, delay, score, make_timestamptz(created_at * 1000) AS created_at, \
         make_timestamptz(changed_at * 1000) AS updated_at FROM {}",
        duck::scan(&folder.join(format!("base/{SCHEMA_ID}")))?
    ))
}

/// The one statement that somebody would write without this server: three PostgreSQL scans joined and pivoted in DuckDB,
/// and a window over all versions. `folder` is absent for the hot tier alone.
fn naive_rows(folder: Option<&Path>) -> Result<String> {
    let hot = format!(
        "SELECT c.row_id, m.text_01 AS carrier, m.integer_01 AS seats, m.double_01 AS distance, m.bigint_01 AS amount, \
         e.delay, e.score, m.ltbase_created_at AS created_at, c.changed_at, c.deleted_at, 2 AS tier \
         FROM pg.change_log c JOIN pg.entity_main m ON m.ltbase_schema_id = c.schema_id AND m.ltbase_row_id = c.row_id \
         LEFT JOIN (SELECT row_id, max(value_numeric) FILTER (attr_id = 205) AS delay, \
         CAST(max(value_numeric) FILTER (attr_id = 206) AS INTEGER) AS score FROM pg.eav_data \
         WHERE schema_id = {SCHEMA_ID} GROUP BY row_id) e ON e.row_id = c.row_id \
         WHERE c.schema_id = {SCHEMA_ID} AND c.flushed_at = 0"
    );
    let mut versions = vec![hot];
    if let Some(folder) = folder {
        for (number, tier) in ["base", "delta"].into_iter().enumerate() {
            versions.push(format!(
                "SELECT row_id, carrier, seats, distance, amount, delay, score, created_at, changed_at, deleted_at, {number} \
                 FROM {}",
                duck::scan(&folder.join(format!("{tier}/{SCHEMA_ID}")))?
            ));
        }
    }
    Ok(format!(
        "SELECT * EXCLUDE (created_at, changed_at), make_timestamptz(created_at * 1000) AS created_at, \
         make_timestamptz(changed_at * 1000) AS updated_at FROM (SELECT * FROM ({}) \
         QUALIFY row_number() OVER (PARTITION BY row_id ORDER BY tier = 2 DESC, changed_at DESC, tier DESC) = 1) \
         WHERE COALESCE(deleted_at, 0) = 0",
        versions.join(" UNION ALL ")
    ))
}

/// A DuckDB in which `events` is the naive statement.
fn naive(url: &str, folder: Option<&Path>) -> Result<Connection> {
    let connection = duck::open()?;
    duck::attach(&connection, url, true)?;
    connection.execute_batch(&format!("CREATE VIEW events AS {}", naive_rows(folder)?))?;
    Ok(connection)
}

/// Runs once to warm up and then `runs` times.
fn repeat(connection: &Connection, sql: &str, runs: usize) -> Result<(Samples, duck::Run)> {
    let mut samples = Samples::default();
    let mut last = duck::run(connection, sql)?;
    for _ in 0..runs {
        last = duck::run(connection, sql)?;
        samples.push(last.elapsed);
    }
    Ok((samples, last))
}

/// Runs one query of the server to its end and drops the batches.
async fn ask(client: &Client, sql: &str) -> Result<duck::Run> {
    let started = Instant::now();
    let mut stream = client.stream(sql).await?;
    let (mut rows, mut bytes) = (0, 0);
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        bytes += duck::bytes_of(&batch);
    }
    Ok(duck::Run { elapsed: started.elapsed(), rows, bytes })
}

async fn ask_often(client: &Client, sql: &str, runs: usize) -> Result<(Samples, duck::Run)> {
    let mut samples = Samples::default();
    let mut last = ask(client, sql).await?;
    for _ in 0..runs {
        last = ask(client, sql).await?;
        samples.push(last.elapsed);
    }
    Ok((samples, last))
}

impl Bench<'_> {
    fn case(&self, name: &str) -> Case {
        Case::new(name, self.ids.as_str())
    }

    fn done(&mut self, case: Case) {
        println!("{}", case.summary());
        self.report.add(case);
    }

    /// How the server answered: strategy and route, and where the time goes.
    async fn describe(&self, client: &Client, sql: &str, case: &mut Case) -> Result<()> {
        let answer = client.query(sql).await?;
        let plan = &answer.final_plan;
        case.note(format!(
            "route {}, merge {}",
            plan["route"].as_str().unwrap_or("?"),
            plan["references"][0]["merge"]["strategy"].as_str().unwrap_or("?")
        ));
        let mut times = plan["timings_ms"].clone();
        times["execution"] = plan["execution"]["execution_ms"].clone();
        times["streaming"] = plan["execution"]["streaming_ms"].clone();
        times["hot"] = plan["execution"]["sources"][0]["ms"].clone();
        case.note(format!("the server's own times in ms: {times}"));
        case.profile(&client.query(&format!("EXPLAIN ANALYZE {sql}")).await?.text());
        Ok(())
    }

    async fn scans(&mut self) -> Result<()> {
        let limit = if self.ids == Ids::Time { 1.5 } else { 2.0 };
        for (name, sql, plain_limit, naive_limit) in [
            ("aggregate over everything, 3 columns", AGGREGATE, limit, 6.0),
            ("aggregate over everything, all columns", WIDE_AGGREGATE, limit, 6.0),
            ("selective filter on everything", SELECTIVE, 2.0, 2.0),
        ] {
            if !self.options.wants(name) {
                continue;
            }
            let mut case = self.case(name);
            let (server, answered) = ask_often(&self.client, sql, self.options.runs).await?;
            let (plain, _) = repeat(&self.plain, sql, self.options.runs)?;
            let naive = naive(&self.database.url(), Some(&self.folder))?;
            // A window over everything takes seconds: fewer runs, and no warm-up beyond what the other two did.
            let mut slow = Samples::default();
            for _ in 0..self.options.runs.min(2) {
                let run = duck::run(&naive, sql)?;
                slow.push(run.elapsed);
                anyhow::ensure!(run.rows == answered.rows, "naive has {} rows, the server {}", run.rows, answered.rows);
            }
            case.ratio("server / plain", server.median() / plain.median(), Target::AtMost(plain_limit));
            case.ratio("naive / server", slow.median() / server.median(), Target::AtLeast(naive_limit));
            case.note(format!("{} rows", answered.rows));
            case.series("server", "ms", server);
            case.series("plain", "ms", plain);
            case.series("naive", "ms", slow);
            self.describe(&self.client, sql, &mut case).await?;
            self.done(case);
        }
        Ok(())
    }

    async fn hot_only(&mut self) -> Result<()> {
        let name = "hot only, selective";
        if !self.options.wants(name) {
            return Ok(());
        }
        let mut case = self.case(name);
        let client = self.client.with_option("tiers", "hot");
        let (server, answered) = ask_often(&client, HOT, self.options.runs.max(10)).await?;
        let naive = naive(&self.database.url(), None)?;
        let (slow, compared) = repeat(&naive, HOT, self.options.runs)?;
        anyhow::ensure!(
            compared.rows == answered.rows,
            "naive has {} rows, the server {}",
            compared.rows,
            answered.rows
        );
        case.ratio("naive / server", slow.median() / server.median(), Target::AtLeast(5.0));
        case.note(format!("{} rows", answered.rows));
        case.series("server", "ms", server);
        case.series("naive", "ms", slow);
        self.describe(&client, HOT, &mut case).await?;
        self.done(case);
        Ok(())
    }

    async fn lookups(&mut self) -> Result<()> {
        for (place, name) in [
            (Place::Hot, "one row by row_id, hot"),
            (Place::Warm, "one row by row_id, warm"),
            (Place::Cold, "one row by row_id, cold"),
        ] {
            if !self.options.wants(name) {
                continue;
            }
            let mut case = self.case(name);
            let ids = data::some_ids(&self.plain, self.rows, self.ids, place, 40)?;
            let sql = |id: &String| format!("SELECT * FROM events WHERE row_id = '{id}'");
            ask(&self.client, &sql(&ids[0])).await?;
            let (mut server, mut plain) = (Samples::default(), Samples::default());
            for id in &ids {
                let run = ask(&self.client, &sql(id)).await?;
                anyhow::ensure!(run.rows == 1, "{} rows for {id}", run.rows);
                server.push(run.elapsed);
            }
            if place == Place::Cold {
                for id in &ids {
                    plain.push(duck::run(&self.plain, &sql(id))?.elapsed);
                }
            }
            case.ratio("p50 in ms", server.median(), Target::AtMost(15.0));
            case.series("server", "ms", server);
            if plain.len() > 0 {
                case.series("plain", "ms", plain);
            }
            self.describe(&self.client, &sql(&ids[0]), &mut case).await?;
            self.done(case);
        }
        Ok(())
    }

    fn planning(&mut self) -> Result<()> {
        let name = "translate and plan";
        if !self.options.wants(name) {
            return Ok(());
        }
        let mut case = self.case(name);
        let statements = [AGGREGATE, SELECTIVE, HOT];
        let times = planning::measure(&statements, self.options.runs.max(1) * 40)?;
        case.ratio("p50 in ms", times.total.median(), Target::AtMost(2.0));
        case.series("total", "ms", times.total);
        case.series("of it the translator and planner", "ms", times.translator);
        case.series("of it DuckDB's parser and printer", "ms", times.parse_and_print);
        self.done(case);
        Ok(())
    }

    async fn clients(&mut self) -> Result<()> {
        let name = "16 clients, small hot queries";
        if !self.options.wants(name) {
            return Ok(());
        }
        let mut case = self.case(name);
        let lasting = if self.rows < 1_000_000 { Duration::from_secs(1) } else { Duration::from_secs(10) };
        let ids = data::some_ids(&self.plain, self.rows, self.ids, Place::Hot, 40)?;
        let started = Instant::now();
        let mut tasks = Vec::new();
        for client in 0..16 {
            let (endpoint, ids) = (self.server.endpoint().to_owned(), ids.clone());
            tasks.push(tokio::spawn(async move {
                let connection = Client::connect(&endpoint).await?.with_option("tiers", "hot");
                let (mut samples, mut errors) = (Samples::default(), Vec::new());
                for number in client.. {
                    if started.elapsed() > lasting {
                        break;
                    }
                    let id = &ids[number % ids.len()];
                    match ask(&connection, &format!("SELECT carrier, delay FROM events WHERE row_id = '{id}'")).await {
                        Ok(run) => samples.push(run.elapsed),
                        Err(error) => errors.push(error),
                    }
                }
                anyhow::Ok((samples, errors))
            }));
        }
        let (mut samples, mut errors) = (Samples::default(), Vec::new());
        for task in tasks {
            let (times, failed) = task.await??;
            samples.extend(&times);
            errors.extend(failed);
        }
        let elapsed = started.elapsed().as_secs_f64();
        let (answered, failed) = (samples.len() as f64, errors.len() as f64);
        case.ratio("queries a second", answered / elapsed, Target::None);
        case.ratio("p99 in ms", samples.percentile(0.99), Target::None);
        case.ratio("errors", failed, Target::AtMost(0.0));
        if let Some(error) = errors.first() {
            case.note(format!("the first error: {error:#}"));
        }
        case.series("server", "ms", samples);
        self.done(case);
        Ok(())
    }
}
