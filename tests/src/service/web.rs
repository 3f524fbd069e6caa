//! A target that speaks HTTP/1.1, plain or over TLS.
//!
//! | path | answer |
//! |---|---|
//! | `/` | `NAME` and a line feed |
//! | `/metrics` | a page for Prometheus: `target_info{name}` and `target_requests_total` |
//! | `/request` | the request as it came in: method, target and header fields, as JSON |
//! | `/echo` | the request's body, as it comes in |
//! | `/bytes/N` | N bytes of the pattern with seed N, with `Content-Length` |
//! | `/chunked/N` | the same, chunked |
//! | `/status/N` | that status |
//! | `/never` | no answer |

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::Service;
use crate::pattern::Pattern;

/// Bytes of one chunk of a long body.
const CHUNK: u64 = 64 * 1024;

type Body = BoxBody<Bytes, hyper::Error>;

/// The service, and what it counts.
#[derive(Debug)]
pub struct Web {
    service: Service,
    site: Arc<Site>,
}

#[derive(Debug)]
struct Site {
    name: String,
    requests: AtomicU64,
}

/// Starts one called `name` without TLS.
pub async fn plain(name: &str) -> io::Result<Web> {
    let site = Site::new(name);
    let served = Arc::clone(&site);
    let service = Service::start(move |stream| serve(stream, Arc::clone(&served))).await?;
    Ok(Web { service, site })
}

/// Starts one called `name` over TLS.
pub async fn tls(name: &str, config: Arc<ServerConfig>) -> io::Result<Web> {
    let site = Site::new(name);
    let served = Arc::clone(&site);
    let acceptor = TlsAcceptor::from(config);
    let service = Service::start(move |stream| {
        let (acceptor, site) = (acceptor.clone(), Arc::clone(&served));
        async move { serve(acceptor.accept(stream).await?, site).await }
    })
    .await?;
    Ok(Web { service, site })
}

impl Web {
    /// The service itself; its count of connections beside [`Self::requests`] shows whether they were kept alive.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// How many requests it got.
    pub fn requests(&self) -> u64 {
        self.site.requests.load(Ordering::Relaxed)
    }
}

impl Site {
    fn new(name: &str) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), requests: AtomicU64::new(0) })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let requests = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let path = request.uri().path().to_owned();
        let path = path.trim_start_matches('/');
        let (page, parameter) = path.split_once('/').unwrap_or((path, ""));
        match (page, parameter.parse::<u64>()) {
            ("", _) => full(format!("{}\n", self.name)),
            ("metrics", _) => self.metrics(requests),
            ("request", _) => full(described(&request)),
            ("echo", _) => Response::new(request.into_body().boxed()),
            ("bytes", Ok(length)) => sized(length),
            ("chunked", Ok(length)) => Response::new(long_body(length)),
            ("status", Ok(code)) => with_status(code),
            ("never", _) => std::future::pending().await,
            _ => with_status(404),
        }
    }

    fn metrics(&self, requests: u64) -> Response<Body> {
        let page = format!(
            "# TYPE target_info gauge\ntarget_info{{name=\"{}\"}} 1\n\
             # TYPE target_requests_total counter\ntarget_requests_total {requests}\n",
            self.name
        );
        let mut response = full(page);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; version=0.0.4"));
        response
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, site: Arc<Site>) -> io::Result<()> {
    let service = service_fn(|request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.answer(request).await) }
    });
    // Clients that half-close after their request still get the answer.
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).half_close(true);
    server.serve_connection(TokioIo::new(stream), service).await.map_err(io::Error::other)
}

fn described(request: &Request<Incoming>) -> String {
    let fields = request.headers().iter();
    let fields: Vec<_> =
        fields.map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])).collect();
    json!({ "method": request.method().as_str(), "target": request.uri().to_string(), "headers": fields }).to_string()
}

fn sized(length: u64) -> Response<Body> {
    let mut response = Response::new(long_body(length));
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    response
}

/// The pattern of seed and length `length`, made as it is sent.
fn long_body(length: u64) -> Body {
    let pattern = Pattern::new(length, length);
    let frames = stream::unfold(0, move |offset| async move {
        let mut chunk = vec![0; usize::try_from(CHUNK.min(length - offset)).ok().filter(|left| *left > 0)?];
        pattern.fill(offset, &mut chunk);
        let next = offset + chunk.len() as u64;
        Some((Ok(Frame::data(Bytes::from(chunk))), next))
    });
    StreamBody::new(frames).boxed()
}

fn with_status(code: u64) -> Response<Body> {
    let status = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    let mut response = full(format!("status {code}\n"));
    *response.status_mut() = status.unwrap_or(StatusCode::BAD_REQUEST);
    response
}

fn full(text: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::service::authority::TargetAuthority;
    use crate::{Fetch, tool};

    const BOUND: std::time::Duration = std::time::Duration::from_secs(20);

    #[tokio::test]
    async fn it_answers_plain_and_over_tls() -> anyhow::Result<()> {
        let authority = TargetAuthority::new()?;
        let (plain, tls) = (plain("one").await?, tls("two", authority.server_config(&["two.example"])?).await?);
        let answer = Fetch::get("/").plain(plain.service().address()).await?;
        assert_eq!(answer.text(), "one\n");
        let answer = Fetch::get("/").tls(tls.service().address(), "two.example", authority.client_config()?).await?;
        assert_eq!(answer.text(), "two\n");
        Ok(())
    }

    #[tokio::test]
    async fn long_bodies_come_with_length_or_chunked() -> anyhow::Result<()> {
        let web = plain("web").await?;
        for (path, chunked) in [("/bytes/1000003", false), ("/chunked/1000003", true)] {
            let answer = Fetch::get(path).plain(web.service().address()).await?;
            assert_eq!(answer.headers.contains_key(header::TRANSFER_ENCODING), chunked);
            assert!(answer.body == Pattern::new(1_000_003, 1_000_003).to_vec(), "{path} is not its pattern");
        }
        Ok(())
    }

    #[tokio::test]
    async fn its_metrics_requests_and_echoes_are_readable() -> anyhow::Result<()> {
        let web = plain("web").await?;
        let address = web.service().address();
        assert_eq!(Metrics::fetch(address).await?.sum("target_info", &[("name", "web")]), 1.0);
        let seen = Fetch::get("/request?q=1").header("x-test", "yes").plain(address).await?.json()?;
        assert_eq!((&seen["method"], &seen["target"]), (&json!("GET"), &json!("/request?q=1")));
        assert!(seen["headers"].as_array().unwrap().contains(&json!(["x-test", "yes"])), "{seen}");
        let echoed = Fetch::new(hyper::Method::POST, "/echo").body("abc").plain(address).await?;
        assert_eq!(echoed.text(), "abc");
        assert_eq!(Fetch::get("/status/503").plain(address).await?.status, 503);
        assert_eq!(Fetch::get("/nothing").plain(address).await?.status, 404);
        Ok(())
    }

    #[tokio::test]
    async fn curl_keeps_its_connection_alive() -> anyhow::Result<()> {
        let web = plain("web").await?;
        let url = format!("http://{}/", web.service().address());
        let answer = tool::curl()?.args([&url, &url]).run(BOUND).await?.success()?;
        assert_eq!((answer.as_str(), web.requests(), web.service().accepted()), ("web\nweb\n", 2, 1));
        Ok(())
    }
}
