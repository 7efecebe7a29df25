//! `init --eav`: what an EAV installation holds, as entities with guessed types.

use std::collections::BTreeSet;

use translator::catalog::{Attribute, Entity, Layout, MainColumnKind, ScalarType, Storage, TimeEncoding};

use crate::postgres::{EavAttribute, PostgresSource};

/// An entity for each schema that the registry knows and the catalog doesn't.
pub(super) async fn entities(postgres: &PostgresSource, known: &[i16]) -> anyhow::Result<Vec<Entity>> {
    let mut entities = Vec::new();
    let names = postgres.tables();
    let main = postgres.table_facts(&names.entity_main).await?;
    anyhow::ensure!(
        main.exists() && postgres.table_facts(&names.eav_data).await?.exists(),
        "there are no tables {} and {}; set their names in [postgres]",
        names.entity_main,
        names.eav_data
    );
    let numbered: Vec<String> = main
        .columns
        .iter()
        .map(|(name, _)| name.clone())
        .filter(|name| MainColumnKind::of_column(name).is_some())
        .collect();
    for (schema_id, name) in postgres.registry().await? {
        if known.contains(&schema_id) {
            continue;
        }
        let mut attributes = Vec::new();
        for column in postgres.used_main_columns(schema_id, &numbered).await? {
            let Some(kind) = MainColumnKind::of_column(&column) else { continue };
            attributes.push(main_attribute(&column, kind));
        }
        for found in postgres.eav_attributes(schema_id).await? {
            attributes.push(eav_attribute(&found));
        }
        entities.push(Entity {
            name,
            schema_id,
            description: None,
            attributes,
            layout: Layout::Eav,
            classified: false,
            hidden: BTreeSet::new(),
        });
    }
    Ok(entities)
}

fn main_attribute(column: &str, kind: MainColumnKind) -> Attribute {
    let scalar = match kind {
        MainColumnKind::Text => ScalarType::Text,
        MainColumnKind::SmallInt => ScalarType::SmallInt,
        MainColumnKind::Integer => ScalarType::Integer,
        MainColumnKind::BigInt => ScalarType::BigInt,
        MainColumnKind::Double => ScalarType::Double,
        MainColumnKind::Uuid => ScalarType::Uuid,
    };
    attribute(
        column.to_owned(),
        scalar,
        false,
        Storage::Main { column: column.to_owned(), kind },
        "guessed from its name",
    )
}

fn eav_attribute(found: &EavAttribute) -> Attribute {
    let scalar = match (found.numbers, found.texts) {
        (0, _) if found.all_uuid => ScalarType::Uuid,
        (0, _) if found.all_json => ScalarType::Json,
        (0, _) => ScalarType::Text,
        (_, 0) if found.all_flags => ScalarType::Boolean,
        (_, 0) if found.all_whole => ScalarType::BigInt,
        (_, _) => ScalarType::Double,
    };
    attribute(
        format!("attr_{}", found.attr_id),
        scalar,
        found.is_list,
        Storage::Eav { attr_id: found.attr_id },
        &format!("guessed from {} numbers and {} texts of attr_id {}", found.numbers, found.texts, found.attr_id),
    )
}

fn attribute(name: String, scalar: ScalarType, list: bool, storage: Storage, why: &str) -> Attribute {
    Attribute {
        column: name.clone(),
        name,
        scalar,
        list,
        storage,
        encoding: TimeEncoding::default(),
        description: Some(why.to_owned()),
    }
}
