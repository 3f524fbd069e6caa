//! The connections to the spoke's kube-apiserver: HTTP/2, shared by requests; HTTP/1.1 for upgrades, and where it speaks
//! no other.

use std::{
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, Version, header, uri};
use http_body_util::BodyExt;
use hyper::{
    body::{Frame, Incoming, SizeHint},
    client::conn::{http1, http2},
    rt::Executor,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::client::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Body;
use crate::{
    policy::Policy,
    target::Target,
    target::dial::{DialError, Dialer},
    target::service_tls::{self, TlsError},
};

/// How long connecting may take, with the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests at a time on one connection, watches among them. Go's servers allow 250, kube-apiserver since 1.29 100
/// (`--http2-max-streams-per-connection`); one more would wait without a word.
const REQUESTS: usize = 100;

/// What the kube-apiserver may send on one stream before somebody reads, and on all of a connection together: a client
/// that follows a log and does not read must not stop the others.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;

/// A connection that is silent for so long is asked whether anybody is there, and given up when nobody is.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// The kube-apiserver and the connections to it.
#[derive(Debug)]
pub(super) struct Upstream {
    target: Target,
    dialer: Dialer,
    policy: Policy,
    ca: PathBuf,
    shared: Mutex<Vec<Shared>>,
    /// Held while a shared connection is made: a hundred requests that come at once want one.
    connecting: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
    cut: CancellationToken,
}

/// An HTTP/2 connection.
#[derive(Clone, Debug)]
struct Shared {
    sender: http2::SendRequest<Body>,
    room: Arc<Semaphore>,
}

/// A connection for one request.
#[derive(Debug)]
enum Lent {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>, OwnedSemaphorePermit),
}

/// Why the kube-apiserver gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("the kube-apiserver at {0} cannot be reached; check the agent's --kube-api")]
    Dial(Target, #[source] DialError),
    #[error("the TLS handshake with the kube-apiserver at {0} failed; check the agent's --kube-api and --kube-ca")]
    Tls(Target, #[source] TlsError),
    #[error("the kube-apiserver at {0} did not complete the TLS handshake within {limit} s; check its load", limit = CONNECT_TIMEOUT.as_secs())]
    TimedOut(Target),
    #[error("the kube-apiserver at {0} broke off the exchange; look into its log")]
    Broken(Target, #[source] hyper::Error),
    #[error("the request's path cannot be sent on")]
    Path(#[source] http::Error),
}

impl Upstream {
    pub(super) fn new(target: Target, dialer: Dialer, policy: Policy, ca: PathBuf, cut: CancellationToken) -> Self {
        let (shared, connecting) = (Mutex::new(Vec::new()), tokio::sync::Mutex::new(()));
        Self { target, dialer, policy, ca, shared, connecting, tasks: TaskTracker::new(), cut }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Waits until every connection is closed. Only after the cut is there an end to it.
    pub(super) async fn closed(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Sends a request and gives the answer's head as soon as it is there.
    pub(super) async fn send(&self, request: Request<Body>, upgrade: bool) -> Result<Response<Body>, UpstreamError> {
        let mut request = request;
        loop {
            let lent = if upgrade { self.own().await? } else { self.lend().await? };
            let (sent, permit) = match lent {
                Lent::Http1(mut sender) => (sender.try_send_request(self.for_http1(request)?).await, None),
                Lent::Http2(mut sender, permit) => {
                    (sender.try_send_request(self.for_http2(request)?).await, Some(permit))
                }
            };
            match sent {
                Ok(response) => return Ok(response.map(|body| Held { body, _permit: permit }.boxed_unsync())),
                Err(mut error) => match error.take_message() {
                    // The connection ended before the request was on it: the next one is another.
                    Some(unsent) if permit.is_some() => request = unsent,
                    _ => return Err(UpstreamError::Broken(self.target.clone(), error.into_error())),
                },
            }
        }
    }

    /// A place on a shared connection, which is made if there is none.
    async fn lend(&self) -> Result<Lent, UpstreamError> {
        if let Some(lent) = self.free() {
            return Ok(lent);
        }
        let _connecting = self.connecting.lock().await;
        if let Some(lent) = self.free() {
            return Ok(lent);
        }
        let stream = self.connect(&[b"h2", b"http/1.1"]).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return self.http1(stream).await;
        }
        let broken = |error| UpstreamError::Broken(self.target.clone(), error);
        let mut http = http2::Builder::new(Tracked(self.tasks.clone()));
        http.timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE_INTERVAL).keep_alive_timeout(CONNECT_TIMEOUT);
        http.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        let (sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(broken)?;
        self.drive(connection);
        self.shared.lock().push(Shared { sender, room: Arc::new(Semaphore::new(REQUESTS)) });
        // It has just been made, and all others wait for the lock.
        self.free().ok_or_else(|| UpstreamError::TimedOut(self.target.clone()))
    }

    fn free(&self) -> Option<Lent> {
        let mut shared = self.shared.lock();
        shared.retain(|connection| !connection.sender.is_closed());
        shared.iter().find_map(|connection| {
            let permit = connection.room.clone().try_acquire_owned().ok()?;
            Some(Lent::Http2(connection.sender.clone(), permit))
        })
    }

    /// A connection that may be upgraded.
    async fn own(&self) -> Result<Lent, UpstreamError> {
        let stream = self.connect(&[b"http/1.1"]).await?;
        self.http1(stream).await
    }

    async fn http1(&self, stream: TlsStream<TcpStream>) -> Result<Lent, UpstreamError> {
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| UpstreamError::Broken(self.target.clone(), error))?;
        self.drive(connection.with_upgrades());
        Ok(Lent::Http1(sender))
    }

    fn drive(&self, connection: impl Future<Output = hyper::Result<()>> + Send + 'static) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            if let Some(Err(error)) = cut.run_until_cancelled(connection).await {
                tracing::debug!(%error, "a connection to the kube-apiserver broke off");
            }
        });
    }

    async fn connect(&self, protocols: &[&[u8]]) -> Result<TlsStream<TcpStream>, UpstreamError> {
        let target = || self.target.clone();
        let connecting = async {
            let dialled = self.dialer.dial(&self.target, &self.policy, CONNECT_TIMEOUT).await;
            let (tcp, _) = dialled.map_err(|error| UpstreamError::Dial(target(), error))?;
            let tls = service_tls::handshake(tcp, &self.target.host, std::slice::from_ref(&self.ca), protocols).await;
            tls.map_err(|error| UpstreamError::Tls(target(), error))
        };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        connected.unwrap_or_else(|_| Err(UpstreamError::TimedOut(target())))
    }

    /// The path in full, as HTTP/2 has it.
    fn for_http2(&self, mut request: Request<Body>) -> Result<Request<Body>, UpstreamError> {
        let path = request.uri().path_and_query().cloned();
        let full = uri::Builder::new().scheme("https").authority(self.target.to_string());
        let full = full.path_and_query(path.unwrap_or_else(|| uri::PathAndQuery::from_static("/"))).build();
        *request.uri_mut() = full.map_err(UpstreamError::Path)?;
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(header::HOST);
        Ok(request)
    }

    fn for_http1(&self, mut request: Request<Body>) -> Result<Request<Body>, UpstreamError> {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        *request.version_mut() = Version::HTTP_11;
        let host = HeaderValue::try_from(self.target.to_string()).map_err(|error| UpstreamError::Path(error.into()))?;
        request.headers_mut().insert(header::HOST, host);
        Ok(request)
    }
}

/// Lets HTTP/2's work run among the agent's tasks.
#[derive(Clone, Debug)]
struct Tracked(TaskTracker);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tracked {
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// An answer's body, with its place on the connection.
struct Held {
    body: Incoming,
    _permit: Option<OwnedSemaphorePermit>,
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
