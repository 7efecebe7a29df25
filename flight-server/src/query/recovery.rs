//! Second attempts: what a query does about a failure as long as no batch was sent (docs/contract.md, "Unavailable
//! sources").
//!
//! Without leave it tries once more where that is safe: from a fresh file set, in a new snapshot, with new credentials.
//! With leave it leaves out what failed, and says so. Each way is taken once, so that attempts end, but for a fresh
//! file set, which is taken [`MAX_FRESH_FILES`] times: under steady compaction the next set may lose a file as well.
//! What asks the failing source again waits a moment and needs a token of the [`RetryBudget`], so that many queries
//! that meet one dead source don't ask it much more often.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use translator::options::{Consistency, QueryOptions, Tier, Tiers};

use super::error::{QueryError, Recovery};
use super::sources::{Overrides, Sources, lake_is_missing, postgres_is_missing};
use crate::breaker::Clock;
use crate::config::LakeCatalog;

/// Damaged files that one query works around; more mean that the lake itself is broken.
const MAX_EXCLUDED_FILES: usize = 8;
/// Fresh file sets that one query plans from after its first one; a file that is listed and gone ends it then.
const MAX_FRESH_FILES: usize = 3;
/// How long a query waits before it asks a source again, give or take half.
const BACKOFF: Duration = Duration::from_millis(100);
/// Second attempts that may come at once.
const BUDGET: f64 = 10.0;
/// Second attempts that come free each second.
const BUDGET_PER_SECOND: f64 = 1.0;

/// Second attempts that all queries together may make: a bucket of tokens that fills with time.
#[derive(Debug)]
pub(super) struct RetryBudget {
    clock: Arc<dyn Clock>,
    /// Tokens at a time.
    tokens: Mutex<(f64, Instant)>,
}

impl RetryBudget {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let now = clock.now();
        Self { clock, tokens: Mutex::new((BUDGET, now)) }
    }

    /// Takes a token; false when none is left.
    fn take(&self) -> bool {
        let now = self.clock.now();
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = tokens.0 + now.saturating_duration_since(tokens.1).as_secs_f64() * BUDGET_PER_SECOND;
        let left = filled.min(BUDGET) - 1.0;
        let granted = left >= 0.0;
        *tokens = (if granted { left } else { left + 1.0 }, now);
        granted
    }
}

/// What earlier attempts of a query learned.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    overrides: Overrides,
    fresh_files: usize,
    tried_new_snapshot: bool,
    tried_new_credentials: bool,
    only_hot: bool,
    only_files: bool,
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

    /// Prepares another attempt, and waits until it is time for it.
    ///
    /// # Errors
    /// The failure itself, when another attempt can't do better or isn't allowed.
    pub(super) async fn recover(
        &mut self,
        error: QueryError,
        options: &QueryOptions,
        sources: &Sources,
        budget: &RetryBudget,
    ) -> Result<(), QueryError> {
        let leaves_one = !self.only_hot && !self.only_files;
        let may_leave_lake = options.allow_partial && options.tiers.contains(Tier::Hot) && leaves_one;
        let may_leave_postgres = options.consistency == Consistency::Eventual
            && options.tiers.any_lake()
            && sources.lake_catalog == LakeCatalog::Listing
            && leaves_one;
        match error.recovery().cloned() {
            Some(Recovery::FreshFiles) if self.fresh_files < MAX_FRESH_FILES && budget.take() => {
                tracing::info!(%error, "a file has vanished: planning again");
                self.fresh_files += 1;
                sources.forget_listings();
                back_off().await;
            }
            Some(Recovery::NewSnapshot) if !self.tried_new_snapshot && budget.take() => {
                tracing::info!(%error, "PostgreSQL was lost: taking a new snapshot");
                self.tried_new_snapshot = true;
                back_off().await;
            }
            Some(Recovery::NewSnapshot) if may_leave_postgres => {
                tracing::warn!(%error, "PostgreSQL failed: answering from files alone");
                self.only_files = true;
                postgres_is_missing(&mut self.overrides.degraded, &mut self.overrides.warnings);
            }
            Some(Recovery::NewCredentials) if !self.tried_new_credentials && budget.take() => {
                tracing::info!(%error, "S3 refused the credentials: asking for new ones");
                self.tried_new_credentials = true;
                back_off().await;
            }
            Some(Recovery::WithoutFile(file))
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
            Some(Recovery::WithoutLake | Recovery::NewCredentials) => {
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
                // PostgreSQL answers whole only in a snapshot of the query's own.
                self.overrides.by_itself = true;
                self.overrides.degraded.missing_tiers.extend([Tier::Warm, Tier::Cold]);
                self.overrides.degraded.reasons.push("DuckDB ran out of memory or disk".to_owned());
                self.overrides.warnings.push(
                    "DuckDB ran out of memory or disk: only rows that are dirty in PostgreSQL are in the answer"
                        .to_owned(),
                );
                self.needs_hot_query = Some(error);
            }
            _ => return Err(error),
        }
        Ok(())
    }
}

/// Waits a moment, another one for each query: queries that failed together don't come back together.
async fn back_off() {
    let share = f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 255.0;
    tokio::time::sleep(BACKOFF.mul_f64(0.5 + share)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Hand(Mutex<Instant>);

    impl Clock for Hand {
        fn now(&self) -> Instant {
            *self.0.lock().unwrap()
        }
    }

    #[test]
    fn a_budget_fills_with_time_and_never_beyond_its_size() {
        let hand = Arc::new(Hand(Mutex::new(Instant::now())));
        let budget = RetryBudget::new(Arc::<Hand>::clone(&hand));
        let granted = || (0..100).filter(|_| budget.take()).count();
        assert_eq!(granted(), 10);
        *hand.0.lock().unwrap() += Duration::from_millis(2500);
        assert_eq!(granted(), 2);
        *hand.0.lock().unwrap() += Duration::from_millis(500);
        assert_eq!(granted(), 1, "what is left over counts");
        *hand.0.lock().unwrap() += Duration::from_secs(3600);
        assert_eq!(granted(), 10);
    }
}
