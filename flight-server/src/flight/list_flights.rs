//! ListFlights: the tables, for clients that speak plain Flight. Each has a path and a ticket that reads all of it.

use arrow_flight::{FlightDescriptor, FlightInfo};
use uuid::Uuid;

use super::context::CallContext;
use super::failure::Outcome;
use super::flight_info;
use super::handle::StatementHandle;
use super::server::FlightSqlServer;
use super::table_path::{select_table, table_path};
use super::wire_schema;

pub(super) async fn list_flights(server: &FlightSqlServer, call: &CallContext) -> Outcome<Vec<FlightInfo>> {
    let options = call.options(server.pipeline.default_options())?;
    let mut flights = Vec::new();
    for table in server.entity_schemas.all(server.pipeline.as_ref(), &call.caller).await?.iter() {
        let statement = StatementHandle {
            query_id: Uuid::now_v7().to_string(),
            sql: select_table(&table.entity.name),
            parameters: None,
            options: options.clone(),
            schema_digest: wire_schema::digest(&wire_schema::plain(&table.schema))?,
        };
        let info = flight_info::info(&table.schema, flight_info::ticket(&statement, &call.seal)?)?;
        flights.push(info.with_descriptor(FlightDescriptor::new_path(table_path(&table.entity.name))));
    }
    Ok(flights)
}
