//! The ways to a service in a cluster, each as its clients speak it, byte by byte.

use std::{io, net::SocketAddr, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// For a request and its answer.
const DEADLINE: Duration = Duration::from_secs(15);

/// No answer here is longer.
const LIMIT: u64 = 64 * 1024;

/// Through the hub's proxy port, as the user of `token`.
#[derive(Debug)]
pub(super) struct Proxied<'a> {
    pub(super) proxy: SocketAddr,
    pub(super) cluster: &'a str,
    pub(super) token: &'a SecretString,
    /// The service, as the spoke knows it.
    pub(super) target: SocketAddr,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("the connection failed")]
    Connection(#[from] io::Error),
    #[error("no answer within 15 seconds")]
    TimedOut,
    #[error("the proxy answered {0}")]
    Refused(String),
    #[error("the SOCKS5 proxy answered {0:#04x} (RFC 1928 section 6)")]
    Socks(u8),
    #[error("the answer is no HTTP: {0:?}")]
    NoHttp(String),
}

impl Proxied<'_> {
    /// HTTP CONNECT (RFC 9110 section 9.3.6): `curl --proxytunnel`, https:// targets, kubectl.
    pub(super) async fn connect(&self) -> Result<String, ClientError> {
        within(async {
            let mut stream = TcpStream::connect(self.proxy).await?;
            let Self { target, .. } = self;
            let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{}\r\n", self.authorization());
            stream.write_all(request.as_bytes()).await?;
            let head = read_head(&mut stream).await?;
            if !head.starts_with("HTTP/1.1 200") {
                return Err(ClientError::Refused(head.lines().next().unwrap_or_default().into()));
            }
            get(stream, "/", *target, "").await
        })
        .await
    }

    /// A request with the whole URL (RFC 9112 section 3.2.2): http:// targets of curl and Prometheus.
    pub(super) async fn absolute_form(&self) -> Result<String, ClientError> {
        within(async {
            let stream = TcpStream::connect(self.proxy).await?;
            get(stream, &format!("http://{}/", self.target), self.target, &self.authorization()).await
        })
        .await
    }

    /// SOCKS5 (RFC 1928) with user name and password (RFC 1929).
    pub(super) async fn socks5(&self) -> Result<String, ClientError> {
        within(async {
            let mut stream = TcpStream::connect(self.proxy).await?;
            // Version 5, one method: user name and password.
            stream.write_all(&[5, 1, 2]).await?;
            expect(&mut stream, [5, 2]).await?;
            let token = self.token.expose_secret();
            let mut login = vec![1, length(self.cluster)?];
            login.extend_from_slice(self.cluster.as_bytes());
            login.push(length(token)?);
            login.extend_from_slice(token.as_bytes());
            stream.write_all(&login).await?;
            expect(&mut stream, [1, 0]).await?;
            // CONNECT to a name (3), which the spoke resolves; an address is a name here too.
            let host = self.target.ip().to_string();
            let mut request = vec![5, 1, 0, 3, length(&host)?];
            request.extend_from_slice(host.as_bytes());
            request.extend_from_slice(&self.target.port().to_be_bytes());
            stream.write_all(&request).await?;
            let mut reply = [0; 4];
            stream.read_exact(&mut reply).await?;
            if reply[1] != 0 {
                return Err(ClientError::Socks(reply[1]));
            }
            // The bound address: IPv4 or IPv6, and a port.
            let mut bound = [0; 18];
            let size = if reply[3] == 4 { 18 } else { 6 };
            stream.read_exact(&mut bound[..size]).await?;
            get(stream, "/", self.target, "").await
        })
        .await
    }

    /// A secret.
    fn authorization(&self) -> String {
        let login = format!("{}:{}", self.cluster, self.token.expose_secret());
        format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(login))
    }
}

/// A plain GET of a local port.
pub(super) async fn direct(local: SocketAddr) -> Result<String, ClientError> {
    within(async { get(TcpStream::connect(local).await?, "/", local, "").await }).await
}

async fn within(asking: impl Future<Output = Result<String, ClientError>>) -> Result<String, ClientError> {
    timeout(DEADLINE, asking).await.unwrap_or(Err(ClientError::TimedOut))
}

/// Sends a GET and reads to the end: `200 hello from cluster1`.
async fn get(mut stream: TcpStream, uri: &str, host: SocketAddr, headers: &str) -> Result<String, ClientError> {
    let request = format!("GET {uri} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(LIMIT).read_to_string(&mut answer).await?;
    parse(&answer).ok_or(ClientError::NoHttp(answer))
}

/// Status and body, without the head and the last line's end.
fn parse(answer: &str) -> Option<String> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    Some(format!("{status} {}", body.trim_end()))
}

/// Byte by byte, so that nothing behind the head is read.
async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 4096 {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

async fn expect(stream: &mut TcpStream, expected: [u8; 2]) -> Result<(), ClientError> {
    let mut reply = [0; 2];
    stream.read_exact(&mut reply).await?;
    if reply == expected { Ok(()) } else { Err(ClientError::Socks(reply[1])) }
}

/// A length as SOCKS5 writes it.
fn length(text: &str) -> io::Result<u8> {
    u8::try_from(text.len()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_its_body() {
        assert_eq!(parse("HTTP/1.1 200 OK\r\nA: b\r\n\r\nhello\n").as_deref(), Some("200 hello"));
        for text in ["", "HTTP/1.1 2", "SSH-2.0\r\n\r\n", "HTTP/1.1 \u{e9}\r\n\r\n"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
