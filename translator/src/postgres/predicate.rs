//! Predicates as PostgreSQL text over physical columns.
//!
//! The rule for every line here: the text is true for every row that the user's condition lets through. `Exact` says
//! that it is true, false and NULL exactly when the condition is; only exact texts may stand below a NOT or carry a
//! LIMIT with them.

use super::own::{decimal_as_double, native_constant, own_operand};
use super::{Stored, physical, stored, stored_scalar};
use crate::bind::Reference;
use crate::catalog::{Column, Entity, Layout, ScalarType, Storage};
use crate::derived::row_id_condition;
use crate::literal::exact_double;
use crate::predicate::{CompareOp, Conjunct, Predicate, TextTest};
use crate::quote::{date_text, decimal_text, postgres_double, postgres_text, uuid_text};
use crate::value::Value;

/// How much of a conjunct PostgreSQL evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pushdown {
    /// Exactly the conjunct.
    Exact,
    /// A superset of the rows; DuckDB filters again.
    Inexact,
}

/// A predicate that PostgreSQL evaluates.
#[derive(Debug, Clone, PartialEq)]
pub struct PushedPredicate {
    /// A boolean expression over `c`, `m` and `e`.
    pub sql: String,
    pub pushdown: Pushdown,
    /// Columns of the entity that it reads.
    pub columns: Vec<Column>,
    /// It needs no `entity_main` row: `row_id` and `updated_at` live in `change_log`.
    pub reads_only_change_log: bool,
}

type Rendered = Option<(String, Pushdown)>;

const MICROS_PER_MILLI: i64 = 1000;
const MILLIS_PER_DAY: i64 = 86_400_000;
const MICROS_PER_DAY: i64 = 86_400_000_000;

impl PushedPredicate {
    /// Renders a conjunct for PostgreSQL, or says why not.
    ///
    /// # Errors
    /// The reason, for the plan's `residual`.
    pub fn new(conjunct: &Conjunct, entity: &Entity) -> Result<Self, String> {
        let predicate = conjunct.predicate.as_ref().map_err(Clone::clone)?;
        let (sql, pushdown) = render(predicate, entity)
            .ok_or("PostgreSQL stores the column in a form that can't be compared the same way")?;
        // What a condition on the key says of the row id finds the entries by their index, and changes no answer.
        let sql = match single_key_ids(predicate, entity) {
            Some(ids) => format!("({ids} AND {sql})"),
            None => sql,
        };
        let pushdown = if conjunct.weakened { Pushdown::Inexact } else { pushdown };
        let mut columns = Vec::new();
        predicate.columns(&mut columns);
        let reads_only_change_log = columns.iter().all(|column| matches!(column, Column::RowId | Column::UpdatedAt));
        Ok(Self { sql, pushdown, columns, reads_only_change_log })
    }
}

/// What one condition on a key of one column says of `c.row_id`.
fn single_key_ids(predicate: &Predicate, entity: &Entity) -> Option<String> {
    let is_single = entity.own_table()?.key.len() == 1;
    let ids = is_single.then(|| row_id_condition(entity, &[predicate])).flatten()?;
    render(&ids, entity).map(|(sql, _)| sql)
}

/// What the conditions of a reference on the key of its table say of `c.row_id` together.
pub(crate) fn implied_row_ids(reference: &Reference) -> Option<String> {
    let predicates: Vec<&Predicate> =
        reference.conjuncts.iter().filter_map(|conjunct| conjunct.predicate.as_ref().ok()).collect();
    let ids = row_id_condition(&reference.entity, &predicates)?;
    render(&ids, &reference.entity).map(|(sql, _)| sql)
}

fn render(predicate: &Predicate, entity: &Entity) -> Rendered {
    match predicate {
        Predicate::And(parts) => all(parts, entity, " AND "),
        Predicate::Or(parts) => all(parts, entity, " OR "),
        Predicate::Not(inner) => match render(inner, entity)? {
            (sql, Pushdown::Exact) => Some((format!("(NOT {sql})"), Pushdown::Exact)),
            (_, Pushdown::Inexact) => None,
        },
        Predicate::Compare { column, op, value } => compare(&Operand::of(*column, entity), *op, value),
        Predicate::Distinct { column, value, negated } => {
            let (sql, pushdown) = compare(&Operand::of(*column, entity), CompareOp::Equal, value)?;
            match (pushdown, negated) {
                (Pushdown::Exact, true) => Some((format!("({sql} IS TRUE)"), Pushdown::Exact)),
                (Pushdown::Exact, false) => Some((format!("({sql} IS NOT TRUE)"), Pushdown::Exact)),
                (Pushdown::Inexact, true) => Some((format!("({sql} IS TRUE)"), Pushdown::Inexact)),
                (Pushdown::Inexact, false) => None,
            }
        }
        Predicate::In { column, values } => {
            let operand = Operand::of(*column, entity);
            let mut exact = Pushdown::Exact;
            let mut parts = Vec::new();
            for value in values {
                let (sql, pushdown) = compare(&operand, CompareOp::Equal, value)?;
                if pushdown == Pushdown::Inexact {
                    exact = Pushdown::Inexact;
                }
                parts.push(sql);
            }
            // Values of one plain form make an IN list, which PostgreSQL can look up in an index.
            let prefix = format!("({} = ", operand.sql);
            let plain: Option<Vec<_>> =
                parts.iter().map(|part| part.strip_prefix(&prefix)?.strip_suffix(')')).collect();
            let sql = match plain {
                Some(values) => format!("({} IN ({}))", operand.sql, values.join(", ")),
                None => format!("({})", parts.join(" OR ")),
            };
            Some((sql, exact))
        }
        Predicate::IsNull { column } => {
            let operand = Operand::of(*column, entity);
            operand.is_nullable.then(|| (format!("({} IS NULL)", operand.sql), Pushdown::Exact))
        }
        Predicate::Like { column, pattern, escape, ignore_case } => {
            let operand = Operand::of(*column, entity);
            (operand.stored == Stored::Text && well_escaped(pattern, *escape)).then_some(())?;
            if *ignore_case {
                return ilike(&operand, pattern, *escape);
            }
            let pattern = postgres_text(pattern)?;
            // Without ESCAPE, PostgreSQL takes the backslash and DuckDB takes none.
            let escape = postgres_text(&escape.map(String::from).unwrap_or_default())?;
            Some((format!("({} LIKE {pattern} ESCAPE {escape})", operand.sql), Pushdown::Exact))
        }
        Predicate::Text { column, test, needle } => {
            let operand = Operand::of(*column, entity);
            (operand.stored == Stored::Text).then_some(())?;
            let text = postgres_text(needle)?;
            let sql = match test {
                TextTest::StartsWith => format!("starts_with({}, {text})", operand.sql),
                TextTest::EndsWith => format!("(right({}, {}) = {text})", operand.sql, needle.chars().count()),
                TextTest::Contains => format!("(strpos({}, {text}) > 0)", operand.sql),
            };
            Some((sql, Pushdown::Exact))
        }
        Predicate::ListContains { column, value } => list_contains(*column, value, entity),
    }
}

fn all(parts: &[Predicate], entity: &Entity, word: &str) -> Rendered {
    let mut exact = Pushdown::Exact;
    let mut rendered = Vec::new();
    for part in parts {
        match render(part, entity) {
            Some((sql, pushdown)) => {
                if pushdown == Pushdown::Inexact {
                    exact = Pushdown::Inexact;
                }
                rendered.push(sql);
            }
            // Leaving a part of an AND out lets more rows through, which is allowed.
            None if word == " AND " => exact = Pushdown::Inexact,
            None => return None,
        }
    }
    (!rendered.is_empty()).then(|| (format!("({})", rendered.join(word)), exact))
}

/// ILIKE as a superset. Which letters are the same in another case differs between the databases beyond ASCII (the
/// Kelvin sign is a `k` to DuckDB): a text with any other character passes.
fn ilike(operand: &Operand, pattern: &str, escape: Option<char>) -> Rendered {
    (pattern.is_ascii() && escape.is_none_or(|escape| escape.is_ascii() && !escape.is_ascii_alphabetic()))
        .then_some(())?;
    let pattern = postgres_text(pattern)?;
    let escape = postgres_text(&escape.map(String::from).unwrap_or_default())?;
    let beyond_ascii = postgres_text("[^\\u0001-\\u007f]")?;
    let column = &operand.sql;
    Some((format!("({column} ~ {beyond_ascii} OR {column} ILIKE {pattern} ESCAPE {escape})"), Pushdown::Inexact))
}

/// A pattern in which the escape character stands only before `%`, `_` or itself: elsewhere both databases raise errors.
fn well_escaped(pattern: &str, escape: Option<char>) -> bool {
    let Some(escape) = escape else { return true };
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        if character == escape && !characters.next().is_some_and(|next| next == '%' || next == '_' || next == escape) {
            return false;
        }
    }
    true
}

/// A column as PostgreSQL sees it.
struct Operand {
    /// What is compared. Text is under the collation "C", the order and equality of bytes, as in DuckDB: under any other
    /// one PostgreSQL may order otherwise, call other texts equal, or refuse to match patterns at all. The dirty set leads
    /// the hot statement, and rows of `entity_main` are found by their key; an index that should find text would have to be
    /// one on `(text_01 COLLATE "C")`.
    sql: String,
    stored: Stored,
    scalar: ScalarType,
    /// NULL in PostgreSQL is NULL in the answer.
    is_nullable: bool,
}

impl Operand {
    fn of(column: Column, entity: &Entity) -> Self {
        let own = |sql: &str, stored, scalar| Self::new(sql.to_owned(), stored, scalar);
        match column {
            Column::RowId => own("c.row_id", Stored::Uuid, ScalarType::Uuid),
            Column::UpdatedAt => own("c.changed_at", Stored::Millis, ScalarType::Timestamp),
            Column::CreatedAt => match &entity.layout {
                Layout::Eav => own("m.ltbase_created_at", Stored::Millis, ScalarType::Timestamp),
                Layout::Table(_) => own("c.created_at", Stored::Millis, ScalarType::Timestamp),
            },
            Column::Attribute(index) => {
                let attribute = &entity.attributes[index];
                let expression = match &attribute.storage {
                    Storage::Own { column } => own_operand(attribute, column),
                    Storage::Main { .. } | Storage::Eav { .. } => physical(attribute).0,
                };
                Self::new(expression, stored(attribute), attribute.scalar)
            }
            Column::Tier | Column::DeletedAt => {
                Self { is_nullable: false, ..own("NULL", Stored::Opaque, ScalarType::Text) }
            }
        }
    }

    fn new(column: String, stored: Stored, scalar: ScalarType) -> Self {
        let is_text = matches!(stored, Stored::Text | Stored::UuidText | Stored::IsoText);
        let sql = if is_text { format!("({column} COLLATE \"C\")") } else { column };
        Self { sql, stored, scalar, is_nullable: true }
    }

    fn compared(&self, op: CompareOp, right: impl std::fmt::Display) -> String {
        format!("({} {} {right})", self.sql, op.sql())
    }
}

fn compare(operand: &Operand, op: CompareOp, value: &Value) -> Rendered {
    let exact = |sql: String| Some((sql, Pushdown::Exact));
    match (operand.stored, value) {
        (Stored::Text, Value::Text(text)) => exact(operand.compared(op, postgres_text(text)?)),
        (Stored::Native, value) => match (operand.scalar, value) {
            (ScalarType::Decimal { precision, .. }, Value::Double(value)) => {
                decimal_as_double(&operand.sql, precision, op, *value).and_then(exact)
            }
            (scalar, value) => exact(operand.compared(op, native_constant(scalar, value)?)),
        },
        (Stored::Integer, Value::Bool(value)) => exact(operand.compared(op, i32::from(*value))),
        (Stored::Double, Value::Bool(value)) => {
            exact(operand.compared(op, postgres_double(f64::from(u8::from(*value)))))
        }
        (Stored::Integer, Value::Int(_) | Value::Decimal { .. } | Value::Double(_)) => integer(operand, op, value),
        (Stored::Double, Value::Int(_) | Value::Decimal { .. } | Value::Double(_)) => double(operand, op, value),
        (Stored::Uuid, Value::Uuid(value)) => {
            exact(operand.compared(op, format_args!("'{}'::uuid", uuid_text(*value))))
        }
        (Stored::UuidText, Value::Uuid(value)) => {
            // The text may be in any case, without hyphens, in braces or behind `urn:uuid:`. The digits order as the
            // numbers do.
            let digits = format!("right(translate(lower({}), '-{{}}', ''), 32)", operand.sql);
            exact(format!("({digits} {} '{value:032x}')", op.sql()))
        }
        (Stored::IsoText, Value::Date(days)) => iso_text(operand, op, i64::from(*days)),
        (Stored::IsoText, Value::Timestamp(micros)) => iso_text(operand, op, micros.div_euclid(MICROS_PER_DAY)),
        (Stored::Millis | Stored::MillisDouble, Value::Timestamp(micros))
            if operand.scalar == ScalarType::Timestamp =>
        {
            timestamp(operand, op, *micros)
        }
        (Stored::Millis | Stored::MillisDouble, Value::Date(_) | Value::Timestamp(_)) => date(operand, op, value),
        _ => None,
    }
}

/// An integer column against a number.
fn integer(operand: &Operand, op: CompareOp, value: &Value) -> Rendered {
    match value {
        Value::Int(value) if i64::try_from(*value).is_ok() => {
            // An untyped literal takes the narrowest type that holds it, so the comparison stays in integers.
            Some((operand.compared(op, format_args!("({value})")), Pushdown::Exact))
        }
        Value::Int(value) => Some((operand.compared(op, format_args!("({value})::numeric")), Pushdown::Exact)),
        Value::Decimal { unscaled, scale } => Some((
            operand.compared(op, format_args!("({})::numeric", decimal_text(*unscaled, *scale))),
            Pushdown::Exact,
        )),
        // DuckDB compares doubles. Below 2^53 an integer column rounds to no other side of such a constant.
        Value::Double(value) if value.is_finite() && value.abs() < 9_007_199_254_740_992.0 => Some((
            format!("({}::double precision {} {})", operand.sql, op.sql(), postgres_double(*value)),
            Pushdown::Exact,
        )),
        _ => None,
    }
}

/// A double column (of doubles, decimals or integers) against a number.
fn double(operand: &Operand, op: CompareOp, value: &Value) -> Rendered {
    let bound = exact_double(value)?;
    match operand.scalar {
        ScalarType::Double => Some((operand.compared(op, postgres_double(bound)), Pushdown::Exact)),
        ScalarType::SmallInt | ScalarType::Integer | ScalarType::BigInt if bound.abs() < 9_007_199_254_740_992.0 => {
            Some((operand.compared(op, postgres_double(bound)), Pushdown::Exact))
        }
        // The answer's value is the stored one rounded to the scale: a whole unit of the last digit as slack lets every
        // wanted row through.
        ScalarType::Decimal { scale, .. } if bound.is_finite() => {
            let slack = 10f64.powi(-i32::from(scale));
            let (low, high) = (postgres_double(bound - slack), postgres_double(bound + slack));
            let column = &operand.sql;
            let sql = match op {
                CompareOp::Equal => format!("({column} >= {low} AND {column} <= {high})"),
                CompareOp::NotEqual => return None,
                CompareOp::Less | CompareOp::LessOrEqual => format!("({column} <= {high})"),
                CompareOp::Greater | CompareOp::GreaterOrEqual => format!("({column} >= {low})"),
            };
            Some((sql, Pushdown::Inexact))
        }
        _ => None,
    }
}

/// A bound in milliseconds, as the column's own type.
fn millis(operand: &Operand, value: i64) -> String {
    match operand.stored {
        Stored::MillisDouble => postgres_double(value as f64),
        _ => format!("({value})"),
    }
}

/// A timestamp kept in milliseconds against microseconds.
fn timestamp(operand: &Operand, op: CompareOp, micros: i64) -> Rendered {
    let floor = micros.div_euclid(MICROS_PER_MILLI);
    let whole = micros.rem_euclid(MICROS_PER_MILLI) == 0;
    // A bound between two milliseconds: "<" and "<=" mean the same, as do ">" and ">=".
    let (op, bound) = match op {
        CompareOp::Equal | CompareOp::NotEqual if !whole => return None,
        CompareOp::Less if !whole => (CompareOp::LessOrEqual, floor),
        CompareOp::GreaterOrEqual if !whole => (CompareOp::Greater, floor),
        op => (op, floor),
    };
    Some((operand.compared(op, millis(operand, bound)), Pushdown::Exact))
}

/// A date kept in milliseconds (any time of its UTC day) against a date or a moment.
fn date(operand: &Operand, op: CompareOp, value: &Value) -> Rendered {
    let (day, op) = match value {
        Value::Date(days) => (i64::from(*days), op),
        Value::Timestamp(micros) => {
            let day = micros.div_euclid(MICROS_PER_DAY);
            match (op, micros.rem_euclid(MICROS_PER_DAY) == 0) {
                (op, true) => (day, op),
                // A date is midnight: before noon of a day means up to that day.
                (CompareOp::Less | CompareOp::LessOrEqual, false) => (day, CompareOp::LessOrEqual),
                (CompareOp::Greater | CompareOp::GreaterOrEqual, false) => (day, CompareOp::Greater),
                (CompareOp::Equal | CompareOp::NotEqual, false) => return None,
            }
        }
        _ => return None,
    };
    let start = millis(operand, day.checked_mul(MILLIS_PER_DAY)?);
    let end = millis(operand, (day + 1).checked_mul(MILLIS_PER_DAY)?);
    let column = &operand.sql;
    let sql = match op {
        CompareOp::Equal => format!("({column} >= {start} AND {column} < {end})"),
        CompareOp::NotEqual => format!("({column} < {start} OR {column} >= {end})"),
        CompareOp::Less => format!("({column} < {start})"),
        CompareOp::LessOrEqual => format!("({column} < {end})"),
        CompareOp::Greater => format!("({column} >= {end})"),
        CompareOp::GreaterOrEqual => format!("({column} >= {start})"),
    };
    Some((sql, Pushdown::Exact))
}

/// ISO 8601 text against a moment of the given UTC day, as a superset: the first ten characters are the day where it was
/// written, which is the UTC day or a neighbour of it. Text of another form (a year with a sign, leading blanks) passes.
fn iso_text(operand: &Operand, op: CompareOp, day: i64) -> Rendered {
    let day_text = |day: i64| {
        let text = date_text(i32::try_from(day).ok()?);
        (text.len() == 10 && text.is_ascii()).then_some(text)
    };
    let (before, after) = (day_text(day - 1)?, day_text(day + 1)?);
    let day = format!("left({}, 10)", operand.sql);
    let bounds = match op {
        CompareOp::Equal => format!("{day} BETWEEN '{before}' AND '{after}'"),
        CompareOp::NotEqual => return None,
        CompareOp::Less | CompareOp::LessOrEqual => format!("{day} <= '{after}'"),
        CompareOp::Greater | CompareOp::GreaterOrEqual => format!("{day} >= '{before}'"),
    };
    let plain = format!("{} !~ '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}'", operand.sql);
    Some((format!("({plain} OR {bounds})"), Pushdown::Inexact))
}

/// Membership of a list in EAV rows. A list that holds a NULL is still searched; DuckDB answers false, and PostgreSQL
/// NULL, for a missing value among NULLs: so the text is a pre-filter only.
fn list_contains(column: Column, value: &Value, entity: &Entity) -> Rendered {
    let Column::Attribute(index) = column else { return None };
    let attribute = &entity.attributes[index];
    let (list, is_own) = match &attribute.storage {
        Storage::Eav { attr_id } => (format!("e.a{attr_id}"), false),
        Storage::Own { .. } => (physical(attribute).0, true),
        Storage::Main { .. } => return None,
    };
    let plain = match (attribute.scalar, value) {
        // An element of its own type compares as a column of it.
        _ if is_own => None,
        (ScalarType::Text, Value::Text(text)) => Some(format!("{} COLLATE \"C\"", postgres_text(text)?)),
        (ScalarType::SmallInt | ScalarType::Integer | ScalarType::BigInt | ScalarType::Double, value) => {
            let bound = exact_double(value)?;
            (attribute.scalar == ScalarType::Double || bound.abs() < 9_007_199_254_740_992.0)
                .then(|| Some(postgres_double(bound)))?
        }
        (ScalarType::Boolean, Value::Bool(value)) => Some(postgres_double(f64::from(u8::from(*value)))),
        _ => None,
    };
    let sql = match plain {
        Some(element) => format!("({element} = ANY ({list}))"),
        None => {
            // A list of decimals is delivered as texts.
            let element = match (attribute.scalar, is_own) {
                (ScalarType::Decimal { .. }, true) => "u.element::numeric",
                _ => "u.element",
            };
            let element = Operand::new(element.to_owned(), stored_scalar(attribute), attribute.scalar);
            let (equal, _) = compare(&element, CompareOp::Equal, value)?;
            format!("(EXISTS (SELECT FROM unnest({list}) AS u (element) WHERE {equal}))")
        }
    };
    Some((sql, Pushdown::Inexact))
}
