//! Quoting: the only place where names and values become SQL text.

use std::fmt::{self, Display};

use crate::value::Value;

/// A quoted identifier; the same text in DuckDB and PostgreSQL.
#[derive(Debug, Clone, Copy)]
pub struct Ident<'a>(pub &'a str);

/// A table name with an optional schema (`change_log`, `app.change_log`), each part quoted.
#[derive(Debug, Clone, Copy)]
pub struct TableName<'a>(pub &'a str);

/// A value as text of either dialect.
#[derive(Debug, Clone, Copy)]
pub struct Literal<'a>(pub &'a Value);

impl Display for Ident<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

impl Display for TableName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.split('.').enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            Ident(part).fmt(f)?;
        }
        Ok(())
    }
}

impl Literal<'_> {
    /// DuckDB text with an explicit type wherever a bare literal would get another one.
    pub fn to_duckdb(&self) -> String {
        match self.0 {
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Decimal { unscaled, scale } => decimal_text(*unscaled, *scale),
            Value::Double(value) => format!("CAST({} AS DOUBLE)", duckdb_text(&double_text(*value))),
            Value::Text(value) => duckdb_text(value),
            Value::Uuid(value) => format!("CAST('{}' AS UUID)", uuid_text(*value)),
            Value::Date(days) => format!("CAST('{}' AS DATE)", date_text(*days)),
            Value::Timestamp(micros) => format!("CAST('{}+00' AS TIMESTAMPTZ)", timestamp_text(*micros)),
            Value::Time(micros) => format!("CAST('{}' AS TIME)", time_text(*micros)),
            Value::Blob(bytes) => {
                let hex: String = bytes.iter().map(|byte| format!("\\x{byte:02X}")).collect();
                format!("CAST('{hex}' AS BLOB)")
            }
        }
    }
}

/// A text literal of DuckDB.
pub fn duckdb_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A text literal of PostgreSQL, whatever `standard_conforming_strings` says. PostgreSQL has no text with a NUL
/// character: `None` then.
pub fn postgres_text(text: &str) -> Option<String> {
    if text.contains('\0') {
        return None;
    }
    let quoted = text.replace('\'', "''");
    Some(if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") })
}

/// A double that PostgreSQL reads back exactly.
pub fn postgres_double(value: f64) -> String {
    format!("'{}'::double precision", double_text(value))
}

/// The shortest text that reads back as the same double, in both databases.
fn double_text(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() }
    } else {
        format!("{value:e}")
    }
}

/// `unscaled / 10^scale` in decimal notation.
pub fn decimal_text(unscaled: i128, scale: u8) -> String {
    if scale == 0 {
        return unscaled.to_string();
    }
    let scale = usize::from(scale);
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{}{whole}.{fraction}", if unscaled < 0 { "-" } else { "" })
}

/// Canonical lower-case text of a UUID.
pub fn uuid_text(value: u128) -> String {
    let hex = format!("{value:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// ISO date (proleptic Gregorian); years before 1 in DuckDB's `(BC)` notation.
pub fn date_text(days: i32) -> String {
    let (year, month, day) = civil_from_days(i64::from(days));
    if year > 0 {
        format!("{year:04}-{month:02}-{day:02}")
    } else {
        format!("{:04}-{month:02}-{day:02} (BC)", 1 - year)
    }
}

/// ISO timestamp in UTC, without an offset.
pub fn timestamp_text(micros: i64) -> String {
    const DAY: i64 = 86_400_000_000;
    let (days, rest) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
    let (year, month, day) = civil_from_days(days);
    let time = time_text(rest);
    if year > 0 {
        format!("{year:04}-{month:02}-{day:02} {time}")
    } else {
        format!("{:04}-{month:02}-{day:02} (BC) {time}", 1 - year)
    }
}

/// A time of day, of microseconds since midnight.
pub fn time_text(micros: i64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    format!("{:02}:{:02}:{:02}.{fraction:06}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Days since 1970-01-01 to (year, month, day).
/// <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>
pub(crate) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// (year, month, day) to days since 1970-01-01; `None` for a day that the calendar lacks.
/// <https://howardhinnant.github.io/date_algorithms.html#days_from_civil>
pub fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || day < 1 {
        return None;
    }
    let shifted_year = year - i64::from(month <= 2);
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_and_texts_are_quoted() {
        assert_eq!(Ident("a\"b").to_string(), "\"a\"\"b\"");
        assert_eq!(TableName("app.log").to_string(), "\"app\".\"log\"");
        assert_eq!(duckdb_text("it's \\"), "'it''s \\'");
        assert_eq!(postgres_text("it's \\").unwrap(), "E'it''s \\\\'");
        assert_eq!(postgres_text("a\0"), None);
    }

    #[test]
    fn values_keep_their_type() {
        let cases = [
            (Value::Int(-5), "-5"),
            (Value::Decimal { unscaled: -5, scale: 2 }, "-0.05"),
            (Value::Double(f64::NEG_INFINITY), "CAST('-Infinity' AS DOUBLE)"),
            (Value::Double(0.1), "CAST('1e-1' AS DOUBLE)"),
            (Value::Date(-1), "CAST('1969-12-31' AS DATE)"),
            (Value::Date(-719_529), "CAST('0002-12-31 (BC)' AS DATE)"),
            (Value::Timestamp(-1), "CAST('1969-12-31 23:59:59.999999+00' AS TIMESTAMPTZ)"),
            (Value::Uuid(1), "CAST('00000000-0000-0000-0000-000000000001' AS UUID)"),
        ];
        for (value, expected) in cases {
            assert_eq!(Literal(&value).to_duckdb(), expected);
        }
    }

    #[test]
    fn days_and_dates_are_inverse() {
        for days in (-1_000_000..1_000_000).step_by(97) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), Some(days));
        }
        assert_eq!(days_from_civil(2013, 2, 29), None);
    }
}
