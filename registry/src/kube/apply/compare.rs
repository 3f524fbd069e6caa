//! Which fields an object has, and which of them differ between two states of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::field_set::FieldSet;
use super::path::{PathElement, same};
use super::schema::{Schema, Shape};

/// What a change did to which fields.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Only in the new state, with everything below.
    pub(super) added: FieldSet,
    /// In both, with another value.
    pub(super) modified: FieldSet,
    /// Only in the old state, with everything below.
    pub(super) removed: FieldSet,
}

impl Comparison {
    /// Compares two states of a value.
    pub(super) fn of(schema: Schema<'_>, old: &Value, new: &Value) -> Self {
        let mut comparison = Self::default();
        match (schema.shape(old), schema.shape(new)) {
            (Shape::Map(old), Shape::Map(new)) => {
                for (name, value) in old {
                    comparison.part(schema, PathElement::Field(name.clone()), Some(value), new.get(name));
                }
                for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                    comparison.part(schema, PathElement::Field(name.clone()), None, Some(value));
                }
            }
            (Shape::List(old), Shape::List(new)) => {
                let mut items: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
                for (element, item) in old {
                    items.entry(element).or_default().0.push(item);
                }
                for (element, item) in new {
                    items.entry(element).or_default().1.push(item);
                }
                for (element, (old, new)) in items {
                    comparison.items(schema, element, &old, &new);
                }
            }
            (Shape::Leaf, Shape::Leaf) => comparison.modified.member = !same(old, new),
            (Shape::Leaf | Shape::Map(_) | Shape::List(_), _) => {
                comparison.modified.member = true;
                comparison.removed.children = everything(schema, old).children;
                comparison.added.children = everything(schema, new).children;
            }
        }
        comparison
    }

    /// The fields that are in the new state as they were not in the old.
    pub(super) fn set(&self) -> FieldSet {
        self.added.union(&self.modified)
    }

    fn part(&mut self, schema: Schema<'_>, element: PathElement, old: Option<&Value>, new: Option<&Value>) {
        let schema = schema.child(&element);
        match (old, new) {
            (Some(old), Some(new)) => {
                let below = Self::of(schema, old, new);
                self.added.attach(element.clone(), below.added);
                self.modified.attach(element.clone(), below.modified);
                self.removed.attach(element, below.removed);
            }
            (Some(old), None) => self.removed.attach(element, everything(schema, old)),
            (None, Some(new)) => self.added.attach(element, everything(schema, new)),
            (None, None) => {}
        }
    }

    /// Compares the items of one name; more than one are looked at as one whole.
    fn items(&mut self, schema: Schema<'_>, element: PathElement, old: &[&Value], new: &[&Value]) {
        let whole = FieldSet { member: true, children: BTreeMap::new() };
        match (old, new) {
            ([], [_] | []) | ([_], [_] | []) => {
                self.part(schema, element, old.first().copied(), new.first().copied());
            }
            ([], _) => self.added.attach(element, whole),
            (_, []) => self.removed.attach(element, whole),
            _ if old.len() == new.len() && old.iter().zip(new).all(|(old, new)| same(old, new)) => {}
            _ => {
                let part = schema.child(&element);
                let below = |items: &[&Value]| match items {
                    [item] => FieldSet { member: false, ..everything(part, item) },
                    _ => FieldSet::default(),
                };
                self.removed.attach(element.clone(), below(old));
                self.added.attach(element.clone(), below(new));
                self.modified.attach(element, whole);
            }
        }
    }
}

/// Every field of a value, those that have parts too: what a request owns that brought the value.
pub(super) fn everything(schema: Schema<'_>, value: &Value) -> FieldSet {
    let mut set = parts(schema, value, |_, part, value| everything(part, value));
    set.member = true;
    set
}

/// The fields that a configuration names: the leaves, the items of lists, and what the schema does not name itself.
pub(super) fn fields_of(schema: Schema<'_>, value: &Value) -> FieldSet {
    let mut set = parts(schema, value, |element, part, value| {
        let named = matches!(element, PathElement::Field(name) if schema.names(name));
        let mut fields = fields_of(part, value);
        fields.member |= !named || value.as_object().is_some_and(serde_json::Map::is_empty);
        fields
    });
    set.member |= matches!(schema.shape(value), Shape::Leaf);
    set
}

/// What `of` says of each part; of items that share a name, only the name.
fn parts(schema: Schema<'_>, value: &Value, of: impl Fn(&PathElement, Schema<'_>, &Value) -> FieldSet) -> FieldSet {
    let mut set = FieldSet::default();
    match schema.shape(value) {
        Shape::Leaf => {}
        Shape::Map(fields) => {
            for (name, value) in fields {
                let element = PathElement::Field(name.clone());
                let below = of(&element, schema.child(&element), value);
                set.attach(element, below);
            }
        }
        Shape::List(items) => {
            for (element, item) in items {
                let below = of(&element, schema.child(&element), item);
                set.children.entry(element).and_modify(|item| item.children.clear()).or_insert(below);
            }
        }
    }
    set
}

/// Kubernetes' sentence for each list of a configuration whose items cannot be told apart.
pub(super) fn list_errors(schema: Schema<'_>, value: &Value, path: &str, errors: &mut Vec<String>) {
    if let (Value::Array(items), true) = (value, schema.names_items()) {
        let mut seen = BTreeSet::new();
        for (place, item) in items.iter().enumerate() {
            match schema.item(item) {
                Err(reason) => errors.push(format!("{path}: element {place}: {reason}")),
                Ok(element) => {
                    let text = element.to_string();
                    if !seen.insert(element) {
                        errors.push(format!("{path}: duplicate entries for key {text}"));
                    }
                }
            }
        }
    }
    match schema.shape(value) {
        Shape::Leaf => {}
        Shape::Map(fields) => {
            for (name, value) in fields {
                list_errors(schema.field(name), value, &format!("{path}.{name}"), errors);
            }
        }
        Shape::List(items) => {
            for (element, item) in items {
                list_errors(schema.child(&element), item, &format!("{path}{element}"), errors);
            }
        }
    }
}
