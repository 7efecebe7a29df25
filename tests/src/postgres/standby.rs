//! A hot standby of a cluster: a copy taken while the primary runs, which follows the primary's log.

use std::process::Command;
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};

use super::{Cluster, PASSWORD, USER, connect, run_blocking};
use crate::port::HeldPort;
use crate::until;

impl Cluster {
    /// A standby of this cluster, on a port of its own.
    ///
    /// # Errors
    /// The copy fails or the standby doesn't start.
    pub async fn standby(self: &Arc<Self>) -> Result<Arc<Self>> {
        let primary = Arc::clone(self);
        Ok(Arc::new(tokio::task::spawn_blocking(move || primary.standby_blocking()).await??))
    }

    /// What `pg_basebackup` does, which not every distribution of PostgreSQL has: see "Making a Base Backup Using the
    /// Low Level API" in PostgreSQL's manual.
    fn standby_blocking(&self) -> Result<Self> {
        let dir = Self::directory(self.user)?;
        let mut standby =
            Self { bin: self.bin.clone(), dir, port: HeldPort::new()?, user: self.user, server: Mutex::new(None) };
        let (url, from, to) = (self.url("postgres"), self.dir.join("data"), standby.dir.join("data"));
        let copied = to.clone();
        let label: String = run_blocking(async move {
            let client = connect(&url).await?;
            client.execute("SELECT pg_backup_start('standby', fast => true)", &[]).await?;
            let copy = Command::new("cp").arg("-a").arg(&from).arg(&copied).env("LC_ALL", "C").output()?;
            // Files may vanish meanwhile; the manual says to let them.
            let complaints = String::from_utf8_lossy(&copy.stderr);
            ensure!(
                complaints.lines().all(|line| line.ends_with("No such file or directory")),
                "cannot copy {}: {complaints}",
                from.display()
            );
            let stopped = client.query_one("SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)", &[]);
            anyhow::Ok(stopped.await?.get(0))
        })??;
        std::fs::remove_file(to.join("postmaster.pid"))?;
        let primary = format!("host=127.0.0.1 port={} user={USER} password={PASSWORD}", self.port());
        for (name, content) in [
            ("backup_label", label.as_str()),
            ("standby.signal", ""),
            ("postgresql.auto.conf", &format!("primary_conninfo = '{primary}'\n")),
        ] {
            std::fs::write(to.join(name), content)?;
            if let Some((uid, gid)) = self.user {
                std::os::unix::fs::chown(to.join(name), Some(uid), Some(gid))?;
            }
        }
        standby.server = Mutex::new(Some(standby.launch()?));
        Ok(standby)
    }

    /// Waits until this standby has everything that its primary has committed.
    ///
    /// # Errors
    /// It hasn't within two minutes.
    pub async fn catch_up(&self, primary: &Self) -> Result<()> {
        let client = connect(&primary.url("postgres")).await?;
        let at: String = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?.get(0);
        let client = connect(&self.url("postgres")).await?;
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{at}'");
        until("the standby has caught up", async || Ok(client.query_one(&sql, &[]).await?.get(0))).await
    }

    /// Makes this standby a primary.
    ///
    /// # Errors
    /// It is none, or doesn't become one.
    pub async fn promote(&self) -> Result<()> {
        let client = connect(&self.url("postgres")).await?;
        client.execute("SELECT pg_promote()", &[]).await?;
        Ok(())
    }
}
