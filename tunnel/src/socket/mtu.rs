//! How large a packet may be, and what the kernel knows of that before one is sent.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    str::FromStr,
};

use nix::sys::socket::{getsockopt, sockopt::IpMtu};

/// IPv6 and UDP headers; IPv4's are smaller.
const HEADERS: u16 = 48;

/// UDP payload of a jumbo frame. Larger frames are no standard, and ten datagrams of more than 6.5 KiB do not fit one
/// system call.
pub(crate) const LARGEST_DATAGRAM: u16 = Mtu::JUMBO.0 - HEADERS;

/// A size of IP packets in bytes, 1280..=9000; 9000 by default.
///
/// It bounds what path MTU discovery (RFC 8899) tries. Where the path carries jumbo frames, a byte costs 0.6 of the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtu(u16);

/// Not a number of bytes from 1280 to 9000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be from 1280 to 9000, the size of IP packets in bytes")]
pub struct MtuError;

impl Mtu {
    /// What every IPv6 link carries (RFC 8200 section 5).
    const SMALLEST: Self = Self(1280);
    /// Ethernet's, and so the internet's.
    pub(crate) const ETHERNET: Self = Self(1500);
    /// The usual jumbo frame's.
    const JUMBO: Self = Self(9000);

    /// What the first link towards `peer` carries. Links behind it may carry less.
    pub(crate) fn towards(peer: SocketAddr) -> Self {
        let mtu = match SocketAddr::new(peer.ip().to_canonical(), peer.port()) {
            SocketAddr::V4(peer) => first_link(peer.into()).ok(),
            // IPV6_MTU cannot be read without unsafe code: jumbo frames are used over IPv4 only.
            SocketAddr::V6(_) => None,
        };
        mtu.map_or(Self::ETHERNET, |mtu| Self(mtu).clamp(Self::SMALLEST, Self::JUMBO))
    }

    pub(crate) fn new(bytes: u16) -> Result<Self, MtuError> {
        let mtu = Self(bytes);
        if (Self::SMALLEST..=Self::JUMBO).contains(&mtu) { Ok(mtu) } else { Err(MtuError) }
    }

    pub(crate) fn bytes(self) -> u16 {
        self.0
    }

    /// The UDP payload of such a packet.
    pub(crate) fn datagram(self) -> u16 {
        self.0 - HEADERS
    }
}

/// The IP packet around a UDP payload, in bytes.
pub(crate) fn packet(datagram: u16) -> u16 {
    datagram + HEADERS
}

/// Nothing is sent: connecting a UDP socket looks up the route (ip(7), IP_MTU).
fn first_link(peer: SocketAddr) -> io::Result<u16> {
    let socket = UdpSocket::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), 0))?;
    socket.connect(peer)?;
    let mtu = getsockopt(&socket, IpMtu)?;
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

impl Default for Mtu {
    fn default() -> Self {
        Self::JUMBO
    }
}

impl FromStr for Mtu {
    type Err = MtuError;

    fn from_str(text: &str) -> Result<Self, MtuError> {
        Self::new(text.parse().map_err(|_| MtuError)?)
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_carries_jumbo_frames_and_an_unroutable_address_is_taken_for_ethernet() {
        assert_eq!(Mtu::towards(([127, 0, 0, 1], 9).into()), Mtu::JUMBO);
        assert_eq!(Mtu::towards(([255, 255, 255, 255], 9).into()), Mtu::ETHERNET);
    }

    #[test]
    fn sizes_are_read_within_their_range() {
        assert_eq!("1500".parse(), Ok(Mtu::ETHERNET));
        assert_eq!(Mtu::default().to_string().parse(), Ok(Mtu::JUMBO));
        for wrong in ["1279", "9001", "65536", "-1", "", "x"] {
            assert_eq!(wrong.parse::<Mtu>(), Err(MtuError), "{wrong}");
        }
    }
}
