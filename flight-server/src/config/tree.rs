//! The settings as written: the file's tree with the environment laid over it, each value with its place.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

/// Environment variables that override keys start with this; `__` separates sections and key.
pub(super) const ENVIRONMENT_PREFIX: &str = "THERMOCLINE__";

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A line of the file, from 1; 0 stands for the file as a whole.
    Line(usize),
    Variable(String),
}

#[derive(Debug, Clone)]
struct Node {
    place: Place,
    value: Value,
}

#[derive(Debug, Clone)]
enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
    /// A TOML value that no key takes (dates and times, integers beyond 64 bits).
    Other(&'static str),
}

impl Value {
    fn describe(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(name) => name,
        }
    }
}

/// One fault of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// `thermocline.toml:12`, the file alone, or the name of an environment variable.
    pub place: String,
    /// The full key (`lake.s3.endpoint`); empty when the file as a whole is at fault.
    pub key: String,
    /// What is wrong and what is expected.
    pub message: String,
}

impl std::fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.place, self.message)
        } else {
            write!(f, "{}: {}: {}", self.place, self.key, self.message)
        }
    }
}

/// Collects the faults of one file and its environment.
#[derive(Debug)]
pub(super) struct Faults {
    file: String,
    /// Line (or `usize::MAX` for the environment), to sort by, and fault.
    faults: Vec<(usize, ConfigFault)>,
}

impl Faults {
    pub(super) fn new(file: String) -> Self {
        Self { file, faults: Vec::new() }
    }

    pub(super) fn report(&mut self, place: &Place, key: impl Into<String>, message: impl Into<String>) {
        let (order, place) = match place {
            Place::Line(0) => (0, self.file.clone()),
            Place::Line(line) => (*line, format!("{}:{line}", self.file)),
            Place::Variable(name) => (usize::MAX, name.clone()),
        };
        self.faults.push((order, ConfigFault { place, key: key.into(), message: message.into() }));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    pub(super) fn finish(mut self) -> Vec<ConfigFault> {
        self.faults.sort_by_key(|(order, _)| *order);
        self.faults.into_iter().map(|(_, fault)| fault).collect()
    }
}

/// A value with the place it was written at.
#[derive(Debug, Clone)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// One table of the settings while it is being read. [`Section::finish`] reports the keys that nobody asked for.
#[derive(Debug)]
pub(super) struct Section {
    /// `lake.s3`; empty for the root.
    path: String,
    place: Place,
    nodes: BTreeMap<String, Node>,
    known: Vec<&'static str>,
}

/// Reads the file and lays the environment over it. After a syntax error the section is empty.
pub(super) fn read_settings(
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
    faults: &mut Faults,
) -> Section {
    let line_starts: Vec<usize> = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let line_at = |offset: usize| line_starts.partition_point(|start| *start <= offset);
    let (root, syntax_errors) = DeTable::parse_recoverable(text);
    let mut nodes = BTreeMap::new();
    if syntax_errors.is_empty() {
        nodes = read_table(root.get_ref(), &line_at);
    }
    let mut last_line = 0;
    for error in syntax_errors {
        let line = line_at(error.span().map_or(0, |span| span.start));
        // What follows on the same line is mostly an echo of its first error.
        if line != last_line {
            faults.report(&Place::Line(line), "", error.message());
        }
        last_line = line;
    }
    let mut environment: Vec<_> = environment.into_iter().collect();
    environment.sort();
    for (name, value) in environment {
        if let Some(path) = name.strip_prefix(ENVIRONMENT_PREFIX) {
            let path: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
            lay_over(&mut nodes, &path, &name, &value, faults);
        }
    }
    Section { path: String::new(), place: Place::Line(0), nodes, known: Vec::new() }
}

fn read_table(table: &DeTable<'_>, line_at: &impl Fn(usize) -> usize) -> BTreeMap<String, Node> {
    table
        .iter()
        .map(|(key, value)| {
            let mut node = read_node(value, line_at);
            // The key's line serves better than the value's: a table's value starts elsewhere.
            node.place = Place::Line(line_at(key.span().start));
            (key.get_ref().to_string(), node)
        })
        .collect()
}

fn read_node(value: &Spanned<DeValue<'_>>, line_at: &impl Fn(usize) -> usize) -> Node {
    let read = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or(Value::Other("an integer beyond 64 bits"), Value::Integer),
        DeValue::Float(float) => float.as_str().parse().map_or(Value::Other("a float out of range"), Value::Float),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(array) => Value::List(array.iter().map(|element| read_node(element, line_at)).collect()),
        DeValue::Table(table) => Value::Table(read_table(table, line_at)),
    };
    Node { place: Place::Line(line_at(value.span().start)), value: read }
}

/// Puts the value of an environment variable at its key.
fn lay_over(nodes: &mut BTreeMap<String, Node>, path: &[String], name: &str, value: &str, faults: &mut Faults) {
    let place = Place::Variable(name.to_owned());
    match path {
        [] => {}
        [key] => {
            nodes.insert(key.clone(), Node { place, value: Value::Text(value.to_owned()) });
        }
        [section, rest @ ..] => {
            let section_node = nodes
                .entry(section.clone())
                .or_insert_with(|| Node { place: place.clone(), value: Value::Table(BTreeMap::new()) });
            match &mut section_node.value {
                Value::Table(inner) => lay_over(inner, rest, name, value, faults),
                other => {
                    faults.report(&place, section.clone(), format!("is {} here; expected a section", other.describe()))
                }
            }
        }
    }
}

impl Section {
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The full name of a key of this section.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Where `key` is written; the section's own place when it isn't.
    pub(super) fn place_of(&self, key: &str) -> Place {
        self.nodes.get(key).map_or_else(|| self.place.clone(), |node| node.place.clone())
    }

    /// Whether any key of it is written.
    pub(super) fn is_written(&self) -> bool {
        !self.nodes.is_empty()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.nodes.contains_key(key)
    }

    fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        self.nodes.remove(key)
    }

    /// A sub-section; an empty one when it isn't written.
    pub(super) fn section(&mut self, key: &'static str, faults: &mut Faults) -> Self {
        let path = self.key(key);
        let empty = |place| Self { path: path.clone(), place, nodes: BTreeMap::new(), known: Vec::new() };
        match self.take(key) {
            None => empty(Place::Line(0)),
            Some(Node { place, value: Value::Table(nodes) }) => Self { nodes, ..empty(place) },
            Some(Node { place, value }) => {
                faults.report(&place, path.clone(), format!("is {}; expected a section", value.describe()));
                empty(place)
            }
        }
    }

    /// Reports a key that no version takes any more.
    pub(super) fn refuse(&mut self, key: &'static str, instead: &str, faults: &mut Faults) {
        if let Some(node) = self.nodes.remove(key) {
            faults.report(&node.place, self.key(key), format!("is refused; expected {instead}"));
        }
    }

    pub(super) fn text(&mut self, key: &'static str, faults: &mut Faults) -> Option<Found<String>> {
        let node = self.take(key)?;
        match node.value {
            Value::Text(value) => Some(Found { value, place: node.place }),
            other => {
                faults.report(&node.place, self.key(key), format!("is {}; expected a string", other.describe()));
                None
            }
        }
    }

    /// A string that isn't blank.
    pub(super) fn word(&mut self, key: &'static str, faults: &mut Faults) -> Option<Found<String>> {
        let found = self.text(key, faults)?;
        if found.value.trim().is_empty() {
            faults.report(&found.place, self.key(key), "is empty; leave the key out or give a value");
            return None;
        }
        Some(found)
    }

    /// A string that `read` understands; `expected` says which those are. The value itself is not printed.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        faults: &mut Faults,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<Found<T>> {
        let found = self.text(key, faults)?;
        match read(found.value.trim()) {
            Some(value) => Some(Found { value, place: found.place }),
            None => {
                faults.report(&found.place, self.key(key), format!("expected {expected}"));
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, key: &'static str, faults: &mut Faults) -> Option<Found<bool>> {
        let node = self.take(key)?;
        let value = match (&node.value, &node.place) {
            (Value::Boolean(flag), _) => Some(*flag),
            (Value::Text(text), Place::Variable(_)) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" => Some(true),
                "false" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        };
        if value.is_none() {
            faults.report(&node.place, self.key(key), "expected true or false");
        }
        value.map(|value| Found { value, place: node.place })
    }

    pub(super) fn integer(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<i64>,
        faults: &mut Faults,
    ) -> Option<i64> {
        let node = self.take(key)?;
        let value = match (&node.value, &node.place) {
            (Value::Integer(number), _) => Some(*number),
            (Value::Text(text), Place::Variable(_)) => text.trim().parse().ok(),
            _ => None,
        };
        let value = value.filter(|number| range.contains(number));
        if value.is_none() {
            let message = format!("expected an integer from {} to {}", range.start(), range.end());
            faults.report(&node.place, self.key(key), message);
        }
        value
    }

    /// A duration such as `500ms`, `30s`, `5m`; `none` when `optional`.
    pub(super) fn duration(&mut self, key: &'static str, faults: &mut Faults) -> Option<Duration> {
        self.parsed(key, "a duration such as 500ms, 30s, 5m or 1h", faults, read_duration).map(|found| found.value)
    }

    /// A duration or `none`.
    pub(super) fn optional_duration(&mut self, key: &'static str, faults: &mut Faults) -> Option<Option<Duration>> {
        self.parsed(key, "a duration such as 500ms, 30s, 5m or 1h, or none", faults, |text| {
            if text.eq_ignore_ascii_case("none") { Some(None) } else { read_duration(text).map(Some) }
        })
        .map(|found| found.value)
    }

    /// A string, number or boolean in its text form; a list of strings joined by commas.
    pub(super) fn scalar_text(&mut self, key: &'static str, faults: &mut Faults) -> Option<Found<String>> {
        let node = self.take(key)?;
        let value = match node.value {
            Value::Text(text) => text,
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Boolean(flag) => flag.to_string(),
            Value::List(elements) => {
                let texts = elements.into_iter().map(|element| match element.value {
                    Value::Text(text) => Ok(text),
                    other => Err((element.place, other.describe())),
                });
                match texts.collect::<Result<Vec<_>, _>>() {
                    Ok(texts) => texts.join(","),
                    Err((place, found)) => {
                        faults.report(&place, self.key(key), format!("is {found}; expected a string"));
                        return None;
                    }
                }
            }
            other @ (Value::Table(_) | Value::Other(_)) => {
                faults.report(&node.place, self.key(key), format!("is {}; expected a value", other.describe()));
                return None;
            }
        };
        Some(Found { value, place: node.place })
    }

    /// Reports the keys that were never asked for.
    pub(super) fn finish(self, faults: &mut Faults) {
        for (key, node) in &self.nodes {
            let nearest = self
                .known
                .iter()
                .map(|known| (strsim::damerau_levenshtein(key, known), *known))
                .min()
                .filter(|(distance, known)| *distance <= 2 && *distance < known.len());
            let hint = match nearest {
                Some((_, near)) => format!("did you mean `{near}`?"),
                None => format!("expected {}", self.known.join(", ")),
            };
            faults.report(&node.place, self.key(key), format!("unknown key; {hint}"));
        }
    }
}

/// Reads `500ms`, `30s`, `5m`, `1h`, `7d`; never zero.
fn read_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit.trim() {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero())
}
