//! The object store behind a lake URL.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use super::counted::CountingConnector;
use super::error::{LakeError, LakeErrorKind};
use crate::config::{LakeConfig, LakeUrl, S3Config, Secret};
use crate::s3_requests::S3Requests;

/// What DuckDB needs for a secret of type S3. Credentials are those of this moment.
#[derive(Debug, Clone)]
pub struct S3Credentials {
    pub key_id: String,
    pub secret: Secret<String>,
    pub session_token: Option<Secret<String>>,
    pub region: String,
    /// Host and port without scheme; `None` is AWS itself.
    pub endpoint: Option<String>,
    pub path_style: bool,
    pub use_ssl: bool,
}

/// An object store and the place of the lake's root in it.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) root: Path,
    pub(super) s3: Option<S3Store>,
    /// What was asked of S3; a local lake asks nothing.
    pub(super) requests: Arc<S3Requests>,
}

#[derive(Debug, Clone)]
pub(super) struct S3Store {
    store: Arc<AmazonS3>,
    region: String,
    endpoint: Option<url::Url>,
    path_style: bool,
}

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A query waits for the store; it is better off with an error it can act upon than with minutes of silence.
const RETRY_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_RETRIES: usize = 3;

impl Store {
    pub(super) fn open(config: &LakeConfig) -> Result<Self, LakeError> {
        let requests = Arc::new(S3Requests::default());
        match &config.url {
            LakeUrl::Local(directory) => {
                let root = Path::from_absolute_path(directory).map_err(|error| {
                    LakeError::new(LakeErrorKind::Misconfigured, format!("lake {}: not a usable path", config.url))
                        .with_source(error)
                })?;
                // Rooted at `/`, because a missing directory is a lake that is down, not a server that can't start.
                Ok(Self { objects: Arc::new(LocalFileSystem::new()), root, s3: None, requests })
            }
            LakeUrl::S3 { bucket, prefix } => {
                let s3 = S3Store::open(&config.s3, bucket, &requests).map_err(|error| {
                    LakeError::new(LakeErrorKind::Misconfigured, format!("lake {}: cannot be set up", config.url))
                        .with_source(error)
                })?;
                let root = Path::parse(prefix).map_err(|error| {
                    LakeError::new(LakeErrorKind::Misconfigured, format!("lake {}: not a usable prefix", config.url))
                        .with_source(error)
                })?;
                let objects: Arc<dyn ObjectStore> = Arc::clone(&s3.store) as Arc<dyn ObjectStore>;
                Ok(Self { objects, root, s3: Some(s3), requests })
            }
        }
    }
}

impl S3Store {
    fn open(config: &S3Config, bucket: &str, requests: &Arc<S3Requests>) -> Result<Self, object_store::Error> {
        let retry =
            RetryConfig { max_retries: MAX_RETRIES, retry_timeout: RETRY_TIMEOUT, backoff: BackoffConfig::default() };
        let environment = AmazonS3Builder::from_env();
        let from_environment = |key| environment.get_config_value(&key);
        let region = config.region.clone().or_else(|| from_environment(AmazonS3ConfigKey::Region));
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        let endpoint = config.endpoint.clone().or_else(|| from_environment(AmazonS3ConfigKey::Endpoint));
        let endpoint = endpoint.and_then(|endpoint| url::Url::parse(&endpoint).ok());
        let mut builder = match (&config.access_key_id, &config.secret_access_key) {
            // Nothing of the environment here: a token found there belongs to other keys.
            (Some(key_id), Some(secret)) => {
                let builder = AmazonS3Builder::new().with_access_key_id(key_id).with_secret_access_key(secret.expose());
                match &config.session_token {
                    Some(token) => builder.with_token(token.expose()),
                    None => builder,
                }
            }
            _ => environment,
        };
        builder = builder.with_bucket_name(bucket).with_region(&region).with_retry(retry);
        builder = builder.with_http_connector(CountingConnector(Arc::clone(requests)));
        if let Some(endpoint) = &endpoint {
            builder = builder.with_endpoint(bucket_endpoint(endpoint, bucket, config.path_style));
        }
        let allow_http = config.allow_http || endpoint.as_ref().is_some_and(|endpoint| endpoint.scheme() == "http");
        let client = ClientOptions::new()
            .with_timeout(REQUEST_TIMEOUT)
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_allow_http(allow_http);
        let store =
            builder.with_client_options(client).with_virtual_hosted_style_request(!config.path_style).build()?;
        let store = Arc::new(store);
        Ok(Self { store, region, endpoint, path_style: config.path_style })
    }

    pub(super) fn store(&self) -> Arc<AmazonS3> {
        Arc::clone(&self.store)
    }

    pub(super) async fn credentials(&self) -> Result<S3Credentials, object_store::Error> {
        let credential = self.store.credentials().get_credential().await?;
        let endpoint = self.endpoint.as_ref().and_then(|endpoint| {
            let host = endpoint.host_str()?;
            Some(endpoint.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
        });
        Ok(S3Credentials {
            key_id: credential.key_id.clone(),
            secret: Secret::new(credential.secret_key.clone()),
            session_token: credential.token.clone().filter(|token| !token.is_empty()).map(Secret::new),
            region: self.region.clone(),
            endpoint,
            path_style: self.path_style,
            use_ssl: self.endpoint.as_ref().is_none_or(|endpoint| endpoint.scheme() == "https"),
        })
    }
}

/// The endpoint as object_store wants it: with the bucket in its host when requests are virtual-hosted.
fn bucket_endpoint(endpoint: &url::Url, bucket: &str, path_style: bool) -> String {
    let text = endpoint.as_str().trim_end_matches('/');
    match text.split_once("://") {
        Some((scheme, rest)) if !path_style => format!("{scheme}://{bucket}.{rest}"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> LakeConfig {
        let text = format!("[postgres]\nurl = \"postgresql://h/d\"\n[lake]\nurl = \"s3://bucket/some/prefix\"\n{text}");
        crate::config::Config::parse(&text, std::path::Path::new("t.toml"), []).unwrap().lake
    }

    #[tokio::test]
    async fn credentials_are_those_of_the_configuration() {
        let lake = config(
            "[lake.s3]\nendpoint = \"http://127.0.0.1:9000\"\nallow_http = true\nregion = \"eu-central-2\"\n\
             access_key_id = \"id\"\nsecret_access_key = \"key\"\n",
        );
        let store = Store::open(&lake).unwrap();
        assert_eq!(store.root.as_ref(), "some/prefix");
        let credentials = store.s3.unwrap().credentials().await.unwrap();
        assert_eq!((credentials.key_id.as_str(), credentials.secret.expose().as_str()), ("id", "key"));
        assert_eq!(credentials.endpoint.as_deref(), Some("127.0.0.1:9000"));
        assert_eq!(credentials.region, "eu-central-2");
        assert!(credentials.session_token.is_none() && credentials.path_style && !credentials.use_ssl);
        assert!(!format!("{credentials:?}").contains("key\""));
    }

    #[test]
    fn the_bucket_goes_into_the_host_of_virtual_hosted_requests() {
        let endpoint = url::Url::parse("https://s3.example.com:9000/").unwrap();
        assert_eq!(bucket_endpoint(&endpoint, "b", false), "https://b.s3.example.com:9000");
        assert_eq!(bucket_endpoint(&endpoint, "b", true), "https://s3.example.com:9000");
    }
}
