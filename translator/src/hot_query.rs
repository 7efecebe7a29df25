//! Queries that PostgreSQL can answer whole: one reference, filters that it evaluates exactly, plain columns or a count,
//! ORDER BY and LIMIT. They run without DuckDB on the `hot` route.

use serde_json::Value as Json;

use crate::bind::{QualifiedName, Query, StatementForm};
use crate::catalog::{Column, Entity, ScalarType, Storage, TimeEncoding};
use crate::hot::HotColumn;
use crate::literal::Literal;
use crate::postgres::{
    HotSelect, HotStatement, Pushdown, PushedPredicate, Rows, TableNames, hot_select, order_expression,
};
use crate::tree::{array, column_path, is_star, is_vacant, text};
use crate::value::Value;

/// A query over the hot rows of one entity, as PostgreSQL answers it.
#[derive(Debug, Clone, PartialEq)]
pub struct HotQuery {
    pub output: HotOutput,
    /// Rows that the answer may have at most; `None` without LIMIT.
    pub limit: Option<u64>,
    /// The statement to run: see [`HotOutput`] for its rows.
    pub statement: HotStatement,
    /// Counts the live dirty rows without an `entity_main` row that the statement leaves out: one `int8`. `None` when the
    /// statement returns them, for its reader to count.
    pub inconsistent_sql: Option<String>,
}

/// What the rows of the statement are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HotOutput {
    /// Rows as of every hot statement ([`crate::hot`]); the answer has these columns, in this order.
    Columns(Vec<Column>),
    /// One `int8`: the answer.
    Count,
}

impl HotQuery {
    /// Reads a bound query; `None` when PostgreSQL can't answer it whole.
    pub(crate) fn read(
        query: &Query,
        pushed: &[PushedPredicate],
        tables: &TableNames,
        include_deleted: bool,
    ) -> Option<Self> {
        let [reference] = query.references.as_slice() else { return None };
        let entity = reference.entity.as_ref();
        if query.form != StatementForm::Select || !query.system_tables.is_empty() || !reference.kept_back.is_empty() {
            return None;
        }
        let node =
            query.render(&|_| QualifiedName { catalog: String::new(), schema: String::new(), table: String::new() });
        if !is_plain_select(&node) {
            return None;
        }
        let conditions = conjunct_count(&node["where_clause"]);
        let exact = pushed.iter().all(|pushed| pushed.pushdown == Pushdown::Exact);
        if conditions != reference.conjuncts.len() || pushed.len() != conditions || !exact {
            return None;
        }

        let output = output(&node["select_list"], entity, &reference.alias)?;
        let (order, limit, offset) = modifiers(&node, entity, &reference.alias)?;
        let needed: Vec<Column> = match &output {
            HotOutput::Columns(columns) => columns.clone(),
            HotOutput::Count => Vec::new(),
        };
        let rows = Rows::of(tables, entity);
        let mut statement = hot_select(tables, entity, distinct(&needed), pushed, include_deleted);
        // Rows without an entity_main row would take places under a LIMIT and be counted; a tombstone needs none.
        let takes_places = limit.is_some() || offset > 0 || output == HotOutput::Count;
        if takes_places {
            statement.select.filter(rows.is_whole());
        }
        for key in &order {
            let key = key.sql(rows, entity, &mut statement)?;
            statement.select.order_by(key);
        }
        statement.select.cut(limit, offset);
        let mut statement = statement.print();
        if output == HotOutput::Count {
            if limit.is_some() || offset > 0 || !order.is_empty() {
                return None;
            }
            statement.sql = format!("SELECT count(*) FROM ({}) q", statement.sql);
        }
        let inconsistent_sql = takes_places.then(|| rows.inconsistent_sql([]));
        Some(Self { output, limit, statement, inconsistent_sql })
    }

    /// Counts the rows of the statement: one `int8`.
    pub fn count_sql(&self) -> String {
        format!("SELECT count(*) FROM ({}) q", self.statement.sql)
    }

    /// Attribute columns that the statement returns after the fixed ones.
    pub fn columns(&self) -> &[HotColumn] {
        &self.statement.columns
    }
}

/// Each column once: the statement returns an attribute once, however often the answer shows it.
fn distinct(columns: &[Column]) -> Vec<Column> {
    let mut seen = Vec::new();
    for column in columns {
        if !seen.contains(column) {
            seen.push(*column);
        }
    }
    seen
}

fn is_plain_select(node: &Json) -> bool {
    let table = &node["from_table"];
    text(&node["type"]) == "SELECT_NODE"
        && text(&table["type"]) == "BASE_TABLE"
        && is_vacant(&table["sample"])
        && is_vacant(&table["column_name_alias"])
        && array(&node["cte_map"]["map"]).is_empty()
        && is_vacant(&node["group_expressions"])
        && array(&node["group_sets"]).is_empty()
        && text(&node["aggregate_handling"]) == "STANDARD_HANDLING"
        && ["having", "qualify", "sample"].into_iter().all(|clause| is_vacant(&node[clause]))
}

fn conjunct_count(condition: &Json) -> usize {
    if text(&condition["type"]) == "CONJUNCTION_AND" {
        array(&condition["children"]).iter().map(conjunct_count).sum()
    } else {
        usize::from(condition.is_object())
    }
}

/// The column that a path means in a query over one reference.
fn column(expression: &Json, entity: &Entity, alias: &str) -> Option<Column> {
    match column_path(expression)?.as_slice() {
        [name] => entity.column(name),
        [qualifier, name] if qualifier.eq_ignore_ascii_case(alias) => entity.column(name),
        _ => None,
    }
}

fn output(select_list: &Json, entity: &Entity, alias: &str) -> Option<HotOutput> {
    let list = array(select_list);
    if let [only] = list
        && text(&only["class"]) == "FUNCTION"
        && text(&only["function_name"]) == "count_star"
        && ["filter", "distinct"].into_iter().all(|field| is_vacant(&only[field]))
    {
        return Some(HotOutput::Count);
    }
    let mut columns = Vec::new();
    for expression in list {
        if is_star(expression) {
            let plain = ["exclude_list", "replace_list", "columns", "expr", "rename_list"];
            if !plain.into_iter().all(|field| is_vacant(&expression[field])) {
                return None;
            }
            columns.extend(entity.public_columns());
        } else {
            columns.push(column(expression, entity, alias)?);
        }
    }
    // Lists of UUIDs have another element type on the wire than in the hot tier.
    let uuid_list = |column: &Column| {
        matches!(column, Column::Attribute(index)
            if entity.attributes[*index].list && entity.attributes[*index].scalar == ScalarType::Uuid)
    };
    (!columns.iter().any(uuid_list)).then_some(HotOutput::Columns(columns))
}

struct OrderKey {
    column: Column,
    descending: bool,
    nulls_first: bool,
}

type Modifiers = (Vec<OrderKey>, Option<u64>, u64);

fn modifiers(node: &Json, entity: &Entity, alias: &str) -> Option<Modifiers> {
    let mut order = Vec::new();
    let (mut limit, mut offset) = (None, 0);
    // In ORDER BY a name is first of all one that the select list gives.
    let is_given =
        |name: &str| array(&node["select_list"]).iter().any(|item| text(&item["alias"]).eq_ignore_ascii_case(name));
    for modifier in array(&node["modifiers"]) {
        match text(&modifier["type"]) {
            "ORDER_MODIFIER" => {
                for key in array(&modifier["orders"]) {
                    if column_path(&key["expression"]).is_some_and(|path| path.len() == 1 && is_given(path[0])) {
                        return None;
                    }
                    order.push(OrderKey {
                        column: column(&key["expression"], entity, alias)?,
                        descending: text(&key["type"]) == "DESCENDING",
                        // DuckDB puts NULLs last unless told otherwise, descending too.
                        nulls_first: text(&key["null_order"]) == "NULLS FIRST",
                    });
                }
            }
            "LIMIT_MODIFIER" => {
                limit = number(&modifier["limit"])?;
                offset = number(&modifier["offset"])?.unwrap_or(0);
            }
            _ => return None,
        }
    }
    Some((order, limit, offset))
}

/// A constant number of rows: absent, or a number; `None` for anything else.
fn number(expression: &Json) -> Option<Option<u64>> {
    if expression.is_null() {
        return Some(None);
    }
    match Literal::read(expression)? {
        Literal::Typed(Value::Int(value)) => u64::try_from(value).ok().filter(|rows| *rows < 1 << 62).map(Some),
        _ => None,
    }
}

impl OrderKey {
    /// The key over PostgreSQL's columns, when its order there is the order of the answer's values.
    fn sql(&self, rows: Rows<'_>, entity: &Entity, statement: &mut HotSelect) -> Option<String> {
        let expression = match self.column {
            Column::RowId => "c.row_id".to_owned(),
            Column::CreatedAt => rows.created_at().to_owned(),
            Column::UpdatedAt => "c.changed_at".to_owned(),
            Column::Tier | Column::DeletedAt => return None,
            Column::Attribute(index) => {
                let attribute = &entity.attributes[index];
                let is_own = matches!(attribute.storage, Storage::Own { .. });
                let ordered = match attribute.scalar {
                    ScalarType::Decimal { .. } | ScalarType::Date | ScalarType::Uuid | ScalarType::Timestamp
                        if is_own =>
                    {
                        true
                    }
                    // Several stored values are one decimal or one date, and text forms don't order like their values.
                    ScalarType::Decimal { .. } | ScalarType::Date | ScalarType::Json | ScalarType::Uuid => false,
                    ScalarType::Timestamp => attribute.encoding == TimeEncoding::UnixMs,
                    ScalarType::Text
                    | ScalarType::SmallInt
                    | ScalarType::Integer
                    | ScalarType::BigInt
                    | ScalarType::Real
                    | ScalarType::Double
                    | ScalarType::Boolean
                    | ScalarType::Time
                    | ScalarType::TimestampNaive
                    | ScalarType::Blob => true,
                };
                // An EAV attribute is only pivoted when the answer shows it.
                let pivoted = !matches!(attribute.storage, Storage::Eav { .. })
                    || statement.columns.iter().any(|shown| shown.column == self.column);
                if attribute.list || !ordered || !pivoted {
                    return None;
                }
                statement.note(self.column);
                order_expression(attribute)
            }
        };
        let direction = if self.descending { "DESC" } else { "ASC" };
        let nulls = if self.nulls_first { "FIRST" } else { "LAST" };
        Some(format!("{expression} {direction} NULLS {nulls}"))
    }
}
