//! One column of scalars: from a wire type to a logical type (docs/contract.md, "Types").

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, FixedSizeBinaryBuilder, Float32Builder,
    Float64Builder, Int16Builder, Int32Builder, Int64Builder, StringBuilder, Time64MicrosecondBuilder,
    TimestampMicrosecondBuilder,
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
    Real(Float32Builder),
    Double(Float64Builder),
    Decimal {
        builder: Decimal128Builder,
        precision: u8,
        scale: u8,
    },
    Boolean(BooleanBuilder),
    Uuid(FixedSizeBinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    /// With a zone, which is UTC, or without.
    Timestamp(TimestampMicrosecondBuilder),
    Blob(BinaryBuilder),
}

impl ScalarBuilder {
    /// `None` when `wire` cannot carry `scalar`. `wire` is never an array type.
    pub(super) fn new(scalar: ScalarType, encoding: TimeEncoding, wire: WireType) -> Option<Self> {
        let is_number = matches!(wire, WireType::Int8 | WireType::Float8);
        let is_text = wire == WireType::Text;
        let fits = match scalar {
            ScalarType::Text | ScalarType::Json => is_text,
            ScalarType::SmallInt | ScalarType::Integer | ScalarType::BigInt | ScalarType::Double => is_number,
            // A `numeric` comes as its text, which is exact.
            ScalarType::Decimal { .. } => is_number || is_text,
            ScalarType::Boolean => is_number || wire == WireType::Bool,
            ScalarType::Uuid => is_text || wire == WireType::Uuid,
            ScalarType::Date if wire == WireType::Date => true,
            ScalarType::Timestamp if wire == WireType::Timestamp => true,
            ScalarType::Date | ScalarType::Timestamp => match encoding {
                TimeEncoding::UnixMs => is_number,
                TimeEncoding::Iso8601 => is_text,
            },
            ScalarType::Real => wire == WireType::Float4,
            ScalarType::Time => wire == WireType::Time,
            ScalarType::TimestampNaive => wire == WireType::Timestamp,
            ScalarType::Blob => wire == WireType::Bytes,
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
            ScalarType::TimestampNaive => ColumnBuilder::Timestamp(TimestampMicrosecondBuilder::new()),
            ScalarType::Real => ColumnBuilder::Real(Float32Builder::new()),
            ScalarType::Time => ColumnBuilder::Time(Time64MicrosecondBuilder::new()),
            ScalarType::Blob => ColumnBuilder::Blob(BinaryBuilder::new()),
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
            ColumnBuilder::Real(builder) => builder.len(),
            ColumnBuilder::Time(builder) => builder.len(),
            ColumnBuilder::Blob(builder) => builder.len(),
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
                let value = field.map(|bytes| match wire {
                    WireType::Text => numeric(text(bytes)?, *precision, *scale),
                    wire => decimal(double(bytes, wire)?, *precision, *scale),
                });
                builder.append_option(value.transpose()?);
            }
            ColumnBuilder::Boolean(builder) => {
                if wire == WireType::Bool {
                    let value = field.map(|bytes| fixed::<1>(Some(bytes)).map(|flag| flag != [0]).ok_or(WRONG_SIZE));
                    builder.append_option(value.transpose()?);
                    return Ok(());
                }
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
            ColumnBuilder::Real(builder) => {
                let real = |bytes| fixed(Some(bytes)).map(f32::from_be_bytes).ok_or(WRONG_SIZE);
                builder.append_option(field.map(real).transpose()?);
            }
            ColumnBuilder::Time(builder) => builder.append_option(field.map(time).transpose()?),
            ColumnBuilder::Blob(builder) => builder.append_option(field),
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
            ColumnBuilder::Real(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Time(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Blob(builder) => Arc::new(builder.finish()),
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
/// double next to 1.005 is a little smaller. That is what whoever wrote 1.005 meant, and what PostgreSQL shows. Doubles
/// in files are read by the same rule (the translator's `rounded_double`).
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

/// The unscaled decimal of a `numeric` as PostgreSQL prints it; nothing is rounded.
fn numeric(text: &str, precision: u8, scale: u8) -> Result<i128, Misfit> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(Misfit::new("is not a finite number"));
    }
    let fraction = fraction.trim_end_matches('0');
    let scale = usize::from(scale);
    if fraction.len() > scale {
        return Err(Misfit::new("has more digits after the point than the catalog's type"));
    }
    let unscaled: i128 = format!("{whole}{fraction:0<scale$}").parse().map_err(|_| OUT_OF_RANGE)?;
    if unscaled >= 10_i128.pow(precision.into()) { Err(OUT_OF_RANGE) } else { Ok(sign * unscaled) }
}

/// From PostgreSQL's first day, 2000-01-01, to 1970-01-01.
const DAYS_TO_2000: i32 = 10_957;
const MICROS_TO_2000: i64 = 946_684_800_000_000;
const INFINITE: Misfit = Misfit::new("is infinite");

/// A `date`: days since 1970-01-01.
fn own_date(bytes: &[u8]) -> Result<i32, Misfit> {
    let days = fixed(Some(bytes)).map(i32::from_be_bytes).ok_or(WRONG_SIZE)?;
    if days == i32::MAX || days == i32::MIN {
        return Err(INFINITE);
    }
    days.checked_add(DAYS_TO_2000).filter(|days| *days < i32::MAX).ok_or(OUT_OF_RANGE)
}

/// A `timestamp` or `timestamptz`: microseconds since 1970-01-01.
fn own_timestamp(bytes: &[u8]) -> Result<i64, Misfit> {
    let micros = fixed(Some(bytes)).map(i64::from_be_bytes).ok_or(WRONG_SIZE)?;
    if micros == i64::MAX || micros == i64::MIN {
        return Err(INFINITE);
    }
    micros.checked_add(MICROS_TO_2000).filter(|micros| *micros < i64::MAX).ok_or(OUT_OF_RANGE)
}

/// A `time`: microseconds since midnight. PostgreSQL's 24:00:00 is none of Arrow's.
fn time(bytes: &[u8]) -> Result<i64, Misfit> {
    let micros = fixed(Some(bytes)).map(i64::from_be_bytes).ok_or(WRONG_SIZE)?;
    if (0..MICROS_PER_DAY).contains(&micros) { Ok(micros) } else { Err(OUT_OF_RANGE) }
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
    if wire == WireType::Date {
        return own_date(bytes);
    }
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
    if wire == WireType::Timestamp {
        return own_timestamp(bytes);
    }
    let micros = if wire == WireType::Text {
        iso8601::read_timestamp(text(bytes)?)?
    } else {
        integer(bytes, wire)?.checked_mul(1000).ok_or(OUT_OF_RANGE)?
    };
    // The outermost values are infinities in DuckDB.
    Some(micros).filter(|micros| micros.unsigned_abs() < i64::MAX.unsigned_abs()).ok_or(OUT_OF_RANGE)
}
