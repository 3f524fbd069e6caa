//! Admission: what is added to an object before it is stored, and what its author needs rights for, kind by kind.

mod agents;
pub(crate) mod cluster;
mod core;
mod roles;
mod sets;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{object, rbac::Gain, request_info::RequestInfo, resource::Resource, status::Status, strategy};
use crate::condition::{self, Fact};

/// A write that is about to be stored.
pub(crate) struct Admission<'a> {
    pub(crate) resource: &'static Resource,
    pub(crate) info: RequestInfo<'a>,
    pub(crate) now: Timestamp,
}

impl Admission<'_> {
    /// Completes what was sent, before it is checked against its schema: what a kind allows in two forms becomes one.
    pub(crate) fn complete(&self, object: &mut Value) {
        match self.resource.plural {
            "secrets" => core::complete_secret(object),
            "rolebindings" | "clusterrolebindings" => roles::complete_binding(object),
            _ => {}
        }
    }

    /// Completes and checks what is about to be stored; `before` is `None` for a new object. Writes of a subresource
    /// are not asked about.
    pub(crate) fn admit(&self, before: Option<&Value>, after: &mut Value) -> Result<(), Status> {
        match self.resource.plural {
            "managedclusters" => self.admit_cluster(before, after),
            "managedclustersets" => self.admit_set(before, after),
            "managedclustersetbindings" => self.admit_set_binding(before, after),
            "namespaces" => {
                core::admit_namespace(before, after);
                Ok(())
            }
            "secrets" => self.admit_secret(before, after),
            "roles" | "clusterroles" => self.admit_role(before, after),
            "rolebindings" | "clusterrolebindings" => self.admit_binding(before, after),
            _ => Ok(()),
        }
    }

    /// Checks a deletion.
    pub(crate) fn release(&self, before: &Value) -> Result<(), Status> {
        match self.resource.plural {
            "managedclustersets" => self.release_set(before),
            "clusterroles" => self.check_the_hubs(object::name(before)),
            "namespaces" => self.release_namespace(before),
            _ => Ok(()),
        }
    }

    /// Refuses a write by which somebody could do what its author may not.
    fn hand_out(&self, name: &str, gains: &[Gain<'_>]) -> Result<(), Status> {
        let granted = self.info.registry.with_policy(|policy| policy.may_hand_out(self.info.caller, gains));
        granted.map_err(|lacking| {
            self.forbidden(name, &format!("{lacking}\nask for these rights, or somebody who has them"))
        })
    }

    fn forbidden(&self, name: &str, why: &str) -> Status {
        Status::forbidden(self.resource, name, why)
    }
}

/// Writes a condition into an object's status. Those of others stay as they are.
pub(crate) fn set_condition(object: &mut Value, fact: Fact, now: Timestamp) {
    let mut conditions = object["status"]["conditions"].as_array_mut().map(std::mem::take).unwrap_or_default();
    condition::set_stored(&mut conditions, fact, crate::cluster::whole_second(now));
    object["status"]["conditions"] = conditions.into();
}

/// The labels of an object; made if they are missing.
fn labels_mut(object: &mut Value) -> &mut Map<String, Value> {
    object::map_mut(strategy::metadata_mut(object).entry("labels").or_insert_with(|| json!({})))
}
