//! A thin Flight SQL client.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::{Action, CancelFlightInfoRequest, FlightDescriptor, FlightInfo};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use serde_json::Value;
use tonic::Request;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// Results come in messages of about 2 MB, but a single wide row may be far larger.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024 * 1024;

/// A connection with the query options that go with every call.
#[derive(Debug, Clone)]
pub(super) struct Client {
    service: FlightServiceClient<Channel>,
    headers: MetadataMap,
}

impl Client {
    pub(super) async fn connect(args: &ServerArgs) -> anyhow::Result<Self> {
        let ServerArgs { server, trust, login, options } = args;
        let mut headers = option_headers(options)?;
        if let Some(credentials) = login.header()? {
            headers.insert("authorization", credentials);
        }
        let uri = http_uri(server)?;
        let mut endpoint =
            Endpoint::from_shared(uri.clone()).with_context(|| format!("`{server}` is not the address of a server"))?;
        if uri.starts_with("https:") {
            endpoint = endpoint.tls_config(trust.config()?).context("the TLS files cannot be used")?;
        }
        let endpoint =
            endpoint.initial_stream_window_size(4 * 1024 * 1024).initial_connection_window_size(16 * 1024 * 1024);
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

    /// Runs a planned statement, and hands its schema over, then its rows. Returns the plan with what execution measured.
    ///
    /// # Errors
    /// The server's own text, or the first error of `take`, after which the query is dropped.
    pub(super) async fn run(
        &mut self,
        info: FlightInfo,
        mut take: impl FnMut(Received) -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<Value>> {
        let (mut plan, mut has_schema) = (None, false);
        let mut results = self.execute(info).await?;
        while let Some(message) = results.next().await {
            let message = message.map_err(readable)?;
            if !message.app_metadata().is_empty() {
                plan = Some(plan_of(&message.app_metadata())?);
            }
            match message.payload {
                DecodedPayload::Schema(schema) => {
                    has_schema = true;
                    take(Received::Schema(schema))?;
                }
                DecodedPayload::RecordBatch(_) if !has_schema => bail!("the server sent rows before their schema"),
                DecodedPayload::RecordBatch(batch) if batch.num_rows() > 0 => take(Received::Rows(batch))?,
                DecodedPayload::RecordBatch(_) | DecodedPayload::None => {}
            }
        }
        if !has_schema {
            bail!("the server sent no schema");
        }
        Ok(plan)
    }

    async fn execute(&mut self, info: FlightInfo) -> anyhow::Result<FlightDataDecoder> {
        let ticket = info.endpoint.into_iter().find_map(|endpoint| endpoint.ticket);
        let Some(ticket) = ticket else { bail!("the server's answer holds no ticket") };
        let request = self.request(ticket);
        let stream = self.service.do_get(request).await.map_err(|status| server_error(&status))?;
        Ok(FlightDataDecoder::new(stream.into_inner().map_err(FlightError::from)))
    }

    /// Ends a query that runs.
    pub(super) async fn cancel(&mut self, info: FlightInfo) -> anyhow::Result<()> {
        let body = CancelFlightInfoRequest::new(info).encode_to_vec();
        let request = self.request(Action { r#type: "CancelFlightInfo".to_owned(), body: body.into() });
        let answers = self.service.do_action(request).await.map_err(|status| server_error(&status))?;
        answers.into_inner().try_for_each(|_| std::future::ready(Ok(()))).await.map_err(|status| server_error(&status))
    }

    /// Puts other query options in the place of those before.
    pub(super) fn set_options(&mut self, options: &[(String, String)]) -> anyhow::Result<()> {
        self.headers = option_headers(options)?;
        Ok(())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.headers.clone();
        request
    }
}

/// A part of a result.
#[derive(Debug)]
pub(super) enum Received {
    Schema(SchemaRef),
    /// At least one.
    Rows(RecordBatch),
}

/// What went wrong in the middle of a stream.
fn readable(error: FlightError) -> anyhow::Error {
    match error {
        FlightError::Tonic(status) => server_error(&status),
        other => anyhow!("the result cannot be read: {other}"),
    }
}

/// The server's own text says all: message, place in the SQL, query id.
fn server_error(status: &tonic::Status) -> anyhow::Error {
    if status.message().is_empty() { anyhow!("{}", status.code()) } else { anyhow!("{}", status.message()) }
}

/// The plan in a message of the server.
pub(super) fn plan_of(app_metadata: &[u8]) -> anyhow::Result<Value> {
    serde_json::from_slice(app_metadata).context("the server's plan is not JSON: is it a Thermocline server?")
}

/// Which server is asked, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArgs {
    /// Address of the server.
    #[arg(long, env = "THERMOCLINE_SERVER", default_value = "grpc://127.0.0.1:32010", value_name = "URL")]
    pub server: String,

    #[command(flatten)]
    pub trust: Trust,

    #[command(flatten)]
    pub login: Login,

    /// A query option such as `tiers=hot` or `consistency=eventual`; may be given several times.
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub options: Vec<(String, String)>,
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Who logs in. Secrets come from files or the environment: what stands on a command line, everybody on the machine sees.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Login {
    /// The user; the password is in `--password-file` or `THERMOCLINE_PASSWORD`.
    #[arg(long, env = "THERMOCLINE_USER", value_name = "NAME")]
    pub user: Option<String>,

    /// File with the password of `--user`.
    #[arg(long, requires = "user", value_name = "FILE")]
    pub password_file: Option<PathBuf>,

    /// File with a service key or token, instead of a user; or it is in `THERMOCLINE_TOKEN`.
    #[arg(long, conflicts_with = "user", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

impl Login {
    /// The value of `authorization`; `None`: nobody logs in.
    fn header(&self) -> anyhow::Result<Option<AsciiMetadataValue>> {
        let secret = |file: &Option<PathBuf>, variable: &str| -> anyhow::Result<Option<String>> {
            let text = match file {
                Some(path) => {
                    Some(std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?)
                }
                None => std::env::var(variable).ok(),
            };
            Ok(text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()))
        };
        let text = match &self.user {
            Some(user) => {
                let password = secret(&self.password_file, "THERMOCLINE_PASSWORD")?
                    .with_context(|| format!("no password of {user}: --password-file or THERMOCLINE_PASSWORD"))?;
                format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
            }
            None => match secret(&self.token_file, "THERMOCLINE_TOKEN")? {
                Some(token) => format!("Bearer {token}"),
                None => return Ok(None),
            },
        };
        let mut value = AsciiMetadataValue::try_from(text).context("the credentials are no text of a header")?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Whom the client believes, and what it shows of itself.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Trust {
    /// PEM file with the authorities that the server's certificate is checked by, instead of the system's.
    #[arg(long, env = "THERMOCLINE_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,

    /// PEM file with this client's certificate chain, for a server that asks for one.
    #[arg(long, requires = "tls_key", env = "THERMOCLINE_TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,

    /// PEM file with the key of `--tls-certificate`.
    #[arg(long, requires = "tls_certificate", env = "THERMOCLINE_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
}

impl Trust {
    fn config(&self) -> anyhow::Result<ClientTlsConfig> {
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let mut config = match &self.tls_ca {
            Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let (Some(certificate), Some(key)) = (&self.tls_certificate, &self.tls_key) {
            config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        Ok(config)
    }
}

/// `grpc://` is what Flight clients write; the transport calls it `http://`.
fn http_uri(server: &str) -> anyhow::Result<String> {
    Ok(match server.split_once("://") {
        Some(("grpc" | "grpc+tcp" | "http", address)) => format!("http://{address}"),
        Some(("grpc+tls" | "https", address)) => format!("https://{address}"),
        Some((scheme, _)) => {
            bail!(
                "`{scheme}://` is not supported: give the server as grpc+tls://HOST:PORT, or grpc://HOST:PORT without TLS"
            )
        }
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
        assert_eq!(http_uri("grpc+tls://localhost:1").unwrap(), "https://localhost:1");
        assert!(http_uri("ftp://localhost").is_err());
    }

    #[test]
    fn options_become_headers() {
        let headers = option_headers(&[("max_rows".to_owned(), "5".to_owned())]).unwrap();
        assert_eq!(headers.get("x-thermocline-max-rows").unwrap(), "5");
        assert!(option_headers(&[("a b".to_owned(), String::new())]).is_err());
    }
}
