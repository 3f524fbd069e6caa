//! JSON patch, RFC 6902, within bounds of work and depth.

use json_patch::jsonptr::Pointer;
use json_patch::{PatchOperation, TestOperation, patch_unsafe};
use serde::Deserialize as _;
use serde_json::Value;

use super::PatchError;
use crate::kube::body::{Duplicates, MAX_BODY, MAX_DEPTH, decode_json};

/// Most operations of one patch, as in kube-apiserver.
pub(super) const MAX: usize = 10_000;

/// What copies and moves may carry in sum, in about bytes of JSON. kube-apiserver bounds copies alike: a few operations
/// that copy an object into itself would otherwise become gigabytes.
const MAX_CARRIED: usize = MAX_BODY;

pub(super) fn decode(body: &[u8]) -> Result<(Vec<Value>, Duplicates), PatchError> {
    let malformed = |error: &str| PatchError::Malformed(format!("error decoding patch: {error}"));
    let (value, duplicates) = decode_json(body).map_err(|error| malformed(&error))?;
    let Value::Array(operations) = value else {
        return Err(malformed("json: the value is not a list of operations"));
    };
    let is_operation = |operation: &Value| {
        let is_text = |name: &str| operation.get(name).is_none_or(|value| value.is_string() || value.is_null());
        operation.is_object() && is_text("op") && is_text("path") && is_text("from")
    };
    if let Some(index) = operations.iter().position(|operation| !is_operation(operation)) {
        return Err(malformed(&format!("json: [{index}] is not an operation")));
    }
    if operations.len() > MAX {
        return Err(PatchError::TooManyOperations { found: operations.len() });
    }
    Ok((operations, duplicates))
}

/// Applies the operations one after the other. After an error the object is not to be used.
pub(super) fn apply(operations: &[Value], object: &mut Value) -> Result<(), PatchError> {
    let mut carried = 0;
    for (index, operation) in operations.iter().enumerate() {
        let rejected = |why: &str| PatchError::rejected(format!("operation {index}: {why}"));
        let operation = PatchOperation::deserialize(operation).map_err(|error| rejected(&error.to_string()))?;
        match &operation {
            PatchOperation::Test(test) if is_absent_as_expected(test, object) => continue,
            PatchOperation::Add(add) => check_depth(&add.path, &add.value, &mut 0),
            PatchOperation::Replace(replace) => check_depth(&replace.path, &replace.value, &mut 0),
            PatchOperation::Copy(copy) => carry(&copy.from, &copy.path, object, &mut carried),
            PatchOperation::Move(mov) => carry(&mov.from, &mov.path, object, &mut carried),
            PatchOperation::Remove(_) | PatchOperation::Test(_) => Ok(()),
        }
        .map_err(rejected)?;
        patch_unsafe(object, &[operation]).map_err(|error| rejected(&format!("{}: {}", error.path, error.kind)))?;
    }
    Ok(())
}

/// As in Kubernetes, a field that is not there passes a test for null: so clients ask before they add it.
fn is_absent_as_expected(test: &TestOperation, object: &Value) -> bool {
    let Some((parent, name)) = test.path.split_back().filter(|_| test.value.is_null()) else { return false };
    let parent = object.pointer(parent.as_str()).and_then(Value::as_object);
    parent.is_some_and(|parent| !parent.contains_key(name.decoded().as_ref()))
}

/// Checks what a copy or a move carries. Nothing there is the operation's own error.
fn carry(from: &Pointer, to: &Pointer, object: &Value, carried: &mut usize) -> Result<(), &'static str> {
    object.pointer(from.as_str()).map_or(Ok(()), |value| check_depth(to, value, carried))
}

fn check_depth(to: &Pointer, value: &Value, carried: &mut usize) -> Result<(), &'static str> {
    check(value, (MAX_DEPTH - 1).saturating_sub(to.count()), carried)
}

/// Checks that the value nests no deeper than `depth`, which bounds the recursion, and leaves `carried` below its bound.
fn check(value: &Value, depth: usize, carried: &mut usize) -> Result<(), &'static str> {
    *carried += match value {
        Value::String(text) => text.len() + 2,
        Value::Object(fields) => fields.keys().map(|name| name.len() + 4).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => 2,
    };
    if *carried > MAX_CARRIED {
        return Err("copies and moves carry too much");
    }
    let inner = || depth.checked_sub(1).ok_or("the object would be nested too deep");
    match value {
        Value::Array(list) => {
            let inner = inner()?;
            list.iter().try_for_each(|item| check(item, inner, carried))
        }
        Value::Object(fields) => {
            let inner = inner()?;
            fields.values().try_for_each(|value| check(value, inner, carried))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}
