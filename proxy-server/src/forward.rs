//! HTTP requests with an absolute-form target (RFC 9112 section 3.2.2): how Prometheus and curl reach `http://` targets.
//!
//! Each request takes a stream of its own. A target's keep-alive is not used: a request must never fail because the
//! target closed an idle connection at that moment.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{self, HeaderName},
};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;
use tunnel::{Stream, Traffic};

use crate::{
    caller::{Caller, Credentials, Shown},
    client::{Client, Peer},
    head::HEAD_LIMIT,
    metrics::Frontend,
    proxy::{Ask, Proxied, Proxy},
};

/// What konnectivity says to everything but CONNECT (pkg/server/tunnel.go), and what to do about it.
const NO_PROXY_REQUEST: &str = "this proxy only supports CONNECT passthrough, absolute-form HTTP requests and SOCKS5; \
                                set it as your client's proxy, as in curl --proxy";

/// How long a target may think. A client that has left cannot be told from one that has half-closed, so a wait
/// without a bound would be held for ever.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(300);

/// Fields between two hops only (RFC 9110 section 7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

type Body = Either<Full<Bytes>, Incoming>;

/// What serves the requests of one client connection.
#[derive(Debug)]
struct Forwarder {
    proxy: Arc<Proxy>,
    peer: Peer,
    shown: Shown,
}

/// Serves requests until the client is done; on `stop`, until the one in progress is.
pub(crate) async fn serve(
    proxy: Arc<Proxy>,
    client: Client,
    peer: Peer,
    shown: Shown,
    head_timeout: Duration,
    stop: CancellationToken,
) {
    let forwarder = Arc::new(Forwarder { proxy, peer, shown });
    let service = service_fn(move |request| {
        let forwarder = forwarder.clone();
        async move { Ok::<_, std::convert::Infallible>(forwarder.handle(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(HEAD_LIMIT * 2)
        .half_close(true)
        .serve_connection(TokioIo::new(client), service)
        .with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "client connection failed");
    }
}

impl Forwarder {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        match self.forward(request).await {
            Ok(response) => response,
            Err((status, sentence)) => answer(status, &sentence),
        }
    }

    async fn forward(&self, mut request: Request<Incoming>) -> Result<Response<Body>, (StatusCode, String)> {
        let (host, port) = target(&request)?;
        let mut shown = self.shown.clone();
        let credentials = request.headers().get(header::PROXY_AUTHORIZATION);
        let credentials = credentials.map_or(Ok(Credentials::default()), |value| Credentials::parse(value.as_bytes()));
        let caller = credentials.and_then(|credentials| {
            shown.credentials = credentials;
            Caller::authenticate(&shown, &self.proxy.registry)
        });
        let (proxy_user, listener) = (shown.credentials.name.take(), shown.cluster);
        let ask = Ask { frontend: Frontend::Http, peer: self.peer, proxy_user, listener, host, port };
        let opened = self.proxy.open(caller, ask).await;
        let (stream, proxied) = opened.map_err(|error| (error.status(), error.to_string()))?;
        let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
        let request = for_target(request, upgrade.is_some())?;
        let (sender, upgraded) = self.connect(stream, proxied).await?;
        exchange(sender, request, upgrade, upgraded).await
    }

    /// Speaks HTTP to the target, in a task that ends with the exchange.
    async fn connect(
        &self,
        stream: Stream,
        proxied: Proxied,
    ) -> Result<
        (hyper::client::conn::http1::SendRequest<Incoming>, oneshot::Sender<[OnUpgrade; 2]>),
        (StatusCode, String),
    > {
        let metered = Metered { stream, traffic: proxied.traffic().clone() };
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(metered)).await;
        let (sender, connection) = handshake.map_err(|error| bad_gateway(&error))?;
        let (upgraded, pair) = oneshot::channel();
        self.proxy.tasks.spawn(async move {
            let result = tokio::select! {
                result = drive(connection, pair) => result,
                () = proxied.cut().cancelled() => "cut",
            };
            proxied.close(result);
        });
        Ok((sender, upgraded))
    }
}

/// The host and port of an absolute-form request.
fn target(request: &Request<Incoming>) -> Result<(String, u16), (StatusCode, String)> {
    if request.method() == Method::CONNECT {
        let sentence = "CONNECT must be the first request of its connection; open a new one";
        return Err((StatusCode::BAD_REQUEST, sentence.into()));
    }
    let uri = request.uri();
    match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(host)) => {
            let port =
                port(uri).ok_or_else(|| (StatusCode::BAD_REQUEST, "the port must be from 1 to 65535".to_owned()))?;
            Ok((host.to_owned(), port))
        }
        (Some(_), Some(_)) => {
            Err((StatusCode::BAD_REQUEST, "only http:// can be asked for in absolute form; use CONNECT for TLS".into()))
        }
        _ => Err((StatusCode::METHOD_NOT_ALLOWED, NO_PROXY_REQUEST.into())),
    }
}

/// The port of an `http` URI: 80 where none is written (RFC 9110 section 4.2.1), and none where it is out of range.
fn port(uri: &Uri) -> Option<u16> {
    let authority = uri.authority()?.as_str();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let written = host.strip_prefix(uri.host()?)?.trim_start_matches(':');
    if written.is_empty() { Some(80) } else { written.parse().ok() }
}

/// The request as the target is to see it: origin-form, its own `Host`, nothing that was meant for us.
fn for_target(request: Request<Incoming>, upgrade: bool) -> Result<Request<Incoming>, (StatusCode, String)> {
    let (mut parts, body) = request.into_parts();
    let authority = parts.uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    // Credentials in the URI are the proxy user's business, not the target's.
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = HeaderValue::from_str(host).map_err(|_| (StatusCode::BAD_REQUEST, "the host is malformed".into()))?;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let path = path.parse::<Uri>().map_err(|_| (StatusCode::BAD_REQUEST, "the path is malformed".to_owned()))?;
    parts.uri = path;
    parts.version = http::Version::HTTP_11;
    strip_hop_by_hop(&mut parts.headers, upgrade);
    parts.headers.insert(header::HOST, host);
    if !upgrade {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    parts.headers.append(header::VIA, HeaderValue::from_static("1.1 cluster-proxy"));
    Ok(Request::from_parts(parts, body))
}

/// Takes out what concerns one hop only; an upgrade concerns both.
fn strip_hop_by_hop(headers: &mut HeaderMap, upgrade: bool) {
    let protocol = headers.get(header::UPGRADE).cloned();
    let listed = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let listed: Vec<HeaderName> =
        listed.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    if let Some(protocol) = protocol.filter(|_| upgrade) {
        headers.insert(header::UPGRADE, protocol);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

async fn exchange(
    mut sender: hyper::client::conn::http1::SendRequest<Incoming>,
    request: Request<Incoming>,
    upgrade: Option<OnUpgrade>,
    upgraded: oneshot::Sender<[OnUpgrade; 2]>,
) -> Result<Response<Body>, (StatusCode, String)> {
    let responding = tokio::time::timeout(RESPONSE_TIMEOUT, sender.send_request(request));
    let mut response = responding
        .await
        .map_err(|_| (StatusCode::GATEWAY_TIMEOUT, "the target did not answer the request; look into its log".into()))?
        .map_err(|error| bad_gateway(&error))?;
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if let Some(client) = upgrade.filter(|_| switching) {
        // The driver is gone only when the connection is: then both upgrades fail by themselves.
        let _ = upgraded.send([client, hyper::upgrade::on(&mut response)]);
    }
    strip_hop_by_hop(response.headers_mut(), switching);
    Ok(response.map(Either::Right))
}

/// Moves the target's connection on, through an upgrade if there is one; says how it ended.
async fn drive(
    connection: hyper::client::conn::http1::Connection<TokioIo<Metered>, Incoming>,
    pair: oneshot::Receiver<[OnUpgrade; 2]>,
) -> &'static str {
    if connection.with_upgrades().await.is_err() {
        return "target_reset";
    }
    let Ok([client, target]) = pair.await else { return "complete" };
    let (Ok(client), Ok(target)) = tokio::join!(client, target) else { return "target_reset" };
    match tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(target)).await {
        Ok(_) => "complete",
        Err(_) => "target_reset",
    }
}

fn bad_gateway(error: &hyper::Error) -> (StatusCode, String) {
    (StatusCode::BAD_GATEWAY, format!("the target broke off the HTTP exchange ({error}); look into its log"))
}

fn answer(status: StatusCode, sentence: &str) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::from(format!("{sentence}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // Whoever asks on and on and takes no answer would hold the connection for ever; one answer never waits.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        headers.insert(header::PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"cluster-proxy\""));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// A stream that counts what passes.
#[derive(Debug)]
struct Metered {
    stream: Stream,
    traffic: Arc<Traffic>,
}

impl AsyncRead for Metered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let metered = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut metered.stream).poll_read(cx, buffer);
        metered.traffic.add_out_of_tunnel((buffer.filled().len() - before) as u64);
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let metered = self.get_mut();
        let polled = Pin::new(&mut metered.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &polled {
            metered.traffic.add_into_tunnel(*count as u64);
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
