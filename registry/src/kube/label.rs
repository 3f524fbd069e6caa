//! The syntax of labels: what is wrong with a key or a value, in the words of Kubernetes.

use super::name::{is_qualified, is_subdomain};

const NAME: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const MAX_NAME: usize = 63;
const MAX_SUBDOMAIN: usize = 253;

/// What is wrong with a label's key, a qualified name such as `example.com/role`; empty if nothing is.
pub fn key_errors(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let (prefix, name) = match key.split_once('/') {
        None => (None, key),
        Some((prefix, name)) if !name.contains('/') => (Some(prefix), name),
        Some(_) => {
            let examples = examples(&["MyName", "my.name", "123-abc"], NAME);
            return vec![format!(
                "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
                 an alphanumeric character {examples} with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')"
            )];
        }
    };
    match prefix {
        Some("") => errors.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => {
            if prefix.len() > MAX_SUBDOMAIN {
                errors.push(format!("prefix part must be no more than {MAX_SUBDOMAIN} bytes"));
            }
            if !is_subdomain(prefix) {
                errors.push(format!(
                    "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
                     '-' or '.', and must start and end with an alphanumeric character {}",
                    examples(&["example.com"], SUBDOMAIN)
                ));
            }
        }
        None => {}
    }
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > MAX_NAME {
        errors.push(format!("name part must be no more than {MAX_NAME} bytes"));
    }
    if !is_qualified(name) {
        errors.push(format!(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character {}",
            examples(&["MyName", "my.name", "123-abc"], NAME)
        ));
    }
    errors
}

/// What is wrong with a label's value; empty if nothing is.
pub fn value_errors(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > MAX_NAME {
        errors.push(format!("must be no more than {MAX_NAME} bytes"));
    }
    if !value.is_empty() && !is_qualified(value) {
        errors.push(format!(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character {}",
            examples(&["MyValue", "my_value", "12345"], VALUE)
        ));
    }
    errors
}

/// Two spaces after each comma but the last: so Kubernetes writes it.
fn examples(examples: &[&str], pattern: &str) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("(e.g. {}regex used for validation is '{pattern}')", examples.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_labels_are_fine() {
        for key in ["a", "app.kubernetes.io/name", "A_b-c.d", &"k".repeat(63)] {
            assert!(key_errors(key).is_empty(), "{key}");
        }
        for value in ["", "a", "1.2-3_x", &"v".repeat(63)] {
            assert!(value_errors(value).is_empty(), "{value}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_as_kubernetes_says_it() {
        assert_eq!(
            value_errors("a b"),
            [
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ]
        );
        assert_eq!(value_errors(&"v".repeat(64)), ["must be no more than 63 bytes"]);
        assert_eq!(key_errors("")[0], "name part must be non-empty");
        assert_eq!(key_errors("/a"), ["prefix part must be non-empty"]);
        assert_eq!(
            key_errors("-a"),
            [
                "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            ]
        );
        assert!(key_errors("a/b/c")[0].ends_with("(e.g. 'example.com/MyName')"));
        assert!(key_errors("Ex.com/b")[0].starts_with("prefix part a lowercase RFC 1123 subdomain must consist"));
        assert_eq!(key_errors(&format!("{}/b", "a".repeat(254))), ["prefix part must be no more than 253 bytes"]);
    }
}
