use arrow_flight::sql::{
    ActionBeginTransactionRequest, CommandGetTables, CommandPreparedStatementQuery, CommandStatementIngest,
    CommandStatementQuery, CommandStatementSubstraitPlan, CommandStatementUpdate, TicketStatementQuery,
};
use translator::options::QueryOptions;

use super::super::test_pipeline::Random;
use super::*;
use crate::query::ErrorKind;

fn descriptor(message: &impl ProstMessageExt) -> FlightDescriptor {
    FlightDescriptor::new_cmd(message.as_any().encode_to_vec())
}

fn kind<T: std::fmt::Debug>(outcome: Outcome<T>) -> ErrorKind {
    outcome.unwrap_err().error.kind()
}

#[test]
fn descriptors_become_commands() {
    let query = CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: Some(Bytes::new()) };
    assert_eq!(
        FlightSqlCommand::parse(&descriptor(&query), &HandleSeal::Checksum).unwrap(),
        FlightSqlCommand::Statement { sql: "SELECT 1".to_owned() }
    );
    let prepared = PreparedHandle { sql: "SELECT 2".to_owned(), parameters: None, call_options: vec![] };
    let command =
        CommandPreparedStatementQuery { prepared_statement_handle: prepared.encode(&HandleSeal::Checksum).unwrap() };
    assert_eq!(
        FlightSqlCommand::parse(&descriptor(&command), &HandleSeal::Checksum).unwrap(),
        FlightSqlCommand::PreparedStatement(prepared.clone())
    );
    assert_eq!(
        FlightSqlPut::parse(&descriptor(&command), &HandleSeal::Checksum).unwrap(),
        FlightSqlPut::BindParameters(prepared)
    );
    let tables = CommandGetTables { include_schema: true, ..CommandGetTables::default() };
    let expected = MetadataCommand::Tables(tables.clone());
    assert_eq!(
        FlightSqlCommand::parse(&descriptor(&tables), &HandleSeal::Checksum).unwrap(),
        FlightSqlCommand::Metadata(expected.clone())
    );
    assert_eq!(
        FlightSqlTicket::parse(&Ticket::new(expected.to_ticket()), &HandleSeal::Checksum).unwrap(),
        FlightSqlTicket::Metadata(expected)
    );
}

#[test]
fn writes_are_understood_and_refused() {
    let update = CommandStatementUpdate { query: "DELETE FROM x".to_owned(), transaction_id: None };
    let cases = [
        (descriptor(&update), RefusedCommand::Update),
        (descriptor(&CommandStatementIngest::default()), RefusedCommand::Ingest),
        (descriptor(&CommandStatementSubstraitPlan::default()), RefusedCommand::Substrait),
    ];
    for (descriptor, refused) in cases {
        assert_eq!(
            FlightSqlCommand::parse(&descriptor, &HandleSeal::Checksum).unwrap(),
            FlightSqlCommand::Refused(refused)
        );
        assert_eq!(FlightSqlPut::parse(&descriptor, &HandleSeal::Checksum).unwrap(), FlightSqlPut::Refused(refused));
        assert_eq!(refused.failure().error.kind(), ErrorKind::Unsupported);
    }
    let query = CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: Some("tx".into()) };
    assert_eq!(kind(FlightSqlCommand::parse(&descriptor(&query), &HandleSeal::Checksum)), ErrorKind::NotFound);
}

#[test]
fn paths_name_tables() {
    let sql = |path: &[&str]| {
        let descriptor = FlightDescriptor::new_path(path.iter().map(|&part| part.to_owned()).collect());
        match FlightSqlCommand::parse(&descriptor, &HandleSeal::Checksum) {
            Ok(FlightSqlCommand::Statement { sql }) => Some(sql),
            Ok(other) => panic!("{other:?}"),
            Err(failure) => {
                assert_eq!(failure.error.kind(), ErrorKind::NotFound);
                None
            }
        }
    };
    assert_eq!(sql(&["flights"]).unwrap(), "SELECT * FROM \"flights\"");
    assert_eq!(sql(&["thermocline", "main", "fl\"x"]).unwrap(), "SELECT * FROM \"fl\"\"x\"");
    assert_eq!(sql(&["main", "flights"]).unwrap(), "SELECT * FROM \"flights\"");
    assert_eq!(sql(&[]), None);
    assert_eq!(sql(&["other", "main", "flights"]), None);
    assert_eq!(sql(&["a", "b", "c", "d"]), None);
}

#[test]
fn tickets_become_statements() {
    let handle = StatementHandle {
        query_id: uuid::Uuid::nil().to_string(),
        sql: "SELECT 1".to_owned(),
        parameters: None,
        options: QueryOptions::default(),
        schema_digest: 7,
    };
    let ticket = TicketStatementQuery { statement_handle: handle.encode(&HandleSeal::Checksum).unwrap() };
    let ticket = Ticket::new(ticket.as_any().encode_to_vec());
    assert_eq!(FlightSqlTicket::parse(&ticket, &HandleSeal::Checksum).unwrap(), FlightSqlTicket::Statement(handle));

    let foreign = TicketStatementQuery { statement_handle: "theirs".into() };
    assert_eq!(
        kind(FlightSqlTicket::parse(&Ticket::new(foreign.as_any().encode_to_vec()), &HandleSeal::Checksum)),
        ErrorKind::NotFound
    );
    let command = CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: None };
    let command = Ticket::new(command.as_any().encode_to_vec());
    assert_eq!(kind(FlightSqlTicket::parse(&command, &HandleSeal::Checksum)), ErrorKind::InvalidQuery);
    let action = Ticket::new(ActionBeginTransactionRequest {}.as_any().encode_to_vec());
    assert_eq!(kind(FlightSqlTicket::parse(&action, &HandleSeal::Checksum)), ErrorKind::InvalidQuery);
    assert_eq!(kind(FlightSqlTicket::parse(&Ticket::new("SELECT 1"), &HandleSeal::Checksum)), ErrorKind::InvalidQuery);
    assert_eq!(
        kind(FlightSqlTicket::parse(&Ticket::new(Bytes::new()), &HandleSeal::Checksum)),
        ErrorKind::InvalidQuery
    );
}

#[test]
fn actions_are_known_by_name() {
    let action = |name: &str, body: Vec<u8>| FlightSqlAction::parse(&Action::new(name, body));
    let create = ActionCreatePreparedStatementRequest { query: "SELECT 1".to_owned(), transaction_id: None };
    assert_eq!(
        action("CreatePreparedStatement", create.as_any().encode_to_vec()).unwrap(),
        FlightSqlAction::CreatePreparedStatement { sql: "SELECT 1".to_owned() }
    );
    assert_eq!(kind(action("CreatePreparedStatement", b"SELECT 1".to_vec())), ErrorKind::InvalidQuery);
    assert_eq!(action("BeginTransaction", vec![]).unwrap(), FlightSqlAction::Refused("BeginTransaction"));
    assert_eq!(action("CloseSession", vec![]).unwrap(), FlightSqlAction::CloseSession);
    assert_eq!(kind(action("DropEverything", vec![])), ErrorKind::Unsupported);
}

#[test]
fn random_bytes_are_always_an_answer() {
    let names = ["CreatePreparedStatement", "CancelFlightInfo", "CancelQuery", "SetSessionOptions", "CloseSession"];
    let seeds: Vec<Vec<u8>> = vec![
        CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: None }.as_any().encode_to_vec(),
        CommandGetTables { table_types: vec!["TABLE".to_owned()], ..CommandGetTables::default() }
            .as_any()
            .encode_to_vec(),
        TicketStatementQuery { statement_handle: "TCLN\u{1}12345678".into() }.as_any().encode_to_vec(),
        vec![0; 40],
    ];
    let mut random = Random::new(3);
    for round in 0..50_000 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..1 + random.below(6) {
            let place = random.below(bytes.len());
            bytes[place] = random.byte();
        }
        bytes.truncate(1 + random.below(bytes.len()));
        let descriptor = FlightDescriptor { r#type: random.below(4) as i32, cmd: bytes.clone().into(), path: vec![] };
        let _ = FlightSqlCommand::parse(&descriptor, &HandleSeal::Checksum);
        let _ = FlightSqlTicket::parse(&Ticket::new(bytes.clone()), &HandleSeal::Checksum);
        let _ = FlightSqlAction::parse(&Action::new(names[round % names.len()], bytes));
    }
}
