//! How a load reaches the service: the address that it dials and what it says first.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_util::either::Either;

use crate::quinn_ends::{self, QuinnStream};

/// How long a dial may take; with a thousand at once on a loaded machine it is still far below.
const DIAL: Duration = Duration::from_secs(20);
/// The longest head of an answer to CONNECT.
const LONGEST_HEAD: usize = 4096;

/// The way in, as a load is told it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Route {
    /// TCP to `HOST:PORT`, and the service is at the other end.
    Tcp(String),
    /// HTTP CONNECT to `target` at the proxy `HOST:PORT`, with a Basic login (user, password) if there is one.
    Connect { proxy: String, target: SocketAddr, login: Option<(String, String)> },
    /// Streams of one QUIC connection to an end with this certificate (DER), which serves them itself.
    Quinn { address: SocketAddr, certificate: Vec<u8> },
}

/// A connection to the service, or a stream where the path is QUIC itself.
pub type Connection = Either<TcpStream, QuinnStream>;

/// Opens connections along one route.
#[derive(Debug)]
pub struct Dialer {
    route: Route,
    /// The bytes of the request to the proxy, if there is one.
    request: Vec<u8>,
    /// The QUIC connection, once it is needed.
    quinn: OnceCell<quinn_ends::Entry>,
}

impl Dialer {
    /// What [`Self::dial`] needs, prepared once.
    pub fn new(route: &Route) -> Self {
        let request = match route {
            Route::Connect { target, login, .. } => request(target, login.as_ref()),
            Route::Tcp(_) | Route::Quinn { .. } => Vec::new(),
        };
        Self { route: route.clone(), request, quinn: OnceCell::new() }
    }

    /// A connection to the service, with TCP_NODELAY.
    pub async fn dial(&self) -> Result<Connection> {
        timeout(DIAL, self.open()).await.with_context(|| format!("{:?} does not answer", self.route))?
    }

    async fn open(&self) -> Result<Connection> {
        match &self.route {
            Route::Tcp(address) => Ok(Either::Left(tcp(address).await?)),
            Route::Connect { proxy, .. } => {
                let mut stream = tcp(proxy).await?;
                stream.write_all(&self.request).await?;
                read_established(&mut stream).await?;
                Ok(Either::Left(stream))
            }
            Route::Quinn { address, certificate } => {
                let connect = || quinn_ends::Entry::connect(*address, certificate.clone());
                Ok(Either::Right(self.quinn.get_or_try_init(connect).await?.open().await?))
            }
        }
    }
}

async fn tcp(address: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("{address} cannot be reached"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn request(target: &SocketAddr, login: Option<&(String, String)>) -> Vec<u8> {
    let login = login.map(|(user, password)| STANDARD.encode(format!("{user}:{password}")));
    let login = login.map_or_else(String::new, |login| format!("Proxy-Authorization: Basic {login}\r\n"));
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n").into_bytes()
}

/// Reads the head of a 200 in large pieces. The service never speaks first, so nothing may follow the head.
async fn read_established(stream: &mut TcpStream) -> Result<()> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        ensure!(head.len() <= LONGEST_HEAD, "the proxy's answer has no end");
    }
    if !head.starts_with(b"HTTP/1.1 200") && !head.starts_with(b"HTTP/1.0 200") {
        bail!("the proxy refused: {}", String::from_utf8_lossy(&head).trim_end());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ::tests::Service;

    use super::*;

    fn to(proxy: SocketAddr) -> Dialer {
        let login = Some(("c1".to_owned(), "secret".to_owned()));
        Dialer::new(&Route::Connect { proxy: proxy.to_string(), target: ([10, 0, 0, 1], 80).into(), login })
    }

    #[test]
    fn a_login_is_sent_as_basic_authorization() {
        let request = request(&([10, 0, 0, 1], 80).into(), Some(&("c1".into(), "secret".into())));
        let expected =
            "CONNECT 10.0.0.1:80 HTTP/1.1\r\nHost: 10.0.0.1:80\r\nProxy-Authorization: Basic YzE6c2VjcmV0\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&request), expected);
    }

    #[tokio::test]
    async fn only_a_200_gives_a_connection() -> Result<()> {
        for (answer, accepted) in [("HTTP/1.1 200 OK\r\n\r\n", true), ("HTTP/1.1 403 Forbidden\r\n\r\n", false)] {
            let proxy = Service::start(move |mut stream| async move {
                stream.read_exact(&mut [0; 64]).await?;
                stream.write_all(answer.as_bytes()).await?;
                stream.read_to_end(&mut Vec::new()).await.map(drop)
            })
            .await?;
            assert_eq!(to(proxy.address()).dial().await.is_ok(), accepted, "{answer}");
        }
        Ok(())
    }
}
