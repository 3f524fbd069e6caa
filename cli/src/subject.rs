//! What a decision is about: a cluster, or one agent of it, as it is named on the command line and as the hub knows it.

use std::{fmt, str::FromStr};

use certs::{AgentName, ClusterName};
use registry::ClusterAgent;

use crate::{
    cluster_view::{ClusterList, ClusterView},
    failure::{Exit, Failure},
    suggestion::nearest,
};

/// `CLUSTER` or `CLUSTER/AGENT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) cluster: ClusterName,
    pub(crate) agent: Option<AgentName>,
}

/// `CLUSTER/AGENT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OneAgent {
    pub(crate) cluster: ClusterName,
    pub(crate) agent: AgentName,
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (cluster, agent) = match text.split_once('/') {
            Some((cluster, agent)) => (cluster, Some(agent.parse().map_err(|error| format!("the agent: {error}"))?)),
            None => (text, None),
        };
        Ok(Self { cluster: cluster.parse().map_err(|error| format!("the cluster: {error}"))?, agent })
    }
}

impl FromStr for OneAgent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse()? {
            Subject { cluster, agent: Some(agent) } => Ok(Self { cluster, agent }),
            Subject { cluster, agent: None } => {
                Err(format!("write CLUSTER/AGENT; 'cluster-proxy clusters -o agents' lists those of {cluster}"))
            }
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cluster)?;
        self.agent.iter().try_for_each(|agent| write!(f, "/{agent}"))
    }
}

impl fmt::Display for OneAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.agent)
    }
}

/// The cluster of this name.
pub(crate) fn cluster<'l>(clusters: &'l ClusterList, name: &ClusterName) -> Result<&'l ClusterView, Failure> {
    let known = || clusters.items.iter().map(|view| view.cluster.name().as_ref());
    clusters.items.iter().find(|view| view.cluster.name() == name).ok_or_else(|| {
        unknown(format!("no cluster {name} is registered"), nearest(name.as_ref(), known()), "cluster-proxy clusters")
    })
}

/// The agent of this name in a cluster.
pub(crate) fn agent<'c>(view: &'c ClusterView, name: &AgentName) -> Result<&'c ClusterAgent, Failure> {
    let cluster = &view.cluster;
    cluster.agent(name).ok_or_else(|| {
        let known = cluster.status.agents.iter().map(|agent| agent.name.as_ref());
        let near = nearest(name.as_ref(), known).map(|near| format!("{}/{near}", cluster.name()));
        let message = format!("cluster {} has no agent {name}", cluster.name());
        unknown(message, near.as_deref(), "cluster-proxy clusters -o agents")
    })
}

fn unknown(message: String, near: Option<&str>, list: &str) -> Failure {
    let next = near.map_or_else(|| format!("list them: {list}"), |near| format!("did you mean {near}?"));
    Failure::new(Exit::Other, message).next(next)
}

#[cfg(test)]
mod tests {
    use registry::{ManagedCluster, api::TunnelView};

    use super::*;

    #[test]
    fn an_agent_is_named_behind_its_cluster() {
        let subject: Subject = "c1/a1".parse().unwrap();
        assert_eq!((subject.to_string().as_str(), subject.agent.is_some()), ("c1/a1", true));
        assert_eq!("c1".parse::<Subject>().unwrap().to_string(), "c1");
        for bad in ["", "C1", "c1/", "/a1", "c1/a/b", "c1/A"] {
            assert!(bad.parse::<Subject>().is_err(), "{bad}");
        }
        assert!("c1".parse::<OneAgent>().unwrap_err().contains("CLUSTER/AGENT"));
    }

    #[test]
    fn a_name_that_is_not_known_is_answered_with_the_nearest() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let view = |name: &str| {
            let cluster = ManagedCluster::new(name.parse().unwrap(), String::new(), now);
            ClusterView::new(cluster, TunnelView::default(), serde_json::Value::Null)
        };
        let clusters = ClusterList { items: vec![view("edge-1"), view("prod")] };
        let said = |name: &str| cluster(&clusters, &name.parse().unwrap()).unwrap_err().line();
        assert_eq!(said("porod"), "no cluster porod is registered; did you mean prod?");
        assert_eq!(said("staging"), "no cluster staging is registered; list them: cluster-proxy clusters");
        assert!(cluster(&clusters, &"prod".parse().unwrap()).is_ok());
        assert!(agent(&clusters.items[0], &"a1".parse().unwrap()).unwrap_err().line().contains("-o agents"));
    }
}
