//! What the hub shows of itself and of its clusters, with what their tunnels say at this moment.

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use registry::{
    AcceptanceStatus, ManagedCluster,
    api::{ClusterCounts, HubStatus, TunnelList, TunnelView},
    kube::rbac::{self, CLUSTER_GROUP, ReadVerb, Scope, Visibility, VisibilityQuery},
};

use super::{Answered, Api, cluster_name, failure::failure, json};

impl Api {
    pub(super) fn status(&self) -> HubStatus {
        let mut counts = ClusterCounts::default();
        for cluster in self.registry.clusters() {
            counts.total += 1;
            match cluster.acceptance() {
                AcceptanceStatus::Accepted => counts.accepted += 1,
                AcceptanceStatus::Pending => counts.pending += 1,
                AcceptanceStatus::Denied => counts.denied += 1,
            }
            if cluster.acceptance() != AcceptanceStatus::Denied {
                counts.waiting_agents += cluster.waiting().count() as u64;
            }
            if self.tunnels.summary(cluster.name()).tunnels > 0 {
                counts.available += 1;
            }
        }
        HubStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            server_id: self.about.server_id.clone(),
            started_at: self.about.started_at,
            pin: self.authorities.current().pin().to_string(),
            agent_addresses: self.about.agent_addresses.clone(),
            proxy_address: self.about.proxy_address.clone(),
            api_address: self.about.api_address.clone(),
            clusters: counts,
            connections: self.connections.count() as u64,
            tunnels: self.tunnels.count() as u64,
        }
    }

    /// The clusters that somebody's rights show.
    pub(super) fn visible_clusters(&self, asker: &rbac::Caller) -> Visibility {
        let (api_group, resource) = (CLUSTER_GROUP, "managedclusters");
        let asked = VisibilityQuery { verb: ReadVerb::List, api_group, resource, scope: Scope::Cluster };
        self.registry.with_policy(|policy| policy.visible(&asker.user, &asker.groups, &asked))
    }

    pub(super) fn tunnels(&self, visible: &Visibility) -> TunnelList {
        let clusters = self.registry.clusters();
        let seen = clusters.iter().filter(|cluster| visible.contains("", cluster.name().as_ref()));
        TunnelList { items: seen.map(|cluster| (cluster.name().clone(), self.view(cluster))).collect() }
    }

    pub(super) fn tunnels_of(&self, name: &str) -> Answered {
        let name = cluster_name(name)?;
        match self.registry.cluster(&name) {
            Some(cluster) => Ok(json(StatusCode::OK, &self.view(&cluster))),
            None => {
                let message = format!("no cluster named {name} is registered; 'cluster-proxy clusters' lists them");
                Err(failure(StatusCode::NOT_FOUND, "NotFound", message))
            }
        }
    }

    /// What a cluster's tunnels say at this moment.
    fn view(&self, cluster: &ManagedCluster) -> TunnelView {
        let summary = self.tunnels.summary(cluster.name());
        let now = Timestamp::now();
        let seen = |unheard: &Duration| now.checked_sub(*unheard).unwrap_or(now);
        TunnelView {
            agents: u32::try_from(summary.agents.len()).unwrap_or(u32::MAX),
            rtt_milliseconds: summary.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
            streams: summary.streams as u64,
            bytes_to_cluster: summary.bytes_to_cluster,
            bytes_from_cluster: summary.bytes_from_cluster,
            last_seen: summary.agents.values().min().map(seen).or_else(|| self.presence.last_seen(cluster)),
            agents_last_seen: summary.agents.iter().map(|(agent, unheard)| (agent.clone(), seen(unheard))).collect(),
            available: summary.tunnels > 0,
        }
    }
}
