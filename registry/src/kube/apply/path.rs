//! A step from a value to one of its parts, in the order and the notation of Kubernetes' field sets.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Value};
use thiserror::Error;

/// One step of a path: which part of a value is meant.
///
/// Ordered as Kubernetes orders them: fields, keys, values, indexes. Numbers are equal when their values are (`1`, `1.0`).
#[derive(Clone, Debug)]
pub enum PathElement {
    /// A field of an object: `f:name`.
    Field(String),
    /// The item of a list of type `map` whose keys have these values, sorted by name: `k:{"name":"value"}`.
    Key(Vec<(String, Value)>),
    /// The item of a list of type `set` that has this value: `v:"value"`.
    Value(Value),
    /// The item at this place of a list: `i:0`.
    Index(i64),
}

/// The text is not a path element.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PathElementError {
    /// A kind of element that a later Kubernetes may write; readers skip it.
    #[error("unknown path element type")]
    Unknown,
    #[error("not a path element: {0:?}")]
    Malformed(String),
}

impl PathElement {
    /// Reads the notation of a field set, for example `f:spec` or `k:{"type":"Ready"}`.
    ///
    /// # Errors
    /// When the prefix is not known, or what follows it is not what the prefix announces.
    pub fn parse(text: &str) -> Result<Self, PathElementError> {
        let malformed = || PathElementError::Malformed(text.to_owned());
        let (kind, rest) = text.split_once(':').ok_or_else(malformed)?;
        match kind {
            "f" => Ok(Self::Field(rest.to_owned())),
            "k" => {
                let keys: Map<String, Value> = serde_json::from_str(rest).map_err(|_| malformed())?;
                let mut keys: Vec<_> = keys.into_iter().collect();
                keys.sort_by(|a, b| a.0.cmp(&b.0));
                Ok(Self::Key(keys))
            }
            "v" => serde_json::from_str(rest).map(Self::Value).map_err(|_| malformed()),
            "i" => rest.parse().map(Self::Index).map_err(|_| malformed()),
            _ if kind.len() == 1 => Err(PathElementError::Unknown),
            _ => Err(malformed()),
        }
    }

    /// The notation that [`PathElement::parse`] reads.
    pub fn notation(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => {
                // Written by hand: the order of the keys must not hang on how a map orders them.
                let keys: Vec<_> =
                    keys.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
                format!("k:{{{}}}", keys.join(","))
            }
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

/// As in messages to people: `.name`, `[key="value"]`, `[="value"]`, `[0]`.
impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                f.write_str("[")?;
                for (place, (name, value)) in keys.iter().enumerate() {
                    write!(f, "{}{name}={value}", if place == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl Ord for PathElement {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => compare_entries(
                a.iter().map(|(name, value)| (name, value)),
                b.iter().map(|(name, value)| (name, value)),
            ),
            (Self::Value(a), Self::Value(b)) => compare_values(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for PathElement {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for PathElement {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for PathElement {}

impl PathElement {
    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        }
    }
}

/// Orders values as Kubernetes does: numbers, strings, booleans, lists, objects, null.
///
/// Goes as deep as the values do; the JSON parser has bounded that.
pub(super) fn compare_values(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
        },
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => a
            .iter()
            .zip(b)
            .map(|(a, b)| compare_values(a, b))
            .find(|o| o.is_ne())
            .unwrap_or_else(|| a.len().cmp(&b.len())),
        (Value::Object(a), Value::Object(b)) => compare_entries(a.iter(), b.iter()),
        _ => value_rank(a).cmp(&value_rank(b)),
    }
}

/// Whether two values say the same; `1` and `1.0` do.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    compare_values(a, b) == Ordering::Equal
}

/// Orders two sorted lists of names and values.
fn compare_entries<'a>(
    mut a: impl Iterator<Item = (&'a String, &'a Value)>,
    mut b: impl Iterator<Item = (&'a String, &'a Value)>,
) -> Ordering {
    loop {
        let (a, b) = match (a.next(), b.next()) {
            (Some(a), Some(b)) => (a, b),
            (a, b) => return a.is_some().cmp(&b.is_some()),
        };
        let order = a.0.cmp(b.0).then_with(|| compare_values(a.1, b.1));
        if order.is_ne() {
            return order;
        }
    }
}

fn value_rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}
