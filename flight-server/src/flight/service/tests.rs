//! Conversations over a real connection, with a pipeline in memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Schema;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandGetTables,
    CommandPreparedStatementQuery, CommandStatementQuery, CommandStatementUpdate, DoPutPreparedStatementResult,
    ProstMessageExt,
};
use arrow_flight::utils::{batches_to_flight_data, flight_data_to_batches};
use arrow_flight::{CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, IpcMessage};
use futures::TryStreamExt;
use prost::Message;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic::transport::Channel;

use super::super::session::messages::{
    GetSessionOptionsResult, SessionOptionValue, SetSessionOptionErrorValue, SetSessionOptionsRequest,
    SetSessionOptionsResult,
};
use super::super::test_pipeline::TestPipeline;
use super::super::{FlightSettings, service, tuned};
use super::*;
use crate::query::QueryPipeline;

type Client = FlightServiceClient<Channel>;

/// Serves `pipeline` on a port of its own for as long as the test runs.
async fn serve(pipeline: TestPipeline) -> (Arc<TestPipeline>, Channel) {
    let pipeline = Arc::new(pipeline);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = service(Arc::clone(&pipeline) as Arc<dyn QueryPipeline>, None, FlightSettings::default());
    let server = tuned(tonic::transport::Server::builder()).add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    (pipeline, channel)
}

async fn client(pipeline: TestPipeline) -> (Arc<TestPipeline>, Client) {
    let (pipeline, channel) = serve(pipeline).await;
    (pipeline, Client::new(channel))
}

fn command(message: &impl ProstMessageExt) -> FlightDescriptor {
    FlightDescriptor::new_cmd(message.as_any().encode_to_vec())
}

fn select(sql: &str) -> FlightDescriptor {
    command(&CommandStatementQuery { query: sql.to_owned(), transaction_id: None })
}

fn ticket(info: &FlightInfo) -> Ticket {
    info.endpoint[0].ticket.clone().unwrap()
}

async fn fetch(client: &mut Client, info: &FlightInfo) -> (Vec<RecordBatch>, serde_json::Value) {
    let stream = client.do_get(ticket(info)).await.unwrap().into_inner();
    let messages: Vec<FlightData> = stream.try_collect().await.unwrap();
    let plan = serde_json::from_slice(&messages.last().unwrap().app_metadata).unwrap();
    (flight_data_to_batches(&messages).unwrap(), plan)
}

async fn act(client: &mut Client, name: &str, body: Vec<u8>) -> Vec<bytes::Bytes> {
    let stream = client.do_action(Action::new(name, body)).await.unwrap().into_inner();
    stream.map_ok(|result| result.body).try_collect().await.unwrap()
}

#[tokio::test]
async fn a_statement_is_planned_and_run_under_one_id() {
    let (pipeline, mut client) = client(TestPipeline::new(5)).await;
    let info = client.get_flight_info(select("SELECT 1 FROM x")).await.unwrap().into_inner();
    assert_eq!(info.total_records, 5);
    assert_eq!(info.total_bytes, -1);
    assert!(info.ordered && info.endpoint[0].location.is_empty());
    let planned: serde_json::Value = serde_json::from_slice(&info.app_metadata).unwrap();
    let (batches, executed) = fetch(&mut client, &info).await;
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 5);
    assert_eq!(planned["query_id"], executed["query_id"]);
    assert!(executed["execution"].is_object());
    let schema = info.try_decode_schema().unwrap();
    assert_eq!(schema, *batches[0].schema());
    let seen = pipeline.seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].query_id, seen[1].query_id);
    assert_eq!(seen[1].options.max_rows, Some(1_000_000));
}

/// The test pipeline's answers have another schema than the entity's, as they have after a reload of the catalog.
#[tokio::test]
async fn a_result_with_another_schema_than_promised_is_refused() {
    let (_, mut client) = client(TestPipeline::new(5)).await;
    let info = client.get_flight_info(select("SELECT * FROM \"flights\"")).await.unwrap().into_inner();
    let flights: Vec<FlightInfo> =
        client.list_flights(Criteria::default()).await.unwrap().into_inner().try_collect().await.unwrap();
    for info in flights.iter().chain([&info]) {
        let status = client.do_get(ticket(info)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("plan the query again"), "{}", status.message());
    }
}

#[tokio::test]
async fn poll_and_schema_agree_with_flight_info() {
    let (_, mut client) = client(TestPipeline::new(5)).await;
    for descriptor in
        [select("SELECT 1 FROM x"), command(&CommandGetTables { include_schema: true, ..Default::default() })]
    {
        let info = client.get_flight_info(descriptor.clone()).await.unwrap().into_inner();
        let poll = client.poll_flight_info(descriptor.clone()).await.unwrap().into_inner();
        assert!(poll.flight_descriptor.is_none());
        assert_eq!(poll.info.unwrap().schema, info.schema);
        let schema = client.get_schema(descriptor).await.unwrap().into_inner();
        assert_eq!(schema.schema, info.schema);
    }
}

#[tokio::test]
async fn mistakes_get_the_same_code_everywhere() {
    let (_, mut client) = client(TestPipeline::new(5)).await;
    let info = client.get_flight_info(select("SELECT 1")).await.unwrap_err();
    let schema = client.get_schema(select("SELECT 1")).await.unwrap_err();
    for status in [info, schema] {
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with("no FROM\n  at line 1, column 8\n"), "{}", status.message());
    }
    let update = command(&CommandStatementUpdate { query: "DELETE".to_owned(), transaction_id: None });
    let status = client.get_flight_info(update.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("read-only"));
    let put = FlightData { flight_descriptor: Some(update), ..FlightData::default() };
    let status = client.do_put(futures::stream::iter([put])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let status = client.do_get(Ticket::new("nonsense")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let status = client.do_exchange(futures::stream::iter([FlightData::default()])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    for action in ["BeginTransaction", "EndSavepoint", "CreatePreparedSubstraitPlan", "Unknown"] {
        let status = client.do_action(Action::new(action, "")).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{action}");
    }
}

#[tokio::test]
async fn a_prepared_statement_is_bound_and_run() {
    let (pipeline, mut client) = client(TestPipeline::new(3)).await;
    let request =
        ActionCreatePreparedStatementRequest { query: "SELECT 1 FROM x WHERE a = $1".to_owned(), transaction_id: None };
    let mut action = Request::new(Action::new("CreatePreparedStatement", request.as_any().encode_to_vec()));
    action.metadata_mut().insert("x-thermocline-tiers", "cold".parse().unwrap());
    let results: Vec<arrow_flight::Result> =
        client.do_action(action).await.unwrap().into_inner().try_collect().await.unwrap();
    let prepared: ActionCreatePreparedStatementResult =
        Any::decode(results[0].body.as_ref()).unwrap().unpack().unwrap().unwrap();
    assert_eq!(Schema::try_from(IpcMessage(prepared.dataset_schema)).unwrap(), *TestPipeline::schema());
    assert_eq!(Schema::try_from(IpcMessage(prepared.parameter_schema)).unwrap().field(0).name(), "$1");

    let row = RecordBatch::try_from_iter([("1", Arc::new(StringArray::from(vec!["AA"])) as _)]).unwrap();
    let bind = |handle: bytes::Bytes, batch: &RecordBatch| {
        let descriptor = command(&CommandPreparedStatementQuery { prepared_statement_handle: handle });
        let mut messages = batches_to_flight_data(&batch.schema(), vec![batch.clone()]).unwrap();
        messages[0].flight_descriptor = Some(descriptor);
        futures::stream::iter(messages)
    };
    let handle = prepared.prepared_statement_handle;
    let results: Vec<PutResult> =
        client.do_put(bind(handle.clone(), &row)).await.unwrap().into_inner().try_collect().await.unwrap();
    let bound = DoPutPreparedStatementResult::decode(results[0].app_metadata.as_ref()).unwrap();
    let bound = bound.prepared_statement_handle.unwrap();
    let descriptor = command(&CommandPreparedStatementQuery { prepared_statement_handle: bound.clone() });
    let info = client.get_flight_info(descriptor).await.unwrap().into_inner();
    fetch(&mut client, &info).await;
    {
        let seen = pipeline.seen.lock().unwrap();
        let executed = seen.last().unwrap();
        assert_eq!(executed.parameters.as_ref(), Some(&row));
        // The header of the call that prepared it still counts.
        assert_eq!(executed.options.tiers.to_string(), "cold");
    }

    let two = RecordBatch::try_from_iter([("1", Arc::new(Int64Array::from(vec![1, 2])) as _)]).unwrap();
    let status = client.do_put(bind(handle, &two)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    // Closing is always possible.
    let close = arrow_flight::sql::ActionClosePreparedStatementRequest { prepared_statement_handle: bound };
    assert!(act(&mut client, "ClosePreparedStatement", close.as_any().encode_to_vec()).await.is_empty());
}

#[tokio::test]
async fn a_query_is_cancelled_by_its_info_and_by_a_dropped_stream() {
    let (pipeline, mut client) = client(TestPipeline::endless(5)).await;
    let info = client.get_flight_info(select("SELECT 1 FROM x")).await.unwrap().into_inner();
    let request = CancelFlightInfoRequest::new(info.clone());
    let results = act(&mut client, "CancelFlightInfo", request.encode_to_vec()).await;
    let result = CancelFlightInfoResult::decode(results[0].as_ref()).unwrap();
    assert_eq!(result.status(), CancelStatus::Cancelled);
    let planned: serde_json::Value = serde_json::from_slice(&info.app_metadata).unwrap();
    assert_eq!(pipeline.cancelled.lock().unwrap()[..], [planned["query_id"].as_str().unwrap().to_owned()]);

    let foreign = FlightInfo::new().with_endpoint(arrow_flight::FlightEndpoint::new().with_ticket(Ticket::new("x")));
    let foreign = CancelFlightInfoRequest::new(foreign).encode_to_vec();
    let status = client.do_action(Action::new("CancelFlightInfo", foreign)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);

    let mut stream = client.do_get(ticket(&info)).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    drop(stream);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    while !pipeline.dropped.load(Ordering::SeqCst) {
        assert!(tokio::time::Instant::now() < deadline, "the query still runs");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn session_options_count_until_the_session_is_closed() {
    let (pipeline, mut client) = client(TestPipeline::new(1)).await;
    let options = [("tiers", "hot"), ("catalog", "thermocline"), ("no_such", "1"), ("max_rows", "many")];
    let request = SetSessionOptionsRequest {
        session_options: options.map(|(name, value)| (name.to_owned(), SessionOptionValue::text(value))).into(),
    };
    let response = client.do_action(Action::new("SetSessionOptions", request.encode_to_vec())).await.unwrap();
    let cookie = response.metadata().get("set-cookie").unwrap().clone();
    let results: Vec<arrow_flight::Result> = response.into_inner().try_collect().await.unwrap();
    let errors = SetSessionOptionsResult::decode(results[0].body.as_ref()).unwrap().errors;
    assert_eq!(errors.len(), 2);
    assert_eq!(errors["no_such"].value(), SetSessionOptionErrorValue::InvalidName);
    assert_eq!(errors["max_rows"].value(), SetSessionOptionErrorValue::InvalidValue);

    fn with<T>(cookie: &tonic::metadata::AsciiMetadataValue, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("cookie", cookie.clone());
        request
    }
    let get = with(&cookie, Action::new("GetSessionOptions", ""));
    let results: Vec<arrow_flight::Result> =
        client.do_action(get).await.unwrap().into_inner().try_collect().await.unwrap();
    let set = GetSessionOptionsResult::decode(results[0].body.as_ref()).unwrap().session_options;
    assert_eq!(set["tiers"], SessionOptionValue::text("hot"));
    assert_eq!(set["schema"], SessionOptionValue::text("main"));
    assert_eq!(set["max_rows"], SessionOptionValue::text("1000000"));

    client.get_flight_info(with(&cookie, select("SELECT 1 FROM x"))).await.unwrap();
    assert_eq!(pipeline.seen.lock().unwrap().last().unwrap().options.tiers.to_string(), "hot");
    let mut call = with(&cookie, select("SELECT 1 FROM x"));
    call.metadata_mut().insert("x-thermocline-tiers", "warm".parse().unwrap());
    client.get_flight_info(call).await.unwrap();
    assert_eq!(pipeline.seen.lock().unwrap().last().unwrap().options.tiers.to_string(), "warm");

    let response = client.do_action(with(&cookie, Action::new("CloseSession", ""))).await.unwrap();
    assert!(response.metadata().get("set-cookie").unwrap().to_str().unwrap().contains("Max-Age=0"));
    let status = client.get_flight_info(with(&cookie, select("SELECT 1 FROM x"))).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(act(&mut client, "CloseSession", vec![]).await.len() == 1);
}

#[tokio::test]
async fn options_and_deadlines_come_with_the_call() {
    let (pipeline, mut client) = client(TestPipeline::new(1)).await;
    let mut request = Request::new(select("SELECT 1 FROM x"));
    request.metadata_mut().insert("x-thermocline-timeout", "7200s".parse().unwrap());
    request.set_timeout(Duration::from_secs(3600));
    let info = client.get_flight_info(request).await.unwrap().into_inner();
    assert_eq!(pipeline.seen.lock().unwrap()[0].options.timeout, Some(Duration::from_secs(3600)));
    // The deadline was that call's; the option stays with the ticket.
    fetch(&mut client, &info).await;
    assert_eq!(pipeline.seen.lock().unwrap()[1].options.timeout, Some(Duration::from_secs(7200)));

    let mut request = Request::new(arrow_flight::Empty {});
    request.metadata_mut().insert("x-thermocline-nonsense", "1".parse().unwrap());
    let status = client.list_actions(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("allow_s3_fallback"), "{}", status.message());
}

#[tokio::test]
async fn tables_are_listed_with_paths_that_work() {
    let (_, mut client) = client(TestPipeline::new(1)).await;
    let flights: Vec<FlightInfo> =
        client.list_flights(Criteria::default()).await.unwrap().into_inner().try_collect().await.unwrap();
    assert_eq!(flights.len(), 2);
    for flight in flights {
        let descriptor = flight.flight_descriptor.clone().unwrap();
        let schema = client.get_schema(descriptor).await.unwrap().into_inner();
        assert_eq!(schema.schema, flight.schema);
    }
    let missing = FlightDescriptor::new_path(vec!["other".to_owned(), "flights".to_owned()]);
    assert_eq!(client.get_flight_info(missing).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn arrow_rs_client_connects_and_reads() {
    let (_, channel) = serve(TestPipeline::new(3)).await;
    let mut client = FlightSqlServiceClient::new(channel);
    client.handshake("any", "one").await.unwrap();
    assert_eq!(client.token().unwrap(), "anonymous");
    let info = client.execute("SELECT 1 FROM x".to_owned(), None).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let batches: Vec<_> = client.do_get(ticket).await.unwrap().try_collect().await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    let mut prepared = client.prepare("SELECT 1 FROM x WHERE a = $1".to_owned(), None).await.unwrap();
    let row = RecordBatch::try_from_iter([("1", Arc::new(StringArray::from(vec!["AA"])) as _)]).unwrap();
    prepared.set_parameters(row).unwrap();
    prepared.execute().await.unwrap();
    prepared.close().await.unwrap();
}

#[tokio::test]
async fn large_headers_are_taken() {
    let (_, mut client) = client(TestPipeline::new(1)).await;
    let mut request = Request::new(select("SELECT 1 FROM x"));
    request.metadata_mut().insert("x-other", "y".repeat(60 * 1024).parse().unwrap());
    client.get_flight_info(request).await.unwrap();
}

/// Other calls of the connection go on.
#[tokio::test]
async fn headers_over_the_limit_end_their_call_alone() {
    let (_, mut client) = client(TestPipeline::endless(5)).await;
    let info = client.get_flight_info(select("SELECT 1 FROM x")).await.unwrap().into_inner();
    let mut running = client.do_get(ticket(&info)).await.unwrap().into_inner();
    running.message().await.unwrap().unwrap();
    for kilobytes in [65, 130, 200, 400] {
        let mut request = Request::new(select("SELECT 1 FROM x"));
        for number in 0..kilobytes {
            let name: tonic::metadata::AsciiMetadataKey = format!("x-other-{number}").parse().unwrap();
            request.metadata_mut().insert(name, "y".repeat(1024).parse().unwrap());
        }
        let status = client.get_flight_info(request).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{kilobytes}: {status:?}");
        assert!(status.message().contains("max_header_bytes"), "{}", status.message());
    }
    client.handshake(futures::stream::empty()).await.unwrap();
    running.message().await.unwrap().unwrap();
}

/// A client whose gRPC library compresses what it sends is read as any other.
#[tokio::test]
async fn gzip_requests_are_read() {
    let (_, channel) = serve(TestPipeline::new(5)).await;
    let mut client = Client::new(channel).send_compressed(tonic::codec::CompressionEncoding::Gzip);
    let sql = format!("SELECT 1 FROM x WHERE a IN ({})", vec!["'a value'"; 1_000].join(", "));
    let info = client.get_flight_info(select(&sql)).await.unwrap().into_inner();
    let (batches, _) = fetch(&mut client, &info).await;
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 5);
}
