//! Server-side apply as Kubernetes documents it, on a managed cluster.

mod documented;
mod hostile;
mod model;

use serde_json::{Value, json};

use super::*;

/// The parts of a managed cluster, and some of what else a schema may say.
fn schema() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "properties": {
            "apiVersion": text, "kind": text, "metadata": {"type": "object"},
            "spec": {
                "type": "object",
                "properties": {
                    "hubAcceptsClient": {"type": "boolean"},
                    "leaseDurationSeconds": {"type": "integer"},
                    "zones": {"type": "array", "x-kubernetes-list-type": "set", "items": text},
                    "managedClusterClientConfigs": {"type": "array", "items": {"type": "object"}},
                    "selector": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": text}},
                    "extra": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "taints": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["key", "effect"],
                        "items": {
                            "type": "object",
                            "properties": {
                                "key": text, "value": text, "effect": {"type": "string", "default": "NoSelect"}
                            }
                        }
                    }
                }
            },
            "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}}
        }
    })
}

const VERSION: &str = "cluster.open-cluster-management.io/v1";

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// An object and who writes to it; time goes on by a second with each request.
struct Stored {
    schema: Value,
    object: Option<Value>,
    clock: i64,
}

impl Stored {
    fn new() -> Self {
        Self { schema: schema(), object: None, clock: 0 }
    }

    fn write<'a>(&'a self, manager: &'a str, subresource: Option<&'a str>) -> Write<'a> {
        let now = second(self.clock);
        Write { schema: &self.schema, status_subresource: true, manager, subresource, api_version: VERSION, now }
    }

    fn try_apply_to(
        &mut self,
        subresource: Option<&str>,
        manager: &str,
        body: Value,
        force: bool,
    ) -> Result<(), ApplyError> {
        self.clock += 1;
        let patch = cluster(body);
        self.object = Some(apply(&self.write(manager, subresource), self.object.as_ref(), &patch, force)?);
        Ok(())
    }

    fn try_apply(&mut self, manager: &str, body: Value, force: bool) -> Result<(), ApplyError> {
        self.try_apply_to(None, manager, body, force)
    }

    fn apply(&mut self, manager: &str, body: Value) {
        self.try_apply(manager, body, false).unwrap();
    }

    fn conflict(&mut self, manager: &str, body: Value) -> String {
        self.try_apply(manager, body, false).unwrap_err().to_string()
    }

    /// Replaces all but the metadata; `managedFields` are sent back as they were read.
    fn update(&mut self, manager: &str, body: Value) {
        let mut after = cluster(body);
        if let Some(managed) = self.object.as_ref().and_then(|object| object.pointer("/metadata/managedFields")) {
            after["metadata"]["managedFields"] = managed.clone();
        }
        self.put(None, manager, after);
    }

    fn put(&mut self, subresource: Option<&str>, manager: &str, mut after: Value) {
        self.clock += 1;
        record_update(&self.write(manager, subresource), self.object.as_ref(), &mut after);
        self.object = Some(after);
    }

    fn object(&self) -> &Value {
        self.object.as_ref().unwrap()
    }

    fn spec(&self) -> &Value {
        &self.object()["spec"]
    }

    /// `manager operation` or `manager operation subresource`, and what it owns.
    fn owners(&self) -> Vec<(String, Value)> {
        let entries = self.object().pointer("/metadata/managedFields").and_then(Value::as_array);
        let word = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let owner = |entry: &Value| {
            let who = format!("{} {} {}", word(entry, "manager"), word(entry, "operation"), word(entry, "subresource"));
            (who.trim_end().to_owned(), entry["fieldsV1"].clone())
        };
        entries.into_iter().flatten().map(owner).collect()
    }

    fn owned(&self, who: &str) -> Option<Value> {
        self.owners().into_iter().find(|(name, _)| name == who).map(|(_, fields)| fields)
    }

    fn time(&self, manager: &str) -> Value {
        let entries = self.object()["metadata"]["managedFields"].as_array().unwrap();
        entries.iter().find(|entry| entry["manager"] == manager).unwrap()["time"].clone()
    }
}

/// A cluster with these fields, those of `metadata` added to its name.
fn cluster(mut body: Value) -> Value {
    body["apiVersion"] = json!(VERSION);
    body["kind"] = json!("ManagedCluster");
    body["metadata"]["name"] = json!("c1");
    body
}
