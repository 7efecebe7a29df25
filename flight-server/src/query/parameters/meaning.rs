//! Whether a value means the same in the type that DuckDB inferred for its parameter.
//!
//! DuckDB infers the type of what stands beside the parameter: `3 = ?` makes it an INTEGER. A cast there changes what is
//! said of 2.6, of a timestamp that is compared with a date, or of 100000 beside a SMALLINT. So a value takes the inferred
//! type only where nothing is lost and no comparison ends otherwise; else it keeps its own, as a literal would.

use translator::quote::{date_text, decimal_text, duckdb_text};

use super::value::{BoundValue, Content, uuid_sql};
use crate::engine::sql_type::SqlType;

const NANOS_PER_DAY: i128 = 86_400_000_000_000;
/// Days about the epoch that every date and timestamp type of DuckDB holds.
const CERTAIN_DAYS: i128 = 100_000_000;
/// Every integer below it is a double, and no other integer becomes the same one.
const EXACT_INTEGERS: i128 = 1 << 53;

/// The SQL of a value whose parameter was inferred to be `wanted`.
pub(super) fn sql(value: &BoundValue, wanted: Option<&SqlType>) -> String {
    let Some(wanted) = wanted else { return value.sql.clone() };
    match &value.content {
        Content::Null => format!("CAST(NULL AS {wanted})"),
        _ if value.own.as_ref() == Some(wanted) && *wanted != SqlType::Text => value.sql.clone(),
        _ => match kept(value, wanted) {
            Some(sql) => sql,
            None => value.sql.clone(),
        },
    }
}

/// The SQL of a value that nothing gave a type, read as a UUID or a list of them.
pub(super) fn ids(value: &BoundValue) -> Option<String> {
    match &value.content {
        Content::Text(text) => {
            let groups: Vec<&str> = text.split('-').collect();
            let is_id = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
                && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()));
            is_id.then(|| format!("CAST({} AS {})", value.sql, SqlType::Uuid))
        }
        Content::Bytes(bytes) => uuid_sql(bytes),
        Content::Items(items) if !items.is_empty() => {
            let item = |item: &BoundValue| match item.content {
                Content::Null => Some("NULL".to_owned()),
                _ => ids(item),
            };
            let items = items.iter().map(item).collect::<Option<Vec<_>>>()?;
            Some(format!("CAST([{}] AS {}[])", items.join(", "), SqlType::Uuid))
        }
        _ => None,
    }
}

/// The value as `wanted`, when it means the same there.
fn kept(value: &BoundValue, wanted: &SqlType) -> Option<String> {
    let keeps = match (&value.content, wanted) {
        (Content::Null, _) => true,
        // A literal's text is read as what it stands beside, whatever is lost.
        (Content::Text(_), _) => !matches!(wanted, SqlType::List(_)),
        (Content::Bytes(bytes), SqlType::Uuid) => return uuid_sql(bytes),
        (Content::Items(items), SqlType::List(item)) => {
            let items = items.iter().map(|value| kept(value, item)).collect::<Option<Vec<_>>>()?;
            return Some(format!("CAST([{}] AS {wanted})", items.join(", ")));
        }
        (Content::Bool(_), wanted) => *wanted == SqlType::Boolean || wanted.integers().is_some(),
        (Content::Exact { unscaled, scale }, wanted) => return exact(*unscaled, *scale, wanted),
        (Content::Float(number), wanted) => return float(*number, value, wanted),
        (Content::Moment(nanos), SqlType::Date) => {
            let days =
                (nanos % NANOS_PER_DAY == 0).then_some(nanos / NANOS_PER_DAY).filter(|days| days.abs() < CERTAIN_DAYS);
            return Some(literal(&date_text(i32::try_from(days?).ok()?), wanted));
        }
        (Content::Moment(nanos), wanted) => moment(*nanos, wanted),
        (Content::Bytes(_) | Content::Items(_) | Content::Other, wanted) => value.own.as_ref() == Some(wanted),
    };
    keeps.then(|| format!("CAST({} AS {wanted})", value.sql))
}

/// A constant of a type, in the form that the translator reads.
fn literal(text: &str, sql_type: &SqlType) -> String {
    format!("CAST({} AS {sql_type})", duckdb_text(text))
}

/// An exact number as `wanted`.
fn exact(unscaled: i128, scale: u8, wanted: &SqlType) -> Option<String> {
    let rescaled = |to: u8| {
        if to >= scale {
            10i128.checked_pow((to - scale).into()).and_then(|factor| unscaled.checked_mul(factor))
        } else {
            let divisor = 10i128.checked_pow((scale - to).into())?;
            (unscaled % divisor == 0).then_some(unscaled / divisor)
        }
    };
    match wanted {
        SqlType::Boolean => {
            let flag = rescaled(0).filter(|whole| matches!(whole, 0 | 1))? == 1;
            Some(literal(&flag.to_string(), wanted))
        }
        SqlType::Decimal { width, scale: to } => {
            let unscaled = rescaled(*to)?;
            let bound = 10u128.checked_pow((*width).into())?;
            (unscaled.unsigned_abs() < bound).then(|| literal(&decimal_text(unscaled, *to), wanted))
        }
        SqlType::Double => {
            rescaled(0).filter(|whole| whole.abs() <= EXACT_INTEGERS).map(|whole| literal(&whole.to_string(), wanted))
        }
        wanted => {
            let whole = rescaled(0)?;
            wanted.integers()?.contains(&whole).then(|| literal(&whole.to_string(), wanted))
        }
    }
}

/// A floating-point number as `wanted`.
fn float(number: f64, value: &BoundValue, wanted: &SqlType) -> Option<String> {
    match wanted {
        SqlType::Double => Some(format!("CAST({} AS {wanted})", value.sql)),
        #[expect(clippy::cast_possible_truncation, reason = "the loss is what is looked for")]
        SqlType::Float => (f64::from(number as f32) == number).then(|| format!("CAST({} AS {wanted})", value.sql)),
        // A decimal of more digits may be compared with another double than the nearest.
        SqlType::Decimal { width, .. } if *width > 15 => None,
        SqlType::Decimal { .. } => decimal_of(number).and_then(|(unscaled, scale)| exact(unscaled, scale, wanted)),
        wanted => {
            let (unscaled, scale) = decimal_of(number)?;
            (unscaled.abs() < EXACT_INTEGERS && scale == 0).then(|| exact(unscaled, scale, wanted)).flatten()
        }
    }
}

/// The shortest decimal that is read as this double and no other; not of a negative zero, which is another number to a
/// double alone.
fn decimal_of(number: f64) -> Option<(i128, u8)> {
    if !number.is_finite() || (number == 0.0 && number.is_sign_negative()) {
        return None;
    }
    let text = number.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    Some((format!("{whole}{fraction}").parse().ok()?, u8::try_from(fraction.len()).ok()?))
}

fn moment(nanos: i128, wanted: &SqlType) -> bool {
    let unit = match wanted {
        SqlType::TimestampSeconds => 1_000_000_000,
        SqlType::TimestampMillis => 1_000_000,
        SqlType::Timestamp | SqlType::TimestampTz => 1_000,
        SqlType::TimestampNanos => return i64::try_from(nanos).is_ok(),
        _ => return false,
    };
    nanos % unit == 0 && nanos.abs() < CERTAIN_DAYS * NANOS_PER_DAY
}

#[cfg(test)]
mod tests;
