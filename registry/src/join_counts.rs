//! Counts of joins: pending agents and clusters, by the token that they used and by the address that they asked from.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};

use crate::cluster::{AcceptanceStatus, ManagedCluster};

/// Kept up to date by the writer of the view.
#[derive(Debug, Default)]
pub(crate) struct JoinCounts {
    waiting_by: HashMap<String, usize>,
    waiting_from: HashMap<IpAddr, usize>,
    clusters_of: HashMap<String, usize>,
}

impl JoinCounts {
    /// Counts a cluster, in the place of what it was.
    pub(crate) fn replace(&mut self, before: Option<&ManagedCluster>, after: Option<&ManagedCluster>) {
        if let Some(before) = before {
            self.count(before, decrease, decrease);
        }
        if let Some(after) = after {
            self.count(after, increase, increase);
        }
    }

    /// Agents that wait, by the id of their token.
    pub(crate) fn waiting_by(&self, token: &str) -> usize {
        self.waiting_by.get(token).copied().unwrap_or_default()
    }

    /// Agents that wait, by where they asked from.
    pub(crate) fn waiting_from(&self, address: IpAddr) -> usize {
        self.waiting_from.get(&source(address)).copied().unwrap_or_default()
    }

    /// Clusters that have an agent that came with this token.
    pub(crate) fn clusters_of(&self, token: &str) -> usize {
        self.clusters_of.get(token).copied().unwrap_or_default()
    }

    fn count(
        &mut self,
        cluster: &ManagedCluster,
        by_text: fn(&mut HashMap<String, usize>, String),
        by_address: fn(&mut HashMap<IpAddr, usize>, IpAddr),
    ) {
        // Those of a cluster that was denied have had their answer.
        for agent in cluster.waiting().filter(|_| cluster.acceptance() != AcceptanceStatus::Denied) {
            by_text(&mut self.waiting_by, agent.token.clone());
            if let Some(address) = agent.address {
                by_address(&mut self.waiting_from, source(address));
            }
        }
        let tokens: BTreeSet<&str> = cluster.members().map(|agent| agent.token.as_str()).collect();
        for token in tokens.into_iter().filter(|token| !token.is_empty()) {
            by_text(&mut self.clusters_of, token.to_owned());
        }
    }
}

fn increase<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K) {
    *counts.entry(key).or_default() += 1;
}

fn decrease<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// Whoever has one address of IPv6 has 2^64 of them.
pub fn source(address: IpAddr) -> IpAddr {
    const OTHERS: u128 = u64::MAX as u128;
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !OTHERS).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::cluster::{AgentPhase, ClusterAgent};

    fn cluster(phases: &[AgentPhase]) -> ManagedCluster {
        let now = Timestamp::UNIX_EPOCH;
        let mut cluster = ManagedCluster::new("c1".parse().unwrap(), String::new(), now);
        cluster.status.agents.extend(phases.iter().enumerate().map(|(n, phase)| ClusterAgent {
            name: format!("a{n}").parse().unwrap(),
            key: format!("sha256:{n:064x}").parse().unwrap(),
            phase: *phase,
            requested_at: now,
            address: Some("192.0.2.1".parse().unwrap()),
            token: "t".to_owned(),
            last_seen: None,
            version: String::new(),
            request: String::new(),
            ca: None,
        }));
        cluster
    }

    #[test]
    fn what_goes_is_counted_no_more() {
        let mut join_counts = JoinCounts::default();
        let [two, one] = [cluster(&[AgentPhase::Pending; 2]), cluster(&[AgentPhase::Pending, AgentPhase::Accepted])];
        let address = "192.0.2.1".parse().unwrap();
        join_counts.replace(None, Some(&two));
        assert_eq!(
            (join_counts.waiting_by("t"), join_counts.waiting_from(address), join_counts.clusters_of("t")),
            (2, 2, 1)
        );
        join_counts.replace(Some(&two), Some(&one));
        assert_eq!(
            (join_counts.waiting_by("t"), join_counts.waiting_from(address), join_counts.clusters_of("t")),
            (1, 1, 1)
        );
        join_counts.replace(Some(&one), None);
        assert_eq!(
            (join_counts.waiting_by("t"), join_counts.waiting_from(address), join_counts.clusters_of("t")),
            (0, 0, 0)
        );
        assert!(
            join_counts.waiting_by.is_empty()
                && join_counts.waiting_from.is_empty()
                && join_counts.clusters_of.is_empty()
        );
    }

    #[test]
    fn one_network_of_ipv6_is_one_source() {
        let of = |text: &str| source(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
