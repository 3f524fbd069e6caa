//! Kubernetes' `Status`: the answer to a request that failed, with the reasons, codes and sentences of kube-apiserver.

use std::fmt;

use serde_json::{Value, json};

use super::apply::ApplyError;
use super::body::BodyError;
use super::cause::{self, Cause};
use super::patch::PatchError;
use super::rbac::{BindError, RBAC_GROUP, RoleKind, RoleRef};
use super::resource::Resource;
use super::selector::SelectorError;
use store::CommitError;

/// Why a request failed. Clients act on `code` and `reason`; kubectl prints `message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The HTTP status, 400 to 599.
    pub code: u16,
    /// One CamelCase word.
    pub reason: &'static str,
    pub message: String,
    /// On the heap: it is most of what a failure is, and every answer may be one.
    details: Option<Box<Details>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Details {
    name: String,
    group: String,
    /// The resource, as in `managedclusters`; for an invalid object its kind.
    kind: String,
    causes: Vec<Cause>,
    retry_after_seconds: Option<u32>,
}

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let (name, group, kind) = (name.to_owned(), group.to_owned(), kind.to_owned());
        self.details = Some(Box::new(Details { name, group, kind, causes: Vec::new(), retry_after_seconds: None }));
        self
    }

    /// 400: the request makes no sense, whatever is stored.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401: nobody knows who asks; `why` says what to do about it.
    pub fn unauthorized(why: &str) -> Self {
        Self::new(401, "Unauthorized", why)
    }

    /// 403: `why` names the missing right, or the rule that forbids it.
    pub fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let message = match name {
            "" => format!("{} is forbidden: {why}", resource.qualified()),
            name => format!("{} {name:?} is forbidden: {why}", resource.qualified()),
        };
        Self::new(403, "Forbidden", message).about(resource.group, resource.plural, name)
    }

    /// 403: `why` names the missing right to speak as somebody else.
    pub fn impersonation_forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let qualified = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        Self::new(403, "Forbidden", format!("{qualified} {name:?} is forbidden: {why}")).about(group, resource, name)
    }

    /// 403 for a path that is no resource.
    pub fn forbidden_path(path: &str, why: &str) -> Self {
        Self::new(403, "Forbidden", format!("forbidden: {why}")).about("", "", path)
    }

    /// 404: there is no such object.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {name:?} not found", resource.qualified())).about(
            resource.group,
            resource.plural,
            name,
        )
    }

    /// 404: the namespace in which an object should be made.
    pub fn namespace_not_found(namespace: &str) -> Self {
        Self::new(404, "NotFound", format!("namespaces {namespace:?} not found")).about("", "namespaces", namespace)
    }

    /// 404: a binding's role does not exist, and only who has the verb `bind` may bind it.
    pub fn role_not_found(role: &RoleRef) -> Self {
        let plural = match role.kind {
            RoleKind::Role => "roles",
            RoleKind::ClusterRole => "clusterroles",
        };
        let error = BindError::NoRole(role.clone());
        Self::new(404, "NotFound", error.to_string()).about(RBAC_GROUP, plural, &role.name)
    }

    /// 404: nothing is served at this path.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 405: the resource is there, but not for this verb.
    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 406: no form of the answer that the client accepts.
    pub fn not_acceptable(offered: &str) -> Self {
        let message = format!("only the following media types are accepted: {offered}");
        Self::new(406, "NotAcceptable", message)
    }

    /// 409: the name is taken.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {name:?} already exists", resource.qualified())).about(
            resource.group,
            resource.plural,
            name,
        )
    }

    /// 409: `why` says what to do, which is mostly to read again.
    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", resource.qualified());
        Self::new(409, "Conflict", message).about(resource.group, resource.plural, name)
    }

    /// 409: somebody else has changed the object since it was read.
    pub fn modified(resource: &Resource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// 410: what the request begins with is forgotten; list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 422: the object breaks its kind's rules, one cause for each.
    pub fn invalid(resource: &Resource, name: &str, causes: Vec<Cause>) -> Self {
        let message = cause::invalid_message(resource.kind, resource.group, name, &causes);
        Self::new(422, "Invalid", message).about(resource.group, resource.kind, name).because(causes)
    }

    /// 422: the query breaks the rules of these options, as `CreateOptions`.
    pub fn invalid_options(kind: &str, causes: Vec<Cause>) -> Self {
        const GROUP: &str = "meta.k8s.io";
        let message = cause::invalid_message(kind, GROUP, "", &causes);
        Self::new(422, "Invalid", message).about(GROUP, kind, "").because(causes)
    }

    /// 422: who applies says who they are.
    pub fn field_manager_required() -> Self {
        Self::invalid_options("PatchOptions", vec![Cause::required("fieldManager", "is required for apply patch")])
    }

    /// 504: the client knows a newer revision than this server.
    pub fn revision_too_large(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        let (reason, text) = ("ResourceVersionTooLarge", "Too large resource version");
        let cause = Cause { reason, message: text.to_owned(), field: String::new() };
        Self::new(504, "Timeout", format!("Timeout: {message}")).about("", "", "").because(vec![cause]).retry_after(1)
    }

    /// 503: the store cannot be written.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message).about("", "", "").retry_after(1)
    }

    /// 429: the user, or everybody together, has as much under way as may be.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }

    pub fn too_many_requests(message: impl Into<String>) -> Self {
        Self::new(429, "TooManyRequests", message).about("", "", "").retry_after(1)
    }

    /// What a gateway in front of another API server says, with any HTTP status.
    pub fn gateway(code: u16, message: impl Into<String>) -> Self {
        let reason = match code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            429 => "TooManyRequests",
            421 => "MisdirectedRequest",
            502 => "BadGateway",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "InternalError",
        };
        Self::new(code, reason, message)
    }

    fn because(mut self, causes: Vec<Cause>) -> Self {
        if let Some(details) = &mut self.details {
            details.causes = causes;
        }
        self
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        if let Some(details) = &mut self.details {
            details.retry_after_seconds = Some(seconds);
        }
        self
    }

    /// For the header `Retry-After`, in seconds.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.details.as_ref().and_then(|details| details.retry_after_seconds)
    }

    /// As `v1` `Status`.
    pub fn to_json(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            status["details"] = details.to_json();
        }
        status
    }
}

impl Details {
    fn to_json(&self) -> Value {
        let mut details = serde_json::Map::new();
        for (key, value) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind)] {
            if !value.is_empty() {
                details.insert(key.to_owned(), json!(value));
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|cause| {
                let mut cause = cause.to_json();
                if cause["field"] == "" {
                    cause.as_object_mut().map(|cause| cause.remove("field"));
                }
                cause
            });
            details.insert("causes".to_owned(), causes.collect());
        }
        if let Some(seconds) = self.retry_after_seconds {
            details.insert("retryAfterSeconds".to_owned(), json!(seconds));
        }
        details.into()
    }
}

impl From<BodyError> for Status {
    fn from(error: BodyError) -> Self {
        Self::new(error.code(), error.reason(), error.to_string())
    }
}

impl From<CommitError> for Status {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::TooLarge { .. } => Self::new(413, "RequestEntityTooLarge", error.to_string()),
            CommitError::Conflict { .. }
            | CommitError::Disk { .. }
            | CommitError::Etcd { .. }
            | CommitError::Overloaded
            | CommitError::Closed => Self::unavailable(error.to_string()),
        }
    }
}

impl From<SelectorError> for Status {
    fn from(error: SelectorError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<PatchError> for Status {
    fn from(error: PatchError) -> Self {
        let status = Self::new(error.code(), error.reason(), error.to_string());
        match error.cause() {
            Some(cause) => {
                let cause = Cause { reason: "FieldValueInvalid", field: "patch".to_owned(), message: cause.to_owned() };
                status.about("", "", "").because(vec![cause])
            }
            None => status,
        }
    }
}

impl From<ApplyError> for Status {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::BadRequest(message) => Self::bad_request(message),
            ApplyError::Invalid { .. } => Self::new(500, "InternalError", error.to_string()),
            ApplyError::Conflict(conflicts) => {
                let cause = |conflict: &super::apply::Conflict| Cause {
                    reason: "FieldManagerConflict",
                    field: conflict.field(),
                    message: conflict.message(),
                };
                let causes = conflicts.iter().map(cause).collect();
                Self::new(409, "Conflict", conflicts.to_string()).about("", "", "").because(causes)
            }
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}
