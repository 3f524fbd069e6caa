//! Cluster sets and their bindings: the two that always exist stay what they are, and a binding binds its namesake.

use serde_json::{Value, json};

use super::{Admission, set_condition};
use crate::condition::Fact;
use crate::kube::{
    object,
    rbac::{self, Gain, builtin},
    sets::{self, Rule},
    status::Status,
};

impl Admission<'_> {
    pub(super) fn admit_set(&self, before: Option<&Value>, after: &mut Value) -> Result<(), Status> {
        let name = object::name(after).to_owned();
        if after["spec"]["clusterSelector"].is_null() {
            after["spec"]["clusterSelector"] = json!({"selectorType": "ExclusiveClusterSetLabel"});
        }
        let selector = &after["spec"]["clusterSelector"];
        if sets::is_permanent(&name) && *selector != sets::permanent_spec(&name)["clusterSelector"] {
            return Err(self.forbidden(&name, &format!("the clusterSelector of the set {name:?} cannot be changed")));
        }
        if before.is_none_or(|before| before["spec"]["clusterSelector"] != *selector) {
            self.check_members(&name, before, after)?;
            self.check_gained(&name, before, after)?;
        }
        if before.is_none() {
            self.check_roles(&name)?;
            set_condition(after, Fact::SetHolds(self.info.registry.held_by(after)), self.now);
        }
        Ok(())
    }

    /// A selector moves clusters as a label does: who writes one needs the right to join the set.
    fn check_members(&self, name: &str, before: Option<&Value>, after: &Value) -> Result<(), Status> {
        let exclusive = |set: &Value| matches!(Rule::of(set), Rule::Named(_));
        if before.is_none_or(exclusive) && exclusive(after)
            || self.info.may("create", sets::GROUP, "managedclustersets/join", name)
        {
            return Ok(());
        }
        let user = self.info.user();
        Err(self.forbidden(
            name,
            &format!("user {user:?} cannot add/remove a ManagedCluster to/from ManagedClusterSet {name:?}"),
        ))
    }

    /// Whom the set is given to reaches what comes into it, now or later.
    fn check_gained(&self, name: &str, before: Option<&Value>, after: &Value) -> Result<(), Status> {
        let (was, is) = (before.map(Rule::of), Rule::of(after));
        if is.widens(was.as_ref()) {
            return self.hand_out(name, &[Gain::EveryCluster]);
        }
        let gained = self.info.registry.gained_by(&is, was.as_ref());
        let gains: Vec<_> = gained.iter().map(|cluster| Gain::Cluster(cluster.as_ref())).collect();
        self.hand_out(name, &gains)
    }

    /// The roles that a new set brings may be bound already.
    fn check_roles(&self, name: &str) -> Result<(), Status> {
        let roles = builtin::set_roles(name).map(|role| rbac::Object::parse(&role));
        let roles = roles.iter().filter_map(|role| match role {
            Ok(rbac::Object::ClusterRole(role)) => Some(Gain::NewRole(role)),
            _ => None,
        });
        self.hand_out(name, &roles.collect::<Vec<_>>())
    }

    pub(super) fn release_set(&self, before: &Value) -> Result<(), Status> {
        let name = object::name(before);
        if sets::is_permanent(name) {
            return Err(self.forbidden(name, &format!("the set {name:?} always exists")));
        }
        Ok(())
    }

    pub(super) fn admit_set_binding(&self, before: Option<&Value>, after: &mut Value) -> Result<(), Status> {
        let (name, set) = (object::name(after), after["spec"]["clusterSet"].as_str().unwrap_or_default());
        if name != set {
            return Err(Status::bad_request(
                "The ManagedClusterSetBinding must have the same name as the target ManagedClusterSet",
            ));
        }
        if before.is_none() {
            if !self.info.may("create", sets::GROUP, "managedclustersets/bind", set) {
                let why = format!("user {:?} is not allowed to bind cluster set {set:?}", self.info.user());
                return Err(self.forbidden(name, &why));
            }
            let namespace = object::metadata(after, "namespace");
            self.hand_out(name, &[Gain::Set { namespace, set }])?;
            let bound = self.info.registry.has_set(set);
            set_condition(after, Fact::Bound(bound), self.now);
        }
        Ok(())
    }
}
