//! Presence: when agents were last seen, whether their clusters can be reached, and which CAs they have: queued at once and written
//! down behind.
//!
//! Who reports never waits for the store. What was queued of a cluster is one status, in which the newest wins, until a commit that
//! says so has succeeded: a store that is away costs memory for the agents that are registered, and no truth.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use certs::{AgentName, ClusterName, KeyFingerprint};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::{ATTEMPTS, Registry, StoredCluster};
use crate::cluster::ManagedCluster;
use crate::trust::AgentTrust;
use store::Backoff;
use store::{CommitError, Txn};

/// What is queued and not yet written.
pub struct Presence {
    registry: Arc<Registry>,
    /// Until when the process before this one was there: clusters that are recorded as available had agents until then.
    until: Option<Timestamp>,
    /// Whether a cluster has a tunnel. Asked when that is written, and again whenever another change came first.
    available: Box<dyn Fn(&ClusterName) -> bool + Send + Sync>,
    pending: Mutex<BTreeMap<ClusterName, PendingStatus>>,
    queued: Notify,
}

/// An agent that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Whose it was: an agent that has joined again with another key was not seen.
    pub key: KeyFingerprint,
    pub at: Timestamp,
    /// Its own version, where it has just told it.
    pub version: Option<String>,
}

/// What is to be written of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct PendingStatus {
    agents: BTreeMap<AgentName, Sighting>,
    /// What agents with these keys have to do with the hub's CA, while that is rotated.
    trusts: BTreeMap<AgentName, (KeyFingerprint, AgentTrust)>,
    /// When the cluster was seen, where nobody knows which agent it was.
    at: Option<Timestamp>,
}

/// How long changes gather, so that a fleet that comes back is written in few commits: after a commit of many for longer.
const GATHERED: Duration = Duration::from_millis(100);
const GATHERED_OF_MANY: Duration = Duration::from_secs(1);
const MANY: usize = 8;

/// Clusters in one commit, as long as they fit in.
const CLUSTERS: usize = 100;

impl Presence {
    pub fn new(
        registry: Arc<Registry>,
        until: Option<Timestamp>,
        available: impl Fn(&ClusterName) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { registry, until, available: Box::new(available), pending: Mutex::default(), queued: Notify::new() }
    }

    /// Notes that an agent came or went, and that its cluster's tunnels are others since.
    pub fn saw(&self, cluster: &ClusterName, agent: &AgentName, sighting: Sighting) {
        self.queue(cluster, |status| match status.agents.get_mut(agent) {
            Some(known) if known.key == sighting.key => known.take_over(sighting),
            _ => drop(status.agents.insert(agent.clone(), sighting)),
        });
    }

    /// Notes what an agent with this key has to do with the hub's CA, whether it has ever come or not.
    pub fn trusts(&self, cluster: &ClusterName, agent: &AgentName, key: KeyFingerprint, trust: AgentTrust) {
        self.queue(cluster, |status| drop(status.trusts.insert(agent.clone(), (key, trust))));
    }

    /// Notes that no agent of the cluster has come back since the process before this one.
    pub fn did_not_come_back(&self, cluster: &ClusterName) {
        self.queue(cluster, |status| status.at = status.at.max(self.until));
    }

    /// When an agent of the cluster last came or went, whether that is written or not.
    pub fn last_seen(&self, cluster: &ManagedCluster) -> Option<Timestamp> {
        let pending = self.pending.lock();
        let queued = pending.get(cluster.name()).and_then(|status| status.last(cluster));
        let until = self.until.filter(|_| cluster.is_available());
        cluster.status.last_seen.max(queued).max(until)
    }

    /// Writes what is queued for as long as it runs.
    pub async fn run(&self) {
        let mut backoff = Backoff::default();
        let (mut behind, mut gather) = (false, GATHERED);
        loop {
            self.queued.notified().await;
            sleep(gather).await;
            gather = if self.pending.lock().len() < MANY { GATHERED } else { GATHERED_OF_MANY };
            while let Err(error) = self.write().await {
                if !behind {
                    tracing::warn!(error = &error as &dyn Error, "when agents were seen cannot be written; it is kept");
                }
                behind = true;
                sleep(backoff.next_wait()).await;
            }
            backoff = Backoff::default();
            if std::mem::take(&mut behind) {
                tracing::info!("when agents were seen is written again");
            }
        }
    }

    /// Writes what is queued; what fails stays queued.
    pub async fn write(&self) -> Result<(), CommitError> {
        loop {
            let some: Vec<_> = self.pending.lock().iter().take(CLUSTERS).map(cloned).collect();
            if some.is_empty() {
                return Ok(());
            }
            self.record(&some).await?;
            let mut pending = self.pending.lock();
            for (cluster, written) in &some {
                // What was queued meanwhile is written next.
                if pending.get(cluster) == Some(written) {
                    pending.remove(cluster);
                }
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn notes_left(&self) -> usize {
        self.pending.lock().len()
    }

    /// Writes these in as few commits as they fit into.
    async fn record(&self, pending: &[(ClusterName, PendingStatus)]) -> Result<(), CommitError> {
        let mut parts = vec![pending];
        while let Some(part) = parts.pop() {
            match self.commit(part).await {
                Err(CommitError::TooLarge { .. }) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Err(error @ CommitError::TooLarge { .. }) => {
                    tracing::warn!(cluster = %part[0].0, error = &error as &dyn Error, "cannot record an agent");
                }
                outcome => outcome?,
            }
        }
        Ok(())
    }

    async fn commit(&self, pending: &[(ClusterName, PendingStatus)]) -> Result<(), CommitError> {
        let mut attempts = ATTEMPTS;
        loop {
            let txn = pending.iter().fold(Txn::new(), |txn, (cluster, status)| self.decide(txn, cluster, status));
            if txn == Txn::new() {
                return Ok(());
            }
            attempts -= 1;
            match self.registry.store.commit(txn).await {
                Err(CommitError::Conflict { .. }) if attempts > 0 => {}
                outcome => return outcome.map(drop),
            }
        }
    }

    /// Adds what this makes of its cluster as it is now. One that is not registered any more needs no record.
    fn decide(&self, txn: Txn, cluster: &ClusterName, status: &PendingStatus) -> Txn {
        let Some(stored) = self.registry.stored_cluster(cluster) else { return txn };
        let (mut new, now) = (stored.cluster.clone(), Timestamp::now());
        status.apply(&mut new, (self.available)(cluster), now);
        if new == stored.cluster { txn } else { StoredCluster::put(Some(&stored), &new, txn, now) }
    }

    fn queue(&self, cluster: &ClusterName, add: impl FnOnce(&mut PendingStatus)) {
        add(self.pending.lock().entry(cluster.clone()).or_default());
        self.queued.notify_one();
    }
}

impl Sighting {
    /// The newest time, and the version that was told last.
    fn take_over(&mut self, newer: Self) {
        self.at = self.at.max(newer.at);
        self.version = newer.version.or_else(|| self.version.take());
    }
}

impl PendingStatus {
    fn apply(&self, cluster: &mut ManagedCluster, available: bool, now: Timestamp) {
        let newest = self.last(cluster);
        for (agent, (key, trust)) in &self.trusts {
            cluster.record_trust(agent, key, trust);
        }
        if self.is_of_trust_alone() {
            return;
        }
        for (agent, Sighting { key, at, version }) in &self.agents {
            cluster.record_seen(agent, key, version.as_deref(), *at);
        }
        cluster.record_last_seen(self.at);
        cluster.record_available(available, newest.unwrap_or(now));
    }

    /// Nobody came or went.
    fn is_of_trust_alone(&self) -> bool {
        self.agents.is_empty() && self.at.is_none() && !self.trusts.is_empty()
    }

    /// When an agent was seen that the cluster knows.
    fn last(&self, cluster: &ManagedCluster) -> Option<Timestamp> {
        let known = |(agent, sighting): (&AgentName, &Sighting)| {
            cluster.agent(agent).is_some_and(|known| known.key == sighting.key).then_some(sighting.at)
        };
        self.agents.iter().filter_map(known).max().max(self.at)
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").field("pending", &self.pending.lock().len()).finish_non_exhaustive()
    }
}

fn cloned((cluster, status): (&ClusterName, &PendingStatus)) -> (ClusterName, PendingStatus) {
    (cluster.clone(), status.clone())
}
