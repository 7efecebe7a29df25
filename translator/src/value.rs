//! Typed values: literals of a query, bounds from file statistics.

/// A value of one of the scalar types. Numbers compare by value across [`Value::Int`], [`Value::Decimal`] and
/// [`Value::Double`]; everything else compares within its own kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Bool(bool),
    Int(i128),
    /// `unscaled / 10^scale`
    Decimal {
        unscaled: i128,
        scale: u8,
    },
    Double(f64),
    Text(String),
    /// Big-endian bytes of the UUID as a number, so that the order is the order of its text.
    Uuid(u128),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since the Unix epoch, UTC; of a timestamp without a zone, as if it were of UTC.
    Timestamp(i64),
    /// Microseconds since midnight.
    Time(i64),
    Blob(Vec<u8>),
}
