//! ConfigMaps, which clients create, read, apply and delete.

use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::answer::{self, Body};
use super::state::State;

/// Answers a request for all of them or for one by its name.
pub(super) fn answer(state: &State, method: &Method, name: Option<&str>, body: &[u8]) -> Response<Body> {
    let all = state.watch().borrow().config_maps.clone();
    let Some(name) = name else {
        return match (method, parse(body)) {
            (&Method::GET, _) => {
                let items: Vec<Value> = all.into_values().collect();
                let metadata = json!({ "resourceVersion": state.revision().to_string() });
                answer::json(
                    &json!({ "kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": items }),
                )
            }
            (&Method::POST, Some(map)) => create(state, map),
            _ => not_json(),
        };
    };
    match (method, all.get(name), parse(body)) {
        (&Method::GET, Some(found), _) => answer::json(found),
        (&Method::DELETE, Some(_), _) => {
            state.change(|cluster| drop(cluster.config_maps.remove(name)));
            answer::json(&json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" }))
        }
        (&Method::PUT, Some(_), Some(map)) => answer::json(&store(state, name, map)),
        (&Method::PATCH, Some(found), Some(patch)) => {
            // Of a ConfigMap, whose lists no test changes, all kinds of patches are merges.
            let mut merged = found.clone();
            merge(&mut merged, patch);
            answer::json(&store(state, name, merged))
        }
        // Server-side apply creates.
        (&Method::PATCH, None, Some(map)) if map["kind"] == "ConfigMap" => create(state, map),
        (&Method::PATCH | &Method::PUT, Some(_), None) => not_json(),
        _ => {
            let message = format!("configmaps \"{name}\" not found");
            answer::failure(StatusCode::NOT_FOUND, "NotFound", &message)
        }
    }
}

fn create(state: &State, map: Value) -> Response<Body> {
    let name = map["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    answer::created(&store(state, &name, map))
}

fn store(state: &State, name: &str, mut map: Value) -> Value {
    state.change(|cluster| {
        let metadata = &mut map["metadata"];
        metadata["namespace"] = json!("default");
        metadata["uid"] = json!(format!("uid-of-configmap-{name}"));
        metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        metadata["resourceVersion"] = json!(cluster.revision().to_string());
        cluster.config_maps.insert(name.to_owned(), map.clone());
    });
    map
}

fn parse(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok().filter(Value::is_object)
}

fn not_json() -> Response<Body> {
    answer::failure(StatusCode::BAD_REQUEST, "BadRequest", "send a JSON object")
}

/// JSON merge patch, RFC 7386.
pub(super) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in patch {
        match value {
            Value::Null => {
                if let Some(target) = target.as_object_mut() {
                    target.remove(&name);
                }
            }
            value => merge(&mut target[name], value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_removes_and_objects_are_merged() {
        let mut target = json!({ "data": { "a": "1", "b": "2" }, "kind": "ConfigMap" });
        merge(&mut target, json!({ "data": { "a": null, "c": "3" } }));
        assert_eq!(target, json!({ "data": { "b": "2", "c": "3" }, "kind": "ConfigMap" }));
    }
}
