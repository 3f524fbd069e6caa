//! konnectivity's gRPC frontend: `ProxyService.Proxy` over HTTP/2, for Go's client library and kube-apiserver.
//!
//! ```text
//! connection (HTTP/2) ─► stream: packets ─► requests (protocol) ─► Proxy::open ─► relay between `ends`
//!                                   responses ◄───────────────────────────────────────────┘
//! ```
//!
//! HTTP/2's windows are the only back-pressure: a stream reads its client's frames when the tunnel takes bytes, and the tunnel
//! when the client's window has room. hyper's HTTP/2 server is the one that the API has; gRPC adds five bytes to a message and
//! two trailers, which is less than what a gRPC framework would add to the build.

mod authority;
mod ends;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod hpack;
mod packet;
mod packets;
mod protocol;
mod request_stream;
mod responses;
mod stream;

use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use crate::{
    api::http_port::Tracked,
    frontend::client::{Client, Peer},
    metrics::Frontend,
    outcome::Outcome,
    proxy::Proxy,
    proxy::caller::PresentedCredentials,
    proxy::record::Record,
};

use authority::Authorities;
use request_stream::RequestStream;
use responses::{Code, ResponseBody, Status};
use stream::{ProxyStream, RequestContext};

/// The one method. The protocol's package has no name.
const PATH: &str = "/ProxyService/Proxy";

/// What a client may have sent on a stream and nobody has taken: as much as a TCP socket would hold.
const STREAM_WINDOW: u32 = 256 * 1024;

/// Streams at a time on one connection, more than a user's connections may be.
const STREAMS: u32 = 8191;

/// Room for all of a connection's streams at once: one that is stalled takes nothing from the others.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS;

/// Streams that a client may open and reset before they are looked at; more end its connection. Dials are cancelled in bursts.
const PENDING_RESETS: usize = 8192;

/// Streams at a time, of all connections, whose caller is nobody, and is told so in answer to the first packet: each may hold a
/// window until that has come.
const STRANGERS: usize = 64;

/// Longest fields of a request, together.
const FIELDS: u32 = 16 * 1024;

/// How long a connection may be silent before it is asked whether anybody is there, and how long that may take.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a connection that is to end may take when its last stream has ended.
const GOODBYE: Duration = Duration::from_secs(2);

/// After how long without a stream a connection is let go; gRPC's clients make another when they need it.
const IDLE: Duration = Duration::from_secs(30 * 60);

/// What serves the connections.
#[derive(Debug)]
pub(crate) struct Konnectivity {
    proxy: Arc<Proxy>,
    head_timeout: Duration,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// The number of the next connection. Go's client knows connections by it, so that it is never given twice.
    next: AtomicI64,
    strangers: Arc<Semaphore>,
}

/// One connection of a client.
#[derive(Debug)]
struct Session {
    konnectivity: Arc<Konnectivity>,
    peer: Peer,
    presented: PresentedCredentials,
    /// Streams of somebody so far.
    opened: AtomicUsize,
    /// Streams at present.
    open: TaskTracker,
}

impl Konnectivity {
    pub(crate) fn new(
        proxy: Arc<Proxy>,
        head_timeout: Duration,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            proxy,
            head_timeout,
            tasks,
            stop,
            next: AtomicI64::new(1),
            strangers: Arc::new(Semaphore::new(STRANGERS)),
        })
    }

    /// Serves a client that has begun with HTTP/2's preface, until it is done; on `stop`, until its streams are.
    pub(crate) async fn serve(self: Arc<Self>, client: Client, peer: Peer, presented: PresentedCredentials) {
        match peer {
            Peer::Unix(_) => self.serve_http2(Authorities::new(client), peer, presented).await,
            Peer::Tcp(_) => self.serve_http2(client, peer, presented).await,
        }
    }

    async fn serve_http2(
        self: Arc<Self>,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        presented: PresentedCredentials,
    ) {
        let (stop, head_timeout) = (self.stop.clone(), self.head_timeout);
        let mut builder = http2::Builder::new(Tracked(self.tasks.clone()));
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        builder.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        builder.max_concurrent_streams(STREAMS).max_pending_accept_reset_streams(PENDING_RESETS);
        builder.max_header_list_size(FIELDS);
        // Bytes that come for streams that have ended are no offence: a thousand uploads may end at once. What a reset stream
        // has begun ends with it, so that nothing piles up behind resets.
        builder.max_local_error_reset_streams(None);
        let session = Arc::new(Session {
            konnectivity: self,
            peer,
            presented,
            opened: AtomicUsize::new(0),
            open: TaskTracker::new(),
        });
        let (serving, idle) = (session.clone(), session.idle(head_timeout));
        let service = service_fn(move |request| {
            let answer = serving.answer(request);
            async move { Ok::<_, Infallible>(answer) }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = async { tokio::select! { () = stop.cancelled() => {}, () = idle => {} } } => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    served = connection => served,
                    // A client that does not answer is not waited for.
                    () = session.last_stream() => Ok(()),
                }
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "client connection failed");
        }
    }
}

impl Session {
    /// Resolves when the client has had no stream for long, or, while it is nobody, soon.
    fn idle(self: &Arc<Self>, first: Duration) -> impl Future<Output = ()> + Send + 'static {
        let session = self.clone();
        async move {
            let (mut wait, mut before) = (first, 0);
            loop {
                tokio::time::sleep(wait).await;
                let opened = session.opened.load(Ordering::Relaxed);
                if opened == before && session.open.is_empty() {
                    return;
                }
                (wait, before) = (if opened == 0 { first } else { IDLE }, opened);
            }
        }
    }

    /// Resolves when there has been time to leave after the last stream.
    async fn last_stream(&self) {
        self.open.close();
        self.open.wait().await;
        tokio::time::sleep(GOODBYE).await;
    }

    fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Response<ResponseBody> {
        let mut record = self.konnectivity.proxy.recorder.connection(Frontend::Konnectivity, self.peer);
        let grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
        if !request.headers().get(header::CONTENT_TYPE).is_some_and(grpc) {
            record.refuse(Outcome::Malformed);
            let sentence = "over HTTP/2 this port speaks gRPC only; use HTTP/1.1 for CONNECT and http:// targets";
            let mut response = Response::new(ResponseBody::Text(sentence));
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return response;
        }
        if request.method() != Method::POST || request.uri().path() != PATH {
            record.refuse(Outcome::NotSupported);
            let sentence = "this port serves konnectivity's /ProxyService/Proxy only";
            return response(ResponseBody::Ended, Some(&Status::of(Code::Unimplemented, &sentence)));
        }
        match self.asker(&request, &mut record) {
            Ok((asker, stranger)) => self.open(request, asker, record, stranger),
            Err(status) => response(ResponseBody::Ended, Some(&status)),
        }
    }

    /// Who asks. Nobody is told so in a DIAL_RSP, which is what Go's client shows, but not in any number at a time.
    fn asker(
        &self,
        request: &Request<Incoming>,
        record: &mut Record,
    ) -> Result<(RequestContext, Option<OwnedSemaphorePermit>), Status> {
        let authorization = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let presented = self.presented.clone().with_authorization(authorization);
        let caller = presented.as_ref().map_err(Clone::clone);
        let caller = caller.and_then(|presented| self.konnectivity.proxy.authenticate(presented));
        let stranger = match &caller {
            Ok(_) => {
                self.opened.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(error) => {
                let permit = self.konnectivity.strangers.clone().try_acquire_owned();
                Some(permit.map_err(|_| {
                    record.refuse(error.outcome());
                    Status::of(Code::Unauthenticated, error)
                })?)
            }
        };
        let (proxy_user, listener) =
            presented.map(|presented| (presented.credentials.name, presented.cluster)).unwrap_or_default();
        Ok((RequestContext { caller, proxy_user, listener }, stranger))
    }

    fn open(
        self: &Arc<Self>,
        request: Request<Incoming>,
        asker: RequestContext,
        record: Record,
        stranger: Option<OwnedSemaphorePermit>,
    ) -> Response<ResponseBody> {
        let (responses, body) = responses::pair();
        let Konnectivity { proxy, head_timeout, tasks, next, .. } = &*self.konnectivity;
        let stream = ProxyStream {
            proxy: proxy.clone(),
            asker,
            record,
            requests: RequestStream::new(request.into_body()),
            responses,
            connect_id: next.fetch_add(1, Ordering::Relaxed),
            head_timeout: *head_timeout,
        };
        let open = self.open.token();
        let serving = async move {
            stream.serve().await;
            drop((open, stranger));
        };
        tasks.spawn(serving.in_current_span());
        response(body, None)
    }
}

/// gRPC's response; with a status, that is all of it.
fn response(body: ResponseBody, status: Option<&Status>) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    if let Some(status) = status {
        *response.headers_mut() = status.fields();
    }
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
