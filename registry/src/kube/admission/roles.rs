//! Roles and bindings: nobody gives away a right that they do not hold, and a binding stays with its role.

use serde_json::Value;

use super::Admission;
use crate::kube::{
    cause::Cause,
    object,
    rbac::{self, BindError, Policy, RBAC_GROUP, RoleKind, RoleWrite, builtin},
    status::Status,
    strategy,
};

impl Admission<'_> {
    pub(super) fn admit_role(&self, before: Option<&Value>, after: &mut Value) -> Result<(), Status> {
        let (rbac::Object::Role(role) | rbac::Object::ClusterRole(role)) = self.parsed(after)? else { return Ok(()) };
        if before.is_some_and(|before| only_collects(before, after)) {
            return Ok(());
        }
        let aggregates = |role: &Value| !role["aggregationRule"].is_null();
        let kind = if self.resource.namespaced { RoleKind::Role } else { RoleKind::ClusterRole };
        let name = object::name(after);
        let write = RoleWrite {
            kind,
            namespace: object::metadata(after, "namespace"),
            name: if before.is_some() { name } else { "" },
            rules: &role.rules,
            aggregates: aggregates(after) || before.is_some_and(aggregates),
        };
        let caller = self.info.caller;
        let granted = self.info.registry.with_policy(|policy| policy.may_grant(&caller.user, &caller.groups, &write));
        granted.map_err(|error| self.forbidden(name, &error.to_string()))?;
        if self.resource.namespaced {
            return Ok(());
        }
        self.check_the_hubs(name)?;
        let gathered = self.info.registry.with_policy(|policy| policy.may_gather(caller, &role));
        gathered.map_err(|escalation| self.forbidden(name, &escalation.to_string()))
    }

    /// A ClusterRole that the hub makes by itself is changed and deleted only by who holds all that it could be made with.
    pub(super) fn check_the_hubs(&self, role: &str) -> Result<(), Status> {
        let caller = self.info.caller;
        let holds_all = |policy: &Policy| policy.covers(&caller.user, &caller.groups, "", &rbac::everything()).is_ok();
        if !builtin::is_the_hubs(role) || self.info.registry.with_policy(holds_all) {
            return Ok(());
        }
        let why = "the hub makes this role by itself, and who may do everything alone changes it; use another name";
        Err(self.forbidden(role, why))
    }

    pub(super) fn admit_binding(&self, before: Option<&Value>, after: &mut Value) -> Result<(), Status> {
        let name = object::name(after);
        if let Some(before) = before {
            if before["roleRef"] != after["roleRef"] {
                let causes = vec![Cause::invalid("roleRef", &after["roleRef"], "cannot change roleRef")];
                return Err(Status::invalid(self.resource, name, causes));
            }
            if before["subjects"] == after["subjects"] {
                return Ok(());
            }
        }
        let (rbac::Object::RoleBinding(binding) | rbac::Object::ClusterRoleBinding(binding)) = self.parsed(after)?
        else {
            return Ok(());
        };
        let role = binding.role_ref;
        let (caller, namespace) = (self.info.caller, object::metadata(after, "namespace"));
        let bound =
            self.info.registry.with_policy(|policy| policy.may_bind(&caller.user, &caller.groups, namespace, &role));
        bound.map_err(|error| match error {
            BindError::Escalation(escalation) => self.forbidden(name, &escalation.to_string()),
            BindError::NoRole(role) => Status::role_not_found(&role),
        })
    }

    fn parsed(&self, object: &Value) -> Result<rbac::Object, Status> {
        rbac::Object::parse(object).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let detail = source.unwrap_or_else(|| error.to_string());
            let causes = vec![Cause::invalid("", &Value::from(object::name(object)), &detail)];
            Status::invalid(self.resource, object::name(object), causes)
        })
    }
}

/// Whether a write changes only what the garbage collector works with, and who owns which field, as Kubernetes sees it.
fn only_collects(before: &Value, after: &Value) -> bool {
    let without = |role: &Value| {
        let mut role = role.clone();
        for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
            strategy::metadata_mut(&mut role).remove(field);
        }
        role
    };
    without(before) == without(after)
}

/// A subject without an API group is of the one that Kubernetes takes for its kind.
pub(super) fn complete_binding(binding: &mut Value) {
    let subjects = binding.get_mut("subjects").and_then(Value::as_array_mut);
    for subject in subjects.into_iter().flatten().filter(|subject| subject.is_object()) {
        if subject["apiGroup"].as_str().unwrap_or_default().is_empty() {
            subject["apiGroup"] = match subject["kind"].as_str() {
                Some("User" | "Group") => RBAC_GROUP.into(),
                _ => "".into(),
            };
        }
    }
    if let Some(role) = binding.get_mut("roleRef").filter(|role| role.is_object())
        && role["apiGroup"].as_str().unwrap_or_default().is_empty()
    {
        role["apiGroup"] = RBAC_GROUP.into();
    }
}
