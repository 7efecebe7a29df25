//! A bare Flight server that sends batches from memory: what the protocol itself costs.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use thermocline_tests::supervise::{Supervise, Supervised};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use crate::duck;

/// DuckDB's chunks are joined to batches of about this size.
const BATCH_BYTES: usize = 2 * 1024 * 1024;

#[derive(Debug)]
struct FromMemory {
    batches: Arc<Vec<RecordBatch>>,
}

type Answer<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("only DoGet is served"))
}

#[tonic::async_trait]
impl FlightService for FromMemory {
    type HandshakeStream = Answer<HandshakeResponse>;
    type ListFlightsStream = Answer<FlightInfo>;
    type DoGetStream = Answer<FlightData>;
    type DoPutStream = Answer<PutResult>;
    type DoActionStream = Answer<arrow_flight::Result>;
    type ListActionsStream = Answer<ActionType>;
    type DoExchangeStream = Answer<FlightData>;

    async fn do_get(&self, _: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let batches = Arc::clone(&self.batches);
        let batches = stream::iter((0..batches.len()).map(move |index| Ok::<_, FlightError>(batches[index].clone())));
        let encoded = FlightDataEncoderBuilder::new().with_max_flight_data_size(BATCH_BYTES).build(batches);
        Ok(Response::new(encoded.map_err(Status::from).boxed()))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        not_here()
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        not_here()
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        not_here()
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        not_here()
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        not_here()
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        not_here()
    }

    async fn do_action(&self, _: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        not_here()
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        not_here()
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        not_here()
    }
}

/// Loads the batches of a statement and serves them until the process is ended.
pub(crate) async fn serve(sql: &str) -> Result<()> {
    let batches = load(sql)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    tonic::transport::Server::builder()
        .add_service(FlightServiceServer::new(FromMemory { batches: Arc::new(batches) }))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await?;
    Ok(())
}

fn load(sql: &str) -> Result<Vec<RecordBatch>> {
    let connection = duck::open()?;
    let mut statement = connection.prepare(sql)?;
    let (mut joined, mut parts, mut bytes) = (Vec::new(), Vec::new(), 0);
    let join = |parts: &mut Vec<RecordBatch>| -> Result<Option<RecordBatch>> {
        let Some(first) = parts.first() else { return Ok(None) };
        let batch = concat_batches(&first.schema(), parts.iter())?;
        parts.clear();
        Ok(Some(batch))
    };
    for batch in statement.stream_arrow([])? {
        bytes += batch.get_array_memory_size();
        parts.push(batch);
        if bytes >= BATCH_BYTES {
            joined.extend(join(&mut parts)?);
            bytes = 0;
        }
    }
    joined.extend(join(&mut parts)?);
    Ok(joined)
}

/// A running server in a process of its own.
#[derive(Debug)]
pub(crate) struct MemoryServer {
    client: FlightServiceClient<tonic::transport::Channel>,
    _server: Supervised,
}

impl MemoryServer {
    pub(crate) async fn start(sql: &str) -> Result<Self> {
        let mut server = Supervise::new(std::env::current_exe()?);
        server.args = vec!["serve-memory".to_owned(), sql.to_owned()];
        let server = tokio::task::spawn_blocking(move || server.spawn()).await??;
        let (server, address) = tokio::task::spawn_blocking(move || {
            let address = server.next_line(Duration::from_secs(120));
            (server, address)
        })
        .await?;
        let address = address.context("the Flight server from memory did not start")?;
        let channel = tonic::transport::Channel::from_shared(format!("http://{address}"))?.connect().await?;
        let client = FlightServiceClient::new(channel).max_decoding_message_size(16 * 1024 * 1024);
        Ok(Self { client, _server: server })
    }

    /// Reads everything once.
    pub(crate) async fn read(&self) -> Result<duck::Run> {
        let started = Instant::now();
        let messages = self.client.clone().do_get(Ticket::default()).await?.into_inner();
        let mut batches = FlightRecordBatchStream::new_from_flight_data(messages.map_err(FlightError::from));
        let (mut rows, mut bytes) = (0, 0);
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            rows += batch.num_rows() as u64;
            bytes += duck::bytes_of(&batch);
        }
        Ok(duck::Run { elapsed: started.elapsed(), rows, bytes })
    }
}
