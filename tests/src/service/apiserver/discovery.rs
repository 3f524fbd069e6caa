//! The documents by which clients learn what this API server has.

use serde_json::{Value, json};

/// The document at that path, if it is one of discovery.
pub(super) fn document(path: &[&str]) -> Option<Value> {
    match path {
        ["version"] => Some(json!({
            "major": "1",
            "minor": "33",
            "gitVersion": "v1.33.0",
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "2025-04-23T00:00:00Z",
            "goVersion": "go1.24",
            "compiler": "gc",
            "platform": "linux/amd64",
        })),
        ["api"] => Some(json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })),
        ["apis"] => Some(json!({
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [
                group("authentication.k8s.io", "v1"), group("metrics.k8s.io", "v1beta1"), group("policy", "v1"),
            ],
        })),
        ["apis", "authentication.k8s.io", "v1"] => Some(resources(
            "authentication.k8s.io/v1",
            vec![resource("selfsubjectreviews", "SelfSubjectReview", false, &["create"])],
        )),
        ["apis", "metrics.k8s.io", "v1beta1"] => Some(resources(
            "metrics.k8s.io/v1beta1",
            vec![
                resource("nodes", "NodeMetrics", false, &["get", "list"]),
                resource("pods", "PodMetrics", true, &["get", "list"]),
            ],
        )),
        ["apis", "policy", "v1"] => Some(resources("policy/v1", Vec::new())),
        ["api", "v1"] => Some(resources("v1", core())),
        // With no schemas: clients then leave all validation to the server.
        ["openapi", "v3"] => Some(json!({
            "paths": { "api/v1": { "serverRelativeURL": "/openapi/v3/api/v1?hash=1" } },
        })),
        ["openapi", "v3", "api", "v1"] => Some(json!({
            "openapi": "3.0.0",
            "info": { "title": "Kubernetes", "version": "v1.33.0" },
            "paths": { "/api/v1/namespaces/{namespace}/configmaps/{name}": { "patch": patch() } },
        })),
        _ => None,
    }
}

/// OpenAPI v2 in gnostic's protobuf, which is all that old clients read: `swagger: "2.0"` and nothing else.
pub(super) const OPENAPI_V2: &[u8] = b"\x0a\x032.0";

fn core() -> Vec<Value> {
    let mut pods = resource("pods", "Pod", true, &["get", "list", "watch", "delete"]);
    pods["shortNames"] = json!(["po"]);
    pods["categories"] = json!(["all"]);
    let mut eviction = resource("pods/eviction", "Eviction", true, &["create"]);
    eviction["group"] = json!("policy");
    eviction["version"] = json!("v1");
    let mut config_maps =
        resource("configmaps", "ConfigMap", true, &["create", "delete", "get", "list", "patch", "update"]);
    config_maps["shortNames"] = json!(["cm"]);
    let mut nodes = resource("nodes", "Node", false, &["get", "list", "patch"]);
    nodes["shortNames"] = json!(["no"]);
    vec![
        pods,
        resource("pods/attach", "PodAttachOptions", true, &["create", "get"]),
        resource("pods/ephemeralcontainers", "Pod", true, &["get", "patch", "update"]),
        eviction,
        resource("pods/exec", "PodExecOptions", true, &["create", "get"]),
        resource("pods/log", "Pod", true, &["get"]),
        resource("pods/portforward", "PodPortForwardOptions", true, &["create", "get"]),
        config_maps,
        nodes,
        resource("namespaces", "Namespace", false, &["get"]),
        resource("events", "Event", true, &["list"]),
    ]
}

fn resource(name: &str, kind: &str, namespaced: bool, verbs: &[&str]) -> Value {
    let singular = if name.contains('/') { String::new() } else { kind.to_lowercase() };
    json!({ "name": name, "singularName": singular, "namespaced": namespaced, "kind": kind, "verbs": verbs })
}

fn resources(version: &str, resources: Vec<Value>) -> Value {
    json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources })
}

fn group(name: &str, version: &str) -> Value {
    let version = json!({ "groupVersion": format!("{name}/{version}"), "version": version });
    json!({ "name": name, "versions": [version], "preferredVersion": version })
}

/// The parameters that clients look for before they leave validation to the server.
fn patch() -> Value {
    let parameters: Vec<Value> = ["dryRun", "fieldManager", "fieldValidation", "force"]
        .iter()
        .map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string" } }))
        .collect();
    json!({
        "parameters": parameters,
        "responses": { "200": { "description": "OK" } },
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": { "group": "", "kind": "ConfigMap", "version": "v1" },
    })
}
