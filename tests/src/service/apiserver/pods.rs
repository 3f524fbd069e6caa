//! Pods as objects and as rows to print.

use serde_json::{Value, json};

use super::nodes::NODE;
use super::query::Query;
use super::state::Pod;

/// Which pods a field selector means: its terms that are known here.
#[derive(Debug, Clone, Default)]
pub(super) struct Selector {
    name: Option<String>,
    node: Option<String>,
}

impl Selector {
    pub(super) fn parse(query: &Query) -> Self {
        let terms: Vec<&str> = query.get("fieldSelector").unwrap_or_default().split(',').collect();
        let term = |name: &str| terms.iter().find_map(|term| term.strip_prefix(name)).map(str::to_owned);
        Self { name: term("metadata.name="), node: term("spec.nodeName=") }
    }

    pub(super) fn takes(&self, pod: &Pod) -> bool {
        self.name.as_ref().is_none_or(|name| *name == pod.name) && self.node.as_ref().is_none_or(|node| node == NODE)
    }
}

/// A list of pods.
pub(super) fn list(pods: &[Pod], revision: u64, table: bool) -> Value {
    if table {
        return as_table(pods, revision);
    }
    let items: Vec<Value> = pods.iter().map(object).collect();
    json!({
        "kind": "PodList",
        "apiVersion": "v1",
        "metadata": { "resourceVersion": revision.to_string() },
        "items": items,
    })
}

/// A single pod.
pub(super) fn one(pod: &Pod, revision: u64, table: bool) -> Value {
    if table { as_table(std::slice::from_ref(pod), revision) } else { object(pod) }
}

/// The ephemeral containers of a pod after a patch of them.
pub(super) fn with_ephemeral(pod: &Pod, patch: &Value) -> Vec<Value> {
    let mut containers = pod.ephemeral.clone();
    for added in patch["spec"]["ephemeralContainers"].as_array().into_iter().flatten() {
        containers.retain(|container| container["name"] != added["name"]);
        containers.push(added.clone());
    }
    containers
}

/// The command of a pod's ephemeral container.
pub(super) fn ephemeral_command(pod: &Pod, container: &str) -> Option<Vec<String>> {
    let container = pod.ephemeral.iter().find(|found| found["name"] == container)?;
    let words = ["command", "args"].into_iter().filter_map(|name| container[name].as_array()).flatten();
    Some(words.filter_map(|word| word.as_str().map(str::to_owned)).collect())
}

fn as_table(pods: &[Pod], revision: u64) -> Value {
    let column = |name: &str, format: &str| json!({ "name": name, "type": "string", "format": format, "description": name, "priority": 0 });
    let rows = pods.iter().map(|pod| {
        json!({
            "cells": [pod.name, "1/1", "Running", "0", "1m"],
            "object": { "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata(pod) },
        })
    });
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": { "resourceVersion": revision.to_string() },
        "columnDefinitions": [
            column("Name", "name"), column("Ready", ""), column("Status", ""), column("Restarts", ""), column("Age", ""),
        ],
        "rows": rows.collect::<Vec<_>>(),
    })
}

pub(super) fn object(pod: &Pod) -> Value {
    let ports: Vec<Value> = pod.ports.keys().map(|port| json!({ "containerPort": port, "protocol": "TCP" })).collect();
    let ephemeral: Vec<Value> = pod.ephemeral.iter().map(|container| running(&container["name"])).collect();
    json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": metadata(pod),
        "spec": {
            "containers": [{ "name": "main", "image": "main", "resources": {}, "stdin": true, "ports": ports }],
            "ephemeralContainers": pod.ephemeral,
            "nodeName": NODE,
            // Clients take it for granted.
            "securityContext": {},
        },
        "status": {
            "phase": "Running",
            "podIP": "127.0.0.1",
            "conditions": [{ "type": "Ready", "status": "True" }],
            "containerStatuses": [running(&json!("main"))],
            "ephemeralContainerStatuses": ephemeral,
        },
    })
}

fn running(container: &Value) -> Value {
    json!({
        "name": container,
        "ready": true,
        "restartCount": 0,
        "image": "main",
        "imageID": "main",
        "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } },
    })
}

fn metadata(pod: &Pod) -> Value {
    json!({
        "name": pod.name,
        "namespace": "default",
        "uid": format!("uid-of-{}", pod.name),
        "resourceVersion": pod.revision.to_string(),
        "creationTimestamp": "2026-01-01T00:00:00Z",
    })
}
