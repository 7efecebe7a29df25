//! The CSV files as rows.
//!
//! They hold no quotes and no commas inside fields, so a line splits at its commas; a line of another width is an
//! error.

use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, NaiveDate};

const MINUTE_MS: i64 = 60_000;

/// One line of `flights.csv`, and what later edits say of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Flight {
    pub carrier: String,
    pub number: i32,
    pub tailnum: Option<String>,
    pub origin: String,
    pub dest: String,
    /// The local day of departure.
    pub date: NaiveDate,
    /// Unix milliseconds.
    pub scheduled_departure: i64,
    /// Local time as `hhmm`.
    pub scheduled_arrival: i16,
    pub arrival: Option<i16>,
    /// Minutes. A flight without it never left.
    pub departure_delay: Option<i32>,
    pub arrival_delay: Option<i32>,
    /// Minutes.
    pub air_time: Option<f64>,
    /// Miles.
    pub distance: i32,
    /// Why it never left; the CSV file doesn't say, an edit may.
    pub cancellation_reason: Option<String>,
}

impl Flight {
    /// When it left, in Unix milliseconds.
    pub fn departed_at(&self) -> Option<i64> {
        self.departure_delay.map(|minutes| self.scheduled_departure + i64::from(minutes) * MINUTE_MS)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Weather {
    pub origin: String,
    /// Unix milliseconds.
    pub observed_at: i64,
    pub date: NaiveDate,
    pub temp: Option<f64>,
    pub dewp: Option<f64>,
    pub humid: Option<f64>,
    pub wind_dir: Option<i16>,
    pub wind_speed: Option<f64>,
    pub wind_gust: Option<f64>,
    pub precip: Option<f64>,
    pub pressure: Option<f64>,
    pub visib: Option<f64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Airline {
    pub carrier: String,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Airport {
    pub faa: String,
    pub name: String,
    pub lat: f64,
    pub lon: f64,
    pub alt: i32,
    pub tz: i16,
    pub dst: String,
    pub tzone: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Plane {
    pub tailnum: String,
    pub year: Option<i16>,
    pub kind: String,
    pub manufacturer: String,
    pub model: String,
    pub engines: i16,
    pub seats: i32,
    pub speed: Option<i32>,
    pub engine: String,
}

/// All five files.
#[derive(Debug)]
pub struct Source {
    pub flights: Vec<Flight>,
    pub weather: Vec<Weather>,
    pub airlines: Vec<Airline>,
    pub airports: Vec<Airport>,
    pub planes: Vec<Plane>,
}

impl Source {
    /// Reads the files of a directory.
    ///
    /// # Errors
    /// A file is missing (then run `cargo xtask setup`) or holds something unexpected.
    pub fn read(directory: &Path) -> Result<Self> {
        Ok(Self {
            flights: read_file(&directory.join("flights.csv"), flight)?,
            weather: read_file(&directory.join("weather.csv"), weather)?,
            airlines: read_file(&directory.join("airlines.csv"), airline)?,
            airports: read_file(&directory.join("airports.csv"), airport)?,
            planes: read_file(&directory.join("planes.csv"), plane)?,
        })
    }
}

fn flight(fields: &[&str; 19]) -> Result<Flight> {
    let [
        year,
        month,
        day,
        _departure,
        _scheduled,
        departure_delay,
        arrival,
        scheduled_arrival,
        arrival_delay,
        carrier,
        number,
        tailnum,
        origin,
        dest,
        air_time,
        distance,
        _hour,
        minute,
        time_hour,
    ] = *fields;
    Ok(Flight {
        carrier: carrier.to_owned(),
        number: required(number)?,
        tailnum: optional(tailnum)?,
        origin: origin.to_owned(),
        dest: dest.to_owned(),
        date: date(year, month, day)?,
        scheduled_departure: instant(time_hour)? + required::<i64>(minute)? * MINUTE_MS,
        scheduled_arrival: required(scheduled_arrival)?,
        arrival: optional(arrival)?,
        departure_delay: optional(departure_delay)?,
        arrival_delay: optional(arrival_delay)?,
        air_time: optional(air_time)?,
        distance: required(distance)?,
        cancellation_reason: None,
    })
}

fn weather(fields: &[&str; 15]) -> Result<Weather> {
    let [
        origin,
        year,
        month,
        day,
        _hour,
        temp,
        dewp,
        humid,
        wind_dir,
        wind_speed,
        wind_gust,
        precip,
        pressure,
        visib,
        time_hour,
    ] = *fields;
    Ok(Weather {
        origin: origin.to_owned(),
        observed_at: instant(time_hour)?,
        date: date(year, month, day)?,
        temp: optional(temp)?,
        dewp: optional(dewp)?,
        humid: optional(humid)?,
        wind_dir: optional(wind_dir)?,
        wind_speed: optional(wind_speed)?,
        wind_gust: optional(wind_gust)?,
        precip: optional(precip)?,
        pressure: optional(pressure)?,
        visib: optional(visib)?,
    })
}

fn airline(fields: &[&str; 2]) -> Result<Airline> {
    let [carrier, name] = *fields;
    Ok(Airline { carrier: carrier.to_owned(), name: name.to_owned() })
}

fn airport(fields: &[&str; 8]) -> Result<Airport> {
    let [faa, name, lat, lon, alt, tz, dst, tzone] = *fields;
    Ok(Airport {
        faa: faa.to_owned(),
        name: name.to_owned(),
        lat: required(lat)?,
        lon: required(lon)?,
        alt: required(alt)?,
        tz: required(tz)?,
        dst: dst.to_owned(),
        tzone: optional(tzone)?,
    })
}

fn plane(fields: &[&str; 9]) -> Result<Plane> {
    let [tailnum, year, kind, manufacturer, model, engines, seats, speed, engine] = *fields;
    Ok(Plane {
        tailnum: tailnum.to_owned(),
        year: optional(year)?,
        kind: kind.to_owned(),
        manufacturer: manufacturer.to_owned(),
        model: model.to_owned(),
        engines: required(engines)?,
        seats: required(seats)?,
        speed: optional(speed)?,
        engine: engine.to_owned(),
    })
}

fn read_file<T, const WIDTH: usize>(path: &Path, parse: fn(&[&str; WIDTH]) -> Result<T>) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read `{}`; run `cargo xtask setup`", path.display()))?;
    let lines = text.lines().enumerate().skip(1);
    lines
        .map(|(index, line)| row(line, parse).with_context(|| format!("`{}`, line {}", path.display(), index + 1)))
        .collect()
}

fn row<T, const WIDTH: usize>(line: &str, parse: fn(&[&str; WIDTH]) -> Result<T>) -> Result<T> {
    let mut fields = [""; WIDTH];
    let mut split = line.split(',');
    for field in &mut fields {
        *field = split.next().context("too few fields")?;
    }
    ensure!(split.next().is_none(), "too many fields");
    parse(&fields)
}

fn required<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(text: &str) -> Result<T> {
    text.parse().with_context(|| format!("unexpected `{text}`"))
}

fn optional<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(text: &str) -> Result<Option<T>> {
    if text == "NA" || text.is_empty() { Ok(None) } else { required(text).map(Some) }
}

fn date(year: &str, month: &str, day: &str) -> Result<NaiveDate> {
    NaiveDate::from_ymd_opt(required(year)?, required(month)?, required(day)?).context("no such day")
}

fn instant(text: &str) -> Result<i64> {
    let time = DateTime::parse_from_rfc3339(text).with_context(|| format!("unexpected time `{text}`"))?;
    Ok(time.timestamp_millis())
}
