//! What an agent has to do with the hub's CA, as it was last heard: whether it could lose one.

use certs::{AgentName, KeyFingerprint, Pin};
use serde::{Deserialize, Serialize};

use crate::cluster::{AcceptanceStatus, AgentPhase, ClusterAgent, ManagedCluster};

/// The CAs of an agent. Written down while the hub's CA is rotated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentTrust {
    /// Whose certificate it shows; absent where that CA is not trusted any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Pin>,
    /// Under which it verifies the hub, in the order of their pins; empty for an agent of a version that cannot learn others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusts: Vec<Pin>,
}

impl AgentTrust {
    pub fn new(issuer: Option<Pin>, mut trusts: Vec<Pin>) -> Self {
        trusts.sort();
        trusts.dedup();
        Self { issuer, trusts }
    }
}

impl ManagedCluster {
    /// Notes what an agent with this key has to do with the CA.
    pub(crate) fn record_trust(&mut self, agent: &AgentName, key: &KeyFingerprint, trust: &AgentTrust) {
        let mut agents = self.status.agents.iter_mut();
        if let Some(known) = agents.find(|known| known.name == *agent && known.key == *key) {
            known.ca = Some(trust.clone());
        }
    }

    /// The agents that may connect.
    pub fn admitted(&self) -> impl Iterator<Item = &ClusterAgent> {
        let accepted = self.acceptance() == AcceptanceStatus::Accepted;
        self.status.agents.iter().filter(move |agent| accepted && agent.phase == AgentPhase::Accepted)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn pin(n: u8) -> Pin {
        format!("sha256:{n:064x}").parse().unwrap()
    }

    #[test]
    fn what_an_agent_trusts_is_noted_for_its_key_and_of_those_that_may_connect() {
        let mut cluster = ManagedCluster::new("c".parse().unwrap(), String::new(), Timestamp::UNIX_EPOCH);
        let agents = [("in", AgentPhase::Accepted), ("waits", AgentPhase::Pending), ("denied", AgentPhase::Denied)];
        for (n, (name, phase)) in (10..).zip(agents) {
            let agent = serde_json::json!({
                "name": name, "key": pin(n), "phase": phase, "requestedAt": "2026-01-01T00:00:00Z",
            });
            cluster.status.agents.push(serde_json::from_value(agent).unwrap());
        }
        assert_eq!(cluster.admitted().count(), 0, "nobody of a cluster that is not accepted");
        cluster.accept();
        let names: Vec<_> = cluster.admitted().map(|agent| agent.name.to_string()).collect();
        assert_eq!(names, ["in"]);
        let (name, trust) = ("in".parse().unwrap(), AgentTrust::new(Some(pin(2)), vec![pin(2), pin(1), pin(2)]));
        cluster.record_trust(&name, &pin(99), &trust);
        assert_eq!(cluster.agent(&name).unwrap().ca, None, "another key is another agent");
        cluster.record_trust(&name, &pin(10), &trust);
        let noted = cluster.agent(&name).unwrap().ca.clone().unwrap();
        assert_eq!((noted.issuer, noted.trusts), (Some(pin(2)), vec![pin(1), pin(2)]));
    }
}
