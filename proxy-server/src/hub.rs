//! The hub put together: bound first, served later, and stopped in a written order.

pub(crate) mod addresses;
pub(crate) mod feed;
pub(crate) mod health;
pub(crate) mod inherited;
pub(crate) mod layout;
pub(crate) mod ports;
pub(crate) mod services;
pub(crate) mod state;
pub(crate) mod succession;
pub(crate) mod workers;

mod stop;

use std::{
    fs::File,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use certs::ClusterName;
use http::Request;
use hyper::body::Incoming;
use jiff::Timestamp;
use prometheus::{Registry as MetricsRegistry, process_collector::ProcessCollector};
use registry::{
    Presence, Registry,
    kube::{controller::Controller, server::Server},
};
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::Handle,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tunnel::{ALPN_JOIN, ALPN_TUNNEL, Listener, PortSocket, ServeError};

use crate::{
    agents::exports::Exports,
    agents::joins::Joins,
    agents::reset_hints::ResetHints,
    agents::tunnels::Tunnels,
    agents::watchdog,
    agents::{Agents, HANDSHAKES, TUNNELS, rates::AgentRates},
    api::discovery::Discovery,
    api::http_port::{HttpPort, Origin},
    api::rotation::Rotation,
    api::{About, Api, Recorded},
    audit::{Audit, AuditError},
    authorities::{Authorities, AuthoritiesError},
    config::Config,
    frontend::{Frontends, Shutdown},
    gateway::Gateway,
    gateway::browser::Browsers,
    hub::layout::Layout,
    hub::ports::{Bound, ListenError, Ports},
    hub::services::{RunError, Services},
    hub::state::{State, StateError},
    hub::succession::RaisedFlag,
    hub::workers::Workers,
    limits::Limits,
    limits::bodies::Bodies,
    limits::descriptors::{Descriptors, Reserve},
    limits::lobby::{Lobby, Size},
    limits::shares::Shares,
    metrics::{LiveCollector, Metrics},
    proxy::Proxy,
    proxy::connections::Connections,
    proxy::record::Recorder,
    proxy::revocations,
};
pub use addresses::Addresses;

/// How long cut connections and closing tunnels may take once their time is up.
const CUT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an API client may take to shake hands and to show who it is. One with credentials sends its first request at once.
const API_LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Watches of one user at a time. A controller has one for each kind of object, a fleet of them under one name some hundreds;
/// each costs every write some microseconds.
const WATCHES: usize = 512;

/// Scrapers and probes at a time. Where there are more, the oldest makes room: probes are short, and a scraper that keeps its
/// connection makes another when it needs it.
const HEALTH: Size = Size { guests: 64, of_source: 64, grace: Duration::ZERO };

/// The port that serves probes and scrapers, which are answered as long as anybody is.
const HEALTH_PORT: &str = "health";

/// A hub whose ports are bound.
#[derive(Debug)]
pub struct Hub {
    config: Config,
    addresses: Addresses,
    registry: Arc<Registry>,
    presence: Arc<Presence>,
    authorities: Arc<Authorities>,
    metrics: MetricsRegistry,
    proxy: Arc<Proxy>,
    agents: Arc<Agents>,
    api: Arc<Api>,
    browsers: Arc<Browsers>,
    /// Taken by what serves them.
    ports: Option<Ports>,
    /// The agents' port, one for each worker.
    listeners: Vec<Arc<Listener>>,
    workers: Workers,
    phases: Phases,
    services: Services,
    /// Keeps other hubs out of the state folder, when the registry is elsewhere.
    folder_lock: Option<File>,
    /// Says that this hub follows another one, until it serves.
    successor: Option<RaisedFlag>,
    /// The hub before this one drains yet.
    /// Cancelled when the hub before this one has ended, and all that is to be done for it.
    before: Option<CancellationToken>,
    /// Which sockets this hub has, once it serves.
    layout: Option<Layout>,
    /// Another hub has the state folder.
    handed_over: Option<RaisedFlag>,
}

/// The signals and the tasks of the hub's life.
#[derive(Clone, Debug)]
struct Phases {
    /// Agents are told to look for another hub.
    drain: CancellationToken,
    /// Another hub gets the state folder: nothing more is written there.
    handover: CancellationToken,
    /// Idle clients are let go.
    leave: CancellationToken,
    /// Accept no more clients.
    closed: CancellationToken,
    /// Over: whatever still runs ends.
    end: CancellationToken,
    /// Clients' connections.
    clients: TaskTracker,
    /// Everything else.
    others: TaskTracker,
}

impl Phases {
    fn new() -> Self {
        let end = CancellationToken::new();
        Self {
            drain: CancellationToken::new(),
            // The end is one of the folder's keeping, too.
            handover: end.child_token(),
            leave: CancellationToken::new(),
            closed: CancellationToken::new(),
            end,
            clients: TaskTracker::new(),
            others: TaskTracker::new(),
        }
    }
}

/// Why a hub did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the state folder cannot be used")]
    State(#[source] StateError),
    #[error("the hub has no certificate")]
    Authorities(#[source] AuthoritiesError),
    #[error("a worker thread cannot be started")]
    Worker(#[source] io::Error),
    #[error(transparent)]
    Listen(ListenError),
    #[error("cannot serve agents")]
    Tunnel(#[source] ServeError),
    #[error("the metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    #[error("there is no audit log")]
    Audit(#[from] AuditError),
}

impl Hub {
    /// Opens the state, waiting for a hub that still has it, and binds every port; serves nothing yet.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let (state, successor) = succession::open(&config).await.map_err(StartError::State)?;
        let workers = Workers::start(config.workers).map_err(StartError::Worker)?;
        let (mut ports, bound) = Ports::bind(&config, workers.handles()).await.map_err(StartError::Listen)?;
        let Bound { proxy, tunnel, api, metrics, follows } = bound;
        let names = advertised(&config);
        state.bootstrap().await.map_err(StartError::State)?;
        let admin = state.write_admin(format!("https://{}", near(api)), near(proxy));
        let admin = admin.await.map_err(StartError::State)?;
        let State { folder, authority, registry, reset_key, folder_lock } = state;
        let addresses = Addresses { proxy, tunnel, api, metrics, pin: authority.pin(), admin };
        // A client may name its cluster by the server name in TLS.
        let wildcard = format!("*.{}", config.clusters_domain);
        let certified: Vec<_> = names.iter().chain(&config.api_names).cloned().chain([wildcard]).collect();
        let authorities = Authorities::new(authority, folder, certified).map_err(StartError::Authorities)?;
        let tls = authorities.agents_tls(&[ALPN_TUNNEL, ALPN_JOIN], config.ended_agents);
        let serve = |(port, worker): (PortSocket, &Handle)| {
            let _driven_by = worker.enter();
            Listener::serve(port, tls.clone(), &reset_key, config.tunnel).map(Arc::new)
        };
        let listeners = ports.tunnel.drain(..).zip(workers.handles()).map(serve).collect::<Result<_, _>>();
        let listeners = listeners.map_err(StartError::Tunnel)?;
        let hub = Self::assemble(config, names, addresses, registry, authorities, listeners, workers);
        Ok(Self { ports: Some(ports), folder_lock, successor, before: follows.then(CancellationToken::new), ..hub? })
    }

    fn assemble(
        config: Config,
        names: Vec<String>,
        addresses: Addresses,
        registry: Registry,
        authorities: Authorities,
        listeners: Vec<Arc<Listener>>,
        workers: Workers,
    ) -> Result<Self, StartError> {
        let (registry, authorities) = (Arc::new(registry), Arc::new(authorities));
        let (tunnels, connections) = (Arc::new(Tunnels::default()), Arc::new(Connections::default()));
        let exports = Arc::new(Exports::new(config.clusters_domain.clone()));
        let phases = Phases::new();
        let (until, present) = (ResetHints::new(&config.state).until(), tunnels.clone());
        let available = move |cluster: &ClusterName| present.summary(cluster).tunnels > 0;
        let presence = Arc::new(Presence::new(registry.clone(), until, available));
        let gathered = MetricsRegistry::new();
        let metrics = Arc::new(Metrics::register(&gathered)?);
        let audit = Audit::start(&config.audit, config.audit_failure, &gathered)?;
        gathered.register(Box::new(LiveCollector::new(tunnels.clone(), connections.clone(), listeners.clone())?))?;
        gathered.register(Box::new(ProcessCollector::for_self()))?;
        let server_id = format!("{:016x}", rand::random::<u64>());
        let recorder = Recorder::new(audit, metrics.clone());
        let proxy = Arc::new(Proxy {
            registry: registry.clone(),
            presence: presence.clone(),
            authorities: authorities.clone(),
            tunnels: tunnels.clone(),
            connections: connections.clone(),
            limits: Limits::new(config.caps),
            metrics: metrics.clone(),
            recorder: recorder.clone(),
            domain: config.clusters_domain.clone(),
            dial_timeout: config.dial_timeout,
            tasks: phases.clients.clone(),
            started: tokio::time::Instant::now(),
        });
        let joins = Joins::new(&registry, &presence, &authorities, recorder.clone(), config.agent_lifetime);
        let agents = Arc::new(Agents {
            registry: registry.clone(),
            presence: presence.clone(),
            authorities: authorities.clone(),
            tunnels: tunnels.clone(),
            exports: exports.clone(),
            metrics,
            joins,
            lifetime: config.agent_lifetime,
            recorder,
            server_id: server_id.clone(),
            memory: config.tunnel.memory,
            handshakes: Lobby::new(HANDSHAKES, 0),
            tunnel_slots: Lobby::new(TUNNELS, 0),
            rates: AgentRates::default(),
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
        let kube = Server::new(registry.clone(), env!("CARGO_PKG_VERSION"));
        let browsers = Arc::new(Browsers::new(authorities.names(), config.service_urls));
        let gateway = Gateway::new(proxy.clone(), browsers.clone());
        let discovery = Discovery {
            registry: registry.clone(),
            tunnels: tunnels.clone(),
            exports,
            domain: config.clusters_domain.clone(),
            started: Instant::now(),
        };
        let api = Arc::new(Api {
            registry: registered,
            presence: presence.clone(),
            kube,
            gateway,
            discovery,
            authorities: issuing,
            rotation: Rotation::new(agents.clone(), connections.clone(), &config.state, phases.handover.clone()),
            tunnels,
            connections,
            bodies: Bodies::default(),
            watches: Shares::new(WATCHES),
            about,
        });
        Ok(Self {
            config,
            addresses,
            registry,
            presence,
            authorities,
            metrics: gathered,
            proxy,
            agents,
            api,
            browsers,
            ports: None,
            listeners,
            workers,
            services: Services::new(phases.others.clone()),
            phases,
            folder_lock: None,
            successor: None,
            before: None,
            layout: None,
            handed_over: None,
        })
    }

    /// Where the hub listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The audit record, to be opened again when its file was rotated.
    pub fn audit(&self) -> Audit {
        self.proxy.recorder.audit.clone()
    }

    /// Serves until `stop`, then drains; `abort` cuts a drain short. Ends at once when a part of it does.
    pub async fn run(mut self, stop: CancellationToken, abort: CancellationToken) -> Result<(), RunError> {
        let Addresses { proxy, tunnel, api, metrics, pin, admin } = &self.addresses;
        let (credentials, workers) = (admin.display(), self.workers.handles().len());
        tracing::info!(%proxy, %tunnel, %api, %metrics, %pin, %credentials, workers, "hub ready");
        if let Some(ports) = self.ports.take() {
            let room = Descriptors::claim();
            self.spawn_services();
            self.spawn_succession(ports.steering, ports.places);
            let [clients, api, health] = Reserve::of(room.limit);
            self.spawn_http((ports.api, api), (ports.metrics, health), room.api, &stop);
            self.spawn_frontends(ports.proxy, ports.sockets, room.clients, clients);
        }
        self.tell_that_it_serves();
        let services = self.services.clone();
        let failed = tokio::select! {
            () = stop.cancelled() => None,
            error = services.failed() => Some(error),
        };
        if failed.is_some() {
            // Not ready any more, and nothing is waited for: nobody looks after what is open.
            stop.cancel();
            abort.cancel();
        }
        let draining = self.stop(abort.clone());
        tokio::pin!(draining);
        let failed_late = tokio::select! {
            () = &mut draining => None,
            error = services.failed(), if failed.is_none() => Some(error),
        };
        if failed_late.is_some() {
            abort.cancel();
            draining.await;
        }
        failed.or(failed_late).map_or(Ok(()), Err)
    }

    /// Everything but the frontends: it goes on while connections drain.
    fn spawn_services(&self) {
        let Phases { end, handover, .. } = &self.phases;
        let here = Handle::current();
        for (listener, worker) in self.listeners.iter().zip(self.workers.handles()) {
            self.services.spawn("the agents' port", worker, end, self.agents.clone().serve(listener.clone()));
        }
        let hints = self.hints().serve(self.agents.clone(), self.listeners[0].clone());
        self.services.spawn("the roster of tunnels", &here, handover, hints);
        let (registry, proxy, agents) = (self.registry.clone(), self.proxy.clone(), self.agents.clone());
        let revocations = async move { revocations::watch(&registry, &proxy, &agents).await };
        self.services.spawn("the watch of revocations", &here, end, revocations);
        let tunnels = self.agents.tunnels.clone();
        self.services.spawn("the watch of silence", &here, end, async move { watchdog::watch(tunnels).await });
        self.services.spawn("the controller", &here, handover, Controller::new(self.registry.clone()).run());
        let (presence, agents) = (self.presence.clone(), self.agents.clone());
        let presence = async move { tokio::join!(presence.run(), agents.mark_absent()).0 };
        self.services.spawn("the record of agents", &here, handover, presence);
        let (authorities, rotation) = (self.authorities.clone(), self.api.rotation.clone());
        let certificates = async move { tokio::join!(authorities.keep_current(), rotation.follow_files()).0 };
        self.services.spawn("the renewal of certificates", &here, end, certificates);
        let registry = self.registry.clone();
        self.services.spawn("the registry's store", &here, handover, async move { registry.ended().await });
        let audit = self.audit();
        self.services.spawn("the audit record", &here, end, async move { audit.ended().await });
    }

    /// The API, for `room` clients at a time, and the health port.
    fn spawn_http(
        &self,
        api: (TcpListener, Arc<Reserve>),
        metrics: (TcpListener, Arc<Reserve>),
        room: usize,
        stop: &CancellationToken,
    ) {
        let Phases { leave, end, others, .. } = &self.phases;
        let port = |name, (listener, reserve), tls, connections, lobby, patience| HttpPort {
            name,
            listener,
            tls,
            connections,
            lobby,
            patience,
            reserve,
            vital: name == HEALTH_PORT,
            recorder: self.proxy.recorder.clone(),
            tasks: others.clone(),
            leave: leave.clone(),
            end: end.clone(),
        };
        let (metrics_registry, browsers) = (self.metrics.clone(), self.browsers.clone());
        let health = health::answers(metrics_registry, stop.clone(), self.audit(), browsers);
        let answer =
            move |request: Request<Incoming>, origin: Origin| std::future::ready(health(&request, origin.peer));
        // Twice as many as guests: who makes room needs a moment to leave.
        let health_port = port(HEALTH_PORT, metrics, None, 2 * HEALTH.guests, Lobby::new(HEALTH, HEALTH.guests), None);
        let here = Handle::current();
        self.services.spawn("the health port", &here, end, health_port.serve(answer));
        let tls = TlsAcceptor::from(self.authorities.tls(&[b"h2", b"http/1.1"]));
        let recorder = self.proxy.recorder.clone();
        let answering = Recorded { api: self.api.clone(), recorder, tasks: others.clone() };
        let answer = move |request, origin| answering.clone().answer(request, origin);
        let api = port("api", api, Some(tls), room, Lobby::of_port(room), Some(API_LOGIN_TIMEOUT)).serve(answer);
        self.services.spawn("the API's port", &here, end, api);
    }

    fn hints(&self) -> ResetHints {
        ResetHints::new(&self.config.state)
    }

    /// Each worker accepts clients of its own.
    fn spawn_frontends(
        &self,
        listeners: Vec<TcpListener>,
        sockets: Vec<(UnixListener, Option<ClusterName>)>,
        room: usize,
        reserve: Arc<Reserve>,
    ) {
        let Phases { clients, leave, closed, end, .. } = &self.phases;
        let Config { plaintext, head_timeout, .. } = self.config;
        // In the order of preference: a client that speaks both means CONNECT, and gRPC's clients speak HTTP/2 only.
        let tls = self.authorities.tls(&[b"http/1.1", b"h2"]);
        let until = Shutdown { leave: leave.clone(), closed: closed.clone() };
        let frontends =
            Frontends::new(self.proxy.clone(), tls, plaintext, head_timeout, room, reserve, clients.clone(), until);
        for (listener, worker) in listeners.into_iter().zip(self.workers.handles().iter().cycle()) {
            let serving = and_wait(frontends.clone().serve_tcp(listener), end.clone());
            self.services.spawn("the clients' port", worker, end, serving);
        }
        for (listener, cluster) in sockets {
            let serving = and_wait(frontends.clone().serve_unix(listener, cluster), end.clone());
            self.services.spawn("a client's socket", &Handle::current(), end, serving);
        }
    }
}

/// A port that ends when no more clients are accepted, which is not yet the hub's end.
async fn and_wait(serving: impl Future<Output = ()>, end: CancellationToken) {
    serving.await;
    end.cancelled().await;
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

#[cfg(test)]
mod tests;
