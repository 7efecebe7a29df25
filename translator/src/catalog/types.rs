//! Types of attributes and how PostgreSQL stores them.

/// Type of an attribute, or of the elements of a list attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScalarType {
    Text,
    SmallInt,
    Integer,
    BigInt,
    Double,
    /// DECIMAL(precision, scale); precision is at most 15, so that a double holds every value.
    Decimal {
        precision: u8,
        scale: u8,
    },
    Boolean,
    Uuid,
    Date,
    Timestamp,
    Json,
}

/// Where PostgreSQL keeps an attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Storage {
    /// A numbered column of `entity_main` (`text_01`).
    Main { column: String, kind: MainColumnKind },
    /// Rows of `eav_data` with this `attr_id`.
    Eav { attr_id: i16 },
}

/// The physical type of a numbered column of `entity_main`, known from its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MainColumnKind {
    Text,
    SmallInt,
    Integer,
    BigInt,
    Double,
    Uuid,
}

/// How PostgreSQL keeps dates and timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TimeEncoding {
    /// Milliseconds since the Unix epoch, a number.
    #[default]
    UnixMs,
    /// ISO 8601 text; without an offset it is UTC.
    Iso8601,
}

impl ScalarType {
    /// The DuckDB type, as SQL text.
    pub fn duckdb_type(self) -> String {
        match self {
            Self::Text => "VARCHAR".to_owned(),
            Self::SmallInt => "SMALLINT".to_owned(),
            Self::Integer => "INTEGER".to_owned(),
            Self::BigInt => "BIGINT".to_owned(),
            Self::Double => "DOUBLE".to_owned(),
            Self::Decimal { precision, scale } => format!("DECIMAL({precision},{scale})"),
            Self::Boolean => "BOOLEAN".to_owned(),
            Self::Uuid => "UUID".to_owned(),
            Self::Date => "DATE".to_owned(),
            Self::Timestamp => "TIMESTAMPTZ".to_owned(),
            Self::Json => "JSON".to_owned(),
        }
    }

    /// Whether `eav_data` keeps the type in `value_text` (otherwise in `value_numeric`).
    pub fn eav_is_text(self, encoding: TimeEncoding) -> bool {
        match self {
            Self::Text | Self::Uuid | Self::Json => true,
            Self::Date | Self::Timestamp => encoding == TimeEncoding::Iso8601,
            Self::SmallInt | Self::Integer | Self::BigInt | Self::Double | Self::Decimal { .. } | Self::Boolean => {
                false
            }
        }
    }
}

impl MainColumnKind {
    /// Reads the kind from a column name (`integer_02`); `None` for a name of another form.
    pub fn of_column(name: &str) -> Option<Self> {
        let (kind, number) = name.rsplit_once('_')?;
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(match kind {
            "text" => Self::Text,
            "smallint" => Self::SmallInt,
            "integer" => Self::Integer,
            "bigint" => Self::BigInt,
            "double" => Self::Double,
            "uuid" => Self::Uuid,
            _ => return None,
        })
    }

    /// Whether a column of this kind may store an attribute of `scalar` (a wider integer column is allowed).
    pub fn stores(self, scalar: ScalarType, encoding: TimeEncoding) -> bool {
        match scalar {
            ScalarType::Text | ScalarType::Json => self == Self::Text,
            ScalarType::SmallInt => matches!(self, Self::SmallInt | Self::Integer | Self::BigInt),
            ScalarType::Integer => matches!(self, Self::Integer | Self::BigInt),
            ScalarType::BigInt => self == Self::BigInt,
            ScalarType::Double | ScalarType::Decimal { .. } => self == Self::Double,
            ScalarType::Boolean => matches!(self, Self::SmallInt | Self::Integer | Self::BigInt),
            ScalarType::Uuid => matches!(self, Self::Uuid | Self::Text),
            ScalarType::Date | ScalarType::Timestamp => match encoding {
                TimeEncoding::UnixMs => self == Self::BigInt,
                TimeEncoding::Iso8601 => self == Self::Text,
            },
        }
    }
}
