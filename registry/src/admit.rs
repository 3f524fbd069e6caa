//! Whether an agent that shows a valid certificate may serve its cluster now: one pure rule.

use certs::{AgentName, ClusterName, KeyFingerprint};
use thiserror::Error;

use crate::cluster::{AcceptanceStatus, AgentPhase, ManagedCluster};

/// Why an agent may not serve, although the hub's CA once signed its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AgentRefusal {
    #[error("no cluster {cluster} is registered here; join it again with a new token")]
    UnknownCluster { cluster: ClusterName },
    #[error("cluster {cluster} is not accepted yet; an admin can: cluster-proxy accept {cluster}")]
    NotAccepted { cluster: ClusterName },
    #[error("cluster {cluster} was denied by an admin; to let it in: cluster-proxy accept {cluster}")]
    Denied { cluster: ClusterName },
    #[error("cluster {cluster} has no agent {agent}; join it again with a new token")]
    UnknownAgent { cluster: ClusterName, agent: AgentName },
    #[error(
        "agent {agent} of cluster {cluster} is not accepted yet; an admin can: cluster-proxy accept {cluster}/{agent}"
    )]
    AgentNotAccepted { cluster: ClusterName, agent: AgentName },
    #[error(
        "agent {agent} of cluster {cluster} was denied by an admin; to come back, join from an empty state folder with a \
         new token: cluster-proxy join-command {cluster}"
    )]
    AgentDenied { cluster: ClusterName, agent: AgentName },
    #[error(
        "agent {agent} of cluster {cluster} has another key, by a later join; to take its place again, join with a new \
         token: cluster-proxy join-command {cluster}"
    )]
    OtherKey { cluster: ClusterName, agent: AgentName },
}

impl AgentRefusal {
    /// One CamelCase word for programs, metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownCluster { .. } => "UnknownCluster",
            Self::NotAccepted { .. } => "ClusterNotAccepted",
            Self::Denied { .. } => "ClusterDenied",
            Self::UnknownAgent { .. } => "UnknownAgent",
            Self::AgentNotAccepted { .. } => "AgentNotAccepted",
            Self::AgentDenied { .. } => "AgentDenied",
            Self::OtherKey { .. } => "OtherKey",
        }
    }
}

/// Decides for the agent that proved to hold `key`; `cluster` is `None` when nobody registered `name`.
pub(crate) fn admit(
    cluster: Option<&ManagedCluster>,
    name: &ClusterName,
    agent: &AgentName,
    key: &KeyFingerprint,
) -> Result<(), AgentRefusal> {
    let (name, agent) = (name.clone(), agent.clone());
    let Some(cluster) = cluster else {
        return Err(AgentRefusal::UnknownCluster { cluster: name });
    };
    let standing = cluster.acceptance();
    if standing == AcceptanceStatus::Denied {
        return Err(AgentRefusal::Denied { cluster: name });
    }
    // Before the cluster's acceptance is looked at: one who was sent away waits for nothing.
    let known = match cluster.agent(&agent) {
        None => return Err(AgentRefusal::UnknownAgent { cluster: name, agent }),
        Some(known) if known.key != *key => return Err(AgentRefusal::OtherKey { cluster: name, agent }),
        Some(known) => known,
    };
    match known.phase {
        AgentPhase::Denied => Err(AgentRefusal::AgentDenied { cluster: name, agent }),
        _ if standing == AcceptanceStatus::Pending => Err(AgentRefusal::NotAccepted { cluster: name }),
        AgentPhase::Accepted => Ok(()),
        AgentPhase::Pending => Err(AgentRefusal::AgentNotAccepted { cluster: name, agent }),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::cluster::ClusterAgent;

    fn key(n: u8) -> KeyFingerprint {
        format!("sha256:{n:064x}").parse().unwrap()
    }

    fn decide(cluster: Option<&ManagedCluster>, agent: &str, presented: u8) -> &'static str {
        let outcome = admit(cluster, &"c1".parse().unwrap(), &agent.parse().unwrap(), &key(presented));
        outcome.map_or_else(|refusal| refusal.reason(), |()| "Admitted")
    }

    #[test]
    fn only_an_accepted_agent_of_an_accepted_cluster_with_its_own_key_is_admitted() {
        let now = Timestamp::UNIX_EPOCH;
        let mut cluster = ManagedCluster::new("c1".parse().unwrap(), String::new(), now);
        cluster.status.agents.push(ClusterAgent {
            name: "a1".parse().unwrap(),
            key: key(1),
            phase: AgentPhase::Pending,
            requested_at: now,
            address: None,
            token: String::new(),
            last_seen: None,
            version: String::new(),
            request: String::new(),
            ca: None,
        });
        assert_eq!(decide(None, "a1", 1), "UnknownCluster");
        assert_eq!(decide(Some(&cluster), "a1", 1), "ClusterNotAccepted");
        assert_eq!(decide(Some(&cluster), "a1", 2), "OtherKey");
        assert_eq!(decide(Some(&cluster), "a2", 1), "UnknownAgent");
        cluster.accept();
        assert_eq!(decide(Some(&cluster), "a1", 1), "AgentNotAccepted");
        let shown = cluster.status.agents[0].shown();
        assert!(cluster.decide_agent(&shown, AgentPhase::Accepted));
        assert_eq!(decide(Some(&cluster), "a1", 1), "Admitted");
        assert_eq!(decide(Some(&cluster), "a1", 2), "OtherKey");
        assert_eq!(decide(Some(&cluster), "a2", 1), "UnknownAgent");
        cluster.deny(now);
        assert_eq!(decide(Some(&cluster), "a1", 1), "ClusterDenied");
    }
}
