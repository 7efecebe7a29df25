//! The object store's HTTP connection, with its requests counted.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

use crate::s3_requests::S3Requests;

/// Makes connections that count.
#[derive(Debug)]
pub(super) struct CountingConnector(pub(super) Arc<S3Requests>);

#[derive(Debug)]
struct CountingService {
    client: HttpClient,
    requests: Arc<S3Requests>,
}

impl HttpConnector for CountingConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(CountingService { client, requests: Arc::clone(&self.0) }))
    }
}

#[async_trait]
impl HttpService for CountingService {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // A request that is given up has reached the store all the same.
        let mut counted = Counted {
            requests: &self.requests,
            method: request.method().to_string(),
            url: request.uri().to_string(),
            status: None,
        };
        let answer = self.client.execute(request).await;
        counted.status = answer.as_ref().ok().map(|answer| answer.status().as_u16());
        answer
    }
}

/// A request that is counted when this is dropped.
struct Counted<'r> {
    requests: &'r S3Requests,
    method: String,
    url: String,
    /// Of the answer, when there was one.
    status: Option<u16>,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.requests.count(&self.method, &self.url, self.status);
    }
}
