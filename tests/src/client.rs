//! Clients of the server: Flight SQL by hand, to see every message, and the official ADBC driver.

use std::collections::HashMap;
use std::path::PathBuf;

use adbc_core::options::{AdbcVersion, OptionDatabase, OptionValue};
use adbc_core::{Connection as _, Database as _, Driver as _, Statement as _};
use adbc_driver_manager::{ManagedConnection, ManagedDriver};
use anyhow::{Context, Result, bail};
use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    Any, CommandPreparedStatementQuery, CommandStatementQuery, ProstMessageExt,
};
use arrow_flight::{Action, FlightData, FlightDescriptor, FlightInfo, IpcMessage, SchemaAsIpc, Ticket};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use serde_json::Value as Json;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

/// A Flight SQL client with its own connection and headers.
#[derive(Debug, Clone)]
pub struct Client {
    flight: FlightServiceClient<Channel>,
    headers: HashMap<String, String>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The schema that GetFlightInfo promised.
    pub info_schema: SchemaRef,
    /// The schema that the stream began with.
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    /// The plan of `FlightInfo.app_metadata`.
    pub plan: Json,
    /// The plan of the stream's last message, with `execution`.
    pub final_plan: Json,
}

/// Which call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    GetFlightInfo,
    DoGet,
    /// After the stream had begun.
    Stream,
    Prepare,
}

/// A failure as the client sees it.
#[derive(Debug, Clone)]
pub struct Failure {
    pub stage: Stage,
    pub code: Code,
    pub message: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} failed with {:?}: {}", self.stage, self.code, self.message)
    }
}

impl std::error::Error for Failure {}

/// A prepared statement as the server describes it.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub handle: Bytes,
    pub schema: Schema,
    pub parameters: Schema,
}

impl Client {
    /// # Errors
    /// The server can't be reached.
    pub async fn connect(endpoint: &str) -> Result<Self> {
        Self::connect_by(Channel::from_shared(endpoint.to_owned())?).await
    }

    /// # Errors
    /// The server can't be reached, or one side doesn't believe the other.
    pub async fn connect_tls(endpoint: &str, tls: ClientTlsConfig) -> Result<Self> {
        Self::connect_by(Channel::from_shared(endpoint.to_owned())?.tls_config(tls)?).await
    }

    async fn connect_by(endpoint: Endpoint) -> Result<Self> {
        let channel = endpoint.connect().await.with_context(|| format!("cannot connect to {}", endpoint.uri()))?;
        let flight = FlightServiceClient::new(channel).max_decoding_message_size(16 * 1024 * 1024);
        Ok(Self { flight, headers: HashMap::new() })
    }

    /// The same connection with one more query option, sent as a header.
    #[must_use]
    pub fn with_option(&self, name: &str, value: &str) -> Self {
        self.with_header(&format!("x-thermocline-{}", name.replace('_', "-")), value)
    }

    /// The same connection with one more header.
    #[must_use]
    pub fn with_header(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.insert(name.to_owned(), value.to_owned());
        client
    }

    /// A request with this client's headers.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        for (name, value) in &self.headers {
            let name: tonic::metadata::MetadataKey<_> = name.parse().expect("a header name");
            request.metadata_mut().insert(name, value.parse().expect("a header value"));
        }
        request
    }

    /// The generated client, for calls that have no helper here.
    pub fn flight(&self) -> FlightServiceClient<Channel> {
        self.flight.clone()
    }

    /// GetFlightInfo of any Flight SQL command.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn info_of(&self, command: &impl ProstMessageExt) -> Result<FlightInfo, Failure> {
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let answer = self.flight().get_flight_info(self.request(descriptor)).await;
        Ok(answer.map_err(|status| Failure::at(Stage::GetFlightInfo, &status))?.into_inner())
    }

    /// GetFlightInfo of a statement.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn info(&self, sql: &str) -> Result<FlightInfo, Failure> {
        self.info_of(&CommandStatementQuery { query: sql.to_owned(), transaction_id: None }).await
    }

    /// DoGet, message by message.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn do_get(&self, ticket: Ticket) -> Result<tonic::Streaming<FlightData>, Failure> {
        let answer = self.flight().do_get(self.request(ticket)).await;
        Ok(answer.map_err(|status| Failure::at(Stage::DoGet, &status))?.into_inner())
    }

    /// Runs a statement and collects its answer.
    ///
    /// # Errors
    /// The server refuses or fails, with the stage at which it did.
    pub async fn query(&self, sql: &str) -> Result<Answer, Failure> {
        let info = self.info(sql).await?;
        self.collect(info).await
    }

    /// Runs any Flight SQL command and collects its answer.
    ///
    /// # Errors
    /// The server refuses or fails.
    pub async fn command(&self, command: &impl ProstMessageExt) -> Result<Answer, Failure> {
        let info = self.info_of(command).await?;
        self.collect(info).await
    }

    /// Reads every endpoint of a FlightInfo.
    ///
    /// # Errors
    /// The server refuses or fails.
    pub async fn collect(&self, info: FlightInfo) -> Result<Answer, Failure> {
        let plan = parse_plan(&info.app_metadata)?;
        let info_schema = schema_of(&info)?;
        let mut answer = Answer {
            schema: SchemaRef::clone(&info_schema),
            info_schema,
            batches: Vec::new(),
            plan,
            final_plan: Json::Null,
        };
        let tickets = info.endpoint.into_iter().filter_map(|endpoint| endpoint.ticket);
        for ticket in tickets {
            let stream = self.do_get(ticket).await?;
            let mut stream = FlightDataDecoder::new(stream.map_err(FlightError::from));
            let mut has_schema = false;
            while let Some(message) = stream.next().await {
                let message = message.map_err(|error| Failure::from_flight(Stage::Stream, error))?;
                if !message.inner.app_metadata.is_empty() {
                    answer.final_plan = parse_plan(&message.inner.app_metadata)?;
                }
                match message.payload {
                    DecodedPayload::Schema(schema) => {
                        answer.schema = schema;
                        has_schema = true;
                    }
                    DecodedPayload::RecordBatch(batch) => answer.batches.push(batch),
                    DecodedPayload::None => (),
                }
            }
            if !has_schema {
                return Err(Failure::protocol("the stream had no schema message"));
            }
        }
        Ok(answer)
    }

    /// Runs a statement and hands out the batches as they come, without keeping them.
    ///
    /// # Errors
    /// The server refuses or fails before the first batch.
    pub async fn stream(
        &self,
        sql: &str,
    ) -> Result<impl Stream<Item = Result<RecordBatch, Failure>> + Send + Unpin + use<>, Failure> {
        let info = self.info(sql).await?;
        let ticket = first_ticket(info)?;
        let stream = self.do_get(ticket).await?;
        let decoder = FlightDataDecoder::new(stream.map_err(FlightError::from));
        Ok(decoder.filter_map(|message| {
            let item = match message {
                Ok(message) => match message.payload {
                    DecodedPayload::RecordBatch(batch) => Some(Ok(batch)),
                    DecodedPayload::Schema(_) | DecodedPayload::None => None,
                },
                Err(error) => Some(Err(Failure::from_flight(Stage::Stream, error))),
            };
            std::future::ready(item)
        }))
    }

    /// # Errors
    /// The server refuses.
    pub async fn action(&self, name: &str, body: Bytes) -> Result<Vec<Bytes>, Failure> {
        let action = Action { r#type: name.to_owned(), body };
        let failed = |status: Status| Failure::at(Stage::Prepare, &status);
        let results = self.flight().do_action(self.request(action)).await.map_err(failed)?.into_inner();
        results.map_ok(|result| result.body).try_collect().await.map_err(failed)
    }

    /// # Errors
    /// The server refuses.
    pub async fn prepare(&self, sql: &str) -> Result<Prepared, Failure> {
        let request = ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
        let results = self.action("CreatePreparedStatement", request.as_any().encode_to_vec().into()).await?;
        let body = results.into_iter().next().ok_or_else(|| Failure::protocol("no result of the action"))?;
        let any = Any::decode(body).map_err(|error| Failure::protocol(&error.to_string()))?;
        let result: ActionCreatePreparedStatementResult =
            any.unpack().ok().flatten().ok_or_else(|| Failure::protocol("not a prepared statement"))?;
        Ok(Prepared {
            handle: result.prepared_statement_handle,
            schema: ipc_schema(result.dataset_schema)?,
            parameters: ipc_schema(result.parameter_schema)?,
        })
    }

    /// # Errors
    /// The server refuses or fails.
    pub async fn execute_prepared(&self, handle: &Bytes) -> Result<Answer, Failure> {
        self.command(&CommandPreparedStatementQuery { prepared_statement_handle: handle.clone() }).await
    }

    /// # Errors
    /// The server refuses.
    pub async fn close_prepared(&self, handle: &Bytes) -> Result<(), Failure> {
        let request = ActionClosePreparedStatementRequest { prepared_statement_handle: handle.clone() };
        self.action("ClosePreparedStatement", request.as_any().encode_to_vec().into()).await?;
        Ok(())
    }

    /// The refusal of a statement, which must be one.
    ///
    /// # Panics
    /// The statement is answered.
    pub async fn refusal(&self, sql: &str) -> Failure {
        match self.query(sql).await {
            Ok(answer) => panic!("{sql}\nshould be refused, but has {} rows", answer.row_count()),
            Err(failure) => failure,
        }
    }
}

impl Answer {
    pub fn row_count(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// All rows as text, one line a row, `|` between the columns, NULL as `NULL`: for small expectations.
    pub fn text(&self) -> String {
        let rows = crate::oracle::rows_of(&self.batches);
        let lines: Vec<String> =
            rows.iter().map(|row| row.iter().map(ToString::to_string).collect::<Vec<_>>().join("|")).collect();
        lines.join("\n")
    }

    /// Warnings of the final plan.
    pub fn warnings(&self) -> Vec<String> {
        let warnings = self.final_plan["warnings"].as_array().cloned().unwrap_or_default();
        warnings.iter().map(|warning| warning.as_str().map_or_else(|| warning.to_string(), str::to_owned)).collect()
    }
}

impl Failure {
    fn at(stage: Stage, status: &Status) -> Self {
        Self { stage, code: status.code(), message: status.message().to_owned() }
    }

    fn protocol(message: &str) -> Self {
        Self { stage: Stage::Stream, code: Code::Unknown, message: format!("protocol: {message}") }
    }

    fn from_flight(stage: Stage, error: FlightError) -> Self {
        match error {
            FlightError::Tonic(status) => Self::at(stage, &status),
            other => Self::protocol(&other.to_string()),
        }
    }

    /// Asserts the code and that the message has all these parts, whatever their case.
    ///
    /// # Panics
    /// It hasn't.
    pub fn expect(&self, code: Code, parts: &[&str]) {
        assert_eq!(self.code, code, "{self}");
        let message = self.message.to_lowercase();
        for part in parts {
            assert!(message.contains(&part.to_lowercase()), "{self}\nshould mention `{part}`");
        }
    }
}

/// The first ticket of a FlightInfo.
///
/// # Errors
/// There is none.
pub fn first_ticket(info: FlightInfo) -> Result<Ticket, Failure> {
    let ticket = info.endpoint.into_iter().find_map(|endpoint| endpoint.ticket);
    ticket.ok_or_else(|| Failure::protocol("FlightInfo without a ticket"))
}

fn schema_of(info: &FlightInfo) -> Result<SchemaRef, Failure> {
    let schema = info.clone().try_decode_schema().map_err(|error| Failure::protocol(&error.to_string()))?;
    Ok(SchemaRef::new(schema))
}

fn ipc_schema(message: Bytes) -> Result<Schema, Failure> {
    if message.is_empty() {
        return Ok(Schema::empty());
    }
    Schema::try_from(IpcMessage(message)).map_err(|error| Failure::protocol(&error.to_string()))
}

/// Encodes a schema as Flight does.
///
/// # Errors
/// It can't be encoded.
pub fn encode_schema(schema: &Schema) -> Result<Bytes> {
    let message: IpcMessage = SchemaAsIpc::new(schema, &arrow::ipc::writer::IpcWriteOptions::default()).try_into()?;
    Ok(message.0)
}

fn parse_plan(metadata: &[u8]) -> Result<Json, Failure> {
    if metadata.is_empty() {
        return Ok(Json::Null);
    }
    serde_json::from_slice(metadata).map_err(|error| Failure::protocol(&format!("app_metadata is no JSON: {error}")))
}

/// The official Flight SQL ADBC driver out of the Python environment.
///
/// # Errors
/// The environment isn't set up.
pub fn adbc_driver_path() -> Result<PathBuf> {
    let lib = crate::cache_dir()?.join("python/lib");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&lib).with_context(|| format!("no {}; run `cargo xtask setup`", lib.display()))? {
        let path = entry?.path().join("site-packages/adbc_driver_flightsql/libadbc_driver_flightsql.so");
        if path.is_file() {
            found.push(path);
        }
    }
    found.pop().with_context(|| format!("no adbc_driver_flightsql under {}; run `cargo xtask setup`", lib.display()))
}

/// Connects with the official ADBC driver; options go to the database (`adbc.flight.sql.rpc.call_header.…`).
///
/// # Errors
/// The driver isn't there or can't connect.
pub fn adbc_connect(endpoint: &str, options: &[(&str, &str)]) -> Result<ManagedConnection> {
    let uri = endpoint.replacen("http://", "grpc://", 1);
    let mut driver = ManagedDriver::load_dynamic_from_filename(adbc_driver_path()?, None, AdbcVersion::V110)?;
    let mut all = vec![(OptionDatabase::Uri, OptionValue::String(uri))];
    for (name, value) in options {
        all.push((OptionDatabase::Other((*name).to_owned()), OptionValue::String((*value).to_owned())));
    }
    let database = driver.new_database_with_opts(all)?;
    Ok(database.new_connection()?)
}

/// Runs a statement through ADBC.
///
/// # Errors
/// The server refuses or fails.
pub fn adbc_query(connection: &mut ManagedConnection, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let mut statement = connection.new_statement()?;
    statement.set_sql_query(sql)?;
    let reader = statement.execute()?;
    let schema = reader.schema();
    let mut batches = Vec::new();
    for batch in reader {
        batches.push(batch?);
    }
    if batches.iter().any(|batch| batch.schema() != schema) {
        bail!("a batch has another schema than its reader");
    }
    Ok((schema, batches))
}
