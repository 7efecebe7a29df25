//! Random bytes wherever a client may send bytes: descriptors, tickets, handles, `Any` messages, parameter streams,
//! actions. Each call ends with an answer or a status, the server never dies and never hangs. 100,000 cases in the
//! long mode, a fifth of them otherwise.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow_flight::sql::{
    Any, CommandGetTables, CommandPreparedStatementQuery, CommandStatementQuery, ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::utils::batches_to_flight_data;
use arrow_flight::{Action, Criteria, FlightData, FlightDescriptor, HandshakeRequest, Ticket};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use rand::Rng;
use rand::seq::IndexedRandom;
use thermocline_tests::client::Client;
use thermocline_tests::client_data;
use thermocline_tests::r#gen;
use thermocline_tests::scenario::{LakeKind, Scenario};
use tonic::{Code, Status};

/// How long any call may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// Calls at once.
const WIDTH: usize = 16;

/// Bytes that clients really send; what is random is most often one of these with a few bytes changed.
#[derive(Debug)]
struct Corpus {
    commands: Vec<Vec<u8>>,
    tickets: Vec<Vec<u8>>,
    handles: Vec<Vec<u8>>,
    parameters: Vec<FlightData>,
}

impl Corpus {
    async fn collect(client: &Client) -> Result<Self> {
        let sql = "SELECT n FROM golden WHERE n = $1 AND a_text = $2";
        let prepared = client.prepare(sql).await?;
        let query = CommandStatementQuery { query: "SELECT n FROM golden".to_owned(), transaction_id: None };
        let info = client.info_of(&query).await?;
        let tables = CommandGetTables {
            catalog: Some("thermocline".to_owned()),
            db_schema_filter_pattern: Some("%".to_owned()),
            table_name_filter_pattern: None,
            table_types: vec!["TABLE".to_owned()],
            include_schema: true,
        };
        let ticket = info.endpoint[0].ticket.clone().context("a ticket")?.ticket.to_vec();
        let inner: TicketStatementQuery = Any::decode(ticket.as_slice())?.unpack()?.context("a statement's ticket")?;
        let row = RecordBatch::try_from_iter([
            ("a", Arc::new(Int32Array::from(vec![1])) as ArrayRef),
            ("b", Arc::new(StringArray::from(vec!["it's"]))),
        ])?;
        let execute = CommandPreparedStatementQuery { prepared_statement_handle: prepared.handle.clone() };
        Ok(Self {
            commands: vec![
                query.as_any().encode_to_vec(),
                tables.as_any().encode_to_vec(),
                execute.as_any().encode_to_vec(),
                b"SELECT 1".to_vec(),
            ],
            tickets: vec![ticket, tables.as_any().encode_to_vec()],
            handles: vec![prepared.handle.to_vec(), inner.statement_handle.to_vec()],
            parameters: batches_to_flight_data(row.schema_ref(), vec![row.clone()])?,
        })
    }
}

/// Bytes made of one of `seeds`: changed here and there, cut, doubled, or of no seed at all.
fn bytes(rng: &mut impl Rng, seeds: &[Vec<u8>]) -> Bytes {
    let mut bytes = seeds.choose(rng).cloned().unwrap_or_default();
    match rng.random_range(0..6) {
        0 => {
            bytes = vec![0; rng.random_range(0..64)];
            rng.fill(bytes.as_mut_slice());
        }
        1 => bytes.truncate(rng.random_range(0..=bytes.len())),
        2 => {
            let at = rng.random_range(0..=bytes.len());
            let extra = bytes.clone();
            bytes.splice(at..at, extra);
        }
        _ => {
            for _ in 0..rng.random_range(1..4) {
                if let Some(last) = bytes.len().checked_sub(1) {
                    bytes[rng.random_range(0..=last)] = rng.random();
                }
            }
        }
    }
    bytes.into()
}

fn flight_data(rng: &mut impl Rng, corpus: &Corpus) -> Vec<FlightData> {
    let handle = bytes(rng, &corpus.handles);
    let handle = if rng.random_bool(0.7) { corpus.handles[0].clone().into() } else { handle };
    let command = CommandPreparedStatementQuery { prepared_statement_handle: handle };
    let command: Bytes = command.as_any().encode_to_vec().into();
    let command = if rng.random_bool(0.8) { command } else { bytes(rng, &corpus.commands) };
    let mut messages = corpus.parameters.clone();
    for message in &mut messages {
        if rng.random_bool(0.6) {
            message.data_header = bytes(rng, &[message.data_header.to_vec()]);
        }
        if rng.random_bool(0.4) {
            message.data_body = bytes(rng, &[message.data_body.to_vec()]);
        }
    }
    if rng.random_bool(0.1) {
        messages.reverse();
    }
    if rng.random_bool(0.1) {
        messages.truncate(1);
    }
    if rng.random_bool(0.95) {
        messages[0].flight_descriptor = Some(FlightDescriptor::new_cmd(command));
    }
    messages
}

/// One random call, to its end.
async fn call(client: &Client, seed: u64, corpus: &Corpus) -> Result<(), Status> {
    let mut rng = r#gen::rng(seed);
    let rng = &mut rng;
    let mut flight = client.flight();
    let descriptor = FlightDescriptor::new_cmd(bytes(rng, &corpus.commands));
    match rng.random_range(0..11) {
        0 | 1 => drop(flight.get_flight_info(descriptor).await?),
        2 => drop(flight.get_schema(descriptor).await?),
        3 => drop(flight.poll_flight_info(descriptor).await?),
        4 | 5 => {
            let ticket = Ticket { ticket: bytes(rng, &corpus.tickets) };
            flight.do_get(ticket).await?.into_inner().try_for_each(|_| std::future::ready(Ok(()))).await?;
        }
        6 => {
            let handle = bytes(rng, &corpus.handles);
            let any = if rng.random() {
                CommandPreparedStatementQuery { prepared_statement_handle: handle }.as_any()
            } else {
                TicketStatementQuery { statement_handle: handle }.as_any()
            };
            let any: Bytes = any.encode_to_vec().into();
            if rng.random() {
                flight.get_flight_info(FlightDescriptor::new_cmd(any)).await?;
            } else {
                flight.do_get(Ticket { ticket: any }).await?.into_inner().try_collect::<Vec<_>>().await?;
            }
        }
        7 | 8 => {
            let messages = flight_data(rng, corpus);
            flight.do_put(stream::iter(messages)).await?.into_inner().try_collect::<Vec<_>>().await?;
        }
        9 => {
            let names = [
                "CreatePreparedStatement",
                "ClosePreparedStatement",
                "CancelFlightInfo",
                "CancelQuery",
                "RenewFlightEndpoint",
                "SetSessionOptions",
                "GetSessionOptions",
                "CloseSession",
                "BeginTransaction",
                "",
                "\u{0}",
            ];
            let name = names.choose(rng).copied().unwrap_or_default();
            let body = bytes(rng, &[corpus.commands.clone(), corpus.tickets.clone(), corpus.handles.clone()].concat());
            let action = Action { r#type: name.to_owned(), body };
            flight.do_action(action).await?.into_inner().try_collect::<Vec<_>>().await?;
        }
        _ => {
            let payload = bytes(rng, &corpus.handles);
            if rng.random() {
                let request = HandshakeRequest { protocol_version: rng.random(), payload };
                flight.handshake(stream::iter([request])).await?.into_inner().try_collect::<Vec<_>>().await?;
            } else {
                let criteria = Criteria { expression: payload };
                flight.list_flights(criteria).await?.into_inner().try_collect::<Vec<_>>().await?;
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn random_bytes_get_a_status() -> Result<()> {
    let cases: u64 = if thermocline_tests::is_long() { 100_000 } else { 20_000 };
    let scenario = Scenario::start(client_data::stored(), LakeKind::Local).await?;
    let corpus = Corpus::collect(&scenario.client).await?;
    let mut codes = std::collections::BTreeMap::<String, u64>::new();
    let calls = stream::iter(0..cases).map(|seed| {
        let (client, corpus) = (&scenario.client, &corpus);
        async move { (seed, tokio::time::timeout(DEADLINE, call(client, seed, corpus)).await) }
    });
    let mut calls = calls.buffer_unordered(WIDTH);
    while let Some((seed, outcome)) = calls.next().await {
        let outcome = outcome.with_context(|| format!("case {seed} hangs"))?;
        let code = outcome.as_ref().err().map_or(Code::Ok, Status::code);
        *codes.entry(format!("{code:?}")).or_default() += 1;
        if let Err(status) = outcome {
            // UNKNOWN and an UNAVAILABLE without words come from a connection that broke.
            let expected = [
                Code::InvalidArgument,
                Code::NotFound,
                Code::Unimplemented,
                Code::Unauthenticated,
                Code::ResourceExhausted,
            ];
            ensure!(expected.contains(&status.code()), "case {seed}: {status:?}\n{}", scenario.server.log()?);
        }
    }
    eprintln!("{cases} cases: {codes:?}");
    let log = scenario.server.log()?;
    // Arrow's reader panics on some parameters; the wire catches that and says that they are damaged.
    let ours: Vec<&str> =
        log.lines().filter(|line| line.contains("panicked at") && !line.contains("/arrow-")).collect();
    ensure!(ours.is_empty(), "the server panicked:\n{log}");
    assert_eq!(scenario.client.query("SELECT count(*) AS c FROM things").await?.text(), "120");
    Ok(())
}
