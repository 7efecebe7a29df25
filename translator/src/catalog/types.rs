//! Types of attributes and how PostgreSQL stores them.

/// Up to this precision a double keeps every value of a decimal exactly.
pub const MAX_PRECISION_OF_DOUBLES: u8 = 15;

/// Type of an attribute, or of the elements of a list attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScalarType {
    Text,
    SmallInt,
    Integer,
    BigInt,
    /// A float of 32 bits.
    Real,
    Double,
    /// DECIMAL(precision, scale); precision is at most 38, and at most 15 where a double keeps the values
    /// ([`Layout::Eav`]).
    Decimal {
        precision: u8,
        scale: u8,
    },
    Boolean,
    Uuid,
    Date,
    /// A time of day without a zone.
    Time,
    Timestamp,
    /// A timestamp without a zone: a date and a time of day, no moment.
    TimestampNaive,
    Json,
    /// Bytes.
    Blob,
}

/// How PostgreSQL keeps the rows of an entity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Layout {
    /// In `entity_main` and `eav_data`.
    #[default]
    Eav,
    /// In a table of the application.
    Table(OwnTable),
}

/// An ordinary table, a partitioned one, or a view, whose rows are the rows of an entity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OwnTable {
    /// Possibly with a schema: `public.orders`.
    pub name: String,
    /// The columns of its key in their order; never empty. Each of them is an attribute.
    pub key: Vec<KeyColumn>,
}

/// A column of a table's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyColumn {
    /// Its name in PostgreSQL.
    pub column: String,
    /// The place of its attribute in [`super::Entity::attributes`].
    pub attribute: usize,
}

/// Where PostgreSQL keeps an attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Storage {
    /// A numbered column of `entity_main` (`text_01`).
    Main { column: String, kind: MainColumnKind },
    /// Rows of `eav_data` with this `attr_id`.
    Eav { attr_id: i16 },
    /// A column of the entity's own table.
    Own { column: String },
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
            Self::Real => "FLOAT".to_owned(),
            Self::Double => "DOUBLE".to_owned(),
            Self::Decimal { precision, scale } => format!("DECIMAL({precision},{scale})"),
            Self::Boolean => "BOOLEAN".to_owned(),
            Self::Uuid => "UUID".to_owned(),
            Self::Date => "DATE".to_owned(),
            Self::Time => "TIME".to_owned(),
            Self::Timestamp => "TIMESTAMPTZ".to_owned(),
            Self::TimestampNaive => "TIMESTAMP".to_owned(),
            Self::Json => "JSON".to_owned(),
            Self::Blob => "BLOB".to_owned(),
        }
    }

    /// Whether only a table of its own can keep the type.
    pub fn needs_own_table(self) -> bool {
        match self {
            Self::Real | Self::Time | Self::TimestampNaive | Self::Blob => true,
            Self::Decimal { precision, .. } => precision > MAX_PRECISION_OF_DOUBLES,
            Self::Text
            | Self::SmallInt
            | Self::Integer
            | Self::BigInt
            | Self::Double
            | Self::Boolean
            | Self::Uuid
            | Self::Date
            | Self::Timestamp
            | Self::Json => false,
        }
    }

    /// Whether a column of this type may be part of a table's key: equal values have one form.
    pub fn is_key(self) -> bool {
        match self {
            Self::Real | Self::Double | Self::Json => false,
            Self::Text
            | Self::SmallInt
            | Self::Integer
            | Self::BigInt
            | Self::Decimal { .. }
            | Self::Boolean
            | Self::Uuid
            | Self::Date
            | Self::Time
            | Self::Timestamp
            | Self::TimestampNaive
            | Self::Blob => true,
        }
    }

    /// Whether `eav_data` keeps the type in `value_text` (otherwise in `value_numeric`).
    pub fn eav_is_text(self, encoding: TimeEncoding) -> bool {
        match self {
            Self::Text | Self::Uuid | Self::Json => true,
            Self::Date | Self::Timestamp => encoding == TimeEncoding::Iso8601,
            Self::SmallInt
            | Self::Integer
            | Self::BigInt
            | Self::Real
            | Self::Double
            | Self::Decimal { .. }
            | Self::Boolean
            | Self::Time
            | Self::TimestampNaive
            | Self::Blob => false,
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
            ScalarType::Real | ScalarType::Time | ScalarType::TimestampNaive | ScalarType::Blob => false,
        }
    }
}
