//! A NAT in user space before a UDP server, which gives its clients other addresses in mid-connection.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The longest payload of a UDP datagram.
const LONGEST: usize = 65_507;

/// A NAT: what comes to [`Self::address`] goes on to one server, from an outer socket for each client. It ends when dropped.
#[derive(Debug)]
pub struct Nat {
    address: SocketAddr,
    /// The outer address of all mappings from now on. A change forgets those there were.
    outer: watch::Sender<Ipv4Addr>,
    _task: JoinSet<()>,
}

/// One client's way to the server: its socket, and the task that carries the answers back. Both end when dropped, as a mapping
/// does that a NAT has forgotten: what the server still sends there reaches nobody.
struct Mapping {
    socket: Arc<UdpSocket>,
    _answers: JoinSet<()>,
}

impl Nat {
    /// Starts one before `server`, an address of 127.0.0.0/8.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let inner = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no socket for the NAT")?;
        let address = inner.local_addr()?;
        let (outer, outers) = watch::channel(Ipv4Addr::LOCALHOST);
        let mut task = JoinSet::new();
        task.spawn(async move {
            // A socket that fails ends the NAT: what goes through it shows that.
            let _ended: io::Result<()> = translate(Arc::new(inner), server, outers).await;
        });
        Ok(Self { address, outer, _task: task })
    }

    /// Where clients send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Forgets all mappings. Whoever goes on sending gets a new one, with another port at this address of 127.0.0.0/8.
    pub fn rebind(&self, outer: Ipv4Addr) {
        self.outer.send_replace(outer);
    }
}

async fn translate(inner: Arc<UdpSocket>, server: SocketAddr, mut outer: watch::Receiver<Ipv4Addr>) -> io::Result<()> {
    let mut mappings: HashMap<SocketAddr, Mapping> = HashMap::new();
    let mut datagram = vec![0; LONGEST];
    loop {
        tokio::select! {
            biased;
            changed = outer.changed() => match changed {
                Ok(()) => mappings.clear(),
                Err(_) => return Ok(()),
            },
            received = inner.recv_from(&mut datagram) => {
                let (length, client) = received?;
                let mapping = match mappings.entry(client) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => {
                        let address = IpAddr::from(*outer.borrow());
                        new.insert(Mapping::new(&inner, client, address, server).await?)
                    }
                };
                // What cannot be sent is lost, as on any network.
                let _sent: io::Result<usize> = mapping.socket.send(&datagram[..length]).await;
            }
        }
    }
}

impl Mapping {
    async fn new(inner: &Arc<UdpSocket>, client: SocketAddr, outer: IpAddr, server: SocketAddr) -> io::Result<Self> {
        let socket = Arc::new(UdpSocket::bind((outer, 0)).await?);
        socket.connect(server).await?;
        let mut answers = JoinSet::new();
        let (from, to) = (Arc::clone(&socket), Arc::clone(inner));
        answers.spawn(async move {
            let mut datagram = vec![0; LONGEST];
            while let Ok(length) = from.recv(&mut datagram).await {
                let _sent: io::Result<usize> = to.send_to(&datagram[..length], client).await;
            }
        });
        Ok(Self { socket, _answers: answers })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const BOUND: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn answers_come_back_and_a_new_mapping_has_another_address() -> Result<()> {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let nat = Nat::start(server.local_addr()?).await?;
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        client.connect(nat.address()).await?;
        let other = Ipv4Addr::new(127, 0, 0, 2);
        let mut seen = Vec::new();
        for outer in [Ipv4Addr::LOCALHOST, other] {
            nat.rebind(outer);
            client.send(b"question").await?;
            let mut datagram = [0; 16];
            let (length, from) = timeout(BOUND, server.recv_from(&mut datagram)).await??;
            assert_eq!(&datagram[..length], b"question");
            assert_eq!(from.ip(), IpAddr::from(outer));
            server.send_to(b"answer", from).await?;
            let length = timeout(BOUND, client.recv(&mut datagram)).await??;
            assert_eq!(&datagram[..length], b"answer");
            seen.push(from);
        }
        // What is sent to the mapping that was forgotten reaches nobody, and not the client.
        server.send_to(b"late", seen[0]).await?;
        server.send_to(b"now", seen[1]).await?;
        let mut datagram = [0; 16];
        let length = timeout(BOUND, client.recv(&mut datagram)).await??;
        assert_eq!(&datagram[..length], b"now");
        Ok(())
    }
}
