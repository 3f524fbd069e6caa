//! A step from a value to one of its parts, in the order and the notation of Kubernetes' field sets.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Number, Value};
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
        (Value::Number(a), Value::Number(b)) => match (whole(a), whole(b)) {
            (Some(a), Some(b)) => a.cmp(&b),
            // One has a fraction, which only numbers have that a float holds exactly, or is beyond any integer.
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

/// The number if it is whole, however written: by floats alone, large numbers would have no order.
fn whole(number: &Number) -> Option<i128> {
    let float = || number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 2_f64.powi(100));
    #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
    number.as_i128().or_else(|| float().map(|float| float as i128))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_element_has_a_notation_and_a_form_for_people() {
        for (text, people) in [
            ("f:spec", ".spec"),
            ("f:a:b", ".a:b"),
            ("f:", "."),
            (r#"k:{"effect":"NoSelect","key":"a"}"#, r#"[effect="NoSelect",key="a"]"#),
            (r#"k:{"port":80}"#, "[port=80]"),
            (r#"v:"x""#, r#"[="x"]"#),
            ("v:1.5", "[=1.5]"),
            ("v:true", "[=true]"),
            ("i:0", "[0]"),
        ] {
            let element = PathElement::parse(text).unwrap();
            assert_eq!((element.notation().as_str(), element.to_string().as_str()), (text, people));
        }
        let unsorted = PathElement::parse(r#"k:{"b":1,"a":2}"#).unwrap();
        assert_eq!(unsorted.notation(), r#"k:{"a":2,"b":1}"#);
    }

    #[test]
    fn text_that_is_no_element_is_refused() {
        for text in ["", "f", "k:", "k:[1]", "k:{", "v:", "v:x", "i:", "i:x", "i:1.5", "long:x", ":x"] {
            assert_eq!(PathElement::parse(text), Err(PathElementError::Malformed(text.to_owned())), "{text}");
        }
        assert_eq!(PathElement::parse("z:later"), Err(PathElementError::Unknown));
    }

    #[test]
    fn elements_are_ordered_as_kubernetes_orders_them() {
        let texts = [
            "f:a",
            "f:b",
            "k:{\"a\":1}",
            "k:{\"a\":\"1\"}",
            "k:{\"a\":\"1\",\"b\":0}",
            "k:{\"b\":0}",
            "v:9",
            "v:10",
            "v:\"a\"",
            "v:false",
            "v:true",
            "v:[]",
            "v:[1]",
            "v:{}",
            "v:null",
            "i:9",
            "i:10",
        ];
        let elements: Vec<_> = texts.iter().map(|text| PathElement::parse(text).unwrap()).collect();
        assert!(elements.is_sorted_by(|a, b| a < b));
        assert_eq!(PathElement::parse("v:1"), PathElement::parse("v:1.0"));
    }

    fn numbers() -> impl Strategy<Value = Value> {
        // Around the bounds of what floats and integers hold exactly.
        let edges = prop_oneof![Just(1_i128 << 53), Just(1 << 63), Just(1 << 64), Just(0), Just(-(1 << 53))];
        (edges, -3..3_i128, prop_oneof![Just(0.0), Just(0.5), Just(1e40)], any::<bool>()).prop_map(
            |(edge, near, fraction, as_float)| {
                let number = edge + near;
                match (i64::try_from(number), u64::try_from(number)) {
                    (Ok(number), _) if !as_float => json!(number),
                    (_, Ok(number)) if !as_float => json!(number),
                    _ => json!(number as f64 + fraction),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn numbers_have_a_total_order(a in numbers(), b in numbers(), c in numbers()) {
            let order = compare_values(&a, &b);
            prop_assert_eq!(order, compare_values(&b, &a).reverse());
            if order == compare_values(&b, &c) {
                prop_assert_eq!(compare_values(&a, &c), order);
            }
        }
    }
}
