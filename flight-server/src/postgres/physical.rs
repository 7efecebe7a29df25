//! The types behind the columns that hold attributes, and which of them come through without loss.
//!
//! Hot statements deliver and compare every attribute in one cast form ([`translator::postgres`]). For the types that are
//! accepted here the cast loses nothing; any other type makes queries of that attribute, `flush` and `check` say the same.

use tokio_postgres::SimpleQueryMessage;
use translator::catalog::{Attribute, Column, Entity, MainColumnKind, ScalarType, Storage};
use translator::quote::postgres_text;

use super::error::{PostgresError, PostgresErrorKind};
use crate::config::{TableName, TableNames};

/// The columns of `entity_main` and `eav_data` at the moment of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PhysicalColumns {
    main: Vec<PhysicalColumn>,
    eav: Vec<PhysicalColumn>,
}

/// A column with its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PhysicalColumn {
    pub(super) name: String,
    /// The type as PostgreSQL prints it: a domain by its own name.
    pub(super) shown: String,
    /// What is behind domains, such as `numeric(9,2)`.
    pub(super) base: String,
    pub(super) is_enum: bool,
}

/// Who reads the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// PostgreSQL's own statement casts them.
    Statement,
    /// DuckDB's scans read them as they are (`hot_scan = scan`).
    Scan,
}

/// Reads [`PhysicalColumns`]: rows of `is_main`, `name`, `shown`, `base`, `is_enum`.
///
/// Only types that somebody made are looked up in `pg_type`: built-in ones, whose numbers are below 16384, are no domains
/// of an application and no enums.
pub(super) fn physical_columns_sql(tables: &TableNames) -> String {
    let oid = |table: &TableName| {
        // A name that no text literal can hold is no table's.
        postgres_text(&table.to_string()).map_or_else(|| "NULL".to_owned(), |name| format!("to_regclass({name})"))
    };
    let (main, eav) = (oid(&tables.entity_main), oid(&tables.eav_data));
    format!(
        "WITH RECURSIVE behind AS (SELECT a.attrelid, a.attname, format_type(a.atttypid, a.atttypmod) AS shown, a.atttypid \
         AS type, a.atttypmod AS modifier FROM pg_attribute a WHERE a.attrelid IN ({main}, {eav}) AND a.attnum > 0 AND NOT \
         a.attisdropped UNION ALL SELECT b.attrelid, b.attname, b.shown, t.typbasetype, t.typtypmod FROM behind b JOIN \
         pg_type t ON t.oid = b.type WHERE b.type >= 16384 AND t.typtype = 'd') \
         SELECT b.attrelid = {main}, b.attname, b.shown, format_type(b.type, b.modifier), COALESCE(t.typtype = 'e', false) \
         FROM behind b LEFT JOIN pg_type t ON b.type >= 16384 AND t.oid = b.type WHERE t.typtype IS DISTINCT FROM 'd'"
    )
}

impl PhysicalColumns {
    /// Reads the answer to [`physical_columns_sql`].
    pub(super) fn read(messages: &[SimpleQueryMessage]) -> Result<Self, PostgresError> {
        let mut columns = Self::default();
        for message in messages {
            let SimpleQueryMessage::Row(row) = message else { continue };
            let text = |place: usize| {
                let text = row.try_get(place).ok().flatten();
                text.map(str::to_owned).ok_or_else(|| PostgresError::internal("a column of a table has no type"))
            };
            let column = PhysicalColumn { name: text(1)?, shown: text(2)?, base: text(3)?, is_enum: text(4)? == "t" };
            // Without the table there is nothing to be equal to.
            if row.try_get(0).ok().flatten() == Some("t") {
                columns.main.push(column)
            } else {
                columns.eav.push(column)
            }
        }
        Ok(columns)
    }

    /// Makes sure that values of these columns come through as they are.
    ///
    /// # Errors
    /// Misconfigured: a column is missing or has a type that can't be read without loss.
    pub fn check(
        &self,
        tables: &TableNames,
        entity: &Entity,
        columns: &[Column],
        reader: Reader,
    ) -> Result<(), PostgresError> {
        for column in columns {
            if let Column::Attribute(index) = column
                && let Some(attribute) = entity.attributes.get(*index)
                && let Some(fault) = self.fault(tables, entity, attribute, reader)
            {
                return Err(PostgresError::new(PostgresErrorKind::Misconfigured, fault));
            }
        }
        Ok(())
    }

    /// What is wrong with the column of an attribute; `None` also where there is no such table.
    pub fn fault(&self, tables: &TableNames, entity: &Entity, attribute: &Attribute, reader: Reader) -> Option<String> {
        let (table, columns, name, kind) = match &attribute.storage {
            // The hot statement itself makes sure of those.
            Storage::Own { .. } => return None,
            Storage::Main { column, kind } => (&tables.entity_main, &self.main, column.as_str(), *kind),
            Storage::Eav { .. } if attribute.scalar.eav_is_text(attribute.encoding) => {
                (&tables.eav_data, &self.eav, "value_text", MainColumnKind::Text)
            }
            Storage::Eav { .. } => (&tables.eav_data, &self.eav, "value_numeric", MainColumnKind::Double),
        };
        if columns.is_empty() {
            return None;
        }
        let of = format!("attribute `{}` of `{}`", attribute.name, entity.name);
        let usual = usual_type(kind);
        let Some(found) = columns.iter().find(|found| found.name == name) else {
            return Some(format!(
                "{table} has no column {name}, where {of} is kept; ALTER TABLE {table} ADD COLUMN {name} {usual}, or mend \
                 the catalog"
            ));
        };
        let shown = &found.shown;
        if !found.holds(kind, attribute.scalar) {
            return Some(format!("{table}.{name}, where {of} is kept, is {shown}; expected {}", expected(kind)));
        }
        (reader == Reader::Scan && !found.is_scanned_as_delivered(kind)).then(|| {
            format!(
                "{table}.{name}, where {of} is kept, is {shown}, which hot_scan = scan doesn't read as it is delivered; ask \
                 with hot_scan = copy"
            )
        })
    }
}

impl PhysicalColumn {
    /// The type without its modifiers and schema: extensions may be in any.
    fn base_name(&self) -> &str {
        let name = self.base.split_once('(').map_or(self.base.as_str(), |(name, _)| name);
        name.rsplit_once('.').map_or(name, |(_, name)| name)
    }

    /// Precision and scale of a numeric that has them.
    fn numeric(&self) -> Option<(u32, i32)> {
        let (precision, scale) = self.base.strip_prefix("numeric(")?.strip_suffix(')')?.split_once(',')?;
        Some((precision.parse().ok()?, scale.parse().ok()?))
    }

    /// Whether the cast form of this kind of column loses nothing of any value of the type.
    fn holds(&self, kind: MainColumnKind, scalar: ScalarType) -> bool {
        let name = self.base_name();
        let is_boolean = scalar == ScalarType::Boolean;
        match kind {
            MainColumnKind::Text => {
                let texts = ["text", "character varying", "character", "citext", "json", "jsonb", "uuid"];
                self.is_enum || texts.contains(&name)
            }
            MainColumnKind::SmallInt | MainColumnKind::Integer if is_boolean => {
                matches!(name, "smallint" | "integer" | "boolean")
            }
            MainColumnKind::SmallInt | MainColumnKind::Integer | MainColumnKind::BigInt => {
                // A bigint holds 18 digits of any kind.
                matches!(name, "smallint" | "integer" | "bigint")
                    || (!is_boolean && self.numeric().is_some_and(|(precision, scale)| scale == 0 && precision <= 18))
            }
            MainColumnKind::Double => {
                // Of up to 15 digits each number has a double of its own, which prints as the number.
                matches!(name, "double precision" | "real" | "smallint" | "integer")
                    || self.numeric().is_some_and(|(precision, scale)| {
                        precision <= 15 && u32::try_from(scale).is_ok_and(|scale| scale <= 15)
                    })
            }
            MainColumnKind::Uuid => name == "uuid",
        }
    }

    fn is_scanned_as_delivered(&self, kind: MainColumnKind) -> bool {
        let is_plain = self.shown == self.base && !self.is_enum;
        let name = self.base_name();
        is_plain
            && match kind {
                MainColumnKind::Text => matches!(name, "text" | "character varying"),
                MainColumnKind::SmallInt | MainColumnKind::Integer | MainColumnKind::BigInt => {
                    matches!(name, "smallint" | "integer" | "bigint")
                }
                MainColumnKind::Double => matches!(name, "double precision" | "real"),
                MainColumnKind::Uuid => name == "uuid",
            }
    }
}

fn usual_type(kind: MainColumnKind) -> &'static str {
    match kind {
        MainColumnKind::Text => "text",
        MainColumnKind::SmallInt => "smallint",
        MainColumnKind::Integer => "integer",
        MainColumnKind::BigInt => "bigint",
        MainColumnKind::Double => "double precision",
        MainColumnKind::Uuid => "uuid",
    }
}

/// The usual type, and what else may stand in for it.
fn expected(kind: MainColumnKind) -> &'static str {
    match kind {
        MainColumnKind::Text => {
            "text, or a type that loses nothing as text (varchar, char, citext, an enum, json, jsonb, uuid)"
        }
        MainColumnKind::SmallInt => {
            "smallint, or another integer type (also numeric(p,0) to p = 18; for a boolean attribute boolean)"
        }
        MainColumnKind::Integer => {
            "integer, or another integer type (also numeric(p,0) to p = 18; for a boolean attribute boolean)"
        }
        MainColumnKind::BigInt => "bigint, or another integer type (also numeric(p,0) to p = 18)",
        MainColumnKind::Double => "double precision, or a type that it holds (real, integer, numeric(p,s) to p = 15)",
        MainColumnKind::Uuid => "uuid",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(shown: &str, base: &str) -> PhysicalColumn {
        PhysicalColumn { name: "x".to_owned(), shown: shown.to_owned(), base: base.to_owned(), is_enum: false }
    }

    #[test]
    fn types_are_accepted_where_their_cast_loses_nothing() {
        use MainColumnKind::{BigInt, Double, Integer, SmallInt, Text, Uuid};
        let cases = [
            (
                Text,
                ScalarType::Text,
                vec!["text", "character(3)", "character varying(9)", "ext.citext", "jsonb", "uuid"],
            ),
            (SmallInt, ScalarType::Boolean, vec!["smallint", "boolean"]),
            (Integer, ScalarType::Integer, vec!["smallint", "bigint", "numeric(18,0)"]),
            (BigInt, ScalarType::Timestamp, vec!["bigint", "integer"]),
            (Double, ScalarType::Double, vec!["double precision", "real", "integer", "numeric(15,2)"]),
            (Uuid, ScalarType::Uuid, vec!["uuid"]),
        ];
        for (kind, scalar, types) in cases {
            for name in types {
                assert!(column(name, name).holds(kind, scalar), "{kind:?}: {name}");
            }
        }
        let refused = [
            (Text, ScalarType::Text, vec!["date", "numeric", "boolean", "bytea", "timestamp with time zone"]),
            (SmallInt, ScalarType::SmallInt, vec!["boolean", "numeric", "numeric(3,1)", "numeric(19,0)", "real"]),
            (SmallInt, ScalarType::Boolean, vec!["bigint", "numeric(3,0)"]),
            (BigInt, ScalarType::Timestamp, vec!["date", "timestamp with time zone", "text"]),
            (
                Double,
                ScalarType::Decimal { precision: 9, scale: 2 },
                vec!["numeric", "numeric(16,2)", "bigint", "text"],
            ),
            (Uuid, ScalarType::Uuid, vec!["text"]),
        ];
        for (kind, scalar, types) in refused {
            for name in types {
                assert!(!column(name, name).holds(kind, scalar), "{kind:?}: {name}");
            }
        }
    }

    #[test]
    fn scans_take_plain_types_alone() {
        assert!(column("text", "text").is_scanned_as_delivered(MainColumnKind::Text));
        assert!(!column("character(3)", "character(3)").is_scanned_as_delivered(MainColumnKind::Text));
        assert!(!column("mail", "text").is_scanned_as_delivered(MainColumnKind::Text));
    }
}
