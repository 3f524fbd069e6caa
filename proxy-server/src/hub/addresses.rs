//! The addresses of a running hub.

use std::{net::SocketAddr, path::PathBuf};

/// Where a hub really listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub proxy: SocketAddr,
    pub tunnel: SocketAddr,
    pub api: SocketAddr,
    pub metrics: SocketAddr,
    /// The hub's pin.
    pub pin: certs::Pin,
    /// Folder of the administrator's credentials.
    pub admin: PathBuf,
}
