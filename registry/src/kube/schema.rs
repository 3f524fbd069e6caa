//! The schema of a kind: its OpenAPI v3 form, and what the API server does with an object by it.
//!
//! An object is first pruned, then given its defaults, then validated. Each walk follows the schema, which is finite,
//! so a deeply nested object costs no stack.

mod defaults;
mod prune;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::BTreeMap;

use regex_lite::Regex;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::cause::Cause;

/// A kind's schema, with everything inlined.
#[derive(Debug)]
pub struct Schema {
    document: Value,
    root: Node,
}

/// The part of a schema that decides about objects.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Node {
    #[serde(rename = "type")]
    kind: Option<Kind>,
    #[serde(rename = "x-kubernetes-int-or-string")]
    int_or_string: bool,
    #[serde(rename = "x-kubernetes-preserve-unknown-fields")]
    preserve_unknown: bool,
    #[serde(rename = "x-kubernetes-list-type")]
    list: List,
    #[serde(rename = "x-kubernetes-list-map-keys")]
    list_keys: Vec<String>,
    properties: BTreeMap<String, Self>,
    additional_properties: Option<Box<Self>>,
    items: Option<Box<Self>>,
    required: Vec<String>,
    default: Option<Value>,
    nullable: bool,
    #[serde(rename = "enum")]
    allowed: Vec<String>,
    format: Option<Format>,
    #[serde(deserialize_with = "pattern")]
    pattern: Option<Regex>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    minimum: Option<i64>,
    min_items: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Object,
    Array,
    String,
    Integer,
    Boolean,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Int32,
    Int64,
    Byte,
    #[serde(rename = "date-time")]
    DateTime,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum List {
    #[default]
    Atomic,
    Set,
    Map,
}

impl Schema {
    /// Reads one of our own files. The fields that every object has are added; they are in no file.
    pub(super) fn embedded(text: &str) -> Self {
        let mut document = parse(text);
        inline(&mut document);
        let mut meta = parse(include_str!("schemas/parts/object_meta.json"));
        inline(&mut meta);
        let text_field = |description: &str| serde_json::json!({"description": description, "type": "string"});
        let every = [
            ("apiVersion", text_field("Group and version of the object's kind.")),
            ("kind", text_field("What the object is, in CamelCase.")),
            ("metadata", meta),
        ];
        for (field, schema) in every {
            document["properties"][field] = schema;
        }
        let root = Node::deserialize(&document).expect("our schemas use the keywords of Node");
        Self { document, root }
    }

    /// The OpenAPI v3 form.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// Takes out the fields that the schema does not know and gives their paths, as `spec.foo`, in the order of the walk.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(&self.root, object)
    }

    /// Fills in the defaults of fields that are absent. A null counts as absent, unless the schema allows it, and is
    /// taken out: Go's clients write nulls for what they leave empty.
    pub fn set_defaults(&self, object: &mut Value) {
        defaults::set_defaults(&self.root, object);
    }

    /// What is wrong with the object; the metadata's contents are [`super::metadata`]'s business.
    pub fn validate(&self, object: &Value) -> Vec<Cause> {
        validate::validate(&self.root, object)
    }
}

/// How an unknown field is told of: `unknown field "spec.foo"`.
pub fn unknown_field(path: &str) -> String {
    format!("unknown field \"{path}\"")
}

/// A path to a field, as `spec.taints[0].key`, that grows and shrinks with a walk.
#[derive(Default)]
struct Path(String);

impl Path {
    fn in_field<T>(&mut self, field: &str, walk: impl FnOnce(&mut Self) -> T) -> T {
        let end = self.0.len();
        if end > 0 {
            self.0.push('.');
        }
        self.0.push_str(field);
        let result = walk(self);
        self.0.truncate(end);
        result
    }

    fn in_item<T>(&mut self, index: usize, walk: impl FnOnce(&mut Self) -> T) -> T {
        let end = self.0.len();
        self.0.push_str(&format!("[{index}]"));
        let result = walk(self);
        self.0.truncate(end);
        result
    }
}

impl Node {
    /// The schema of a field of this object, if it has one.
    fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(self.additional_properties.as_deref())
    }
}

/// Puts the parts that several schemas share in the place of their `$ref`.
fn inline(schema: &mut Value) {
    if let Some(part) = schema.get("$ref").and_then(Value::as_str) {
        *schema = parse(match part {
            "condition" => include_str!("schemas/parts/condition.json"),
            "label_selector" => include_str!("schemas/parts/label_selector.json"),
            "object_reference" => include_str!("schemas/parts/object_reference.json"),
            other => unreachable!("no schema part is called {other}"),
        });
    }
    for field in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(field) {
            inline(inner);
        }
    }
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    properties.into_iter().flat_map(Map::values_mut).for_each(inline);
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("our schemas are JSON")
}

fn pattern<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Regex>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Regex::new(&text).map(Some).map_err(serde::de::Error::custom)
}
