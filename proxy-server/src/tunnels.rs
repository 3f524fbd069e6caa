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
use tunnel::{CloseReason, HubTunnel, Look, Loss, OVERDUE, Resettable, SILENCE, Silence, Traffic};

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
    doubted: Mutex<Vec<Arc<Member>>>,
    doubts: Notify,
}

#[derive(Debug, Default)]
struct Cluster {
    members: Vec<Arc<Member>>,
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
pub(crate) struct Member {
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
    silence: Mutex<Silence>,
    /// It was closed because of its agent's silence.
    closed_silent: AtomicBool,
    /// It waits for the watchdog.
    is_doubted: AtomicBool,
    /// A later instance of the same agent has a tunnel: this one's process is gone, or it shares its identity.
    superseded: watch::Sender<bool>,
}

/// A tunnel's place among the live ones; leaves when dropped.
#[derive(Debug)]
pub(crate) struct Registered {
    tunnels: Arc<Tunnels>,
    cluster: ClusterName,
    pub(crate) member: Arc<Member>,
}

/// A stream's place in its tunnel's count; leaves when dropped.
#[derive(Debug)]
pub(crate) struct Counted(Arc<Member>);

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

/// What makes a tunnel a member.
pub(crate) struct Joining {
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
    pub(crate) fn register(self: &Arc<Self>, joining: Joining) -> Registered {
        let Joining { cluster, agent, key, version, instance, trust, tunnel } = joining;
        let member = Arc::new(Member {
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
            silence: Mutex::new(Silence::new(Instant::now())),
            closed_silent: AtomicBool::new(false),
            is_doubted: AtomicBool::new(false),
            superseded: watch::Sender::new(false),
        });
        let mut entry = self.by_cluster.entry(cluster.clone()).or_default();
        entry.forgotten = false;
        entry.members.push(member.clone());
        entry.find_superseded();
        entry.arrived.notify_waiters();
        // An agent that opens a tunnel has lost the last one, as a rule.
        let others = entry.members.iter().filter(|other| other.agent == member.agent && other.id != member.id);
        let others: Vec<_> = others.cloned().collect();
        drop(entry);
        others.into_iter().for_each(|member| self.doubt(member));
        // Mostly nobody listens.
        let _ = self.arrivals.send(member.arrival(&cluster));
        self.changed.notify_one();
        Registered { tunnels: self.clone(), cluster, member }
    }

    /// The tunnel that the next dial takes: the ready one with the fewest streams, but none of `tried`. Tunnels that
    /// drain, do not answer or are superseded are taken only where there is no other.
    pub(crate) fn pick(&self, cluster: &ClusterName, tried: &[u64]) -> Option<Arc<Member>> {
        let entry = self.by_cluster.get(cluster)?;
        let candidates = entry.members.iter().filter(|member| !tried.contains(&member.id));
        candidates.min_by_key(|member| member.preference()).cloned()
    }

    /// Waits until `cluster`, which is registered, has a tunnel.
    pub(crate) async fn arrival(&self, cluster: &ClusterName) {
        let arrived = self.by_cluster.entry(cluster.clone()).or_default().arrived.clone();
        let mut arrival = pin!(arrived.notified());
        arrival.as_mut().enable();
        if self.members(cluster).is_empty() {
            arrival.await;
        }
    }

    /// The tunnels of `cluster`.
    pub(crate) fn members(&self, cluster: &ClusterName) -> Vec<Arc<Member>> {
        self.by_cluster.get(cluster).map(|entry| entry.members.clone()).unwrap_or_default()
    }

    /// Every cluster that has a tunnel, or had one since the hub's start and is still registered.
    pub(crate) fn clusters(&self) -> Vec<ClusterName> {
        self.by_cluster.iter().map(|entry| entry.key().clone()).collect()
    }

    /// Forgets a cluster that is not registered any more, with its last tunnel.
    pub(crate) fn forget(&self, cluster: &ClusterName) {
        if let Some(mut entry) = self.by_cluster.get_mut(cluster) {
            entry.forgotten = true;
        }
        self.remove_forgotten(cluster);
    }

    fn remove_forgotten(&self, cluster: &ClusterName) {
        self.by_cluster.remove_if(cluster, |_, entry| entry.forgotten && entry.members.is_empty());
    }

    /// Where the bytes of `cluster` are counted; nowhere, when it is forgotten.
    pub(crate) fn traffic(&self, cluster: &ClusterName) -> Arc<Traffic> {
        self.by_cluster.get(cluster).map(|entry| entry.traffic.clone()).unwrap_or_default()
    }

    /// The agents that have tunnels, and then those that come.
    pub(crate) fn arrivals(&self) -> (Vec<Arrival>, broadcast::Receiver<Arrival>) {
        let coming = self.arrivals.subscribe();
        let present = self
            .by_cluster
            .iter()
            .flat_map(|entry| entry.members.iter().map(|member| member.arrival(entry.key())).collect::<Vec<_>>());
        (present.collect(), coming)
    }

    /// Doubts the tunnels of an agent that has come to another hub as another process.
    pub(crate) fn came_elsewhere(&self, Arrival { cluster, agent, instance }: &Arrival) {
        let members = self.members(cluster).into_iter();
        let others = members.filter(|member| member.agent == *agent && member.instance != *instance);
        others.for_each(|member| self.doubt(member));
    }

    /// Has the watchdog ask whether the tunnel's agent is still there.
    pub(crate) fn doubt(&self, member: Arc<Member>) {
        if !member.is_doubted.swap(true, Ordering::Relaxed) {
            self.doubted.lock().push(member);
            self.doubts.notify_one();
        }
    }

    /// Waits for tunnels whose agent may be gone. For one waiter.
    pub(crate) async fn doubted(&self) -> Vec<Arc<Member>> {
        loop {
            let doubted = std::mem::take(&mut *self.doubted.lock());
            if !doubted.is_empty() {
                doubted.iter().for_each(|member| member.is_doubted.store(false, Ordering::Relaxed));
                return doubted;
            }
            self.doubts.notified().await;
        }
    }

    /// Looks at every tunnel.
    pub(crate) fn for_each(&self, mut look: impl FnMut(&Arc<Member>)) {
        for cluster in &self.by_cluster {
            cluster.members.iter().for_each(&mut look);
        }
    }

    /// How many tunnels there are.
    pub(crate) fn count(&self) -> usize {
        self.by_cluster.iter().map(|entry| entry.members.len()).sum()
    }

    /// Waits until a tunnel has come or gone since the last call. For one waiter.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What a later process needs to reset the tunnels.
    pub(crate) fn resettable(&self) -> Vec<Resettable> {
        let members =
            |cluster: &Cluster| cluster.members.iter().filter_map(|member| member.tunnel.resettable()).collect();
        self.by_cluster.iter().flat_map(|entry| -> Vec<_> { members(&entry) }).collect()
    }

    /// What the tunnels of `cluster` amount to.
    pub(crate) fn summary(&self, cluster: &ClusterName) -> Summary {
        let Some(entry) = self.by_cluster.get(cluster) else { return Summary::default() };
        let mut agents = BTreeMap::new();
        for member in &entry.members {
            let unheard = member.unheard();
            let least: &mut Duration = agents.entry(member.agent.clone()).or_insert(unheard);
            *least = unheard.min(*least);
        }
        Summary {
            tunnels: entry.members.len(),
            agents,
            rtt: entry.members.iter().map(|member| member.tunnel.rtt()).min(),
            path_mtu: entry.members.iter().map(|member| member.tunnel.path_mtu()).min(),
            streams: entry.members.iter().map(|member| member.streams.load(Ordering::Relaxed)).sum(),
            bytes_to_cluster: entry.traffic.into_tunnel(),
            bytes_from_cluster: entry.traffic.out_of_tunnel(),
        }
    }
}

impl Cluster {
    fn find_superseded(&self) {
        for member in &self.members {
            let later = |other: &&Arc<Member>| {
                other.id > member.id && other.agent == member.agent && other.instance != member.instance
            };
            member.superseded.send_replace(self.members.iter().any(|other| later(&other)));
        }
    }
}

impl Member {
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
    pub(crate) fn count(self: &Arc<Self>) -> Counted {
        self.streams.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    /// Resolves when a later instance of the same agent has a tunnel: this one will hardly answer.
    pub(crate) async fn superseded(&self) {
        // The sender is this member's own: it is there as long as this waits.
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
    pub(crate) fn look(&self, now: Instant) -> Look {
        self.tunnel.look(&mut self.silence.lock(), self.is_in_use(), now)
    }

    /// When to look next.
    pub(crate) fn next_look(&self) -> Instant {
        self.silence.lock().next(self.is_in_use())
    }

    /// How long the agent has not been heard of.
    fn unheard(&self) -> Duration {
        self.silence.lock().since().elapsed()
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
    pub(crate) async fn closed(&self) -> Loss {
        let loss = self.tunnel.closed().await;
        let silent = loss == Loss::ClosedHere && self.closed_silent.load(Ordering::Relaxed);
        if silent { Loss::TimedOut } else { loss }
    }

    /// Closes the tunnel.
    pub(crate) fn close(&self, reason: CloseReason, text: &str) {
        self.tunnel.close(reason, text);
    }

    fn preference(&self) -> (bool, bool, bool, usize) {
        let flag = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let unanswered = self.unanswered.lock().is_some_and(|since| since.elapsed() < SILENCE);
        let silent = self.silence.lock().lasts() >= OVERDUE;
        (*self.superseded.borrow(), unanswered || silent, flag(&self.draining), self.streams.load(Ordering::Relaxed))
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(mut entry) = self.tunnels.by_cluster.get_mut(&self.cluster) {
            entry.members.retain(|member| member.id != self.member.id);
            entry.find_superseded();
        }
        self.tunnels.remove_forgotten(&self.cluster);
        self.tunnels.changed.notify_one();
    }
}

impl Counted {
    /// The worker on which the stream's tunnel lives.
    pub(crate) fn worker(&self) -> &Handle {
        &self.0.worker
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
