//! A client that speaks to a hub's proxy frontends byte by byte, for what curl does not show: half-closes, resets, many at once.

mod socks5;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::credentials::HUB_NAME;

/// Longer than any dial deadline a scenario sets: a proxy that does not answer is found, not waited for.
const BOUND: Duration = Duration::from_secs(60);
/// The most bytes of an answer's head, and of a refusal's body.
const LONGEST: u64 = 64 * 1024;

/// How the proxy port is entered.
#[derive(Debug, Clone)]
pub enum Entry {
    /// TCP.
    Plain(SocketAddr),
    /// TLS over TCP, see [`crate::Credentials::tls`] and [`crate::Credentials::mutual_tls`].
    Tls(SocketAddr, Arc<ClientConfig>),
    /// The Unix socket.
    Unix(PathBuf),
}

/// A client, who may dial any number of times.
#[derive(Debug, Clone)]
pub struct Client {
    entry: Entry,
    socks5: bool,
    /// User name and password for the proxy.
    login: Option<(String, String)>,
}

/// A connection through the proxy: plain, TLS or Unix.
pub type Connection = Either<TcpStream, Either<Box<TlsStream<TcpStream>>, UnixStream>>;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum DialError {
    /// CONNECT was answered with another status than 200.
    #[error("the proxy answered {status}: {body}")]
    Status { status: u16, head: String, body: String },
    /// SOCKS5 was answered with another reply than 0, or 255 for no acceptable method, or 1 for a wrong password.
    #[error("the proxy replied {reply} to SOCKS5")]
    Reply { reply: u8 },
    /// What came back is not the protocol.
    #[error("the proxy spoke nonsense: {0}")]
    Nonsense(String),
    /// The connection to the proxy failed or ended.
    #[error("the connection to the proxy failed")]
    Io(#[from] io::Error),
    /// No answer came.
    #[error("the proxy did not answer within {0:?}")]
    Late(Duration),
}

impl Client {
    /// One that uses CONNECT without credentials.
    pub fn new(entry: Entry) -> Self {
        Self { entry, socks5: false, login: None }
    }

    /// Names the cluster as user and `token` as password.
    #[must_use]
    pub fn cluster(mut self, cluster: &str, token: &str) -> Self {
        self.login = Some((cluster.to_owned(), token.to_owned()));
        self
    }

    /// Sends no user and no password, e.g. with a client certificate.
    #[must_use]
    pub fn without_login(mut self) -> Self {
        self.login = None;
        self
    }

    /// Enters elsewhere.
    #[must_use]
    pub fn through(mut self, entry: Entry) -> Self {
        self.entry = entry;
        self
    }

    /// Speaks SOCKS5 with the name resolved remotely, instead of CONNECT.
    #[must_use]
    pub fn socks5(mut self) -> Self {
        self.socks5 = true;
        self
    }

    /// Connects to the proxy and asks it for `target` (`HOST:PORT`). What the target says first is the connection's first byte.
    pub async fn dial(&self, target: &str) -> Result<Connection, DialError> {
        let dial = async { self.dial_over(self.enter().await?, target).await };
        timeout(BOUND, dial).await.unwrap_or(Err(DialError::Late(BOUND)))
    }

    /// As [`Self::dial`], over a connection to the proxy that has said nothing yet.
    pub async fn dial_over(&self, mut connection: Connection, target: &str) -> Result<Connection, DialError> {
        let dial = async {
            match self.socks5 {
                true => socks5::connect(&mut connection, target, self.login.as_ref()).await?,
                false => connect(&mut connection, target, self.login.as_ref()).await?,
            }
            Ok(connection)
        };
        timeout(BOUND, dial).await.unwrap_or(Err(DialError::Late(BOUND)))
    }

    /// Connects to the proxy and says nothing yet.
    pub async fn enter(&self) -> io::Result<Connection> {
        match &self.entry {
            Entry::Plain(address) => Ok(Either::Left(TcpStream::connect(address).await?)),
            Entry::Tls(address, config) => {
                let name = ServerName::try_from(HUB_NAME).map_err(io::Error::other)?;
                let stream = TcpStream::connect(address).await?;
                let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
                Ok(Either::Right(Either::Left(Box::new(stream))))
            }
            Entry::Unix(path) => Ok(Either::Right(Either::Right(UnixStream::connect(path).await?))),
        }
    }
}

async fn connect(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    target: &str,
    login: Option<&(String, String)>,
) -> Result<(), DialError> {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some((user, password)) = login {
        let login = STANDARD.encode(format!("{user}:{password}"));
        request.push_str(&format!("Proxy-Authorization: Basic {login}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let head = read_head(stream).await?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    match status.ok_or_else(|| DialError::Nonsense(head.clone()))? {
        200 => Ok(()),
        status => {
            let mut body = Vec::new();
            stream.take(LONGEST).read_to_end(&mut body).await?;
            Err(DialError::Status { status, head, body: String::from_utf8_lossy(&body).into_owned() })
        }
    }
}

/// Reads to the empty line and not one byte further.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Result<String, DialError> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() as u64 == LONGEST {
            return Err(DialError::Nonsense(String::from("a head without an end")));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Service;

    #[tokio::test]
    async fn connect_sends_the_login_and_leaves_the_targets_first_byte() -> anyhow::Result<()> {
        let proxy = Service::start(|mut stream| async move {
            let head = read_head(&mut stream).await.map_err(io::Error::other)?;
            stream.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n").await?;
            stream.write_all(head.as_bytes()).await
        })
        .await?;
        let client = Client::new(Entry::Plain(proxy.address())).cluster("c1", "secret");
        let mut head = String::new();
        client.dial("svc:80").await?.read_to_string(&mut head).await?;
        let login = "Proxy-Authorization: Basic YzE6c2VjcmV0\r\n\r\n";
        assert_eq!(head, format!("CONNECT svc:80 HTTP/1.1\r\nHost: svc:80\r\n{login}"));
        Ok(())
    }

    #[tokio::test]
    async fn a_refusal_is_an_error_with_status_and_body() -> anyhow::Result<()> {
        let proxy = Service::start(|mut stream| async move {
            read_head(&mut stream).await.map_err(io::Error::other)?;
            stream.write_all(b"HTTP/1.1 504 Gateway Timeout\r\n\r\ntoo late").await
        })
        .await?;
        let error = Client::new(Entry::Plain(proxy.address())).dial("svc:80").await.err();
        assert!(matches!(error, Some(DialError::Status { status: 504, body, .. }) if body == "too late"));
        Ok(())
    }
}
