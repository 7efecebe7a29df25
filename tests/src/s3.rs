//! An S3 server in this process, over a temporary directory, that counts requests and injects faults.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Access key of every server.
pub const ACCESS_KEY: &str = "canary-access-key";
/// Secret key of every server: a word that tests look for where it must not appear.
pub const SECRET_KEY: &str = "canary-91c2-s3-secret";
/// Region that the server is asked under.
pub const REGION: &str = "us-east-1";

/// A running S3 server. Dropping it closes the port and removes the data.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    traffic: Arc<Traffic>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    dir: TempDir,
}

/// One request that reached the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Request {
    pub method: String,
    /// Bucket and key, percent-encoded as sent, without the leading slash.
    pub path: String,
    pub query: String,
    pub range: Option<String>,
}

/// What happens to a request instead of the normal answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answer with this HTTP status.
    Status(u16),
    /// Answer normally, but later.
    Delay(Duration),
    /// Send the headers and this many bytes of the body, then cut the connection.
    Truncate(usize),
    /// Cut the connection without an answer.
    Reset,
}

/// Every lake lies under this prefix of its bucket.
pub const LAKE_PREFIX: &str = "lake";

type Matcher = Box<dyn Fn(&S3Request) -> bool + Send>;

struct Rule {
    matcher: Matcher,
    fault: Fault,
    skip: usize,
    times: usize,
}

#[derive(Default)]
struct Traffic {
    requests: Mutex<Vec<S3Request>>,
    rules: Mutex<Vec<Rule>>,
}

impl std::fmt::Debug for Traffic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Traffic").field("requests", &self.requests).finish_non_exhaustive()
    }
}

impl S3Request {
    /// Whether it lists a bucket.
    pub fn is_list(&self) -> bool {
        self.method == "GET" && self.query.contains("list-type")
    }

    /// Whether a server only asks if the lake is there: it lists the root, or reads a file's last four bytes.
    fn is_probe(&self) -> bool {
        let length = || {
            let (first, last) = self.range.as_ref()?.strip_prefix("bytes=")?.split_once('-')?;
            Some(last.parse::<u64>().ok()? - first.parse::<u64>().ok()? + 1)
        };
        let root = format!("prefix={LAKE_PREFIX}%2F");
        if self.is_list() { self.query.split('&').any(|part| part == root) } else { length() == Some(4) }
    }

    /// Whether it reads an object or its head.
    pub fn is_read(&self) -> bool {
        (self.method == "GET" || self.method == "HEAD") && !self.is_list()
    }
}

impl S3Server {
    /// Starts a server on a free port of the loopback interface.
    ///
    /// # Errors
    /// No directory, thread or port can be had.
    pub fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("thermocline-s3-").tempdir()?;
        let files = s3s_fs::FileSystem::new(dir.path()).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let traffic = Arc::new(Traffic::default());
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("s3-server")
            .enable_all()
            .build()?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let seen = Arc::clone(&traffic);
        let thread = std::thread::Builder::new().name("s3-server".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener that was just bound");
                tokio::select! {
                    () = serve(listener, service, seen) => (),
                    _ = stopped => (),
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { address, traffic, stop: Some(stop), thread: Some(thread), dir })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes an empty bucket.
    ///
    /// # Errors
    /// The directory can't be made.
    pub fn create_bucket(&self, bucket: &str) -> Result<()> {
        let dir = self.dir.path().join(bucket);
        std::fs::create_dir(&dir).with_context(|| format!("cannot make the bucket {bucket}"))
    }

    /// Files with parts of uploads that were neither completed nor aborted.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn upload_parts(&self) -> Result<Vec<std::path::PathBuf>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.dir.path())? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(".upload_id-") {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    /// A client of one bucket.
    ///
    /// # Errors
    /// The settings are refused.
    pub fn store(&self, bucket: &str) -> Result<AmazonS3> {
        Ok(AmazonS3Builder::new()
            .with_endpoint(self.endpoint())
            .with_region(REGION)
            .with_bucket_name(bucket)
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
            .with_allow_http(true)
            .with_virtual_hosted_style_request(false)
            .build()?)
    }

    /// The requests that reached the server since [`Self::forget_requests`], oldest first. Leaves out the probes of lakes,
    /// which come whenever they like.
    pub fn requests(&self) -> Vec<S3Request> {
        self.all_requests().into_iter().filter(|request| !request.is_probe()).collect()
    }

    /// The same with probes.
    pub fn all_requests(&self) -> Vec<S3Request> {
        self.traffic.requests.lock().unwrap().clone()
    }

    pub fn forget_requests(&self) {
        self.traffic.requests.lock().unwrap().clear();
    }

    /// Lets `fault` happen to the matching requests after the first `skip` of them, `times` times.
    pub fn inject(
        &self,
        fault: Fault,
        skip: usize,
        times: usize,
        matcher: impl Fn(&S3Request) -> bool + Send + 'static,
    ) {
        self.traffic.rules.lock().unwrap().push(Rule { matcher: Box::new(matcher), fault, skip, times });
    }

    pub fn clear_faults(&self) {
        self.traffic.rules.lock().unwrap().clear();
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take()
            && stop.send(()).is_err()
        {
            eprintln!("the S3 server ended before it was told to");
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the S3 server thread panicked");
        }
    }
}

async fn serve(listener: TcpListener, service: S3Service, traffic: Arc<Traffic>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let (service, traffic) = (service.clone(), Arc::clone(&traffic));
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(&service, &traffic, request));
            // A client that hangs up, or a fault that cuts the connection, ends it with an error.
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), answer).await);
        });
    }
}

async fn answer(
    service: &S3Service,
    traffic: &Traffic,
    request: Request<Incoming>,
) -> std::result::Result<Response<Body>, HttpError> {
    let seen = S3Request {
        method: request.method().to_string(),
        path: request.uri().path().trim_start_matches('/').to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        range: request.headers().get("range").and_then(|range| range.to_str().ok()).map(str::to_owned),
    };
    traffic.requests.lock().unwrap().push(seen.clone());
    let fault = traffic.next_fault(&seen);
    match fault {
        Some(Fault::Status(status)) => {
            let mut response = Response::new(Body::from(error_body(status)));
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return Ok(response);
        }
        Some(Fault::Reset) => return Err(HttpError::new("connection reset by the test".into())),
        Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
        Some(Fault::Truncate(_)) | None => (),
    }
    let is_head = request.method() == Method::HEAD;
    let response = service.call(request.map(Body::from)).await?;
    match fault {
        Some(Fault::Truncate(length)) if !is_head => truncate(response, length).await,
        _ => Ok(response),
    }
}

async fn truncate(response: Response<Body>, length: usize) -> std::result::Result<Response<Body>, HttpError> {
    let (mut parts, body) = response.into_parts();
    let whole = BodyExt::collect(body).await.map_err(HttpError::new)?.to_bytes();
    parts.headers.insert("content-length", whole.len().into());
    let start = whole.slice(..length.min(whole.len()));
    type Item = std::result::Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>;
    let frames = futures::stream::iter([Item::Ok(Frame::data(start))]);
    let cut = futures::stream::once(async {
        // What came so far is sent while this waits for its turn.
        tokio::task::yield_now().await;
        Item::Err("cut by the test".into())
    });
    let body = Body::http_body_unsync(StreamBody::new(frames.chain(cut)));
    Ok(Response::from_parts(parts, body))
}

fn error_body(status: u16) -> String {
    let code = match status {
        400 => "ExpiredToken",
        403 => "AccessDenied",
        404 => "NoSuchKey",
        503 => "SlowDown",
        _ => "InternalError",
    };
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>injected by the test</Message></Error>")
}

impl Traffic {
    fn next_fault(&self, request: &S3Request) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap();
        for rule in rules.iter_mut() {
            if !(rule.matcher)(request) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if rule.times > 0 {
                rule.times -= 1;
                return Some(rule.fault);
            }
        }
        None
    }
}
