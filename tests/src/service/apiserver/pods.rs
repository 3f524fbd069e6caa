//! Pods as objects and as rows to print.

use serde_json::{Value, json};

use super::state::Pod;

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

fn object(pod: &Pod) -> Value {
    json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": metadata(pod),
        "spec": { "containers": [{ "name": "main", "image": "main", "resources": {} }], "nodeName": "node" },
        "status": {
            "phase": "Running",
            "containerStatuses": [{
                "name": "main",
                "ready": true,
                "restartCount": 0,
                "image": "main",
                "imageID": "main",
                "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } },
            }],
        },
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
