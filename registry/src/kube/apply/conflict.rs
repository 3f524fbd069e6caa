//! Fields that another manager owns and an apply would change.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use super::field_set::FieldSet;
use super::managed_fields::{ManagedFields, Manager};
use super::path::PathElement;

/// One field that someone else owns: one cause of the `Status` a client gets, with reason `FieldManagerConflict`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub manager: Manager,
    pub path: Vec<PathElement>,
}

/// All conflicts of one apply, never none, sorted by manager; its `Display` is the message that a client gets.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Conflicts(Vec<Conflict>);

impl Conflict {
    /// The cause's `message`: `conflict with "kubectl-edit" using v1`.
    pub fn message(&self) -> String {
        format!("conflict with {}", self.manager)
    }

    /// The cause's `field`: `.spec.taints[key="a"].value`.
    pub fn field(&self) -> String {
        self.path.iter().map(PathElement::to_string).collect()
    }
}

impl Conflicts {
    /// Fails when any manager owns any of the fields.
    pub(super) fn find(managed: &ManagedFields, changed: &FieldSet) -> Result<(), Self> {
        let conflicts = managed.0.iter().flat_map(|(manager, ownership)| {
            let paths = ownership.fields.intersection(changed).paths();
            paths.into_iter().map(|path| Conflict { manager: manager.clone(), path })
        });
        match conflicts.collect::<Vec<_>>() {
            conflicts if conflicts.is_empty() => Ok(()),
            conflicts => Err(Self(conflicts)),
        }
    }

    /// Those that are not about a field of the set, if any is left.
    pub(super) fn without(&self, allowed: &FieldSet) -> Option<Self> {
        let left: Vec<_> = self.0.iter().filter(|conflict| !allowed.contains(&conflict.path)).cloned().collect();
        (!left.is_empty()).then_some(Self(left))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Conflict> {
        self.0.iter()
    }
}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [conflict] = self.0.as_slice() {
            return write!(f, "Apply failed with 1 conflict: {}: {}", conflict.message(), conflict.field());
        }
        let mut by_manager: BTreeMap<&Manager, Vec<&Conflict>> = BTreeMap::new();
        for conflict in &self.0 {
            by_manager.entry(&conflict.manager).or_default().push(conflict);
        }
        let mut lines = Vec::new();
        for (manager, conflicts) in by_manager {
            lines.push(format!("conflicts with {manager}:"));
            lines.extend(conflicts.iter().map(|conflict| format!("- {}", conflict.field())));
        }
        write!(f, "Apply failed with {} conflicts: {}", self.0.len(), lines.join("\n"))
    }
}
