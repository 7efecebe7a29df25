//! ISO 8601 dates and times, exact to the microsecond.

use super::Misfit;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// Reads `2013-01-31`, `2013-01-31T08:15`, `2013-01-31 08:15:00.25Z`, `…+01:00`; without an offset it is UTC.
///
/// Returns microseconds since the Unix epoch.
pub(super) fn read_timestamp(text: &str) -> Result<i64, Misfit> {
    let bad = || Misfit::new("is not an ISO 8601 date or time");
    let mut cursor = Cursor { rest: text.trim_ascii().as_bytes() };
    let days = read_date(&mut cursor).ok_or_else(bad)?;
    let mut micros = i128::from(days) * 86_400 * i128::from(MICROS_PER_SECOND);
    if cursor.rest.is_empty() {
        return fit(micros);
    }
    if !cursor.take_any(b"Tt ") {
        return Err(bad());
    }
    let time = read_time(&mut cursor).ok_or_else(bad)?;
    let fraction = if cursor.take_any(b".,") { read_fraction(&mut cursor)? } else { 0 };
    if time == 86_400 && fraction != 0 {
        return Err(bad());
    }
    let offset = read_offset(&mut cursor).ok_or_else(bad)?;
    if !cursor.rest.is_empty() {
        return Err(bad());
    }
    micros += i128::from(time - offset) * i128::from(MICROS_PER_SECOND) + i128::from(fraction);
    fit(micros)
}

fn fit(micros: i128) -> Result<i64, Misfit> {
    i64::try_from(micros).map_err(|_| Misfit::new("is out of range"))
}

struct Cursor<'t> {
    rest: &'t [u8],
}

impl Cursor<'_> {
    fn take_any(&mut self, letters: &[u8]) -> bool {
        let found = self.rest.first().is_some_and(|first| letters.contains(first));
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    /// Exactly `count` digits.
    fn digits(&mut self, count: usize) -> Option<i64> {
        let digits = self.rest.get(..count).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
        self.rest = &self.rest[count..];
        Some(digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
    }

    fn digits_ahead(&self) -> usize {
        self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
    }
}

/// Days since 1970-01-01 of `YYYY-MM-DD`; years outside 0 to 9999 carry a sign.
fn read_date(cursor: &mut Cursor<'_>) -> Option<i64> {
    let negative = cursor.rest.first() == Some(&b'-');
    let signed = cursor.take_any(b"+-");
    let year_digits = cursor.digits_ahead();
    if !(if signed { 4..=6 } else { 4..=4 }).contains(&year_digits) {
        return None;
    }
    let year = cursor.digits(year_digits)?;
    let year = i32::try_from(if negative { -year } else { year }).ok()?;
    cursor.take_any(b"-").then_some(())?;
    let month = u32::try_from(cursor.digits(2)?).ok()?;
    cursor.take_any(b"-").then_some(())?;
    let day = u32::try_from(cursor.digits(2)?).ok()?;
    let date = chrono::NaiveDate::from_ymd_opt(year, month, day)?;
    Some(date.signed_duration_since(chrono::NaiveDate::default()).num_days())
}

/// Seconds of the day of `HH:MM` or `HH:MM:SS`; 24:00:00 is the end of the day.
fn read_time(cursor: &mut Cursor<'_>) -> Option<i64> {
    let hour = cursor.digits(2)?;
    cursor.take_any(b":").then_some(())?;
    let minute = cursor.digits(2)?;
    let second = if cursor.take_any(b":") { cursor.digits(2)? } else { 0 };
    let is_valid = (hour < 24 && minute < 60 && second < 60) || (hour, minute, second) == (24, 0, 0);
    is_valid.then_some(hour * 3600 + minute * 60 + second)
}

/// Microseconds of the digits after the decimal mark.
fn read_fraction(cursor: &mut Cursor<'_>) -> Result<i64, Misfit> {
    let count = cursor.digits_ahead();
    let (digits, rest) = cursor.rest.split_at(count);
    if digits.is_empty() {
        return Err(Misfit::new("is not an ISO 8601 date or time"));
    }
    if digits.iter().skip(6).any(|digit| *digit != b'0') {
        return Err(Misfit::new("has more than six digits after the second"));
    }
    cursor.rest = rest;
    let micros = (0..6).fold(0, |number, at| number * 10 + i64::from(digits.get(at).map_or(0, |digit| digit - b'0')));
    Ok(micros)
}

/// Seconds east of UTC of nothing, `Z`, `±HH`, `±HHMM`, `±HH:MM`.
fn read_offset(cursor: &mut Cursor<'_>) -> Option<i64> {
    if cursor.rest.is_empty() || cursor.take_any(b"Zz") {
        return Some(0);
    }
    let negative = cursor.rest.first() == Some(&b'-');
    cursor.take_any(b"+-").then_some(())?;
    let hours = cursor.digits(2)?;
    let minutes = if cursor.take_any(b":") || cursor.digits_ahead() > 0 { cursor.digits(2)? } else { 0 };
    if hours > 18 || minutes > 59 {
        return None;
    }
    let seconds = hours * 3600 + minutes * 60;
    Some(if negative { -seconds } else { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form() {
        for (text, micros) in [
            ("1970-01-01", 0),
            ("1970-01-02", 86_400_000_000),
            ("1969-12-31", -86_400_000_000),
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01t00:00:00z", 0),
            ("1970-01-01 01:00", 3_600_000_000),
            ("1970-01-01T00:00:00.25", 250_000),
            ("1970-01-01T00:00:00,000001", 1),
            ("1970-01-01T00:00:00.123456000", 123_456),
            ("1970-01-01T00:00:00+01:00", -3_600_000_000),
            ("1970-01-01T00:00:00-0130", 5_400_000_000),
            ("1970-01-01T00:00:00+05", -18_000_000_000),
            ("1969-12-31T23:59:59.999999Z", -1),
            ("1969-12-31T24:00:00Z", 0),
            ("2013-07-04T12:30:15.5+02:00", 1_372_933_815_500_000),
            ("2000-02-29", 951_782_400_000_000),
            ("-0001-01-01", -62_198_755_200_000_000),
            ("+12345-01-01", 327_403_382_400_000_000),
        ] {
            assert_eq!(read_timestamp(text), Ok(micros), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "2013",
            "20130704",
            "2013-7-4",
            "2013-02-29",
            "2013-13-01",
            "12345-01-01",
            "2013-07-04T",
            "2013-07-04T25:00",
            "2013-07-04T24:00:01",
            "2013-07-04T24:00:00.5",
            "2013-07-04T12:60",
            "2013-07-04T12:30:60",
            "2013-07-04T12:30:15.",
            "2013-07-04T12:30:15.1234567",
            "2013-07-04T12:30:15+1",
            "2013-07-04T12:30:15+01:",
            "2013-07-04T12:30:15 Europe/Zurich",
            "2013-07-04Z",
            "infinity",
        ] {
            assert!(read_timestamp(text).is_err(), "{text}");
        }
    }
}
