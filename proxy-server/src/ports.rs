//! The hub's ports: all of them are bound before anything is served.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, PermissionsExt},
    },
    path::Path,
};

use certs::ClusterName;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::Handle,
};
use tunnel::PortSocket;

use crate::config::Config;

/// Connections that wait to be accepted, as many as the kernel allows (net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// Bound and not yet served.
#[derive(Debug)]
pub(crate) struct Ports {
    /// For clients, one for each worker: the kernel spreads the connections.
    pub(crate) proxy: Vec<TcpListener>,
    pub(crate) sockets: Vec<(UnixListener, Option<ClusterName>)>,
    pub(crate) api: TcpListener,
    pub(crate) metrics: TcpListener,
    /// For agents, one for each worker.
    pub(crate) tunnel: Vec<PortSocket>,
}

/// Where a hub really listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) proxy: SocketAddr,
    pub(crate) tunnel: SocketAddr,
    pub(crate) api: SocketAddr,
    pub(crate) metrics: SocketAddr,
}

/// Why a port could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {what}; is another program there?")]
pub struct ListenError {
    what: &'static str,
    address: String,
    source: io::Error,
}

impl Ports {
    /// Binds what `config` names; the clients' and agents' for `workers`.
    pub(crate) fn bind(config: &Config, workers: &[Handle]) -> Result<(Self, Bound), ListenError> {
        let (proxy_address, proxy) = listen_each("clients", config.proxy_listen, workers)?;
        let (api_address, api) = listen("the API", config.api_listen)?;
        let (metrics_address, metrics) = listen("metrics", config.metrics_listen)?;
        let (tunnel_address, tunnel) = listen_udp("agents", config.tunnel_listen, workers)?;
        let sockets =
            config.proxy_sockets.iter().map(|socket| Ok((listen_unix(&socket.path)?, socket.cluster.clone())));
        let sockets = sockets.collect::<Result<_, _>>()?;
        let bound = Bound { proxy: proxy_address, tunnel: tunnel_address, api: api_address, metrics: metrics_address };
        Ok((Self { proxy, sockets, api, metrics, tunnel }, bound))
    }
}

fn listen(what: &'static str, address: SocketAddr) -> Result<(SocketAddr, TcpListener), ListenError> {
    let bind = || {
        let listener = bind_tcp(or_ipv4(address), false)?;
        Ok((listener.local_addr()?, TcpListener::from_std(listener)?))
    };
    bind().map_err(|source| ListenError { what, address: address.to_string(), source })
}

/// A listener for each worker, all on one port.
fn listen_each(
    what: &'static str,
    address: SocketAddr,
    workers: &[Handle],
) -> Result<(SocketAddr, Vec<TcpListener>), ListenError> {
    let bind = || {
        // Alone first: sockets that share a port would share it with another hub of this user, too.
        let bound = bind_tcp(or_ipv4(address), false)?.local_addr()?;
        let listeners = workers.iter().map(|worker| {
            let _driven_by = worker.enter();
            TcpListener::from_std(bind_tcp(bound, true)?)
        });
        Ok((bound, listeners.collect::<io::Result<_>>()?))
    };
    bind().map_err(|source| ListenError { what, address: address.to_string(), source })
}

fn listen_udp(
    what: &'static str,
    address: SocketAddr,
    workers: &[Handle],
) -> Result<(SocketAddr, Vec<PortSocket>), ListenError> {
    let bind = || {
        let sockets = PortSocket::bind(or_ipv4(address), u8::try_from(workers.len()).unwrap_or(u8::MAX))?;
        let bound =
            sockets.first().map_or_else(|| Err(io::ErrorKind::AddrNotAvailable.into()), PortSocket::local_address)?;
        Ok((bound, sockets))
    };
    bind().map_err(|source| ListenError { what, address: address.to_string(), source })
}

fn bind_tcp(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the last connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// `[::]` where there is IPv6, else `0.0.0.0`.
fn or_ipv4(address: SocketAddr) -> SocketAddr {
    let no_ipv6 = || std::net::UdpSocket::bind("[::]:0").is_err();
    if address.is_ipv6() && address.ip().is_unspecified() && no_ipv6() {
        return SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
    }
    address
}

/// Binds a Unix socket that only its owner and group may use; a stale one is replaced, a used one is an error.
fn listen_unix(path: &Path) -> Result<UnixListener, ListenError> {
    let bind = || {
        let socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
        if socket && std::os::unix::net::UnixStream::connect(path).is_err() {
            std::fs::remove_file(path)?;
        }
        let mode = std::fs::Permissions::from_mode(0o660);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // The file that bind(2) makes takes the socket's mode, so that there is no moment at which others may connect.
        let socket = std::fs::File::from(OwnedFd::from(socket));
        socket.set_permissions(mode.clone())?;
        let socket = Socket::from(OwnedFd::from(socket));
        socket.bind(&SockAddr::unix(path)?)?;
        // The umask may have taken the group's part.
        std::fs::set_permissions(path, mode)?;
        socket.listen(BACKLOG)?;
        UnixListener::from_std(OwnedFd::from(socket).into())
    };
    bind().map_err(|source| ListenError { what: "local clients", address: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_socket_has_its_mode_before_it_can_be_connected_to() {
        // What bind(2) alone makes of it is what a watcher of the folder could connect to.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let socket = std::fs::File::from(OwnedFd::from(socket));
        socket.set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
        let socket = Socket::from(OwnedFd::from(socket));
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_unix_socket_is_its_owners_and_its_groups_and_a_stale_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let first = listen_unix(&path).unwrap();
        assert_eq!(mode(), 0o660);
        listen_unix(&path).unwrap_err();
        drop(first);
        let again = listen_unix(&path).unwrap();
        assert_eq!(mode(), 0o660);
        let (client, accepted) = tokio::join!(tokio::net::UnixStream::connect(&path), again.accept());
        assert!(client.is_ok() && accepted.is_ok());
    }
}
