//! What holds for every object that was decoded, whatever it came as: it can be stored, and read again as it was.

use registry::kube::body::MAX_DEPTH;
use serde_json::{Map, Value};

/// Checks an object that was made of `length` bytes, and of at most `copied` more by what those say of one another.
pub(crate) fn check(object: &Map<String, Value>, length: usize, copied: usize) {
    let value = Value::Object(object.clone());
    assert!(depth(&value) < MAX_DEPTH, "nested {} deep", depth(&value));
    let json = serde_json::to_vec(&value).expect("what was decoded can be encoded");
    // An empty message of three bytes can be a name of thirty, a byte of text six of JSON.
    let bound = 1024 + 32 * length + copied;
    assert!(json.len() <= bound, "{length} bytes became {}", json.len());
    let again: Value = serde_json::from_slice(&json).expect("what is stored can be read again");
    assert_eq!(again, value);
}

/// How many levels of collections there are.
pub(crate) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}
