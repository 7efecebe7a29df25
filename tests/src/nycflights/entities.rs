//! The five entities: their attributes, and the values of a row.

use chrono::NaiveDate;

use super::source::{Airline, Airport, Flight, Plane, Weather};
use crate::model::{Entity, Kind, Value};

pub fn flights() -> Entity {
    Entity::new("flights", 100)
        .main("carrier", Kind::Text, "text_01")
        .main("flight", Kind::Integer, "integer_01")
        .main("tailnum", Kind::Text, "text_02")
        .main("origin", Kind::Text, "text_03")
        .main("dest", Kind::Text, "text_04")
        .main("flight_date", Kind::Date, "bigint_01")
        .main("scheduled_departure", Kind::Timestamp, "bigint_02")
        .main("sched_arr_time", Kind::SmallInt, "smallint_01")
        .main("distance", Kind::Integer, "integer_02")
        .main("cancelled", Kind::Boolean, "smallint_02")
        .eav("dep_delay", Kind::Integer, 201)
        .eav("arr_delay", Kind::Integer, 202)
        .eav("air_time", Kind::Double, 203)
        .eav("delayed", Kind::Boolean, 204)
        .eav("departed_at", Kind::Timestamp, 205)
        .eav("arr_time", Kind::SmallInt, 206)
        .eav("cancellation.reason", Kind::Text, 207)
}

pub(super) fn flight_values(flight: &Flight) -> Vec<Value> {
    vec![
        text(&flight.carrier),
        integer(flight.number),
        optional_text(flight.tailnum.as_deref()),
        text(&flight.origin),
        text(&flight.dest),
        date(flight.date),
        Value::Timestamp(flight.scheduled_departure),
        integer(flight.scheduled_arrival),
        integer(flight.distance),
        Value::Boolean(flight.departure_delay.is_none()),
        flight.departure_delay.map_or(Value::Null, integer),
        flight.arrival_delay.map_or(Value::Null, integer),
        flight.air_time.map_or(Value::Null, Value::Double),
        // What the authorities call delayed.
        flight.arrival_delay.map_or(Value::Null, |minutes| Value::Boolean(minutes >= 15)),
        flight.departed_at().map_or(Value::Null, Value::Timestamp),
        flight.arrival.map_or(Value::Null, integer),
        optional_text(flight.cancellation_reason.as_deref()),
    ]
}

pub fn airlines() -> Entity {
    Entity::new("airlines", 101).main("carrier", Kind::Text, "text_01").main("name", Kind::Text, "text_02")
}

pub(super) fn airline_values(airline: &Airline) -> Vec<Value> {
    vec![text(&airline.carrier), text(&airline.name)]
}

pub fn airports() -> Entity {
    Entity::new("airports", 102)
        .main("faa", Kind::Text, "text_01")
        .main("name", Kind::Text, "text_02")
        .main("lat", Kind::Double, "double_01")
        .main("lon", Kind::Double, "double_02")
        .main("alt", Kind::Integer, "integer_01")
        .eav("tz", Kind::SmallInt, 401)
        .eav("dst", Kind::Text, 402)
        .eav("tzone", Kind::Text, 403)
}

pub(super) fn airport_values(airport: &Airport) -> Vec<Value> {
    vec![
        text(&airport.faa),
        text(&airport.name),
        Value::Double(airport.lat),
        Value::Double(airport.lon),
        integer(airport.alt),
        integer(airport.tz),
        text(&airport.dst),
        optional_text(airport.tzone.as_deref()),
    ]
}

pub fn planes() -> Entity {
    Entity::new("planes", 103)
        .main("tailnum", Kind::Text, "text_01")
        .main("year", Kind::SmallInt, "smallint_01")
        .main("type", Kind::Text, "text_02")
        .main("manufacturer", Kind::Text, "text_03")
        .main("model", Kind::Text, "text_04")
        .main("engines", Kind::SmallInt, "smallint_02")
        .main("seats", Kind::Integer, "integer_01")
        .eav("speed", Kind::Integer, 501)
        .eav("engine", Kind::Text, 502)
}

pub(super) fn plane_values(plane: &Plane) -> Vec<Value> {
    vec![
        text(&plane.tailnum),
        plane.year.map_or(Value::Null, integer),
        text(&plane.kind),
        text(&plane.manufacturer),
        text(&plane.model),
        integer(plane.engines),
        integer(plane.seats),
        plane.speed.map_or(Value::Null, integer),
        text(&plane.engine),
    ]
}

pub fn weather() -> Entity {
    Entity::new("weather", 104)
        .main("origin", Kind::Text, "text_01")
        .main("observed_at", Kind::Timestamp, "bigint_01")
        .main("temp", Kind::Double, "double_01")
        .main("dewp", Kind::Double, "double_02")
        .main("humid", Kind::Double, "double_03")
        .main("wind_speed", Kind::Double, "double_04")
        .eav("observed_on", Kind::Date, 601)
        .iso8601()
        .eav("wind_dir", Kind::SmallInt, 602)
        .eav("wind_gust", Kind::Double, 603)
        .eav("precip", Kind::Double, 604)
        .eav("pressure", Kind::Double, 605)
        .eav("visib", Kind::Double, 606)
}

pub(super) fn weather_values(weather: &Weather) -> Vec<Value> {
    let double = |value: Option<f64>| value.map_or(Value::Null, Value::Double);
    vec![
        text(&weather.origin),
        Value::Timestamp(weather.observed_at),
        double(weather.temp),
        double(weather.dewp),
        double(weather.humid),
        double(weather.wind_speed),
        date(weather.date),
        weather.wind_dir.map_or(Value::Null, integer),
        double(weather.wind_gust),
        double(weather.precip),
        double(weather.pressure),
        double(weather.visib),
    ]
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn optional_text(text: Option<&str>) -> Value {
    text.map_or(Value::Null, Value::text)
}

fn integer(value: impl Into<i64>) -> Value {
    Value::Integer(value.into())
}

fn date(date: NaiveDate) -> Value {
    Value::Date(date.to_epoch_days())
}
