//! Projections: objects that are nothing but another view of a cluster, so that there is one truth about it.
//!
//! The certificate signing requests of its agents, its lease, and its add-on `cluster-proxy` are read from the cluster and
//! never stored. A change of the cluster is a change of them, under the same revision.

use serde_json::{Value, json};

use super::{object, resource::Resource, sets::GROUP};
use crate::cluster::ShownAgent;
use crate::condition::AVAILABLE;
use crate::registry::uuid;

/// Makes the objects of one resource from a cluster.
pub(crate) type Projection = fn(&Value) -> Vec<Value>;

/// Where clusters are stored.
pub(crate) const SOURCE: &str = "/managedclusters/";

/// The signer that Kubernetes' and OCM's requests name; here it is the hub's own CA.
const SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// OCM's lease of a cluster.
const LEASE: &str = "managed-cluster-lease";

/// The add-on that a tunnel is.
const ADD_ON: &str = "cluster-proxy";

/// The label by which OCM's objects name their cluster.
pub(crate) const CLUSTER_LABEL: &str = "open-cluster-management.io/cluster-name";

/// The annotations of a request that say whose it is: what an admin compares before approving it.
const KEY: &str = "cluster-proxy.internal/key";
const ADDRESS: &str = "cluster-proxy.internal/address";

/// How a resource is projected; `None` if it is stored.
pub(crate) fn of(resource: &Resource) -> Option<Projection> {
    match resource.plural {
        "certificatesigningrequests" => Some(requests),
        "leases" => Some(leases),
        "managedclusteraddons" => Some(add_ons),
        _ => None,
    }
}

/// The key of the cluster that an object is projected from.
pub(crate) fn source_key(resource: &Resource, namespace: Option<&str>, name: &str) -> Option<String> {
    let cluster = match resource.plural {
        "certificatesigningrequests" => request_names(name)?.0,
        _ => namespace?,
    };
    Some(format!("{SOURCE}{cluster}"))
}

/// The cluster and the agent of a request's name. Cluster names have no dot, so the first one divides.
pub(crate) fn request_names(name: &str) -> Option<(&str, &str)> {
    name.split_once('.')
}

/// The agent that a request shows.
pub(crate) fn shown_agent(request: &Value) -> Option<ShownAgent> {
    let (_, agent) = request_names(object::name(request))?;
    let key = request["metadata"]["annotations"][KEY].as_str()?;
    Some(ShownAgent { name: agent.parse().ok()?, key: key.parse().ok()? })
}

/// One request for each agent: waiting, approved when the agent was let in, or denied.
fn requests(cluster: &Value) -> Vec<Value> {
    let name = object::name(cluster);
    let agents = cluster["status"]["agents"].as_array().into_iter().flatten();
    let request = |agent: &Value| {
        let own = format!("{name}.{}", agent["name"].as_str().unwrap_or_default());
        let group = format!("system:open-cluster-management:{name}");
        let decision = match agent["phase"].as_str() {
            Some("Accepted") => Some(("Approved", "HubClusterAdminAccepted", "This agent may serve its cluster.")),
            Some("Denied") => Some(("Denied", "HubClusterAdminDenied", "This agent may not serve its cluster.")),
            _ => None,
        };
        let status = decision.map_or_else(
            || json!({}),
            |(kind, reason, message)| {
                json!({"conditions": [{
                    "type": kind, "status": "True", "reason": reason, "message": message,
                    "lastUpdateTime": agent["requestedAt"], "lastTransitionTime": agent["requestedAt"],
                }]})
            },
        );
        let mut metadata = metadata(cluster, &own, None, &agent["requestedAt"]);
        metadata["labels"] = json!({CLUSTER_LABEL: name});
        // Another key is another request, whatever its name.
        let key = agent["key"].as_str().unwrap_or_default();
        metadata["uid"] = derived_uid(object::metadata(cluster, "uid"), &format!("{own}={key}")).into();
        metadata["annotations"] = json!({KEY: key});
        if let Some(address) = agent["address"].as_str() {
            metadata["annotations"][ADDRESS] = address.into();
        }
        json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": metadata,
            "spec": {
                "request": agent["request"].as_str().unwrap_or_default(),
                "signerName": SIGNER,
                "usages": ["digital signature", "key encipherment", "client auth"],
                "username": format!("{group}:{}", agent["name"].as_str().unwrap_or_default()),
                "groups": [group, "system:open-cluster-management:managed-clusters"],
            },
            "status": status,
        })
    };
    agents.map(request).collect()
}

/// OCM's lease, for clients that look at it: the tunnel is what keeps it alive.
fn leases(cluster: &Value) -> Vec<Value> {
    let Some(seen) = cluster["status"].get("lastSeen").filter(|_| is_accepted(cluster)) else { return Vec::new() };
    let name = object::name(cluster);
    let mut metadata = metadata(cluster, LEASE, Some(name), &cluster["metadata"]["creationTimestamp"]);
    metadata["labels"] = json!({CLUSTER_LABEL: name});
    let renewed = seen.as_str().unwrap_or_default().trim_end_matches('Z');
    vec![json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": {
            "holderIdentity": LEASE,
            "leaseDurationSeconds": cluster["spec"]["leaseDurationSeconds"],
            "renewTime": format!("{renewed}.000000Z"),
        },
    })]
}

/// The tunnel as OCM's users look for it: Available is the tunnel's own word.
fn add_ons(cluster: &Value) -> Vec<Value> {
    let conditions = cluster["status"]["conditions"].as_array().into_iter().flatten();
    let mut available = conditions.filter(|condition| condition["type"] == AVAILABLE);
    let Some(available) = available.next().filter(|_| is_accepted(cluster)) else { return Vec::new() };
    let (reason, message) = match available["status"].as_str() {
        Some("True") => ("TunnelUp", "A tunnel of the cluster is up."),
        _ => ("TunnelDown", "No tunnel of the cluster is up."),
    };
    let name = object::name(cluster);
    vec![json!({
        "apiVersion": "addon.open-cluster-management.io/v1alpha1",
        "kind": "ManagedClusterAddOn",
        "metadata": metadata(cluster, ADD_ON, Some(name), &cluster["metadata"]["creationTimestamp"]),
        "spec": {},
        "status": {"conditions": [{
            "type": "Available",
            "status": if reason == "TunnelUp" { "True" } else { "False" },
            "reason": reason,
            "message": message,
            "lastTransitionTime": available["lastTransitionTime"],
        }]},
    })]
}

fn is_accepted(cluster: &Value) -> bool {
    cluster["spec"]["hubAcceptsClient"] == true
}

fn metadata(cluster: &Value, name: &str, namespace: Option<&str>, created: &Value) -> Value {
    let uid = object::metadata(cluster, "uid");
    let mut metadata = json!({
        "name": name,
        // As unique as the cluster's own, and the same at every look.
        "uid": derived_uid(uid, name),
        "resourceVersion": cluster["metadata"]["resourceVersion"],
        "creationTimestamp": created,
        "ownerReferences": [{
            "apiVersion": format!("{GROUP}/v1"), "kind": "ManagedCluster", "name": object::name(cluster), "uid": uid,
        }],
    });
    if let Some(namespace) = namespace {
        metadata["namespace"] = namespace.into();
    }
    metadata
}

/// A UUID (RFC 9562, version 8) made of the cluster's and the object's name.
fn derived_uid(uid: &str, name: &str) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::new().chain_update(uid).chain_update([0]).chain_update(name).finalize();
    uuid(u128::from_be_bytes(std::array::from_fn(|index| digest[index])), 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::resource;

    fn cluster() -> Value {
        json!({
            "metadata": {"name": "c1", "uid": "u-1", "creationTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "7"},
            "spec": {"hubAcceptsClient": true, "leaseDurationSeconds": 60},
            "status": {
                "lastSeen": "2026-01-01T00:00:05Z",
                "conditions": [{"type": AVAILABLE, "status": "True", "lastTransitionTime": "2026-01-01T00:00:04Z"}],
                "agents": [
                    {"name": "a.1", "phase": "Accepted", "requestedAt": "2026-01-01T00:00:01Z", "request": "UEVN"},
                    {"name": "a2", "phase": "Pending", "requestedAt": "2026-01-01T00:00:02Z", "request": "UEVN"},
                ],
            },
        })
    }

    #[test]
    fn each_agent_is_a_request_that_is_approved_when_it_was_let_in() {
        let requests = requests(&cluster());
        assert_eq!(requests.iter().map(object::name).collect::<Vec<_>>(), ["c1.a.1", "c1.a2"]);
        assert_eq!(request_names("c1.a.1"), Some(("c1", "a.1")));
        assert_eq!(requests[0]["status"]["conditions"][0]["type"], "Approved");
        assert_eq!(requests[1]["status"], json!({}));
        assert_eq!(requests[0]["spec"]["username"], "system:open-cluster-management:c1:a.1");
    }

    #[test]
    fn what_is_projected_keeps_to_its_schema() {
        for (group, version, plural) in [
            ("certificates.k8s.io", "v1", "certificatesigningrequests"),
            ("coordination.k8s.io", "v1", "leases"),
            ("addon.open-cluster-management.io", "v1alpha1", "managedclusteraddons"),
        ] {
            let resource = resource::find(group, version, plural).unwrap();
            for mut projected in of(resource).unwrap()(&cluster()) {
                let before = projected.clone();
                assert_eq!(resource.schema().validate(&projected), [], "{plural}");
                assert_eq!(resource.schema().prune(&mut projected), [""; 0], "{plural}");
                assert_eq!(projected, before, "{plural}");
                assert_eq!(projected["metadata"]["resourceVersion"], "7");
            }
        }
    }

    #[test]
    fn a_cluster_that_nobody_accepted_has_neither_lease_nor_add_on() {
        let mut cluster = cluster();
        cluster["spec"]["hubAcceptsClient"] = false.into();
        assert!(leases(&cluster).is_empty() && add_ons(&cluster).is_empty());
    }

    #[test]
    fn uids_differ_by_name_and_stay_the_same() {
        assert_eq!(derived_uid("u", "a"), derived_uid("u", "a"));
        assert_ne!(derived_uid("u", "a"), derived_uid("u", "b"));
        assert_eq!(derived_uid("u", "a").len(), 36);
    }
}
