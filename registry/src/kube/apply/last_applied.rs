//! kubectl's change from client-side to server-side apply: the annotation in which the former keeps its configuration.

use serde_json::Value;

use super::compare::{Comparison, fields_of};
use super::field_set::FieldSet;
use super::schema::Schema;

/// The manager under which kubectl applies; any other opts out.
pub(super) const KUBECTL: &str = "kubectl";

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Most bytes that the names and values of all annotations of an object may have together, as Kubernetes validates.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// The fields that client-side apply set and nobody has changed since: kubectl may take them without a conflict.
pub(super) fn unchanged_fields(schema: Schema<'_>, live: &Value, api_version: &str) -> FieldSet {
    let last: Option<Value> = annotation(live).and_then(|text| serde_json::from_str(text).ok());
    let Some(last) = last.filter(|last| last.get("apiVersion").and_then(Value::as_str) == Some(api_version)) else {
        return FieldSet::default();
    };
    let changes = Comparison::of(schema, &last, live);
    fields_of(schema, &last).difference(&changes.set()).difference(&changes.removed)
}

/// Keeps the annotation, where there is one, equal to the configuration just applied, so that going back is safe.
pub(super) fn refresh(object: &mut Value, patch: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let mut patch = patch.clone();
    if let Some(annotations) = annotations_mut(&mut patch) {
        annotations.remove(ANNOTATION);
    }
    if let Some(annotations) = annotations_mut(object) {
        annotations.insert(ANNOTATION.to_owned(), Value::from(format!("{patch}\n")));
        let size: usize = annotations.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
        if size > MAX_ANNOTATIONS {
            annotations.remove(ANNOTATION);
        }
    }
}

fn annotation(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(ANNOTATION)?.as_str().filter(|text| !text.is_empty())
}

fn annotations_mut(object: &mut Value) -> Option<&mut serde_json::Map<String, Value>> {
    object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()
}
