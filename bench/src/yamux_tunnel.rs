//! The two ends of a tunnel over TCP: one TLS 1.3 connection, in which yamux has a stream for each connection of the clients.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use anyhow::{Context as _, Result, bail};
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};
use yamux::{Config, Connection, Mode, Stream};

use crate::relay::{accept, copy, dial, listen};
use crate::role::Ready;
use crate::tls_relay::{Identity, NAME, client_config};

/// Connections that may wait for a stream; more wait to be accepted.
const WAITING: usize = 64;

/// The role at the clients: TCP in, a stream of the tunnel out. It opens the tunnel.
#[derive(Debug, Serialize, Deserialize)]
pub struct YamuxEntry {
    /// Port 0 for any.
    pub listen: SocketAddr,
    /// The exit.
    pub to: SocketAddr,
    /// The exit's certificate, DER.
    pub certificate: Vec<u8>,
    /// The tunnel's congestion control in this direction, `cubic` or `bbr`. Setting it needs CAP_NET_ADMIN where the machine does
    /// not list it in `net.ipv4.tcp_allowed_congestion_control`.
    pub congestion: String,
}

/// The role at the service: streams of the tunnel in, TCP out. It makes its certificate itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct YamuxExit {
    /// Port 0 for any.
    pub listen: SocketAddr,
    /// The service.
    pub to: SocketAddr,
    /// The tunnel's congestion control in this direction, `cubic` or `bbr`.
    pub congestion: String,
}

/// Who wants a stream.
type Wanted = oneshot::Sender<Stream>;

impl YamuxEntry {
    /// Plays the role until it is killed or the tunnel is lost.
    pub async fn run(self) -> Result<()> {
        let connector = TlsConnector::from(Arc::new(client_config(self.certificate)?));
        let tcp = dial(self.to).await?;
        set_congestion(&tcp, &self.congestion)?;
        let tls = connector.connect(ServerName::try_from(NAME)?, tcp).await?;
        let connection = Connection::new(tls.compat(), Config::default(), Mode::Client);
        let (want, wanted) = mpsc::channel(WAITING);
        let listener = listen(self.listen, Ready::at).await?;
        let clients = accept(listener, |near| copy(near, open(want.clone())));
        tokio::select! {
            driven = drive(connection, wanted) => driven,
            accepted = clients => accepted,
        }
    }
}

impl YamuxExit {
    /// Plays the role until it is killed.
    pub async fn run(self) -> Result<()> {
        let identity = Identity::generate()?;
        let certificate = Some(identity.certificate());
        let acceptor = TlsAcceptor::from(Arc::new(identity.server_config()?));
        let listener = listen(self.listen, |address| Ready { address, certificate }).await?;
        accept(listener, |tcp| {
            let (acceptor, to, congested) = (acceptor.clone(), self.to, set_congestion(&tcp, &self.congestion));
            async move {
                congested?;
                let tls = acceptor.accept(tcp).await?;
                serve(Connection::new(tls.compat(), Config::default(), Mode::Server), to).await
            }
        })
        .await
    }
}

/// Asks the tunnel's driver for a stream.
async fn open(want: mpsc::Sender<Wanted>) -> Result<Compat<Stream>> {
    let (wanted, opened) = oneshot::channel();
    want.send(wanted).await.context("the tunnel is lost")?;
    Ok(opened.await.context("the tunnel is lost")?.compat())
}

/// Moves the tunnel's bytes, and opens the streams that are wanted, until it is lost.
async fn drive<T>(mut connection: Connection<T>, mut wanted: mpsc::Receiver<Wanted>) -> Result<()>
where
    T: futures_util::io::AsyncRead + futures_util::io::AsyncWrite + Unpin,
{
    let mut next: Option<Wanted> = None;
    loop {
        let opened = poll_fn(|context| {
            if next.is_none()
                && let Poll::Ready(wanted) = wanted.poll_recv(context)
            {
                next = wanted;
            }
            if next.is_some()
                && let Poll::Ready(opened) = connection.poll_new_outbound(context)
            {
                return Poll::Ready(Some(opened));
            }
            // This is what reads and writes the connection. The exit opens no streams.
            connection.poll_next_inbound(context).map(|inbound| inbound.and_then(Result::err).map(Err))
        });
        let Some(opened) = opened.await else { bail!("the exit has ended the tunnel") };
        let stream = opened.context("the tunnel is lost")?;
        if let Some(wanted) = next.take() {
            // Who wanted it may have gone.
            let _dropped: Result<(), Stream> = wanted.send(stream);
        }
    }
}

/// Connects each stream of the tunnel to the service, until it is lost.
async fn serve<T>(mut connection: Connection<T>, to: SocketAddr) -> Result<()>
where
    T: futures_util::io::AsyncRead + futures_util::io::AsyncWrite + Unpin,
{
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            inbound = poll_fn(|context| connection.poll_next_inbound(context)) => match inbound {
                Some(stream) => _ = streams.spawn(copy(stream?.compat(), dial(to))),
                None => return Ok(()),
            },
            // A client that leaves in the middle ends its stream only.
            Some(_) = streams.join_next() => {}
        }
    }
}

fn set_congestion(tcp: &TcpStream, name: &str) -> Result<()> {
    let set = SockRef::from(tcp).set_tcp_congestion(name.as_bytes());
    set.with_context(|| format!("TCP's congestion control {name} is not allowed here"))
}

#[cfg(test)]
mod tests {
    use ::tests::Service;
    use ::tests::service::echo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn streams_carry_bytes_both_ways_beside_each_other() -> Result<()> {
        let service: Service = echo::start().await?;
        let (near, far) = tokio::io::duplex(1024);
        let (want, wanted) = mpsc::channel(1);
        let entry = Connection::new(near.compat(), Config::default(), Mode::Client);
        let exit = Connection::new(far.compat(), Config::default(), Mode::Server);
        let talk = async {
            let mut streams = [open(want.clone()).await?, open(want.clone()).await?];
            for (number, stream) in streams.iter_mut().enumerate().rev() {
                stream.write_all(&[u8::try_from(number)?; 5000]).await?;
            }
            for (number, stream) in streams.iter_mut().enumerate() {
                let mut echo = [9; 5000];
                stream.read_exact(&mut echo).await?;
                assert_eq!(echo, [u8::try_from(number)?; 5000]);
            }
            anyhow::Ok(())
        };
        tokio::select! {
            lost = drive(entry, wanted) => lost.context("the entry's end"),
            lost = serve(exit, service.address()) => lost.context("the exit's end"),
            talked = talk => talked,
        }
    }
}
