//! Resets of tunnels whose hub process is gone (stateless resets, RFC 9000 section 10.3): what has to be kept of a tunnel
//! so that a later process can reset it unasked.
//!
//! A hub that was killed says nothing, and its agents would find out by their next keep-alive. The token of a reset is
//! made of the hub's reset key and the connection id that the agent sends to, so the next process can send it at once;
//! nobody else can, and to an agent whose tunnel is another by now it is noise.

use std::{
    fmt,
    net::{AddrParseError, SocketAddr},
    num::ParseIntError,
    str::FromStr,
};

use crate::{endpoint::RESET_KEY_LENGTH, socket::id::IdKey};
use aws_lc_rs::hmac;

/// Length of the token that ends a reset.
const TOKEN_LENGTH: usize = 16;

/// What precedes the token. With it a reset is as long as the hub's shortest packets, which are taken for what they are
/// by whatever is on the way.
const UNPREDICTABLE: usize = 24;

/// Where the agent of a tunnel is, and the number of the connection id that it sends to. Its text, `ADDRESS ID`, is for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resettable {
    pub(crate) agent: SocketAddr,
    pub(crate) id: u64,
}

/// A text is no [`Resettable`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResettableError {
    #[error("a tunnel is written as the agent's address and a connection id")]
    Shape,
    #[error("the agent's address cannot be read")]
    Address(#[source] AddrParseError),
    #[error("the connection id is no hexadecimal number of 64 bits")]
    Id(#[source] ParseIntError),
}

/// Makes the hub's resets.
#[derive(Debug)]
pub(crate) struct Resets {
    key: hmac::Key,
    ids: IdKey,
}

impl Resets {
    pub(crate) fn new(reset_key: &[u8; RESET_KEY_LENGTH]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, reset_key), ids: IdKey::new(reset_key) }
    }

    /// The datagram that resets a tunnel.
    pub(crate) fn datagram(&self, tunnel: &Resettable) -> [u8; UNPREDICTABLE + TOKEN_LENGTH] {
        let mut datagram = [0; UNPREDICTABLE + TOKEN_LENGTH];
        let (before, token) = datagram.split_at_mut(UNPREDICTABLE);
        rand::fill(before);
        // It must look like a packet with a short header: the first two bits are 0 and 1.
        before[0] = before[0] & 0x3f | 0x40;
        // As quinn makes them.
        token.copy_from_slice(&hmac::sign(&self.key, &self.ids.id(tunnel.id)).as_ref()[..TOKEN_LENGTH]);
        datagram
    }
}

impl fmt::Display for Resettable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:016x}", self.agent, self.id)
    }
}

impl FromStr for Resettable {
    type Err = ResettableError;

    fn from_str(text: &str) -> Result<Self, ResettableError> {
        let (agent, id) = text.split_once(' ').ok_or(ResettableError::Shape)?;
        let agent = agent.parse().map_err(ResettableError::Address)?;
        let id = u64::from_str_radix(id, 16).map_err(ResettableError::Id)?;
        Ok(Self { agent, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_can_be_read_back_from_its_text() {
        for agent in ["192.0.2.1:4711", "[2001:db8::1]:1"] {
            let tunnel = Resettable { agent: agent.parse().unwrap(), id: 0x00ab_cdef_0123_4567 };
            assert_eq!(tunnel.to_string().parse(), Ok(tunnel));
        }
    }

    #[test]
    fn what_is_no_tunnel_is_refused() {
        for text in ["", "192.0.2.1:1", "192.0.2.1 12", "192.0.2.1:1 x", "192.0.2.1:1 10123456789abcdef", "x 1"] {
            text.parse::<Resettable>().unwrap_err();
        }
    }
}
