//! A result as a table that fits the terminal.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use console::{measure_text_width, truncate_str};

use super::paint::Paint;
use crate::cli::output::text;

/// No column is made narrower than this while others can be left out.
const NARROW: usize = 8;
/// No value is shown wider than this, however wide the terminal.
const WIDE: usize = 200;

/// A table as text, and what of it isn't shown.
#[derive(Debug)]
pub(super) struct Table {
    /// With a line break at the end.
    pub(super) text: String,
    pub(super) hidden_columns: usize,
}

struct Column {
    name: String,
    kind: &'static str,
    is_number: bool,
    /// `None` is NULL.
    cells: Vec<Option<String>>,
    width: usize,
}

/// Draws rows into `width` characters: values are cut first, then columns in the middle are left out.
///
/// # Errors
/// A value that Arrow can't write as text.
pub(super) fn draw(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    width: usize,
    paint: Paint,
) -> Result<Table, ArrowError> {
    let mut columns = columns(schema, batches)?;
    let hidden_columns = fit(&mut columns, width);
    let mut text = String::new();
    let line = |left: char, middle: char, right: char| {
        let parts: Vec<String> = columns.iter().map(|column| "─".repeat(column.width + 2)).collect();
        paint.dim(&format!("{left}{}{right}", parts.join(&middle.to_string()))) + "\n"
    };
    let bar = paint.dim("│");
    let row = |cells: Vec<String>| format!("{bar} {} {bar}\n", cells.join(&format!(" {bar} ")));
    text += &line('┌', '┬', '┐');
    text += &row(columns.iter().map(|column| paint.bold(&column.pad(&column.name))).collect());
    text += &row(columns.iter().map(|column| paint.dim(&column.pad(column.kind))).collect());
    text += &line('├', '┼', '┤');
    for index in 0..batches.iter().map(RecordBatch::num_rows).sum() {
        let cells = columns.iter().map(|column| match column.cells.get(index).and_then(Option::as_deref) {
            Some(value) => column.pad(value),
            None if column.is_gap() => column.pad("…"),
            None => paint.dim(&column.pad("NULL")),
        });
        text += &row(cells.collect());
    }
    text += &line('└', '┴', '┘');
    Ok(Table { text, hidden_columns })
}

fn columns(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<Column>, ArrowError> {
    let mut columns: Vec<Column> = schema
        .fields()
        .iter()
        .map(|field| {
            let name = visible(field.name());
            let kind = type_name(field.data_type());
            let width = measure_text_width(&name).max(kind.len()).min(WIDE);
            Column { name, kind, is_number: field.data_type().is_numeric(), cells: Vec::new(), width }
        })
        .collect();
    let options = FormatOptions::new();
    for batch in batches {
        let batch = text::readable(batch)?;
        for (column, array) in columns.iter_mut().zip(batch.columns()) {
            let formatter = ArrayFormatter::try_new(array, &options)?;
            for row in 0..array.len() {
                let cell =
                    if array.is_null(row) { None } else { Some(visible(&formatter.value(row).try_to_string()?)) };
                let width = cell.as_deref().map_or(4, measure_text_width).min(WIDE);
                column.width = column.width.max(width);
                column.cells.push(cell);
            }
        }
    }
    Ok(columns)
}

/// Makes columns narrower and leaves some out until the table fits; says how many are left out.
fn fit(columns: &mut Vec<Column>, width: usize) -> usize {
    let total = |columns: &[Column]| columns.iter().map(|column| column.width + 3).sum::<usize>() + 1;
    while total(columns) > width {
        // Numbers stay whole as long as texts can give.
        let widest = columns.iter_mut().filter(|column| column.width > NARROW && !column.is_number);
        let Some(widest) = widest.max_by_key(|column| column.width) else { break };
        widest.width -= 1;
    }
    if total(columns) <= width || columns.len() < 3 {
        return 0;
    }
    let gap = Column { name: "…".to_owned(), kind: "", is_number: false, cells: Vec::new(), width: 1 };
    let mut middle = columns.len() / 2;
    columns[middle] = gap;
    let mut hidden = 1;
    while total(columns) > width && columns.len() > 3 {
        // From both sides of the gap in turn: what is first and what is last is shown longest.
        if middle + 1 < columns.len() - 1 && hidden % 2 == 1 || middle <= 1 {
            columns.remove(middle + 1);
        } else {
            columns.remove(middle - 1);
            middle -= 1;
        }
        hidden += 1;
    }
    hidden
}

impl Column {
    fn is_gap(&self) -> bool {
        self.cells.is_empty()
    }

    /// Exactly as wide as the column, in the terminal's cells.
    fn pad(&self, value: &str) -> String {
        let value = truncate_str(value, self.width, "…");
        let room = " ".repeat(self.width.saturating_sub(measure_text_width(&value)));
        if self.is_number { format!("{room}{value}") } else { format!("{value}{room}") }
    }
}

/// A text of one line that a terminal shows and doesn't obey.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            // Marks that turn the direction of writing around would reorder what stands beside the value.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => shown.extend(character.escape_unicode()),
            _ if character.is_control() => shown.extend(character.escape_unicode()),
            _ => shown.push(character),
        }
    }
    shown
}

/// The type as SQL names it.
fn type_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Null => "null",
        DataType::Boolean => "boolean",
        DataType::Int8 => "tinyint",
        DataType::Int16 => "smallint",
        DataType::Int32 => "integer",
        DataType::Int64 => "bigint",
        DataType::UInt8 => "utinyint",
        DataType::UInt16 => "usmallint",
        DataType::UInt32 => "uinteger",
        DataType::UInt64 => "ubigint",
        DataType::Float16 | DataType::Float32 => "float",
        DataType::Float64 => "double",
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            "decimal"
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "varchar",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "blob",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Time32(_) | DataType::Time64(_) => "time",
        DataType::Timestamp(_, None) => "timestamp",
        DataType::Timestamp(_, Some(_)) => "timestamptz",
        DataType::Duration(_) | DataType::Interval(_) => "interval",
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::ListView(_)
        | DataType::LargeListView(_) => "list",
        DataType::Struct(_) => "struct",
        DataType::Map(..) => "map",
        DataType::Union(..) => "union",
        DataType::Dictionary(_, values) => type_name(values),
        DataType::RunEndEncoded(_, values) => type_name(values.data_type()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use expect_test::expect;

    use super::*;

    fn batch(columns: usize) -> RecordBatch {
        let mut arrays: Vec<(String, ArrayRef)> = vec![
            ("n".to_owned(), Arc::new(Int64Array::from(vec![Some(1_000), None]))),
            (
                "text".to_owned(),
                Arc::new(StringArray::from(vec!["a rather long text of many words", "日本\n\x1b[31m"])),
            ),
        ];
        arrays.extend((2..columns).map(|index| {
            let array: ArrayRef = Arc::new(StringArray::from(vec!["x", "y"]));
            (format!("column_{index}"), array)
        }));
        RecordBatch::try_from_iter(arrays).unwrap()
    }

    fn drawn(columns: usize, width: usize) -> Table {
        let batch = batch(columns);
        draw(&batch.schema(), &[batch], width, Paint::plain()).unwrap()
    }

    #[test]
    fn a_table_is_drawn_and_obeys_nothing() {
        expect![[r#"
            ┌────────┬──────────────────────┐
            │      n │ text                 │
            │ bigint │ varchar              │
            ├────────┼──────────────────────┤
            │   1000 │ a rather long text … │
            │   NULL │ 日本\n\u{1b}[31m     │
            └────────┴──────────────────────┘
        "#]]
        .assert_eq(&drawn(2, 33).text);
    }

    #[test]
    fn tables_fit_whatever_the_width() {
        for columns in 2..12 {
            for width in [40, 60, 80, 120] {
                let table = drawn(columns, width);
                for line in table.text.lines() {
                    assert!(measure_text_width(line) <= width, "{columns} columns in {width}:\n{}", table.text);
                }
                let shown = table.text.lines().nth(1).unwrap().matches('│').count() - 1;
                assert_eq!(shown + table.hidden_columns - usize::from(table.hidden_columns > 0), columns);
            }
        }
    }
}
