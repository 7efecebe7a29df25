//! The auditor: rows in memory are read again from PostgreSQL, some at a time, and compared in one snapshot.
//!
//! An application that writes rows without their `change_log` entry breaks the rule that the copies rest on. Then the copy of
//! that entity is switched off, loudly: its queries read PostgreSQL, which shows what is there.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use translator::catalog::Entity;
use translator::postgres::dirty_count_sql;

use super::MirrorError;
use super::error::MomentError;
use super::making::Maker;
use super::mirror::ReadSnapshot;

/// Rows that one audit reads of an entity.
const SAMPLE: usize = 256;

/// Why an audit came to no verdict.
#[derive(Debug, thiserror::Error)]
enum AuditError {
    #[error(transparent)]
    Snapshot(#[from] MomentError),
    #[error(transparent)]
    Mirror(#[from] MirrorError),
}

/// Audits every entity at an interval, for as long as the maker lives.
pub(super) fn audit_in_background(maker: &Arc<Maker>, interval: Duration) {
    let maker = Arc::downgrade(maker);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(interval).await;
            let Some(maker) = Weak::upgrade(&maker) else { return };
            let entities: Vec<Arc<Entity>> =
                maker.mirrors.lock().await.values().map(|mirror| Arc::clone(&mirror.entity)).collect();
            for entity in entities {
                match maker.audit(&entity).await {
                    Ok(None) => {}
                    Ok(Some(finding)) => {
                        tracing::error!(
                            entity = entity.name,
                            finding,
                            "rows in memory differ from PostgreSQL: their copy is switched off"
                        );
                    }
                    Err(error) => tracing::debug!(entity = entity.name, %error, "no audit"),
                }
            }
        }
    });
}

impl Maker {
    /// Compares the copy of an entity with PostgreSQL: how many rows are dirty, and the next sample of them. A difference
    /// switches the copy off.
    async fn audit(self: &Arc<Self>, entity: &Arc<Entity>) -> Result<Option<&'static str>, AuditError> {
        // Moments wait meanwhile, so that copy and snapshot are of one moment.
        let mut mirrors = self.mirrors.lock().await;
        let mut snapshot = self.open().await?;
        let identity = self.ask(snapshot.identity()).await?;
        let Some(mirror) = mirrors.get_mut(&entity.schema_id) else { return Ok(None) };
        if !mirror.is_continued_by(&identity, &snapshot) {
            return Ok(None);
        }
        let id = self.next_id();
        let cursor = self.cursor_for(&mut snapshot, mirror).await?;
        let from = ReadSnapshot { snapshot: &mut snapshot, identity: &identity, cursor: cursor.as_deref() };
        if let Err(error) = mirror.advance(&self.means, from, id).await {
            if error.spoils_mirror() {
                self.give_up(&mut mirrors, entity, &error);
            }
            return Err(error.into());
        }
        let count = self.ask(snapshot.count(&dirty_count_sql(&self.means.tables, entity.schema_id, None))).await?;
        let differs = mirror.differs(&self.means, &mut snapshot, SAMPLE).await?;
        self.counts.audits.fetch_add(1, Ordering::Relaxed);
        let finding = if count != mirror.versions().len() as u64 {
            Some("the dirty set has another size")
        } else if differs {
            Some("a row has other values")
        } else {
            None
        };
        if let Some(finding) = finding {
            self.counts.findings.fetch_add(1, Ordering::Relaxed);
            self.forget(&mut mirrors, entity);
            self.states.switch_off(
                entity,
                &format!(
                    "an audit found that {finding} in PostgreSQL; something writes rows without their change_log entry in \
                     the same transaction"
                ),
            );
        }
        drop(mirrors);
        self.ask(snapshot.finish()).await?;
        Ok(finding)
    }
}
