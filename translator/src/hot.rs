//! The result shape of the PostgreSQL statement of a reference: what the reader of its rows must know.

use crate::catalog::Column;

/// One output column of the hot statement, after the fixed leading ones.
///
/// Every hot statement returns, in this order: `row_id uuid`, `changed_at int8`, `deleted_at int8` (NULL or 0 while
/// live), `created_at int8` (NULL without an `entity_main` row), `has_main bool` (whether the `entity_main` row exists),
/// and then one column for each [`HotColumn`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotColumn {
    /// The attribute: always [`Column::Attribute`].
    pub column: Column,
    /// The PostgreSQL type on the wire.
    pub wire: WireType,
}

/// PostgreSQL types that hot statements return; the emitter casts to one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WireType {
    Text,
    Int8,
    Float4,
    Float8,
    Bool,
    Uuid,
    /// Days since 2000-01-01, a 32-bit integer whose ends are infinities.
    Date,
    /// Microseconds since midnight.
    Time,
    /// Microseconds since 2000-01-01, a 64-bit integer whose ends are infinities; with or without a zone.
    Timestamp,
    Bytes,
    /// `text[]`, elements in list order; a NULL array is a NULL list, a NULL element a NULL element.
    TextArray,
    /// `int8[]`, likewise.
    Int8Array,
    /// `float4[]`, likewise.
    Float4Array,
    /// `float8[]`, likewise.
    Float8Array,
    /// `bool[]`, likewise.
    BoolArray,
    /// `uuid[]`, likewise.
    UuidArray,
    /// `date[]`, likewise.
    DateArray,
    /// `time[]`, likewise.
    TimeArray,
    /// `timestamp[]` or `timestamptz[]`, likewise.
    TimestampArray,
    /// `bytea[]`, likewise.
    BytesArray,
}

impl WireType {
    /// The type of the elements of an array.
    pub fn element(self) -> Option<Self> {
        Some(match self {
            Self::TextArray => Self::Text,
            Self::Int8Array => Self::Int8,
            Self::Float4Array => Self::Float4,
            Self::Float8Array => Self::Float8,
            Self::BoolArray => Self::Bool,
            Self::UuidArray => Self::Uuid,
            Self::DateArray => Self::Date,
            Self::TimeArray => Self::Time,
            Self::TimestampArray => Self::Timestamp,
            Self::BytesArray => Self::Bytes,
            Self::Text
            | Self::Int8
            | Self::Float4
            | Self::Float8
            | Self::Bool
            | Self::Uuid
            | Self::Date
            | Self::Time
            | Self::Timestamp
            | Self::Bytes => return None,
        })
    }

    /// The array of this type of elements.
    pub fn array(self) -> Self {
        match self {
            Self::Text => Self::TextArray,
            Self::Int8 => Self::Int8Array,
            Self::Float4 => Self::Float4Array,
            Self::Float8 => Self::Float8Array,
            Self::Bool => Self::BoolArray,
            Self::Uuid => Self::UuidArray,
            Self::Date => Self::DateArray,
            Self::Time => Self::TimeArray,
            Self::Timestamp => Self::TimestampArray,
            Self::Bytes => Self::BytesArray,
            array => array,
        }
    }
}
