//! The hub's own writes of clusters (joins, decisions about agents, liveness), by the rules of every other write.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::cluster::ManagedCluster;
use crate::condition::OF_CLUSTERS;
pub(crate) use crate::kube::strategy::Outcome;
use crate::kube::{
    admission, apply, object,
    rbac::CLUSTER_GROUP,
    resource::{self, Resource},
    strategy,
};

/// The field manager of what the hub writes.
const MANAGER: &str = "proxy-server";

/// What becomes of a stored cluster, or of a new one, that is to be as `cluster` says.
pub(crate) fn outcome(before: Option<&Value>, cluster: &ManagedCluster, now: Timestamp) -> Outcome {
    let resource = resource::find(CLUSTER_GROUP, "v1", "managedclusters").expect("a resource of the table");
    let mut after = before.cloned().unwrap_or_else(|| {
        let mut new = json!({
            "apiVersion": resource.api_version(), "kind": resource.kind, "metadata": {"name": cluster.name()},
        });
        strategy::prepare_for_create(resource, &mut new, cluster.metadata.uid.clone(), now);
        new
    });
    overlay(&mut after, cluster);
    admission::cluster::derive(before, &mut after, now);
    strategy::drop_empty(&mut after);
    record_owner(resource, before, &mut after, now);
    match before {
        Some(before) => strategy::finish_update(resource, before, after),
        None => Outcome::Put(after),
    }
}

/// Puts in what the hub decides. What it does not know of stays.
fn overlay(object: &mut Value, cluster: &ManagedCluster) {
    let spec = json!(cluster.spec);
    merge(object::map_mut(&mut object["spec"]), &spec);
    let mut status = json!(cluster.status);
    let mut conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    for ours in status["conditions"].as_array_mut().map(std::mem::take).unwrap_or_default() {
        match conditions.iter_mut().find(|condition| condition["type"] == ours["type"]) {
            Some(known) if OF_CLUSTERS.iter().any(|kind| ours["type"] == *kind) => *known = ours,
            Some(_) => {}
            None => conditions.push(ours),
        }
    }
    status["conditions"] = conditions.into();
    merge(object::map_mut(&mut object["status"]), &status);
}

fn merge(into: &mut Map<String, Value>, fields: &Value) {
    into.extend(fields.as_object().cloned().unwrap_or_default());
}

/// The hub writes the object and its status at once.
fn record_owner(resource: &Resource, before: Option<&Value>, after: &mut Value, now: Timestamp) {
    let api_version = resource.api_version();
    let write = apply::Write {
        schema: resource.schema().document(),
        status_subresource: resource.has_status(),
        manager: MANAGER,
        subresource: None,
        api_version: &api_version,
        now,
    };
    apply::record_update(&write, before, after);
    let mut before = before.cloned().unwrap_or_else(|| json!({}));
    before["metadata"]["managedFields"] = after["metadata"]["managedFields"].clone();
    apply::record_update(&apply::Write { subresource: Some("status"), ..write }, Some(&before), after);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::{self, Fact};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn put(before: Option<&Value>, change: impl Fn(&mut ManagedCluster), now: i64) -> Value {
        let new = || ManagedCluster::new("c1".parse().unwrap(), "u-1".to_owned(), at(now));
        let mut cluster = before.map_or_else(new, |before| serde_json::from_value(before.clone()).unwrap());
        change(&mut cluster);
        match outcome(before, &cluster, at(now)) {
            Outcome::Put(object) => object,
            outcome @ (Outcome::Same | Outcome::Gone(_)) => panic!("{outcome:?}"),
        }
    }

    fn taints(cluster: &Value) -> Vec<&str> {
        let taints = cluster["spec"]["taints"].as_array().into_iter().flatten();
        taints.map(|taint| taint["key"].as_str().unwrap()).collect()
    }

    #[test]
    fn a_new_cluster_has_ocms_shape() {
        let mut cluster = put(None, |_| {}, 1_767_323_045);
        let owners = cluster["metadata"]["managedFields"].take();
        assert_eq!(owners[0]["manager"], "proxy-server");
        object::map_mut(&mut cluster["metadata"]).remove("managedFields");
        let expected = json!({
            "apiVersion": "cluster.open-cluster-management.io/v1",
            "kind": "ManagedCluster",
            "metadata": {"name": "c1", "uid": "u-1", "creationTimestamp": "2026-01-02T03:04:05Z", "generation": 1,
                "labels": {"cluster.open-cluster-management.io/clusterset": "default"}},
            "spec": {"hubAcceptsClient": false, "leaseDurationSeconds": 60, "taints": [{
                "key": "cluster.open-cluster-management.io/unreachable", "effect": "NoSelect",
                "timeAdded": "2026-01-02T03:04:05Z",
            }]},
            "status": {"conditions": [], "agents": []},
        });
        assert_eq!(cluster, expected);
    }

    #[test]
    fn a_cluster_is_tainted_while_it_is_not_available_and_other_taints_stay() {
        const UNREACHABLE: &str = "cluster.open-cluster-management.io/unreachable";
        let new = put(None, ManagedCluster::accept, 1);
        assert_eq!(taints(&new), [UNREACHABLE]);
        let mut available = put(Some(&new), |cluster| cluster.record_available(true, at(2)), 2);
        assert!(taints(&available).is_empty());
        available["spec"]["taints"] = json!([{"key": "mine"}]);
        let away = put(Some(&available), |cluster| cluster.record_available(false, at(3)), 3);
        assert_eq!(taints(&away), ["mine", UNREACHABLE]);
        let back = put(Some(&away), |cluster| cluster.record_available(true, at(4)), 4);
        assert_eq!(taints(&back), ["mine"]);
        assert_eq!(back["metadata"]["generation"], 4, "taints are a part of the spec");
    }

    #[test]
    fn what_others_have_written_stays() {
        let mut cluster = put(None, |_| {}, 1);
        cluster["status"]["conditions"] = json!([{
            "type": "Theirs", "status": "True", "reason": "Theirs", "message": "", "observedGeneration": 7,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        }]);
        cluster["status"]["clusterClaims"] = json!([{"name": "id", "value": "x"}]);
        cluster["metadata"]["finalizers"] = json!(["example.com/wait"]);
        let join = |cluster: &mut ManagedCluster| condition::set(&mut cluster.status.conditions, Fact::Joined, at(2));
        let joined = put(Some(&cluster), join, 2);
        assert_eq!(joined["status"]["clusterClaims"], cluster["status"]["clusterClaims"]);
        assert_eq!(joined["metadata"]["finalizers"], cluster["metadata"]["finalizers"]);
        assert_eq!(joined["status"]["conditions"][0], cluster["status"]["conditions"][0]);
        assert_eq!(joined["status"]["conditions"][1]["type"], "ManagedClusterJoined");
    }

    #[test]
    fn the_last_finalizer_of_a_deleted_cluster_was_somebody_elses() {
        let mut cluster = put(None, |_| {}, 1);
        cluster["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z".into();
        let mut accepted: ManagedCluster = serde_json::from_value(cluster.clone()).unwrap();
        accepted.accept();
        assert!(matches!(outcome(Some(&cluster), &accepted, at(2)), Outcome::Gone(_)));
        cluster["metadata"]["finalizers"] = json!(["example.com/wait"]);
        assert!(matches!(outcome(Some(&cluster), &accepted, at(2)), Outcome::Put(_)));
    }
}
