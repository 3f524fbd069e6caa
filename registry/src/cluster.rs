//! The managed cluster: what the hub itself reads of OCM's resource, with our agents in its status. Everything else of the stored
//! object is the Kubernetes API's alone.

use std::collections::BTreeMap;
use std::net::IpAddr;

use certs::{AgentName, ClusterName, KeyFingerprint};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::condition::{self, Condition, ConditionStatus, Fact};
use crate::trust::AgentTrust;

/// `cluster.open-cluster-management.io/v1` ManagedCluster, as OCM's clients read and write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedCluster {
    pub api_version: String,
    pub kind: String,
    pub metadata: Metadata,
    #[serde(default)]
    pub spec: ClusterSpec,
    #[serde(default)]
    pub status: ClusterStatus,
}

/// The part of Kubernetes' ObjectMeta that the hub reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub name: ClusterName,
    /// A random UUID: tells a cluster from a later one of the same name.
    pub uid: String,
    pub creation_timestamp: Timestamp,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Grows with each change of the spec.
    #[serde(default)]
    pub generation: u64,
}

/// What the hub's admin wants of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSpec {
    pub hub_accepts_client: bool,
    /// Kept for OCM's clients. Liveness here comes from the tunnel, not from leases.
    pub lease_duration_seconds: i32,
}

/// What is known of a cluster. The agents and `lastSeen` are our additions to OCM's status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStatus {
    pub conditions: Vec<Condition>,
    /// At most [`MAX_AGENTS`], in the order they asked to join, and of these [`MAX_WAITING`] that wait.
    pub agents: Vec<ClusterAgent>,
    /// When an agent of the cluster last connected or disconnected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
}

/// One agent of a cluster: the name in its certificate and the only key that may carry it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterAgent {
    pub name: AgentName,
    pub key: KeyFingerprint,
    pub phase: AgentPhase,
    pub requested_at: Timestamp,
    /// Where it asked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The id of the token that it asked with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// The agent's own version, as it last told it.
    #[serde(default)]
    pub version: String,
    /// Its certificate request, PEM in base64 as in Kubernetes' CertificateSigningRequest.
    #[serde(default)]
    pub request: String,
    /// Which CAs of the hub it knows, as far as that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<AgentTrust>,
}

/// An agent as somebody was shown it: a decision about it is for this key and no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShownAgent {
    pub name: AgentName,
    pub key: KeyFingerprint,
}

/// Whether an agent may serve its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentPhase {
    /// It asked to join and waits for an admin.
    Pending,
    /// It may connect, as long as its cluster is accepted.
    Accepted,
    /// An admin sent it away: its key stays out, its name is free for an agent with another one.
    Denied,
}

/// What the hub's admin decided about a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptanceStatus {
    /// Nothing yet.
    Pending,
    Accepted,
    Denied,
}

/// More replicas than anybody runs; stops a reusable token from growing one object without end.
pub const MAX_AGENTS: usize = 64;

/// Of these, agents that wait for an admin: whoever has a token may be one.
pub const MAX_WAITING: usize = 32;

/// OCM's default, in seconds.
const LEASE_DURATION_SECONDS: i32 = 60;

impl Default for ClusterSpec {
    fn default() -> Self {
        Self { hub_accepts_client: false, lease_duration_seconds: LEASE_DURATION_SECONDS }
    }
}

impl ClusterAgent {
    /// As somebody is shown it.
    pub fn shown(&self) -> ShownAgent {
        ShownAgent { name: self.name.clone(), key: self.key }
    }
}

impl ManagedCluster {
    /// A cluster that has just asked to join: not accepted, no agents, no conditions.
    pub fn new(name: ClusterName, uid: String, now: Timestamp) -> Self {
        Self {
            api_version: "cluster.open-cluster-management.io/v1".to_owned(),
            kind: "ManagedCluster".to_owned(),
            metadata: Metadata {
                name,
                uid,
                creation_timestamp: whole_second(now),
                labels: BTreeMap::new(),
                annotations: BTreeMap::new(),
                generation: 1,
            },
            spec: ClusterSpec::default(),
            status: ClusterStatus::default(),
        }
    }

    pub fn name(&self) -> &ClusterName {
        &self.metadata.name
    }

    /// What the admin decided. `hubAcceptsClient` decides alone; the condition tells "denied" from "not yet".
    pub fn acceptance(&self) -> AcceptanceStatus {
        if self.spec.hub_accepts_client {
            return AcceptanceStatus::Accepted;
        }
        match condition::find(&self.status.conditions, condition::HUB_ACCEPTED) {
            Some(condition) if condition.status == ConditionStatus::False => AcceptanceStatus::Denied,
            _ => AcceptanceStatus::Pending,
        }
    }

    pub fn agent(&self, name: &AgentName) -> Option<&ClusterAgent> {
        self.status.agents.iter().find(|agent| agent.name == *name)
    }

    /// Lets the cluster in; its agents keep their phase.
    pub(crate) fn accept(&mut self) {
        self.spec.hub_accepts_client = true;
    }

    /// The agents that wait for an admin.
    pub fn waiting(&self) -> impl Iterator<Item = &ClusterAgent> {
        self.status.agents.iter().filter(|agent| agent.phase == AgentPhase::Pending)
    }

    /// The agents that were not sent away.
    pub fn members(&self) -> impl Iterator<Item = &ClusterAgent> {
        self.status.agents.iter().filter(|agent| agent.phase != AgentPhase::Denied)
    }

    /// Decides about one agent; false when there is none of this name and key, or it was sent away and is to be let in:
    /// a key that is out stays out.
    pub(crate) fn decide_agent(&mut self, shown: &ShownAgent, phase: AgentPhase) -> bool {
        let found = self.status.agents.iter_mut().find(|agent| agent.name == shown.name && agent.key == shown.key);
        let Some(agent) = found.filter(|agent| agent.phase != AgentPhase::Denied || phase == AgentPhase::Denied) else {
            return false;
        };
        agent.phase = phase;
        true
    }

    /// Forgets an agent; false when there is none of this name and key.
    pub(crate) fn remove_agent(&mut self, shown: &ShownAgent) -> bool {
        let before = self.status.agents.len();
        self.status.agents.retain(|agent| agent.name != shown.name || agent.key != shown.key);
        self.status.agents.len() < before
    }

    /// Shuts the cluster out. Its agents stay listed, so that a later accept brings them back.
    #[cfg(test)]
    pub(crate) fn deny(&mut self, now: Timestamp) {
        self.spec.hub_accepts_client = false;
        condition::set(&mut self.status.conditions, Fact::Denied, whole_second(now));
    }

    /// Notes that an agent with this key connected or left at `at`, and its version where it has told it. One that is not known
    /// was not seen.
    ///
    /// Time never runs backwards here: a late report of an earlier moment changes nothing.
    pub(crate) fn record_seen(
        &mut self,
        agent: &AgentName,
        key: &KeyFingerprint,
        version: Option<&str>,
        at: Timestamp,
    ) {
        let at = whole_second(at);
        let mut agents = self.status.agents.iter_mut();
        let Some(agent) = agents.find(|known| known.name == *agent && known.key == *key) else { return };
        if agent.last_seen.is_none_or(|seen| seen <= at)
            && let Some(version) = version
        {
            version.clone_into(&mut agent.version);
        }
        agent.last_seen = agent.last_seen.max(Some(at));
        self.record_last_seen(Some(at));
        condition::set(&mut self.status.conditions, Fact::Joined, at);
    }

    /// Notes that the cluster was seen, whichever agent it was.
    pub(crate) fn record_last_seen(&mut self, at: Option<Timestamp>) {
        self.status.last_seen = self.status.last_seen.max(at.map(whole_second));
    }

    /// Notes whether the cluster can be reached. One that nobody accepted yet says nothing about that.
    pub(crate) fn record_available(&mut self, available: bool, at: Timestamp) {
        let known = condition::find(&self.status.conditions, condition::AVAILABLE).is_some();
        if self.acceptance() == AcceptanceStatus::Accepted || known && !available {
            let fact = if available { Fact::Available } else { Fact::Unreachable };
            condition::set(&mut self.status.conditions, fact, whole_second(at));
        }
    }

    /// Whether the registry believes that the cluster can be reached.
    pub fn is_available(&self) -> bool {
        condition::find(&self.status.conditions, condition::AVAILABLE)
            .is_some_and(|condition| condition.status == ConditionStatus::True)
    }
}

/// Kubernetes' times have no fraction of a second.
pub(crate) fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn cluster() -> ManagedCluster {
        let mut cluster = ManagedCluster::new("c1".parse().unwrap(), "u-1".to_owned(), at(0));
        cluster.status.agents.push(ClusterAgent {
            name: "a1".parse().unwrap(),
            key: format!("sha256:{:064x}", 1).parse().unwrap(),
            phase: AgentPhase::Pending,
            requested_at: at(0),
            address: None,
            token: String::new(),
            last_seen: None,
            version: String::new(),
            request: String::new(),
            ca: None,
        });
        cluster
    }

    #[test]
    fn acceptance_follows_accept_and_deny() {
        let mut cluster = cluster();
        assert_eq!(cluster.acceptance(), AcceptanceStatus::Pending);
        cluster.accept();
        assert_eq!(cluster.acceptance(), AcceptanceStatus::Accepted);
        cluster.deny(at(2));
        assert_eq!(cluster.acceptance(), AcceptanceStatus::Denied);
        cluster.accept();
        assert_eq!(cluster.acceptance(), AcceptanceStatus::Accepted);
        assert_eq!(cluster.status.conditions.len(), 1);
    }

    #[test]
    fn being_seen_marks_the_cluster_joined_and_never_runs_backwards() {
        let mut cluster = cluster();
        let agent = "a1".parse().unwrap();
        let key = cluster.agent(&agent).unwrap().key;
        let other: KeyFingerprint = format!("sha256:{:064x}", 7).parse().unwrap();
        cluster.record_seen(&agent, &other, Some("0.3"), at(30));
        cluster.record_seen(&"other".parse().unwrap(), &key, Some("0.3"), at(30));
        assert_eq!((cluster.status.last_seen, cluster.status.conditions.len()), (None, 0));
        cluster.record_seen(&agent, &key, Some("0.2"), at(20));
        cluster.record_seen(&agent, &key, Some("0.1"), at(10));
        cluster.record_seen(&agent, &key, None, at(20));
        assert_eq!(cluster.status.last_seen, Some(at(20)));
        assert_eq!(cluster.agent(&agent).unwrap().last_seen, Some(at(20)));
        assert_eq!(cluster.agent(&agent).unwrap().version, "0.2");
        assert!(condition::find(&cluster.status.conditions, condition::JOINED).is_some());
        cluster.record_last_seen(Some(at(15)));
        assert_eq!(cluster.status.last_seen, Some(at(20)));
    }

    #[test]
    fn only_an_accepted_cluster_is_available_and_one_that_is_denied_is_no_more() {
        let mut cluster = cluster();
        let said = |cluster: &ManagedCluster| {
            condition::find(&cluster.status.conditions, condition::AVAILABLE).map(|condition| condition.status)
        };
        cluster.record_available(true, at(1));
        assert_eq!(said(&cluster), None);
        cluster.accept();
        cluster.record_available(true, at(2));
        assert_eq!((said(&cluster), cluster.is_available()), (Some(ConditionStatus::True), true));
        cluster.deny(at(3));
        cluster.record_available(false, at(4));
        assert_eq!((said(&cluster), cluster.is_available()), (Some(ConditionStatus::Unknown), false));
    }
}
