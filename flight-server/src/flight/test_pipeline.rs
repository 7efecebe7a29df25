//! A pipeline in memory, for the tests of the wire.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use serde_json::json;
use translator::catalog::Catalog;
use translator::options::QueryOptions;

use crate::access::Caller;
use crate::query::{
    CancelOutcome, ErrorKind, PlannedQuery, PreparedQuery, QueryError, QueryEvent, QueryPipeline, QueryRequest,
    QueryStream, SqlVocabulary,
};

const CATALOG: &str = r#"
[[entity]]
name = "flights"
schema_id = 100
description = "Departures"

[[entity.attribute]]
name = "carrier"
type = "text"
column = "text_01"
description = "Two letters"

[[entity.attribute]]
name = "fare"
type = "decimal(9,2)"
attr_id = 205

[[entity]]
name = "air_lines"
schema_id = 101

[[entity.attribute]]
name = "name"
type = "text"
column = "text_01"
"#;

/// Answers every statement that contains `FROM` with `rows` rows of (`n` bigint, `text` varchar).
#[derive(Debug)]
pub(super) struct TestPipeline {
    catalog: Arc<Catalog>,
    pub(super) rows: i64,
    pub(super) seen: Mutex<Vec<QueryRequest>>,
    pub(super) cancelled: Mutex<Vec<String>>,
    /// Set when a result stream was dropped.
    pub(super) dropped: Arc<AtomicBool>,
    endless: bool,
}

impl TestPipeline {
    pub(super) fn new(rows: i64) -> Self {
        Self {
            catalog: Arc::new(Catalog::parse(CATALOG).unwrap()),
            rows,
            seen: Mutex::default(),
            cancelled: Mutex::default(),
            dropped: Arc::default(),
            endless: false,
        }
    }

    pub(super) fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true), Field::new("text", DataType::Utf8, true)]))
    }

    /// The stream of a query never ends by itself.
    pub(super) fn endless(rows: i64) -> Self {
        Self { endless: true, ..Self::new(rows) }
    }

    fn entity_schema(&self, sql: &str) -> Option<SchemaRef> {
        let name = sql.strip_prefix("SELECT * FROM \"")?.strip_suffix('"')?;
        let entity = self.catalog.entity(name)?;
        let fields = entity.public_columns().map(|column| {
            let data_type = match entity.duckdb_type(column).as_str() {
                "DECIMAL(9,2)" => DataType::Decimal128(9, 2),
                _ => DataType::Utf8,
            };
            Field::new(entity.column_name(column), data_type, true)
        });
        Some(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
    }

    fn check(sql: &str) -> Result<(), QueryError> {
        if sql.contains("FROM") {
            return Ok(());
        }
        Err(QueryError::new(ErrorKind::InvalidQuery, "no FROM").at(Some(sql.len().saturating_sub(1))))
    }
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl QueryPipeline for TestPipeline {
    fn catalog(&self, _caller: &Caller) -> Arc<Catalog> {
        Arc::clone(&self.catalog)
    }

    fn default_options(&self) -> QueryOptions {
        QueryOptions { max_rows: Some(1_000_000), ..QueryOptions::default() }
    }

    async fn prepare(&self, _caller: &Arc<Caller>, sql: &str) -> Result<PreparedQuery, QueryError> {
        Self::check(sql)?;
        let parameters =
            sql.matches('$').enumerate().map(|(n, _)| Field::new(format!("${}", n + 1), DataType::Utf8, true));
        Ok(PreparedQuery {
            schema: self.entity_schema(sql).unwrap_or_else(Self::schema),
            parameters: Arc::new(Schema::new(parameters.collect::<Vec<_>>())),
        })
    }

    async fn plan(&self, request: QueryRequest) -> Result<PlannedQuery, QueryError> {
        Self::check(&request.sql)?;
        let plan = Arc::new(json!({"version": 1, "query_id": request.query_id}));
        let schema = self.entity_schema(&request.sql).unwrap_or_else(Self::schema);
        self.seen.lock().unwrap().push(request);
        Ok(PlannedQuery { schema, plan, estimated_rows: self.rows })
    }

    async fn execute(&self, request: QueryRequest) -> Result<QueryStream, QueryError> {
        Self::check(&request.sql)?;
        let end = json!({"version": 1, "query_id": request.query_id, "execution": {"rows": self.rows}});
        self.seen.lock().unwrap().push(request);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(0..self.rows)),
            Arc::new(StringArray::from_iter_values((0..self.rows).map(|n| "x".repeat(n as usize % 50)))),
        ];
        let batch = RecordBatch::try_new(Self::schema(), columns).unwrap();
        let guard = SetOnDrop(Arc::clone(&self.dropped));
        let events = futures::stream::iter([Ok(QueryEvent::Batch(batch)), Ok(QueryEvent::End(Arc::new(end)))]);
        let events =
            if self.endless { events.take(1).chain(futures::stream::pending()).boxed() } else { events.boxed() };
        let events = events.map(move |event| {
            let _held = &guard;
            event
        });
        Ok(QueryStream { schema: Self::schema(), events: events.boxed() })
    }

    fn cancel(&self, _caller: &Caller, query_id: &str) -> CancelOutcome {
        self.cancelled.lock().unwrap().push(query_id.to_owned());
        if self.seen.lock().unwrap().iter().any(|request| request.query_id == query_id) {
            CancelOutcome::Cancelled
        } else {
            CancelOutcome::NotFound
        }
    }

    fn sql_vocabulary(&self) -> Arc<SqlVocabulary> {
        Arc::new(SqlVocabulary {
            keywords: vec!["QUALIFY".to_owned()],
            numeric_functions: vec!["abs".to_owned()],
            ..SqlVocabulary::default()
        })
    }
}

/// A small generator, the same in every run.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.next() as u8
    }
}
