//! What the clusters' agents export, and for a while what those exported who have left.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use certs::{AgentName, ClusterName};
use dashmap::DashMap;
use tunnel::{Export, within_limits};

/// How long the exports of an agent that has left stay listed: its targets are then seen to be down, instead of going
/// without an alert.
const KEPT: Duration = Duration::from_secs(5 * 60);

/// Bad exports of an agent that are told one by one.
const TOLD: usize = 5;

/// The longest host name (RFC 1035 section 2.3.4), without the trailing dot.
const LONGEST_HOST: usize = 253;

/// The exports of every cluster.
#[derive(Debug)]
pub(crate) struct Exports {
    /// The domain under which clusters are named: targets must be short enough to be named in it.
    domain: String,
    by_cluster: DashMap<ClusterName, Vec<Listing>>,
    next: AtomicU64,
}

/// What one tunnel's agent exports.
#[derive(Debug)]
struct Listing {
    id: u64,
    agent: AgentName,
    instance: String,
    exports: Vec<Arc<Export>>,
    left: Option<Instant>,
}

/// A tunnel's place among those that export; its exports are kept for a while when it is dropped.
#[derive(Debug)]
pub(crate) struct Exporter {
    exports: Arc<Exports>,
    cluster: ClusterName,
    agent: AgentName,
    id: u64,
}

/// What makes two exports of a cluster's agents the same.
type Key<'e> = (&'e str, &'e str, u32, &'e str, &'e str);

impl Exports {
    pub(crate) fn new(domain: String) -> Self {
        Self { domain, by_cluster: DashMap::new(), next: AtomicU64::new(0) }
    }

    /// Takes in what an agent exports. It replaces what the agent exported before it left, or in an earlier instance.
    pub(crate) fn enter(
        self: &Arc<Self>,
        cluster: &ClusterName,
        agent: &AgentName,
        instance: &str,
        exports: Vec<Export>,
    ) -> Exporter {
        let exports = self.good(cluster, agent, exports);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (agent, instance) = (agent.clone(), instance.to_owned());
        let mut listings = self.by_cluster.entry(cluster.clone()).or_default();
        listings.retain(|other| other.agent != agent || (other.left.is_none() && other.instance == instance));
        listings.retain(Listing::is_current);
        listings.push(Listing { id, agent: agent.clone(), instance, exports, left: None });
        Exporter { exports: self.clone(), cluster: cluster.clone(), agent, id }
    }

    /// What `cluster` exports, each once and in a stable order: replicas export the same, and who is there knows better than
    /// who has left.
    pub(crate) fn of(&self, cluster: &ClusterName) -> Vec<Arc<Export>> {
        let Some(listings) = self.by_cluster.get(cluster) else { return Vec::new() };
        let mut current: Vec<&Listing> = listings.iter().filter(|listing| listing.is_current()).collect();
        current.sort_by(|one, other| (one.left.is_some(), &one.agent).cmp(&(other.left.is_some(), &other.agent)));
        let mut found: BTreeMap<Key<'_>, &Arc<Export>> = BTreeMap::new();
        for export in current.iter().flat_map(|listing| &listing.exports) {
            found.entry(key(export)).or_insert(export);
        }
        found.into_values().cloned().collect()
    }

    /// Forgets a cluster that is not registered any more.
    pub(crate) fn forget(&self, cluster: &ClusterName) {
        self.by_cluster.remove(cluster);
    }

    /// The exports that keep the rules. What an agent says of itself is checked as what a client says.
    fn good(&self, cluster: &ClusterName, agent: &AgentName, mut exports: Vec<Export>) -> Vec<Arc<Export>> {
        let fit = within_limits(&exports);
        if fit < exports.len() {
            tracing::warn!(%cluster, %agent, dropped = exports.len() - fit, "an agent exports more than it may");
            exports.truncate(fit);
        }
        let mut bad = 0;
        exports.retain(|export| {
            let checked =
                export.check().map_err(|error| error.to_string()).and_then(|()| self.nameable(cluster, export));
            if let Err(error) = &checked {
                bad += 1;
                if bad <= TOLD {
                    let export: String = export.name.chars().filter(char::is_ascii_graphic).take(64).collect();
                    tracing::warn!(%cluster, %agent, export, error, "dropped an export");
                }
            }
            checked.is_ok()
        });
        if bad > TOLD {
            tracing::warn!(%cluster, %agent, more = bad - TOLD, "dropped more exports");
        }
        exports.into_iter().map(Arc::new).collect()
    }

    fn nameable(&self, cluster: &ClusterName, export: &Export) -> Result<(), String> {
        let length = export.host.len() + cluster.as_ref().len() + self.domain.len() + 2;
        if length <= LONGEST_HOST { Ok(()) } else { Err("the target's host is too long to be named at the hub".into()) }
    }
}

impl Listing {
    fn is_current(&self) -> bool {
        self.left.is_none_or(|left| left.elapsed() < KEPT)
    }
}

impl Exporter {
    /// Replaces what the agent exports.
    pub(crate) fn replace(&self, exports: Vec<Export>) {
        let exports = self.exports.good(&self.cluster, &self.agent, exports);
        self.change(|listing| listing.exports = exports);
    }

    /// One that a later instance of its agent has replaced is not there any more.
    fn change(&self, change: impl FnOnce(&mut Listing)) {
        if let Some(mut listings) = self.exports.by_cluster.get_mut(&self.cluster)
            && let Some(listing) = listings.iter_mut().find(|listing| listing.id == self.id)
        {
            change(listing);
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.change(|listing| listing.left = Some(Instant::now()));
    }
}

fn key(export: &Export) -> Key<'_> {
    (&export.name, &export.host, export.port, &export.scheme, &export.metrics_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(name: &str, labels: &[(&str, &str)]) -> Export {
        Export {
            name: name.into(),
            host: "web.ns".into(),
            port: 80,
            scheme: "http".into(),
            metrics_path: "/metrics".into(),
            job: name.into(),
            labels: labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        }
    }

    fn exports() -> Arc<Exports> {
        Arc::new(Exports::new("clusters.internal".into()))
    }

    fn enter(exports: &Arc<Exports>, agent: &str, instance: &str, listed: Vec<Export>) -> Exporter {
        exports.enter(&"c1".parse().unwrap(), &agent.parse().unwrap(), instance, listed)
    }

    fn names(exports: &Exports) -> Vec<String> {
        exports.of(&"c1".parse().unwrap()).iter().map(|export| export.name.clone()).collect()
    }

    /// As if all who have left had done so long ago.
    fn age(exports: &Exports) {
        for mut listings in exports.by_cluster.iter_mut() {
            for listing in listings.iter_mut().filter(|listing| listing.left.is_some()) {
                listing.left = Instant::now().checked_sub(KEPT);
            }
        }
    }

    #[test]
    fn replicas_export_the_same_once_and_others_beside_it() {
        let exports = exports();
        let _a = enter(&exports, "a", "1", vec![export("x", &[("from", "a")]), export("b", &[])]);
        let _b = enter(&exports, "b", "2", vec![export("x", &[("from", "b")]), export("a", &[])]);
        assert_eq!(names(&exports), ["a", "b", "x"]);
        assert_eq!(exports.of(&"c1".parse().unwrap())[2].labels["from"], "a");
        assert!(exports.of(&"c2".parse().unwrap()).is_empty());
    }

    #[test]
    fn who_has_left_stays_listed_for_a_while_and_who_is_there_knows_better() {
        let exports = exports();
        let a = enter(&exports, "a", "1", vec![export("x", &[("from", "a")]), export("y", &[])]);
        let _b = enter(&exports, "b", "2", vec![export("x", &[("from", "b")])]);
        drop(a);
        assert_eq!(names(&exports), ["x", "y"]);
        assert_eq!(exports.of(&"c1".parse().unwrap())[0].labels["from"], "b");
        age(&exports);
        assert_eq!(names(&exports), ["x"]);
    }

    #[test]
    fn an_agent_that_comes_back_replaces_what_it_exported() {
        let exports = exports();
        let first = enter(&exports, "a", "1", vec![export("x", &[])]);
        // The first tunnel has not been noticed to be dead yet.
        let second = enter(&exports, "a", "2", vec![export("y", &[])]);
        assert_eq!(names(&exports), ["y"]);
        first.replace(vec![export("z", &[])]);
        drop(first);
        assert_eq!(names(&exports), ["y"]);
        // A second tunnel of the same instance, by another of the hub's addresses.
        let third = enter(&exports, "a", "2", vec![export("y", &[])]);
        drop(second);
        assert_eq!(names(&exports), ["y"]);
        third.replace(vec![export("z", &[])]);
        age(&exports);
        assert_eq!(names(&exports), ["z"]);
        exports.forget(&"c1".parse().unwrap());
        assert!(names(&exports).is_empty());
    }

    #[test]
    fn what_breaks_the_rules_is_dropped_and_the_rest_is_kept() {
        let exports = exports();
        let long = Export { host: ["a"; 120].join("."), ..export("long", &[]) };
        let listed = vec![export("bad", &[("cluster", "c2")]), export("b d", &[]), long, export("good", &[])];
        let entered = enter(&exports, "a", "1", listed);
        assert_eq!(names(&exports), ["good"]);
        entered.replace((0..600).map(|at| export(&format!("n{at:03}"), &[])).collect());
        assert_eq!(names(&exports).len(), tunnel::MAX_EXPORTS);
    }
}
