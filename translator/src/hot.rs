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
    Float8,
    Uuid,
    /// `text[]`, elements in list order; a NULL array is a NULL list, a NULL element a NULL element.
    TextArray,
    /// `float8[]`, likewise.
    Float8Array,
}
