//! Field selectors: `metadata.name=a,spec.signerName!=b`.

use std::borrow::Cow;

use serde_json::Value;

use super::SelectorError;

/// Chooses objects by their fields; with no term, everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    /// Path in the object, such as `metadata.name`.
    field: String,
    value: String,
    /// Whether the field must have the value, or must not.
    equal: bool,
}

impl FieldSelector {
    /// Reads the text of a `fieldSelector` parameter. `more` are the fields that may be used besides `metadata.name`
    /// and `metadata.namespace`, as paths in the object.
    pub fn parse(text: &str, more: &[&str]) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in parts(text) {
            if part.is_empty() {
                continue;
            }
            let (field, value, equal) = split_term(part).ok_or_else(|| {
                SelectorError::Syntax(format!("invalid selector: '{text}'; can't understand '{part}'"))
            })?;
            if !["metadata.name", "metadata.namespace"].contains(&field) && !more.contains(&field) {
                return Err(SelectorError::UnsupportedField(field.to_owned()));
            }
            terms.push(Term { field: field.to_owned(), value: unescape(value)?, equal });
        }
        Ok(Self { terms })
    }

    /// Whether every object is chosen.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value the field must have, if the selector says so: a list by `metadata.name` need look at one object only.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }

    /// Whether this object is chosen. A field that is absent counts as empty.
    pub fn matches(&self, object: &Value) -> bool {
        self.terms.iter().all(|term| {
            let found = term.field.split('.').try_fold(object, |value, name| value.get(name));
            let found: Cow<'_, str> = match found {
                None | Some(Value::Null) => "".into(),
                Some(Value::String(text)) => text.into(),
                Some(other) => other.to_string().into(),
            };
            (found == term.value) == term.equal
        })
    }
}

/// Splits at commas that no backslash escapes.
fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, byte) in text.bytes().enumerate() {
        if byte == b',' && !escaped {
            parts.push(&text[start..index]);
            start = index + 1;
        }
        escaped = byte == b'\\' && !escaped;
    }
    parts.push(&text[start..]);
    parts
}

/// Field, value and whether they must be equal, split at the first operator.
fn split_term(term: &str) -> Option<(&str, &str, bool)> {
    let at = term.find('=')?;
    let (before, after) = (&term[..at], &term[at + 1..]);
    match before.strip_suffix('!') {
        Some(field) => Some((field, after, false)),
        None => Some((before, after.strip_prefix('=').unwrap_or(after), true)),
    }
}

/// A value with `\\`, `\,` and `\=` taken back.
fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => plain.push(escaped),
                other => {
                    let sequence: String = ['\\'].into_iter().chain(other).collect();
                    return Err(SelectorError::Syntax(format!(
                        "invalid field selector: invalid escape sequence: {sequence}"
                    )));
                }
            },
            ',' | '=' => {
                return Err(SelectorError::Syntax(format!(
                    "invalid field selector: unescaped character in value: {c}"
                )));
            }
            other => plain.push(other),
        }
    }
    Ok(plain)
}
