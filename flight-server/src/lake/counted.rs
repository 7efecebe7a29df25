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
        let (method, url) = (request.method().clone(), request.uri().to_string());
        let answer = self.client.execute(request).await;
        let status = answer.as_ref().ok().map(|answer| answer.status().as_u16());
        self.requests.count(method.as_str(), &url, status);
        answer
    }
}
