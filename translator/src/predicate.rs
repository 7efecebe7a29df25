//! Predicates of one reference: the part of a WHERE clause that other engines than DuckDB can understand.
//!
//! [`Conjunct::read`] turns an admitted expression into a [`Predicate`] over the columns of one entity, or says why it
//! can't. The user's own expression always stays in the statement that DuckDB runs; a predicate only ever pre-filters.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::catalog::{Column, Entity, ScalarType};
use crate::literal::Literal;
use crate::quote::{Ident, Literal as Quoted, duckdb_text};
use crate::tree::{array, text};
use crate::value::Value;

/// A condition over the columns of one reference, in SQL's three-valued logic.
#[derive(Debug, Clone, PartialEq)]
pub enum Predicate {
    And(Vec<Predicate>),
    Or(Vec<Predicate>),
    Not(Box<Predicate>),
    Compare {
        column: Column,
        op: CompareOp,
        value: Value,
    },
    /// `IS DISTINCT FROM`, or `IS NOT DISTINCT FROM` when negated.
    Distinct {
        column: Column,
        value: Value,
        negated: bool,
    },
    /// Never empty; without NULLs.
    In {
        column: Column,
        values: Vec<Value>,
    },
    IsNull {
        column: Column,
    },
    /// `%` and `_` as in SQL; no escape character unless one is given.
    Like {
        column: Column,
        pattern: String,
        escape: Option<char>,
        /// ILIKE.
        ignore_case: bool,
    },
    Text {
        column: Column,
        test: TextTest,
        needle: String,
    },
    /// Membership of a list.
    ListContains {
        column: Column,
        value: Value,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompareOp {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

/// One conjunct of a WHERE or ON clause that speaks of one reference alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Conjunct {
    /// SQL-like text for people.
    pub text: String,
    /// The predicate, or why there is none.
    pub predicate: Result<Predicate, String>,
    /// The predicate is weaker than the conjunct: a part of an AND was left out.
    pub weakened: bool,
}

/// Resolves a column path to a column of the reference in question.
pub(crate) type Resolve<'a> = &'a dyn Fn(&[&str]) -> Option<Column>;

impl Conjunct {
    /// Reads one conjunct over `entity`.
    pub(crate) fn read(expression: &Json, entity: &Entity, resolve: Resolve<'_>) -> Self {
        let mut reader = Reader { entity, resolve, weakened: false };
        let predicate = reader.read(expression, true);
        Self { text: crate::display::expression(expression), predicate, weakened: reader.weakened }
    }
}

impl CompareOp {
    /// The operator with its operands exchanged.
    pub(crate) fn flipped(self) -> Self {
        match self {
            Self::Equal => Self::Equal,
            Self::NotEqual => Self::NotEqual,
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
        }
    }

    /// The operator, the same text in DuckDB and PostgreSQL.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

struct Reader<'a> {
    entity: &'a Entity,
    resolve: Resolve<'a>,
    weakened: bool,
}

type Read = Result<Predicate, String>;

impl Reader<'_> {
    /// `positive`: the predicate may be weaker than the expression (not below a NOT).
    fn read(&mut self, expression: &Json, positive: bool) -> Read {
        let kind = text(&expression["type"]);
        match text(&expression["class"]) {
            "CONJUNCTION" => self.conjunction(expression, kind == "CONJUNCTION_AND", positive),
            "COMPARISON" => self.comparison(&expression["left"], &expression["right"], kind),
            "BETWEEN" => {
                let input = &expression["input"];
                Ok(Predicate::And(vec![
                    self.comparison(input, &expression["lower"], "COMPARE_GREATERTHANOREQUALTO")?,
                    self.comparison(input, &expression["upper"], "COMPARE_LESSTHANOREQUALTO")?,
                ]))
            }
            "OPERATOR" => self.operator(expression, kind, positive),
            "FUNCTION" => self.function(expression),
            "COLUMN_REF" => {
                let column = self.column(expression)?;
                if self.scalar(column)? != ScalarType::Boolean {
                    return Err("only a boolean column is a condition by itself".to_owned());
                }
                Ok(Predicate::Compare { column, op: CompareOp::Equal, value: Value::Bool(true) })
            }
            "SUBQUERY" => Err("it holds a subquery".to_owned()),
            _ => Err("its form has no counterpart in PostgreSQL with the same meaning".to_owned()),
        }
    }

    fn conjunction(&mut self, expression: &Json, is_and: bool, positive: bool) -> Read {
        let mut parts = Vec::new();
        let mut first_reason = None;
        for child in array(&expression["children"]) {
            match self.read(child, positive) {
                Ok(part) => parts.push(part),
                // A weaker AND still lets every wanted row through; below a NOT it would not.
                Err(reason) if is_and && positive => {
                    first_reason.get_or_insert(reason);
                }
                Err(reason) => return Err(reason),
            }
        }
        if let Some(reason) = first_reason {
            if parts.is_empty() {
                return Err(reason);
            }
            self.weakened = true;
        }
        Ok(if is_and { Predicate::And(parts) } else { any_of(parts) })
    }

    fn comparison(&mut self, left: &Json, right: &Json, kind: &str) -> Read {
        let distinct = match kind {
            "COMPARE_DISTINCT_FROM" => Some(false),
            "COMPARE_NOT_DISTINCT_FROM" => Some(true),
            _ => None,
        };
        let (side, constant, flipped) = match (Literal::read(left), Literal::read(right)) {
            (None, Some(constant)) => (left, constant, false),
            (Some(constant), None) => (right, constant, true),
            _ => return Err("it doesn't compare a column with a constant".to_owned()),
        };
        if let Some(column) = self.day_of_timestamp(side)
            && let (Some(op), Some(Value::Date(day))) = (compare_op(kind), constant.coerce(ScalarType::Date))
        {
            return compare_day(column, if flipped { op.flipped() } else { op }, day);
        }
        let column = self.compared_column(side)?;
        let scalar = self.scalar(column)?;
        if let Some(negated) = distinct {
            if constant == Literal::Null {
                let is_null = Predicate::IsNull { column };
                return Ok(if negated { is_null } else { Predicate::Not(Box::new(is_null)) });
            }
            let value = constant.coerce(scalar).ok_or_else(|| uncertain(scalar))?;
            return Ok(Predicate::Distinct { column, value, negated });
        }
        let op = compare_op(kind).ok_or_else(|| format!("the comparison {kind} isn't pushed down"))?;
        let value = constant.coerce(scalar).ok_or_else(|| uncertain(scalar))?;
        Ok(Predicate::Compare { column, op: if flipped { op.flipped() } else { op }, value })
    }

    fn operator(&mut self, expression: &Json, kind: &str, positive: bool) -> Read {
        let children = array(&expression["children"]);
        match (kind, children) {
            ("OPERATOR_NOT", [child]) => Ok(Predicate::Not(Box::new(self.read(child, false)?))),
            ("OPERATOR_IS_NULL", [child]) => Ok(Predicate::IsNull { column: self.column(child)? }),
            ("OPERATOR_IS_NOT_NULL", [child]) => {
                Ok(Predicate::Not(Box::new(Predicate::IsNull { column: self.column(child)? })))
            }
            ("COMPARE_IN" | "COMPARE_NOT_IN", [input, candidates @ ..]) => {
                let column = self.compared_column(input)?;
                let scalar = self.scalar(column)?;
                let mut values = Vec::new();
                for candidate in candidates {
                    match Literal::read(candidate).ok_or("IN holds more than constants")? {
                        // No row is equal to NULL; only a NOT could tell unknown from false.
                        Literal::Null if positive && kind == "COMPARE_IN" => self.weakened = true,
                        literal => values.push(literal.coerce(scalar).ok_or_else(|| uncertain(scalar))?),
                    }
                }
                if values.is_empty() {
                    return Err("IN holds only NULL".to_owned());
                }
                let within = Predicate::In { column, values };
                Ok(if kind == "COMPARE_IN" { within } else { Predicate::Not(Box::new(within)) })
            }
            _ => Err("its form has no counterpart in PostgreSQL with the same meaning".to_owned()),
        }
    }

    fn function(&mut self, expression: &Json) -> Read {
        let name = text(&expression["function_name"]).to_ascii_lowercase();
        let plain = expression["filter"].is_null() && expression["distinct"].as_bool() != Some(true);
        let arguments = array(&expression["children"]);
        let (input, needle) = match arguments {
            [input, needle] | [input, needle, _] if plain => (input, needle),
            _ => return Err(format!("the function {name} isn't pushed down")),
        };
        let text_of = |literal: &Json| match Literal::read(literal) {
            Some(Literal::Untyped(text) | Literal::Typed(Value::Text(text))) => Ok(text),
            _ => Err("its pattern is no constant text".to_owned()),
        };
        let ignore_case = matches!(name.as_str(), "~~*" | "!~~*" | "ilike_escape" | "not_ilike_escape");
        let like = |this: &mut Self, escape| {
            let column = this.text_column(input)?;
            Ok(Predicate::Like { column, pattern: text_of(needle)?, escape, ignore_case })
        };
        let escape = |third: &Json| {
            let escape = text_of(third)?;
            let mut characters = escape.chars();
            match (characters.next(), characters.next()) {
                (escape, None) => Ok(escape),
                _ => Err("its escape is longer than one character".to_owned()),
            }
        };
        match (name.as_str(), arguments) {
            ("~~" | "~~*", [_, _]) => like(self, None),
            ("!~~" | "!~~*", [_, _]) => Ok(Predicate::Not(Box::new(like(self, None)?))),
            ("like_escape" | "ilike_escape", [_, _, third]) => like(self, escape(third)?),
            ("not_like_escape" | "not_ilike_escape", [_, _, third]) => {
                Ok(Predicate::Not(Box::new(like(self, escape(third)?)?)))
            }
            ("starts_with" | "prefix" | "^@", [_, _]) => self.text_test(input, TextTest::StartsWith, text_of(needle)?),
            ("ends_with" | "suffix", [_, _]) => self.text_test(input, TextTest::EndsWith, text_of(needle)?),
            ("contains" | "list_contains" | "array_contains" | "list_has" | "array_has", [_, _]) => {
                let column = self.column(input)?;
                if self.is_list(column) {
                    let scalar = self.element(column)?;
                    let literal = Literal::read(needle).ok_or("it looks for more than a constant")?;
                    let value = literal.coerce(scalar).ok_or_else(|| uncertain(scalar))?;
                    return Ok(Predicate::ListContains { column, value });
                }
                if name != "contains" {
                    return Err(format!("{name} of a column that is no list"));
                }
                self.text_test(input, TextTest::Contains, text_of(needle)?)
            }
            _ => Err(format!("the function {name} isn't pushed down")),
        }
    }

    fn text_test(&self, input: &Json, test: TextTest, needle: String) -> Read {
        Ok(Predicate::Text { column: self.text_column(input)?, test, needle })
    }

    fn text_column(&self, expression: &Json) -> Result<Column, String> {
        let column = self.compared_column(expression)?;
        if self.scalar(column)? == ScalarType::Text {
            Ok(column)
        } else {
            Err("it matches text against a column of another type".to_owned())
        }
    }

    /// The timestamp column of `CAST(column AS DATE)`.
    fn day_of_timestamp(&self, expression: &Json) -> Option<Column> {
        let is_day_cast = text(&expression["class"]) == "CAST"
            && expression["try_cast"].as_bool() != Some(true)
            && text(&expression["cast_type"]["id"]) == "DATE";
        let column = is_day_cast.then(|| self.column(&expression["child"]).ok()).flatten()?;
        matches!(self.scalar(column), Ok(ScalarType::Timestamp | ScalarType::TimestampNaive)).then_some(column)
    }

    /// A column, also through casts that change neither value nor order.
    fn compared_column(&self, expression: &Json) -> Result<Column, String> {
        if text(&expression["class"]) == "CAST" && expression["try_cast"].as_bool() != Some(true) {
            let column = self.compared_column(&expression["child"])?;
            let target = text(&expression["cast_type"]["id"]);
            let lossless = match self.scalar(column)? {
                ScalarType::Text => target == "VARCHAR",
                ScalarType::SmallInt => matches!(target, "SMALLINT" | "INTEGER" | "BIGINT" | "HUGEINT" | "DOUBLE"),
                ScalarType::Integer => matches!(target, "INTEGER" | "BIGINT" | "HUGEINT" | "DOUBLE"),
                ScalarType::BigInt => matches!(target, "BIGINT" | "HUGEINT"),
                ScalarType::Real => matches!(target, "FLOAT" | "DOUBLE"),
                ScalarType::Double => target == "DOUBLE",
                ScalarType::Boolean => target == "BOOLEAN",
                ScalarType::Uuid => target == "UUID",
                ScalarType::Date => target == "DATE",
                ScalarType::Timestamp => target == "TIMESTAMP WITH TIME ZONE",
                ScalarType::TimestampNaive => matches!(target, "TIMESTAMP" | "TIMESTAMP WITH TIME ZONE"),
                ScalarType::Time => target == "TIME",
                ScalarType::Blob => target == "BLOB",
                ScalarType::Decimal { .. } | ScalarType::Json => false,
            };
            return if lossless { Ok(column) } else { Err(format!("the column is cast to {target}")) };
        }
        self.column(expression)
    }

    fn column(&self, expression: &Json) -> Result<Column, String> {
        let path = crate::tree::column_path(expression).ok_or("it computes with the column")?;
        (self.resolve)(&path).ok_or_else(|| "it isn't certain which column it means".to_owned())
    }

    fn is_list(&self, column: Column) -> bool {
        matches!(column, Column::Attribute(index) if self.entity.attributes[index].list)
    }

    fn element(&self, column: Column) -> Result<ScalarType, String> {
        match column {
            Column::Attribute(index) => Ok(self.entity.attributes[index].scalar),
            _ => Err("it isn't a list".to_owned()),
        }
    }

    fn scalar(&self, column: Column) -> Result<ScalarType, String> {
        match column {
            Column::RowId => Ok(ScalarType::Uuid),
            Column::CreatedAt | Column::UpdatedAt => Ok(ScalarType::Timestamp),
            Column::Attribute(_) if self.is_list(column) => Err("it compares a whole list".to_owned()),
            Column::Attribute(index) => Ok(self.entity.attributes[index].scalar),
            Column::Tier | Column::DeletedAt => Err("it speaks of a hidden column".to_owned()),
        }
    }
}

/// A chain of `c = 1 OR c = 2` as the list that it is: PostgreSQL plans such a chain in the square of its length.
fn any_of(parts: Vec<Predicate>) -> Predicate {
    let mut merged: Vec<Predicate> = Vec::new();
    let mut lists: BTreeMap<Column, (usize, Vec<Value>)> = BTreeMap::new();
    for part in parts {
        let (column, values) = match part {
            Predicate::Compare { column, op: CompareOp::Equal, value } => (column, vec![value]),
            Predicate::In { column, values } => (column, values),
            other => {
                merged.push(other);
                continue;
            }
        };
        let (_, list) = lists.entry(column).or_insert_with(|| {
            // Its place until all of its values are known.
            merged.push(Predicate::IsNull { column });
            (merged.len() - 1, Vec::new())
        });
        list.extend(values);
    }
    for (column, (place, mut values)) in lists {
        merged[place] = match values.len() {
            1 => Predicate::Compare { column, op: CompareOp::Equal, value: values.remove(0) },
            _ => Predicate::In { column, values },
        };
    }
    match merged.len() {
        1 => merged.remove(0),
        _ => Predicate::Or(merged),
    }
}

fn compare_op(kind: &str) -> Option<CompareOp> {
    Some(match kind {
        "COMPARE_EQUAL" => CompareOp::Equal,
        "COMPARE_NOTEQUAL" => CompareOp::NotEqual,
        "COMPARE_LESSTHAN" => CompareOp::Less,
        "COMPARE_LESSTHANOREQUALTO" => CompareOp::LessOrEqual,
        "COMPARE_GREATERTHAN" => CompareOp::Greater,
        "COMPARE_GREATERTHANOREQUALTO" => CompareOp::GreaterOrEqual,
        _ => return None,
    })
}

/// The UTC day of a timestamp against a day, as comparisons of the timestamp.
fn compare_day(column: Column, op: CompareOp, day: i32) -> Read {
    const MICROS_PER_DAY: i64 = 86_400_000_000;
    let start = i64::from(day).checked_mul(MICROS_PER_DAY);
    let end = start.and_then(|start| start.checked_add(MICROS_PER_DAY));
    let (Some(start), Some(end)) = (start, end) else { return Err("the day is out of range".to_owned()) };
    let compare = |op, micros| Predicate::Compare { column, op, value: Value::Timestamp(micros) };
    Ok(match op {
        CompareOp::Equal => {
            Predicate::And(vec![compare(CompareOp::GreaterOrEqual, start), compare(CompareOp::Less, end)])
        }
        CompareOp::NotEqual => {
            Predicate::Or(vec![compare(CompareOp::Less, start), compare(CompareOp::GreaterOrEqual, end)])
        }
        CompareOp::Less => compare(CompareOp::Less, start),
        CompareOp::LessOrEqual => compare(CompareOp::Less, end),
        CompareOp::Greater => compare(CompareOp::GreaterOrEqual, end),
        CompareOp::GreaterOrEqual => compare(CompareOp::GreaterOrEqual, start),
    })
}

fn uncertain(scalar: ScalarType) -> String {
    format!("the constant can't be read as {} with certainty, or is NULL", scalar.duckdb_type())
}

impl Predicate {
    /// Columns the predicate reads.
    pub fn columns(&self, out: &mut Vec<Column>) {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.columns(out)),
            Self::Not(inner) => inner.columns(out),
            Self::Compare { column, .. }
            | Self::Distinct { column, .. }
            | Self::In { column, .. }
            | Self::IsNull { column }
            | Self::Like { column, .. }
            | Self::Text { column, .. }
            | Self::ListContains { column, .. } => out.push(*column),
        }
    }

    /// Whether a row whose columns are all NULL never passes: such a filter may move to the NULL-padded side of an
    /// outer join.
    pub fn is_null_rejecting(&self) -> bool {
        self.on_nulls() != Some(true)
    }

    /// The predicate's value when all columns are NULL; `None` is unknown.
    fn on_nulls(&self) -> Option<bool> {
        match self {
            Self::And(parts) => {
                let values: Vec<_> = parts.iter().map(Self::on_nulls).collect();
                if values.contains(&Some(false)) {
                    Some(false)
                } else if values.contains(&None) {
                    None
                } else {
                    Some(true)
                }
            }
            Self::Or(parts) => {
                let values: Vec<_> = parts.iter().map(Self::on_nulls).collect();
                if values.contains(&Some(true)) {
                    Some(true)
                } else if values.contains(&None) {
                    None
                } else {
                    Some(false)
                }
            }
            Self::Not(inner) => inner.on_nulls().map(|value| !value),
            Self::IsNull { .. } => Some(true),
            Self::Distinct { negated, .. } => Some(!negated),
            Self::Compare { .. }
            | Self::In { .. }
            | Self::Like { .. }
            | Self::Text { .. }
            | Self::ListContains { .. } => None,
        }
    }

    /// DuckDB text over the public columns, qualified by `qualifier` when given.
    pub fn to_duckdb(&self, entity: &Entity, qualifier: Option<&str>) -> String {
        let name = |column: &Column| {
            let column = Ident(entity.column_name(*column));
            qualifier.map_or_else(|| column.to_string(), |qualifier| format!("{}.{column}", Ident(qualifier)))
        };
        let list = |parts: &[Self], word: &str| {
            let parts: Vec<_> = parts.iter().map(|part| part.to_duckdb(entity, qualifier)).collect();
            format!("({})", parts.join(word))
        };
        match self {
            Self::And(parts) => list(parts, " AND "),
            Self::Or(parts) => list(parts, " OR "),
            Self::Not(inner) => format!("(NOT {})", inner.to_duckdb(entity, qualifier)),
            Self::Compare { column, op, value } => {
                format!("({} {} {})", name(column), op.sql(), Quoted(value).to_duckdb())
            }
            Self::Distinct { column, value, negated } => {
                let not = if *negated { "NOT " } else { "" };
                format!("({} IS {not}DISTINCT FROM {})", name(column), Quoted(value).to_duckdb())
            }
            Self::In { column, values } => {
                let values: Vec<_> = values.iter().map(|value| Quoted(value).to_duckdb()).collect();
                format!("({} IN ({}))", name(column), values.join(", "))
            }
            Self::IsNull { column } => format!("({} IS NULL)", name(column)),
            Self::Like { column, pattern, escape, ignore_case } => {
                let like = if *ignore_case { "ILIKE" } else { "LIKE" };
                let escape = escape.map(|escape| format!(" ESCAPE {}", duckdb_text(&escape.to_string())));
                format!("({} {like} {}{})", name(column), duckdb_text(pattern), escape.unwrap_or_default())
            }
            Self::Text { column, test, needle } => {
                let function = match test {
                    TextTest::StartsWith => "starts_with",
                    TextTest::EndsWith => "ends_with",
                    TextTest::Contains => "contains",
                };
                format!("{function}({}, {})", name(column), duckdb_text(needle))
            }
            Self::ListContains { column, value } => {
                format!("list_contains({}, {})", name(column), Quoted(value).to_duckdb())
            }
        }
    }
}
