//! The one node, which can be cordoned, and what it and its pods use.

use serde_json::{Value, json};

use super::state::{Pod, State};

/// Its name.
pub(super) const NODE: &str = "node";

/// All nodes.
pub(super) fn list(state: &State) -> Value {
    let metadata = json!({ "resourceVersion": state.revision().to_string() });
    json!({ "kind": "NodeList", "apiVersion": "v1", "metadata": metadata, "items": [object(state)] })
}

/// The node.
pub(super) fn object(state: &State) -> Value {
    let capacity = json!({ "cpu": "4", "memory": "8Gi", "pods": "110" });
    let mut node = json!({
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {
            "name": NODE,
            "uid": "uid-of-node",
            "resourceVersion": state.revision().to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {},
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    });
    if state.watch().borrow().cordoned {
        node["spec"]["unschedulable"] = json!(true);
    }
    node
}

/// Cordons it or makes it schedulable, as a patch says.
pub(super) fn patch(state: &State, patch: &Value) -> Value {
    let cordoned = patch["spec"]["unschedulable"] == json!(true);
    state.change(|cluster| cluster.cordoned = cordoned);
    object(state)
}

/// What the node uses, as `top node` asks.
pub(super) fn metrics() -> Value {
    let mut metrics = used("NodeMetrics", &json!({ "name": NODE }));
    metrics["usage"] = json!({ "cpu": "250m", "memory": "1024Mi" });
    list_of("NodeMetricsList", vec![metrics])
}

/// What the pods use, as `top pod` asks.
pub(super) fn pod_metrics(pods: &[Pod]) -> Value {
    let items = pods.iter().map(|pod| {
        let mut metrics = used("PodMetrics", &json!({ "name": pod.name, "namespace": "default" }));
        metrics["containers"] = json!([{ "name": "main", "usage": { "cpu": "5m", "memory": "16Mi" } }]);
        metrics
    });
    list_of("PodMetricsList", items.collect())
}

fn used(kind: &str, metadata: &Value) -> Value {
    json!({
        "kind": kind,
        "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": metadata,
        "timestamp": "2026-01-01T00:00:00Z",
        "window": "30s",
    })
}

fn list_of(kind: &str, items: Vec<Value>) -> Value {
    json!({ "kind": kind, "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": items })
}
