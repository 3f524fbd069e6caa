//! The hub's UDP port: a socket for each worker, and which of them a datagram is for.
//!
//! A tunnel lives on one worker, wherever its agent's packets come from: the kernel steers by the connection id, whose first
//! byte names the worker, and not by addresses, which a NAT may change under a tunnel.

use std::{io, net::SocketAddr};

use nix::{
    libc,
    sys::socket::{setsockopt, sockopt::AttachReusePortCbpf},
};
use quinn_proto::{ConnectionId, ConnectionIdGenerator, HashedConnectionIdGenerator, InvalidCid};
use socket2::{Domain, Protocol, Socket, Type};

use crate::reset;

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
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worker {
    index: u8,
    count: u8,
}

/// Makes connection ids that lead to one worker, and tells [`reset::drawn_id`] of each.
struct SteeredIds {
    ids: HashedConnectionIdGenerator,
    worker: Worker,
}

impl PortSocket {
    /// Opens `address` (port 0 for any; `[::]` serves IPv4 too) with a socket for each of `workers`, 1..=255.
    pub fn bind(address: SocketAddr, workers: u8) -> io::Result<Vec<Self>> {
        // Alone first: sockets that share a port would share it with another hub of this user, too.
        let alone = open(address, false)?;
        if workers <= 1 {
            return Ok(vec![Self { socket: alone, worker: Worker { index: 0, count: 1 } }]);
        }
        let address = alone.local_addr()?;
        drop(alone);
        let sockets: Vec<_> = (0..workers)
            .map(|index| Ok(Self { socket: open(address, true)?, worker: Worker { index, count: workers } }))
            .collect::<io::Result<_>>()?;
        steer(&sockets)?;
        Ok(sockets)
    }

    /// The address really bound.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl Worker {
    /// Connection ids that lead to this worker, and that a hub with the same `key` recognises after a restart.
    pub(crate) fn ids(self, key: u64) -> Box<dyn ConnectionIdGenerator> {
        Box::new(SteeredIds { ids: HashedConnectionIdGenerator::from_key(key), worker: self })
    }

    fn owns(self, id: &ConnectionId) -> bool {
        id.first().is_some_and(|first| first % self.count == self.index)
    }
}

impl ConnectionIdGenerator for SteeredIds {
    fn generate_cid(&mut self) -> ConnectionId {
        // The first byte is random: a few tries for each worker there is.
        loop {
            let id = self.ids.generate_cid();
            if self.worker.owns(&id) {
                reset::drew(&id);
                return id;
            }
        }
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        self.ids.validate(id)
    }

    fn cid_len(&self) -> usize {
        self.ids.cid_len()
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        self.ids.cid_lifetime()
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

/// Has the kernel choose the socket by the first byte of the destination's connection id: at offset 6 behind a long header's
/// version and length, at offset 1 of a short one (RFC 9000 section 17). A client's first id is its own and random; whatever
/// socket it leads to answers with an id that leads there again. What is shorter goes to the first socket.
fn steer(sockets: &[PortSocket]) -> io::Result<()> {
    let Some(PortSocket { socket, worker }) = sockets.first() else { return Ok(()) };
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load_byte = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    let mut program = [
        instruction(load_byte, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 2, 0x80),
        instruction(load_byte, 0, 0, 6),
        instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, 1),
        instruction(load_byte, 0, 0, 1),
        instruction(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, 0, 0, worker.count.into()),
        instruction(libc::BPF_RET | libc::BPF_A, 0, 0, 0),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    Ok(setsockopt(socket, AttachReusePortCbpf, &program)?)
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, time::Duration};

    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn ids_lead_to_their_worker_and_are_recognised_by_all() {
        let workers = [0, 1, 2].map(|index| Worker { index, count: 3 });
        for worker in workers {
            let mut ids = worker.ids(7);
            for _ in 0..100 {
                let id = ids.generate_cid();
                assert!(worker.owns(&id));
                assert!(workers.iter().all(|other| other.ids(7).validate(&id).is_ok()));
                assert!(worker.ids(8).validate(&id).is_err());
            }
        }
    }

    #[test]
    fn a_datagram_reaches_the_worker_of_its_connection_id_from_any_address() {
        let sockets = PortSocket::bind(LOOPBACK, 3).unwrap();
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
        let sockets = PortSocket::bind(LOOPBACK, 2).unwrap();
        let address = sockets[0].local_address().unwrap();
        for workers in [1, 2] {
            assert_eq!(PortSocket::bind(address, workers).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
    }
}
