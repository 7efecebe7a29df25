//! The demonstration's data: its tiers hold what they should, and the server answers what the CSV rows and their edits
//! say.

use std::sync::Arc;

use anyhow::{Context, Result};
use thermocline_tests::client::Client;
use thermocline_tests::lake::Lake;
use thermocline_tests::nycflights::{self, Expected, Loaded, Source};
use thermocline_tests::postgres::TestDatabase;
use thermocline_tests::s3::S3Server;
use thermocline_tests::server::ServerConfig;

async fn load(lake: &Lake) -> Result<(TestDatabase, Source, Loaded)> {
    let database = TestDatabase::create().await?;
    let source = Source::read(&nycflights::directory()?)?;
    let loaded = nycflights::load(&source, &database, lake, |_| ()).await?;
    Ok((database, source, loaded))
}

/// Merges the tiers by hand: what isn't dirty comes from the newest version in files, the rest from PostgreSQL.
#[tokio::test]
async fn the_tiers_hold_the_flights_and_their_edits() -> Result<()> {
    let lake = Lake::local()?;
    let (database, source, loaded) = load(&lake).await?;
    let expected = Expected::of(&source.flights);
    assert_eq!(source.flights.len(), 336_776);
    assert_eq!(usize::try_from(expected.rows)? + expected.deleted.len(), source.flights.len());
    assert!(loaded.dirty_rows > 5_000 && loaded.flushed_rows > 5_000, "{loaded:?}");

    let client = database.connect().await?;
    let dirty = client
        .query(
            "SELECT c.row_id, coalesce(c.deleted_at, 0) = 0, m.text_01, d.value_numeric::bigint, m.ltbase_row_id IS NULL
             FROM change_log c
             LEFT JOIN entity_main m ON m.ltbase_schema_id = c.schema_id AND m.ltbase_row_id = c.row_id
             LEFT JOIN eav_data d ON d.schema_id = c.schema_id AND d.row_id = c.row_id AND d.attr_id = 201
             WHERE c.schema_id = 100 AND c.flushed_at = 0",
            &[],
        )
        .await?;
    let duckdb = duckdb::Connection::open_in_memory()?;
    duckdb.execute_batch("CREATE TABLE dirty (row_id UUID, live BOOLEAN, carrier VARCHAR, dep_delay BIGINT)")?;
    let (mut bare_tombstones, mut kept_tombstones) = (0, 0);
    {
        let mut appender = duckdb.appender("dirty")?;
        for row in &dirty {
            let (id, live): (uuid::Uuid, bool) = (row.get(0), row.get(1));
            let (carrier, delay): (Option<String>, Option<i64>) = (row.get(2), row.get(3));
            bare_tombstones += u32::from(!live && row.get::<_, bool>(4));
            kept_tombstones += u32::from(!live && !row.get::<_, bool>(4));
            appender.append_row(duckdb::params![id.to_string(), live, carrier, delay])?;
        }
    }
    assert!(bare_tombstones > 100 && kept_tombstones > 100, "{bare_tombstones} {kept_tombstones}");

    let folder = lake.folder().context("a local lake")?.display().to_string();
    duckdb.execute_batch(&format!(
        "CREATE TABLE winners AS
         FROM (SELECT row_id, carrier, dep_delay, coalesce(deleted_at, 0) = 0 AS live, filename LIKE '%/delta/%' AS warm
               FROM read_parquet(['{folder}/base/100/*.parquet', '{folder}/delta/100/*.parquet'], filename = true)
               QUALIFY row_number() OVER (PARTITION BY row_id ORDER BY changed_at DESC) = 1)
         ANTI JOIN dirty USING (row_id);
         CREATE TABLE merged AS
         SELECT carrier, dep_delay FROM winners WHERE live
         UNION ALL SELECT carrier, dep_delay FROM dirty WHERE live"
    ))?;
    let number = |sql: &str| duckdb.query_row(sql, [], |row| row.get::<_, i64>(0));
    assert_eq!(number("SELECT count(*) FROM merged")?, expected.rows);
    let delay: i64 = expected.departure_delay_by_month.values().sum();
    assert_eq!(number("SELECT sum(dep_delay)::BIGINT FROM merged")?, delay);
    for (carrier, rows) in &expected.rows_by_carrier {
        assert_eq!(number(&format!("SELECT count(*) FROM merged WHERE carrier = '{carrier}'"))?, *rows, "{carrier}");
    }
    assert!(number("SELECT count(*) FROM winners WHERE warm AND NOT live")? > 100, "tombstones in delta files");
    let base = format!("read_parquet('{folder}/base/100/*.parquet')");
    assert!(number(&format!("SELECT count(*) FROM dirty SEMI JOIN {base} USING (row_id)"))? > 500);
    let delta = format!("read_parquet('{folder}/delta/100/*.parquet')");
    assert!(number(&format!("SELECT count(*) FROM {delta} SEMI JOIN {base} USING (row_id)"))? > 500);
    Ok(())
}

#[tokio::test]
async fn the_server_answers_what_the_edits_say_from_a_folder() -> Result<()> {
    check_answers(&Lake::local()?).await
}

#[tokio::test]
async fn the_server_answers_what_the_edits_say_from_s3() -> Result<()> {
    check_answers(&Lake::s3(&Arc::new(S3Server::start()?))?).await
}

async fn check_answers(lake: &Lake) -> Result<()> {
    let (database, source, _) = load(lake).await?;
    let expected = Expected::of(&source.flights);
    let server = ServerConfig::new(&database, lake, &nycflights::all_entities()).start().await?;
    let client = Client::connect(server.endpoint()).await?;
    let text = async |sql: &str| -> Result<String> {
        let answer = client.query(sql).await.map_err(|failure| anyhow::anyhow!("{failure:?}\n{sql}"))?;
        Ok(answer.text().trim_end().to_owned())
    };

    assert_eq!(text("SELECT count(*) FROM flights").await?, expected.rows.to_string());
    let lines = |rows: Vec<String>| rows.join("\n");
    assert_eq!(
        text("SELECT carrier, count(*) FROM flights GROUP BY carrier ORDER BY carrier").await?,
        lines(expected.rows_by_carrier.iter().map(|(carrier, rows)| format!("{carrier}|{rows}")).collect())
    );
    assert_eq!(
        text(
            "SELECT month(flight_date) AS month, CAST(sum(dep_delay) AS BIGINT) FROM flights
             GROUP BY month ORDER BY month"
        )
        .await?,
        lines(expected.departure_delay_by_month.iter().map(|(month, delay)| format!("{month}|{delay}")).collect())
    );
    assert_eq!(text("SELECT count(*) FROM flights WHERE cancelled").await?, expected.cancelled.to_string());
    assert_eq!(
        text("SELECT count(cancellation_reason) FROM flights").await?,
        expected.reasons_known.to_string(),
        "only edits know of reasons"
    );
    let deleted: Vec<String> = expected.deleted.iter().map(|row_id| format!("'{row_id}'")).collect();
    let among_deleted = format!("SELECT count(*) FROM flights WHERE row_id IN ({})", deleted.join(", "));
    assert_eq!(text(&among_deleted).await?, "0", "a deleted row never resurfaces");

    // Every carrier is an airline, which are all hot; the other entities lie in files, or in all tiers.
    let joined = "SELECT count(*) FROM flights f JOIN airlines a USING (carrier)";
    assert_eq!(text(joined).await?, expected.rows.to_string());
    for (entity, rows) in [
        ("airlines", source.airlines.len()),
        ("airports", source.airports.len()),
        ("planes", source.planes.len()),
        ("weather", source.weather.len()),
    ] {
        assert_eq!(text(&format!("SELECT count(*) FROM {entity}")).await?, rows.to_string(), "{entity}");
    }
    assert_eq!(
        text("SELECT DISTINCT _tier FROM flights ORDER BY _tier").await?,
        "cold\nhot\nwarm",
        "flights come from every tier"
    );
    Ok(())
}
