//! The hub put together: bound first, served later, and stopped in a written order.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use certs::Pin;
use jiff::Timestamp;
use prometheus::{Registry as MetricsRegistry, process_collector::ProcessCollector};
use registry::Registry;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::broadcast::error::RecvError,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tunnel::{ALPN_JOIN, ALPN_TUNNEL, BindError, CloseReason, Listener};

use crate::{
    agents::Agents,
    api::{About, Api},
    authorities::{Authorities, AuthoritiesError},
    config::Config,
    connections::Connections,
    frontend::Frontends,
    health::Health,
    http_port::HttpPort,
    joins::Joins,
    limits::Limits,
    metrics::{LiveCollector, Metrics},
    proxy::Proxy,
    state::{State, StateError},
    tunnels::Tunnels,
};

/// How long cut connections and closing tunnels may take once their time is up.
const CUT_TIMEOUT: Duration = Duration::from_secs(2);

/// API clients at a time.
const API_CONNECTIONS: usize = 1024;

/// Scrapers and probes at a time.
const HEALTH_CONNECTIONS: usize = 64;

/// A hub whose ports are bound.
#[derive(Debug)]
pub struct Hub {
    config: Config,
    addresses: Addresses,
    registry: Arc<Registry>,
    authorities: Arc<Authorities>,
    metrics: MetricsRegistry,
    proxy: Arc<Proxy>,
    agents: Arc<Agents>,
    api: Arc<Api>,
    ports: Ports,
    phases: Phases,
}

/// Where a hub really listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub proxy: SocketAddr,
    pub tunnel: SocketAddr,
    pub api: SocketAddr,
    pub metrics: SocketAddr,
    /// The hub's pin.
    pub pin: Pin,
    /// Folder of the administrator's credentials.
    pub admin: PathBuf,
}

#[derive(Debug)]
struct Ports {
    proxy: TcpListener,
    socket: Option<UnixListener>,
    api: TcpListener,
    metrics: TcpListener,
    tunnel: Arc<Listener>,
}

/// The signals and the tasks of the hub's life.
#[derive(Clone, Debug, Default)]
struct Phases {
    /// Finish: accept nothing more, tell agents.
    drain: CancellationToken,
    /// Over: whatever still runs ends.
    end: CancellationToken,
    /// Clients' connections.
    clients: TaskTracker,
    /// Everything else.
    others: TaskTracker,
}

/// Why a hub did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the state folder cannot be used")]
    State(#[source] StateError),
    #[error("the hub has no certificate")]
    Authorities(#[source] AuthoritiesError),
    #[error("cannot listen on {address} for {what}; is another program there?")]
    Listen { what: &'static str, address: String, source: io::Error },
    #[error("cannot listen for agents")]
    Tunnel(#[source] BindError),
    #[error("the metrics cannot be registered")]
    Metrics(#[source] prometheus::Error),
}

/// Why a hub ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("the hub's {0} ended unexpectedly; look at the log before this line")]
pub struct RunError(&'static str);

impl Hub {
    /// Opens the state and binds every port; serves nothing yet.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let state = State::open(&config.state).map_err(StartError::State)?;
        let proxy = listen("clients", config.proxy_listen).await?;
        let api = listen("the API", config.api_listen).await?;
        let metrics = listen("metrics", config.metrics_listen).await?;
        let socket = config.proxy_socket.as_deref().map(listen_unix).transpose()?;
        let bound = [&proxy, &api, &metrics].map(TcpListener::local_addr);
        let [Ok(proxy_address), Ok(api_address), Ok(metrics_address)] = bound else {
            return Err(StartError::Tunnel(BindError::Socket {
                address: config.proxy_listen,
                source: io::ErrorKind::AddrNotAvailable.into(),
            }));
        };
        let names = advertised(&config);
        let admin = state.write_admin(format!("https://{}", near(api_address)), near(proxy_address));
        let admin = admin.await.map_err(StartError::State)?;
        let State { folder, authority, registry, reset_key } = state;
        let pin = authority.pin();
        let authorities = Authorities::new(authority, folder, names.clone()).map_err(StartError::Authorities)?;
        let tls = authorities.tls(&[ALPN_TUNNEL, ALPN_JOIN]);
        let tunnel = Listener::bind(or_ipv4(config.tunnel_listen), tls, &reset_key).map_err(StartError::Tunnel)?;
        let tunnel_address = tunnel
            .local_address()
            .map_err(|source| StartError::Tunnel(BindError::Socket { address: config.tunnel_listen, source }))?;
        let addresses = Addresses {
            proxy: proxy_address,
            tunnel: tunnel_address,
            api: api_address,
            metrics: metrics_address,
            pin,
            admin,
        };
        let ports = Ports { proxy, socket, api, metrics, tunnel: Arc::new(tunnel) };
        Self::assemble(config, names, addresses, registry, authorities, ports).map_err(StartError::Metrics)
    }

    fn assemble(
        config: Config,
        names: Vec<String>,
        addresses: Addresses,
        registry: Registry,
        authorities: Authorities,
        ports: Ports,
    ) -> prometheus::Result<Self> {
        let (registry, authorities) = (Arc::new(registry), Arc::new(authorities));
        let (tunnels, connections) = (Arc::new(Tunnels::default()), Arc::new(Connections::default()));
        let phases = Phases::default();
        let gathered = MetricsRegistry::new();
        let metrics = Arc::new(Metrics::register(&gathered)?);
        gathered.register(Box::new(LiveCollector::new(tunnels.clone(), connections.clone())?))?;
        gathered.register(Box::new(ProcessCollector::for_self()))?;
        let server_id = format!("{:016x}", rand::random::<u64>());
        let proxy = Arc::new(Proxy {
            registry: registry.clone(),
            tunnels: tunnels.clone(),
            connections: connections.clone(),
            limits: Limits::new(config.caps),
            metrics: metrics.clone(),
            domain: config.clusters_domain.clone(),
            dial_timeout: config.dial_timeout,
        });
        let agents = Arc::new(Agents {
            registry: registry.clone(),
            authorities: authorities.clone(),
            tunnels: tunnels.clone(),
            metrics: metrics.clone(),
            joins: Joins::new(registry.clone(), authorities.clone(), metrics),
            server_id: server_id.clone(),
            tasks: phases.others.clone(),
            drain: phases.drain.clone(),
        });
        let about = About {
            server_id,
            started_at: Timestamp::now(),
            agent_addresses: names.iter().map(|name| host_port(name, addresses.tunnel.port())).collect(),
            proxy_address: host_port(&names[0], addresses.proxy.port()),
            api_address: host_port(&names[0], addresses.api.port()),
        };
        let (registered, issuing) = (registry.clone(), authorities.clone());
        let api = Arc::new(Api { registry: registered, authorities: issuing, tunnels, connections, about });
        Ok(Self { config, addresses, registry, authorities, metrics: gathered, proxy, agents, api, ports, phases })
    }

    /// Where the hub listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Serves until `stop`, then drains; a second cancellation through `abort` cuts at once.
    pub async fn run(self, stop: CancellationToken, abort: CancellationToken) -> Result<(), RunError> {
        let Self { config, registry, authorities, metrics, proxy, agents, api, ports, phases, addresses } = self;
        let Phases { drain, end, clients, others } = phases;
        tracing::info!(
            proxy = %addresses.proxy, tunnel = %addresses.tunnel, api = %addresses.api, metrics = %addresses.metrics,
            pin = %addresses.pin, credentials = %addresses.admin.display(), "hub ready"
        );
        let tls = authorities.tls(&[b"http/1.1"]);
        let frontends = Frontends::new(
            proxy.clone(),
            tls.clone(),
            config.plaintext,
            config.head_timeout,
            clients.clone(),
            drain.clone(),
        );
        if let Some(socket) = ports.socket {
            others.spawn(frontends.clone().serve_unix(socket));
        }
        let health = Health { metrics, stopping: stop.clone() };
        let port = |listener, tls, connections| HttpPort {
            listener,
            tls,
            connections,
            tasks: others.clone(),
            end: end.clone(),
        };
        others.spawn(
            port(ports.metrics, None, HEALTH_CONNECTIONS)
                .serve(move |request, _| std::future::ready(health.answer(&request))),
        );
        others.spawn(
            port(ports.api, Some(TlsAcceptor::from(tls)), API_CONNECTIONS)
                .serve(move |request, certificate| api.clone().answer(request, certificate)),
        );
        let (watched, watching, watcher) = (registry.clone(), proxy.clone(), agents.clone());
        let until = end.clone();
        others.spawn(async move {
            tokio::select! {
                () = watch(&watched, &watching, &watcher) => {}
                () = until.cancelled() => {}
            }
        });
        let renewal = end.clone();
        others.spawn(async move { authorities.keep_current(renewal).await });
        let ended = tokio::select! {
            () = frontends.serve_tcp(ports.proxy) => Some("frontend"),
            () = agents.clone().serve(ports.tunnel.clone()) => Some("tunnel endpoint"),
            () = stop.cancelled() => None,
        };
        // Agents must still be answered while connections drain.
        others.spawn(agents.clone().serve(ports.tunnel.clone()));
        // 1. Not ready any more (the health port sees `stop`). 2. Accept no clients; agents look for another hub.
        tracing::info!(connections = proxy.connections.count(), "stopping");
        drain.cancel();
        clients.close();
        // 3. Connections may end by themselves, up to the deadline.
        let drained = tokio::select! {
            () = clients.wait() => true,
            () = tokio::time::sleep(config.drain_timeout) => false,
            () = abort.cancelled() => false,
        };
        // 4. The rest is cut.
        if !drained {
            let cut = proxy.connections.retain(|_, _| false);
            tracing::warn!(cut, "cut the connections that were left");
            let _ = tokio::time::timeout(CUT_TIMEOUT, clients.wait()).await;
        }
        // 5. Tell the agents, end everything, and let the registry finish writing.
        ports.tunnel.close(CloseReason::HubStopping, "the hub is stopping", CUT_TIMEOUT).await;
        end.cancel();
        others.close();
        if tokio::time::timeout(CUT_TIMEOUT, others.wait()).await.is_err() {
            tracing::warn!(tasks = others.len(), "some tasks did not end in time");
        }
        registry.close().await;
        if let Some(path) = &config.proxy_socket {
            // The next start would have to tell a stale socket from a used one.
            let _ = std::fs::remove_file(path);
        }
        tracing::info!("stopped");
        ended.map_or(Ok(()), |what| Err(RunError(what)))
    }
}

/// Looks at every tunnel and connection again whenever the registry changes.
async fn watch(registry: &Registry, proxy: &Proxy, agents: &Agents) {
    let mut changes = registry.changes();
    loop {
        match changes.recv().await {
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
        // One look serves every change that has arrived meanwhile.
        while !changes.is_empty() {
            let _ = changes.try_recv();
        }
        let (cut, closed) = (proxy.recheck(), agents.recheck());
        if cut + closed > 0 {
            tracing::info!(connections = cut, tunnels = closed, "cut what the registry allows no more");
        }
    }
}

/// The names of this hub, the one to show first; never empty.
fn advertised(config: &Config) -> Vec<String> {
    if !config.advertise.is_empty() {
        return config.advertise.clone();
    }
    let listening = config.tunnel_listen.ip();
    if !listening.is_unspecified() {
        return vec![listening.to_string()];
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    vec![if name.is_empty() || name == "(none)" { "localhost".into() } else { name.to_owned() }]
}

/// `address` as this machine dials it.
fn near(address: SocketAddr) -> String {
    let everywhere = address.ip().is_unspecified();
    if everywhere { host_port("localhost", address.port()) } else { address.to_string() }
}

fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let failed = |source| StartError::Listen { what, address: address.to_string(), source };
    TcpListener::bind(or_ipv4(address)).await.map_err(failed)
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
fn listen_unix(path: &Path) -> Result<UnixListener, StartError> {
    let bind = || {
        let socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
        if socket && std::os::unix::net::UnixStream::connect(path).is_err() {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(listener)
    };
    bind().map_err(|source| StartError::Listen { what: "local clients", address: path.display().to_string(), source })
}
