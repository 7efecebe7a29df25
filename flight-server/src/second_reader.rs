//! DuckDB's opinion of footers that the Parquet reader of this process refuses, such as those with fields of another type
//! than the format gives them.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use translator::lake::FileType;
use translator::quote::duckdb_text;

use crate::engine::Engine;
use crate::engine::duckdb::DuckError;
use crate::lake::{SecondFacts, SecondReader};

/// Reads footers by DuckDB.
#[derive(Debug)]
pub(crate) struct DuckDbReader(pub(crate) Arc<Engine>);

impl SecondReader for DuckDbReader {
    fn read(&self, url: &str) -> Result<SecondFacts, String> {
        self.facts(url).map_err(|error| error.text().to_owned())?.ok_or_else(|| "its schema has no sense".to_owned())
    }
}

impl DuckDbReader {
    /// `None` when DuckDB's column types and the file's schema don't fit each other.
    fn facts(&self, url: &str) -> Result<Option<SecondFacts>, DuckError> {
        let connection = self.0.connect()?;
        let url = duckdb_text(url);
        let (_, types) = connection.query(&format!(
            "SELECT column_type FROM (DESCRIBE SELECT * FROM read_parquet([{url}], hive_partitioning = false))"
        ))?;
        let (_, schema) = connection.query(&format!(
            "SELECT name, CAST(type AS VARCHAR), CAST(type_length AS VARCHAR), CAST(logical_type AS VARCHAR), \
             CAST(num_children AS BIGINT) FROM parquet_schema({url}) ORDER BY column_id"
        ))?;
        let (_, rows) = connection.query(&format!(
            "SELECT CAST(coalesce(sum(rows), 0) AS BIGINT) \
             FROM (SELECT DISTINCT row_group_id, row_group_num_rows AS rows FROM parquet_metadata({url}))"
        ))?;
        let types: Vec<String> = types.iter().flat_map(|batch| texts(batch, 0)).flatten().collect();
        let elements: Vec<Element> = schema.iter().flat_map(elements).collect();
        let fields = top_level(&elements);
        let row_count = rows.first().map(|batch| batch.column(0).as_primitive::<Int64Type>().value(0));
        let Some(row_count) = row_count.and_then(|rows| u64::try_from(rows).ok()) else { return Ok(None) };
        if types.len() != fields.len() {
            return Ok(None);
        }
        let columns = fields.into_iter().zip(&types).map(|(field, text)| (field.name.clone(), file_type(text, field)));
        Ok(Some(SecondFacts { row_count, columns: columns.collect() }))
    }
}

/// An element of a Parquet schema, which lists a tree in depth-first order.
#[derive(Debug, Default)]
struct Element {
    name: String,
    physical: String,
    length: String,
    logical: String,
    children: i64,
}

fn texts(batch: &RecordBatch, column: usize) -> Vec<Option<String>> {
    batch.column(column).as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

fn elements(batch: &RecordBatch) -> Vec<Element> {
    let children = batch.column(4).as_primitive::<Int64Type>();
    let [names, physical, length, logical] = [0, 1, 2, 3].map(|column| batch.column(column).as_string::<i32>());
    let text = |array: &arrow::array::StringArray, row: usize| {
        if array.is_valid(row) { array.value(row).to_owned() } else { String::new() }
    };
    let element = |row| Element {
        name: text(names, row),
        physical: text(physical, row),
        length: text(length, row),
        logical: text(logical, row),
        children: if children.is_valid(row) { children.value(row) } else { 0 },
    };
    (0..batch.num_rows()).map(element).collect()
}

/// The fields right under the root.
fn top_level(elements: &[Element]) -> Vec<&Element> {
    let mut found = Vec::new();
    let mut place = 1;
    while let Some(element) = elements.get(place) {
        found.push(element);
        // Past everything under it.
        let mut open = 1;
        while let Some(element) = elements.get(place).filter(|_| open > 0) {
            open += element.children - 1;
            place += 1;
        }
    }
    found
}

/// The type of a column from DuckDB's name for it, and from the file where DuckDB's says less.
fn file_type(text: &str, field: &Element) -> FileType {
    match text {
        _ if field.logical.starts_with("NullType") => FileType::Null,
        "BLOB" if field.physical == "FIXED_LEN_BYTE_ARRAY" && field.length == "16" => FileType::FixedBytes16,
        // DuckDB cuts these.
        "TIMESTAMP WITH TIME ZONE" if field.logical.contains("NANOS=NanoSeconds") => {
            FileType::Timestamp { unit: 9, utc: true }
        }
        text => duckdb_type(text),
    }
}

fn duckdb_type(text: &str) -> FileType {
    if let Some(element) = text.strip_suffix("[]") {
        return FileType::List(Box::new(duckdb_type(element)));
    }
    let decimal = text.strip_prefix("DECIMAL(").and_then(|rest| rest.strip_suffix(')')?.split_once(','));
    if let Some((precision, scale)) = decimal
        && let (Ok(precision), Ok(scale)) = (precision.parse(), scale.parse())
    {
        return FileType::Decimal { precision, scale };
    }
    match text {
        "BOOLEAN" => FileType::Boolean,
        "TINYINT" => FileType::Int(8),
        "SMALLINT" => FileType::Int(16),
        "INTEGER" => FileType::Int(32),
        "BIGINT" => FileType::Int(64),
        "UTINYINT" => FileType::UInt(8),
        "USMALLINT" => FileType::UInt(16),
        "UINTEGER" => FileType::UInt(32),
        "UBIGINT" => FileType::UInt(64),
        "FLOAT" => FileType::Float,
        "DOUBLE" => FileType::Double,
        "VARCHAR" => FileType::Text,
        "BLOB" => FileType::Blob,
        "UUID" => FileType::Uuid,
        "DATE" => FileType::Date,
        "TIME" => FileType::Time { unit: 6 },
        "TIME_NS" => FileType::Time { unit: 9 },
        "JSON" => FileType::Json,
        "TIMESTAMP" => FileType::Timestamp { unit: 6, utc: false },
        "TIMESTAMP_NS" => FileType::Timestamp { unit: 9, utc: false },
        "TIMESTAMP WITH TIME ZONE" => FileType::Timestamp { unit: 6, utc: true },
        other => FileType::Other(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_level_of_a_schema_leaves_out_what_is_nested() {
        let element = |name: &str, children| Element { name: name.to_owned(), children, ..Element::default() };
        let elements = [
            element("root", 3),
            element("a", 0),
            element("list", 1),
            element("list.list", 2),
            element("x", 0),
            element("y", 0),
            element("b", 0),
        ];
        let names: Vec<&str> = top_level(&elements).into_iter().map(|element| element.name.as_str()).collect();
        assert_eq!(names, ["a", "list", "b"]);
        assert!(top_level(&elements[..1]).is_empty());
    }

    #[test]
    fn types_are_read_from_duckdbs_names() {
        for (text, expected) in [
            ("DECIMAL(9,2)[]", FileType::List(Box::new(FileType::Decimal { precision: 9, scale: 2 }))),
            ("TIMESTAMP WITH TIME ZONE", FileType::Timestamp { unit: 6, utc: true }),
            ("MAP(INTEGER, VARCHAR)", FileType::Other("MAP(INTEGER, VARCHAR)".to_owned())),
        ] {
            assert_eq!(file_type(text, &Element::default()), expected);
        }
        let bytes =
            Element { physical: "FIXED_LEN_BYTE_ARRAY".to_owned(), length: "16".to_owned(), ..Element::default() };
        assert_eq!(file_type("BLOB", &bytes), FileType::FixedBytes16);
        let nothing = Element { logical: "NullType()".to_owned(), ..Element::default() };
        assert_eq!(file_type("INTEGER", &nothing), FileType::Null);
    }
}
