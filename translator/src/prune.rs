//! Which files can hold a row that passes a predicate, from the statistics of their footers.

use std::cmp::Ordering;

use crate::catalog::{Column, Entity};
use crate::lake::LakeFile;
use crate::literal::exact_double;
use crate::predicate::{CompareOp, Predicate};
use crate::value::Value;

/// Whether a version in `file` may satisfy `predicate`. False is certain, true is not.
///
/// `only_row_id`: look at `row_id` alone. All versions of a row share it, so that pruning by it never hides the newest
/// version of a row behind an older one; pruning by any other column may (design section 3.5).
pub(crate) fn may_hold(file: &LakeFile, entity: &Entity, predicate: &Predicate, only_row_id: bool) -> bool {
    match predicate {
        Predicate::And(parts) => parts.iter().all(|part| may_hold(file, entity, part, only_row_id)),
        Predicate::Or(parts) => parts.iter().any(|part| may_hold(file, entity, part, only_row_id)),
        Predicate::Compare { column, op, value } => {
            bounds(file, entity, *column, only_row_id).is_none_or(|bounds| overlaps(&bounds, *op, value))
        }
        Predicate::In { column, values } => bounds(file, entity, *column, only_row_id)
            .is_none_or(|bounds| values.iter().any(|value| overlaps(&bounds, CompareOp::Equal, value))),
        Predicate::Distinct { column, value, negated: true } => {
            bounds(file, entity, *column, only_row_id).is_none_or(|bounds| overlaps(&bounds, CompareOp::Equal, value))
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
        Column::Attribute(index) => file.column(&entity.attributes[index].column)?.range.clone(),
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
        (Value::Timestamp(left), Value::Timestamp(right)) => Some(left.cmp(right)),
        (Value::Date(days), Value::Timestamp(micros)) => Some((i64::from(*days) * 86_400_000_000).cmp(micros)),
        (Value::Timestamp(micros), Value::Date(days)) => Some(micros.cmp(&(i64::from(*days) * 86_400_000_000))),
        (Value::Double(left), right) if left.is_nan() || is_nan(right) => None,
        (_, Value::Double(right)) if right.is_nan() => None,
        (
            Value::Int(_) | Value::Decimal { .. } | Value::Double(_),
            Value::Int(_) | Value::Decimal { .. } | Value::Double(_),
        ) => exact_double(left)?.partial_cmp(&exact_double(right)?),
        _ => None,
    }
}

fn is_nan(value: &Value) -> bool {
    matches!(value, Value::Double(value) if value.is_nan())
}

/// About which share of the versions in `files` satisfies `predicate`, between 0 and 1. A guess for choosing between two
/// right ways.
pub(crate) fn selectivity(files: &[&LakeFile], entity: &Entity, predicate: &Predicate) -> f64 {
    const EQUAL: f64 = 0.05;
    const RANGE: f64 = 0.35;
    match predicate {
        Predicate::And(parts) => parts.iter().map(|part| selectivity(files, entity, part)).product(),
        Predicate::Or(parts) => parts.iter().map(|part| selectivity(files, entity, part)).sum::<f64>().min(1.0),
        Predicate::Not(inner) => 1.0 - selectivity(files, entity, inner),
        #[expect(clippy::cast_precision_loss, reason = "a guess")]
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

#[expect(clippy::cast_precision_loss, reason = "for a guess")]
fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Decimal { unscaled, scale } => Some(*unscaled as f64 / 10f64.powi(i32::from(*scale))),
        Value::Double(value) => value.is_finite().then_some(*value),
        Value::Date(days) => Some(f64::from(*days) * 86_400_000_000.0),
        Value::Timestamp(micros) => Some(*micros as f64),
        Value::Bool(_) | Value::Text(_) | Value::Uuid(_) => None,
    }
}
