//! Entities, values and versions as the tests describe them: what is written to the tiers, and what the oracle merges.
//!
//! Kept apart from the translator's catalog on purpose, so that a mistake there can't hide here.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use chrono::DateTime;
use uuid::Uuid;

const DAY_MS: i64 = 86_400_000;

/// A logical table.
#[derive(Debug, Clone, PartialEq)]
pub struct Entity {
    pub name: String,
    pub schema_id: i16,
    pub attributes: Vec<Attribute>,
}

/// A logical column.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribute {
    pub name: String,
    pub kind: Kind,
    pub list: bool,
    pub storage: Storage,
    /// How PostgreSQL keeps dates and timestamps.
    pub encoding: Encoding,
}

/// The types of docs/contract.md, "Types".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    SmallInt,
    Integer,
    BigInt,
    Double,
    Boolean,
    Uuid,
    Date,
    Timestamp,
    Json,
    Decimal { precision: u8, scale: u8 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// Column of `entity_main`.
    Main(String),
    /// `attr_id` in `eav_data`.
    Eav(i16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    UnixMs,
    Iso8601,
}

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Boolean(bool),
    /// Any of the integer types.
    Integer(i64),
    Double(f64),
    /// `unscaled / 10^scale`, the scale being the attribute's.
    Decimal(i64),
    /// Text and JSON.
    Text(String),
    Uuid(Uuid),
    /// Days since 1970-01-01.
    Date(i32),
    /// Unix milliseconds.
    Timestamp(i64),
    /// Never empty: an empty list can't be told from NULL in `eav_data`.
    List(Vec<Value>),
}

/// One state of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    pub row_id: Uuid,
    /// Unix milliseconds, as are all the times here.
    pub created_at: i64,
    pub changed_at: i64,
    pub deleted_at: Option<i64>,
    /// One value an attribute, in the entity's order.
    pub values: Vec<Value>,
}

impl Entity {
    pub fn new(name: &str, schema_id: i16) -> Self {
        Self { name: name.to_owned(), schema_id, attributes: Vec::new() }
    }

    /// Adds an attribute stored in a column of `entity_main`.
    #[must_use]
    pub fn main(mut self, name: &str, kind: Kind, column: &str) -> Self {
        self.attributes.push(Attribute {
            name: name.to_owned(),
            kind,
            list: false,
            storage: Storage::Main(column.to_owned()),
            encoding: Encoding::UnixMs,
        });
        self
    }

    /// Adds an attribute stored in `eav_data`.
    #[must_use]
    pub fn eav(mut self, name: &str, kind: Kind, attr_id: i16) -> Self {
        self.attributes.push(Attribute {
            name: name.to_owned(),
            kind,
            list: false,
            storage: Storage::Eav(attr_id),
            encoding: Encoding::UnixMs,
        });
        self
    }

    /// Makes the attribute added last a list.
    #[must_use]
    pub fn list(mut self) -> Self {
        if let Some(attribute) = self.attributes.last_mut() {
            attribute.list = true;
        }
        self
    }

    /// Makes the attribute added last keep ISO 8601 text.
    #[must_use]
    pub fn iso8601(mut self) -> Self {
        if let Some(attribute) = self.attributes.last_mut() {
            attribute.encoding = Encoding::Iso8601;
        }
        self
    }

    pub fn attribute(&self, column: &str) -> Option<(usize, &Attribute)> {
        self.attributes.iter().enumerate().find(|(_, attribute)| attribute.column() == column)
    }

    /// The entity as a table of `catalog.toml`.
    pub fn catalog_toml(&self) -> String {
        let mut text = format!("[[entity]]\nname = {}\nschema_id = {}\n", toml_string(&self.name), self.schema_id);
        for attribute in &self.attributes {
            text.push_str(&attribute.catalog_toml());
        }
        text
    }
}

impl Attribute {
    /// The SQL and Parquet column name: dots and spaces fold to `_`.
    pub fn column(&self) -> String {
        self.name.replace(['.', ' '], "_")
    }

    fn catalog_toml(&self) -> String {
        let mut text = format!(
            "\n[[entity.attribute]]\nname = {}\ntype = {}\n",
            toml_string(&self.name),
            toml_string(&self.kind.catalog_name())
        );
        match &self.storage {
            Storage::Main(column) => text.push_str(&format!("column = {}\n", toml_string(column))),
            Storage::Eav(attr_id) => text.push_str(&format!("attr_id = {attr_id}\n")),
        }
        if self.encoding == Encoding::Iso8601 {
            text.push_str("encoding = \"iso8601\"\n");
        }
        if self.list {
            text.push_str("list = true\n");
        }
        text
    }

    /// DuckDB's type of the public column.
    pub fn duckdb_type(&self) -> String {
        let scalar = self.kind.duckdb_type();
        if self.list { format!("{scalar}[]") } else { scalar }
    }

    /// Whether `eav_data` keeps it in `value_text`.
    pub fn is_text_in_eav(&self) -> bool {
        match self.kind {
            Kind::Text | Kind::Uuid | Kind::Json => true,
            Kind::Date | Kind::Timestamp => self.encoding == Encoding::Iso8601,
            Kind::SmallInt | Kind::Integer | Kind::BigInt | Kind::Double | Kind::Boolean | Kind::Decimal { .. } => {
                false
            }
        }
    }

    /// The `eav_data` rows of a value: `array_indices` and the text form of the value.
    ///
    /// # Errors
    /// The value isn't of the attribute's type.
    pub fn eav_rows(&self, value: &Value, row_id: Uuid) -> Result<Vec<(String, Option<String>)>> {
        match value {
            Value::Null => Ok(Vec::new()),
            Value::List(elements) => elements
                .iter()
                .enumerate()
                .map(|(index, element)| Ok((index.to_string(), self.postgres_text(element, row_id)?)))
                .collect(),
            scalar => Ok(vec![(String::new(), self.postgres_text(scalar, row_id)?)]),
        }
    }

    /// A scalar as PostgreSQL keeps it, in text form.
    ///
    /// # Errors
    /// The value isn't of the attribute's type.
    pub fn postgres_text(&self, value: &Value, row_id: Uuid) -> Result<Option<String>> {
        let iso = self.encoding == Encoding::Iso8601;
        let text = match (self.kind, value) {
            (_, Value::Null) => return Ok(None),
            (Kind::Boolean, Value::Boolean(value)) => i32::from(*value).to_string(),
            (Kind::SmallInt | Kind::Integer | Kind::BigInt, Value::Integer(value)) => value.to_string(),
            (Kind::Double, Value::Double(value)) => postgres_double(*value),
            (Kind::Decimal { scale, .. }, Value::Decimal(unscaled)) => decimal_text(unrounded(*unscaled), scale + 1),
            (Kind::Text | Kind::Json, Value::Text(value)) => value.clone(),
            // Applications write them in many forms.
            (Kind::Uuid, Value::Uuid(value)) => match row_id.as_u128() % 3 {
                0 => value.to_string(),
                1 => value.to_string().to_uppercase(),
                _ => value.simple().to_string(),
            },
            (Kind::Date, Value::Date(days)) if iso => date_text(*days)?,
            // Any time of the day stands for the day.
            (Kind::Date, Value::Date(days)) => {
                let time_of_day = i64::try_from(row_id.as_u128() % u128::from(DAY_MS.unsigned_abs()))?;
                (i64::from(*days) * DAY_MS + time_of_day).to_string()
            }
            (Kind::Timestamp, Value::Timestamp(ms)) if iso => timestamp_text(*ms, row_id)?,
            (Kind::Timestamp, Value::Timestamp(ms)) => ms.to_string(),
            (kind, value) => bail!("{value:?} is no {kind:?}"),
        };
        Ok(Some(text))
    }
}

impl Kind {
    pub fn catalog_name(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::SmallInt => "smallint".to_owned(),
            Self::Integer => "integer".to_owned(),
            Self::BigInt => "bigint".to_owned(),
            Self::Double => "double".to_owned(),
            Self::Boolean => "boolean".to_owned(),
            Self::Uuid => "uuid".to_owned(),
            Self::Date => "date".to_owned(),
            Self::Timestamp => "timestamp".to_owned(),
            Self::Json => "json".to_owned(),
            Self::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        }
    }

    pub fn duckdb_type(self) -> String {
        match self {
            Self::Text => "VARCHAR".to_owned(),
            Self::SmallInt => "SMALLINT".to_owned(),
            Self::Integer => "INTEGER".to_owned(),
            Self::BigInt => "BIGINT".to_owned(),
            Self::Double => "DOUBLE".to_owned(),
            Self::Boolean => "BOOLEAN".to_owned(),
            Self::Uuid => "UUID".to_owned(),
            Self::Date => "DATE".to_owned(),
            Self::Timestamp => "TIMESTAMPTZ".to_owned(),
            Self::Json => "JSON".to_owned(),
            Self::Decimal { precision, scale } => format!("DECIMAL({precision},{scale})"),
        }
    }
}

impl Value {
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// The value as a DuckDB literal of the given type.
    pub fn duckdb_literal(&self, kind: Kind) -> String {
        let name = kind.duckdb_type();
        match self {
            Self::Null => format!("CAST(NULL AS {name})"),
            Self::Boolean(value) => value.to_string(),
            Self::Integer(value) => format!("CAST('{value}' AS {name})"),
            Self::Double(value) => format!("CAST('{value:?}' AS DOUBLE)"),
            Self::Decimal(unscaled) => {
                let Kind::Decimal { scale, .. } = kind else { return format!("CAST({unscaled} AS {name})") };
                format!("CAST('{}' AS {name})", decimal_text(*unscaled, scale))
            }
            Self::Text(value) => format!("CAST('{}' AS {name})", value.replace('\'', "''")),
            Self::Uuid(value) => format!("CAST('{value}' AS UUID)"),
            Self::Date(days) => format!("(DATE '1970-01-01' + {days})"),
            Self::Timestamp(ms) => format!("make_timestamptz(CAST('{}' AS BIGINT))", ms * 1000),
            Self::List(elements) => {
                let elements: Vec<String> = elements.iter().map(|element| element.duckdb_literal(kind)).collect();
                format!("CAST([{}] AS {name}[])", elements.join(", "))
            }
        }
    }
}

/// What a DOUBLE may hold of a decimal, in tenths of its last digit: odd ones are a little more than they round to.
pub fn unrounded(unscaled: i64) -> i64 {
    unscaled * 10 + 3 * (unscaled % 2)
}

/// A decimal as text: `-12.34`.
pub fn decimal_text(unscaled: i64, scale: u8) -> String {
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

fn postgres_double(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() }
    } else {
        format!("{value:?}")
    }
}

fn date_text(days: i32) -> Result<String> {
    let Some(time) = DateTime::from_timestamp_millis(i64::from(days) * DAY_MS) else {
        bail!("day {days} has no ISO form");
    };
    Ok(time.format("%Y-%m-%d").to_string())
}

/// ISO 8601 in one of the forms that applications write; all of them mean the same instant.
fn timestamp_text(ms: i64, row_id: Uuid) -> Result<String> {
    let Some(time) = DateTime::from_timestamp_millis(ms) else { bail!("{ms} ms have no ISO form") };
    let mut text = String::new();
    match row_id.as_u128() % 4 {
        0 => write!(text, "{}", time.format("%Y-%m-%dT%H:%M:%S%.3fZ"))?,
        1 => write!(text, "{}", time.format("%Y-%m-%d %H:%M:%S%.3f"))?,
        2 => write!(text, "{}", time.format("%Y-%m-%dT%H:%M:%S%.3f+00:00"))?,
        _ => {
            let local = time + chrono::TimeDelta::minutes(330);
            write!(text, "{}+05:30", local.format("%Y-%m-%dT%H:%M:%S%.3f"))?;
        }
    }
    Ok(text)
}

fn toml_string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Version {
    /// Whether it is a tombstone: `deleted_at` is neither NULL nor 0.
    pub fn is_deleted(&self) -> bool {
        self.deleted_at.is_some_and(|at| at != 0)
    }
}
