//! One connection to the first host of a list that answers and is of the wanted kind.
//!
//! tokio-postgres walks the list too, but its `connect_timeout` ends with the TCP handshake: a server that takes
//! connections and says nothing (stopped, out of memory, behind a dead balancer) would keep every other host from being
//! asked. Here the limit holds for all of a connection attempt, session attributes included.

use std::net::IpAddr;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, LoadBalanceHosts};
use tokio_postgres::{Client, Config, Error};

use super::tls::Connector;

/// Connects to one of several hosts.
pub(super) struct Hosts {
    hosts: Vec<Config>,
    connector: Connector,
    /// For each host.
    limit: Duration,
    is_random: bool,
}

impl Hosts {
    pub(super) fn new(config: &Config, connector: Connector, limit: Duration) -> Self {
        let (names, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
        let port = |index| ports.get(index).or(ports.first()).copied();
        let hosts = (0..names.len().max(addresses.len()))
            .map(|index| only(config, names.get(index), addresses.get(index).copied(), port(index)))
            .collect();
        let is_random = config.get_load_balance_hosts() == LoadBalanceHosts::Random;
        Self { hosts, connector, limit, is_random }
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.hosts.len()).unwrap_or(u32::MAX)
    }

    async fn connect_to_any(&self) -> Result<(Client, JoinHandle<()>), Error> {
        let first =
            if self.is_random { uuid::Uuid::new_v4().as_fields().0 as usize % self.hosts.len().max(1) } else { 0 };
        let (before, after) = self.hosts.split_at(first);
        let mut failure = None;
        for host in after.iter().chain(before) {
            match tokio::time::timeout(self.limit, host.connect(self.connector.clone())).await {
                Ok(Ok((client, connection))) => {
                    let driver = tokio::spawn(async move {
                        if let Err(error) = connection.await {
                            // Whoever uses the client gets the same error.
                            tracing::debug!(%error, "a PostgreSQL connection ended");
                        }
                    });
                    return Ok((client, driver));
                }
                Ok(Err(error)) => failure = Some(error),
                Err(_) => tracing::debug!(limit = ?self.limit, "a PostgreSQL host says nothing"),
            }
        }
        match failure {
            Some(error) => Err(error),
            // All were silent. That is the pool's to say, whose limit is over just now.
            None => std::future::pending().await,
        }
    }
}

impl deadpool_postgres::Connect for Hosts {
    fn connect(&self, _config: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        self.connect_to_any().boxed()
    }
}

/// The same settings for one host of the list.
fn only(all: &Config, host: Option<&Host>, address: Option<IpAddr>, port: Option<u16>) -> Config {
    let mut one = Config::new();
    match host {
        Some(Host::Tcp(name)) => one.host(name),
        #[cfg(unix)]
        Some(Host::Unix(path)) => one.host_path(path),
        None => &mut one,
    };
    address.map(|address| one.hostaddr(address));
    port.map(|port| one.port(port));
    all.get_user().map(|user| one.user(user));
    all.get_password().map(|password| one.password(password));
    all.get_dbname().map(|name| one.dbname(name));
    all.get_options().map(|options| one.options(options));
    all.get_application_name().map(|name| one.application_name(name));
    all.get_connect_timeout().map(|timeout| one.connect_timeout(*timeout));
    all.get_tcp_user_timeout().map(|timeout| one.tcp_user_timeout(*timeout));
    all.get_keepalives_interval().map(|interval| one.keepalives_interval(interval));
    all.get_keepalives_retries().map(|retries| one.keepalives_retries(retries));
    one.keepalives(all.get_keepalives())
        .keepalives_idle(all.get_keepalives_idle())
        .ssl_mode(all.get_ssl_mode())
        .ssl_negotiation(all.get_ssl_negotiation())
        .target_session_attrs(all.get_target_session_attrs())
        .channel_binding(all.get_channel_binding());
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a `Config` prints has every setting in it, the password's length aside.
    #[test]
    fn a_host_of_the_list_has_all_of_the_lists_settings() {
        let settings = "d?user=u&password=p&application_name=a&options=-c%20x%3D1&connect_timeout=3&tcp_user_timeout=4\
                        &keepalives=0&keepalives_idle=5&keepalives_interval=6&keepalives_retries=7&sslmode=require\
                        &channel_binding=disable&target_session_attrs=read-only";
        let all: Config = format!("postgresql://h1:1111,h2:2222/{settings}").parse().unwrap();
        for (index, (name, port)) in [("h1", 1111), ("h2", 2222)].into_iter().enumerate() {
            let alone: Config = format!("postgresql://{name}:{port}/{settings}").parse().unwrap();
            let one = only(&all, all.get_hosts().get(index), None, all.get_ports().get(index).copied());
            assert_eq!(format!("{one:?}"), format!("{alone:?}"));
        }
    }
}
