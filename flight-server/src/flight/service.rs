//! The gRPC service: each RPC is handed to its own file.

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::auth::Incoming;
use super::result_stream::FlightDataStream;
use super::server::FlightSqlServer;
use super::{do_action, do_get, do_put, flight_info, handshake, list_flights};

#[async_trait::async_trait]
impl FlightService for FlightSqlServer {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = FlightDataStream;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        Ok(handshake::handshake(self, request).await?)
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        let context = self.context(Incoming::of(&request)).await?;
        let flights = list_flights::list_flights(self, &context).await?;
        Ok(Response::new(stream::iter(flights.into_iter().map(Ok)).boxed()))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let context = self.context(Incoming::of(&request)).await?;
        let mut response = Response::new(flight_info::get_flight_info(self, &context, request.into_inner()).await?);
        context.renew(response.metadata_mut());
        Ok(response)
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let context = self.context(Incoming::of(&request)).await?;
        Ok(Response::new(flight_info::poll_flight_info(self, &context, request.into_inner()).await?))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let context = self.context(Incoming::of(&request)).await?;
        let mut response = Response::new(flight_info::get_schema(self, &context, &request.into_inner()).await?);
        context.renew(response.metadata_mut());
        Ok(response)
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let context = self.context(Incoming::of(&request)).await?;
        Ok(Response::new(do_get::do_get(self, &context, &request.into_inner()).await?))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let context = self.context(Incoming::of(&request)).await?;
        let result = do_put::do_put(&context, request.into_inner()).await?;
        Ok(Response::new(stream::iter([Ok(result)]).boxed()))
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        self.context(Incoming::of(&request)).await?;
        Err(super::failure::Failure::unsupported("DoExchange is not part of Flight SQL: use GetFlightInfo and DoGet")
            .into())
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let context = self.context(Incoming::of(&request)).await?;
        let mut response = do_action::do_action(self, &context, &request.into_inner()).await?;
        context.renew(response.metadata_mut());
        Ok(response)
    }

    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        self.context(Incoming::of(&request)).await?;
        Ok(Response::new(stream::iter(do_action::list_actions().into_iter().map(Ok)).boxed()))
    }
}

#[cfg(test)]
mod tests;
