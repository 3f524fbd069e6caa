//! What is asked of the policy, and the two answers: allowed by this rule, or the right that is missing.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use super::grant::Grant;
use super::quote::Quoted;
use super::review::Caller;

/// One request, as Kubernetes' authorizers see it. Unused parts are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub user: String,
    /// All of them: the caller adds `system:authenticated` or `system:unauthenticated`.
    pub groups: Vec<String>,
    /// Carried for audit; no rule looks at it.
    pub extra: BTreeMap<String, Vec<String>>,
    /// Lower case: `get`, `list`, `proxy`.
    pub verb: String,
    pub api_group: String,
    /// The plural: `managedclusters`.
    pub resource: String,
    pub subresource: String,
    /// Empty for resources of the cluster scope and for requests over all namespaces.
    pub namespace: String,
    /// Empty when the request names no object.
    pub name: String,
    /// The path of a request that is for no resource, such as `/version`; then only `user`, `groups` and `verb` count.
    pub non_resource_url: Option<String>,
}

/// What the policy says to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allowed(Grant),
    Denied(Denial),
}

/// The right that is missing, in the words of kube-apiserver's 403.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{right}{}", after_colon(.reason))]
pub struct Denial {
    /// `User "u" cannot get resource "r" in API group "g" at the cluster scope`.
    pub right: String,
    /// Empty, or the roles that bindings of the user name and that do not exist.
    pub reason: String,
}

impl Attributes {
    /// What the caller asks for at the cluster scope. `resource` may name a subresource, as in `managedclusters/accept`;
    /// `name` may be empty.
    pub fn of(caller: &Caller, verb: &str, api_group: &str, resource: &str, name: &str) -> Self {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Self {
            user: caller.user.clone(),
            groups: caller.groups.clone(),
            extra: caller.extra.clone(),
            verb: verb.to_owned(),
            api_group: api_group.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            name: name.to_owned(),
            ..Self::default()
        }
    }
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

impl Denial {
    pub(super) fn new(request: &Attributes, missing_roles: &[String]) -> Self {
        let reason = match missing_roles {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        };
        Self { right: MissingRight(request).to_string(), reason }
    }
}

struct MissingRight<'a>(&'a Attributes);

impl fmt::Display for MissingRight<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attributes { user, verb, api_group, resource, subresource, namespace, .. } = self.0;
        write!(f, "User {} cannot {verb} ", Quoted(user))?;
        if let Some(url) = &self.0.non_resource_url {
            return write!(f, "path {}", Quoted(url));
        }
        let slash = if subresource.is_empty() { "" } else { "/" };
        let combined = format!("{resource}{slash}{subresource}");
        write!(f, "resource {} in API group {} ", Quoted(&combined), Quoted(api_group))?;
        if namespace.is_empty() {
            return f.write_str("at the cluster scope");
        }
        write!(f, "in the namespace {}", Quoted(namespace))
    }
}

fn after_colon(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}
