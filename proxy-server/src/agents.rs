//! The agents' port: handshakes, who an agent is, its tunnel's control stream, and joins.

pub(crate) mod clock;
pub(crate) mod closing;
pub(crate) mod exports;
pub(crate) mod handshake_queue;
pub(crate) mod handshake_rate;
pub(crate) mod joins;
pub(crate) mod pending_joins;
pub(crate) mod rates;
pub(crate) mod reset_hints;
pub(crate) mod tunnels;
pub(crate) mod watchdog;

mod trust;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use certs::{AgentName, ClusterName, Identity, KeyFingerprint, Pin};
use jiff::Timestamp;
use registry::{Presence, Registry, Sighting};
use rustls::pki_types::CertificateDer;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, info_span};
use tunnel::{
    AgentMessage, CloseReason, Connection, Drain, EstablishError, Export, HandshakeError, HubControl, HubMessage,
    HubTunnel, Incoming, Listener, Protocol, Renew, Renewed, TunnelMemory, Welcome,
};

use crate::{
    agents::closing::close_reason,
    agents::exports::{Exporter, Exports},
    agents::handshake_queue::{HandshakeQueue, Turn},
    agents::joins::Joins,
    agents::tunnels::{LiveTunnel, NewTunnel, TunnelGuard, Tunnels},
    authorities::Authorities,
    frontend::client::Peer,
    limits::lobby::{Guest, Lobby, Size},
    metrics::Metrics,
    outcome::Outcome,
    proxy::record::Recorder,
};
use rates::{AgentRates, EXPORTS};

/// How long a peer may take to shake hands: two round trips of half a second and two lost packets, which are sent again after one
/// second and two more.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an agent may take to say Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshakes at a time. A core completes about 1,500 a second: with more at a time all of them would take longer, and agents
/// whose patience ends (after 2 s) would have been served for nothing. Enough for 1,000 a second at 200 ms of round-trip time.
///
/// The agents of one source can fill two thirds, so that there is always room for others. A handshake of a second is either
/// silent or late: its agent is about to ask anew.
pub(crate) const HANDSHAKES: Size = Size { guests: 192, of_source: 128, grace: Duration::from_secs(1) };

/// How long an agent waits for the first answer (2.5 s, `proxy-agent/src/hub/backoff.rs`), less what its question was under way: one that
/// is let in later has given up.
const AGENT_WAIT: Duration = Duration::from_secs(2);

/// From this many on, a peer must first show that its address is its own. Who sends from addresses of others gets no further,
/// and agents pay one round trip.
const HANDSHAKES_UNVERIFIED: usize = 32;

/// Tunnels of one agent, from the end of the handshake on: an agent has one, two while it changes hubs or networks, and replicas
/// that share an identity are a mistake that should not cut them off. The newest wins.
pub(crate) const TUNNELS: Size = Size { guests: usize::MAX, of_source: 8, grace: Duration::ZERO };

/// After a start, agents are back within this (an agent notices a lost hub after 12 s).
const RECONNECT_GRACE: Duration = Duration::from_secs(15);

/// What serves the agents' port.
#[derive(Debug)]
pub(crate) struct Agents {
    pub(crate) registry: Arc<Registry>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) authorities: Arc<Authorities>,
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) exports: Arc<Exports>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) recorder: Recorder,
    pub(crate) joins: Joins,
    pub(crate) server_id: String,
    /// How long an agent's certificate lives; it is renewed at two thirds of it.
    pub(crate) lifetime: Duration,
    /// What one tunnel may hold.
    pub(crate) memory: TunnelMemory,
    /// Handshakes under way.
    pub(crate) handshakes: Arc<Lobby>,
    /// Each agent's tunnels.
    pub(crate) tunnel_slots: Arc<Lobby<Agent>>,
    pub(crate) rates: AgentRates,
    pub(crate) tasks: TaskTracker,
    /// Cancelled when another hub serves, or this one ends: agents are told, and new ones are the other's.
    pub(crate) drain: CancellationToken,
}

/// An agent's name everywhere.
pub(crate) type Agent = (ClusterName, AgentName);

/// An agent as its certificate names it.
#[derive(Clone, Debug)]
struct AgentIdentity {
    cluster: ClusterName,
    agent: AgentName,
    key: KeyFingerprint,
    /// The CA of its certificate.
    issuer: Option<Pin>,
}

/// Why a peer gets no tunnel: the code and the sentence that it is told.
#[derive(Debug)]
struct TunnelRefusal {
    reason: CloseReason,
    text: String,
}

impl AgentIdentity {
    fn named(&self) -> Agent {
        (self.cluster.clone(), self.agent.clone())
    }

    /// That it is here, or was so long ago.
    fn sighting(&self, ago: Duration, version: Option<String>) -> Sighting {
        let now = Timestamp::now();
        Sighting { key: self.key, at: now.checked_sub(ago).unwrap_or(now), version }
    }
}

impl Agents {
    /// Accepts connections until the listener is closed.
    pub(crate) async fn serve(self: Arc<Self>, listener: Arc<Listener>) {
        let mut queue = HandshakeQueue::new(self.handshakes.clone(), AGENT_WAIT);
        loop {
            tokio::select! {
                incoming = listener.accept() => {
                    let Some(incoming) = incoming else { return };
                    if self.drain.is_cancelled() {
                        // It asks again, and comes to the next hub.
                        incoming.ignore();
                        continue;
                    }
                    if !incoming.validated() && self.handshakes.guests() >= HANDSHAKES_UNVERIFIED {
                        incoming.retry();
                        continue;
                    }
                    let source = incoming.remote_address().ip().into();
                    queue.push(incoming, source, Instant::now()).unwrap_or_else(|put_off| self.put_off(put_off));
                }
                () = self.handshakes.left(), if !queue.is_empty() => {}
            }
            loop {
                let Turn { next, late } = queue.next(Instant::now());
                late.into_iter().for_each(|put_off| self.put_off(put_off));
                let Some((incoming, guest)) = next else { break };
                self.start_handshake(incoming, guest);
            }
        }
    }

    /// Says when to come again. An agent that was refused would begin anew, which costs both more.
    fn put_off(&self, (incoming, wait): (Incoming, Duration)) {
        incoming.put_off(wait);
        self.metrics.handshake_failed("tunnel", Outcome::PutOff);
    }

    fn start_handshake(self: &Arc<Self>, incoming: Incoming, guest: Guest) {
        let (agents, peer) = (self.clone(), incoming.remote_address());
        // What the first steps need does not stay in memory for the tunnel's life.
        let handshake = Box::pin(incoming.accept(HANDSHAKE_TIMEOUT));
        self.tasks.spawn(async move {
            let connection = tokio::select! {
                shaken = handshake => agents.on_handshake(peer, shaken),
                parting = guest.outstayed(None) => {
                    agents.metrics.guest_left("tunnel", parting);
                    None
                }
            };
            drop(guest);
            if let Some(connection) = connection {
                agents.serve_connection(connection).await;
            }
        });
    }

    fn on_handshake(&self, peer: SocketAddr, result: Result<Connection, HandshakeError>) -> Option<Connection> {
        match result {
            Ok(connection) => Some(connection),
            Err(error) => {
                let outcome = match &error {
                    HandshakeError::TimedOut => Outcome::TimedOut,
                    HandshakeError::Failed(loss) => loss.into(),
                };
                self.recorder.handshake("tunnel", Peer::Tcp(peer)).failed(outcome);
                tracing::debug!(%peer, error = &error as &dyn std::error::Error, "an agent's handshake failed");
                None
            }
        }
    }

    async fn serve_connection(self: Arc<Self>, connection: Connection) {
        let peer = connection.remote_address();
        match connection.protocol() {
            Some(Protocol::Join) => {
                let join = self.joins.serve(connection).instrument(info_span!("agent", %peer));
                Box::pin(join).await;
            }
            Some(Protocol::Tunnel) => {
                let establishing = self.establish(connection).instrument(info_span!("agent", %peer));
                if let Some((identity, guest, guard, control, exports)) = Box::pin(establishing).await {
                    self.run_tunnel(&identity, &guest, guard, control, exports).await;
                }
            }
            None => connection.close(CloseReason::ProtocolError, "no known protocol was agreed"),
        }
    }

    /// Makes a connection a tunnel that takes dials.
    async fn establish(
        &self,
        connection: Connection,
    ) -> Option<(AgentIdentity, Guest<Agent>, TunnelGuard, HubControl, Vec<Export>)> {
        let identity = match self.identify(&connection.peer_certificates()) {
            Ok(identity) => identity,
            Err(TunnelRefusal { reason, text }) => {
                if let Some(left_out) = self.rates.strangers.next(&()) {
                    tracing::warn!(%reason, text, left_out, "refused a tunnel");
                }
                self.recorder
                    .handshake("tunnel", Peer::Tcp(connection.remote_address()))
                    .failed(Outcome::Closed(reason));
                connection.close(reason, &text);
                return None;
            }
        };
        let agent = identity.named();
        if let Err(wait) = self.rates.openings.spend(&agent) {
            self.metrics.handshake_failed("tunnel", Outcome::Overloaded);
            let text = format!("this agent opens too many tunnels; the next may be opened in {wait:.0?}");
            connection.close(CloseReason::Overloaded, &text);
            return None;
        }
        // Where the number has no bound, everybody finds room.
        let guest = self.tunnel_slots.enter(agent.clone())?;
        let (tunnel, control, hello) = match HubTunnel::establish(connection.clone(), self.memory, HELLO_TIMEOUT).await
        {
            Ok(established) => established,
            Err(error) => {
                if let Some(left_out) = self.rates.agents.next(&agent) {
                    let error = &error as &dyn std::error::Error;
                    tracing::info!(cluster = %identity.cluster, error, left_out, "no tunnel");
                }
                self.metrics.handshake_failed("tunnel", Outcome::NoHello);
                let late = matches!(error, EstablishError::TimedOut(_));
                let reason = if late { CloseReason::DeadlineExceeded } else { CloseReason::ProtocolError };
                connection.close(reason, "no Hello");
                return None;
            }
        };
        if let Some(differs) = clock::difference(hello.clock)
            && let Some(left_out) = self.rates.agents.next(&agent)
        {
            tracing::warn!(cluster = %identity.cluster, agent = %identity.agent, left_out, "{differs}");
        }
        let guard = self.tunnels.register(NewTunnel {
            cluster: identity.cluster.clone(),
            agent: identity.agent.clone(),
            key: identity.key,
            version: version(&hello.version),
            instance: hello.instance,
            trust: trust::trust_of(identity.issuer, &hello.trusts),
            tunnel,
        });
        Some((identity, guest, guard, control, hello.exports))
    }

    /// Who the peer is, and whether the registry admits it.
    fn identify(&self, chain: &[CertificateDer<'static>]) -> Result<AgentIdentity, TunnelRefusal> {
        let wrong = |text: String| TunnelRefusal { reason: CloseReason::WrongIdentity, text };
        let Some(leaf) = chain.first() else {
            return Err(wrong("a tunnel needs an agent's certificate; run 'proxy-agent join' first".into()));
        };
        let identity = match Identity::with_key(leaf) {
            Ok((Identity::Agent { cluster, agent }, key)) => {
                let issuer = self.authorities.current().issuer_of(leaf);
                AgentIdentity { cluster, agent, key, issuer }
            }
            Ok((Identity::User { .. }, _)) => return Err(wrong("a user's certificate opens no tunnel".into())),
            Err(error) => return Err(wrong(format!("the certificate is no agent's: {error}"))),
        };
        self.admit(&identity)?;
        Ok(identity)
    }

    fn admit(&self, identity: &AgentIdentity) -> Result<(), TunnelRefusal> {
        self.registry
            .admit_agent(&identity.cluster, &identity.agent, &identity.key)
            .map_err(|refusal| TunnelRefusal { reason: close_reason(&refusal), text: refusal.to_string() })
    }

    /// Keeps the tunnel from its Welcome to its end.
    async fn run_tunnel(
        &self,
        identity: &AgentIdentity,
        guest: &Guest<Agent>,
        guard: TunnelGuard,
        control: HubControl,
        exports: Vec<Export>,
    ) {
        let live = &guard.live;
        let exporter = self.exports.enter(&identity.cluster, &identity.agent, live.instance(), exports);
        // Who was denied between the check and the registration must not slip through: the registry's changes are
        // looked at for registered tunnels only.
        if let Err(TunnelRefusal { reason, text }) = self.admit(identity) {
            live.close(reason, &text);
            return self.leave(identity, guard);
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let welcome = Welcome { server_id: self.server_id.clone(), version };
        // One that has ended by now says so below.
        let _ = control.send(HubMessage::Welcome(welcome));
        self.metrics.tunnel_opened(&identity.cluster);
        let (AgentIdentity { cluster, agent, .. }, peer) = (identity, live.tunnel.remote_address());
        tracing::info!(%peer, %cluster, %agent, version = live.version, "tunnel opened");
        self.presence.saw(cluster, agent, identity.sighting(Duration::ZERO, Some(live.version.clone())));
        tokio::select! {
            () = self.run_control(identity, live, &exporter, control) => {}
            parting = guest.outstayed(None) => {
                self.metrics.guest_left("tunnel", parting);
                live.close(CloseReason::Overloaded, "the agent has newer tunnels, as many as one may have");
            }
        }
        drop(exporter);
        let live = live.clone();
        self.leave(identity, guard);
        let loss = live.closed().await;
        self.metrics.tunnel_closed(&identity.cluster, Outcome::from(&loss));
        tracing::info!(%peer, %cluster, %agent, reason = %loss, "tunnel closed");
    }

    /// Takes a tunnel out. Also of one that never took a dial: the registry may have heard of it by another of its cluster.
    fn leave(&self, identity: &AgentIdentity, guard: TunnelGuard) {
        let ago = guard.live.gone_for();
        drop(guard);
        self.presence.saw(&identity.cluster, &identity.agent, identity.sighting(ago, None));
    }

    /// Notes, once after the hub's start, which clusters' agents did not come back: nobody else would.
    pub(crate) async fn mark_absent(&self) {
        tokio::time::sleep(RECONNECT_GRACE).await;
        for cluster in self.registry.clusters().iter().filter(|cluster| cluster.is_available()) {
            if self.tunnels.summary(cluster.name()).tunnels == 0 {
                self.presence.did_not_come_back(cluster.name());
            }
        }
    }

    /// Serves the control stream until the tunnel is gone.
    async fn run_control(
        &self,
        identity: &AgentIdentity,
        live: &LiveTunnel,
        exporter: &Exporter,
        mut control: HubControl,
    ) {
        let mut told = false;
        let (agent, mut listed) = (identity.named(), None);
        let mut authority = self.authorities.subscribe();
        self.tell_roots(identity, live, &control);
        loop {
            let message = tokio::select! {
                message = control.receive() => message,
                () = tokio::time::sleep(EXPORTS.every), if listed.is_some() => {
                    listed = self.export(identity, exporter, listed.unwrap_or_default());
                    continue;
                }
                Ok(()) = authority.changed() => {
                    self.tell_roots(identity, live, &control);
                    continue;
                }
                () = self.drain.cancelled(), if !told => {
                    told = true;
                    // A tunnel that is gone needs not be told.
                    let _ = control.send(HubMessage::Drain(Drain {}));
                    continue;
                }
            };
            if message.is_ok() && self.rates.messages.spend(&agent).is_err() {
                live.close(CloseReason::ProtocolError, "more messages on the control stream than an agent needs");
                return;
            }
            match message {
                Ok(AgentMessage::Renew(renew)) => self.renew(identity, &renew, &control),
                Ok(AgentMessage::Trusts(said)) => self.trusts(identity, live, &said),
                Ok(AgentMessage::Drain(Drain {})) => live.drain(),
                Ok(AgentMessage::Exports(exports)) => listed = self.export(identity, exporter, exports.items),
                Ok(AgentMessage::Hello(_)) => {}
                Err(tunnel::ControlError::Lost(_)) => return,
                Err(error @ (tunnel::ControlError::Protocol(_) | tunnel::ControlError::Stuck)) => {
                    live.close(CloseReason::ProtocolError, &error.to_string());
                    return;
                }
            }
        }
    }

    /// Replaces what the agent exports; gives the list back that has to wait.
    fn export(&self, identity: &AgentIdentity, exporter: &Exporter, items: Vec<Export>) -> Option<Vec<Export>> {
        match self.rates.exports.spend(&identity.named()) {
            Ok(()) => exporter.replace(items),
            Err(_) => return Some(items),
        }
        None
    }

    /// Issues a new certificate for the key that the cluster knows, and for no other.
    fn renew(&self, identity: &AgentIdentity, renew: &Renew, control: &HubControl) {
        let agent = identity.named();
        if self.rates.renewals.spend(&agent).is_err() {
            if let Some(left_out) = self.rates.agents.next(&agent) {
                tracing::warn!(cluster = %identity.cluster, agent = %identity.agent, left_out, "an agent renews too often");
            }
            return;
        }
        let same_key = KeyFingerprint::of_csr(&renew.csr).is_ok_and(|key| key == identity.key);
        if !same_key || self.admit(identity).is_err() {
            tracing::warn!(cluster = %identity.cluster, agent = %identity.agent, same_key, "refused to renew a certificate");
            return;
        }
        match self.authorities.current().issue_agent(&renew.csr, &identity.cluster, &identity.agent, self.lifetime) {
            Ok(issued) => {
                tracing::info!(cluster = %identity.cluster, agent = %identity.agent, "renewed a certificate");
                // A tunnel that is gone asks again on the next.
                let _ = control.send(HubMessage::Renewed(Renewed { chain_pem: issued.chain_pem }));
            }
            Err(error) => {
                tracing::warn!(cluster = %identity.cluster, error = &error as &dyn std::error::Error, "cannot renew");
            }
        }
    }

    /// Closes the tunnels of `cluster` that the registry does not admit any more; says how many.
    pub(crate) fn recheck(&self, cluster: &ClusterName) -> usize {
        let mut closed = 0;
        for live in self.tunnels.of_cluster(cluster) {
            let (agent, key) = (live.agent.clone(), live.key);
            let identity = AgentIdentity { cluster: cluster.clone(), agent, key, issuer: None };
            if let Err(TunnelRefusal { reason, text }) = self.admit(&identity) {
                live.close(reason, &text);
                closed += 1;
            }
        }
        if self.registry.cluster(cluster).is_none() {
            self.tunnels.forget(cluster);
            self.exports.forget(cluster);
        }
        closed
    }

    /// The same for every cluster.
    pub(crate) fn recheck_all(&self) -> usize {
        self.tunnels.clusters().iter().map(|cluster| self.recheck(cluster)).sum()
    }
}

/// An agent's version as it is kept and shown: its own words, which end up in the registry and in terminals.
pub(crate) fn version(said: &str) -> String {
    const LONGEST: usize = 64;
    said.chars().filter(char::is_ascii_graphic).take(LONGEST).collect()
}
