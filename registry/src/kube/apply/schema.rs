//! How an OpenAPI v3 schema says an object is to be merged: what has parts of its own, and what they are called.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::path::PathElement;

/// How deep an object is looked into; what lies deeper is merged as one value. The JSON parser allows no more either.
pub(super) const MAX_DEPTH: usize = 128;

/// The schema of one value of an object; parts it does not know are deduced: objects have parts, lists have none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schema<'a> {
    node: Option<&'a Value>,
    depth: usize,
}

/// What a value is to a merge.
#[derive(Debug)]
pub(super) enum Shape<'v> {
    /// One whole: a scalar, null, or something the schema calls atomic.
    Leaf,
    Map(&'v Map<String, Value>),
    /// A list whose items have names; a name may come more than once in an object that was stored so.
    List(Vec<(PathElement, &'v Value)>),
}

/// `metadata` has its own schema: schemas of custom resources only say that it is an object.
static METADATA: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "properties": {
            "annotations": {"additionalProperties": {"type": "string"}},
            "creationTimestamp": {}, "deletionGracePeriodSeconds": {}, "deletionTimestamp": {},
            "finalizers": {"items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "generateName": {}, "generation": {},
            "labels": {"additionalProperties": {"type": "string"}},
            "managedFields": {"items": {}, "x-kubernetes-list-type": "atomic"},
            "name": {}, "namespace": {},
            "ownerReferences": {
                "items": {
                    "properties": {
                        "apiVersion": {}, "blockOwnerDeletion": {}, "controller": {}, "kind": {}, "name": {}, "uid": {}
                    },
                    "x-kubernetes-map-type": "atomic"
                },
                "x-kubernetes-list-map-keys": ["uid"],
                "x-kubernetes-list-type": "map"
            },
            "resourceVersion": {}, "selfLink": {}, "uid": {}
        }
    })
});

impl<'a> Schema<'a> {
    /// The schema of a whole object of the API.
    pub(super) fn object(schema: &'a Value) -> Self {
        Self { node: Some(schema), depth: 0 }
    }

    fn keyword(self, name: &str) -> Option<&'a Value> {
        self.node?.get(name)
    }

    /// Whether the schema names this field, rather than any field.
    pub(super) fn names(self, field: &str) -> bool {
        (self.depth == 0 && matches!(field, "apiVersion" | "kind" | "metadata"))
            || self.keyword("properties").is_some_and(|properties| properties.get(field).is_some())
    }

    /// The schema of a part.
    pub(super) fn child(self, element: &PathElement) -> Self {
        let node = match element {
            PathElement::Field(name) if self.depth == 0 && name == "metadata" => Some(&*METADATA),
            PathElement::Field(name) => self
                .keyword("properties")
                .and_then(|properties| properties.get(name))
                .or_else(|| self.keyword("additionalProperties")),
            PathElement::Key(_) | PathElement::Value(_) | PathElement::Index(_) => self.keyword("items"),
        };
        Self { node, depth: self.depth + 1 }
    }

    pub(super) fn field(self, name: &str) -> Self {
        self.child(&PathElement::Field(name.to_owned()))
    }

    /// What `value` is to a merge. A list whose items cannot be named is a leaf.
    pub(super) fn shape(self, value: &Value) -> Shape<'_> {
        if self.depth >= MAX_DEPTH {
            return Shape::Leaf;
        }
        if let Value::Object(fields) = value
            && !self.says("x-kubernetes-map-type", "atomic")
        {
            return Shape::Map(fields);
        }
        if let Value::Array(items) = value
            && self.names_items()
        {
            let named = items.iter().map(|item| self.item(item).ok().map(|element| (element, item)));
            return named.collect::<Option<_>>().map_or(Shape::Leaf, Shape::List);
        }
        Shape::Leaf
    }

    /// Whether this is a list whose items are merged one by one.
    pub(super) fn names_items(self) -> bool {
        self.says("x-kubernetes-list-type", "map") || self.says("x-kubernetes-list-type", "set")
    }

    fn says(self, keyword: &str, value: &str) -> bool {
        self.keyword(keyword).and_then(Value::as_str) == Some(value)
    }

    /// The name of an item of such a list.
    ///
    /// # Errors
    /// Kubernetes' sentence, when the item has none.
    pub(super) fn item(self, item: &Value) -> Result<PathElement, String> {
        if self.says("x-kubernetes-list-type", "set") {
            return match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
                Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(PathElement::Value(item.clone())),
            };
        }
        let item = match item {
            Value::Object(item) => item,
            Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err("associative list with keys may not have non-map elements".to_owned());
            }
        };
        let names = self.keyword("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
        let mut keys = Vec::new();
        for name in names.filter_map(Value::as_str) {
            let default = || self.keyword("items")?.get("properties")?.get(name)?.get("default");
            let value = item.get(name).or_else(default).ok_or_else(|| {
                format!(
                    "associative list with keys has an element that omits key field {name:?} (and doesn't have default value)"
                )
            })?;
            keys.push((name.to_owned(), value.clone()));
        }
        keys.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(PathElement::Key(keys))
    }
}
