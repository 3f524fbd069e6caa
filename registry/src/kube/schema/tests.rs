//! What is kept, filled in and refused, by the schemas that are served.

mod samples;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::kube::resource;

fn schema(kind: &str) -> &'static Schema {
    resource::all().iter().find(|resource| resource.kind == kind).unwrap().schema()
}

fn said(kind: &str, object: &Value) -> Vec<String> {
    schema(kind).validate(object).iter().map(Cause::to_string).collect()
}

/// A ManagedCluster with every field that Open Cluster Management has, and ours.
fn cluster() -> Value {
    json!({
        "apiVersion": "cluster.open-cluster-management.io/v1",
        "kind": "ManagedCluster",
        "metadata": {
            "name": "cluster1",
            "uid": "5d2b0c4a-4f66-4b39-8a51-0e1b0b8f1c1a",
            "resourceVersion": "12",
            "generation": 2,
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"cluster.open-cluster-management.io/clusterset": "default"},
            "annotations": {"agent.open-cluster-management.io/x": "y"},
            "finalizers": ["cluster.open-cluster-management.io/api-resource-cleanup"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n", "uid": "u", "controller": true}],
            "managedFields": [{
                "apiVersion": "cluster.open-cluster-management.io/v1", "fieldsType": "FieldsV1", "manager": "kubectl",
                "fieldsV1": {"f:spec": {"f:hubAcceptsClient": {}, "k:{\"a\":1}": {".": {}}}}, "operation": "Update",
                "time": "2026-01-02T03:04:05Z",
            }],
        },
        "spec": {
            "hubAcceptsClient": true,
            "leaseDurationSeconds": 60,
            "managedClusterClientConfigs": [{"url": "https://cluster1:6443", "caBundle": "Q0E="}],
            "taints": [{
                "key": "cluster.open-cluster-management.io/unreachable", "value": "", "effect": "NoSelect",
                "timeAdded": "2026-01-02T03:04:05Z",
            }],
        },
        "status": {
            "agents": [{
                "name": "a", "key": "k", "phase": "Accepted", "requestedAt": "2026-01-02T03:04:05Z", "version": "0.1.0",
                "lastSeen": "2026-01-02T03:04:05Z",
            }],
            "allocatable": {"cpu": "3500m", "memory": "16Gi"},
            "capacity": {"cpu": 4, "memory": "16Gi"},
            "clusterClaims": [{"name": "id.k8s.io", "value": "x"}],
            "conditions": [{
                "type": "ManagedClusterConditionAvailable", "status": "True", "reason": "ManagedClusterAvailable",
                "message": "Managed cluster is available", "lastTransitionTime": "2026-01-02T03:04:05Z",
                "observedGeneration": 2,
            }],
            "lastSeen": "2026-01-02T03:04:05Z",
            "managedNamespaces": [{"name": "n", "clusterSet": "default", "conditions": []}],
            "version": {"kubernetes": "v1.32.0"},
        },
    })
}

#[test]
fn a_whole_cluster_passes_unchanged() {
    let mut object = cluster();
    assert_eq!(schema("ManagedCluster").prune(&mut object), [""; 0]);
    schema("ManagedCluster").set_defaults(&mut object);
    assert_eq!(object, cluster());
    assert_eq!(said("ManagedCluster", &object), [""; 0]);
}

#[test]
fn a_whole_object_of_every_kind_passes_unchanged() {
    let samples = samples::samples();
    for resource in resource::all() {
        let (_, sample) = samples.iter().find(|(kind, _)| *kind == resource.kind).expect(resource.kind);
        let mut whole = sample.clone();
        whole["apiVersion"] = json!(resource.api_version());
        whole["kind"] = json!(resource.kind);
        whole["metadata"] = cluster()["metadata"].clone();
        let mut object = whole.clone();
        assert_eq!(resource.schema().prune(&mut object), [""; 0], "{}", resource.kind);
        resource.schema().set_defaults(&mut object);
        assert_eq!(object, whole);
        assert_eq!(said(resource.kind, &object), [""; 0], "{}", resource.kind);
    }
}

#[test]
fn what_go_clients_leave_empty_is_no_fault() {
    let mut binding = json!({
        "metadata": {"name": "b", "creationTimestamp": null, "labels": null},
        "subjects": null,
        "roleRef": {"kind": "ClusterRole", "name": "view"},
    });
    schema("ClusterRoleBinding").set_defaults(&mut binding);
    assert_eq!(said("ClusterRoleBinding", &binding), [""; 0]);
    assert_eq!(binding["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");

    let mut role = json!({"metadata": {"name": "r"}, "rules": null});
    schema("Role").set_defaults(&mut role);
    assert_eq!(said("Role", &role), [""; 0]);
}

#[test]
fn our_own_cluster_passes_unchanged() {
    let now = jiff::Timestamp::from_second(1_700_000_000).unwrap();
    let mut cluster = crate::ManagedCluster::new("c1".parse().unwrap(), "u".to_owned(), now);
    cluster.accept();
    let written = serde_json::to_value(&cluster).unwrap();
    let mut object = written.clone();
    assert_eq!(schema("ManagedCluster").prune(&mut object), [""; 0]);
    assert_eq!(object, written);
    assert_eq!(said("ManagedCluster", &object), [""; 0]);
}

#[test]
fn every_schema_is_read_and_says_what_each_field_is_for() {
    fn described(path: &str, schema: &Value) {
        assert!(schema["description"].as_str().is_some_and(|text| text.ends_with('.')), "{path}");
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            described(&format!("{path}.{name}"), field);
        }
        if schema["items"]["type"] == "object" {
            described(&format!("{path}[]"), &schema["items"]);
        }
    }
    for resource in resource::all() {
        described(resource.kind, resource.schema().document());
        assert!(!resource.schema().document().to_string().contains("$ref"), "{}", resource.kind);
    }
}

#[test]
fn unknown_fields_are_taken_out_and_named() {
    let mut object = cluster();
    object["spec"]["foo"] = json!({"bar": 1});
    object["spec"]["taints"][0]["foo"] = json!(1);
    object["metadata"]["foo"] = json!(1);
    object["foo"] = json!(1);
    let unknown = schema("ManagedCluster").prune(&mut object);
    assert_eq!(unknown, ["foo", "metadata.foo", "spec.foo", "spec.taints[0].foo"]);
    assert_eq!(object, cluster());
    assert_eq!(unknown_field(&unknown[2]), "unknown field \"spec.foo\"");
}

#[test]
fn what_is_left_out_is_filled_in() {
    let mut set = json!({"metadata": {"name": "s", "creationTimestamp": null}, "status": {"conditions": null}});
    schema("ManagedClusterSet").set_defaults(&mut set);
    let spec = json!({"clusterSelector": {"selectorType": "ExclusiveClusterSetLabel"}});
    assert_eq!(set, json!({"metadata": {"name": "s"}, "spec": spec, "status": {}}));

    let mut cluster = json!({"spec": {"leaseDurationSeconds": 30, "taints": [{"timeAdded": null}]}});
    schema("ManagedCluster").set_defaults(&mut cluster);
    let spec = json!({"hubAcceptsClient": false, "leaseDurationSeconds": 30, "taints": [{"timeAdded": null}]});
    assert_eq!(cluster, json!({"spec": spec}));
}

#[test]
fn the_causes_are_in_the_words_of_kubernetes() {
    let wrong = json!({
        "spec": {
            "hubAcceptsClient": 1,
            "leaseDurationSeconds": "string",
            "managedClusterClientConfigs": [{"caBundle": "%"}],
            "taints": [{"key": "a b", "effect": "x", "value": "v".repeat(1025)}],
        },
        "status": {"clusterClaims": [{"name": "", "value": "x"}], "lastSeen": "now", "capacity": {"cpu": true}},
    });
    let pattern = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?\
                   (([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$";
    let expected = [
        r#"spec.hubAcceptsClient: Invalid value: "integer": spec.hubAcceptsClient in body must be of type boolean: "integer""#,
        r#"spec.leaseDurationSeconds: Invalid value: "string": spec.leaseDurationSeconds in body must be of type integer: "string""#,
        "spec.managedClusterClientConfigs[0].url: Required value",
        r#"spec.managedClusterClientConfigs[0].caBundle: Invalid value: "%": spec.managedClusterClientConfigs[0].caBundle in body must be of type byte: "%""#,
        r#"spec.taints[0].effect: Unsupported value: "x": supported values: "NoSelect", "PreferNoSelect", "NoSelectIfNew""#,
        &format!(r#"spec.taints[0].key: Invalid value: "a b": spec.taints[0].key in body should match '{pattern}'"#),
        "spec.taints[0].value: Too long: may not be more than 1024 bytes",
        r#"status.capacity.cpu: Invalid value: "boolean": status.capacity.cpu in body must be of type integer,string: "boolean""#,
        r#"status.clusterClaims[0].name: Invalid value: "": status.clusterClaims[0].name in body should be at least 1 chars long"#,
        r#"status.lastSeen: Invalid value: "now": status.lastSeen in body must be of type date-time: "now""#,
    ];
    assert_eq!(said("ManagedCluster", &wrong), expected);
}

#[test]
fn numbers_keep_to_their_width_and_minimum() {
    assert_eq!(
        said("ManagedCluster", &json!({"spec": {"leaseDurationSeconds": 3_000_000_000_i64}})),
        [
            "spec.leaseDurationSeconds: Invalid value: 3000000000: Checked value must be of type integer with format int32 \
          in spec.leaseDurationSeconds"
        ]
    );
    assert_eq!(
        said(
            "CertificateSigningRequest",
            &json!({"spec": {"request": "", "signerName": "a", "usages": [], "expirationSeconds": 1}})
        ),
        [
            "spec.expirationSeconds: Invalid value: 1: spec.expirationSeconds in body should be greater than or equal to \
          600"
        ]
    );
    assert_eq!(said("ManagedCluster", &json!({"metadata": {"generation": 1.5}})).len(), 1);
}

#[test]
fn base64_may_have_line_breaks() {
    let secret = |data: &str| json!({"data": {"a": data}});
    assert_eq!(said("Secret", &secret("QUJD\nREVG\n")), [""; 0]);
    assert_eq!(said("Secret", &secret("QUJ")).len(), 1);
}

#[test]
fn a_secret_without_a_type_is_opaque() {
    let mut secret = json!({});
    schema("Secret").set_defaults(&mut secret);
    assert_eq!(secret, json!({"type": "Opaque"}));
}

#[test]
fn a_list_has_each_key_once() {
    let condition = |status: &str| json!({"type": "A", "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z"});
    assert_eq!(
        said("ManagedClusterSet", &json!({"status": {"conditions": [condition("True"), condition("False")]}})),
        [r#"status.conditions[1]: Duplicate value: {"type":"A"}"#]
    );
    assert_eq!(
        said("Role", &json!({"metadata": {"finalizers": ["a", "a"]}})),
        [r#"metadata.finalizers[1]: Duplicate value: "a""#]
    );
}

#[test]
fn an_object_must_be_an_object() {
    assert_eq!(
        said("Role", &json!([])),
        [r#"<nil>: Invalid value: "array": <nil> in body must be of type object: "array""#]
    );
    assert_eq!(said("ManagedClusterSetBinding", &json!({"spec": {"clusterSet": ""}})).len(), 1);
    assert_eq!(said("ManagedClusterAddOn", &json!({})), ["spec: Required value"]);
}

/// Any JSON, with names that the schemas know often enough.
fn any_json() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        prop::sample::select(vec![
            "metadata",
            "spec",
            "status",
            "labels",
            "conditions",
            "taints",
            "clusterSelector",
            "configs",
            "type",
            "selectorType",
            "managedFields",
            "fieldsV1",
            "rules",
            "roleRef",
            "data",
            "healthCheck",
            "finalizers",
        ])
        .prop_map(str::to_owned),
        "[a-c]",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-zA-Z=:/ -]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            3 => prop::collection::btree_map(name.clone(), inner.clone(), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            1 => prop::collection::vec(inner, 0..4).prop_map(Value::Array),
        ]
    })
}

proptest! {
    #[test]
    fn pruning_and_defaulting_twice_is_as_once(
        resource in prop::sample::select(resource::all().iter().collect::<Vec<_>>()),
        mut object in any_json(),
    ) {
        let schema = resource.schema();
        let unknown = schema.prune(&mut object);
        let pruned = object.clone();
        prop_assert_eq!(schema.prune(&mut object), Vec::<String>::new(), "after {:?}", unknown);
        prop_assert_eq!(&object, &pruned);

        schema.set_defaults(&mut object);
        let filled = object.clone();
        schema.set_defaults(&mut object);
        prop_assert_eq!(&object, &filled);
        prop_assert_eq!(schema.prune(&mut object), Vec::<String>::new());
        schema.validate(&object);
    }
}
