//! Entities as the catalog file writes them.

use std::fmt::Write as _;

use super::{Attribute, Entity, ScalarType, Storage, TimeEncoding};

/// The type as the catalog file writes it.
pub fn type_name(scalar: ScalarType) -> String {
    match scalar {
        ScalarType::Text => "text".to_owned(),
        ScalarType::SmallInt => "smallint".to_owned(),
        ScalarType::Integer => "integer".to_owned(),
        ScalarType::BigInt => "bigint".to_owned(),
        ScalarType::Real => "real".to_owned(),
        ScalarType::Double => "double".to_owned(),
        ScalarType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        ScalarType::Boolean => "boolean".to_owned(),
        ScalarType::Uuid => "uuid".to_owned(),
        ScalarType::Date => "date".to_owned(),
        ScalarType::Time => "time".to_owned(),
        ScalarType::Timestamp => "timestamp".to_owned(),
        ScalarType::TimestampNaive => "timestamp_naive".to_owned(),
        ScalarType::Json => "json".to_owned(),
        ScalarType::Blob => "blob".to_owned(),
    }
}

/// An entity as text of a catalog file, which reads back as the same entity.
pub fn entity_toml(entity: &Entity) -> String {
    let mut text = format!("[[entity]]\nname = {}\nschema_id = {}\n", quoted(&entity.name), entity.schema_id);
    let mut line = |key: &str, value: &str| text.push_str(&format!("{key} = {value}\n"));
    if let Some(description) = &entity.description {
        line("description", &quoted(description));
    }
    if entity.classified {
        line("classified", "true");
    }
    if let Some(table) = entity.own_table() {
        let key: Vec<String> = table.key.iter().map(|key| quoted(&key.column)).collect();
        let _infallible = write!(text, "[entity.table]\nname = {}\nkey = [{}]\n", quoted(&table.name), key.join(", "));
    }
    for attribute in &entity.attributes {
        text.push('\n');
        text.push_str(&attribute_toml(attribute));
    }
    text
}

/// An attribute as text of a catalog file.
pub fn attribute_toml(attribute: &Attribute) -> String {
    let mut text = format!(
        "[[entity.attribute]]\nname = {}\ntype = {}\n",
        quoted(&attribute.name),
        quoted(&type_name(attribute.scalar))
    );
    let mut line = |key: &str, value: &str| text.push_str(&format!("{key} = {value}\n"));
    match &attribute.storage {
        Storage::Main { column, .. } | Storage::Own { column } => line("column", &quoted(column)),
        Storage::Eav { attr_id } => line("attr_id", &attr_id.to_string()),
    }
    if attribute.encoding == TimeEncoding::Iso8601 {
        line("encoding", &quoted("iso8601"));
    }
    if attribute.list {
        line("list", "true");
    }
    if let Some(description) = &attribute.description {
        line("description", &quoted(description));
    }
    text
}

/// A TOML string.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            control if control.is_control() => {
                let _infallible = write!(quoted, "\\u{:04X}", u32::from(control));
            }
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}
