//! Selectors of labels and fields: what they say of an error is in proportion to what was asked, and they choose by what they say.

use registry::kube::selector::{FieldSelector, LabelSelector};
use serde_json::{Map, Value, json};

use crate::cost::{bounded, grown, repeated};

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        "a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2",
        "example.com/role in (,x),!a",
        "metadata.name=a\\,b,metadata.namespace!=c",
        "status.phase==Active",
        "{\"matchLabels\":{\"a\":\"b\"},\"matchExpressions\":[{\"key\":\"a\",\"operator\":\"In\",\"values\":[\"b\",\"!\"]}]}",
        "{\"matchExpressions\":[{\"key\":\"!\",\"operator\":\"NotIn\",\"values\":[\"-\"]},{\"key\":\"x\",\"operator\":\"Exists\"}]}",
    ]
    .map(Into::into)
    .into();
    seeds.extend([
        repeated("a in (", "-,", ")"),
        repeated("", "a,", "a"),
        repeated("metadata.name=", "\\,", ""),
        repeated("", "metadata.name=a,", ""),
        repeated("{\"matchExpressions\":[{\"key\":\"!!!!\",\"operator\":\"In\",\"values\":[", "\"-\",", "\"\"]}]}"),
        repeated("{\"matchExpressions\":[{\"key\":\"a\",\"operator\":\"Gt\",\"values\":[", "\"a\",", "\"\"]}]}"),
        repeated(
            "{\"matchExpressions\":[{\"operator\":\"In\",\"values\":[\"-\",\"-\",\"-\",\"-\"],\"key\":\"",
            "a",
            "\"}]}",
        ),
    ]);
    seeds
}

pub(crate) fn check(input: &[u8]) {
    let input = grown(input);
    let Ok(text) = std::str::from_utf8(&input) else { return };
    let told = |error: &dyn std::error::Error| {
        let told = error.to_string().len();
        assert!(told <= 8 * 1024 + 16 * input.len(), "{told} bytes are told of {}", input.len());
    };
    match bounded(input.len(), || LabelSelector::parse(text)) {
        Ok(selector) => {
            // `!=` and `notin` choose what has no such label; all else but everything needs one.
            assert_eq!(selector.is_everything(), text.trim_matches([' ', '\t', '\r', '\n']).is_empty(), "{text:?}");
            chosen(&selector, text);
        }
        Err(error) => told(&error),
    }
    match bounded(input.len(), || FieldSelector::parse(text, &["status.phase"])) {
        Ok(selector) => {
            let object = json!({"metadata": {"name": "a,b", "namespace": "c"}, "status": {"phase": "Active"}});
            let required =
                ["metadata.name", "metadata.namespace", "status.phase"].map(|field| selector.required(field));
            let has = [Some("a,b"), Some("c"), Some("Active")];
            let meets = required.iter().zip(has).all(|(required, has)| required.is_none() || *required == has);
            assert!(meets || !selector.matches(&object), "{text:?} chooses what it must not");
            assert!(!selector.is_everything() || selector.matches(&object));
        }
        Err(error) => told(&error),
    }
    if let Ok(object) = serde_json::from_str::<Value>(text) {
        match bounded(input.len(), || LabelSelector::from_object(Some(&object))) {
            Ok(selector) => assert!(!selector.is_everything() || selector.matches(None)),
            Err(error) => told(&error),
        }
    }
}

/// One requirement of a label is met by that label's value alone.
fn chosen(selector: &LabelSelector, text: &str) {
    let Some((key, value)) = text.split_once('=').filter(|(key, value)| {
        !format!("{key}{value}").contains([',', '=', '!', ' ', '<', '>', '(', '\t', '\r', '\n'])
    }) else {
        return;
    };
    let labels = |value: &str| Map::from_iter([(key.to_owned(), Value::from(value))]);
    assert!(selector.matches(Some(&labels(value))), "{text:?}");
    assert!(!selector.matches(Some(&labels(&format!("{value}x")))) && !selector.matches(None), "{text:?}");
}
