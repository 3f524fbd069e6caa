//! The hub put together: bound first, served later, and stopped in a written order.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use certs::ClusterName;
use http::Request;
use hyper::body::Incoming;
use jiff::Timestamp;
use prometheus::{Registry as MetricsRegistry, process_collector::ProcessCollector};
use registry::{Change, Registry};
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
    pub pin: certs::Pin,
    /// Folder of the administrator's credentials.
    pub admin: PathBuf,
}

#[derive(Debug)]
struct Ports {
    /// Each is taken by what serves it.
    proxy: Option<TcpListener>,
    sockets: Vec<(UnixListener, Option<ClusterName>)>,
    api: Option<TcpListener>,
    metrics: Option<TcpListener>,
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
        let sockets =
            config.proxy_sockets.iter().map(|socket| Ok((listen_unix(&socket.path)?, socket.cluster.clone())));
        let sockets = sockets.collect::<Result<Vec<_>, StartError>>()?;
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
        // A client may name its cluster by the server name in TLS.
        let wildcard = format!("*.{}", config.clusters_domain);
        let certified = names.iter().cloned().chain([wildcard]).collect();
        let authorities = Authorities::new(authority, folder, certified).map_err(StartError::Authorities)?;
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
        let (proxy, api, metrics) = (Some(proxy), Some(api), Some(metrics));
        let ports = Ports { proxy, sockets, api, metrics, tunnel: Arc::new(tunnel) };
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
            memory: config.tunnel_memory,
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

    /// Serves until `stop`, then drains; `abort` cuts a drain short.
    pub async fn run(mut self, stop: CancellationToken, abort: CancellationToken) -> Result<(), RunError> {
        let Addresses { proxy, tunnel, api, metrics, pin, admin } = &self.addresses;
        let credentials = admin.display();
        tracing::info!(%proxy, %tunnel, %api, %metrics, %pin, %credentials, "hub ready");
        self.spawn_services(&stop);
        let frontends = self.frontends();
        for (listener, cluster) in self.ports.sockets.drain(..) {
            self.phases.others.spawn(frontends.clone().serve_unix(listener, cluster));
        }
        let listener = self.ports.proxy.take().expect("taken here only");
        let ended = tokio::select! {
            () = frontends.serve_tcp(listener) => Err(RunError("frontend")),
            () = stop.cancelled() => Ok(()),
        };
        self.stop(abort).await;
        ended
    }

    /// Everything but the frontends: it goes on while connections drain.
    fn spawn_services(&mut self, stop: &CancellationToken) {
        let Phases { end, others, .. } = &self.phases;
        let until = |service: Pin<Box<dyn Future<Output = ()> + Send>>| {
            let end = end.clone();
            others.spawn(async move {
                tokio::select! {
                    // First: at the hub's end, services may end by themselves.
                    biased;
                    () = end.cancelled() => {}
                    () = service => tracing::error!("a service of the hub ended by itself"),
                }
            });
        };
        until(Box::pin(self.agents.clone().serve(self.ports.tunnel.clone())));
        let (registry, proxy, agents) = (self.registry.clone(), self.proxy.clone(), self.agents.clone());
        until(Box::pin(async move { watch(&registry, &proxy, &agents).await }));
        let authorities = self.authorities.clone();
        until(Box::pin(async move { authorities.keep_current().await }));
        let port = |listener: Option<TcpListener>, tls, connections| HttpPort {
            listener: listener.expect("taken here only"),
            tls,
            connections,
            tasks: others.clone(),
            end: end.clone(),
        };
        let health = Health { metrics: self.metrics.clone(), stopping: stop.clone() };
        let answer = move |request: Request<Incoming>, _| std::future::ready(health.answer(&request));
        others.spawn(port(self.ports.metrics.take(), None, HEALTH_CONNECTIONS).serve(answer));
        let (api, tls) = (self.api.clone(), TlsAcceptor::from(self.authorities.tls(&[b"http/1.1"])));
        let answer = move |request, certificate| api.clone().answer(request, certificate);
        others.spawn(port(self.ports.api.take(), Some(tls), API_CONNECTIONS).serve(answer));
    }

    fn frontends(&self) -> Arc<Frontends> {
        let Phases { clients, drain, .. } = &self.phases;
        let Config { plaintext, head_timeout, .. } = self.config;
        let tls = self.authorities.tls(&[b"http/1.1"]);
        Frontends::new(self.proxy.clone(), tls, plaintext, head_timeout, clients.clone(), drain.clone())
    }

    /// The readiness is off by now, and no client is accepted any more.
    async fn stop(self, abort: CancellationToken) {
        let Self { config, registry, proxy, ports, phases, .. } = self;
        let Phases { drain, end, clients, others } = phases;
        tracing::info!(connections = proxy.connections.count(), "stopping");
        // 1. Agents look for another hub; idle clients are let go.
        drain.cancel();
        clients.close();
        // 2. Connections may end by themselves, up to the deadline.
        let drained = tokio::select! {
            () = clients.wait() => true,
            () = tokio::time::sleep(config.drain_timeout) => false,
            () = abort.cancelled() => false,
        };
        // 3. The rest is cut.
        if !drained {
            let cut = proxy.connections.retain(|_, _| false);
            tracing::warn!(cut, "cut the connections that were left");
            let _ = tokio::time::timeout(CUT_TIMEOUT, clients.wait()).await;
        }
        // 4. This is the end for everything else, and agents hear of it.
        end.cancel();
        ports.tunnel.close(CloseReason::HubStopping, "the hub is stopping", CUT_TIMEOUT).await;
        others.close();
        if tokio::time::timeout(CUT_TIMEOUT, others.wait()).await.is_err() {
            tracing::warn!(tasks = others.len(), "some tasks did not end in time");
        }
        // 5. The registry finishes writing.
        registry.close().await;
        for socket in &config.proxy_sockets {
            // Left behind, the next start would have to tell it from one in use.
            let _ = std::fs::remove_file(&socket.path);
        }
        tracing::info!("stopped");
    }
}

/// Looks again at the tunnels and connections that a change of the registry concerns. (An agent's coming and going is a
/// change too: looking at all of them would make a restart with many agents costly.)
async fn watch(registry: &Registry, proxy: &Proxy, agents: &Agents) {
    let mut changes = registry.changes();
    loop {
        let (cut, closed) = match changes.recv().await {
            Ok(Change::Cluster(name)) => (proxy.recheck(|_, cluster| *cluster == name), agents.recheck(&name)),
            Ok(Change::User(name)) => (proxy.recheck(|caller, _| caller.is_user(&name)), 0),
            // Nobody is connected by a join token.
            Ok(Change::Token(_)) => continue,
            Err(RecvError::Lagged(_)) => (proxy.recheck(|_, _| true), agents.recheck_all()),
            Err(RecvError::Closed) => return,
        };
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
