//! Namespaces and secrets, with kube-apiserver's rules.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{Admission, labels_mut};
use crate::kube::{cause::Cause, object, status::Status, strategy};

/// Namespaces that the hub itself needs.
const PERMANENT: [&str; 1] = [DEFAULT_NAMESPACE];

/// Where clients put what they name no namespace for.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

impl Admission<'_> {
    pub(super) fn admit_secret(&self, before: Option<&Value>, after: &mut Value) -> Result<(), Status> {
        let Some(before) = before else { return Ok(()) };
        let mut causes = Vec::new();
        if before["type"] != after["type"] {
            causes.push(Cause::invalid("type", &after["type"], "field is immutable"));
        }
        if before["immutable"] == true {
            if after["immutable"] != true {
                causes.push(Cause::forbidden("immutable", "field is immutable when `immutable` is set"));
            }
            if before["data"] != after["data"] {
                causes.push(Cause::forbidden("data", "field is immutable when `immutable` is set"));
            }
        }
        if causes.is_empty() { Ok(()) } else { Err(Status::invalid(self.resource, object::name(after), causes)) }
    }

    pub(super) fn release_namespace(&self, before: &Value) -> Result<(), Status> {
        let name = object::name(before);
        if PERMANENT.contains(&name) {
            return Err(self.forbidden(name, "this namespace may not be deleted"));
        }
        Ok(())
    }
}

/// `stringData` is for writing only.
pub(super) fn complete_secret(secret: &mut Value) {
    let plain = secret.as_object_mut().and_then(|secret| secret.remove("stringData"));
    let Some(Value::Object(plain)) = plain else { return };
    for (key, text) in plain {
        if let Some(text) = text.as_str() {
            object::map_mut(&mut secret["data"]).insert(key, BASE64_STANDARD.encode(text).into());
        }
    }
}

pub(super) fn admit_namespace(before: Option<&Value>, after: &mut Value) {
    let name = object::name(after).to_owned();
    labels_mut(after).insert("kubernetes.io/metadata.name".to_owned(), name.into());
    let phase = if strategy::is_deleted(after) { "Terminating" } else { "Active" };
    after["status"]["phase"] = phase.into();
    after["spec"]["finalizers"] = match before {
        None => json!(["kubernetes"]),
        Some(before) => before["spec"]["finalizers"].clone(),
    };
}
