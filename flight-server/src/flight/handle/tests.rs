use std::sync::Arc;

use arrow::array::{Int64Array, StringArray};
use translator::options::Tiers;

use super::*;
use crate::query::ErrorKind;

fn statement() -> StatementHandle {
    StatementHandle {
        query_id: uuid::Uuid::nil().to_string(),
        sql: "SELECT * FROM flights WHERE carrier = $1 AND day = $2 -- é".to_owned(),
        parameters: Some(
            RecordBatch::try_from_iter([
                ("1", Arc::new(StringArray::from(vec!["AA"])) as _),
                ("2", Arc::new(Int64Array::from(vec![None::<i64>])) as _),
            ])
            .unwrap(),
        ),
        options: QueryOptions {
            tiers: Tiers::parse("hot,cold").unwrap(),
            timeout: Some(Duration::from_millis(1_500)),
            max_rows: Some(10),
            ..QueryOptions::default()
        },
        schema_digest: u64::MAX,
    }
}

#[test]
fn handles_round_trip() {
    let statement = statement();
    assert_eq!(
        StatementHandle::decode(&statement.encode(&HandleSeal::Checksum).unwrap(), &HandleSeal::Checksum).unwrap(),
        statement
    );
    assert_eq!(
        query_id(&statement.encode(&HandleSeal::Checksum).unwrap(), &HandleSeal::Checksum).unwrap(),
        statement.query_id
    );

    let plain = StatementHandle { parameters: None, options: QueryOptions::default(), ..statement.clone() };
    assert_eq!(
        StatementHandle::decode(&plain.encode(&HandleSeal::Checksum).unwrap(), &HandleSeal::Checksum).unwrap(),
        plain
    );

    let prepared = PreparedHandle {
        sql: statement.sql,
        parameters: statement.parameters,
        call_options: vec![("tiers".to_owned(), "hot".to_owned())],
    };
    assert_eq!(
        PreparedHandle::decode(&prepared.encode(&HandleSeal::Checksum).unwrap(), &HandleSeal::Checksum).unwrap(),
        prepared
    );
}

#[test]
fn a_timeout_below_the_text_forms_unit_survives() {
    let mut handle = statement();
    handle.options.timeout = Some(Duration::from_micros(3));
    let decoded =
        StatementHandle::decode(&handle.encode(&HandleSeal::Checksum).unwrap(), &HandleSeal::Checksum).unwrap();
    assert_eq!(decoded.options.timeout, Some(Duration::from_millis(1)));
}

#[test]
fn foreign_and_other_version_handles_are_not_found() {
    let kind = |bytes: &[u8]| StatementHandle::decode(bytes, &HandleSeal::Checksum).unwrap_err().error.kind();
    assert_eq!(kind(b""), ErrorKind::NotFound);
    assert_eq!(kind(b"some other server's ticket"), ErrorKind::NotFound);
    let mut other = statement().encode(&HandleSeal::Checksum).unwrap().to_vec();
    other[4] = 2;
    let failure = StatementHandle::decode(&other, &HandleSeal::Checksum).unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::NotFound);
    assert!(failure.error.message().contains("version 2"), "{}", failure.error.message());
}

#[test]
fn a_handle_of_the_wrong_kind_is_refused() {
    let ticket = statement().encode(&HandleSeal::Checksum).unwrap();
    assert_eq!(
        PreparedHandle::decode(&ticket, &HandleSeal::Checksum).unwrap_err().error.kind(),
        ErrorKind::InvalidQuery
    );
    let prepared = PreparedHandle { sql: String::new(), parameters: None, call_options: vec![] }
        .encode(&HandleSeal::Checksum)
        .unwrap();
    assert_eq!(
        StatementHandle::decode(&prepared, &HandleSeal::Checksum).unwrap_err().error.kind(),
        ErrorKind::InvalidQuery
    );
}

#[test]
fn every_flipped_byte_and_every_cut_is_noticed() {
    let bytes = statement().encode(&HandleSeal::Checksum).unwrap().to_vec();
    for place in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[place] ^= 0x41;
        assert!(StatementHandle::decode(&flipped, &HandleSeal::Checksum).is_err(), "flipped at {place}");
        assert!(StatementHandle::decode(&bytes[..place], &HandleSeal::Checksum).is_err(), "cut at {place}");
    }
}

/// Whoever can compute the checksum can forge a message; it must still be an error or a handle, never a panic.
#[test]
fn forged_messages_never_panic() {
    let bytes = statement().encode(&HandleSeal::Checksum).unwrap();
    let body = HandleSeal::Checksum.open(&bytes).unwrap();
    let mut random = super::super::test_pipeline::Random::new(7);
    for _ in 0..20_000 {
        let mut forged = body.to_vec();
        for _ in 0..1 + random.below(4) {
            let place = random.below(forged.len());
            forged[place] = random.byte();
        }
        let mut sealed = HandleSeal::Checksum.seal(&forged).unwrap().to_vec();
        sealed.extend_from_slice(&forged);
        let _ = StatementHandle::decode(&sealed, &HandleSeal::Checksum);
        let _ = PreparedHandle::decode(&sealed, &HandleSeal::Checksum);
    }
}
