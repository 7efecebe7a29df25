//! All rows to a Rust client, beside the same scan without a server, and the memory that takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Bench, ask_often, base_rows, repeat};
use crate::memory_server::MemoryServer;
use crate::quack::{self, Quack};
use crate::report::{Case, Target};
use crate::samples::Samples;

/// The columns of the large stream.
const STREAM_COLUMNS: &str = "carrier, seats, distance, amount, delay, score, created_at, updated_at";

impl Bench<'_> {
    pub(super) async fn stream(&mut self) -> Result<()> {
        let name = "stream of all rows, 8 columns";
        if !self.options.wants(name) {
            return Ok(());
        }
        let mut case = self.case(name);
        let runs = self.options.runs.min(3);
        let sql = format!("SELECT {STREAM_COLUMNS} FROM events");
        let base = format!("SELECT {STREAM_COLUMNS} FROM ({})", base_rows(&self.folder)?);
        let cold = self.client.with_option("tiers", "cold");

        self.server.reset_peak_memory()?;
        let before = self.server.memory()?;
        let watch = MemoryWatch::start(self.server.pid());
        let (all, answered) = ask_often(&self.client, &sql, runs).await?;
        let memory = watch.stop();
        let peak = self.server.peak_memory()?;
        let (same, same_run) = ask_often(&cold, &sql, runs).await?;
        let (plain, plain_run) = repeat(&self.plain, &base, runs)?;
        anyhow::ensure!(plain_run.rows == same_run.rows, "plain has {}, the server {}", plain_run.rows, same_run.rows);
        let bare = MemoryServer::start(&base).await?;
        let mut from_memory = Samples::default();
        bare.read().await?;
        for _ in 0..runs {
            from_memory.push(bare.read().await?.elapsed);
        }
        drop(bare);
        case.ratio("server / plain", all.median() / plain.median(), Target::AtMost(1.5));
        case.ratio(
            "server (cold tier alone, the same scan) / plain",
            same.median() / plain.median(),
            Target::AtMost(1.5),
        );
        case.ratio("server / bare Flight from memory", all.median() / from_memory.median(), Target::None);
        if quack::is_available()? {
            let quack = Quack::start(&base)?;
            let (remote, remote_run) = repeat(&quack.connection, &quack.sql, runs)?;
            anyhow::ensure!(remote_run.rows == plain_run.rows, "quack has {} rows", remote_run.rows);
            case.ratio("quack / server", remote.median() / all.median(), Target::AtLeast(2.0));
            case.ratio(
                "quack / server (cold tier alone, the same scan)",
                remote.median() / same.median(),
                Target::AtLeast(2.0),
            );
            case.series("quack", "ms", remote);
        } else {
            case.note("quack was not measured: its extension is not in the cache".to_owned());
        }
        case.note(format!("{} rows, {:.0} MB of Arrow at the client", answered.rows, megabytes(answered.bytes)));
        case.series("server", "ms", all);
        case.series("server, cold tier alone", "ms", same);
        case.series("plain", "ms", plain);
        case.series("bare Flight from memory", "ms", from_memory);
        self.describe_stream(&sql, &mut case).await?;
        self.done(case);

        let mut case = self.case("server memory on the stream");
        // DuckDB's limit of 4 GiB and 256 MiB.
        case.ratio("peak in MB", megabytes(peak), Target::AtMost(megabytes((4096 + 256) << 20)));
        case.note(format!("{:.0} MB before the stream", megabytes(before)));
        case.series("resident", "MB", Samples::of(memory.iter().map(|bytes| megabytes(*bytes))));
        case.line(memory.iter().map(|bytes| megabytes(*bytes)).collect());
        self.done(case);
        Ok(())
    }

    /// As [`Self::describe`], without collecting the rows.
    async fn describe_stream(&self, sql: &str, case: &mut Case) -> Result<()> {
        let info = self.client.info(sql).await?;
        let plan: serde_json::Value = serde_json::from_slice(&info.app_metadata)?;
        case.note(format!(
            "route {}, merge {}",
            plan["route"].as_str().unwrap_or("?"),
            plan["references"][0]["merge"]["strategy"].as_str().unwrap_or("?")
        ));
        case.profile(&self.client.query(&format!("EXPLAIN ANALYZE {sql}")).await?.text());
        Ok(())
    }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1_000_000.0
}

/// Reads a process's resident memory again and again.
struct MemoryWatch {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<u64>>,
}

impl MemoryWatch {
    fn start(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !stopped.load(Ordering::Acquire) {
                seen.extend(resident(pid).ok());
                std::thread::sleep(Duration::from_millis(100));
            }
            seen
        });
        Self { stop, thread }
    }

    fn stop(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap_or_default()
    }
}

fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
