//! An object as it is stored: its key, and its JSON, which holds everything but its revision.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::resource::Resource;
use store::{Revision, Versioned};

/// Where an object is kept. Plurals are unique among all groups that are served.
pub(crate) fn key(resource: &Resource, namespace: Option<&str>, name: &str) -> String {
    format!("{}{name}", prefix(resource, namespace))
}

/// Where the objects of one namespace are kept; without one, all of the resource.
pub(crate) fn prefix(resource: &Resource, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("/{}/{namespace}/", resource.plural),
        None => format!("/{}/", resource.plural),
    }
}

/// The object with its revision. What cannot be read is no object: nobody gets rights from it, and a write replaces it.
pub(crate) fn read(stored: &Versioned<Arc<[u8]>>) -> Option<Value> {
    read_at(stored, stored.modified)
}

/// As [`read`], but with `revision`: what is deleted has that of its deletion.
pub(crate) fn read_at(stored: &Versioned<Arc<[u8]>>, revision: Revision) -> Option<Value> {
    let mut object: Value = serde_json::from_slice(&stored.value).ok()?;
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    metadata.insert("resourceVersion".to_owned(), revision.to_string().into());
    Some(object)
}

/// What is stored of an object.
pub(crate) fn write(object: &Value) -> Vec<u8> {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    object.to_string().into_bytes()
}

/// A text in the metadata; empty if there is none.
pub(crate) fn metadata<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn name(object: &Value) -> &str {
    metadata(object, "name")
}

/// As an object; made one if it is something else.
pub(crate) fn map_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            unreachable!("made an object just now")
        }
    }
}

/// The object's labels.
pub(crate) fn labels(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata")?.get("labels")?.as_object()
}
