//! Whether files can be read as the catalog declares them, for `thermocline check`.

use std::collections::BTreeMap;
use std::sync::Arc;

use translator::catalog::Entity;
use translator::lake::LakeFile;
use translator::options::QueryOptions;
use translator::planner::{Facts, plan};
use translator::quote::Ident;

use super::error::QueryError;
use super::statement;
use crate::config::TableNames;
use crate::engine::ShapeDatabase;

/// What a query over all columns of an entity would say of files: their paths, with the faults.
pub(crate) fn file_faults(
    shape: &Arc<ShapeDatabase>,
    entity: &Entity,
    files: &[LakeFile],
    tables: &TableNames,
) -> Result<Vec<(String, String)>, QueryError> {
    let sql = format!("SELECT *, _tier, _deleted_at FROM {}", Ident(&entity.name));
    let bound = statement::bind(shape, &sql, None)?;
    let mut options = QueryOptions::default();
    options.set("tiers", "warm,cold").map_err(QueryError::internal)?;
    let tables = tables.plain();
    let fault = |file: &LakeFile| {
        let facts = Facts { files: BTreeMap::from([(entity.schema_id, vec![file.clone()])]), ..Facts::default() };
        plan(&bound.query, &facts, &options, &tables).err().map(|error| (file.path.clone(), error.to_string()))
    };
    Ok(files.iter().filter_map(fault).collect())
}
