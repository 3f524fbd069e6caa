//! What becomes of an agent that asks to join: one pure rule over the token, the cluster as it is, and the time.

use std::fmt;
use std::net::IpAddr;

use base64::{Engine, prelude::BASE64_STANDARD};
use certs::{AgentName, ClusterName, KeyFingerprint};
use jiff::Timestamp;
use secrecy::SecretString;
use thiserror::Error;

use crate::cluster::{
    AcceptanceStatus, AgentPhase, ClusterAgent, MAX_AGENTS, MAX_WAITING, ManagedCluster, whole_second,
};
use crate::join_counts::JoinCounts;
use crate::token::{JoinToken, TokenUse};
use store::CommitError;

/// What an agent says when it asks to join. It has proven to hold the key.
#[derive(Clone, Debug)]
pub struct JoinAsk {
    /// `cpj-<id>.<secret>`
    pub token: SecretString,
    /// `None` leaves the name to the token.
    pub cluster: Option<ClusterName>,
    pub agent: AgentName,
    pub key: KeyFingerprint,
    /// The agent's own version, for showing.
    pub version: String,
    /// Its certificate request, DER, for showing: what counts is the key.
    pub request: Vec<u8>,
    /// Where it asks from.
    pub address: Option<IpAddr>,
}

/// How a join went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joined {
    /// The agent may have its certificate.
    Accepted { cluster: ClusterName },
    /// The agent is noted and waits for an admin.
    Pending { cluster: ClusterName },
}

/// Why a join was refused. Nothing was written.
#[derive(Debug, Error)]
pub enum JoinRefusal {
    #[error("the join token is not known here; copy it whole, or make a new one: cluster-proxy token create")]
    UnknownToken,
    #[error("the join token expired at {at}; make a new one: cluster-proxy token create")]
    ExpiredToken { at: Timestamp },
    #[error("the join token was already used by another agent; make a new one: cluster-proxy token create")]
    UsedToken,
    #[error("the join token is for cluster {bound} only; join with --cluster {bound}, or make a new token")]
    WrongName { bound: ClusterName },
    #[error("neither the agent nor the token names the cluster; join with --cluster NAME")]
    NoName,
    #[error("cluster {cluster} was denied by an admin; to let it in: cluster-proxy accept {cluster}")]
    DeniedCluster { cluster: ClusterName },
    #[error(
        "agent {agent} of cluster {cluster} was denied by an admin; to ask again, join from an empty state folder with a \
         new token: cluster-proxy join-command {cluster}"
    )]
    DeniedAgent { cluster: ClusterName, agent: AgentName },
    #[error(
        "cluster {cluster} already has an agent {agent} with another key; to take its place, join with the line that \
         'cluster-proxy join-command {cluster}' prints, or join beside it with another --agent NAME"
    )]
    AgentNameTaken { cluster: ClusterName, agent: AgentName },
    #[error(
        "cluster {cluster} has {MAX_AGENTS} agents already; remove those that are gone: cluster-proxy delete {cluster}/AGENT"
    )]
    TooManyAgents { cluster: ClusterName },
    #[error("too many agents wait {already} already; an admin decides about them first: cluster-proxy accept, or deny")]
    TooManyWaiting { already: TooManyPending },
    #[error("this token has brought {CLUSTERS_OF_TOKEN} clusters already; make a new one: cluster-proxy token create")]
    TooManyClusters,
    #[error("the join could not be recorded; try again in a moment")]
    Store(#[source] CommitError),
}

/// Where there are too many that wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TooManyPending {
    /// In the cluster asked for.
    Cluster(ClusterName),
    /// By the token, wherever they ask to join.
    Token,
    /// From the address, or the network that is one customer's.
    Source,
}

impl fmt::Display for TooManyPending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(cluster) => write!(f, "for cluster {cluster}"),
            Self::Token => f.write_str("that have asked with this token"),
            Self::Source => f.write_str("that have asked from this address"),
        }
    }
}

/// Agents that may wait at a time by one token, and from one address: more than anybody looks through, and so few that a
/// lost token fills nothing.
const WAITING_OF_ONE: usize = 64;

/// Clusters that one reusable token may bring: beyond that it is in more hands than it was made for.
pub const CLUSTERS_OF_TOKEN: usize = 1000;

impl JoinRefusal {
    /// One CamelCase word for programs, metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownToken => "UnknownToken",
            Self::ExpiredToken { .. } => "ExpiredToken",
            Self::UsedToken => "UsedToken",
            Self::WrongName { .. } => "WrongName",
            Self::NoName => "NoName",
            Self::DeniedCluster { .. } => "ClusterDenied",
            Self::DeniedAgent { .. } => "AgentDenied",
            Self::AgentNameTaken { .. } => "AgentNameTaken",
            Self::TooManyAgents { .. } => "TooManyAgents",
            Self::TooManyWaiting { .. } => "TooManyWaiting",
            Self::TooManyClusters => "TooManyClusters",
            Self::Store(_) => "StoreUnavailable",
        }
    }
}

/// The answer, and what has to be written before it is given.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) joined: Joined,
    /// `None` when the cluster stays as it is.
    pub(crate) cluster: Option<ManagedCluster>,
    /// `None` when the token stays as it is.
    pub(crate) token: Option<JoinToken>,
    /// The key that the agent of this name had, and that is good no more.
    pub(crate) replaced: Option<KeyFingerprint>,
}

/// Which cluster the agent asks for, if the token opens any door to it at all.
pub(crate) fn cluster_name(token: &JoinToken, ask: &JoinAsk, now: Timestamp) -> Result<ClusterName, JoinRefusal> {
    if let Some(earlier) = token.used_by.iter().find(|earlier| earlier.is_by(ask)) {
        return Ok(earlier.cluster.clone());
    }
    check_open(token, now)?;
    match (&token.cluster, &ask.cluster) {
        (Some(bound), Some(asked)) if bound != asked => Err(JoinRefusal::WrongName { bound: bound.clone() }),
        (Some(name), _) | (None, Some(name)) => Ok(name.clone()),
        (None, None) => Err(JoinRefusal::NoName),
    }
}

/// Decides a join to the cluster `name`, of which `cluster` is what is registered. The token's secret has been checked.
///
/// - An agent that used a single-use token may come back with it, also after it expired: it may have been interrupted
///   while it waited for an admin. It must still be listed with the same key, and gets nothing it was not given.
/// - An agent that was denied stays out; its name is free for another key.
/// - Only a token bound to a cluster's name may let an agent into an existing cluster without an admin. Such a token also
///   puts a new key in the place of the old one of an agent that has lost its state: the old one is good no more.
pub(crate) fn decide(
    token: &JoinToken,
    name: ClusterName,
    cluster: Option<&ManagedCluster>,
    ask: &JoinAsk,
    uid: impl FnOnce() -> String,
    now: Timestamp,
) -> Result<Decision, JoinRefusal> {
    let known = cluster.and_then(|cluster| cluster.agent(&ask.agent));
    let comes_back =
        known.is_some_and(|known| known.key == ask.key) && token.used_by.iter().any(|use_| use_.is_by(ask));
    if !comes_back {
        check_open(token, now)?;
    }
    if cluster.is_some_and(|cluster| cluster.acceptance() == AcceptanceStatus::Denied) {
        return Err(JoinRefusal::DeniedCluster { cluster: name });
    }
    let vouched_for = token.auto_accept && (cluster.is_none() || token.cluster.is_some());
    if let Some(known) = known {
        match (known.phase, known.key == ask.key) {
            (AgentPhase::Denied, true) => {
                return Err(JoinRefusal::DeniedAgent { cluster: name, agent: ask.agent.clone() });
            }
            (AgentPhase::Pending | AgentPhase::Accepted, false) if !vouched_for => {
                return Err(JoinRefusal::AgentNameTaken { cluster: name, agent: ask.agent.clone() });
            }
            (AgentPhase::Denied | AgentPhase::Pending | AgentPhase::Accepted, false)
            | (AgentPhase::Pending | AgentPhase::Accepted, true) => {}
        }
    }
    if let Some(cluster) = cluster
        && comes_back
    {
        return Ok(Decision { joined: joined(cluster, &ask.agent), cluster: None, token: None, replaced: None });
    }
    let mut new = cluster.map_or_else(|| ManagedCluster::new(name.clone(), uid(), now), Clone::clone);
    enter(&mut new, token, ask, vouched_for, now)?;
    let replaced = known.filter(|known| known.phase == AgentPhase::Accepted && known.key != ask.key);
    Ok(Decision {
        joined: joined(&new, &ask.agent),
        cluster: (cluster != Some(&new)).then_some(new),
        token: (!token.reusable).then(|| token.used(name, ask, now)),
        replaced: replaced.map(|known| known.key),
    })
}

/// Whether there is room for what the join adds to `before`, beside what `join_counts` has counted.
pub(crate) fn check_room(
    join_counts: &JoinCounts,
    token: &JoinToken,
    before: Option<&ManagedCluster>,
    after: &ManagedCluster,
    ask: &JoinAsk,
) -> Result<(), JoinRefusal> {
    let waits = |cluster: &ManagedCluster| cluster.waiting().any(|agent| agent.name == ask.agent);
    if waits(after) && !before.is_some_and(waits) {
        let full = |already| Err(JoinRefusal::TooManyWaiting { already });
        if after.waiting().count() > MAX_WAITING {
            return full(TooManyPending::Cluster(after.name().clone()));
        }
        if join_counts.waiting_by(&token.id) >= WAITING_OF_ONE {
            return full(TooManyPending::Token);
        }
        if ask.address.is_some_and(|address| join_counts.waiting_from(address) >= WAITING_OF_ONE) {
            return full(TooManyPending::Source);
        }
    }
    if before.is_none() && join_counts.clusters_of(&token.id) >= CLUSTERS_OF_TOKEN {
        return Err(JoinRefusal::TooManyClusters);
    }
    Ok(())
}

fn check_open(token: &JoinToken, now: Timestamp) -> Result<(), JoinRefusal> {
    if token.used_up() {
        return Err(JoinRefusal::UsedToken);
    }
    if token.expired(now) {
        return Err(JoinRefusal::ExpiredToken { at: token.expires_at });
    }
    Ok(())
}

/// Lists the agent, and lets it and its cluster in if the token vouches for them.
fn enter(
    cluster: &mut ManagedCluster,
    token: &JoinToken,
    ask: &JoinAsk,
    vouched_for: bool,
    now: Timestamp,
) -> Result<(), JoinRefusal> {
    if cluster.agent(&ask.agent).is_none_or(|known| known.key != ask.key) {
        let agents = &mut cluster.status.agents;
        agents.retain(|agent| agent.name != ask.agent);
        if agents.len() >= MAX_AGENTS {
            agents.retain(|agent| agent.phase != AgentPhase::Denied);
        }
        // Who is vouched for does not stand behind those that nobody knows.
        let waits = |agent: &ClusterAgent| agent.phase == AgentPhase::Pending;
        if let Some(oldest) = agents.iter().position(waits).filter(|_| vouched_for && agents.len() >= MAX_AGENTS) {
            agents.remove(oldest);
        }
        if agents.len() >= MAX_AGENTS {
            return Err(JoinRefusal::TooManyAgents { cluster: cluster.name().clone() });
        }
        cluster.status.agents.push(ClusterAgent {
            name: ask.agent.clone(),
            key: ask.key,
            phase: AgentPhase::Pending,
            requested_at: whole_second(now),
            address: ask.address.map(|address| address.to_canonical()),
            token: token.id.clone(),
            last_seen: None,
            version: ask.version.clone(),
            request: pem_in_base64(&ask.request),
            ca: None,
        });
    }
    if vouched_for {
        cluster.accept();
        // This agent alone: others that wait came by tokens that do not vouch for them.
        for agent in cluster.status.agents.iter_mut().filter(|agent| agent.name == ask.agent) {
            agent.phase = AgentPhase::Accepted;
        }
    }
    Ok(())
}

/// As Kubernetes' CertificateSigningRequest has it.
fn pem_in_base64(der: &[u8]) -> String {
    const LINE: usize = 64;
    let encoded = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = encoded.as_bytes().chunks(LINE).map(String::from_utf8_lossy).collect();
    let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", lines.join("\n"));
    BASE64_STANDARD.encode(pem)
}

fn joined(cluster: &ManagedCluster, agent: &AgentName) -> Joined {
    let let_in = cluster.agent(agent).is_some_and(|agent| agent.phase == AgentPhase::Accepted);
    let name = cluster.name().clone();
    if cluster.acceptance() == AcceptanceStatus::Accepted && let_in {
        Joined::Accepted { cluster: name }
    } else {
        Joined::Pending { cluster: name }
    }
}

impl TokenUse {
    fn is_by(&self, ask: &JoinAsk) -> bool {
        self.agent == ask.agent
            && self.key == ask.key
            && ask.cluster.as_ref().is_none_or(|asked| *asked == self.cluster)
    }
}

impl JoinToken {
    fn used(&self, cluster: ClusterName, ask: &JoinAsk, now: Timestamp) -> Self {
        let mut used = self.clone();
        used.used_by.push(TokenUse { cluster, agent: ask.agent.clone(), key: ask.key, at: whole_second(now) });
        used
    }
}

#[cfg(test)]
mod tests;
