//! Data for the client matrix: `things` over all tiers, and `golden`, which has a column of every type of the contract and
//! values that every client must read exactly: ordinary ones from a base file, extreme ones from a delta file, NULLs from
//! PostgreSQL.
//!
//! The clients' programs in `tests/python`, `tests/java` and `tests/go` hold the same values in their own words.

use crate::lake::LakeFile;
use crate::model::{Entity, Kind, Value, Version};
use crate::oracle::{HotVersion, Stored};
use crate::scenario::live;

/// What the server of the client matrix stores.
pub fn stored() -> Vec<Stored> {
    vec![things(), golden()]
}

/// 120 rows: 90 `base` from base files, 15 `delta` from delta files, 15 `it's hot` from PostgreSQL.
fn things() -> Stored {
    let entity = Entity::new("things", 100)
        .main("name", Kind::Text, "text_01")
        .main("n", Kind::Integer, "integer_01")
        .eav("note", Kind::Text, 201)
        .eav("size.cm", Kind::Double, 202);
    let thing = |name: &str, n: i32| {
        vec![
            Value::text(name),
            Value::Integer(n.into()),
            Value::text(&format!("note of {name}")),
            Value::Double(n.into()),
        ]
    };
    let mut stored = Stored::new(&entity);
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", (0..100).map(|n| live(n, 10, thing("base", 1))).collect()),
        LakeFile::delta(&entity, "a.parquet", (90..110).map(|n| live(n, 20, thing("delta", 2))).collect()),
    ];
    stored.hot = (105..120).map(|n| hot(live(n, 30, thing("it's hot", 3)))).collect();
    stored
}

/// Three rows, told apart by `n`: 1 ordinary, 2 extreme, 3 NULL everywhere else.
fn golden() -> Stored {
    let decimal = Kind::Decimal { precision: 9, scale: 2 };
    let entity = Entity::new("golden", 101)
        .main("n", Kind::Integer, "integer_01")
        .main("a text", Kind::Text, "text_01")
        .main("a_smallint", Kind::SmallInt, "smallint_01")
        .main("a_integer", Kind::Integer, "integer_02")
        .main("a_bigint", Kind::BigInt, "bigint_01")
        .main("a_double", Kind::Double, "double_01")
        .main("a_decimal", decimal, "double_02")
        .main("a_boolean", Kind::Boolean, "smallint_02")
        .main("a_uuid", Kind::Uuid, "uuid_01")
        .main("a_date", Kind::Date, "bigint_02")
        .main("a_timestamp", Kind::Timestamp, "bigint_03")
        .main("a_json", Kind::Json, "text_02")
        .eav("texts", Kind::Text, 221)
        .list()
        .eav("integers", Kind::Integer, 222)
        .list()
        .eav("doubles", Kind::Double, 223)
        .list()
        .eav("booleans", Kind::Boolean, 224)
        .list()
        .eav("dates", Kind::Date, 226)
        .list()
        .eav("timestamps", Kind::Timestamp, 227)
        .list()
        .eav("decimals", decimal, 228)
        .list();
    // 2024-02-29, a leap day, and 12:34:56.789 of it.
    let (leap_day, leap_moment) = (19_782, 1_709_210_096_789);
    let ordinary = vec![
        Value::Integer(1),
        Value::text("it's"),
        Value::Integer(7),
        Value::Integer(42),
        // The first integer that a double cannot hold.
        Value::Integer(9_007_199_254_740_993),
        Value::Double(1.5),
        Value::Decimal(123_456_789),
        Value::Boolean(true),
        Value::Uuid(uuid::Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)),
        Value::Date(leap_day),
        Value::Timestamp(leap_moment),
        Value::text("{\"a\":1}"),
        Value::List(vec![Value::text("x"), Value::Null, Value::text("it's")]),
        Value::List(vec![Value::Integer(1), Value::Null, Value::Integer(-3)]),
        Value::List(vec![Value::Double(0.5)]),
        Value::List(vec![Value::Boolean(true), Value::Boolean(false)]),
        Value::List(vec![Value::Date(leap_day), Value::Date(0)]),
        Value::List(vec![Value::Timestamp(leap_moment), Value::Timestamp(0)]),
        Value::List(vec![Value::Decimal(150), Value::Decimal(-1)]),
    ];
    let mut extreme = vec![
        Value::Integer(2),
        Value::text("日本語😀"),
        Value::Integer(i16::MIN.into()),
        Value::Integer(i32::MIN.into()),
        Value::Integer(i64::MIN),
        Value::Double(f64::MIN),
        Value::Decimal(-999_999_999),
        Value::Boolean(false),
        Value::Uuid(uuid::Uuid::max()),
        // 1900-01-01, and the last millisecond before the epoch.
        Value::Date(-25_567),
        Value::Timestamp(-1),
        Value::text("null"),
    ];
    extreme.resize(entity.attributes.len(), Value::Null);
    let mut nulls = vec![Value::Null; entity.attributes.len()];
    nulls[0] = Value::Integer(3);
    let mut stored = Stored::new(&entity);
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", vec![live(1, 10, ordinary)]),
        LakeFile::delta(&entity, "a.parquet", vec![live(2, 20, extreme)]),
    ];
    stored.hot = vec![hot(live(3, 30, nulls))];
    stored
}

fn hot(version: Version) -> HotVersion {
    HotVersion { version, dirty: true, has_main: true }
}
