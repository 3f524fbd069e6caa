//! Names, label keys and label values: what Kubernetes allows, and its words for what it does not.
//!
//! Every function gives the list of what is wrong; an empty list means that the text is fine.

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_LIMIT: usize = 63;
const SUBDOMAIN_LIMIT: usize = 253;

/// Which names a kind of object may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// A DNS label (RFC 1123) of at most 63 characters.
    Label,
    /// DNS labels joined by dots, at most 253 characters.
    Subdomain,
    /// Anything that can stand between two slashes of a path.
    PathSegment,
}

impl NameRule {
    pub fn check(self, name: &str) -> Vec<String> {
        match self {
            Self::Label => label(name),
            Self::Subdomain => subdomain(name),
            Self::PathSegment => path_segment(name),
        }
    }

    /// Checks `metadata.generateName`: a prefix may end in a dash, as more will follow.
    pub fn check_prefix(self, prefix: &str) -> Vec<String> {
        match (self, prefix.strip_suffix('-')) {
            // A path segment's prefix may even be `.`, as it will not stay alone.
            (Self::PathSegment, _) => forbidden_parts(prefix),
            (_, Some(start)) if !start.is_empty() => self.check(&format!("{start}a")),
            (_, _) => self.check(prefix),
        }
    }
}

/// A DNS label: lower case letters, digits and inner dashes.
pub fn label(text: &str) -> Vec<String> {
    let mut wrong = too_long(text, LABEL_LIMIT);
    if !is_label(text) {
        wrong.push(if is_subdomain(text) {
            "must not contain dots".to_owned()
        } else {
            unmatched(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                 and end with an alphanumeric character",
                LABEL,
                &["my-name", "123-abc"],
            )
        });
    }
    wrong
}

/// A DNS subdomain: labels joined by dots.
pub fn subdomain(text: &str) -> Vec<String> {
    let mut wrong = too_long(text, SUBDOMAIN_LIMIT);
    if !is_subdomain(text) {
        wrong.push(unmatched(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            &format!("{LABEL}(\\.{LABEL})*"),
            &["example.com"],
        ));
    }
    wrong
}

/// What may stand between two slashes of a path.
pub fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    forbidden_parts(text)
}

/// A label or annotation key, or a finalizer: `name` or `example.com/name`.
pub fn qualified(text: &str) -> Vec<String> {
    const RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                        alphanumeric character";
    const EXAMPLES: [&str; 3] = ["MyName", "my.name", "123-abc"];
    let mut wrong = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            let rule = unmatched(&format!("a qualified name {RULE}"), QUALIFIED, &EXAMPLES);
            return vec![format!("{rule} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")];
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                wrong.extend(subdomain(prefix).into_iter().map(|text| format!("prefix part {text}")));
            }
            name
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    }
    wrong.extend(too_long(name, LABEL_LIMIT).into_iter().map(|text| format!("name part {text}")));
    if !is_qualified(name) {
        wrong.push(unmatched(&format!("name part {RULE}"), QUALIFIED, &EXAMPLES));
    }
    wrong
}

/// A label's value: empty, or at most 63 characters of the same kind as a key's name.
pub fn label_value(text: &str) -> Vec<String> {
    let mut wrong = too_long(text, LABEL_LIMIT);
    if !text.is_empty() && !is_qualified(text) {
        wrong.push(unmatched(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            &format!("({QUALIFIED})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    wrong
}

fn forbidden_parts(text: &str) -> Vec<String> {
    ['/', '%'].into_iter().filter(|part| text.contains(*part)).map(|part| format!("may not contain '{part}'")).collect()
}

fn too_long(text: &str, limit: usize) -> Vec<String> {
    if text.len() > limit { vec![format!("must be no more than {limit} characters")] } else { Vec::new() }
}

fn is_label(text: &str) -> bool {
    let edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    framed(text, edge, |byte| edge(byte) || *byte == b'-')
}

pub(super) fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

pub(super) fn is_qualified(text: &str) -> bool {
    framed(text, u8::is_ascii_alphanumeric, |byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// Whether the first and last byte fit `edge` and all bytes fit `inner`.
fn framed(text: &str, edge: impl Fn(&u8) -> bool, inner: impl Fn(&u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(&edge) && bytes.last().is_some_and(&edge) && bytes.iter().all(inner)
}

fn unmatched(rule: &str, pattern: &str, examples: &[&str]) -> String {
    let examples: Vec<_> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{rule} (e.g. {}regex used for validation is '{pattern}')", examples.join(" or "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex_lite::Regex;

    use super::*;

    #[test]
    fn the_words_are_those_of_kubernetes() {
        assert_eq!(
            label("My_Cluster"),
            ["a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                 and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"]
        );
        assert_eq!(label("a.b"), ["must not contain dots"]);
        assert_eq!(label(&"a".repeat(64)), ["must be no more than 63 characters"]);
        let rule = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                    alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
        assert_eq!(qualified("a.com/"), ["name part must be non-empty", rule]);
        assert_eq!(qualified("/x"), ["prefix part must be non-empty"]);
        assert_eq!(path_segment("a/b"), ["may not contain '/'"]);
        assert_eq!(path_segment(".."), ["may not be '..'"]);
        assert!(path_segment("system:masters").is_empty());
    }

    #[test]
    fn a_generated_names_prefix_may_end_in_a_dash() {
        assert!(NameRule::Subdomain.check_prefix("c1-").is_empty());
        assert!(NameRule::Label.check_prefix("c1").is_empty());
        assert!(!NameRule::Label.check_prefix("-").is_empty());
        assert!(!NameRule::Label.check_prefix("C-").is_empty());
    }

    proptest! {
        #[test]
        fn every_rule_agrees_with_the_pattern_it_names(text in "[-a-cA-C0-9._]{0,6}(/[-a-c.]{0,3}){0,2}") {
            let fits = |pattern: &str| Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(&text);
            let domain = format!("{LABEL}(\\.{LABEL})*");
            prop_assert_eq!(label(&text).is_empty(), fits(LABEL));
            prop_assert_eq!(subdomain(&text).is_empty(), fits(&domain));
            prop_assert_eq!(label_value(&text).is_empty(), fits(&format!("({QUALIFIED})?")));
            prop_assert_eq!(qualified(&text).is_empty(), fits(&format!("({domain}/)?{QUALIFIED}")));
        }
    }
}
