//! The catalog file, as everything that works with entities reads it. A table of the application whose key isn't written has
//! its primary key for one, which PostgreSQL is asked for then, and only then.

use anyhow::{Context, bail};
use translator::catalog::{Catalog, PrimaryKeys};

use crate::config::Config;
use crate::postgres::PostgresSource;

/// # Errors
/// The file can't be read or is wrong (all its faults), or PostgreSQL can't be asked for a key.
pub(crate) async fn read(config: &Config) -> anyhow::Result<Catalog> {
    let path = &config.catalog.path;
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the catalog file {}", path.display()))?;
    let keys = unwritten_keys(&text, config).await?;
    match Catalog::parse_with_keys(&text, &keys) {
        Ok(catalog) => Ok(catalog),
        Err(faults) => bail!("the catalog file {} is wrong:\n{faults}", path.display()),
    }
}

/// The primary keys of the tables whose keys aren't written.
///
/// # Errors
/// PostgreSQL can't be asked.
pub(crate) async fn unwritten_keys(text: &str, config: &Config) -> anyhow::Result<PrimaryKeys> {
    let tables = Catalog::tables_without_key(text);
    if tables.is_empty() {
        return Ok(PrimaryKeys::new());
    }
    let ask = async { PostgresSource::new(&config.postgres)?.primary_keys(&tables).await };
    ask.await.with_context(|| {
        format!(
            "{} names no key of {}, and PostgreSQL can't be asked for the primary key; write it down as key = [\"…\"]",
            config.catalog.path.display(),
            tables.join(", ")
        )
    })
}
