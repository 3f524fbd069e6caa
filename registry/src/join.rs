//! What becomes of an agent that asks to join: one pure rule over the token, the cluster as it is, and the time.

use base64::{Engine, prelude::BASE64_STANDARD};
use certs::{AgentName, ClusterName, KeyFingerprint};
use jiff::Timestamp;
use secrecy::SecretString;
use thiserror::Error;

use crate::cluster::{AgentPhase, ClusterAgent, MAX_AGENTS, ManagedCluster, Standing, whole_second};
use crate::store::CommitError;
use crate::token::{JoinToken, TokenUse};

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
    #[error("agent {agent} of cluster {cluster} was denied by an admin; to ask again, join from an empty state folder")]
    DeniedAgent { cluster: ClusterName, agent: AgentName },
    #[error("cluster {cluster} already has an agent {agent} with another key; join with another --agent NAME")]
    AgentNameTaken { cluster: ClusterName, agent: AgentName },
    #[error("cluster {cluster} has {MAX_AGENTS} agents already; delete the cluster and join the agents that still run")]
    TooManyAgents { cluster: ClusterName },
    #[error("the join could not be recorded; try again in a moment")]
    Store(#[source] CommitError),
}

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
/// - Only a token bound to a cluster's name may let an agent into an existing cluster without an admin.
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
    if cluster.is_some_and(|cluster| cluster.standing() == Standing::Denied) {
        return Err(JoinRefusal::DeniedCluster { cluster: name });
    }
    if let Some(known) = known {
        match (known.phase, known.key == ask.key) {
            (AgentPhase::Denied, true) => {
                return Err(JoinRefusal::DeniedAgent { cluster: name, agent: ask.agent.clone() });
            }
            (AgentPhase::Pending | AgentPhase::Accepted, false) => {
                return Err(JoinRefusal::AgentNameTaken { cluster: name, agent: ask.agent.clone() });
            }
            (AgentPhase::Denied, false) | (AgentPhase::Pending | AgentPhase::Accepted, true) => {}
        }
    }
    if let Some(cluster) = cluster
        && comes_back
    {
        return Ok(Decision { joined: joined(cluster, &ask.agent), cluster: None, token: None });
    }
    let vouched_for = token.auto_accept && (cluster.is_none() || token.cluster.is_some());
    let mut new = cluster.map_or_else(|| ManagedCluster::new(name.clone(), uid(), now), Clone::clone);
    enter(&mut new, ask, vouched_for, now)?;
    Ok(Decision {
        joined: joined(&new, &ask.agent),
        cluster: (cluster != Some(&new)).then_some(new),
        token: (!token.reusable).then(|| token.used(name, ask, now)),
    })
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
fn enter(cluster: &mut ManagedCluster, ask: &JoinAsk, vouched_for: bool, now: Timestamp) -> Result<(), JoinRefusal> {
    let denied = |agent: &ClusterAgent| agent.phase == AgentPhase::Denied;
    if cluster.agent(&ask.agent).is_none_or(denied) {
        let agents = &mut cluster.status.agents;
        let full = agents.len() >= MAX_AGENTS;
        agents.retain(|agent| !denied(agent) || !full && agent.name != ask.agent);
        if agents.len() >= MAX_AGENTS {
            return Err(JoinRefusal::TooManyAgents { cluster: cluster.name().clone() });
        }
        cluster.status.agents.push(ClusterAgent {
            name: ask.agent.clone(),
            key: ask.key,
            phase: AgentPhase::Pending,
            requested_at: whole_second(now),
            last_seen: None,
            version: ask.version.clone(),
            request: pem_in_base64(&ask.request),
        });
    }
    if vouched_for {
        cluster.accept(now);
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
    if cluster.standing() == Standing::Accepted && let_in {
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
