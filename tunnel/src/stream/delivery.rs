//! Whether the peer of a TCP connection has everything that was written: a close that resets throws away the rest.

use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::stream::ending::PARTING;

/// `AF_NETLINK`, and `NETLINK_SOCK_DIAG` in it (sock_diag(7)).
const NETLINK: i32 = 16;
const SOCK_DIAG: i32 = 4;

/// `SOCK_DIAG_BY_FAMILY`, the type of the question and of its answer.
const BY_FAMILY: u16 = 20;

/// Where `struct inet_diag_msg` has the socket's state and the bytes that are not acknowledged, behind the header of its message.
const STATE: usize = 16 + 1;
const UNACKNOWLEDGED: usize = 16 + 56 + 4;

/// `TCP_LISTEN`: of a connection that is gone the kernel finds the listener.
const LISTEN: u8 = 10;

/// Between two looks, at first and at last.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];

/// A TCP connection, named by its ends.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    local: SocketAddr,
    peer: SocketAddr,
}

impl Delivery {
    /// What is written to `tcp`; nothing where it has broken off already.
    pub fn of(tcp: &TcpStream) -> Option<Self> {
        Some(Self { local: tcp.local_addr().ok()?, peer: tcp.peer_addr().ok()? })
    }

    /// Waits until the peer has everything, at most [`PARTING`]. The connection must not be closed meanwhile.
    pub async fn done(self) {
        let delivered = async {
            let [mut pause, last] = PAUSES;
            // Of a connection that is gone, or where the kernel does not tell, nothing can be waited for.
            while self.unacknowledged().is_ok_and(|bytes| bytes > 0) {
                sleep(pause).await;
                pause = last.min(2 * pause);
            }
        };
        // Who has not taken it by then loses it.
        let _ = timeout(PARTING, delivered).await;
    }

    /// The kernel knows it by `SIOCOUTQ`, too, for which there is no safe call.
    fn unacknowledged(&self) -> io::Result<u32> {
        let mut socket = Socket::new(Domain::from(NETLINK), Type::DGRAM, Some(Protocol::from(SOCK_DIAG)))?;
        // The answer is there when the question is sent.
        socket.set_nonblocking(true)?;
        socket.send(&self.question())?;
        let mut answer = [0; 512];
        let count = socket.read(&mut answer)?;
        let known = answer[4..6] == BY_FAMILY.to_ne_bytes() && answer[STATE] != LISTEN;
        let word = answer[..count].get(UNACKNOWLEDGED..).and_then(|rest| rest.first_chunk()).filter(|_| known);
        word.map(|word| u32::from_ne_bytes(*word)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// `struct nlmsghdr` and `struct inet_diag_req_v2`.
    fn question(&self) -> [u8; 72] {
        let family = if self.local.is_ipv4() { 2_u8 } else { 10 };
        let address = |address: IpAddr| match address {
            IpAddr::V4(address) => {
                let mut octets = [0; 16];
                octets[..4].copy_from_slice(&address.octets());
                octets
            }
            IpAddr::V6(address) => address.octets(),
        };
        let mut question = [0; 72];
        question[..4].copy_from_slice(&72_u32.to_ne_bytes());
        question[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        // A request.
        question[6..8].copy_from_slice(&1_u16.to_ne_bytes());
        // Of TCP, in any state.
        question[16..18].copy_from_slice(&[family, 6]);
        question[20..24].fill(0xff);
        question[24..26].copy_from_slice(&self.local.port().to_be_bytes());
        question[26..28].copy_from_slice(&self.peer.port().to_be_bytes());
        question[28..44].copy_from_slice(&address(self.local.ip()));
        question[44..60].copy_from_slice(&address(self.peer.ip()));
        // On any interface, with any cookie.
        question[64..72].fill(0xff);
        question
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinSet,
    };

    use super::*;

    /// More than the kernel takes for a peer that does not read.
    const MUCH: usize = 32 << 20;

    #[tokio::test]
    async fn what_a_peer_has_not_taken_is_known_until_it_has() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).await.unwrap();
            let connecting = TcpStream::connect(listener.local_addr().unwrap());
            let (mut client, (mut server, _)) = tokio::try_join!(connecting, listener.accept()).unwrap();
            let delivery = Delivery::of(&server).unwrap();
            assert_eq!(delivery.unacknowledged().unwrap(), 0);
            delivery.done().await;
            let bytes = vec![7; MUCH];
            let written = timeout(Duration::from_millis(200), server.write_all(&bytes)).await;
            assert!(written.is_err(), "the kernel takes all of it");
            let held = delivery.unacknowledged().unwrap();
            assert!(held > 0);
            let mut reading = JoinSet::new();
            reading.spawn(async move {
                let mut taken = 0;
                while let Ok(count @ 1..) = client.read(&mut [0; 65536]).await {
                    taken += count;
                }
                taken
            });
            delivery.done().await;
            assert_eq!(delivery.unacknowledged().unwrap(), 0);
            server.set_zero_linger().unwrap();
            drop(server);
            assert!(reading.join_next().await.unwrap().unwrap() >= usize::try_from(held).unwrap());
            assert!(delivery.unacknowledged().is_err());
        }
    }
}
