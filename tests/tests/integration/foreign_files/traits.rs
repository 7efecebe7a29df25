//! Footers, codecs, encodings and schemas.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use arrow::array::{ArrayRef, NullArray, RecordBatch};
use arrow::datatypes::{DataType, Field};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::data_type::{ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, Int32Type, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use thermocline_tests::r#gen;
use thermocline_tests::lake::{LakeFile, write_parquet};
use thermocline_tests::model::Value;
use thermocline_tests::oracle::Stored;
use thermocline_tests::parquet_footer::{Field as Thrift, Struct, footer_start, with_footer};
use thermocline_tests::scenario::{LakeKind, Scenario, live};
use thermocline_tests::server::run;
use tonic::Code;

use super::{ALL, SOUND_ROWS, ask_of, base, expect_unreadable, parquet, rows, start, with_columns};

fn written(
    batch: &RecordBatch,
    configure: impl FnOnce(WriterPropertiesBuilder) -> WriterPropertiesBuilder,
) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let properties = configure(WriterProperties::builder()).build();
    let mut writer = ArrowWriter::try_new(&mut content, batch.schema(), Some(properties))?;
    writer.write(batch)?;
    writer.close()?;
    Ok(content)
}

/// A map without values beside sound columns, as old Hive wrote sets.
fn map_without_values() -> Result<Vec<u8>> {
    let schema = "message m {
        required fixed_len_byte_array(16) row_id (UUID);
        required int64 created_at;
        required int64 changed_at;
        required int32 n;
        required group tags (MAP) { repeated group key_value { required binary key (UTF8); } }
    }";
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(parse_message_type(schema)?), properties)?;
    let mut group = writer.next_row_group()?;
    let mut place = 0;
    while let Some(mut column) = group.next_column()? {
        match place {
            0 => {
                let id = FixedLenByteArray::from(7_u128.to_be_bytes().to_vec());
                column.typed::<FixedLenByteArrayType>().write_batch(&[id], None, None)?;
            }
            1 | 2 => {
                column.typed::<Int64Type>().write_batch(&[1], None, None)?;
            }
            3 => {
                column.typed::<Int32Type>().write_batch(&[7], None, None)?;
            }
            _ => {
                let key = ByteArray::from("key");
                column.typed::<ByteArrayType>().write_batch(&[key], Some(&[1]), Some(&[0]))?;
            }
        }
        column.close()?;
        place += 1;
    }
    group.close()?;
    Ok(writer.into_inner()?)
}

#[tokio::test]
async fn what_duckdb_cannot_read_is_named_or_left_out() -> Result<()> {
    let scenario = start().await?;
    let batch = base("x.parquet", 10).to_batch()?;
    let split = written(&batch, |properties| {
        properties
            .set_column_dictionary_enabled("u".into(), false)
            .set_column_encoding("u".into(), Encoding::BYTE_STREAM_SPLIT)
    })?;
    expect_unreadable(&scenario, "split.parquet", split, &["BYTE_STREAM_SPLIT"]).await?;
    let geo = r#"{"version": "1.0.0", "primary_column": "shape", "columns": {"shape": {"encoding": "WKB"}}}"#;
    let geo = written(&batch, |properties| {
        properties.set_key_value_metadata(Some(vec![KeyValue::new("geo".to_owned(), geo.to_owned())]))
    })?;
    expect_unreadable(&scenario, "geo.parquet", geo, &["geometry types"]).await?;
    expect_unreadable(&scenario, "map.parquet", map_without_values()?, &["two children"]).await
}

#[tokio::test]
async fn hadoops_lz4_is_named_with_the_way_out() -> Result<()> {
    let scenario = start().await?;
    let batch = base("x.parquet", 10).to_batch()?;
    let lz4 = written(&batch, |properties| properties.set_compression(Compression::LZ4))?;
    expect_unreadable(&scenario, "lz4.parquet", lz4, &["Hadoop's LZ4", "LZ4_RAW", "zstd", "snappy"]).await?;
    let raw = written(&batch, |properties| properties.set_compression(Compression::LZ4_RAW))?;
    ensure!(ask_of(&scenario, "raw.parquet", raw, ALL).await?.len() == 2 * SOUND_ROWS);
    Ok(())
}

#[tokio::test]
async fn an_encrypted_file_says_so() -> Result<()> {
    let scenario = start().await?;
    let plain = parquet(&base("x.parquet", 10).to_batch()?)?;
    let mut footer = plain.clone();
    let end = footer.len() - 4;
    for magic in [0, end] {
        footer[magic..magic + 4].copy_from_slice(b"PARE");
    }
    expect_unreadable(&scenario, "footer.parquet", footer, &["encrypted"]).await?;
    // The footer is plain and tells of AES-GCM; the pages can't be understood.
    let mut columns = with_footer(&plain, |footer| {
        let mut algorithm = Struct::default();
        algorithm.set(1, Thrift::Struct(Struct::default()));
        footer.set(8, Thrift::Struct(algorithm));
        Ok(())
    })?;
    let pages = footer_start(&columns)?;
    columns[4..pages].iter_mut().for_each(|byte| *byte ^= 0xa5);
    expect_unreadable(&scenario, "columns.parquet", columns, &["encrypted"]).await
}

/// Pages of random bytes under a sound footer: no message of DuckDB's is a bug of ours or a fault of the client's.
#[tokio::test]
async fn scrambled_pages_are_the_files_fault() -> Result<()> {
    let scenario = start().await?;
    let many = (100..2_000_u32).map(|n| live(n.into(), 20, super::values(n.into()))).collect();
    let file = LakeFile::delta(&super::samples(), "scrambled.parquet", many);
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
        let sound = written(&file.to_batch()?, |properties| properties.set_compression(compression))?;
        let pages = footer_start(&sound)?;
        let (mut refused, mut answered) = (0, 0);
        for (turn, step) in [1, 7, 61, 211, 499, 997, 1501, 2999].into_iter().enumerate() {
            let mut content = sound.clone();
            for byte in content[4..pages].iter_mut().skip(turn * 31 + 20).step_by(step) {
                *byte ^= 0x5a;
            }
            scenario.lake.put_bytes(&file.path, content).await?;
            match scenario.client.query(ALL).await {
                // Values changed and nothing else: DuckDB checks no checksums.
                Ok(_) => answered += 1,
                Err(failure) => {
                    failure.expect(Code::Unavailable, &["scrambled.parquet"]);
                    // Values that became none of their type are no page that can't be read: no leave hides them.
                    if failure.message.contains("can't be read") {
                        let answer = scenario.client.with_option("allow_partial", "true").query(ALL).await?;
                        ensure!(answer.row_count() == SOUND_ROWS, "{} rows", answer.row_count());
                    }
                    refused += 1;
                }
            }
        }
        ensure!(refused > 2, "{refused} refused, {answered} answered");
        // The writer names it too, and leaves everything as it is.
        let mut content = sound.clone();
        content[4..pages].iter_mut().for_each(|byte| *byte ^= 0x5a);
        scenario.lake.put_bytes(&file.path, content).await?;
        let config = scenario.server.dir().join("thermocline.toml").display().to_string();
        let output = run(&["compact", "--config", &config, "--full"]).await?;
        ensure!(!output.success && output.stderr.contains("scrambled.parquet"), "{}", output.stderr);
    }
    Ok(())
}

/// The mistakes of clients stay theirs, whatever files there are.
#[tokio::test]
async fn no_file_is_blamed_for_a_clients_mistake() -> Result<()> {
    let scenario = start().await?;
    for sql in [
        "SELECT CAST(name AS INTEGER) FROM samples",
        "SELECT n + 2147483647 FROM samples",
        "SELECT CAST(n + 300 AS TINYINT) FROM samples",
        "WITH w AS (SELECT CAST(name AS DATE) AS d FROM samples) SELECT * FROM w",
        "SELECT regexp_matches(name, '(') FROM samples",
    ] {
        for client in [&scenario.client, &scenario.client.with_option("allow_partial", "true")] {
            let failure = client.refusal(sql).await;
            failure.expect(Code::InvalidArgument, &[]);
            ensure!(!failure.message.contains("parquet"), "{failure}");
        }
    }
    Ok(())
}

/// Such as `dict-page-offset-zero.parquet`: its writer, Dremio, keeps a list of pages of its own in field 15 of a column's
/// metadata, where the format has a number since. A reader that doesn't look at the field's type loses its place, and
/// misses what comes after.
#[tokio::test]
async fn a_footer_with_fields_of_other_types_is_read() -> Result<()> {
    let scenario = start().await?;
    let sound = parquet(&base("x.parquet", 10).to_batch()?)?;
    let sql = "SELECT * FROM samples WHERE n >= 10 ORDER BY n";
    let expected = ask_of(&scenario, "sound-2.parquet", sound.clone(), sql).await?;
    let content = with_columns_of_footer(&sound, |column| {
        let Some(Thrift::Struct(metadata)) = column.field_mut(3) else { bail!("no metadata of a column") };
        let mut page = Struct::default();
        page.set(1, Thrift::I32(0));
        page.set(2, Thrift::I32(162));
        metadata.set(15, Thrift::List(12, vec![Thrift::Struct(page)]));
        Ok(())
    })?;
    ensure!(expected.len() == SOUND_ROWS);
    assert_eq!(ask_of(&scenario, "fields.parquet", content.clone(), sql).await?, expected);
    scenario.lake.put_bytes("base/400/fields.parquet", content).await?;
    ensure!(!super::check(&scenario).await?.contains("fields.parquet"));
    // Writers read it too.
    let config = scenario.server.dir().join("thermocline.toml").display().to_string();
    let output = run(&["compact", "--config", &config, "--full"]).await?;
    ensure!(output.success, "{}{}", output.stdout, output.stderr);
    assert_eq!(rows(&scenario.client, sql).await?, expected);
    Ok(())
}

/// The format requires it, and no reader here does without.
#[tokio::test]
async fn a_footer_without_file_offsets_is_named() -> Result<()> {
    let scenario = start().await?;
    let content = with_columns_of_footer(&parquet(&base("x.parquet", 10).to_batch()?)?, |column| {
        column.remove(2);
        Ok(())
    })?;
    expect_unreadable(&scenario, "offsets.parquet", content, &["file_offset"]).await
}

/// Changes each `ColumnChunk` of a file's footer.
fn with_columns_of_footer(file: &[u8], change: impl Fn(&mut Struct) -> Result<()>) -> Result<Vec<u8>> {
    with_footer(file, |footer| {
        for group in footer.structs(4)? {
            group.structs(1)?.into_iter().try_for_each(&change)?;
        }
        Ok(())
    })
}

/// Such as `repeated_no_annotation.parquet`: the footer says that the file has no rows, its row groups have some.
#[tokio::test]
async fn rows_that_the_footer_does_not_count_are_read() -> Result<()> {
    let scenario = start().await?;
    let content = with_footer(&parquet(&base("x.parquet", 10).to_batch()?)?, |footer| {
        footer.set(3, Thrift::I64(0));
        Ok(())
    })?;
    scenario.lake.put_bytes("base/400/counted.parquet", content).await?;
    let sql = "SELECT count(*), count(n), min(n), max(n), count(*) FILTER (WHERE n = 11) FROM samples WHERE n >= 10";
    let expected = vec![["3", "3", "10", "12", "1"].map(str::to_owned).to_vec()];
    assert_eq!(rows(&scenario.client, sql).await?, expected);
    // And they are there after the file was rewritten.
    let config = scenario.server.dir().join("thermocline.toml").display().to_string();
    let output = run(&["compact", "--config", &config, "--full"]).await?;
    ensure!(output.success, "{}{}", output.stdout, output.stderr);
    assert_eq!(rows(&scenario.client, sql).await?, expected);
    Ok(())
}

/// What pandas and pyarrow write for a column of nothing, for every type, and as elements of lists.
#[tokio::test]
async fn columns_of_parquets_null_type_are_null() -> Result<()> {
    let entity = r#gen::every_type("everything", 7);
    let nulls = entity.attributes.iter().map(|_| Value::Null).collect::<Vec<_>>();
    let file = LakeFile::base(&entity, "a.parquet", vec![live(1, 10, nulls.clone()), live(2, 10, nulls)]);
    let nothing = || Arc::new(NullArray::new(2)) as ArrayRef;
    let mut columns: Vec<(String, ArrayRef)> =
        entity.attributes.iter().map(|attribute| (attribute.column(), nothing())).collect();
    columns.push(("deleted_at".to_owned(), nothing()));
    let named = columns.iter().map(|(name, array)| (name.as_str(), Arc::clone(array))).collect();
    let scenario = Scenario::start(vec![Stored::new(&entity)], LakeKind::Local).await?;
    scenario.lake.put_bytes(&file.path, write_parquet(&with_columns(&file, named)?, 100, true)?).await?;
    let counts: Vec<String> =
        entity.attributes.iter().map(|attribute| format!("count({})", attribute.column())).collect();
    let sql = format!("SELECT count(*), {} FROM everything", counts.join(" + "));
    assert_eq!(rows(&scenario.client, &sql).await?, [["2", "0"]]);
    assert_eq!(scenario.client.query("SELECT * FROM everything").await?.row_count(), 2);

    let field = Arc::new(Field::new("element", DataType::Null, true));
    let lists: ArrayRef = Arc::new(arrow::array::ListArray::try_new(
        field,
        arrow::buffer::OffsetBuffer::from_lengths([0, 2]),
        Arc::new(NullArray::new(2)),
        None,
    )?);
    let is_list = |name: &str| name.starts_with("l_");
    let named = columns
        .iter()
        .map(|(name, array)| (name.as_str(), Arc::clone(if is_list(name) { &lists } else { array })))
        .collect();
    scenario.lake.put_bytes(&file.path, write_parquet(&with_columns(&file, named)?, 100, true)?).await?;
    for attribute in entity.attributes.iter().filter(|attribute| attribute.list) {
        let column = attribute.column();
        let sql =
            format!("SELECT len({column}), CAST({column} AS VARCHAR) = '[NULL, NULL]' FROM everything ORDER BY 1");
        assert_eq!(rows(&scenario.client, &sql).await?, [["0", "false"], ["2", "true"]], "{column}");
    }
    Ok(())
}
