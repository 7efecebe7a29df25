//! Row ids that are derived from the key of a table ([`OwnTable`]): the same id in Rust and in PostgreSQL.
//!
//! ```text
//! uuid                         the key itself
//! smallint, integer, bigint    7468726d-636c-8000, then the number as eight bytes whose order is the numbers' order
//! anything else                the first 16 bytes of SHA-256 over the parts: a letter for the type, the length as four
//!                              bytes, the value's bytes
//! ```
//!
//! The PostgreSQL side is the functions of [`functions_sql`], which are immutable and small enough to be inlined. A part's
//! bytes are those of PostgreSQL's binary form, of a text its UTF-8, and of a decimal its shortest text.

use sha2::{Digest, Sha256};

use crate::catalog::{Entity, OwnTable, ScalarType};
use crate::predicate::{CompareOp, Predicate};
use crate::quote::{Ident, decimal_text};
use crate::value::Value;

/// The first eight bytes of ids that are made of an integer: a UUID of version 8, whose bits mean what we say.
const INTEGER_TAG: u64 = 0x7468_726d_636c_8000;
/// From PostgreSQL's first day, 2000-01-01, to 1970-01-01.
const DAYS_TO_2000: i32 = 10_957;
const MICROS_TO_2000: i64 = 946_684_800_000_000;

/// How the ids of a table come from its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowIdForm {
    Uuid,
    Integer,
    Hash,
}

impl RowIdForm {
    /// The form for the key of `table`, a table of `entity`.
    pub fn of(entity: &Entity, table: &OwnTable) -> Self {
        match table.key.as_slice() {
            [only] => match entity.attributes[only.attribute].scalar {
                ScalarType::Uuid => Self::Uuid,
                ScalarType::SmallInt | ScalarType::Integer | ScalarType::BigInt => Self::Integer,
                _ => Self::Hash,
            },
            _ => Self::Hash,
        }
    }
}

/// The id of the row with this key, a value for each column of it; `None` when a value isn't of its column's type.
pub fn row_id(entity: &Entity, table: &OwnTable, key: &[Value]) -> Option<u128> {
    (key.len() == table.key.len()).then_some(())?;
    let types = || table.key.iter().map(|column| entity.attributes[column.attribute].scalar);
    match (RowIdForm::of(entity, table), key) {
        (RowIdForm::Uuid, [Value::Uuid(id)]) => Some(*id),
        (RowIdForm::Integer, [Value::Int(number)]) => integer_id(*number),
        (RowIdForm::Hash, key) => {
            let mut hash = Sha256::new();
            for (scalar, value) in types().zip(key) {
                let (letter, bytes) = part(scalar, value)?;
                hash.update([letter]);
                hash.update(u32::try_from(bytes.len()).ok()?.to_be_bytes());
                hash.update(&bytes);
            }
            let digest = hash.finalize();
            Some(u128::from_be_bytes(digest[..16].try_into().ok()?))
        }
        _ => None,
    }
}

/// The id of a single integer; `None` outside of 64 bits.
fn integer_id(number: i128) -> Option<u128> {
    let number = i64::try_from(number).ok()?;
    let ordered = number.cast_unsigned() ^ (1 << 63);
    Some(u128::from(INTEGER_TAG) << 64 | u128::from(ordered))
}

/// The letter and the bytes of one part of a key.
fn part(scalar: ScalarType, value: &Value) -> Option<(u8, Vec<u8>)> {
    Some(match (scalar, value) {
        (ScalarType::SmallInt | ScalarType::Integer | ScalarType::BigInt, Value::Int(number)) => {
            (b'i', i64::try_from(*number).ok()?.to_be_bytes().to_vec())
        }
        (ScalarType::Text, Value::Text(text)) => (b't', text.as_bytes().to_vec()),
        (ScalarType::Uuid, Value::Uuid(id)) => (b'u', id.to_be_bytes().to_vec()),
        (ScalarType::Boolean, Value::Bool(flag)) => (b'b', vec![u8::from(*flag)]),
        (ScalarType::Date, Value::Date(days)) => (b'd', days.checked_sub(DAYS_TO_2000)?.to_be_bytes().to_vec()),
        (ScalarType::Time, Value::Time(micros)) => (b'c', micros.to_be_bytes().to_vec()),
        (ScalarType::Timestamp, Value::Timestamp(micros)) => {
            (b'z', micros.checked_sub(MICROS_TO_2000)?.to_be_bytes().to_vec())
        }
        (ScalarType::TimestampNaive, Value::Timestamp(micros)) => {
            (b's', micros.checked_sub(MICROS_TO_2000)?.to_be_bytes().to_vec())
        }
        (ScalarType::Blob, Value::Blob(bytes)) => (b'x', bytes.clone()),
        (ScalarType::Decimal { .. }, Value::Int(number)) => (b'n', number.to_string().into_bytes()),
        (ScalarType::Decimal { .. }, Value::Decimal { unscaled, scale }) => {
            (b'n', shortest(*unscaled, *scale).into_bytes())
        }
        _ => return None,
    })
}

/// A decimal without zeros at its end, as PostgreSQL's `trim_scale` leaves it.
fn shortest(mut unscaled: i128, mut scale: u8) -> String {
    while scale > 0 && unscaled % 10 == 0 {
        unscaled /= 10;
        scale -= 1;
    }
    decimal_text(unscaled, scale)
}

/// The id of a row as a PostgreSQL expression over the key columns of `alias`; `schema` is where the functions are.
pub fn row_id_sql(entity: &Entity, table: &OwnTable, alias: &str, schema: Option<&str>) -> String {
    let function = |name: &str| match schema {
        Some(schema) => format!("{}.{name}", Ident(schema)),
        None => name.to_owned(),
    };
    let column = |index: usize| format!("{alias}.{}", Ident(&table.key[index].column));
    match RowIdForm::of(entity, table) {
        RowIdForm::Uuid => column(0),
        RowIdForm::Integer => format!("{}({}::bigint)", function("thermocline_row_id"), column(0)),
        RowIdForm::Hash => {
            let parts: Vec<String> = (0..table.key.len())
                .map(|index| {
                    let cast = match entity.attributes[table.key[index].attribute].scalar {
                        ScalarType::SmallInt | ScalarType::Integer | ScalarType::BigInt => "bigint",
                        ScalarType::Uuid => "uuid",
                        ScalarType::Boolean => "boolean",
                        ScalarType::Date => "date",
                        ScalarType::Time => "time",
                        ScalarType::Timestamp => "timestamptz",
                        ScalarType::TimestampNaive => "timestamp",
                        ScalarType::Blob => "bytea",
                        ScalarType::Decimal { .. } => "numeric",
                        ScalarType::Text | ScalarType::Real | ScalarType::Double | ScalarType::Json => "text",
                    };
                    format!("{}({}::{cast})", function("thermocline_key_part"), column(index))
                })
                .collect();
            format!("{}({})", function("thermocline_row_id"), parts.join(" || "))
        }
    }
}

/// The functions that [`row_id_sql`] calls, each safe to run again.
pub fn functions_sql(schema: Option<&str>) -> Vec<String> {
    let prefix = schema.map(|schema| format!("{}.", Ident(schema))).unwrap_or_default();
    let function = |signature: &str, result: &str, body: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION {prefix}{signature} RETURNS {result} LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS \
             $$ SELECT {body} $$"
        )
    };
    let part = |of: &str, letter: u8, bytes: &str| {
        function(
            &format!("thermocline_key_part({of})"),
            "bytea",
            &format!("'\\x{letter:02x}'::bytea || int4send(octet_length({bytes})) || {bytes}"),
        )
    };
    vec![
        function(
            "thermocline_row_id(bigint)",
            "uuid",
            &format!(
                "encode('\\x{INTEGER_TAG:016x}'::bytea || int8send($1 # (-9223372036854775808)::bigint), 'hex')::uuid"
            ),
        ),
        function("thermocline_row_id(bytea)", "uuid", "encode(substring(sha256($1) FROM 1 FOR 16), 'hex')::uuid"),
        function(
            "thermocline_integer_key(uuid)",
            "bigint",
            // The bits of the last eight bytes; a bit string of 64 is read as a signed number.
            "('x' || right(replace($1::text, '-', ''), 16))::bit(64)::bigint # (-9223372036854775808)::bigint",
        ),
        part("bigint", b'i', "int8send($1)"),
        part("text", b't', "convert_to($1, 'UTF8')"),
        part("uuid", b'u', "uuid_send($1)"),
        part("boolean", b'b', "boolsend($1)"),
        part("date", b'd', "date_send($1)"),
        part("time", b'c', "time_send($1)"),
        part("timestamptz", b'z', "timestamptz_send($1)"),
        part("timestamp", b's', "timestamp_send($1)"),
        part("bytea", b'x', "$1"),
        part("numeric", b'n', "convert_to(trim_scale($1)::text, 'UTF8')"),
    ]
}

/// The statements that take the functions away.
pub fn functions_removal(schema: Option<&str>) -> Vec<String> {
    let prefix = schema.map(|schema| format!("{}.", Ident(schema))).unwrap_or_default();
    let parts = ["bigint", "text", "uuid", "boolean", "date", "time", "timestamptz", "timestamp", "bytea", "numeric"];
    ["thermocline_row_id(bigint)", "thermocline_row_id(bytea)", "thermocline_integer_key(uuid)"]
        .into_iter()
        .map(str::to_owned)
        .chain(parts.into_iter().map(|part| format!("thermocline_key_part({part})")))
        .map(|signature| format!("DROP FUNCTION IF EXISTS {prefix}{signature}"))
        .collect()
}

/// What conditions on the key's own columns say of the row id: a condition that holds for every row for which all of
/// `predicates` hold; `None` when they say nothing.
pub fn row_id_condition(entity: &Entity, predicates: &[&Predicate]) -> Option<Predicate> {
    let table = entity.own_table()?;
    match RowIdForm::of(entity, table) {
        RowIdForm::Uuid | RowIdForm::Integer => {
            let key = crate::catalog::Column::Attribute(table.key[0].attribute);
            let found: Vec<Predicate> =
                predicates.iter().filter_map(|predicate| of_single_key(entity, table, key, predicate)).collect();
            (!found.is_empty()).then_some(Predicate::And(found))
        }
        RowIdForm::Hash => of_whole_key(entity, table, predicates),
    }
}

/// A condition on the only column of a key whose order is that of the ids.
fn of_single_key(
    entity: &Entity,
    table: &OwnTable,
    key: crate::catalog::Column,
    predicate: &Predicate,
) -> Option<Predicate> {
    use crate::catalog::Column::RowId;
    match predicate {
        Predicate::And(parts) => {
            let found: Vec<Predicate> =
                parts.iter().filter_map(|part| of_single_key(entity, table, key, part)).collect();
            (!found.is_empty()).then_some(Predicate::And(found))
        }
        // Each part must say something: a part that says nothing lets any id through.
        Predicate::Or(parts) => {
            let found: Option<Vec<Predicate>> =
                parts.iter().map(|part| of_single_key(entity, table, key, part)).collect();
            found.filter(|found| !found.is_empty()).map(Predicate::Or)
        }
        Predicate::Compare { column, op, value } if *column == key => {
            let (op, value) = bound_of_id(*op, value)?;
            let id = row_id(entity, table, &[value])?;
            Some(Predicate::Compare { column: RowId, op, value: Value::Uuid(id) })
        }
        Predicate::Distinct { column, value, negated: true } if *column == key => {
            let id = row_id(entity, table, std::slice::from_ref(value))?;
            Some(Predicate::Compare { column: RowId, op: CompareOp::Equal, value: Value::Uuid(id) })
        }
        Predicate::In { column, values } if *column == key => {
            let ids: Option<Vec<Value>> = values
                .iter()
                .map(|value| row_id(entity, table, std::slice::from_ref(value)).map(Value::Uuid))
                .collect();
            Some(Predicate::In { column: RowId, values: ids? })
        }
        Predicate::Compare { .. }
        | Predicate::Distinct { .. }
        | Predicate::In { .. }
        | Predicate::Not(_)
        | Predicate::IsNull { .. }
        | Predicate::Like { .. }
        | Predicate::Text { .. }
        | Predicate::ListContains { .. } => None,
    }
}

/// The comparison with a value that an integer key can have: a fraction lies between two of them.
fn bound_of_id(op: CompareOp, value: &Value) -> Option<(CompareOp, Value)> {
    let Value::Decimal { unscaled, scale } = value else { return Some((op, value.clone())) };
    let unit = 10_i128.checked_pow((*scale).into())?;
    let (floor, rest) = (unscaled.div_euclid(unit), unscaled.rem_euclid(unit));
    let op = match (op, rest == 0) {
        (op, true) => op,
        (CompareOp::Less | CompareOp::LessOrEqual, false) => CompareOp::LessOrEqual,
        (CompareOp::Greater | CompareOp::GreaterOrEqual, false) => CompareOp::Greater,
        (CompareOp::Equal | CompareOp::NotEqual, false) => return None,
    };
    Some((op, Value::Int(floor)))
}

/// A key of several columns, or one that is hashed: each column must be given.
fn of_whole_key(entity: &Entity, table: &OwnTable, predicates: &[&Predicate]) -> Option<Predicate> {
    // More combinations than this aren't worth looking up one by one.
    const MOST: usize = 1_000;
    let mut keys: Vec<Vec<Value>> = vec![Vec::new()];
    for column in &table.key {
        let attribute = crate::catalog::Column::Attribute(column.attribute);
        let values = predicates.iter().find_map(|predicate| values_of(attribute, predicate))?;
        if keys.len().checked_mul(values.len())? > MOST {
            return None;
        }
        keys = keys
            .iter()
            .flat_map(|key| {
                values.iter().map(|value| key.iter().cloned().chain([value.clone()]).collect::<Vec<Value>>())
            })
            .collect();
    }
    let ids: Option<Vec<Value>> = keys.iter().map(|key| row_id(entity, table, key).map(Value::Uuid)).collect();
    ids.filter(|ids| !ids.is_empty()).map(|values| Predicate::In { column: crate::catalog::Column::RowId, values })
}

/// The values that a condition leaves to a column, when they are few and named.
fn values_of(column: crate::catalog::Column, predicate: &Predicate) -> Option<Vec<Value>> {
    match predicate {
        Predicate::And(parts) => parts.iter().find_map(|part| values_of(column, part)),
        Predicate::Compare { column: of, op: CompareOp::Equal, value }
        | Predicate::Distinct { column: of, value, negated: true }
            if *of == column =>
        {
            Some(vec![value.clone()])
        }
        Predicate::In { column: of, values } if *of == column => Some(values.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
