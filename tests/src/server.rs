//! The server under test, as a process, and its command line client.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::lake::Lake;
use crate::model::Entity;
use crate::postgres::TestDatabase;
use crate::supervise::{Supervise, Supervised};

/// How long a server may take to print its address.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// What a server is started with.
#[derive(Debug, Clone, Default)]
pub struct ServerConfig {
    /// `thermocline.toml`.
    pub settings: toml::Table,
    /// `catalog.toml`.
    pub catalog: String,
    /// Extra environment variables.
    pub env: Vec<(String, String)>,
}

/// A running server. Dropping it kills the process.
#[derive(Debug)]
pub struct Server {
    process: Supervised,
    endpoint: String,
    dir: TempDir,
}

/// What a run of the command line client gave.
#[derive(Debug)]
pub struct CommandOutput {
    pub success: bool,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl ServerConfig {
    /// The usual settings over the given sources.
    pub fn new(database: &TestDatabase, lake: &Lake, entities: &[Entity]) -> Self {
        let mut config = Self::default();
        config.set("postgres", "url", database.url());
        // What isn't about time limits passes on a busy machine too.
        config.set("postgres", "connect_timeout", "60s");
        // Tests of how PostgreSQL is read name what is sent to it; those of rows in memory switch them on.
        config.set("hot", "mirror", "off");
        config.settings.insert("lake".to_owned(), lake.config().into());
        config.catalog = entities.iter().map(Entity::catalog_toml).collect::<Vec<_>>().join("\n");
        config
    }

    /// Sets one key of one section.
    pub fn set(&mut self, section: &str, key: &str, value: impl Into<toml::Value>) {
        let table = self.settings.entry(section).or_insert_with(|| toml::Table::new().into());
        if let Some(table) = table.as_table_mut() {
            table.insert(key.to_owned(), value.into());
        }
    }

    /// The same, to chain.
    #[must_use]
    pub fn with(mut self, section: &str, key: &str, value: impl Into<toml::Value>) -> Self {
        self.set(section, key, value);
        self
    }

    /// Nothing is read but for queries: tests that count requests or make some fail mean theirs, and the version index reads
    /// files behind them.
    #[must_use]
    pub fn without_index(self) -> Self {
        self.with("query", "merge", "layered")
    }

    /// Writes the files and starts a server on a free port.
    ///
    /// # Errors
    /// It ends or stays silent until the deadline; its log is in the error.
    pub async fn start(mut self) -> Result<Server> {
        let dir = tempfile::Builder::new().prefix("thermocline-server-").tempdir()?;
        self.set("server", "listen", "127.0.0.1:0");
        self.set("server", "admin_listen", "127.0.0.1:0");
        self.set("catalog", "path", dir.path().join("catalog.toml").display().to_string());
        let duckdb = self.settings.entry("duckdb").or_insert_with(|| toml::Table::new().into());
        if let Some(duckdb) = duckdb.as_table_mut() {
            let spill = dir.path().join("spill").display().to_string();
            duckdb.entry("temp_directory").or_insert_with(|| spill.into());
        }
        let cache = self.settings.entry("cache").or_insert_with(|| toml::Table::new().into());
        if let Some(cache) = cache.as_table_mut() {
            let versions = dir.path().join("versions").display().to_string();
            cache.entry("directory").or_insert_with(|| versions.into());
        }
        std::fs::write(dir.path().join("catalog.toml"), &self.catalog)?;
        std::fs::write(dir.path().join("thermocline.toml"), self.settings.to_string())?;
        let env = self.env;
        tokio::task::spawn_blocking(move || Server::start(dir, env)).await?
    }
}

impl Server {
    fn start(dir: TempDir, env: Vec<(String, String)>) -> Result<Self> {
        let mut supervise = Supervise::new(binary()?);
        supervise.args = ["serve", "--config", "thermocline.toml"].into_iter().map(str::to_owned).collect();
        // What a killed server leaves behind goes with its directory.
        let temp = dir.path().join("tmp");
        std::fs::create_dir(&temp)?;
        supervise.env.insert("TMPDIR".to_owned(), temp.display().to_string());
        supervise.env.extend(env);
        supervise.current_dir = Some(dir.path().to_owned());
        let log = dir.path().join("server.log");
        supervise.stderr = Some(log.clone());
        let process = supervise.spawn()?;
        let until = Instant::now() + START_DEADLINE;
        let mut said = String::new();
        loop {
            if let Some(line) = process.next_line(Duration::from_millis(50)) {
                let endpoint = match line.split_once("://") {
                    Some(("listening on grpc", address)) => Some(format!("http://{}", address.trim())),
                    Some(("listening on grpc+tls", address)) => Some(format!("https://{}", address.trim())),
                    _ => None,
                };
                if let Some(endpoint) = endpoint {
                    return Ok(Self { endpoint, process, dir });
                }
                said.push_str(&line);
                said.push('\n');
            } else if process.has_exited() || Instant::now() > until {
                let log = std::fs::read_to_string(&log)?;
                bail!("the server did not start\nstandard output:\n{said}\nlog:\n{log}");
            }
        }
    }

    /// `http://127.0.0.1:PORT`, with TLS `https://…`
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// `grpc://127.0.0.1:PORT`, with TLS `grpc+tls://…`, as Python clients write it.
    pub fn grpc_uri(&self) -> String {
        self.endpoint.replacen("http://", "grpc://", 1).replacen("https://", "grpc+tls://", 1)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The directory with `thermocline.toml` and `catalog.toml`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("thermocline.toml")
    }

    /// What the server logged so far.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.dir.path().join("server.log"))?)
    }

    /// Status and body of an answer of the admin port, whose address is in the log.
    ///
    /// # Errors
    /// The port can't be reached or speaks no HTTP.
    pub async fn admin_get(&self, path: &str) -> Result<(u16, String)> {
        http_get(&self.admin_address()?, path).await
    }

    /// What `/metrics` says.
    ///
    /// # Errors
    /// The port can't be reached.
    pub async fn metrics(&self) -> Result<String> {
        let (status, body) = self.admin_get("/metrics").await?;
        anyhow::ensure!(status == 200, "{status}: {body}");
        Ok(body)
    }

    /// Where the admin port listens: it is in the log.
    ///
    /// # Errors
    /// The log doesn't say.
    pub fn admin_address(&self) -> Result<String> {
        let log = self.log()?;
        let line = log.lines().find(|line| line.contains("admin port:")).context("no admin port in the log")?;
        let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
        address.map(str::to_owned).context("no address of the admin port")
    }

    /// Sends the process a signal by name.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, name: &str) -> Result<()> {
        self.process.signal(name)
    }

    /// Memory that the process holds now, in bytes.
    ///
    /// # Errors
    /// It is gone.
    pub fn memory(&self) -> Result<u64> {
        self.status_kib("VmRSS:")
    }

    /// The most memory that the process held since it started or since [`Self::reset_peak_memory`], in bytes.
    ///
    /// # Errors
    /// It is gone.
    pub fn peak_memory(&self) -> Result<u64> {
        self.status_kib("VmHWM:")
    }

    /// Makes the memory held now the peak.
    ///
    /// # Errors
    /// It is gone, or belongs to another user.
    pub fn reset_peak_memory(&self) -> Result<()> {
        Ok(std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5")?)
    }

    fn status_kib(&self, name: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line in /proc")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// Asks the server to stop and waits until it has.
    ///
    /// # Errors
    /// It still runs at the deadline.
    pub fn stop(self, deadline: Duration) -> Result<std::process::ExitStatus> {
        self.process.signal("TERM")?;
        self.process.wait_for_exit(deadline)
    }

    /// Runs `thermocline query` against this server.
    ///
    /// # Errors
    /// The program can't be run.
    pub async fn run_query(&self, args: &[&str]) -> Result<CommandOutput> {
        let server = self.grpc_uri();
        let mut all = vec!["query", "--server", &server];
        all.extend_from_slice(args);
        run(&all).await
    }
}

/// Runs the program with any arguments to its end.
///
/// # Errors
/// The program can't be run.
pub async fn run(args: &[&str]) -> Result<CommandOutput> {
    run_with(args, &[]).await
}

/// The same, with more environment variables.
///
/// # Errors
/// The program can't be run.
pub async fn run_with(args: &[&str], env: &[(String, String)]) -> Result<CommandOutput> {
    let output = tokio::process::Command::new(binary()?)
        .args(args)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    Ok(CommandOutput {
        success: output.status.success(),
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Waits for the end of a program whose output is piped.
///
/// # Errors
/// It can't be waited for.
pub async fn output_of(program: tokio::process::Child) -> Result<CommandOutput> {
    let output = program.wait_with_output().await?;
    Ok(CommandOutput {
        success: output.status.success(),
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: format!("{} ({})", String::from_utf8_lossy(&output.stderr), output.status),
    })
}

/// Status and body of an answer to a plain HTTP request.
///
/// # Errors
/// Nobody answers, or not in HTTP.
pub async fn http_get(address: &str, path: &str) -> Result<(u16, String)> {
    http_get_with(address, path, "").await
}

/// The same with more header lines, each with its `\r\n`.
///
/// # Errors
/// Nobody answers, or not in HTTP.
pub async fn http_get_with(address: &str, path: &str, headers: &str) -> Result<(u16, String)> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
    let status = head.split_whitespace().nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// The server binary: `THERMOCLINE_BIN`, else where cargo put it beside the running program.
///
/// # Errors
/// There is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("THERMOCLINE_BIN") {
        let path = PathBuf::from(path);
        if path.is_file() {
            return Ok(path);
        }
        bail!("THERMOCLINE_BIN names {}, which isn't there", path.display());
    }
    let program = std::env::current_exe()?;
    program
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("thermocline"))
        .find(|path| path.is_file())
        .with_context(|| format!("no `thermocline` beside {}; run `cargo xtask test`", program.display()))
}
