//! The row ids of Rust and of PostgreSQL: the same for every key of every form, in order for integers, each its own.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng};
use thermocline_tests::postgres::TestDatabase;
use translator::catalog::{Catalog, Entity};
use translator::derived::{functions_sql, row_id, row_id_sql};
use translator::value::Value;

const TYPES: [(&str, &str); 12] = [
    ("smallint", "smallint"),
    ("integer", "integer"),
    ("bigint", "bigint"),
    ("text", "text"),
    ("uuid", "uuid"),
    ("boolean", "boolean"),
    ("date", "date"),
    ("time", "time"),
    ("timestamp", "timestamptz"),
    ("timestamp_naive", "timestamp"),
    ("blob", "bytea"),
    ("decimal(38,9)", "numeric(38,9)"),
];

/// A value and its text for PostgreSQL.
fn value(rng: &mut impl Rng, kind: &str) -> (Value, String) {
    const MICROS_PER_DAY: i64 = 86_400_000_000;
    match kind {
        "smallint" => integer(i64::from(rng.random::<i16>())),
        "integer" => integer(i64::from(rng.random::<i32>())),
        "bigint" => integer(*[i64::MIN, -1, 0, 1, i64::MAX, rng.random()].get(rng.random_range(0..6)).unwrap()),
        "text" => {
            let letters = ['a', 'B', 'é', '漢', '\'', '"', '\\', ' ', '😀'];
            let text: String =
                (0..rng.random_range(0..6)).map(|_| letters[rng.random_range(0..letters.len())]).collect();
            (Value::Text(text.clone()), text)
        }
        "uuid" => {
            let id: u128 = rng.random();
            (Value::Uuid(id), uuid::Uuid::from_u128(id).to_string())
        }
        "boolean" => {
            let flag: bool = rng.random();
            (Value::Bool(flag), flag.to_string())
        }
        "date" => {
            let days = rng.random_range(-100_000..100_000);
            (Value::Date(days), date(days))
        }
        "time" => {
            let micros = rng.random_range(0..MICROS_PER_DAY);
            (Value::Time(micros), translator::quote::time_text(micros))
        }
        "timestamp" | "timestamp_naive" => {
            let micros = rng.random_range(-100_000..100_000) * MICROS_PER_DAY + rng.random_range(0..MICROS_PER_DAY);
            let zone = if kind == "timestamp" { "+00" } else { "" };
            (Value::Timestamp(micros), format!("{}{zone}", translator::quote::timestamp_text(micros)))
        }
        "blob" => {
            let bytes: Vec<u8> = (0..rng.random_range(0..5)).map(|_| rng.random()).collect();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            (Value::Blob(bytes), format!("\\x{hex}"))
        }
        _ => {
            let unscaled = i128::from(rng.random::<i64>()) * 10_i128.pow(rng.random_range(0..10));
            (Value::Decimal { unscaled, scale: 9 }, translator::quote::decimal_text(unscaled, 9))
        }
    }
}

fn integer(number: i64) -> (Value, String) {
    (Value::Int(number.into()), number.to_string())
}

fn date(days: i32) -> String {
    translator::quote::date_text(days)
}

fn entity(kinds: &[&str]) -> Result<std::sync::Arc<Entity>> {
    let names: Vec<String> = (0..kinds.len()).map(|at| format!("\"k{at}\"")).collect();
    let mut toml = format!(
        "[[entity]]\nname = \"t\"\nschema_id = 1\n[entity.table]\nname = \"t\"\nkey = [{}]\n",
        names.join(", ")
    );
    for (at, kind) in kinds.iter().enumerate() {
        toml.push_str(&format!("[[entity.attribute]]\nname = \"k{at}\"\ntype = \"{kind}\"\ncolumn = \"k{at}\"\n"));
    }
    let catalog = Catalog::parse(&toml).map_err(|faults| anyhow::anyhow!("{faults}"))?;
    Ok(std::sync::Arc::clone(&catalog.entities()[0]))
}

#[tokio::test]
async fn rust_and_postgresql_make_the_same_ids() -> Result<()> {
    let database = TestDatabase::create().await?;
    let client = database.connect().await?;
    client.batch_execute("SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German'").await?;
    client.batch_execute(&functions_sql(None).join(";")).await?;
    let mut rng = rand::rngs::StdRng::seed_from_u64(17);
    let mut keys: Vec<Vec<usize>> = (0..TYPES.len()).map(|kind| vec![kind]).collect();
    keys.extend((0..20).map(|_| (0..rng.random_range(2..5)).map(|_| rng.random_range(0..TYPES.len())).collect()));
    for key in keys {
        let kinds: Vec<&str> = key.iter().map(|kind| TYPES[*kind].0).collect();
        let entity = entity(&kinds)?;
        let table = entity.own_table().context("no table")?;
        let columns: Vec<String> =
            key.iter().enumerate().map(|(at, kind)| format!("'{{}}'::{} AS k{at}", TYPES[*kind].1)).collect();
        let (mut seen, mut ids) = (HashSet::new(), HashSet::new());
        let mut integers: Vec<(i128, u128)> = Vec::new();
        let mut statements = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..60 {
            let values: Vec<(Value, String)> = kinds.iter().map(|kind| value(&mut rng, kind)).collect();
            let id = row_id(&entity, table, &values.iter().map(|(value, _)| value.clone()).collect::<Vec<_>>())
                .with_context(|| format!("{values:?} has no id"))?;
            let shown: Vec<String> = columns
                .iter()
                .zip(&values)
                .map(|(column, (_, text))| {
                    let quoted = translator::quote::postgres_text(text).unwrap();
                    column.replacen("'{}'", &quoted, 1)
                })
                .collect();
            statements.push(format!(
                "SELECT {}::text FROM (SELECT {}) t",
                row_id_sql(&entity, table, "t", None),
                shown.join(", ")
            ));
            expected.push(uuid::Uuid::from_u128(id).to_string());
            if seen.insert(format!("{values:?}")) {
                ensure!(ids.insert(id), "two keys of {kinds:?} have one id");
            }
            if let [(Value::Int(number), _)] = values.as_slice() {
                integers.push((*number, id));
            }
        }
        let found: Vec<String> = client
            .query(&statements.join(" UNION ALL "), &[])
            .await
            .with_context(|| format!("{kinds:?}"))?
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert_eq!(found, expected, "{kinds:?}");
        integers.sort_unstable();
        ensure!(integers.is_sorted_by_key(|(_, id)| *id), "{kinds:?}: the ids aren't in the order of the numbers");
    }
    // And back.
    for number in [i64::MIN, -1, 0, 1, 77, i64::MAX] {
        let back: i64 = client
            .query_one("SELECT thermocline_integer_key(thermocline_row_id($1::bigint))", &[&number])
            .await?
            .get(0);
        assert_eq!(back, number);
    }
    Ok(())
}
