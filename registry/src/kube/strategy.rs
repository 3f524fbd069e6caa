//! What a write makes of an object: fields that clients do not decide, generation, and the end of what is being deleted.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{object, resource::Resource, status::Status};
use crate::condition;

/// What becomes of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// Nothing that counts has changed: a write would make watchers look for nothing.
    Same,
    Put(Value),
    /// The last finalizer of what was being deleted has gone.
    Gone(Value),
}

/// Metadata that the server alone writes.
const OURS: [&str; 6] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"];

/// A new object from what a client sent.
pub(crate) fn prepare_for_create(resource: &Resource, object: &mut Value, uid: String, now: Timestamp) {
    if resource.has_status() {
        remove(object, "status");
    }
    let metadata = metadata_mut(object);
    for field in OURS {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), uid.into());
    metadata.insert("creationTimestamp".to_owned(), seconds(now).into());
    if resource.has_generation() {
        metadata.insert("generation".to_owned(), 1.into());
    }
}

/// `sent` with everything that this request may not change as it was before. `subresource` is `None` for the object itself.
pub(crate) fn prepare_for_update(resource: &Resource, subresource: Option<&str>, before: &Value, sent: Value) -> Value {
    let mut after = match subresource {
        None => sent,
        Some(_) => {
            let mut after = before.clone();
            match sent.get("status") {
                Some(status) => after["status"] = status.clone(),
                None => remove(&mut after, "status"),
            }
            keep_agents(resource, before, &mut after);
            if let Some(fields) = sent.get("metadata").and_then(|metadata| metadata.get("managedFields")) {
                metadata_mut(&mut after).insert("managedFields".to_owned(), fields.clone());
            }
            return after;
        }
    };
    if resource.has_status() {
        match before.get("status") {
            Some(status) => after["status"] = status.clone(),
            None => remove(&mut after, "status"),
        }
    }
    let old = before.get("metadata").and_then(Value::as_object);
    let metadata = metadata_mut(&mut after);
    for field in OURS.into_iter().chain(["name", "namespace", "generateName"]) {
        match old.and_then(|old| old.get(field)) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    after
}

/// Which agents a cluster has, with which keys, is decided by joins alone, and whether it has a tunnel by the tunnel.
fn keep_agents(resource: &Resource, before: &Value, after: &mut Value) {
    if resource.plural != "managedclusters" {
        return;
    }
    let ours = before.get("status").and_then(Value::as_object);
    let status = object::map_mut(object::map_mut(after).entry("status").or_insert(Value::Null));
    for field in ["agents", "lastSeen"] {
        match ours.and_then(|ours| ours.get(field)) {
            Some(value) => status.insert(field.to_owned(), value.clone()),
            None => status.remove(field),
        };
    }
    let ours = ours.and_then(|ours| ours.get("conditions"));
    let sent = status.get("conditions").and_then(Value::as_array).cloned();
    let conditions = kept_conditions(ours.and_then(Value::as_array), sent.unwrap_or_default());
    if ours.is_some() || !conditions.is_empty() {
        status.insert("conditions".to_owned(), conditions.into());
    } else {
        status.remove("conditions");
    }
}

/// The conditions that were sent, with the hub's own as they were.
fn kept_conditions(before: Option<&Vec<Value>>, sent: Vec<Value>) -> Vec<Value> {
    let kind = |one: &Value| one["type"].as_str().unwrap_or_default().to_owned();
    let is_ours = |one: &Value| condition::OF_CLUSTERS.contains(&kind(one).as_str());
    let mut ours: Vec<Value> = before.into_iter().flatten().filter(|one| is_ours(one)).cloned().collect();
    let mut kept = Vec::new();
    for one in sent {
        if !is_ours(&one) {
            kept.push(one);
        } else if let Some(at) = ours.iter().position(|own| kind(own) == kind(&one)) {
            kept.push(ours.remove(at));
        }
    }
    ours.extend(kept);
    ours
}

/// Metadata that says nothing is left out, as Kubernetes does: `annotations: {}` is no difference.
pub(crate) fn drop_empty(object: &mut Value) {
    let metadata = metadata_mut(object);
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let says_nothing = match metadata.get(field) {
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(value) => value.is_null(),
            None => false,
        };
        if says_nothing {
            metadata.remove(field);
        }
    }
}

/// Whether, and how, `after` is stored in the place of `before`.
pub(crate) fn finish_update(resource: &Resource, before: &Value, mut after: Value) -> Outcome {
    if is_same(before, &after) {
        return Outcome::Same;
    }
    if resource.has_generation() && spec_of(before) != spec_of(&after) {
        let generation = before["metadata"]["generation"].as_u64().unwrap_or_default() + 1;
        metadata_mut(&mut after).insert("generation".to_owned(), generation.into());
    }
    if is_deleted(&after) && waits_for_nobody(&after) {
        return Outcome::Gone(after);
    }
    Outcome::Put(after)
}

/// What a deletion makes of an object.
pub(crate) fn delete(resource: &Resource, before: &Value, foreground: bool, now: Timestamp) -> Outcome {
    let mut after = before.clone();
    if foreground && !finalizers(&after).contains(&FOREGROUND) {
        let mut all: Vec<Value> = finalizers(&after).into_iter().map(Value::from).collect();
        all.push(FOREGROUND.into());
        metadata_mut(&mut after).insert("finalizers".to_owned(), all.into());
    }
    if waits_for_nobody(&after) {
        return Outcome::Gone(before.clone());
    }
    if is_deleted(before) {
        return if after == *before { Outcome::Same } else { Outcome::Put(after) };
    }
    let metadata = metadata_mut(&mut after);
    metadata.insert("deletionTimestamp".to_owned(), seconds(now).into());
    metadata.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
    if let Some(generation) = metadata.get("generation").and_then(Value::as_u64).filter(|_| resource.has_generation()) {
        metadata.insert("generation".to_owned(), (generation + 1).into());
    }
    Outcome::Put(after)
}

/// What a client asks for that contradicts what is stored.
pub(crate) fn check(resource: &Resource, name: &str, before: &Value, sent: &Value) -> Result<(), Status> {
    let sent_metadata = |field| object::metadata(sent, field);
    let version = sent_metadata("resourceVersion");
    if !version.is_empty() && version != object::metadata(before, "resourceVersion") {
        return Err(Status::modified(resource, name));
    }
    let uid = sent_metadata("uid");
    let old = object::metadata(before, "uid");
    if !uid.is_empty() && uid != old {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {old}");
        return Err(Status::conflict(resource, name, &why));
    }
    Ok(())
}

/// Kubernetes' finalizer for a deletion that waits for dependents.
const FOREGROUND: &str = "foregroundDeletion";

/// Whether it is being deleted.
pub(crate) fn is_deleted(object: &Value) -> bool {
    !object::metadata(object, "deletionTimestamp").is_empty()
}

/// Whether no finalizer is left but Kubernetes' own: nothing here is owned by anything, so there are no dependents.
fn waits_for_nobody(object: &Value) -> bool {
    finalizers(object).iter().all(|finalizer| *finalizer == FOREGROUND)
}

pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    let finalizers = object.get("metadata").and_then(|metadata| metadata.get("finalizers")).and_then(Value::as_array);
    finalizers.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// A name for `generateName`, with the letters of which Kubernetes makes no words (k8s.io/apiserver, storage/names).
pub(crate) fn drawn_name(prefix: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const DRAWN: usize = 5;
    const LONGEST: usize = 63 - DRAWN;
    let end = prefix.char_indices().nth(LONGEST).map_or(prefix.len(), |(end, _)| end);
    let letter = |_| char::from(LETTERS[rand::random_range(0..LETTERS.len())]);
    format!("{}{}", &prefix[..end], (0..DRAWN).map(letter).collect::<String>())
}

/// As Kubernetes writes a time.
pub(crate) fn seconds(time: Timestamp) -> String {
    crate::cluster::whole_second(time).to_string()
}

/// Who owned what since when is no change by itself.
fn is_same(before: &Value, after: &Value) -> bool {
    let without = |object: &Value| {
        let mut object = object.clone();
        let metadata = metadata_mut(&mut object);
        metadata.remove("resourceVersion");
        for entry in metadata.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
            remove(entry, "time");
        }
        object
    };
    without(before) == without(after)
}

/// Everything whose change is a new generation: all but metadata and status.
fn spec_of(object: &Value) -> Vec<(&String, &Value)> {
    let fields = object.as_object().into_iter().flatten();
    fields.filter(|(field, _)| !matches!(field.as_str(), "metadata" | "status" | "apiVersion" | "kind")).collect()
}

/// The metadata; made if it is missing, and empty if it is none.
pub(crate) fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    object::map_mut(object::map_mut(object).entry("metadata").or_insert(Value::Null))
}

fn remove(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_that_says_nothing_is_left_out() {
        let mut object = json!({"metadata": {
            "name": "a", "labels": {}, "annotations": null, "finalizers": [], "ownerReferences": [{}],
        }});
        drop_empty(&mut object);
        assert_eq!(object, json!({"metadata": {"name": "a", "ownerReferences": [{}]}}));
    }
}
