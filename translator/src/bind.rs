//! From an admitted tree to references: which tables a query mentions, which columns it needs of each, and which
//! conditions speak of one reference alone.
//!
//! Name resolution follows DuckDB's rules as far as it is certain. Where it isn't (an unqualified name beside a source
//! of unknown columns), the columns count as needed and no condition is taken: DuckDB, which runs the user's own
//! expressions, decides. Every entity mention becomes a [`Reference`], and its node in the tree a placeholder that
//! [`Query::render`] fills in.

mod conjuncts;
mod output;
mod pages;
mod printable;
mod scope;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::admit::unknown_table;
use crate::catalog::{CATALOG_NAME, Catalog, Column, Entity, SCHEMA_NAME};
use crate::error::TranslateError;
use crate::predicate::Conjunct;
use crate::tree::{array, array_mut, ctes, is_star, is_vacant, location, text};
use scope::{CteScope, FromItem, Origin, Output, OutputColumn, PushRule, Scopes, Source, has_duplicates};

/// A bound query: the tree with placeholders, and what it refers to.
#[derive(Debug, Clone)]
pub struct Query {
    node: Json,
    /// Parameter names in DuckDB's order.
    pub parameters: Vec<String>,
    /// Mentions of entities, in order of appearance.
    pub references: Vec<Reference>,
    /// Mentions of `information_schema` and `system` tables, in order of appearance.
    pub system_tables: Vec<SystemTable>,
    /// Every name that the query uses as a table, lower case: generated relations must avoid them.
    names: HashSet<String>,
    /// Whether DuckDB can bind the user's own text over tables of the entities' names: it names nothing that is called
    /// otherwise there.
    pub binds_as_written: bool,
    pub form: StatementForm,
}

/// What kind of statement the query is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatementForm {
    Select,
    /// SHOW TABLES: answered from the catalog.
    ShowTables,
    /// DESCRIBE: answered from the catalog.
    Describe,
    /// SUMMARIZE: reads rows.
    Summarize,
}

/// One mention of an entity.
#[derive(Debug, Clone)]
pub struct Reference {
    pub entity: Arc<Entity>,
    /// The name that the query calls it by.
    pub alias: String,
    /// Columns the query needs. `row_id` is offered in any case.
    pub columns: BTreeSet<Column>,
    /// Conditions that every row of this reference must meet to matter.
    pub conjuncts: Vec<Conjunct>,
    /// Why conditions of the query aren't among [`Reference::conjuncts`].
    pub kept_back: Vec<String>,
}

/// A table of metadata that the server itself fills.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SystemTable {
    /// `information_schema`, `system`, or `show` for what SHOW lists.
    pub schema: String,
    pub table: String,
}

/// What stands in the tree for a table reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder {
    /// Index into [`Query::references`].
    Reference(usize),
    /// Index into [`Query::system_tables`].
    System(usize),
}

/// A table name for a placeholder; empty parts are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QualifiedName {
    pub catalog: String,
    pub schema: String,
    pub table: String,
}

/// Tables of `information_schema` that are answered.
pub const INFORMATION_SCHEMA_TABLES: [&str; 3] = ["tables", "columns", "schemata"];
/// Tables of the `system` schema (docs/operations.md).
pub const SYSTEM_TABLES: [&str; 6] = ["options", "queries", "files", "tiers", "health", "moments"];

/// Schema and name of the table that SHOW TABLES stands for.
pub const SHOW_TABLES: (&str, &str) = ("show", "tables");

const PLACEHOLDER: &str = "tc_placeholder";
const STAR_ITEMS: &str = "tc_star_items";

/// Binds an admitted tree.
pub(crate) fn bind(mut node: Json, parameters: Vec<String>, catalog: &Catalog) -> Result<Query, TranslateError> {
    let form = form(&node);
    let mut binder = Binder {
        catalog,
        references: Vec::new(),
        system_tables: Vec::new(),
        names: HashSet::new(),
        table_mentions: HashMap::new(),
        counts_columns: None,
        binds_as_written: true,
    };
    count_table_mentions(&node, &mut binder.table_mentions);
    binder.query(&mut node, &CteScope::default(), &Scopes::none(), Demand::All)?;
    for (reference, _) in &mut binder.references {
        if reference.uses_hidden_columns() {
            reference.columns.extend([Column::Tier, Column::DeletedAt]);
        }
    }
    binder.exclude_hidden(&mut node)?;
    let Binder { references, system_tables, names, binds_as_written, .. } = binder;
    let references: Vec<Reference> = references.into_iter().map(|(reference, _)| reference).collect();
    let binds_as_written = binds_as_written && !references.iter().any(Reference::uses_hidden_columns);
    Ok(Query { node, parameters, references, system_tables, names, binds_as_written, form })
}

fn form(node: &Json) -> StatementForm {
    let table = &node["from_table"];
    match (text(&table["type"]), text(&table["show_type"])) {
        ("SHOW_REF", "DESCRIBE") => StatementForm::Describe,
        ("SHOW_REF", "SUMMARY") => StatementForm::Summarize,
        ("SHOW_REF", _) => StatementForm::ShowTables,
        _ => StatementForm::Select,
    }
}

impl Query {
    /// The tree with table names filled in.
    pub fn render(&self, name: &dyn Fn(Placeholder) -> QualifiedName) -> Json {
        let mut node = self.node.clone();
        fill(&mut node, name);
        printable::make_printable(&mut node);
        node
    }

    /// The same query with no condition of it in anybody's hands but DuckDB's: PostgreSQL filters nothing, and no file
    /// is pruned by a condition. The answer is the same; finding out whether it is, is what this is for.
    #[must_use]
    pub fn without_pushdown(mut self) -> Self {
        for reference in &mut self.references {
            let kept = reference.conjuncts.drain(..).map(|conjunct| format!("{}: push-down is off", conjunct.text));
            reference.kept_back.extend(kept);
        }
        self
    }

    /// A name for a generated relation that no name of the query collides with.
    pub(crate) fn free_name(&self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        while self.names.contains(&name.to_ascii_lowercase()) {
            name.push('_');
        }
        name
    }
}

impl Reference {
    /// Whether the reference offers `_tier` and `_deleted_at`: always both or none.
    pub fn uses_hidden_columns(&self) -> bool {
        self.columns.iter().any(|column| column.is_hidden())
    }
}

fn fill(node: &mut Json, name: &dyn Fn(Placeholder) -> QualifiedName) {
    match node {
        Json::Object(map) => {
            if let Some(placeholder) = map.get(PLACEHOLDER).cloned() {
                map.remove(PLACEHOLDER);
                let index = placeholder[1].as_u64().and_then(|index| usize::try_from(index).ok()).unwrap_or_default();
                let placeholder =
                    if placeholder[0] == "system" { Placeholder::System(index) } else { Placeholder::Reference(index) };
                let QualifiedName { catalog, schema, table } = name(placeholder);
                map.insert("catalog_name".to_owned(), json!(catalog));
                map.insert("schema_name".to_owned(), json!(schema));
                map.insert("table_name".to_owned(), json!(table));
                return;
            }
            map.values_mut().for_each(|value| fill(value, name));
        }
        Json::Array(items) => items.iter_mut().for_each(|item| fill(item, name)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

/// Facts of a reference that only matter while binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BindState {
    /// `FROM flights f(a, b)`: the query's names aren't the entity's.
    renamed: bool,
}

struct Binder<'a> {
    catalog: &'a Catalog,
    references: Vec<(Reference, BindState)>,
    system_tables: Vec<SystemTable>,
    names: HashSet<String>,
    /// How often the query uses each name as a table, lower case; names that stand for several things count together.
    table_mentions: HashMap<String, usize>,
    /// What depends on the number or names of all columns, and its place: NATURAL JOIN, `#2`.
    counts_columns: Option<(&'static str, Option<usize>)>,
    binds_as_written: bool,
}

/// Which output columns of a query whoever reads it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demand {
    All,
    /// Those that it names; each is marked where it is named.
    Named,
}

impl Binder<'_> {
    fn query(
        &mut self,
        node: &mut Json,
        outer_ctes: &CteScope,
        scopes: &Scopes<'_>,
        demand: Demand,
    ) -> Result<Output, TranslateError> {
        // A scope is copied only where names are added: a query may have thousands of WITH entries.
        let own_ctes =
            if ctes(node).next().is_some() { Some(self.with_clause(node, outer_ctes, scopes)?) } else { None };
        let ctes = own_ctes.as_ref().unwrap_or(outer_ctes);
        match text(&node["type"]) {
            "SELECT_NODE" => self.select(node, ctes, scopes, demand),
            "SET_OPERATION_NODE" => {
                let mut branches = Vec::new();
                for side in ["left", "right"] {
                    if node[side].is_object() {
                        branches.push(self.query(&mut node[side], ctes, scopes, Demand::All)?);
                    }
                }
                // A mutable index would add the field where it is absent.
                for child in node.get_mut("children").map_or(&mut [][..], array_mut) {
                    branches.push(self.query(child, ctes, scopes, Demand::All)?);
                }
                self.walk(&mut node["modifiers"], ctes, scopes)?;
                if text(&node["setop_type"]) == "UNION_BY_NAME" {
                    return Ok(None);
                }
                let type_of = |origin: Origin| self.references[origin.index].0.entity.duckdb_type(origin.column);
                Ok(output::of_set_operation(node, branches, &type_of))
            }
            "RECURSIVE_CTE_NODE" => {
                // Its own name is a source of unknown columns inside.
                let own = text(&node["cte_name"]).to_owned();
                let mut ctes = ctes.clone();
                ctes.add(&own, None);
                let ctes = &ctes;
                let output = self.query(&mut node["left"], ctes, scopes, Demand::All)?;
                self.query(&mut node["right"], ctes, scopes, Demand::All)?;
                Ok(output.map(output::computed))
            }
            other => Err(TranslateError::internal(format!("the query form `{other}` was admitted and can't be bound"))),
        }
    }

    fn with_clause(
        &mut self,
        node: &mut Json,
        outer: &CteScope,
        scopes: &Scopes<'_>,
    ) -> Result<CteScope, TranslateError> {
        let mut scope = outer.clone();
        let names: Vec<String> = ctes(node).map(|(name, _)| name.to_owned()).collect();
        self.names.extend(names.iter().map(|name| name.to_ascii_lowercase()));
        for (index, name) in names.iter().enumerate() {
            let cte = &mut node["cte_map"]["map"][index]["value"];
            let demand = if is_vacant(&cte["aliases"]) { Demand::Named } else { Demand::All };
            let output = self.query(&mut cte["query"]["node"], &scope, scopes, demand)?;
            let output = output::renamed(output, &cte["aliases"]);
            scope.add(name, output);
        }
        Ok(scope)
    }

    fn select(
        &mut self,
        node: &mut Json,
        ctes: &CteScope,
        outer: &Scopes<'_>,
        demand: Demand,
    ) -> Result<Output, TranslateError> {
        let mut items = Vec::new();
        self.from(&mut node["from_table"], ctes, outer, &mut items)?;
        if !is_vacant(&node["sample"]) {
            // A sample is drawn before the filter.
            items.iter_mut().for_each(|item| item.push = PushRule::Never("the FROM clause is sampled"));
        }
        let scopes = outer.inner(&items);
        // A plain `*` hands columns through; whether they are needed is for the one who reads them.
        let output = output::of_select(node, &items);
        let ambiguous = output.as_deref().is_some_and(has_duplicates);
        let hands_through = demand == Demand::Named && output.is_some() && !ambiguous && output::names_columns(node);
        for entry in array_mut(&mut node["select_list"]) {
            if hands_through && is_star(entry) {
                self.note_star(entry, &scopes);
            } else {
                self.walk(entry, ctes, &scopes)?;
            }
        }
        for clause in ["where_clause", "group_expressions", "having", "qualify", "modifiers"] {
            self.walk(&mut node[clause], ctes, &scopes)?;
        }
        self.take_conjuncts(&node["where_clause"], &items, &|item| item.push, &|_, _| true);
        self.take_having(node, &items);
        pages::add_tie_breaks(node, &items, output.as_ref().map(Vec::len));
        Ok(if ambiguous { output.map(output::computed) } else { output })
    }

    /// Binds a FROM clause and appends its sources in order.
    fn from(
        &mut self,
        table: &mut Json,
        ctes: &CteScope,
        outer: &Scopes<'_>,
        items: &mut Vec<FromItem>,
    ) -> Result<(), TranslateError> {
        match text(&table["type"]) {
            "EMPTY" => Ok(()),
            "BASE_TABLE" => {
                let item = self.base_table(table, ctes)?;
                items.push(item);
                Ok(())
            }
            "SUBQUERY" => {
                // A subquery in FROM may be lateral: it sees the sources to its left.
                let demand = if is_vacant(&table["column_name_alias"]) { Demand::Named } else { Demand::All };
                let output = self.query(&mut table["subquery"]["node"], ctes, &outer.inner(items), demand)?;
                self.push_derived(table, output, items);
                Ok(())
            }
            "EXPRESSION_LIST" => {
                self.walk(&mut table["values"], ctes, &outer.inner(items))?;
                let width = array(&table["values"]).first().map_or(0, |row| array(row).len());
                let output = (0..width).map(|index| OutputColumn::computed(format!("col{index}"))).collect();
                self.push_derived(table, Some(output), items);
                Ok(())
            }
            "TABLE_FUNCTION" => {
                self.walk(&mut table["function"]["children"], ctes, &outer.inner(items))?;
                let name = text(&table["function"]["function_name"]).to_owned();
                let ordinality = text(&table["with_ordinality"]) == "WITH_ORDINALITY";
                // `unnest` of a struct makes a column a field.
                let output =
                    (!ordinality && !name.eq_ignore_ascii_case("unnest")).then(|| vec![OutputColumn::computed(&name)]);
                if text(&table["alias"]).is_empty() {
                    items.push(FromItem::derived(&name, output::renamed(output, &table["column_name_alias"])));
                } else {
                    self.push_derived(table, output, items);
                }
                Ok(())
            }
            "JOIN" => self.join(table, ctes, outer, items),
            "PIVOT" => {
                let mut sources = Vec::new();
                self.from(&mut table["source"], ctes, outer, &mut sources)?;
                self.need_all(&sources);
                let scopes = outer.inner(&sources);
                self.walk(&mut table["aggregates"], ctes, &scopes)?;
                self.walk(&mut table["pivots"], ctes, &scopes)?;
                self.push_derived(table, None, items);
                Ok(())
            }
            _ => {
                if table["query"].is_object() {
                    // DESCRIBE, SUMMARIZE.
                    self.query(&mut table["query"], ctes, outer, Demand::All)?;
                } else {
                    self.show_tables(table);
                }
                self.push_derived(table, None, items);
                Ok(())
            }
        }
    }

    /// SHOW TABLES lists the entities wherever it stands; to DuckDB it would be the tables of the moment.
    fn show_tables(&mut self, table: &mut Json) {
        let (schema, name) = SHOW_TABLES;
        let index = self.system_tables.len();
        self.system_tables.push(SystemTable { schema: schema.to_owned(), table: name.to_owned() });
        self.binds_as_written = false;
        *table = json!({"type": "BASE_TABLE", "alias": table["alias"], "sample": table["sample"],
            "query_location": table["query_location"], "schema_name": "", "table_name": "", "column_name_alias": [],
            "catalog_name": "", "at_clause": null, PLACEHOLDER: ["system", index]});
    }

    fn push_derived(&mut self, table: &Json, output: Output, items: &mut Vec<FromItem>) {
        let alias = text(&table["alias"]);
        self.names.insert(alias.to_ascii_lowercase());
        let mut item = FromItem::derived(alias, output::renamed(output, &table["column_name_alias"]));
        if !is_vacant(&table["sample"]) {
            item.push = PushRule::Never("the subquery is sampled");
        }
        items.push(item);
    }

    fn base_table(&mut self, table: &mut Json, ctes: &CteScope) -> Result<FromItem, TranslateError> {
        let (catalog, schema) = (text(&table["catalog_name"]).to_owned(), text(&table["schema_name"]).to_owned());
        let name = text(&table["table_name"]).to_owned();
        let alias = match text(&table["alias"]) {
            "" => name.clone(),
            alias => alias.to_owned(),
        };
        self.names.insert(name.to_ascii_lowercase());
        self.names.insert(alias.to_ascii_lowercase());
        let is = |text: &str, wanted: &str| text.eq_ignore_ascii_case(wanted);
        if let Some(output) = ctes.get(&name).filter(|_| catalog.is_empty() && schema.is_empty()) {
            let mut item = FromItem::derived(&alias, output.clone());
            if !is_vacant(&table["column_name_alias"]) {
                // Renaming goes by position.
                self.need_all(std::slice::from_ref(&item));
                item.columns = output::renamed(item.columns, &table["column_name_alias"]);
            }
            if !is_vacant(&table["sample"]) {
                item.push = PushRule::Never("the WITH query is sampled");
            } else if self.table_mentions.get(&name.to_ascii_lowercase()) != Some(&1) {
                item.push = PushRule::Never("the WITH query is used more than once");
            }
            return Ok(item);
        }
        let own_catalog = catalog.is_empty() || is(&catalog, CATALOG_NAME);
        let system_schema = own_catalog
            .then(|| {
                [("information_schema", &INFORMATION_SCHEMA_TABLES[..]), ("system", &SYSTEM_TABLES[..])]
                    .into_iter()
                    .find(|(own, tables)| is(&schema, own) && tables.iter().any(|table| is(&name, table)))
            })
            .flatten();
        if let Some((schema, _)) = system_schema {
            let index = self.system_tables.len();
            self.system_tables.push(SystemTable { schema: schema.to_owned(), table: name.to_ascii_lowercase() });
            // `system` is a catalog of DuckDB's, and `information_schema` is in none but that.
            self.binds_as_written &= schema == "information_schema" && catalog.is_empty();
            table["alias"] = json!(alias);
            table[PLACEHOLDER] = json!(["system", index]);
            return Ok(FromItem { schema: Some(schema), ..FromItem::derived(&alias, None) });
        }
        // `thermocline.flights` names the catalog and leaves the schema out.
        let own_schema =
            schema.is_empty() || is(&schema, SCHEMA_NAME) || (catalog.is_empty() && is(&schema, CATALOG_NAME));
        let Some(entity) = (own_catalog && own_schema).then(|| self.catalog.entity(&name)).flatten() else {
            return Err(unknown_table(table, self.catalog.entities().iter().map(|entity| entity.name.as_str())));
        };
        let index = self.references.len();
        let is_renamed = !array(&table["column_name_alias"]).is_empty();
        let columns = entity.public_columns().map(|column| OutputColumn {
            name: entity.column_name(column).to_owned(),
            origins: vec![Origin { index, column, push: PushRule::Always }],
        });
        let columns = output::renamed(Some(columns.collect()), &table["column_name_alias"]);
        let sampled = !crate::tree::is_vacant(&table["sample"]);
        self.references.push((
            Reference {
                entity: Arc::clone(entity),
                alias: alias.clone(),
                columns: BTreeSet::new(),
                conjuncts: Vec::new(),
                kept_back: Vec::new(),
            },
            BindState { renamed: is_renamed },
        ));
        let item = FromItem {
            alias: alias.clone(),
            schema: Some(SCHEMA_NAME),
            columns,
            source: Source::Reference { index, entity: Arc::clone(entity), renamed: is_renamed },
            push: if sampled { PushRule::Never("the table is sampled") } else { PushRule::Always },
            visible: true,
        };
        table["alias"] = json!(alias);
        table[PLACEHOLDER] = json!(["reference", index]);
        if is_renamed {
            self.need_all(std::slice::from_ref(&item));
        }
        Ok(item)
    }

    fn join(
        &mut self,
        table: &mut Json,
        ctes: &CteScope,
        outer: &Scopes<'_>,
        items: &mut Vec<FromItem>,
    ) -> Result<(), TranslateError> {
        let first = items.len();
        self.from(&mut table["left"], ctes, outer, items)?;
        let middle = items.len();
        self.from(&mut table["right"], ctes, outer, items)?;
        let form = text(&table["ref_type"]).to_owned();
        let kind = text(&table["join_type"]).to_owned();
        if form == "NATURAL" {
            self.need_all(&items[first..]);
            self.counts_columns.get_or_insert(("NATURAL JOIN; join with ON or USING", location(table)));
        }
        for column in array(&table["using_columns"]) {
            let path = [text(column)];
            self.mention(&path, &outer.inner(&items[first..]));
        }
        self.walk(&mut table["condition"], ctes, &outer.inner(items))?;

        // ON: what it may filter before the join. An unmatched row of a preserved side stays, whatever ON says of it.
        let (left_filtered, right_filtered) = match (form.as_str(), kind.as_str()) {
            ("REGULAR" | "CROSS", "INNER" | "SEMI") => (true, true),
            ("REGULAR", "LEFT" | "ANTI") => (false, true),
            ("REGULAR", "RIGHT") => (true, false),
            _ => (false, false),
        };
        let joined = &items[first..];
        let rule = |item: &FromItem| {
            let is_left = joined[..middle - first].iter().any(|left| std::ptr::eq(left, item));
            if if is_left { left_filtered } else { right_filtered } {
                item.push
            } else {
                PushRule::Never("the join keeps unmatched rows of this side")
            }
        };
        self.take_conjuncts(&table["condition"], joined, &rule, &|_, _| true);

        // WHERE: what it may filter after the join.
        let (left, right) = items[first..].split_at_mut(middle - first);
        match form.as_str() {
            "POSITIONAL" => {
                for item in left.iter_mut().chain(right.iter_mut()) {
                    item.push = PushRule::Never("a positional join pairs rows by their place");
                }
            }
            "ASOF" => {
                right.iter_mut().for_each(|item| item.push = PushRule::Never("an ASOF join picks the nearest row"))
            }
            _ => {}
        }
        match kind.as_str() {
            "LEFT" => right.iter_mut().for_each(FromItem::becomes_nullable),
            "RIGHT" => left.iter_mut().for_each(FromItem::becomes_nullable),
            "FULL" | "OUTER" => left.iter_mut().chain(right.iter_mut()).for_each(FromItem::becomes_nullable),
            "SEMI" | "ANTI" => right.iter_mut().for_each(|item| item.visible = false),
            _ => {}
        }
        if !is_vacant(&table["sample"]) {
            items[first..].iter_mut().for_each(|item| item.push = PushRule::Never("the join is sampled"));
        }
        if !is_vacant(&table["alias"]) {
            // Its columns are now those of another name, which nobody here looks behind.
            self.need_all(&items[first..]);
            items.truncate(first);
            self.names.insert(text(&table["alias"]).to_ascii_lowercase());
            items.push(FromItem::derived(text(&table["alias"]), None));
        }
        Ok(())
    }

    /// Visits expressions: binds subqueries, notes mentioned columns, makes full names short.
    fn walk(&mut self, value: &mut Json, ctes: &CteScope, scopes: &Scopes<'_>) -> Result<(), TranslateError> {
        match value {
            Json::Array(items) => items.iter_mut().try_for_each(|item| self.walk(item, ctes, scopes)),
            Json::Object(_) => match text(&value["class"]) {
                "CONSTANT" | "PARAMETER" => Ok(()),
                "COLUMN_REF" => {
                    self.column_ref(value, scopes);
                    Ok(())
                }
                "SUBQUERY" => {
                    self.walk(&mut value["child"], ctes, scopes)?;
                    // EXISTS looks at no column.
                    let demand = match text(&value["subquery_type"]) {
                        "EXISTS" | "NOT_EXISTS" => Demand::Named,
                        _ => Demand::All,
                    };
                    self.query(&mut value["subquery"]["node"], ctes, scopes, demand)?;
                    Ok(())
                }
                "POSITIONAL_REFERENCE" => {
                    // `#2` is the second column of FROM.
                    self.need_all(scopes.innermost());
                    self.counts_columns.get_or_insert(("references by position", location(value)));
                    Ok(())
                }
                class => {
                    if class == "STAR" {
                        self.star(value, scopes);
                    }
                    let Json::Object(map) = value else { return Ok(()) };
                    map.values_mut().try_for_each(|value| self.walk(value, ctes, scopes))
                }
            },
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Ok(()),
        }
    }

    fn column_ref(&mut self, node: &mut Json, scopes: &Scopes<'_>) {
        let path: Vec<String> = array(&node["column_names"]).iter().map(|part| text(part).to_owned()).collect();
        // thermocline.main.flights.carrier, main.flights.carrier: generated relations have no catalog or schema.
        let prefix = match path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [catalog, schema, alias, _, ..]
                if catalog.eq_ignore_ascii_case(CATALOG_NAME) && scopes.has_table(schema, alias) =>
            {
                2
            }
            [schema, alias, _, ..] if scopes.has_table(schema, alias) && !scopes.has_alias(schema) => 1,
            // `thermocline.flights` names the catalog and leaves the schema out.
            [catalog, alias, _, ..]
                if catalog.eq_ignore_ascii_case(CATALOG_NAME)
                    && scopes.has_table(SCHEMA_NAME, alias)
                    && !scopes.has_alias(catalog) =>
            {
                1
            }
            _ => 0,
        };
        if prefix > 0 {
            let is_entity = scopes.has_table(SCHEMA_NAME, &path[prefix]);
            self.binds_as_written &= is_entity || prefix == 1;
            node["column_names"] = json!(path[prefix..]);
        }
        let path: Vec<&str> = path[prefix..].iter().map(String::as_str).collect();
        self.mention(&path, scopes);
    }

    /// Marks every column that the path could mean as needed.
    fn mention(&mut self, path: &[&str], scopes: &Scopes<'_>) {
        for item in scopes.items() {
            let qualified = item.alias.eq_ignore_ascii_case(path[0]);
            if qualified && path.len() == 1 {
                // The whole row.
                self.need_all(std::slice::from_ref(item));
            }
            // f.carrier, or carrier (and carrier.field, which only DuckDB can make sense of).
            let candidates = [qualified.then(|| path.get(1)).flatten(), path.first()];
            for name in candidates.into_iter().flatten() {
                match &item.source {
                    Source::Reference { index, entity, renamed: false } => {
                        self.references[*index].0.columns.extend(entity.column(name));
                    }
                    Source::Reference { .. } => {}
                    Source::Derived => {
                        let columns =
                            item.columns.iter().flatten().filter(|column| column.name.eq_ignore_ascii_case(name));
                        for origin in columns.flat_map(|column| &column.origins) {
                            self.references[origin.index].0.columns.insert(origin.column);
                        }
                    }
                }
            }
        }
    }

    /// Marks everything that a star stands for as needed.
    fn star(&mut self, node: &mut Json, scopes: &Scopes<'_>) {
        for item in self.note_star(node, scopes) {
            self.need_all(std::slice::from_ref(item));
        }
    }

    /// Notes which references a star covers, for [`Self::exclude_hidden`].
    fn note_star<'s>(&mut self, node: &mut Json, scopes: &Scopes<'s>) -> Vec<&'s FromItem> {
        let relation = text(&node["relation_name"]).to_owned();
        let items: Vec<&FromItem> = if relation.is_empty() {
            scopes.innermost().iter().filter(|item| item.visible).collect()
        } else {
            scopes.items().filter(|item| item.visible && item.alias.eq_ignore_ascii_case(&relation)).collect()
        };
        let indexes: Vec<usize> = items
            .iter()
            .filter_map(|item| match item.source {
                Source::Reference { index, .. } => Some(index),
                Source::Derived => None,
            })
            .collect();
        node[STAR_ITEMS] = json!(indexes);
        items
    }

    fn need_all(&mut self, items: &[FromItem]) {
        for item in items {
            if let Source::Reference { index, entity, .. } = &item.source {
                self.references[*index].0.columns.extend(entity.public_columns());
            }
            for origin in item.origins() {
                self.references[origin.index].0.columns.insert(origin.column);
            }
        }
    }

    /// Makes stars leave out the hidden columns of references that offer them.
    fn exclude_hidden(&self, node: &mut Json) -> Result<(), TranslateError> {
        let hidden: Vec<(usize, &str, &str)> = self
            .references
            .iter()
            .enumerate()
            .flat_map(|(index, (reference, _))| {
                let hidden = reference.columns.iter().filter(|column| column.is_hidden());
                hidden.map(move |column| (index, reference.alias.as_str(), reference.entity.column_name(*column)))
            })
            .collect();
        if let (Some((form, place)), Some((_, _, column))) = (self.counts_columns, hidden.first()) {
            return Err(TranslateError::refused(format!("`{column}` can't be used together with {form}"), place));
        }
        if let Some((index, ..)) = hidden.iter().find(|(index, ..)| self.references[*index].1.renamed) {
            return Err(TranslateError::refused(
                format!(
                    "hidden columns of `{}` can't be used when FROM renames its columns",
                    self.references[*index].0.alias
                ),
                None,
            ));
        }
        exclude_in(node, &hidden);
        Ok(())
    }
}

fn exclude_in(node: &mut Json, hidden: &[(usize, &str, &str)]) {
    match node {
        Json::Object(map) => {
            if let Some(items) = map.remove(STAR_ITEMS) {
                let covered: Vec<u64> = array(&items).iter().filter_map(Json::as_u64).collect();
                for (_, alias, column) in hidden.iter().filter(|(index, ..)| covered.contains(&(*index as u64))) {
                    let entry = json!({"catalog": "", "schema": "", "table": alias, "column": column});
                    if let Some(Json::Array(list)) = map.get_mut("qualified_exclude_list") {
                        list.push(entry);
                    }
                }
            }
            map.values_mut().for_each(|value| exclude_in(value, hidden));
        }
        Json::Array(items) => items.iter_mut().for_each(|item| exclude_in(item, hidden)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

/// Counts how often each name is used as a table or defined by WITH a second time.
fn count_table_mentions(node: &Json, counts: &mut HashMap<String, usize>) {
    match node {
        Json::Object(map) => {
            if text(&node["type"]) == "BASE_TABLE" {
                *counts.entry(text(&node["table_name"]).to_ascii_lowercase()).or_default() += 1;
            }
            map.values().for_each(|value| count_table_mentions(value, counts));
        }
        Json::Array(items) => items.iter().for_each(|item| count_table_mentions(item, counts)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}
