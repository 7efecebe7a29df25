//! DuckDB's types that values are bound as.

use std::fmt;

/// A type of DuckDB; it prints as SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SqlType {
    Boolean,
    TinyInt,
    SmallInt,
    Integer,
    BigInt,
    HugeInt,
    UTinyInt,
    USmallInt,
    UInteger,
    UBigInt,
    Float,
    Double,
    Decimal { width: u8, scale: u8 },
    Text,
    Blob,
    Uuid,
    Date,
    Time,
    TimestampSeconds,
    TimestampMillis,
    Timestamp,
    TimestampNanos,
    TimestampTz,
    Interval,
    List(Box<SqlType>),
}

impl SqlType {
    /// The values of an integer type.
    pub(crate) fn integers(&self) -> Option<std::ops::RangeInclusive<i128>> {
        Some(match self {
            Self::TinyInt => i8::MIN.into()..=i8::MAX.into(),
            Self::SmallInt => i16::MIN.into()..=i16::MAX.into(),
            Self::Integer => i32::MIN.into()..=i32::MAX.into(),
            Self::BigInt => i64::MIN.into()..=i64::MAX.into(),
            Self::HugeInt => i128::MIN..=i128::MAX,
            Self::UTinyInt => 0..=u8::MAX.into(),
            Self::USmallInt => 0..=u16::MAX.into(),
            Self::UInteger => 0..=u32::MAX.into(),
            Self::UBigInt => 0..=u64::MAX.into(),
            _ => return None,
        })
    }
}

impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Boolean => "BOOLEAN",
            Self::TinyInt => "TINYINT",
            Self::SmallInt => "SMALLINT",
            Self::Integer => "INTEGER",
            Self::BigInt => "BIGINT",
            Self::HugeInt => "HUGEINT",
            Self::UTinyInt => "UTINYINT",
            Self::USmallInt => "USMALLINT",
            Self::UInteger => "UINTEGER",
            Self::UBigInt => "UBIGINT",
            Self::Float => "FLOAT",
            Self::Double => "DOUBLE",
            Self::Decimal { width, scale } => return write!(f, "DECIMAL({width},{scale})"),
            Self::Text => "VARCHAR",
            Self::Blob => "BLOB",
            Self::Uuid => "UUID",
            Self::Date => "DATE",
            Self::Time => "TIME",
            Self::TimestampSeconds => "TIMESTAMP_S",
            Self::TimestampMillis => "TIMESTAMP_MS",
            Self::Timestamp => "TIMESTAMP",
            Self::TimestampNanos => "TIMESTAMP_NS",
            Self::TimestampTz => "TIMESTAMPTZ",
            Self::Interval => "INTERVAL",
            Self::List(item) => return write!(f, "{item}[]"),
        };
        f.write_str(name)
    }
}
