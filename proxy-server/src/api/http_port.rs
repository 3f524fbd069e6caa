//! An HTTP port for the hub's own pages: accepts, shakes hands where there is TLS, and serves HTTP/1.1 and HTTP/2.

mod socket;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, future::Either, stream};
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tunnel::Delivery;

use crate::{
    flushes::Flushes,
    frontend::client::Peer,
    frontend::handshake_outcome,
    limits::bodies::Room,
    limits::descriptors::{Reserve, TELLING},
    limits::lobby::{Guest, Lobby},
    outcome::Outcome,
    proxy::caller::PresentedCredentials,
    proxy::record::Recorder,
};

use socket::Socket;

/// How long a client that is to leave has for its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// How many are told at a time that there is no room.
const BEYOND: usize = 16;

/// How long a client may take to shake hands, then to ask, and then to take its answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client waits where the port is full, before it is sent away.
const MAKING_ROOM: Duration = Duration::from_millis(50);

/// How long an HTTP/2 connection may be silent before it is asked whether anybody is there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// How long, at the port's end, answers that are under way may take. Watches have no end of their own.
const GOODBYE: Duration = Duration::from_millis(500);

/// Requests at a time on one HTTP/2 connection, watches among them; as kube-apiserver allows.
const REQUESTS: u32 = 1000;

/// The pieces of an answer: one waits in HTTP/2's own memory, whatever its client takes.
const PIECE: usize = 16 * 1024;

/// What one stream of an HTTP/2 client may send before it is read, and all of them together: an upload into a cluster that
/// stands still must not stop the client's other requests.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// A client that is gone without a word is noticed by the kernel.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);

/// The body of an answer. An error breaks it off.
pub(crate) type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// When a connection ends: idle, and in any case.
type Shutdown = (CancellationToken, CancellationToken);

/// Where a request comes from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) peer: SocketAddr,
    /// The leaf of the client's certificate, which TLS has verified.
    pub(crate) certificate: Option<CertificateDer<'static>>,
    guest: Arc<Guest>,
    socket: Socket,
}

impl Origin {
    /// From now on the client may read its answers as slowly as it likes: people pause what they look at.
    pub(crate) fn may_read_slowly(&self) {
        // A socket that takes no option is about to fail anyway.
        let _ = SockRef::from(&self.socket).set_tcp_user_timeout(None);
    }

    /// What is written to the client.
    pub(crate) fn delivery(&self) -> Option<Delivery> {
        self.socket.delivery()
    }

    pub(crate) fn flushes(&self) -> Flushes {
        self.socket.flushes()
    }

    /// What the connection has shown, but for what its requests say.
    pub(crate) fn presented(&self) -> PresentedCredentials {
        let (certificate, guest) = (self.certificate.clone(), Some(self.guest.clone()));
        PresentedCredentials { certificate, guest, ..PresentedCredentials::default() }
    }
}

/// A body that is whole.
pub(crate) fn whole(body: Full<Bytes>) -> Body {
    body.map_err(|never| match never {}).boxed_unsync()
}

/// One that is handed over in pieces, as its client takes them; `room` is its memory, free again when the last piece is taken.
pub(crate) fn held(body: Bytes, room: Room) -> Body {
    let rest = stream::unfold((body, room), |(mut rest, room)| async move {
        let piece = rest.split_to(rest.len().min(PIECE));
        if piece.is_empty() { None } else { Some((piece, (rest, room))) }
    });
    streamed(rest)
}

/// A body that comes piece by piece, for as long as the client listens.
pub(crate) fn streamed(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))).boxed_unsync()
}

/// Lets what HTTP/2 spawns run among tasks that are waited for.
#[derive(Clone, Debug)]
pub(crate) struct Tracked(pub(crate) TaskTracker);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tracked {
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// The port.
pub(crate) struct HttpPort {
    pub(crate) recorder: Recorder,
    pub(crate) listener: TcpListener,
    /// Where there is none, the port speaks plain HTTP.
    pub(crate) tls: Option<TlsAcceptor>,
    /// As metrics name it.
    pub(crate) name: &'static str,
    /// Clients at a time; one too many is told so.
    pub(crate) connections: usize,
    /// Those of them who are nobody yet, and how long they may be; on a port for everybody they always are.
    pub(crate) lobby: Arc<Lobby>,
    pub(crate) patience: Option<Duration>,
    /// For clients that find no descriptor.
    pub(crate) reserve: Arc<Reserve>,
    /// Whether those are answered like others, and not told so: probes are short.
    pub(crate) vital: bool,
    pub(crate) tasks: TaskTracker,
    /// Lets idle clients go.
    pub(crate) leave: CancellationToken,
    /// Ends the port and everyone on it.
    pub(crate) end: CancellationToken,
}

impl HttpPort {
    /// Serves until the end.
    pub(crate) async fn serve<F, R>(self, answer: F)
    where
        F: Fn(Request<Incoming>, Origin) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        // Of all places some are for those who are told that there is none; a probe is not told, but has its answer soon.
        let beyond = if self.vital { 0 } else { BEYOND.min(self.connections / 4) };
        let (room, beyond) = (Semaphore::new(self.connections - beyond), Semaphore::new(beyond));
        let (room, beyond) = (Arc::new(room), Arc::new(beyond));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = self.end.cancelled() => return,
            };
            let (spent, (tcp, peer)) = match accepted {
                Ok(accepted) => (self.reserve.lacks(), accepted),
                Err(error) => {
                    let Some(spent) = self.reserve.spend(&error) else {
                        tokio::time::sleep(process::ACCEPT_PAUSE).await;
                        continue;
                    };
                    match tokio::time::timeout(process::ACCEPT_PAUSE, self.listener.accept()).await {
                        Ok(Ok(accepted)) => (Some(spent), accepted),
                        Ok(Err(_)) | Err(_) => continue,
                    }
                }
            };
            // Guests that have to leave need a moment to do so.
            let making_room = tokio::time::timeout(MAKING_ROOM, room.clone().acquire_owned());
            let (permit, spent) = match (making_room.await, beyond.clone().try_acquire_owned()) {
                (Ok(Ok(permit)), _) => (permit, spent),
                (Ok(Err(_)) | Err(_), Ok(permit)) => (permit, Some(self.reserve.crowded())),
                (Ok(Err(_)) | Err(_), Err(_)) => continue,
            };
            let Some(guest) = self.lobby.enter(peer.ip().into()) else { continue };
            let (answer, tls, until) = (answer.clone(), self.tls.clone(), (self.leave.clone(), self.end.clone()));
            let (tasks, recorder) = (Tracked(self.tasks.clone()), self.recorder.clone());
            let (name, refused) = (self.name, spent.as_ref().filter(|_| !self.vital).map(|spent| spent.told));
            let patience = if spent.is_some() { Some(TELLING) } else { self.patience };
            let answer = move |request: Request<Incoming>, origin| match refused {
                Some(told) => Either::Left(std::future::ready(none_left(told, request.version()))),
                None => Either::Right(answer(request, origin)),
            };
            self.tasks.spawn(async move {
                let guest = Arc::new(guest);
                let metrics = recorder.metrics.clone();
                let served = async {
                    let socket = prepare(tcp)?;
                    let origin = Origin { peer, certificate: None, guest: guest.clone(), socket };
                    serve_one(origin, tls, recorder, tasks, until, answer).await
                };
                let answered = async {
                    match spent.is_some() {
                        true => tokio::time::timeout(TELLING, served).await?,
                        false => served.await,
                    }
                };
                tokio::select! {
                    // First: a handshake has the same time, and is not what ends who is late.
                    biased;
                    parting = guest.outstayed(patience) => metrics.guest_left(name, parting),
                    served = answered => if let Err(error) = served {
                        tracing::debug!(%error, "a client broke off");
                    },
                }
                drop((permit, spent));
            });
        }
    }
}

/// What a client hears for which there is no descriptor or no room, and which is to leave.
fn none_left(told: &str, version: Version) -> Response<Body> {
    let mut response = Response::new(whole(Full::from(format!("{told}\n"))));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    if version < Version::HTTP_2 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn prepare(tcp: TcpStream) -> io::Result<Socket> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(&tcp);
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    // A client that takes no answer for so long is gone.
    socket.set_tcp_user_timeout(Some(CLIENT_TIMEOUT))?;
    Ok(Socket::new(tcp))
}

async fn serve_one<F, R>(
    origin: Origin,
    tls: Option<TlsAcceptor>,
    recorder: Recorder,
    tasks: Tracked,
    until: Shutdown,
    answer: F,
) -> io::Result<()>
where
    F: Fn(Request<Incoming>, Origin) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let Some(tls) = tls else {
        return serve_requests(origin.socket.clone(), origin, false, tasks, until, answer).await;
    };
    let record = recorder.handshake("api", Peer::Tcp(origin.peer));
    let shaking = until.1.run_until_cancelled(tokio::time::timeout(CLIENT_TIMEOUT, tls.accept(origin.socket.clone())));
    let Some(shaken) = shaking.await else { return Ok(()) };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            record.failed(handshake_outcome(&error));
            return Err(error);
        }
        Err(late) => {
            record.failed(Outcome::TimedOut);
            return Err(late.into());
        }
    };
    record.succeeded();
    let session = stream.get_ref().1;
    let http2 = session.alpn_protocol() == Some(b"h2");
    let leaf = session.peer_certificates().and_then(|chain| chain.first()).cloned();
    let origin = Origin { certificate: leaf.map(CertificateDer::into_owned), ..origin };
    serve_requests(stream, origin, http2, tasks, until, answer).await
}

async fn serve_requests<F, R>(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    origin: Origin,
    http2: bool,
    tasks: Tracked,
    until: Shutdown,
    answer: F,
) -> io::Result<()>
where
    F: Fn(Request<Incoming>, Origin) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let delivery = origin.delivery();
    let asked = CancellationToken::new();
    let asks = asked.clone();
    let service = service_fn(move |request| {
        asks.cancel();
        let answering = answer(request, origin.clone());
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let io = TokioIo::new(io);
    if http2 {
        let mut http = http2::Builder::new(tasks);
        http.timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE_INTERVAL).keep_alive_timeout(CLIENT_TIMEOUT);
        http.max_concurrent_streams(REQUESTS);
        http.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        return finish(
            http.serve_connection(io, service),
            |connection| connection.graceful_shutdown(),
            until,
            asked,
            delivery,
        )
        .await;
    }
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(CLIENT_TIMEOUT);
    let connection = http.serve_connection(io, service).with_upgrades();
    finish(connection, |connection| connection.graceful_shutdown(), until, asked, delivery).await
}

/// Serves a connection to its end or, at the port's end, until what is under way is answered.
async fn finish<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    last: fn(Pin<&mut C>),
    (leave, end): Shutdown,
    asked: CancellationToken,
    delivery: Option<Delivery>,
) -> io::Result<()> {
    let mut connection = pin!(connection);
    let leaving = async {
        leave.cancelled().await;
        // Who has just come is about to ask.
        let asking = tokio::time::timeout(FIRST_REQUEST, asked.cancelled());
        end.run_until_cancelled(asking).await;
    };
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = leaving => {
            last(connection.as_mut());
            tokio::select! {
                served = connection.as_mut() => served,
                () = async {
                    end.cancelled().await;
                    tokio::time::sleep(GOODBYE).await;
                } => Ok(()),
            }
        }
    };
    if let Some(delivery) = delivery.filter(|_| served.is_err()) {
        delivery.done().await;
    }
    served.map_err(io::Error::other)
}
