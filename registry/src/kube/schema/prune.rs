//! Pruning: taking out of an object what its schema does not know.

use serde_json::Value;

use super::{Node, Path};

pub(super) fn prune(root: &Node, object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(root, object, &mut Path::default(), &mut unknown);
    unknown
}

fn walk(node: &Node, value: &mut Value, path: &mut Path, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.retain(|name, value| match node.field(name) {
            Some(inner) => {
                path.in_field(name, |path| walk(inner, value, path, unknown));
                true
            }
            // A value of the wrong type has no fields to know; validation will say so.
            None if node.preserve_unknown || node.kind != Some(super::Kind::Object) => true,
            None => {
                path.in_field(name, |path| unknown.push(path.0.clone()));
                false
            }
        }),
        Value::Array(items) => {
            let Some(inner) = &node.items else { return };
            for (index, item) in items.iter_mut().enumerate() {
                path.in_item(index, |path| walk(inner, item, path, unknown));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
