//! What happened to the flights after their first record: the same each time, chosen by a hash of the flight.
//!
//! ```text
//! 1 Jan ───────────────── 30 Nov │ 1 Dec ── 8 ── 16 ── 24 │ 25 ── 31 Dec
//! base, a file a month           │ delta, a file a flush   │ hot
//!           ^ corrections and tombstones from the right land in the later tiers
//! ```

use chrono::{Datelike, NaiveDate};
use uuid::Uuid;

use super::source::Flight;

/// Where a version of a flight lies; later tiers are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// The base file of a month.
    Base(u32),
    /// The delta file of a flush: 0, 1, 2.
    Delta(u32),
    /// PostgreSQL, not flushed yet.
    Hot,
}

/// Something that happened to a flight after its first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edit {
    pub tier: Tier,
    /// Unix milliseconds.
    pub at: i64,
    pub change: Change,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It left and arrived five minutes later than first recorded; if it never left, now the reason is known.
    Correct,
    /// The record was a mistake: a tombstone.
    Delete,
    /// Deleting it was the mistake.
    Restore,
}

const HOUR_MS: i64 = 3_600_000;

/// The tier of a flight's first record.
pub fn home(date: NaiveDate) -> Tier {
    match (date.month(), date.day()) {
        (12, 1..=8) => Tier::Delta(0),
        (12, 9..=16) => Tier::Delta(1),
        (12, 17..=24) => Tier::Delta(2),
        (12, _) => Tier::Hot,
        (month, _) => Tier::Base(month),
    }
}

/// When a flight was first recorded, in Unix milliseconds.
pub fn recorded_at(flight: &Flight) -> i64 {
    flight.scheduled_departure + HOUR_MS
}

/// The edits of a flight, oldest first. Each lies in a later tier than the one before, except that a flight may be
/// recorded and deleted while hot.
pub fn edits(flight: &Flight) -> Vec<Edit> {
    use Change::{Correct, Delete, Restore};
    use Tier::{Delta, Hot};

    let hash = hash_of(flight);
    let planned: &[(Tier, Change)] = match hash % 997 {
        1 => &[(Delta(0), Correct)],
        2 => &[(Delta(1), Correct)],
        3 => &[(Delta(0), Correct), (Delta(2), Correct)],
        4 | 5 => &[(Hot, Correct)],
        6 => &[(Hot, Delete)],
        7 => &[(Delta(1), Delete)],
        8 => &[(Delta(0), Delete), (Hot, Restore)],
        9 => &[(Delta(2), Correct), (Hot, Delete)],
        _ => &[],
    };
    let home = home(flight.date);
    planned
        .iter()
        .filter(|(tier, change)| *tier > home || (home == Hot && *change == Delete))
        .map(|&(tier, change)| Edit { tier, at: edited_at(tier, hash), change })
        .collect()
}

/// The row id: a UUID of version 7 made from the flight's time and a fixed seed.
pub fn row_id(flight: &Flight) -> Uuid {
    uuid_v7(flight.scheduled_departure, hash_of(flight))
}

/// A UUID of version 7 with the given time in Unix milliseconds and bits drawn from a hash.
pub fn uuid_v7(ms: i64, hash: u64) -> Uuid {
    let mut bits = [0; 10];
    bits[..8].copy_from_slice(&mix(hash).to_be_bytes());
    bits[8..].copy_from_slice(&mix(hash ^ SEED).to_be_bytes()[..2]);
    uuid::Builder::from_unix_timestamp_millis(ms.unsigned_abs(), &bits).into_uuid()
}

/// A hash of a row's key that never changes.
pub fn hash_key(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(SEED, |hash, byte| mix(hash ^ u64::from(byte)))
}

fn hash_of(flight: &Flight) -> u64 {
    let (number, time) = (flight.number.to_string(), flight.scheduled_departure.to_string());
    hash_key(&[&flight.carrier, &number, &flight.origin, &flight.dest, &time])
}

/// Shortly before the flush that wrote the file; the last day of the year for what is not flushed.
fn edited_at(tier: Tier, hash: u64) -> i64 {
    let day = match tier {
        Tier::Base(month) => NaiveDate::from_ymd_opt(2013, month + 1, 1),
        Tier::Delta(flush) => NaiveDate::from_ymd_opt(2013, 12, 9 + 8 * flush),
        Tier::Hot => NaiveDate::from_ymd_opt(2014, 1, 1),
    };
    let noon = day.and_then(|day| day.and_hms_opt(12, 0, 0)).expect("a day of this calendar").and_utc();
    noon.timestamp_millis() + i64::try_from(mix(hash) % HOUR_MS.unsigned_abs()).expect("an hour fits")
}

const SEED: u64 = 0x0020_1301_0120_1312;

/// The output function of SplitMix64: <https://prng.di.unimi.it/splitmix64.c>.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
