//! A cluster as the command shows it: the ManagedCluster of the Kubernetes API, and what its tunnels say at this moment.

use certs::ClusterName;
use registry::{
    ManagedCluster,
    api::{TunnelList, TunnelView},
    kube::sets::Rule,
};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::api::{Api, CallError};

/// Where the Kubernetes API has clusters.
pub(crate) const CLUSTERS: &str = "/apis/cluster.open-cluster-management.io/v1/managedclusters";

/// Every cluster that the user may see, sorted by name.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ClusterList {
    pub(crate) items: Vec<ClusterView>,
}

/// One of them. As JSON it is the object with `tunnel` beside its fields.
#[derive(Debug)]
pub(crate) struct ClusterView {
    pub(crate) cluster: ManagedCluster,
    pub(crate) tunnel: TunnelView,
    pub(crate) object: Value,
}

/// The answer to a list of the Kubernetes API.
#[derive(Deserialize)]
struct Objects {
    items: Vec<Value>,
}

/// Asks the hub.
pub(crate) async fn list(api: &Api) -> Result<ClusterList, CallError> {
    let objects: Objects = api.get(CLUSTERS).await?;
    let mut tunnels: TunnelList = api.get("/v1/tunnels").await?;
    let views = objects.items.into_iter().filter_map(|object| {
        let cluster = ManagedCluster::deserialize(&object).ok()?;
        let tunnel = tunnels.items.remove(cluster.name()).unwrap_or_default();
        Some(ClusterView::new(cluster, tunnel, object))
    });
    Ok(ClusterList { items: views.collect() })
}

/// The path of a cluster's object.
pub(crate) fn path(cluster: &ClusterName) -> String {
    format!("{CLUSTERS}/{cluster}")
}

impl ClusterView {
    pub(crate) fn new(mut cluster: ManagedCluster, tunnel: TunnelView, object: Value) -> Self {
        for agent in &mut cluster.status.agents {
            agent.last_seen = tunnel.agents_last_seen.get(&agent.name).copied().or(agent.last_seen);
        }
        Self { cluster, tunnel, object }
    }

    /// Whether it is in `set`, a ManagedClusterSet.
    pub(crate) fn is_in(&self, set: &Value) -> bool {
        let labels = self.cluster.metadata.labels.iter();
        let labels: Map<String, Value> = labels.map(|(key, value)| (key.clone(), value.as_str().into())).collect();
        Rule::of(set).holds(Some(&labels))
    }
}

impl Serialize for ClusterView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = self.object.clone();
        object["tunnel"] = serde_json::to_value(&self.tunnel).map_err(serde::ser::Error::custom)?;
        object.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    fn view(tunnel: TunnelView) -> ClusterView {
        let mut cluster = ManagedCluster::new("c1".parse().unwrap(), "u-1".to_owned(), Timestamp::UNIX_EPOCH);
        cluster.metadata.labels = [("cluster.open-cluster-management.io/clusterset".into(), "default".into())].into();
        let mut object = serde_json::to_value(&cluster).unwrap();
        object["spec"]["taints"] = json!([{"key": "mine"}]);
        ClusterView::new(cluster, tunnel, object)
    }

    #[test]
    fn as_json_it_is_the_ocm_object_with_a_tunnel_beside_it() {
        let tunnel = TunnelView { agents: 1, rtt_milliseconds: Some(1.5), ..TunnelView::default() };
        let json = serde_json::to_value(view(tunnel)).unwrap();
        assert_eq!(json["kind"], "ManagedCluster");
        assert_eq!(json["metadata"]["name"], "c1");
        assert_eq!(json["spec"]["taints"][0]["key"], "mine");
        assert_eq!(json["tunnel"]["rttMilliseconds"], 1.5);
        assert_eq!(json["tunnel"]["bytesToCluster"], 0);
    }

    #[test]
    fn a_cluster_is_in_the_set_that_its_label_names_and_in_those_that_select_it() {
        let view = view(TunnelView::default());
        let set = |name: &str, selector: Value| json!({"metadata": {"name": name}, "spec": selector});
        assert!(view.is_in(&set("default", json!({}))));
        assert!(!view.is_in(&set("other", json!({}))));
        let everything = json!({"clusterSelector": {"selectorType": "LabelSelector", "labelSelector": {}}});
        assert!(view.is_in(&set("global", everything)));
    }
}
