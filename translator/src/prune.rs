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
