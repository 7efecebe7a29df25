//! A thin Flight SQL client.

use anyhow::{Context, anyhow, bail};
use arrow_flight::decode::FlightDataDecoder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::{FlightDescriptor, FlightInfo};
use futures::TryStreamExt;
use prost::Message;
use tonic::Request;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint};

/// Results come in messages of about 2 MB, but a single wide row may be far larger.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024 * 1024;

/// A connection with the query options that go with every call.
#[derive(Debug)]
pub(super) struct Client {
    service: FlightServiceClient<Channel>,
    headers: MetadataMap,
}

impl Client {
    pub(super) async fn connect(server: &str, options: &[(String, String)]) -> anyhow::Result<Self> {
        let headers = option_headers(options)?;
        let endpoint = Endpoint::from_shared(http_uri(server)?)
            .with_context(|| format!("`{server}` is not the address of a server"))?
            .initial_stream_window_size(4 * 1024 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024);
        let channel = endpoint.connect().await.map_err(|error| anyhow!("cannot reach {server}: {}", root(&error)))?;
        let service = FlightServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { service, headers })
    }

    /// Plans a statement without running it.
    pub(super) async fn plan(&mut self, sql: &str) -> anyhow::Result<FlightInfo> {
        let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let request = self.request(descriptor);
        let info = self.service.get_flight_info(request).await.map_err(|status| server_error(&status))?;
        Ok(info.into_inner())
    }

    /// Runs a planned statement.
    pub(super) async fn execute(&mut self, info: FlightInfo) -> anyhow::Result<FlightDataDecoder> {
        let ticket = info.endpoint.into_iter().find_map(|endpoint| endpoint.ticket);
        let Some(ticket) = ticket else { bail!("the server's answer holds no ticket") };
        let request = self.request(ticket);
        let stream = self.service.do_get(request).await.map_err(|status| server_error(&status))?;
        Ok(FlightDataDecoder::new(stream.into_inner().map_err(FlightError::from)))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.headers.clone();
        request
    }
}

/// What went wrong in the middle of a stream.
pub(super) fn readable(error: FlightError) -> anyhow::Error {
    match error {
        FlightError::Tonic(status) => server_error(&status),
        other => anyhow!("the result cannot be read: {other}"),
    }
}

/// The server's own text says all: message, place in the SQL, query id.
fn server_error(status: &tonic::Status) -> anyhow::Error {
    if status.message().is_empty() { anyhow!("{}", status.code()) } else { anyhow!("{}", status.message()) }
}

/// `grpc://` is what Flight clients write; the transport calls it `http://`.
fn http_uri(server: &str) -> anyhow::Result<String> {
    Ok(match server.split_once("://") {
        Some(("grpc" | "grpc+tcp" | "http", address)) => format!("http://{address}"),
        Some((scheme, _)) => bail!("`{scheme}://` is not supported: give the server as grpc://HOST:PORT"),
        None => format!("http://{server}"),
    })
}

fn option_headers(options: &[(String, String)]) -> anyhow::Result<MetadataMap> {
    let mut headers = MetadataMap::new();
    for (name, value) in options {
        let header = format!("x-thermocline-{}", name.replace('_', "-").to_ascii_lowercase());
        let header = AsciiMetadataKey::from_bytes(header.as_bytes())
            .with_context(|| format!("`{name}` cannot be the name of an option"))?;
        let value = AsciiMetadataValue::try_from(value.as_str())
            .with_context(|| format!("`{value}` cannot be the value of an option"))?;
        headers.insert(header, value);
    }
    Ok(headers)
}

/// The innermost cause: `connection refused` rather than `transport error`.
fn root<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(http_uri("grpc://127.0.0.1:32010").unwrap(), "http://127.0.0.1:32010");
        assert_eq!(http_uri("grpc+tcp://[::1]:1").unwrap(), "http://[::1]:1");
        assert_eq!(http_uri("localhost:32010").unwrap(), "http://localhost:32010");
        assert!(http_uri("ftp://localhost").is_err());
    }

    #[test]
    fn options_become_headers() {
        let headers = option_headers(&[("max_rows".to_owned(), "5".to_owned())]).unwrap();
        assert_eq!(headers.get("x-thermocline-max-rows").unwrap(), "5");
        assert!(option_headers(&[("a b".to_owned(), String::new())]).is_err());
    }
}
