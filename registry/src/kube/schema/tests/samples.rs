//! One object of every kind, with as many of its fields as clients write.

use serde_json::{Value, json};

const TIME: &str = "2026-01-02T03:04:05Z";
const MICROS: &str = "2026-01-02T03:04:05.000000Z";
const CLUSTER: &str = "cluster.open-cluster-management.io";
const RBAC: &str = "rbac.authorization.k8s.io";

/// The objects but for `apiVersion`, `kind` and `metadata`, by kind.
pub(super) fn samples() -> Vec<(&'static str, Value)> {
    let mut all = open_cluster_management();
    all.extend(rights());
    all.extend(reviews());
    all.extend(others());
    all
}

fn condition(kind: &str) -> Value {
    json!({
        "type": kind, "status": "True", "reason": "R", "message": "", "lastTransitionTime": TIME,
        "observedGeneration": 1,
    })
}

fn label_selector() -> Value {
    json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]})
}

fn object_reference() -> Value {
    json!({
        "apiVersion": format!("{CLUSTER}/v1"), "fieldPath": "spec", "kind": "ManagedCluster", "name": "c1",
        "namespace": "default", "resourceVersion": "1", "uid": "u",
    })
}

fn open_cluster_management() -> Vec<(&'static str, Value)> {
    let config = json!({"group": "", "resource": "configmaps", "name": "n", "namespace": "ns"});
    let hashed = json!({"name": "n", "namespace": "ns", "specHash": "h"});
    let mut reference = config.clone();
    reference["desiredConfig"] = hashed.clone();
    reference["lastAppliedConfig"] = hashed;
    reference["lastObservedGeneration"] = json!(1);
    vec![
        ("ManagedCluster", json!({"spec": {"hubAcceptsClient": true, "leaseDurationSeconds": 60}})),
        (
            "ManagedClusterSet",
            json!({
                "spec": {
                    "clusterSelector": {"selectorType": "LabelSelector", "labelSelector": label_selector()},
                    "managedNamespaces": [{"name": "n"}],
                },
                "status": {"conditions": [condition("ClusterSetEmpty")]},
            }),
        ),
        (
            "ManagedClusterSetBinding",
            json!({"spec": {"clusterSet": "s"}, "status": {"conditions": [condition("Bound")]}}),
        ),
        (
            "ManagedClusterAddOn",
            json!({
                "spec": {"configs": [config], "installNamespace": "open-cluster-management-agent-addon"},
                "status": {
                    "addOnConfiguration": {"crName": "a", "crdName": "b", "lastObservedGeneration": 1},
                    "addOnMeta": {"description": "d", "displayName": "n"},
                    "conditions": [condition("Available"), condition("Degraded")],
                    "configReferences": [reference],
                    "healthCheck": {"mode": "Customized"},
                    "kubeClientDriver": "csr",
                    "namespace": "ns",
                    "registrations": [{
                        "signerName": "kubernetes.io/kube-apiserver-client",
                        "subject": {"user": "u", "groups": ["g"], "organizationUnit": ["o"]},
                    }],
                    "relatedObjects": [{"group": "g", "resource": "r", "name": "n", "namespace": "ns"}],
                    "supportedConfigs": [{"group": "g", "resource": "r"}],
                },
            }),
        ),
    ]
}

fn rights() -> Vec<(&'static str, Value)> {
    let rules = json!([
        {"apiGroups": [CLUSTER], "resources": ["managedclusters"], "resourceNames": ["c1"], "verbs": ["get"]},
        {"nonResourceURLs": ["/version"], "verbs": ["*"]},
    ]);
    let binding = json!({
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "view"},
        "subjects": [
            {"apiGroup": RBAC, "kind": "User", "name": "u"},
            {"kind": "ServiceAccount", "name": "s", "namespace": "ns"},
        ],
    });
    vec![
        ("Role", json!({"rules": rules})),
        ("ClusterRole", json!({"rules": rules, "aggregationRule": {"clusterRoleSelectors": [label_selector()]}})),
        ("RoleBinding", binding.clone()),
        ("ClusterRoleBinding", binding),
    ]
}

fn reviews() -> Vec<(&'static str, Value)> {
    let attributes = json!({
        "group": CLUSTER, "version": "v1", "resource": "managedclusters", "subresource": "status", "verb": "get",
        "namespace": "ns", "name": "c1",
        "fieldSelector": {"rawSelector": "metadata.name=c1"}, "labelSelector": {"requirements": []},
    });
    let user = json!({"username": "u", "uid": "1", "groups": ["g"], "extra": {"scopes": ["a"]}});
    let own = json!({"resourceAttributes": attributes, "nonResourceAttributes": {"path": "/", "verb": "get"}});
    let mut anybody = own.clone();
    for (field, value) in
        [("user", json!("u")), ("uid", json!("1")), ("groups", json!(["g"])), ("extra", json!({"a": ["b"]}))]
    {
        anybody[field] = value;
    }
    let status = json!({"allowed": true, "denied": false, "reason": "r", "evaluationError": "e"});
    let rules = json!({
        "incomplete": false, "evaluationError": "",
        "resourceRules": [{"apiGroups": [""], "resources": ["*"], "resourceNames": ["n"], "verbs": ["*"]}],
        "nonResourceRules": [{"nonResourceURLs": ["*"], "verbs": ["*"]}],
    });
    vec![
        ("SubjectAccessReview", json!({"spec": anybody, "status": status})),
        ("LocalSubjectAccessReview", json!({"spec": anybody, "status": status})),
        ("SelfSubjectAccessReview", json!({"spec": own, "status": status})),
        ("SelfSubjectRulesReview", json!({"spec": {"namespace": "ns"}, "status": rules})),
        ("SelfSubjectReview", json!({"status": {"userInfo": user}})),
        (
            "TokenReview",
            json!({
                "spec": {"token": "t", "audiences": ["a"]},
                "status": {"authenticated": true, "audiences": ["a"], "error": "", "user": user},
            }),
        ),
    ]
}

fn others() -> Vec<(&'static str, Value)> {
    vec![
        (
            "CertificateSigningRequest",
            json!({
                "spec": {
                    "request": "Q1NS", "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
                    "expirationSeconds": 3600, "username": "u", "uid": "1", "groups": ["g"], "extra": {"a": ["b"]},
                },
                "status": {
                    "certificate": "Q0VSVA==",
                    "conditions": [{
                        "type": "Approved", "status": "True", "reason": "R", "message": "m", "lastUpdateTime": TIME,
                        "lastTransitionTime": TIME,
                    }],
                },
            }),
        ),
        (
            "Namespace",
            json!({
                "spec": {"finalizers": ["kubernetes"]},
                "status": {
                    "phase": "Terminating",
                    "conditions": [{
                        "type": "NamespaceContentRemaining", "status": "True", "reason": "R", "message": "m",
                        "lastTransitionTime": TIME,
                    }],
                },
            }),
        ),
        (
            "Secret",
            json!({"data": {"a": "QQ=="}, "stringData": {"b": "B"}, "type": "kubernetes.io/tls", "immutable": true}),
        ),
        (
            "Event",
            json!({
                "action": "Joined", "count": 2, "eventTime": MICROS, "firstTimestamp": TIME, "lastTimestamp": TIME,
                "involvedObject": object_reference(), "related": object_reference(), "message": "m", "reason": "R",
                "reportingComponent": "hub", "reportingInstance": "hub-1", "type": "Normal",
                "series": {"count": 2, "lastObservedTime": MICROS}, "source": {"component": "hub", "host": "h"},
            }),
        ),
        (
            "Lease",
            json!({
                "spec": {
                    "acquireTime": MICROS, "renewTime": MICROS, "holderIdentity": "h", "leaseDurationSeconds": 60,
                    "leaseTransitions": 1, "preferredHolder": "p", "strategy": "OldestEmulationVersion",
                },
            }),
        ),
    ]
}
