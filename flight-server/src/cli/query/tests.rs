use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use clap::Parser;
use expect_test::expect;

use super::*;

#[derive(Debug, clap::Parser)]
struct Program {
    #[command(flatten)]
    query: QueryArgs,
}

fn parse(args: &[&str]) -> Result<QueryArgs, clap::Error> {
    Program::try_parse_from(std::iter::once("query").chain(args.iter().copied())).map(|program| program.query)
}

#[test]
fn arguments() {
    let args = parse(&["SELECT 1", "--plan", "--option", "tiers=hot,warm", "--format", "json"]).unwrap();
    assert_eq!(args.plan, Some(PlanForm::Tree));
    assert_eq!(args.server.options, [("tiers".to_owned(), "hot,warm".to_owned())]);
    assert_eq!(args.format, Format::Json);
    assert_eq!(parse(&["--plan=json", "SELECT 1"]).unwrap().plan, Some(PlanForm::Json));
    // `--plan SELECT…` must not take the statement for a form.
    assert_eq!(parse(&["--plan", "SELECT 1"]).unwrap().sql.as_deref(), Some("SELECT 1"));
    assert!(parse(&["SELECT 1", "--option", "tiers"]).is_err());
    assert!(parse(&["SELECT 1", "--run"]).is_err());
}

fn batch() -> RecordBatch {
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("n", Arc::new(Int64Array::from(vec![Some(1), None])), true),
        ("text", Arc::new(StringArray::from(vec!["a,\"b\"", "é"])), true),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![0, 1]).with_timezone("UTC")), true),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None])), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn written(format: Format, batches: &[RecordBatch], rows_shown: Option<usize>) -> (Vec<u8>, Option<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("result");
    let destination = Destination::open(Some(&path)).unwrap();
    let mut output = Output::start(format, &batch().schema(), destination.writer().unwrap(), rows_shown).unwrap();
    for batch in batches {
        output.write(batch).unwrap();
    }
    let note = output.finish().unwrap();
    assert!(!path.exists());
    destination.complete().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    (bytes, note)
}

fn text(format: Format) -> String {
    String::from_utf8(written(format, &[batch()], None).0).unwrap()
}

#[test]
fn text_formats() {
    expect![[r#"
        n,text,at,list
        1,"a,""b""",1970-01-01T00:00:00Z,"[1, NULL]"
        ,é,1970-01-01T00:00:00.000001Z,
    "#]]
    .assert_eq(&text(Format::Csv));
    expect![[r#"
        {"n":1,"text":"a,\"b\"","at":"1970-01-01T00:00:00Z","list":[1,null]}
        {"n":null,"text":"é","at":"1970-01-01T00:00:00.000001Z","list":null}
    "#]]
    .assert_eq(&text(Format::Json));
    expect![[r#"
        +------+-------+-----------------------------+-----------+
        | n    | text  | at                          | list      |
        +------+-------+-----------------------------+-----------+
        | 1    | a,"b" | 1970-01-01T00:00:00Z        | [1, NULL] |
        | NULL | é     | 1970-01-01T00:00:00.000001Z | NULL      |
        +------+-------+-----------------------------+-----------+
    "#]]
    .assert_eq(&text(Format::Table));
}

#[test]
fn a_table_shows_its_first_rows_and_says_so() {
    let (bytes, note) = written(Format::Table, &[batch(), batch(), batch()], Some(3));
    assert_eq!(String::from_utf8(bytes).unwrap().lines().count(), 3 + 3 + 1);
    assert_eq!(note.unwrap(), "the table shows the first 3 of 6 rows; --all shows all");
}

#[test]
fn empty_results_keep_their_columns() {
    assert_eq!(written(Format::Csv, &[], None).0, b"n,text,at,list\n");
    assert_eq!(written(Format::Json, &[], None).0, b"");
    assert!(String::from_utf8(written(Format::Table, &[], None).0).unwrap().contains("| text |"));
}

#[test]
fn files_read_back() {
    let (bytes, _) = written(Format::Arrow, &[batch(), batch()], None);
    let reader = arrow::ipc::reader::FileReader::try_new(std::io::Cursor::new(bytes), None).unwrap();
    assert_eq!(reader.map(Result::unwrap).collect::<Vec<_>>(), [batch(), batch()]);

    let (bytes, _) = written(Format::Parquet, &[batch()], None);
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes));
    let batches: Vec<_> = reader.unwrap().build().unwrap().map(Result::unwrap).collect();
    assert_eq!(batches, [batch()]);
}

#[test]
fn an_abandoned_file_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let destination = Destination::open(Some(&folder.path().join("result"))).unwrap();
    let _ = destination.writer().unwrap();
    drop(destination);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
