//! What Prometheus' `http_sd_configs` asks the hub for: the targets that clusters' agents export, as far as the asker may
//! reach them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use certs::ClusterName;
use http::StatusCode;
use registry::{
    AcceptanceStatus, ManagedCluster, Registry,
    kube::rbac::{self, Policy},
};
use serde::Serialize;
use tunnel::Export;

use crate::{agents::exports::Exports, agents::tunnels::Tunnels};

/// Where the targets are.
pub(crate) const PATH: &str = "/prometheus/targets";

/// How long after the hub's start clusters that were there before may still be on their way back.
const RETURN: Duration = Duration::from_secs(15);

/// The label of Open Cluster Management that names a cluster's exclusive set, and the set of clusters without it.
const SET_LABEL: &str = "cluster.open-cluster-management.io/clusterset";
const DEFAULT_SET: &str = "default";

/// What answers Prometheus.
#[derive(Debug)]
pub(crate) struct Discovery {
    pub(crate) registry: Arc<Registry>,
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) exports: Arc<Exports>,
    /// The domain under which clusters are named.
    pub(crate) domain: String,
    pub(crate) started: Instant,
}

/// Which targets are asked for; nothing given means all, and several of one kind mean any of them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Filter {
    sets: BTreeSet<String>,
    jobs: BTreeSet<String>,
}

/// One target with its labels, as `http_sd_configs` reads it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TargetGroup {
    targets: [String; 1],
    labels: BTreeMap<String, String>,
}

/// Why there is no list.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DiscoveryError {
    #[error("{0:?} is no parameter of {PATH}; it has set=<cluster set> and job=<job>, each any number of times")]
    Parameter(String),
    /// A list without them would have Prometheus forget their targets; after an error it keeps those it has.
    #[error("the hub has just started, and {0} is not back yet; ask again")]
    Returning(ClusterName),
}

impl Discovery {
    /// The targets that `asker` may reach, of those that `query` means.
    pub(crate) fn targets(&self, query: &str, asker: &rbac::Caller) -> Result<Vec<TargetGroup>, DiscoveryError> {
        let filter = Filter::parse(query)?;
        let mut clusters = self.registry.clusters();
        clusters.retain(|cluster| cluster.acceptance() == AcceptanceStatus::Accepted);
        clusters.sort_by(|one, other| one.name().cmp(other.name()));
        let chosen = self.registry.with_policy(|policy| choose(policy, clusters, &filter, asker));
        let mut groups = Vec::new();
        for (cluster, set) in chosen {
            let name = cluster.name();
            if self.is_returning(&cluster) {
                return Err(DiscoveryError::Returning(name.clone()));
            }
            let exports = self.exports.of(name);
            let wanted = exports.iter().filter(|export| filter.wants_job(&export.job));
            groups.extend(wanted.map(|export| TargetGroup::new(export, name, &set, &self.domain)));
        }
        Ok(groups)
    }

    fn is_returning(&self, cluster: &ManagedCluster) -> bool {
        self.started.elapsed() < RETURN
            && cluster.is_available()
            && self.tunnels.summary(cluster.name()).tunnels == 0
            && self.exports.of(cluster.name()).is_empty()
    }
}

/// The clusters that `asker` may reach and that `filter` means, each with its exclusive set; none is an empty name.
fn choose(
    policy: &Policy,
    clusters: Vec<Arc<ManagedCluster>>,
    filter: &Filter,
    asker: &rbac::Caller,
) -> Vec<(Arc<ManagedCluster>, String)> {
    let mut chosen = Vec::new();
    for cluster in clusters {
        let name: &str = cluster.name().as_ref();
        let sets: BTreeSet<&str> = policy.sets_of(name).collect();
        let wanted = filter.sets.is_empty() || filter.sets.iter().any(|set| sets.contains(set.as_str()));
        if !wanted || policy.may_proxy(&asker.user, &asker.groups, name).is_err() {
            continue;
        }
        let label = cluster.metadata.labels.get(SET_LABEL).map_or(DEFAULT_SET, String::as_str);
        let set = if sets.contains(label) { label.to_owned() } else { String::new() };
        chosen.push((cluster, set));
    }
    chosen
}

impl DiscoveryError {
    /// Its status in HTTP, and Kubernetes' word for it.
    pub(crate) fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Parameter(_) => (StatusCode::BAD_REQUEST, "BadRequest"),
            Self::Returning(_) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        }
    }
}

impl Filter {
    fn parse(query: &str) -> Result<Self, DiscoveryError> {
        let mut filter = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "set" => filter.sets.insert(value.into_owned()),
                "job" => filter.jobs.insert(value.into_owned()),
                other => return Err(DiscoveryError::Parameter(other.chars().take(64).collect())),
            };
        }
        Ok(filter)
    }

    fn wants_job(&self, job: &str) -> bool {
        self.jobs.is_empty() || self.jobs.contains(job)
    }
}

impl TargetGroup {
    /// An export's own labels cannot be the hub's: it has been checked.
    fn new(export: &Export, cluster: &ClusterName, set: &str, domain: &str) -> Self {
        let mut labels = export.labels.clone();
        let mut put = |name: &str, value: &dyn fmt::Display| labels.insert(name.to_owned(), value.to_string());
        put("__scheme__", &export.scheme);
        put("__metrics_path__", &export.metrics_path);
        put("__meta_cluster_proxy_export", &export.name);
        put("cluster", cluster);
        put("job", &export.job);
        if !set.is_empty() {
            put("set", &set);
        }
        if let Some(path) = service_path(export, cluster) {
            put("__meta_cluster_proxy_service_path", &path);
        }
        Self { targets: [format!("{}.{cluster}.{domain}:{}", export.host, export.port)], labels }
    }
}

/// The path of the hub's API below which a Kubernetes service is served. There the agent ends TLS and verifies the service,
/// whose certificate is for its name in the spoke.
fn service_path(export: &Export, cluster: &ClusterName) -> Option<String> {
    let host = export.host.strip_suffix(".cluster.local").unwrap_or(&export.host);
    let (service, namespace) = host.strip_suffix(".svc").unwrap_or(host).split_once('.')?;
    let is_label = |text: &str| !text.contains(['.', '_']);
    let is_address = export.host.parse::<std::net::IpAddr>().is_ok();
    (is_label(namespace) && is_label(service) && !is_address)
        .then(|| format!("/clusters/{cluster}/services/{namespace}/{}:{service}:{}", export.scheme, export.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(host: &str) -> Export {
        Export {
            name: "n".into(),
            host: host.into(),
            port: 9100,
            scheme: "https".into(),
            metrics_path: "/m".into(),
            job: "j".into(),
            labels: [("team".to_owned(), "x".to_owned())].into(),
        }
    }

    #[test]
    fn a_target_is_named_at_the_hub_and_carries_its_labels() {
        let group = TargetGroup::new(&export("web.mon"), &"c1".parse().unwrap(), "dev", "clusters.internal");
        let expected = serde_json::json!({
            "targets": ["web.mon.c1.clusters.internal:9100"],
            "labels": {
                "__scheme__": "https", "__metrics_path__": "/m", "__meta_cluster_proxy_export": "n",
                "__meta_cluster_proxy_service_path": "/clusters/c1/services/mon/https:web:9100",
                "cluster": "c1", "job": "j", "set": "dev", "team": "x",
            },
        });
        assert_eq!(serde_json::to_value(&group).unwrap(), expected);
        let bare = TargetGroup::new(&export("10.0.0.1"), &"c1".parse().unwrap(), "", "clusters.internal");
        assert_eq!(bare.targets, ["10.0.0.1.c1.clusters.internal:9100"]);
        assert!(!bare.labels.contains_key("set") && !bare.labels.contains_key("__meta_cluster_proxy_service_path"));
    }

    #[test]
    fn services_have_a_path_by_every_form_of_their_name() {
        let path = |host: &str| service_path(&export(host), &"c1".parse().unwrap());
        for host in ["web.mon", "web.mon.svc", "web.mon.svc.cluster.local"] {
            assert_eq!(path(host).as_deref(), Some("/clusters/c1/services/mon/https:web:9100"), "{host}");
        }
        for host in ["localhost", "web.example.com", "10.1.2.3", "a_b.mon"] {
            assert_eq!(path(host), None, "{host}");
        }
    }

    #[test]
    fn a_query_filters_by_set_and_job_and_has_no_other_parameter() {
        let filter = Filter::parse("set=dev&job=a&job=b%20c").unwrap();
        assert_eq!(filter.sets, BTreeSet::from(["dev".into()]));
        assert!(filter.wants_job("a") && filter.wants_job("b c") && !filter.wants_job("c"));
        assert!(Filter::parse("").unwrap().wants_job("any"));
        assert_eq!(Filter::parse("jobs=a"), Err(DiscoveryError::Parameter("jobs".into())));
    }
}
