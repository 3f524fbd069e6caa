//! The hub's ports: all of them are bound before anything is served, beside those of a hub that is about to end where there is
//! one.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use certs::ClusterName;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::Handle,
    time::{Instant, sleep, timeout},
};
use tunnel::{PortSocket, Steering, steer_connections};

use crate::{
    config::Config,
    hub::inherited::Inherited,
    hub::layout::Layout,
    hub::succession::{Flag, LOOK},
};

/// How long a hub that has let go of its state folder keeps its ports, at most: it writes its audit record.
pub(crate) const ENDING: Duration = Duration::from_secs(3);

/// Connections that wait to be accepted, as many as the kernel allows (net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// Bound and not yet served.
#[derive(Debug)]
pub(crate) struct Ports {
    /// For clients, one for each worker, over which the kernel spreads the connections, and those that fill the places of the hub
    /// before: without them a connection that comes between the ends of two of its listeners could lead to the second. None leads
    /// to them before the hub after this one has ended without one to follow it.
    pub(crate) proxy: Vec<TcpListener>,
    pub(crate) sockets: Vec<(UnixListener, Option<ClusterName>)>,
    pub(crate) api: TcpListener,
    pub(crate) metrics: TcpListener,
    /// For agents, one for each worker.
    pub(crate) tunnel: Vec<PortSocket>,
    pub(crate) steering: Steering,
    /// How many listeners each TCP port has once the hub before has ended: the kernel knows them by their places
    /// (`tunnel/src/socket/steering.rs`).
    pub(crate) places: Vec<(SocketAddr, u16)>,
}

/// Where a hub really listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) proxy: SocketAddr,
    pub(crate) tunnel: SocketAddr,
    pub(crate) api: SocketAddr,
    pub(crate) metrics: SocketAddr,
    /// Beside another hub.
    pub(crate) follows: bool,
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
    /// Binds what `config` names; the clients' and agents' for `workers`. What the hub before still has is shared with it, and new
    /// connections come here.
    pub(crate) async fn bind(config: &Config, workers: &[Handle]) -> Result<(Self, Bound), ListenError> {
        // One that has begun to close its ports ends first: what it still has would not be where this one takes it to be.
        let closing = Flag::Closing.raise_within(&config.state, config.drain_timeout + ENDING).await;
        if !matches!(closing, Ok(Some(_))) {
            tracing::warn!(?closing, "the hub before this one may close ports that are being shared with it");
        }
        let layout = if Flag::Former.stands(&config.state) { Layout::read(&config.state) } else { None };
        let layout = layout.as_ref();
        let patience = if layout.is_some() { config.drain_timeout + ENDING } else { ENDING };
        let room = layout.filter(|layout| layout.share.has_room_for(u8::try_from(workers.len()).unwrap_or(u8::MAX)));
        if layout.is_some() && room.is_none() {
            // All or none: clients that come here would wait until agents can.
            tracing::info!(
                "the hub before this one followed too many others to be followed at once; waiting for its end"
            );
            let _ = timeout(patience, Flag::Former.lowered(&config.state)).await;
        }
        let layout = room;
        let here: &[Option<&Handle>] = &[None];
        let each: Vec<_> = workers.iter().map(Some).collect();
        let (mut inherited, mut places) = (Inherited::of_process(), Vec::new());
        let mut listen =
            |what, address, runtimes: &[_]| listen_each(what, address, runtimes, &mut inherited, layout, &mut places);
        let (proxy_address, proxy) = listen("clients", config.proxy_listen, &each)?;
        let (api_address, mut api) = listen("the API", config.api_listen, here)?;
        let (metrics_address, mut metrics) = listen("metrics", config.metrics_listen, here)?;
        let (api, metrics) = (api.remove(0), metrics.remove(0));
        inherited.tell_left();
        let agents = listen_udp("agents", config.tunnel_listen, workers, layout, patience);
        let (tunnel_address, tunnel, steering) = agents.await?;
        let sockets = config
            .proxy_sockets
            .iter()
            .map(|socket| Ok((listen_unix(&socket.path, layout.is_some())?, socket.cluster.clone())));
        let sockets = sockets.collect::<Result<_, _>>()?;
        let bound = Bound {
            proxy: proxy_address,
            tunnel: tunnel_address,
            api: api_address,
            metrics: metrics_address,
            follows: layout.is_some(),
        };
        Ok((Self { proxy, sockets, api, metrics, tunnel, steering, places }, bound))
    }
}

/// A listener for each of `runtimes` (this one where none is named), and those that fill places, by turns; all on one port.
fn listen_each(
    what: &'static str,
    address: SocketAddr,
    runtimes: &[Option<&Handle>],
    inherited: &mut Inherited,
    layout: Option<&Layout>,
    places: &mut Vec<(SocketAddr, u16)>,
) -> Result<(SocketAddr, Vec<TcpListener>), ListenError> {
    let given = inherited.take(or_ipv4(address));
    let own = u16::try_from(runtimes.len()).unwrap_or(u16::MAX);
    let bind = || {
        if let Some(given) = given {
            given.set_nonblocking(true)?;
            let listeners = runtimes.iter().map(|runtime| {
                let _driven_by = runtime.map(Handle::enter);
                TcpListener::from_std(given.try_clone()?)
            });
            places.push((given.local_addr()?, own));
            return Ok((given.local_addr()?, listeners.collect::<io::Result<_>>()?));
        }
        // Alone first: sockets that share a port would share it with another hub of this user, too.
        let alone = bind_tcp(or_ipv4(address), false).and_then(|listener| listener.local_addr());
        let (bound, before) = match (alone, layout.and_then(|layout| layout.listeners(or_ipv4(address)))) {
            (Err(error), Some(before)) if error.kind() == io::ErrorKind::AddrInUse => (or_ipv4(address), Some(before)),
            (alone, _) => (alone?, None),
        };
        let mut listeners = Vec::new();
        let listen = |runtime: &Option<&Handle>| {
            let _driven_by = runtime.map(Handle::enter);
            TcpListener::from_std(bind_tcp(bound, true)?)
        };
        for runtime in runtimes {
            listeners.push(listen(runtime)?);
        }
        if let (Some(before), Some(listener)) = (before, listeners.first()) {
            // The other accepts what has been connected already.
            steer_connections(listener, before, own)?;
        }
        // One alone has nobody beside it to whom a connection could lead when it ends.
        let fillers = before.filter(|before| *before > 1).unwrap_or_default();
        for runtime in runtimes.iter().cycle().take(fillers.into()) {
            listeners.push(listen(runtime)?);
        }
        places.push((bound, own.saturating_add(fillers)));
        Ok((bound, listeners))
    };
    bind().map_err(|source| ListenError { what, address: address.to_string(), source })
}

/// Waits for a hub that is about to end, beside which there is no place.
async fn listen_udp(
    what: &'static str,
    address: SocketAddr,
    workers: &[Handle],
    layout: Option<&Layout>,
    patience: Duration,
) -> Result<(SocketAddr, Vec<PortSocket>, Steering), ListenError> {
    let bind = || {
        let (address, workers) = (or_ipv4(address), u8::try_from(workers.len()).unwrap_or(u8::MAX));
        let (sockets, steering) = match (PortSocket::bind(address, workers), layout) {
            (Err(error), Some(layout)) if error.kind() == io::ErrorKind::AddrInUse && layout.tunnel == address => {
                PortSocket::bind_beside(address, workers, layout.share)?
            }
            (bound, _) => bound?,
        };
        let bound =
            sockets.first().map_or_else(|| Err(io::ErrorKind::AddrNotAvailable.into()), PortSocket::local_address)?;
        Ok::<_, io::Error>((bound, sockets, steering))
    };
    let until = Instant::now() + patience;
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => sleep(LOOK).await,
            bound => return bound.map_err(|source| ListenError { what, address: address.to_string(), source }),
        }
    }
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

/// Binds a Unix socket that only its owner and group may use; a stale one is replaced, and so is that of the hub before, which
/// accepts what has been connected already. Another used one is an error.
fn listen_unix(path: &Path, follows: bool) -> Result<UnixListener, ListenError> {
    let bind = || {
        if follows && path.exists() {
            // A name that nobody else has or guesses.
            let mut beside = path.as_os_str().to_owned();
            beside.push(format!(".{:016x}", rand::random::<u64>()));
            let beside = PathBuf::from(beside);
            let listener = listen_unix(&beside, false).map_err(|error| error.source)?;
            std::fs::rename(&beside, path)?;
            return Ok(listener);
        }
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
    use tunnel::Share;

    use super::*;

    #[tokio::test]
    async fn connections_lead_to_the_hub_that_follows_however_the_one_before_ends() {
        let here = Handle::current();
        let workers = [Some(&here); 2];
        let listen = |address, layout: Option<&Layout>| {
            let mut places = Vec::new();
            let bound =
                listen_each("clients", address, &workers, &mut Inherited::default(), layout, &mut places).unwrap();
            (bound.0, bound.1, places)
        };
        let (address, mut before, mut places) = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None);
        for round in 1..4 {
            let share = Share { first: 0, workers: 1, sockets: 1, generation: 0 };
            let layout = Layout { tcp: places, tunnel: address, share };
            // One that comes and dies leaves the port to the hub before, to whichever of its listeners the kernel chooses.
            drop(listen(address, Some(&layout)));
            for _ in 0..50 {
                reached(address, &before).await;
            }
            let (_, own, taken) = listen(address, Some(&layout));
            assert_eq!(taken, [(address, 2 * (round + 1))]);
            while !before.is_empty() {
                // The first, the last, the first.
                drop(before.remove(if round % 2 == 0 { before.len() - 1 } else { 0 }));
                for _ in 0..50 {
                    reached(address, &own[..workers.len()]).await;
                }
            }
            (before, places) = (own, taken);
        }
    }

    /// Connects, and demands that one of the listeners accepts.
    async fn reached(address: SocketAddr, listeners: &[TcpListener]) {
        let client = std::net::TcpStream::connect(address).unwrap();
        let accepting = listeners.iter().map(|listener| Box::pin(listener.accept()));
        let accepted = timeout(Duration::from_secs(5), futures_util::future::select_all(accepting)).await;
        let (_, peer) = accepted.unwrap().0.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    }

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
        let first = listen_unix(&path, false).unwrap();
        assert_eq!(mode(), 0o660);
        listen_unix(&path, false).unwrap_err();
        drop(first);
        let again = listen_unix(&path, false).unwrap();
        assert_eq!(mode(), 0o660);
        let (client, accepted) = tokio::join!(tokio::net::UnixStream::connect(&path), again.accept());
        assert!(client.is_ok() && accepted.is_ok());
    }
}
