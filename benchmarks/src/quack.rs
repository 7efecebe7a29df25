//! Quack, DuckDB's own remote protocol: the same scan, served by one process and read by this one.

use std::path::PathBuf;

use anyhow::{Context, Result};
use duckdb::Connection;
use thermocline_tests::supervise::{Supervise, Supervised};

use crate::duck;

const TOKEN: &str = "benchmark";

/// Where `cargo xtask bench` puts the extension.
fn extension() -> Result<PathBuf> {
    Ok(thermocline_tests::cache_dir()?.join("duckdb/extensions/v1.5.5/linux_amd64/quack.duckdb_extension"))
}

/// Whether the extension is there.
pub(crate) fn is_available() -> Result<bool> {
    Ok(extension()?.is_file())
}

fn load(connection: &Connection) -> Result<()> {
    connection.execute_batch("LOAD httpfs; LOAD quack").context("cannot load the quack extension")
}

/// Serves until the process is ended.
pub(crate) fn serve(sql: &str, port: u16) -> Result<()> {
    let connection = duck::open()?;
    load(&connection)?;
    connection.execute_batch(&format!("CREATE VIEW v AS {sql}"))?;
    connection.execute_batch(&format!(
        "CALL quack_serve('quack:127.0.0.1:{port}', token => '{TOKEN}', disable_ssl => true)"
    ))?;
    println!("ready");
    loop {
        std::thread::park();
    }
}

/// A running server of the statement, and the statement that reads all of it from here.
#[derive(Debug)]
pub(crate) struct Quack {
    pub(crate) connection: Connection,
    pub(crate) sql: String,
    _server: Supervised,
}

impl Quack {
    pub(crate) fn start(sql: &str) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = Supervise::new(std::env::current_exe()?);
        server.args = vec!["serve-quack".to_owned(), sql.to_owned(), port.to_string()];
        let server = server.spawn()?;
        let line = server.next_line(std::time::Duration::from_secs(60));
        anyhow::ensure!(line.as_deref() == Some("ready"), "the quack server said {line:?}");
        let connection = duck::open()?;
        load(&connection)?;
        let sql = format!(
            "SELECT * FROM quack_query('quack:127.0.0.1:{port}', 'SELECT * FROM v', token => '{TOKEN}', \
             disable_ssl => true)"
        );
        Ok(Self { connection, sql, _server: server })
    }
}
