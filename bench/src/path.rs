//! The ways from a load to the service, each brought up as the processes it consists of.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use tests::{Hub, Process, Spoke};

use crate::arguments::Peer;
use crate::load::{Beside, Direction, Exchanges, Load, Span, Transfer, Work};
use crate::place::Places;
use crate::quinn_ends::QuinnExit;
use crate::relay::Relay;
use crate::report;
use crate::role::Role;
use crate::route::Route;
use crate::service;
use crate::tls_relay::{TlsEntry, TlsExit};
use crate::yamux_tunnel::{YamuxEntry, YamuxExit};

/// The cluster that our spoke is.
const CLUSTER: &str = "bench";
/// How long a load may take beyond its span: to open its connections.
const OPENING: Duration = Duration::from_secs(60);

/// The largest UDP payload on a path whose links have Ethernet's MTU of 1500 bytes, when IPv6 (40 bytes) and UDP (8 bytes) go
/// first: 1452.
pub const MTU_1500: Option<u16> = Some(1500 - 40 - 8);

/// One way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// TCP, without anything between.
    Direct,
    /// Two hops of plain TCP.
    TcpRelay,
    /// Two hops with TLS 1.3 between them, a TLS connection for each connection.
    TlsRelay,
    /// Two hops with one TLS connection between them in which yamux has a stream for each connection: a tunnel as ours, over TCP
    /// with this congestion control (`cubic`, `bbr`).
    Yamux { congestion: String },
    /// One raw QUIC connection from the load to an end that serves its streams: no TCP, no relay.
    Quinn,
    /// Ours: hub, tunnel, agent. The tunnel's path MTU is found out, or at most `mtu` (UDP payload, in bytes).
    Ours { mtu: Option<u16> },
    /// A proxy that the user runs.
    Peer(Peer),
}

/// A way that is up. Its processes are killed when dropped.
#[derive(Debug)]
pub struct Running {
    /// Which it is.
    pub path: Path,
    /// What it is called in reports.
    pub name: String,
    /// How a load gets in.
    pub route: Route,
    /// The processes whose CPU seconds count, beside the load's: those between load and service, and the service. None where
    /// they are not known.
    pub counted: Vec<i32>,
    /// Ours, for what a program asks of it beyond bytes.
    pub ours: Option<Ours>,
    places: Places,
    _hops: Vec<Process>,
}

/// Hub and agent.
#[derive(Debug)]
pub struct Ours {
    /// The real `proxy-server`.
    pub hub: Hub,
    /// The real `proxy-agent`, with its tunnel up.
    pub spoke: Spoke,
}

impl Path {
    /// What it is called in reports.
    pub fn name(&self) -> String {
        match self {
            Self::Direct => "direct TCP".to_owned(),
            Self::TcpRelay => "TCP relay".to_owned(),
            Self::TlsRelay => "TLS relay".to_owned(),
            Self::Yamux { congestion } => format!("yamux, {congestion}"),
            Self::Quinn => "raw quinn".to_owned(),
            Self::Ours { mtu: None } => "ours".to_owned(),
            Self::Ours { mtu: Some(mtu) } => format!("ours, MTU {mtu}"),
            Self::Peer(peer) => peer.name.clone(),
        }
    }

    /// Brings it up, from the near end to a service at the far end.
    pub async fn start(&self, service: &service::Running, places: &Places) -> Result<Running> {
        let mut running = Running {
            path: self.clone(),
            name: self.name(),
            route: Route::Tcp(service.address.to_string()),
            counted: vec![service.process.pid().as_raw()],
            ours: None,
            places: places.clone(),
            _hops: Vec::new(),
        };
        let started = match self {
            Self::Direct => Ok(()),
            Self::TcpRelay => running.relay(service).await,
            Self::TlsRelay => running.tls_relay(service).await,
            Self::Yamux { congestion } => running.yamux(service, congestion).await,
            Self::Quinn => running.quinn().await,
            Self::Ours { mtu } => running.ours(service, *mtu).await,
            Self::Peer(peer) => {
                running.counted.clear();
                running.route = match peer.forwards {
                    true => Route::Tcp(peer.address.clone()),
                    false => {
                        let Peer { address, login, .. } = peer.clone();
                        Route::Connect { proxy: address, target: service.address, login }
                    }
                };
                Ok(())
            }
        };
        started.with_context(|| format!("{} does not start", self.name()))?;
        Ok(running)
    }
}

impl Running {
    /// Carries bytes over `streams` connections.
    pub async fn bulk(&self, streams: usize, direction: Direction, span: Span) -> Result<Transfer> {
        self.load(Work::Bulk { streams, direction }, span).await
    }

    /// Asks and answers on standing connections.
    pub async fn requests(&self, connections: usize, span: Span) -> Result<Exchanges> {
        self.load(Work::Requests { connections }, span).await
    }

    /// Opens a connection for each request.
    pub async fn connections(&self, workers: usize, span: Span) -> Result<Exchanges> {
        self.load(Work::Connections { workers }, span).await
    }

    /// Asks at a steady pace beside downloads.
    pub async fn beside(&self, downloads: usize, span: Span) -> Result<Beside> {
        self.load(Work::Beside { downloads }, span).await
    }

    /// Runs a load in a process of its own, at the near end, to its end.
    async fn load<T: DeserializeOwned>(&self, work: Work, span: Span) -> Result<T> {
        let load = Role::Load(self.load_role(work, span)).program(&self.places.near)?;
        let said = load.run(span.total() + OPENING).await?.success();
        let said = said.with_context(|| format!("the load over {} failed", self.name))?;
        serde_json::from_str(said.trim_end()).context("the load's figures are not as expected")
    }

    /// Readers that take nothing, until the process is dropped. All of them have asked when this returns.
    pub async fn stall(&self, connections: usize) -> Result<Process> {
        let span = Span { warm_up: Duration::ZERO, measured: Duration::ZERO };
        let load = Role::Load(self.load_role(Work::Stall { connections }, span)).program(&self.places.near)?.spawn()?;
        load.stdout_json(OPENING).await?;
        Ok(load)
    }

    fn load_role(&self, work: Work, span: Span) -> Load {
        Load { route: self.route.clone(), work, span, counted: self.counted.clone() }
    }

    async fn relay(&mut self, service: &service::Running) -> Result<()> {
        let (near, far) = (&self.places.near, &self.places.far);
        let exit = Role::Relay(Relay { listen: far.any_port(), to: service.address });
        let (exit, ready) = exit.start(far).await?;
        let entry = Role::Relay(Relay { listen: near.any_port(), to: ready.address });
        let (entry, ready) = entry.start(near).await?;
        self.route = Route::Tcp(ready.address.to_string());
        self.keep([entry, exit]);
        Ok(())
    }

    async fn quinn(&mut self) -> Result<()> {
        let far = &self.places.far;
        let (exit, ready) = Role::QuinnExit(QuinnExit { listen: far.any_port() }).start(far).await?;
        let certificate = ready.certificate.context("the end has no certificate")?;
        self.route = Route::Quinn { address: ready.address, certificate };
        self.keep([exit]);
        Ok(())
    }

    async fn tls_relay(&mut self, service: &service::Running) -> Result<()> {
        let (near, far) = (&self.places.near, &self.places.far);
        let exit = Role::TlsExit(TlsExit { listen: far.any_port(), to: service.address });
        let (exit, ready) = exit.start(far).await?;
        let certificate = ready.certificate.context("the exit has no certificate")?;
        let entry = Role::TlsEntry(TlsEntry { listen: near.any_port(), to: ready.address, certificate });
        let (entry, ready) = entry.start(near).await?;
        self.route = Route::Tcp(ready.address.to_string());
        self.keep([entry, exit]);
        Ok(())
    }

    async fn yamux(&mut self, service: &service::Running, congestion: &str) -> Result<()> {
        let (near, far) = (&self.places.near, &self.places.far);
        let congestion = congestion.to_owned();
        let exit = YamuxExit { listen: far.any_port(), to: service.address, congestion: congestion.clone() };
        let (exit, ready) = Role::YamuxExit(exit).start(far).await?;
        let certificate = ready.certificate.context("the exit has no certificate")?;
        let entry = YamuxEntry { listen: near.any_port(), to: ready.address, certificate, congestion };
        let (entry, ready) = Role::YamuxEntry(entry).start(near).await?;
        self.route = Route::Tcp(ready.address.to_string());
        self.keep([entry, exit]);
        Ok(())
    }

    /// Hub and agent as they are shipped. What they log goes to files: it costs them what it costs anywhere, and this program
    /// nothing.
    async fn ours(&mut self, service: &service::Running, mtu: Option<u16>) -> Result<()> {
        let mtu: Vec<String> = mtu.map_or_else(Vec::new, |mtu| vec!["--max-mtu".to_owned(), mtu.to_string()]);
        let (near, far) = (&self.places.near, &self.places.far);
        let hub = Hub::builder().tunnel_at(near.ip).args(mtu.clone()).after_shell(&report::log_to("hub")?);
        let hub = hub.quiet().start().await?;
        let spoke = Spoke::of(&hub, CLUSTER).args(mtu).after_shell(&report::log_to("agent")?);
        let spoke = match &far.netns {
            Some(netns) => spoke.inside(netns, far.ip),
            None => spoke,
        };
        let spoke = spoke.start().await?;
        let login = Some((CLUSTER.to_owned(), hub.credentials().token()?));
        let proxy = hub.addresses().proxy.to_string();
        self.route = Route::Connect { proxy, target: service.address, login };
        self.counted.extend([hub.process().pid().as_raw(), spoke.process().pid().as_raw()]);
        self.ours = Some(Ours { hub, spoke });
        Ok(())
    }

    fn keep<const N: usize>(&mut self, hops: [Process; N]) {
        self.counted.extend(hops.iter().map(|hop| hop.pid().as_raw()));
        self._hops.extend(hops);
    }
}
