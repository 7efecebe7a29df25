//! What the server must answer about the flights, in plain code from the CSV rows and their edits.
//!
//! Nothing here knows of tiers, versions or timestamps: an edit is applied to its flight, in order, and that is all.

use std::collections::BTreeMap;

use chrono::Datelike;
use uuid::Uuid;

use super::history::{self, Change};
use super::source::Flight;

/// Facts about the table `flights`.
#[derive(Debug, Default, PartialEq)]
pub struct Expected {
    pub rows: i64,
    pub rows_by_carrier: BTreeMap<String, i64>,
    /// Sum of `dep_delay` by month of `flight_date`.
    pub departure_delay_by_month: BTreeMap<u32, i64>,
    pub cancelled: i64,
    pub reasons_known: i64,
    /// Rows that are deleted, in the order of the CSV file.
    pub deleted: Vec<Uuid>,
}

impl Expected {
    pub fn of(flights: &[Flight]) -> Self {
        let mut expected = Self::default();
        for flight in flights {
            match last_state(flight) {
                Some(flight) => expected.count(&flight),
                None => expected.deleted.push(history::row_id(flight)),
            }
        }
        expected
    }

    fn count(&mut self, flight: &Flight) {
        self.rows += 1;
        *self.rows_by_carrier.entry(flight.carrier.clone()).or_default() += 1;
        *self.departure_delay_by_month.entry(flight.date.month()).or_default() +=
            i64::from(flight.departure_delay.unwrap_or(0));
        self.cancelled += i64::from(flight.departure_delay.is_none());
        self.reasons_known += i64::from(flight.cancellation_reason.is_some());
    }
}

/// The flight after all its edits; nothing if it is deleted.
fn last_state(flight: &Flight) -> Option<Flight> {
    let mut flight = flight.clone();
    let mut deleted = false;
    for edit in history::edits(&flight) {
        match edit.change {
            Change::Correct => correct(&mut flight),
            Change::Delete => deleted = true,
            Change::Restore => deleted = false,
        }
    }
    (!deleted).then_some(flight)
}

/// Applies [`Change::Correct`].
pub(super) fn correct(flight: &mut Flight) {
    if flight.departure_delay.is_none() {
        flight.cancellation_reason = Some("weather".to_owned());
    }
    flight.departure_delay = flight.departure_delay.map(|minutes| minutes + 5);
    flight.arrival_delay = flight.arrival_delay.map(|minutes| minutes + 5);
}
