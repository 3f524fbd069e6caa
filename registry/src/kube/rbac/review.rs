//! The reviews: objects that ask what somebody may do, and are answered instead of stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::attributes::{Attributes, Decision};
use super::policy::Policy;
use super::rule::{PolicyRule, null_as_default};

/// Which review is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Review {
    SelfSubjectAccess,
    SubjectAccess,
    LocalSubjectAccess,
    SelfSubjectRules,
    SelfSubject,
}

/// Who asks, as authenticated (and impersonated).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Caller {
    #[serde(rename = "username")]
    pub user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// With `system:authenticated` or `system:unauthenticated`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The review cannot be answered; the texts are kube-apiserver's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReviewError {
    /// 400 BadRequest.
    #[error("{0}")]
    BadRequest(String),
    /// 422 Invalid.
    #[error("{kind}.{group} \"\" is invalid: {}", joined(.causes))]
    Invalid { kind: &'static str, group: &'static str, causes: Vec<InvalidField> },
}

/// One field of a review that is wrong: the cause `FieldValueInvalid` of the 422.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidField {
    /// A path: `spec.user`.
    pub field: &'static str,
    /// Without the field: `Invalid value: "": at least one of user or group must be specified`.
    pub message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    resource_attributes: Option<ResourceAttributes>,
    non_resource_attributes: Option<NonResourceAttributes>,
    #[serde(deserialize_with = "null_as_default")]
    user: String,
    #[serde(deserialize_with = "null_as_default")]
    groups: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    extra: BTreeMap<String, Vec<String>>,
    /// Of a SelfSubjectRulesReview.
    #[serde(deserialize_with = "null_as_default")]
    namespace: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ResourceAttributes {
    #[serde(deserialize_with = "null_as_default")]
    namespace: String,
    #[serde(deserialize_with = "null_as_default")]
    verb: String,
    #[serde(deserialize_with = "null_as_default")]
    group: String,
    #[serde(deserialize_with = "null_as_default")]
    resource: String,
    #[serde(deserialize_with = "null_as_default")]
    subresource: String,
    #[serde(deserialize_with = "null_as_default")]
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NonResourceAttributes {
    #[serde(deserialize_with = "null_as_default")]
    path: String,
    #[serde(deserialize_with = "null_as_default")]
    verb: String,
}

impl Review {
    /// By the kind of the object.
    pub fn parse(kind: &str) -> Option<Self> {
        let all = [
            Self::SelfSubjectAccess,
            Self::SubjectAccess,
            Self::LocalSubjectAccess,
            Self::SelfSubjectRules,
            Self::SelfSubject,
        ];
        all.into_iter().find(|review| review.kind() == kind)
    }

    pub fn kind(self) -> &'static str {
        match self {
            Self::SelfSubjectAccess => "SelfSubjectAccessReview",
            Self::SubjectAccess => "SubjectAccessReview",
            Self::LocalSubjectAccess => "LocalSubjectAccessReview",
            Self::SelfSubjectRules => "SelfSubjectRulesReview",
            Self::SelfSubject => "SelfSubjectReview",
        }
    }

    /// The API group; the version is v1.
    pub fn group(self) -> &'static str {
        match self {
            Self::SelfSubject => "authentication.k8s.io",
            Self::SelfSubjectAccess | Self::SubjectAccess | Self::LocalSubjectAccess | Self::SelfSubjectRules => {
                "authorization.k8s.io"
            }
        }
    }
}

/// Fills in the status of a review. `namespace` is the one of the request's path: not empty for a
/// LocalSubjectAccessReview alone.
pub fn answer(
    policy: &Policy,
    caller: &Caller,
    review: Review,
    namespace: &str,
    body: &Value,
) -> Result<Value, ReviewError> {
    let status = match review {
        Review::SelfSubject => json!({ "userInfo": caller }),
        Review::SelfSubjectRules => rules_status(policy, caller, &read_spec(review, body)?.namespace)?,
        Review::SelfSubjectAccess => {
            let spec = read_spec(review, body)?;
            check(review, namespace, &spec, body)?;
            access_status(policy, attributes(spec, caller.user.clone(), caller.groups.clone(), caller.extra.clone()))
        }
        Review::SubjectAccess | Review::LocalSubjectAccess => {
            let mut spec = read_spec(review, body)?;
            if review == Review::LocalSubjectAccess {
                check_namespace(namespace, body)?;
            }
            check(review, namespace, &spec, body)?;
            let (user, groups) = (std::mem::take(&mut spec.user), std::mem::take(&mut spec.groups));
            let extra = std::mem::take(&mut spec.extra);
            access_status(policy, attributes(spec, user, groups, extra))
        }
    };
    let mut metadata = Map::new();
    if review == Review::LocalSubjectAccess {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    let spec = match review {
        Review::SelfSubject => None,
        // Kubernetes, too, answers this one without what was asked.
        Review::SelfSubjectRules => Some(json!({})),
        Review::SelfSubjectAccess | Review::SubjectAccess | Review::LocalSubjectAccess => {
            Some(body.get("spec").cloned().unwrap_or_else(|| json!({})))
        }
    };
    let mut answer = json!({
        "kind": review.kind(),
        "apiVersion": format!("{}/v1", review.group()),
        "metadata": metadata,
        "status": status,
    });
    if let Some(spec) = spec {
        answer["spec"] = spec;
    }
    Ok(answer)
}

fn read_spec(review: Review, body: &Value) -> Result<Spec, ReviewError> {
    let kind = review.kind();
    Option::deserialize(body.get("spec").unwrap_or(&Value::Null)).map(Option::unwrap_or_default).map_err(|error| {
        ReviewError::BadRequest(format!("{kind} in version \"v1\" cannot be handled as a {kind}: {error}"))
    })
}

fn attributes(spec: Spec, user: String, groups: Vec<String>, extra: BTreeMap<String, Vec<String>>) -> Attributes {
    let who = Attributes { user, groups, extra, ..Attributes::default() };
    match (spec.resource_attributes, spec.non_resource_attributes) {
        (Some(asked), _) => Attributes {
            verb: asked.verb,
            api_group: asked.group,
            resource: asked.resource,
            subresource: asked.subresource,
            namespace: asked.namespace,
            name: asked.name,
            ..who
        },
        (None, asked) => {
            let asked = asked.unwrap_or_default();
            Attributes { verb: asked.verb, non_resource_url: Some(asked.path), ..who }
        }
    }
}

fn access_status(policy: &Policy, request: Attributes) -> Value {
    let (allowed, reason) = match policy.decide(&request) {
        Decision::Allowed(grant) => (true, format!("RBAC: allowed by {grant}")),
        Decision::Denied(denial) => (false, denial.reason),
    };
    if reason.is_empty() { json!({ "allowed": allowed }) } else { json!({ "allowed": allowed, "reason": reason }) }
}

fn rules_status(policy: &Policy, caller: &Caller, namespace: &str) -> Result<Value, ReviewError> {
    if namespace.is_empty() {
        return Err(ReviewError::BadRequest("no namespace on request".to_owned()));
    }
    let (rules, missing) = policy.rules_for(&caller.user, &caller.groups, namespace);
    let only = |urls: bool| {
        let resource = |rule: &PolicyRule| PolicyRule { non_resource_urls: Vec::new(), ..rule.clone() };
        let url = |rule: &PolicyRule| PolicyRule {
            verbs: rule.verbs.clone(),
            non_resource_urls: rule.non_resource_urls.clone(),
            ..PolicyRule::default()
        };
        let has = move |rule: &&&PolicyRule| !(if urls { &rule.non_resource_urls } else { &rule.resources }).is_empty();
        Vec::from_iter(rules.iter().filter(has).map(|rule| if urls { url(rule) } else { resource(rule) }))
    };
    let mut status = json!({ "resourceRules": only(false), "nonResourceRules": only(true), "incomplete": false });
    match missing.as_slice() {
        [] => {}
        [one] => status["evaluationError"] = one.as_str().into(),
        many => status["evaluationError"] = format!("[{}]", many.join(", ")).into(),
    }
    Ok(status)
}

/// The namespace of a LocalSubjectAccessReview is that of the path, said twice or not.
fn check_namespace(namespace: &str, body: &Value) -> Result<(), ReviewError> {
    let said = body.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    let wrong = if namespace.is_empty() {
        "namespace is required on this type: "
    } else if !said.is_empty() && said != namespace {
        "the namespace of the provided object does not match the namespace sent on the request"
    } else {
        return Ok(());
    };
    Err(ReviewError::BadRequest(wrong.to_owned()))
}

fn check(review: Review, namespace: &str, spec: &Spec, body: &Value) -> Result<(), ReviewError> {
    let mut causes = Vec::new();
    let said = |field: &str| body.pointer(field).unwrap_or(&Value::Null).clone();
    match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(_), Some(_)) => causes.push(InvalidField::new(
            "spec.nonResourceAttributes",
            &said("/spec/nonResourceAttributes"),
            "cannot be specified in combination with resourceAttributes",
        )),
        (None, None) => causes.push(InvalidField::new(
            "spec.resourceAttributes",
            &Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        (Some(_), None) | (None, Some(_)) => {}
    }
    if review != Review::SelfSubjectAccess && spec.user.is_empty() && spec.groups.is_empty() {
        causes.push(InvalidField::new("spec.user", &"".into(), "at least one of user or group must be specified"));
    }
    let local = review == Review::LocalSubjectAccess;
    let empty = |(key, value): (&String, &Value)| {
        key == "managedFields"
            || local && key == "namespace"
            || *value == Value::Null
            || *value == json!("")
            || *value == json!({})
    };
    let metadata = said("/metadata");
    if !metadata.as_object().is_none_or(|metadata| metadata.iter().all(empty)) {
        let text = if local { "must be empty except for namespace" } else { "must be empty" };
        causes.push(InvalidField::new("metadata", &metadata, text));
    }
    if local {
        causes.extend(local_causes(namespace, spec, body));
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(ReviewError::Invalid { kind: review.kind(), group: review.group(), causes })
}

fn local_causes(namespace: &str, spec: &Spec, body: &Value) -> Vec<InvalidField> {
    let mut causes = Vec::new();
    if let Some(asked) = spec.resource_attributes.as_ref().filter(|asked| asked.namespace != namespace) {
        causes.push(InvalidField::new(
            "spec.resourceAttributes.namespace",
            &asked.namespace.as_str().into(),
            "must match metadata.namespace",
        ));
    }
    if spec.non_resource_attributes.is_some() {
        let said = body.pointer("/spec/nonResourceAttributes").unwrap_or(&Value::Null);
        causes.push(InvalidField::new("spec.nonResourceAttributes", said, "disallowed on this kind of request"));
    }
    causes
}

impl InvalidField {
    fn new(field: &'static str, value: &Value, text: &str) -> Self {
        Self { field, message: format!("Invalid value: {value}: {text}") }
    }
}

fn joined(causes: &[InvalidField]) -> String {
    let texts = Vec::from_iter(causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)));
    match texts.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}
