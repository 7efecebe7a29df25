//! The wire: Arrow Flight SQL over gRPC. Knows nothing of DuckDB, PostgreSQL or the lake; it speaks to the query
//! pipeline through [`QueryPipeline`] alone.
//!
//! A query is two calls. All that the second needs travels in the ticket, so any replica can answer it:
//!
//! ```text
//! client                                        server
//!   │ GetFlightInfo(CommandStatementQuery)        │
//!   ├────────────────────────────────────────────▶│ headers → CallContext, descriptor → FlightSqlCommand, plan
//!   │◀────────────────────────────────────────────┤ FlightInfo { schema, ticket, app_metadata: plan }
//!   │ DoGet(ticket)                               │
//!   ├────────────────────────────────────────────▶│ ticket → SQL, parameters, options, query id; plan again, execute
//!   │◀────────────────────────────────────────────┤ schema, batches of about 2 MB, …
//!   │◀────────────────────────────────────────────┤ the last rows, with app_metadata: plan with `execution`
//! ```
//!
//! A prepared statement is three, and its handle holds the statement itself:
//!
//! ```text
//!   CreatePreparedStatement(sql)      → handle { sql }, result schema, parameter schema
//!   DoPut(handle, one row)            → handle { sql, parameters }
//!   GetFlightInfo(handle) and DoGet   → as above
//! ```

mod auth;
mod command;
mod context;
mod do_action;
mod do_get;
mod do_put;
mod entity_schemas;
mod failure;
mod flight_info;
mod handle;
mod handle_seal;
mod handshake;
mod list_flights;
mod metadata;
mod parameters;
mod reflection;
mod result_stream;
mod server;
mod service;
mod session;
mod split;
mod status;
mod table_path;
#[cfg(test)]
mod test_pipeline;
mod wire_schema;

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use tonic::codec::CompressionEncoding;

use crate::access::Logins;
use crate::query::QueryPipeline;

pub(crate) use reflection::file_descriptors;
pub use server::FlightSqlServer;

/// Settings of the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlightSettings {
    /// Greatest message the server reads or writes, in bytes. Batches stay far below it; a single very wide row may not.
    pub max_message_bytes: usize,
    /// About the size of one message of a result, in bytes; a single row larger than that is a message of its own.
    pub target_batch_bytes: usize,
    /// Sessions held at most.
    pub max_sessions: usize,
    /// A session unused for this long is forgotten.
    pub session_idle: Duration,
}

impl Default for FlightSettings {
    fn default() -> Self {
        Self {
            max_message_bytes: 256 * 1024 * 1024,
            // gRPC clients refuse messages above 4 MB by default; encoding adds a little to what a batch holds.
            target_batch_bytes: 2 * 1024 * 1024,
            max_sessions: 10_000,
            session_idle: Duration::from_secs(30 * 60),
        }
    }
}

/// The Flight SQL service over `pipeline`, ready to be added to a tonic router. Without logins everybody may come in.
pub(crate) fn service(
    pipeline: Arc<dyn QueryPipeline>,
    logins: Option<Arc<Logins>>,
    settings: FlightSettings,
) -> FlightServiceServer<FlightSqlServer> {
    let max_message_bytes = settings.max_message_bytes;
    FlightServiceServer::new(FlightSqlServer::new(pipeline, logins, settings))
        // Some clients compress what they send. Answers go as they are: batches compress badly, and at a client's cost.
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(max_message_bytes)
        .max_encoding_message_size(max_message_bytes)
}

/// Transport settings that suit Flight: keep-alive on queries that compute for long before their first batch, call
/// headers up to 64 KiB (the service refuses more), and windows that keep a 2 MB message in flight.
pub fn tuned(server: tonic::transport::Server) -> tonic::transport::Server {
    server
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(60)))
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        // Far above the service's own limit: beyond this one the whole connection ends, and its other calls with it.
        .http2_max_header_list_size(Some(512 * 1024))
        .initial_stream_window_size(Some(4 * 1024 * 1024))
        .initial_connection_window_size(Some(16 * 1024 * 1024))
}
