//! Child processes that never outlive this one, not even when it is killed.
//!
//! Each child runs under a small shell that waits on a pipe whose other end only this process holds. When the pipe
//! closes, on purpose or because this process is gone, the shell ends the child and removes its directory.
//!
//! ```text
//! this process ──pipe──> sh (own process group) ──> child
//!        closes, or "keep\n"   signal, wait, rm -rf
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const SUPERVISOR: &str = r#"
exec 3<&0 </dev/null
/bin/sh -c 'echo "pid $$"; exec "$@"' child "$@" 3<&- & pid=$!
how=
read -r how <&3
kill -CONT "$pid" 2>/dev/null
kill "-$SUPERVISOR_SIGNAL" "$pid" 2>/dev/null
wait "$pid"; code=$?
[ "$how" = keep ] || [ -z "$SUPERVISOR_REMOVE" ] || rm -rf "$SUPERVISOR_REMOVE"
exit "$code"
"#;

/// What to run, and how to end it.
#[derive(Debug)]
pub struct Supervise {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: HashMap<String, String>,
    pub current_dir: Option<PathBuf>,
    /// User and group to run as, when this process is root and the child must not be.
    pub user: Option<(u32, u32)>,
    /// Where standard error goes; standard output is read line by line.
    pub stderr: Option<PathBuf>,
    /// Signal that ends the child: `KILL`, `QUIT`, …
    pub end_signal: &'static str,
    /// Directory to remove after the child is gone.
    pub remove: Option<PathBuf>,
}

/// A running child. Dropping it ends the child and waits for that.
#[derive(Debug)]
pub struct Supervised {
    shell: Child,
    pipe: Option<ChildStdin>,
    pid: u32,
    lines: Mutex<Receiver<String>>,
}

impl Supervise {
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: HashMap::new(),
            current_dir: None,
            user: None,
            stderr: None,
            end_signal: "KILL",
            remove: None,
        }
    }

    /// Starts the child.
    ///
    /// # Errors
    /// The shell can't be started or its log file can't be opened. A program that doesn't exist shows up as an early exit.
    pub fn spawn(self) -> Result<Supervised> {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(SUPERVISOR).arg("supervisor").arg(&self.program).args(&self.args).envs(&self.env);
        command.env("SUPERVISOR_SIGNAL", self.end_signal);
        command.env("SUPERVISOR_REMOVE", self.remove.as_deref().unwrap_or(Path::new("")));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        if let Some(dir) = &self.current_dir {
            command.current_dir(dir);
        }
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        if let Some(path) = &self.stderr {
            let file = File::options().create(true).append(true).open(path);
            command.stderr(file.with_context(|| format!("cannot open the log {}", path.display()))?);
        }
        let mut shell =
            command.spawn().with_context(|| format!("cannot start a supervisor of {}", self.program.display()))?;
        let pipe = shell.stdin.take();
        let stdout = shell.stdout.take().context("the supervisor has no standard output")?;
        let (sender, lines) = channel();
        std::thread::Builder::new().name("child-output".to_owned()).spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { break };
                // Nobody may be reading any more; the pipe must be drained all the same.
                drop(sender.send(line));
            }
        })?;
        let mut child = Supervised { shell, pipe, pid: 0, lines: Mutex::new(lines) };
        let first = child.next_line(Duration::from_secs(60)).context("the supervisor said nothing")?;
        child.pid = first
            .strip_prefix("pid ")
            .and_then(|pid| pid.parse().ok())
            .with_context(|| format!("the supervisor said {first:?} instead of a process id"))?;
        Ok(child)
    }
}

impl Supervised {
    /// Process id of the child itself, not of its supervisor.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The next line of the child's standard output; `None` when none comes within `wait`.
    pub fn next_line(&self, wait: Duration) -> Option<String> {
        self.lines.lock().unwrap().recv_timeout(wait).ok()
    }

    /// Whether the child has ended by itself.
    pub fn has_exited(&self) -> bool {
        process_state(self.pid).is_none_or(|state| state == 'Z' || state == 'X')
    }

    /// Sends a signal by name (`TERM`, `STOP`, `HUP`, …).
    ///
    /// # Errors
    /// The child is gone already.
    pub fn signal(&self, name: &str) -> Result<()> {
        send_signal(name, &[self.pid])
    }

    /// Waits until the child has ended by itself and returns how.
    ///
    /// # Errors
    /// It still runs at the deadline.
    pub fn wait_for_exit(mut self, deadline: Duration) -> Result<ExitStatus> {
        let until = Instant::now() + deadline;
        while !self.has_exited() {
            if Instant::now() > until {
                bail!("process {} still runs after {deadline:?}", self.pid);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.pipe = None;
        Ok(self.shell.wait()?)
    }

    /// Ends the child but keeps the directory that would be removed with it.
    ///
    /// # Errors
    /// The supervisor can't be reached or waited for.
    pub fn end_keeping_files(mut self) -> Result<ExitStatus> {
        if let Some(mut pipe) = self.pipe.take() {
            pipe.write_all(b"keep\n").context("the supervisor is gone")?;
        }
        Ok(self.shell.wait()?)
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.pipe = None;
        if let Err(error) = self.shell.wait() {
            eprintln!("cannot wait for the supervisor of process {}: {error}", self.pid);
        }
    }
}

/// Sends a signal to processes.
///
/// # Errors
/// One of them is gone.
pub fn send_signal(name: &str, pids: &[u32]) -> Result<()> {
    let status = Command::new("/bin/sh")
        .args(["-c", r#"signal=$1; shift; kill "-$signal" "$@""#, "kill", name])
        .args(pids.iter().map(u32::to_string))
        .status()?;
    if !status.success() {
        bail!("cannot send SIG{name} to {pids:?}");
    }
    Ok(())
}

/// Sends a signal to those of some processes that haven't ended, as they may at any moment.
///
/// # Errors
/// One of them is there and can't be signalled.
pub fn signal_those_left(name: &str, pids: &[u32]) -> Result<()> {
    let script = r#"signal=$1; shift; for pid; do kill "-$signal" "$pid" || [ ! -d "/proc/$pid" ] || exit 1; done"#;
    let sent = Command::new("/bin/sh")
        .args(["-c", script, "kill", name])
        .args(pids.iter().map(u32::to_string))
        .stderr(Stdio::null())
        .status()?;
    if !sent.success() {
        bail!("cannot send SIG{name} to {pids:?}");
    }
    Ok(())
}

/// State letter of a process as `/proc` tells it; `None` when there is no such process.
pub fn process_state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Processes whose parent is `parent`.
///
/// # Errors
/// `/proc` can't be listed.
pub fn children_of(parent: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may end between the listing and this read.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        if fields.split(' ').nth(1) == Some(&parent.to_string()) {
            children.push(pid);
        }
    }
    Ok(children)
}
