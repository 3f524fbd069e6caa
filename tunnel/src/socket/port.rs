//! The hub's UDP port: a socket for each worker, and which of them a datagram is for.
//!
//! A tunnel lives on one worker, wherever its agent's packets come from: the kernel steers by the connection id, whose first
//! byte names the worker, and not by addresses, which a NAT may change under a tunnel.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    socket::id::{self, IdKey},
    socket::steering::{Share, Steering},
};

/// Room for bursts of a whole congestion window; with the kernel's default of 212 KiB, quinn loses about a thousand
/// datagrams a second at full speed on loopback.
const SOCKET_BUFFER: usize = 4 << 20;

/// One worker's socket of the hub's port. Bound and not yet served.
#[derive(Debug)]
pub struct PortSocket {
    pub(crate) socket: std::net::UdpSocket,
    pub(crate) worker: Worker,
}

/// Which worker of how many.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    index: u8,
    count: u8,
    generation: u8,
    /// No other process has tunnels on this port.
    alone: Arc<AtomicBool>,
}

/// Makes connection ids that lead to one worker, and tells [`id::drawn`] of each.
struct SteeredIds {
    key: IdKey,
    worker: Worker,
}

impl PortSocket {
    /// Opens `address` (port 0 for any; `[::]` serves IPv4 too) with a socket for each of `workers`, 1..=255.
    pub fn bind(address: SocketAddr, workers: u8) -> io::Result<(Vec<Self>, Steering)> {
        // Alone first: sockets that share a port would share it with another hub of this user, too.
        let address = open(address, false)?.local_addr()?;
        Self::share(address, Share::alone(workers.max(1)), None)
    }

    /// As [`Self::bind`], beside the sockets of a process that is about to end: it goes on with its tunnels, and what is new
    /// comes here. An error where that has been done too often in a row.
    pub fn bind_beside(address: SocketAddr, workers: u8, before: Share) -> io::Result<(Vec<Self>, Steering)> {
        let own = Share::after(before, workers.max(1)).ok_or(io::ErrorKind::AddrInUse)?;
        Self::share(address, own, Some(before))
    }

    fn share(address: SocketAddr, own: Share, before: Option<Share>) -> io::Result<(Vec<Self>, Steering)> {
        let Share { workers: count, generation, .. } = own;
        let alone = Arc::new(AtomicBool::new(before.is_none()));
        let worker = |index| Worker { index, count, generation, alone: alone.clone() };
        let sockets: Vec<_> = (0..count)
            .map(|index| Ok(Self { socket: open(address, true)?, worker: worker(index) }))
            .collect::<io::Result<_>>()?;
        let placeholders = (0..own.places()).map(|_| open(address, true)).collect::<io::Result<_>>()?;
        let first = sockets.first().ok_or(io::ErrorKind::AddrNotAvailable)?.socket.try_clone()?;
        Ok((sockets, Steering::begin(own, before, first, placeholders, alone)?))
    }

    /// The address really bound.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl Worker {
    /// Connection ids that lead to this worker, and that a hub with the same `key` recognises after a restart.
    pub(crate) fn ids(&self, key: IdKey) -> Box<dyn ConnectionIdGenerator> {
        Box::new(SteeredIds { key, worker: self.clone() })
    }

    /// Whether the kernel gives this worker what is for an id.
    fn is_led_to_by(&self, id: &[u8]) -> bool {
        id.first().is_some_and(|first| first % self.count == self.index)
    }

    fn is_of_this_process(&self, id: &[u8]) -> bool {
        id.get(1).is_some_and(|second| second & 1 == self.generation)
    }
}

impl ConnectionIdGenerator for SteeredIds {
    fn generate_cid(&mut self) -> ConnectionId {
        // The first bytes are random: a few tries for each worker there is.
        loop {
            let number: u64 = rand::random();
            let bytes = number.to_be_bytes();
            if self.worker.is_led_to_by(&bytes) && self.worker.is_of_this_process(&bytes) {
                id::drew(number);
                return self.key.id(number);
            }
        }
    }

    /// Whether an id of which nothing is known was one: who sends to it is told that its tunnel is gone, and with it the secret that
    /// ends the tunnel. So never of an id that may be known to another worker or process, to which a packet would lead that came
    /// alone: the kernel hands over several as one, to where the first of them leads.
    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let own = self.worker.is_of_this_process(id) || self.worker.alone.load(Ordering::Relaxed);
        let was_one = self.worker.is_led_to_by(id) && own && self.key.has_made(id);
        was_one.then_some(()).ok_or(InvalidCid)
    }

    fn cid_len(&self) -> usize {
        id::LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// A bound, non-blocking socket with large buffers.
pub(crate) fn open(address: SocketAddr, shared: bool) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    // The kernel reports twice what it grants (socket(7)).
    let granted = socket.recv_buffer_size()?.min(socket.send_buffer_size()?) / 2;
    if granted < SOCKET_BUFFER {
        tracing::warn!(
            granted,
            wanted = SOCKET_BUFFER,
            "small UDP buffers will lose datagrams at speed; set sysctl net.core.rmem_max and net.core.wmem_max"
        );
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, time::Duration};

    use super::*;
    use crate::RESET_KEY_LENGTH;

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn ids_lead_to_their_worker_and_nobody_else_says_that_one_was_there() {
        let of = |index, generation, alone| {
            let alone = Arc::new(AtomicBool::new(alone));
            Worker { index, count: 3, generation, alone }.ids(IdKey::new(&[7; RESET_KEY_LENGTH]))
        };
        for index in 0..3 {
            let mut ids = of(index, 0, true);
            for _ in 0..100 {
                let id = ids.generate_cid();
                assert_eq!((id[0] % 3, id[1] & 1, id.len()), (index, 0, ids.cid_len()));
                assert!(ids.validate(&id).is_ok() && of(index, 0, false).validate(&id).is_ok(), "its own");
                assert!(of((index + 1) % 3, 0, true).validate(&id).is_err(), "another worker's");
                assert!(of(index, 1, false).validate(&id).is_err(), "that of the process beside");
                assert!(of(index, 1, true).validate(&id).is_ok(), "that of a process that has ended");
                let mut forged = id.to_vec();
                forged[5] ^= 1;
                assert!(ids.validate(&ConnectionId::new(&forged)).is_err());
            }
        }
    }

    #[test]
    fn a_datagram_reaches_the_worker_of_its_connection_id_from_any_address() {
        let (sockets, _steering) = PortSocket::bind(LOOPBACK, 3).unwrap();
        let to = sockets[0].local_address().unwrap();
        for PortSocket { socket, .. } in &sockets {
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        for first in 0..=255 {
            let client = UdpSocket::bind(LOOPBACK).unwrap();
            let short = [0x40, first, 9, 9, 9, 9, 9, 9, 9];
            let long = [0xc0, 0, 0, 0, 1, 8, first, 9, 9, 9, 9, 9, 9, 9];
            for datagram in [&short[..], &long[..]] {
                client.send_to(datagram, to).unwrap();
                let mut buffer = [0; 64];
                let owner = &sockets[usize::from(first % 3)];
                assert_eq!(owner.socket.recv(&mut buffer).unwrap(), datagram.len());
            }
        }
    }

    #[test]
    fn a_port_in_use_is_refused_to_one_worker_and_to_many() {
        let (sockets, _steering) = PortSocket::bind(LOOPBACK, 2).unwrap();
        let address = sockets[0].local_address().unwrap();
        for workers in [1, 2] {
            assert_eq!(PortSocket::bind(address, workers).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn two_processes_share_a_port_by_the_generation_of_ids_and_the_end_of_one_moves_nothing() {
        let (before, first) = PortSocket::bind(LOOPBACK, 2).unwrap();
        let to = before[0].local_address().unwrap();
        let (after, second) = PortSocket::bind_beside(to, 3, first.share()).unwrap();
        assert_eq!(second.share(), Share { first: 2, workers: 3, sockets: 5, generation: 1 });
        for PortSocket { socket, .. } in before.iter().chain(&after) {
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        let arrives = |datagram: &[u8], owner: &PortSocket| {
            UdpSocket::bind(LOOPBACK).unwrap().send_to(datagram, to).unwrap();
            assert_eq!(owner.socket.recv(&mut [0; 64]).unwrap(), datagram.len(), "{datagram:?}");
        };
        let handshake = |worker, generation| [0xe0, 0, 0, 0, 1, 8, worker, generation, 9, 9, 9, 9, 9, 9];
        let short = |worker, generation| [0x40, worker, generation, 9, 9, 9, 9, 9, 9];
        for worker in 0..6 {
            let (old, new) = (&before[usize::from(worker % 2)], &after[usize::from(worker % 3)]);
            arrives(&short(worker, 4), old);
            arrives(&short(worker, 5), new);
            arrives(&handshake(worker, 4), old);
            arrives(&handshake(worker, 5), new);
            // What begins is new, whatever id it has drawn.
            arrives(&[0xc0, 0, 0, 0, 1, 8, worker, 4, 9, 9, 9, 9, 9, 9], new);
        }
        // In either order, as a process that dies closes them.
        drop((before, first));
        let settled = |worker: u8| arrives(&short(worker, 5), &after[usize::from(worker % 3)]);
        (0..6).for_each(settled);
        second.settle().unwrap();
        for worker in 0..6 {
            settled(worker);
            arrives(&short(worker, 4), &after[usize::from(worker % 3)]);
        }
        let (third, steering) = PortSocket::bind_beside(to, 1, second.share()).unwrap();
        assert_eq!(steering.share(), Share { first: 5, workers: 1, sockets: 6, generation: 0 });
        third[0].socket.set_nonblocking(false).unwrap();
        third[0].socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        arrives(&short(3, 4), &third[0]);
        drop(after.into_iter().rev().collect::<Vec<_>>());
        drop(second);
        arrives(&short(3, 4), &third[0]);
    }
}
