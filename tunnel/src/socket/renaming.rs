//! Peers that quinn is to take for peers at another address, of a path of which it knows nothing yet.
//!
//! What quinn knows of a path it forgets when the peer moves to another address (RFC 9000 section 9.4), and not otherwise: a path that
//! has become narrow under it eats packet after packet, see [`crate::liveness`]. So a peer's address is shown in another form, as one
//! of IPv6 (RFC 4291 section 2.5.5.2) or with another flow label, and taken for what it is where something is sent to it.

use std::{
    collections::HashSet,
    net::{SocketAddr, SocketAddrV6},
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;

/// Peers that are renamed at a time. With one more all have their own names again, which is one more move of each.
const MOST: usize = 4096;

/// A label that no peer's address has: they come without one.
const LABEL: u32 = 1;

#[derive(Debug, Default)]
pub(crate) struct Renaming {
    peers: Mutex<HashSet<SocketAddr>>,
    /// There are some.
    any: AtomicBool,
}

impl Renaming {
    /// Renames a peer, or gives it its own name again, and so on.
    pub(crate) fn turn(&self, peer: SocketAddr) {
        let mut peers = self.peers.lock();
        if !peers.remove(&peer) {
            if peers.len() >= MOST {
                peers.clear();
            }
            peers.insert(peer);
        }
        self.any.store(!peers.is_empty(), Ordering::Relaxed);
    }

    /// What quinn is to take a peer for.
    pub(crate) fn shown(&self, peer: SocketAddr) -> SocketAddr {
        if !self.any.load(Ordering::Relaxed) || !self.peers.lock().contains(&peer) {
            return peer;
        }
        match peer {
            SocketAddr::V4(peer) => SocketAddrV6::new(peer.ip().to_ipv6_mapped(), peer.port(), LABEL, 0).into(),
            SocketAddr::V6(peer) => SocketAddrV6::new(*peer.ip(), peer.port(), LABEL, peer.scope_id()).into(),
        }
    }
}

/// The peer's address itself, for a socket that is of IPv4 or not.
pub(crate) fn own(shown: SocketAddr, v4: bool) -> SocketAddr {
    match shown {
        SocketAddr::V6(peer) if peer.flowinfo() == LABEL => match peer.ip().to_ipv4_mapped() {
            Some(ip) if v4 => SocketAddr::from((ip, peer.port())),
            Some(_) | None => SocketAddrV6::new(*peer.ip(), peer.port(), 0, peer.scope_id()).into(),
        },
        SocketAddr::V4(_) | SocketAddr::V6(_) => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_another_name_and_its_own_again() {
        for (peer, v4) in [("192.0.2.1:7", true), ("[::ffff:192.0.2.1]:7", false), ("[2001:db8::1]:7", false)] {
            let (peer, renaming) = (peer.parse::<SocketAddr>().unwrap(), Renaming::default());
            assert_eq!((renaming.shown(peer), own(peer, v4)), (peer, peer));
            renaming.turn(peer);
            let shown = renaming.shown(peer);
            assert_ne!(shown, peer);
            assert!(!shown.is_ipv4(), "quinn takes another port of an IPv4 address for the same path");
            assert_eq!((own(shown, v4), shown.ip().to_canonical()), (peer, peer.ip().to_canonical()));
            let other = "198.51.100.1:7".parse().unwrap();
            assert_eq!(renaming.shown(other), other);
            renaming.turn(peer);
            assert_eq!(renaming.shown(peer), peer);
        }
    }

    #[test]
    fn as_many_are_renamed_as_there_is_room_for() {
        let renaming = Renaming::default();
        for port in 1..=u16::try_from(MOST).unwrap() + 1 {
            renaming.turn(([192, 0, 2, 1], port).into());
        }
        assert_eq!(renaming.peers.lock().len(), 1);
    }
}
