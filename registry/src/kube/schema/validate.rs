//! Validating: what in an object is not as its schema wants it, in the words of CRD validation.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Format, Kind, List, Node, Path};
use crate::kube::cause::Cause;

pub(super) fn validate(root: &Node, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    walk(root, object, &mut Path::default(), &mut causes);
    causes
}

fn walk(node: &Node, value: &Value, path: &mut Path, causes: &mut Vec<Cause>) {
    if value.is_null() && node.nullable {
        return;
    }
    let found = type_name(value);
    if node.int_or_string {
        if !matches!(found, "integer" | "string") {
            return causes.push(Cause::wrong_type(&path.0, "integer,string", found));
        }
    } else if let Some(kind) = node.kind
        && kind.name() != found
    {
        return causes.push(Cause::wrong_type(&path.0, kind.name(), found));
    }
    match value {
        Value::String(text) => self::text(node, text, value, &path.0, causes),
        Value::Number(_) => number(node, value, &path.0, causes),
        Value::Array(items) => array(node, items, path, causes),
        Value::Object(fields) => object(node, fields, path, causes),
        Value::Null | Value::Bool(_) => {}
    }
}

fn object(node: &Node, fields: &Map<String, Value>, path: &mut Path, causes: &mut Vec<Cause>) {
    for name in node.required.iter().filter(|name| !fields.contains_key(*name)) {
        path.in_field(name, |path| causes.push(Cause::required(&path.0, "")));
    }
    for (name, value) in fields {
        if let Some(inner) = node.field(name) {
            path.in_field(name, |path| walk(inner, value, path, causes));
        }
    }
}

fn array(node: &Node, items: &[Value], path: &mut Path, causes: &mut Vec<Cause>) {
    if let Some(least) = node.min_items.filter(|least| items.len() < *least) {
        let detail = format!("{} in body should have at least {least} items", path.0);
        causes.push(Cause::invalid(&path.0, &Value::from(items.len()), &detail));
    }
    if let Some(inner) = &node.items {
        for (index, item) in items.iter().enumerate() {
            path.in_item(index, |path| walk(inner, item, path, causes));
        }
    }
    let mut seen = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let key = match node.list {
            List::Atomic => return,
            List::Set => item.clone(),
            List::Map => node.list_keys.iter().map(|key| (key.clone(), item[key.as_str()].clone())).collect(),
        };
        if !seen.insert(key.to_string()) {
            path.in_item(index, |path| causes.push(Cause::duplicate(&path.0, &key)));
        }
    }
}

fn text(node: &Node, text: &str, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let mut wrong = |detail: String| causes.push(Cause::invalid(path, value, &format!("{path} in body {detail}")));
    let length = text.chars().count();
    if let Some(least) = node.min_length.filter(|least| length < *least) {
        wrong(format!("should be at least {least} chars long"));
    }
    if let Some(pattern) = node.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
        wrong(format!("should match '{pattern}'"));
    }
    match node.format {
        Some(Format::DateTime) if text.parse::<Timestamp>().is_err() => {
            wrong(format!("must be of type date-time: {value}"));
        }
        Some(Format::Byte) if !is_base64(text) => wrong(format!("must be of type byte: {value}")),
        Some(Format::DateTime | Format::Byte | Format::Int32 | Format::Int64) | None => {}
    }
    if let Some(most) = node.max_length.filter(|most| length > *most) {
        causes.push(Cause::too_long(path, most));
    }
    if !node.allowed.is_empty() && !node.allowed.iter().any(|allowed| allowed == text) {
        causes.push(Cause::unsupported(path, value, &node.allowed));
    }
}

/// Line breaks are allowed, as Go's decoder skips them.
fn is_base64(text: &str) -> bool {
    let bytes: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    STANDARD.decode(bytes).is_ok()
}

fn number(node: &Node, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let integer = value.as_i64();
    let fits = match node.format {
        Some(Format::Int32) => integer.is_some_and(|integer| i32::try_from(integer).is_ok()),
        Some(Format::Int64) => integer.is_some(),
        Some(Format::DateTime | Format::Byte) | None => true,
    };
    if !fits {
        let format = if node.format == Some(Format::Int32) { "int32" } else { "int64" };
        let detail = format!("Checked value must be of type integer with format {format} in {path}");
        causes.push(Cause::invalid(path, value, &detail));
    }
    if let Some(least) = node.minimum
        && integer.is_some_and(|integer| integer < least)
    {
        let detail = format!("{path} in body should be greater than or equal to {least}");
        causes.push(Cause::invalid(path, value, &detail));
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
        }
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
