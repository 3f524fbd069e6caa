//! Defaulting: filling in what an object leaves out.

use serde_json::Value;

use super::Node;

pub(super) fn set_defaults(node: &Node, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| !value.is_null() || node.field(name).is_none_or(|inner| inner.nullable));
            for (name, inner) in &node.properties {
                if let Some(default) = &inner.default
                    && !fields.contains_key(name)
                {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields {
                if let Some(inner) = node.field(name) {
                    set_defaults(inner, value);
                }
            }
        }
        Value::Array(items) => {
            let Some(inner) = &node.items else { return };
            items.iter_mut().for_each(|item| set_defaults(inner, item));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
