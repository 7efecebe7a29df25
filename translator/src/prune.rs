//! Which files can hold a row that passes a predicate, from the statistics of their footers.

use std::cmp::Ordering;

use crate::catalog::{Column, Entity, ScalarType};
use crate::lake::LakeFile;
use crate::literal::exact_double;
use crate::predicate::{CompareOp, Predicate};
use crate::value::Value;

/// Whether a version in `file` may satisfy `predicate`. False is certain, true is not.
///
/// `only_row_id`: look at `row_id` alone. All versions of a row share it, so that pruning by it never hides the newest
/// version of a row behind an older one; pruning by any other column may (docs/contract.md, "Filters see winners").
pub(crate) fn may_hold(file: &LakeFile, entity: &Entity, predicate: &Predicate, only_row_id: bool) -> bool {
    may_hold_within(predicate, &|column| bounds(file, entity, column, only_row_id))
}

/// Whether a version with a `row_id` within these bounds may satisfy `predicate`; the same certainty.
pub(crate) fn may_hold_ids((low, high): (u128, u128), predicate: &Predicate) -> bool {
    // Bounds that are mixed up tell nothing.
    low > high
        || may_hold_within(predicate, &|column| {
            (column == Column::RowId).then_some((Value::Uuid(low), Value::Uuid(high)))
        })
}

fn may_hold_within(predicate: &Predicate, bounds: &dyn Fn(Column) -> Option<(Value, Value)>) -> bool {
    match predicate {
        Predicate::And(parts) => parts.iter().all(|part| may_hold_within(part, bounds)),
        Predicate::Or(parts) => parts.iter().any(|part| may_hold_within(part, bounds)),
        Predicate::Compare { column, op, value } => bounds(*column).is_none_or(|bounds| overlaps(&bounds, *op, value)),
        Predicate::In { column, values } => {
            bounds(*column).is_none_or(|bounds| values.iter().any(|value| overlaps(&bounds, CompareOp::Equal, value)))
        }
        Predicate::Distinct { column, value, negated: true } => {
            bounds(*column).is_none_or(|bounds| overlaps(&bounds, CompareOp::Equal, value))
        }
        Predicate::Not(_)
        | Predicate::Distinct { .. }
        | Predicate::IsNull { .. }
        | Predicate::Like { .. }
        | Predicate::Text { .. }
        | Predicate::ListContains { .. } => true,
    }
}

/// Smallest and greatest value of a column in a file, when known.
fn bounds(file: &LakeFile, entity: &Entity, column: Column, only_row_id: bool) -> Option<(Value, Value)> {
    match column {
        Column::RowId => file.row_id_range.map(|(low, high)| (Value::Uuid(low), Value::Uuid(high))),
        _ if only_row_id => None,
        Column::UpdatedAt => {
            let (low, high) = file.changed_at_range?;
            Some((Value::Timestamp(low.checked_mul(1000)?), Value::Timestamp(high.checked_mul(1000)?)))
        }
        Column::Attribute(index) => {
            let attribute = &entity.attributes[index];
            match (attribute.scalar, file.stored_column(&attribute.column).ok()??.range.clone()?) {
                // The answer's value is the stored one rounded to the scale.
                (ScalarType::Decimal { scale, .. }, (Value::Double(low), Value::Double(high))) => {
                    let slack = 10f64.powi(-i32::from(scale));
                    Some((Value::Double(low - slack), Value::Double(high + slack)))
                }
                (_, range) => Some(range),
            }
        }
        Column::CreatedAt | Column::Tier | Column::DeletedAt => None,
    }
}

fn overlaps((low, high): &(Value, Value), op: CompareOp, value: &Value) -> bool {
    let (Some(low), Some(high)) = (compare(low, value), compare(high, value)) else { return true };
    match op {
        CompareOp::Equal => low != Ordering::Greater && high != Ordering::Less,
        CompareOp::NotEqual => !(low == Ordering::Equal && high == Ordering::Equal),
        CompareOp::Less => low == Ordering::Less,
        CompareOp::LessOrEqual => low != Ordering::Greater,
        CompareOp::Greater => high == Ordering::Greater,
        CompareOp::GreaterOrEqual => high != Ordering::Less,
    }
}

/// Orders two values as DuckDB does; `None` when they aren't surely comparable.
fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::Text(left), Value::Text(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
        (Value::Uuid(left), Value::Uuid(right)) => Some(left.cmp(right)),
        (Value::Date(left), Value::Date(right)) => Some(left.cmp(right)),
        (Value::Time(left), Value::Time(right)) => Some(left.cmp(right)),
        (Value::Blob(left), Value::Blob(right)) => Some(left.cmp(right)),
        (Value::Timestamp(left), Value::Timestamp(right)) => Some(left.cmp(right)),
        (Value::Date(days), Value::Timestamp(micros)) => Some((i64::from(*days) * 86_400_000_000).cmp(micros)),
        (Value::Timestamp(micros), Value::Date(days)) => Some(micros.cmp(&(i64::from(*days) * 86_400_000_000))),
        (Value::Double(left), right) if left.is_nan() || is_nan(right) => None,
        (_, Value::Double(right)) if right.is_nan() => None,
        (Value::Double(_), Value::Int(_) | Value::Decimal { .. } | Value::Double(_))
        | (Value::Int(_) | Value::Decimal { .. }, Value::Double(_)) => {
            exact_double(left)?.partial_cmp(&exact_double(right)?)
        }
        // DuckDB compares decimals digit by digit: 0.1 is below 0.10000000000000001, which is the same double.
        (Value::Int(_) | Value::Decimal { .. }, Value::Int(_) | Value::Decimal { .. }) => {
            let scale = decimal_scale(left).max(decimal_scale(right));
            Some(unscaled(left, scale)?.cmp(&unscaled(right, scale)?))
        }
        _ => None,
    }
}

fn decimal_scale(value: &Value) -> u8 {
    if let Value::Decimal { scale, .. } = value { *scale } else { 0 }
}

/// An integer or decimal in units of `10^-scale`, when that fits.
fn unscaled(value: &Value, scale: u8) -> Option<i128> {
    let (unscaled, own) = match value {
        Value::Int(value) => (*value, 0),
        Value::Decimal { unscaled, scale } => (*unscaled, *scale),
        _ => return None,
    };
    unscaled.checked_mul(10i128.checked_pow(u32::from(scale.checked_sub(own)?))?)
}

fn is_nan(value: &Value) -> bool {
    matches!(value, Value::Double(value) if value.is_nan())
}

/// About which share of the versions in `files` satisfies `predicate`, between 0 and 1. A guess for choosing between
/// two right ways.
pub(crate) fn selectivity(files: &[&LakeFile], entity: &Entity, predicate: &Predicate) -> f64 {
    const EQUAL: f64 = 0.05;
    const RANGE: f64 = 0.35;
    match predicate {
        Predicate::And(parts) => parts.iter().map(|part| selectivity(files, entity, part)).product(),
        Predicate::Or(parts) => parts.iter().map(|part| selectivity(files, entity, part)).sum::<f64>().min(1.0),
        Predicate::Not(inner) => 1.0 - selectivity(files, entity, inner),
        Predicate::In { values, .. } => (EQUAL * values.len() as f64).min(1.0),
        Predicate::Compare { op: CompareOp::Equal, value: Value::Bool(_), .. } => 0.5,
        Predicate::Compare { op: CompareOp::Equal, .. }
        | Predicate::Distinct { negated: true, .. }
        | Predicate::IsNull { .. }
        | Predicate::Like { .. }
        | Predicate::Text { .. }
        | Predicate::ListContains { .. } => EQUAL,
        Predicate::Compare { op: CompareOp::NotEqual, .. } | Predicate::Distinct { .. } => 1.0,
        Predicate::Compare { column, op, value } => range_share(files, entity, *column, *op, value).unwrap_or(RANGE),
    }
}

/// The share of a column's range, over all files, that a comparison leaves; `None` when the range isn't known.
fn range_share(files: &[&LakeFile], entity: &Entity, column: Column, op: CompareOp, value: &Value) -> Option<f64> {
    let mut range: Option<(f64, f64)> = None;
    for file in files.iter().filter(|file| file.row_count > 0) {
        let (low, high) = bounds(file, entity, column, false)?;
        let (low, high) = (as_number(&low)?, as_number(&high)?);
        range = Some(range.map_or((low, high), |(least, greatest)| (least.min(low), greatest.max(high))));
    }
    let (low, high) = range?;
    let below = ((as_number(value)? - low) / (high - low).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
    Some(match op {
        CompareOp::Less | CompareOp::LessOrEqual => below,
        _ => 1.0 - below,
    })
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Decimal { unscaled, scale } => Some(*unscaled as f64 / 10f64.powi(i32::from(*scale))),
        Value::Double(value) => value.is_finite().then_some(*value),
        Value::Date(days) => Some(f64::from(*days) * 86_400_000_000.0),
        Value::Timestamp(micros) => Some(*micros as f64),
        Value::Time(micros) => Some(*micros as f64),
        Value::Bool(_) | Value::Text(_) | Value::Uuid(_) | Value::Blob(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;
    use crate::lake::{FileColumn, FileType};
    use crate::options::Tier;

    fn decimal(unscaled: i128, scale: u8) -> Value {
        Value::Decimal { unscaled, scale }
    }

    #[test]
    fn decimals_compare_by_their_digits() {
        let tenth = (decimal(1, 1), decimal(1, 1));
        assert!(overlaps(&tenth, CompareOp::Less, &decimal(10_000_000_000_000_001, 17)));
        assert!(!overlaps(&tenth, CompareOp::Equal, &decimal(10_000_000_000_000_001, 17)));
        assert!(overlaps(&tenth, CompareOp::Equal, &decimal(100, 3)));
        let great = (Value::Int((1 << 53) + 1), Value::Int((1 << 53) + 1));
        assert!(overlaps(&great, CompareOp::Greater, &Value::Int(1 << 53)));
        assert!(overlaps(&tenth, CompareOp::Greater, &decimal(i128::MAX, 0)), "not comparable is no reason");
        assert!(overlaps(&tenth, CompareOp::Equal, &Value::Double(0.1)));
    }

    #[test]
    fn bounds_belong_to_their_range() {
        let range = (Value::Int(3), Value::Int(7));
        let holds = |op, wanted: [bool; 5]| {
            for (value, wanted) in [2, 3, 5, 7, 8].into_iter().zip(wanted) {
                assert_eq!(overlaps(&range, op, &Value::Int(value)), wanted, "{op:?} {value}");
            }
        };
        holds(CompareOp::Equal, [false, true, true, true, false]);
        holds(CompareOp::NotEqual, [true, true, true, true, true]);
        holds(CompareOp::Less, [false, false, true, true, true]);
        holds(CompareOp::LessOrEqual, [false, true, true, true, true]);
        holds(CompareOp::Greater, [true, true, true, false, false]);
        holds(CompareOp::GreaterOrEqual, [true, true, true, true, false]);
    }

    #[test]
    fn a_double_that_is_read_as_a_decimal_may_be_another_value() {
        let toml = "[[entity]]\nname = \"e\"\nschema_id = 1\n[[entity.attribute]]\nname = \"d\"\n\
                    type = \"decimal(9,2)\"\ncolumn = \"double_01\"\n";
        let catalog = Catalog::parse(toml).expect("a catalog");
        let file = LakeFile {
            etag: None,
            path: "base/1/a.parquet".to_owned(),
            tier: Tier::Cold,
            bytes: 1,
            row_count: 1,
            row_id_range: None,
            changed_at_range: None,
            unique_rows: true,
            may_hold_tombstones: false,
            row_groups: std::sync::Arc::default(),
            columns: vec![FileColumn {
                name: "d".to_owned(),
                file_type: FileType::Double,
                range: Some((Value::Double(0.1049), Value::Double(0.1951))),
                null_count: None,
            }],
        };
        let may_hold = |op, value| {
            let predicate = Predicate::Compare { column: Column::Attribute(0), op, value };
            super::may_hold(&file, &catalog.entities()[0], &predicate, false)
        };
        // 0.1049 is read as 0.10, 0.1951 as 0.20.
        assert!(may_hold(CompareOp::LessOrEqual, decimal(10, 2)));
        assert!(may_hold(CompareOp::Equal, decimal(20, 2)));
        assert!(!may_hold(CompareOp::Equal, decimal(22, 2)));
        assert!(!may_hold(CompareOp::Less, decimal(9, 2)));
    }
}
