//! Cluster sets: which clusters they hold, and the two that always exist.

use serde_json::{Map, Value, json};

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
pub(crate) fn set_label(labels: Option<&Map<String, Value>>) -> &str {
    labels.and_then(|labels| labels.get(CLUSTER_SET_LABEL)).and_then(Value::as_str).unwrap_or_default()
}

/// Which clusters a set holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Those whose label names this set.
    Named(String),
    Selected(LabelSelector),
}

impl Rule {
    /// Of a ManagedClusterSet. One that cannot be read holds nothing.
    pub fn of(set: &Value) -> Self {
        let selector = &set["spec"]["clusterSelector"];
        match selector["selectorType"].as_str() {
            None | Some("ExclusiveClusterSetLabel") => Self::Named(object::name(set).to_owned()),
            Some("LabelSelector") => Self::Selected(
                LabelSelector::from_object(selector.get("labelSelector")).unwrap_or_else(|_| LabelSelector::nothing()),
            ),
            Some(_) => Self::Selected(LabelSelector::nothing()),
        }
    }

    /// Whether clusters that `before` does not hold, or no rule at all, can come into the set without a word about it:
    /// their labels may be anybody's.
    pub(crate) fn widens(&self, before: Option<&Self>) -> bool {
        match (self, before) {
            (Self::Named(_), _) => false,
            (Self::Selected(own), Some(Self::Selected(before))) => !own.narrows(before),
            (Self::Selected(own), Some(Self::Named(_)) | None) => !own.narrows(&LabelSelector::nothing()),
        }
    }

    /// Whether a cluster with these labels is in the set.
    pub fn holds(&self, labels: Option<&Map<String, Value>>) -> bool {
        match self {
            Self::Named(set) => {
                let label = set_label(labels);
                set == if label.is_empty() { DEFAULT_SET } else { label }
            }
            Self::Selected(selector) => selector.matches(labels),
        }
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

    fn holds(set: &Value, cluster: &Value) -> bool {
        Rule::of(set).holds(object::labels(cluster))
    }

    #[test]
    fn an_exclusive_set_holds_the_clusters_that_name_it() {
        let exclusive = json!({"selectorType": "ExclusiveClusterSetLabel"});
        let named = cluster(json!({CLUSTER_SET_LABEL: "dev"}));
        assert!(holds(&set("dev", exclusive.clone()), &named));
        assert!(!holds(&set("default", exclusive.clone()), &named));
        assert!(holds(&set("default", exclusive.clone()), &cluster(json!({}))));
        assert!(!holds(&set("dev", exclusive), &cluster(json!({}))));
    }

    #[test]
    fn a_label_selector_holds_what_it_matches_and_none_holds_nothing() {
        let selector = |selector: Value| set("s", json!({"selectorType": "LabelSelector", "labelSelector": selector}));
        let cluster = cluster(json!({"env": "prod"}));
        assert!(holds(&selector(json!({"matchLabels": {"env": "prod"}})), &cluster));
        assert!(!holds(&selector(json!({"matchLabels": {"env": "dev"}})), &cluster));
        assert!(holds(&selector(json!({})), &cluster));
        assert!(!holds(&selector(Value::Null), &cluster));
        assert!(!holds(&selector(json!({"matchExpressions": [{"key": "env", "operator": "Is"}]})), &cluster));
    }

    #[test]
    fn the_global_set_holds_everything() {
        let global = json!({"metadata": {"name": "global"}, "spec": permanent_spec(GLOBAL_SET)});
        assert!(holds(&global, &cluster(json!({CLUSTER_SET_LABEL: "dev"}))));
        assert!(holds(&global, &json!({"metadata": {"name": "c2"}})));
    }
}
