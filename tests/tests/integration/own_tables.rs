//! Entities over tables of an application: `init`, the triggers, queries, the writers, `prune` and `restore`.
//!
//! The application's own tables are the truth: a twin of each keeps what pruning takes away, and every answer of the
//! server must be what PostgreSQL says of the twin.

mod changes;
mod init;
mod life;
mod pgbench;
mod pruning;
mod row_ids;

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use thermocline_tests::client::Client;
use thermocline_tests::failpoint::{Halted, wait_for_locks};
use thermocline_tests::oracle::rows_of;
use thermocline_tests::postgres::TestDatabase;
use thermocline_tests::server::{CommandOutput, Server, ServerConfig, binary, output_of};

/// A database of an application, with Thermocline set up by `init` alone.
struct Shop {
    database: TestDatabase,
    /// `thermocline.toml`, `catalog.toml`, `setup.sql` and the lake.
    dir: TempDir,
}

/// A shop with a server over it.
struct OpenShop {
    shop: Shop,
    server: Server,
    client: Client,
}

impl Shop {
    /// Makes the application's tables by `sql`, and nothing of Thermocline's.
    async fn new(sql: &str) -> Result<Self> {
        let database = TestDatabase::create().await?;
        let client = database.connect().await?;
        client.batch_execute("DROP TABLE entity_main, eav_data, change_log, schema_registry").await?;
        client.batch_execute(sql).await?;
        let dir = tempfile::Builder::new().prefix("thermocline-shop-").tempdir()?;
        Ok(Self { database, dir })
    }

    /// The same, with these tables set up, and the rows that are there entered.
    async fn set_up(sql: &str, tables: &str) -> Result<Self> {
        let shop = Self::new(sql).await?;
        shop.init(&["--tables", tables, "--apply", "--backfill", "--yes"]).await?;
        Ok(shop)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn init(&self, args: &[&str]) -> Result<String> {
        let (url, lake) = (self.database.url(), format!("file://{}", self.path("lake").display()));
        let mut all = vec!["init"];
        if !self.path("thermocline.toml").exists() {
            all.extend(["--postgres", &url, "--lake", &lake]);
        }
        all.extend(args);
        self.command(&all).await
    }

    fn program(&self, args: &[&str]) -> Result<tokio::process::Command> {
        let mut program = tokio::process::Command::new(binary()?);
        program.args(args).arg("--config").arg(self.path("thermocline.toml"));
        program.env("XDG_CACHE_HOME", self.path("cache"));
        program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Ok(program)
    }

    async fn try_command(&self, args: &[&str]) -> Result<CommandOutput> {
        output_of(self.program(args)?.spawn()?).await
    }

    /// Runs the program, which must succeed; returns what it said.
    async fn command(&self, args: &[&str]) -> Result<String> {
        let output = self.try_command(args).await?;
        ensure!(output.success, "{args:?} failed: {}{}", output.stdout, output.stderr);
        Ok(output.stdout)
    }

    /// Kills the program while it waits at a failpoint.
    async fn die(&self, args: &[&str], failpoint: &str) -> Result<()> {
        self.halt(args, failpoint).await?.kill().await?;
        wait_for_locks(&self.database).await
    }

    async fn halt(&self, args: &[&str], failpoint: &str) -> Result<Halted> {
        Halted::at(self.program(args)?, self.dir.path(), failpoint).await
    }

    async fn sql(&self, sql: &str) -> Result<()> {
        self.database.connect().await?.batch_execute(sql).await.with_context(|| sql.to_owned())
    }

    /// Rows of a query by PostgreSQL, all columns as text.
    async fn rows(&self, sql: &str) -> Result<Vec<String>> {
        let client = self.database.connect().await?;
        client.batch_execute("SET TimeZone = 'UTC'").await?;
        let messages = client.simple_query(sql).await.with_context(|| sql.to_owned())?;
        let text = |row: &tokio_postgres::SimpleQueryRow| {
            (0..row.len()).map(|at| row.get(at).unwrap_or("NULL").to_owned()).collect::<Vec<_>>().join("|")
        };
        Ok(messages
            .iter()
            .filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => Some(text(row)),
                _ => None,
            })
            .collect())
    }

    async fn count(&self, sql: &str) -> Result<i64> {
        Ok(self.database.connect().await?.query_one(sql, &[]).await.with_context(|| sql.to_owned())?.get(0))
    }

    async fn dirty(&self) -> Result<i64> {
        self.count("SELECT count(*) FROM thermocline_log.change_log WHERE flushed_at = 0").await
    }

    fn read(&self, name: &str) -> Result<String> {
        Ok(std::fs::read_to_string(self.path(name))?)
    }

    /// Starts a server with the files that `init` wrote.
    async fn open(self) -> Result<OpenShop> {
        self.open_with(&[]).await
    }

    async fn open_with(self, settings: &[(&str, &str, &str)]) -> Result<OpenShop> {
        let mut config = self.config()?;
        for (section, key, value) in settings {
            config.set(section, key, *value);
        }
        let server = config.start().await?;
        let client = Client::connect(server.endpoint()).await?;
        Ok(OpenShop { shop: self, server, client })
    }

    fn config(&self) -> Result<ServerConfig> {
        let mut config = ServerConfig {
            settings: self.read("thermocline.toml")?.parse()?,
            catalog: self.read("catalog.toml")?,
            env: vec![("XDG_CACHE_HOME".to_owned(), self.path("cache").display().to_string())],
        };
        config.set("postgres", "connect_timeout", "60s");
        Ok(config)
    }
}

impl OpenShop {
    /// Rows of a query by the server, as text.
    async fn ask(&self, client: &Client, sql: &str) -> Result<Vec<String>> {
        let answer = client.query(sql).await.with_context(|| sql.to_owned());
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let log = self.server.log()?;
                let last = log.lines().rfind(|line| line.contains("ERROR")).unwrap_or_default().to_owned();
                return Err(error.context(last));
            }
        };
        ensure!(answer.final_plan["degraded"]["is_degraded"] == false, "{:#}", answer.final_plan);
        let warnings = answer.final_plan["warnings"].as_array().map_or(0, Vec::len);
        ensure!(warnings == 0, "{sql}: {:#}", answer.final_plan["warnings"]);
        let cells = |row: &Vec<thermocline_tests::oracle::Cell>| {
            row.iter().map(ToString::to_string).collect::<Vec<_>>().join("|")
        };
        Ok(rows_of(&answer.batches).iter().map(cells).collect())
    }

    /// The server says of `sql` what PostgreSQL says of `truth`.
    async fn check(&self, step: &str, sql: &str, truth: &str) -> Result<()> {
        self.check_by(&self.client, step, sql, truth).await
    }

    async fn check_by(&self, client: &Client, step: &str, sql: &str, truth: &str) -> Result<()> {
        let found = self.ask(client, sql).await.with_context(|| step.to_owned())?;
        let expected = self.shop.rows(truth).await?;
        let differ = found.iter().zip(&expected).find(|(found, expected)| found != expected);
        ensure!(
            found.len() == expected.len() && differ.is_none(),
            "{step}: {sql}\nfound {} rows, expected {}; the first that differ: {differ:#?}",
            found.len(),
            expected.len()
        );
        Ok(())
    }
}
