use std::path::Path as FilePath;

use arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float64Array, Int16Array, Int64Array, ListArray,
    RecordBatch, StringArray, TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow::datatypes::{Field, Int32Type, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::LogicalType;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use translator::catalog::Catalog;
use translator::lake::FileType;
use translator::value::Value;

use super::*;

pub(super) fn entity() -> Arc<Entity> {
    let text = "[[entity]]\nname = \"flights\"\nschema_id = 7\n";
    Arc::clone(Catalog::parse(text).unwrap().entity("flights").unwrap())
}

pub(super) fn lake(root: &FilePath, templates: &str) -> Lake {
    let text = format!(
        "[postgres]\nurl = \"postgresql://h/d\"\n[lake]\nurl = \"{}\"\n{templates}",
        url::Url::from_directory_path(root).unwrap()
    );
    let config = crate::config::Config::parse(&text, FilePath::new("t.toml"), []).unwrap();
    Lake::open(&config.lake).unwrap()
}

pub(super) fn put(root: &FilePath, path: &str, content: &[u8]) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn parquet(columns: Vec<(&str, ArrayRef)>, properties: WriterProperties) -> Vec<u8> {
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch =
        RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, array)| array).collect()).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn small_file() -> Vec<u8> {
    parquet(vec![("changed_at", Arc::new(Int64Array::from(vec![3, 9, 5])) as ArrayRef)], WriterProperties::default())
}

fn paths(listing: &Listing) -> Vec<(&str, Tier)> {
    listing.files.iter().map(|file| (file.path.as_str(), file.tier)).collect()
}

#[tokio::test]
async fn lists_parquet_files_at_any_depth_but_no_staging() {
    let root = tempfile::tempdir().unwrap();
    for path in [
        "base/7/b.parquet",
        "base/7/2013/01/a.parquet",
        "base/7/_staging/x.parquet",
        "base/7/.hidden.parquet",
        "base/7/2013/_tmp/x.parquet",
        "base/7/readme.txt",
        "base/70/other.parquet",
        "delta/7/d%20 1.parquet",
        "elsewhere/7/x.parquet",
    ] {
        put(root.path(), path, b"x");
    }
    let lake = lake(root.path(), "");
    let listing = lake.list(&entity()).await.unwrap();
    assert_eq!(
        paths(&listing),
        [
            ("base/7/2013/01/a.parquet", Tier::Cold),
            ("base/7/b.parquet", Tier::Cold),
            ("delta/7/d%20 1.parquet", Tier::Warm),
        ]
    );
    assert_eq!(listing, lake.list(&entity()).await.unwrap());
    put(root.path(), "base/7/b.parquet", b"changed");
    assert_ne!(listing, lake.list(&entity()).await.unwrap());
}

#[tokio::test]
async fn the_innermost_template_names_the_tier() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "flights/a.parquet", b"x");
    put(root.path(), "flights/delta/b.parquet", b"x");
    let expected = [("flights/a.parquet", Tier::Cold), ("flights/delta/b.parquet", Tier::Warm)];
    let inner_delta = lake(root.path(), "base = \"{schema_name}\"\ndelta = \"{schema_name}/delta\"\n");
    assert_eq!(paths(&inner_delta.list(&entity()).await.unwrap()), expected);
    let inner_base = lake(root.path(), "base = \"{schema_name}/delta\"\ndelta = \"{schema_name}\"\n");
    let swapped = [("flights/a.parquet", Tier::Warm), ("flights/delta/b.parquet", Tier::Cold)];
    assert_eq!(paths(&inner_base.list(&entity()).await.unwrap()), swapped);
}

#[tokio::test]
async fn an_empty_root_is_empty_and_a_missing_one_is_down() {
    let root = tempfile::tempdir().unwrap();
    let there = lake(root.path(), "");
    assert_eq!(there.list(&entity()).await.unwrap(), Listing::default());
    there.probe().await.unwrap();
    let missing = lake(&root.path().join("missing"), "");
    assert_eq!(missing.list(&entity()).await.unwrap_err().kind(), &LakeErrorKind::Unavailable);
    assert_eq!(missing.probe().await.unwrap_err().kind(), &LakeErrorKind::Unavailable);
}

#[tokio::test]
async fn an_unreachable_endpoint_is_down() {
    let text = "[postgres]\nurl = \"postgresql://h/d\"\n[lake]\nurl = \"s3://bucket\"\n[lake.s3]\nallow_http = true\n\
                endpoint = \"http://127.0.0.1:1\"\naccess_key_id = \"a\"\nsecret_access_key = \"b\"\n";
    let config = crate::config::Config::parse(text, FilePath::new("t.toml"), []).unwrap();
    let lake = Lake::open(&config.lake).unwrap();
    assert_eq!(lake.probe().await.unwrap_err().kind(), &LakeErrorKind::Unavailable);
    assert_eq!(lake.duckdb_url("base/7/a.parquet"), "s3://bucket/base/7/a.parquet");
}

#[tokio::test]
async fn bad_files_are_named() {
    let root = tempfile::tempdir().unwrap();
    let good = small_file();
    for (path, content) in [
        ("empty", &b""[..]),
        ("text", b"this is no parquet file"),
        ("cut", &good[..good.len() - 7]),
        ("tail", &good[good.len() - 60..]),
    ] {
        let directory = root.path().join(path);
        put(&directory, "base/7/bad.parquet", content);
        let lake = lake(&directory, "");
        let listing = lake.list(&entity()).await.unwrap();
        let error = lake.files(&listing).await.unwrap_err();
        let kind = LakeErrorKind::Corrupt { path: "base/7/bad.parquet".to_owned() };
        assert_eq!(error.kind(), &kind, "{path}: {error}");
        assert!(error.to_string().contains("base/7/bad.parquet"), "{error}");
    }
}

#[tokio::test]
async fn a_vanished_file_is_named_unless_its_footer_is_remembered() {
    let root = tempfile::Builder::new().prefix("räume und 100%").tempdir().unwrap();
    put(root.path(), "base/7/a.parquet", &small_file());
    put(root.path(), "base/7/b%20 ü+1=1.parquet", &small_file());
    let lake = lake(root.path(), "");
    let listing = lake.list(&entity()).await.unwrap();
    let before = lake.files(&listing).await.unwrap();
    assert_eq!((before[0].changed_at_range, before[0].row_count, lake.cached_footers()), (Some((3, 9)), 3, 2));
    std::fs::remove_file(root.path().join("base/7/a.parquet")).unwrap();
    assert_eq!(lake.files(&listing).await.unwrap(), before);

    put(root.path(), "base/7/b.parquet", &small_file());
    let listing = lake.list(&entity()).await.unwrap();
    std::fs::remove_file(root.path().join("base/7/b.parquet")).unwrap();
    let error = lake.files(&listing).await.unwrap_err();
    assert_eq!(error.kind(), &LakeErrorKind::NotFound { path: "base/7/b.parquet".to_owned() });
}

#[tokio::test]
async fn facts_are_those_of_the_file() {
    let ids = |bytes: [u8; 2]| {
        let ids = bytes.map(|byte| [byte; 16]);
        Arc::new(FixedSizeBinaryArray::try_from_iter(ids.into_iter()).unwrap()) as ArrayRef
    };
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)]), None]);
    let decimals = Decimal128Array::from(vec![-5, 12345]).with_precision_and_scale(9, 2).unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("row_id", ids([0x10, 0xf0])),
        ("created_at", Arc::new(Int64Array::from(vec![1, 1]))),
        ("changed_at", Arc::new(Int64Array::from(vec![9, 4]))),
        ("deleted_at", Arc::new(Int64Array::from(vec![None, None]))),
        ("carrier", Arc::new(StringArray::from(vec![Some("UA"), None]))),
        ("stops", Arc::new(Int16Array::from(vec![-1, 2]))),
        ("delay", Arc::new(Float64Array::from(vec![1.0, f64::NAN]))),
        ("price", Arc::new(decimals)),
        ("day", Arc::new(Date32Array::from(vec![-1, 1]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![5, 6]).with_timezone("UTC"))),
        ("at_ms", Arc::new(TimestampMillisecondArray::from(vec![5, 6]))),
        ("codes", Arc::new(lists)),
    ];
    let properties = WriterProperties::builder()
        .set_key_value_metadata(Some(vec![KeyValue::new(UNIQUE_ROWS_KEY.to_owned(), "true".to_owned())]))
        .build();
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "delta/7/a.parquet", &parquet(columns, properties));
    let lake = lake(root.path(), "");
    let listing = lake.list(&entity()).await.unwrap();
    let file = lake.files(&listing).await.unwrap().remove(0);

    assert_eq!((file.tier, file.row_count, file.unique_rows), (Tier::Warm, 2, true));
    assert_eq!(file.bytes, listing.files[0].bytes);
    assert_eq!(file.changed_at_range, Some((4, 9)));
    assert!(!file.may_hold_tombstones);
    let id = |byte: u8| u128::from_be_bytes([byte; 16]);
    assert_eq!(file.row_id_range, Some((id(0x10), id(0xf0))));
    let text = |text: &str| Value::Text(text.to_owned());
    let decimal = |unscaled| Value::Decimal { unscaled, scale: 2 };
    for (name, file_type, range, null_count) in [
        ("row_id", FileType::FixedBytes16, None, Some(0)),
        ("deleted_at", FileType::Int(64), None, Some(2)),
        ("carrier", FileType::Text, Some((text("UA"), text("UA"))), Some(1)),
        ("stops", FileType::Int(16), Some((Value::Int(-1), Value::Int(2))), Some(0)),
        ("delay", FileType::Double, None, Some(0)),
        ("price", FileType::Decimal { precision: 9, scale: 2 }, Some((decimal(-5), decimal(12345))), Some(0)),
        ("day", FileType::Date, Some((Value::Date(-1), Value::Date(1))), Some(0)),
        ("at", FileType::Timestamp { unit: 6, utc: true }, Some((Value::Timestamp(5), Value::Timestamp(6))), Some(0)),
        (
            "at_ms",
            FileType::Timestamp { unit: 3, utc: false },
            Some((Value::Timestamp(5000), Value::Timestamp(6000))),
            Some(0),
        ),
        ("codes", FileType::List(Box::new(FileType::Int(32))), None, None),
    ] {
        let column = file.column(name).unwrap();
        assert_eq!((&column.file_type, &column.range, column.null_count), (&file_type, &range, null_count), "{name}");
    }
    assert_eq!(lake.duckdb_url(&file.path), format!("{}/delta/7/a.parquet", root.path().display()));
}

#[tokio::test]
async fn bounds_span_row_groups_and_only_tombstones_count() {
    let root = tempfile::tempdir().unwrap();
    let texts: Vec<String> = (0_u128..4).map(|id| uuid::Uuid::from_u128(id << 124).to_string()).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("row_id", Arc::new(StringArray::from(texts))),
        ("changed_at", Arc::new(Int64Array::from(vec![7, 1, 3, 2]))),
        ("deleted_at", Arc::new(Int64Array::from(vec![Some(0), None, Some(0), None]))),
        ("name", Arc::new(StringArray::from(vec!["long text that is cut"; 4]))),
    ];
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(2))
        .set_statistics_truncate_length(Some(4))
        .build();
    put(root.path(), "base/7/a.parquet", &parquet(columns, properties));
    let lake = lake(root.path(), "");
    let file = lake.files(&lake.list(&entity()).await.unwrap()).await.unwrap().remove(0);
    assert_eq!(file.changed_at_range, Some((1, 7)));
    assert!(!file.may_hold_tombstones);
    // Cut bounds are no bounds, of names and of ids.
    assert_eq!((file.column("name").unwrap().range.clone(), file.row_id_range), (None, None));
}

#[tokio::test]
async fn a_uuid_is_told_from_its_annotation() {
    use parquet::data_type::{FixedLenByteArray, FixedLenByteArrayType};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::types::Type;
    let id = Type::primitive_type_builder("row_id", parquet::basic::Type::FIXED_LEN_BYTE_ARRAY)
        .with_length(16)
        .with_logical_type(Some(LogicalType::Uuid))
        .with_repetition(parquet::basic::Repetition::REQUIRED)
        .build()
        .unwrap();
    let schema = Type::group_type_builder("schema").with_fields(vec![Arc::new(id)]).build().unwrap();
    let mut bytes = Vec::new();
    let mut writer =
        SerializedFileWriter::new(&mut bytes, Arc::new(schema), Arc::new(WriterProperties::default())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let ids = [vec![0xff; 16], vec![0x01; 16]].map(FixedLenByteArray::from);
    column.typed::<FixedLenByteArrayType>().write_batch(&ids, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();

    let root = tempfile::tempdir().unwrap();
    put(root.path(), "base/7/a.parquet", &bytes);
    let lake = lake(root.path(), "");
    let file = lake.files(&lake.list(&entity()).await.unwrap()).await.unwrap().remove(0);
    assert_eq!(file.column("row_id").unwrap().file_type, FileType::Uuid);
    assert_eq!(file.row_id_range, Some((u128::from_be_bytes([1; 16]), u128::MAX)));
    assert_eq!(file.column("row_id").unwrap().null_count, Some(0));
}
