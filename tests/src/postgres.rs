//! Private PostgreSQL clusters and databases for tests.
//!
//! [`Cluster::shared`] is one cluster a test process; [`TestDatabase::create`] makes a fresh database in it with the
//! tables of docs/contract.md, "PostgreSQL tables". [`Cluster::start`] makes a cluster of one's own, to stop, pause and
//! restart. Clusters end with the process whatever happens (see [`crate::supervise`]).

mod standby;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, Transaction};

use crate::model::{Entity, Storage, Version};
use crate::port::HeldPort;
use crate::supervise::{Supervise, Supervised, children_of, process_state, send_signal, signal_those_left};

/// The superuser of every cluster.
pub const USER: &str = "thermocline";
/// The password of every cluster: a word that tests look for where it must not appear.
pub const PASSWORD: &str = "canary-7f3a-postgres";
/// Template database with the tables of the contract and a collation that isn't C.
const TEMPLATE: &str = "thermocline_template";
/// Mark at the start of every entry of the server log.
const LOG_MARK: &str = "\u{1}@@";

/// A PostgreSQL cluster that belongs to this process.
#[derive(Debug)]
pub struct Cluster {
    bin: PathBuf,
    dir: PathBuf,
    /// Held through restarts.
    port: HeldPort,
    user: Option<(u32, u32)>,
    server: Mutex<Option<Supervised>>,
}

/// A database with the tables of docs/contract.md, "PostgreSQL tables", dropped at the end.
#[derive(Debug)]
pub struct TestDatabase {
    cluster: Arc<Cluster>,
    name: String,
}

/// One statement as PostgreSQL logged it.
#[derive(Debug, Clone)]
pub struct LoggedStatement {
    pub application: String,
    /// Backend process id.
    pub pid: String,
    pub sql: String,
}

impl Cluster {
    /// The cluster that the tests of this process share, started on first use.
    ///
    /// # Errors
    /// PostgreSQL isn't installed or doesn't start.
    pub async fn shared() -> Result<Arc<Self>> {
        static SHARED: OnceLock<std::result::Result<Arc<Cluster>, String>> = OnceLock::new();
        let shared = tokio::task::spawn_blocking(|| {
            SHARED.get_or_init(|| Self::start_blocking().map(Arc::new).map_err(|error| format!("{error:#}")))
        });
        match shared.await? {
            Ok(cluster) => Ok(Arc::clone(cluster)),
            Err(error) => bail!("the shared PostgreSQL cluster: {error}"),
        }
    }

    /// A cluster of one's own, for faults.
    ///
    /// # Errors
    /// PostgreSQL isn't installed or doesn't start.
    pub async fn start() -> Result<Arc<Self>> {
        Ok(Arc::new(tokio::task::spawn_blocking(Self::start_blocking).await??))
    }

    /// The same, for callers without a runtime.
    ///
    /// # Errors
    /// PostgreSQL isn't installed or doesn't start.
    pub fn start_blocking() -> Result<Self> {
        let bin = binaries()?;
        let user = unprivileged_user()?;
        let dir = Self::directory(user)?;
        let mut cluster = Self { bin, dir, port: HeldPort::new()?, user, server: Mutex::new(None) };
        if cluster.user.is_some() && !is_reachable_by_others(&cluster.bin)? {
            cluster.copy_programs()?;
        }
        cluster.initialise()?;
        run_blocking(make_template(cluster.url("postgres"), cluster.url(TEMPLATE)))??;
        Ok(cluster)
    }

    /// An empty directory that belongs to whom the server runs as.
    fn directory(user: Option<(u32, u32)>) -> Result<PathBuf> {
        let dir = tempfile::Builder::new().prefix("thermocline-pg-").tempdir()?.keep();
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(&dir, Some(uid), Some(gid))?;
        }
        Ok(dir)
    }

    /// Copies PostgreSQL out of a directory that only root may enter, such as root's own cache.
    fn copy_programs(&mut self) -> Result<()> {
        let from = self.bin.parent().context("PostgreSQL's programs lie in no directory")?;
        let to = self.dir.join("postgresql");
        let copied =
            std::process::Command::new("cp").args(["-r", "--preserve=mode,links"]).arg(from).arg(&to).status()?;
        ensure!(copied.success(), "cannot copy {} to {}", from.display(), to.display());
        // Whoever the server runs as removes it in the end.
        if let Some((uid, gid)) = self.user {
            let given = std::process::Command::new("chown").args(["-R", &format!("{uid}:{gid}")]).arg(&to).status()?;
            ensure!(given.success(), "cannot give {} away", to.display());
        }
        self.bin = to.join("bin");
        Ok(())
    }

    /// Makes the data directory and starts the server on a free port.
    fn initialise(&mut self) -> Result<()> {
        let password = self.dir.join("password");
        std::fs::write(&password, PASSWORD)?;
        if let Some((uid, gid)) = self.user {
            std::os::unix::fs::chown(&password, Some(uid), Some(gid))?;
        }
        let mut initdb = Supervise::new(self.bin.join("initdb"));
        initdb.current_dir = Some(self.dir.clone());
        initdb.user = self.user;
        initdb.remove = Some(self.dir.clone());
        initdb.env.insert("LC_ALL".to_owned(), "C.UTF-8".to_owned());
        initdb.stderr = Some(self.log_path());
        let args =
            "--pgdata data --username thermocline --pwfile password --auth scram-sha-256 --encoding UTF8 --no-sync";
        initdb.args = args.split(' ').map(str::to_owned).collect();
        let initdb = initdb.spawn()?;
        let until = Instant::now() + Duration::from_secs(120);
        while !initdb.has_exited() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let log = std::fs::read_to_string(self.log_path())?;
        if !initdb.end_keeping_files()?.success() {
            bail!("initdb failed: {log}");
        }
        self.server = Mutex::new(Some(self.launch()?));
        Ok(())
    }

    /// Starts the server and waits until it answers.
    fn launch(&self) -> Result<Supervised> {
        let port = self.port();
        let mut supervise = Supervise::new(self.bin.join("postgres"));
        supervise.user = self.user;
        supervise.current_dir = Some(self.dir.clone());
        supervise.end_signal = "QUIT";
        supervise.remove = Some(self.dir.clone());
        supervise.args = vec!["-D".to_owned(), self.dir.join("data").display().to_string()];
        let settings = [
            ("port", port.to_string()),
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("unix_socket_directories", String::new()),
            // Nothing waits for the disk, yet what is committed outlives a hard stop of the server: it is with the
            // kernel.
            ("fsync", "off".to_owned()),
            ("full_page_writes", "off".to_owned()),
            ("max_connections", "200".to_owned()),
            // A standby takes rows away from under its readers at once.
            ("max_standby_streaming_delay", "0".to_owned()),
            ("shared_buffers", std::env::var("THERMOCLINE_TEST_SHARED_BUFFERS").unwrap_or_else(|_| "128MB".to_owned())),
            ("log_statement", "all".to_owned()),
            ("log_destination", "stderr".to_owned()),
            ("logging_collector", "off".to_owned()),
            ("lc_messages", "C".to_owned()),
            ("log_line_prefix", format!("{LOG_MARK}%d@@%p@@%a@@ ")),
        ];
        for (name, value) in settings {
            supervise.args.push("-c".to_owned());
            supervise.args.push(format!("{name}={value}"));
        }
        // The log is written by the backend itself before it runs a statement, so what was run is always in it.
        let log = self.log_path();
        supervise.stderr = Some(log.clone());
        let server = supervise.spawn()?;
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match run_blocking(async move { connect(&url_of(port, "postgres")).await })? {
                Ok(_) => return Ok(server),
                Err(error) if server.has_exited() || Instant::now() > until => {
                    let log = std::fs::read_to_string(&log)?;
                    keep_files(server)?;
                    bail!("PostgreSQL did not start: {error:#}\n{log}");
                }
                Err(_) => {}
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Connection URL of a database of this cluster.
    pub fn url(&self, database: &str) -> String {
        url_of(self.port(), database)
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// Stops the server at once, as a crash does; the data stays.
    ///
    /// # Errors
    /// It isn't running.
    pub fn stop(&self) -> Result<()> {
        let server = self.server.lock().expect("no test panics while it holds this lock").take();
        keep_files(server.context("the cluster is stopped already")?)
    }

    /// Starts the server again on the same port.
    ///
    /// # Errors
    /// It doesn't start.
    pub async fn restart(self: &Arc<Self>) -> Result<()> {
        let cluster = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let server = cluster.launch()?;
            *cluster.server.lock().expect("no test panics while it holds this lock") = Some(server);
            Ok(())
        })
        .await?
    }

    /// Freezes the server and all its backends: connections stay open and nothing answers.
    ///
    /// # Errors
    /// It isn't running.
    pub fn pause(&self) -> Result<()> {
        self.signal_all("STOP")
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// It isn't running.
    pub fn resume(&self) -> Result<()> {
        self.signal_all("CONT")
    }

    fn signal_all(&self, signal: &str) -> Result<()> {
        let guard = self.server.lock().expect("no test panics while it holds this lock");
        let postmaster = guard.as_ref().context("the cluster is stopped")?.pid();
        send_signal(signal, &[postmaster])?;
        // Until it stands still it may start one more.
        let until = Instant::now() + Duration::from_secs(60);
        while signal == "STOP" && process_state(postmaster) != Some('T') {
            ensure!(Instant::now() < until, "PostgreSQL doesn't stop");
            std::thread::sleep(Duration::from_millis(1));
        }
        signal_those_left(signal, &children_of(postmaster)?)
    }

    /// Everything that the server logged so far.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(self.log_path())?).into_owned())
    }
}

fn keep_files(server: Supervised) -> Result<()> {
    server.end_keeping_files()?;
    Ok(())
}

impl TestDatabase {
    /// A fresh database in the shared cluster.
    ///
    /// # Errors
    /// The cluster or the database can't be made.
    pub async fn create() -> Result<Self> {
        Self::create_in(&Cluster::shared().await?).await
    }

    /// A fresh database in the given cluster.
    ///
    /// # Errors
    /// The database can't be made.
    pub async fn create_in(cluster: &Arc<Cluster>) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let admin = connect(&cluster.url("postgres")).await?;
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let created = admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}")).await;
            match created {
                Ok(()) => break,
                // The session that filled the template is still closing.
                Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) && Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => return Err(error).context("cannot create a test database"),
            }
        }
        Ok(Self { cluster: Arc::clone(cluster), name })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Connection URL, password included.
    pub fn url(&self) -> String {
        self.cluster.url(&self.name)
    }

    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// A new connection.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn connect(&self) -> Result<Client> {
        connect(&self.url()).await
    }

    /// Statements that reached this database so far, oldest first, those of the harness included.
    /// Leaves out the server's probes, which come whenever they like.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn statements(&self) -> Result<Vec<LoggedStatement>> {
        let log = self.cluster.log()?;
        let mut statements = Vec::new();
        for entry in log.split(LOG_MARK).skip(1) {
            let mut parts = entry.splitn(4, "@@");
            let (Some(database), Some(pid), Some(application), Some(text)) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            if database != self.name {
                continue;
            }
            let text = text.trim();
            let sql = text.strip_prefix("LOG:  statement: ").or_else(|| {
                let (_, sql) = text.strip_prefix("LOG:  execute ")?.split_once(": ")?;
                Some(sql)
            });
            if let Some(sql) = sql.filter(|sql| !sql.starts_with("/* probe */")) {
                let (application, pid) = (application.to_owned(), pid.to_owned());
                statements.push(LoggedStatement { application, pid, sql: sql.to_owned() });
            }
        }
        Ok(statements)
    }

    /// Registers entities in `schema_registry`.
    ///
    /// # Errors
    /// PostgreSQL refuses.
    pub async fn register(&self, entities: &[Entity]) -> Result<()> {
        let client = self.connect().await?;
        for entity in entities {
            client
                .execute(
                    "INSERT INTO schema_registry VALUES ($1, $2) ON CONFLICT DO NOTHING",
                    &[&entity.schema_id, &entity.name],
                )
                .await?;
        }
        Ok(())
    }

    /// Writes rows in bulk as the application would leave them.
    ///
    /// # Errors
    /// PostgreSQL refuses.
    pub async fn write(&self, entity: &Entity, rows: &[HotRow<'_>]) -> Result<()> {
        let mut client = self.connect().await?;
        let transaction = client.transaction().await?;
        let text = HotRowText::of(entity, rows)?;
        copy(&transaction, &text.main_copy, text.main).await?;
        copy(&transaction, "COPY eav_data FROM STDIN", text.eav).await?;
        copy(&transaction, "COPY change_log FROM STDIN", text.change_log).await?;
        transaction.commit().await?;
        Ok(())
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (admin, name) = (self.cluster.url("postgres"), self.name.clone());
        if self.cluster.server.lock().expect("no test panics while it holds this lock").is_none() {
            return;
        }
        let drop = async move {
            let admin = connect(&admin).await?;
            admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
            anyhow::Ok(())
        };
        // A test that failed may have left the server frozen.
        let dropped = run_blocking(async move { tokio::time::timeout(Duration::from_secs(60), drop).await? });
        if let Ok(Err(error)) | Err(error) = dropped {
            eprintln!("cannot drop the test database {}: {error:#}", self.name);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let server = self.server.get_mut().expect("no test panics while it holds this lock").take();
        drop(server);
        if self.dir.exists()
            && let Err(error) = std::fs::remove_dir_all(&self.dir)
        {
            eprintln!("cannot remove {}: {error}", self.dir.display());
        }
    }
}

/// One row as the application leaves it in PostgreSQL.
#[derive(Debug, Clone, Copy)]
pub struct HotRow<'a> {
    pub version: &'a Version,
    /// Whether it belongs to the dirty set (`flushed_at = 0`).
    pub dirty: bool,
    /// Whether `entity_main` and `eav_data` still hold it.
    pub has_main: bool,
}

/// The three COPY texts of a set of rows.
struct HotRowText {
    main_copy: String,
    main: String,
    eav: String,
    change_log: String,
}

impl HotRowText {
    fn of(entity: &Entity, rows: &[HotRow<'_>]) -> Result<Self> {
        let mut columns = String::new();
        for attribute in &entity.attributes {
            if let Storage::Main(column) = &attribute.storage {
                write!(columns, ", {column}")?;
            }
        }
        let main_copy = format!(
            "COPY entity_main (ltbase_schema_id, ltbase_row_id, ltbase_created_at, ltbase_updated_at, \
             ltbase_deleted_at{columns}) FROM STDIN"
        );
        let (mut main, mut eav, mut change_log) = (String::new(), String::new(), String::new());
        let id = entity.schema_id;
        for row in rows {
            let version = row.version;
            let (row_id, changed) = (version.row_id, version.changed_at);
            let deleted = version.deleted_at.map_or_else(|| "\\N".to_owned(), |at| at.to_string());
            let flushed = if row.dirty { 0 } else { changed.max(1) };
            writeln!(change_log, "{id}\t{row_id}\t{flushed}\t{changed}\t{deleted}")?;
            if !row.has_main {
                continue;
            }
            write!(main, "{id}\t{row_id}\t{}\t{changed}\t{deleted}", version.created_at)?;
            for (attribute, value) in entity.attributes.iter().zip(&version.values) {
                match &attribute.storage {
                    Storage::Main(_) => {
                        let text = attribute.postgres_text(value, row_id)?;
                        write!(main, "\t{}", copy_field(text.as_deref()))?;
                    }
                    Storage::Eav(attr_id) => {
                        for (index, text) in attribute.eav_rows(value, row_id)? {
                            let field = copy_field(text.as_deref());
                            let (text, numeric) = if attribute.is_text_in_eav() {
                                (field.as_str(), "\\N")
                            } else {
                                ("\\N", field.as_str())
                            };
                            writeln!(eav, "{id}\t{row_id}\t{attr_id}\t{index}\t{text}\t{numeric}")?;
                        }
                    }
                }
            }
            main.push('\n');
        }
        Ok(Self { main_copy, main, eav, change_log })
    }
}

/// A field of COPY's text format.
pub fn copy_field(text: Option<&str>) -> String {
    let Some(text) = text else { return "\\N".to_owned() };
    let mut field = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => field.push_str("\\\\"),
            '\t' => field.push_str("\\t"),
            '\n' => field.push_str("\\n"),
            '\r' => field.push_str("\\r"),
            other => field.push(other),
        }
    }
    field
}

/// Runs one COPY … FROM STDIN with all its text.
///
/// # Errors
/// PostgreSQL refuses.
pub async fn copy(transaction: &Transaction<'_>, statement: &str, text: String) -> Result<()> {
    let sink = transaction.copy_in::<_, Bytes>(statement).await?;
    futures::pin_mut!(sink);
    sink.send(Bytes::from(text)).await?;
    sink.finish().await.with_context(|| format!("{statement} failed"))?;
    Ok(())
}

/// Connects and drives the connection on the current runtime.
///
/// # Errors
/// The server can't be reached or refuses.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move {
        // The client sees the same error at its next request.
        drop(connection.await);
    });
    Ok(client)
}

async fn make_template(admin: String, template: String) -> Result<()> {
    let admin = connect(&admin).await?;
    let version: i32 = admin.query_one("SELECT current_setting('server_version_num')::int", &[]).await?.get(0);
    // A locale whose text order isn't the order of the bytes: what is pushed down must not depend on it. Databases have one
    // from PostgreSQL 15 on.
    let locale = if version >= 150_000 { "LOCALE_PROVIDER icu ICU_LOCALE 'und'" } else { "" };
    admin
        .batch_execute(&format!(
            "CREATE DATABASE {TEMPLATE} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8' {locale}"
        ))
        .await
        .context("cannot create the template database (from PostgreSQL 15 on, ICU is needed)")?;
    let template = connect(&template).await?;
    template.batch_execute(&schema_sql()).await?;
    Ok(())
}

/// The tables of docs/contract.md, "PostgreSQL tables", with all the numbered columns.
pub fn schema_sql() -> String {
    let mut columns = String::new();
    let kinds = [
        ("text", "TEXT", 10),
        ("smallint", "SMALLINT", 3),
        ("integer", "INTEGER", 3),
        ("bigint", "BIGINT", 5),
        ("double", "DOUBLE PRECISION", 5),
        ("uuid", "UUID", 2),
    ];
    for (name, kind, count) in kinds {
        for number in 1..=count {
            columns.push_str(&format!("{name}_{number:02} {kind}, "));
        }
    }
    format!(
        "CREATE TABLE schema_registry (schema_id SMALLINT PRIMARY KEY, schema_name TEXT NOT NULL UNIQUE);
         CREATE TABLE entity_main (
           ltbase_schema_id SMALLINT NOT NULL, ltbase_row_id UUID NOT NULL, {columns}
           ltbase_created_at BIGINT NOT NULL, ltbase_updated_at BIGINT NOT NULL, ltbase_deleted_at BIGINT,
           PRIMARY KEY (ltbase_schema_id, ltbase_row_id));
         CREATE TABLE eav_data (
           schema_id SMALLINT NOT NULL, row_id UUID NOT NULL, attr_id SMALLINT NOT NULL,
           array_indices TEXT NOT NULL DEFAULT '', value_text TEXT, value_numeric DOUBLE PRECISION,
           PRIMARY KEY (schema_id, row_id, attr_id, array_indices));
         CREATE TABLE change_log (
           schema_id SMALLINT NOT NULL, row_id UUID NOT NULL, flushed_at BIGINT NOT NULL DEFAULT 0,
           changed_at BIGINT NOT NULL, deleted_at BIGINT,
           PRIMARY KEY (schema_id, row_id, flushed_at));
         CREATE INDEX change_log_dirty ON change_log (schema_id, row_id) WHERE flushed_at = 0;"
    )
}

/// Connection URL of a database behind a port of this machine, such as that of a proxy.
pub fn url_of(port: u16, database: &str) -> String {
    format!("postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/{database}")
}

/// The directory of PostgreSQL's programs: what `THERMOCLINE_TEST_POSTGRES` names, else on PATH, then where Debian puts
/// them, then in the cache.
///
/// # Errors
/// There is none.
pub fn binaries() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("THERMOCLINE_TEST_POSTGRES") {
        return Ok(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = Vec::new();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        let mut versions: Vec<(u32, PathBuf)> = versions
            .filter_map(|entry| {
                let entry = entry.ok()?;
                Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
            })
            .collect();
        versions.sort();
        places.extend(versions.into_iter().rev().map(|(_, bin)| bin));
    }
    let places: Vec<PathBuf> =
        std::env::split_paths(&path).chain(places).chain([crate::cache_dir()?.join("postgresql/bin")]).collect();
    places
        .iter()
        .find(|place| place.join("initdb").is_file() && place.join("postgres").is_file())
        .cloned()
        .with_context(|| format!("no PostgreSQL in {places:?}; run `cargo xtask setup`"))
}

fn is_reachable_by_others(path: &Path) -> Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    for part in path.canonicalize()?.ancestors() {
        if part.metadata()?.permissions().mode() & 1 == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// PostgreSQL refuses to run as root: then the user `postgres`, else `nobody`.
fn unprivileged_user() -> Result<Option<(u32, u32)>> {
    let own = std::fs::read_to_string("/proc/self/status")?;
    let uid = own.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse::<u32>().ok());
    if uid != Some(0) {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd")?;
    let entry = |name: &str| {
        passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.first() == Some(&name)).then_some(())?;
            Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
        })
    };
    let user = entry("postgres").or_else(|| entry("nobody"));
    user.map(Some).context("running as root, and there is no user `postgres` or `nobody` to run PostgreSQL as")
}

/// Runs a future to its end from code that isn't async, whatever runtime surrounds it.
fn run_blocking<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Result<T> {
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        anyhow::Ok(runtime.block_on(future))
    });
    thread.join().map_err(|_| anyhow::anyhow!("a helper thread panicked"))?
}
