//! Targets: small services on loopback that behave, or misbehave, in one named way.

pub mod apiserver;
pub mod authority;
pub mod banner;
pub mod black_hole;
pub mod echo;
pub mod half_close;
pub mod reset;
pub mod silent;
pub mod stalled;
pub mod transfer;
pub mod web;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How long accepting rests after an error: out of file descriptors, one try each moment does no harm.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// What fits a packet of 1500 bytes.
const ETHERNET_SEGMENT: u32 = 1448;

/// A TCP service on a port of its own. Dropping it closes its listener and all its connections at once, which its clients see
/// exactly as they would see the process of a real service killed: no farewell of any protocol above TCP.
#[derive(Debug)]
pub struct Service {
    address: SocketAddr,
    counts: watch::Receiver<Counts>,
    /// The accept loop, which owns the connections' tasks.
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: usize,
    open: usize,
}

/// One connection in [`Counts`]: it is open until this is dropped.
struct Open(watch::Sender<Counts>);

impl Service {
    /// Serves each connection to 127.0.0.1 on a free port with `serve`. An error it gives ends that connection only.
    pub async fn start<S, F>(serve: S) -> io::Result<Self>
    where
        S: FnMut(TcpStream) -> F + Send + 'static,
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), serve).await
    }

    /// As [`Self::start`] on another address of this machine, e.g. `::1`.
    pub async fn start_at<S, F>(address: IpAddr, serve: S) -> io::Result<Self>
    where
        S: FnMut(TcpStream) -> F + Send + 'static,
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        Self::serve(TcpListener::bind((address, 0)).await?, serve)
    }

    /// As [`Self::start`], for connections that hold little of the kernel's memory while nobody reads. With loopback's segments
    /// of 64 KiB each would take some 3 MiB, and a thousand of them all that the machine has for TCP (`net.ipv4.tcp_mem`).
    pub async fn start_narrow<S, F>(serve: S) -> io::Result<Self>
    where
        S: FnMut(TcpStream) -> F + Send + 'static,
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        SockRef::from(&listener).set_tcp_mss(ETHERNET_SEGMENT)?;
        Self::serve(listener, serve)
    }

    fn serve<S, F>(listener: TcpListener, serve: S) -> io::Result<Self>
    where
        S: FnMut(TcpStream) -> F + Send + 'static,
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let address = listener.local_addr()?;
        let (sender, counts) = watch::channel(Counts::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, sender, serve));
        Ok(Self { address, counts, _tasks: tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections it has accepted so far.
    pub fn accepted(&self) -> usize {
        self.counts.borrow().accepted
    }

    /// How many connections it has open now.
    pub fn open(&self) -> usize {
        self.counts.borrow().open
    }
}

impl Open {
    fn new(counts: &watch::Sender<Counts>) -> Self {
        counts.send_modify(|counts| {
            counts.accepted += 1;
            counts.open += 1;
        });
        Self(counts.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|counts| counts.open -= 1);
    }
}

async fn accept<S, F>(listener: TcpListener, counts: watch::Sender<Counts>, mut serve: S)
where
    S: FnMut(TcpStream) -> F,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (open, served) = (Open::new(&counts), serve(stream));
                    connections.spawn(async move {
                        // A client that goes away in the middle is for its test to judge.
                        let _ended: io::Result<()> = served.await;
                        drop(open);
                    });
                }
                Err(_) => sleep(ACCEPT_REST).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::wait_until;

    #[tokio::test]
    async fn a_dropped_service_closes_its_connections_and_its_listener() -> anyhow::Result<()> {
        let service = silent::start().await?;
        let mut client = TcpStream::connect(service.address()).await?;
        wait_until(Duration::from_secs(5), "one connection", async || service.open() == 1).await?;
        let address = service.address();
        drop(service);
        assert_eq!(client.read(&mut [0]).await?, 0);
        wait_until(Duration::from_secs(5), "a closed port", async || TcpStream::connect(address).await.is_err()).await
    }

    #[tokio::test]
    async fn connections_are_counted() -> anyhow::Result<()> {
        let service = echo::start().await?;
        let clients = [TcpStream::connect(service.address()).await?, TcpStream::connect(service.address()).await?];
        wait_until(Duration::from_secs(5), "two connections", async || service.open() == 2).await?;
        drop(clients);
        wait_until(Duration::from_secs(5), "no connection", async || service.open() == 0).await?;
        assert_eq!(service.accepted(), 2);
        Ok(())
    }
}
