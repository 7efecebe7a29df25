//! The URL of PostgreSQL, read: what tokio-postgres knows of it, and what is asked of the server's certificate.

use std::path::PathBuf;

/// What is asked of the server's certificate (libpq's `sslmode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verification {
    /// `prefer` and `require` without a root certificate: encryption only.
    None,
    /// `verify-ca`: a known authority signed it.
    Authority,
    /// `verify-full`: and it names the host.
    Full,
}

/// A PostgreSQL URL, read.
#[derive(Debug)]
pub(crate) struct PostgresUrl {
    pub(crate) config: tokio_postgres::Config,
    pub(crate) verification: Verification,
    pub(crate) root_certificate: Option<PathBuf>,
}

impl PostgresUrl {
    /// Reads `postgresql://…` or libpq's `key=value` form. On top of what tokio-postgres knows, `sslmode` may be
    /// `allow`, `verify-ca` or `verify-full`, and `sslrootcert` may name a PEM file. Says no more of a bad URL: a part of it may be the password.
    pub(crate) fn parse(url: &str) -> Option<Self> {
        let is_url = url.starts_with("postgresql://") || url.starts_with("postgres://");
        let mut verification = Verification::None;
        let mut root_certificate = None;
        let mut keep = |pair: &str| -> Option<String> {
            match pair.split_once('=') {
                Some(("sslrootcert", path)) => {
                    root_certificate = (path != "system").then(|| PathBuf::from(path));
                    if verification == Verification::None {
                        // As in libpq: a root certificate given is a root certificate asked for.
                        verification = Verification::Authority;
                    }
                    None
                }
                Some(("sslmode", "allow")) => Some("sslmode=prefer".to_owned()),
                Some(("sslmode", "verify-ca")) => {
                    verification = Verification::Authority;
                    Some("sslmode=require".to_owned())
                }
                Some(("sslmode", "verify-full")) => {
                    verification = Verification::Full;
                    Some("sslmode=require".to_owned())
                }
                _ => Some(pair.to_owned()),
            }
        };
        let plain = match url.split_once('?') {
            Some((address, parameters)) if is_url => {
                let kept: Vec<String> = parameters.split('&').filter_map(&mut keep).collect();
                if kept.is_empty() { address.to_owned() } else { format!("{address}?{}", kept.join("&")) }
            }
            _ if is_url => url.to_owned(),
            // Quoted values may hold spaces; such a text goes to tokio-postgres as it is.
            _ if url.contains('\'') => url.to_owned(),
            _ => url.split_whitespace().filter_map(&mut keep).collect::<Vec<_>>().join(" "),
        };
        let mut config: tokio_postgres::Config = plain.parse().ok()?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return None;
        }
        if config.get_application_name().is_none() {
            config.application_name("thermocline");
        }
        Some(Self { config, verification, root_certificate })
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::SslMode;

    use super::*;

    #[test]
    fn reads_urls_and_levels_of_verification() {
        for (url, mode, verification) in [
            ("postgresql://u:p@h/d", SslMode::Prefer, Verification::None),
            ("postgres://u:p@h1:5432,h2:5433/d?target_session_attrs=read-write", SslMode::Prefer, Verification::None),
            ("postgresql://u@h/d?sslmode=disable", SslMode::Disable, Verification::None),
            ("postgresql://u@h/d?sslmode=require&connect_timeout=3", SslMode::Require, Verification::None),
            ("postgresql://u@h/d?sslmode=verify-ca", SslMode::Require, Verification::Authority),
            ("postgresql://u@h/d?sslmode=verify-full&sslrootcert=ca.pem", SslMode::Require, Verification::Full),
            ("postgresql://u@h/d?sslrootcert=ca.pem&sslmode=verify-full", SslMode::Require, Verification::Full),
            ("host=/run/postgresql user=u sslmode=allow", SslMode::Prefer, Verification::None),
        ] {
            let target = PostgresUrl::parse(url).unwrap_or_else(|| panic!("{url}"));
            assert_eq!((target.config.get_ssl_mode(), target.verification), (mode, verification), "{url}");
        }
        let several = PostgresUrl::parse("postgres://u@h1,h2/d?sslrootcert=/etc/ca.pem").unwrap();
        assert_eq!(several.config.get_hosts().len(), 2);
        assert_eq!(several.root_certificate, Some(PathBuf::from("/etc/ca.pem")));
    }

    #[test]
    fn refuses_what_is_no_url() {
        for url in
            ["", "mysql://h/d", "postgres//u:p@h", "postgresql://h/d?colour=red", "postgresql://h/d?sslmode=maybe"]
        {
            assert!(PostgresUrl::parse(url).is_none(), "{url}");
        }
    }
}
