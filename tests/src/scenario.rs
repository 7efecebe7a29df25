//! A whole set-up in a few lines: database, lake, stored data, server and client, with the oracle over the same data.

use std::sync::Arc;

use anyhow::{Context, Result};
use uuid::Uuid;

use crate::client::{Answer, Client};
use crate::lake::{Lake, LakeFile};
use crate::model::{Entity, Value, Version};
use crate::oracle::{Oracle, Order, Stored, View, compare};
use crate::postgres::{HotRow, TestDatabase};
use crate::s3::S3Server;
use crate::server::{Server, ServerConfig};

/// Where the lake of a scenario is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LakeKind {
    Local,
    S3,
}

/// Stored data with a server over it.
#[derive(Debug)]
pub struct Scenario {
    pub client: Client,
    pub server: Server,
    pub lake: Lake,
    pub database: TestDatabase,
    pub stored: Vec<Stored>,
}

impl Scenario {
    /// Stores the data and starts a server with the usual settings.
    ///
    /// # Errors
    /// Any part fails.
    pub async fn start(stored: Vec<Stored>, kind: LakeKind) -> Result<Self> {
        Self::start_with(stored, kind, |config| config).await
    }

    /// Stores the data and starts a server with changed settings.
    ///
    /// # Errors
    /// Any part fails.
    pub async fn start_with(
        stored: Vec<Stored>,
        kind: LakeKind,
        configure: impl FnOnce(ServerConfig) -> ServerConfig,
    ) -> Result<Self> {
        let database = TestDatabase::create().await?;
        Self::start_on(database, stored, kind, configure).await
    }

    /// The same over a given database, such as one in a cluster of its own.
    ///
    /// # Errors
    /// Any part fails.
    pub async fn start_on(
        database: TestDatabase,
        stored: Vec<Stored>,
        kind: LakeKind,
        configure: impl FnOnce(ServerConfig) -> ServerConfig,
    ) -> Result<Self> {
        let lake = match kind {
            LakeKind::Local => Lake::local()?,
            LakeKind::S3 => Lake::s3(&Arc::new(S3Server::start()?))?,
        };
        let entities: Vec<Entity> = stored.iter().map(|stored| stored.entity.clone()).collect();
        database.register(&entities).await?;
        for stored in &stored {
            let rows: Vec<HotRow<'_>> = stored
                .hot
                .iter()
                .map(|hot| HotRow { version: &hot.version, dirty: hot.dirty, has_main: hot.has_main })
                .collect();
            database.write(&stored.entity, &rows).await?;
            for file in &stored.files {
                lake.put(file).await?;
            }
        }
        let server = configure(ServerConfig::new(&database, &lake, &entities)).start().await?;
        let client = Client::connect(server.endpoint()).await?;
        Ok(Self { client, server, lake, database, stored })
    }

    /// Publishes one more file.
    ///
    /// # Errors
    /// The lake refuses.
    pub async fn add_file(&mut self, file: LakeFile) -> Result<()> {
        self.lake.put(&file).await?;
        let stored = self.stored.iter_mut().find(|stored| stored.entity.schema_id == file.entity.schema_id);
        stored.context("a file of an unknown entity")?.files.push(file);
        Ok(())
    }

    /// The oracle over the stored data.
    ///
    /// # Errors
    /// DuckDB refuses a value.
    pub fn oracle(&self, view: View) -> Result<Oracle> {
        Oracle::load(&self.stored.iter().collect::<Vec<_>>(), view, false)
    }

    /// Asks the server; a bug of the server's comes with what it logged of it.
    ///
    /// # Errors
    /// The server refuses or fails.
    pub async fn ask(&self, client: &Client, sql: &str) -> Result<Answer> {
        match client.query(sql).await {
            Ok(answer) => Ok(answer),
            Err(failure) if failure.code == tonic::Code::Internal => {
                let log = self.server.log()?;
                let last = log.lines().rfind(|line| line.contains("ERROR")).unwrap_or_default();
                anyhow::bail!("the server fails on {sql}\n{failure}\n{last}")
            }
            Err(failure) => Err(failure).with_context(|| format!("the server fails on {sql}")),
        }
    }

    /// Asks server and oracle the same and compares.
    ///
    /// # Errors
    /// The answers differ, or one of them fails.
    pub async fn check(&self, oracle: &Oracle, sql: &str, order: Order) -> Result<()> {
        self.check_with(&self.client, oracle, sql, sql, order).await
    }

    /// The same with a client of other options, and other words for the oracle.
    ///
    /// # Errors
    /// The answers differ, or one of them fails.
    pub async fn check_with(
        &self,
        client: &Client,
        oracle: &Oracle,
        sql: &str,
        oracle_sql: &str,
        order: Order,
    ) -> Result<()> {
        let expected = oracle.query(oracle_sql)?;
        let answer = self.ask(client, sql).await?;
        compare(&expected, &answer.schema, &answer.batches, order)
            .with_context(|| format!("{sql}\nstatement: {}", answer.plan["statement"].as_str().unwrap_or("none")))?;
        anyhow::ensure!(
            answer.schema == answer.info_schema,
            "{sql}\nGetFlightInfo promised {:?}\nthe stream has {:?}",
            answer.info_schema,
            answer.schema
        );
        Ok(())
    }
}

/// A row id that is the same every time.
pub fn row_id(number: u128) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + number)
}

/// A live version.
pub fn live(number: u128, changed_at: i64, values: Vec<Value>) -> Version {
    Version { row_id: row_id(number), created_at: 1_000, changed_at, deleted_at: None, values }
}

/// A tombstone.
pub fn tombstone(number: u128, changed_at: i64, values: Vec<Value>) -> Version {
    Version { deleted_at: Some(changed_at), ..live(number, changed_at, values) }
}
