//! The live tunnels by cluster, and which of them a dial takes.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use certs::{AgentName, ClusterName, KeyFingerprint};
use dashmap::DashMap;
use parking_lot::Mutex;
use registry::AgentTrust;
use serde::{Deserialize, Serialize};
use tokio::{
    runtime::Handle,
    sync::{Notify, broadcast, watch},
};
use tunnel::{
    CloseReason, ConnectionLost, HubTunnel, Liveness, LivenessCheck, OVERDUE, Resettable, SILENCE_TIMEOUT, Traffic,
};

/// Arrivals that the hub before this one may be behind by: then it hears of all that are there.
const ARRIVALS: usize = 1024;

/// Every live tunnel.
#[derive(Debug)]
pub(crate) struct Tunnels {
    by_cluster: DashMap<ClusterName, Cluster>,
    next: AtomicU64,
    /// Told of every tunnel that comes or goes.
    changed: Notify,
    /// For the hub before this one.
    arrivals: broadcast::Sender<Arrival>,
    /// Tunnels whose agent may be gone: each is in here once at most, until the watchdog takes it.
    doubted: Mutex<Vec<Arc<LiveTunnel>>>,
    doubts: Notify,
}

#[derive(Debug, Default)]
struct Cluster {
    tunnels: Vec<Arc<LiveTunnel>>,
    /// Survives the tunnels: a cluster's bytes are counted from the hub's start.
    traffic: Arc<Traffic>,
    /// Not registered any more: goes with its last tunnel.
    forgotten: bool,
    /// Told of every tunnel that comes.
    arrived: Arc<Notify>,
}

/// A process of an agent that has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Arrival {
    cluster: ClusterName,
    agent: AgentName,
    instance: String,
}

/// One tunnel and what is known of it.
#[derive(Debug)]
pub(crate) struct LiveTunnel {
    id: u64,
    pub(crate) agent: AgentName,
    pub(crate) key: KeyFingerprint,
    pub(crate) version: String,
    pub(crate) tunnel: HubTunnel,
    /// Where the tunnel lives.
    worker: Handle,
    instance: String,
    /// What the agent has to do with the hub's CA.
    pub(crate) trust: Mutex<AgentTrust>,
    streams: AtomicUsize,
    /// The agent is stopping.
    draining: AtomicBool,
    /// When a dial's deadline passed without an answer; cleared by the next answer. For as long as silence may last, the
    /// tunnel is passed over: one that is there after that has been heard of since.
    unanswered: Mutex<Option<Instant>>,
    liveness: Mutex<Liveness>,
    /// It was closed because of its agent's silence.
    closed_silent: AtomicBool,
    /// It waits for the watchdog.
    is_doubted: AtomicBool,
    /// A later instance of the same agent has a tunnel: this one's process is gone, or it shares its identity.
    superseded: watch::Sender<bool>,
}

/// A tunnel's place among the live ones; leaves when dropped.
#[derive(Debug)]
pub(crate) struct TunnelGuard {
    tunnels: Arc<Tunnels>,
    cluster: ClusterName,
    pub(crate) live: Arc<LiveTunnel>,
}

/// A stream's place in its tunnel's count; leaves when dropped.
#[derive(Debug)]
pub(crate) struct StreamGuard(Arc<LiveTunnel>);

/// What a cluster's tunnels amount to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Summary {
    pub(crate) tunnels: usize,
    /// With the time for which each has not been heard of.
    pub(crate) agents: BTreeMap<AgentName, Duration>,
    pub(crate) rtt: Option<Duration>,
    pub(crate) path_mtu: Option<u16>,
    pub(crate) streams: usize,
    pub(crate) bytes_to_cluster: u64,
    pub(crate) bytes_from_cluster: u64,
}

/// A tunnel that is about to be registered, and what is known of it.
pub(crate) struct NewTunnel {
    pub(crate) cluster: ClusterName,
    pub(crate) agent: AgentName,
    pub(crate) key: KeyFingerprint,
    pub(crate) version: String,
    pub(crate) instance: String,
    pub(crate) trust: AgentTrust,
    pub(crate) tunnel: HubTunnel,
}

impl Default for Tunnels {
    fn default() -> Self {
        let (by_cluster, next, changed) = Default::default();
        let (doubted, doubts) = Default::default();
        Self { by_cluster, next, changed, arrivals: broadcast::Sender::new(ARRIVALS), doubted, doubts }
    }
}

impl Tunnels {
    /// Adds a tunnel of the worker that calls, ready to take dials.
    pub(crate) fn register(self: &Arc<Self>, new: NewTunnel) -> TunnelGuard {
        let NewTunnel { cluster, agent, key, version, instance, trust, tunnel } = new;
        let live = Arc::new(LiveTunnel {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            agent,
            key,
            version,
            tunnel,
            worker: Handle::current(),
            instance,
            trust: Mutex::new(trust),
            streams: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            unanswered: Mutex::new(None),
            liveness: Mutex::new(Liveness::new(Instant::now())),
            closed_silent: AtomicBool::new(false),
            is_doubted: AtomicBool::new(false),
            superseded: watch::Sender::new(false),
        });
        let mut cluster_tunnels = self.by_cluster.entry(cluster.clone()).or_default();
        cluster_tunnels.forgotten = false;
        cluster_tunnels.tunnels.push(live.clone());
        cluster_tunnels.find_superseded();
        cluster_tunnels.arrived.notify_waiters();
        // An agent that opens a tunnel has lost the last one, as a rule.
        let others = cluster_tunnels.tunnels.iter().filter(|other| other.agent == live.agent && other.id != live.id);
        let others: Vec<_> = others.cloned().collect();
        drop(cluster_tunnels);
        others.into_iter().for_each(|live| self.doubt(live));
        // Mostly nobody listens.
        let _ = self.arrivals.send(live.arrival(&cluster));
        self.changed.notify_one();
        TunnelGuard { tunnels: self.clone(), cluster, live }
    }

    /// The tunnel that the next dial takes: the ready one with the fewest streams, but none of `tried`. Tunnels that
    /// drain, do not answer or are superseded are taken only where there is no other.
    pub(crate) fn pick(&self, cluster: &ClusterName, tried: &[u64]) -> Option<Arc<LiveTunnel>> {
        let cluster_tunnels = self.by_cluster.get(cluster)?;
        let candidates = cluster_tunnels.tunnels.iter().filter(|live| !tried.contains(&live.id));
        candidates.min_by_key(|live| live.preference()).cloned()
    }

    /// Waits until `cluster`, which is registered, has a tunnel.
    pub(crate) async fn arrival(&self, cluster: &ClusterName) {
        let arrived = self.by_cluster.entry(cluster.clone()).or_default().arrived.clone();
        let mut arrival = pin!(arrived.notified());
        arrival.as_mut().enable();
        if self.of_cluster(cluster).is_empty() {
            arrival.await;
        }
    }

    /// The tunnels of `cluster`.
    pub(crate) fn of_cluster(&self, cluster: &ClusterName) -> Vec<Arc<LiveTunnel>> {
        self.by_cluster.get(cluster).map(|cluster_tunnels| cluster_tunnels.tunnels.clone()).unwrap_or_default()
    }

    /// Every cluster that has a tunnel, or had one since the hub's start and is still registered.
    pub(crate) fn clusters(&self) -> Vec<ClusterName> {
        self.by_cluster.iter().map(|cluster_tunnels| cluster_tunnels.key().clone()).collect()
    }

    /// Forgets a cluster that is not registered any more, with its last tunnel.
    pub(crate) fn forget(&self, cluster: &ClusterName) {
        if let Some(mut cluster_tunnels) = self.by_cluster.get_mut(cluster) {
            cluster_tunnels.forgotten = true;
        }
        self.remove_forgotten(cluster);
    }

    fn remove_forgotten(&self, cluster: &ClusterName) {
        self.by_cluster
            .remove_if(cluster, |_, cluster_tunnels| cluster_tunnels.forgotten && cluster_tunnels.tunnels.is_empty());
    }

    /// Where the bytes of `cluster` are counted; nowhere, when it is forgotten.
    pub(crate) fn traffic(&self, cluster: &ClusterName) -> Arc<Traffic> {
        self.by_cluster.get(cluster).map(|cluster_tunnels| cluster_tunnels.traffic.clone()).unwrap_or_default()
    }

    /// The agents that have tunnels, and then those that come.
    pub(crate) fn arrivals(&self) -> (Vec<Arrival>, broadcast::Receiver<Arrival>) {
        let coming = self.arrivals.subscribe();
        let present = self.by_cluster.iter().flat_map(|cluster_tunnels| {
            cluster_tunnels.tunnels.iter().map(|live| live.arrival(cluster_tunnels.key())).collect::<Vec<_>>()
        });
        (present.collect(), coming)
    }

    /// Doubts the tunnels of an agent that has come to another hub as another process.
    pub(crate) fn came_elsewhere(&self, Arrival { cluster, agent, instance }: &Arrival) {
        let tunnels = self.of_cluster(cluster).into_iter();
        let others = tunnels.filter(|live| live.agent == *agent && live.instance != *instance);
        others.for_each(|live| self.doubt(live));
    }

    /// Has the watchdog ask whether the tunnel's agent is still there.
    pub(crate) fn doubt(&self, live: Arc<LiveTunnel>) {
        if !live.is_doubted.swap(true, Ordering::Relaxed) {
            self.doubted.lock().push(live);
            self.doubts.notify_one();
        }
    }

    /// Waits for tunnels whose agent may be gone. For one waiter.
    pub(crate) async fn doubted(&self) -> Vec<Arc<LiveTunnel>> {
        loop {
            let doubted = std::mem::take(&mut *self.doubted.lock());
            if !doubted.is_empty() {
                doubted.iter().for_each(|live| live.is_doubted.store(false, Ordering::Relaxed));
                return doubted;
            }
            self.doubts.notified().await;
        }
    }

    /// Looks at every tunnel.
    pub(crate) fn for_each(&self, mut look: impl FnMut(&Arc<LiveTunnel>)) {
        for cluster in &self.by_cluster {
            cluster.tunnels.iter().for_each(&mut look);
        }
    }

    /// How many tunnels there are.
    pub(crate) fn count(&self) -> usize {
        self.by_cluster.iter().map(|cluster_tunnels| cluster_tunnels.tunnels.len()).sum()
    }

    /// Waits until a tunnel has come or gone since the last call. For one waiter.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What a later process needs to reset the tunnels.
    pub(crate) fn resettable(&self) -> Vec<Resettable> {
        let tunnels = |cluster: &Cluster| cluster.tunnels.iter().filter_map(|live| live.tunnel.resettable()).collect();
        self.by_cluster.iter().flat_map(|cluster_tunnels| -> Vec<_> { tunnels(&cluster_tunnels) }).collect()
    }

    /// What the tunnels of `cluster` amount to.
    pub(crate) fn summary(&self, cluster: &ClusterName) -> Summary {
        let Some(cluster_tunnels) = self.by_cluster.get(cluster) else { return Summary::default() };
        let mut agents = BTreeMap::new();
        for live in &cluster_tunnels.tunnels {
            let unheard = live.unheard();
            let least: &mut Duration = agents.entry(live.agent.clone()).or_insert(unheard);
            *least = unheard.min(*least);
        }
        Summary {
            tunnels: cluster_tunnels.tunnels.len(),
            agents,
            rtt: cluster_tunnels.tunnels.iter().map(|live| live.tunnel.rtt()).min(),
            path_mtu: cluster_tunnels.tunnels.iter().map(|live| live.tunnel.path_mtu()).min(),
            streams: cluster_tunnels.tunnels.iter().map(|live| live.streams.load(Ordering::Relaxed)).sum(),
            bytes_to_cluster: cluster_tunnels.traffic.into_tunnel(),
            bytes_from_cluster: cluster_tunnels.traffic.out_of_tunnel(),
        }
    }
}

impl Cluster {
    fn find_superseded(&self) {
        for live in &self.tunnels {
            let later = |other: &&Arc<LiveTunnel>| {
                other.id > live.id && other.agent == live.agent && other.instance != live.instance
            };
            live.superseded.send_replace(self.tunnels.iter().any(|other| later(&other)));
        }
    }
}

impl LiveTunnel {
    fn arrival(&self, cluster: &ClusterName) -> Arrival {
        Arrival { cluster: cluster.clone(), agent: self.agent.clone(), instance: self.instance.clone() }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Which start of the agent this tunnel belongs to.
    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    /// Takes part in the count of streams.
    pub(crate) fn count(self: &Arc<Self>) -> StreamGuard {
        self.streams.fetch_add(1, Ordering::Relaxed);
        StreamGuard(self.clone())
    }

    /// Resolves when a later instance of the same agent has a tunnel: this one will hardly answer.
    pub(crate) async fn superseded(&self) {
        // The sender is this tunnel's own: it is there as long as this waits.
        let _ = self.superseded.subscribe().wait_for(|superseded| *superseded).await;
    }

    /// The agent asked to be left alone.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the agent answered the last dial in time.
    pub(crate) fn answered(&self, in_time: bool) {
        *self.unanswered.lock() = (!in_time).then(Instant::now);
    }

    /// Whether it has streams.
    pub(crate) fn is_in_use(&self) -> bool {
        self.streams.load(Ordering::Relaxed) > 0
    }

    /// Whether the agent is still heard of.
    pub(crate) fn check_liveness(&self, now: Instant) -> LivenessCheck {
        self.tunnel.check_liveness(&mut self.liveness.lock(), self.is_in_use(), now)
    }

    /// When to look next.
    pub(crate) fn next_check(&self) -> Instant {
        self.liveness.lock().next_check(self.is_in_use())
    }

    /// How long the agent has not been heard of.
    fn unheard(&self) -> Duration {
        self.liveness.lock().since().elapsed()
    }

    /// How long ago the agent was there for the last time, once the tunnel has ended: one that has said how it ends was until then.
    pub(crate) fn gone_for(&self) -> Duration {
        if self.closed_silent.load(Ordering::Relaxed) { self.unheard() } else { Duration::ZERO }
    }

    /// Closes the tunnel of an agent that seems to be gone.
    pub(crate) fn close_silent(&self, text: &str) {
        self.closed_silent.store(true, Ordering::Relaxed);
        self.close(CloseReason::DeadlineExceeded, text);
    }

    /// Waits until the tunnel is gone.
    pub(crate) async fn closed(&self) -> ConnectionLost {
        let loss = self.tunnel.closed().await;
        let silent = loss == ConnectionLost::ClosedHere && self.closed_silent.load(Ordering::Relaxed);
        if silent { ConnectionLost::TimedOut } else { loss }
    }

    /// Closes the tunnel.
    pub(crate) fn close(&self, reason: CloseReason, text: &str) {
        self.tunnel.close(reason, text);
    }

    fn preference(&self) -> (bool, bool, bool, usize) {
        let flag = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let unanswered = self.unanswered.lock().is_some_and(|since| since.elapsed() < SILENCE_TIMEOUT);
        let silent = self.liveness.lock().silent_for() >= OVERDUE;
        (*self.superseded.borrow(), unanswered || silent, flag(&self.draining), self.streams.load(Ordering::Relaxed))
    }
}

impl Drop for TunnelGuard {
    fn drop(&mut self) {
        if let Some(mut cluster_tunnels) = self.tunnels.by_cluster.get_mut(&self.cluster) {
            cluster_tunnels.tunnels.retain(|live| live.id != self.live.id);
            cluster_tunnels.find_superseded();
        }
        self.tunnels.remove_forgotten(&self.cluster);
        self.tunnels.changed.notify_one();
    }
}

impl StreamGuard {
    /// The worker on which the stream's tunnel lives.
    pub(crate) fn worker(&self) -> &Handle {
        &self.0.worker
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
