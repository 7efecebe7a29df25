//! From the text of a `catalog.toml` (docs/contract.md, "Types") to a [`Catalog`], or to all of its faults together.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::print::type_name;
use super::{
    Attribute, Catalog, Entity, KeyColumn, Layout, MAX_PRECISION_OF_DOUBLES, MainColumnKind, OwnTable, PrimaryKeys,
    ScalarType, Storage, TimeEncoding,
};
use super::{DELETED_AT_COLUMN, TIER_COLUMN, fold};

/// Everything that is wrong with a catalog file, in the order of its lines; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogFaults {
    pub faults: Vec<CatalogFault>,
}

/// One fault of a catalog file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogFault {
    /// Line in the file, from 1.
    pub line: usize,
    pub message: String,
}

impl std::fmt::Display for CatalogFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::fmt::Display for CatalogFaults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CatalogFaults {}

/// Names that SQL already gives a meaning: schemas of the server and of DuckDB, and the generated relations of the
/// federated statement.
const RESERVED_ENTITY_NAMES: [&str; 10] = [
    "information_schema",
    "pg_catalog",
    "system",
    "temp",
    super::SCHEMA_NAME,
    super::CATALOG_NAME,
    "dirty_ids",
    "s3_source",
    "pg_source",
    "unified",
];

/// Columns that every entity or every file has beside the attributes.
const RESERVED_COLUMNS: [&str; 7] =
    ["row_id", "created_at", "updated_at", "changed_at", "deleted_at", TIER_COLUMN, DELETED_AT_COLUMN];
/// Generated statements name columns of their own so.
const RESERVED_PREFIX: &str = "_tc_";

const ROOT_KEYS: [&str; 1] = ["entity"];
const ENTITY_KEYS: [&str; 6] = ["name", "schema_id", "description", "classified", "table", "attribute"];
const TABLE_KEYS: [&str; 2] = ["name", "key"];
const ATTRIBUTE_KEYS: [&str; 7] = ["name", "type", "column", "attr_id", "encoding", "list", "description"];

/// DuckDB's and Arrow's decimals of 128 bits have no more digits.
const MAX_PRECISION: u8 = 38;

pub(super) fn parse(text: &str, keys: &PrimaryKeys) -> Result<Catalog, CatalogFaults> {
    let mut faults = Faults::new(text);
    let (root, syntax_errors) = DeTable::parse_recoverable(text);
    if !syntax_errors.is_empty() {
        // The tree behind a syntax error is a guess, and so would be every fault found in it.
        for error in syntax_errors {
            faults.report(&error.span().unwrap_or(0..0), error.message().to_owned());
        }
        let mut faults = faults.finish();
        // What follows on the same line is mostly an echo of its first error.
        faults.faults.dedup_by_key(|fault| fault.line);
        return Err(faults);
    }
    let catalog = read_catalog(&root, keys, &mut faults);
    if faults.is_empty() { Ok(catalog) } else { Err(faults.finish()) }
}

/// A text with other faults is read as far as it goes.
pub(super) fn tables_without_key(text: &str) -> Vec<String> {
    let (root, _) = DeTable::parse_recoverable(text);
    let mut ignored = Faults::new(text);
    let root = Fields { table: root.get_ref(), span: root.span(), owner: String::new() };
    let entities = root.tables("entity", &mut ignored);
    let own_tables = entities.iter().filter_map(|entity| entity.table("table", &mut ignored)).collect::<Vec<_>>();
    let without = own_tables.iter().filter(|table| !table.has("key"));
    without.filter_map(|table| table.string("name", &mut Faults::new(text)).map(Spanned::into_inner)).collect()
}

fn read_catalog(root: &Spanned<DeTable<'_>>, keys: &PrimaryKeys, faults: &mut Faults) -> Catalog {
    let root = Fields { table: root.get_ref(), span: root.span(), owner: "the catalog".to_owned() };
    root.refuse_unknown(&ROOT_KEYS, faults);
    let mut names = Seen::default();
    let mut schema_ids = Seen::default();
    let mut entities = Vec::new();
    for table in root.tables("entity", faults) {
        if let Some(entity) = read_entity(&table, keys, &mut names, &mut schema_ids, faults) {
            entities.push(Arc::new(entity));
        }
    }
    Catalog { entities }
}

fn read_entity(
    table: &Fields<'_>,
    keys: &PrimaryKeys,
    names: &mut Seen<String>,
    schema_ids: &mut Seen<i16>,
    faults: &mut Faults,
) -> Option<Entity> {
    let name = table.string("name", faults);
    let owner = match &name {
        Some(name) => format!("entity `{}`", name.get_ref()),
        None => "this entity".to_owned(),
    };
    let table = &Fields { owner, ..table.clone() };
    table.refuse_unknown(&ENTITY_KEYS, faults);
    table.require("name", faults);
    table.require("schema_id", faults);

    if let Some(name) = &name {
        check_entity_name(name, faults);
        if let Some(line) = names.first_line(name.get_ref().to_ascii_lowercase(), &name.span(), faults) {
            faults.report(&name.span(), format!("entity `{}` is already defined on line {line}", name.get_ref()));
        }
    }
    let schema_id = table.small_integer("schema_id", faults);
    if let Some(id) = &schema_id
        && let Some(line) = schema_ids.first_line(*id.get_ref(), &id.span(), faults)
    {
        faults.report(&id.span(), format!("schema_id {} is already used on line {line}", id.get_ref()));
    }

    let own_table = table.table("table", faults);
    let kept = if own_table.is_some() || table.has("table") { Kept::InOwnTable } else { Kept::InEav };
    let mut seen = SeenInEntity::default();
    let attributes: Vec<Attribute> = table
        .tables("attribute", faults)
        .into_iter()
        .filter_map(|attribute| read_attribute(&attribute, &table.owner, kept, &mut seen, faults))
        .collect();
    let layout = match (kept, own_table) {
        (Kept::InEav, _) => Some(Layout::Eav),
        (Kept::InOwnTable, Some(own)) => {
            read_own_table(own, &table.owner, &attributes, keys, faults).map(Layout::Table)
        }
        (Kept::InOwnTable, None) => None,
    };
    Some(Entity {
        name: name?.into_inner(),
        schema_id: schema_id?.into_inner(),
        description: table.string("description", faults).map(Spanned::into_inner),
        attributes,
        layout: layout?,
        classified: table.boolean("classified", faults).is_some_and(Spanned::into_inner),
        hidden: BTreeSet::new(),
    })
}

/// Where the attributes of an entity are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    InEav,
    InOwnTable,
}

/// Reads `[entity.table]`.
fn read_own_table(
    table: Fields<'_>,
    entity: &str,
    attributes: &[Attribute],
    keys: &PrimaryKeys,
    faults: &mut Faults,
) -> Option<OwnTable> {
    let table = &Fields { owner: format!("the table of {entity}"), ..table };
    table.refuse_unknown(&TABLE_KEYS, faults);
    table.require("name", faults);
    let name = table.string("name", faults);
    if let Some(name) = &name
        && !(name.get_ref().split('.').count() <= 2 && name.get_ref().split('.').all(|part| !part.trim().is_empty()))
    {
        faults.report(&name.span(), format!("{}: expected a name such as `orders` or `public.orders`", table.owner));
        return None;
    }
    let columns = match name.as_ref().and_then(|name| Some((name.span(), keys.get(name.get_ref())?))) {
        Some((span, columns)) if !table.has("key") => {
            columns.iter().map(|column| Spanned::new(span.clone(), column.clone())).collect()
        }
        _ => {
            table.require("key", faults);
            table.strings("key", faults)?
        }
    };
    if columns.is_empty() {
        faults.report(&table.span_of("key"), format!("{}: the key has no column", table.owner));
    }
    let mut key: Vec<KeyColumn> = Vec::new();
    for column in &columns {
        let of_column = |attribute: &Attribute| matches!(&attribute.storage, Storage::Own { column: own } if own == column.get_ref());
        let message = match attributes.iter().position(of_column) {
            None => format!("no attribute has the key's column `{}`", column.get_ref()),
            Some(attribute) if attributes[attribute].list || !attributes[attribute].scalar.is_key() => {
                format!(
                    "`{}` is a {}, which can't be part of a key",
                    column.get_ref(),
                    type_name(attributes[attribute].scalar)
                )
            }
            Some(_) if key.iter().any(|known| known.column == *column.get_ref()) => {
                format!("`{}` is in the key twice", column.get_ref())
            }
            Some(attribute) => {
                key.push(KeyColumn { column: column.get_ref().clone(), attribute });
                continue;
            }
        };
        faults.report(&column.span(), format!("{}: {message}", table.owner));
    }
    (key.len() == columns.len() && !key.is_empty()).then_some(OwnTable { name: name?.into_inner(), key })
}

fn check_entity_name(name: &Spanned<String>, faults: &mut Faults) {
    let text = name.get_ref();
    if text.trim().is_empty() {
        faults.report(&name.span(), "the name of an entity is empty".to_owned());
        return;
    }
    // The name becomes a path segment for `{schema_name}`: no separators, no glob characters, no staging prefix.
    let is_plain = text.starts_with(char::is_alphabetic)
        && text.chars().all(|letter| letter.is_alphanumeric() || letter == '_' || letter == '-');
    if !is_plain {
        faults.report(
            &name.span(),
            format!("entity name `{text}`: expected a letter and then letters, digits, `_` or `-`"),
        );
    }
    if RESERVED_ENTITY_NAMES.iter().any(|reserved| reserved.eq_ignore_ascii_case(text)) {
        faults.report(&name.span(), format!("entity name `{text}` is reserved; choose another one"));
    }
}

/// What the attributes of one entity must not share.
#[derive(Default)]
struct SeenInEntity {
    folded: Seen<String>,
    attr_ids: Seen<i16>,
    columns: Seen<String>,
}

fn read_attribute(
    table: &Fields<'_>,
    entity: &str,
    kept: Kept,
    seen: &mut SeenInEntity,
    faults: &mut Faults,
) -> Option<Attribute> {
    let name = table.string("name", faults);
    let owner = match &name {
        Some(name) => format!("attribute `{}` of {entity}", name.get_ref()),
        None => format!("this attribute of {entity}"),
    };
    let table = &Fields { owner, ..table.clone() };
    table.refuse_unknown(&ATTRIBUTE_KEYS, faults);
    table.require("name", faults);
    table.require("type", faults);

    let folded = name.as_ref().and_then(|name| check_attribute_name(name, table, seen, faults));
    let scalar = table.string("type", faults).and_then(|text| {
        let span = text.span();
        read_type(text.get_ref()).map_err(|message| faults.report(&span, format!("{}: {message}", table.owner))).ok()
    });
    let list = table.boolean("list", faults).map(Spanned::into_inner).unwrap_or(false);
    if kept == Kept::InEav
        && let Some(scalar) = scalar
        && scalar.needs_own_table()
    {
        let message = match scalar {
            ScalarType::Decimal { .. } => format!(
                "{}: entity_main and eav_data hold decimals of at most {MAX_PRECISION_OF_DOUBLES} digits; a table of its \
                 own holds {MAX_PRECISION}",
                table.owner
            ),
            _ => format!("{}: only a table of its own ([entity.table]) holds a {}", table.owner, type_name(scalar)),
        };
        faults.report(&table.span_of("type"), message);
    }
    let encoding = match kept {
        Kept::InEav => read_encoding(table, scalar, faults),
        Kept::InOwnTable => {
            if table.has("encoding") {
                faults.report(
                    &table.span_of("encoding"),
                    format!("{}: a table's columns have types of their own and no encoding", table.owner),
                );
            }
            Some(TimeEncoding::default())
        }
    };
    let storage = match kept {
        Kept::InEav => read_storage(table, seen, faults),
        Kept::InOwnTable => read_own_column(table, seen, faults),
    };
    if list && matches!(storage, Some(Storage::Main { .. })) {
        faults.report(
            &table.span_of("list"),
            format!("{}: a list is stored in eav_data; expected `attr_id` instead of `column`", table.owner),
        );
    }
    if let (Some(Storage::Main { column, kind }), Some(scalar), Some(encoding), false) =
        (&storage, scalar, encoding, list)
        && !kind.stores(scalar, encoding)
    {
        let message = cannot_store(*kind, column, scalar, encoding);
        faults.report(&table.span_of("column"), format!("{}: {message}", table.owner));
    }
    Some(Attribute {
        name: name?.into_inner(),
        column: folded?,
        scalar: scalar?,
        list,
        storage: storage?,
        encoding: encoding?,
        description: table.string("description", faults).map(Spanned::into_inner),
    })
}

/// The folded name, when the name is usable.
fn check_attribute_name(
    name: &Spanned<String>,
    table: &Fields<'_>,
    seen: &mut SeenInEntity,
    faults: &mut Faults,
) -> Option<String> {
    let text = name.get_ref();
    if text.trim().is_empty() {
        faults.report(&name.span(), "the name of an attribute is empty".to_owned());
        return None;
    }
    if text.chars().any(char::is_control) {
        faults.report(&name.span(), format!("{}: the name holds a control character", table.owner));
        return None;
    }
    let folded = fold(text);
    let key = folded.to_ascii_lowercase();
    if RESERVED_COLUMNS.contains(&key.as_str()) || key.starts_with(RESERVED_PREFIX) {
        faults.report(
            &name.span(),
            format!("{}: the column name `{folded}` is reserved; every entity has that column", table.owner),
        );
        return None;
    }
    if let Some(line) = seen.folded.first_line(key, &name.span(), faults) {
        faults.report(
            &name.span(),
            format!(
                "{}: the column name `{folded}` is already taken by the attribute on line {line} (dots and spaces \
                 fold to `_`, letter case doesn't count)",
                table.owner
            ),
        );
        return None;
    }
    Some(folded)
}

fn read_type(text: &str) -> Result<ScalarType, String> {
    let text = text.trim();
    if let Some(arguments) = text.strip_prefix("decimal") {
        return read_decimal(text, arguments);
    }
    Ok(match text {
        "text" => ScalarType::Text,
        "smallint" => ScalarType::SmallInt,
        "integer" => ScalarType::Integer,
        "bigint" => ScalarType::BigInt,
        "real" => ScalarType::Real,
        "double" => ScalarType::Double,
        "boolean" => ScalarType::Boolean,
        "uuid" => ScalarType::Uuid,
        "date" => ScalarType::Date,
        "time" => ScalarType::Time,
        "timestamp" => ScalarType::Timestamp,
        "timestamp_naive" => ScalarType::TimestampNaive,
        "json" => ScalarType::Json,
        "blob" => ScalarType::Blob,
        _ => {
            return Err(format!(
                "unknown type `{text}`; expected text, smallint, integer, bigint, real, double, decimal(p,s), boolean, \
                 uuid, date, time, timestamp, timestamp_naive, json or blob"
            ));
        }
    })
}

fn read_decimal(text: &str, arguments: &str) -> Result<ScalarType, String> {
    let malformed = || format!("type `{text}`: expected decimal(p,s) such as decimal(9,2)");
    let inner = arguments.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).ok_or_else(malformed)?;
    let (precision, scale) = inner.split_once(',').ok_or_else(malformed)?;
    let precision: u8 = precision.trim().parse().map_err(|_| malformed())?;
    let scale: u8 = scale.trim().parse().map_err(|_| malformed())?;
    if precision == 0 || precision > MAX_PRECISION {
        return Err(format!("type `{text}`: expected a precision from 1 to {MAX_PRECISION}"));
    }
    if scale > precision {
        return Err(format!("type `{text}`: expected a scale of at most the precision {precision}"));
    }
    Ok(ScalarType::Decimal { precision, scale })
}

/// The encoding in force; `None` after a fault.
fn read_encoding(table: &Fields<'_>, scalar: Option<ScalarType>, faults: &mut Faults) -> Option<TimeEncoding> {
    if !table.has("encoding") {
        return Some(TimeEncoding::default());
    }
    let text = table.string("encoding", faults)?;
    if let Some(scalar) = scalar
        && !matches!(scalar, ScalarType::Date | ScalarType::Timestamp)
    {
        faults.report(&table.span_of("encoding"), format!("{}: only date and timestamp have an encoding", table.owner));
    }
    match text.get_ref().as_str() {
        "unix_ms" => Some(TimeEncoding::UnixMs),
        "iso8601" => Some(TimeEncoding::Iso8601),
        other => {
            faults.report(
                &text.span(),
                format!("{}: unknown encoding `{other}`; expected unix_ms or iso8601", table.owner),
            );
            None
        }
    }
}

/// Reads where an attribute of an entity with a table of its own is: a column of it.
fn read_own_column(table: &Fields<'_>, seen: &mut SeenInEntity, faults: &mut Faults) -> Option<Storage> {
    if table.has("attr_id") {
        faults.report(
            &table.span_of("attr_id"),
            format!("{}: the rows are in a table of its own, which has no `attr_id`; expected `column`", table.owner),
        );
        return None;
    }
    table.require("column", faults);
    let column = table.string("column", faults)?;
    if let Some(line) = seen.columns.first_line(column.get_ref().clone(), &column.span(), faults) {
        faults.report(
            &column.span(),
            format!("{}: column `{}` is already used on line {line}", table.owner, column.get_ref()),
        );
        return None;
    }
    Some(Storage::Own { column: column.into_inner() })
}

fn read_storage(table: &Fields<'_>, seen: &mut SeenInEntity, faults: &mut Faults) -> Option<Storage> {
    match (table.has("column"), table.has("attr_id")) {
        (true, true) => {
            faults.report(
                &table.span_of("attr_id"),
                format!("{}: both `column` and `attr_id`; expected one of them", table.owner),
            );
            None
        }
        (false, false) => {
            faults
                .report(&table.span, format!("{}: neither `column` nor `attr_id`; expected one of them", table.owner));
            None
        }
        (true, false) => {
            let column = table.string("column", faults)?;
            let Some(kind) = MainColumnKind::of_column(column.get_ref()) else {
                faults.report(
                    &column.span(),
                    format!(
                        "{}: `{}` is no column of entity_main; expected text_NN, smallint_NN, integer_NN, bigint_NN, \
                         double_NN or uuid_NN",
                        table.owner,
                        column.get_ref()
                    ),
                );
                return None;
            };
            if let Some(line) = seen.columns.first_line(column.get_ref().clone(), &column.span(), faults) {
                faults.report(
                    &column.span(),
                    format!("{}: column `{}` is already used on line {line}", table.owner, column.get_ref()),
                );
                return None;
            }
            Some(Storage::Main { column: column.into_inner(), kind })
        }
        (false, true) => {
            let attr_id = table.small_integer("attr_id", faults)?;
            if let Some(line) = seen.attr_ids.first_line(*attr_id.get_ref(), &attr_id.span(), faults) {
                faults.report(
                    &attr_id.span(),
                    format!("{}: attr_id {} is already used on line {line}", table.owner, attr_id.get_ref()),
                );
                return None;
            }
            Some(Storage::Eav { attr_id: attr_id.into_inner() })
        }
    }
}

fn cannot_store(kind: MainColumnKind, column: &str, scalar: ScalarType, encoding: TimeEncoding) -> String {
    let is_time = matches!(scalar, ScalarType::Date | ScalarType::Timestamp);
    let type_name = type_name(scalar);
    match (is_time, encoding, kind) {
        (true, TimeEncoding::UnixMs, MainColumnKind::Text) => format!(
            "column `{column}` cannot store a {type_name} as unix_ms; expected a bigint_NN column, or \
             encoding = \"iso8601\""
        ),
        (true, TimeEncoding::Iso8601, MainColumnKind::BigInt) => format!(
            "column `{column}` cannot store a {type_name} as iso8601; expected a text_NN column, or \
             encoding = \"unix_ms\""
        ),
        _ => format!(
            "column `{column}` cannot store a {type_name}; expected {}",
            match scalar {
                ScalarType::Text | ScalarType::Json => "a text_NN column",
                ScalarType::SmallInt => "a smallint_NN, integer_NN or bigint_NN column",
                ScalarType::Integer => "an integer_NN or bigint_NN column",
                ScalarType::BigInt => "a bigint_NN column",
                ScalarType::Double | ScalarType::Decimal { .. } => "a double_NN column",
                ScalarType::Boolean => "a smallint_NN column",
                ScalarType::Uuid => "a uuid_NN or text_NN column",
                ScalarType::Date | ScalarType::Timestamp => match encoding {
                    TimeEncoding::UnixMs => "a bigint_NN column",
                    TimeEncoding::Iso8601 => "a text_NN column",
                },
                ScalarType::Real | ScalarType::Time | ScalarType::TimestampNaive | ScalarType::Blob => {
                    "a table of its own"
                }
            }
        ),
    }
}

/// One table of the file, with the words that faults call it by.
#[derive(Clone)]
struct Fields<'t> {
    table: &'t DeTable<'t>,
    span: Range<usize>,
    owner: String,
}

impl<'t> Fields<'t> {
    fn get(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.table.get(key)
    }

    fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Where the value of `key` stands; the whole table when it is missing.
    fn span_of(&self, key: &str) -> Range<usize> {
        self.get(key).map_or_else(|| self.span.clone(), Spanned::span)
    }

    fn refuse_unknown(&self, known: &[&str], faults: &mut Faults) {
        for key in self.table.keys() {
            if !known.contains(&key.get_ref().as_ref()) {
                let hint = match nearest(key.get_ref(), known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("expected {}", known.join(", ")),
                };
                faults.report(&key.span(), format!("{}: unknown key `{}`; {hint}", self.owner, key.get_ref()));
            }
        }
    }

    fn require(&self, key: &str, faults: &mut Faults) {
        if !self.has(key) {
            faults.report(&self.span, format!("{}: `{key}` is missing", self.owner));
        }
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str, faults: &mut Faults) {
        let found = match value.get_ref().type_str() {
            vowel @ ("integer" | "array") => format!("an {vowel}"),
            other => format!("a {other}"),
        };
        let message = format!("{}: `{key}` is {found}; expected {expected}", self.owner);
        faults.report(&value.span(), message);
    }

    fn string(&self, key: &str, faults: &mut Faults) -> Option<Spanned<String>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(Spanned::new(value.span(), text.to_string())),
            _ => {
                self.wrong_type(key, value, "a string", faults);
                None
            }
        }
    }

    fn boolean(&self, key: &str, faults: &mut Faults) -> Option<Spanned<bool>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(Spanned::new(value.span(), *flag)),
            _ => {
                self.wrong_type(key, value, "true or false", faults);
                None
            }
        }
    }

    fn small_integer(&self, key: &str, faults: &mut Faults) -> Option<Spanned<i16>> {
        let value = self.get(key)?;
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_type(key, value, "an integer", faults);
            return None;
        };
        match i16::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) => Some(Spanned::new(value.span(), number)),
            Err(_) => {
                let message = format!("{}: `{key}` is out of range; expected a SMALLINT", self.owner);
                faults.report(&value.span(), message);
                None
            }
        }
    }

    fn strings(&self, key: &str, faults: &mut Faults) -> Option<Vec<Spanned<String>>> {
        let value = self.get(key)?;
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type(key, value, "a list of strings", faults);
            return None;
        };
        let mut strings = Vec::new();
        for element in array.iter() {
            match element.get_ref() {
                DeValue::String(text) => strings.push(Spanned::new(element.span(), text.to_string())),
                _ => {
                    self.wrong_type(key, element, "a list of strings", faults);
                    return None;
                }
            }
        }
        Some(strings)
    }

    fn table(&self, key: &str, faults: &mut Faults) -> Option<Fields<'t>> {
        let value = self.get(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(key, value, &format!("a table headed [{key}]"), faults);
            return None;
        };
        Some(Fields { table, span: value.span(), owner: self.owner.clone() })
    }

    fn tables(&self, key: &str, faults: &mut Faults) -> Vec<Fields<'t>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type(key, value, &format!("tables headed [[{key}]]"), faults);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for element in array.iter() {
            match element.get_ref() {
                DeValue::Table(table) => {
                    tables.push(Fields { table, span: element.span(), owner: self.owner.clone() });
                }
                _ => self.wrong_type(key, element, "a table", faults),
            }
        }
        tables
    }
}

fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), *candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 2 && *distance < candidate.len())
        .map(|(_, candidate)| candidate)
}

/// Values that may occur once, with the line of their first use.
struct Seen<K>(HashMap<K, usize>);

impl<K> Default for Seen<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: std::hash::Hash + Eq> Seen<K> {
    /// The line of the first use of `key`, or `None` when this is the first.
    fn first_line(&mut self, key: K, span: &Range<usize>, faults: &Faults) -> Option<usize> {
        match self.0.entry(key) {
            std::collections::hash_map::Entry::Occupied(first) => Some(*first.get()),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(faults.line_at(span.start));
                None
            }
        }
    }
}

/// Collects faults and turns byte offsets into lines.
struct Faults {
    line_starts: Vec<usize>,
    faults: Vec<CatalogFault>,
}

impl Faults {
    fn new(text: &str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { line_starts, faults: Vec::new() }
    }

    fn line_at(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    fn report(&mut self, span: &Range<usize>, message: String) {
        self.faults.push(CatalogFault { line: self.line_at(span.start), message });
    }

    fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    fn finish(mut self) -> CatalogFaults {
        self.faults.sort_by_key(|fault| fault.line);
        CatalogFaults { faults: self.faults }
    }
}

#[cfg(test)]
mod tests;
