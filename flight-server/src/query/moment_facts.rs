//! Facts of a query from a moment that it shares with others.

use std::collections::BTreeSet;
use std::sync::Arc;

use translator::Query;
use translator::catalog::{Column, Entity};
use translator::options::{HotScan, QueryOptions, Tier};
use translator::planner::{Facts, asked_for};

use super::error::QueryError;
use super::source_errors::{list_error, moment_error};
use super::sources::{Overrides, Sources};
use crate::moments::{EntityListings, FileSet, Moment, MomentError, Readiness, Wanted};

impl Sources {
    /// Takes the facts from a moment, where moments have all that the query reads. `None`: it needs a snapshot of its own,
    /// and `facts` hold no more than a warning.
    pub(super) async fn facts_of_moment(
        &self,
        query: &Query,
        entities: &[Arc<Entity>],
        options: &QueryOptions,
        overrides: &Overrides,
        facts: &mut Facts,
    ) -> Result<Option<Arc<Moment>>, QueryError> {
        let Some(moments) = &self.moments else { return Ok(None) };
        let reads_hot = options.tiers.contains(Tier::Hot) && !facts.degraded.missing_tiers.contains(&Tier::Hot);
        // A column of such a table may get another type between two moments, which only its own statement notices.
        let is_own = entities.iter().any(|entity| entity.own_table().is_some());
        if entities.is_empty() || is_own || !reads_hot || options.hot_scan != HotScan::Copy || overrides.by_itself {
            return Ok(None);
        }
        let wanted = |entity: &Arc<Entity>| Wanted {
            entity: entity.whole(),
            attributes: attributes(query, entity),
            files: options.tiers.any_lake(),
        };
        let wanted: Vec<Wanted> = entities.iter().map(wanted).collect();
        match moments.have(&wanted) {
            Readiness::Ready => {}
            Readiness::NotNow => return Ok(None),
            Readiness::Off(reason) => {
                facts.warnings.push(format!("rows aren't kept in memory: {reason}"));
                return Ok(None);
            }
        }
        let moment = match moments.after_now(wanted).await {
            Ok(moment) => moment,
            // A snapshot of the query's own is as good.
            Err(error) if matches!(*error, MomentError::Abandoned) => return Ok(None),
            Err(error) => {
                self.postgres_is_down(moment_error(&error), options, facts)?;
                return Ok(None);
            }
        };
        let mut listings = EntityListings::new();
        let mut failed = None;
        for entity in entities {
            let schema_id = entity.schema_id;
            let Some(found) = moment.entity(entity) else { return Ok(None) };
            match &found.files {
                _ if !options.tiers.any_lake() => {}
                FileSet::Listed(listing) => {
                    listings.insert(schema_id, listing.clone());
                }
                FileSet::Manifest(files) => {
                    facts.files.insert(schema_id, files.clone());
                }
                FileSet::Failed(error) => failed = Some(list_error(error)),
                FileSet::Unsettled | FileSet::NotAsked => {
                    facts.files.clear();
                    return Ok(None);
                }
            }
        }
        for entity in entities {
            let Some(found) = moment.entity(entity) else { continue };
            let schema_id = entity.schema_id;
            facts.dirty_rows.insert(schema_id, asked_for(query, schema_id, &found.dirty_ids));
            facts.dirty_ids.insert(schema_id, Arc::clone(&found.dirty_ids));
            facts.mirrors.insert(schema_id, found.mirror.clone());
            let inconsistent = asked_for(query, schema_id, &found.bare_ids);
            if inconsistent > 0 {
                facts.warnings.push(self.inconsistency(entity, inconsistent));
            }
        }
        match failed {
            Some(error) => self.lake_is_down(error, options, facts)?,
            None => self.files_of_listings(listings, options, facts).await?,
        }
        Ok(Some(moment))
    }
}

/// The attributes of an entity that a query reads.
fn attributes(query: &Query, entity: &Entity) -> BTreeSet<usize> {
    let references = query.references.iter().filter(|reference| reference.entity.schema_id == entity.schema_id);
    let columns = references.flat_map(|reference| &reference.columns);
    let attributes = columns.filter_map(|column| match column {
        Column::Attribute(index) => Some(*index),
        Column::RowId | Column::CreatedAt | Column::UpdatedAt | Column::Tier | Column::DeletedAt => None,
    });
    attributes.collect()
}
