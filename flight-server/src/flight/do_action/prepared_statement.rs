//! CreatePreparedStatement: binds the statement against empty local tables; nothing is kept for it.

use arrow_flight::sql::{ActionCreatePreparedStatementResult, ProstMessageExt};
use bytes::Bytes;
use prost::Message;
use uuid::Uuid;

use crate::flight::context::CallContext;
use crate::flight::failure::{Failure, Outcome};
use crate::flight::handle::PreparedHandle;
use crate::flight::server::FlightSqlServer;
use crate::flight::wire_schema;

pub(super) async fn create(server: &FlightSqlServer, call: &CallContext, sql: String) -> Outcome<Bytes> {
    let query_id = Uuid::now_v7().to_string();
    let prepared = server.pipeline.prepare(&call.caller, &sql).await;
    let prepared = prepared.map_err(|error| Failure::of_query(error, &query_id, &sql))?;
    let handle = PreparedHandle { sql, parameters: None, call_options: call.call_options.clone() };
    let result = ActionCreatePreparedStatementResult {
        prepared_statement_handle: handle.encode(&call.seal)?,
        dataset_schema: wire_schema::to_ipc(&wire_schema::plain(&prepared.schema))?,
        // A schema without fields says that there are no parameters; no bytes would say that none are known.
        parameter_schema: wire_schema::to_ipc(&prepared.parameters)?,
    };
    Ok(result.as_any().encode_to_vec().into())
}
