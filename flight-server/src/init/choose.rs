//! From the tables of a database to entities: which tables can be one, which columns have a lossless type, and why not.

use std::collections::BTreeSet;

use translator::catalog::{Attribute, Catalog, Entity, KeyColumn, Layout, OwnTable, ScalarType, Storage, TimeEncoding};

use translator::postgres::TableNames;

use crate::postgres::{FoundColumn, FoundTable, TableKind};

/// What `init` makes of the tables it found.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// Entities that the catalog doesn't have yet.
    pub(super) new: Vec<Entity>,
    /// Columns that entities of the catalog don't have yet: the entity's name and the attribute.
    pub(super) added: Vec<(String, Attribute)>,
    /// Every entity over a table that is there, those of the catalog included, as it is after this run.
    pub(super) tables: Vec<(Entity, FoundTable)>,
    /// What is left out, and why and what to do.
    pub(super) left_out: Vec<LeftOut>,
    /// What has gone: tables and columns of the catalog that the database no longer has.
    pub(super) missing: Vec<String>,
}

/// A table or a column that can't come along.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// `public.orders`, or `public.orders.period`.
    pub(super) what: String,
    pub(super) why: String,
    /// The entity whose column it is; `None` for a whole table.
    pub(super) of_entity: Option<String>,
}

/// A pattern of tables: `orders`, `sales.*`, `public.order_?`. Without a schema it means `public`.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    schema: String,
    table: String,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Self {
        let (schema, table) = text.split_once('.').unwrap_or(("public", text));
        Self { schema: schema.trim().to_owned(), table: table.trim().to_owned() }
    }

    fn matches(&self, schema: &str, table: &str) -> bool {
        matches_glob(&self.schema, schema) && matches_glob(&self.table, table)
    }
}

/// Whether a text matches a pattern with `*` and `?`.
fn matches_glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(letter) if *letter == '?' || *letter == text[from] => {
                at += 1;
                from += 1;
            }
            _ => match star {
                Some((back, taken)) => {
                    star = Some((back, taken + 1));
                    (at, from) = (back + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|letter| *letter == '*')
}

/// Chooses among the tables found: those that a pattern names, and those that the catalog has already.
pub(super) fn choose(found: &[FoundTable], patterns: &[Pattern], catalog: &Catalog, own: &TableNames) -> Choice {
    let mut choice = Choice::default();
    let mut names: BTreeSet<String> =
        catalog.entities().iter().map(|entity| entity.name.to_ascii_lowercase()).collect();
    let mut next_id = catalog.entities().iter().map(|entity| entity.schema_id).max().unwrap_or(0);
    for entity in catalog.entities() {
        let Some(table) = entity.own_table() else { continue };
        match found.iter().find(|found| table.name == qualified(found)) {
            Some(found) => known_table(entity, found, &mut choice),
            None => choice.missing.push(format!("the table {} of entity `{}` is gone", table.name, entity.name)),
        }
    }
    for table in found {
        let is_known = |entity: &Entity| entity.own_table().is_some_and(|own| own.name == qualified(table));
        if catalog.entities().iter().any(|entity| is_known(entity))
            || is_bookkeeping(table, own)
            || !patterns.iter().any(|pattern| pattern.matches(&table.schema, &table.name))
            || table.has_parent
        {
            continue;
        }
        match new_entity(table, next_id.saturating_add(1), &mut names, &mut choice.left_out) {
            Ok(entity) => {
                next_id = entity.schema_id;
                choice.tables.push((entity.clone(), table.clone()));
                choice.new.push(entity);
            }
            Err(why) => choice.left_out.push(LeftOut { what: qualified(table), why, of_entity: None }),
        }
    }
    choice
}

/// Whether the table is one of Thermocline's own.
fn is_bookkeeping(table: &FoundTable, own: &TableNames) -> bool {
    let name = qualified(table);
    let beside = ["epoch", "backfill"].map(|suffix| format!("{}_{suffix}", own.change_log));
    [&own.schema_registry, &own.entity_main, &own.eav_data, &own.change_log, &own.lake_file].contains(&&name)
        || beside.contains(&name)
}

/// The name with its schema, as the catalog writes it.
pub(super) fn qualified(table: &FoundTable) -> String {
    format!("{}.{}", table.schema, table.name)
}

/// Compares an entity of the catalog with its table.
fn known_table(entity: &Entity, table: &FoundTable, choice: &mut Choice) {
    let mut entity = entity.clone();
    let column_of = |attribute: &Attribute| match &attribute.storage {
        Storage::Own { column } => Some(column.clone()),
        Storage::Main { .. } | Storage::Eav { .. } => None,
    };
    for attribute in &entity.attributes {
        let column = column_of(attribute);
        match table.columns.iter().find(|found| Some(&found.name) == column.as_ref()) {
            None => choice.missing.push(format!(
                "{} has no column {} any more, where attribute `{}` of `{}` is kept",
                qualified(table),
                column.unwrap_or_default(),
                attribute.name,
                entity.name
            )),
            Some(found) => {
                let is_same = column_type(found)
                    .is_ok_and(|(scalar, list)| list == attribute.list && reads_as(scalar, attribute.scalar));
                if !is_same {
                    choice.missing.push(format!(
                        "{}.{} is {} now, and attribute `{}` of `{}` is not",
                        qualified(table),
                        found.name,
                        found.type_text,
                        attribute.name,
                        entity.name
                    ));
                }
            }
        }
    }
    let mut folded: BTreeSet<String> =
        entity.attributes.iter().map(|attribute| attribute.column.to_ascii_lowercase()).collect();
    let known: BTreeSet<String> = entity.attributes.iter().filter_map(column_of).collect();
    for column in table.columns.iter().filter(|column| !known.contains(&column.name)) {
        match attribute(column, &mut folded) {
            Ok(attribute) => {
                choice.added.push((entity.name.clone(), attribute.clone()));
                entity.attributes.push(attribute);
            }
            Err(why) => choice.left_out.push(LeftOut {
                what: format!("{}.{}", qualified(table), column.name),
                why,
                of_entity: Some(entity.name.clone()),
            }),
        }
    }
    choice.tables.push((entity, table.clone()));
}

/// Whether a column of the first type can be read as an attribute of the second one.
pub(crate) fn reads_as(found: ScalarType, declared: ScalarType) -> bool {
    match (declared, found) {
        (ScalarType::BigInt, ScalarType::SmallInt | ScalarType::Integer | ScalarType::BigInt)
        | (ScalarType::Integer, ScalarType::SmallInt | ScalarType::Integer)
        | (ScalarType::SmallInt, ScalarType::SmallInt) => true,
        (ScalarType::Decimal { precision, scale }, ScalarType::Decimal { precision: from, scale: digits }) => {
            digits <= scale && from - digits <= precision - scale
        }
        (declared, found) => declared == found,
    }
}

fn new_entity(
    table: &FoundTable,
    schema_id: i16,
    names: &mut BTreeSet<String>,
    left_out: &mut Vec<LeftOut>,
) -> Result<Entity, String> {
    match table.kind {
        TableKind::Table | TableKind::Partitioned => {}
        TableKind::View => {
            return Err("it is a view: its changes must be entered in the change log by triggers of your own; docs/your-own-tables.md shows how".to_owned());
        }
        TableKind::MaterializedView => {
            return Err("it is a materialized view, whose rows have no changes of their own".to_owned());
        }
        TableKind::Foreign => return Err("it is a foreign table: its changes happen elsewhere".to_owned()),
    }
    if table.has_children {
        return Err("other tables inherit from it; only partitions can come along with their table".to_owned());
    }
    if table.name.contains('.') || table.schema.contains('.') {
        return Err("its name has a dot in it".to_owned());
    }
    let Some(key) = &table.key else {
        return Err(format!(
            "it has neither a primary key nor a unique index over columns that are NOT NULL; ALTER TABLE {} ADD PRIMARY \
             KEY (…)",
            qualified(table)
        ));
    };
    let name = entity_name(table, names);
    let mut folded = BTreeSet::new();
    let mut attributes = Vec::new();
    let mut of_columns = Vec::new();
    for column in &table.columns {
        match attribute(column, &mut folded) {
            Ok(attribute) => attributes.push(attribute),
            Err(why) if key.columns.contains(&column.name) => {
                return Err(format!("its key's column {} can't come along: {why}", column.name));
            }
            Err(why) => of_columns.push(LeftOut {
                what: format!("{}.{}", qualified(table), column.name),
                why,
                of_entity: Some(name.clone()),
            }),
        }
    }
    let mut columns = Vec::new();
    for column in &key.columns {
        let place = attributes
            .iter()
            .position(|attribute| matches!(&attribute.storage, Storage::Own { column: own } if own == column));
        match place {
            Some(place) if attributes[place].scalar.is_key() && !attributes[place].list => {
                columns.push(KeyColumn { column: column.clone(), attribute: place });
            }
            _ => return Err(format!("its key's column {column} has a type whose equal values may differ")),
        }
    }
    names.insert(name.to_ascii_lowercase());
    left_out.extend(of_columns);
    Ok(Entity {
        name,
        schema_id,
        description: table.comment.clone(),
        attributes,
        layout: Layout::Table(OwnTable { name: qualified(table), key: columns }),
        classified: false,
        hidden: BTreeSet::new(),
    })
}

/// A name of the entity that SQL and paths take as it is, and that no other entity has.
fn entity_name(table: &FoundTable, names: &BTreeSet<String>) -> String {
    let own = if table.schema == "public" { table.name.clone() } else { format!("{}_{}", table.schema, table.name) };
    let plain: String = own.chars().map(|letter| if letter.is_alphanumeric() { letter } else { '_' }).collect();
    let starts_well = plain.starts_with(char::is_alphabetic);
    let first = if starts_well { plain } else { format!("t_{plain}") };
    let is_free = |name: &str| {
        let toml = format!("[[entity]]\nname = {}\nschema_id = 1\n", translator::catalog::print::quoted(name));
        !names.contains(&name.to_ascii_lowercase()) && Catalog::parse(&toml).is_ok()
    };
    let others = (2..).map(|number| format!("{first}_{number}"));
    std::iter::once(first.clone())
        .chain([format!("t_{first}")])
        .chain(others)
        .find(|name| is_free(name))
        .unwrap_or_else(|| first.clone())
}

/// The attribute of a column, or why there is none.
fn attribute(column: &FoundColumn, folded: &mut BTreeSet<String>) -> Result<Attribute, String> {
    let (scalar, list) = column_type(column)?;
    let plain: String =
        column.name.chars().map(|letter| if letter == '.' || letter == ' ' { '_' } else { letter }).collect();
    if plain.chars().any(char::is_control) || plain.trim().is_empty() {
        return Err("its name holds a control character or nothing".to_owned());
    }
    // Every entity has columns of its own: those of the table get a prefix then.
    let is_free = |name: &str| {
        let toml = format!(
            "[[entity]]\nname = \"e\"\nschema_id = 1\n[[entity.attribute]]\nname = {}\ntype = \"text\"\nattr_id = 1\n",
            translator::catalog::print::quoted(name)
        );
        !folded.contains(&name.to_ascii_lowercase()) && Catalog::parse(&toml).is_ok()
    };
    let others = (2..).map(|number| format!("{plain}_{number}"));
    let name = std::iter::once(plain.clone())
        .chain([format!("table_{plain}")])
        .chain(others)
        .find(|name| is_free(name))
        .unwrap_or_else(|| plain.clone());
    folded.insert(name.to_ascii_lowercase());
    Ok(Attribute {
        column: name.clone(),
        name,
        scalar,
        list,
        storage: Storage::Own { column: column.name.clone() },
        encoding: TimeEncoding::default(),
        description: column.comment.clone(),
    })
}

/// The type of a column and whether it is a list, or why there is none and what to do.
pub(crate) fn column_type(column: &FoundColumn) -> Result<(ScalarType, bool), String> {
    let (base, is_enum, list) = match &column.element {
        Some((element, is_enum)) => (element.as_str(), *is_enum, true),
        None => (column.base.as_str(), column.is_enum, false),
    };
    scalar_type(base, is_enum, column.modifier)
        .map(|scalar| (scalar, list))
        .map_err(|why| format!("{} {why}", column.type_text))
}

fn scalar_type(base: &str, is_enum: bool, modifier: i32) -> Result<ScalarType, String> {
    if is_enum {
        return Ok(ScalarType::Text);
    }
    Ok(match base {
        "int2" => ScalarType::SmallInt,
        "int4" => ScalarType::Integer,
        "int8" => ScalarType::BigInt,
        "float4" => ScalarType::Real,
        "float8" => ScalarType::Double,
        "bool" => ScalarType::Boolean,
        "text" | "varchar" | "bpchar" | "citext" | "name" => ScalarType::Text,
        "uuid" => ScalarType::Uuid,
        "date" => ScalarType::Date,
        "time" => ScalarType::Time,
        "timestamptz" => ScalarType::Timestamp,
        "timestamp" => ScalarType::TimestampNaive,
        "json" | "jsonb" => ScalarType::Json,
        "bytea" => ScalarType::Blob,
        "numeric" => return decimal(modifier),
        _ => {
            return Err(
                "has no type that keeps all of it; a view can show it as text or in parts, each with a cast".to_owned()
            );
        }
    })
}

/// The type of a `numeric` with this modifier.
fn decimal(modifier: i32) -> Result<ScalarType, String> {
    if modifier < 4 {
        return Err(
            "has no bounds; ALTER it to numeric(p,s) with p up to 38, or show it in a view with such a cast".to_owned()
        );
    }
    let packed = modifier - 4;
    let precision = (packed >> 16) & 0xffff;
    // Eleven bits with a sign, since PostgreSQL 15; before, a scale was never negative.
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    let (precision, scale) = if scale < 0 { (precision - scale, 0) } else { (precision.max(scale), scale) };
    match (u8::try_from(precision), u8::try_from(scale)) {
        (Ok(precision), Ok(scale)) if precision <= 38 => Ok(ScalarType::Decimal { precision, scale }),
        _ => Err("has more than 38 digits; show it in a view with a cast to fewer, or to text".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_tables() {
        for (pattern, table, expected) in [
            ("public.*", "orders", true),
            ("*", "orders", true),
            ("order_?", "order_1", true),
            ("order_?", "order_12", false),
            ("*s", "orders_sizes", true),
            ("sales.*", "orders", false),
        ] {
            assert_eq!(Pattern::parse(pattern).matches("public", table), expected, "{pattern} {table}");
        }
    }

    #[test]
    fn numerics_have_their_bounds() {
        let modifier = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4;
        let decimal_of = |precision, scale| decimal(modifier(precision, scale));
        assert_eq!(decimal_of(9, 2), Ok(ScalarType::Decimal { precision: 9, scale: 2 }));
        assert_eq!(decimal_of(38, 38), Ok(ScalarType::Decimal { precision: 38, scale: 38 }));
        assert_eq!(decimal_of(3, -2), Ok(ScalarType::Decimal { precision: 5, scale: 0 }));
        assert_eq!(decimal_of(2, 5), Ok(ScalarType::Decimal { precision: 5, scale: 5 }));
        assert!(decimal_of(39, 0).is_err());
        assert!(decimal(-1).is_err());
    }
}
