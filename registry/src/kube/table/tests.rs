//! What `kubectl get` shows of each kind.

use super::*;
use crate::kube::resource;

fn now() -> Timestamp {
    "2026-01-02T12:04:05Z".parse().unwrap()
}

fn of(kind: &str) -> Table<'static> {
    let resource = resource::all().iter().find(|resource| resource.kind == kind).unwrap();
    Table { resource, version: MetaVersion::V1, include: IncludeObject::Metadata }
}

/// The headers as kubectl prints them and the cells below, up to that priority.
fn shown(kind: &str, object: &Value, priority: u64) -> Vec<(String, Value)> {
    let table = of(kind).single(object, true, now());
    let columns = table["columnDefinitions"].as_array().unwrap();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(columns.len(), cells.len());
    let pairs = columns.iter().zip(cells).filter(|(column, _)| column["priority"].as_u64().unwrap() <= priority);
    pairs.map(|(column, cell)| (column["name"].as_str().unwrap().to_uppercase(), cell.clone())).collect()
}

fn row(pairs: &[(&str, Value)]) -> Vec<(String, Value)> {
    pairs.iter().map(|(name, cell)| ((*name).to_owned(), cell.clone())).collect()
}

fn meta(name: &str) -> Value {
    json!({"name": name, "creationTimestamp": "2026-01-02T03:04:05Z", "resourceVersion": "7"})
}

fn cluster() -> Value {
    let mut metadata = meta("cluster1");
    metadata["labels"] = json!({"cluster.open-cluster-management.io/clusterset": "default"});
    json!({
        "kind": "ManagedCluster",
        "apiVersion": "cluster.open-cluster-management.io/v1",
        "metadata": metadata,
        "spec": {
            "hubAcceptsClient": true,
            "managedClusterClientConfigs": [{"url": "https://cluster1-control-plane:6443"}, {"url": "https://b"}],
        },
        "status": {
            "conditions": [
                {"type": "HubAcceptedManagedCluster", "status": "True", "reason": "HubClusterAdminAccepted"},
                {"type": "ManagedClusterJoined", "status": "True"},
                {
                    "type": "ManagedClusterConditionAvailable", "status": "Unknown",
                    "reason": "ManagedClusterLeaseUpdateStopped",
                },
            ],
            "lastSeen": "2026-01-02T12:02:00Z",
            "version": {"kubernetes": "v1.32.0"},
        },
    })
}

#[test]
fn a_cluster_has_the_columns_of_open_cluster_management_and_then_ours() {
    let usual = [
        ("NAME", json!("cluster1")),
        ("HUB ACCEPTED", json!(true)),
        ("MANAGED CLUSTER URLS", json!("https://cluster1-control-plane:6443")),
        ("JOINED", json!("True")),
        ("AVAILABLE", json!("Unknown")),
        ("AGE", json!("9h")),
    ];
    let ours = [
        ("SET", json!("default")),
        ("VERSION", json!("v1.32.0")),
        ("LAST SEEN", json!("2m5s")),
        ("TUNNEL", json!("Down")),
        ("REASON", json!("ManagedClusterLeaseUpdateStopped")),
    ];
    assert_eq!(shown("ManagedCluster", &cluster(), 0), row(&usual));
    assert_eq!(shown("ManagedCluster", &cluster(), 1), row(&[usual.as_slice(), ours.as_slice()].concat()));
}

#[test]
fn a_cluster_of_which_nothing_is_known_shows_blanks() {
    let cells = shown("ManagedCluster", &json!({"metadata": meta("c")}), 1);
    assert!(cells.iter().all(|(name, cell)| matches!(name.as_str(), "NAME" | "AGE") != cell.is_null()), "{cells:?}");
}

#[test]
fn sets_bindings_and_add_ons_are_as_in_open_cluster_management() {
    let conditions = |types: &[(&str, &str)]| -> Vec<_> {
        types.iter().map(|(kind, status)| json!({"type": kind, "status": status})).collect()
    };
    let set = json!({"metadata": meta("s"), "status": {"conditions": conditions(&[("ClusterSetEmpty", "True")])}});
    let expected = row(&[("NAME", json!("s")), ("EMPTY", json!("True")), ("AGE", json!("9h"))]);
    assert_eq!(shown("ManagedClusterSet", &set, 1), expected);

    let binding = json!({"metadata": meta("s")});
    let expected = row(&[("NAME", json!("s")), ("AGE", json!("9h"))]);
    assert_eq!(shown("ManagedClusterSetBinding", &binding, 1), expected);

    let states = [("Available", "True"), ("Degraded", "False")];
    let addon = json!({"metadata": meta("a"), "status": {"conditions": conditions(&states)}});
    let expected = row(&[
        ("NAME", json!("a")),
        ("AVAILABLE", json!("True")),
        ("DEGRADED", json!("False")),
        ("PROGRESSING", Value::Null),
    ]);
    assert_eq!(shown("ManagedClusterAddOn", &addon, 1), expected);
}

#[test]
fn a_certificate_request_shows_what_was_decided() {
    let spec =
        json!({"signerName": "kubernetes.io/kube-apiserver-client", "username": "u", "expirationSeconds": 86400});
    let mut csr = json!({"metadata": meta("r"), "spec": spec});
    let expected = row(&[
        ("NAME", json!("r")),
        ("AGE", json!("9h")),
        ("SIGNERNAME", json!("kubernetes.io/kube-apiserver-client")),
        ("REQUESTOR", json!("u")),
        ("REQUESTEDDURATION", json!("24h")),
        ("CONDITION", json!("Pending")),
    ]);
    assert_eq!(shown("CertificateSigningRequest", &csr, 1), expected);
    csr["status"] = json!({"conditions": [{"type": "Approved"}], "certificate": "Q0E="});
    assert_eq!(shown("CertificateSigningRequest", &csr, 1)[5].1, "Approved,Issued");
    csr["status"] = json!({"conditions": [{"type": "Approved"}, {"type": "Denied"}, {"type": "Failed"}]});
    csr["spec"] = json!({});
    let cells = shown("CertificateSigningRequest", &csr, 1);
    assert_eq!(cells[5].1, "Denied,Failed");
    assert_eq!((&cells[2].1, &cells[4].1), (&json!("<none>"), &json!("<none>")));
}

#[test]
fn the_other_built_in_kinds_are_as_in_kubernetes() {
    let namespace = json!({"metadata": meta("n"), "status": {"phase": "Active"}});
    let expected = row(&[("NAME", json!("n")), ("STATUS", json!("Active")), ("AGE", json!("9h"))]);
    assert_eq!(shown("Namespace", &namespace, 1), expected);

    let secret = json!({"metadata": meta("s"), "type": "Opaque", "data": {"a": "", "b": ""}});
    let expected = row(&[("NAME", json!("s")), ("TYPE", json!("Opaque")), ("DATA", json!(2)), ("AGE", json!("9h"))]);
    assert_eq!(shown("Secret", &secret, 1), expected);

    for kind in ["Role", "ClusterRole"] {
        let expected = row(&[("NAME", json!("r")), ("CREATED AT", json!("2026-01-02T03:04:05Z"))]);
        assert_eq!(shown(kind, &json!({"metadata": meta("r")}), 1), expected);
    }

    let lease = json!({"metadata": meta("l"), "spec": {"holderIdentity": "h"}});
    let expected = row(&[("NAME", json!("l")), ("HOLDER", json!("h")), ("AGE", json!("9h"))]);
    assert_eq!(shown("Lease", &lease, 1), expected);
}

#[test]
fn a_binding_shows_its_role_and_when_wide_its_subjects() {
    let binding = json!({
        "metadata": meta("b"),
        "roleRef": {"kind": "ClusterRole", "name": "admin"},
        "subjects": [
            {"kind": "User", "name": "a"}, {"kind": "Group", "name": "g"}, {"kind": "User", "name": "b"},
            {"kind": "ServiceAccount", "name": "sa", "namespace": "ns"},
        ],
    });
    let usual = [("NAME", json!("b")), ("ROLE", json!("ClusterRole/admin")), ("AGE", json!("9h"))];
    let wide = [("USERS", json!("a, b")), ("GROUPS", json!("g")), ("SERVICEACCOUNTS", json!("ns/sa"))];
    for kind in ["RoleBinding", "ClusterRoleBinding"] {
        assert_eq!(shown(kind, &binding, 0), row(&usual));
        assert_eq!(shown(kind, &binding, 1), row(&[usual.as_slice(), wide.as_slice()].concat()));
    }
}

#[test]
fn an_event_says_when_it_last_happened() {
    let mut event = json!({
        "metadata": meta("e"), "type": "Normal", "reason": "R", "message": "said\n", "count": 3,
        "involvedObject": {"kind": "ManagedCluster", "name": "c1", "fieldPath": "spec"},
        "firstTimestamp": "2026-01-02T12:00:00Z", "lastTimestamp": "2026-01-02T12:04:00Z",
        "source": {"component": "hub", "host": "h"},
    });
    let expected = row(&[
        ("LAST SEEN", json!("5s")),
        ("TYPE", json!("Normal")),
        ("REASON", json!("R")),
        ("OBJECT", json!("managedcluster/c1")),
        ("SUBOBJECT", json!("spec")),
        ("SOURCE", json!("hub, h")),
        ("MESSAGE", json!("said")),
        ("FIRST SEEN", json!("4m5s")),
        ("COUNT", json!(3)),
        ("NAME", json!("e")),
    ]);
    assert_eq!(shown("Event", &event, 1), expected);
    assert_eq!(shown("Event", &event, 0).len(), 5);

    event["series"] = json!({"count": 9, "lastObservedTime": "2026-01-02T12:04:04.000000Z"});
    let cells = shown("Event", &event, 1);
    assert_eq!((&cells[0].1, &cells[8].1), (&json!("1s"), &json!(9)));

    let new = json!({"metadata": meta("e"), "eventTime": "2026-01-02T12:04:00.5Z", "reportingComponent": "hub"});
    let cells = shown("Event", &new, 1);
    assert_eq!((&cells[0].1, &cells[7].1, &cells[8].1), (&json!("4s"), &json!("4s"), &json!(1)));
    assert_eq!(cells[5].1, "hub");
}

#[test]
fn a_list_keeps_where_it_stands() {
    let metadata = json!({"resourceVersion": "9", "continue": "t", "remainingItemCount": 4});
    let table = of("ManagedCluster").list(&metadata, &[cluster(), cluster()], now());
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["apiVersion"], "meta.k8s.io/v1");
    assert_eq!(table["metadata"], metadata);
    assert_eq!(table["rows"].as_array().unwrap().len(), 2);
    let name = &table["columnDefinitions"][0];
    assert_eq!((&name["name"], &name["type"], &name["format"]), (&json!("Name"), &json!("string"), &json!("name")));
}

#[test]
fn only_the_first_event_of_a_watch_has_the_columns() {
    let first = of("ManagedCluster").single(&cluster(), true, now());
    let second = of("ManagedCluster").single(&cluster(), false, now());
    assert_eq!(first["columnDefinitions"].as_array().unwrap().len(), 11);
    assert_eq!(second["columnDefinitions"], json!([]));
    assert_eq!(second["rows"], first["rows"]);
    assert_eq!(second["metadata"], json!({"resourceVersion": "7"}));
}

#[test]
fn a_row_carries_as_much_of_its_object_as_asked() {
    let object = |parameter: Option<&str>, version| {
        let include = IncludeObject::parse(parameter).unwrap();
        let table = Table { include, version, ..of("ManagedCluster") }.single(&cluster(), true, now());
        table["rows"][0]["object"].clone()
    };
    assert_eq!(object(Some("None"), MetaVersion::V1), Value::Null);
    assert_eq!(object(Some("Object"), MetaVersion::V1), cluster());
    assert_eq!(object(None, MetaVersion::V1), metadata(&cluster(), MetaVersion::V1));
    let partial = object(Some("Metadata"), MetaVersion::V1Beta1);
    assert_eq!(partial["kind"], "PartialObjectMetadata");
    assert_eq!(partial["apiVersion"], "meta.k8s.io/v1beta1");
    assert_eq!(partial["metadata"]["name"], "cluster1");
    assert!(partial.get("spec").is_none());
    assert_eq!(IncludeObject::parse(Some("Everything")), None);
}

#[test]
fn a_list_of_metadata_names_its_kind_on_every_item() {
    let list = metadata_list(&json!({"resourceVersion": "9"}), &[cluster()], MetaVersion::V1);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["metadata"]["resourceVersion"], "9");
    assert_eq!(list["items"][0], metadata(&cluster(), MetaVersion::V1));
}

#[test]
fn nothing_in_an_object_can_upset_a_table() {
    for resource in resource::all() {
        let table = Table { resource, version: MetaVersion::V1, include: IncludeObject::None };
        for object in [json!(null), json!([]), json!({"metadata": 1, "spec": [], "status": {"conditions": [1, {}]}})] {
            table.single(&object, true, now());
        }
    }
}
