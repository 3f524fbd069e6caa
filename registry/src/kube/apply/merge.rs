//! Laying a configuration over an object, and taking out what its manager no longer names.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::Value;

use super::compare::everything;
use super::field_set::FieldSet;
use super::path::PathElement;
use super::schema::{Schema, Shape};

/// The live value with everything set that the configuration names; nothing is taken out.
pub(super) fn merge(schema: Schema<'_>, live: &Value, patch: &Value) -> Value {
    match (schema.shape(live), schema.shape(patch)) {
        (Shape::Map(live), Shape::Map(patch)) => {
            let mut merged = live.clone();
            for (name, value) in patch {
                let value = live.get(name).map_or_else(|| value.clone(), |live| merge(schema.field(name), live, value));
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Shape::List(live), Shape::List(patch)) => Value::Array(merge_items(schema, live, patch)),
        // Null says nothing about the parts of something that has parts.
        (Shape::Map(_) | Shape::List(_), Shape::Leaf) if patch.is_null() => live.clone(),
        (Shape::Leaf | Shape::Map(_) | Shape::List(_), _) => patch.clone(),
    }
}

/// Merges two lists by the names of their items.
///
/// Items of the configuration come in its order. Those only the live list has keep their place before the next item
/// that both have.
fn merge_items<'v>(
    schema: Schema<'_>,
    live: Vec<(PathElement, &'v Value)>,
    patch: Vec<(PathElement, &'v Value)>,
) -> Vec<Value> {
    let mut in_live: BTreeMap<&PathElement, Vec<&Value>> = BTreeMap::new();
    for (element, item) in &live {
        in_live.entry(element).or_default().push(item);
    }
    let in_patch: BTreeSet<&PathElement> = patch.iter().map(|(element, _)| element).collect();
    let mut shared: VecDeque<&PathElement> =
        patch.iter().map(|(element, _)| element).filter(|element| in_live.contains_key(element)).collect();
    let mut rest = live.iter().peekable();
    let mut merged = Vec::new();
    for (element, item) in &patch {
        while let Some((before, item)) = rest.next_if(|(before, _)| shared.front() != Some(&before)) {
            if !in_patch.contains(before) {
                merged.push((*item).clone());
            }
        }
        merged.push(match in_live.get(element).map(Vec::as_slice) {
            Some([live]) => merge(schema.child(element), live, item),
            // Several items of one name are replaced by the one that the configuration knows.
            _ => (*item).clone(),
        });
        if shared.front() == Some(&element) {
            shared.pop_front();
        }
    }
    merged.extend(rest.filter(|(element, _)| !in_patch.contains(element)).map(|(_, item)| (*item).clone()));
    merged
}

/// Takes out of `merged` what was in the manager's `last` set, and neither the new configuration `patch` names nor
/// anyone else owns, each with all that is below it.
pub(super) fn prune(schema: Schema<'_>, merged: &Value, last: &FieldSet, patch: &Value, others: &FieldSet) -> Value {
    let named_now = others.with_named_fields(schema).union(&everything(schema, patch));
    without(schema, merged, &last.with_named_fields(schema).difference(&named_now))
}

/// The value without these fields and items, each with all that is below it.
fn without(schema: Schema<'_>, value: &Value, set: &FieldSet) -> Value {
    let keep = |element: &PathElement, part: &Value| match set.children.get(element) {
        Some(below) if below.member => None,
        Some(below) => Some(without(schema.child(element), part, below)),
        None => Some(part.clone()),
    };
    match schema.shape(value) {
        Shape::Leaf => value.clone(),
        Shape::Map(fields) => {
            let kept = fields
                .iter()
                .filter_map(|(name, part)| Some((name.clone(), keep(&PathElement::Field(name.clone()), part)?)));
            Value::Object(kept.collect())
        }
        Shape::List(items) => Value::Array(items.iter().filter_map(|(element, item)| keep(element, item)).collect()),
    }
}
