//! Seeded random entities, stored versions, predicates and whole queries.
//!
//! The same seed gives the same everything, so a failure is named by its seed. Queries never raise errors by overflow
//! or cast, and every ordered query is ordered totally, so that there is one right answer.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use uuid::Uuid;

use crate::lake::{LakeFile, TimestampForm, UuidForm};
use crate::model::{Attribute, Entity, Kind, Storage, Value, Version};
use crate::oracle::{HotVersion, Stored};
use crate::scenario::row_id;

/// Texts that break quoting, collations, escapes and case folding.
const TEXTS: [&str; 30] = [
    "",
    "a",
    "A",
    "b",
    "B",
    "z",
    "Z",
    "ä",
    "Ünï",
    "日本語",
    "😀",
    "it's",
    "''",
    "back\\slash",
    "\\N",
    "100%",
    "under_score",
    "a b",
    "\"quoted\"",
    "tab\there",
    "new\nline",
    "NULL",
    "0",
    "e\u{301}",
    // Letters whose lower case is an ASCII letter, or is not one letter.
    "\u{212a}",
    "k",
    "K",
    "İ",
    "ß",
    "aB_c%d",
];
const JSONS: [&str; 6] = ["{\"a\":1}", "[1,2]", "\"it's\"", "null", "{\"k\":\"ä\\\\\"}", "1.50"];
const PATTERNS: [&str; 20] = [
    "%",
    "",
    "a%",
    "%a",
    "_",
    "%\\%",
    "100\\%",
    "under\\_%",
    "%'%",
    "Ü%",
    "日%",
    "%_b%",
    "A",
    "%\\\\%",
    "k",
    "K%",
    "ab\\_C%",
    "i%",
    "ss",
    "%B%",
];

/// A seeded source of everything random.
pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// An entity with every type of docs/contract.md, "Types" in a main column and in `eav_data`, both encodings, and
/// lists.
pub fn every_type(name: &str, schema_id: i16) -> Entity {
    let decimal = Kind::Decimal { precision: 9, scale: 2 };
    let wide = Kind::Decimal { precision: 15, scale: 4 };
    Entity::new(name, schema_id)
        .main("m.text", Kind::Text, "text_01")
        .main("m smallint", Kind::SmallInt, "smallint_01")
        .main("m_integer", Kind::Integer, "integer_01")
        .main("m_bigint", Kind::BigInt, "bigint_01")
        .main("m_double", Kind::Double, "double_01")
        .main("m_decimal", decimal, "double_02")
        .main("m_boolean", Kind::Boolean, "smallint_02")
        .main("m_uuid", Kind::Uuid, "uuid_01")
        .main("m_uuid_text", Kind::Uuid, "text_02")
        .main("m_date", Kind::Date, "bigint_02")
        .main("m_date_iso", Kind::Date, "text_03")
        .iso8601()
        .main("m_timestamp", Kind::Timestamp, "bigint_03")
        .main("m_timestamp_iso", Kind::Timestamp, "text_04")
        .iso8601()
        .main("m_json", Kind::Json, "text_05")
        .main("m_wide", Kind::SmallInt, "bigint_04")
        .eav("e.text", Kind::Text, 201)
        .eav("e_smallint", Kind::SmallInt, 202)
        .eav("e_integer", Kind::Integer, 203)
        .eav("e_bigint", Kind::BigInt, 204)
        .eav("e_double", Kind::Double, 205)
        .eav("e_decimal", wide, 206)
        .eav("e_boolean", Kind::Boolean, 207)
        .eav("e_uuid", Kind::Uuid, 208)
        .eav("e_date", Kind::Date, 209)
        .eav("e_date_iso", Kind::Date, 210)
        .iso8601()
        .eav("e_timestamp", Kind::Timestamp, 211)
        .eav("e_timestamp_iso", Kind::Timestamp, 212)
        .iso8601()
        .eav("e_json", Kind::Json, 213)
        .eav("l_text", Kind::Text, 221)
        .list()
        .eav("l_integer", Kind::Integer, 222)
        .list()
        .eav("l_double", Kind::Double, 223)
        .list()
        .eav("l_boolean", Kind::Boolean, 224)
        .list()
        .eav("l_uuid", Kind::Uuid, 225)
        .list()
        .eav("l_date", Kind::Date, 226)
        .list()
        .eav("l_timestamp", Kind::Timestamp, 227)
        .list()
        .eav("l_decimal", decimal, 228)
        .list()
        .eav("l_smallint", Kind::SmallInt, 229)
        .list()
        .eav("l_bigint", Kind::BigInt, 230)
        .list()
        .eav("l_json", Kind::Json, 231)
        .list()
        .eav("l_date_iso", Kind::Date, 232)
        .list()
        .iso8601()
        .eav("l_timestamp_iso", Kind::Timestamp, 233)
        .list()
        .iso8601()
}

/// A random entity: some of the types, stored in random places.
pub fn entity(rng: &mut impl Rng, name: &str, schema_id: i16) -> Entity {
    let mut all = every_type(name, schema_id);
    all.attributes.shuffle(rng);
    let keep = rng.random_range(4..=10);
    all.attributes.truncate(keep);
    // Every entity gets one small key to join and group by.
    all.main("k", Kind::Integer, "integer_02").eav("tag", Kind::Text, 300)
}

/// A random value of an attribute, NULL now and then.
pub fn value(rng: &mut impl Rng, attribute: &Attribute) -> Value {
    if rng.random_bool(0.15) {
        return Value::Null;
    }
    if attribute.list {
        let length = rng.random_range(1..=12);
        return Value::List(
            (0..length).map(|_| if rng.random_bool(0.15) { Value::Null } else { scalar(rng, attribute) }).collect(),
        );
    }
    scalar(rng, attribute)
}

fn scalar(rng: &mut impl Rng, attribute: &Attribute) -> Value {
    let in_eav = matches!(attribute.storage, Storage::Eav(_));
    match attribute.kind {
        Kind::Integer if attribute.name == "k" => Value::Integer(rng.random_range(-2..=6)),
        Kind::Text => Value::text(pick(rng, &TEXTS)),
        Kind::Json => Value::text(pick(rng, &JSONS)),
        Kind::SmallInt => integer(rng, i16::MIN.into(), i16::MAX.into()),
        Kind::Integer => integer(rng, i32::MIN.into(), i32::MAX.into()),
        Kind::BigInt if in_eav => integer(rng, -(1 << 53), 1 << 53),
        Kind::BigInt => integer(rng, i64::MIN, i64::MAX),
        Kind::Double => Value::Double(double(rng)),
        Kind::Decimal { precision, .. } => {
            let limit = 10i64.pow(u32::from(precision)) - 1;
            Value::Decimal(
                *[0, 1, -1, 50, 150, -150, limit, -limit, rng.random_range(-9999..=9999)].choose(rng).unwrap(),
            )
        }
        Kind::Boolean => Value::Boolean(rng.random()),
        Kind::Uuid => Value::Uuid(Uuid::from_u128(*[0, 1, u128::MAX, 0xABCD_EF00 << 64].choose(rng).unwrap())),
        Kind::Date => {
            Value::Date(*[0, -1, 1, -25_567, 19_000, 19_001, rng.random_range(-30_000..=30_000)].choose(rng).unwrap())
        }
        Kind::Timestamp => {
            let near = 1_700_000_000_000 + rng.random_range(-2..=2);
            let any = rng.random_range(-2_000_000_000_000..=2_000_000_000_000);
            Value::Timestamp(*[0, -1, 1, 86_399_999, 86_400_000, -86_400_001, near, any].choose(rng).unwrap())
        }
    }
}

fn integer(rng: &mut impl Rng, min: i64, max: i64) -> Value {
    Value::Integer(*[0, 1, -1, 5, min, max, min + 1, max - 1, rng.random_range(-20..=20)].choose(rng).unwrap())
}

fn double(rng: &mut impl Rng) -> f64 {
    let any = f64::from(rng.random_range(-1000i32..=1000)) / 8.0;
    let pool =
        [0.0, -0.0, 1.0, -1.0, 0.1, 1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, any];
    *pool.choose(rng).unwrap()
}

fn pick<'a>(rng: &mut impl Rng, pool: &[&'a str]) -> &'a str {
    pool.choose(rng).unwrap()
}

/// Random versions of `rows` rows in every tier: superseded, deleted, resurrected, tied and inconsistent ones.
pub fn stored(rng: &mut impl Rng, entity: &Entity, rows: u32) -> Stored {
    let mut stored = Stored::new(entity);
    let names = [
        ("base", "a.parquet"),
        ("base", "sub/b.parquet"),
        ("delta", "a.parquet"),
        ("delta", "x/b.parquet"),
        ("delta", "z.parquet"),
        ("delta", "_staging/c.parquet"),
    ];
    let mut contents: Vec<Vec<Version>> = vec![Vec::new(); names.len()];
    for number in 0..rows {
        let number = u128::from(number);
        for content in &mut contents {
            if rng.random_bool(0.35) {
                content.push(version(rng, entity, number));
            }
        }
        if rng.random_bool(0.35) {
            let dirty = rng.random_bool(0.6);
            let has_main = rng.random_bool(0.92);
            stored.hot.push(HotVersion { version: version(rng, entity, number), dirty, has_main });
        }
    }
    for ((folder, name), mut versions) in names.into_iter().zip(contents) {
        if rng.random_bool(0.5) {
            versions.shuffle(rng);
        }
        let mut file = if folder == "base" {
            LakeFile::base(entity, name, versions)
        } else {
            LakeFile::delta(entity, name, versions)
        };
        if file.versions.is_empty() {
            continue;
        }
        for attribute in &entity.attributes {
            if rng.random_bool(0.1) && attribute.name != "k" {
                file = file.without(&attribute.column());
            }
        }
        if rng.random_bool(0.5) {
            file.columns.shuffle(rng);
        }
        file.row_id = *[UuidForm::Uuid, UuidForm::Bytes, UuidForm::Text].choose(rng).unwrap();
        file.uuids = *[UuidForm::Uuid, UuidForm::Text].choose(rng).unwrap();
        if file.row_id == UuidForm::Bytes {
            // The annotation goes to all columns of fixed 16 bytes or to none.
            file.uuids = UuidForm::Text;
        }
        let forms = [TimestampForm::Millis, TimestampForm::Micros, TimestampForm::MicrosLocal];
        file.timestamps = *forms.choose(rng).unwrap();
        file.decimals_as_double = rng.random();
        file.rows_per_group = *[3, 1000].choose(rng).unwrap();
        if !file.versions.iter().any(Version::is_deleted) {
            file.has_deleted_at = rng.random();
        }
        stored.files.push(file);
    }
    stored
}

/// A random version of a row; some are tombstones.
pub fn version(rng: &mut impl Rng, entity: &Entity, number: u128) -> Version {
    let changed_at = rng.random_range(10_000..10_005);
    let deleted_at = match rng.random_range(0..10) {
        0 | 1 => Some(changed_at),
        2 => Some(0),
        _ => None,
    };
    Version {
        row_id: row_id(number),
        created_at: 5_000 + i64::try_from(number).unwrap_or_default(),
        changed_at,
        deleted_at,
        values: entity.attributes.iter().map(|attribute| value(rng, attribute)).collect(),
    }
}

/// A random predicate over a reference `alias` to the entity.
pub fn predicate(rng: &mut impl Rng, entity: &Entity, alias: &str, depth: u32) -> String {
    if depth > 0 && rng.random_bool(0.6) {
        let left = predicate(rng, entity, alias, depth - 1);
        return match rng.random_range(0..5) {
            0 => format!("NOT ({left})"),
            1 | 2 => format!("({left}) AND ({})", predicate(rng, entity, alias, depth - 1)),
            _ => format!("({left}) OR ({})", predicate(rng, entity, alias, depth - 1)),
        };
    }
    if rng.random_bool(0.05) {
        return format!("{alias}.row_id = '{}'", row_id(rng.random_range(0..40)));
    }
    if rng.random_bool(0.05) {
        return format!("{alias}.updated_at >= make_timestamptz({})", rng.random_range(10_000..10_006) * 1000);
    }
    let attribute = entity.attributes.choose(rng).unwrap();
    leaf(rng, attribute, alias)
}

fn leaf(rng: &mut impl Rng, attribute: &Attribute, alias: &str) -> String {
    let column = format!("{alias}.{}", attribute.column());
    if attribute.list {
        let element = scalar(rng, attribute).duckdb_literal(attribute.kind);
        return match rng.random_range(0..4) {
            0 => format!("{column} IS NULL"),
            1 => format!("len({column}) > {}", rng.random_range(0..6)),
            2 => format!("list_contains({column}, {element})"),
            _ => format!("NOT list_contains({column}, {element})"),
        };
    }
    let literal = literal(rng, attribute);
    let other = self::literal(rng, attribute);
    let comparison = *["=", "<>", "<", "<=", ">", ">="].choose(rng).unwrap();
    let is_text = attribute.kind == Kind::Text;
    if matches!(attribute.kind, Kind::Timestamp) && rng.random_bool(0.2) {
        let day = *["DATE '1970-01-01'", "'1969-12-31'", "DATE '2023-11-14'", "'1970-01-02'"].choose(rng).unwrap();
        return match rng.random_range(0..3) {
            0 => format!("CAST({column} AS DATE) BETWEEN {day} AND DATE '2023-11-14'"),
            _ => format!("{column}::DATE {comparison} {day}"),
        };
    }
    match rng.random_range(0..17) {
        0 => format!("{column} IS NULL"),
        1 => format!("{column} IS NOT NULL"),
        2 => format!("{column} IN ({literal}, {other})"),
        3 => format!("{column} NOT IN ({literal}, {other})"),
        4 => format!("{column} NOT IN ({literal}, NULL)"),
        5 => format!("{column} BETWEEN {literal} AND {other}"),
        6 => format!("{column} IS DISTINCT FROM {literal}"),
        7 => format!("{column} IS NOT DISTINCT FROM {literal}"),
        8 => format!("{literal} {comparison} {column}"),
        9 | 10 if is_text => {
            let operator = *["LIKE", "NOT LIKE", "ILIKE"].choose(rng).unwrap();
            let pattern = pick(rng, &PATTERNS).replace('\'', "''");
            format!("{column} {operator} '{pattern}' ESCAPE '\\'")
        }
        11 if is_text => {
            let function = *["starts_with", "contains"].choose(rng).unwrap();
            format!("{function}({column}, {literal})")
        }
        9 | 10 if attribute.kind == Kind::Boolean => {
            if rng.random() {
                column
            } else {
                format!("NOT {column}")
            }
        }
        14 if is_text => {
            let operator = *["LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE"].choose(rng).unwrap();
            format!("{column} {operator} '{}'", pick(rng, &PATTERNS).replace('\'', "''"))
        }
        14 => format!("{column} IN ({literal}, NULL, {other})"),
        15 if is_text => format!("ends_with({column}, {literal})"),
        15 => format!("CAST({column} AS {}) {comparison} {literal}", attribute.kind.duckdb_type()),
        16 => format!("NOT ({column} {comparison} {literal} AND {column} IS NOT NULL)"),
        12 => format!("CAST({column} AS VARCHAR) {comparison} CAST({literal} AS VARCHAR)"),
        _ => format!("{column} {comparison} {literal}"),
    }
}

/// A literal that DuckDB compares with the attribute without an error.
fn literal(rng: &mut impl Rng, attribute: &Attribute) -> String {
    let value = scalar(rng, attribute);
    let plain = rng.random_bool(0.5);
    match (&value, attribute.kind) {
        (Value::Integer(number), _) if plain => number.to_string(),
        (Value::Integer(_), Kind::SmallInt | Kind::Integer) if rng.random_bool(0.2) => {
            (*["99999999999", "-99999999999", "1.5", "-0.5", "5.0"].choose(rng).unwrap()).to_owned()
        }
        (Value::Double(number), _) if plain && number.is_finite() => {
            if number.abs() < 1e6 {
                format!("{number}")
            } else {
                "1e300".to_owned()
            }
        }
        (Value::Text(text), Kind::Text) if plain => format!("'{}'", text.replace('\'', "''")),
        (Value::Uuid(id), _) if plain => format!("'{}'", id.to_string().to_uppercase()),
        (Value::Date(_), _) if plain => {
            let pool =
                ["DATE '1970-01-01'", "'2022-01-08'", "DATE '1969-12-31'", "DATE '1970-01-31' + INTERVAL 1 MONTH"];
            (*pool.choose(rng).unwrap()).to_owned()
        }
        (Value::Timestamp(_), _) if plain => {
            let pool = [
                "'1970-01-01'",
                "TIMESTAMPTZ '1970-01-01 23:59:59.999+00'",
                "TIMESTAMPTZ '1969-12-31 23:59:59.9999+00'",
                "DATE '1970-01-02'",
                "TIMESTAMP '2023-11-14 22:13:20'",
                "TIMESTAMP '2023-11-14 23:13:20.001' - INTERVAL 1 HOUR",
                "DATE '1970-01-02' - INTERVAL '1' DAY",
            ];
            (*pool.choose(rng).unwrap()).to_owned()
        }
        _ => value.duckdb_literal(attribute.kind),
    }
}

/// A whole query with its one right answer.
#[derive(Debug, Clone)]
pub struct RandomQuery {
    pub sql: String,
    /// Whether the order of the rows is part of the answer.
    pub ordered: bool,
}

impl RandomQuery {
    fn of(sql: &str, ordered: bool) -> Self {
        Self { sql: sql.to_owned(), ordered }
    }
}

/// Beside an AND, a predicate with an OR means something else without parentheses.
fn parenthesised(predicate: &str) -> String {
    format!("({predicate})")
}

/// A random query over two entities.
pub fn query(rng: &mut impl Rng, left: &Entity, right: &Entity) -> RandomQuery {
    let (l, r) = (&left.name, &right.name);
    let p = parenthesised(&predicate(rng, left, "a", 2));
    let q = parenthesised(&predicate(rng, right, "b", 1));
    // The same entity as p, by other names.
    let px = parenthesised(&predicate(rng, left, "x", 1));
    let pc = parenthesised(&predicate(rng, left, "c", 1));
    let join = *["INNER", "LEFT", "RIGHT", "FULL"].choose(rng).unwrap();
    let other_join = *["INNER", "LEFT", "RIGHT", "FULL"].choose(rng).unwrap();
    let n = rng.random_range(-2..5);
    let column = left.attributes.choose(rng).unwrap().column();
    let scalar = scalar_column(rng, left);
    let any = |sql: String| RandomQuery::of(&sql, false);
    match rng.random_range(0..36) {
        0 | 1 => any(format!("SELECT * FROM {l} a WHERE {p}")),
        2 => any(format!("SELECT a.row_id, a.{column}, a.created_at, a.updated_at FROM {l} a WHERE {p}")),
        3 => {
            let sql = format!(
                "SELECT a.row_id, a.{scalar} FROM {l} a WHERE {p} ORDER BY a.{scalar} {}, a.row_id LIMIT {} OFFSET {}",
                ["ASC NULLS FIRST", "DESC NULLS LAST", "DESC", "ASC"].choose(rng).unwrap(),
                rng.random_range(0..8),
                rng.random_range(0..5)
            );
            RandomQuery::of(&sql, true)
        }
        4 => any(format!(
            "SELECT a.k, count(*) AS n, count(a.{column}) AS c, min(a.{scalar}) AS lo, max(a.{scalar}) AS hi \
             FROM {l} a WHERE {p} GROUP BY a.k HAVING count(*) > {}",
            rng.random_range(0..2)
        )),
        5 | 6 => any(format!(
            "SELECT a.row_id AS x, b.row_id AS y, a.{column} FROM {l} a {} JOIN {r} b ON a.k = b.k AND {q} WHERE {p}",
            ["INNER", "LEFT", "RIGHT", "FULL"].choose(rng).unwrap()
        )),
        7 => any(format!(
            "WITH c AS (SELECT row_id, k, {column} FROM {l} a WHERE {p}) \
             SELECT c.{column}, count(*) AS n FROM c JOIN {r} b ON c.k = b.k WHERE {q} GROUP BY ALL"
        )),
        8 => any(format!(
            "SELECT a.row_id, row_number() OVER (PARTITION BY a.k ORDER BY a.{scalar} NULLS FIRST, a.row_id) AS n, \
             count(*) OVER (PARTITION BY a.k) AS c FROM {l} a WHERE {p}"
        )),
        9 => any(format!(
            "SELECT k, tag FROM {l} a WHERE {p} {} SELECT k, tag FROM {r} b WHERE {q}",
            ["UNION", "UNION ALL", "EXCEPT", "INTERSECT", "EXCEPT ALL", "INTERSECT ALL"].choose(rng).unwrap()
        )),
        10 => any(format!(
            "SELECT a.row_id FROM {l} a WHERE {p} AND a.k {} (SELECT b.k FROM {r} b WHERE {q})",
            ["IN", "NOT IN"].choose(rng).unwrap()
        )),
        11 => any(format!(
            "SELECT a.row_id FROM {l} a WHERE {} EXISTS (SELECT 1 FROM {r} b WHERE b.k = a.k AND {q}) AND ({p})",
            ["", "NOT"].choose(rng).unwrap()
        )),
        12 => any(format!(
            "SELECT x.row_id, (SELECT count(*) FROM {r} b WHERE b.k = x.k AND {q}) AS n \
             FROM (SELECT * FROM {l} a WHERE {p}) x"
        )),
        13 => any(format!(
            "SELECT a.row_id AS x, b.row_id AS y FROM {l} a {} JOIN {l} b ON a.k = b.k AND a.row_id < b.row_id WHERE {p}",
            ["INNER", "LEFT"].choose(rng).unwrap()
        )),
        // Filters over subqueries and WITH, which may and may not be pushed into them.
        14 => any(format!("SELECT x.row_id, x.k FROM (SELECT * FROM {l}) x WHERE {px}")),
        15 => {
            any(format!("SELECT x.row_id FROM (SELECT * FROM {l} a WHERE {p} ORDER BY a.row_id LIMIT 7) x WHERE {px}"))
        }
        16 => any(format!(
            "SELECT x.row_id, x.n FROM (SELECT a.*, row_number() OVER (ORDER BY a.row_id) AS n FROM {l} a) x WHERE {px}"
        )),
        17 => any(format!(
            "WITH c AS (SELECT * FROM {l}) SELECT x.row_id, y.row_id AS r FROM c x JOIN c y ON x.k = y.k AND y.k > {n} WHERE {px}"
        )),
        18 => any(format!(
            "SELECT x.row_id, b.row_id AS y FROM {r} b {join} JOIN (SELECT * FROM {l}) x ON x.k = b.k AND {px} WHERE {q}"
        )),
        19 => any(format!(
            "SELECT x.row_id, b.row_id AS y FROM (SELECT * FROM {l}) x {join} JOIN {r} b ON x.k = b.k WHERE {px} AND {q}"
        )),
        20 => any(format!(
            "WITH x AS (SELECT * FROM {l} a WHERE {p}), z AS (SELECT * FROM x) SELECT z.row_id FROM z WHERE z.k = {n}"
        )),
        21 => any(format!(
            "SELECT a.row_id FROM {l} a {} JOIN {r} b ON a.k = b.k AND {q} AND {p}",
            ["SEMI", "ANTI"].choose(rng).unwrap()
        )),
        // Joins of joins.
        22 => any(format!(
            "SELECT a.row_id AS x, b.row_id AS y, c.row_id AS z FROM {l} a {join} JOIN ({r} b {other_join} JOIN {l} c \
             ON b.k = c.k AND {pc}) ON a.k = b.k WHERE {q}"
        )),
        23 => any(format!(
            "SELECT a.row_id AS x, b.row_id AS y, c.row_id AS z FROM {l} a {join} JOIN {r} b ON a.k = b.k AND {q} \
             {other_join} JOIN {l} c ON c.k = b.k AND {pc} WHERE {p}"
        )),
        24 => any(format!(
            "SELECT a.row_id AS x, b.row_id AS y, c.row_id AS z FROM {l} a CROSS JOIN (SELECT * FROM {r} ORDER BY row_id \
             LIMIT 2) b LEFT JOIN {l} c ON c.k = a.k AND {pc} WHERE {p}"
        )),
        25 => any(format!(
            "SELECT a.row_id AS x, c.row_id AS y FROM {l} a {join} JOIN {l} c ON a.k = c.k WHERE {p} AND {pc}"
        )),
        26 => any(format!("SELECT * FROM {l} a JOIN {r} b USING (k) WHERE {q} AND {p}")),
        27 => any(format!(
            "SELECT a.row_id AS x, b.row_id AS y FROM {l} a ASOF {} JOIN {r} b ON a.k = b.k AND a.row_id >= b.row_id \
             WHERE {p} AND {q}",
            ["", "LEFT"].choose(rng).unwrap()
        )),
        28 => any(format!(
            "SELECT a.row_id, x.n FROM {l} a, LATERAL (SELECT count(*) AS n FROM {r} b WHERE b.k = a.k AND {q}) x WHERE {p}"
        )),
        // Groups, windows, sets.
        29 => any(format!(
            "SELECT a.k, a.tag, count(*) AS n FROM {l} a WHERE {p} GROUP BY a.k, a.tag HAVING {} AND count(*) > 0",
            parenthesised(&format!("a.k > {n}"))
        )),
        30 => any(format!(
            "SELECT DISTINCT x.k, x.tag FROM (SELECT DISTINCT a.k, a.tag FROM {l} a WHERE {p}) x WHERE x.k > {n}"
        )),
        31 => any(format!(
            "SELECT a.row_id FROM {l} a WHERE {p} QUALIFY row_number() OVER (PARTITION BY a.k ORDER BY a.row_id) = 1"
        )),
        32 => any(format!(
            "SELECT u.k, u.tag FROM (SELECT k, tag FROM {l} UNION ALL SELECT k, tag FROM {r}) u WHERE {}",
            parenthesised(&format!("u.k > {n} AND u.tag IS NOT NULL"))
        )),
        33 => any(format!(
            "SELECT x.row_id FROM (SELECT * FROM {l} UNION ALL SELECT * FROM {l} c WHERE {pc}) x WHERE {px}"
        )),
        34 => any(format!(
            "WITH x AS (SELECT row_id, k, tag, {column} FROM {l} {} SELECT row_id, k, tag, {column} FROM {l} a WHERE {p}) \
             SELECT x.row_id FROM x {join} JOIN {r} b ON x.k = b.k AND x.tag > 'a' WHERE {q} OR x.k > {n}",
            ["UNION", "UNION ALL", "EXCEPT", "INTERSECT"].choose(rng).unwrap()
        )),
        _ => any(format!(
            "SELECT x.k, x.n FROM (SELECT a.k, count(*) AS n FROM {l} a WHERE {p} GROUP BY ROLLUP (a.k)) x WHERE x.k > {n}"
        )),
    }
}

fn scalar_column(rng: &mut impl Rng, entity: &Entity) -> String {
    let scalars: Vec<&Attribute> = entity.attributes.iter().filter(|attribute| !attribute.list).collect();
    scalars.choose(rng).unwrap().column()
}
