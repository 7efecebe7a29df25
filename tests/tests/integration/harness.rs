//! The harness itself: what it says of PostgreSQL, S3 and Parquet is so.

use std::sync::Arc;

use anyhow::{Context, Result};
use thermocline_tests::r#gen;
use thermocline_tests::lake::{Lake, LakeFile};
use thermocline_tests::model::{Kind, Value};
use thermocline_tests::oracle::{HotVersion, Oracle, Order, Stored, View, compare};
use thermocline_tests::postgres::{Cluster, HotRow, TestDatabase};
use thermocline_tests::s3::{Fault, S3Server};
use thermocline_tests::scenario::{live, row_id, tombstone};

#[tokio::test]
async fn a_database_has_the_contracts_tables_and_logs_what_reached_it() -> Result<()> {
    let database = TestDatabase::create().await?;
    let entity = r#gen::every_type("everything", 7);
    let stored = r#gen::stored(&mut r#gen::rng(1), &entity, 50);
    database.register(std::slice::from_ref(&entity)).await?;
    let rows: Vec<HotRow<'_>> = stored
        .hot
        .iter()
        .map(|hot| HotRow { version: &hot.version, dirty: hot.dirty, has_main: hot.has_main })
        .collect();
    database.write(&entity, &rows).await?;
    let client = database.connect().await?;
    let dirty: i64 =
        client.query_one("SELECT count(*) FROM change_log WHERE schema_id = 7 AND flushed_at = 0", &[]).await?.get(0);
    assert_eq!(dirty, i64::try_from(rows.iter().filter(|row| row.dirty).count())?);
    let order: Vec<String> = client
        .query("SELECT x FROM (VALUES ('B'), ('a')) v(x) ORDER BY x", &[])
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(order, ["a", "B"], "the collation must not be C");
    let statements = database.statements()?;
    assert!(statements.iter().any(|statement| statement.sql.contains("flushed_at = 0")), "{statements:?}");
    Ok(())
}

#[tokio::test]
async fn a_cluster_of_ones_own_stops_pauses_and_restarts() -> Result<()> {
    let cluster = Cluster::start().await?;
    let database = TestDatabase::create_in(&cluster).await?;
    cluster.stop()?;
    assert!(database.connect().await.is_err());
    cluster.restart().await?;
    let client = database.connect().await?;
    cluster.pause()?;
    let answer = client.query_one("SELECT 1", &[]);
    tokio::pin!(answer);
    assert!(futures::poll!(&mut answer).is_pending());
    cluster.resume()?;
    assert_eq!(answer.await?.get::<_, i32>(0), 1);
    Ok(())
}

#[tokio::test]
async fn the_s3_server_counts_requests_and_injects_faults() -> Result<()> {
    let server = Arc::new(S3Server::start()?);
    let lake = Lake::s3(&server)?;
    lake.put_bytes("base/1/a.parquet", b"0123456789".to_vec()).await?;
    assert_eq!(lake.list().await?, ["base/1/a.parquet"]);
    assert_eq!(lake.get("base/1/a.parquet").await?.as_ref(), b"0123456789");
    assert_eq!(server.all_requests().iter().filter(|request| request.is_list()).count(), 1);
    server.forget_requests();
    server.inject(Fault::Status(403), 1, 1, |request| request.path.ends_with("a.parquet"));
    lake.get("base/1/a.parquet").await?;
    assert!(lake.get("base/1/a.parquet").await.is_err());
    lake.get("base/1/a.parquet").await?;
    assert_eq!(server.all_requests().len(), 3);
    server.clear_faults();
    server.forget_requests();
    server.inject(Fault::Truncate(4), 0, usize::MAX, |request| request.is_read());
    // The client asks for the rest of what was cut, twice.
    assert_eq!(lake.get("base/1/a.parquet").await?.as_ref(), b"0123456789");
    let ranges: Vec<Option<String>> = server.all_requests().into_iter().map(|request| request.range).collect();
    assert_eq!(ranges, [None, Some("bytes=4-9".to_owned()), Some("bytes=8-9".to_owned())]);
    Ok(())
}

/// DuckDB reads the files back as what was meant, in every form that the generator writes.
#[tokio::test]
async fn files_hold_what_the_oracle_holds() -> Result<()> {
    for seed in 0..6 {
        let entity = r#gen::every_type("everything", 7);
        let mut stored = r#gen::stored(&mut r#gen::rng(seed), &entity, 40);
        stored.hot.clear();
        let Some(mut file) = stored.files.pop() else { continue };
        file.path = "base/7/only.parquet".to_owned();
        file.versions.retain(|version| !version.is_deleted());
        let lake = Lake::local()?;
        lake.put(&file).await?;
        let path = lake.folder().unwrap().join(&file.path);
        let columns: Vec<String> = entity
            .attributes
            .iter()
            .map(|attribute| {
                let (name, kind) = (attribute.column(), attribute.duckdb_type());
                if file.columns.contains(&name) {
                    format!("CAST({name} AS {kind}) AS {name}")
                } else {
                    format!("CAST(NULL AS {kind}) AS {name}")
                }
            })
            .collect();
        stored.files = vec![file.clone()];
        let oracle = Oracle::load(&[&stored], View::default(), false)?;
        let row_id = match file.row_id {
            thermocline_tests::lake::UuidForm::Bytes => "CAST(hex(row_id) AS UUID)",
            _ => "CAST(row_id AS UUID)",
        };
        let read = oracle.query(&format!(
            "SELECT {row_id} AS row_id, {}, make_timestamptz(created_at * 1000) AS created_at, \
             make_timestamptz(changed_at * 1000) AS updated_at FROM read_parquet('{}')",
            columns.join(", "),
            path.display()
        ))?;
        let expected = oracle.query("SELECT * FROM everything")?;
        compare(&expected, &read[0].schema(), &read, Order::Any)?;
    }
    Ok(())
}

#[tokio::test]
async fn the_oracle_follows_section_three() -> Result<()> {
    let entity = thermocline_tests::model::Entity::new("t", 1).main("v", Kind::Text, "text_01");
    let v = |text: &str| vec![Value::text(text)];
    let mut stored = Stored::new(&entity);
    stored.files = vec![
        LakeFile::base(&entity, "a.parquet", vec![live(1, 9, v("old")), live(2, 5, v("base")), live(4, 5, v("gone"))]),
        LakeFile::delta(&entity, "a.parquet", vec![live(2, 5, v("delta a")), tombstone(4, 6, v("gone"))]),
        LakeFile::delta(&entity, "b.parquet", vec![live(2, 5, v("delta b"))]),
        LakeFile::delta(&entity, "_x/c.parquet", vec![live(2, 7, v("staging"))]),
    ];
    // Older than its file copy, and the winner all the same: the row is dirty.
    stored.hot.push(HotVersion { version: live(1, 3, v("hot")), dirty: true, has_main: true });
    stored.hot.push(HotVersion { version: live(5, 3, v("lost")), dirty: true, has_main: false });
    let oracle = Oracle::load(&[&stored], View::default(), true)?;
    let rows = oracle.query("SELECT v, _tier FROM t ORDER BY row_id")?;
    let rows: Vec<String> = thermocline_tests::oracle::rows_of(&rows)
        .iter()
        .map(|row| row.iter().map(ToString::to_string).collect::<Vec<_>>().join("|"))
        .collect();
    assert_eq!(rows, ["hot|hot", "delta b|warm"]);
    assert_eq!(row_id(1).get_version_num(), 7);
    Ok(())
}

/// The random queries have one right answer: DuckDB takes all of them over the oracle's tables, and many have rows.
#[test]
fn random_queries_are_valid() -> Result<()> {
    let (mut asked, mut with_rows) = (0, 0);
    for seed in 0..30 {
        let mut rng = r#gen::rng(seed);
        let left = r#gen::entity(&mut rng, "lefts", 1);
        let right = r#gen::entity(&mut rng, "rights", 2);
        let (left, right) = (r#gen::stored(&mut rng, &left, 20), r#gen::stored(&mut rng, &right, 20));
        let oracle = Oracle::load(&[&left, &right], View::default(), false)?;
        for _ in 0..20 {
            let query = r#gen::query(&mut rng, &left.entity, &right.entity);
            let rows = oracle.query(&query.sql)?;
            // DuckDB's optimizer has no part in the answer.
            oracle.query("PRAGMA disable_optimizer")?;
            let unoptimized = oracle.query(&query.sql)?;
            oracle.query("PRAGMA enable_optimizer")?;
            if let Some(first) = unoptimized.first() {
                let order = if query.ordered { Order::Exact } else { Order::Any };
                compare(&rows, &first.schema(), &unoptimized, order).with_context(|| query.sql.clone())?;
            }
            asked += 1;
            with_rows += usize::from(rows.iter().any(|batch| batch.num_rows() > 0));
        }
    }
    assert!(with_rows * 2 > asked, "only {with_rows} of {asked} queries have rows");
    Ok(())
}

#[test]
fn random_predicates_are_valid() -> Result<()> {
    let (mut asked, mut telling) = (0, 0);
    for seed in 100..106 {
        let mut rng = r#gen::rng(seed);
        let entity = r#gen::every_type("everything", 7);
        let stored = r#gen::stored(&mut rng, &entity, 50);
        let oracle = Oracle::load(&[&stored], View::default(), false)?;
        let all = stored.winners(View::default()).len();
        for _ in 0..300 {
            let predicate = r#gen::predicate(&mut rng, &entity, "a", 1);
            let rows = oracle.query(&format!("SELECT a.row_id FROM everything a WHERE {predicate}"))?;
            let passed: usize = rows.iter().map(|batch| batch.num_rows()).sum();
            asked += 1;
            telling += usize::from(passed > 0 && passed < all);
        }
    }
    assert!(telling * 2 > asked, "only {telling} of {asked} predicates tell rows apart");
    Ok(())
}
