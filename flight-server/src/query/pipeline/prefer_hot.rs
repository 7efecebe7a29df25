//! `prefer_hot`: hot rows alone, when they satisfy the query.

use std::sync::Arc;

use translator::options::{QueryOptions, Tier, Tiers};

use super::Inner;
use crate::engine::duckdb::Connection;
use crate::query::error::QueryError;
use crate::query::sources::{Loaded, Overrides, suffice};
use crate::query::statement::BoundStatement;

/// Why `prefer_hot` leaves the lake out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HotNote {
    Suffices,
    NoFallback,
}

impl HotNote {
    /// The note when the lake is left out; `None` when the query goes on into it.
    fn of(suffices: bool, options: &QueryOptions) -> Option<Self> {
        match (suffices, options.allow_s3_fallback) {
            (true, _) => Some(Self::Suffices),
            (false, true) => None,
            (false, false) => Some(Self::NoFallback),
        }
    }

    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Suffices => "prefer_hot = true: the hot rows fill the LIMIT",
            Self::NoFallback => "prefer_hot = true and allow_s3_fallback = false: only hot rows",
        }
    }

    pub(super) fn warning(self) -> Option<String> {
        (self == Self::NoFallback).then(|| {
            "the hot rows alone don't satisfy the query, and allow_s3_fallback = false keeps it from the lake: only \
             hot rows are in the answer"
                .to_owned()
        })
    }
}

fn prefers_hot(bound: &BoundStatement, options: &QueryOptions) -> bool {
    options.prefer_hot
        && options.tiers.contains(Tier::Hot)
        && options.tiers.any_lake()
        && !bound.query.references.is_empty()
}

impl Inner {
    /// `prefer_hot` while planning: the options to go on with, and a note when hot rows are all that answers.
    pub(super) async fn prefer_hot(
        &self,
        bound: &BoundStatement,
        options: &QueryOptions,
        overrides: &Overrides,
    ) -> Result<(QueryOptions, Option<HotNote>), QueryError> {
        if !prefers_hot(bound, options) {
            return Ok((options.clone(), None));
        }
        let hot = QueryOptions { tiers: Tiers::HOT, ..options.clone() };
        let (plan, _) = self.sources.plan(&bound.query, &hot, &overrides.by_itself()).await?;
        let suffices = match &plan.hot_query {
            Some(hot_query) => self.sources.hot_rows_suffice(hot_query).await?,
            None => false,
        };
        Ok(match HotNote::of(suffices, options) {
            Some(note) => (hot, Some(note)),
            None => (options.clone(), None),
        })
    }

    /// Plans and loads; with `prefer_hot`, hot rows alone when those of the very snapshot suffice.
    pub(super) async fn load(
        &self,
        bound: &BoundStatement,
        options: &QueryOptions,
        overrides: &Overrides,
        connection: &Arc<Connection>,
    ) -> Result<(Loaded, Option<HotNote>), QueryError> {
        if prefers_hot(bound, options) {
            let hot = QueryOptions { tiers: Tiers::HOT, ..options.clone() };
            let mut loaded = self.sources.load(&bound.query, &hot, &overrides.by_itself(), connection).await?;
            let suffices = match (&loaded.plan.hot_query, &mut loaded.snapshot) {
                (Some(hot_query), Some(snapshot)) => suffice(hot_query, snapshot).await?,
                _ => false,
            };
            if let Some(note) = HotNote::of(suffices, options) {
                return Ok((loaded, Some(note)));
            }
        }
        Ok((self.sources.load(&bound.query, options, overrides, connection).await?, None))
    }
}
