//! Listening sockets that systemd keeps (sd_listen_fds(3)): clients that connect while no hub runs wait in them.

use std::{io, net::SocketAddr, net::TcpListener};

use listenfd::ListenFd;

/// Those that were handed over and are not taken yet. A port takes the one of its own address.
#[derive(Debug, Default)]
pub(crate) struct Inherited(Vec<(SocketAddr, TcpListener)>);

impl Inherited {
    /// What this process was given when it was started.
    pub(crate) fn of_process() -> Self {
        let mut given = ListenFd::from_env();
        let count = given.len();
        let take = |index| {
            let taken = given.take_tcp_listener(index).and_then(|listener| {
                let listener = listener.ok_or(io::ErrorKind::NotFound)?;
                Ok((listener.local_addr()?, listener))
            });
            taken
                .inspect_err(
                    |error| tracing::warn!(index, %error, "a socket of systemd's is no TCP listener; not used"),
                )
                .ok()
        };
        Self((0..count).filter_map(take).collect())
    }

    /// The one that listens at `address`.
    pub(crate) fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let at = self.0.iter().position(|(bound, _)| *bound == address)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Tells of those that no port has taken.
    pub(crate) fn tell_left(&self) {
        for (address, _) in &self.0 {
            tracing::warn!(%address, "no port of this hub is at this socket of systemd's; make its ListenStream= a port's address");
        }
    }
}
