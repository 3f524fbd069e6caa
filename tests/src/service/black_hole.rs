//! A target that neither accepts nor refuses: a dial to it waits until the dialler's own deadline.
//!
//! It works without privileges and on loopback: a listener with the smallest backlog that is never accepted from, filled until
//! the kernel drops further SYNs (Linux drops them silently while the accept queue is full). Addresses that are routed nowhere
//! do not serve: depending on the machine a dial to one is refused at once by a router or for want of a route.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// A dial on loopback ends in microseconds; one that takes this long is being dropped.
const SURELY_DROPPED: Duration = Duration::from_millis(300);
/// A backlog of 0 takes one connection; some more are tried before giving up.
const MOST_FILLERS: usize = 16;

/// The black hole; it is one until dropped.
#[derive(Debug)]
pub struct BlackHole {
    listener: TcpListener,
    _fillers: Vec<TcpStream>,
}

/// Opens one and has seen it swallow a dial.
pub async fn start() -> Result<BlackHole> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let listener = socket.listen(0)?;
    let address = listener.local_addr()?;
    let mut fillers = Vec::new();
    while fillers.len() < MOST_FILLERS {
        match timeout(SURELY_DROPPED, TcpStream::connect(address)).await {
            Ok(connected) => fillers.push(connected?),
            Err(_) => return Ok(BlackHole { listener, _fillers: fillers }),
        }
    }
    bail!("a listener with backlog 0 took {MOST_FILLERS} connections: this kernel drops no SYN")
}

impl BlackHole {
    /// Where dials vanish.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dial_to_it_neither_succeeds_nor_fails() -> Result<()> {
        let hole = start().await?;
        for _ in 0..3 {
            let dial = timeout(Duration::from_millis(1500), TcpStream::connect(hole.address()?)).await;
            assert!(dial.is_err(), "the dial ended: {dial:?}");
        }
        Ok(())
    }
}
