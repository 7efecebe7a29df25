//! What a query must return: winner rows computed in plain code by docs/contract.md, "What a query returns", loaded
//! into a plain DuckDB in memory, and asked the same SQL.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, bail};
use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, LargeStringArray, RecordBatch, StringArray, StringViewArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    UInt64Type,
};
use uuid::Uuid;

use crate::lake::{FileTier, LakeFile};
use crate::model::{Entity, Value, Version};

/// Everything that is stored of one entity.
#[derive(Debug, Clone)]
pub struct Stored {
    pub entity: Entity,
    pub hot: Vec<HotVersion>,
    pub files: Vec<LakeFile>,
}

/// A row in PostgreSQL.
#[derive(Debug, Clone)]
pub struct HotVersion {
    pub version: Version,
    /// Whether it belongs to the dirty set.
    pub dirty: bool,
    /// Whether `entity_main` still holds it.
    pub has_main: bool,
}

/// Which of the tiers a query reads, and whether it shows tombstones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    pub hot: bool,
    pub warm: bool,
    pub cold: bool,
    pub include_deleted: bool,
}

impl Default for View {
    fn default() -> Self {
        Self { hot: true, warm: true, cold: true, include_deleted: false }
    }
}

/// The row that a query sees.
#[derive(Debug, Clone)]
pub struct Winner {
    pub tier: &'static str,
    pub version: Version,
    /// Whether `created_at` is known: a hot tombstone without an `entity_main` row has none.
    pub is_created_at_known: bool,
}

impl Stored {
    pub fn new(entity: &Entity) -> Self {
        Self { entity: entity.clone(), hot: Vec::new(), files: Vec::new() }
    }

    /// The rows that a query sees, in no special order.
    pub fn winners(&self, view: View) -> Vec<Winner> {
        let mut dirty: HashSet<Uuid> = HashSet::new();
        let mut candidates: HashMap<Uuid, Candidate> = HashMap::new();
        if view.hot {
            for hot in self.hot.iter().filter(|hot| hot.dirty) {
                dirty.insert(hot.version.row_id);
                // A live row that entity_main lost is an inconsistency; a tombstone needs no row there.
                if !hot.has_main && !hot.version.is_deleted() {
                    continue;
                }
                let mut version = hot.version.clone();
                if !hot.has_main {
                    version.values = vec![Value::Null; self.entity.attributes.len()];
                }
                let key = (version.changed_at, 3, version.is_deleted(), String::new(), 0);
                offer(&mut candidates, Candidate { key, tier: "hot", version, is_created_at_known: hot.has_main });
            }
        }
        for file in &self.files {
            let (is_read, rank) = match file.tier {
                FileTier::Warm => (view.warm, 2),
                FileTier::Cold => (view.cold, 1),
            };
            if !is_read || file.path.split('/').any(|part| part.starts_with(['_', '.'])) {
                continue;
            }
            for (row, stored) in file.versions.iter().enumerate() {
                if dirty.contains(&stored.row_id) {
                    continue;
                }
                let mut version = stored.clone();
                for (attribute, value) in self.entity.attributes.iter().zip(&mut version.values) {
                    if !file.columns.contains(&attribute.column()) {
                        *value = Value::Null;
                    }
                }
                let key = (version.changed_at, rank, version.is_deleted(), file.path.clone(), row);
                offer(&mut candidates, Candidate { key, tier: file.tier.as_str(), version, is_created_at_known: true });
            }
        }
        candidates
            .into_values()
            .filter(|candidate| view.include_deleted || !candidate.version.is_deleted())
            .map(|candidate| Winner {
                tier: candidate.tier,
                version: candidate.version,
                is_created_at_known: candidate.is_created_at_known,
            })
            .collect()
    }
}

struct Candidate {
    /// `changed_at`, then the tier, then tombstone over live, then the path, then the row number: the greatest wins.
    key: (i64, u8, bool, String, usize),
    tier: &'static str,
    version: Version,
    is_created_at_known: bool,
}

fn offer(candidates: &mut HashMap<Uuid, Candidate>, candidate: Candidate) {
    match candidates.entry(candidate.version.row_id) {
        std::collections::hash_map::Entry::Occupied(mut held) => {
            if candidate.key > held.get().key {
                held.insert(candidate);
            }
        }
        std::collections::hash_map::Entry::Vacant(free) => {
            free.insert(candidate);
        }
    }
}

/// A plain DuckDB with the winners of each entity as a table.
pub struct Oracle {
    duckdb: duckdb::Connection,
}

impl std::fmt::Debug for Oracle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oracle").finish_non_exhaustive()
    }
}

impl Oracle {
    /// Loads the winners of each entity. With `hidden`, the tables have `_tier` and `_deleted_at` as ordinary columns,
    /// so `SELECT *` differs then.
    ///
    /// # Errors
    /// DuckDB refuses a value.
    pub fn load(stored: &[&Stored], view: View, hidden: bool) -> Result<Self> {
        let duckdb = duckdb::Connection::open_in_memory()?;
        duckdb.execute_batch("SET TimeZone = 'UTC'; SET threads = 1;")?;
        for stored in stored {
            load_entity(&duckdb, stored, view, hidden)?;
        }
        Ok(Self { duckdb })
    }

    /// The answer to a query.
    ///
    /// # Errors
    /// DuckDB refuses the query.
    pub fn query(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let mut statement = self.duckdb.prepare(sql).with_context(|| format!("the oracle refuses {sql}"))?;
        let batches = statement.query_arrow([]).with_context(|| format!("the oracle fails on {sql}"))?.collect();
        Ok(batches)
    }
}

fn load_entity(duckdb: &duckdb::Connection, stored: &Stored, view: View, hidden: bool) -> Result<()> {
    let entity = &stored.entity;
    let mut columns = vec!["row_id UUID".to_owned()];
    for attribute in &entity.attributes {
        columns.push(format!("\"{}\" {}", attribute.column(), attribute.duckdb_type()));
    }
    columns.push("created_at TIMESTAMPTZ".to_owned());
    columns.push("updated_at TIMESTAMPTZ".to_owned());
    if hidden {
        columns.push("_tier VARCHAR".to_owned());
        columns.push("_deleted_at TIMESTAMPTZ".to_owned());
    }
    duckdb.execute_batch(&format!("CREATE TABLE \"{}\" ({})", entity.name, columns.join(", ")))?;
    let time = |ms: i64| format!("make_timestamptz(CAST({} AS BIGINT))", i128::from(ms) * 1000);
    let winners = stored.winners(view);
    for chunk in winners.chunks(500) {
        let mut rows = Vec::with_capacity(chunk.len());
        for winner in chunk {
            let version = &winner.version;
            let mut fields = vec![format!("CAST('{}' AS UUID)", version.row_id)];
            for (attribute, value) in entity.attributes.iter().zip(&version.values) {
                fields.push(value.duckdb_literal(attribute.kind));
            }
            fields.push(if winner.is_created_at_known { time(version.created_at) } else { "NULL".to_owned() });
            fields.push(time(version.changed_at));
            if hidden {
                fields.push(format!("'{}'", winner.tier));
                fields.push(match version.deleted_at {
                    Some(at) if at != 0 => time(at),
                    Some(_) | None => "NULL".to_owned(),
                });
            }
            rows.push(format!("({})", fields.join(", ")));
        }
        let insert = format!("INSERT INTO \"{}\" VALUES {}", entity.name, rows.join(",\n"));
        duckdb.execute_batch(&insert).with_context(|| format!("the oracle can't hold {}", entity.name))?;
    }
    Ok(())
}

/// One value of a result, in a form that compares.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Boolean(bool),
    Integer(i128),
    /// Unscaled value and scale.
    Decimal(i128, i8),
    Double(f64),
    Text(String),
    Binary(Vec<u8>),
    /// Days.
    Date(i32),
    /// Microseconds, and whether it has a time zone.
    Timestamp(i64, bool),
    List(Vec<Cell>),
    /// Anything else, as Arrow prints it.
    Other(String),
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Decimal(unscaled, scale) => match (i64::try_from(*unscaled), u8::try_from(*scale)) {
                (Ok(unscaled), Ok(scale)) => f.write_str(&crate::model::decimal_text(unscaled, scale)),
                _ => write!(f, "{unscaled}e-{scale}"),
            },
            Self::Double(value) => write!(f, "{value}"),
            Self::Text(text) | Self::Other(text) => f.write_str(text),
            Self::Binary(bytes) => write!(f, "{bytes:02x?}"),
            Self::Date(days) => write!(f, "day {days}"),
            Self::Timestamp(micros, _) => write!(f, "{micros}us"),
            Self::List(cells) => {
                let cells: Vec<String> = cells.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", cells.join(", "))
            }
        }
    }
}

impl Cell {
    fn matches(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Double(left), Self::Double(right)) => {
                left == right
                    || (left.is_nan() && right.is_nan())
                    // Sums depend on the order of their rows.
                    || (left - right).abs() <= 1e-9 * left.abs().max(right.abs())
            }
            (Self::List(left), Self::List(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.matches(right))
            }
            (left, right) => left == right,
        }
    }

    /// Text to sort rows by; close doubles sort together.
    fn sort_key(&self) -> String {
        match self {
            Self::Double(value) if value.is_nan() => "NaN".to_owned(),
            Self::Double(value) if *value == 0.0 => "0".to_owned(),
            Self::Double(value) => format!("{value:.6e}"),
            Self::List(cells) => cells.iter().map(Self::sort_key).collect::<Vec<_>>().join(","),
            other => format!("{other:?}"),
        }
    }
}

/// Whether row order is part of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Any,
    Exact,
}

/// Compares two results: names, types and rows.
///
/// # Errors
/// They differ; the error shows where.
pub fn compare(
    expected: &[RecordBatch],
    actual_schema: &arrow::datatypes::Schema,
    actual: &[RecordBatch],
    order: Order,
) -> Result<()> {
    if let Some(batch) = expected.first() {
        let describe = |schema: &arrow::datatypes::Schema| -> Vec<String> {
            schema.fields().iter().map(|field| format!("{} {}", field.name(), type_name(field.data_type()))).collect()
        };
        let (expected, actual) = (describe(&batch.schema()), describe(actual_schema));
        if expected != actual {
            bail!("the columns should be {expected:?}, but are {actual:?}");
        }
    }
    let (mut expected, mut actual) = (rows_of(expected), rows_of(actual));
    if order == Order::Any {
        expected.sort_by_cached_key(|row| row.iter().map(Cell::sort_key).collect::<Vec<_>>());
        actual.sort_by_cached_key(|row| row.iter().map(Cell::sort_key).collect::<Vec<_>>());
    }
    let same =
        expected.len() == actual.len() && expected.iter().zip(&actual).all(|(left, right)| row_matches(left, right));
    if same {
        return Ok(());
    }
    let missing: Vec<_> = expected.iter().filter(|row| !actual.iter().any(|other| row_matches(row, other))).collect();
    let extra: Vec<_> = actual.iter().filter(|row| !expected.iter().any(|other| row_matches(row, other))).collect();
    bail!(
        "{} rows expected, {} came\nmissing ({}): {}\nunexpected ({}): {}",
        expected.len(),
        actual.len(),
        missing.len(),
        show(&missing),
        extra.len(),
        show(&extra)
    );
}

fn row_matches(left: &[Cell], right: &[Cell]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.matches(right))
}

fn show(rows: &[&Vec<Cell>]) -> String {
    let lines: Vec<String> = rows
        .iter()
        .take(5)
        .map(|row| format!("\n  {}", row.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")))
        .collect();
    lines.concat()
}

/// The name under which a type is compared: representations of one logical type are the same.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "binary".to_owned(),
        DataType::Timestamp(_, zone) => format!("timestamp{}", if zone.is_some() { " utc" } else { "" }),
        DataType::List(field) | DataType::LargeList(field) => format!("list of {}", type_name(field.data_type())),
        DataType::Decimal128(..) => "decimal".to_owned(),
        other => other.to_string(),
    }
}

/// All rows of a result as cells.
///
/// # Panics
/// Arrow can't read its own arrays.
pub fn rows_of(batches: &[RecordBatch]) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<Vec<Cell>> = batch.columns().iter().map(|column| cells_of(column.as_ref())).collect();
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|column| column[row].clone()).collect());
        }
    }
    rows
}

fn cells_of(array: &dyn Array) -> Vec<Cell> {
    fn collect<T>(values: impl Iterator<Item = Option<T>>, cell: impl Fn(T) -> Cell) -> Vec<Cell> {
        values.map(|value| value.map_or(Cell::Null, &cell)).collect()
    }
    let cast_to = |to: &DataType| cast(array, to).expect("a cast that never fails");
    match array.data_type() {
        DataType::Null => vec![Cell::Null; array.len()],
        DataType::Boolean => {
            let array: &BooleanArray = array.as_boolean();
            collect(array.iter(), Cell::Boolean)
        }
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            let array = cast_to(&DataType::Int64);
            collect(array.as_primitive::<Int64Type>().iter(), |value| Cell::Integer(value.into()))
        }
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
            let array = cast_to(&DataType::UInt64);
            collect(array.as_primitive::<UInt64Type>().iter(), |value| Cell::Integer(value.into()))
        }
        DataType::Float32 => collect(array.as_primitive::<Float32Type>().iter(), |value| Cell::Double(value.into())),
        DataType::Float64 => collect(array.as_primitive::<Float64Type>().iter(), Cell::Double),
        DataType::Decimal128(_, scale) => {
            collect(array.as_primitive::<Decimal128Type>().iter(), |value| Cell::Decimal(value, *scale))
        }
        DataType::Utf8 => {
            let array: &StringArray = array.as_string();
            collect(array.iter(), |value| Cell::Text(value.to_owned()))
        }
        DataType::LargeUtf8 => {
            let array: &LargeStringArray = array.as_string();
            collect(array.iter(), |value| Cell::Text(value.to_owned()))
        }
        DataType::Utf8View => {
            let array: &StringViewArray = array.as_string_view();
            collect(array.iter(), |value| Cell::Text(value.to_owned()))
        }
        DataType::Binary => {
            let array: &BinaryArray = array.as_binary();
            collect(array.iter(), |value| Cell::Binary(value.to_vec()))
        }
        DataType::Date32 => collect(array.as_primitive::<Date32Type>().iter(), Cell::Date),
        DataType::Timestamp(_, zone) => {
            let array = cast_to(&DataType::Timestamp(TimeUnit::Microsecond, zone.clone()));
            let zoned = zone.is_some();
            collect(array.as_primitive::<TimestampMicrosecondType>().iter(), |value| Cell::Timestamp(value, zoned))
        }
        DataType::List(_) => collect(array.as_list::<i32>().iter(), |value| Cell::List(cells_of(value.as_ref()))),
        DataType::LargeList(_) => collect(array.as_list::<i64>().iter(), |value| Cell::List(cells_of(value.as_ref()))),
        _ => {
            let options = arrow::util::display::FormatOptions::default();
            let formatter =
                arrow::util::display::ArrayFormatter::try_new(array, &options).expect("a type that Arrow can print");
            (0..array.len())
                .map(|row| if array.is_null(row) { Cell::Null } else { Cell::Other(formatter.value(row).to_string()) })
                .collect()
        }
    }
}
