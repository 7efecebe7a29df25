//! `thermocline check` on broken set-ups: what it says of each is kept in `check.golden`.
//! `UPDATE_GOLDEN=1` writes the file anew.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, ensure};
use thermocline_tests::lake::{LakeFile, write_parquet};
use thermocline_tests::oracle::Stored;
use thermocline_tests::scenario::{LakeKind, Scenario, live};
use thermocline_tests::server::{run, run_with};

use crate::{thing, things};

/// A way to break a sound set-up: SQL for PostgreSQL, files in the lake, lines of the two configuration files.
#[derive(Default)]
struct Break {
    name: &'static str,
    /// What breaks PostgreSQL, and what mends it.
    sql: Option<(&'static str, &'static str)>,
    /// A file of the lake that is put there, and its content.
    file: Option<(&'static str, Vec<u8>)>,
    /// Text of `thermocline.toml` that is replaced.
    config: Option<(&'static str, &'static str)>,
    /// Text of `catalog.toml` that is replaced.
    catalog: Option<(&'static str, &'static str)>,
    /// A variable of the program.
    variable: Option<(&'static str, &'static str)>,
}

fn breaks() -> Vec<Break> {
    let break_of = |name| Break { name, ..Break::default() };
    let sql = |name, broken, mended| Break { sql: Some((broken, mended)), ..break_of(name) };
    vec![
        break_of("nothing is wrong"),
        sql("a table is missing", "ALTER TABLE eav_data RENAME TO eav_old", "ALTER TABLE eav_old RENAME TO eav_data"),
        sql(
            "a column of the change log is missing",
            "ALTER TABLE change_log RENAME COLUMN deleted_at TO removed_at",
            "ALTER TABLE change_log RENAME COLUMN removed_at TO deleted_at",
        ),
        sql(
            "a column of the catalog is missing",
            "ALTER TABLE entity_main RENAME COLUMN text_01 TO text_91",
            "ALTER TABLE entity_main RENAME COLUMN text_91 TO text_01",
        ),
        sql(
            "a column has another type",
            "ALTER TABLE entity_main ALTER COLUMN integer_01 TYPE numeric",
            "ALTER TABLE entity_main ALTER COLUMN integer_01 TYPE integer",
        ),
        sql(
            "the index of dirty rows is missing",
            "DROP INDEX change_log_dirty",
            "CREATE INDEX change_log_dirty ON change_log (schema_id, row_id) WHERE flushed_at = 0",
        ),
        sql(
            "rows may be there twice",
            "ALTER TABLE entity_main DROP CONSTRAINT entity_main_pkey",
            "ALTER TABLE entity_main ADD PRIMARY KEY (ltbase_schema_id, ltbase_row_id)",
        ),
        sql(
            "the registry has another name",
            "UPDATE schema_registry SET schema_name = 'objects'",
            "UPDATE schema_registry SET schema_name = 'things'",
        ),
        Break {
            file: Some(("base/100/broken.parquet", b"this is no Parquet file at all".to_vec())),
            ..break_of("a corrupt file")
        },
        Break { file: Some(("delta/100/empty.parquet", Vec::new())), ..break_of("an empty file") },
        Break { config: Some(("file://", "file:///nowhere")), ..break_of("the lake isn't there") },
        Break { config: Some(("[postgres]", "[postgres]\npool_sice = 3")), ..break_of("an unknown key") },
        Break { config: Some(("postgresql://", "mysql://")), ..break_of("a URL of another database") },
        Break {
            config: Some(("[lake]", "[lake]\nbase = \"base\"\ndelta = \"base\"")),
            ..break_of("templates without a place for the entity")
        },
        Break { catalog: Some(("\"text_01\"", "\"text_o1\"")), ..break_of("a fault in the catalog") },
        Break {
            catalog: Some(("\"integer\"", "\"boolean\"")),
            ..break_of("a file of another type than the catalog says")
        },
        Break {
            file: Some(("delta/100/unversioned.parquet", without("changed_at"))),
            ..break_of("a file lacks a required column")
        },
        sql(
            "a number of the change log is kept as text",
            "ALTER TABLE change_log ALTER COLUMN changed_at TYPE text",
            "ALTER TABLE change_log ALTER COLUMN changed_at TYPE bigint USING changed_at::bigint",
        ),
        sql(
            "rows of eav_data may be there twice",
            "ALTER TABLE eav_data DROP CONSTRAINT eav_data_pkey",
            "ALTER TABLE eav_data ADD PRIMARY KEY (schema_id, row_id, attr_id, array_indices)",
        ),
        sql(
            "the registry doesn't know the entity",
            "DELETE FROM schema_registry",
            "INSERT INTO schema_registry VALUES (100, 'things')",
        ),
        Break {
            variable: Some(("THERMOCLINE__POSTGRES__URL", "postgresql://reader:s3cret@127.0.0.1:1/app")),
            ..break_of("PostgreSQL isn't there")
        },
        Break {
            config: Some(("[lake]", "[lake]\ncatalog = \"manifest\"")),
            ..break_of("the manifest's table is missing")
        },
        Break {
            config: Some(("\nlisten = \"127.0.0.1:0\"", "\nlisten = \"0.0.0.0:32010\"")),
            ..break_of("an address that others reach, without a word on logins")
        },
        Break {
            config: Some((
                "[postgres]",
                "[telemetri]\n[telemetry]\notlp_protocol = \"carrier pigeon\"\n[query]\nmax_concurrent = 0\n[postgres]\npool_size = \"many\"",
            )),
            catalog: Some(("\"text_01\"", "\"text_o1\"")),
            ..break_of("many faults in both files")
        },
    ]
}

/// A Parquet file without one of its columns.
fn without(column: &str) -> Vec<u8> {
    let versions = (0..3).map(|n| live(n, 20, thing("delta", 2))).collect();
    let mut batch = LakeFile::delta(&things(), "x.parquet", versions).to_batch().expect("a batch");
    batch.remove_column(batch.schema().index_of(column).expect("the column"));
    write_parquet(&batch, 100, true).expect("a Parquet file")
}

/// Texts that differ from run to run, made the same.
fn steady(text: &str, scenario: &Scenario) -> String {
    let mut text = text.to_owned();
    let lake = scenario.lake.folder().map(|folder| folder.display().to_string()).unwrap_or_default();
    for (found, name) in [
        (lake.as_str(), "LAKE"),
        (&scenario.server.dir().display().to_string(), "DIR"),
        (scenario.database.name(), "DB"),
    ] {
        text = text.replace(found, name);
    }
    text
}

#[tokio::test]
async fn check_says_what_is_wrong_and_how_to_mend_it() -> Result<()> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![LakeFile::base(&entity, "a.parquet", (0..50).map(|n| live(n, 10, thing("base", 1))).collect())];
    let scenario = Scenario::start(vec![stored], LakeKind::Local).await?;
    let client = scenario.database.connect().await?;
    let (config, catalog) = (scenario.server.config_path(), scenario.server.dir().join("catalog.toml"));
    let texts = [std::fs::read_to_string(&config)?, std::fs::read_to_string(&catalog)?];
    let mut found = String::new();
    for broken in breaks() {
        if let Some((sql, _)) = broken.sql {
            client.batch_execute(sql).await?;
        }
        let file = broken.file.map(|(path, content)| (scenario.lake.folder().expect("a folder").join(path), content));
        if let Some((path, content)) = &file {
            std::fs::create_dir_all(path.parent().expect("a directory"))?;
            std::fs::write(path, content)?;
        }
        for ((path, text), change) in [&config, &catalog].into_iter().zip(&texts).zip([broken.config, broken.catalog]) {
            if let Some((old, new)) = change {
                ensure!(text.contains(old), "{}: no {old} in\n{text}", broken.name);
                std::fs::write(path, text.replacen(old, new, 1))?;
            }
        }
        let variables = broken.variable.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let arguments = ["check", "--config", &config.display().to_string()];
        let output = run_with(&arguments, variables.as_slice()).await?;
        ensure!(!output.stdout.contains("s3cret"), "{}", output.stdout);
        ensure!(output.success == output.stdout.contains("0 wrong"), "{}: {}", broken.name, output.stdout);
        write!(found, "== {}\n{}\n", broken.name, steady(&output.stdout, &scenario))?;
        if let Some((_, mend)) = broken.sql {
            client.batch_execute(mend).await?;
        }
        if let Some((path, _)) = &file {
            std::fs::remove_file(path)?;
        }
        for (path, text) in [&config, &catalog].into_iter().zip(&texts) {
            std::fs::write(path, text)?;
        }
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/check.golden");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &found)?;
    }
    let wanted = std::fs::read_to_string(&golden)?;
    assert_eq!(found, wanted, "UPDATE_GOLDEN=1 writes {} anew", golden.display());
    Ok(())
}

#[tokio::test]
async fn the_configuration_in_force_hides_secrets() -> Result<()> {
    let entity = things();
    let scenario = Scenario::start(vec![Stored::new(&entity)], LakeKind::Local).await?;
    let config = scenario.server.config_path().display().to_string();
    let output = run(&["check", "--print-config", "--config", &config]).await?;
    assert!(output.success, "{}", output.stderr);
    assert!(output.stdout.contains("url = \"***\""), "{}", output.stdout);
    assert!(output.stdout.contains("max_concurrent = 16"), "{}", output.stdout);
    assert!(!output.stdout.contains(thermocline_tests::postgres::PASSWORD), "{}", output.stdout);
    Ok(())
}
