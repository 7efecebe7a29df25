//! Constants of the user's SQL as typed values.
//!
//! Only forms whose meaning is certain are read: everything else is left to DuckDB, which costs speed and never an
//! answer. [`Literal::coerce`] follows DuckDB's rules for comparing a column with a constant.

use serde_json::Value as Json;

use crate::catalog::ScalarType;
use crate::quote::{civil_from_days, days_from_civil};
use crate::tree::{array, text};
use crate::value::Value;

/// A constant expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Null,
    /// A string literal without a type of its own: it takes the type of what it is compared with.
    Untyped(String),
    Typed(Value),
}

const MICROS_PER_DAY: i64 = 86_400_000_000;

impl Literal {
    /// Reads a constant expression: literals, casts of literals, negated numbers.
    pub(crate) fn read(expression: &Json) -> Option<Self> {
        match text(&expression["class"]) {
            "CONSTANT" => constant(&expression["value"]),
            "CAST" => cast(Self::read(&expression["child"])?, &expression["cast_type"]),
            "FUNCTION" => {
                if let Some(moment) = shifted_moment(expression) {
                    return Some(Self::Typed(Value::Timestamp(moment)));
                }
                let operands: Vec<Value> = array(&expression["children"])
                    .iter()
                    .map(|operand| match Self::read(operand)? {
                        Self::Typed(value) => Some(value),
                        Self::Null | Self::Untyped(_) => None,
                    })
                    .collect::<Option<_>>()?;
                call(text(&expression["function_name"]), &operands).map(Self::Typed)
            }
            _ => None,
        }
    }

    /// The value that DuckDB compares a column of type `scalar` with, when it is certain. `None` also for NULL.
    pub(crate) fn coerce(&self, scalar: ScalarType) -> Option<Value> {
        match self {
            Self::Null => None,
            Self::Untyped(text) => parse_as(text, scalar),
            Self::Typed(value) => {
                let compatible = match scalar {
                    ScalarType::Text => matches!(value, Value::Text(_)),
                    ScalarType::SmallInt
                    | ScalarType::Integer
                    | ScalarType::BigInt
                    | ScalarType::Double
                    | ScalarType::Decimal { .. } => {
                        matches!(value, Value::Int(_) | Value::Decimal { .. } | Value::Double(_))
                    }
                    // DuckDB brings the constant to FLOAT: only where that changes nothing is the comparison certain.
                    ScalarType::Real => match value {
                        Value::Double(_) => true,
                        value => exact_double(value).is_some_and(|double| f64::from(double as f32) == double),
                    },
                    ScalarType::Boolean => matches!(value, Value::Bool(_)),
                    ScalarType::Uuid => matches!(value, Value::Uuid(_)),
                    ScalarType::Date => matches!(value, Value::Date(_) | Value::Timestamp(_)),
                    // The session's zone is UTC: with and without a zone compare as the same number.
                    ScalarType::Timestamp | ScalarType::TimestampNaive => {
                        matches!(value, Value::Timestamp(_) | Value::Date(_))
                    }
                    ScalarType::Time => matches!(value, Value::Time(_)),
                    ScalarType::Blob => matches!(value, Value::Blob(_)),
                    ScalarType::Json => false,
                };
                match (scalar, value) {
                    // DuckDB compares at TIMESTAMPTZ, and the session's zone is UTC.
                    (ScalarType::Timestamp | ScalarType::TimestampNaive, Value::Date(days)) => {
                        i64::from(*days).checked_mul(MICROS_PER_DAY).map(Value::Timestamp)
                    }
                    // A parameter: its Arrow type is text. DuckDB reads a VARCHAR that is compared with a UUID as one.
                    (ScalarType::Uuid, Value::Text(text)) => parse_uuid(text).map(Value::Uuid),
                    _ => compatible.then(|| value.clone()),
                }
            }
        }
    }
}

/// The functions of constants whose results are certain.
fn call(name: &str, operands: &[Value]) -> Option<Value> {
    // Far inside the ranges of DuckDB's dates and timestamps, whose ends are infinities.
    const MOST_DAYS: i128 = 1_000_000;
    const MOST_MICROS: i128 = 1 << 61;
    let day = |days: i128| (days.abs() <= MOST_DAYS).then(|| i32::try_from(days).ok().map(Value::Date)).flatten();
    match (name, operands) {
        ("-", [Value::Int(value)]) => Some(Value::Int(value.checked_neg()?)),
        ("-", [Value::Decimal { unscaled, scale }]) => {
            Some(Value::Decimal { unscaled: unscaled.checked_neg()?, scale: *scale })
        }
        ("-", [Value::Double(value)]) => Some(Value::Double(-value)),
        ("+", [Value::Date(days), Value::Int(more)]) => day(i128::from(*days).checked_add(*more)?),
        ("-", [Value::Date(days), Value::Int(less)]) => day(i128::from(*days).checked_sub(*less)?),
        ("make_timestamp" | "make_timestamptz", [Value::Int(micros)]) if micros.abs() <= MOST_MICROS => {
            i64::try_from(*micros).ok().map(Value::Timestamp)
        }
        _ => None,
    }
}

/// A moment plus or minus an interval: `TIMESTAMP '2024-01-01' - INTERVAL 7 DAY`.
fn shifted_moment(expression: &Json) -> Option<i64> {
    let [moment, shift] = array(&expression["children"]) else { return None };
    let sign = match text(&expression["function_name"]) {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let micros = match Literal::read(moment)? {
        Literal::Typed(Value::Timestamp(micros)) => micros,
        Literal::Typed(Value::Date(days)) => i64::from(days).checked_mul(MICROS_PER_DAY)?,
        _ => return None,
    };
    let (months, micros) = match interval(shift)? {
        Interval::Months(months) => (months.checked_mul(sign)?, micros),
        Interval::Micros(shift) => (0, micros.checked_add(shift.checked_mul(sign)?)?),
    };
    // Whatever the calendar was in other centuries, these are certain.
    let is_certain = |micros: i64| (-2_208_988_800_000_000..7_258_118_400_000_000).contains(&micros);
    let (days, time) = (micros.div_euclid(MICROS_PER_DAY), micros.rem_euclid(MICROS_PER_DAY));
    let (year, month, day) = is_certain(micros).then(|| civil_from_days(days))?;
    let month = year * 12 + month - 1 + months;
    let (year, month) = (month.div_euclid(12), month.rem_euclid(12) + 1);
    // The 31st of a shorter month is its last day.
    let days = (28..=day).rev().chain([day]).find_map(|day| days_from_civil(year, month, day))?;
    let micros = days.checked_mul(MICROS_PER_DAY)?.checked_add(time)?;
    is_certain(micros).then_some(micros)
}

enum Interval {
    Months(i64),
    /// Days are of 24 hours: the session's zone is UTC.
    Micros(i64),
}

/// An interval of one unit, as the parser writes `INTERVAL 7 DAY`: `to_days(CAST(trunc(CAST(7 AS DOUBLE)) AS INTEGER))`.
fn interval(expression: &Json) -> Option<Interval> {
    const MOST: i64 = 1_000_000_000;
    let [number] = array(&expression["children"]) else { return None };
    let mut number = number;
    loop {
        number = match (text(&number["class"]), array(&number["children"])) {
            ("CAST", _) if matches!(text(&number["cast_type"]["id"]), "INTEGER" | "BIGINT" | "DOUBLE") => {
                &number["child"]
            }
            ("FUNCTION", [whole]) if text(&number["function_name"]) == "trunc" => whole,
            _ => break,
        };
    }
    let number = match Literal::read(number)? {
        Literal::Typed(Value::Int(number)) => i64::try_from(number).ok()?,
        Literal::Untyped(number) => plain_integer(&number)?.parse().ok()?,
        _ => return None,
    };
    let number = (-MOST..=MOST).contains(&number).then_some(number)?;
    let micros = |unit: i64| number.checked_mul(unit).map(Interval::Micros);
    match text(&expression["function_name"]) {
        "to_years" => Some(Interval::Months(number * 12)),
        "to_quarters" => Some(Interval::Months(number * 3)),
        "to_months" => Some(Interval::Months(number)),
        "to_weeks" => micros(7 * MICROS_PER_DAY),
        "to_days" => micros(MICROS_PER_DAY),
        "to_hours" => micros(3_600_000_000),
        "to_minutes" => micros(60_000_000),
        "to_seconds" => micros(1_000_000),
        "to_milliseconds" => micros(1000),
        "to_microseconds" => micros(1),
        _ => None,
    }
}

fn constant(value: &Json) -> Option<Literal> {
    if value["is_null"].as_bool() == Some(true) {
        return Some(Literal::Null);
    }
    let content = &value["value"];
    let typed = match text(&value["type"]["id"]) {
        "BOOLEAN" => Value::Bool(content.as_bool()?),
        "TINYINT" | "SMALLINT" | "INTEGER" | "BIGINT" | "UTINYINT" | "USMALLINT" | "UINTEGER" | "UBIGINT"
        | "HUGEINT" => Value::Int(integer(content)?),
        "DECIMAL" => Value::Decimal {
            unscaled: integer(content)?,
            scale: u8::try_from(value["type"]["type_info"]["scale"].as_u64()?).ok()?,
        },
        "DOUBLE" => Value::Double(content.as_f64()?),
        "VARCHAR" => return Some(Literal::Untyped(content.as_str()?.to_owned())),
        _ => return None,
    };
    Some(Literal::Typed(typed))
}

/// An integer, also in DuckDB's two-part form of 128 bits.
pub(crate) fn integer(content: &Json) -> Option<i128> {
    if let Some(value) = content.as_i64() {
        return Some(i128::from(value));
    }
    if let Some(value) = content.as_u64() {
        return Some(i128::from(value));
    }
    let upper = i128::from(content["upper"].as_i64()?);
    let lower = i128::from(content["lower"].as_u64()?);
    upper.checked_mul(1 << 64)?.checked_add(lower)
}

fn cast(literal: Literal, cast_type: &Json) -> Option<Literal> {
    let id = text(&cast_type["id"]);
    let value = match literal {
        Literal::Null => return Some(Literal::Null),
        Literal::Untyped(text) | Literal::Typed(Value::Text(text)) => match id {
            "VARCHAR" => Value::Text(text),
            "BOOLEAN" => parse_as(&text, ScalarType::Boolean)?,
            "DATE" => parse_as(&text, ScalarType::Date)?,
            "UUID" => parse_as(&text, ScalarType::Uuid)?,
            "TIME" => parse_as(&text, ScalarType::Time)?,
            "BLOB" => parse_as(&text, ScalarType::Blob)?,
            "TIMESTAMP WITH TIME ZONE" => Value::Timestamp(parse_timestamp(&text, true)?),
            "TIMESTAMP" => Value::Timestamp(parse_timestamp(&text, false)?),
            "DOUBLE" => parse_as(&text, ScalarType::Double)?,
            "DECIMAL" => decimal_cast(&parse_decimal(&text)?, cast_type)?,
            _ => {
                let value = plain_integer(&text)?.parse().ok()?;
                integer_range(id)?.contains(&value).then_some(Value::Int(value))?
            }
        },
        Literal::Typed(value) => match (value, id) {
            (value @ (Value::Int(_) | Value::Decimal { .. } | Value::Double(_)), "DOUBLE") => {
                Value::Double(exact_double(&value)?)
            }
            (value @ (Value::Int(_) | Value::Decimal { .. }), "DECIMAL") => decimal_cast(&value, cast_type)?,
            (Value::Int(value), id) => integer_range(id)?.contains(&value).then_some(Value::Int(value))?,
            (value @ Value::Date(_), "DATE") => value,
            (value @ Value::Timestamp(_), "TIMESTAMP" | "TIMESTAMP WITH TIME ZONE") => value,
            (Value::Date(days), "TIMESTAMP" | "TIMESTAMP WITH TIME ZONE") => {
                Value::Timestamp(i64::from(days).checked_mul(MICROS_PER_DAY)?)
            }
            (value @ Value::Uuid(_), "UUID") => value,
            (value @ Value::Time(_), "TIME") => value,
            (value @ Value::Blob(_), "BLOB") => value,
            (value @ Value::Bool(_), "BOOLEAN") => value,
            _ => return None,
        },
    };
    Some(Literal::Typed(value))
}

/// The values of an integer type.
fn integer_range(id: &str) -> Option<std::ops::RangeInclusive<i128>> {
    Some(match id {
        "TINYINT" => i8::MIN.into()..=i8::MAX.into(),
        "SMALLINT" => i16::MIN.into()..=i16::MAX.into(),
        "INTEGER" => i32::MIN.into()..=i32::MAX.into(),
        "BIGINT" => i64::MIN.into()..=i64::MAX.into(),
        "UTINYINT" => 0..=u8::MAX.into(),
        "USMALLINT" => 0..=u16::MAX.into(),
        "UINTEGER" => 0..=u32::MAX.into(),
        "UBIGINT" => 0..=u64::MAX.into(),
        "HUGEINT" => i128::MIN..=i128::MAX,
        _ => return None,
    })
}

/// A number as DECIMAL(p,s), when nothing is rounded.
fn decimal_cast(value: &Value, cast_type: &Json) -> Option<Value> {
    let part = |name: &str| u8::try_from(cast_type["type_info"][name].as_u64()?).ok();
    let (width, scale) = (part("width")?, part("scale")?);
    let (unscaled, from) = match value {
        Value::Int(value) => (*value, 0),
        Value::Decimal { unscaled, scale } => (*unscaled, *scale),
        _ => return None,
    };
    let unscaled = unscaled.checked_mul(10i128.checked_pow(scale.checked_sub(from)?.into())?)?;
    (unscaled.unsigned_abs() < 10u128.checked_pow(width.into())?).then_some(Value::Decimal { unscaled, scale })
}

/// Digits with at most one point.
fn parse_decimal(text: &str) -> Option<Value> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    let plain = !whole.is_empty() && all.len() <= 38 && all.bytes().all(|byte| byte.is_ascii_digit());
    let unscaled = plain.then(|| all.parse::<i128>().ok())??;
    Some(Value::Decimal { unscaled: sign * unscaled, scale: u8::try_from(fraction.len()).ok()? })
}

/// The double that DuckDB compares with, when DuckDB's conversion is certain to be the correctly rounded one.
pub(crate) fn exact_double(value: &Value) -> Option<f64> {
    const EXACT: i128 = 1 << 53;
    match value {
        Value::Double(value) => Some(*value),
        // Below 2^53 every integer is a double.
        Value::Int(value) => (value.abs() <= EXACT).then_some(*value as f64),
        // One correctly rounded division of two exact doubles; 10^22 is the greatest exact power of ten.
        Value::Decimal { unscaled, scale } => {
            (unscaled.abs() <= EXACT && *scale <= 22).then(|| *unscaled as f64 / 10f64.powi(i32::from(*scale)))
        }
        _ => None,
    }
}

/// Reads an untyped string literal as DuckDB casts it, for the plain spellings only.
fn parse_as(text: &str, scalar: ScalarType) -> Option<Value> {
    Some(match scalar {
        ScalarType::Text => Value::Text(text.to_owned()),
        ScalarType::SmallInt => Value::Int(plain_integer(text)?.parse::<i16>().ok()?.into()),
        ScalarType::Integer => Value::Int(plain_integer(text)?.parse::<i32>().ok()?.into()),
        ScalarType::BigInt => Value::Int(plain_integer(text)?.parse::<i64>().ok()?.into()),
        ScalarType::Real => {
            let Value::Double(value) = parse_as(text, ScalarType::Double)? else { return None };
            // Rounded twice is not always rounded once.
            (value.is_nan() || f64::from(value as f32) == value).then_some(Value::Double(value))?
        }
        ScalarType::Double => {
            let value: f64 = match text {
                "NaN" | "nan" => f64::NAN,
                "Infinity" | "inf" => f64::INFINITY,
                "-Infinity" | "-inf" => f64::NEG_INFINITY,
                // Both read digits, a point and an exponent as the nearest double.
                _ if text.bytes().all(|byte| byte.is_ascii_digit() || b".eE-+".contains(&byte))
                    && !text.starts_with('+') =>
                {
                    text.parse().ok().filter(|value: &f64| value.is_finite())?
                }
                _ => return None,
            };
            Value::Double(value)
        }
        // How a text is rounded to the column's scale is DuckDB's business.
        ScalarType::Decimal { .. } | ScalarType::Json => return None,
        ScalarType::Boolean => match text.to_ascii_lowercase().as_str() {
            "t" | "true" => Value::Bool(true),
            "f" | "false" => Value::Bool(false),
            _ => return None,
        },
        ScalarType::Uuid => Value::Uuid(parse_uuid(text)?),
        ScalarType::Date => Value::Date(i32::try_from(parse_date(text)?).ok()?),
        ScalarType::Timestamp => Value::Timestamp(parse_timestamp(text, true)?),
        ScalarType::TimestampNaive => Value::Timestamp(parse_timestamp(text, false)?),
        ScalarType::Time => {
            // A day in front of it, and away again.
            (text.len() >= 8).then_some(())?;
            Value::Time(parse_timestamp(&format!("1970-01-01 {text}"), false)?)
        }
        ScalarType::Blob => Value::Blob(parse_blob(text)?),
    })
}

/// Printable ASCII and `\\xHH`, as DuckDB reads a BLOB from text.
fn parse_blob(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = if *first == b'\\' {
            let hex = after.strip_prefix(b"x")?.get(..2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
            &after[3..]
        } else {
            first.is_ascii().then_some(())?;
            bytes.push(*first);
            after
        };
    }
    Some(bytes)
}

fn plain_integer(text: &str) -> Option<&str> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

/// A UUID in the hyphenated form, any case.
fn parse_uuid(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    let hyphens = [8, 13, 18, 23];
    if bytes.len() != 36 || hyphens.iter().any(|at| bytes[*at] != b'-') {
        return None;
    }
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    (hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .then(|| u128::from_str_radix(&hex, 16).ok())
        .flatten()
}

/// `YYYY-MM-DD` to days since 1970-01-01.
fn parse_date(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    days_from_civil(digits(&text[..4])?, digits(&text[5..7])?, digits(&text[8..])?)
}

/// `YYYY-MM-DD[( |T)HH:MM:SS[.ffffff][Z|±HH[:MM]]]` to microseconds; an offset only where the type has a zone.
fn parse_timestamp(text: &str, with_zone: bool) -> Option<i64> {
    if !text.is_ascii() || text.len() < 10 {
        return None;
    }
    let days = parse_date(&text[..10])?;
    let rest = &text[10..];
    if rest.is_empty() {
        return days.checked_mul(MICROS_PER_DAY);
    }
    let rest = rest.strip_prefix([' ', 'T'])?;
    if rest.len() < 8 || &rest[2..3] != ":" || &rest[5..6] != ":" {
        return None;
    }
    let (hours, minutes, seconds) = (digits(&rest[..2])?, digits(&rest[3..5])?, digits(&rest[6..8])?);
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let mut micros = days.checked_mul(MICROS_PER_DAY)? + ((hours * 60 + minutes) * 60 + seconds) * 1_000_000;
    let mut rest = &rest[8..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        if end == 0 || end > 6 {
            return None;
        }
        micros += digits(&fraction[..end])? * 10i64.pow(6 - u32::try_from(end).ok()?);
        rest = &fraction[end..];
    }
    if rest.is_empty() {
        return Some(micros);
    }
    if !with_zone {
        return None;
    }
    if rest == "Z" {
        return Some(micros);
    }
    let sign = match rest.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let offset = match rest.len() {
        3 => digits(&rest[1..3])? * 60,
        6 if &rest[3..4] == ":" => digits(&rest[1..3])? * 60 + digits(&rest[4..6])?,
        _ => return None,
    };
    (offset < 16 * 60).then(|| micros - sign * offset * 60_000_000)
}

fn digits(text: &str) -> Option<i64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untyped_text_takes_the_column_type() {
        let read = |text: &str, scalar| Literal::Untyped(text.to_owned()).coerce(scalar);
        assert_eq!(read("-5", ScalarType::Integer), Some(Value::Int(-5)));
        assert_eq!(read("99999", ScalarType::SmallInt), None);
        assert_eq!(read("1.50", ScalarType::Double), Some(Value::Double(1.5)));
        assert_eq!(read("1e5", ScalarType::Double), Some(Value::Double(1e5)));
        assert_eq!(read("1e999", ScalarType::Double), None);
        assert_eq!(read("TRUE", ScalarType::Boolean), Some(Value::Bool(true)));
        assert_eq!(read("1970-01-02", ScalarType::Date), Some(Value::Date(1)));
        assert_eq!(read("1970-13-02", ScalarType::Date), None);
        assert_eq!(
            read("1970-01-01 00:00:01.5+01:00", ScalarType::Timestamp),
            Some(Value::Timestamp(1_500_000 - 3_600_000_000))
        );
        assert_eq!(read("1970-01-01T00:00:00Z", ScalarType::Timestamp), Some(Value::Timestamp(0)));
        assert_eq!(read("0000000A-0000-0000-0000-000000000001", ScalarType::Uuid), Some(Value::Uuid((10 << 96) | 1)));
        assert_eq!(read("zz", ScalarType::Uuid), None);
    }

    #[test]
    fn doubles_are_exact_or_refused() {
        assert_eq!(exact_double(&Value::Decimal { unscaled: 15, scale: 1 }), Some(1.5));
        assert_eq!(exact_double(&Value::Int((1 << 53) + 1)), None);
    }
}
