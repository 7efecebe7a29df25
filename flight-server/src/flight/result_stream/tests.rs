use std::sync::atomic::Ordering;

use arrow::array::{ArrayRef, DictionaryArray, StringArray};
use arrow::datatypes::{DataType, Int8Type, Schema};
use arrow_flight::utils::flight_data_to_batches;

use super::super::test_pipeline::TestPipeline;
use super::*;
use crate::access::Caller;
use crate::query::QueryPipeline;
use crate::query::{ErrorKind, QueryRequest};

fn id() -> FailedQuery {
    FailedQuery { query_id: "q".to_owned(), sql: "SELECT x FROM y".to_owned() }
}

fn request() -> QueryRequest {
    QueryRequest {
        query_id: "q".to_owned(),
        sql: "SELECT x FROM y".to_owned(),
        parameters: None,
        options: translator::options::QueryOptions::default(),
        caller: Caller::unrestricted(),
    }
}

fn query(schema: &SchemaRef, events: Vec<Result<QueryEvent, QueryError>>) -> QueryStream {
    QueryStream { schema: Arc::clone(schema), events: stream::iter(events).boxed() }
}

async fn collect(query: QueryStream, target_bytes: usize) -> (Vec<FlightData>, Option<Status>) {
    let mut stream = of_query(query, id(), target_bytes);
    let mut messages = Vec::new();
    while let Some(message) = stream.next().await {
        match message {
            Ok(message) => messages.push(message),
            Err(status) => return (messages, Some(status)),
        }
    }
    (messages, None)
}

#[tokio::test]
async fn schema_then_batches_then_the_plan() {
    let pipeline = TestPipeline::new(10_000);
    let (messages, status) = collect(pipeline.execute(request()).await.unwrap(), 20_000).await;
    assert!(status.is_none());
    assert!(messages.len() > 10, "{}", messages.len());
    assert!(messages.iter().all(|message| message.data_body.len() < 25_000));
    let (last, rest) = messages.split_last().unwrap();
    assert!(rest.iter().all(|message| message.app_metadata.is_empty()));
    let plan: serde_json::Value = serde_json::from_slice(&last.app_metadata).unwrap();
    assert_eq!(plan["execution"]["rows"], 10_000);
    let batches = flight_data_to_batches(&messages).unwrap();
    assert!(batches.iter().all(|batch| batch.num_rows() > 0), "the plan comes with rows");
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 10_000);
}

#[tokio::test]
async fn no_rows_still_have_a_schema_and_a_plan() {
    let (messages, status) = collect(TestPipeline::new(0).execute(request()).await.unwrap(), 1_000).await;
    assert!(status.is_none());
    assert_eq!(messages.len(), 2);
    assert_eq!(Schema::try_from(&messages[0]).unwrap(), *TestPipeline::schema());
}

/// Rows don't wait for an end that takes long, which then comes by itself.
#[tokio::test]
async fn rows_come_before_a_late_end() {
    let (sender, events) = futures::channel::mpsc::unbounded();
    let schema = TestPipeline::schema();
    let columns: Vec<ArrayRef> =
        vec![Arc::new(arrow::array::Int64Array::from(vec![1])), Arc::new(StringArray::from(vec!["a"]))];
    let rows = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    sender.unbounded_send(Ok(QueryEvent::Batch(rows))).unwrap();
    let mut stream = of_query(QueryStream { schema, events: events.boxed() }, id(), 1_000);
    for _ in ["schema", "rows"] {
        assert!(stream.next().await.unwrap().unwrap().app_metadata.is_empty());
    }
    sender.unbounded_send(Ok(QueryEvent::End(Arc::new(serde_json::json!({"late": true}))))).unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().app_metadata, r#"{"late":true}"#);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn dictionaries_are_sent_as_plain_values() {
    let values: DictionaryArray<Int8Type> = vec!["AA", "UA", "AA"].into_iter().collect();
    let batch = RecordBatch::try_from_iter_with_nullable([("c", Arc::new(values) as ArrayRef, true)]).unwrap();
    let end = QueryEvent::End(Arc::new(serde_json::json!({})));
    let (messages, _) = collect(query(&batch.schema(), vec![Ok(QueryEvent::Batch(batch)), Ok(end)]), 1_000).await;
    let batches = flight_data_to_batches(&messages).unwrap();
    assert_eq!(batches[0].schema().field(0).data_type(), &DataType::Utf8);
    let expected: ArrayRef = Arc::new(StringArray::from(vec!["AA", "UA", "AA"]));
    assert_eq!(batches[0].column(0), &expected);
}

#[tokio::test]
async fn an_error_ends_the_stream_with_the_query_id() {
    let error = QueryError::new(ErrorKind::Unavailable, "the lake is down");
    let (messages, status) = collect(query(&TestPipeline::schema(), vec![Err(error)]), 1_000).await;
    assert_eq!(messages.len(), 1);
    let status = status.unwrap();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert_eq!(status.message(), "the lake is down\n(query id q)");
}

#[tokio::test]
async fn a_result_without_its_end_is_an_error() {
    let (_, status) = collect(query(&TestPipeline::schema(), vec![]), 1_000).await;
    assert_eq!(status.unwrap().code(), tonic::Code::Internal);
}

#[tokio::test]
async fn dropping_the_stream_drops_the_query() {
    let pipeline = TestPipeline::endless(10);
    let mut stream = of_query(pipeline.execute(request()).await.unwrap(), id(), 1_000);
    assert!(stream.next().await.unwrap().is_ok());
    assert!(stream.next().await.unwrap().is_ok());
    assert!(!pipeline.dropped.load(Ordering::SeqCst));
    drop(stream);
    assert!(pipeline.dropped.load(Ordering::SeqCst));
}
