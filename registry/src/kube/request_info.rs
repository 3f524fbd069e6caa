//! A request's information: who makes it, on which resource, and whether they may.

use std::fmt;

use super::{
    rbac::{Attributes, Decision, review::Caller},
    resource::Resource,
    status::Status,
};
use crate::registry::Registry;

#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestInfo<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) caller: &'a Caller,
    pub(crate) still: StillValid<'a>,
}

/// Says whether who asks may still be taken for that: to be asked again where a request had to wait.
#[derive(Clone, Copy)]
pub struct StillValid<'a>(pub &'a (dyn Fn() -> bool + Send + Sync));

/// What is asked for: an object, a collection, or a part of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResourceRef<'a> {
    pub(crate) resource: &'a Resource,
    pub(crate) subresource: Option<&'a str>,
    pub(crate) namespace: Option<&'a str>,
    /// Empty for a collection.
    pub(crate) name: &'a str,
}

impl fmt::Debug for StillValid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Still(..)")
    }
}

impl RequestInfo<'_> {
    /// Refuses what the user has no right to, or whom the credentials are no longer good for.
    pub(crate) fn require_still(&self, verb: &str, on: &ResourceRef<'_>) -> Result<(), Status> {
        if !self.still.0() {
            return Err(Status::unauthorized("the credentials are not good any more; log in again"));
        }
        self.require(verb, on)
    }

    pub(crate) fn user(&self) -> &str {
        &self.caller.user
    }

    /// Refuses what the user has no right to, naming the right.
    pub(crate) fn require(&self, verb: &str, on: &ResourceRef<'_>) -> Result<(), Status> {
        let namespace = match (on.resource.plural, on.namespace) {
            // In Kubernetes a namespace is asked for within itself.
            ("namespaces", _) => on.name,
            (_, namespace) => namespace.unwrap_or_default(),
        };
        let request = Attributes {
            subresource: on.subresource.unwrap_or_default().to_owned(),
            namespace: namespace.to_owned(),
            ..Attributes::of(self.caller, verb, on.resource.group, on.resource.plural, on.name)
        };
        match self.registry.with_policy(|policy| policy.decide(&request)) {
            Decision::Allowed(_) => Ok(()),
            Decision::Denied(denial) => Err(Status::forbidden(on.resource, on.name, &denial.to_string())),
        }
    }

    /// Refuses a path that is no resource.
    pub(crate) fn require_path(&self, verb: &str, path: &str) -> Result<(), Status> {
        let request =
            Attributes { non_resource_url: Some(path.to_owned()), ..Attributes::of(self.caller, verb, "", "", "") };
        match self.registry.with_policy(|policy| policy.authorize(&request)) {
            Decision::Allowed(_) => Ok(()),
            Decision::Denied(denial) => Err(Status::forbidden_path(path, &denial.to_string())),
        }
    }

    /// Whether the user has a right of the cluster scope; `resource` may have a subresource, as in `managedclusters/accept`.
    pub(crate) fn may(&self, verb: &str, group: &str, resource: &str, name: &str) -> bool {
        let request = Attributes::of(self.caller, verb, group, resource, name);
        self.registry.with_policy(|policy| policy.authorize(&request)).is_allowed()
    }
}
