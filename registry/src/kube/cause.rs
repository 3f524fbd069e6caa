//! The cause: one field of an object that is not as it must be, in the words of Kubernetes' API server.

use std::fmt;

use serde_json::{Value, json};

/// One entry of `details.causes` of a 422 Status. Its `Display` is `field: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// One of Kubernetes' cause types, as `FieldValueInvalid`.
    pub reason: &'static str,
    /// Path of the field, as `spec.taints[0].key`; `<nil>` when the object itself is meant.
    pub field: String,
    pub message: String,
}

impl Cause {
    /// The field is missing or empty. `detail` may be empty.
    pub fn required(field: &str, detail: &str) -> Self {
        Self::new("FieldValueRequired", field, "Required value".to_owned(), detail)
    }

    pub fn invalid(field: &str, value: &Value, detail: &str) -> Self {
        Self::new("FieldValueInvalid", field, format!("Invalid value: {value}"), detail)
    }

    /// The value has type `found` instead of `wanted`; both are JSON schema's names.
    pub fn wrong_type(field: &str, wanted: &str, found: &str) -> Self {
        let shown = if field.is_empty() { "<nil>" } else { field };
        let detail = format!("{shown} in body must be of type {wanted}: \"{found}\"");
        Self::new("FieldValueTypeInvalid", field, format!("Invalid value: \"{found}\""), &detail)
    }

    pub fn unsupported(field: &str, value: &Value, supported: &[String]) -> Self {
        let quoted: Vec<_> = supported.iter().map(|value| format!("\"{value}\"")).collect();
        let detail = format!("supported values: {}", quoted.join(", "));
        Self::new("FieldValueNotSupported", field, format!("Unsupported value: {value}"), &detail)
    }

    /// The value is longer than `limit` bytes.
    pub fn too_long(field: &str, limit: usize) -> Self {
        let unit = if limit == 1 { "byte" } else { "bytes" };
        Self::new("FieldValueTooLong", field, "Too long".to_owned(), &format!("may not be more than {limit} {unit}"))
    }

    pub fn duplicate(field: &str, value: &Value) -> Self {
        Self::new("FieldValueDuplicate", field, format!("Duplicate value: {value}"), "")
    }

    pub fn forbidden(field: &str, detail: &str) -> Self {
        Self::new("FieldValueForbidden", field, "Forbidden".to_owned(), detail)
    }

    /// As in `details.causes`.
    pub fn to_json(&self) -> Value {
        json!({"reason": self.reason, "message": self.message, "field": self.field})
    }

    fn new(reason: &'static str, field: &str, mut message: String, detail: &str) -> Self {
        if !detail.is_empty() {
            message.push_str(": ");
            message.push_str(detail);
        }
        let field = if field.is_empty() { "<nil>" } else { field };
        Self { reason, field: field.to_owned(), message }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// The message of the 422 Status: `ManagedCluster.cluster.open-cluster-management.io "c1" is invalid: ...`.
pub fn invalid_message(kind: &str, group: &str, name: &str, causes: &[Cause]) -> String {
    let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
    let mut texts: Vec<String> = Vec::new();
    for text in causes.iter().map(Cause::to_string) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    let all = match texts.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    format!("{qualified} \"{name}\" is invalid: {all}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_by_field_in_a_status() {
        let cause = Cause::invalid("spec.a", &json!(1), "must be even");
        assert_eq!(
            cause.to_json(),
            json!({"reason": "FieldValueInvalid", "message": "Invalid value: 1: must be even", "field": "spec.a"})
        );
    }

    #[test]
    fn one_cause_stands_alone_and_several_in_brackets() {
        let short = Cause::required("spec.clusterSet", "");
        let enumerated = Cause::unsupported("spec.effect", &json!("x"), &["a".to_owned(), "b".to_owned()]);
        assert_eq!(
            invalid_message("Namespace", "", "n", std::slice::from_ref(&short)),
            "Namespace \"n\" is invalid: spec.clusterSet: Required value"
        );
        assert_eq!(
            invalid_message("Role", "rbac.authorization.k8s.io", "r", &[short.clone(), enumerated, short]),
            "Role.rbac.authorization.k8s.io \"r\" is invalid: [spec.clusterSet: Required value, spec.effect: \
             Unsupported value: \"x\": supported values: \"a\", \"b\"]"
        );
    }
}
