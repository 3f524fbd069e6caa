//! HTTP requests with an absolute-form target (RFC 9112 section 3.2.2): how Prometheus and curl reach `http://` targets.
//!
//! Each request takes a stream of its own. A target's keep-alive is not used: a request must never fail because the
//! target closed an idle connection at that moment.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tunnel::{Delivery, hop};

use crate::{
    flushes::{Flushes, Held},
    frontend::client::{Client, Peer},
    frontend::head::HEAD_LIMIT,
    metrics::Frontend,
    outcome::Outcome,
    proxy::Proxy,
    proxy::caller::PresentedCredentials,
    proxy::exchange::{Exchange, ExchangeError, Upgradable},
};

/// What konnectivity says to everything but CONNECT (pkg/server/tunnel.go), and what to do about it.
const NO_PROXY_REQUEST: &str = "this proxy only supports CONNECT passthrough, absolute-form HTTP requests and SOCKS5; \
                                set it as your client's proxy, as in curl --proxy";

/// How long a target may think. A client that has left cannot be told from one that has half-closed, so a wait
/// without a bound would be held for ever.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(300);

type Body = Either<Full<Bytes>, Held>;

/// What serves the requests of one client connection.
#[derive(Debug)]
struct Forwarder {
    proxy: Arc<Proxy>,
    peer: Peer,
    presented: PresentedCredentials,
    /// What is written to the client.
    delivery: Option<Delivery>,
    flushes: Flushes,
}

/// Serves a client whose first request is there until it is done; on `stop`, until the request in progress is.
pub(crate) async fn serve(
    proxy: Arc<Proxy>,
    mut client: Client,
    peer: Peer,
    presented: PresentedCredentials,
    head_timeout: Duration,
    stop: CancellationToken,
) {
    let (delivery, flushes) = (client.delivery(), client.flushes());
    let forwarder = Arc::new(Forwarder { proxy, peer, presented, delivery, flushes });
    let asked = CancellationToken::new();
    let asks = asked.clone();
    let service = service_fn(move |request| {
        asks.cancel();
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
        // Who has asked is answered, although nothing of the head has been looked at yet.
        () = async { tokio::join!(stop.cancelled(), asked.cancelled()); } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "client connection failed");
        if let Some(delivery) = delivery {
            delivery.done().await;
        }
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
        let mut record = self.proxy.recorder.connection(Frontend::Http, self.peer);
        let (host, port) = match target(&request) {
            Ok(target) => target,
            Err(refusal) => {
                record.target(request.uri().to_string());
                record.refuse(Outcome::BadTarget);
                return Err(refusal);
            }
        };
        let authorization = request.headers().get(header::PROXY_AUTHORIZATION).map(HeaderValue::as_bytes);
        let presented = self.presented.clone().with_authorization(authorization);
        let opened = self.proxy.open(record, presented, host, port).await;
        let (stream, proxied) = opened.map_err(|error| (error.status(), error.to_string()))?;
        let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
        let request = for_target(request, upgrade.is_some())?;
        let response = async {
            let exchange = Exchange::start(stream, proxied, &self.proxy.tasks).await?;
            let client = upgrade.map(|client| Upgradable { client, delivery: self.delivery });
            exchange.send(request, client, Some(RESPONSE_TIMEOUT)).await
        };
        match response.await {
            Ok(response) => Ok(response.map(|body| Either::Right(Held::new(body, self.flushes.clone())))),
            Err(error @ ExchangeError::Broken(_)) => Err((StatusCode::BAD_GATEWAY, error.to_string())),
            Err(error @ ExchangeError::Silent) => Err((StatusCode::GATEWAY_TIMEOUT, error.to_string())),
        }
    }
}

/// The host and port of an absolute-form request.
pub(crate) fn target<B>(request: &Request<B>) -> Result<(String, u16), (StatusCode, String)> {
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
    let written = host.strip_prefix(uri.host()?)?;
    if written.is_empty() {
        return Some(80);
    }
    // What a URI takes for an authority may have no colon behind an address's bracket, or a sign before the number.
    let digits = written.strip_prefix(':').filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?;
    if digits.is_empty() { Some(80) } else { digits.parse().ok() }
}

/// The request as the target is to see it: origin-form, its own `Host`, nothing that was meant for us.
pub(crate) fn for_target<B>(request: Request<B>, upgrade: bool) -> Result<Request<B>, (StatusCode, String)> {
    let (mut parts, body) = request.into_parts();
    let authority = parts.uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    // Credentials in the URI are the proxy user's business, not the target's.
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = HeaderValue::from_str(host).map_err(|_| (StatusCode::BAD_REQUEST, "the host is malformed".into()))?;
    // Written out, a query without a path has one.
    let path = parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let path = path.parse::<Uri>().map_err(|_| (StatusCode::BAD_REQUEST, "the path is malformed".to_owned()))?;
    parts.uri = path;
    parts.version = http::Version::HTTP_11;
    hop::strip(&mut parts.headers, upgrade);
    parts.headers.insert(header::HOST, host);
    if !upgrade {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    parts.headers.append(header::VIA, HeaderValue::from_static("1.1 cluster-proxy"));
    Ok(Request::from_parts(parts, body))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_what_the_target_is_told_it_is() {
        let port = |uri: &str| port(&uri.parse().unwrap());
        for (uri, expected) in
            [("http://h/", 80), ("http://h:/", 80), ("http://u:1@h:8080/", 8080), ("http://[::1]:81/", 81)]
        {
            assert_eq!(port(uri), Some(expected), "{uri}");
        }
        for uri in ["http://[::1]80/", "http://h:+80/", "http://h:65536/"] {
            assert_eq!(port(uri), None, "{uri}");
        }
    }

    #[test]
    fn a_query_without_a_path_is_asked_for_at_the_root() {
        let request = Request::builder().uri("http://h?q=1").body(()).unwrap();
        assert_eq!(for_target(request, false).unwrap().uri(), "/?q=1");
    }
}
