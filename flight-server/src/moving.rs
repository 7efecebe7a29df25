//! `thermocline prune` and `thermocline restore`: rows move between PostgreSQL and the lake, and no query sees it.
//!
//! ```text
//! prune    lock ── flushed rows, old enough ── their versions won in the lake, their files are there and readable
//!          ── one transaction a batch: rows locked, looked at again, deleted
//! restore  the lake's winners ── one transaction a batch: inserted, those that changed meanwhile taken out again
//! ```
//!
//! The triggers keep quiet meanwhile (`thermocline.moving`), so that no row counts as changed. Asks the lake through the
//! query pipeline, as a client would: what a query returns is what may be left to it.

mod lake;
mod prune;
mod restore;

pub use prune::PruneArgs;
pub use restore::RestoreArgs;

use anyhow::Context;
use translator::catalog::{Entity, OwnTable};

/// The table of an entity, or why its rows stay where they are.
fn own_table(entity: &Entity) -> anyhow::Result<&OwnTable> {
    entity.own_table().with_context(|| {
        format!("{}: its rows are in entity_main and eav_data; only rows of tables of their own are moved", entity.name)
    })
}
