//! The patches once more, without thought for speed, to compare with.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

fn tokens(path: &str) -> Vec<String> {
    path.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~")).collect()
}

fn index(token: &str, length: usize) -> Option<usize> {
    let number: usize = token.parse().ok()?;
    (number.to_string() == token && number < length).then_some(number)
}

fn get<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    let Some((first, rest)) = path.split_first() else { return Some(value) };
    match value {
        Value::Object(fields) => get(fields.get(first)?, rest),
        Value::Array(list) => get(&list[index(first, list.len())?], rest),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// A copy of the value with what is at the path added, or taken away.
fn set(value: &Value, path: &[String], new: Option<&Value>) -> Option<Value> {
    let Some((first, rest)) = path.split_first() else { return new.cloned() };
    match value {
        Value::Object(fields) => {
            let mut fields = fields.clone();
            match new {
                _ if !rest.is_empty() => {
                    let inner = set(fields.get(first)?, rest, new)?;
                    fields.insert(first.clone(), inner);
                }
                Some(new) => drop(fields.insert(first.clone(), new.clone())),
                None => drop(fields.remove(first)?),
            }
            Some(Value::Object(fields))
        }
        Value::Array(list) => {
            let mut list = list.clone();
            match new {
                _ if !rest.is_empty() => {
                    let at = index(first, list.len())?;
                    list[at] = set(&list[at], rest, new)?;
                }
                Some(new) if first == "-" => list.push(new.clone()),
                Some(new) => list.insert(index(first, list.len() + 1)?, new.clone()),
                None => drop(list.remove(index(first, list.len())?)),
            }
            Some(Value::Array(list))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn replace(value: &Value, path: &[String], new: &Value) -> Option<Value> {
    get(value, path)?;
    match path.split_last() {
        None => Some(new.clone()),
        Some((last, parent)) => {
            let mut changed = get(value, parent)?.clone();
            match &mut changed {
                Value::Object(fields) => drop(fields.insert(last.clone(), new.clone())),
                Value::Array(list) => {
                    let at = index(last, list.len())?;
                    list[at] = new.clone();
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
            }
            replace(value, parent, &changed)
        }
    }
}

/// RFC 6902, and null for what is absent in a test.
pub(super) fn operations(object: &Value, operations: &[Value]) -> Option<Value> {
    let mut object = object.clone();
    for operation in operations {
        let path = tokens(operation["path"].as_str().unwrap());
        let from = tokens(operation["from"].as_str().unwrap());
        let value = &operation["value"];
        object = match operation["op"].as_str().unwrap() {
            "add" => set(&object, &path, Some(value))?,
            "remove" if path.is_empty() => return None,
            "remove" => set(&object, &path, None)?,
            "replace" => replace(&object, &path, value)?,
            "copy" => set(&object, &path, Some(get(&object, &from)?))?,
            "move" if from.is_empty() || path.len() > from.len() && path.starts_with(&from) => return None,
            "move" => set(&set(&object, &from, None)?, &path, Some(get(&object, &from)?))?,
            "test" => {
                let is_absent = path.split_last().is_some_and(|(last, parent)| {
                    get(&object, parent).is_some_and(|parent| parent.is_object() && parent.get(last).is_none())
                });
                let passes = get(&object, &path) == Some(value) || is_absent && value.is_null();
                passes.then_some(object)?
            }
            _ => return None,
        };
    }
    Some(object)
}

/// RFC 7386.
pub(super) fn merge(target: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let target = target.as_object().cloned().unwrap_or_default();
    let kept =
        target.iter().filter(|(name, _)| !patch.contains_key(*name)).map(|(name, value)| (name.clone(), value.clone()));
    let set = patch.iter().filter(|(_, value)| !value.is_null());
    let set = set.map(|(name, value)| (name.clone(), merge(target.get(name).unwrap_or(&Value::Null), value)));
    Value::Object(kept.chain(set).collect())
}

/// The merge key of a merged list; empty for one of strings.
fn merge_key(path: &str) -> Option<&'static str> {
    match path {
        ".metadata.finalizers" => Some(""),
        ".metadata.ownerReferences" => Some("uid"),
        ".status.conditions" => Some("type"),
        _ => None,
    }
}

fn ids(list: &Value, key: &str) -> Vec<Value> {
    list.as_array().unwrap().iter().map(|item| if key.is_empty() { item.clone() } else { item[key].clone() }).collect()
}

/// The strategic merge patch from one object to another, as kubectl would make it.
pub(super) fn difference(before: &Value, after: &Value, path: &str) -> Value {
    let empty = Map::new();
    let (before, after) = (before.as_object().unwrap_or(&empty), after.as_object().unwrap());
    let mut patch = Map::new();
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, new) in after {
        let path = format!("{path}.{name}");
        match (before.get(name), merge_key(&path)) {
            (Some(old), _) if old == new => {}
            (Some(old), Some(key)) => {
                let (old_ids, new_ids) = (ids(old, key), ids(new, key));
                let gone = old_ids.iter().filter(|id| !new_ids.contains(id));
                if key.is_empty() {
                    patch.insert(format!("$setElementOrder/{name}"), new.clone());
                    patch.insert(format!("$deleteFromPrimitiveList/{name}"), gone.cloned().collect());
                    let added = new_ids.iter().filter(|id| !old_ids.contains(id));
                    patch.insert(name.clone(), added.cloned().collect());
                } else {
                    let order = new_ids.iter().map(|id| json!({key: id})).collect();
                    patch.insert(format!("$setElementOrder/{name}"), order);
                    let changed = new.as_array().unwrap().iter().map(|item| {
                        let old = old.as_array().unwrap().iter().find(|old| old[key] == item[key]);
                        let mut change = difference(old.unwrap_or(&Value::Null), item, "");
                        change[key] = item[key].clone();
                        change
                    });
                    let deleted = gone.map(|id| json!({key: id, "$patch": "delete"}));
                    patch.insert(name.clone(), changed.chain(deleted).collect());
                }
            }
            (Some(old), None) if new.is_object() => {
                patch.insert(name.clone(), difference(old, new, &path));
            }
            _ => {
                patch.insert(name.clone(), new.clone());
            }
        }
    }
    Value::Object(patch)
}

/// The value with merged lists as maps from their ids, so that order does not count.
pub(super) fn sets(value: &Value, path: &str) -> Value {
    match (value, merge_key(path)) {
        (Value::Object(fields), _) => {
            fields.iter().map(|(name, value)| (name.clone(), sets(value, &format!("{path}.{name}")))).collect()
        }
        (Value::Array(list), Some(key)) => {
            let by_id: BTreeMap<String, Value> =
                ids(value, key).into_iter().map(|id| id.to_string()).zip(list.iter().cloned()).collect();
            json!(by_id)
        }
        _ => value.clone(),
    }
}

/// A strategic merge without directives is, on lists as maps, a plain merge.
pub(super) fn strategic(before: &Value, change: &Value, path: &str) -> Value {
    merge(&sets(before, path), &sets(change, path))
}
