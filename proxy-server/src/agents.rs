//! The agents' port: handshakes, who an agent is, its tunnel's control stream, and joins.

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
    authorities::Authorities,
    client::Peer,
    clock,
    closing::close_reason,
    exports::{Exporter, Exports},
    joins::Joins,
    lobby::{Guest, Lobby, Size},
    metrics::Metrics,
    outcome::Outcome,
    queue::{Queue, Turn},
    rates::{Lines, Rate, Rates},
    record::Recorder,
    tunnels::{Joining, Member, Registered, Tunnels},
};

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

/// How long an agent waits for the first answer (2.5 s, `proxy-agent/src/backoff.rs`), less what its question was under way: one that
/// is let in later has given up.
const PATIENCE: Duration = Duration::from_secs(2);

/// From this many on, a peer must first show that its address is its own. Who sends from addresses of others gets no further,
/// and agents pay one round trip.
const HANDSHAKES_UNVERIFIED: usize = 32;

/// Tunnels of one agent, from the end of the handshake on: an agent has one, two while it changes hubs or networks, and replicas
/// that share an identity are a mistake that should not cut them off. The newest wins.
pub(crate) const TUNNELS: Size = Size { guests: usize::MAX, of_source: 8, grace: Duration::ZERO };

/// Tunnels that one agent may open: each is written down in the registry. An agent that is restarted in a loop begins ten
/// times a minute.
const OPENINGS: Rate = Rate { every: Duration::from_secs(2), burst: 30 };

/// Renewals of one agent's certificate, which is one in twenty days; each is a signature.
const RENEWALS: Rate = Rate { every: Duration::from_secs(10), burst: 10 };

/// New lists of one agent's exports, each of which is checked. An agent looks at its services every thirty seconds.
const EXPORTS: Rate = Rate { every: Duration::from_secs(2), burst: 5 };

/// Messages of one agent, windows aside: ten times as many as all of the above. More end the tunnel: each is read before it is
/// known what it is.
const MESSAGES: Rate = Rate { every: Duration::from_millis(100), burst: 50 };

/// After a start, agents are back within this (an agent notices a lost hub after 12 s).
const ABSENCE: Duration = Duration::from_secs(15);

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
    pub(crate) held: Arc<Lobby<Agent>>,
    pub(crate) habits: Habits,
    pub(crate) tasks: TaskTracker,
    /// Cancelled when another hub serves, or this one ends: agents are told, and new ones are the other's.
    pub(crate) drain: CancellationToken,
}

/// An agent's name everywhere.
pub(crate) type Agent = (ClusterName, AgentName);

/// How often agents do what costs the hub something.
#[derive(Debug)]
pub(crate) struct Habits {
    openings: Rates<Agent>,
    renewals: Rates<Agent>,
    exports: Rates<Agent>,
    messages: Rates<Agent>,
    /// Lines of the log that anybody can cause, then those of agents.
    strangers: Lines<()>,
    agents: Lines<Agent>,
}

/// An agent as its certificate names it.
#[derive(Clone, Debug)]
struct Known {
    cluster: ClusterName,
    agent: AgentName,
    key: KeyFingerprint,
    /// The CA of its certificate.
    issuer: Option<Pin>,
}

/// Why a peer gets no tunnel: the code and the sentence that it is told.
#[derive(Debug)]
struct Refused {
    reason: CloseReason,
    text: String,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            openings: Rates::new(OPENINGS),
            renewals: Rates::new(RENEWALS),
            exports: Rates::new(EXPORTS),
            messages: Rates::new(MESSAGES),
            strangers: Lines::default(),
            agents: Lines::default(),
        }
    }
}

impl Known {
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
        let mut queue = Queue::new(self.handshakes.clone(), PATIENCE);
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
                self.shake(incoming, guest);
            }
        }
    }

    /// Says when to come again. An agent that was refused would begin anew, which costs both more.
    fn put_off(&self, (incoming, wait): (Incoming, Duration)) {
        incoming.put_off(wait);
        self.metrics.handshake_failed("tunnel", Outcome::PutOff);
    }

    fn shake(self: &Arc<Self>, incoming: Incoming, guest: Guest) {
        let (agents, peer) = (self.clone(), incoming.remote_address());
        // What the first steps need does not stay in memory for the tunnel's life.
        let handshake = Box::pin(incoming.accept(HANDSHAKE_TIMEOUT));
        self.tasks.spawn(async move {
            let connection = tokio::select! {
                shaken = handshake => agents.shaken(peer, shaken),
                parting = guest.outstayed(None) => {
                    agents.metrics.guest_left("tunnel", parting);
                    None
                }
            };
            drop(guest);
            if let Some(connection) = connection {
                agents.converse(connection).await;
            }
        });
    }

    fn shaken(&self, peer: SocketAddr, result: Result<Connection, HandshakeError>) -> Option<Connection> {
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

    async fn converse(self: Arc<Self>, connection: Connection) {
        let peer = connection.remote_address();
        match connection.protocol() {
            Some(Protocol::Join) => {
                let join = self.joins.serve(connection).instrument(info_span!("agent", %peer));
                Box::pin(join).await;
            }
            Some(Protocol::Tunnel) => {
                let establishing = self.establish(connection).instrument(info_span!("agent", %peer));
                if let Some((known, guest, registered, control, exports)) = Box::pin(establishing).await {
                    self.hold(&known, &guest, registered, control, exports).await;
                }
            }
            None => connection.close(CloseReason::ProtocolError, "no known protocol was agreed"),
        }
    }

    /// Makes a connection a tunnel that takes dials.
    async fn establish(
        &self,
        connection: Connection,
    ) -> Option<(Known, Guest<Agent>, Registered, HubControl, Vec<Export>)> {
        let known = match self.identify(&connection.peer_certificates()) {
            Ok(known) => known,
            Err(Refused { reason, text }) => {
                if let Some(left_out) = self.habits.strangers.next(&()) {
                    tracing::warn!(%reason, text, left_out, "refused a tunnel");
                }
                self.recorder
                    .handshake("tunnel", Peer::Tcp(connection.remote_address()))
                    .failed(Outcome::Closed(reason));
                connection.close(reason, &text);
                return None;
            }
        };
        let agent = known.named();
        if let Err(wait) = self.habits.openings.spend(&agent) {
            self.metrics.handshake_failed("tunnel", Outcome::Overloaded);
            let text = format!("this agent opens too many tunnels; the next may be opened in {wait:.0?}");
            connection.close(CloseReason::Overloaded, &text);
            return None;
        }
        // Where the number has no bound, everybody finds room.
        let guest = self.held.enter(agent.clone())?;
        let (tunnel, control, hello) = match HubTunnel::establish(connection.clone(), self.memory, HELLO_TIMEOUT).await
        {
            Ok(established) => established,
            Err(error) => {
                if let Some(left_out) = self.habits.agents.next(&agent) {
                    let error = &error as &dyn std::error::Error;
                    tracing::info!(cluster = %known.cluster, error, left_out, "no tunnel");
                }
                self.metrics.handshake_failed("tunnel", Outcome::NoHello);
                let late = matches!(error, EstablishError::TimedOut(_));
                let reason = if late { CloseReason::DeadlineExceeded } else { CloseReason::ProtocolError };
                connection.close(reason, "no Hello");
                return None;
            }
        };
        if let Some(differs) = clock::difference(hello.clock)
            && let Some(left_out) = self.habits.agents.next(&agent)
        {
            tracing::warn!(cluster = %known.cluster, agent = %known.agent, left_out, "{differs}");
        }
        let registered = self.tunnels.register(Joining {
            cluster: known.cluster.clone(),
            agent: known.agent.clone(),
            key: known.key,
            version: version(&hello.version),
            instance: hello.instance,
            trust: trust::trust_of(known.issuer, &hello.trusts),
            tunnel,
        });
        Some((known, guest, registered, control, hello.exports))
    }

    /// Who the peer is, and whether the registry admits it.
    fn identify(&self, chain: &[CertificateDer<'static>]) -> Result<Known, Refused> {
        let wrong = |text: String| Refused { reason: CloseReason::WrongIdentity, text };
        let Some(leaf) = chain.first() else {
            return Err(wrong("a tunnel needs an agent's certificate; run 'proxy-agent join' first".into()));
        };
        let known = match Identity::with_key(leaf) {
            Ok((Identity::Agent { cluster, agent }, key)) => {
                let issuer = self.authorities.current().issuer_of(leaf);
                Known { cluster, agent, key, issuer }
            }
            Ok((Identity::User { .. }, _)) => return Err(wrong("a user's certificate opens no tunnel".into())),
            Err(error) => return Err(wrong(format!("the certificate is no agent's: {error}"))),
        };
        self.admit(&known)?;
        Ok(known)
    }

    fn admit(&self, known: &Known) -> Result<(), Refused> {
        self.registry
            .admit_agent(&known.cluster, &known.agent, &known.key)
            .map_err(|refusal| Refused { reason: close_reason(&refusal), text: refusal.to_string() })
    }

    /// Keeps the tunnel from its Welcome to its end.
    async fn hold(
        &self,
        known: &Known,
        guest: &Guest<Agent>,
        registered: Registered,
        control: HubControl,
        exports: Vec<Export>,
    ) {
        let member = &registered.member;
        let exporter = self.exports.enter(&known.cluster, &known.agent, member.instance(), exports);
        // Who was denied between the check and the registration must not slip through: the registry's changes are
        // looked at for registered tunnels only.
        if let Err(Refused { reason, text }) = self.admit(known) {
            member.close(reason, &text);
            return self.leave(known, registered);
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let welcome = Welcome { server_id: self.server_id.clone(), version };
        // One that has ended by now says so below.
        let _ = control.send(HubMessage::Welcome(welcome));
        self.metrics.tunnel_opened(&known.cluster);
        let (Known { cluster, agent, .. }, peer) = (known, member.tunnel.remote_address());
        tracing::info!(%peer, %cluster, %agent, version = member.version, "tunnel opened");
        self.presence.saw(cluster, agent, known.sighting(Duration::ZERO, Some(member.version.clone())));
        tokio::select! {
            () = self.listen(known, member, &exporter, control) => {}
            parting = guest.outstayed(None) => {
                self.metrics.guest_left("tunnel", parting);
                member.close(CloseReason::Overloaded, "the agent has newer tunnels, as many as one may have");
            }
        }
        drop(exporter);
        let member = member.clone();
        self.leave(known, registered);
        let loss = member.closed().await;
        self.metrics.tunnel_closed(&known.cluster, Outcome::from(&loss));
        tracing::info!(%peer, %cluster, %agent, reason = %loss, "tunnel closed");
    }

    /// Takes a tunnel out. Also of one that never took a dial: the registry may have heard of it by another of its cluster.
    fn leave(&self, known: &Known, registered: Registered) {
        let ago = registered.member.gone_for();
        drop(registered);
        self.presence.saw(&known.cluster, &known.agent, known.sighting(ago, None));
    }

    /// Notes, once after the hub's start, which clusters' agents did not come back: nobody else would.
    pub(crate) async fn note_absent(&self) {
        tokio::time::sleep(ABSENCE).await;
        for cluster in self.registry.clusters().iter().filter(|cluster| cluster.is_available()) {
            if self.tunnels.summary(cluster.name()).tunnels == 0 {
                self.presence.did_not_come_back(cluster.name());
            }
        }
    }

    /// Serves the control stream until the tunnel is gone.
    async fn listen(&self, known: &Known, member: &Member, exporter: &Exporter, mut control: HubControl) {
        let mut told = false;
        let (agent, mut listed) = (known.named(), None);
        let mut authority = self.authorities.subscribe();
        self.tell_roots(known, member, &control);
        loop {
            let message = tokio::select! {
                message = control.receive() => message,
                () = tokio::time::sleep(EXPORTS.every), if listed.is_some() => {
                    listed = self.export(known, exporter, listed.unwrap_or_default());
                    continue;
                }
                Ok(()) = authority.changed() => {
                    self.tell_roots(known, member, &control);
                    continue;
                }
                () = self.drain.cancelled(), if !told => {
                    told = true;
                    // A tunnel that is gone needs not be told.
                    let _ = control.send(HubMessage::Drain(Drain {}));
                    continue;
                }
            };
            if message.is_ok() && self.habits.messages.spend(&agent).is_err() {
                member.close(CloseReason::ProtocolError, "more messages on the control stream than an agent needs");
                return;
            }
            match message {
                Ok(AgentMessage::Renew(renew)) => self.renew(known, &renew, &control),
                Ok(AgentMessage::Trusts(said)) => self.trusts(known, member, &said),
                Ok(AgentMessage::Drain(Drain {})) => member.drain(),
                Ok(AgentMessage::Exports(exports)) => listed = self.export(known, exporter, exports.items),
                Ok(AgentMessage::Hello(_)) => {}
                Err(tunnel::ControlError::Lost(_)) => return,
                Err(error @ (tunnel::ControlError::Protocol(_) | tunnel::ControlError::Stuck)) => {
                    member.close(CloseReason::ProtocolError, &error.to_string());
                    return;
                }
            }
        }
    }

    /// Replaces what the agent exports; gives the list back that has to wait.
    fn export(&self, known: &Known, exporter: &Exporter, items: Vec<Export>) -> Option<Vec<Export>> {
        match self.habits.exports.spend(&known.named()) {
            Ok(()) => exporter.replace(items),
            Err(_) => return Some(items),
        }
        None
    }

    /// Issues a new certificate for the key that the cluster knows, and for no other.
    fn renew(&self, known: &Known, renew: &Renew, control: &HubControl) {
        let agent = known.named();
        if self.habits.renewals.spend(&agent).is_err() {
            if let Some(left_out) = self.habits.agents.next(&agent) {
                tracing::warn!(cluster = %known.cluster, agent = %known.agent, left_out, "an agent renews too often");
            }
            return;
        }
        let same_key = KeyFingerprint::of_csr(&renew.csr).is_ok_and(|key| key == known.key);
        if !same_key || self.admit(known).is_err() {
            tracing::warn!(cluster = %known.cluster, agent = %known.agent, same_key, "refused to renew a certificate");
            return;
        }
        match self.authorities.current().issue_agent(&renew.csr, &known.cluster, &known.agent, self.lifetime) {
            Ok(issued) => {
                tracing::info!(cluster = %known.cluster, agent = %known.agent, "renewed a certificate");
                // A tunnel that is gone asks again on the next.
                let _ = control.send(HubMessage::Renewed(Renewed { chain_pem: issued.chain_pem }));
            }
            Err(error) => {
                tracing::warn!(cluster = %known.cluster, error = &error as &dyn std::error::Error, "cannot renew");
            }
        }
    }

    /// Closes the tunnels of `cluster` that the registry does not admit any more; says how many.
    pub(crate) fn recheck(&self, cluster: &ClusterName) -> usize {
        let mut closed = 0;
        for member in self.tunnels.members(cluster) {
            let (agent, key) = (member.agent.clone(), member.key);
            let known = Known { cluster: cluster.clone(), agent, key, issuer: None };
            if let Err(Refused { reason, text }) = self.admit(&known) {
                member.close(reason, &text);
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
