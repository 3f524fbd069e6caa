//! YAML for people: block style, keys in order, quotes only where a plain word would be read as something else.

use serde_json::{Map, Value};

/// A document of one object.
pub(crate) fn document(object: &Map<String, Value>) -> String {
    let mut text = String::new();
    match object.is_empty() {
        true => text.push_str("{}\n"),
        false => fields(&mut text, object, 0),
    }
    text
}

fn fields(text: &mut String, object: &Map<String, Value>, indent: usize) {
    for (at, (key, value)) in object.iter().enumerate() {
        // The first field of a list's item stands behind its dash.
        if at > 0 || indent == 0 || text.ends_with('\n') {
            text.push_str(&" ".repeat(indent));
        }
        text.push_str(&word(key));
        text.push(':');
        // As kubectl has it: a list is no deeper than its key.
        let inner = if value.is_array() { indent } else { indent + 2 };
        node(text, value, inner);
    }
}

/// What stands behind a key or a dash, to the end of its last line.
fn node(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            text.push('\n');
            fields(text, object, indent);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            list(text, items, indent);
        }
        Value::String(string) => line(text, &word(string)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            line(text, &value.to_string());
        }
    }
}

fn list(text: &mut String, items: &[Value], indent: usize) {
    for item in items {
        text.push_str(&" ".repeat(indent));
        text.push('-');
        match item {
            Value::Object(object) if !object.is_empty() => {
                text.push(' ');
                fields(text, object, indent + 2);
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                node(text, item, indent + 2);
            }
        }
    }
}

fn line(text: &mut String, scalar: &str) {
    text.push(' ');
    text.push_str(scalar);
    text.push('\n');
}

/// A string, plain if every YAML reader takes it for one.
fn word(string: &str) -> String {
    if is_plain(string) {
        return string.to_owned();
    }
    // JSON's strings are YAML's, but for what YAML does not count as printable.
    let quoted = Value::from(string).to_string();
    let escaped = |char: char| match char {
        '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
            format!("\\u{:04x}", char as u32)
        }
        _ => char.to_string(),
    };
    quoted.chars().map(escaped).collect()
}

fn is_plain(string: &str) -> bool {
    let begins = string.starts_with(|char: char| char.is_ascii_alphabetic() || char == '/');
    let goes_on = string.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./@:+=".contains(&byte));
    begins && goes_on && !string.ends_with(':') && !is_reserved(string)
}

/// The words that mean something else, to readers of YAML 1.1 too.
fn is_reserved(string: &str) -> bool {
    let words = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    words.iter().any(|word| word.eq_ignore_ascii_case(string))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use registry::kube::body::decode_apply;
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    /// Any JSON value, a few levels deep.
    pub(crate) fn any_value() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any_string().prop_map(Value::from),
        ];
        scalar.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any_string(), inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn any_string() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[a-z:#{}\\[\\],&*?|>'\"%@`!~ \n\t-]{0,8}",
            "(y|No|ON|null|~|1e3|0x1f|1_0|<<|=|---|\\.\\.\\.|a: b|a #b)",
        ]
    }

    #[test]
    fn a_document_looks_as_kubectl_writes_it() {
        let value = json!({
            "clusters": [{"cluster": {"server": "https://hub:8443/clusters/c1"}, "name": "a"}, {"name": "b"}],
            "kind": "Config", "number": 3, "empty": {}, "none": null, "args": ["--x", "on", ["y z"]],
        });
        let expected = "args:\n- \"--x\"\n- \"on\"\n-\n  - \"y z\"\n\
                        clusters:\n- cluster:\n    server: https://hub:8443/clusters/c1\n  name: a\n- name: b\n\
                        empty: {}\nkind: Config\nnone: null\nnumber: 3\n";
        assert_eq!(document(&object(value)), expected);
        assert_eq!(document(&Map::new()), "{}\n");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_as_kubernetes_reads_it(value in any_value()) {
            let written = object(json!({"value": value}));
            let text = document(&written);
            let read = decode_apply(text.as_bytes()).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
            prop_assert_eq!(read.object, written, "{}", text);
        }
    }
}
