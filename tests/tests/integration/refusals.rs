//! What is refused, with which code and which words, the same at every door: GetFlightInfo, DoGet and preparing.

use anyhow::Result;
use arrow_flight::Ticket;
use bytes::Bytes;
use thermocline_tests::client::{Client, Failure, first_ticket};
use thermocline_tests::lake::LakeFile;
use thermocline_tests::oracle::Stored;
use thermocline_tests::scenario::{LakeKind, Scenario, live};
use tonic::Code;

use crate::{thing, things};

/// Statement, code, and words that the message must have.
const REFUSALS: [(&str, Code, &[&str]); 47] = [
    ("", Code::InvalidArgument, &[]),
    ("SELEC 1", Code::InvalidArgument, &["SELEC"]),
    ("SELECT FROM WHERE", Code::InvalidArgument, &[]),
    ("SELECT nam FROM things", Code::InvalidArgument, &["nam", "name"]),
    ("SELECT name + 1 FROM things WHERE n = 'x y'", Code::InvalidArgument, &[]),
    ("SELECT sum(name) FROM things", Code::InvalidArgument, &["sum"]),
    ("SELECT no_such_function(1)", Code::InvalidArgument, &["no_such_function"]),
    ("SELECT * FROM thing", Code::NotFound, &["thing", "things"]),
    ("SELECT * FROM other.main.things", Code::NotFound, &["other"]),
    ("SELECT 1; SELECT 2", Code::InvalidArgument, &["one"]),
    ("COPY things TO 'out.csv'", Code::InvalidArgument, &["SELECT"]),
    ("COPY (SELECT 1) TO 'out.csv'", Code::InvalidArgument, &["SELECT"]),
    ("INSERT INTO things VALUES (1)", Code::InvalidArgument, &["SELECT"]),
    ("UPDATE things SET n = 1", Code::InvalidArgument, &["SELECT"]),
    ("DELETE FROM things", Code::InvalidArgument, &["SELECT"]),
    ("CREATE TABLE x (a INT)", Code::InvalidArgument, &["SELECT"]),
    ("CREATE SECRET s (TYPE s3)", Code::InvalidArgument, &["SELECT"]),
    ("DROP TABLE things", Code::InvalidArgument, &["SELECT"]),
    ("ATTACH 'x.db' AS x", Code::InvalidArgument, &["SELECT"]),
    ("SET threads = 1", Code::InvalidArgument, &["SELECT"]),
    ("PRAGMA database_list", Code::InvalidArgument, &[]),
    ("INSTALL httpfs", Code::InvalidArgument, &["SELECT"]),
    ("LOAD httpfs", Code::InvalidArgument, &["SELECT"]),
    ("CALL pragma_version()", Code::InvalidArgument, &["SELECT"]),
    ("PIVOT things ON name USING sum(n)", Code::InvalidArgument, &["PIVOT t ON c IN ('x', 'y')"]),
    ("SELECT * FROM (PIVOT things ON name USING sum(n))", Code::InvalidArgument, &["PIVOT t ON c IN ('x', 'y')"]),
    ("SHOW DATABASES", Code::InvalidArgument, &[]),
    ("SHOW ALL TABLES", Code::InvalidArgument, &[]),
    ("SELECT * FROM read_csv('/etc/passwd')", Code::InvalidArgument, &["read_csv"]),
    ("SELECT * FROM read_parquet('x.parquet')", Code::InvalidArgument, &["read_parquet"]),
    ("SELECT * FROM read_text('/etc/passwd')", Code::InvalidArgument, &["read_text"]),
    ("SELECT * FROM glob('/*')", Code::InvalidArgument, &["glob"]),
    ("SELECT * FROM '/etc/passwd'", Code::NotFound, &["/etc/passwd"]),
    ("SELECT * FROM 'file.parquet'", Code::NotFound, &["file.parquet"]),
    ("SELECT * FROM \"s3://b/x.parquet\"", Code::NotFound, &["s3://b/x.parquet"]),
    ("SELECT * FROM postgres_query('x', 'SELECT 1')", Code::InvalidArgument, &["postgres_query"]),
    ("SELECT * FROM postgres_scan('host=x', 'public', 't')", Code::InvalidArgument, &["postgres_scan"]),
    ("SELECT * FROM query('SELECT 1')", Code::InvalidArgument, &["query"]),
    ("SELECT * FROM query_table(['things'])", Code::InvalidArgument, &["query_table"]),
    ("SELECT * FROM duckdb_settings()", Code::InvalidArgument, &["duckdb_settings"]),
    ("SELECT * FROM duckdb_secrets()", Code::InvalidArgument, &["duckdb_secrets"]),
    ("SELECT * FROM pragma_table_info('things')", Code::InvalidArgument, &["pragma_table_info"]),
    ("SELECT getenv('HOME')", Code::InvalidArgument, &["getenv"]),
    ("SELECT current_setting('threads')", Code::InvalidArgument, &["current_setting"]),
    ("SELECT (SELECT count(*) FROM read_csv('/etc/passwd'))", Code::InvalidArgument, &["read_csv"]),
    (
        "WITH c AS (SELECT 1 AS x) SELECT * FROM c WHERE EXISTS (SELECT 1 FROM read_blob('/etc/*'))",
        Code::InvalidArgument,
        &["read_blob"],
    ),
    ("SELECT t.name FROM things t, LATERAL (SELECT * FROM glob(t.name)) g", Code::InvalidArgument, &["glob"]),
];

async fn scenario() -> Result<Scenario> {
    let entity = things();
    let mut stored = Stored::new(&entity);
    stored.files = vec![LakeFile::base(&entity, "a.parquet", vec![live(1, 10, thing("x", 1))])];
    Scenario::start(vec![stored], LakeKind::Local).await
}

#[tokio::test]
async fn refusals_have_the_right_code_and_words_at_every_door() -> Result<()> {
    let scenario = scenario().await?;
    let mut faults = Vec::new();
    for (sql, code, words) in REFUSALS {
        for (door, failure) in [
            ("GetFlightInfo", scenario.client.info(sql).await.err()),
            ("Prepare", scenario.client.prepare(sql).await.err()),
            ("DoGet", do_get_of(&scenario.client, sql).await?),
        ] {
            let Some(failure) = failure else {
                faults.push(format!("{door} admits {sql}"));
                continue;
            };
            let message = failure.message.to_lowercase();
            let lacks: Vec<&&str> = words.iter().filter(|word| !message.contains(&word.to_lowercase())).collect();
            if failure.code != code || !lacks.is_empty() {
                faults.push(format!("{door} of {sql}: {failure} (should be {code:?} and mention {lacks:?})"));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    Ok(())
}

/// What DoGet says of a statement that GetFlightInfo would never have given a ticket for.
async fn do_get_of(client: &Client, sql: &str) -> Result<Option<Failure>> {
    // A valid statement of the same length, so that the ticket's inner lengths stay as they are.
    let filler = format!("SELECT 1{}", " ".repeat(sql.len().saturating_sub(8)));
    let wanted = format!("{sql}{}", " ".repeat(filler.len() - sql.len()));
    let ticket = first_ticket(client.info(&filler).await?)?;
    let forged = forge(&ticket.ticket, filler.as_bytes(), wanted.as_bytes());
    Ok(match client.do_get(Ticket { ticket: forged }).await {
        Err(failure) => Some(failure),
        Ok(mut stream) => match stream.message().await {
            Err(status) => Some(Failure {
                stage: thermocline_tests::client::Stage::Stream,
                code: status.code(),
                message: status.message().to_owned(),
            }),
            Ok(_) => None,
        },
    })
}

/// Replaces the SQL in a ticket. A ticket is `TCLN`, a version byte, a checksum (FNV-1a, 64 bits), a message; it grants
/// nothing that its SQL would not, so anybody may make one.
fn forge(ticket: &[u8], old: &[u8], new: &[u8]) -> Bytes {
    let mut forged = ticket.to_vec();
    let at = forged.windows(old.len()).position(|window| window == old).expect("the ticket holds the SQL");
    forged[at..at + new.len()].copy_from_slice(new);
    let start = forged.windows(4).position(|window| window == b"TCLN").expect("the ticket has its mark");
    let body = start + 4 + 1 + 8;
    let checksum = forged[body..]
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    forged[body - 8..body].copy_from_slice(&checksum.to_be_bytes());
    forged.into()
}

#[tokio::test]
async fn a_syntax_error_says_where() -> Result<()> {
    let scenario = scenario().await?;
    let failure = scenario.client.refusal("SELECT name\nFROM things\nWHERE n = = 1").await;
    failure.expect(Code::InvalidArgument, &["line 3"]);
    let failure = scenario.client.refusal("SELECT name,\n  wrong_column\nFROM things").await;
    failure.expect(Code::InvalidArgument, &["wrong_column", "line 2"]);
    Ok(())
}

#[tokio::test]
async fn bad_tickets_handles_and_options_are_refused() -> Result<()> {
    let scenario = scenario().await?;
    for ticket in [b"".as_slice(), b"nonsense", &[0xff; 64]] {
        let refused = scenario.client.do_get(Ticket { ticket: Bytes::copy_from_slice(ticket) }).await;
        let failure = refused.expect_err("a ticket that nobody gave out");
        assert!(matches!(failure.code, Code::InvalidArgument | Code::NotFound), "{failure}");
    }
    let failure = scenario.client.execute_prepared(&Bytes::from_static(b"nonsense")).await.expect_err("no such handle");
    failure.expect(Code::NotFound, &["handle"]);
    let failure = scenario.client.with_option("colour", "red").refusal("SELECT 1").await;
    failure.expect(Code::InvalidArgument, &["colour", "consistency", "max_rows"]);
    for (name, value, expected) in [
        ("tiers", "hot,lukewarm", "cold"),
        ("consistency", "maybe", "eventual"),
        ("allow_partial", "perhaps", "true"),
        ("max_rows", "-1", "number"),
        ("timeout", "soon", "duration"),
        ("hot_scan", "x", "copy"),
    ] {
        let failure = scenario.client.with_option(name, value).refusal("SELECT * FROM things").await;
        failure.expect(Code::InvalidArgument, &[name, value, expected]);
    }
    Ok(())
}

#[tokio::test]
async fn what_is_admitted_works() -> Result<()> {
    let scenario = scenario().await?;
    for sql in [
        "SELECT 1",
        "VALUES (1, 'a'), (2, 'b')",
        "SELECT * FROM range(3)",
        "SELECT * FROM generate_series(1, 3)",
        "SELECT unnest([1, 2, 3])",
        "SHOW TABLES",
        "DESCRIBE things",
        "DESCRIBE SELECT name FROM things",
        "SUMMARIZE things",
        "EXPLAIN SELECT name FROM things",
        "EXPLAIN ANALYZE SELECT name FROM things",
        "SELECT table_name FROM information_schema.tables",
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'things'",
        "SELECT schema_name FROM information_schema.schemata",
        "SELECT name FROM THINGS AS T WHERE t.N = 1;",
        "-- a comment\nSELECT /* another */ name FROM things",
    ] {
        let answer = scenario.client.query(sql).await?;
        assert!(answer.row_count() > 0, "{sql} has no rows");
    }
    Ok(())
}
