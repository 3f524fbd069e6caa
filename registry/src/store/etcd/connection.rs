//! One HTTP/1.1 connection to one endpoint of etcd, and the lines of an endless answer.

use std::error::Error;
use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::Uri;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

/// Where a member of etcd is.
pub(super) struct Endpoint {
    host: String,
    port: u16,
    /// With TLS: how, and the name that the certificate must have.
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

pub(super) type Requests = SendRequest<Full<Bytes>>;

/// Lines of an answer as they come.
pub(super) struct Lines {
    body: Incoming,
    read: BytesMut,
    /// How much of `read` holds no end of a line.
    searched: usize,
}

/// etcd's own, when an endpoint names none.
const PORT: u16 = 2379;

/// A line is at most one fragment of a watch: twice etcd's largest request, in base64, with room for an etcd whose
/// operator allows larger ones.
const MAX_LINE: usize = 64 << 20;

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
        Some(Self { host, port: uri.port_u16().unwrap_or(PORT), tls })
    }

    /// What the `Host` header says.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    pub(super) async fn connect(&self, tasks: &TaskTracker) -> Result<Requests, Box<dyn Error + Send + Sync>> {
        let stream = TcpStream::connect((&*self.host, self.port)).await?;
        stream.set_nodelay(true)?;
        // A watch may be quiet for long: this notices when the machine at the other end is gone.
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(10))
            .with_interval(Duration::from_secs(5))
            .with_retries(3);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        match &self.tls {
            None => handshake(stream, tasks).await,
            Some((connector, name)) => handshake(connector.connect(name.clone(), stream).await?, tasks).await,
        }
    }
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    tasks: &TaskTracker,
) -> Result<Requests, Box<dyn Error + Send + Sync>> {
    let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the last of `requests` and answers; its errors are told to those.
    tasks.spawn(async move { drop(connection.await) });
    Ok(requests)
}

impl Lines {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, read: BytesMut::new(), searched: 0 }
    }

    /// The next line without its end; `None` when the answer has ended. Loses nothing when it is cancelled.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Box<dyn Error + Send + Sync>> {
        loop {
            if let Some(end) = self.read[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(self.searched + end).freeze();
                self.read.advance(1);
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.read.len();
            if self.searched > MAX_LINE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line of etcd's watch is too long").into());
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_with_a_host() {
        let shown = |text: &str| Endpoint::parse(text, None).map(|endpoint| endpoint.authority());
        assert_eq!(shown("http://etcd-0:1234").unwrap(), "etcd-0:1234");
        assert_eq!(shown("http://[::1]/").unwrap(), "[::1]:2379");
        for wrong in ["etcd-0:2379", "https://etcd-0:2379", "ftp://etcd-0", "http://etcd-0/v3", "", "http://"] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }
}
