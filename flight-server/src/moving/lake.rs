//! What the lake holds, asked through the query pipeline of this process.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, ensure};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use futures::StreamExt;
use object_store::ObjectStoreExt as _;
use translator::catalog::{Catalog, Entity};
use translator::options::{QueryOptions, Tiers};
use translator::quote::{Ident, uuid_text};
use uuid::Uuid;

use crate::access::Caller;
use crate::config::Config;
use crate::postgres::Candidate;
use crate::query::QueryPipeline;
use crate::query::{Pipeline, QueryEvent, QueryRequest};
use crate::telemetry::Telemetry;
use crate::writer::Writer;

/// A pipeline that no client reaches.
pub(super) struct LakeQueries {
    pipeline: Pipeline,
    defaults: QueryOptions,
}

impl LakeQueries {
    pub(super) async fn start(config: &Config, catalog: &Catalog) -> anyhow::Result<Self> {
        let telemetry = Telemetry::in_memory(&config.telemetry).context("cannot start the query pipeline")?;
        let pipeline = Pipeline::start(config, Arc::new(catalog.clone()), telemetry).await?;
        Ok(Self { pipeline, defaults: config.query.defaults.clone() })
    }

    /// Runs a query over the named tiers and hands its batches over, all of them or an error.
    pub(super) async fn each_batch(
        &self,
        sql: String,
        tiers: &str,
        mut on_batch: impl AsyncFnMut(RecordBatch) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let options = QueryOptions {
            tiers: Tiers::parse(tiers).context("unknown tiers")?,
            allow_partial: false,
            prefer_hot: false,
            consistency: translator::options::Consistency::Strict,
            max_rows: None,
            max_scan_rows: None,
            timeout: None,
            include_deleted: false,
            ..self.defaults.clone()
        };
        let request = QueryRequest {
            query_id: Uuid::now_v7().to_string(),
            sql,
            parameters: None,
            options,
            caller: Caller::unrestricted(),
        };
        let mut stream = self.pipeline.execute(request).await?;
        while let Some(event) = stream.events.next().await {
            match event? {
                QueryEvent::Batch(batch) => on_batch(batch).await?,
                QueryEvent::End(_) => return Ok(()),
            }
        }
        anyhow::bail!("an answer ended without its end")
    }

    /// Those of `candidates`, which are in the order of their ids, whose version won in the lake and is live there.
    pub(super) async fn held(&self, entity: &Entity, candidates: &[Candidate]) -> anyhow::Result<Vec<Candidate>> {
        let (Some(first), Some(last)) = (candidates.first(), candidates.last()) else { return Ok(Vec::new()) };
        let wanted: HashMap<Uuid, Candidate> =
            candidates.iter().map(|candidate| (candidate.row_id, *candidate)).collect();
        let sql = format!(
            "SELECT row_id, updated_at FROM {} WHERE row_id BETWEEN '{}' AND '{}'",
            Ident(&entity.name),
            uuid_text(first.row_id.as_u128()),
            uuid_text(last.row_id.as_u128())
        );
        let mut held = Vec::new();
        self.each_batch(sql, "warm,cold", async |batch| {
            let ids = batch.column(0).as_string_opt::<i32>().context("row ids came as something else than text")?;
            let changed = batch
                .column(1)
                .as_primitive_opt::<TimestampMicrosecondType>()
                .context("`updated_at` came as something else than a timestamp")?;
            for row in 0..batch.num_rows() {
                let id = Uuid::try_parse(ids.value(row)).context("a row id is no UUID")?;
                if let Some(candidate) = wanted.get(&id)
                    && changed.is_valid(row)
                    && candidate.changed_at.checked_mul(1000) == Some(changed.value(row))
                {
                    held.push(*candidate);
                }
            }
            Ok(())
        })
        .await?;
        held.sort_by_key(|candidate| candidate.row_id);
        Ok(held)
    }
}

/// Asks the object store for every file in force that may hold rows between two ids: it is there, with the size and the
/// etag that the catalog of files knows.
pub(super) async fn check_files(writer: &Writer, entity: &Entity, first: Uuid, last: Uuid) -> anyhow::Result<()> {
    let files = writer.files_in_force(entity).await?;
    let overlapping = files
        .iter()
        .filter(|file| file.row_id_range.is_none_or(|(low, high)| low <= last.as_u128() && high >= first.as_u128()));
    for file in overlapping {
        let found = writer
            .lake
            .objects()
            .head(&writer.lake.location(&file.path))
            .await
            .with_context(|| format!("the file {} can't be asked for; nothing was pruned", file.path))?;
        ensure!(
            found.size == file.bytes,
            "the file {} has {} bytes, and {} were written; nothing was pruned",
            file.path,
            found.size,
            file.bytes
        );
        let etag = found.e_tag.clone();
        ensure!(
            file.etag.is_none() || etag.is_none() || file.etag == etag,
            "the file {} is another one than was read; nothing was pruned",
            file.path
        );
    }
    Ok(())
}
