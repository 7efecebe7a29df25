//! One column of scalars: from a wire type to a logical type (design section 2.3).

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, FixedSizeBinaryBuilder, Float64Builder, Int16Builder,
    Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use translator::catalog::{ScalarType, TimeEncoding};
use translator::hot::WireType;

use super::{Misfit, PostgresError, fixed, iso8601};

const MILLIS_PER_DAY: i64 = 86_400_000;
const MICROS_PER_DAY: i64 = 1000 * MILLIS_PER_DAY;

const NOT_AN_INTEGER: Misfit = Misfit::new("is not an integer");
const OUT_OF_RANGE: Misfit = Misfit::new("is out of range");
const NOT_UTF8: Misfit = Misfit::new("is not UTF-8 text");
const WRONG_SIZE: Misfit = Misfit::new("has an unexpected size on the wire");

/// Builds one Arrow column.
#[derive(Debug)]
pub(super) struct ScalarBuilder {
    wire: WireType,
    column: ColumnBuilder,
}

#[derive(Debug)]
enum ColumnBuilder {
    Text(StringBuilder),
    Json(StringBuilder),
    SmallInt(Int16Builder),
    Integer(Int32Builder),
    BigInt(Int64Builder),
    Double(Float64Builder),
    Decimal { builder: Decimal128Builder, precision: u8, scale: u8 },
    Boolean(BooleanBuilder),
    Uuid(FixedSizeBinaryBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl ScalarBuilder {
    /// `None` when `wire` cannot carry `scalar`. `wire` is never an array type.
    pub(super) fn new(scalar: ScalarType, encoding: TimeEncoding, wire: WireType) -> Option<Self> {
        let is_number = matches!(wire, WireType::Int8 | WireType::Float8);
        let is_text = wire == WireType::Text;
        let fits = match scalar {
            ScalarType::Text | ScalarType::Json => is_text,
            ScalarType::SmallInt
            | ScalarType::Integer
            | ScalarType::BigInt
            | ScalarType::Double
            | ScalarType::Decimal { .. }
            | ScalarType::Boolean => is_number,
            ScalarType::Uuid => is_text || wire == WireType::Uuid,
            ScalarType::Date | ScalarType::Timestamp => match encoding {
                TimeEncoding::UnixMs => is_number,
                TimeEncoding::Iso8601 => is_text,
            },
        };
        let column = match scalar {
            ScalarType::Text => ColumnBuilder::Text(StringBuilder::new()),
            ScalarType::Json => ColumnBuilder::Json(StringBuilder::new()),
            ScalarType::SmallInt => ColumnBuilder::SmallInt(Int16Builder::new()),
            ScalarType::Integer => ColumnBuilder::Integer(Int32Builder::new()),
            ScalarType::BigInt => ColumnBuilder::BigInt(Int64Builder::new()),
            ScalarType::Double => ColumnBuilder::Double(Float64Builder::new()),
            ScalarType::Decimal { precision, scale } => {
                let builder = Decimal128Builder::new().with_precision_and_scale(precision, scale.cast_signed()).ok()?;
                ColumnBuilder::Decimal { builder, precision, scale }
            }
            ScalarType::Boolean => ColumnBuilder::Boolean(BooleanBuilder::new()),
            ScalarType::Uuid => ColumnBuilder::Uuid(FixedSizeBinaryBuilder::new(16)),
            ScalarType::Date => ColumnBuilder::Date(Date32Builder::new()),
            ScalarType::Timestamp => ColumnBuilder::Timestamp(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
        };
        fits.then_some(Self { wire, column })
    }

    pub(super) fn len(&self) -> usize {
        use arrow::array::ArrayBuilder;
        match &self.column {
            ColumnBuilder::Text(builder) | ColumnBuilder::Json(builder) => builder.len(),
            ColumnBuilder::SmallInt(builder) => builder.len(),
            ColumnBuilder::Integer(builder) => builder.len(),
            ColumnBuilder::BigInt(builder) => builder.len(),
            ColumnBuilder::Double(builder) => builder.len(),
            ColumnBuilder::Decimal { builder, .. } => builder.len(),
            ColumnBuilder::Boolean(builder) => builder.len(),
            ColumnBuilder::Uuid(builder) => builder.len(),
            ColumnBuilder::Date(builder) => builder.len(),
            ColumnBuilder::Timestamp(builder) => builder.len(),
        }
    }

    pub(super) fn push(&mut self, field: Option<&[u8]>) -> Result<(), Misfit> {
        let wire = self.wire;
        match &mut self.column {
            ColumnBuilder::Text(builder) => builder.append_option(field.map(text).transpose()?),
            ColumnBuilder::Json(builder) => builder.append_option(field.map(json).transpose()?),
            ColumnBuilder::SmallInt(builder) => {
                builder.append_option(field.map(|bytes| integer_in(bytes, wire)).transpose()?);
            }
            ColumnBuilder::Integer(builder) => {
                builder.append_option(field.map(|bytes| integer_in(bytes, wire)).transpose()?);
            }
            ColumnBuilder::BigInt(builder) => {
                builder.append_option(field.map(|bytes| integer(bytes, wire)).transpose()?);
            }
            ColumnBuilder::Double(builder) => {
                builder.append_option(field.map(|bytes| double(bytes, wire)).transpose()?);
            }
            ColumnBuilder::Decimal { builder, precision, scale } => {
                let value = field.map(|bytes| decimal(double(bytes, wire)?, *precision, *scale)).transpose()?;
                builder.append_option(value);
            }
            ColumnBuilder::Boolean(builder) => {
                let value = field.map(|bytes| match integer(bytes, wire) {
                    Ok(0) => Ok(false),
                    Ok(1) => Ok(true),
                    Ok(_) | Err(_) => Err(Misfit::new("is neither 0 nor 1")),
                });
                builder.append_option(value.transpose()?);
            }
            ColumnBuilder::Uuid(builder) => match field.map(|bytes| uuid(bytes, wire)).transpose()? {
                Some(id) => builder.append_value(id).map_err(|_| WRONG_SIZE)?,
                None => builder.append_null(),
            },
            ColumnBuilder::Date(builder) => {
                builder.append_option(field.map(|bytes| date(bytes, wire)).transpose()?);
            }
            ColumnBuilder::Timestamp(builder) => {
                builder.append_option(field.map(|bytes| timestamp(bytes, wire)).transpose()?);
            }
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<ArrayRef, PostgresError> {
        Ok(match &mut self.column {
            ColumnBuilder::Text(builder) | ColumnBuilder::Json(builder) => Arc::new(builder.finish()),
            ColumnBuilder::SmallInt(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Integer(builder) => Arc::new(builder.finish()),
            ColumnBuilder::BigInt(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Double(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Decimal { builder, .. } => Arc::new(builder.finish()),
            ColumnBuilder::Boolean(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Uuid(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Date(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Timestamp(builder) => Arc::new(builder.finish()),
        })
    }
}

fn text(bytes: &[u8]) -> Result<&str, Misfit> {
    std::str::from_utf8(bytes).map_err(|_| NOT_UTF8)
}

fn json(bytes: &[u8]) -> Result<&str, Misfit> {
    let text = text(bytes)?;
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(text),
        Err(_) => Err(Misfit::new("is not valid JSON")),
    }
}

/// A whole number, from either number type.
fn integer(bytes: &[u8], wire: WireType) -> Result<i64, Misfit> {
    if wire == WireType::Int8 {
        return fixed(Some(bytes)).map(i64::from_be_bytes).ok_or(WRONG_SIZE);
    }
    let number = fixed(Some(bytes)).map(f64::from_be_bytes).ok_or(WRONG_SIZE)?;
    // NaN and the infinities have a NaN fraction and fail here too.
    if number.fract() != 0.0 {
        return Err(NOT_AN_INTEGER);
    }
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if !(-LIMIT..LIMIT).contains(&number) {
        return Err(OUT_OF_RANGE);
    }
    // Exact: the number is whole and within the range of i64.
    Ok(number as i64)
}

fn integer_in<T: TryFrom<i64>>(bytes: &[u8], wire: WireType) -> Result<T, Misfit> {
    T::try_from(integer(bytes, wire)?).map_err(|_| OUT_OF_RANGE)
}

/// A double; an `int8` only where a double holds it exactly.
fn double(bytes: &[u8], wire: WireType) -> Result<f64, Misfit> {
    if wire == WireType::Int8 {
        let number = integer(bytes, wire)?;
        const EXACT: i64 = 1 << 53;
        return if (-EXACT..=EXACT).contains(&number) { Ok(number as f64) } else { Err(OUT_OF_RANGE) };
    }
    fixed(Some(bytes)).map(f64::from_be_bytes).ok_or(WRONG_SIZE)
}

/// The unscaled decimal of a double, rounded half away from zero.
///
/// What is rounded is the shortest decimal that reads back as the double: 1.005 to two digits is 1.01, although the
/// double next to 1.005 is a little smaller. That is what whoever wrote 1.005 meant, and what PostgreSQL shows.
fn decimal(number: f64, precision: u8, scale: u8) -> Result<i128, Misfit> {
    if !number.is_finite() {
        return Err(Misfit::new("is not a finite number"));
    }
    let limit = 10_i128.pow(precision.into());
    if number.abs() >= limit as f64 {
        return Err(OUT_OF_RANGE);
    }
    let scaled = number * 10_f64.powi(scale.into());
    let fraction = scaled.abs().fract();
    // Multiplying was off by less than this: away from the half, rounding can't go wrong.
    let error = scaled.abs() * f64::EPSILON * 2.0 + f64::MIN_POSITIVE;
    let unscaled = if (fraction - 0.5).abs() > error && scaled.abs() < 4.5e15 {
        scaled.round() as i128
    } else {
        round_shortest(number, scale)
    };
    if unscaled.abs() >= limit { Err(OUT_OF_RANGE) } else { Ok(unscaled) }
}

/// Rounds the shortest decimal form of a finite number, digit by digit.
fn round_shortest(number: f64, scale: u8) -> i128 {
    let text = format!("{:e}", number.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits: Vec<u8> = mantissa.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect();
    // The digits stand for 0.d₁d₂d₃… × 10^(exponent + 1); this many of them stay before the rounding point.
    let kept = exponent + 1 + i32::from(scale);
    let Ok(kept) = usize::try_from(kept) else { return 0 };
    let mut unscaled: i128 = 0;
    for at in 0..kept {
        unscaled = unscaled * 10 + i128::from(digits.get(at).copied().unwrap_or(0));
    }
    if digits.get(kept).is_some_and(|digit| *digit >= 5) {
        unscaled += 1;
    }
    if number < 0.0 { -unscaled } else { unscaled }
}

fn uuid(bytes: &[u8], wire: WireType) -> Result<[u8; 16], Misfit> {
    if wire == WireType::Uuid {
        return fixed(Some(bytes)).ok_or(WRONG_SIZE);
    }
    match uuid::Uuid::try_parse_ascii(bytes) {
        Ok(id) => Ok(id.into_bytes()),
        Err(_) => Err(Misfit::new("is not a UUID")),
    }
}

/// Days since the epoch; a time of day is floored to the UTC day.
fn date(bytes: &[u8], wire: WireType) -> Result<i32, Misfit> {
    let days = if wire == WireType::Text {
        iso8601::read_timestamp(text(bytes)?)?.div_euclid(MICROS_PER_DAY)
    } else {
        integer(bytes, wire)?.div_euclid(MILLIS_PER_DAY)
    };
    // The outermost values are infinities in DuckDB.
    i32::try_from(days).ok().filter(|days| days.unsigned_abs() < i32::MAX.unsigned_abs()).ok_or(OUT_OF_RANGE)
}

/// Microseconds since the epoch.
fn timestamp(bytes: &[u8], wire: WireType) -> Result<i64, Misfit> {
    let micros = if wire == WireType::Text {
        iso8601::read_timestamp(text(bytes)?)?
    } else {
        integer(bytes, wire)?.checked_mul(1000).ok_or(OUT_OF_RANGE)?
    };
    // The outermost values are infinities in DuckDB.
    Some(micros).filter(|micros| micros.unsigned_abs() < i64::MAX.unsigned_abs()).ok_or(OUT_OF_RANGE)
}
