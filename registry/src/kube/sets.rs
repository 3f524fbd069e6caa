//! Cluster sets: which clusters they hold, and the two that always exist.

use serde_json::{Value, json};

use super::{object, selector::LabelSelector};

/// OCM's group.
pub(crate) const GROUP: &str = "cluster.open-cluster-management.io";

/// The label that names a cluster's exclusive set.
pub(crate) const CLUSTER_SET_LABEL: &str = "cluster.open-cluster-management.io/clusterset";

/// Holds every cluster that names no set.
pub(crate) const DEFAULT_SET: &str = "default";

/// Holds every cluster.
pub(crate) const GLOBAL_SET: &str = "global";

/// Whether the hub makes and keeps the set itself.
pub(crate) fn is_permanent(name: &str) -> bool {
    matches!(name, DEFAULT_SET | GLOBAL_SET)
}

/// The spec of a set that [`is_permanent`].
pub(crate) fn permanent_spec(name: &str) -> Value {
    match name {
        GLOBAL_SET => json!({"clusterSelector": {"selectorType": "LabelSelector", "labelSelector": {}}}),
        _ => json!({"clusterSelector": {"selectorType": "ExclusiveClusterSetLabel"}}),
    }
}

/// The exclusive set that a cluster's label names; empty if there is none.
pub(crate) fn set_label(cluster: &Value) -> &str {
    let label = object::labels(cluster).and_then(|labels| labels.get(CLUSTER_SET_LABEL));
    label.and_then(Value::as_str).unwrap_or_default()
}

/// Whether the set holds the cluster. A selector that cannot be read holds nothing.
pub(crate) fn selects(set: &Value, cluster: &Value) -> bool {
    let selector = &set["spec"]["clusterSelector"];
    match selector["selectorType"].as_str() {
        None | Some("ExclusiveClusterSetLabel") => {
            let label = set_label(cluster);
            let label = if label.is_empty() { DEFAULT_SET } else { label };
            label == object::name(set)
        }
        Some("LabelSelector") => {
            let selector = LabelSelector::from_object(&selector["labelSelector"]);
            selector.is_ok_and(|selector| selector.matches(object::labels(cluster)))
        }
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(labels: Value) -> Value {
        json!({"metadata": {"name": "c1", "labels": labels}})
    }

    fn set(name: &str, selector: Value) -> Value {
        json!({"metadata": {"name": name}, "spec": {"clusterSelector": selector}})
    }

    #[test]
    fn an_exclusive_set_holds_the_clusters_that_name_it() {
        let exclusive = json!({"selectorType": "ExclusiveClusterSetLabel"});
        let named = cluster(json!({CLUSTER_SET_LABEL: "dev"}));
        assert!(selects(&set("dev", exclusive.clone()), &named));
        assert!(!selects(&set("default", exclusive.clone()), &named));
        assert!(selects(&set("default", exclusive.clone()), &cluster(json!({}))));
        assert!(!selects(&set("dev", exclusive), &cluster(json!({}))));
    }

    #[test]
    fn a_label_selector_holds_what_it_matches_and_none_holds_nothing() {
        let selector = |selector: Value| set("s", json!({"selectorType": "LabelSelector", "labelSelector": selector}));
        let cluster = cluster(json!({"env": "prod"}));
        assert!(selects(&selector(json!({"matchLabels": {"env": "prod"}})), &cluster));
        assert!(!selects(&selector(json!({"matchLabels": {"env": "dev"}})), &cluster));
        assert!(selects(&selector(json!({})), &cluster));
        assert!(!selects(&selector(Value::Null), &cluster));
        assert!(!selects(&selector(json!({"matchExpressions": [{"key": "env", "operator": "Is"}]})), &cluster));
    }

    #[test]
    fn the_global_set_holds_everything() {
        let global = json!({"metadata": {"name": "global"}, "spec": permanent_spec(GLOBAL_SET)});
        assert!(selects(&global, &cluster(json!({CLUSTER_SET_LABEL: "dev"}))));
        assert!(selects(&global, &json!({"metadata": {"name": "c2"}})));
    }
}
