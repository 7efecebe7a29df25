//! Second attempts: what a query does about a failure as long as no batch was sent (design section 8).
//!
//! Without leave it tries once more where that is safe: from a fresh file set, in a new snapshot. With leave it leaves out
//! what failed, and says so. Each way is taken once, so that attempts end.

use translator::options::{QueryOptions, Tier, Tiers};

use super::error::{QueryError, Recovery};
use super::sources::{Overrides, Sources, lake_is_missing};

/// Damaged files that one query works around; more mean that the lake itself is broken.
const MAX_EXCLUDED_FILES: usize = 8;

/// What earlier attempts of a query learned.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    overrides: Overrides,
    tried_fresh_files: bool,
    tried_new_snapshot: bool,
    only_hot: bool,
    /// The failure that PostgreSQL alone must make good for, or else it stands.
    needs_hot_query: Option<QueryError>,
}

impl Attempts {
    pub(super) fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// The client's options, less what failed.
    pub(super) fn options(&self, options: &QueryOptions) -> QueryOptions {
        let tiers = if self.only_hot { Tiers::HOT } else { options.tiers };
        QueryOptions { tiers, ..options.clone() }
    }

    /// The failure that stands when the query turns out to need DuckDB.
    pub(super) fn unless_hot_query(&mut self, is_hot_query: bool) -> Result<(), QueryError> {
        match self.needs_hot_query.take() {
            Some(error) if !is_hot_query => Err(error),
            _ => Ok(()),
        }
    }

    /// Prepares another attempt.
    ///
    /// # Errors
    /// The failure itself, when another attempt can't do better or isn't allowed.
    pub(super) fn recover(
        &mut self,
        error: QueryError,
        options: &QueryOptions,
        sources: &Sources,
    ) -> Result<(), QueryError> {
        let may_leave_lake = options.allow_partial && options.tiers.contains(Tier::Hot) && !self.only_hot;
        match error.recovery().cloned() {
            Some(Recovery::FreshFiles) if !self.tried_fresh_files => {
                tracing::info!(%error, "a file has vanished: planning again");
                self.tried_fresh_files = true;
                sources.forget_listings();
            }
            Some(Recovery::NewSnapshot) if !self.tried_new_snapshot => {
                tracing::info!(%error, "PostgreSQL was lost: taking a new snapshot");
                self.tried_new_snapshot = true;
            }
            Some(Recovery::WithoutFile(Some(file)))
                if options.allow_partial && self.overrides.excluded_files.len() < MAX_EXCLUDED_FILES =>
            {
                let path = sources.lake.relative_path(&file);
                tracing::warn!(%error, file = path, "leaving a damaged file out");
                self.overrides.degraded.reasons.push(format!("the file `{path}` can't be read"));
                self.overrides.warnings.push(format!("the file `{path}` can't be read and was left out"));
                if !self.overrides.excluded_files.insert(path) {
                    return Err(error);
                }
            }
            Some(Recovery::WithoutLake) => {
                sources.lake_failed();
                if !may_leave_lake {
                    return Err(error);
                }
                tracing::warn!(%error, "the lake failed: answering from the hot tier alone");
                self.only_hot = true;
                lake_is_missing(&mut self.overrides.degraded, &mut self.overrides.warnings);
            }
            Some(Recovery::WithoutDuckDb) if may_leave_lake => {
                tracing::warn!(%error, "DuckDB failed: answering from PostgreSQL alone, if it can");
                self.only_hot = true;
                self.overrides.degraded.missing_tiers.extend([Tier::Warm, Tier::Cold]);
                self.overrides.degraded.reasons.push("DuckDB ran out of memory".to_owned());
                self.overrides.warnings.push(
                    "DuckDB ran out of memory: only rows that are dirty in PostgreSQL are in the answer".to_owned(),
                );
                self.needs_hot_query = Some(error);
            }
            _ => return Err(error),
        }
        Ok(())
    }
}
