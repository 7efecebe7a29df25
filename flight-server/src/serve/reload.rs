//! Settings that change while the server runs: on SIGHUP all of them as one value, and TLS's files when they change.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use anyhow::bail;
use tokio::signal::unix::Signal;

use super::users::Users;
use crate::access::Logins;
use crate::admin::{AdminToken, ReloadFault};
use crate::catalog_file;
use crate::config::{Config, environment};
use crate::query::Pipeline;
use crate::telemetry::{LogLevel, Telemetry};
use crate::transport::{TlsFiles, WATCH_INTERVAL};

/// What can be replaced.
#[derive(Debug)]
pub(super) struct InForce {
    config_path: PathBuf,
    pipeline: Arc<Pipeline>,
    logins: Option<Arc<Logins>>,
    tls: Option<Arc<TlsFiles>>,
    admin_token: Arc<AdminToken>,
    log_level: LogLevel,
    telemetry: Arc<Telemetry>,
    fault: ReloadFault,
}

impl InForce {
    pub(super) fn new(
        config: &Config,
        pipeline: &Arc<Pipeline>,
        logins: Option<Arc<Logins>>,
        tls: Option<Arc<TlsFiles>>,
        admin_token: &Arc<AdminToken>,
        log_level: LogLevel,
        telemetry: &Arc<Telemetry>,
    ) -> Self {
        Self {
            config_path: config.path.clone(),
            pipeline: Arc::clone(pipeline),
            logins,
            tls,
            admin_token: Arc::clone(admin_token),
            log_level,
            telemetry: Arc::clone(telemetry),
            fault: ReloadFault::default(),
        }
    }

    pub(super) fn fault(&self) -> ReloadFault {
        Arc::clone(&self.fault)
    }

    /// Replaces settings on SIGHUP, and TLS's files when they change, for as long as the server runs.
    pub(super) async fn keep(self: Arc<Self>, mut hangups: Signal) {
        let mut watch = tokio::time::interval(WATCH_INTERVAL);
        loop {
            tokio::select! {
                hangup = hangups.recv() => {
                    if hangup.is_none() {
                        return;
                    }
                    let reloaded = self.reload().await.map(|()| "configuration, catalog, users, TLS and log level were reloaded");
                    self.tell(reloaded);
                }
                _ = watch.tick() => {
                    let Some(tls) = &self.tls else { continue };
                    match tls.reload_if_changed() {
                        Ok(false) => {}
                        Ok(true) => self.tell(Ok("TLS's files were reloaded")),
                        Err(error) => self.tell(Err(error.into())),
                    }
                }
            }
        }
    }

    /// Reads everything first: what is wrong leaves all of the old in force.
    async fn reload(&self) -> anyhow::Result<()> {
        let config = Config::load(&self.config_path, environment()).map_err(|faults| anyhow::anyhow!("{faults}"))?;
        let catalog = Arc::new(catalog_file::read(&config).await?);
        let tls = match (&self.tls, &config.tls) {
            (Some(files), Some(config)) => Some((files, TlsFiles::read(config)?)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => bail!("[tls] came or went, which takes a restart"),
        };
        let users = match (&self.logins, Users::read(&config, &catalog)?) {
            (Some(logins), Some(users)) => Some((logins, users)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => bail!("auth.access came or went, which takes a restart"),
        };
        let token = AdminToken::read(config.server.admin_token_file.as_deref())?;
        self.pipeline.set_catalog(catalog)?;
        self.log_level.set(&config.telemetry.log_level)?;
        if let Some((files, read)) = tls {
            files.replace(read);
        }
        if let Some((logins, users)) = users {
            users.put_in_force(logins, &config);
            self.pipeline.cancel_queries_of(|caller| logins.has_lost(caller));
        }
        self.admin_token.replace(token);
        Ok(())
    }

    fn tell(&self, reloaded: anyhow::Result<&str>) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match reloaded {
            Ok(what) => {
                tracing::info!("{what}");
                *fault = None;
            }
            Err(error) => {
                tracing::error!("nothing was reloaded, all settings stay as they were: {error:#}");
                self.telemetry.reload_failed();
                *fault = Some(format!("{error:#}"));
            }
        }
    }
}
