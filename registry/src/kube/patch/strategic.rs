//! Strategic merge patch: a merge patch that also merges certain lists, and has directives, keys that begin with `$`.

use std::collections::{HashMap, HashSet};
use std::mem;

use serde_json::{Map, Value};

use super::PatchError;
use super::order::{self, Positions, identity};

/// Which fields of an object are, or contain, lists that are merged. All other lists are replaced as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schema(&'static [(&'static str, Node)]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Object(Schema),
    /// Of strings, or of objects which this field tells apart.
    List(Option<&'static str>),
}

const METADATA: (&str, Node) = (
    "metadata",
    Node::Object(Schema(&[("finalizers", Node::List(None)), ("ownerReferences", Node::List(Some("uid")))])),
);
const CONDITIONS: (&str, Node) = ("status", Node::Object(Schema(&[("conditions", Node::List(Some("type")))])));

impl Schema {
    /// Of a built-in kind that we serve. Where Kubernetes' types name no strategy, as for the rules and subjects of
    /// RBAC and the conditions of a CertificateSigningRequest, a list is replaced.
    pub(super) fn of(kind: &str) -> Self {
        Self(if kind == "Namespace" { &[METADATA, CONDITIONS] } else { &[METADATA] })
    }

    fn field(self, name: &str) -> Option<Node> {
        self.0.iter().find(|(field, _)| *field == name).map(|(_, node)| *node)
    }
}

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder";
const DELETE: &str = "$deleteFromPrimitiveList";

fn malformed(message: impl Into<String>) -> PatchError {
    PatchError::Malformed(message.into())
}

/// Merges the patch into the target. The depth of the patch bounds the recursion.
pub(super) fn merge(
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    schema: Schema,
) -> Result<(), PatchError> {
    match patch.get(DIRECTIVE).map(Value::as_str) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => target.clear(),
        Some(Some("delete")) => {
            target.clear();
            return Ok(());
        }
        Some(_) => return Err(unknown_directive(&patch[DIRECTIVE])),
    }
    retain(target, patch)?;
    for (name, value) in patch.iter().filter(|(name, _)| !is_directive(name)) {
        match (target.get_mut(name), schema.field(name), value) {
            (_, _, Value::Null) => {
                target.remove(name);
            }
            (Some(Value::Object(target)), node, Value::Object(patch)) => merge(target, patch, inside(node))?,
            (Some(Value::Array(live)), Some(Node::List(key)), Value::Array(patch_list)) => {
                let wanted = order_of(patch, name)?;
                *live = merge_lists(mem::take(live), patch_list, wanted, key)?;
            }
            (_, node, value) => {
                let wanted = order_of(patch, name)?;
                target.insert(name.clone(), new_value(value, node, wanted)?);
            }
        }
    }
    for (name, value) in patch {
        if name.starts_with(ORDER) {
            let list = name.strip_prefix(ORDER).and_then(|name| name.strip_prefix('/'));
            let list = list.ok_or_else(|| malformed("invalid patch format of setElementOrder list"))?;
            let wanted = order_of(patch, list)?;
            // Together with a list of the patch it has been heeded already.
            if let (None, Some(Value::Array(live)), Some(Node::List(key))) =
                (patch.get(list), target.get_mut(list), schema.field(list))
            {
                *live = merge_lists(mem::take(live), &[], wanted, key)?;
            }
        } else if name.starts_with(DELETE) {
            let list = name.strip_prefix(DELETE).and_then(|name| name.strip_prefix('/'));
            let (Some(list), Value::Array(unwanted)) = (list, value) else {
                return Err(malformed("invalid patch format of primitive list"));
            };
            let unwanted: HashSet<String> = unwanted.iter().map(Value::to_string).collect();
            if let Some(Value::Array(live)) = target.get_mut(list) {
                live.retain(|item| !unwanted.contains(&item.to_string()));
            }
        }
    }
    Ok(())
}

fn is_directive(name: &str) -> bool {
    name == DIRECTIVE || name == RETAIN || name.starts_with(ORDER) || name.starts_with(DELETE)
}

fn inside(node: Option<Node>) -> Schema {
    match node {
        Some(Node::Object(schema)) => schema,
        Some(Node::List(_)) | None => Schema(&[]),
    }
}

/// Heeds `$retainKeys`: all else goes, and the patch may set nothing else.
fn retain(target: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), PatchError> {
    let Some(retained) = patch.get(RETAIN) else { return Ok(()) };
    let invalid = || malformed("invalid patch format of retainKeys");
    let retained: HashSet<&str> = retained.as_array().ok_or_else(invalid)?.iter().filter_map(Value::as_str).collect();
    let mut set = patch.iter().filter(|(name, value)| !value.is_null() && !is_directive(name));
    if !set.all(|(name, _)| retained.contains(name.as_str())) {
        return Err(invalid());
    }
    target.retain(|name, _| retained.contains(name.as_str()));
    Ok(())
}

/// What `$setElementOrder` says of a list.
fn order_of<'a>(patch: &'a Map<String, Value>, list: &str) -> Result<Option<&'a [Value]>, PatchError> {
    match patch.get(&format!("{ORDER}/{list}")) {
        None => Ok(None),
        Some(Value::Array(order)) => Ok(Some(order)),
        Some(other) => Err(wrong_type("[]interface {}", other)),
    }
}

/// A value of the patch for a field that the target has not, or has of another type: without directives and nulls.
fn new_value(value: &Value, node: Option<Node>, wanted: Option<&[Value]>) -> Result<Value, PatchError> {
    match (value, node) {
        (Value::Object(patch), node) => {
            let mut object = Map::new();
            merge(&mut object, patch, inside(node))?;
            Ok(Value::Object(object))
        }
        (Value::Array(patch), Some(Node::List(key))) => merge_lists(Vec::new(), patch, wanted, key).map(Value::Array),
        (Value::Array(patch), _) => {
            let items = patch.iter().filter(|item| item.get(DIRECTIVE).is_none());
            items.map(|item| new_value(item, None, None)).collect::<Result<_, _>>().map(Value::Array)
        }
        (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_), _) => Ok(value.clone()),
    }
}

fn merge_lists(
    live: Vec<Value>,
    patch: &[Value],
    wanted: Option<&[Value]>,
    key: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    check_items(&live, patch, key)?;
    let lived = Positions::new(&live, key);
    let plain: Vec<&Value> = patch.iter().filter(|item| item.get(DIRECTIVE).is_none()).collect();
    if let Some(wanted) = wanted {
        check_order(&plain, wanted, key)?;
    }
    let merged = match key {
        None => {
            let mut seen = HashSet::new();
            live.into_iter().chain(patch.iter().cloned()).filter(|item| seen.insert(item.to_string())).collect()
        }
        Some(key) => merge_objects(live, patch, key)?,
    };
    let wanted = match wanted {
        Some(wanted) => Positions::new(wanted, key),
        None => Positions::new(plain, key),
    };
    Ok(order::arrange(merged, &wanted, &lived))
}

/// The items must be of one type: objects with the key, or scalars where there is none.
fn check_items(live: &[Value], patch: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    let mut items = live.iter().chain(patch);
    let Some(first) = items.clone().next() else { return Ok(()) };
    if items.any(Value::is_array) {
        return Err(PatchError::rejected("lists of lists are not supported"));
    }
    for item in live.iter().chain(patch) {
        if mem::discriminant(item) != mem::discriminant(first) {
            return Err(malformed("list element types are not identical"));
        }
        match key {
            Some(_) if !item.is_object() => return Err(wrong_type("map[string]interface {}", item)),
            None if item.is_object() => return Err(malformed("cannot merge lists without merge key for type map")),
            Some(_) | None => {}
        }
    }
    Ok(())
}

/// The items of the patch must come in the order that the patch wants, and be among it.
fn check_order(plain: &[&Value], wanted: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    let mut order = Vec::with_capacity(wanted.len());
    for item in wanted {
        order.push(identity(item, key).ok_or_else(|| no_key(item, key.unwrap_or_default()))?);
    }
    let mut rest = order.iter();
    let is_ordered = plain.iter().all(|item| match identity(item, key) {
        Some(identity) => rest.any(|wanted| *wanted == identity),
        None => true,
    });
    if is_ordered || wanted.is_empty() {
        Ok(())
    } else {
        Err(malformed(format!("The order in patch list doesn't match {ORDER} list")))
    }
}

/// Merges each object of the patch into the live one with the same key.
fn merge_objects(live: Vec<Value>, patch: &[Value], key: &str) -> Result<Vec<Value>, PatchError> {
    let identity = |item: &Value| identity(item, Some(key)).ok_or_else(|| no_key(item, key));
    let mut unwanted = HashSet::new();
    let mut is_replaced = false;
    for item in patch {
        match item.get(DIRECTIVE).map(Value::as_str) {
            None => {}
            Some(Some("delete")) => {
                unwanted.insert(identity(item)?);
            }
            Some(Some("replace")) => is_replaced = true,
            Some(Some("merge")) => return Err(malformed("merging lists cannot yet be specified in the patch")),
            Some(_) => return Err(unknown_directive(&item[DIRECTIVE])),
        }
    }
    let mut merged = Vec::new();
    let mut places = HashMap::new();
    for item in live {
        let identity = identity(&item)?;
        if !is_replaced && !unwanted.contains(&identity) {
            places.entry(identity).or_insert(merged.len());
            merged.push(item);
        }
    }
    for item in patch {
        let Some(fields) = item.as_object().filter(|fields| !fields.contains_key(DIRECTIVE)) else { continue };
        let place = *places.entry(identity(item)?).or_insert(merged.len());
        if place == merged.len() {
            merged.push(Value::Object(Map::new()));
        }
        if let Some(Value::Object(target)) = merged.get_mut(place) {
            merge(target, fields, Schema(&[]))?;
        }
    }
    Ok(merged)
}

fn unknown_directive(directive: &Value) -> PatchError {
    malformed(format!("unknown patch type: {}", directive.as_str().unwrap_or(&directive.to_string())))
}

fn no_key(item: &Value, key: &str) -> PatchError {
    malformed(format!("map: {item} does not contain declared merge key: {key}"))
}

/// The types are named as Go does.
fn wrong_type(expected: &str, value: &Value) -> PatchError {
    let found = match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    malformed(format!("expected a {expected}, but received a {found}"))
}
