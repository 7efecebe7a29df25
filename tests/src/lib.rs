//! Harness of the integration tests: real PostgreSQL, a real S3 protocol, real Parquet files, the real server process,
//! official clients, and an oracle that computes what a query must return.
//!
//! It starts the server as a process and knows nothing of its inside: everything here speaks the contract's file
//! formats, tables and wire protocols.

#![allow(clippy::unwrap_used, reason = "a test that can't go on should panic")]

pub mod client;
pub mod client_data;
pub mod collector;
pub mod failpoint;
pub mod r#gen;
pub mod lake;
pub mod model;
pub mod nycflights;
pub mod oracle;
pub mod parquet_footer;
pub mod pki;
pub mod port;
pub mod postgres;
pub mod proxy;
pub mod s3;
pub mod scenario;
pub mod server;
pub mod shrink;
pub mod supervise;
pub mod tpch;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Where `cargo xtask setup` puts what it fetches.
///
/// # Errors
/// Neither `THERMOCLINE_CACHE`, `XDG_CACHE_HOME` nor `HOME` is set.
pub fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("THERMOCLINE_CACHE") {
        return Ok(PathBuf::from(dir));
    }
    if let Some(dir) = std::env::var_os("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(dir).join("thermocline"));
    }
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    Ok(PathBuf::from(home).join(".cache/thermocline"))
}

/// Whether the long mode was asked for (`cargo xtask test --long`).
pub fn is_long() -> bool {
    std::env::var_os("THERMOCLINE_TEST_LONG").is_some_and(|value| value == "1")
}

/// Waits for something that must become true.
///
/// # Errors
/// It isn't after two minutes, or asking fails.
pub async fn until(what: &str, mut is_true: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !is_true().await? {
        ensure!(Instant::now() < deadline, "not within two minutes: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
