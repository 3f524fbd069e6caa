//! One HTTP/1.1 request on a connection of its own: for the harness' own questions. Proxies are tested with stock clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long a whole exchange may take. Nothing asked for here takes more than moments.
const BOUND: Duration = Duration::from_secs(10);

/// A request.
#[derive(Debug, Clone)]
pub struct Fetch {
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Bytes,
    bound: Duration,
}

/// Its answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The whole body, decoded from its transfer encoding.
    pub body: Bytes,
}

impl Fetch {
    /// `GET path`, where `path` may have a query.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Any method.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: Bytes::new(), bound: BOUND }
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds `Authorization: Bearer TOKEN`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// Waits so long for the whole answer.
    #[must_use]
    pub fn within(mut self, bound: Duration) -> Self {
        self.bound = bound;
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// Sends it over plain TCP.
    pub async fn plain(self, to: SocketAddr) -> Result<Answer> {
        let what = format!("{} http://{to}{}", self.method, self.path);
        let bound = self.bound;
        let exchange = async { self.over(TcpStream::connect(to).await?, &to.to_string()).await };
        timeout(bound, exchange).await.with_context(|| format!("{what}: no answer within {bound:?}"))?.context(what)
    }

    /// Sends it over TLS to a server that must prove to be `name`.
    pub async fn tls(self, to: SocketAddr, name: &str, config: Arc<ClientConfig>) -> Result<Answer> {
        let what = format!("{} https://{name}{} at {to}", self.method, self.path);
        let bound = self.bound;
        let exchange = async {
            let server = ServerName::try_from(name.to_owned())?;
            let stream = TlsConnector::from(config).connect(server, TcpStream::connect(to).await?).await?;
            self.over(stream, name).await
        };
        timeout(bound, exchange).await.with_context(|| format!("{what}: no answer within {bound:?}"))?.context(what)
    }

    async fn over(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, host: &str) -> Result<Answer> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let mut request = Request::builder().method(self.method).uri(self.path).header(header::HOST, host);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let response = sender.send_request(request.body(Full::new(self.body))?).await?;
        let (head, body) = response.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
    }
}

impl Answer {
    /// The body as text, invalid UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    /// This answer if its status is 2xx, otherwise an error with its body.
    pub fn success(self) -> Result<Self> {
        if !self.status.is_success() {
            bail!("answered {}: {}", self.status, self.text());
        }
        Ok(self)
    }
}
