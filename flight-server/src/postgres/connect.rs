//! From the URL of the configuration to a TLS connector.

use super::error::{PostgresError, PostgresErrorKind};
use super::tls::Connector;
use crate::config::postgres_url::PostgresUrl;

/// The connector that a URL asks for.
pub(super) fn connector(url: &PostgresUrl) -> Result<Connector, PostgresError> {
    Connector::new(url.verification, url.root_certificate.as_ref()).map_err(|error| {
        PostgresError::new(PostgresErrorKind::Misconfigured, format!("PostgreSQL: {error}")).with_source(error)
    })
}
