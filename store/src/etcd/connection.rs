//! The HTTP/2 connection to one endpoint of etcd: made when it is needed, and anew when it has ended.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower_service::Service;

/// Where a member of etcd is, and the connection to it.
pub(super) struct Endpoint {
    host: String,
    port: u16,
    /// With TLS: how, and the name that the certificate must have.
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// The outcome of the last attempt. One caller connects, and those who wait meanwhile share what comes of it.
    last: Mutex<Option<Result<Requests, Failed>>>,
    tasks: Tasks,
}

/// Sends requests on a connection.
#[derive(Clone, Debug)]
pub(super) struct Requests(SendRequest<Body>);

struct Failed {
    at: Instant,
    error: Arc<ConnectError>,
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub(super) enum ConnectError {
    #[error("no TCP connection")]
    Tcp(#[source] io::Error),
    #[error("no TLS; check etcd's certificate, and the CA and the certificate that are given for it")]
    Tls(#[source] io::Error),
    #[error("no HTTP/2 over its TLS; name etcd itself, or let what stands before it pass gRPC on")]
    Alpn,
    #[error("no HTTP/2")]
    Http(#[source] hyper::Error),
    #[error("no connection in time")]
    Late,
}

/// Why a request has no answer.
#[derive(Debug, Error)]
pub(super) enum SendError {
    /// The connection had ended before.
    #[error("it was not sent")]
    Unsent(#[source] hyper::Error),
    #[error("it may have been sent")]
    Broken(#[source] hyper::Error),
}

/// Owns the tasks of connections.
#[derive(Clone, Default)]
struct Tasks(TaskTracker);

/// etcd's own, when an endpoint names none.
const PORT: u16 = 2379;
/// For name, TCP and TLS.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// A connection with requests is pinged when nothing has been received for so long. etcd closes a connection that is pinged
/// more often than every 5 s (`--grpc-keepalive-min-time`), or without requests.
const PING_AFTER: Duration = Duration::from_secs(7);
/// How long etcd may take to acknowledge a ping.
const PING_DEADLINE: Duration = Duration::from_secs(5);

impl Endpoint {
    /// `None` when `text` is no endpoint, or needs TLS and there is none.
    pub(super) fn parse(text: &str, tls: Option<&TlsConnector>) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return None;
        }
        // An IPv6 address is in brackets here, and nowhere else.
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = match uri.scheme_str()? {
            "http" => None,
            "https" => Some((tls?.clone(), ServerName::try_from(host.clone()).ok()?)),
            _ => return None,
        };
        Some(Self { host, port: uri.port_u16().unwrap_or(PORT), tls, last: Mutex::default(), tasks: Tasks::default() })
    }

    /// Host and port.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// What a request's path is added to.
    pub(super) fn origin(&self) -> Uri {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let origin = Uri::builder().scheme(scheme).authority(self.authority()).path_and_query("/").build();
        origin.expect("host and port were parsed")
    }

    pub(super) async fn requests(&self) -> Result<Requests, Arc<ConnectError>> {
        let since = Instant::now();
        let mut last = self.last.lock().await;
        match &*last {
            Some(Ok(requests)) if !requests.0.is_closed() => return Ok(requests.clone()),
            Some(Err(failed)) if failed.at >= since => return Err(Arc::clone(&failed.error)),
            Some(_) | None => {}
        }
        let connected = timeout(CONNECT_DEADLINE, self.connect()).await.unwrap_or(Err(ConnectError::Late));
        let connected = connected.map_err(Arc::new);
        *last = Some(connected.clone().map_err(|error| Failed { at: Instant::now(), error }));
        connected
    }

    async fn connect(&self) -> Result<Requests, ConnectError> {
        let stream = TcpStream::connect((&*self.host, self.port)).await.map_err(ConnectError::Tcp)?;
        stream.set_nodelay(true).map_err(ConnectError::Tcp)?;
        let Some((connector, name)) = &self.tls else { return self.handshake(stream).await };
        let stream = connector.connect(name.clone(), stream).await.map_err(ConnectError::Tls)?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(ConnectError::Alpn);
        }
        self.handshake(stream).await
    }

    async fn handshake(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Requests, ConnectError> {
        let (requests, connection) = Builder::new(self.tasks.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_DEADLINE)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ConnectError::Http)?;
        // Ends with the last of `requests` and answers; its errors are told to those.
        self.tasks.execute(async move { drop(connection.await) });
        Ok(Requests(requests))
    }
}

impl Service<Request<Body>> for Requests {
    type Response = Response<Incoming>;
    type Error = SendError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, SendError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.0.poll_ready(context).map_err(SendError::Unsent)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.try_send_request(request);
        Box::pin(async move {
            answer.await.map_err(|mut failed| match failed.take_message() {
                Some(_) => SendError::Unsent(failed.into_error()),
                None => SendError::Broken(failed.into_error()),
            })
        })
    }
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_with_a_host() {
        let shown = |text: &str| {
            let endpoint = Endpoint::parse(text, None)?;
            assert_eq!(endpoint.origin().to_string(), format!("http://{}/", endpoint.authority()));
            Some(endpoint.authority())
        };
        assert_eq!(shown("http://etcd-0:1234").unwrap(), "etcd-0:1234");
        assert_eq!(shown("http://[::1]/").unwrap(), "[::1]:2379");
        for wrong in ["etcd-0:2379", "https://etcd-0:2379", "ftp://etcd-0", "http://etcd-0/v3", "", "http://"] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }
}
